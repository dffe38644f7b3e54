"""pg_dump's directory, compressed and read back while pg_dump writes it.

pg_dump compresses with zlib, which costs more than all the rest of a dump, and pg_restore would have to decode it all
to prove it. So pg_dump writes its files as they are, into a folder of their own, and threads of ours follow them: what
has been written is read, compressed, laid into `NNNN.dat.gz`, read back, decoded and compared, and given back to the
disk behind us. pg_restore takes `NNNN.dat.gz` where there is no `NNNN.dat`.

Each block is a gzip member of its own, so that nothing is kept between two visits to a file: no open file, no state.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from larder.codecs import codec
from larder.databases._postgres_folder import END_OF_ROWS
from larder.errors import IntegrityError

#: Bytes that are compressed at a time. Smaller blocks cost size, larger ones memory; these cost neither.
BLOCK = 1 << 20

#: Seconds between two looks at the folder, and how much longer a pause is than the look was.
LOOK_EVERY = 0.03
_PAUSES = 15

_DATA = re.compile(r"(?:blob_)?\d+\.dat")
_LARGE_OBJECTS = re.compile(r"blobs(?:_\d+)?\.toc")

#: Lines of `pg_restore --list`, with the number that a file is named after.
_TABLE_ENTRY = re.compile(r"^(\d+); \d+ \d+ TABLE DATA ", re.MULTILINE)
_OBJECTS_ENTRY = re.compile(r"^(\d+); \d+ \d+ BLOBS ", re.MULTILINE)

#: How a table of contents begins whose twelfth byte says how the data is compressed: 0 for not, 1 for gzip.
_HEADS = (b"PGDMP\x01\x0f", b"PGDMP\x01\x10")
_COMPRESSION_AT, _NONE, _GZIP = 11, b"\0", b"\1"

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
#: Bytes that are worth a call to give back.
_HOLE = 1 << 18
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_GZIP_CODEC = codec("gzip")


@dataclass
class _File:
    """One data file of pg_dump's, and what became of it so far."""

    source: Path
    target: Path
    #: Bytes of the source at the last look, those that are read, those that were given back; bytes of the target.
    size: int = 0
    taken: int = 0
    released: int = 0
    written: int = 0
    #: The last bytes that were read.
    tail: bytes = b""
    #: Nothing more will be written to the source.
    whole: bool = False
    work: Future[None] | None = None

    @property
    def on_disk(self) -> int:
        """Bytes that both files take, as of the last look."""
        return max(self.size, self.taken) - self.released + self.written

    @property
    def has_rows(self) -> bool:
        """Whether it is a table's; a large object may hold what looks like their end."""
        return not self.source.name.startswith("blob_")


class Follower:
    """Threads that lay what pg_dump writes into `raw` into `target`, compressed; for the length of a `with` block."""

    def __init__(self, raw: Path, target: Path, jobs: int) -> None:
        self._raw = raw
        self._target = target
        #: Bytes that pg_dump has written so far.
        self.seen = 0
        #: Bytes that both folders took of the disk at the fullest look.
        self.fullest = 0
        #: The same of the files that are done.
        self._settled = 0
        self._known: set[str] = set()
        self._open: dict[str, _File] = {}
        self._done: dict[str, _File] = {}
        #: How far each table of large objects is read, and which files they name.
        self._tables: dict[str, int] = {}
        self._objects: set[str] = set()
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._given_up = False
        # pg_dump writes no more files at a time than it has jobs.
        self._pool = ThreadPoolExecutor(min(jobs, os.cpu_count() or 1), "follow pg_dump")
        self._looker = threading.Thread(target=self._follow, name="look at pg_dump", daemon=True)

    def __enter__(self) -> Self:
        self._target.mkdir(mode=0o700)
        self._looker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._given_up = True
        self._over.set()
        self._looker.join()
        self._pool.shutdown(cancel_futures=True)

    def check(self) -> None:
        """Raise what went wrong in a thread."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Take what is left, now that pg_dump has ended well; raises what goes wrong."""
        self._over.set()
        self._looker.join()
        self.check()
        # The first time for what was under way, the second for what came after it.
        for _ in range(2):
            wait([file.work for file in self._open.values() if file.work is not None])
            self._look(ended=True)
        self.seen = sum(file.taken for file in self._done.values())

    def problem(self, listing: str) -> str | None:
        """What is wrong with the files, where pg_restore lists the entries `listing`; None where nothing is."""
        sizes = {name: _size(file.source) for name, file in {**self._open, **self._done}.items()}
        tables = [f"{number}.dat" for number in _TABLE_ENTRY.findall(listing)]
        if missing := [name for name in tables if not sizes.get(name)]:
            return f"the data of {len(missing)} tables is missing"
        changed = [name for name, file in self._done.items() if file.taken != sizes[name]]
        if changed or self._open:
            return f"{len(changed) + len(self._open)} of its files have changed since"
        if cut := [name for name in tables if not _ends_rows(self._done[name].tail)]:
            return f"the data of {len(cut)} tables has no end"
        for number in _OBJECTS_ENTRY.findall(listing):
            if not {"blobs.toc", f"blobs_{number}.toc"} & self._tables.keys():
                return "the list of its large objects is missing"
        if self._objects != {name for name in sizes if name.startswith("blob_")}:
            return "its large objects are not those that it lists"
        return None

    def keep(self) -> None:
        """Put what is not data beside it, and let go of what pg_dump wrote."""
        for path in self._raw.iterdir():
            if not _DATA.fullmatch(path.name):
                path.rename(self._target / path.name)
        with (self._target / "toc.dat").open("r+b") as contents:
            head = contents.read(_COMPRESSION_AT + 1)
            # Else a pg_restore of 16 or newer with several jobs does not see which file is the largest.
            if head.startswith(_HEADS) and head.endswith(_NONE):
                contents.seek(_COMPRESSION_AT)
                contents.write(_GZIP)
        shutil.rmtree(self._raw)

    def _follow(self) -> None:
        pause = LOOK_EVERY
        try:
            while not self._over.wait(pause):
                began = time.monotonic()
                self._look()
                pause = max(LOOK_EVERY, _PAUSES * (time.monotonic() - began))
        except BaseException as error:  # noqa: BLE001 - raised again by `check`
            self._error = error

    def _look(self, *, ended: bool = False) -> None:
        """See what there is to take, and have it taken; raises what went wrong with what was."""
        self._find_new()
        self._read_tables()
        for name, file in list(self._open.items()):
            if file.work is not None:
                if not file.work.done():
                    continue
                file.work.result()
                file.work = None
                if file.whole:
                    self._done[name] = self._open.pop(name)
                    self._settled += file.on_disk
                    continue
            size = _size(file.source)
            if size is None:
                continue
            grown_from, file.size = file.size, size
            self.seen += size - grown_from
            file.whole = ended or name in self._objects
            if file.whole or (size != grown_from and (file.has_rows or size - file.taken >= BLOCK)):
                file.work = self._pool.submit(self._take, file)
        taken = self._settled + sum(file.on_disk for file in self._open.values())
        self.fullest = max(self.fullest, taken)

    def _find_new(self) -> None:
        try:
            new = set(os.listdir(self._raw)) - self._known  # noqa: PTH208 - names are enough
        except FileNotFoundError:
            return
        self._known |= new
        for name in new:
            if _DATA.fullmatch(name):
                self._open[name] = _File(self._raw / name, self._target / f"{name}.gz")
            elif _LARGE_OBJECTS.fullmatch(name):
                self._tables[name] = 0

    def _read_tables(self) -> None:
        """See which large objects pg_dump has finished: it lists each one after it."""
        for name, at in self._tables.items():
            with (self._raw / name).open("rb") as table:
                table.seek(at)
                lines = table.read().rpartition(b"\n")[0]
            if lines:
                self._objects |= {line.rpartition(b" ")[2].decode() for line in lines.split(b"\n")}
                self._tables[name] = at + len(lines) + 1

    def _take(self, file: _File) -> None:
        """Have what is there in the target; the begin of a block, where more will come, waits for the rest."""
        try:
            source = os.open(file.source, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            file.whole = False
            return
        target = -1
        try:
            size = os.fstat(source).st_size
            file.whole = file.whole or (file.has_rows and _ends(source, size))
            if not file.whole and size - file.taken < BLOCK:
                return
            target = os.open(file.target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._move(file, source, target)
        finally:
            os.close(source)
            if target >= 0:
                os.close(target)

    def _move(self, file: _File, source: int, target: int) -> None:
        while not self._given_up:
            block = os.pread(source, BLOCK, file.taken)
            if len(block) < BLOCK and not (file.whole and (block or not file.written)):
                break
            self._put(file, target, block)
            if file.taken - file.released >= _HOLE:
                _release(source, file.released, file.taken)
                file.released = file.taken
        if file.whole:
            os.fsync(target)

    def _put(self, file: _File, target: int, block: bytes) -> None:
        """Append a block to the target, and see that it is there."""
        encoded = _GZIP_CODEC.encode(block)
        at = 0
        while at < len(encoded):
            at += os.pwrite(target, encoded[at:], file.written + at)
        if _GZIP_CODEC.decode(os.pread(target, len(encoded), file.written), len(block)) != block:
            raise IntegrityError(
                f"unable to compress {file.source.name}: it does not decode to what pg_dump wrote",
                "see the disk that the spool is on",
            )
        file.tail = (file.tail + block)[-len(END_OF_ROWS) - 1 :]
        file.taken += len(block)
        file.written += len(encoded)


def _ends_rows(tail: bytes) -> bool:
    return tail == END_OF_ROWS or tail.endswith(b"\n" + END_OF_ROWS)


def _ends(source: int, size: int) -> bool:
    """Whether a table's file has all of its rows."""
    count = min(size, len(END_OF_ROWS) + 1)
    return _ends_rows(os.pread(source, count, size - count))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _release(descriptor: int, begin: int, end: int) -> None:
    """Give bytes of a file back to the disk, and leave its size; where that can't be, they stay until the end."""
    if _LIBC is not None:
        size = ctypes.c_int64(end - begin)
        _LIBC.fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_int64(begin), size)
