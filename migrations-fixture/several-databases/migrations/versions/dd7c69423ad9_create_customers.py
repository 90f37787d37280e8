"""create customers

Revision ID: dd7c69423ad9
Revises: 
Create Date: 2022-11-01 09:00:00

"""

import sqlalchemy as sa
from alembic import op

revision = "dd7c69423ad9"
down_revision = None
branch_labels = None
depends_on = None


def upgrade(engine_name):
    globals()["upgrade_%s" % engine_name]()


def downgrade(engine_name):
    globals()["downgrade_%s" % engine_name]()


def upgrade_():
    op.create_table(
        "customers",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
    )
    op.execute("INSERT INTO customers (name) VALUES ('Ada'), ('Grace')")


def downgrade_():
    op.drop_table("customers")


def upgrade_reporting():
    op.create_table(
        "sales",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("total", sa.Numeric(10, 2), nullable=False),
    )


def downgrade_reporting():
    op.drop_table("sales")
