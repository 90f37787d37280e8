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


def upgrade():
    op.create_table(
        "customers",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("discount", sa.Text, nullable=False, server_default="0%"),
    )
    op.execute("INSERT INTO customers (name) VALUES ('Ada'), ('Grace')")


def downgrade():
    op.drop_table("customers")
