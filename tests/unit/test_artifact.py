"""The artifact: encoded from every form of dump, and never trusted before it was decoded to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from larder import artifact, codecs
from larder.codecs import codec
from larder.databases import Dump, Piece
from larder.errors import IntegrityError
from larder.progress import Progress
from larder.streams import Hashed, digest_file, write_tar

TEXT = b"".join(b"%d\tcustomer %d\n" % (n, n * 7919 % 65_537) for n in range(40_000))


def dump_of(piece: Piece, form: str = "file") -> Dump:
    return Dump(
        form=cast("object", form),  # type: ignore[arg-type]
        suffix=".sql",
        content=piece,
        server_version="16.4",
        tool="pg_dump 16.4",
        snapshot_at="2025-10-16T02:00:00Z",
        fingerprint={},
    )


def stored(folder: Path, word: str) -> tuple[Dump, Path]:
    """A dump of `TEXT` in the spool, encoded as `word`."""
    path = folder / "dump.sql"
    encoded = BytesIO()
    writer = codec(word).writer(encoded)
    writer.write(TEXT)
    writer.close()
    path.write_bytes(encoded.getvalue())
    plain = Hashed()
    plain.write(TEXT)
    return dump_of(Piece(path.name, word, plain.size, plain.sha256)), path


@pytest.mark.parametrize("wanted", codecs.words())
@pytest.mark.parametrize("found", codecs.words())
def test_any_encoding_becomes_any_other(tmp_path: Path, found: str, wanted: str) -> None:
    dump, source = stored(tmp_path, found)
    target = tmp_path / "artifact"
    artifact.encode(dump, dump.content, source, target, codec(wanted), Progress())
    assert (target.stat().st_ino == source.stat().st_ino) == (found == wanted)
    file = artifact.check(dump.content, target, codec(wanted), Progress())
    on_disk = digest_file(target)
    assert (file.name, file.size, file.sha256) == ("artifact", on_disk.size, on_disk.sha256)
    assert (file.raw_size, file.raw_sha256) == (dump.content.raw_size, dump.content.raw_sha256)
    with target.open("rb") as source_again, codec(wanted).reader(source_again) as decoded:
        assert decoded.read() == TEXT


def test_a_folder_becomes_one_tar(tmp_path: Path) -> None:
    folder = tmp_path / "dump.dir"
    folder.mkdir()
    (folder / "toc.dat").write_bytes(b"PGDMP")
    (folder / "1.dat").write_bytes(TEXT)
    seen = Hashed()
    write_tar(folder, cast(BinaryIO, seen))
    dump = dump_of(Piece(folder.name, "none", seen.size, seen.sha256), form="folder")
    progress = Progress()
    artifact.encode(dump, dump.content, folder, tmp_path / "artifact", codec("gzip"), progress)
    assert progress.done == seen.size
    assert (
        artifact.check(dump.content, tmp_path / "artifact", codec("gzip"), Progress()).raw_size == seen.size
    )


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-1],
    "cut in half": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "flipped": lambda data: data[:500] + bytes([data[500] ^ 4]) + data[501:],
    "followed": lambda data: data + b"more",
    "twice": lambda data: data * 2,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("word", codecs.words())
def test_damage_is_found(tmp_path: Path, word: str, damage: str) -> None:
    dump, source = stored(tmp_path, word)
    source.write_bytes(DAMAGE[damage](source.read_bytes()))
    with pytest.raises(IntegrityError):
        artifact.check(dump.content, source, codec(word), Progress())


def test_another_dump_in_its_place_is_found(tmp_path: Path) -> None:
    dump, source = stored(tmp_path, "gzip")
    other = replace(dump.content, raw_sha256="0" * 64)
    with pytest.raises(IntegrityError, match="it decodes to"):
        artifact.check(other, source, codec("gzip"), Progress())


def test_progress_counts_raw_bytes(tmp_path: Path) -> None:
    dump, source = stored(tmp_path, "none")
    encoding, checking = Progress(), Progress()
    artifact.encode(dump, dump.content, source, tmp_path / "artifact", codec("zstd"), encoding)
    artifact.check(dump.content, tmp_path / "artifact", codec("zstd"), checking)
    assert (encoding.done, checking.done) == (len(TEXT), len(TEXT))
