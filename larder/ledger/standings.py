"""Standings: the facts that objectives are judged by, of every database at once.

Guards ask for them every minute, of a thousand databases: each question here is one query, or a few, whatever their
number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from larder.ledger import tables
from larder.objectives import Facts

#: How many names one statement asks for.
_AT_ONCE = 500


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
            since = _first_seen(
                connection, [name for name in databases if name not in newest or name not in proven]
            )
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
            for some in _parts(databases):
                query = sa.select(runs.database, sa.func.max(runs.created)).where(
                    runs.database.in_(some), runs.kind == "backup"
                )
                found |= _pairs(connection, query.group_by(runs.database))
        return found

    def undrilled(self) -> dict[str, int]:
        """How many backups of each database were taken since its last drill began; of those that have any."""
        backups, drills = tables.backups.c, tables.drills.c
        last = (
            sa.select(drills.database, sa.func.max(drills.created).label("created"))
            .group_by(drills.database)
            .subquery()
        )
        query = (
            sa.select(backups.database, sa.func.count())
            .join_from(tables.backups, last, backups.database == last.c.database, isouter=True)
            .where(sa.or_(last.c.created.is_(None), backups.created > last.c.created))
            .group_by(backups.database)
        )
        with self._engine.connect().execution_options(reads=True) as connection:
            return _pairs(connection, query)


def _pairs(connection: sa.Connection, query: sa.Select[Any]) -> dict[str, Any]:
    return {row[0]: row[1] for row in connection.execute(query)}


def _newest(connection: sa.Connection) -> dict[str, datetime]:
    """When the newest backup of each database was taken that is not broken and has a good copy."""
    backups, copies = tables.backups.c, tables.copies.c
    good = sa.exists().where(copies.backup == backups.id, copies.problem.is_(None))
    newest = sa.select(backups.database, sa.func.max(backups.created)).where(backups.proof != "broken", good)
    return _pairs(connection, newest.group_by(backups.database))


def _proven(connection: sa.Connection) -> dict[str, tuple[str, datetime]]:
    """The newest proven backup of each database, and when it was taken."""
    backups = tables.backups.c
    proven = (
        sa.select(backups.database, sa.func.max(backups.created).label("created"))
        .where(backups.proof == "proven")
        .group_by(backups.database)
        .subquery()
    )
    query = sa.select(backups.database, backups.id, backups.created).join(
        proven,
        sa.and_(
            backups.database == proven.c.database,
            backups.created == proven.c.created,
            backups.proof == "proven",
        ),
    )
    return {name: (backup, created) for name, backup, created in connection.execute(query)}


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
    return _of_last(connection, drills.backup, drills.trigger.in_(clock), drills.outcome.is_not(None))


def _last_recovery(connection: sa.Connection) -> dict[str, float]:
    """How long the last recovery of each database took that proved one of its backups."""
    drills = tables.drills.c
    measured = drills.recovery_seconds.is_not(None)
    return _of_last(connection, drills.recovery_seconds, drills.outcome == "proven", measured)


def _of_last(
    connection: sa.Connection, value: sa.Column[Any], *wanted: sa.ColumnElement[bool]
) -> dict[str, Any]:
    """`value` of the newest drill of each database, among those that are `wanted`."""
    drills = tables.drills.c
    last = (
        sa.select(drills.database, sa.func.max(drills.created).label("created"))
        .where(*wanted)
        .group_by(drills.database)
        .subquery()
    )
    same = sa.and_(drills.database == last.c.database, drills.created == last.c.created)
    return _pairs(connection, sa.select(drills.database, value).join(last, same).where(*wanted))


def _first_seen(connection: sa.Connection, databases: Sequence[str]) -> dict[str, datetime]:
    """When the first run of each of `databases` began, or its oldest backup was taken: a ledger may be new."""
    found: dict[str, datetime] = {}
    for table in (tables.runs, tables.backups):
        for some in _parts(databases):
            query = sa.select(table.c.database, sa.func.min(table.c.created)).where(
                table.c.database.in_(some)
            )
            for name, created in connection.execute(query.group_by(table.c.database)):
                found[name] = min(created, found.get(name, created))
    return found


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """A statement takes so many values, and no more."""
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]
