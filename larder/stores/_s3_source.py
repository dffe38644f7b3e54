"""The file that is to be kept, in the parts that it is sent in. It stays on the disk: a part is read as it is sent."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from larder.errors import IntegrityError, LarderError
from larder.streams import CHUNK

#: As many parts as an upload may have.
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
MOST_PARTS = 10_000


def encoded(digest: bytes) -> str:
    """A digest as S3 writes it."""
    return base64.b64encode(digest).decode()


@dataclass(frozen=True)
class Part:
    """A stretch of the file. Numbers begin at 1; offset and size are in bytes."""

    number: int
    offset: int
    size: int
    #: Its raw SHA-256.
    sha256: bytes

    @property
    def checksum(self) -> str:
        """Its SHA-256 as S3 writes it."""
        return encoded(self.sha256)


class Source:
    """A file that has SHA-256 `sha256`, in hexadecimal digits, and its parts of about `part_size` bytes.

    It is read once, as its parts are asked for: what has been read can be sent while the rest is not yet known.
    """

    def __init__(self, path: Path, sha256: str, part_size: int) -> None:
        if not path.is_file():
            raise LarderError(f"unable to keep {path}: it is not there", "start a new backup")
        self.path = path
        self.size = path.stat().st_size
        self._part_size = _part_size(self.size, part_size)
        #: How many parts it has.
        self.count = max(1, -(-self.size // self._part_size))
        self._sha256 = sha256
        self._whole = hashlib.sha256()
        self._known: list[Part] = []

    def __iter__(self) -> Iterator[Part]:
        """Each part, as soon as it has been read.

        Raises `IntegrityError` in the place of the last where the file is not what its SHA-256 says: whoever has seen
        all parts has seen the right ones.
        """
        for number in range(1, self.count + 1):
            if number > len(self._known):
                self._known.append(self._read(number))
            yield self._known[number - 1]

    @property
    def parts(self) -> tuple[Part, ...]:
        """All of them: the file is read to its end. Raises what iterating raises."""
        return tuple(self)

    @property
    def checksums(self) -> set[str]:
        """The SHA-256s by which a server may call an object with this content: of all of it, and of these parts.

        The second is the digest of the parts' digests; Amazon writes their number after it.
        https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
        """
        joined = b"".join(part.sha256 for part in self.parts)
        composite = encoded(hashlib.sha256(joined).digest())
        return {encoded(self._whole.digest()), composite, f"{composite}-{self.count}"}

    def size_of(self, number: int) -> int | None:
        """The size in bytes of the part with this number, or None where there is no such part."""
        if not 1 <= number <= self.count:
            return None
        return min(self._part_size, self.size - (number - 1) * self._part_size)

    def slice(self, part: Part) -> Slice:
        """The bytes of `part`, to read and close."""
        return Slice(self.path, part)

    def md5(self, part: Part) -> bytes:
        """The MD5 of `part`, by which servers that do not know SHA-256 tell it."""
        with self.slice(part) as content:
            return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).digest()

    def _read(self, number: int) -> Part:
        """Read the next part. The same bytes go into both digests, so that no part can differ from the whole."""
        whole, found = self._whole.copy(), hashlib.sha256()
        offset, size = (number - 1) * self._part_size, 0
        wanted = self.size_of(number) or 0
        with self.path.open("rb", buffering=0) as content:
            content.seek(offset)
            while size < wanted and (data := content.read(min(CHUNK, wanted - size))):
                whole.update(data)
                found.update(data)
                size += len(data)
            if number == self.count or size < wanted:
                longer = _add_rest(whole, content)
                if longer or size < wanted or whole.hexdigest() != self._sha256:
                    raise self._changed(whole.hexdigest())
        self._whole = whole
        return Part(number, offset, size, found.digest())

    def _changed(self, sha256: str) -> IntegrityError:
        return IntegrityError(
            f"unable to keep {self.path}: it has SHA-256 {sha256}, and should have {self._sha256}",
            "start a new backup; if it happens again, see the system's log for disk or memory errors",
        )


def _add_rest(digest: Any, content: io.FileIO) -> bool:
    """Have `digest` take in what is left of `content`, and say whether there was anything."""
    found = False
    while data := content.read(CHUNK):
        digest.update(data)
        found = True
    return found


def _part_size(size: int, wanted: int) -> int:
    """`wanted`, or as many whole MiB as it takes to stay below `MOST_PARTS`."""
    needed = -(-size // MOST_PARTS)
    return wanted if needed <= wanted else -(-needed // CHUNK) * CHUNK


class Slice(io.RawIOBase):
    """A stretch of a file that looks like a file of its own."""

    def __init__(self, path: Path, part: Part) -> None:
        super().__init__()
        #: What it should have: the signature of a request says so.
        self.sha256 = part.sha256
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._offset = part.offset
        self._size = part.size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        count = os.preadv(self._descriptor, [memoryview(buffer)[:wanted]], self._offset + self._at)
        if not count:
            # What is shorter than was said would leave the server waiting for the rest.
            raise OSError(errno.EIO, "it has become shorter while it was sent", str(self._path))
        self._at += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
            super().close()
