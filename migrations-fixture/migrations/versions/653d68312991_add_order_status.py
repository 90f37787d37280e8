"""add order status (broken)

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


def upgrade():
    op.add_column("orders", sa.Column("status", sa.Text, nullable=False, server_default="open"))
    op.execute("UPDATE orders SET state = 'paid' WHERE total > 10")


def downgrade():
    op.drop_column("orders", "status")
