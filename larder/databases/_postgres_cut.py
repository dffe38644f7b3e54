"""A script of pg_dump, cut while it streams by into what one session has to be told, and what any of several can do.

Rows may be sent by any session, a block at a time, and indexes and foreign keys made by any; all the rest is text for
psql, in order.
What is inside a string, a function's body or a comment is never taken for a landmark: text is read as psql reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from larder.databases._postgres_reader import Reader


@dataclass(frozen=True, slots=True)
class Text:
    """SQL for psql, in whole lines. With `silent` it holds nothing but comments and blank lines."""

    data: bytes
    silent: bool


@dataclass(frozen=True, slots=True)
class Table:
    """`Rows` follow, if there are any, that `statement` (`COPY … FROM stdin`) takes; then an `End`."""

    statement: bytes


@dataclass(frozen=True, slots=True)
class Rows:
    """Whole rows in COPY's text format, each with its line's end: `first`, and then `data`.

    `data` is seen where it was read to: to copy all rows of a database costs more than to look for their end.
    """

    data: bytes | memoryview
    #: A row that came in parts, if there was one.
    first: bytes = b""


@dataclass(frozen=True, slots=True)
class End:
    """The rows' end mark."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The whole statements of one object, with pg_dump's header above: any session can execute them."""

    #: `INDEX`, `CONSTRAINT` (a primary key, or another with an index), `FK CONSTRAINT` or `COMMENT`.
    kind: bytes
    data: bytes


Piece = Text | Table | Rows | End | Entry


class UncutError(Exception):
    """A script that only one session can be trusted with; the text says why, and quotes nothing of it."""


#: An object's header, and what its statements may begin with for any session to execute them.
_HEADER = re.compile(rb"--\n-- [^\n]*Name: [^\n]*; Type: ([^;\n]*); Schema: [^\n]*; Owner: [^\n]*\n--\n")
_HEADER_LINES = 3
_MAKES = {
    b"INDEX": re.compile(rb"CREATE (?:UNIQUE )?INDEX |ALTER (?:INDEX|TABLE) "),
    b"CONSTRAINT": re.compile(rb"ALTER TABLE "),
    b"FK CONSTRAINT": re.compile(rb"ALTER TABLE "),
    b"COMMENT": re.compile(rb"COMMENT ON "),
}

#: Bytes of an entry that is held to be executed in one go; what is longer is passed on as text.
_LARGEST_ENTRY = 4 << 20

#: What may begin between statements, beside an entry of one of the kinds above.
_COMMENTARY, _OTHER_ENTRY, _TABLE, _COMMAND = b"--", b"-- Name", b"COPY", b"\\"

_END_OF_ROWS = b"\\.\n"

_COPY = re.compile(rb'(COPY (?:[^\n"]|"[^\n"]*")* FROM stdin);\n')
_SETTING = re.compile(rb"SET (\w+)[^;\n]*;\n|SELECT pg_catalog\.set_config\([^;\n]*;\n")
_ENCODING = re.compile(rb"SET client_encoding = '(\w+)';\n")

#: What pg_dump sets again and again for the tables and indexes to come.
_ASIDE = (b"default_tablespace", b"default_table_access_method", b"default_with_oids")

#: psql's protection against commands of its own in a dump, which are refused between the two.
_RESTRICT = re.compile(rb"\\(?:un)?restrict [0-9A-Za-z]+\n")

#: Encodings in which a part of a letter may look like a backslash. pg_dump writes none of its own accord.
_AMBIGUOUS = (b"SJIS", b"BIG5", b"GBK", b"UHC", b"GB18030", b"JOHAB", b"SHIFT_JIS_2004")


class Cutter:
    """Cuts one script. `feed` takes its bytes in order, however they are split; `end` says that this was all."""

    def __init__(self) -> None:
        #: What the script's beginning sets for a session: to be executed in each that does a part of it.
        self.settings: list[bytes] = []
        self._reader = Reader()
        self._in_rows = False
        self._first = b""
        self._in_preamble = True
        self._in_transaction = False
        self._spoken = False
        self._known: set[bytes] = set()
        self._own_tablespace = True
        self._kind: bytes | None = None
        self._entry: list[bytes] = []
        self._fits = True

    def feed(self, data: bytes) -> Iterator[Piece]:
        """The pieces that `data` completes. Raises `UncutError`."""
        if self._in_rows and b"\n" in data:
            self._first = self._reader.resume(data)
            if self._first == _END_OF_ROWS:
                self._first, self._in_rows = b"", False
                yield End()
            yield from self._cut()
        elif self._reader.add(data):
            yield from self._cut()

    def end(self) -> Iterator[Piece]:
        """The pieces that are left. Raises `UncutError`."""
        self._reader.close()
        yield from self._cut()
        if self._in_rows:
            raise UncutError("its rows have no end")
        self._fits = self._fits and self._reader.is_between
        yield from self._passed(b"", closing=True)

    def _cut(self) -> Iterator[Piece]:
        reader = self._reader
        while reader.at < reader.limit or self._first:
            before = reader.at, self._in_rows
            yield from self._rows() if self._in_rows else self._text()
            if before == (reader.at, self._in_rows):
                return

    def _rows(self) -> Iterator[Piece]:
        """Rows up to their end mark, or to the end of what is there."""
        reader, at = self._reader, self._reader.at
        end, over = reader.rows(at)
        if end > at or self._first:
            yield Rows(memoryview(reader.buffer)[at:end], self._first)
        self._first = b""
        reader.at = end
        if over:
            reader.at, self._in_rows = end + len(_END_OF_ROWS), False
            yield End()

    def _text(self) -> Iterator[Piece]:
        """Text up to the next landmark, or to the end of what is there."""
        reader = self._reader
        buffer, limit = reader.buffer, reader.limit
        begin = at = reader.at
        while at < limit:
            if not reader.is_between:
                at, commands = reader.within(at)
                if commands:
                    raise UncutError("it holds a command for psql")
                continue
            at = self._between(at)
            if at >= limit or not reader.is_between:
                continue
            kind = self._landmark(at)
            if kind is None:
                # The next lines tell what it is.
                break
            if kind == _COMMENTARY:
                at = reader.line_end(at)
                continue
            if kind == _OTHER_ENTRY and self._kind is None:
                at, _ = self._reached(at, kind)
                continue
            yield from self._passed(buffer[begin:at], closing=True)
            begin = at
            at, taken = self._reached(at, kind)
            if taken is not None:
                reader.at = at
                yield taken
                return
        reader.at = at
        yield from self._passed(buffer[begin:at])

    def _between(self, at: int) -> int:
        """Where, after `at`, the next statement, landmark or comment begins; into a statement, this goes."""
        reader = self._reader
        buffer, at = reader.buffer, reader.past_blank(at)
        if at >= reader.limit:
            return at
        if buffer.startswith(b"/*", at):
            self._spoken = True
            return reader.begin_comment(at)
        if buffer.startswith(b"--", at) or (
            reader.is_line(at) and (buffer.startswith(b"\\", at) or _COPY.match(buffer, at, reader.limit))
        ):
            return at
        self._begin_statement(at)
        return at

    def _landmark(self, at: int) -> bytes | None:
        """What begins at `at`, between statements: its kind; None where more lines have to be there to tell."""
        reader, buffer = self._reader, self._reader.buffer
        if buffer.startswith(b"COPY", at):
            return _TABLE
        if buffer.startswith(b"\\", at):
            return _COMMAND
        if not reader.is_line(at):
            return _COMMENTARY
        if found := _HEADER.match(buffer, at, reader.limit):
            return found[1] if found[1] in _MAKES else _OTHER_ENTRY
        begun = buffer.startswith(b"--\n", at) and buffer.count(b"\n", at, reader.limit) < _HEADER_LINES
        return None if begun and not reader.final else _COMMENTARY

    def _reached(self, at: int, kind: bytes) -> tuple[int, Piece | None]:
        """Pass the landmark at `at`; gives where it ends, and the piece that it is, if it is one."""
        buffer, limit = self._reader.buffer, self._reader.limit
        if kind == _TABLE:
            found = _COPY.match(buffer, at, limit)
            assert found is not None  # noqa: S101 - `_between` has seen it
            self._expect_settings()
            self._in_rows, self._in_preamble = True, False
            return found.end(), Table(found[1])
        if kind == _COMMAND:
            found = _RESTRICT.match(buffer, at, limit)
            if found is None:
                raise UncutError("it holds a command for psql")
            self._spoken = True
            return found.end(), None
        self._in_preamble = False
        if kind != _OTHER_ENTRY and (kind == b"COMMENT" or self._own_tablespace):
            self._expect_settings()
            self._kind, self._fits = kind, True
        found = _HEADER.match(buffer, at, limit)
        assert found is not None  # noqa: S101 - `_landmark` has seen it
        return found.end(), None

    def _expect_settings(self) -> None:
        if self._in_transaction:
            raise UncutError("a part of it is a transaction of its own")
        if not {b"client_encoding", b"standard_conforming_strings"} <= self._known:
            raise UncutError("it does not begin as pg_dump's scripts do")

    def _begin_statement(self, at: int) -> None:
        reader, buffer = self._reader, self._reader.buffer
        reader.in_statement = self._spoken = True
        if self._kind is not None and not _MAKES[self._kind].match(buffer, at, reader.limit):
            self._fits = False
        if buffer.startswith(b"BEGIN;\n", at):
            self._in_transaction = True
        elif buffer.startswith(b"COMMIT;\n", at):
            self._in_transaction = False
        elif buffer.startswith((b"SET ", b"RESET ", b"SELECT pg_catalog.set_config("), at):
            self._set(at)
        elif buffer[at : at + len(b"COPY")].upper() == b"COPY":
            # Its rows would be read as text, and could be written to look like anything.
            raise UncutError(
                "it copies rows in another way than on one line: is there a line's end in a name?"
            )

    def _set(self, at: int) -> None:
        """Note what a statement sets."""
        found = _SETTING.match(self._reader.buffer, at, self._reader.limit)
        if found is None or (found[1] not in _ASIDE and not self._in_preamble):
            raise UncutError("it sets something on its way")
        statement, name = found[0], found[1] or b""
        if name == b"default_tablespace":
            self._own_tablespace = statement == b"SET default_tablespace = '';\n"
        if not self._in_preamble:
            return
        if name == b"client_encoding":
            encoding = _ENCODING.fullmatch(statement)
            if encoding is None or encoding[1] in _AMBIGUOUS:
                raise UncutError("its encoding is one in which letters may hold a backslash")
        if name == b"standard_conforming_strings" and statement != b"SET standard_conforming_strings = on;\n":
            raise UncutError("its strings are written in the old way")
        self._known.add(name)
        self.settings.append(statement)

    def _passed(self, data: bytes, *, closing: bool = False) -> Iterator[Piece]:
        """Text that was read; with `closing` up to a landmark, where an entry that it belongs to ends."""
        if self._kind is None:
            if data:
                yield Text(data, not self._spoken)
            self._spoken = not self._reader.is_between
            return
        self._entry.append(data)
        if not closing and self._fits and sum(map(len, self._entry)) <= _LARGEST_ENTRY:
            return
        kind, whole = self._kind, b"".join(self._entry)
        self._kind = None
        self._entry.clear()
        if closing and self._fits and self._spoken:
            yield Entry(kind, whole)
        else:
            yield Text(whole, not self._spoken)
        self._spoken = not self._reader.is_between
