"""Writing that is decoded while it goes on: what comes out at the other end is compared with what went in.

To decode a file once it is written takes as long again as its codec needs. Done beside, while everybody waits for
whoever makes the bytes, it takes hardly any time.
"""

from __future__ import annotations

import io
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, cast

from larder.encoding import Encoding
from larder.errors import IntegrityError, RefusedError
from larder.pipes import Line, Taken, started
from larder.streams import Hashed, chunks

#: Encoded pieces that may wait to be decoded.
DEPTH = 4

HINT = "see the system's log for disk or memory errors"


@dataclass(frozen=True)
class Encoded:
    """Bytes and hexadecimal SHA-256 of an encoded file that was decoded to its end, and compared."""

    size: int
    sha256: str


class CheckedWriter(io.RawIOBase):
    """Takes plain bytes, and writes them to `sink` as `encoding` has them; `name` is what errors call the file.

    What is written is decoded in a thread beside. `write` and `close` raise `IntegrityError` as soon as it is not what
    was given, byte for byte; after `close` has returned, it was, to its end. Closing leaves `sink` open. `encoding` has
    to be one that can read back what it writes.
    """

    def __init__(self, name: str, encoding: Encoding, sink: BinaryIO) -> None:
        super().__init__()
        #: What was given.
        self.raw = Hashed()
        self._failure: BaseException | None = None
        self._line = Line(DEPTH)
        self._comparison = _Comparison(name, encoding)
        self._tee = _Tee(sink, self._line)
        # The thread knows the comparison and not this writer, so that a writer which is let go of ends it.
        self._thread = started(self._comparison.work, self._line, self._line.stop)
        try:
            self._writer = encoding.writer(cast(BinaryIO, self._tee))
        except BaseException:
            self._line.end()
            raise

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        if self._line.error is not None:
            raise self._line.error
        piece = bytes(data)
        if not piece:
            return 0
        self.raw.write(piece)
        self._comparison.given(piece)
        try:
            self._writer.write(piece)
        except BaseException as error:
            self._failure = error
            raise
        return len(piece)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        try:
            # What the sink raises comes first: a stream that it did not take is cut short.
            self._writer.close()
        finally:
            self._line.end()
            self._thread.join()
        if failure := self._failure or self._line.error:
            raise failure
        self._comparison.end(self.raw)

    @property
    def encoded(self) -> Encoded:
        """What is in the sink, once this is closed."""
        return Encoded(self._tee.size, self._tee.sha256)


class _Tee(Hashed):
    """Passes on what is encoded to the sink, and to whoever decodes it."""

    def __init__(self, sink: BinaryIO, line: Line) -> None:
        super().__init__(sink)
        self._line = line

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        count = super().write(data)
        if count:
            # An empty piece would read as the end. Where nobody takes any more, the writer is told why when it goes on.
            self._line.put(bytes(data))
        return count


class _Arriving(Taken):
    """What has arrived is read at once: a decoder that waited for more would have all of it kept till then."""

    def read(self, size: int | None = -1) -> bytes:
        return self.read1(-1 if size is None else size)


class _Comparison:
    """Decodes a line of encoded pieces, and compares what comes out with what was given."""

    def __init__(self, name: str, encoding: Encoding) -> None:
        self._name = name
        self._encoding = encoding
        # A codec that holds back much would have all of that kept here as well. Of such a one the SHA-256 is compared,
        # which takes eight times as long as a comparison in memory.
        self._sent: deque[bytes] | None = deque() if _holds_back_little(encoding) else None
        self._at = 0
        self._decoded = Hashed()

    def given(self, piece: bytes) -> None:
        """Take note of the next bytes, before they are encoded."""
        if self._sent is not None:
            self._sent.append(piece)

    def work(self, line: Line) -> None:
        """Take pieces from `line` to the end of the stream; raises `IntegrityError` where something differs."""
        try:
            with closing(_Arriving(line)) as source, closing(self._encoding.reader(source)) as decoded:  # type: ignore[arg-type]
                for piece in chunks(decoded):
                    self._compare(piece)
        except RefusedError:
            # The key that it was encrypted to is at hand, so it is not the key that is wrong.
            raise IntegrityError(
                f"unable to verify {self._name}: its header is not as it was written", HINT
            ) from None

    def end(self, raw: Hashed) -> None:
        """See, when all is over, that nothing is missing; raises `IntegrityError`."""
        if self._sent is None:
            if (self._decoded.size, self._decoded.sha256) != (raw.size, raw.sha256):
                raise self._unlike()
        elif self._sent:
            raise self._unlike()

    def _compare(self, piece: bytes) -> None:
        if self._sent is None:
            self._decoded.write(piece)
            return
        at, view = 0, memoryview(piece)
        while at < len(view):
            if not self._sent:
                raise self._unlike()
            first = self._sent[0]
            count = min(len(first) - self._at, len(view) - at)
            # Compared where both lie, by the C library: `==` of views takes their bytes one by one.
            if not first.startswith(view[at : at + count], self._at):
                raise self._unlike()
            at, self._at = at + count, self._at + count
            if self._at == len(first):
                self._sent.popleft()
                self._at = 0

    def _unlike(self) -> IntegrityError:
        return IntegrityError(
            f"unable to verify {self._name}: it decodes to other bytes than were encoded", HINT
        )


def _holds_back_little(encoding: Encoding) -> bool:
    # A second codec holds back what is compressed already, of which a megabyte may stand for a gigabyte.
    return len(encoding.codecs) < 2 and all(codec.light for codec in encoding.codecs)
