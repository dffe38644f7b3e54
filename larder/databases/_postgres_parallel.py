"""A script of pg_dump loaded by several sessions at once, into a database that nobody uses yet.

psql executes the text, in order. Rows are sent, and indexes and foreign keys made, by a crew of sessions beside it:
what comes after them in the script waits until they are done, and they wait until psql has done what comes before.
Nothing here is one transaction, so whoever calls drops the database wherever this raises.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto

import psycopg

from larder.databases._postgres_crew import Block, Crew
from larder.databases._postgres_cut import Cutter, End, Entry, Piece, Rows, Table, Text, UncutError
from larder.databases._postgres_load import Script, explained, masked, meaning
from larder.errors import LarderError, RefusedError, RejectedError, UnreachableError
from larder.process import TICK, Process, StalledError

#: Bytes of comments that wait until the indexes before them are made.
_HELD = 4 << 20

_FOREIGN_KEY = b"FK CONSTRAINT"

#: How a server says that sessions of ours stood in each other's way.
_DEADLOCK = "40P01"


class OneSessionError(Exception):
    """It can't be done with several sessions, or went wrong; with one it may go well. The text says why, for people."""


#: What several sessions could not do, and one may be able to.
_NOT_SO = (LarderError, RefusedError, RejectedError)


def as_they_are(rows: Rows) -> Iterator[Rows]:
    """The rows themselves."""
    yield rows


def load(
    script: Script,
    stream: Iterable[bytes],
    connect: Callable[[], psycopg.Connection],
    jobs: int,
    rows_of: Callable[[Rows], Iterator[Rows]] = as_they_are,
) -> None:
    """Load `stream` into the empty database that `script` leads to, with `jobs` sessions that `connect` makes.

    In place of the rows in `stream`, those are sent that `rows_of` gives for them.

    Returns when all of `stream` was read to its end and done. Raises `OneSessionError`, what `stream` raises, and of
    what `explained` says `UnreachableError` and `ExhaustedError`; by then the sessions are over, or about to be.
    """
    try:
        with explained(script.doing):
            _load(script, stream, connect, jobs, rows_of)
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
    rows_of: Callable[[Rows], Iterator[Rows]],
) -> None:
    with script.process() as process, contextlib.ExitStack() as stack:

        def connected() -> psycopg.Connection:
            try:
                return stack.enter_context(contextlib.closing(connect()))
            except LarderError as error:
                raise OneSessionError(error.message) from None

        listener = connected()
        loading = _Loading(script, process, listener, rows_of)
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
        rows_of: Callable[[Rows], Iterator[Rows]],
    ) -> None:
        self.crew: Crew | None = None
        self._rows_of = rows_of
        self._script = script
        self._process = process
        self._listener = listener
        self._channel = f"larder_{secrets.token_hex(8)}"
        listener.execute(f"LISTEN {self._channel}".encode())
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
                with contextlib.closing(self._rows_of(piece)) as found:  # type: ignore[type-var]
                    for rows in found:
                        self._put(Block(self._statement, rows))
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

    def _put(self, job: Block | Entry) -> None:
        crew = self.crew
        assert crew is not None  # noqa: S101 - there is one before the first job
        self._await(lambda seconds: crew.put(job, seconds))

    def _settle(self) -> None:
        """Wait until the crew has done all that it was given."""
        if self._at_work is None or self.crew is None:
            return
        self._await(self.crew.settled)
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
            # Between statements it does nothing, but where psql has ended.
            self._process.feed(b"\n")
            if (now := self._moved()) != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since >= self._script.stall_seconds:
                raise StalledError(
                    f"unable to finish {self._process.tool}: no byte has moved for {self._script.stall_seconds:g} s"
                )

    def _moved(self) -> tuple[object, int]:
        moved = self._script.moved
        return moved() if moved else None, self.crew.blocks if self.crew else 0


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
