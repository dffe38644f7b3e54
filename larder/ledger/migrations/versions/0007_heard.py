"""Which notifiers have heard how a miss stands: one that is away hears of it later."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("misses", sa.Column("heard", sa.JSON))


def downgrade() -> None:
    raise NotImplementedError("restore the ledger from its own backup, or rebuild it from the manifests")
