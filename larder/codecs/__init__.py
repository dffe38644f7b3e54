"""Codecs: how an artifact is encoded. One file a codec, named after its word in the configuration.

The contract, which `tests/contracts/test_codecs.py` holds every codec to:

- `writer(sink)` takes plain bytes and writes encoded ones to `sink`. Closing the writer ends the encoded
  stream and leaves `sink` open. Memory is bounded, whatever the size.
- `reader(source)` takes encoded bytes and gives plain ones. A stream that is cut short, altered, or followed by
  anything else raises `IntegrityError`, before the end of the stream is reported.
- What a codec writes, the standard tool of its name reads (`gunzip`, `zstd -d`).
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from typing import BinaryIO, ClassVar

from larder.errors import ConfigurationError


class Codec(ABC):
    """Encodes and decodes a stream of bytes."""

    #: What file names end with, dot included; empty where nothing is encoded.
    suffix: ClassVar[str]
    #: Whether it is fast enough to run beside a dump without slowing the dump down.
    light: ClassVar[bool]

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


def words() -> list[str]:
    """The words that name a codec in the configuration."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if not name.startswith("_"))


def codec(word: str) -> Codec:
    """The codec named `word`; raises `ConfigurationError` where there is none."""
    if word not in words():
        raise ConfigurationError(f"unable to find codec '{word}'", f"use one of: {', '.join(words())}")
    module = importlib.import_module(f"{__name__}.{word}")
    made: Codec = module.CODEC()
    return made
