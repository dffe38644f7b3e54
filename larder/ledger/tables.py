"""The ledger's tables. A change here goes with a new file in `migrations/versions`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
    text,
)
from sqlalchemy.types import TypeDecorator

#: States of a run in which it holds its database: no other run of that database may begin.
ACTIVE = ("queued", "running")


class Moment(TypeDecorator[datetime]):
    """A time in UTC. SQLite forgets time zones, so they are taken off on the way in and put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    #: Which chain it passes through: `backup`, `restore`, `drill`.
    Column("kind", String(10), nullable=False),
    Column("database", String(63), nullable=False),
    Column("stamp", String(15), nullable=False),
    #: The run whose chain this one is a part of: a safety backup's restore.
    Column("parent", String(32), index=True),
    #: What no other active run may hold at the same time; a part of another run holds nothing of its own.
    Column("holds", Text),
    Column("trigger", String(20), nullable=False),
    Column("slot", Moment),
    Column("state", String(10), nullable=False),
    Column("step", String(20)),
    #: Grows with each start of a step. Every commit is guarded by it, so that a zombie's changes nothing.
    Column("attempt", Integer, nullable=False),
    Column("host", String(80)),
    #: Who does not commit or renew by then is taken for lost.
    Column("lease_until", Moment, nullable=False),
    Column("created", Moment, nullable=False),
    Column("finished", Moment),
    Column("artifact", String(255)),
    Column("progress", Text),
    Column("failed_step", String(20)),
    Column("error", Text),
    Column("hint", Text),
    Column("exit_code", Integer),
    Column("warnings", JSON, nullable=False),
    #: The database server that its dump reads, without user and secrets; null for a file, and before it was known.
    Column("server", Text),
    #: What its dump waits for a slot of: `server`, `host`, `spool`; null: nothing.
    Column("waits", String(20)),
    #: Bytes that its dump and its artifact took up in the spool.
    Column("spooled", BigInteger),
    UniqueConstraint("database", "stamp", name="one_run_per_stamp"),
    UniqueConstraint("database", "slot", name="one_run_per_slot"),
    Index("runs_by_time", "database", "created"),
    #: Whole: SQLite uses one with a condition only where a query spells that out, and queries bind their values.
    Index("runs_by_state", "state", "finished"),
    #: The few that wait for a slot: to ask for one kind is to ask for rows that have any.
    Index(
        "runs_that_wait",
        "waits",
        "created",
        sqlite_where=text("waits IS NOT NULL"),
        postgresql_where=text("waits IS NOT NULL"),
    ),
    Index(
        "one_active_run_that_holds",
        "holds",
        unique=True,
        sqlite_where=text("state IN ('queued', 'running')"),
        postgresql_where=text("state IN ('queued', 'running')"),
    ),
)

#: That a run is active, word by word as `one_active_run_that_holds` has it: SQLite uses an index with a condition only
#: where a query spells that out, and looks through all that is under way otherwise.
UNDER_WAY = runs.c.state.in_([literal_column(f"'{state}'") for state in ACTIVE])

steps = Table(
    "steps",
    metadata,
    Column("run", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(20), primary_key=True),
    #: The store that an upload is for; empty for every other link.
    Column("store", String(63), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("state", String(10), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("started", Moment),
    Column("finished", Moment),
    #: Of the attempt that succeeded, or else of the last one.
    Column("seconds", Float),
    Column("error", Text),
)

backups = Table(
    "backups",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("database", String(63), nullable=False),
    Column("run", String(32), nullable=False),
    Column("engine", String(20), nullable=False),
    Column("created", Moment, nullable=False),
    Column("artifact", String(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("raw_size", BigInteger, nullable=False),
    #: The SHA-256 of the manifest's bytes, which the next backup's manifest names.
    Column("manifest", String(64)),
    Column("proof", String(10), nullable=False),
    #: What its last drill found, `proven` or `broken`; null where none has found anything. `proof` goes by it.
    Column("drilled", String(10)),
    Column("pinned", Boolean, nullable=False),
    Index("backups_by_time", "database", "created", "proof"),
    #: The newest of whatever database.
    Index("backups_by_age", "created", "id"),
)

copies = Table(
    "copies",
    metadata,
    Column("backup", ForeignKey("backups.id", ondelete="CASCADE"), primary_key=True),
    Column("store", String(63), primary_key=True),
    Column("key", String(400), nullable=False),
    #: When it was last read to its end; null where this ledger has only its manifest's word.
    Column("verified", Moment),
    #: What was wrong with it then.
    Column("problem", Text),
    Index("copies_by_verification", "verified"),
)

#: The machines whose workers say that they are there: when last, and since when without a gap.
hosts = Table(
    "hosts",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("seen", Moment, nullable=False),
    Column("since", Moment, nullable=False),
)

#: What was deleted on purpose: a backup that is gone and is not in here was taken away by somebody else.
removed = Table(
    "removed",
    metadata,
    Column("backup", String(80), primary_key=True),
    Column("store", String(63), primary_key=True),
    Column("database", String(63), nullable=False, index=True),
    Column("moment", Moment, nullable=False),
    Column("reason", Text, nullable=False),
)

#: When the newest backup had been made as somebody said that a database is as small as it should be.
accepted = Table(
    "accepted",
    metadata,
    Column("database", String(63), primary_key=True),
    Column("moment", Moment, nullable=False),
)

#: The keys that this ledger's hosts sign manifests with, and those found by a rebuild.
signers = Table(
    "signers",
    metadata,
    Column("public_key", String(44), primary_key=True),
    Column("name", String(80), nullable=False),
    Column("since", Moment, nullable=False),
)

#: What has been started by the clock, beside runs: two schedulers that fire for one slot start it once.
slots = Table(
    "slots",
    metadata,
    Column("task", String(80), primary_key=True),
    Column("slot", Moment, primary_key=True),
)

lines = Table(
    "lines",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("run", ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("moment", Moment, nullable=False),
    Column("level", String(7), nullable=False),
    Column("text", Text, nullable=False),
)

#: Restores that somebody asked for. The document is what was asked, word by word; approvals are bound to its SHA-256.
requests = Table(
    "requests",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("backup", String(80), nullable=False),
    #: The configured database that it goes into, or else the one that the backup is of.
    Column("database", String(63), nullable=False, index=True),
    Column("document", Text, nullable=False),
    Column("state", String(10), nullable=False, index=True),
    Column("requested", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
    #: The request that this one takes back.
    Column("undoes", String(12)),
    Column("run", String(32), index=True),
    Column("safety", String(80)),
    #: Whether something that `load` built may be there still, beside the target.
    Column("leftover", Boolean, nullable=False),
    #: Whether the exchange may have been made: from then on only the target itself can tell.
    Column("swapping", Boolean, nullable=False),
    #: What was replaced (name, identity, size), and until when it is kept.
    Column("kept", JSON),
    Column("kept_until", Moment),
    Column("finished", Moment),
    #: Why it was denied, or failed.
    Column("note", Text),
)

#: Approvals as they were handed in. A token is good once: its id is in here from then on.
approvals = Table(
    "approvals",
    metadata,
    Column("token_id", String(64), primary_key=True),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("request", ForeignKey("requests.id"), nullable=False, index=True),
    #: The SHA-256 of the document that was approved.
    Column("document", String(64), nullable=False),
    Column("approver", String(63), nullable=False),
    Column("public_key", String(44), nullable=False),
    Column("issued", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
    Column("presented", Moment, nullable=False),
    Column("run", String(32), nullable=False, unique=True),
    #: When the run's own `authorize` took it, which it can once.
    Column("spent", Moment),
)

#: Who did what about restores. Rows are added and never changed, which triggers see to; each holds the hash of the one
#: before it.
audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("moment", String(32), nullable=False),
    Column("event", String(30), nullable=False),
    Column("request", String(12), index=True),
    Column("actor", Text, nullable=False),
    #: Canonical JSON.
    Column("facts", Text, nullable=False),
    Column("previous", String(64), nullable=False, unique=True),
    Column("hash", String(64), nullable=False, unique=True),
)

#: Restores that were made to see that a backup restores, and what they found.
drills = Table(
    "drills",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("backup", String(80), nullable=False, index=True),
    Column("database", String(63), nullable=False),
    Column("trigger", String(20), nullable=False),
    #: The store that it is fetched from.
    Column("store", String(63)),
    Column("created", Moment, nullable=False),
    Column("finished", Moment),
    #: `proven`, `broken` (what came back is not what was there), `failed` (nothing was proven); null: under way.
    Column("outcome", String(10)),
    #: How closely was compared: `schema`, `rows`, `content`.
    Column("level", String(10)),
    Column("tables", Integer),
    Column("rows", BigInteger),
    #: By object, expected against found; a line each.
    Column("differences", JSON),
    #: What the proof does not say; a line each.
    Column("not_covered", JSON),
    #: How long each of its links took.
    Column("seconds", JSON),
    #: From the store to a database that was examined.
    Column("recovery_seconds", Float),
    #: Why it failed.
    Column("error", Text),
    Index("drills_by_time", "database", "created"),
)

#: Objectives that a database did not keep to, and what has failed of it, and until when. One is open at a time.
misses = Table(
    "misses",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("database", String(63), nullable=False, index=True),
    #: `rpo`, `proof`, `rto`; or what has failed: `backup`, `copies`, `drill`.
    Column("objective", String(20), nullable=False),
    Column("detail", Text, nullable=False),
    Column("since", Moment, nullable=False),
    Column("ended", Moment),
    #: Whether nobody is to be told any more.
    Column("told", Boolean, nullable=False),
    #: When each notifier was told of it last, and that it is over, by the notifier's name.
    Column("heard", JSON),
    Column("relieved", JSON),
    #: The last run that has failed of it, at which step, and what can be done.
    Column("run", String(32)),
    Column("step", String(20)),
    Column("hint", Text),
    Index(
        "one_open_miss",
        "database",
        "objective",
        unique=True,
        sqlite_where=text("ended IS NULL"),
        postgresql_where=text("ended IS NULL"),
    ),
    Index("misses_by_end", "ended"),
)
