"""What is written is decoded beside, and has to be what was given."""

from __future__ import annotations

import errno
import gc
import hashlib
import io
import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

import pyrage
import pytest

from larder import codecs
from larder.checked_writer import CheckedWriter
from larder.codecs import Codec, codec
from larder.encoding import Encoding
from larder.errors import IntegrityError
from larder.streams import CHUNK

RECIPIENT = str(pyrage.x25519.Identity.generate().to_public())
RANDOM = random.Random(7)

#: What gzip and zstd find hard, easy, and odd in size.
CONTENTS = {
    "nothing": [],
    "one byte": [b"x"],
    "random": [RANDOM.randbytes(CHUNK), RANDOM.randbytes(12_345), RANDOM.randbytes(3 * CHUNK)],
    "zeros": [bytes(CHUNK)] * 20,
    "small pieces": [b"%d\n" % number for number in range(50_000)],
    "with empty ones": [b"", b"a", b"", b"b" * CHUNK, b""],
}

ENCODINGS: dict[str, Callable[[], Encoding]] = {
    "none": lambda: Encoding([]),
    "gzip": lambda: Encoding([codec("gzip")]),
    "zstd": lambda: Encoding([codec("zstd")]),
    "zstd, hard": lambda: Encoding([codec("zstd", level=12)]),
    "age": lambda: Encoding([codecs.cipher().read_back([RECIPIENT])]),
    "gzip, age": lambda: Encoding([codec("gzip"), codecs.cipher().read_back([RECIPIENT])]),
}


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", ENCODINGS)
def test_what_was_given_is_in_the_sink(name: str, content: str) -> None:
    encoding, sink, plain = ENCODINGS[name](), io.BytesIO(), b"".join(CONTENTS[content])
    with CheckedWriter("file", encoding, sink) as writer:
        for piece in CONTENTS[content]:
            assert writer.write(piece) == len(piece)
    there = sink.getvalue()
    assert (writer.raw.size, writer.raw.sha256) == (len(plain), hashlib.sha256(plain).hexdigest())
    assert (writer.encoded.size, writer.encoded.sha256) == (len(there), hashlib.sha256(there).hexdigest())
    with encoding.reader(io.BytesIO(there)) as reader:
        assert reader.read() == plain


class Altered(Codec):
    """The codec `inner`, whose encoder is given something else than was meant for it."""

    suffix = ".odd"

    def __init__(self, inner: Codec, alter: Callable[[int, bytes], bytes], light: bool) -> None:
        self._inner = inner
        self._alter = alter
        self._light = light

    @property
    def light(self) -> bool:
        return self._light

    def writer(self, sink: BinaryIO) -> BinaryIO:
        inner, alter, at = self._inner.writer(sink), self._alter, iter(range(1 << 30))

        class Writer(io.RawIOBase):
            def write(self, data: bytes) -> int:  # type: ignore[override]
                inner.write(alter(next(at), data))
                return len(data)

            def close(self) -> None:
                if not self.closed:
                    inner.close()
                    super().close()

        return cast(BinaryIO, Writer())

    def reader(self, source: BinaryIO) -> BinaryIO:
        return self._inner.reader(source)


ALTERATIONS: dict[str, Callable[[int, bytes], bytes]] = {
    "a bit of the first piece": lambda at, data: bytes([data[0] ^ 1]) + data[1:] if at == 0 else data,
    "a bit of the last piece": lambda at, data: data[:-1] + bytes([data[-1] ^ 1]) if at == 9 else data,
    "a piece less": lambda at, data: b"" if at == 5 else data,
    "no last piece": lambda at, data: b"" if at == 9 else data,
    "nothing at all": lambda _at, _data: b"",
    "a byte more at the end": lambda at, data: data + b"!" if at == 9 else data,
    "a piece twice": lambda at, data: data * 2 if at == 2 else data,
}


@pytest.mark.parametrize("light", [True, False], ids=["compared", "hashed"])
@pytest.mark.parametrize("word", ["gzip", "zstd"])
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_a_codec_that_writes_something_else_is_found_out(alteration: str, word: str, light: bool) -> None:
    odd = Altered(codec(word), ALTERATIONS[alteration], light)
    with (  # noqa: PT012 - it is raised while writing or at the end
        pytest.raises(IntegrityError, match=r"unable to verify file: it decodes to other bytes"),
        CheckedWriter("file", Encoding([odd]), io.BytesIO()) as writer,
    ):
        for number in range(10):
            writer.write(RANDOM.randbytes(300_000 + number))


class Full(io.BytesIO):
    """A disk with room for a few bytes."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if self.tell() + len(data) > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("name", ENCODINGS)
def test_what_the_sink_raises_is_raised(name: str) -> None:
    with (  # noqa: PT012 - while writing or at the end
        pytest.raises(OSError, match="No space left"),
        CheckedWriter("f", ENCODINGS[name](), Full()) as writer,
    ):
        for _ in range(20):
            writer.write(RANDOM.randbytes(CHUNK))


def test_a_damage_ends_the_writing_soon() -> None:
    """Hours of a dump are not waited for when its first bytes are wrong already."""
    odd = Altered(codec("gzip"), ALTERATIONS["a bit of the first piece"], light=True)
    writer = CheckedWriter("file", Encoding([odd]), io.BytesIO())
    with pytest.raises(IntegrityError):  # noqa: PT012 - at one of these
        for _ in range(1000):
            writer.write(RANDOM.randbytes(CHUNK))
    with pytest.raises(IntegrityError):
        writer.close()


def test_a_writer_that_is_let_go_of_ends_its_threads() -> None:
    writer = CheckedWriter("file", Encoding([codec("gzip")]), io.BytesIO())
    writer.write(b"something")
    del writer


@pytest.mark.parametrize("name", ["gzip", "zstd", "gzip, age"])
def test_what_shrinks_to_nothing_takes_no_more_memory(name: str) -> None:
    """A thousandth of what was given is on its way to the decoder: all of the rest must not be kept till then."""
    piece = bytes(CHUNK)
    tracemalloc.start()
    try:
        with CheckedWriter("file", ENCODINGS[name](), io.BytesIO()) as writer:
            for _ in range(600):
                # A copy each time, as pieces from a pipe are.
                writer.write(bytearray(piece))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert writer.raw.size == 600 * CHUNK
    assert peak < 150 * CHUNK
