"""create orders

Revision ID: 5a77262c502b
Revises: dd7c69423ad9
Create Date: 2022-11-02 09:00:00

"""

import sqlalchemy as sa
from alembic import op

revision = "5a77262c502b"
down_revision = "dd7c69423ad9"
branch_labels = None
depends_on = None


def upgrade(engine_name):
    globals()["upgrade_%s" % engine_name]()


def downgrade(engine_name):
    globals()["downgrade_%s" % engine_name]()


def upgrade_():
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("customer_id", sa.Integer, sa.ForeignKey("customers.id"), nullable=False),
        sa.Column("total", sa.Numeric(10, 2), nullable=False),
    )
    op.execute("INSERT INTO orders (customer_id, total) SELECT id, 10 * id FROM customers")


def downgrade_():
    op.drop_table("orders")


def upgrade_reporting():
    op.execute("INSERT INTO sales (day, total) VALUES ('2022-11-02', 30)")


def downgrade_reporting():
    op.execute("DELETE FROM sales WHERE day = '2022-11-02'")
