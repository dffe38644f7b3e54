"""Failures are kept beside missed objectives, with when each notifier heard of it, and that it is over."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("misses", sa.Column("run", sa.String(32)))
    op.add_column("misses", sa.Column("step", sa.String(20)))
    op.add_column("misses", sa.Column("hint", sa.Text))
    op.add_column("misses", sa.Column("relieved", sa.JSON))
    misses = sa.table("misses", sa.column("heard", sa.JSON), sa.column("told"), sa.column("ended"))
    # Names without times. What is missed now is told once more.
    op.execute(misses.update().values(heard=sa.null()))
    op.execute(misses.update().where(misses.c.ended.is_(None)).values(told=False))


def downgrade() -> None:
    raise NotImplementedError("restore the ledger from its own backup, or rebuild it from the manifests")
