"""Indexes for what each backup asks: the newest copies of a store, who waits for a dump, what is missed."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_index("backups_by_age", "backups", ["created", "id"])
    op.create_index("misses_by_end", "misses", ["ended"])
    some = sa.text("waits IS NOT NULL")
    op.create_index("runs_that_wait", "runs", ["waits", "created"], sqlite_where=some, postgresql_where=some)


def downgrade() -> None:
    raise NotImplementedError("restore the ledger from its own backup, or rebuild it from the manifests")
