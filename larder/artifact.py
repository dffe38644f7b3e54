"""The artifact: a dump in its archive encoding, and the proof that it decodes to what the dump saw."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from larder.checked_writer import HINT, CheckedWriter, Encoded
from larder.codecs import codec
from larder.databases import Dump, Piece
from larder.encoding import Encoding
from larder.errors import IntegrityError
from larder.progress import Progress
from larder.streams import (
    Counted,
    Hashed,
    HashedReader,
    chunks,
    digest,
    digest_file,
    durable_file,
    pour,
    write_tar,
)


@dataclass(frozen=True)
class File:
    """A finished file: its bare name, bytes and hexadecimal SHA-256, and the same of what it decodes to."""

    name: str
    size: int
    sha256: str
    #: The codecs that it went through, in this order.
    encoding: tuple[str, ...]
    raw_size: int
    raw_sha256: str


@dataclass(frozen=True)
class Artifact:
    """What `compress` made."""

    content: File
    globals: File | None = None


def encode(
    dump: Dump, piece: Piece, source: Path, target: Path, wanted: Encoding, progress: Progress
) -> File:
    """Write what is at `source` in the spool to `target`, encoded as `wanted`, and prove that it decodes to the dump.

    What already has that encoding is linked, not recoded; what has its compression is encrypted as it is. All else is
    decoded while it is written. The file is then read from the disk, and has to be the very bytes that were decoded.
    `wanted` has to be able to read back what it writes. `progress` counts raw bytes, and then those of the file. Raises
    `IntegrityError` when anything differs.
    """
    if piece is dump.content and dump.form == "folder":
        # Engines compress the files in it.
        packed = wanted.for_compressed()
        encoded = _write(packed, target, lambda sink: write_tar(source, sink), piece, progress)
    else:
        encoded = _encode_file(piece, source, target, wanted, progress)
    progress.restart(encoded.size)
    found = digest_file(target, progress)
    if (found.size, found.sha256) != (encoded.size, encoded.sha256):
        raise IntegrityError(
            f"unable to verify {target.name}: {found.size} bytes with SHA-256 {found.sha256} came back from the disk, "
            f"and {encoded.size} with {encoded.sha256} were written",
            HINT,
        )
    return File(target.name, found.size, found.sha256, wanted.names, piece.raw_size, piece.raw_sha256)


def _encode_file(piece: Piece, source: Path, target: Path, wanted: Encoding, progress: Progress) -> Encoded:
    rest = wanted.after(piece.encoding)
    if rest is None:
        with (
            source.open("rb") as stored,
            closing(codec(piece.encoding).reader(cast(BinaryIO, stored))) as plain,
        ):
            return _write(wanted, target, lambda sink: pour(plain, sink), piece, progress)
    there = piece.encoded or _found(piece, source, progress)
    if not rest.codecs:
        os.link(source, target)
        return there
    # Stored bytes stand for raw ones, as many as there are to each.
    share = piece.raw_size / max(there.size, 1)
    with (
        source.open("rb") as stored,
        durable_file(target) as sink,
        CheckedWriter(target.name, rest, sink) as writer,
    ):
        for data in chunks(stored):
            writer.write(data)
            progress.reach(round(writer.raw.size * share))
    _compare(writer.raw, source, there.size, there.sha256)
    return writer.encoded


def _write(
    wanted: Encoding,
    target: Path,
    fill: Callable[[BinaryIO], None],
    piece: Piece,
    progress: Progress,
) -> Encoded:
    """Have `fill` write what the dump saw through `wanted`."""
    with durable_file(target) as sink, CheckedWriter(target.name, wanted, sink) as writer:
        fill(cast(BinaryIO, Counted(cast(BinaryIO, writer), progress)))
    _compare(writer.raw, target, piece.raw_size, piece.raw_sha256)
    return writer.encoded


def _found(piece: Piece, source: Path, progress: Progress) -> Encoded:
    """What has to be in a file of the spool that its engine has not decoded, which is done now."""
    if not codec(piece.encoding).suffix:
        return Encoded(piece.raw_size, piece.raw_sha256)
    with source.open("rb") as stored:
        read = HashedReader(stored)
        with closing(codec(piece.encoding).reader(cast(BinaryIO, read))) as plain:
            decoded = digest(plain, progress)
        pour(cast(BinaryIO, read), cast(BinaryIO, Counted()))
    _compare(decoded, source, piece.raw_size, piece.raw_sha256)
    progress.restart(piece.raw_size)
    return Encoded(read.hashed.size, read.hashed.sha256)


def _compare(found: Hashed, path: Path, size: int, sha256: str) -> None:
    if (found.size, found.sha256) != (size, sha256):
        raise IntegrityError(
            f"unable to verify {path.name}: it holds {found.size} bytes with SHA-256 {found.sha256}, "
            f"and the dump had {size} with {sha256}",
            HINT,
        )
