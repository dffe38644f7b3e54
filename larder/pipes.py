"""Bytes that another thread makes, or takes: files over a short line of pieces.

Whichever side fails, the other one is told why, and none waits for ever.
"""

from __future__ import annotations

import functools
import io
import threading
from collections import deque
from collections.abc import Callable, Iterator

from larder.streams import CHUNK


def started(
    work: Callable[[Line], None], line: Line, over: Callable[[BaseException | None], None]
) -> threading.Thread:
    """A thread that does `work`, and then says to `line` that it is over, and what it raised."""

    def run() -> None:
        error = None
        try:
            work(line)
        except BaseException as raised:  # noqa: BLE001 - raised again at the other end of the line
            error = raised
        over(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


class Taken(io.BufferedIOBase):
    """A reader of what is put into a line; `read1` gives pieces as they were put, without a copy.

    What the other side failed with is raised to the reader in its place, and again at every later read: a stream that
    failed never seems to have ended. Closing tells the other side that nobody wants more.
    """

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1) -> bytes:
        """The next bytes, at most `size` of them, and no more than one piece; nothing at the end."""
        if self.closed:
            # What was stopped on the way would seem to have ended.
            raise ValueError("unable to read: the file is closed")
        if not self._rest:
            piece = self._line.take()
            if 0 <= size < len(piece):
                self._rest = memoryview(piece)
            else:
                return piece
        end = len(self._rest) if size < 0 else size
        given, self._rest = self._rest[:end], self._rest[end:]
        return bytes(given)

    def read(self, size: int | None = -1) -> bytes:
        """The next `size` bytes, or as many as there are till the end."""
        wanted = -1 if size is None or size < 0 else size
        found: list[bytes] = []
        while wanted:
            piece = self.read1(wanted)
            if not piece:
                break
            found.append(piece)
            wanted -= len(piece) if wanted > 0 else 0
        return found[0] if len(found) == 1 else b"".join(found)

    def close(self) -> None:
        self._line.stop()
        super().close()


class Pushed(Taken):
    """A reader of the bytes that `work` puts into a line, in a thread of its own, at most `depth` pieces ahead.

    Closing ends the thread.
    """

    def __init__(self, work: Callable[[Line], None], depth: int = 2) -> None:
        super().__init__(Line(depth))
        # The thread knows the line and not this reader, so that a reader which is let go of ends it.
        self._thread = started(work, self._line, self._line.end)

    def close(self) -> None:
        super().close()
        self._thread.join()


class ReadAhead(Pushed):
    """The same for the bytes that an iterator makes."""

    def __init__(self, pieces: Iterator[bytes], depth: int = 2) -> None:
        super().__init__(functools.partial(_put_all, pieces), depth)


def _put_all(pieces: Iterator[bytes], line: Line) -> None:
    for piece in pieces:
        # An empty piece would read as the end.
        if piece and not line.put(piece):
            break


class WriteBehind(io.RawIOBase):
    """A writer whose bytes `work` takes, in a thread of its own, at most `depth` pieces of `CHUNK` bytes behind.

    `work` is given a line, and takes pieces from it until an empty one says that this writer was closed. What it raises
    is raised by every later `write`, and by `close`.
    """

    def __init__(self, work: Callable[[Line], None], depth: int = 2) -> None:
        super().__init__()
        self._line = Line(depth)
        self._held = bytearray()
        self._thread = started(work, self._line, self._line.stop)

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        if self.closed:
            raise ValueError("unable to write: the file is closed")
        count = memoryview(data).nbytes
        if not self._held and count >= CHUNK:
            self._hand_over(bytes(data))
            return count
        self._held += data
        if len(self._held) >= CHUNK:
            self._hand_over_held()
        return count

    def _hand_over_held(self) -> None:
        if self._held:
            piece, self._held = bytes(self._held), bytearray()
            self._hand_over(piece)

    def _hand_over(self, piece: bytes) -> None:
        if not self._line.put(piece):
            self._raise()

    def _raise(self) -> None:
        self._thread.join()
        raise self._line.error or RuntimeError("unable to write: nobody takes the bytes")

    def close(self) -> None:
        if not self.closed:
            try:
                self._hand_over_held()
                self._line.end()
                self._thread.join()
                if self._line.error is not None:
                    self._raise()
            finally:
                super().close()


class Line:
    """Pieces on their way from the thread that makes them to the one that takes them."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._stopped = False
        #: What ended the side that failed.
        self.error: BaseException | None = None

    def put(self, piece: bytes) -> bool:
        """Have `piece` taken, once there is room; False where nobody wants more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._depth or self._stopped)
            self._waiting.append(piece)
            self._changed.notify_all()
            return not self._stopped

    def end(self, error: BaseException | None = None) -> None:
        """Put nothing more; what failed is raised to the side that takes."""
        with self._changed:
            self._ended = True
            self.error = self.error or error
            self._changed.notify_all()

    def take(self) -> bytes:
        """The next piece; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            if self._waiting:
                piece = self._waiting.popleft()
                self._changed.notify_all()
                return piece
            if self.error is not None:
                raise self.error
            return b""

    def stop(self, error: BaseException | None = None) -> None:
        """Take nothing more; `error` is why."""
        with self._changed:
            self._stopped = True
            self.error = self.error or error
            self._changed.notify_all()
