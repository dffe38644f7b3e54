"""What is in the rows of a PostgreSQL table, as one short text, whatever their order: computed by the server."""

from __future__ import annotations

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
    ' 18446744073709551616)::text FROM (SELECT ROW({columns})::text COLLATE "C" AS line FROM ONLY {table} AS t'
    " OFFSET 0) AS lines"
)
#: By name: a table that inherits may have come back with its columns in another order.
_COLUMNS: LiteralString = (
    "SELECT a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace"
    ' WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attname COLLATE "C"'
)


def content(connection: psycopg.Connection, schema: str, table: str) -> tuple[int, str]:
    """How many rows a table has, and what is in them, as 32 hexadecimal digits. `SETTINGS` hold in the session.

    Raises `psycopg.Error`.
    """
    columns = [
        sql.Identifier("t", name) for (name,) in connection.execute(_COLUMNS, [schema, table]).fetchall()
    ]
    query = sql.SQL(_CONTENT).format(columns=sql.SQL(", ").join(columns), table=sql.Identifier(schema, table))
    rows, first, second = connection.execute(query).fetchone() or (0, "0", "0")
    return int(rows), f"{int(first):016x}{int(second):016x}"


def size(connection: psycopg.Connection, oid: int) -> int:
    """Bytes of a table, TOAST included."""
    (found,) = connection.execute("SELECT pg_table_size(%s::oid)", [oid]).fetchone() or (0,)
    return int(found or 0)
