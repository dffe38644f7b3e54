"""pg_dump at work: what it is asked, what it must have said before its dump counts, and what its errors mean."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import psycopg

from larder.checked_writer import CheckedWriter
from larder.codecs import Codec
from larder.databases import Piece
from larder.databases._postgres_client import Client
from larder.databases._postgres_connection import child_conninfo, child_environment
from larder.databases._postgres_directory import Follower
from larder.databases._postgres_snapshot import LOST_CLIENT_CHECK, Snapshot
from larder.encoding import Encoding
from larder.errors import ExhaustedError, IntegrityError, LarderError, RefusedError, UnreachableError
from larder.process import Process, ProcessError, StalledError
from larder.progress import Progress, human_size
from larder.spool import disk_error
from larder.streams import Counted, Hashed, durable_file, fsync_file, fsync_folder, write_tar

if TYPE_CHECKING:
    from larder.config import DatabaseSettings

#: How far from the end the end mark may be: newer versions write `\unrestrict` and a key after it.
_END = 1024

_DATABASE_MARKS = (b"-- PostgreSQL database dump\n", b"\n-- PostgreSQL database dump complete\n")
_CLUSTER_MARKS = (
    b"-- PostgreSQL database cluster dump\n",
    b"\n-- PostgreSQL database cluster dump complete\n",
)

#: What pg_dump's errors mean: pattern, class, hint.
_MEANINGS: tuple[tuple[str, type[LarderError], str], ...] = (
    (r"row-level security", RefusedError, "use a role with BYPASSRLS, or exclude the table"),
    (r"permission denied", RefusedError, "grant SELECT on all tables to {role}, or exclude the table"),
    (r"server version mismatch", LarderError, "install client programs of the server's version"),
    (r"No space left on device|Disk quota exceeded", ExhaustedError, ""),
    (
        r"conflict with recovery",
        UnreachableError,
        "set hot_standby_feedback = on on the standby, or raise its max_standby_streaming_delay",
    ),
    (
        r"server closed the connection|terminating connection|connection to server|could not receive data"
        r"|SSL SYSCALL|no connection to the server|connection not open|lost synchronization|is shutting down"
        r"|too many clients|remaining connection slots",
        UnreachableError,
        "see the server's log",
    ),
    (r"deadlock detected|lock timeout", UnreachableError, "another session holds a lock; see pg_locks"),
    (
        r"out of memory|max_locks_per_transaction",
        LarderError,
        "raise max_locks_per_transaction on the server",
    ),
)


class Dumper:
    """Runs pg_dump against one snapshot, into one folder."""

    def __init__(
        self,
        name: str,
        settings: DatabaseSettings,
        client: Client,
        connection: psycopg.Connection,
        snapshot: Snapshot,
        folder: Path,
        progress: Progress,
    ) -> None:
        self._name = name
        self._settings = settings
        self._client = client
        self._role = connection.info.user
        self._environment = child_environment(connection)
        if snapshot.may_watch_clients:
            given = self._environment.get("PGOPTIONS", "")
            self._environment["PGOPTIONS"] = f"{given} -c {LOST_CLIENT_CHECK}".strip()
        self._conninfo = child_conninfo(connection)
        self._snapshot = snapshot
        self._folder = folder
        self._progress = progress
        #: What the programs warned of.
        self.warnings: list[str] = []
        #: See `Dump.fullest`.
        self.fullest = 0

    def plain(self, codec: Codec) -> Piece:
        """One SQL script, restorable with psql, written through `codec`."""
        argv = [*self._argv("pg_dump"), *self._selection(), "--format=plain"]
        return self._script(argv, f"dump.sql{codec.suffix}", codec, _DATABASE_MARKS, self._progress)

    def globals(self, codec: Codec) -> Piece:
        """The server's roles and tablespaces, as an SQL script; without passwords where the role may not see them."""
        argv = [*self._argv("pg_dumpall"), "--globals-only"]
        path = f"globals.sql{codec.suffix}"
        try:
            return self._script(argv, path, codec, _CLUSTER_MARKS, None)
        except RefusedError:
            self.warnings.append(
                f"roles are dumped without their passwords, which role '{self._role}' may not read"
            )
            return self._script([*argv, "--no-role-passwords"], path, codec, _CLUSTER_MARKS, None)

    def directory(self) -> Piece:
        """pg_dump's directory format, read with several connections, restorable with pg_restore."""
        raw, target = self._folder / "dump.raw", self._folder / "dump.dir"
        argv = [
            *self._argv("pg_dump"),
            *self._selection(),
            "--format=directory",
            f"--jobs={self._settings.jobs}",
            "--compress=0",
            "--no-sync",
            f"--file={raw}",
        ]
        with self._explained(), Follower(raw, target, self._settings.jobs) as follower:
            with self._process(argv, follower) as process:
                process.finish()
                self._note_warnings(process.tail)
            follower.finish()
            self._progress.reach(follower.seen)
            self._check_directory(raw, follower)
            follower.keep()
            self.fullest = follower.fullest
            return self._kept(target)

    def _kept(self, target: Path) -> Piece:
        """Have a directory on the disk, for nobody else to read, and say what its tar will be."""
        for path in target.iterdir():
            path.chmod(0o600)
            if not path.name.endswith(".gz"):
                fsync_file(path)
        fsync_folder(target)
        hashed = Hashed()
        write_tar(target, cast(BinaryIO, hashed))
        return Piece(target.name, "none", hashed.size, hashed.sha256)

    def _argv(self, program: str) -> list[str]:
        return [self._client.program(program), "--no-password", f"--dbname={self._conninfo}"]

    def _selection(self) -> list[str]:
        excluded = [f"--exclude-table={os.fsdecode(found.pattern)}" for found in self._snapshot.excluded]
        return [f"--snapshot={self._snapshot.id}", *excluded]

    def _process(self, argv: list[str], follower: Follower | None = None) -> Process:
        def moved() -> int:
            assert follower is not None  # noqa: S101
            self._progress.reach(follower.seen)
            return follower.seen

        def watch() -> None:
            self._snapshot.check()
            if follower is not None:
                follower.check()

        return Process(
            argv,
            self._environment,
            stall_seconds=self._settings.stall_timeout,
            output=follower is None,
            moved=None if follower is None else moved,
            watch=watch,
            # On SIGTERM pg_dump ends the processes that it reads with, and has the server stop its queries.
            death_signal=signal.SIGTERM,
        )

    def _script(
        self, argv: list[str], path: str, codec: Codec, marks: tuple[bytes, bytes], progress: Progress | None
    ) -> Piece:
        tool = Path(argv[0]).name
        head = tail = b""
        with self._explained(), durable_file(self._folder / path) as sink, self._process(argv) as process:
            with CheckedWriter(path, Encoding([codec]), sink) as encoded:
                counted = Counted(cast(BinaryIO, encoded), progress)
                for data in process.output():
                    counted.write(data)
                    if len(head) < _END:
                        head += data[:_END]
                    tail = data[-_END:] if len(data) >= _END else (tail + data)[-_END:]
            process.finish()
            self._note_warnings(process.tail)
        if marks[0] not in head or marks[1] not in tail:
            raise IntegrityError(
                f"unable to dump database '{self._name}': {tool} said that it was done, and its output is not whole "
                f"({human_size(counted.size)}, no {'end' if marks[0] in head else 'beginning'})",
                f"see what {argv[0]} is",
            )
        fsync_folder(self._folder)
        return Piece(path, codec.name, encoded.raw.size, encoded.raw.sha256, encoded.encoded)

    def _check_directory(self, raw: Path, follower: Follower) -> None:
        """See that pg_restore can read it to its end, and that no file is missing, empty or cut short.

        The rows need no pg_restore: they were decoded and compared as they were compressed.
        """
        listing = self._restored("--list", raw).decode(errors="replace")
        problem = follower.problem(listing)
        if problem is None and _DATABASE_MARKS[1] not in self._restored("--schema-only", raw, "--file=-"):
            problem = "pg_restore finds no end in it"
        if problem is None:
            return
        raise IntegrityError(
            f"unable to dump database '{self._name}': pg_dump said that it was done, and {problem}",
            f"see what {self._client.folder / 'pg_dump'} is",
        )

    def _restored(self, how: str, target: Path, *options: str) -> bytes:
        """What pg_restore makes of a directory: all of a list, the end of a script."""
        argv = [self._client.program("pg_restore"), how, *options, str(target)]
        said = b""
        try:
            with Process(argv, stall_seconds=self._settings.stall_timeout) as process:
                for data in process.output():
                    said = said + data if how == "--list" else (said[-_END:] + data)[-_END:]
                process.finish()
        except ProcessError as error:
            raise IntegrityError(
                f"unable to dump database '{self._name}': pg_dump said that it was done, and pg_restore can't read"
                f" the dump: {_point(error)}",
                "see the disk that the spool is on",
            ) from None
        return said

    def _note_warnings(self, tail: str) -> None:
        for line in tail.splitlines():
            if ": warning: " in line:
                self.warnings.append(line.strip())

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise what the operator should read, whatever went wrong inside."""
        try:
            yield
        except OSError as error:
            raise disk_error(error, self._folder) from error
        except StalledError as error:
            raise UnreachableError(
                f"unable to dump database '{self._name}': {error.message.removeprefix('unable to finish ')}",
                "see what holds locks in the database (pg_stat_activity), or raise stall_timeout",
            ) from None
        except ProcessError as error:
            raise self._meaning(error) from None

    def _meaning(self, error: ProcessError) -> LarderError:
        line = _point(error)
        message = f"unable to dump database '{self._name}': {error.tool} {error.how}" + (
            f": {line}" if line else ""
        )
        for pattern, kind, hint in _MEANINGS:
            if re.search(pattern, error.tail):
                if kind is ExhaustedError:
                    free = human_size(shutil.disk_usage(self._folder).free)
                    return ExhaustedError(
                        f"{message} ({free} free in {self._folder})", "free some space there"
                    )
                return kind(message, hint.format(role=f"role '{self._role}'"))
        if error.code < 0:
            # Somebody or something ended it: memory ran out, or the machine goes down.
            return UnreachableError(message, "see the system's log: was it out of memory?")
        return LarderError(message, f"the whole of what it said: {error.tail.strip()[-500:]}" if line else "")


def _point(error: ProcessError) -> str:
    """The line of a program's messages that says what went wrong."""
    for line in error.tail.splitlines():
        match = re.search(r"\b(?:error|fatal): (.+)", line)
        if match:
            point = re.sub(r"^(?:query failed|ERROR): +", "", match[1])
            point = re.sub(r"^ERROR: +", "", point)
            return point[:1].lower() + point[1:]
    return error.last_line
