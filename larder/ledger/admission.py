"""Admission: which dumps may run at a time. One that may not yet waits, and is sent again once another has ended.

A database server serves so many dumps, a host makes so many, and the spool has room for so much. Each is decided in the
transaction that gives the lease, so that no two decide at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from larder.ledger import tables
from larder.ledger.runs import QUEUE_PATIENCE, Run, Runs

#: What a dump can wait for.
Wait = Literal["server", "host", "spool"]

#: The link that is admitted.
DUMP = "dump"

#: Any number that no other user of the same PostgreSQL takes for its own lock: "dumps" in ASCII.
_ADVISORY_LOCK = int.from_bytes(b"dumps")


@dataclass(frozen=True)
class Room:
    """What a host has for one more dump."""

    #: The server that it reads; None for a file.
    server: str | None
    per_server: int
    #: None: as many as its workers can.
    per_host: int | None
    #: Bytes that the database's last backup took in the spool; None where there was none.
    needed: int | None
    #: Bytes that the spool may still grow by, as things are now.
    free: int
    #: Bytes that each run has in the spool now, by its id.
    used: Mapping[str, int]


class Admission:
    """The waiting room of a ledger."""

    def __init__(self, engine: sa.Engine, runs: Runs) -> None:
        self._engine = engine
        self._runs = runs

    def expected(self, database: str) -> int | None:
        """Bytes that the database's newest good backup took in the spool; None where nobody has measured one."""
        with self._engine.connect().execution_options(reads=True) as connection:
            return connection.execute(_EXPECTED, {"this_database": database}).scalar()

    def waiting(self, wait: Wait, server: str | None = None, limit: int = 1) -> list[Run]:
        """The runs that have waited longest for a slot of this kind."""
        runs = tables.runs.c
        wanted = [runs.waits == wait, runs.state.in_(tables.ACTIVE)]
        if server is not None:
            wanted.append(runs.server == server)
        query = sa.select(runs.id).where(*wanted).order_by(runs.created).limit(limit)
        with self._engine.connect().execution_options(reads=True) as connection:
            return [self._runs.get(run_id) for run_id in connection.execute(query).scalars()]

    def anybody_waits(self) -> bool:
        """Whether a run waits for a slot of any kind."""
        with self._engine.connect().execution_options(reads=True) as connection:
            return connection.execute(_ANYBODY_WAITS).scalar() is not None

    def servers(self) -> dict[str, int]:
        """The servers that runs wait for, and how many dumps each serves now."""
        runs = tables.runs.c
        query = sa.select(runs.server).where(runs.waits == "server", runs.state.in_(tables.ACTIVE)).distinct()
        with self._engine.connect().execution_options(reads=True) as connection:
            now = datetime.now(UTC)
            return {
                server: _served(connection, server, now) for server in connection.execute(query).scalars()
            }

    def serves(self, server: str) -> int:
        """How many dumps a server serves now."""
        with self._engine.connect().execution_options(reads=True) as connection:
            return _served(connection, server, datetime.now(UTC))

    def release(self, run: Run) -> bool:
        """Claim the right to send a waiting run's dump again; of several who try, one gets it."""
        with self._engine.begin() as connection:
            released = connection.execute(
                tables.runs.update()
                .where(
                    tables.runs.c.id == run.id,
                    tables.runs.c.waits == run.waits,
                    tables.runs.c.state.in_(tables.ACTIVE),
                )
                .values(waits=None, progress=None, lease_until=datetime.now(UTC) + QUEUE_PATIENCE)
            )
        return released.rowcount > 0

    def hold(self) -> None:
        """Note that the runs that wait are not lost, however long it takes."""
        with self._engine.begin() as connection:
            connection.execute(
                tables.runs.update()
                .where(tables.runs.c.waits.is_not(None), tables.runs.c.state.in_(tables.ACTIVE))
                .values(lease_until=datetime.now(UTC) + QUEUE_PATIENCE)
            )


def admit(
    connection: sa.Connection, run_id: str, host: str, room: Room, now: datetime
) -> tuple[dict[str, Any], Wait | None]:
    """Let a run's dump begin on `host`, inside the caller's transaction, or have it wait.

    Gives what of the run has changed, and what it waits for.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    wait: Wait | None = None
    here = _spooling(connection, run_id, host)
    if room.server is not None and _is_full(connection, run_id, room.server, room.per_server, now):
        wait = "server"
    elif room.per_host is not None and _made(connection, host, now, run_id) >= room.per_host:
        wait = "host"
    elif here and (room.needed or 0) > room.free - _promised(here, room.used):
        # They give room back when they are done. Where nobody else is at it, whoever dumps says what is missing.
        wait = "spool"
    values: dict[str, Any] = {"server": room.server, "waits": wait, "spooled": room.needed}
    if wait:
        values |= {"progress": _WORDS[wait], "lease_until": now + QUEUE_PATIENCE}
    connection.execute(_ADMIT, {"this_run": run_id, **values})
    return values, wait


#: What people read meanwhile.
_WORDS: dict[Wait, str] = {
    "server": "waits for another dump of its server to end",
    "host": "waits for another dump of its host to end",
    "spool": "waits for room in the spool",
}


#: Made once: each dump needs them all, and a statement that is made anew takes longer than what it asks.
_RUNS, _THIS = tables.runs.c, tables.runs.alias("this")

_EXPECTED = (
    sa.select(_RUNS.spooled)
    .where(
        _RUNS.database == sa.bindparam("this_database"),
        _RUNS.kind == "backup",
        _RUNS.state == "stored",
        _RUNS.spooled.is_not(None),
    )
    .order_by(_RUNS.created.desc())
    .limit(1)
)

#: Each kind by name: what leads to them is an index of these words, and not the state of thousands in a flood.
_ANYBODY_WAITS = (
    sa.select(_RUNS.id).where(_RUNS.waits.in_(_WORDS), _RUNS.state.concat("").in_(tables.ACTIVE)).limit(1)
)

_ADMIT = tables.runs.update().where(_RUNS.id == sa.bindparam("this_run"))

_OTHER = _RUNS.id != sa.bindparam("this_run")
_SAME_SERVER = _RUNS.server == sa.bindparam("this_server")
_SAME_HOST = _RUNS.host == sa.bindparam("this_host")

#: The dumps that are being made. One whose lease ran out died with its worker.
_AT_WORK = (
    sa.select(sa.func.count())
    .select_from(tables.runs)
    .join(tables.steps, tables.steps.c.run == _RUNS.id)
    .where(
        _OTHER,
        _RUNS.state == "running",
        _RUNS.lease_until > sa.bindparam("now"),
        tables.steps.c.name == DUMP,
        tables.steps.c.state == "running",
    )
)
_SERVED, _MADE = _AT_WORK.where(_SAME_SERVER), _AT_WORK.where(_SAME_HOST)

_BEFORE = (
    sa.select(sa.func.count())
    .select_from(tables.runs)
    .join(_THIS, _THIS.c.id == sa.bindparam("this_run"))
    .where(
        _OTHER,
        _SAME_SERVER,
        _RUNS.waits == "server",
        _RUNS.state.in_(tables.ACTIVE),
        _RUNS.created < _THIS.c.created,
    )
)

_SPOOLING = sa.select(_RUNS.id, _RUNS.spooled).where(
    _OTHER, _SAME_HOST, _RUNS.state == "running", _RUNS.waits.is_(None)
)


def _served(connection: sa.Connection, server: str, now: datetime, but: str = "") -> int:
    """How many dumps a server serves, those of the run `but` apart."""
    given = {"this_server": server, "this_run": but, "now": now}
    return int(connection.execute(_SERVED, given).scalar_one())


def _made(connection: sa.Connection, host: str, now: datetime, but: str) -> int:
    """How many dumps a host makes, those of the run `but` apart."""
    return int(connection.execute(_MADE, {"this_host": host, "this_run": but, "now": now}).scalar_one())


def _is_full(connection: sa.Connection, run_id: str, server: str, most: int, now: datetime) -> bool:
    """Whether a server serves as many dumps as it may, those included that were there before and wait."""
    at_work = _served(connection, server, now, run_id)
    if at_work >= most:
        return True
    before = connection.execute(_BEFORE, {"this_run": run_id, "this_server": server}).scalar_one()
    return at_work + int(before) >= most


def _spooling(connection: sa.Connection, run_id: str, host: str) -> Sequence[tuple[str, int | None]]:
    """The other runs that have something in the spool of a host, and how much each is expected to have."""
    rows = connection.execute(_SPOOLING, {"this_run": run_id, "this_host": host})
    return [(found, spooled) for found, spooled in rows]


def _promised(others: Sequence[tuple[str, int | None]], used: Mapping[str, int]) -> int:
    """Bytes that other runs are still going to take of what is free now."""
    return sum(max((spooled or 0) - used.get(run_id, 0), 0) for run_id, spooled in others)
