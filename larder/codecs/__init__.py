"""Codecs: how an artifact is encoded. One file a codec, named after its word in the configuration.

The contract, which `tests/contracts/test_codecs.py` holds every codec to:

- `writer(sink)` takes plain bytes and writes encoded ones to `sink`. Closing the writer ends the encoded
  stream and leaves `sink` open. Memory is bounded, whatever the size.
- `reader(source)` takes encoded bytes and gives plain ones. A stream that is cut short, altered, or followed by
  anything else raises `IntegrityError`, before the end of the stream is reported. Where decoding takes a key and none
  fits, it raises `RefusedError`; a header that was altered can look like that.
- `encode` and `decode` do the same with bytes that are all there, and `members` gives plain bytes piece by piece.
- What a codec writes, the standard tool of its name reads (`gunzip`, `zstd -d`, `age -d`).

A codec is of one of two kinds: it makes smaller what it is given (or leaves it as it is), or it encrypts.
`larder.encoding` puts one of each together.
"""

from __future__ import annotations

import functools
import importlib
import io
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

from larder.errors import ConfigurationError
from larder.streams import chunks

#: The word of the codec that `encrypt_to` is about.
ENCRYPTION = "age"


class Codec(ABC):
    """Encodes and decodes a stream of bytes."""

    #: What file names end with, dot included; empty where nothing is encoded.
    suffix: ClassVar[str]
    #: Whether the same content makes the same bytes.
    deterministic: ClassVar[bool] = True
    #: What can be said about how it works, as its arguments: a level.
    options: ClassVar[tuple[str, ...]] = ()

    @property
    def light(self) -> bool:
        """Whether it is fast enough to run beside a dump without slowing the dump down."""
        return True

    def for_compressed(self) -> Codec:
        """This one for content that is mostly compressed already, where it has a faster way for that."""
        return self

    @property
    def name(self) -> str:
        """The codec's word in the configuration and in manifests."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def writer(self, sink: BinaryIO) -> BinaryIO:
        """A file to write plain bytes to; encoded ones arrive in `sink`."""

    @abstractmethod
    def reader(self, source: BinaryIO) -> BinaryIO:
        """A file to read plain bytes from; encoded ones are taken from `source`."""

    def encode(self, data: bytes) -> bytes:
        """All of `data`, encoded as a stream of its own."""
        sink = io.BytesIO()
        with closing(self.writer(sink)) as writer:
            writer.write(data)
        return sink.getvalue()

    def decode(self, encoded: bytes, size: int) -> bytes:
        """What `encode` was given, which were about `size` bytes; raises as `reader` does."""
        del size  # for who can do better with it
        with closing(self.reader(io.BytesIO(encoded))) as reader:
            return reader.read()

    def members(self, source: BinaryIO) -> Iterator[bytes]:
        """What `source` decodes to, piece by piece; raises as `reader` does.

        Where the standard tool reads several streams one after the other as one, so may this.
        """
        with closing(self.reader(source)) as reader:
            yield from chunks(reader)


class Cipher(Codec):
    """A codec that keeps others from reading, which is no compression. `identities` is what it decodes with."""

    #: The same content never makes the same bytes, or others could tell that it is the same.
    deterministic = False

    @classmethod
    @abstractmethod
    def read_back(cls, recipients: Iterable[str]) -> Cipher:
        """Encrypts to `recipients`, and to one key more that the object made here alone has, and decrypts with that.

        Raises `ConfigurationError` for a recipient that `check_recipient` finds fault with.
        """

    @classmethod
    @abstractmethod
    def check_recipient(cls, text: str) -> str | None:
        """What is wrong with a recipient, as a clause that goes on from its path; None where it can be encrypted to.

        The clause holds nothing of `text`, which may be a secret in the wrong place; such a one is masked from now on.
        """

    @classmethod
    @abstractmethod
    def load_identities(cls, path: Path) -> Sequence[Any]:
        """The private keys in a file, which are masked from now on; raises `ConfigurationError` where there is none."""


@functools.cache
def words() -> tuple[str, ...]:
    """The words that name a codec in manifests."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


@functools.cache
def compressions() -> tuple[str, ...]:
    """The words that `compression` may be in the configuration."""
    return tuple(word for word in words() if not issubclass(kind(word), Cipher))


def cipher() -> type[Cipher]:
    """The class of the codec that encrypts what databases want encrypted."""
    return cast(type[Cipher], kind(ENCRYPTION))


def kind(word: str) -> type[Codec]:
    """The class of the codec named `word`; raises `ConfigurationError` where there is none."""
    if word not in words():
        raise ConfigurationError(f"unable to find codec '{word}'", f"use one of: {', '.join(words())}")
    return cast(type[Codec], importlib.import_module(f"{__name__}.{word}").CODEC)


def codec(word: str, **options: Any) -> Codec:
    """The codec named `word`, working as its `options` say; raises `ConfigurationError` where there is none."""
    return kind(word)(**options)
