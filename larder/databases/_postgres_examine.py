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

from larder.databases._postgres_connection import WORDING, untriggered
from larder.databases._postgres_load import masked
from larder.databases._postgres_snapshot import RELATIONS, Relation, trouble

#: How many differences are told one by one.
TOLD = 20

#: A name as SQL writes it: `public."Order"`.
_NAME = re.compile(r'("(?:[^"]|"")*"|[^".]+)\.("(?:[^"]|"")*"|[^".]+)')

#: Nothing may time out, but a lock that somebody holds for ever; and every row counts, where it lies: of rows that came
#: frozen, an index alone could tell the number.
_SESSION = (
    *WORDING,
    "enable_indexonlyscan = off",
    "statement_timeout = 0",
    "idle_in_transaction_session_timeout = 0",
    "row_security = off",
)

#: The tables below a hash-partitioned one, with the topmost such. An enum's hash is that of a number which a restore
#: gives anew, so that rows come back into other partitions; so may those of other types.
_HASHED = """
    WITH RECURSIVE tree AS (
        SELECT c.oid, CASE WHEN p.partstrat = 'h' THEN c.oid END AS top
        FROM pg_class c JOIN pg_partitioned_table p ON p.partrelid = c.oid WHERE NOT c.relispartition
        UNION ALL
        SELECT c.oid, coalesce(t.top, CASE WHEN p.partstrat = 'h' THEN c.oid END)
        FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid JOIN pg_class c ON c.oid = i.inhrelid
             LEFT JOIN pg_partitioned_table p ON p.partrelid = c.oid
    )
    SELECT n.nspname, c.relname, tn.nspname, tc.relname
    FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_class tc ON tc.oid = t.top JOIN pg_namespace tn ON tn.oid = tc.relnamespace
    WHERE c.relkind = 'r'
"""

#: Runs one check, and says what is wrong with it; empty where nothing is. It can change nothing, and whatever it does
#: is taken back at the end, a cursor `WITH HOLD` included, which a `COMMIT` would read as us.
#:
#: A check is the operator's, and the views and functions in it are whoever's made them: they run as who calls them,
#: which would be us, and we may be a superuser. So this belongs to the database's owner, and runs with their rights.
#: What `SET ROLE` gives, any function takes back by `RESET ROLE`, but not within a `SECURITY DEFINER`. A check has the
#: search path that an application would have.
CHECKER = (
    """
CREATE FUNCTION pg_temp.larder_check(query text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $larder$
DECLARE
    answer record;
    said text := 'is not true';
BEGIN
    BEGIN
        PERFORM pg_catalog.set_config('transaction_read_only', 'on', true);
        PERFORM pg_catalog.set_config('search_path', (
            SELECT reset_val FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'search_path'), true);
        EXECUTE query INTO STRICT answer;
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        SELECT CASE WHEN count(*) <> 1 OR bool_or(jsonb_typeof(value) NOT IN ('boolean', 'null'))
                    THEN 'does not select one true or false'
                    WHEN bool_and(value = 'true') THEN '' ELSE said END
            INTO said FROM jsonb_each(to_jsonb(answer));
        RAISE EXCEPTION USING ERRCODE = 'LARDR';
    EXCEPTION
        WHEN SQLSTATE 'LARDR' THEN NULL;
        WHEN no_data_found OR too_many_rows THEN said := 'does not select one true or false';
        WHEN insufficient_privilege THEN
            said := 'can''t be run: ' || SQLERRM || ' (checks run as the owner of the database)';
        WHEN others THEN said := 'can''t be run: ' || SQLERRM;
    END;
    RETURN said;
END $larder$;
""",
    """
DO $larder$ BEGIN
    EXECUTE format('ALTER FUNCTION pg_temp.larder_check(text) OWNER TO %I',
                   (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()));
EXCEPTION
    -- Our role may not act for the owner: then it is no superuser either.
    WHEN insufficient_privilege THEN NULL;
END $larder$;
""",
)

_CANT_BE_RUN = "can't be run: "

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


def hashed_in(connection: psycopg.Connection) -> dict[Table, Table]:
    """By each partition that rows get into by a hash the topmost table that is parted so. Raises `psycopg.Error`."""
    rows = connection.execute(_HASHED).fetchall()
    return {(schema, name): (top_schema, top) for schema, name, top_schema, top in rows}


def differences(
    wanted: Mapping[Table, int | None],
    found: Mapping[Table, int | None],
    trees: Mapping[Table, Table] | None = None,
) -> list[str]:
    """How `found` differs from `wanted`, a line each; not more than `TOLD`, then how many more there are.

    The partitions that `trees` name are counted together, as the table that it names for them.
    """
    lines = [f"table {shown(name)} is missing" for name in wanted if name not in found]
    lines += [f"table {shown(name)} is not in the backup" for name in found if name not in wanted]
    before: dict[Table, int] = {}
    now: dict[Table, int] = {}
    for name, rows in wanted.items():
        whole, here = (trees or {}).get(name, name), found.get(name)
        if rows is not None and here is not None:
            before[whole], now[whole] = before.get(whole, 0) + rows, now.get(whole, 0) + here
    lines += [
        f"table {shown(name)} has {now[name]} rows, and the backup {rows}"
        for name, rows in before.items()
        if now[name] != rows
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
        with untriggered():
            for _ in range(jobs):
                connections.put(stack.enter_context(contextlib.closing(session(connect(), stall_seconds))))
        try:
            with borrowed(connections) as connection:
                names, trees = tables_in(connection), hashed_in(connection)
            wanted = expected(fingerprint)
            to_count = [found for found in names if wanted.get(found) is not None]
            found: dict[Table, int | None] = dict.fromkeys(names)
            with ThreadPoolExecutor(jobs) as pool:
                for counting, rows in zip(
                    to_count, pool.map(lambda one: _rows(connections, one), to_count), strict=True
                ):
                    found[counting] = rows
                    counted(rows)
            lines = differences(wanted, found, trees)
            with borrowed(connections) as connection:
                return lines + [line for check in checks if (line := check_of(connection, check))]
        except psycopg.Error as error:
            raise trouble(name, "unable to examine database", error) from None


def session(connection: psycopg.Connection, stall_seconds: float) -> psycopg.Connection:
    """`connection`, prepared to read for as long as it takes; a lock may keep it waiting for `stall_seconds`."""
    try:
        for setting in (*_SESSION, f"lock_timeout = {int(stall_seconds * 1000)}"):
            connection.execute(f"SET {setting}".encode())
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def borrowed(connections: SimpleQueue[psycopg.Connection]) -> Iterator[psycopg.Connection]:
    """One of `connections`, for the length of the block."""
    connection = connections.get()
    try:
        yield connection
    finally:
        connections.put(connection)


def _rows(connections: SimpleQueue[psycopg.Connection], name: Table) -> int:
    with borrowed(connections) as connection:
        return rows_of(connection, name)


def rows_of(connection: psycopg.Connection, name: Table) -> int:
    """How many rows a table has, its partitions apart. Raises `psycopg.Error`."""
    query = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(*name))
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def check_of(connection: psycopg.Connection, check: str) -> str:
    """What is wrong with a check, which has to select one true; empty where nothing is. It can change nothing."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("SET TRANSACTION READ WRITE")
            connection.execute("SET LOCAL enable_indexonlyscan = DEFAULT")
            for statement in CHECKER:
                connection.execute(statement.encode())
            (said,) = connection.execute("SELECT pg_temp.larder_check(%s)", [check]).fetchone() or ("",)
    except psycopg.Error as error:
        if connection.closed:
            raise
        said = _CANT_BE_RUN + (error.diag.message_primary or type(error).__name__)
    if said.startswith(_CANT_BE_RUN):
        return f"unable to run check: {check}: {masked(said.removeprefix(_CANT_BE_RUN))}"
    return f"check {said}: {check}" if said else ""
