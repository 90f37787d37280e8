"""add status (broken in reporting)

Revision ID: 653d68312991
Revises: 5a77262c502b
Create Date: 2022-11-03 09:00:00

"""

import sqlalchemy as sa
from alembic import op

revision = "653d68312991"
down_revision = "5a77262c502b"
branch_labels = None
depends_on = None


def upgrade(engine_name):
    globals()["upgrade_%s" % engine_name]()


def downgrade(engine_name):
    globals()["downgrade_%s" % engine_name]()


def upgrade_():
    op.add_column("orders", sa.Column("status", sa.Text, nullable=False, server_default="open"))


def downgrade_():
    op.drop_column("orders", "status")


def upgrade_reporting():
    op.add_column("sales", sa.Column("status", sa.Text, nullable=False, server_default="open"))
    op.execute("UPDATE sales SET state = 'closed'")


def downgrade_reporting():
    op.drop_column("sales", "status")
