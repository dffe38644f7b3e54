"""What every codec promises.

A new one adds the commands of its standard tool to `TOOLS` and, where it has to be told something, how it is made to
`MADE`.
"""

from __future__ import annotations

import errno
import gc
import gzip
import io
import os
import random
import shutil
import subprocess
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pyrage
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from larder import codecs
from larder.codecs import Codec, codec
from larder.errors import ConfigurationError, IntegrityError, RefusedError

#: A key that no tool has made, and nobody uses.
KEY = pyrage.x25519.Identity.generate()
RECIPIENT = str(KEY.to_public())

#: How to decode, and to encode, without Larder. `KEY` is replaced by the path of a file with the key.
TOOLS = {
    "age": (["age", "-d", "-i", "KEY"], ["age", "-r", RECIPIENT]),
    "gzip": (["gunzip", "-c"], ["gzip", "-c"]),
    "none": (["cat"], ["cat"]),
    "zstd": (["zstd", "-dcq"], ["zstd", "-cq"]),
}

#: Every codec as the suite meets it, and some in more than one way.
MADE: dict[str, Callable[[], Codec]] = {word: partial(codec, word) for word in codecs.words()} | {
    "age": lambda: codec("age", recipients=[RECIPIENT], identities=[KEY]),
    "age, to several": lambda: codecs.cipher().read_back([RECIPIENT] * 3),
    "gzip, of what is compressed": lambda: codec("gzip").for_compressed(),
    "zstd, level 1": lambda: codec("zstd", level=1),
    "zstd, level 12": lambda: codec("zstd", level=12),
    "zstd, long distance": lambda: codec("zstd", level=3, long_distance=True),
}

every = pytest.mark.parametrize("made", [make() for make in MADE.values()], ids=list(MADE))

#: Where nothing is encoded, nothing can be found damaged: that is left to the manifest's SHA-256.
ENCODING = {name: make for name, make in MADE.items() if make().suffix}
encoding = pytest.mark.parametrize("made", [make() for make in ENCODING.values()], ids=list(ENCODING))

#: What a decoder says of what it can't decode: a header that was altered may look like one for somebody else's key.
DAMAGE = (IntegrityError, RefusedError)

#: More than one block of every codec, and not all of one kind.
SAMPLE = b"".join(b"%d\tname %d\t\\N\n" % (n, n * n % 977) for n in range(60_000)) + random.Random(
    1
).randbytes(1 << 20)


def encoded(made: Codec, content: bytes, step: int = 1 << 20) -> bytes:
    """`content` as `made` encodes it, written `step` bytes at a time."""
    sink = io.BytesIO()
    with closing(made.writer(sink)) as writer:
        for at in range(0, len(content), step):
            writer.write(content[at : at + step])
    return sink.getvalue()


def decoded(made: Codec, data: bytes) -> bytes:
    """What `made` finds in `data`."""
    with closing(made.reader(io.BytesIO(data))) as reader:
        return reader.read()


def read_to_the_end(reader: BinaryIO) -> None:
    while reader.read(100_000):
        pass


def with_tool(made: Codec, data: bytes, folder: Path, *, decode: bool) -> bytes:
    """`data` through the standard tool of the codec's name. Where there is no zstd, its library stands in."""
    key = folder / "key"
    key.write_text(f"# a key\n{KEY}\n")
    command = [str(key) if word == "KEY" else word for word in TOOLS[made.name][0 if decode else 1]]
    if shutil.which(command[0]) is None and command[0] == "zstd":
        if decode:
            return zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data).read()
        return zstandard.ZstdCompressor(write_checksum=True).compress(data)
    if shutil.which(command[0]) is None and not os.environ.get("LARDER_TEST_REQUIRE_SERVERS"):
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_every_codec_has_a_tool_and_a_suffix_of_its_own() -> None:
    assert tuple(sorted(TOOLS)) == codecs.words()
    suffixes = [codec(word).suffix for word in codecs.words()]
    assert len(set(suffixes)) == len(suffixes)
    assert tuple(codec(word).name for word in codecs.words()) == codecs.words()


def test_what_encrypts_is_no_compression() -> None:
    assert codecs.compressions() == ("gzip", "none", "zstd")
    assert tuple(sorted({*codecs.compressions(), codecs.ENCRYPTION})) == codecs.words()


def test_an_unknown_word_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigurationError, match="unable to find codec 'lzma'") as caught:
        codec("lzma")
    assert "age, gzip, none, zstd" in caught.value.hint


@every
@settings(deadline=None, max_examples=40)
@given(pieces=st.lists(st.binary(max_size=5000), max_size=6), step=st.integers(1, 3000))
def test_gives_back_what_was_written(made: Codec, pieces: list[bytes], step: int) -> None:
    content = b"".join(pieces) * 3
    assert decoded(made, encoded(made, content, step)) == content


@every
def test_members_are_what_was_written(made: Codec) -> None:
    assert b"".join(made.members(io.BytesIO(encoded(made, SAMPLE)))) == SAMPLE


def test_gzip_leaves_alone_what_is_compressed_and_nothing_else() -> None:
    text = SAMPLE[: -1 << 20]
    made = codec("gzip").for_compressed()
    packed = gzip.compress(text * 4)
    # A stored block takes 5 bytes more than what it holds, and so do the ends.
    assert len(packed) < len(encoded(made, packed)) < len(packed) + 200
    assert len(encoded(made, text)) < len(text) // 3
    mixed = encoded(made, packed + text)
    assert len(packed) < len(mixed) < len(packed) + len(text) // 3


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_gzip_makes_the_same_bytes_of_one_block_and_of_a_little_more(more: int) -> None:
    made, content = codec("gzip"), SAMPLE[: (1 << 20) + more]
    found = {encoded(made, content, step) for step in (len(content), 1 << 18, 4_567, (1 << 20) - 1)}
    assert [gzip.decompress(data) == content for data in found] == [True]


def test_gzip_starts_no_thread_for_one_block() -> None:
    before = threading.active_count()
    with closing(codec("gzip").writer(io.BytesIO())) as writer:
        writer.write(SAMPLE[: 1 << 20])
        assert threading.active_count() == before
        writer.write(b"x")
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_gzip_reads_member_after_member_and_takes_nothing_else() -> None:
    made = codec("gzip")
    data = made.encode(SAMPLE) + made.encode(b"") + gzip.compress(SAMPLE)
    assert b"".join(made.members(io.BytesIO(data))) == SAMPLE * 2
    assert list(made.members(io.BytesIO(b""))) == []
    for damaged in (data[:-1], data + b"x", data + data[:30]):
        with pytest.raises(IntegrityError, match="unable to decode gzip"):
            list(made.members(io.BytesIO(damaged)))


@every
def test_gives_back_a_large_content_in_any_reads(made: Codec) -> None:
    data = encoded(made, SAMPLE)
    with closing(made.reader(io.BytesIO(data))) as reader:
        sizes = [1, 65_536, 3, 1 << 20, 7]
        found = [reader.read(size) for size in sizes]
        assert [len(piece) for piece in found] == sizes
        assert b"".join(found) + reader.read() == SAMPLE
        assert reader.read(1) == b""


@every
def test_the_same_content_makes_the_same_bytes_however_it_is_written(made: Codec) -> None:
    found = {encoded(made, SAMPLE, step) for step in (1 << 20, 4_567, (1 << 20) + 1, len(SAMPLE))}
    assert len(found) == (1 if made.deterministic else 4)


@every
def test_takes_whatever_holds_bytes(made: Codec) -> None:
    sink = io.BytesIO()
    with closing(made.writer(sink)) as writer:
        assert writer.write(bytearray(b"one ")) == 4
        assert writer.write(memoryview(b"two ")) == 4
        assert writer.write(b"") == 0
    assert decoded(made, sink.getvalue()) == b"one two "


@every
@pytest.mark.parametrize("content", [b"", b"x", SAMPLE], ids=["nothing", "one byte", "much"])
def test_the_standard_tool_reads_it_and_is_read(made: Codec, content: bytes, tmp_path: Path) -> None:
    assert with_tool(made, encoded(made, content), tmp_path, decode=True) == content
    reading = MADE[made.name]()
    assert decoded(reading, with_tool(made, content, tmp_path, decode=False)) == content


@every
def test_closing_leaves_sink_and_source_open(made: Codec) -> None:
    sink = io.BytesIO()
    writer = made.writer(sink)
    writer.close()
    writer.close()
    assert not sink.closed
    source = io.BytesIO(sink.getvalue())
    reader = made.reader(source)
    reader.close()
    reader.close()
    assert not source.closed


class Drip(io.BytesIO):
    """Gives fewer bytes than are asked for, as a socket does."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, 3) if size and size > 0 else 3)


@every
def test_reads_from_a_source_that_gives_little_at_a_time(made: Codec) -> None:
    content = SAMPLE[:20_000]
    with closing(made.reader(Drip(encoded(made, content)))) as reader:
        assert reader.read() == content


@encoding
def test_a_stream_cut_short_anywhere_is_damaged(made: Codec) -> None:
    data = encoded(made, b"create table t (n int);\n" * 4)
    for length in range(len(data)):
        with pytest.raises(IntegrityError, match=f"unable to decode {made.name}"):
            decoded(made, data[:length])


@encoding
def test_a_long_stream_cut_short_is_damaged_before_its_end_is_told(made: Codec) -> None:
    data = encoded(made, SAMPLE)
    for length in (len(data) - 1, len(data) - 4, len(data) - 9, len(data) // 2, 1 << 18):
        with closing(made.reader(io.BytesIO(data[:length]))) as reader:
            with pytest.raises(IntegrityError, match="cut short"):
                read_to_the_end(reader)
            # A caller who asks again must not take it for the end.
            with pytest.raises(IntegrityError, match="cut short"):
                reader.read(1)


@encoding
def test_a_flipped_bit_never_gives_other_content(made: Codec) -> None:
    content = b"insert into t values (1, 'one'), (2, 'two');\n" * 8
    data = encoded(made, content)
    harmless = []
    for bit in range(len(data) * 8):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        try:
            assert decoded(made, bytes(altered)) == content
            harmless.append(bit // 8)
        except DAMAGE:
            pass
    # A time, a system's name, the size of a window, the bits that fill up a byte: they say nothing of the content.
    assert len(harmless) <= 80
    assert len([byte for byte in harmless if byte >= 10]) <= 14


@encoding
@settings(deadline=None, max_examples=60)
@given(at=st.floats(0, 0.999), change=st.integers(1, 255))
def test_an_altered_byte_never_gives_other_content(made: Codec, at: float, change: int) -> None:
    content = SAMPLE[-200_000:] + SAMPLE[:100_000]
    altered = bytearray(encoded(made, content))
    altered[int(at * len(altered))] ^= change
    try:
        assert decoded(made, bytes(altered)) == content
    except DAMAGE:
        pass


@encoding
@pytest.mark.parametrize("more", [b"\0", b"x", b"\0" * 512, b"garbage" * 100_000])
def test_whatever_follows_the_end_is_damage(made: Codec, more: bytes) -> None:
    with pytest.raises(IntegrityError, match="something follows the end of the stream"):
        decoded(made, encoded(made, b"content") + more)


@encoding
def test_a_second_stream_is_damage(made: Codec) -> None:
    with pytest.raises(IntegrityError, match="something follows the end of the stream"):
        decoded(made, encoded(made, b"one") + encoded(made, b"two"))


@encoding
@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=300), prefix=st.integers(0, 12))
def test_anything_else_is_damage(made: Codec, data: bytes, prefix: int) -> None:
    try:
        assert decoded(made, encoded(made, b"content")[:prefix] + data) == b"content"
    except DAMAGE:
        pass


class Failing(io.RawIOBase):
    """A sink on a full disk, and a source on a broken one."""

    def __init__(self, room: int, data: bytes = b"") -> None:
        self.room = room
        self.source = io.BytesIO(data)

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)

    def read(self, size: int = -1) -> bytes:
        if self.source.tell() >= self.room:
            raise OSError(errno.EIO, "Input/output error")
        return self.source.read(min(size, 1000))


@every
def test_what_the_sink_raises_is_raised_at_the_close_at_the_latest(made: Codec) -> None:
    def write_all() -> None:
        with closing(made.writer(Failing(1 << 19))) as writer:
            for at in range(0, len(SAMPLE), 1 << 16):
                writer.write(SAMPLE[at : at + (1 << 16)])

    with pytest.raises(OSError, match="No space left on device"):
        write_all()


@every
def test_what_the_source_raises_is_raised_as_it_is(made: Codec) -> None:
    reader = made.reader(Failing(500_000, encoded(made, SAMPLE)))
    with closing(reader), pytest.raises(OSError, match="Input/output error"):
        read_to_the_end(reader)


@every
def test_a_reader_that_is_let_go_of_leaves_no_thread(made: Codec) -> None:
    reader = made.reader(io.BytesIO(encoded(made, SAMPLE)))
    assert reader.read(10) == SAMPLE[:10]
    del reader
    gc.collect()


@every
def test_memory_is_bounded(made: Codec) -> None:
    """64 MiB of zeros make a few bytes in each encoding, which is where a decoder without bounds explodes."""
    zeros = bytes(1 << 20)
    sink = io.BytesIO()
    tracemalloc.start()
    try:
        with closing(made.writer(sink)) as writer:
            for _ in range(64):
                writer.write(zeros)
        writing = tracemalloc.get_traced_memory()[1] - len(sink.getvalue())
        tracemalloc.reset_peak()
        held = tracemalloc.get_traced_memory()[0]
        with closing(made.reader(io.BytesIO(sink.getvalue()))) as reader:
            assert sum(len(piece) for piece in iter(lambda: reader.read(1 << 20), b"")) == 64 << 20
        reading = tracemalloc.get_traced_memory()[1] - held
    finally:
        tracemalloc.stop()
    # io.BytesIO grows by a share of itself.
    assert writing - len(sink.getvalue()) // 4 < 16 << 20
    assert reading < 16 << 20


@every
@pytest.mark.parametrize("content", [b"", b"a", SAMPLE], ids=["empty", "short", "long"])
def test_bytes_that_are_all_there_are_a_stream_too(made: Codec, content: bytes) -> None:
    data = made.encode(content)
    assert decoded(made, data) == content
    for guessed in (len(content), 0, 10 * len(content)):
        assert made.decode(data, guessed) == content
    assert made.decode(encoded(made, content), len(content)) == content


@encoding
def test_bytes_that_are_all_there_and_damaged_are_found_out(made: Codec) -> None:
    data = made.encode(SAMPLE)
    half = len(data) // 2
    flipped = data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
    for damaged in (b"", data[:-1], data[:half], data + b"x", flipped):
        with pytest.raises(DAMAGE):
            made.decode(damaged, len(SAMPLE))
