"""Data files are taken while they are written: whole, compressed, and only as they are."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from larder.codecs import codec
from larder.codecs.gzip import Gzip
from larder.databases import _postgres_directory
from larder.databases._postgres_directory import BLOCK, Follower
from larder.errors import IntegrityError
from tests.processes import eventually

END = b"\\.\n\n\n"
ROWS = b"".join(b"%d\tname %d\t\\N\n" % (n, n % 977) for n in range(300_000))
LISTING = "12; 0 3 TABLE DATA public a postgres\n"
OBJECTS = "14; 0 0 BLOBS - BLOBS \n"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


@pytest.fixture
def follower(raw: Path, tmp_path: Path) -> Iterator[Follower]:
    with Follower(raw, tmp_path / "made", 2) as made:
        yield made


def taken(raw: Path, name: str) -> bytes:
    """What is in the file that was made of `name`; both gzip's own tool and zlib's reader have to read it."""
    path = raw.parent / "made" / f"{name}.gz"
    said = subprocess.run(["gunzip", "-c", path], capture_output=True, check=True).stdout
    assert gzip.decompress(path.read_bytes()) == said
    return said


def so_far(made: Path) -> bytes:
    return subprocess.run(["gunzip", "-c", made], capture_output=True, check=False).stdout


def test_a_file_is_taken_while_it_grows_and_its_room_given_back(raw: Path, follower: Follower) -> None:
    path = raw / "12.dat"
    made = raw.parent / "made" / "12.dat.gz"
    with path.open("wb", buffering=0) as sink:
        sink.write(ROWS)
        eventually(lambda: made.exists() and made.stat().st_size > 1000)
        eventually(lambda: path.stat().st_blocks * 512 < 2 * BLOCK < path.stat().st_size)
        sink.write(ROWS + END)
        # Nobody has said yet that it is whole.
        eventually(lambda: so_far(made) == ROWS + ROWS + END)
    follower.finish()
    assert taken(raw, "12.dat") == ROWS + ROWS + END
    assert follower.seen == path.stat().st_size
    # Not all of it was there at any time, and once at least what had been written at first.
    assert BLOCK < follower.fullest < len(ROWS + ROWS)
    assert follower.problem(LISTING) is None


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_a_file_of_any_size_comes_whole(raw: Path, follower: Follower, size: int) -> None:
    content = ((ROWS + ROWS)[:size].rpartition(b"\n")[0] + b"\n") if size > 20 else b""
    content += b"x" * max(0, size - len(content) - len(END) - 1) + (b"\n" if size > 20 else b"") + END
    (raw / "12.dat").write_bytes(content)
    follower.finish()
    assert taken(raw, "12.dat") == content
    assert follower.problem(LISTING) is None


def test_thousands_of_files_are_taken_without_an_open_file_each(raw: Path, follower: Follower) -> None:
    for number in range(3000):
        (raw / f"{number}.dat").write_bytes(b"%d\n" % number + END)
    follower.finish()
    listing = "".join(f"{number}; 0 3 TABLE DATA public t{number} postgres\n" for number in range(3000))
    assert follower.problem(listing) is None
    assert len(list((raw.parent / "made").iterdir())) == 3000
    assert taken(raw, "2999.dat") == b"2999\n" + END


def test_a_file_that_is_missing_or_empty_is_found_out(raw: Path, follower: Follower) -> None:
    (raw / "12.dat").write_bytes(b"")
    follower.finish()
    listing = LISTING + LISTING.replace("12", "13")
    assert follower.problem(listing) == "the data of 2 tables is missing"


@pytest.mark.parametrize("content", [b"1\n", b"1\n\\.\n", b"1\\.\n\n\n", ROWS])
def test_a_file_that_does_not_end_as_rows_do_is_found_out(
    raw: Path, follower: Follower, content: bytes
) -> None:
    (raw / "12.dat").write_bytes(content)
    follower.finish()
    assert follower.problem(LISTING) == "the data of 1 tables has no end"


@pytest.mark.parametrize("content", [b"", b"1\n" + END + b"2\n" + END, b"2\n"])
def test_a_file_that_changes_after_its_end_is_found_out(
    raw: Path, follower: Follower, content: bytes
) -> None:
    path = raw / "12.dat"
    path.write_bytes(b"1\n" + END)
    follower.finish()
    path.write_bytes(content)
    assert follower.problem(LISTING) in (
        "1 of its files have changed since",
        "the data of 1 tables is missing",
    )


def test_a_large_object_may_hold_what_looks_like_the_end_of_rows(raw: Path, follower: Follower) -> None:
    (raw / "12.dat").write_bytes(END)
    with (raw / "blob_7.dat").open("wb", buffering=0) as sink:
        sink.write(b"1\n" + END)
        eventually((raw.parent / "made" / "12.dat.gz").exists)
        sink.write(ROWS + END)
    (raw / "blob_8.dat").write_bytes(b"")
    (raw / "blobs.toc").write_bytes(b"7 blob_7.dat\n8 blob_8.dat\n")
    eventually((raw.parent / "made" / "blob_8.dat.gz").exists)
    follower.finish()
    assert follower.problem(LISTING + OBJECTS) is None
    assert taken(raw, "blob_7.dat") == b"1\n" + END + ROWS + END
    assert taken(raw, "blob_8.dat") == b""


@pytest.mark.parametrize("listed", [b"7 blob_7.dat\n", b"7 blob_7.dat\n8 blob_8.dat\n9 blob_9.dat\n", b""])
def test_large_objects_have_to_be_those_that_are_listed(raw: Path, follower: Follower, listed: bytes) -> None:
    (raw / "blob_7.dat").write_bytes(b"7")
    (raw / "blob_8.dat").write_bytes(b"8")
    (raw / "blobs_14.toc").write_bytes(listed)
    follower.finish()
    assert follower.problem(OBJECTS) == "its large objects are not those that it lists"


def test_large_objects_without_a_list_are_found_out(raw: Path, follower: Follower) -> None:
    (raw / "blobs_15.toc").write_bytes(b"")
    follower.finish()
    assert follower.problem(OBJECTS) == "the list of its large objects is missing"


def test_what_goes_wrong_in_a_thread_is_raised(raw: Path, follower: Follower) -> None:
    (raw.parent / "made" / "12.dat.gz").mkdir()
    (raw / "12.dat").write_bytes(END)
    eventually(lambda: follower._error is not None)
    with pytest.raises(IsADirectoryError):
        follower.check()
    with pytest.raises(IsADirectoryError):
        follower.finish()


class Lossy(Gzip):
    def encode(self, data: bytes) -> bytes:
        return super().encode(data[:-7] + b"altered")


def test_what_does_not_decode_to_what_was_read_is_raised(
    raw: Path, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_postgres_directory, "_GZIP_CODEC", Lossy())
    (raw / "12.dat").write_bytes(ROWS + END)
    with pytest.raises(IntegrityError, match=r"12\.dat: it does not decode to what pg_dump wrote"):
        follower.finish()
    monkeypatch.setattr(_postgres_directory, "_GZIP_CODEC", codec("gzip"))


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"PGDMP\x01\x0e\x00\x04\x08\x03\x00\x00", b"PGDMP\x01\x0e\x00\x04\x08\x03\x00\x00"),
        (b"PGDMP\x01\x0f\x00\x04\x08\x03\x00\x00", b"PGDMP\x01\x0f\x00\x04\x08\x03\x01\x00"),
        (b"PGDMP\x01\x10\x00\x04\x08\x03\x00\x00", b"PGDMP\x01\x10\x00\x04\x08\x03\x01\x00"),
        (b"PGDMP\x01\x10\x00\x04\x08\x03\x02\x00", b"PGDMP\x01\x10\x00\x04\x08\x03\x02\x00"),
        (b"PGDMP\x01\x11\x00\x04\x08\x03\x00\x00", b"PGDMP\x01\x11\x00\x04\x08\x03\x00\x00"),
    ],
)
def test_the_table_of_contents_says_how_files_are_compressed(
    raw: Path, follower: Follower, head: bytes, kept: bytes
) -> None:
    (raw / "toc.dat").write_bytes(head + b"entries")
    (raw / "12.dat").write_bytes(END)
    follower.finish()
    follower.keep()
    assert (raw.parent / "made" / "toc.dat").read_bytes() == kept + b"entries"
    assert sorted(path.name for path in (raw.parent / "made").iterdir()) == ["12.dat.gz", "toc.dat"]
    assert not raw.exists()
