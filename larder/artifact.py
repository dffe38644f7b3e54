"""The artifact: a dump in its archive encoding, and the proof that it decodes to what the dump saw."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from larder.codecs import Codec, codec
from larder.databases import Dump, Piece
from larder.errors import IntegrityError
from larder.progress import Progress
from larder.streams import Counted, Hashed, digest, durable_file, pour, write_tar


@dataclass(frozen=True)
class File:
    """A finished file: its bare name, bytes and hexadecimal SHA-256, and the same of what it decodes to."""

    name: str
    size: int
    sha256: str
    encoding: str
    raw_size: int
    raw_sha256: str


@dataclass(frozen=True)
class Artifact:
    """What `compress` made."""

    content: File
    globals: File | None = None


def encode(dump: Dump, piece: Piece, source: Path, target: Path, wanted: Codec, progress: Progress) -> None:
    """Write what is at `source` in the spool to `target`, encoded as `wanted`; `progress` counts raw bytes.

    What already has that encoding is linked, not recoded. The result is not trusted until `check` has read it.
    """
    if piece is dump.content and dump.form == "folder":
        with durable_file(target) as sink, closing(wanted.writer(sink)) as encoded:
            write_tar(source, cast(BinaryIO, Counted(encoded, progress)))
    elif piece.encoding == wanted.name:
        os.link(source, target)
    else:
        with (
            source.open("rb") as stored,
            durable_file(target) as sink,
            closing(wanted.writer(sink)) as encoded,
        ):
            pour(
                codec(piece.encoding).reader(cast(BinaryIO, stored)),
                cast(BinaryIO, Counted(encoded, progress)),
            )


def check(piece: Piece, target: Path, encoding: Codec, progress: Progress) -> File:
    """Read `target` from the disk, decode it to its end, and compare with what the dump saw.

    `progress` counts raw bytes. Raises `IntegrityError` when anything differs.
    """
    with target.open("rb") as stored:
        source = _HashedReader(stored)
        decoded = digest(encoding.reader(cast(BinaryIO, source)), progress)
    size = target.stat().st_size
    if source.hashed.size != size:
        raise IntegrityError(
            f"unable to verify {target.name}: {size - source.hashed.size} bytes follow its end"
        )
    if (decoded.size, decoded.sha256) != (piece.raw_size, piece.raw_sha256):
        raise IntegrityError(
            f"unable to verify {target.name}: it decodes to {decoded.size} bytes with SHA-256 {decoded.sha256}, "
            f"and the dump had {piece.raw_size} with {piece.raw_sha256}",
            "see the system's log for disk or memory errors",
        )
    return File(target.name, size, source.hashed.sha256, encoding.name, decoded.size, decoded.sha256)


class _HashedReader:
    """Passes on what is read, and knows its size and SHA-256."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.hashed = Hashed()

    def read(self, count: int = -1) -> bytes:
        data = self._source.read(count)
        self.hashed.write(data)
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
