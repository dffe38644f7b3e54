"""Runs of several kinds, one within another; restores that were asked for, their approvals, and the audit trail."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ACTIVE = sa.text("state IN ('queued', 'running')")


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.add_column("runs", sa.Column("kind", sa.String(10), nullable=False, server_default="backup"))
    op.add_column("runs", sa.Column("parent", sa.String(32)))
    op.add_column("runs", sa.Column("holds", sa.Text))
    op.execute("UPDATE runs SET holds = database")
    op.create_index("ix_runs_parent", "runs", ["parent"])
    op.drop_index("one_active_run_per_database", "runs")
    op.create_index(
        "one_active_run_that_holds",
        "runs",
        ["holds"],
        unique=True,
        sqlite_where=_ACTIVE,
        postgresql_where=_ACTIVE,
    )
    _requests(moment)
    _approvals(moment)
    _audit()


def _requests(moment: sa.DateTime) -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.String(12), primary_key=True),
        sa.Column("backup", sa.String(80), nullable=False),
        sa.Column("database", sa.String(63), nullable=False, index=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("state", sa.String(10), nullable=False, index=True),
        sa.Column("requested", moment, nullable=False),
        sa.Column("expires", moment, nullable=False),
        sa.Column("undoes", sa.String(12)),
        sa.Column("run", sa.String(32), index=True),
        sa.Column("safety", sa.String(80)),
        sa.Column("leftover", sa.Boolean, nullable=False),
        sa.Column("swapping", sa.Boolean, nullable=False),
        sa.Column("kept", sa.JSON),
        sa.Column("kept_until", moment),
        sa.Column("finished", moment),
        sa.Column("note", sa.Text),
    )


def _approvals(moment: sa.DateTime) -> None:
    op.create_table(
        "approvals",
        sa.Column("token_id", sa.String(64), primary_key=True),
        sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("request", sa.String(12), sa.ForeignKey("requests.id"), nullable=False, index=True),
        sa.Column("document", sa.String(64), nullable=False),
        sa.Column("approver", sa.String(63), nullable=False),
        sa.Column("public_key", sa.String(44), nullable=False),
        sa.Column("issued", moment, nullable=False),
        sa.Column("expires", moment, nullable=False),
        sa.Column("presented", moment, nullable=False),
        sa.Column("run", sa.String(32), nullable=False, unique=True),
        sa.Column("spent", moment),
    )


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("moment", sa.String(32), nullable=False),
        sa.Column("event", sa.String(30), nullable=False),
        sa.Column("request", sa.String(12), index=True),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False, unique=True),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION larder_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit trail is append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION larder_audit_is_append_only()"
        )
        return
    for what in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_refuses_{what.lower()} BEFORE {what} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END"
        )


def downgrade() -> None:
    raise NotImplementedError("restore the ledger from its own backup, or rebuild it from the manifests")
