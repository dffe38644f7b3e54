"""Misses: which objectives a database does not keep to, since when, until when, and whether people were told."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from larder.ledger import tables

#: Any number that no other user of the same PostgreSQL takes for its own lock: "misses" in ASCII.
_ADVISORY_LOCK = int.from_bytes(b"misses")

#: How long a notifier that is away may hear that something is met again.
_NEWS = timedelta(days=1)


@dataclass(frozen=True)
class Miss:
    """One objective that was not kept to. Times are UTC; `ended` is None for as long as it is missed."""

    id: int
    database: str
    #: `rpo`, `proof`, `rto`.
    objective: str
    #: In words, as it was when it was missed.
    detail: str
    since: datetime
    ended: datetime | None
    #: Whether everybody who wants to hear was told how it stands now: that it is missed, or that it is met again.
    told: bool
    #: Until then: the names of the notifiers that were.
    heard: list[str] | None


class Misses:
    """All misses of a ledger."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def open(self) -> list[Miss]:
        """What is missed now, the oldest first."""
        return self._select(tables.misses.c.ended.is_(None))

    def untold(self) -> list[Miss]:
        """Of what somebody was not told yet how it stands, the oldest first. What ended a day ago is no news."""
        ended = tables.misses.c.ended
        news = sa.or_(ended.is_(None), ended > datetime.now(UTC) - _NEWS)
        return self._select(sa.and_(tables.misses.c.told.is_(False), news))

    def between(self, start: datetime, end: datetime) -> list[Miss]:
        """What was missed at some time from `start` on and before `end`, the oldest first."""
        ended = sa.or_(tables.misses.c.ended.is_(None), tables.misses.c.ended > start)
        return self._select(sa.and_(tables.misses.c.since < end, ended))

    def begin(self, database: str, objective: str, detail: str) -> bool:
        """Note that an objective is missed, to be told; False where that is known already, whoever noted it."""
        row = {
            "database": database,
            "objective": objective,
            "detail": detail,
            "since": datetime.now(UTC),
            "told": False,
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(tables.misses.insert().values(row))
        except sa.exc.IntegrityError:
            return False
        return True

    def end(self, miss: Miss, *, silently: bool = False) -> bool:
        """Note that an objective is met again, to be told, or is none any more (`silently`); False where it had ended.

        Nobody may have been told yet that it was missed. Then they are told of both at once.
        """
        with self._engine.begin() as connection:
            ended = connection.execute(
                tables.misses.update()
                .where(tables.misses.c.id == miss.id, tables.misses.c.ended.is_(None))
                .values(ended=datetime.now(UTC), told=silently, heard=None)
            )
        return ended.rowcount > 0

    def told(self, miss: Miss, heard: Collection[str] = (), *, everybody: bool = True) -> bool:
        """Note that the notifiers `heard`, or `everybody`, were told how `miss` stands.

        False where it has ended since, of which nobody was.
        """
        same = tables.misses.c.ended.is_not(None) if miss.ended else tables.misses.c.ended.is_(None)
        with self._engine.begin() as connection:
            noted = connection.execute(
                tables.misses.update()
                .where(tables.misses.c.id == miss.id, tables.misses.c.told.is_(False), same)
                .values(told=everybody, heard=sorted(heard))
            )
        return noted.rowcount > 0

    @contextmanager
    def telling(self) -> Iterator[bool]:
        """Whether the block alone may tell people. It can be killed at any time, and another may then.

        No write waits for it: on SQLite the lock is a file's beside the ledger, on PostgreSQL an advisory one.
        """
        if self._engine.dialect.name == "postgresql":
            with self._engine.begin() as connection:
                # It ends with the transaction, so that no pool of connections between here and there can lose it.
                yield bool(
                    connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(_ADVISORY_LOCK))).scalar()
                )
            return
        path = f"{self._engine.url.database}.misses.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def _select(self, wanted: sa.ColumnElement[bool]) -> list[Miss]:
        query = sa.select(tables.misses).where(wanted).order_by(tables.misses.c.id)
        with self._engine.connect().execution_options(reads=True) as connection:
            return [Miss(**row) for row in connection.execute(query).mappings()]
