"""pg_dump's folder as a script whose rows stay in their files until they are sent.

pg_restore sends a table with one session, and decodes with zlib, which is a tenth of the work of a load. So it is asked
for the script alone, of an outline of the folder: one in which each table has one row, the name of its file.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from larder.codecs import codec
from larder.databases._postgres_cut import Rows, UncutError
from larder.errors import IntegrityError
from larder.streams import CHUNK

#: What every table's file ends with, and nothing before its end holds: a row can't be a bare `\.`.
END_OF_ROWS = b"\\.\n\n\n"

_CONTENTS = "toc.dat"
_TABLE = re.compile(r"(\d+\.dat)\.gz")

#: Bytes of a file that are decoded to see how much its rows are compressed; what is smaller is not worth the look.
_SAMPLE = 1 << 16

_GZIP = codec("gzip")


def has_only_rows(folder: Path) -> bool:
    """Whether all data in `folder` is rows, compressed with gzip. Large objects a script has as text, twice as long."""
    return all(_TABLE.fullmatch(name) for name in os.listdir(folder) if name != _CONTENTS)  # noqa: PTH208


def outline(folder: Path, target: Path) -> None:
    """Make `target`, of which pg_restore makes the script of `folder` with the names of files in place of rows."""
    target.mkdir(mode=0o700)
    (target / _CONTENTS).symlink_to(folder / _CONTENTS)
    for name in os.listdir(folder):  # noqa: PTH208 - names are enough
        if match := _TABLE.fullmatch(name):
            (target / match[1]).write_bytes(name.encode() + b"\n" + END_OF_ROWS)


@dataclass
class TableFile:
    """The rows of one table in a folder of pg_dump's, for one thread at a time to read."""

    path: Path
    #: Bytes of the file; about how many its rows take; and how many of the file were read so far.
    size: int
    rows_size: int
    read: int = 0

    def rows(self) -> Iterator[Rows]:
        """All rows, from the first one. Raises `IntegrityError` where the file is not whole."""
        self.read = 0
        with self.path.open("rb", buffering=0) as source:
            try:
                for found in _whole_rows(_GZIP.members(source)):
                    yield found
                    self.read = os.lseek(source.fileno(), 0, os.SEEK_CUR)
            except IntegrityError as error:
                raise IntegrityError(
                    f"unable to restore the backup: {self.path.name}: {error.message}",
                    "it has changed since it was fetched: see the disk that the spool is on, and run larder verify",
                ) from None
        self.read = self.size


def table_file(folder: Path, named: Rows) -> TableFile:
    """The file in `folder` that the row `named` names. Raises `UncutError` where it names none."""
    name = (named.first + bytes(named.data)).decode(errors="replace").removesuffix("\n")
    if not _TABLE.fullmatch(name):
        raise UncutError("its outline is not that of pg_dump's folders")
    path = folder / name
    size = path.stat().st_size
    return TableFile(path, size, _rows_size(path, size))


def _rows_size(path: Path, size: int) -> int:
    """About how many bytes of rows a file holds, as its begin is compressed."""
    if size < _SAMPLE:
        return size
    with path.open("rb", buffering=0) as source:
        head = source.read(_SAMPLE)
    decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        rows = decoder.decompress(head, CHUNK)
    except zlib.error:
        # Whoever reads it all says so.
        return size
    taken = len(head) - len(decoder.unconsumed_tail) - len(decoder.unused_data)
    return size * len(rows) // max(1, taken)


def _whole_rows(pieces: Iterable[bytes]) -> Iterator[Rows]:
    """Rows, cut where they end, of a file that comes in `pieces`. Raises `IntegrityError` where it has no end."""
    #: The begin of a row, and at the end what may be the mark of it.
    left: list[bytes] = []
    for data in pieces:
        end = data.rfind(b"\n", 0, -len(END_OF_ROWS)) + 1
        if not end:
            left.append(data)
            continue
        begin = data.find(b"\n") + 1 if left else 0
        yield Rows(memoryview(data)[begin:end], b"".join([*left, data[:begin]]))
        left = [data[end:]]
    rest = b"".join(left)
    if rest != END_OF_ROWS and not rest.endswith(b"\n" + END_OF_ROWS):
        raise IntegrityError("its rows have no end")
    if last := rest.removesuffix(END_OF_ROWS):
        yield Rows(last)
