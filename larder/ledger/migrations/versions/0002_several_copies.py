"""An upload link for each store, what is known of each copy, what was removed, what was accepted, signers, slots."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_STEP = ("run", "name", "position", "state", "attempts", "started", "finished", "seconds", "error")


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    _give_steps_a_store(moment)
    op.add_column("backups", sa.Column("manifest", sa.String(64)))
    with op.batch_alter_table("copies") as copies:
        copies.alter_column("verified", existing_type=moment, nullable=True)
        copies.add_column(sa.Column("problem", sa.Text))
        copies.create_index("copies_by_verification", ["verified"])
    op.create_table(
        "removed",
        sa.Column("backup", sa.String(80), primary_key=True),
        sa.Column("store", sa.String(63), primary_key=True),
        sa.Column("database", sa.String(63), nullable=False, index=True),
        sa.Column("moment", moment, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_table(
        "accepted",
        sa.Column("database", sa.String(63), primary_key=True),
        sa.Column("moment", moment, nullable=False),
    )
    op.create_table(
        "signers",
        sa.Column("public_key", sa.String(44), primary_key=True),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("since", moment, nullable=False),
    )
    op.create_table(
        "slots",
        sa.Column("task", sa.String(30), primary_key=True),
        sa.Column("slot", moment, primary_key=True),
    )


def _give_steps_a_store(moment: sa.DateTime) -> None:
    """A primary key cannot be changed in place on SQLite. Runs that were over keep one upload for all their stores."""
    op.create_table(
        "steps_with_store",
        sa.Column("run", sa.String(32), sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.String(20), primary_key=True),
        sa.Column("store", sa.String(63), primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("started", moment),
        sa.Column("finished", moment),
        sa.Column("seconds", sa.Float),
        sa.Column("error", sa.Text),
    )
    columns = ", ".join(_STEP)
    op.execute(f"INSERT INTO steps_with_store (store, {columns}) SELECT '', {columns} FROM steps")  # noqa: S608
    op.drop_table("steps")
    op.rename_table("steps_with_store", "steps")


def downgrade() -> None:
    raise NotImplementedError("restore the ledger from its own backup, or rebuild it from the manifests")
