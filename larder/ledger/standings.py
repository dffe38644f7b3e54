"""Standings: the facts that objectives are judged by, of every database at once.

Guards ask for them every minute, of ten thousand databases with years of backups: each question here is one query, or
a few, and looks at the newest rows of each database, not at all that there are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from larder.ledger import tables
from larder.ledger.newest import databases_in, newest_of_each, parts
from larder.objectives import Facts


class Standings:
    """What the ledger knows of how databases stand."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def of(self, databases: Collection[str], clock: Collection[str]) -> dict[str, Facts]:
        """The facts about each of `databases`, by name. `clock` are the triggers of drills that begin by themselves."""
        with self._engine.connect().execution_options(reads=True) as connection:
            newest, proven = _newest(connection), _proven(connection)
            under_way = _under_way(connection)
            looked_at = _last_by_clock(connection, clock)
            recovery = _last_recovery(connection)
            since = _first_seen(connection)
        found: dict[str, Facts] = {}
        for name in databases:
            backup, created = proven.get(name, (None, None))
            drilled = looked_at.get(name)
            found[name] = Facts(
                since=since.get(name),
                newest=newest.get(name),
                under_way=under_way.get(name),
                proven=backup,
                proven_created=created,
                # Ids of one database are in the order of time.
                took_older=backup is not None and drilled is not None and drilled < backup,
                recovery_seconds=recovery.get(name),
            )
        return found

    def begun(self, databases: Sequence[str]) -> dict[str, datetime]:
        """When the newest backup run of each of `databases` began, good or not; of those that have any."""
        found: dict[str, datetime] = {}
        runs = tables.runs.c
        with self._engine.connect().execution_options(reads=True) as connection:
            for some in parts(databases):
                query = sa.select(runs.database, sa.func.max(runs.created)).where(
                    runs.database.in_(some), runs.kind == "backup"
                )
                found |= _pairs(connection, query.group_by(runs.database))
        return found

    def undrilled(self) -> dict[str, int]:
        """How many backups of each database were taken since its last drill began.

        One that failed has proven nothing, and is made up for a day later.
        """
        backups, drills, names = tables.backups.c, tables.drills.c, databases_in(tables.backups)
        counts = sa.or_(
            drills.outcome.is_(None),
            drills.outcome != "failed",
            drills.created > datetime.now(UTC) - timedelta(days=1),
        )
        last = sa.select(sa.func.max(drills.created)).where(drills.database == names.c.name, counts)
        since = sa.func.coalesce(last.correlate(names).scalar_subquery(), datetime(1970, 1, 1, tzinfo=UTC))
        newer = sa.select(sa.func.count()).where(backups.database == names.c.name, backups.created > since)
        query = sa.select(names.c.name, newer.correlate(names).scalar_subquery())
        with self._engine.connect().execution_options(reads=True) as connection:
            return _pairs(connection, query.where(names.c.name.is_not(None)))


def _pairs(connection: sa.Connection, query: sa.Select[Any]) -> dict[str, Any]:
    return {row[0]: row[1] for row in connection.execute(query)}


def _newest(connection: sa.Connection) -> dict[str, datetime]:
    """When the newest backup of each database was taken that is not broken and has a good copy."""
    backups = tables.backups.c
    found = newest_of_each(connection, [backups.created], backups.proof != "broken", _has_good_copy())
    return {row[0]: row[1] for row in found}


def _has_good_copy() -> sa.ColumnElement[bool]:
    """Whether a store has a copy of a backup with which nothing is wrong, as far as is known."""
    copies = tables.copies.c
    return sa.exists().where(copies.backup == tables.backups.c.id, copies.problem.is_(None))


def _proven(connection: sa.Connection) -> dict[str, tuple[str, datetime]]:
    """The newest proven backup of each database that has a good copy, and when it was taken."""
    backups = tables.backups.c
    found = newest_of_each(
        connection, [backups.id, backups.created], backups.proof == "proven", _has_good_copy()
    )
    return {row[0]: (row[1], row[2]) for row in found}


def _under_way(connection: sa.Connection) -> dict[str, datetime]:
    """When the backup of each database began that is being made."""
    runs = tables.runs.c
    # Word by word as the index of runs that hold something has it: they are few among all that there have been. One at
    # most is of a database, whose name it holds.
    active = sa.text("state IN ('queued', 'running')")
    holding = runs.holds.is_not(None)
    return _pairs(
        connection, sa.select(runs.database, runs.created).where(active, holding, runs.kind == "backup")
    )


def _last_by_clock(connection: sa.Connection, clock: Collection[str]) -> dict[str, str]:
    """The backup that the last drill of each database was of, of those that the clock began and that are over."""
    drills = tables.drills.c
    over = drills.outcome.is_not(None)
    found = newest_of_each(connection, [drills.backup], drills.trigger.in_(clock), over)
    return {row[0]: row[1] for row in found}


def _last_recovery(connection: sa.Connection) -> dict[str, float]:
    """How long the last recovery of each database took that proved one of its backups."""
    drills = tables.drills.c
    measured = drills.recovery_seconds.is_not(None)
    found = newest_of_each(connection, [drills.recovery_seconds], drills.outcome == "proven", measured)
    return {row[0]: row[1] for row in found}


def _first_seen(connection: sa.Connection) -> dict[str, datetime]:
    """When the first run of each database began, or its oldest backup was taken: a ledger may be new."""
    found: dict[str, datetime] = {}
    for table in (tables.runs, tables.backups):
        names = databases_in(table)
        first = sa.select(sa.func.min(table.c.created)).where(table.c.database == names.c.name)
        query = sa.select(names.c.name, first.correlate(names).scalar_subquery())
        for name, created in connection.execute(query.where(names.c.name.is_not(None))):
            found[name] = min(created, found.get(name, created))
    return found
