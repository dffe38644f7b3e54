"""A throw-away PostgreSQL cluster: made on this machine, reached by a Unix socket alone, and gone without a trace.

Its files stay between two links of a drill, its server lives within `running` only: it ends with the block, and with
the thread that has begun it, however that ends, and with it whatever a backup's functions have started
(`_postgres_keeper`). What a killed worker and a killed keeper have left is told from everybody else's processes by the
data directory and the name that servers carry, by a variable in the environment of what they start, and by their user.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg

from larder.databases._postgres_client import Server
from larder.databases._postgres_connection import connect
from larder.databases._postgres_place import Place, account
from larder.databases._postgres_strays import everybody, variables
from larder.errors import ExhaustedError, LarderError, RefusedError, UnreachableError
from larder.process import Process, ProcessError, StalledError

#: The cluster's only user that may log in.
SUPERUSER = "postgres"

#: Seconds: for making the files, for a start (which may have to go through what a killed server has left), for each of
#: the ways to stop it, and between two looks.
_MAKING = 300
_STARTING = 900
_STOPPING = 30
_EVERY = 0.02

#: Nothing of it has to outlive the machine's next crash; and nothing of it may be seen, by others or afterwards.
_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "1h",
    "archive_mode": "off",
    "autovacuum": "off",
    "shared_buffers": "128MB",
    "maintenance_work_mem": "256MB",
    "huge_pages": "off",
    "jit": "off",
    "shared_preload_libraries": "",
    # Files in its own folder: a container's /dev/shm is small, and what a killed server leaves there stays.
    "dynamic_shared_memory_type": "mmap",
    "logging_collector": "off",
    "log_destination": "stderr",
    # Messages hold rows.
    "log_statement": "none",
    "log_min_messages": "fatal",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}

#: In the environment of the server, and so of all that it starts: what the cluster is called.
_MARK = "LARDER_DRILL"

_KEEPER = Path(__file__).with_name("_postgres_keeper.py")

#: How a server, or initdb, says what is wrong.
_WRONG = re.compile(r"(?:FATAL|PANIC|initdb: error): +(.+)")
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|wrote only \d+ of \d+ bytes")
_FREE = "free some space there, or name another folder as scratch_dir in larder.toml"


class Cluster:
    """The cluster of one drill. `name` is what messages call the database."""

    def __init__(self, name: str, place: Place) -> None:
        self.name = name
        self.place = place

    @property
    def is_there(self) -> bool:
        """Whether `create` has made it, and nobody has removed it."""
        return (self.place.data / "PG_VERSION").is_file()

    @property
    def url(self) -> str:
        """The connection string of database `postgres`, while the server runs."""
        # An empty hostaddr goes before PGHOSTADDR, which would lead to another server.
        return f"postgresql://{SUPERUSER}@{quote(str(self.place.sockets), safe='')}:5432/postgres?hostaddr="

    def create(self, server: Server) -> None:
        """Make its files, where there are none. Raises `RefusedError`, `ExhaustedError`, `LarderError`."""
        owner = account()
        self.place.make(owner)
        argv = [str(server.folder / "initdb"), f"--pgdata={self.place.data}"]
        argv += [f"--username={SUPERUSER}", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        try:
            with Process(
                argv, stall_seconds=_MAKING, output=False, folder=Path("/"), account=owner
            ) as process:
                process.finish()
        except (ProcessError, StalledError) as error:
            doing = f"unable to make a throw-away cluster for database '{self.name}'"
            said = _cause(error.tail) if isinstance(error, ProcessError) else ""
            if _NO_SPACE.search(said):
                raise ExhaustedError(f"{doing}: {said}", _FREE) from None
            raise LarderError(
                f"{doing}: {said or error.message}",
                "see the disk that it lies on (scratch_dir), and the PostgreSQL server that is installed here",
            ) from None

    @contextlib.contextmanager
    def running(self, server: Server, sessions: int, locks: int) -> Iterator[None]:
        """Have its server run for the length of a block; all its processes are gone afterwards.

        It takes `sessions` at once, which can hold `locks` together. The server ends, at once, when the thread that
        has called this does. Raises `UnreachableError` where it does not start, and
        `ExhaustedError` where its disk is full.
        """
        self.end()
        # What a killed server has left: with its number, the system may have begun something else.
        (self.place.data / "postmaster.pid").unlink(missing_ok=True)
        given = {
            **_SETTINGS,
            "cluster_name": self.place.label,
            "unix_socket_directories": str(self.place.sockets),
            "max_connections": str(sessions),
            "max_locks_per_transaction": str(max(64, locks // sessions + 1)),
        }
        owner = account()
        argv = [sys.executable, "-I", "-S", str(_KEEPER), f"{owner.uid}:{owner.gid}" if owner else "-"]
        argv += [str(server.folder / "postgres"), "-D", str(self.place.data)]
        argv += [word for key, value in given.items() for word in ("-c", f"{key}={value}")]
        try:
            with Process(
                argv,
                {_MARK: self.place.label},
                stall_seconds=_STOPPING,
                output=False,
                # Shuts down at once, and ends its children, which are in no group of ours.
                death_signal=signal.SIGQUIT,
                folder=Path("/"),
            ) as process:
                try:
                    try:
                        self._await(process, server)
                        yield
                    finally:
                        _stop(process)
                except UnreachableError as error:
                    # A server that has no room for its log ends its sessions, and says why nowhere else.
                    if type(error) is UnreachableError:
                        for said in (error.message, f"{error.message}: {_cause(process.tail)}"):
                            if _NO_SPACE.search(said):
                                raise ExhaustedError(said, _FREE) from None
                    raise
        finally:
            self.end()

    def end(self) -> bool:
        """End whatever runs of it, whoever began it; says whether there was anything. Raises `LarderError`."""
        found = False
        for by in (signal.SIGQUIT, signal.SIGKILL):
            deadline = time.monotonic() + _STOPPING
            signalled: set[int] = set()
            while there := self._processes():
                found = True
                # Looked for again each time, since numbers are given anew; each is told once.
                for pid, serves in there.items():
                    if pid not in signalled:
                        signalled.add(pid)
                        with contextlib.suppress(ProcessLookupError):
                            # What a shell has put in the background ignores SIGQUIT.
                            os.kill(pid, by if serves else signal.SIGKILL)
                if time.monotonic() > deadline:
                    break
                time.sleep(_EVERY)
            else:
                return found
        raise LarderError(
            f"unable to end PostgreSQL's processes in {self.place.data}: they outlive SIGKILL",
            "see the system's log: does their disk answer?",
        )

    def remove(self) -> bool:
        """End it and remove its files; says whether there was anything. Raises `LarderError`."""
        ended = self.end()
        return self.place.remove() or ended

    def make_folder(self, name: str) -> Path:
        """A folder beside its data that its server may write to."""
        return self.place.make_folder(name, account())

    def _await(self, process: Process, server: Server) -> None:
        """Wait until the server takes connections, and see that it is this one."""
        deadline = time.monotonic() + _STARTING
        while True:
            if process.over:
                raise UnreachableError(
                    f"unable to start a throw-away PostgreSQL {server} for database '{self.name}': {_reason(process)}",
                    "see the memory and the disk of this machine",
                )
            try:
                with connect(self.name, self.url) as connection:
                    (label,) = connection.execute("SELECT current_setting('cluster_name')").fetchone() or (
                        "",
                    )
                    break
            except RefusedError:
                raise
            except (UnreachableError, psycopg.Error):
                if time.monotonic() > deadline:
                    raise
            time.sleep(_EVERY)
        if label != self.place.label:
            raise RefusedError(
                f"unable to use the throw-away cluster of database '{self.name}': another server answers in its place",
                "see the variables PG… of the worker's environment",
            )

    def _processes(self) -> dict[int, bool]:
        """The numbers of its processes, and whether each is the server's own.

        Those are the server and its keeper, and its children, which call themselves by its name; and beside them what
        these have started.
        """
        server = b"/postgres -D %b -c " % os.fsencode(self.place.data)
        title = f"postgres: {self.place.label}: ".encode()
        mark = f"{_MARK}={self.place.label}".encode()
        users = self._users()
        found = {}
        for pid, uid, said in everybody():
            if uid in users:
                serves = server in said or said.startswith(title)
                if serves or mark in variables(pid):
                    found[pid] = serves
        return found

    def _users(self) -> set[int]:
        """Whose its processes can be: ours, and the other user's that servers run as here, or did when it was made."""
        found = {os.geteuid()}
        with contextlib.suppress(LarderError):
            owner = account()
            found |= {owner.uid} if owner else set()
        with contextlib.suppress(OSError):
            found.add(self.place.data.stat().st_uid)
        return found


def _stop(process: Process) -> None:
    """Stop the server: sessions are ended, and what they were at is taken back; else, at once."""
    for by in (signal.SIGINT, signal.SIGQUIT):
        if process.over:
            return
        os.kill(process.pid, by)
        try:
            process.finish()
        except StalledError:
            continue
        except ProcessError:
            return


def _reason(process: Process) -> str:
    """What the server has said last that tells why it did not start."""
    try:
        process.finish()
    except ProcessError as error:
        return _cause(error.tail) or error.how
    return "it ended at once"


def _cause(tail: str) -> str:
    """The last thing that a server or initdb has said is wrong, or that there is no space; else nothing."""
    found = [line.strip() for line in _WRONG.findall(tail)]
    return next(filter(_NO_SPACE.search, found), found[-1] if found else "")
