"""Newest: the newest row of each database, of ten thousand databases with years of rows each, in one query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

#: How many names one statement asks for: databases bound the number of parameters.
AT_ONCE = 500


def databases_in(table: sa.Table) -> sa.CTE:
    """The names in a table's column `database`, found by a jump from each to the next: its rows are many for each."""
    database = table.c.database
    names = sa.select(sa.func.min(database).label("name")).cte(f"{table.name}_databases", recursive=True)
    following = sa.select(sa.func.min(database)).where(database > names.c.name).scalar_subquery()
    return names.union_all(sa.select(following).where(names.c.name.is_not(None)))


def newest_of_each(
    connection: sa.Connection, values: Sequence[sa.Column[Any]], *wanted: sa.ColumnElement[bool]
) -> Iterator[tuple[Any, ...]]:
    """Each database, and `values` of the newest of its rows that are `wanted`; no row where it has none."""
    table = values[0].table
    assert isinstance(table, sa.Table)  # noqa: S101 - they are columns of the ledger's own tables
    names, found, key = databases_in(table), table.alias("found"), next(iter(table.primary_key.columns))
    newest = (
        sa.select(key)
        .where(table.c.database == names.c.name, *wanted)
        .order_by(table.c.created.desc(), key.desc())
        .limit(1)
        .correlate(names)
        .scalar_subquery()
    )
    query = sa.select(names.c.name, *(found.c[value.name] for value in values))
    yield from map(tuple, connection.execute(query.join_from(names, found, found.c[key.name] == newest)))


def last_of_each(
    connection: sa.Connection,
    values: Sequence[sa.Column[Any]],
    databases: Sequence[str],
    count: int,
    *wanted: sa.ColumnElement[bool],
) -> Iterator[tuple[Any, ...]]:
    """`values` (their database and when they were created first) of the last `count` rows of each of `databases` that
    are `wanted`, oldest first.
    """
    for some in parts(databases):
        each = [sa.select(_last(values, name, count, wanted)) for name in some]
        yield from sorted(map(tuple, connection.execute(sa.union_all(*each))), key=lambda row: row[1])


def _last(
    values: Sequence[sa.Column[Any]], database: str, count: int, wanted: Sequence[sa.ColumnElement[bool]]
) -> sa.Subquery:
    # By itself for each: an index leads to its last rows, of however many.
    row = values[0].table.c
    query = sa.select(*values).where(row.database == database, *wanted)
    return query.order_by(row.created.desc()).limit(count).subquery()


def parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """A statement takes so many values, and no more."""
    for start in range(0, len(names), AT_ONCE):
        yield names[start : start + AT_ONCE]
