"""Drills and what they found, and objectives that were missed."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.add_column("backups", sa.Column("drilled", sa.String(10)))
    op.create_table(
        "drills",
        sa.Column("run", sa.String(32), sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("backup", sa.String(80), nullable=False, index=True),
        sa.Column("database", sa.String(63), nullable=False, index=True),
        sa.Column("trigger", sa.String(20), nullable=False),
        sa.Column("store", sa.String(63)),
        sa.Column("created", moment, nullable=False),
        sa.Column("finished", moment),
        sa.Column("outcome", sa.String(10)),
        sa.Column("level", sa.String(10)),
        sa.Column("tables", sa.Integer),
        sa.Column("rows", sa.BigInteger),
        sa.Column("differences", sa.JSON),
        sa.Column("not_covered", sa.JSON),
        sa.Column("seconds", sa.JSON),
        sa.Column("recovery_seconds", sa.Float),
        sa.Column("error", sa.Text),
    )
    op.create_table(
        "misses",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("database", sa.String(63), nullable=False, index=True),
        sa.Column("objective", sa.String(20), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("since", moment, nullable=False),
        sa.Column("ended", moment),
        sa.Column("told", sa.Boolean, nullable=False),
    )
    open_only = sa.text("ended IS NULL")
    op.create_index(
        "one_open_miss",
        "misses",
        ["database", "objective"],
        unique=True,
        sqlite_where=open_only,
        postgresql_where=open_only,
    )
    if op.get_bind().dialect.name == "postgresql":
        # SQLite does not look at lengths.
        op.alter_column("slots", "task", type_=sa.String(80))


def downgrade() -> None:
    raise NotImplementedError("restore the ledger from its own backup, or rebuild it from the manifests")
