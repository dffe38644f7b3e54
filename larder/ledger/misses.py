"""Misses: which objectives a database does not keep to, and what of it has failed, since when, until when, and who was
told.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa

from larder.ledger import tables

#: Any number that no other user of the same PostgreSQL takes for its own lock: "misses" in ASCII.
_ADVISORY_LOCK = int.from_bytes(b"misses")

#: What is judged by the clock. Everything else has failed, and lasts until the next time that it goes well.
OBJECTIVES = ("rpo", "proof", "rto")

#: Copies that are not as they were written: it lasts until nothing is wrong with any of them.
VERIFICATION: Final = "verification"

#: How long a notifier that is away may hear that something is met again.
_NEWS = timedelta(days=1)


@dataclass(frozen=True)
class Miss:
    """One objective that was not kept to, or what has failed. Times are UTC; `ended` is None while it lasts."""

    id: int
    database: str
    #: `rpo`, `proof`, `rto`; `backup`, `copies`, `drill`, `verification`.
    objective: str
    #: In words, as it was when it was missed, or failed last.
    detail: str
    since: datetime
    ended: datetime | None
    #: Whether nobody is to be told any more: everybody knows that it is over, or it ended silently.
    told: bool
    #: When each notifier was told of it last, and that it is over, by the notifier's name.
    heard: dict[str, datetime]
    relieved: dict[str, datetime]
    #: The last run that has failed, at which step, and what can be done. None of an objective.
    run: str | None
    step: str | None
    hint: str | None

    @property
    def judged(self) -> bool:
        """Whether it is an objective, which the guard judges, and not a failure."""
        return self.objective in OBJECTIVES


class Misses:
    """All misses of a ledger."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def open(self) -> list[Miss]:
        """What is missed now, or has failed and is not well again, the oldest first."""
        return self._select(tables.misses.c.ended.is_(None))

    def current(self) -> list[Miss]:
        """What is open, and what has ended within a day, the oldest first. What ended before is no news to anybody."""
        ended = tables.misses.c.ended
        return self._select(sa.or_(ended.is_(None), ended > datetime.now(UTC) - _NEWS))

    def between(self, start: datetime, end: datetime) -> list[Miss]:
        """The objectives that were missed at some time from `start` on and before `end`, the oldest first."""
        ended = sa.or_(tables.misses.c.ended.is_(None), tables.misses.c.ended > start)
        judged = tables.misses.c.objective.in_(OBJECTIVES)
        return self._select(sa.and_(tables.misses.c.since < end, ended, judged))

    def begin(self, database: str, objective: str, detail: str, **more: str | None) -> bool:
        """Note that an objective is missed, to be told; False where that is known already, whoever noted it.

        `more` are `run`, `step` and `hint` of what has failed.
        """
        row = {
            "database": database,
            "objective": objective,
            "detail": detail,
            "since": datetime.now(UTC),
            "told": False,
            **more,
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(tables.misses.insert().values(row))
        except sa.exc.IntegrityError:
            return False
        return True

    def fail(
        self,
        database: str,
        what: str,
        detail: str,
        *,
        run: str | None,
        step: str | None,
        hint: str | None,
        news: bool = False,
    ) -> None:
        """Note that `what` (`backup`, `copies`, `drill`, `verification`) has failed in `run`, to be told.

        What had failed before at the same step is known already: then only its cause is new, unless that is `news`.
        """
        if self.begin(database, what, detail, run=run, step=step, hint=hint):
            return
        misses = tables.misses.c
        with self._engine.begin() as connection:
            same = sa.and_(
                _open_of(database, what), misses.step.is_not_distinct_from(step), sa.literal(not news)
            )
            known = connection.execute(
                tables.misses.update().where(same).values(detail=detail, run=run, hint=hint)
            )
            if not known.rowcount:
                connection.execute(
                    tables.misses.update()
                    .where(_open_of(database, what))
                    .values(detail=detail, run=run, step=step, hint=hint, heard=None)
                )

    def recover(self, database: str, *what: str) -> bool:
        """Note that what had failed of `database` is well again, to be told; False where nothing had."""
        return self._end(_RECOVER, {"this_database": database, "these": what}, silently=False)

    def end(self, miss: Miss, *, silently: bool = False) -> bool:
        """Note that an objective is met again, to be told, or is none any more (`silently`); False where it had ended.

        Nobody may have been told yet that it was missed. Then they are told of both at once.
        """
        return self._end(_END_ONE, {"this_miss": miss.id}, silently=silently)

    def _end(self, statement: sa.Update, which: Mapping[str, object], *, silently: bool) -> bool:
        values = {"ended": datetime.now(UTC), "told": silently}
        with self._engine.begin() as connection:
            return connection.execute(statement, {**which, **values}).rowcount > 0

    def told(self, miss: Miss, names: Collection[str], *, everybody: bool) -> bool:
        """Note that the notifiers `names` were told just now how `miss` stands; `everybody` knows that it is over.

        False where it has ended since, or failed otherwise, of which nobody was.
        """
        column = "relieved" if miss.ended else "heard"
        before: dict[str, datetime] = getattr(miss, column)
        now = datetime.now(UTC)
        known = {name: moment.isoformat() for name, moment in (before | dict.fromkeys(names, now)).items()}
        misses = tables.misses.c
        same = misses.ended.is_not(None) if miss.ended else misses.ended.is_(None)
        with self._engine.begin() as connection:
            noted = connection.execute(
                tables.misses.update()
                .where(
                    misses.id == miss.id,
                    same,
                    misses.run.is_not_distinct_from(miss.run),
                    misses.detail == miss.detail,
                )
                .values({column: known, "told": miss.ended is not None and everybody})
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
        with self._engine.connect().execution_options(reads=True) as connection:
            return [_miss(row) for row in connection.execute(_IN_ORDER.where(wanted)).mappings()]


#: Made once: each backup needs them.
_IN_ORDER = sa.select(tables.misses).order_by(tables.misses.c.id)
_END = tables.misses.update().where(tables.misses.c.ended.is_(None))
_END_ONE = _END.where(tables.misses.c.id == sa.bindparam("this_miss"))
_RECOVER = _END.where(
    tables.misses.c.database == sa.bindparam("this_database"),
    tables.misses.c.objective.in_(sa.bindparam("these", expanding=True)),
)


def _open_of(database: str, *what: str) -> sa.ColumnElement[bool]:
    misses = tables.misses.c
    return sa.and_(misses.database == database, misses.objective.in_(what), misses.ended.is_(None))


def _miss(row: sa.RowMapping) -> Miss:
    times = {
        column: {name: datetime.fromisoformat(moment) for name, moment in (row[column] or {}).items()}
        for column in ("heard", "relieved")
    }
    return Miss(**{**row, **times})
