"""What is in the rows of a PostgreSQL table, as one short text, whatever their order: computed by the server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import LiteralString

import psycopg
from psycopg import sql

#: How values are written as text, the same on both sides. Floats come back from 17 digits as they were.
SETTINGS: tuple[LiteralString, ...] = (
    "DateStyle = 'ISO, YMD'",
    "IntervalStyle = 'postgres'",
    "TimeZone = 'UTC'",
    "extra_float_digits = 3",
    "bytea_output = 'hex'",
    "xmlbinary = 'base64'",
    "lc_monetary = 'C'",
)

#: Rows, and two sums modulo 2^64 of a 64-bit hash of each row's text. The hash is the one that PostgreSQL partitions
#: tables by, so it stays what it is from version to version; a sum does not ask for the rows' order, and counts twice
#: what is there twice.
_CONTENT: LiteralString = (
    "SELECT count(*), mod(coalesce(sum(hashtextextended(line, 0)::numeric + 9223372036854775808), 0),"
    " 18446744073709551616)::text, mod(coalesce(sum(hashtextextended(line, 20251016)::numeric"
    " + 9223372036854775808), 0),"
    ' 18446744073709551616)::text FROM (SELECT ROW({columns})::text COLLATE "C" AS line FROM ONLY {table}'
    " {condition} OFFSET 0) AS lines"
)
#: By name: a table that inherits may have come back with its columns in another order.
_COLUMNS: LiteralString = (
    "SELECT a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace"
    ' WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attname COLLATE "C"'
)

#: Bytes of a large object that the server holds in memory at once, and of large objects that it hashes in one query.
_PIECE = 16 << 20
_AT_ONCE = 256 << 20
#: At most so many large objects in one query.
_MANY = 1000

#: Of the next large objects: how many, the last one's number, and the sums as above, of a line for each piece of each.
#: By `lo_get`, which asks for no more than the right to read them. Pages that were never written read as zeros, before
#: and after.
_LARGE_OBJECTS: LiteralString = (
    "WITH RECURSIVE next AS (SELECT oid FROM pg_largeobject_metadata WHERE oid > %(after)s::oid ORDER BY oid"
    " LIMIT %(many)s), pieces AS (SELECT s.oid, 0::bigint AS at, p.size, p.hash FROM next s CROSS JOIN LATERAL"
    " (SELECT octet_length(d) AS size, sha256(d) AS hash FROM (SELECT lo_get(s.oid, 0, %(piece)s) AS d OFFSET 0) l) p"
    " UNION ALL SELECT q.oid, q.at + %(piece)s, p.size, p.hash FROM pieces q CROSS JOIN LATERAL"
    " (SELECT octet_length(d) AS size, sha256(d) AS hash FROM (SELECT lo_get(q.oid, q.at + %(piece)s, %(piece)s) AS d"
    " OFFSET 0) l) p WHERE q.size = %(piece)s), lines AS (SELECT oid,"
    " concat_ws(' ', oid, at, encode(hash, 'hex')) COLLATE \"C\" AS line FROM pieces)"
    " SELECT count(DISTINCT oid), max(oid), coalesce(sum(hashtextextended(line, 0)::numeric + 9223372036854775808), 0),"
    " coalesce(sum(hashtextextended(line, 20251016)::numeric + 9223372036854775808), 0) FROM lines"
)


def content(connection: psycopg.Connection, schema: str, table: str, condition: str = "") -> tuple[int, str]:
    """How many rows a table has, and what is in them, as 32 hexadecimal digits. `SETTINGS` hold in the session.

    Of those rows that `condition` chooses, which is a `WHERE` of an extension's, as pg_dump has it executed too. Raises
    `psycopg.Error`.
    """
    columns = [
        sql.Identifier(schema, table, name)
        for (name,) in connection.execute(_COLUMNS, [schema, table]).fetchall()
    ]
    query = sql.SQL(_CONTENT).format(
        columns=sql.SQL(", ").join(columns),
        table=sql.Identifier(schema, table),
        condition=sql.SQL(condition),
    )
    rows, first, second = connection.execute(query).fetchone() or (0, "0", "0")
    return int(rows), f"{int(first):016x}{int(second):016x}"


def large_objects(connection: psycopg.Connection) -> Iterator[tuple[int, str]]:
    """How many large objects there are, and what is in them, as 32 hexadecimal digits; what it gives last counts.

    Before that, what it has come to meanwhile. Raises `psycopg.Error`.
    """
    query = "SELECT count(*), pg_table_size('pg_largeobject') FROM pg_largeobject_metadata"
    total, bytes_ = connection.execute(query).fetchone() or (0, 0)
    many = max(1, min(_MANY, _AT_ONCE * max(total, 1) // max(bytes_, 1)))
    count = after = first = second = 0
    while True:
        given = {"after": after, "many": many, "piece": _PIECE}
        more, last, one, other = connection.execute(_LARGE_OBJECTS, given).fetchone() or (0, 0, 0, 0)
        count, first, second = count + more, first + int(one), second + int(other)
        yield count, f"{first % 2**64:016x}{second % 2**64:016x}"
        if not more:
            return
        after = last


def together(contents: Iterable[str]) -> str:
    """What is in the rows of several tables, from what is in each."""
    sums = [(int(found[:16], 16), int(found[16:], 16)) for found in contents]
    return "".join(f"{sum(part) % 2**64:016x}" for part in zip(*sums, strict=True))


def size(connection: psycopg.Connection, oid: int) -> int:
    """Bytes of a table, TOAST included."""
    (found,) = connection.execute("SELECT pg_table_size(%s::oid)", [oid]).fetchone() or (0,)
    return int(found or 0)
