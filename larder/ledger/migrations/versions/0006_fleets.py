"""Indexes for the questions that guards ask each minute, of ten thousand databases and years of backups."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.drop_index("runs_under_way", "runs")
    op.create_index("runs_by_state", "runs", ["state", "finished"])
    op.drop_index("ix_backups_database", "backups")
    op.create_index("backups_by_time", "backups", ["database", "created", "proof"])
    op.drop_index("ix_drills_database", "drills")
    op.create_index("drills_by_time", "drills", ["database", "created"])


def downgrade() -> None:
    raise NotImplementedError("restore the ledger from its own backup, or rebuild it from the manifests")
