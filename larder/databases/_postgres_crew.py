"""Sessions that load parts of a dump beside each other: tables, blocks of rows, indexes, foreign keys."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from dataclasses import dataclass

import psycopg

from larder.databases import _postgres_alone
from larder.databases._postgres_alone import Alone
from larder.databases._postgres_cut import Entry, Rows

#: How many jobs a session may have waiting, so that it never waits for the next one. A block is about 1 MiB.
_AHEAD = 2

#: Bytes that are held at most for all sessions together, but for a single job: where rows are large, so are blocks.
_MOST = 64 << 20

#: How often an index or a foreign key is made again that another one of ours stood in the way of.
_TRIES = 5

#: Seconds that a thread may take to end after its connection was cut.
_PATIENCE = 10


@dataclass(frozen=True, slots=True)
class Block:
    """Whole rows that `statement` (`COPY … FROM stdin`) takes."""

    statement: bytes
    rows: Rows

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        return len(self.rows.first) + len(self.rows.data)


Job = Block | Alone | Entry


class Crew:
    """One thread for each of `connections`, which are in autocommit and this crew's until `stop`.

    Jobs are done in the order of `put`, several at a time. A session keeps its COPY open as long as blocks of the same
    table come, so that a small table costs one round trip, and a large one is spread over all sessions.
    """

    def __init__(self, connections: list[psycopg.Connection]) -> None:
        #: How many blocks and entries were done so far, those of tables that are sent alone included.
        self.blocks = 0
        self._connections = connections
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        #: Bytes of jobs that wait, or are being done.
        self._held = 0
        self._idle = 0
        self._settling = False
        self._stopped = False
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._work, args=[connection], name="load", daemon=True)
            for connection in connections
        ]
        for thread in self._threads:
            thread.start()

    @property
    def size(self) -> int:
        """How many sessions there are."""
        return len(self._threads)

    def put(self, job: Job, seconds: float) -> bool:
        """Have `job` done; says whether there was room for it within `seconds`. Raises what an earlier one has."""
        size = _size(job)
        with self._changed:
            self._changed.wait_for(lambda: self._failure or self._has_room(size), seconds)
            self._raise()
            if not self._has_room(size):
                return False
            self._waiting.append(job)
            self._held += size
            self._changed.notify_all()
            return True

    def settled(self, seconds: float) -> bool:
        """Whether, within `seconds`, everything was done and committed. Raises what a job has raised."""
        with self._changed:
            self._settling = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._failure or self._is_settled(), seconds)
            self._raise()
            done = self._is_settled()
            self._settling = not done
            return done

    def stop(self) -> None:
        """End all sessions, whatever they are doing; what is not committed by then is lost."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            busy = self._idle < len(self._threads)
            self._changed.notify_all()
            for connection in self._connections if busy else ():
                # A thread that waits for a server which does not answer is woken by nothing else.
                if not connection.closed:
                    _cut(connection)
        for thread in self._threads:
            thread.join(_PATIENCE)

    def _has_room(self, size: int) -> bool:
        most = _AHEAD * len(self._threads)
        return len(self._waiting) < most and (not self._held or self._held + size <= _MOST)

    def _did(self, size: int = 0) -> None:
        with self._changed:
            self.blocks += 1
            self._held -= size
            self._changed.notify_all()

    def _is_settled(self) -> bool:
        return not self._waiting and self._idle == len(self._threads)

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self, connection: psycopg.Connection) -> None:
        try:
            while (job := self._take()) is not None:
                match job:
                    case Block():
                        self._copy(connection, job)
                    case Alone():
                        _postgres_alone.send(connection, job, self._did)
                    case Entry():
                        _execute(connection, job.data)
                        self._did(_size(job))
        except BaseException as error:  # noqa: BLE001 - raised again to whoever puts jobs, or waits
            with self._changed:
                self._failure = self._failure or error
        finally:
            with self._changed:
                # Not while `stop` looks at its socket.
                connection.close()
                self._changed.notify_all()

    def _take(self) -> Job | None:
        """The next job, waited for; None where there will be none."""
        with self._changed:
            self._idle += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._stopped)
            if not self._waiting:
                return None
            self._idle -= 1
            job = self._waiting.popleft()
            self._changed.notify_all()
            return job

    def _more(self, statement: bytes) -> Block | None:
        """The next block of the same table, waited for; None where something else comes."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._settling or self._stopped)
            job = self._waiting[0] if self._waiting else None
            if not isinstance(job, Block) or job.statement != statement:
                return None
            self._waiting.popleft()
            self._changed.notify_all()
            return job

    def _copy(self, connection: psycopg.Connection, first: Block) -> None:
        block: Block | None = first
        with connection.cursor() as cursor, cursor.copy(first.statement) as copy:
            while block is not None:
                if block.rows.first:
                    copy.write(block.rows.first)
                copy.write(block.rows.data)
                self._did(block.size)
                block = self._more(first.statement)


def _size(job: Job) -> int:
    """Bytes that are held for a job."""
    match job:
        case Block():
            return job.size
        case Alone():
            # It reads a block at a time when its turn has come.
            return 0
        case Entry():
            return len(job.data)


def _cut(connection: psycopg.Connection) -> None:
    # Unless the server was faster.
    with contextlib.suppress(OSError, psycopg.Error):
        plug = socket.socket(fileno=connection.pgconn.socket)
        try:
            plug.shutdown(socket.SHUT_RDWR)
        finally:
            plug.detach()


def _execute(connection: psycopg.Connection, statements: bytes) -> None:
    for left in reversed(range(_TRIES)):
        try:
            connection.execute(statements)
        except psycopg.errors.DeadlockDetected:
            if not left:
                raise
        else:
            return
