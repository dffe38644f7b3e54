"""Where the sequences of a PostgreSQL database are, in few questions however many there are."""

# ruff: noqa: S608 - the query is a text of ours and nobody else's

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from larder.databases._postgres_objects import ours

#: How many sequences are asked for at once.
_AT_ONCE = 500

_SEQUENCES: LiteralString = (
    "SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), s.seqincrement,"
    " has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT'), coalesce((SELECT"
    " d.refobjid::bigint FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid"
    " AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'), 0)"
    " FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relpersistence <> 't' AND (" + ours("pg_class", "c.oid") + " OR c.oid IN"
    # An extension's own, which it has told pg_dump to look after.
    " (SELECT unnest(e.extconfig) FROM pg_extension e WHERE e.oid >= 16384)) ORDER BY 3"
)


def positions(
    connection: psycopg.Connection, gone: Sequence[int] = ()
) -> tuple[dict[str, list[Any]], list[str]]:
    """Last value, whether that was given out, and increment of each sequence; and those that this role may not read.

    A sequence's position is no part of any snapshot: it is what it is when it is asked. Raises `psycopg.Error`.
    """
    left_out = set(gone)
    found: dict[str, list[Any]] = {}
    unread = []
    readable = []
    for schema, sequence, name, increment, may_read, table in connection.execute(_SEQUENCES).fetchall():
        if table and int(table) in left_out:
            continue
        if may_read:
            readable.append((sql.Identifier(schema, sequence), str(name), int(increment)))
        else:
            unread.append(f"the position of sequence {name}, which this role may not read")
    rest = iter(readable)
    while some := list(islice(rest, _AT_ONCE)):
        selects = [
            sql.SQL("SELECT {}, last_value, is_called FROM {}").format(sql.Literal(number), sequence)
            for number, (sequence, _, _) in enumerate(some)
        ]
        # Rolled back, so that no more locks are held than these.
        with connection.transaction(force_rollback=True):
            rows = connection.execute(sql.SQL(" UNION ALL ").join(selects)).fetchall()
        for number, value, called in rows:
            _, name, increment = some[number]
            found[name] = [int(value), bool(called), increment]
    return found, unread
