"""none: the artifact is the dump as it is. Only the manifest's SHA-256 can tell that it was altered."""

from __future__ import annotations

import io
from typing import BinaryIO, cast

from larder.codecs import Codec


class Plain(Codec):
    """Passes bytes through."""

    suffix = ""

    def writer(self, sink: BinaryIO) -> BinaryIO:
        """A file to write to, whose closing leaves `sink` open."""
        return cast(BinaryIO, _Writer(sink))

    def reader(self, source: BinaryIO) -> BinaryIO:
        """A file to read from, whose closing leaves `source` open."""
        return cast(BinaryIO, io.BufferedReader(_Reader(source), 1 << 20))


class _Writer(io.RawIOBase):
    def __init__(self, sink: BinaryIO) -> None:
        super().__init__()
        self._sink = sink

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        self._sink.write(data)
        return memoryview(data).nbytes


class _Reader(io.RawIOBase):
    def __init__(self, source: BinaryIO) -> None:
        super().__init__()
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


CODEC = Plain
