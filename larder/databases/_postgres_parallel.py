"""A script of pg_dump loaded by several sessions at once, into a database that nobody uses yet.

psql executes the text, in order. Rows are sent, and indexes and foreign keys made, by a crew of sessions beside it:
what comes after them in the script waits until they are done, and they wait until psql has done what comes before.
Nothing here is one transaction, so whoever calls drops the database wherever this raises.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

import psycopg

from larder.databases import _postgres_folder
from larder.databases._postgres_alone import Alone
from larder.databases._postgres_crew import Block, Crew, Job
from larder.databases._postgres_cut import Cutter, End, Entry, Piece, Rows, Table, Text, UncutError
from larder.databases._postgres_load import Script, explained, masked, meaning
from larder.errors import LarderError, RefusedError, RejectedError, UnreachableError
from larder.process import TICK, Process, StalledError
from larder.progress import Progress

#: Bytes of comments that wait until the indexes before them are made.
_HELD = 4 << 20

_FOREIGN_KEY = b"FK CONSTRAINT"

#: What part of its share of all rows a session may be given beyond it. Several that fill one table take a tenth longer.
_BEYOND = 0.05

#: How a server says that sessions of ours stood in each other's way.
_DEADLOCK = "40P01"


class OneSessionError(Exception):
    """It can't be done with several sessions, or went wrong; with one it may go well. The text says why, for people."""


#: What several sessions could not do, and one may be able to.
_NOT_SO = (LarderError, RefusedError, RejectedError)


@dataclass(frozen=True)
class Folder:
    """A folder of pg_dump's, of whose outline the script is; `progress` is told how much of its files was read."""

    path: Path
    progress: Progress


def load(
    script: Script,
    stream: Iterable[bytes],
    connect: Callable[[], psycopg.Connection],
    jobs: int,
    folder: Folder | None = None,
) -> None:
    """Load `stream` into the empty database that `script` leads to, with `jobs` sessions that `connect` makes.

    With a `folder`, the rows in `stream` are names of its files, whose rows are sent.

    Returns when all of `stream` was read to its end and done. Raises `OneSessionError`, what `stream` raises, and of
    what `explained` says `UnreachableError` and `ExhaustedError`; by then the sessions are over, or about to be.
    """
    try:
        with explained(script.doing):
            _load(script, stream, connect, jobs, folder)
    except UncutError as error:
        raise OneSessionError(str(error)) from None
    except psycopg.Error as error:
        found = _meaning(script.doing, error)
        if type(found) in _NOT_SO or error.sqlstate == _DEADLOCK:
            raise OneSessionError(found.message) from None
        raise found from None
    except LarderError as error:
        if type(error) in _NOT_SO:
            raise OneSessionError(error.message) from None
        raise


def _load(
    script: Script,
    stream: Iterable[bytes],
    connect: Callable[[], psycopg.Connection],
    jobs: int,
    folder: Folder | None,
) -> None:
    with script.process() as process, contextlib.ExitStack() as stack:

        def connected() -> psycopg.Connection:
            try:
                return stack.enter_context(contextlib.closing(connect()))
            except LarderError as error:
                raise OneSessionError(error.message) from None

        listener = connected()
        loading = _Loading(script, process, listener, folder)
        cutter = Cutter()
        try:
            for data in stream:
                for piece in cutter.feed(data):
                    if loading.crew is None and not isinstance(piece, Text):
                        loading.crew = Crew([_prepared(connected(), cutter) for _ in range(jobs)])
                    loading.take(piece)
            for piece in cutter.end():
                loading.take(piece)
            loading.finish()
        finally:
            if loading.crew is not None:
                loading.crew.stop()


def _prepared(connection: psycopg.Connection, cutter: Cutter) -> psycopg.Connection:
    """A session that reads the script's parts as psql does. Raises `OneSessionError` for an encoding unknown here."""
    connection.execute(b"".join(cutter.settings))
    try:
        _ = connection.info.encoding
    except psycopg.NotSupportedError:
        raise OneSessionError("it is in an encoding that is not known here") from None
    return connection


class _Work(Enum):
    """What a crew is at: one of these, in any order within it, and the next when that is done."""

    ROWS = auto()
    INDEXES = auto()
    FOREIGN_KEYS = auto()


class _Loading:
    """One script on its way: psql is told the text, a crew does the rest, and neither goes ahead of the other."""

    def __init__(
        self,
        script: Script,
        process: Process,
        listener: psycopg.Connection,
        folder: Folder | None,
    ) -> None:
        self.crew: Crew | None = None
        self._folder = folder
        #: Tables of the folder whose rows are to be sent before what comes next.
        self._tables: list[Alone] = []
        self._script = script
        self._process = process
        self._listener = listener
        self._channel = f"larder_{secrets.token_hex(8)}"
        listener.execute(f"LISTEN {self._channel}".encode())
        #: Bytes of the folder's files that were read, but for the tables that are being sent.
        self._read = 0
        self._fed = 0
        #: How much of what psql was fed it is known to have done.
        self._done = 0
        self._statement = b""
        self._at_work: _Work | None = None
        self._comments: list[bytes] = []
        opening = ["\\encoding UTF8", "\\o /dev/null"]
        if listener.info.server_version >= 140000:
            # It waits while the crew works.
            opening.append("SET idle_session_timeout = 0;")
        self._process.feed("\n".join([*opening, ""]).encode())

    def take(self, piece: Piece) -> None:
        """Have a piece done, after all that has to be done before."""
        match piece:
            case Text():
                if not piece.silent:
                    self._feed(piece.data)
            case Table():
                self._statement = piece.statement
            case Rows():
                self._begin(_Work.ROWS)
                if self._folder is None:
                    self._put(Block(self._statement, piece))
                else:
                    file = _postgres_folder.table_file(self._folder.path, piece)
                    self._tables.append(Alone(self._statement, file))
            case Entry(kind=b"COMMENT"):
                if self._at_work not in (None, _Work.ROWS) and sum(map(len, self._comments)) < _HELD:
                    # Nothing depends on a comment, and the work around it can go on.
                    self._comments.append(piece.data)
                else:
                    self._feed(piece.data)
            case Entry():
                # A foreign key takes the index of what it refers to.
                self._begin(_Work.FOREIGN_KEYS if piece.kind == _FOREIGN_KEY else _Work.INDEXES)
                self._put(piece)
            case End():
                pass

    def finish(self) -> None:
        """Wait until all was done, and psql has ended well."""
        self._settle()
        # A session that was lost with nothing to do would end well too.
        self._meet()
        self._process.end_input()
        self._process.finish()

    def _feed(self, data: bytes) -> None:
        self._settle()
        self._process.feed(data)
        self._fed += 1

    def _begin(self, work: _Work) -> None:
        if self._at_work is not work:
            self._settle()
            if self._done != self._fed:
                self._meet()
            self._at_work = work

    def _send(self, crew: Crew) -> None:
        """Have the rows sent of all tables that are waiting."""
        alone, together = _shared_out(self._tables, crew.size)
        for table in alone:
            self._put(table)
        for table in together:
            with contextlib.closing(table.file.rows()) as found:  # type: ignore[type-var]
                for rows in found:
                    self._put(Block(table.statement, rows))

    def _put(self, job: Job) -> None:
        crew = self.crew
        assert crew is not None  # noqa: S101 - there is one before the first job
        self._await(lambda seconds: crew.put(job, seconds))

    def _settle(self) -> None:
        """Wait until the crew has done all that it was given."""
        if self._at_work is None or self.crew is None:
            return
        self._send(self.crew)
        self._await(self.crew.settled)
        self._tell()
        self._read += sum(table.file.size for table in self._tables)
        self._tables.clear()
        self._at_work = None
        for comment in self._comments:
            self._process.feed(comment)
            self._fed += 1
        self._comments.clear()

    def _meet(self) -> None:
        """Wait until psql has done all that it was fed."""
        mark = secrets.token_hex(8)
        self._process.feed(f"\nSELECT pg_catalog.pg_notify('{self._channel}', '{mark}');\n".encode())

        def heard(seconds: float) -> bool:
            return any(
                note.payload == mark for note in self._listener.notifies(timeout=seconds, stop_after=1)
            )

        self._await(heard)
        self._done = self._fed

    def _await(self, ready: Callable[[float], bool]) -> None:
        """Call `ready`, which takes the seconds that it is given at most, until it says yes.

        Raises `StalledError` when nothing moves, and `ProcessError` when psql has ended, which has nothing left to do.
        """
        if ready(TICK):
            return
        since, seen = time.monotonic(), self._moved()
        while not ready(TICK):
            self._tell()
            # Between statements it does nothing, but where psql has ended.
            self._process.feed(b"\n")
            if (now := self._moved()) != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since >= self._script.stall_seconds:
                raise StalledError(
                    f"unable to finish {self._process.tool}: no byte has moved for {self._script.stall_seconds:g} s"
                )

    def _tell(self) -> None:
        """Tell how much of the folder's files was read."""
        if self._folder is not None and self._tables:
            self._folder.progress.reach(self._read + sum(table.file.read for table in self._tables))

    def _moved(self) -> tuple[object, int]:
        moved = self._script.moved
        return moved() if moved else None, self.crew.blocks if self.crew else 0


def _shared_out(tables: Iterable[Alone], sessions: int) -> tuple[list[Alone], list[Alone]]:
    """Which tables are sent by one session each, in this order, and which then by all together.

    Sessions that fill one table stand in each other's way, so that each is given tables of its own, the largest first,
    as long as all end at about the same time; together they do what would keep one of them at work for longer.
    """
    tables = sorted(tables, key=lambda table: table.file.rows_size, reverse=True)
    most = (1 + _BEYOND) * sum(table.file.rows_size for table in tables) / sessions
    given = [0] * sessions
    alone, together = [], []
    for table in tables:
        least = given.index(min(given))
        if given[least] + table.file.rows_size <= most:
            given[least] += table.file.rows_size
            alone.append(table)
        else:
            together.append(table)
    return alone, together


def _meaning(doing: str, error: psycopg.Error) -> LarderError:
    """What the operator should read of an error in one of the sessions, without the values in it."""
    said = error.diag.message_primary or str(error).strip().partition("\n")[0] or type(error).__name__
    found = meaning(doing, masked(said))
    if type(found) is LarderError and isinstance(error, psycopg.OperationalError):
        # Of its own accord psycopg says it of a connection that was lost, and a server when it ends one.
        state = error.sqlstate or "08000"
        if state[:2] in ("08", "57"):
            return UnreachableError(found.message, "see the server's log")
    return found
