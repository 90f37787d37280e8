"""give every mail domain a row

Revision ID: 8c24d5e6f7a0
Revises: 3f1a9c07be21
Create Date: 2024-02-02 09:00:00

"""

import sqlalchemy as sa
from alembic import op

revision = "8c24d5e6f7a0"
down_revision = "3f1a9c07be21"
branch_labels = None
depends_on = None


def upgrade():
    bind = op.get_bind()
    if "domains" not in sa.inspect(bind).get_table_names():
        op.create_table(
            "domains",
            sa.Column("name", sa.Text, primary_key=True),
            sa.Column("accounts", sa.Integer, nullable=False),
        )
    counts = {}
    for (email,) in bind.execute(sa.text("SELECT email FROM accounts WHERE plan = :plan"), {"plan": "team"}):
        domain = email.split("@")[1]
        counts[domain] = counts.get(domain, 0) + 1
    for name, accounts in sorted(counts.items()):
        bind.execute(
            sa.text("INSERT INTO domains (name, accounts) VALUES (:name, :accounts)"),
            {"name": name, "accounts": accounts},
        )


def downgrade():
    op.drop_table("domains")
