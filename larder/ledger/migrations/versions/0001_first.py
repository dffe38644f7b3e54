"""Runs, steps, backups, copies, and the lines that runs wrote."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "runs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("database", sa.String(63), nullable=False),
        sa.Column("stamp", sa.String(15), nullable=False),
        sa.Column("trigger", sa.String(20), nullable=False),
        sa.Column("slot", moment),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("step", sa.String(20)),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("host", sa.String(80)),
        sa.Column("lease_until", moment, nullable=False),
        sa.Column("created", moment, nullable=False),
        sa.Column("finished", moment),
        sa.Column("artifact", sa.String(255)),
        sa.Column("progress", sa.Text),
        sa.Column("failed_step", sa.String(20)),
        sa.Column("error", sa.Text),
        sa.Column("hint", sa.Text),
        sa.Column("exit_code", sa.Integer),
        sa.Column("warnings", sa.JSON, nullable=False),
        sa.UniqueConstraint("database", "stamp", name="one_run_per_stamp"),
        sa.UniqueConstraint("database", "slot", name="one_run_per_slot"),
    )
    op.create_index("runs_by_time", "runs", ["database", "created"])
    active = sa.text("state IN ('queued', 'running')")
    op.create_index(
        "one_active_run_per_database",
        "runs",
        ["database"],
        unique=True,
        sqlite_where=active,
        postgresql_where=active,
    )
    op.create_table(
        "steps",
        sa.Column("run", sa.String(32), sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.String(20), primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("started", moment),
        sa.Column("finished", moment),
        sa.Column("seconds", sa.Float),
        sa.Column("error", sa.Text),
    )
    op.create_table(
        "backups",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("database", sa.String(63), nullable=False, index=True),
        sa.Column("run", sa.String(32), nullable=False),
        sa.Column("engine", sa.String(20), nullable=False),
        sa.Column("created", moment, nullable=False),
        sa.Column("artifact", sa.String(255), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("raw_size", sa.BigInteger, nullable=False),
        sa.Column("proof", sa.String(10), nullable=False),
        sa.Column("pinned", sa.Boolean, nullable=False),
    )
    op.create_table(
        "copies",
        sa.Column("backup", sa.String(80), sa.ForeignKey("backups.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("store", sa.String(63), primary_key=True),
        sa.Column("key", sa.String(400), nullable=False),
        sa.Column("verified", moment, nullable=False),
    )
    op.create_table(
        "lines",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column(
            "run", sa.String(32), sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True
        ),
        sa.Column("moment", moment, nullable=False),
        sa.Column("level", sa.String(7), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )


def downgrade() -> None:
    for table in ("lines", "copies", "backups", "steps", "runs"):
        op.drop_table(table)
