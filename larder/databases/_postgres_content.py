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
)

#: Rows, and two sums modulo 2^64 of a 64-bit hash of each row's text. The hash is the one that PostgreSQL partitions
#: tables by, so it stays what it is from version to version; a sum does not ask for the rows' order, and counts twice
#: what is there twice.
_CONTENT: LiteralString = (
    'SELECT count(*), mod(coalesce(sum(hashtextextended(t::text COLLATE "C", 0)::numeric + 9223372036854775808), 0),'
    ' 18446744073709551616)::text, mod(coalesce(sum(hashtextextended(t::text COLLATE "C", 20251016)::numeric'
    " + 9223372036854775808), 0), 18446744073709551616)::text FROM ONLY {} AS t"
)


def content(connection: psycopg.Connection, schema: str, table: str) -> tuple[int, str]:
    """How many rows a table has, and what is in them, as 32 hexadecimal digits. `SETTINGS` hold in the session.

    Raises `psycopg.Error`.
    """
    query = sql.SQL(_CONTENT).format(sql.Identifier(schema, table))
    rows, first, second = connection.execute(query).fetchone() or (0, "0", "0")
    return int(rows), f"{int(first):016x}{int(second):016x}"


def size(connection: psycopg.Connection, oid: int) -> int:
    """Bytes of a table, TOAST included."""
    (found,) = connection.execute("SELECT pg_table_size(%s::oid)", [oid]).fetchone() or (0,)
    return int(found or 0)
