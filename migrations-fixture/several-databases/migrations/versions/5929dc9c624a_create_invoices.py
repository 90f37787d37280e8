"""create invoices

Revision ID: 5929dc9c624a
Revises: 653d68312991
Create Date: 2022-11-04 09:00:00

"""

import sqlalchemy as sa
from alembic import op

revision = "5929dc9c624a"
down_revision = "653d68312991"
branch_labels = None
depends_on = None


def upgrade(engine_name):
    globals()["upgrade_%s" % engine_name]()


def downgrade(engine_name):
    globals()["downgrade_%s" % engine_name]()


def upgrade_():
    op.create_table("invoices", sa.Column("id", sa.Integer, primary_key=True))


def downgrade_():
    op.drop_table("invoices")


def upgrade_reporting():
    pass


def downgrade_reporting():
    pass
