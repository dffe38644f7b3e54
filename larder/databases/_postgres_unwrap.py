"""A script of pg_dump without the transactions of its own, which it wraps large objects in, to be one whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from larder.databases._postgres_reader import Reader

_END_OF_ROWS = b"\n\\.\n"

#: Nothing else of pg_dump's begins or ends a transaction.
_BEGIN, _COMMIT = b"BEGIN;\n", b"COMMIT;\n"
_OF_LARGE_OBJECTS = b"BEGIN;\n\nSELECT pg_catalog.lo_open("
_LINES = 3

_OLD_STRINGS = b"SET standard_conforming_strings = off;\n"


def in_one_transaction(stream: Iterable[bytes]) -> Iterator[bytes]:
    """A dump without the transactions that pg_dump wraps large objects in.

    What only looks like them, in rows, strings or bodies, is left alone. A row is passed on as it comes, however
    long it is.
    """
    script, held = _Script(), b""
    for given in stream:
        data = given
        while data:
            if not script.in_rows:
                yield from script.read(data)
                data = script.rest()
                continue
            held += data
            end = held.find(_END_OF_ROWS)
            script.in_rows = end < 0
            # The end mark may have come in part.
            cut = max(0, len(held) - len(_END_OF_ROWS) + 1) if script.in_rows else end + len(_END_OF_ROWS) - 1
            yield held[:cut]
            held, data = (held[cut:], b"") if script.in_rows else (b"", held[cut:])
    yield held
    yield from script.close()


class _Script:
    """The text of a script, up to where rows begin."""

    def __init__(self) -> None:
        self.in_rows = False
        self._reader = Reader()
        self._in_copy = False
        self._in_objects = False

    def rest(self) -> bytes:
        """What comes after the text, where rows begin."""
        return self._reader.give_back() if self.in_rows else b""

    def close(self) -> Iterator[bytes]:
        """The text that is left at the end of the script."""
        self._reader.close()
        yield from self._pass_on()

    def read(self, data: bytes) -> Iterator[bytes]:
        """The text that `data` completes."""
        if self._reader.add(data):
            yield from self._pass_on()

    def _pass_on(self) -> Iterator[bytes]:
        reader, buffer = self._reader, self._reader.buffer
        begin = at = reader.at
        while at < reader.limit and not self.in_rows:
            if not reader.is_between:
                at, _ = reader.within(at)
                self.in_rows = self._ends_copy(at)
                continue
            at = reader.past_blank(at)
            if buffer.startswith(b"--", at) or (buffer.startswith(b"\\", at) and reader.is_line(at)):
                at = reader.line_end(at)
            elif buffer.startswith(b"/*", at):
                at = reader.begin_comment(at)
            elif buffer.startswith(_BEGIN, at) and not self._can_tell(at):
                break
            elif left_out := self._left_out(at):
                yield buffer[begin:at]
                begin = at = at + left_out
            elif at < reader.limit:
                self._begin_statement(at)
        reader.at = at
        yield buffer[begin:at]

    def _ends_copy(self, at: int) -> bool:
        """Whether `at` is behind a COPY, where rows begin: with a line's end, which may be their end mark's."""
        if not self._reader.is_between:
            return False
        found = self._in_copy and self._reader.buffer.endswith(b" FROM stdin;", 0, at)
        self._in_copy = False
        return found

    def _can_tell(self, at: int) -> bool:
        return self._reader.final or self._reader.buffer.count(b"\n", at, self._reader.limit) >= _LINES

    def _left_out(self, at: int) -> int:
        """How many bytes at `at` begin or end a transaction of large objects."""
        buffer = self._reader.buffer
        if buffer.startswith(_OF_LARGE_OBJECTS, at):
            self._in_objects = True
            return len(_BEGIN)
        if self._in_objects and buffer.startswith(_COMMIT, at):
            self._in_objects = False
            return len(_COMMIT)
        return 0

    def _begin_statement(self, at: int) -> None:
        reader = self._reader
        reader.in_statement = True
        self._in_copy = reader.buffer[at : at + len(b"COPY")].upper() == b"COPY"
        if reader.buffer.startswith(_OLD_STRINGS, at):
            reader.old_strings = True
