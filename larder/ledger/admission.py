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
        query = (
            sa.select(tables.runs.c.spooled)
            .where(
                tables.runs.c.database == database,
                tables.runs.c.kind == "backup",
                tables.runs.c.state == "stored",
                tables.runs.c.spooled.is_not(None),
            )
            .order_by(tables.runs.c.created.desc())
            .limit(1)
        )
        with self._engine.connect().execution_options(reads=True) as connection:
            return connection.execute(query).scalar()

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
        runs = tables.runs.c
        # Each kind by name: what leads to them is an index of these words, and not the state of thousands in a flood.
        active = runs.state.concat("").in_(tables.ACTIVE)
        query = sa.select(runs.id).where(runs.waits.in_(_WORDS), active).limit(1)
        with self._engine.connect().execution_options(reads=True) as connection:
            return connection.execute(query).scalar() is not None

    def servers(self) -> dict[str, int]:
        """The servers that runs wait for, and how many dumps each serves now."""
        runs = tables.runs.c
        query = sa.select(runs.server).where(runs.waits == "server", runs.state.in_(tables.ACTIVE)).distinct()
        with self._engine.connect().execution_options(reads=True) as connection:
            now = datetime.now(UTC)
            return {
                server: _at_work(connection, runs.server == server, now)
                for server in connection.execute(query).scalars()
            }

    def serves(self, server: str) -> int:
        """How many dumps a server serves now."""
        with self._engine.connect().execution_options(reads=True) as connection:
            return _at_work(connection, tables.runs.c.server == server, datetime.now(UTC))

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
    runs = tables.runs.c
    others = runs.id != run_id
    wait: Wait | None = None
    here = _spooling(connection, run_id, host)
    if room.server is not None and _is_full(connection, run_id, room, now):
        wait = "server"
    elif (
        room.per_host is not None
        and _at_work(connection, sa.and_(others, runs.host == host), now) >= room.per_host
    ):
        wait = "host"
    elif here and (room.needed or 0) > room.free - _promised(here, room.used):
        # They give room back when they are done. Where nobody else is at it, whoever dumps says what is missing.
        wait = "spool"
    values: dict[str, Any] = {"server": room.server, "waits": wait, "spooled": room.needed}
    if wait:
        values |= {"progress": _WORDS[wait], "lease_until": now + QUEUE_PATIENCE}
    connection.execute(tables.runs.update().where(runs.id == run_id).values(values))
    return values, wait


#: What people read meanwhile.
_WORDS: dict[Wait, str] = {
    "server": "waits for another dump of its server to end",
    "host": "waits for another dump of its host to end",
    "spool": "waits for room in the spool",
}


def _at_work(connection: sa.Connection, which: sa.ColumnElement[bool], now: datetime) -> int:
    """How many dumps are being made of those that `which` picks. One whose lease ran out died with its worker."""
    query = (
        sa.select(sa.func.count())
        .select_from(tables.runs)
        .join(tables.steps, tables.steps.c.run == tables.runs.c.id)
        .where(
            which,
            tables.runs.c.state == "running",
            tables.runs.c.lease_until > now,
            tables.steps.c.name == DUMP,
            tables.steps.c.state == "running",
        )
    )
    return int(connection.execute(query).scalar_one())


def _is_full(connection: sa.Connection, run_id: str, room: Room, now: datetime) -> bool:
    """Whether a server serves as many dumps as it may, those included that were there before and wait."""
    runs, this = tables.runs.c, tables.runs.alias("this")
    same = sa.and_(runs.id != run_id, runs.server == room.server)
    at_work = _at_work(connection, same, now)
    if at_work >= room.per_server:
        return True
    before = (
        sa.select(sa.func.count())
        .select_from(tables.runs)
        .join(this, this.c.id == run_id)
        .where(same, runs.waits == "server", runs.state.in_(tables.ACTIVE), runs.created < this.c.created)
    )
    return at_work + int(connection.execute(before).scalar_one()) >= room.per_server


def _spooling(connection: sa.Connection, run_id: str, host: str) -> Sequence[tuple[str, int | None]]:
    """The other runs that have something in the spool of a host, and how much each is expected to have."""
    runs = tables.runs.c
    query = sa.select(runs.id, runs.spooled).where(
        runs.id != run_id, runs.host == host, runs.state == "running", runs.waits.is_(None)
    )
    return [(found, spooled) for found, spooled in connection.execute(query)]


def _promised(others: Sequence[tuple[str, int | None]], used: Mapping[str, int]) -> int:
    """Bytes that other runs are still going to take of what is free now."""
    return sum(max((spooled or 0) - used.get(run_id, 0), 0) for run_id, spooled in others)
