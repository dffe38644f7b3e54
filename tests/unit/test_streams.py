"""Streams: every byte arrives, or an error does."""

from __future__ import annotations

import errno
import hashlib
import io
import random
import resource
import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from larder.progress import Progress
from larder.streams import (
    CHUNK,
    Hashed,
    digest,
    digest_file,
    durable_file,
    fsync_file,
    fsync_folder,
    pour,
    write_tar,
)

CONTENT = random.Random(3).randbytes(CHUNK * 2 + 5)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_hashed_passes_on_and_knows() -> None:
    sink, progress = io.BytesIO(), Progress()
    hashed = Hashed(sink, progress)
    pour(io.BytesIO(CONTENT), cast(io.BytesIO, hashed))
    hashed.close()
    assert sink.getvalue() == CONTENT
    assert (hashed.size, hashed.sha256, progress.done) == (len(CONTENT), SHA256, len(CONTENT))


def test_hashed_counts_bytes_and_not_items() -> None:
    hashed = Hashed()
    assert hashed.write(memoryview(bytes(8)).cast("Q")) == 8
    assert hashed.size == 8


def test_a_digest_is_of_the_whole(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    for found in (digest(io.BytesIO(CONTENT)), digest_file(tmp_path / "x")):
        assert (found.size, found.sha256) == (len(CONTENT), SHA256)
    assert digest(io.BytesIO()).sha256 == hashlib.sha256().hexdigest()


def test_a_durable_file_is_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"what was there before" * 100)
    path.unlink()
    with durable_file(path) as sink:
        assert sink.write(CONTENT) == len(CONTENT)
        assert sink.write(memoryview(b"more")) == 4
        assert sink.write(b"") == 0
    assert path.read_bytes() == CONTENT + b"more"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with durable_file(path) as sink:
        sink.write(b"new")
    assert path.read_bytes() == b"new"
    fsync_file(path)
    fsync_folder(tmp_path)


@pytest.mark.parametrize("room", [0, 100, CHUNK, len(CONTENT) - 1])
def test_a_write_that_only_partly_fits_is_an_error(tmp_path: Path, room: int) -> None:
    """The system writes what there is room for and says how much that was, which must not pass for all of it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught, durable_file(tmp_path / "x") as sink:
            # In one write: the last one of a stream, after which no other would fail.
            sink.write(CONTENT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG


def test_the_same_files_make_the_same_tar(tmp_path: Path) -> None:
    contents = {"toc.dat": b"toc", "2.dat.gz": CONTENT, "10.dat.gz": b"", "ü" * 60 + "x" * 60: b"long"}
    tars = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        for name in sorted(contents, reverse=folder.name == "two"):
            (folder / name).write_bytes(contents[name])
            (folder / name).chmod(0o644 if folder.name == "two" else 0o600)
        sink = io.BytesIO()
        write_tar(folder, sink)
        tars.append(sink.getvalue())
    assert tars[0] == tars[1]
    with tarfile.open(fileobj=io.BytesIO(tars[0])) as archive:
        assert archive.getnames() == sorted(contents)
        for member in archive:
            source = archive.extractfile(member)
            assert source is not None
            assert source.read() == contents[member.name]
            assert (member.mode, member.uid, member.gid, member.mtime, member.uname) == (0o600, 0, 0, 0, "")


def test_an_empty_folder_makes_an_empty_tar(tmp_path: Path) -> None:
    sink = io.BytesIO()
    write_tar(tmp_path, sink)
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as archive:
        assert archive.getnames() == []
