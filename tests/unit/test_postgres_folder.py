"""Rows are cut where they end, wherever the file that they are in happens to be split."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larder.databases import _postgres_folder
from larder.databases._postgres_cut import Rows, UncutError
from larder.databases._postgres_folder import END_OF_ROWS
from larder.errors import IntegrityError

ROWS = st.lists(st.sampled_from([b"1", b"", b"\\\\.", b"\\N", b"\\. ", b"a longer row"]), max_size=6)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    pieces.append(data[at:])
    return [found.first + bytes(found.data) for found in _postgres_folder._whole_rows(filter(None, pieces))]


@given(ROWS, st.lists(st.integers(1, 12), max_size=12))
def test_what_is_cut_is_whole_rows_and_all_of_them(rows: list[bytes], sizes: list[int]) -> None:
    data = b"".join(row + b"\n" for row in rows)
    found = cut(data + END_OF_ROWS, sizes)
    assert b"".join(found) == data
    assert all(piece.endswith(b"\n") for piece in found)


@given(
    ROWS,
    st.lists(st.integers(1, 12), max_size=12),
    st.sampled_from([b"", b"\\.\n\n", b"\\.", b"x\\.\n\n\n", b"\n"]),
)
def test_rows_without_their_end_are_not_all(rows: list[bytes], sizes: list[int], end: bytes) -> None:
    with pytest.raises(IntegrityError, match="no end"):
        cut(b"".join(row + b"\n" for row in rows) + end, sizes)


DATA = b"".join(b"%d\n" % (n * 7919) for n in range(900_000))


def test_a_file_is_counted_by_what_it_takes_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "12.dat.gz"
    path.write_bytes(gzip.compress(DATA[:4_000_000]) + gzip.compress(DATA[4_000_000:] + END_OF_ROWS))
    file = _postgres_folder.table_file(tmp_path, Rows(b"", b"12.dat.gz\n"))
    # As often as it is asked for.
    for _ in range(2):
        found, seen = b"", []
        for rows in file.rows():
            found += rows.first + bytes(rows.data)
            seen.append(file.read)
        assert found == DATA
        assert file.read == file.size == path.stat().st_size
        assert seen == sorted(seen)
        assert len(set(seen)) > 3
        assert seen[0] < file.size


@pytest.mark.parametrize("members", [1, 8])
@pytest.mark.parametrize(
    "rows",
    [DATA, b"all of them are alike\n" * 400_000, random.Random(1).randbytes(1 << 22)],
    ids=["numbers", "alike", "random"],
)
def test_what_the_rows_of_a_file_take_is_guessed_well(rows: bytes, members: int, tmp_path: Path) -> None:
    piece = -(-len(rows) // members)
    parts = [gzip.compress(rows[at : at + piece], mtime=0) for at in range(0, len(rows), piece)]
    (tmp_path / "12.dat.gz").write_bytes(b"".join(parts))
    file = _postgres_folder.table_file(tmp_path, Rows(b"12.dat.gz\n"))
    if file.size < 1 << 16:
        assert file.rows_size == file.size
    else:
        assert file.rows_size == pytest.approx(len(rows), rel=0.15)


def test_a_file_that_is_not_gzip_is_found_out_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "12.dat.gz").write_bytes(os.urandom(1 << 17))
    file = _postgres_folder.table_file(tmp_path, Rows(b"12.dat.gz\n"))
    assert file.rows_size == file.size
    with pytest.raises(IntegrityError, match=r"12\.dat\.gz"):
        list(file.rows())


@pytest.mark.parametrize("name", [b"../12.dat.gz\n", b"12.dat\n", b"blob_12.dat.gz\n", b"a\tb\n", b"\xff\n"])
def test_only_a_tables_file_is_read(name: bytes, tmp_path: Path) -> None:
    with pytest.raises(UncutError):
        _postgres_folder.table_file(tmp_path, Rows(name))
