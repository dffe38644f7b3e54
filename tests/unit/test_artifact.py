"""The artifact: encoded from every form of dump, and never trusted before it was decoded to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

import pyrage
import pytest

from larder import artifact, codecs
from larder.checked_writer import Encoded
from larder.codecs import codec
from larder.databases import Dump, Piece
from larder.encoding import Encoding
from larder.errors import IntegrityError
from larder.progress import Progress
from larder.streams import Hashed, digest, digest_file, durable_file, write_tar

RECIPIENT = str(pyrage.x25519.Identity.generate().to_public())

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


def encoding(*words: str) -> Encoding:
    """The encoding of these names, which can read back what it encrypts."""
    encrypted = codecs.cipher().read_back([RECIPIENT])
    return Encoding(encrypted if word == codecs.ENCRYPTION else codec(word) for word in words)


@pytest.mark.parametrize("encrypted", [(), (codecs.ENCRYPTION,)], ids=["plain", "encrypted"])
@pytest.mark.parametrize("word", codecs.compressions())
@pytest.mark.parametrize("found", codecs.compressions())
def test_any_encoding_becomes_any_other(
    tmp_path: Path, found: str, word: str, encrypted: tuple[str, ...]
) -> None:
    dump, source = stored(tmp_path, found)
    target, wanted = tmp_path / "artifact", encoding(word, *encrypted)
    file = artifact.encode(dump, dump.content, source, target, wanted, Progress())
    assert (target.stat().st_ino == source.stat().st_ino) == (found == word and not encrypted)
    assert file.encoding == tuple(name for name in (word, *encrypted) if name != "none")
    on_disk = digest_file(target)
    assert (file.name, file.size, file.sha256) == ("artifact", on_disk.size, on_disk.sha256)
    assert (file.raw_size, file.raw_sha256) == (dump.content.raw_size, dump.content.raw_sha256)
    with target.open("rb") as source_again, wanted.reader(source_again) as decoded:
        assert decoded.read() == TEXT


def test_what_is_compressed_already_is_encrypted_as_it_is(tmp_path: Path) -> None:
    dump, source = stored(tmp_path, "gzip")
    target, wanted = tmp_path / "artifact", encoding("gzip", "age")
    progress = Progress()
    artifact.encode(dump, dump.content, source, target, wanted, progress)
    with target.open("rb") as sealed, Encoding(wanted.codecs[1:]).reader(sealed) as opened:
        assert opened.read() == source.read_bytes()
    assert progress.done == target.stat().st_size


def test_a_harder_compression_of_the_same_name_is_not_taken_for_done(tmp_path: Path) -> None:
    dump, source = stored(tmp_path, "zstd")
    target, wanted = tmp_path / "artifact", Encoding([codec("zstd", level=12)])
    artifact.encode(dump, dump.content, source, target, wanted, Progress())
    assert target.stat().st_ino != source.stat().st_ino


def test_a_folder_becomes_one_tar(tmp_path: Path) -> None:
    folder = tmp_path / "dump.dir"
    folder.mkdir()
    (folder / "toc.dat").write_bytes(b"PGDMP")
    (folder / "1.dat").write_bytes(TEXT)
    seen = Hashed()
    write_tar(folder, cast(BinaryIO, seen))
    dump = dump_of(Piece(folder.name, "none", seen.size, seen.sha256), form="folder")
    wanted = encoding("gzip", "age")
    made = artifact.encode(dump, dump.content, folder, tmp_path / "artifact", wanted, Progress())
    assert made.raw_size == seen.size
    with (tmp_path / "artifact").open("rb") as stored_now, wanted.reader(stored_now) as decoded:
        assert digest(decoded).sha256 == seen.sha256


def test_a_folder_that_is_not_what_the_dump_saw_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "dump.dir"
    folder.mkdir()
    (folder / "1.dat").write_bytes(TEXT)
    seen = Hashed()
    write_tar(folder, cast(BinaryIO, seen))
    dump = dump_of(Piece(folder.name, "none", seen.size, seen.sha256), form="folder")
    (folder / "1.dat").write_bytes(TEXT[:-1] + b"!")
    with pytest.raises(IntegrityError, match="and the dump had"):
        artifact.encode(dump, dump.content, folder, tmp_path / "artifact", encoding("gzip"), Progress())


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-1],
    "cut in half": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "flipped": lambda data: data[:500] + bytes([data[500] ^ 4]) + data[501:],
    "followed": lambda data: data + b"more",
    "twice": lambda data: data * 2,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("known", [True, False], ids=["decoded while written", "not yet decoded"])
@pytest.mark.parametrize("words", [("gzip",), ("zstd",), ("none",), ("gzip", "age")], ids="+".join)
@pytest.mark.parametrize("word", codecs.compressions())
def test_damage_in_the_spool_is_found(
    tmp_path: Path, word: str, words: tuple[str, ...], known: bool, damage: str
) -> None:
    dump, source = stored(tmp_path, word)
    if known:
        there = digest_file(source)
        dump = dump_of(replace(dump.content, encoded=Encoded(there.size, there.sha256)))
    source.write_bytes(DAMAGE[damage](source.read_bytes()))
    with pytest.raises(IntegrityError):
        artifact.encode(dump, dump.content, source, tmp_path / "artifact", encoding(*words), Progress())


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("words", [("gzip",), ("zstd",), ("none",), ("gzip", "age")], ids="+".join)
def test_a_disk_that_gives_back_something_else_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], damage: str
) -> None:
    @contextmanager
    def altered(path: Path) -> Iterator[BinaryIO]:
        with durable_file(path) as sink:
            yield sink
        path.write_bytes(DAMAGE[damage](path.read_bytes()))

    # From another encoding than any that is wanted, so that nothing is linked.
    other = "zstd" if words[0] == "gzip" else "gzip"
    dump, source = stored(tmp_path, other)
    monkeypatch.setattr(artifact, "durable_file", altered)
    with pytest.raises(IntegrityError, match="came back from the disk"):
        artifact.encode(dump, dump.content, source, tmp_path / "artifact", encoding(*words), Progress())


def test_another_dump_in_its_place_is_found(tmp_path: Path) -> None:
    dump, source = stored(tmp_path, "gzip")
    other = replace(dump.content, raw_sha256="0" * 64)
    with pytest.raises(IntegrityError, match="and the dump had"):
        artifact.encode(dump, other, source, tmp_path / "artifact", encoding("gzip"), Progress())


def test_progress_counts_raw_bytes_and_then_those_of_the_file(tmp_path: Path) -> None:
    dump, source = stored(tmp_path, "none")
    told: list[tuple[int, int | None]] = []

    class Noted(Progress):
        def restart(self, total: int | None = None) -> None:
            told.append((self.done, self.total))
            super().restart(total)

    progress = Noted(total=len(TEXT))
    made = artifact.encode(dump, dump.content, source, tmp_path / "artifact", encoding("zstd"), progress)
    assert told == [(len(TEXT), len(TEXT))]
    assert (progress.done, progress.total) == (made.size, made.size)
