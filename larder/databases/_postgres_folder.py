"""pg_dump's folder as a script whose rows stay in their files until they are sent.

pg_restore sends a table with one session, and decodes with zlib, which is a tenth of the work of a load. So it is asked
for the script alone, of an outline of the folder: one in which each table has one row, the name of its file.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from larder.codecs import codec
from larder.databases._postgres_cut import Rows, UncutError
from larder.errors import IntegrityError
from larder.pipes import ReadAhead
from larder.progress import Progress
from larder.streams import CHUNK, chunks

#: What every table's file ends with, and nothing before its end holds: a row can't be a bare `\.`.
END_OF_ROWS = b"\\.\n\n\n"

_CONTENTS = "toc.dat"
_TABLE = re.compile(r"(\d+\.dat)\.gz")

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


def rows(folder: Path, named: Rows, *, progress: Progress) -> Iterator[Rows]:
    """What is in the file of `folder` that the row `named` names; `progress` counts the file's bytes.

    Raises `IntegrityError` where the file is not whole, and `UncutError` where `named` names none.
    """
    name = (named.first + bytes(named.data)).decode(errors="replace").removesuffix("\n")
    if not _TABLE.fullmatch(name):
        raise UncutError("its outline is not that of pg_dump's folders")
    with (folder / name).open("rb", buffering=0) as source:
        size, before = os.fstat(source.fileno()).st_size, progress.done
        try:
            with contextlib.closing(_decoded(source, size)) as pieces:
                for found in _whole_rows(pieces):
                    yield found
                    progress.reach(before + os.lseek(source.fileno(), 0, os.SEEK_CUR))
        except IntegrityError as error:
            raise IntegrityError(
                f"unable to restore the backup: {name}: {error.message}",
                "it has changed since it was fetched: see the disk that the spool is on, and run larder verify",
            ) from None
        progress.reach(before + size)


def _decoded(source: BinaryIO, size: int) -> Generator[bytes]:
    """What `source` holds, decoded by a thread ahead where it is worth one."""
    decoded = _GZIP.members(source)
    if size < CHUNK:
        yield from decoded
        return
    with ReadAhead(decoded, depth=4) as ahead:
        # It has what `chunks` asks of a file.
        yield from chunks(ahead)  # type: ignore[arg-type]


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
