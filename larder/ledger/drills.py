"""Drills: restores that were made to see that a backup restores, what each found, and how long it took."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from larder.errors import NotFoundError
from larder.ledger import tables
from larder.ledger.backups import Backups
from larder.ledger.newest import newest_of_each, parts
from larder.ledger.runs import Run, Runs

#: `proven`: what came back is what was there. `broken`: it is not. `failed`: nothing could be proven.
Outcome = Literal["proven", "broken", "failed"]

#: The links whose time a recovery takes: from the store to a database that was examined.
RECOVERY_STEPS = ("fetch", "check", "load", "examine")


@dataclass(frozen=True)
class Finding:
    """What `examine` found."""

    outcome: Outcome
    #: How closely was compared: `schema`, `rows`, `content`.
    level: str
    tables: int
    rows: int
    #: By object, expected against found; a line each.
    differences: tuple[str, ...]
    #: What the proof does not say; a line each.
    not_covered: tuple[str, ...]


@dataclass(frozen=True)
class Drill:
    """One drill. Times are UTC; `seconds` has the time of each link, `recovery_seconds` that of a recovery."""

    run: str
    backup: str
    database: str
    trigger: str
    #: The store that it is fetched from.
    store: str | None
    created: datetime
    finished: datetime | None
    #: None while it is under way.
    outcome: Outcome | None
    level: str | None
    tables: int | None
    rows: int | None
    differences: list[str] | None
    not_covered: list[str] | None
    seconds: dict[str, float] | None
    recovery_seconds: float | None
    error: str | None


class Drills:
    """All drills of a ledger."""

    def __init__(self, engine: sa.Engine, runs: Runs, backups: Backups) -> None:
        self._engine = engine
        self._runs = runs
        self._backups = backups

    def begin(self, database: str, backup: str, store: str, trigger: str) -> Run:
        """Write down a drill of `backup`, to be fetched from `store`, and its run; raises `BusyError`."""
        with self._engine.begin() as connection:
            run = self._runs.begin_drill(connection, database, trigger)
            connection.execute(
                tables.drills.insert().values(
                    run=run.id,
                    backup=backup,
                    database=database,
                    trigger=trigger,
                    store=store,
                    created=run.created,
                )
            )
        return run

    def get(self, run_id: str) -> Drill:
        """The drill that run `run_id` is; raises `NotFoundError`."""
        found = self._select(tables.drills.c.run == run_id, limit=1)
        if not found:
            raise NotFoundError(f"unable to find the drill of run '{run_id}'", "larder runs lists them")
        return found[0]

    def latest(
        self, database: str | None = None, *, outcome: Outcome | None = None, limit: int = 20
    ) -> list[Drill]:
        """The newest drills, newest first; of one database, or with one outcome."""
        wanted: list[sa.ColumnElement[bool]] = []
        if database is not None:
            wanted.append(tables.drills.c.database == database)
        if outcome is not None:
            wanted.append(tables.drills.c.outcome == outcome)
        return self._select(*wanted, limit=limit)

    def last(self) -> dict[str, Drill]:
        """The newest drill of each database that has come to anything, by the database's name."""
        over = tables.drills.c.outcome.is_not(None)
        with self._engine.connect().execution_options(reads=True) as connection:
            ids = [found for _, found in newest_of_each(connection, [tables.drills.c.run], over)]
        found = [
            drill for some in parts(ids) for drill in self._select(tables.drills.c.run.in_(some), limit=None)
        ]
        return {drill.database: drill for drill in found}

    def between(self, start: datetime, end: datetime) -> list[Drill]:
        """The drills that began from `start` on and before `end`, oldest first."""
        found = self._select(tables.drills.c.created >= start, tables.drills.c.created < end, limit=None)
        return found[::-1]

    def count(self, database: str, triggers: Collection[str]) -> int:
        """How many drills of a database there have been that began for one of these reasons."""
        query = (
            sa.select(sa.func.count())
            .select_from(tables.drills)
            .where(tables.drills.c.database == database, tables.drills.c.trigger.in_(triggers))
        )
        with self._engine.connect().execution_options(reads=True) as connection:
            return int(connection.execute(query).scalar_one())

    def record(self, connection: sa.Connection, run_id: str, backup: str, finding: Finding) -> None:
        """Write down what was found, inside the caller's transaction; the backup's proof goes by it."""
        connection.execute(
            tables.drills.update()
            .where(tables.drills.c.run == run_id)
            .values(
                outcome=finding.outcome,
                level=finding.level,
                tables=finding.tables,
                rows=finding.rows,
                differences=list(finding.differences),
                not_covered=list(finding.not_covered),
            )
        )
        if finding.outcome != "failed":
            self._backups.drilled(connection, backup, finding.outcome)

    def condemn(self, connection: sa.Connection, run_id: str, backup: str, difference: str) -> None:
        """Write down that the backup cannot even be restored, in all its right bytes; in the caller's transaction."""
        connection.execute(
            tables.drills.update()
            .where(tables.drills.c.run == run_id)
            .values(outcome="broken", differences=[difference])
        )
        self._backups.drilled(connection, backup, "broken")

    def close(self, run: Run) -> Drill:
        """Write down how a run that is at its end, or failed, has ended and how long its links took; gives the drill.

        One that found nothing out has failed, for the run's reason. Doing it twice is fine.
        """
        seconds = {step.name: step.seconds for step in run.steps if step.seconds is not None}
        whole = all(run.step_named(name).state == "done" for name in RECOVERY_STEPS)
        values: dict[str, Any] = {
            "finished": sa.func.coalesce(tables.drills.c.finished, datetime.now(UTC)),
            "outcome": sa.func.coalesce(tables.drills.c.outcome, "failed"),
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "recovery_seconds": _recovery(seconds) if whole else None,
            "error": run.error,
        }
        with self._engine.begin() as connection:
            connection.execute(tables.drills.update().where(tables.drills.c.run == run.id).values(values))
        return self.get(run.id)

    def unclosed(self) -> list[Drill]:
        """The drills that nobody has closed yet, though their run may be over."""
        return self._select(tables.drills.c.finished.is_(None), limit=None)

    def _select(self, *wanted: sa.ColumnElement[bool], limit: int | None) -> list[Drill]:
        query = sa.select(tables.drills).where(*wanted).order_by(tables.drills.c.created.desc()).limit(limit)
        with self._engine.connect().execution_options(reads=True) as connection:
            return [Drill(**row) for row in connection.execute(query).mappings()]


def _recovery(seconds: Mapping[str, float], steps: Sequence[str] = RECOVERY_STEPS) -> float:
    return round(sum(seconds[name] for name in steps), 3)
