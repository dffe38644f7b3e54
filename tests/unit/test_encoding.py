"""Encodings: what codecs make of a file one after the other, and what the configuration says of it."""

from __future__ import annotations

import errno
import gc
import io
import itertools
import random
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyrage
import pytest
from pydantic import SecretStr

from larder import codecs, config, secret
from larder.codecs import codec
from larder.codecs.age import Age
from larder.config import DatabaseSettings
from larder.encoding import Encoding, decoding, encoding_of
from larder.errors import ConfigurationError, IntegrityError, RefusedError
from larder.streams import chunks

KEY = pyrage.x25519.Identity.generate()
RECIPIENT = str(KEY.to_public())

#: Compressible, then not, and more than one block of every codec.
CONTENT = b"".join(b"%d\tcustomer %d\n" % (n, n * n % 977) for n in range(60_000)) + random.Random(
    4
).randbytes(1 << 20)

ORDERS = [
    names
    for count in range(4)
    for names in itertools.product([word for word in codecs.words() if word != "none"], repeat=count)
    if len(set(names)) == count
]
every = pytest.mark.parametrize("names", ORDERS, ids=["-".join(names) or "none" for names in ORDERS])


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def database(**options: Any) -> DatabaseSettings:
    return DatabaseSettings(name="shop", url=SecretStr("sqlite:///shop.db"), **options)


def made(*names: str) -> Encoding:
    passed = [Age([RECIPIENT], [KEY]) if name == "age" else codec(name) for name in names]
    return Encoding(passed)


def encoded(encoding: Encoding, content: bytes = CONTENT) -> bytes:
    sink = io.BytesIO()
    with closing(encoding.writer(sink)) as writer:
        for at in range(0, len(content), 100_000):
            writer.write(content[at : at + 100_000])
    return sink.getvalue()


# Codecs one after the other


@every
def test_any_order_gives_back_what_was_written(names: tuple[str, ...]) -> None:
    encoding = made(*names)
    assert encoding.names == names
    data = encoded(encoding)
    source = io.BytesIO(data)
    with closing(encoding.reader(source)) as reader:
        sizes = [1, 65_536, 3, 1 << 20]
        found = [reader.read(size) for size in sizes]
        assert [len(piece) for piece in found] == sizes
        assert b"".join(found) + reader.read() == CONTENT
        assert reader.read(1) == b""
    assert not source.closed


def test_names_and_suffix_are_in_the_order_of_writing() -> None:
    encoding = made("none", "gzip", "age")
    assert (encoding.names, encoding.suffix) == (("gzip", "age"), ".gz.age")
    assert (made("none").names, made("none").suffix, made("none").compression) == ((), "", None)
    assert made("age").compression is None
    first = made("zstd", "age").compression
    assert first is not None
    assert first.name == "zstd"


def test_each_codec_works_on_what_the_one_before_it_made() -> None:
    data = encoded(made("gzip", "age"))
    assert data.startswith(b"age-encryption.org/v1\n")
    with closing(codec("age", identities=[KEY]).reader(io.BytesIO(data))) as reader:
        assert reader.read(2) == b"\x1f\x8b"


@every
def test_closing_leaves_the_sink_open_and_may_be_repeated(names: tuple[str, ...]) -> None:
    sink = io.BytesIO()
    writer = made(*names).writer(sink)
    writer.write(b"content")
    writer.close()
    writer.close()
    with closing(made(*names).reader(io.BytesIO(sink.getvalue()))) as reader:
        assert reader.read() == b"content"


@pytest.mark.parametrize("names", [order for order in ORDERS if order], ids="-".join)
def test_damage_anywhere_is_found_before_the_end_is_told(names: tuple[str, ...]) -> None:
    data = encoded(made(*names))
    damaged = [data[:-1], data[: len(data) // 2], data + b"x", data * 2, b"", data[:1]]
    for broken in damaged:
        with closing(made(*names).reader(io.BytesIO(broken))) as reader:
            with pytest.raises(IntegrityError, match="unable to decode"):
                _read_to_the_end(reader)
            with pytest.raises(IntegrityError, match="unable to decode"):
                reader.read(1)


def _read_to_the_end(reader: Any) -> None:
    while reader.read(100_000):
        pass


class Full(io.RawIOBase):
    """A sink on a disk that is full soon."""

    def __init__(self, room: int) -> None:
        self.room = room

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)


@every
@pytest.mark.parametrize("room", [0, 1000, 1 << 19])
def test_what_the_sink_raises_is_raised_at_the_close_at_the_latest(names: tuple[str, ...], room: int) -> None:
    def write_all() -> None:
        with closing(made(*names).writer(Full(room))) as writer:  # type: ignore[arg-type]
            for at in range(0, len(CONTENT), 1 << 16):
                writer.write(CONTENT[at : at + (1 << 16)])

    with pytest.raises(OSError, match="No space left on device"):
        write_all()


class Broken(io.BytesIO):
    """A source on a disk that cannot be read."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 500_000:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(min(size or 0, 1000))


@every
def test_what_the_source_raises_is_raised_as_it_is(names: tuple[str, ...]) -> None:
    reader = made(*names).reader(Broken(encoded(made(*names))))
    with closing(reader), pytest.raises(OSError, match="Input/output error"):
        _read_to_the_end(reader)


@every
def test_a_reader_or_writer_that_is_let_go_of_leaves_no_thread(names: tuple[str, ...]) -> None:
    reader = made(*names).reader(io.BytesIO(encoded(made(*names))))
    assert reader.read(10) == CONTENT[:10]
    writer = made(*names).writer(io.BytesIO())
    writer.write(CONTENT)
    del reader, writer
    gc.collect()


# Taking over what the spool has


def test_a_light_compression_is_taken_over() -> None:
    encrypted = made("gzip", "age").after("gzip")
    assert encrypted is not None
    assert encrypted.names == ("age",)
    linked = made("zstd").after("zstd")
    assert linked is not None
    assert linked.names == ()


def test_what_is_not_encoded_yet_has_everything_before_it() -> None:
    for names in ((), ("gzip",), ("gzip", "age"), ("age",)):
        rest = made(*names).after("none")
        assert rest is not None
        assert rest.names == names


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        (made("gzip", "age"), "zstd"),
        (made("age"), "zstd"),
        (made(), "zstd"),
        # The spool has level 1 of it.
        (Encoding([codec("zstd", level=19)]), "zstd"),
        (Encoding([codec("zstd", long_distance=True)]), "zstd"),
    ],
)
def test_anything_else_is_decoded_first(encoding: Encoding, found: str) -> None:
    assert encoding.after(found) is None


# What the configuration says


def test_the_encoding_of_a_database() -> None:
    assert encoding_of(database()).names == ("gzip",)
    assert encoding_of(database(compression="none")).names == ()
    assert encoding_of(database(compression="none", encrypt_to=[RECIPIENT])).names == ("age",)
    chosen = encoding_of(
        database(compression="zstd", compression_level=12, long_distance=True, encrypt_to=(RECIPIENT,))
    )
    assert (chosen.names, chosen.suffix) == (("zstd", "age"), ".zst.age")
    assert chosen.compression is not None
    assert (vars(chosen.compression)["level"], vars(chosen.compression)["long_distance"]) == (12, True)
    assert not chosen.compression.light


def test_whoever_made_an_encoding_can_read_it_back_and_nobody_else_without_a_key(tmp_path: Path) -> None:
    settings = database(encrypt_to=(RECIPIENT,))
    encoding = encoding_of(settings)
    data = encoded(encoding, b"content")
    with closing(encoding.reader(io.BytesIO(data))) as reader:
        assert reader.read() == b"content"
    another = encoding_of(settings)
    with pytest.raises(RefusedError, match="none of the identities of this host fits"):
        another.reader(io.BytesIO(data)).read()
    with pytest.raises(RefusedError, match="this host has no identity"):
        decoding(encoding.names).reader(io.BytesIO(data))
    key = tmp_path / "key.txt"
    key.write_text(str(KEY))
    with closing(decoding(encoding.names, [key]).reader(io.BytesIO(data))) as reader:
        assert reader.read() == b"content"


def test_identity_files_are_opened_only_for_what_is_encrypted(tmp_path: Path) -> None:
    absent = [tmp_path / "absent"]
    assert decoding(("gzip",), absent).names == ("gzip",)
    assert decoding((), absent).names == ()
    with pytest.raises(ConfigurationError, match=r"unable to read identity file .*: no such file"):
        decoding(("gzip", "age"), absent)


def test_a_codec_that_this_version_does_not_know_is_refused() -> None:
    with pytest.raises(IntegrityError, match="this version knows no codec 'lzma'") as caught:
        decoding(("lzma", "age"))
    assert "a later one" in caught.value.hint


def test_there_is_no_zstd_of_another_level() -> None:
    for level in (0, 20, -5):
        with pytest.raises(ConfigurationError, match=f"there is no level {level}"):
            codec("zstd", level=level)
    assert [codec("zstd", level=level).light for level in (1, 3, 4)] == [True, True, False]


@pytest.mark.skipif(subprocess.run(["which", "zstd"], capture_output=True).returncode != 0, reason="no zstd")
def test_long_distance_finds_what_is_far_away_and_zstd_needs_no_flag() -> None:
    far = random.Random(5).randbytes(20 << 20)
    near, wide = (encoded(Encoding([codec("zstd", long_distance=long)]), far * 2) for long in (False, True))
    assert len(wide) < 0.6 * len(near)
    assert subprocess.run(["zstd", "-dcq"], input=wide, capture_output=True, check=True).stdout == far * 2


@pytest.fixture
def mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The mistakes in a table of a database, by their keys."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(secret, "_known", set())
    monkeypatch.setattr(secret, "_ordered", ())

    def mistakes(text: str) -> dict[str, str]:
        (tmp_path / "larder.toml").write_text(f'[databases.shop]\nurl = "sqlite:///shop.db"\n{text}\n')
        try:
            config.load({})
        except ConfigurationError as error:
            lines = [line.strip() for line in error.message.splitlines()[1:]]
            assert all(line.startswith("databases.shop.") for line in lines)
            parted = [line.removeprefix("databases.shop.").partition(": ") for line in lines]
            return {key: what for key, _, what in parted}
        return {}

    return mistakes


def test_what_belongs_to_zstd_is_a_mistake_elsewhere(mistakes: Any) -> None:
    what = 'is for compression = "zstd", and this database has "gzip"'
    assert mistakes("compression_level = 9\nlong_distance = true") == {
        "compression_level": what,
        "long_distance": what,
    }
    assert mistakes('compression = "none"\ncompression_level = 1').keys() == {"compression_level"}
    assert mistakes("long_distance = false") == {}
    assert mistakes('compression = "zstd"\ncompression_level = 19\nlong_distance = true') == {}
    wrong = mistakes('compression = "zstd"\ncompression_level = 20\nlong_distance = "yes"')
    assert wrong == {
        "compression_level": "has to be at most 19",
        "long_distance": "has to be true or false",
    }
    assert mistakes('compression = "age"') == {
        "compression": "there is no 'age'; use one of: gzip, none, zstd"
    }


def test_recipients_are_checked_one_by_one(mistakes: Any) -> None:
    assert mistakes(f'encrypt_to = ["{RECIPIENT}"]') == {}
    wrong = mistakes(f'encrypt_to = ["{RECIPIENT}", "age1nobody", "{KEY}", "bob@example.com"]')
    assert wrong.keys() == {"encrypt_to.1", "encrypt_to.2", "encrypt_to.3"}
    assert wrong["encrypt_to.1"] == "is no whole age key, or a plugin's"
    assert wrong["encrypt_to.2"].startswith("is a private key (write the public one here")
    assert str(KEY) not in str(wrong)
    assert secret.redact(f"it was {KEY}") == "it was ****"
    assert mistakes(f'encrypt_to = "{RECIPIENT}"') == {"encrypt_to": "has to be a list"}


def test_identities_are_paths_from_the_file_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.load({"DATABASE_URL": "sqlite:///shop.db"}).identities == ()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "larder.toml").write_text('identities = ["key.txt", "/keys/other"]\n')
    found = config.load({"LARDER_CONFIG": "etc/larder.toml"})
    # There need be no such files: other hosts may read the same configuration.
    assert found.identities == (tmp_path / "etc" / "key.txt", Path("/keys/other"))


def test_a_codec_whose_reader_reads_and_nothing_more_is_read_all_the_same() -> None:
    class Bare(type(codec("gzip"))):  # type: ignore[misc]
        def reader(self, source: BinaryIO) -> BinaryIO:
            inner = super().reader(source)

            class Reader(io.RawIOBase):
                def readable(self) -> bool:
                    return True

                def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
                    return inner.readinto(buffer)

                def close(self) -> None:
                    inner.close()
                    super().close()

            return cast(BinaryIO, Reader())

    encoding, sink = Encoding([Bare()]), io.BytesIO()
    with encoding.writer(sink) as writer:
        writer.write(b"content" * 1000)
    with encoding.reader(io.BytesIO(sink.getvalue())) as reader:
        assert b"".join(chunks(reader)) == b"content" * 1000
