"""An artifact's encoding: the codecs that a file passes through, one after the other. Compressed, then encrypted."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from larder import codecs
from larder.codecs import Cipher, Codec, codec
from larder.errors import IntegrityError

if TYPE_CHECKING:
    from larder.config import DatabaseSettings


class Encoding:
    """Codecs in the order that writing takes them in. A codec that leaves bytes as they are is none of them."""

    def __init__(self, passed: Iterable[Codec]) -> None:
        self.codecs = tuple(found for found in passed if found.suffix)

    @property
    def names(self) -> tuple[str, ...]:
        """`("gzip", "age")`, as manifests have it; empty where nothing is encoded."""
        return tuple(found.name for found in self.codecs)

    @property
    def suffix(self) -> str:
        """`.gz.age`: what the names of files go on with."""
        return "".join(found.suffix for found in self.codecs)

    @property
    def compression(self) -> Codec | None:
        """The codec that comes first, where it is there to make files smaller."""
        return self.codecs[0] if self.codecs and not isinstance(self.codecs[0], Cipher) else None

    def for_compressed(self) -> Encoding:
        """The same for content that is mostly compressed already; it is decoded alike."""
        return Encoding(found.for_compressed() for found in self.codecs)

    def after(self, word: str) -> Encoding | None:
        """What is still to be done to a file that went through the codec `word`; None where it has to be decoded first.

        Only a light compression is taken over: a file in the spool may have gone through a faster one of the same name.
        """
        if not codecs.kind(word).suffix:
            return self
        first = self.compression
        return Encoding(self.codecs[1:]) if first and first.name == word and first.light else None

    def writer(self, sink: BinaryIO) -> BinaryIO:
        """A file to write plain bytes to. Closing it ends every codec's stream, and leaves `sink` open."""
        if not self.codecs:
            return codec("none").writer(sink)
        opened = [sink]
        for found in reversed(self.codecs):
            opened.append(found.writer(opened[-1]))
        return cast(BinaryIO, _Writer(opened[:0:-1]))

    def reader(self, source: BinaryIO) -> BinaryIO:
        """A file to read plain bytes from. Closing it leaves `source` open."""
        if not self.codecs:
            return codec("none").reader(source)
        opened = [source]
        for found in reversed(self.codecs):
            opened.append(found.reader(opened[-1]))
        return cast(BinaryIO, _Reader(opened[:0:-1]))


class _Nested(io.IOBase):
    """The file of each codec: first the one that the caller's bytes go to, last the one beside sink or source."""

    def __init__(self, files: Sequence[BinaryIO]) -> None:
        super().__init__()
        self._file = files[0]
        self._files = files

    def close(self) -> None:
        """Close every file in turn, since each has something left for the next, and then raise what failed first."""
        if self.closed:
            return
        super().close()
        failed = None
        for file in self._files:
            try:
                file.close()
            except BaseException as error:  # noqa: BLE001 - raised again below
                # Not within ExitStack: codecs raise their sink's error more than once, which it follows in circles.
                failed = failed or error
        if failed is not None:
            raise failed


class _Writer(_Nested, io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        return self._file.write(data)


class _Reader(_Nested, io.BufferedIOBase):
    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        return self._file.read(-1 if size is None else size)

    def read1(self, size: int = -1) -> bytes:
        # The contract of codecs asks for no such method.
        read: Callable[[int], bytes] = getattr(self._file, "read1", self._file.read)
        return read(size)


def encoding_of(database: DatabaseSettings) -> Encoding:
    """How a database's artifacts are written, and read back by nobody but whoever has what this gives back.

    Where something is encrypted, each call makes a key of its own (`Cipher.read_back`).
    """
    options: dict[str, Any] = {"level": database.compression_level, "long_distance": database.long_distance}
    known = codecs.kind(database.compression).options
    given = {name: value for name, value in options.items() if name in known and value is not None}
    passed = [codec(database.compression, **given)]
    if database.encrypt_to:
        passed.append(codecs.cipher().read_back(database.encrypt_to))
    return Encoding(passed)


def decoding(names: Sequence[str], identities: Sequence[Path] = ()) -> Encoding:
    """How what a manifest's `encoding` names is read.

    The identity files are opened only where something is encrypted. Raises `IntegrityError` for a codec that this
    version does not know, and `ConfigurationError` for an identity file that can't be read.
    """
    known = codecs.words()
    for name in names:
        if name not in known:
            raise IntegrityError(
                f"unable to decode: this version knows no codec {name!r}",
                "read it with the version of Larder that wrote it, or a later one",
            )
    passed = []
    for name in names:
        found = codecs.kind(name)
        if issubclass(found, Cipher):
            keys = [key for path in identities for key in found.load_identities(path)]
            passed.append(codec(name, identities=keys))
        else:
            passed.append(codec(name))
    return Encoding(passed)
