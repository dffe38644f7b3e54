"""A SQLite file and those who have it open: who they are, how it is locked, and how it is opened without a trace.

Whoever replaces a database file under an application that has it open loses what that application writes from then
on, or worse: SQLite opens `-wal` and `-journal` by name, so one that works on the old file spoils the new one. Locks
alone do not tell, since an idle connection outside WAL mode holds none. So, on Linux, every process is asked what it
has open; elsewhere the locks are all there is to see.

A file beside the database that nobody holds is what a crash left: that is how it is told apart, and SQLite itself
settles it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from larder.errors import BusyError, ExhaustedError, RefusedError

#: What SQLite, or the application by the usual custom, puts beside a database file.
SIDES: Final = ("-wal", "-shm", "-journal", ".lock")

#: What a database begins with.
HEADER: Final = b"SQLite format 3\0"

#: The bytes that stand for SQLite's locks (os.h, wal.c): PENDING, RESERVED and 510 of SHARED in the database file;
#: the eight of WAL mode and the one that each of its connections holds, in the -shm.
_FILE_LOCKS: Final = (0x40000000, 512)
_SHM_LOCKS: Final = (120, 9)

#: The byte after those in the database file: only Larder locks it, while it changes the names of a database.
_NAME_LOCK: Final = (_FILE_LOCKS[0] + _FILE_LOCKS[1], 1)

#: `struct flock` of 64-bit systems: type, whence, start, length, pid; macOS and the BSDs have these two last.
_LINUX: Final = sys.platform == "linux"
_FLOCK: Final = "hhqqi4x" if _LINUX else "qqihh"

#: A lock of an open file stays when the same process closes another opening of it, which ends those of a process.
_SET_LOCK: Final = getattr(fcntl, "F_OFD_SETLK", fcntl.F_SETLK)

_PROCESSES: Final = Path("/proc")

STOP_THEM: Final = "stop it, then go on with the restore; it may start again once the restore is done"


@dataclass(frozen=True)
class Holders:
    """Who holds a database file."""

    #: For people, one each: `nginx (pid 123)`.
    names: tuple[str, ...]
    #: How many processes could not be looked into, which takes root: they may hold it too.
    unseen: int


def connect(path: Path, query: str, patience: float) -> sqlite3.Connection:
    """Open the file by SQLite's own URI parameters; `patience` is how many seconds it waits for a lock."""
    uri = f"file:{quote(str(path.absolute()))}?{query}"
    return sqlite3.connect(uri, uri=True, timeout=patience, isolation_level=None)


@contextlib.contextmanager
def immutable(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file that nobody writes to, without locks, and without anything beside it."""
    with contextlib.closing(connect(path, "mode=ro&immutable=1", 0)) as connection:
        yield connection


def pragma(connection: sqlite3.Connection, word: str) -> int:
    """What a pragma that gives one number gives."""
    return int(connection.execute(f"PRAGMA {word}").fetchone()[0])


def side(path: Path, ending: str) -> Path:
    """The file beside a database that `ending` stands for."""
    return path.with_name(f"{path.name}{ending}")


def unsettled(path: Path) -> list[Path]:
    """The files beside a database that may hold something which is not in it yet, or must be taken out of it again."""
    found = []
    for ending in ("-wal", "-journal"):
        beside = side(path, ending)
        with contextlib.suppress(FileNotFoundError), beside.open("rb") as file:
            # One that was done with, and kept for the next time, begins with zeros.
            if file.read(8).strip(b"\0"):
                found.append(beside)
    return found


def carry(source: Path, target: Path) -> None:
    """Take along what lies beside a database. An empty -wal, and a -shm, which is made from it, hold nothing."""
    for ending in SIDES:
        beside = side(source, ending)
        with contextlib.suppress(FileNotFoundError):
            if ending == "-shm" or (ending == "-wal" and beside.stat().st_size == 0):
                beside.unlink()
            else:
                beside.rename(side(target, ending))


def remove_sides(path: Path) -> None:
    """Remove what lies beside a database; what it holds is lost."""
    for ending in SIDES:
        beside = side(path, ending)
        if beside.is_dir():
            # SQLite's lock by a folder (unix-dotfile).
            beside.rmdir()
        else:
            beside.unlink(missing_ok=True)


def remove(path: Path) -> bool:
    """Remove a database and what lies beside it; says whether there was one."""
    there = path.exists()
    remove_sides(path)
    path.unlink(missing_ok=True)
    return there


def holders(path: Path) -> Holders:
    """Who has the database open, or holds a lock on it; changes nothing. This process does not count."""
    found, unseen = openers(path)
    for file, (start, length) in ((path, _FILE_LOCKS), (side(path, "-shm"), _SHM_LOCKS)):
        pid = _locked_by(file, start, length)
        if pid is not None:
            found.add(pid)
    return Holders(tuple(_called(pid) for pid in sorted(found)), unseen)


def names(pids: set[int]) -> str:
    """Processes for people: `nginx (pid 123), python3 (pid 456)`."""
    return ", ".join(_called(pid) for pid in sorted(pids))


def openers(path: Path) -> tuple[set[int], int]:
    """The processes that have the file, or one beside it, open, and how many could not be looked into. Linux only.

    By inode, since a container has other names for it. One that holds a file of this name that has been deleted counts
    too: it takes the `-journal` that it makes next for its own, and so would whoever opens the database.
    """
    if not _LINUX:
        return set(), 0
    wanted: set[tuple[int, int]] = set()
    for ending in ("", *SIDES):
        with contextlib.suppress(FileNotFoundError):
            status = side(path, ending).stat()
            wanted.add((status.st_dev, status.st_ino))
    gone = {f"{side(path, ending)} (deleted)" for ending in ("", *SIDES)}
    found, unseen = set(), 0
    for process in _PROCESSES.iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        try:
            if _has_open(process / "fd", wanted, gone):
                found.add(int(process.name))
        except PermissionError:
            unseen += _is_program(process)
        except OSError:
            # It has ended.
            continue
    return found, unseen


def _has_open(folder: Path, wanted: set[tuple[int, int]], gone: set[str]) -> bool:
    for entry in folder.iterdir():
        # It has been closed since, or lies where nobody may look, which is not here.
        with contextlib.suppress(OSError):
            name = str(entry.readlink())
            if not name.startswith("/"):
                # A socket, a pipe and the like.
                continue
            status = entry.stat()
            if name in gone or (status.st_dev, status.st_ino) in wanted:
                return True
    return False


def _is_program(process: Path) -> bool:
    """Whether it is a program; the kernel's own threads have no command line, and no files."""
    try:
        return bool((process / "cmdline").read_bytes())
    except OSError:
        return False


def _locked_by(path: Path, start: int, length: int) -> int | None:
    """The process that holds a lock on these bytes; 0 or less where it has no number here; None where nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, _record(start, length))
    finally:
        os.close(descriptor)
    if _LINUX:
        kind, _, _, _, pid = struct.unpack(_FLOCK, answer)
    else:
        _, _, pid, kind, _ = struct.unpack(_FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else int(pid)


def _record(start: int, length: int) -> bytes:
    """An exclusive lock on these bytes, as the system reads it."""
    if _LINUX:
        return struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    return struct.pack(_FLOCK, start, length, 0, fcntl.F_WRLCK, os.SEEK_SET)


def _called(pid: int) -> str:
    if pid <= 0:
        return "somebody in another container or on another machine"
    try:
        return f"{(_PROCESSES / str(pid) / 'comm').read_text(errors='replace').strip()} (pid {pid})"
    except OSError:
        return f"a process (pid {pid})"


@contextlib.contextmanager
def locked(path: Path, *, names_only: bool = False) -> Iterator[None]:
    """Hold what SQLite calls the EXCLUSIVE lock, in every journal mode; raises `BusyError` where somebody holds one.

    Not through SQLite, which removes the -wal by its name when it closes: by then it may be somebody else's. With
    `names_only`, applications go on, and only other Larders are kept from changing the names of the file.
    """
    start, length = _NAME_LOCK if names_only else (_FILE_LOCKS[0], _FILE_LOCKS[1] + _NAME_LOCK[1])
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.fcntl(descriptor, _SET_LOCK, _record(start, length))
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise BusyError(f"unable to replace {path}: somebody holds a lock on it", STOP_THEM) from None
        yield
    finally:
        os.close(descriptor)


def settle(path: Path, patience: float) -> bool:
    """Have SQLite put right what a crash left beside the database, and empty its -wal into it.

    Gives whether it could: False for a file that SQLite cannot read, and leaves everything as it is then. Raises
    `BusyError` where somebody holds it for longer than `patience` seconds.
    """
    with path.open("rb") as file:
        if file.read(16) != HEADER:
            # SQLite would find the -wal to be of no use, and remove it.
            return False
    try:
        with contextlib.closing(connect(path, "mode=rw", patience)) as connection:
            if side(path, "-wal").exists():
                # Nobody else gets in then, not even to read, and no -shm is made.
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorname", "")
        if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return False
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise BusyError(f"unable to replace {path}: somebody holds a lock on it", STOP_THEM) from None
        if code == "SQLITE_FULL":
            raise ExhaustedError(
                f"unable to settle {path}: the disk is full", "free some space there"
            ) from None
        raise RefusedError(
            f"unable to settle {path}: {error}", "let the user that Larder runs as write to it and its folder"
        ) from None
    return True
