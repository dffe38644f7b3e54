"""All rows of a table, sent by one session: frozen as they come, where that can be.

Rows that come into a table which their own transaction has emptied can be written as if they had always been there
(https://www.postgresql.org/docs/current/sql-copy.html, FREEZE). Then nobody has to note later on each page that its
rows were committed, which writes all of them once more, and no autovacuum comes to freeze them. Where the server's
`wal_level` is minimal, they are not logged either. And sessions that add to one table wait for each other.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from larder.databases._postgres_folder import TableFile

#: Bytes of rows that are worth being frozen: emptying a table takes a new file, and waits for the server four times.
WORTH_FREEZING = 1 << 20

_NAME = re.compile(rb'COPY ((?:"(?:[^"]|"")*"|[^\s"(])+) ')

#: Whether a table may be emptied: not an extension's that holds rows of its own, nor one whose triggers would hear it.
_MAY_BE_EMPTIED = """
    SELECT relkind = 'r' AND NOT relhastriggers AND pg_relation_size(oid) = 0 FROM pg_class WHERE oid = %s::regclass
"""


@dataclass(frozen=True, slots=True)
class Alone:
    """All rows of a table, in their file, and the statement (`COPY … FROM stdin`) that takes them."""

    statement: bytes
    file: TableFile


def send(connection: psycopg.Connection, table: Alone, sent: Callable[[], None]) -> None:
    """Send all rows of `table`, and commit; `sent` is called after each block.

    Raises what reading raises, and `psycopg.Error`.
    """
    if table.file.rows_size < WORTH_FREEZING or not _frozen(connection, table, sent):
        _copy(connection, table.statement, table, sent)


def _frozen(connection: psycopg.Connection, table: Alone, sent: Callable[[], None]) -> bool:
    """Send the rows frozen; says whether that could be. If not, the table is as it was."""
    name = _NAME.match(table.statement)
    if name is None:
        return False
    try:
        found = connection.execute(_MAY_BE_EMPTIED, [name[1].decode(connection.info.encoding)]).fetchone()
        if not (found and found[0]):
            return False
        with connection.transaction():
            connection.execute(b"TRUNCATE ONLY " + name[1])
            _copy(connection, table.statement + b" WITH (FREEZE)", table, sent)
    except UnicodeDecodeError:
        # It is called something in a database that has no encoding.
        return False
    except psycopg.Error:
        if connection.closed:
            raise
        # Rows that are wrong are so the second time too. A table that only its owner may empty is not, nor one of a
        # kind that freezes nothing, nor one whose rows are checked by a look at another that is being filled.
        return False
    return True


def _copy(connection: psycopg.Connection, statement: bytes, table: Alone, sent: Callable[[], None]) -> None:
    with (
        contextlib.closing(table.file.rows()) as found,  # type: ignore[type-var]
        connection.cursor() as cursor,
        cursor.copy(statement) as copy,
    ):
        for rows in found:
            if rows.first:
                copy.write(rows.first)
            copy.write(rows.data)
            sent()
