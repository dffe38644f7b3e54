"""The artifact: a dump in its archive encoding, and the proof that it decodes to what the dump saw."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from larder.codecs import codec
from larder.databases import Dump, Piece
from larder.encoding import Encoding
from larder.errors import IntegrityError, RefusedError
from larder.progress import Progress
from larder.streams import Counted, HashedReader, chunks, digest, durable_file, pour, write_tar

_HINT = "see the system's log for disk or memory errors"


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
) -> None:
    """Write what is at `source` in the spool to `target`, encoded as `wanted`; `progress` counts raw bytes.

    What already has that encoding is linked, not recoded; what has its compression is encrypted as it is. The result
    is not trusted until `check` has read it.
    """
    if piece is dump.content and dump.form == "folder":
        with durable_file(target) as sink, closing(wanted.writer(sink)) as encoded:
            write_tar(source, cast(BinaryIO, Counted(encoded, progress)))
        return
    rest = wanted.after(piece.encoding)
    if rest is not None and not rest.codecs:
        os.link(source, target)
        return
    with source.open("rb") as stored, durable_file(target) as sink:
        if rest is None:
            with (
                closing(codec(piece.encoding).reader(cast(BinaryIO, stored))) as plain,
                closing(wanted.writer(sink)) as encoded,
            ):
                pour(plain, cast(BinaryIO, Counted(encoded, progress)))
        else:
            # Stored bytes stand for raw ones, as many as there are to each.
            share = piece.raw_size / max(source.stat().st_size, 1)
            with closing(rest.writer(sink)) as encoded:
                passed = 0
                for data in chunks(stored):
                    encoded.write(data)
                    passed += len(data)
                    progress.reach(round(passed * share))


def check(piece: Piece, target: Path, encoding: Encoding, progress: Progress) -> File:
    """Read `target` from the disk, decode it to its end, and compare with what the dump saw.

    `encoding` is the very one that wrote it, which alone can read it back. `progress` counts raw bytes. Raises
    `IntegrityError` when anything differs.
    """
    with target.open("rb") as stored:
        source = HashedReader(stored)
        try:
            with closing(encoding.reader(cast(BinaryIO, source))) as plain:
                decoded = digest(plain, progress)
        except RefusedError:
            # The key that it was encrypted to is at hand, so it is not the key that is wrong.
            raise IntegrityError(
                f"unable to verify {target.name}: its header is not as it was written", _HINT
            ) from None
    size = target.stat().st_size
    if source.hashed.size != size:
        raise IntegrityError(
            f"unable to verify {target.name}: {size - source.hashed.size} bytes follow its end"
        )
    if (decoded.size, decoded.sha256) != (piece.raw_size, piece.raw_sha256):
        raise IntegrityError(
            f"unable to verify {target.name}: it decodes to {decoded.size} bytes with SHA-256 {decoded.sha256}, "
            f"and the dump had {piece.raw_size} with {piece.raw_sha256}",
            _HINT,
        )
    return File(target.name, size, source.hashed.sha256, encoding.names, decoded.size, decoded.sha256)
