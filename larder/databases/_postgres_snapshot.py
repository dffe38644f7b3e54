"""One snapshot of a PostgreSQL database: held open for pg_dump to read, and counted meanwhile."""

from __future__ import annotations

import contextlib
import fnmatch
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import psycopg
from psycopg import sql

from larder.databases import (
    _postgres_catalog,
    _postgres_catalog_positions,
    _postgres_configuration,
    _postgres_content,
    _postgres_facts,
    _postgres_objects,
)
from larder.databases._postgres_connection import WORDING
from larder.errors import LarderError, RefusedError, UnreachableError

Found = TypeVar("Found")

#: Seconds that a query may take to end after it was asked to.
_PATIENCE = 10

#: In the transaction that holds the snapshot nothing may time out: it lasts as long as pg_dump does.
_QUIET = (
    # Once more, for where a pooler gives every transaction another session.
    "search_path = pg_catalog, pg_temp",
    *WORDING,
    "statement_timeout = 0",
    "idle_in_transaction_session_timeout = 0",
    "lock_timeout = 0",
    "row_security = off",
)

#: How often a server looks whether its client is still there while it works for it, in milliseconds.
LOST_CLIENT_CHECK = "client_connection_check_interval=2000"

#: Everything that pg_dump's --exclude-table can name. Not the system's, not temporary, not an extension's own.
RELATIONS = """
    SELECT c.oid, n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), c.relkind = 'r',
           c.relpersistence = 'u' AND pg_is_in_recovery(),
           convert_to(format('"%s"."%s"', replace(n.nspname, '"', '""'), replace(c.relname, '"', '""')),
                      getdatabaseencoding()),
           array(SELECT inhparent FROM pg_inherits WHERE inhrelid = c.oid AND c.relispartition),
           has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
               AND NOT row_security_active(c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_depend d
                      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY n.nspname, c.relname
"""

#: What stays in a dump and leans on what was left out: foreign keys, and views.
_LEANING = """
    SELECT format('%%I.%%I', n.nspname, c.relname), format('foreign key %%I', k.conname), k.confrelid
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE k.contype = 'f' AND k.confrelid = ANY (%(gone)s) AND NOT k.conrelid = ANY (%(gone)s)
    UNION
    SELECT format('%%I.%%I', n.nspname, c.relname), 'view', d.refobjid
    FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class c ON c.oid = r.ev_class
         JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
      AND d.refobjid = ANY (%(gone)s) AND NOT c.oid = ANY (%(gone)s)
    UNION
    SELECT quote_ident(p.pubname), 'publication', r.prrelid
    FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = ANY (%(gone)s)
    ORDER BY 1, 2
"""


@dataclass(frozen=True)
class Relation:
    """A table, view or the like."""

    oid: int
    schema: str
    table: str
    #: As SQL writes it: `public."Order"`.
    name: str
    #: Whether it holds rows of its own.
    is_table: bool
    #: Unlogged on a standby, where nobody can read it: pg_dump writes it without rows.
    is_hollow: bool
    #: A pattern of pg_dump that means this one and nothing else, in the database's encoding.
    pattern: bytes
    #: What it is a partition of.
    parents: list[int]
    #: Whether this role may read all of it.
    is_readable: bool

    def matches(self, pattern: str) -> bool:
        """Whether it is meant by `schema.table` or `table`, with * and ?, upper and lower case apart."""
        return fnmatch.fnmatchcase(f"{self.schema}.{self.table}", pattern) or fnmatch.fnmatchcase(
            self.table, pattern
        )


class Snapshot:
    """A transaction that sees one moment of the database, for the length of a `with` block.

    The connection is not its own: whoever made it closes it. `name` is what messages call the database.
    """

    def __init__(self, name: str, connection: psycopg.Connection, exclude: Sequence[str]) -> None:
        self._name = name
        self._connection = connection
        self._exclude = exclude
        self._counter: threading.Thread | None = None
        self._failure: Exception | None = None
        #: The database as a whole, for the fingerprint: with `catalog`, what is in it beside `objects`; and where rows
        #: were read, `configuration`, those of extensions' configuration tables, and `large_objects`.
        self.described: dict[str, Any] = {}
        #: Everything in the database by kind and name, with its definition, but what is left out.
        self.objects: dict[str, str] = {}
        #: `rows` of each table, and `content` where it was hashed.
        self.counted: dict[str, dict[str, Any]] = {}
        self._large_objects: tuple[int, str] | None = None
        self._configuration: dict[str, dict[str, Any]] = {}
        self._rows = self._hashed = False
        self._largest: int | None = None
        #: What the fingerprint does not say; a line each.
        self.not_covered: list[str] = []
        self._stop = threading.Event()
        #: What the operator should know of what was left out.
        self.warnings: list[str] = []

    def __enter__(self) -> Self:
        try:
            self._begin()
        except psycopg.Error as error:
            raise self._unable(error) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._halt()
        with contextlib.suppress(psycopg.Error):
            self._connection.rollback()

    def _begin(self) -> None:
        run = self._connection.execute
        run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for setting in (*_QUIET, *_postgres_content.SETTINGS):
            run(f"SET LOCAL {setting}".encode())
        if self._connection.info.server_version >= 170000:
            run("SET LOCAL transaction_timeout = 0")
        #: Whether the server can be told by `LOST_CLIENT_CHECK` as an option of the connection.
        self.may_watch_clients = may_watch_clients(self._connection)
        #: What pg_dump's --snapshot takes.
        (self.id, self.taken_at) = self._row(
            "SELECT pg_export_snapshot(),"
            " to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
        )
        everything = [Relation(*row) for row in run(RELATIONS).fetchall()]
        self.excluded = self._resolve(everything)
        gone = {relation.oid for relation in self.excluded}
        self.tables = [found for found in everything if found.is_table and found.oid not in gone]
        self._wholes = _wholes(everything)
        self._warn(gone)

    def _row(self, query: str) -> tuple[Any, ...]:
        return self._connection.execute(query).fetchone() or ()

    def _resolve(self, everything: list[Relation]) -> list[Relation]:
        gone: set[int] = set()
        for pattern in self._exclude:
            matched = {relation.oid for relation in everything if relation.matches(pattern)}
            if not matched:
                self.warnings.append(f"the exclude pattern '{pattern}' matches no table")
            gone |= matched
        # Without the table that they are part of, partitions could not be attached again.
        while more := {
            found.oid for found in everything if found.oid not in gone and gone & set(found.parents)
        }:
            gone |= more
        return [relation for relation in everything if relation.oid in gone]

    def _warn(self, gone: set[int]) -> None:
        if gone:
            names = {relation.oid: relation.name for relation in self.excluded}
            for leaning, how, oid in self._connection.execute(_LEANING, {"gone": list(gone)}).fetchall():
                self.warnings.append(
                    f"{leaning} ({how}) needs {names[oid]}, which is left out: a restore will report an error there"
                )
        if any(table.is_hollow for table in self.tables):
            self.warnings.append("unlogged tables are dumped without rows, because this server is a standby")
        if not self.tables:
            self.warnings.append("the database holds no table")

    def _describe(self) -> None:
        self.described = _postgres_facts.describe(self._connection)
        found = self._fingerprinted("the rarer objects and details", _postgres_catalog.read)
        if found is not None:
            self.described["catalog"], unread = found
            self.not_covered += unread
        self.objects = self._fingerprinted("definitions", _postgres_objects.catalog) or {}

    def positions(self) -> dict[str, list[Any]]:
        """Where sequences are now, which no snapshot holds. Not between `begin_reading` and `finish_reading`."""
        found, unread = self._fingerprinted(
            "the positions of sequences", _postgres_catalog_positions.positions
        ) or (
            {},
            [],
        )
        self.not_covered = [*dict.fromkeys([*self.not_covered, *unread])]
        return found

    def _fingerprinted(
        self, what: str, read: Callable[[psycopg.Connection, list[int]], Found]
    ) -> Found | None:
        """What `read` finds. Where the server refuses it, the dump is good without, and the fingerprint says so."""
        try:
            # Rolled back, so that no lock of it is kept until the dump has ended.
            with self._connection.transaction(force_rollback=True):
                return read(self._connection, self._gone)
        except psycopg.Error as error:
            if self._connection.closed or isinstance(error, psycopg.OperationalError):
                raise self._unable(error) from None
            reason = error.diag.message_primary or type(error).__name__
            self.not_covered.append(f"{what}: {reason}")
            return None

    @property
    def _gone(self) -> list[int]:
        return [relation.oid for relation in self.excluded]

    def size_and_clock(self) -> tuple[int, float]:
        """Bytes of the database, and the server's clock in seconds since 1970."""
        try:
            size, clock = self._row(
                "SELECT pg_database_size(current_database()), extract(epoch FROM clock_timestamp())::float8"
            )
        except psycopg.Error as error:
            raise self._unable(error) from None
        return int(size), float(clock)

    def unreadable(self) -> list[str]:
        """The tables that this role may not read wholly, which pg_dump will stop at."""
        return [table.name for table in self.tables if not table.is_readable]

    def begin_reading(self, *, rows: bool, hashed: bool = False, largest: int | None = None) -> None:
        """Begin to read what the fingerprint is made of, in a thread that keeps the connection meanwhile.

        The database as a whole and its objects; if `rows`, how many there are in each table; and, if `hashed`, what is
        in them. Tables of more than `largest` bytes are counted only.
        """
        self._rows, self._hashed, self._largest = rows, hashed, largest
        self._counter = threading.Thread(target=self._read_all, name=f"count {self._name}", daemon=True)
        self._counter.start()

    def check(self) -> None:
        """Raise what has gone wrong with reading, if anything has."""
        if self._failure is not None:
            if isinstance(self._failure, psycopg.Error):
                raise self._unable(self._failure) from None
            raise self._failure

    def finish_reading(self, stall_seconds: float) -> None:
        """Wait for the end of reading; a table may take `stall_seconds`. Then there are `described` and so on."""
        assert self._counter is not None, "begin_reading() comes first"  # noqa: S101
        seen, since = self._seen, time.monotonic()
        while self._counter.is_alive():
            self._counter.join(0.5)
            if self._seen != seen:
                seen, since = self._seen, time.monotonic()
            if time.monotonic() - since >= stall_seconds:
                raise UnreachableError(
                    f"unable to count the rows of database '{self._name}': no answer for {stall_seconds:g} s",
                    'row_counts = "off" does without',
                )
        self.check()
        if not self._rows:
            return
        self.described["configuration"] = self._configuration
        if self._large_objects is not None:
            count, content = self._large_objects
            self.described["large_objects"] = {"count": count, "content": content}

    @property
    def _seen(self) -> tuple[int, int, tuple[int, str] | None]:
        """Something that changes while the server gets on with counting."""
        return len(self.counted), len(self._configuration), self._large_objects

    def _read_all(self) -> None:
        try:
            self._describe()
            if self._rows:
                self._count()
        except Exception as error:  # noqa: BLE001 - raised again by check(), in the thread that waits for it
            self._failure = error

    def _count(self) -> None:
        for table in self.tables:
            if self._stop.is_set():
                return
            # On a standby there are no rows in what pg_dump writes.
            found = {"rows": 0} if table.is_hollow else self._read(table)
            whole = self._wholes.get(table.oid)
            self.counted[table.name] = {**found, **({"partition_of": whole} if whole else {})}
        self._read_configuration()
        if self._hashed:
            self._read_large_objects()

    def _read(self, table: Relation) -> dict[str, Any]:
        if not self._hashed:
            return {"rows": self._rows_of(table)}
        if self._is_too_large(table.oid, table.name):
            return {"rows": self._rows_of(table)}
        rows, found = _postgres_content.content(self._connection, table.schema, table.table)
        return {"rows": rows, "content": found}

    def _is_too_large(self, oid: int, name: str) -> bool:
        if self._largest is None or _postgres_content.size(self._connection, oid) <= self._largest:
            return False
        self.not_covered.append(f"what is in the rows of {name}, which is larger than content_up_to")
        return True

    def _read_configuration(self) -> None:
        for table in _postgres_configuration.tables(self._connection):
            if self._stop.is_set():
                return
            try:
                with self._connection.transaction():
                    hashed = self._hashed and not self._is_too_large(table.oid, table.name)
                    self._configuration[table.name] = table.read(self._connection, hashed=hashed)
            except psycopg.errors.InsufficientPrivilege as error:
                self.not_covered.append(f"the rows of {table.name}: {error.diag.message_primary}")

    def _read_large_objects(self) -> None:
        what = "what is in large objects"
        if self._largest is not None:
            (size,) = self._row("SELECT pg_table_size('pg_largeobject')")
            if size > self._largest:
                self.not_covered.append(f"{what}, which are larger than content_up_to")
                return
        try:
            with self._connection.transaction():
                for found in _postgres_content.large_objects(self._connection):
                    self._large_objects = found
                    if self._stop.is_set():
                        return
        except psycopg.errors.InsufficientPrivilege as error:
            self._large_objects = None
            self.not_covered.append(f"{what}: {error.diag.message_primary}")

    def _rows_of(self, table: Relation) -> int:
        query = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(table.schema, table.table))
        row = self._connection.execute(query).fetchone()
        return int(row[0]) if row else 0

    def _halt(self) -> None:
        """End the thread that counts, whatever it is doing."""
        self._stop.set()
        if self._counter is None or not self._counter.is_alive():
            return
        with contextlib.suppress(psycopg.Error):
            self._connection.cancel_safe(timeout=_PATIENCE)
        self._counter.join(_PATIENCE)
        if self._counter.is_alive():
            # The server does not answer; without its connection the thread will end.
            with contextlib.suppress(OSError), socket.socket(fileno=self._connection.pgconn.socket) as plug:
                plug.shutdown(socket.SHUT_RDWR)
                plug.detach()
            self._counter.join(_PATIENCE)

    def _unable(self, error: psycopg.Error) -> LarderError:
        return trouble(self._name, "unable to dump database", error)


def _wholes(everything: Sequence[Relation]) -> dict[int, str]:
    """By the number of each partition the name of the whole table, however many parts there are between."""
    known = {relation.oid: relation for relation in everything}
    found = {}
    for relation in everything:
        whole = relation
        while whole.parents and whole.parents[0] in known:
            whole = known[whole.parents[0]]
        if whole is not relation:
            found[relation.oid] = whole.name
    return found


def may_watch_clients(connection: psycopg.Connection) -> bool:
    """Have the server look after its client in this transaction, and say whether other programs may ask for the same.

    Without that, the session of a program that was killed while it waited for a lock stays until it has the
    lock. A pooler between us and the server would reject the option; it hides the number of the server's process.
    """
    if connection.info.server_version < 140000:
        return False
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL {LOST_CLIENT_CHECK}")
            (process,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
    except psycopg.errors.InvalidParameterValue:
        # Not every platform that a server runs on can do it.
        return False
    return bool(process == connection.info.backend_pid)


def trouble(
    name: str,
    doing: str,
    error: psycopg.Error,
    right: str = "grant SELECT on all tables to the role, or exclude the table",
) -> LarderError:
    """The error for a query that failed: worth another try where the connection was lost or a standby moved on.

    `right` is the hint for where the role lacks a right.
    """
    reason = error.diag.message_primary or str(error).strip().partition("\n")[0] or type(error).__name__
    message = f"{doing} '{name}': {reason[:1].lower()}{reason[1:]}"
    state = error.sqlstate or ""
    if state == "42501":
        if "row-level security" in reason:
            return RefusedError(message, "use a role with BYPASSRLS, or exclude the table")
        return RefusedError(message, right)
    if state == "40001":
        return UnreachableError(
            message, "set hot_standby_feedback = on, or raise max_standby_streaming_delay"
        )
    if not state or state[:2] in ("08", "53", "57"):
        return UnreachableError(message, "see the server's log")
    return LarderError(message, "see the server's log")
