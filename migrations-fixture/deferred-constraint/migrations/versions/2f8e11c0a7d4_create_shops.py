"""create shops

Revision ID: 2f8e11c0a7d4
Revises: 
Create Date: 2022-11-07 09:00:00

"""

import sqlalchemy as sa
from alembic import op

revision = "2f8e11c0a7d4"
down_revision = None
branch_labels = None
depends_on = None


def upgrade(engine_name):
    globals()["upgrade_%s" % engine_name]()


def downgrade(engine_name):
    globals()["downgrade_%s" % engine_name]()


def upgrade_():
    op.create_table("shops", sa.Column("id", sa.Integer, primary_key=True))


def downgrade_():
    op.drop_table("shops")


def upgrade_reporting():
    op.execute("CREATE TABLE visits (id int PRIMARY KEY, previous int REFERENCES visits DEFERRABLE INITIALLY DEFERRED)")


def downgrade_reporting():
    op.drop_table("visits")
