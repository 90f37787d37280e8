"""create accounts

Revision ID: 3f1a9c07be21
Revises:
Create Date: 2024-02-01 09:00:00

"""

import sqlalchemy as sa
from alembic import op

revision = "3f1a9c07be21"
down_revision = None
branch_labels = None
depends_on = None


def upgrade():
    accounts = op.create_table(
        "accounts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("email", sa.Text, nullable=False, unique=True),
        sa.Column("plan", sa.Text, nullable=False, server_default="free"),
    )
    op.bulk_insert(
        accounts,
        [
            {"email": "ada@example.com", "plan": "team"},
            {"email": "grace@example.com", "plan": "free"},
            {"email": "edsger@example.org", "plan": "team"},
        ],
    )


def downgrade():
    op.drop_table("accounts")
