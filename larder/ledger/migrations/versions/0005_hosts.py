"""Hosts that were heard of, and runs that wait for a slot."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "hosts",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("seen", moment, nullable=False),
        sa.Column("since", moment, nullable=False),
    )
    op.add_column("runs", sa.Column("server", sa.Text))
    op.add_column("runs", sa.Column("waits", sa.String(20)))
    op.add_column("runs", sa.Column("spooled", sa.BigInteger))
    active = sa.text("state IN ('queued', 'running')")
    op.create_index("runs_under_way", "runs", ["state"], sqlite_where=active, postgresql_where=active)


def downgrade() -> None:
    raise NotImplementedError("restore the ledger from its own backup, or rebuild it from the manifests")
