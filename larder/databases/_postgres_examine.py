"""What a restored database holds, against what its backup counted; and what its operator wants to be true of it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import psycopg
from psycopg import sql

from larder.databases._postgres_load import masked
from larder.databases._postgres_snapshot import RELATIONS, Relation, trouble

#: How many differences are told one by one.
TOLD = 20

#: A name as SQL writes it: `public."Order"`.
_NAME = re.compile(r'("(?:[^"]|"")*"|[^".]+)\.("(?:[^"]|"")*"|[^".]+)')

#: Nothing may time out, but a lock that somebody holds for ever; and every row counts.
_SESSION = ("statement_timeout = 0", "idle_in_transaction_session_timeout = 0", "row_security = off")

#: Schema and name, neither quoted: what has to be quoted differs between versions.
Table = tuple[str, str]


def table(name: str) -> Table | None:
    """Schema and name of what a fingerprint calls `"Odd schema"."Order"`; None where it is no such name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    first, second = (
        part[1:-1].replace('""', '"') if part.startswith('"') else part for part in (match[1], match[2])
    )
    return first, second


def expected(fingerprint: Mapping[str, Any]) -> dict[Table, int | None]:
    """The tables of a fingerprint, and their rows where they were counted."""
    tables = fingerprint.get("tables", {})
    return {table(name) or ("", name): found.get("rows") for name, found in tables.items()}


def tables_in(connection: psycopg.Connection) -> list[Table]:
    """The tables of a database that a fingerprint would name. Raises `psycopg.Error`."""
    found = (Relation(*row) for row in connection.execute(RELATIONS).fetchall())
    return [(relation.schema, relation.table) for relation in found if relation.is_table]


def differences(wanted: Mapping[Table, int | None], found: Mapping[Table, int | None]) -> list[str]:
    """How `found` differs from `wanted`, a line each; not more than `TOLD`, then how many more there are."""
    lines = [f"table {shown(name)} is missing" for name in wanted if name not in found]
    lines += [f"table {shown(name)} is not in the backup" for name in found if name not in wanted]
    lines += [
        f"table {shown(name)} has {found[name]} rows, and the backup {rows}"
        for name, rows in wanted.items()
        if name in found and rows is not None and found[name] is not None and found[name] != rows
    ]
    more = len(lines) - TOLD
    return [*lines[:TOLD], f"and {more} more"] if more > 0 else lines


def shown(name: Table) -> str:
    """A table for people, and for SQL."""
    return ".".join(
        part if re.fullmatch("[a-z_][a-z0-9_]*", part) else '"' + part.replace('"', '""') + '"'
        for part in name
        if part
    )


def examine(
    name: str,
    connect: Callable[[], psycopg.Connection],
    fingerprint: Mapping[str, Any],
    checks: Iterable[str],
    jobs: int,
    stall_seconds: float,
    counted: Callable[[int], None] = lambda _rows: None,
) -> list[str]:
    """How the database that `connect` leads to differs from `fingerprint`, and which `checks` are not true.

    Every table is counted, with `jobs` connections; `counted` is told the rows of each. Nothing is changed. Raises
    `UnreachableError` where the server is lost, and what `trouble` says; messages call the database `name`.
    """
    with contextlib.ExitStack() as stack:
        connections: SimpleQueue[psycopg.Connection] = SimpleQueue()
        for _ in range(jobs):
            connections.put(stack.enter_context(contextlib.closing(_session(connect(), stall_seconds))))
        try:
            with _borrowed(connections) as connection:
                names = tables_in(connection)
            wanted = expected(fingerprint)
            to_count = [found for found in names if wanted.get(found) is not None]
            found: dict[Table, int | None] = dict.fromkeys(names)
            with ThreadPoolExecutor(jobs) as pool:
                for counting, rows in zip(
                    to_count, pool.map(lambda one: _rows(connections, one), to_count), strict=True
                ):
                    found[counting] = rows
                    counted(rows)
            lines = differences(wanted, found)
            with _borrowed(connections) as connection:
                return lines + [line for check in checks if (line := check_of(connection, check))]
        except psycopg.Error as error:
            raise trouble(name, "unable to examine database", error) from None


def _session(connection: psycopg.Connection, stall_seconds: float) -> psycopg.Connection:
    try:
        for setting in (*_SESSION, f"lock_timeout = {int(stall_seconds * 1000)}"):
            connection.execute(f"SET {setting}".encode())
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _borrowed(connections: SimpleQueue[psycopg.Connection]) -> Iterator[psycopg.Connection]:
    connection = connections.get()
    try:
        yield connection
    finally:
        connections.put(connection)


def _rows(connections: SimpleQueue[psycopg.Connection], name: Table) -> int:
    with _borrowed(connections) as connection:
        query = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(*name))
        row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def check_of(connection: psycopg.Connection, check: str) -> str:
    """What is wrong with a check, which has to select one true; empty where nothing is. It can change nothing."""
    try:
        with connection.transaction():
            connection.execute("SET TRANSACTION READ ONLY")
            cursor = connection.execute(check.encode())
            found = cursor.fetchmany(2) if cursor.description else []
    except psycopg.Error as error:
        if connection.closed:
            raise
        reason = masked(error.diag.message_primary or type(error).__name__)
        return f"unable to run check: {check}: {reason}"
    if len(found) == 1 and len(found[0]) == 1 and found[0][0] is True:
        return ""
    one = len(found) == 1 and len(found[0]) == 1 and isinstance(found[0][0], bool | None)
    return f"check is not true: {check}" if one else f"check does not select one true or false: {check}"
