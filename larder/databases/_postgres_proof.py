"""Whether what a drill restored is what was there: objects, rows and content against the backup's fingerprint."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import psycopg

from larder.databases import (
    _postgres_catalog,
    _postgres_catalog_compare,
    _postgres_catalog_members,
    _postgres_catalog_positions,
    _postgres_configuration,
    _postgres_content,
    _postgres_examine,
    _postgres_objects,
)
from larder.databases._postgres_connection import fires_on_login, untriggered
from larder.databases._postgres_examine import Table, borrowed, session, shown
from larder.databases._postgres_snapshot import trouble
from larder.databases._postgres_target import listed
from larder.drilling import Examination
from larder.progress import Progress
from larder.restoring import Source

#: How many differences are written down.
TOLD = 1000

#: What no drill of PostgreSQL says at any level.
_NEVER = {"content": "the rows of materialised views, which a restore makes anew"}

#: Tables with columns that a restore computes anew, by functions as they are now.
_GENERATED = """
    SELECT DISTINCT n.nspname, c.relname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE a.attgenerated = 's' AND NOT a.attisdropped
"""

#: Where our own sessions could not be kept from it.
_FIRED = "what the database's event triggers on login have done, which this role may not switch off"


@dataclass
class _Found:
    differences: list[str] = field(default_factory=list)
    not_covered: list[str] = field(default_factory=list)
    rows: int = 0


def examine(
    name: str,
    connect: Callable[[], psycopg.Connection],
    source: Source,
    checks: Iterable[str],
    *,
    jobs: int,
    stall_seconds: float,
    progress: Progress,
) -> Examination:
    """Compare the database that `connect` leads to with `source`'s fingerprint, and run `checks`, changing nothing.

    As closely as the fingerprint goes, whatever is configured now. Raises what `trouble` says of lost connections.
    """
    fingerprint, found = source.fingerprint, _Found()
    level = str(
        fingerprint.get("level") or ("rows" if fingerprint.get("row_counts") == "exact" else "schema")
    )
    with contextlib.ExitStack() as stack:
        connections: SimpleQueue[psycopg.Connection] = SimpleQueue()
        with untriggered():
            for _ in range(jobs):
                opened = stack.enter_context(contextlib.closing(session(connect(), stall_seconds)))
                for setting in _postgres_content.SETTINGS:
                    opened.execute(f"SET {setting}".encode())
                connections.put(opened)
        try:
            with borrowed(connections) as connection:
                if fires_on_login(connection):
                    found.not_covered.append(_FIRED)
                tables, trees = (
                    _postgres_examine.tables_in(connection),
                    _postgres_examine.hashed_in(connection),
                )
                _compare_objects(connection, source, found)
                _compare_sequences(connection, fingerprint, found)
                if level != "schema":
                    _postgres_configuration.compare(
                        connection, fingerprint.get("database", {}), found.differences, found.not_covered
                    )
                if level == "content":
                    _compare_large_objects(connection, fingerprint, found)
            _compare_rows(connections, fingerprint, tables, trees, jobs, progress, found)
            with borrowed(connections) as connection:
                failed = [line for check in checks if (line := _postgres_examine.check_of(connection, check))]
        except psycopg.Error as error:
            raise trouble(name, "unable to examine database", error) from None
    found.not_covered += [str(line) for line in fingerprint.get("not_covered", ())]
    if level in _NEVER:
        found.not_covered.append(_NEVER[level])
    more = len(found.differences) - TOLD
    lines = [*found.differences[:TOLD], *([f"and {more} more"] if more > 0 else [])]
    return Examination(
        level, len(tables), found.rows, tuple(lines), tuple(failed), tuple(dict.fromkeys(found.not_covered))
    )


def _compare_objects(connection: psycopg.Connection, source: Source, found: _Found) -> None:
    if "schema" not in source.fingerprint and "level" not in source.fingerprint:
        found.not_covered.append("definitions: the backup was made before they were written down")
        return
    before, here = source.server_version.partition(".")[0], str(connection.info.server_version // 10000)
    unsure: list[str] = []
    if "schema" in source.fingerprint:
        there, loose = _postgres_objects.worded(connection)
        found.differences += _postgres_catalog_compare.differences(
            source.fingerprint["schema"],
            there,
            set() if before == here else loose,
            unsure,
            _postgres_objects.remade(connection),
        )
    wanted = source.fingerprint.get("database", {}).get("catalog", {})
    catalog, unread = _postgres_catalog.read(connection, whole=True)
    found.not_covered += unread
    found.differences += _postgres_catalog.differences(
        _postgres_catalog_members.of_others(connection, wanted),
        catalog,
        worded_alike=before == here,
        unsure=unsure,
    )
    if unknown := _postgres_catalog.unknown(wanted, catalog, int(before)):
        found.not_covered.append(
            f"kinds of objects that the fingerprint does not hold, or that can't be read here: {', '.join(unknown)}"
        )
    if unsure:
        found.not_covered.append(
            f"expressions that PostgreSQL {here} words differently from {source.server_version}: "
            f"those of {listed(sorted(unsure))}"
        )


def _compare_sequences(connection: psycopg.Connection, fingerprint: Mapping[str, Any], found: _Found) -> None:
    wanted = fingerprint.get("sequences", {})
    there, unread = _postgres_catalog_positions.positions(connection) if wanted else ({}, [])
    found.not_covered += unread
    for name, before in wanted.items():
        if name not in there:
            continue
        value, called, step = there[name]
        first, last = before["from"], before["to"]
        if (last[0] - first[0]) * step < 0:
            found.not_covered.append(f"the position of sequence {name}, which went back while it was dumped")
            continue
        if first == last and [value, called] != first:
            found.differences.append(
                f"sequence {name}: expected {_position(*first)}, found {_position(value, called)}"
            )
        elif first != last and not min(first[0], last[0]) <= value <= max(first[0], last[0]):
            found.differences.append(
                f"sequence {name}: expected {_position(*first)} to {_position(*last)}, found {_position(value, called)}"
            )


def _compare_large_objects(
    connection: psycopg.Connection, fingerprint: Mapping[str, Any], found: _Found
) -> None:
    wanted = fingerprint.get("database", {}).get("large_objects")
    if wanted is None:
        found.not_covered.append("what is in large objects, which the fingerprint does not hold")
        return
    try:
        *_, (count, content) = _postgres_content.large_objects(connection)
    except psycopg.errors.InsufficientPrivilege as error:
        found.not_covered.append(f"what is in large objects: {error.diag.message_primary}")
        return
    # Where there are more or fewer, that is told among the objects.
    if count == wanted["count"] and content != wanted["content"]:
        found.differences.append("large objects: their content differs (there are as many as there were)")


def _position(value: int, called: bool) -> str:
    return f"{value} ({'called' if called else 'not called'})"


def _compare_rows(
    connections: SimpleQueue[psycopg.Connection],
    fingerprint: Mapping[str, Any],
    tables: list[Table],
    trees: Mapping[Table, Table],
    jobs: int,
    progress: Progress,
    found: _Found,
) -> None:
    """Count the tables whose rows were counted, and hash those whose content was."""
    known = {
        _postgres_examine.table(name) or ("", name): table
        for name, table in fingerprint.get("tables", {}).items()
    }
    if "schema" not in fingerprint:
        # Else they are among its objects.
        found.differences += [f"table {shown(name)} is missing" for name in known if name not in tables]
        found.differences += [
            f"table {shown(name)} is not in the backup" for name in tables if name not in known
        ]
    counted = [name for name in tables if known.get(name, {}).get("rows") is not None]
    progress.restart(sum(known[name]["rows"] for name in counted))
    before: dict[Table, list[Mapping[str, Any]]] = {}
    now: dict[Table, list[tuple[int, str]]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(lambda one: _read(connections, one, hashed="content" in known[one]), counted)
        for name, (rows, hashed) in zip(counted, results, strict=True):
            found.rows += rows
            progress.add(rows)
            # Rows may have come back into another partition of the same tree.
            whole = trees.get(name, name)
            before.setdefault(whole, []).append(known[name])
            now.setdefault(whole, []).append((rows, hashed))
    with borrowed(connections) as connection:
        generated = {(schema, table) for schema, table in connection.execute(_GENERATED).fetchall()}
    for name, parts in before.items():
        if 0 < sum("content" in part for part in parts) < len(parts):
            found.not_covered.append(
                f"what is in the rows of {shown(name)}, not all of whose partitions were hashed"
            )
        found.differences += _of_table(name, parts, now[name], generated=name in generated)


def _read(connections: SimpleQueue[psycopg.Connection], name: Table, *, hashed: bool) -> tuple[int, str]:
    with borrowed(connections) as connection:
        if hashed:
            return _postgres_content.content(connection, *name)
        return _postgres_examine.rows_of(connection, name), ""


def _of_table(
    name: Table, wanted: Sequence[Mapping[str, Any]], found: Sequence[tuple[int, str]], *, generated: bool
) -> Iterator[str]:
    """How a table differs, or several partitions of one together."""
    rows, before = sum(count for count, _ in found), sum(part["rows"] for part in wanted)
    if rows != before:
        yield f"table {shown(name)}: expected {before} rows, found {rows}"
        return
    contents = [part["content"] for part in wanted if "content" in part]
    if len(contents) < len(wanted):
        return
    if _postgres_content.together(contents) != _postgres_content.together(hashed for _, hashed in found):
        why = "; generated columns are computed anew, by functions as they are now" if generated else ""
        yield f"table {shown(name)}: its content differs (it has as many rows as it had{why})"
