"""record visits (violates a deferred constraint in reporting)

Revision ID: 9b60d3f5e812
Revises: 2f8e11c0a7d4
Create Date: 2022-11-08 09:00:00

"""

import sqlalchemy as sa
from alembic import op

revision = "9b60d3f5e812"
down_revision = "2f8e11c0a7d4"
branch_labels = None
depends_on = None


def upgrade(engine_name):
    globals()["upgrade_%s" % engine_name]()


def downgrade(engine_name):
    globals()["downgrade_%s" % engine_name]()


def upgrade_():
    op.execute("INSERT INTO shops VALUES (1), (2)")


def downgrade_():
    op.execute("DELETE FROM shops")


def upgrade_reporting():
    # There is no visit 2: PostgreSQL says so at the COMMIT, and not before.
    op.execute("INSERT INTO visits VALUES (1, 2)")


def downgrade_reporting():
    op.execute("DELETE FROM visits")
