"""limit the accounts of a domain

Revision ID: b7e0aa41d9c3
Revises: 8c24d5e6f7a0
Create Date: 2024-02-03 09:00:00

"""

import sqlalchemy as sa
from alembic import op

revision = "b7e0aa41d9c3"
down_revision = "8c24d5e6f7a0"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("domains", sa.Column("account_limit", sa.Integer, nullable=False, server_default="10"))
    op.execute("UPDATE domains SET account_limit = 100 WHERE name LIKE '%.com'")


def downgrade():
    op.drop_column("domains", "account_limit")
