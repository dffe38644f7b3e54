"""Bytes on the move: counted, hashed, copied, made durable."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from larder.progress import Progress

#: How much is read and written at a time. Large enough that hashlib and the codecs release the GIL for long.
CHUNK = 1 << 20


class Counted(io.RawIOBase):
    """A writer that passes bytes on, and knows their number. Closing it leaves the sink open.

    The sink has to take all that it is given at once, as `durable_file` and buffered files do.
    """

    def __init__(self, sink: IO[bytes] | None = None, progress: Progress | None = None) -> None:
        super().__init__()
        self.size = 0
        self._sink = sink
        self._progress = progress

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        if self._sink is not None:
            self._sink.write(data)
        count = memoryview(data).nbytes
        self.size += count
        if self._progress is not None:
            self._progress.add(count)
        return count


class Hashed(Counted):
    """The same, and knows the SHA-256 too."""

    def __init__(self, sink: IO[bytes] | None = None, progress: Progress | None = None) -> None:
        super().__init__(sink, progress)
        self._hash = hashlib.sha256()

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        self._hash.update(data)
        return super().write(data)

    @property
    def sha256(self) -> str:
        """The hexadecimal SHA-256 of all that was written so far."""
        return self._hash.hexdigest()


class HashedReader:
    """Passes on what is read, and knows its size and SHA-256."""

    def __init__(self, source: IO[bytes], progress: Progress | None = None) -> None:
        self._source = source
        self.hashed = Hashed(progress=progress)

    def read(self, count: int = -1) -> bytes:
        """The next bytes, at most `count` of them."""
        data = self._source.read(count)
        self.hashed.write(data)
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """The next bytes, into `buffer`; gives their number."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def chunks(source: IO[bytes]) -> Iterator[bytes]:
    """Everything in `source`, at most `CHUNK` bytes at a time, copied as seldom as it can be."""
    read = getattr(source, "read1", source.read)
    while data := read(CHUNK):
        yield data


def pour(source: IO[bytes], sink: IO[bytes]) -> None:
    """Write everything in `source` to `sink`."""
    for data in chunks(source):
        sink.write(data)


def digest(source: IO[bytes], progress: Progress | None = None) -> Hashed:
    """Read `source` to its end, and give back its size and SHA-256."""
    hashed = Hashed(progress=progress)
    pour(source, cast(BinaryIO, hashed))
    return hashed


def digest_file(path: Path, progress: Progress | None = None) -> Hashed:
    """The size and SHA-256 of the file at `path`, read just now."""
    with path.open("rb") as source:
        return digest(source, progress)


class _WholeFile(io.FileIO):
    """A file without a buffer that writes all that it is given, or raises.

    On a disk that is almost full the system writes as much as there is room for, and says so in a count.
    """

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        view = memoryview(data).cast("B")
        at = 0
        while at < len(view):
            at += super().write(view[at:]) or 0
        return at


@contextmanager
def durable_file(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for writing (0600, emptied), and have its bytes on the disk by the end of the block."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with _WholeFile(descriptor, "wb") as sink:
        yield cast(BinaryIO, sink)
        os.fsync(sink.fileno())


def fsync_folder(folder: Path) -> None:
    """Make the names inside `folder` durable: a rename counts only after this."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Make the bytes of a file that somebody else wrote durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_tar(folder: Path, sink: IO[bytes]) -> None:
    """Write the files of `folder` as a tar that is the same, byte for byte, whenever they are the same.

    Names are sorted; owner, times and modes are constant.
    """
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as archive:
        # The default is 16 KiB, each of which would move the whole buffer in memory.
        archive.copybufsize = CHUNK  # type: ignore[attr-defined]
        for path in sorted(folder.iterdir()):
            entry = tarfile.TarInfo(path.name)
            entry.size = path.stat().st_size
            entry.mode = 0o600
            with path.open("rb") as content:
                archive.addfile(entry, content)
