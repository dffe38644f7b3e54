"""The file that is to be kept, in the parts that it is sent in. It stays on the disk: a part is read as it is sent."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Source:
    """A file, and what it had in it when it was read."""

    path: Path
    size: int
    sha256: bytes
    parts: tuple[Part, ...]

    @property
    def checksums(self) -> set[str]:
        """The SHA-256s by which a server may call an object with this content: of all of it, and of these parts.

        The second is the digest of the parts' digests; Amazon writes their number after it.
        https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
        """
        composite = encoded(hashlib.sha256(b"".join(part.sha256 for part in self.parts)).digest())
        return {encoded(self.sha256), composite, f"{composite}-{len(self.parts)}"}

    def slice(self, part: Part) -> Slice:
        """The bytes of `part`, to read and close."""
        return Slice(self.path, part.offset, part.size)

    def md5(self, part: Part) -> bytes:
        """The MD5 of `part`, by which servers that do not know SHA-256 tell it."""
        with self.slice(part) as content:
            return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).digest()


def read_source(path: Path, sha256: str, part_size: int) -> Source:
    """Read the file at `path` once, and cut it into parts of about `part_size` bytes.

    Raises `IntegrityError` where it is not what `sha256`, in hexadecimal digits, says.
    """
    if not path.is_file():
        raise LarderError(f"unable to keep {path}: it is not there", "start a new backup")
    part_size = _part_size(path.stat().st_size, part_size)
    whole, offset = hashlib.sha256(), 0
    parts: list[Part] = []
    with path.open("rb", buffering=0) as content:
        while True:
            found, size = hashlib.sha256(), 0
            while size < part_size and (data := content.read(min(CHUNK, part_size - size))):
                whole.update(data)
                found.update(data)
                size += len(data)
            if not size and parts:
                break
            parts.append(Part(len(parts) + 1, offset, size, found.digest()))
            offset += size
            if size < part_size:
                break
    if whole.hexdigest() != sha256:
        raise IntegrityError(
            f"unable to keep {path}: it has SHA-256 {whole.hexdigest()}, and should have {sha256}",
            "start a new backup; if it happens again, see the system's log for disk or memory errors",
        )
    return Source(path, offset, whole.digest(), tuple(parts))


def _part_size(size: int, wanted: int) -> int:
    """`wanted`, or as many whole MiB as it takes to stay below `MOST_PARTS`."""
    needed = -(-size // MOST_PARTS)
    return wanted if needed <= wanted else -(-needed // CHUNK) * CHUNK


class Slice(io.RawIOBase):
    """A stretch of a file that looks like a file of its own. boto3 reads it twice: to sign it, and to send it."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        super().__init__()
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._offset = offset
        self._size = size
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
