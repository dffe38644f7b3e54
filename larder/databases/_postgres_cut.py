"""A script of pg_dump, cut while it streams by into what one session has to be told, and what any of several can do.

Rows may be sent by any session, a block at a time, and indexes made by any; all the rest is text for psql, in order.
What is inside a string, a function's body or a comment is never taken for a landmark: text is read as psql reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


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
    """Whole rows in COPY's text format, each with its line's end."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The rows' end mark."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The whole statements of one object, with pg_dump's header above: any session can execute them."""

    #: `INDEX`, `CONSTRAINT` (a primary key, or another with an index) or `COMMENT`.
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
    b"COMMENT": re.compile(rb"COMMENT ON "),
}

#: Bytes of an entry that is held to be executed in one go; what is longer is passed on as text.
_LARGEST_ENTRY = 4 << 20

#: What may begin between statements, beside an entry of one of the kinds above.
_COMMENTARY, _OTHER_ENTRY, _TABLE, _COMMAND = b"--", b"-- Name", b"COPY", b"\\"

_COPY = re.compile(rb"(COPY [^\n]* FROM stdin);\n")
_END_OF_ROWS = re.compile(rb"\n\\\.\n")
_BLANK = re.compile(rb"\s*")
_SETTING = re.compile(rb"SET (\w+)[^;\n]*;\n|SELECT pg_catalog\.set_config\([^;\n]*;\n")
_ENCODING = re.compile(rb"SET client_encoding = '(\w+)';\n")

#: What pg_dump sets again and again for the tables and indexes to come.
_ASIDE = (b"default_tablespace", b"default_table_access_method", b"default_with_oids")

#: psql's protection against commands of its own in a dump, which are refused between the two.
_RESTRICT = re.compile(rb"\\(?:un)?restrict [0-9A-Za-z]+\n")

#: Encodings in which a part of a letter may look like a backslash. pg_dump writes none of its own accord.
_AMBIGUOUS = (b"SJIS", b"BIG5", b"GBK", b"UHC", b"GB18030", b"JOHAB", b"SHIFT_JIS_2004")

#: Where, within a statement, something begins that has to be read in another way, or the statement ends.
_SPECIAL = re.compile(
    rb"""[;"'\\]|--|/\*|(?<![\w$\x80-\xff])\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?\$""",
)
_ESCAPING = re.compile(rb"(?<![\w$\x80-\xff])[eE]'")
_ESCAPED = re.compile(rb"(?:[^'\\]+|\\.|'')*", re.DOTALL)
_COMMENT_MARK = re.compile(rb"/\*|\*/")


class Cutter:
    """Cuts one script. `feed` takes its bytes in order, however they are split; `end` says that this was all."""

    def __init__(self) -> None:
        #: What the script's beginning sets for a session: to be executed in each that does a part of it.
        self.settings: list[bytes] = []
        self._unfinished: list[bytes] = []
        self._buffer = b""
        self._at = 0
        self._limit = 0
        self._final = False
        self._in_rows = False
        self._in_preamble = True
        self._in_transaction = False
        self._in_statement = False
        #: What closes the string or comment that the text is within; comments may be nested.
        self._quote: bytes | None = None
        self._depth = 0
        self._spoken = False
        self._known: set[bytes] = set()
        self._own_tablespace = True
        self._kind: bytes | None = None
        self._entry: list[bytes] = []
        self._fits = True

    def feed(self, data: bytes) -> Iterator[Piece]:
        """The pieces that `data` completes. Raises `UncutError`."""
        if b"\n" not in data:
            self._unfinished.append(data)
            return
        rest = self._buffer[self._at :]
        self._buffer = b"".join([rest, *self._unfinished, data]) if rest or self._unfinished else data
        self._unfinished.clear()
        self._at, self._limit = 0, self._buffer.rfind(b"\n") + 1
        yield from self._cut()

    def end(self) -> Iterator[Piece]:
        """The pieces that are left. Raises `UncutError`."""
        self._buffer = b"".join([self._buffer[self._at :], *self._unfinished])
        self._at, self._limit, self._final = 0, len(self._buffer), True
        yield from self._cut()
        if self._in_rows:
            raise UncutError("its rows have no end")
        self._fits = self._fits and self._is_between()
        yield from self._passed(b"", closing=True)

    def _cut(self) -> Iterator[Piece]:
        while self._at < self._limit:
            before = self._at, self._in_rows
            yield from self._rows() if self._in_rows else self._text()
            if before == (self._at, self._in_rows):
                return

    def _rows(self) -> Iterator[Piece]:
        """Rows up to their end mark, or to the end of what is there."""
        buffer, at = self._buffer, self._at
        end = at
        if not buffer.startswith(b"\\.\n", at):
            # Looking for one byte is so much faster that it pays.
            found = _END_OF_ROWS.search(buffer, at) if buffer.find(b"\\", at) >= 0 else None
            end = found.start() + 1 if found else self._limit
            yield Rows(buffer[at:end])
            if found is None:
                self._at = end
                return
        self._at, self._in_rows = end + 3, False
        yield End()

    def _text(self) -> Iterator[Piece]:
        """Text up to the next landmark, or to the end of what is there."""
        buffer, limit = self._buffer, self._limit
        begin = at = self._at
        while at < limit:
            if not self._is_between():
                at = self._statement(at) if self._quote is None else self._quoted(at)
                continue
            at = self._between(at)
            if at >= limit or not self._is_between():
                continue
            kind = self._landmark(at)
            if kind is None:
                # The next lines tell what it is.
                break
            if kind == _COMMENTARY:
                at = self._line_end(at)
                continue
            if kind == _OTHER_ENTRY and self._kind is None:
                at, _ = self._reached(at, kind)
                continue
            yield from self._passed(buffer[begin:at], closing=True)
            begin = at
            at, taken = self._reached(at, kind)
            if taken is not None:
                self._at = at
                yield taken
                return
        self._at = at
        yield from self._passed(buffer[begin:at])

    def _is_between(self) -> bool:
        """Whether a statement may begin."""
        return self._quote is None and not self._in_statement

    def _between(self, at: int) -> int:
        """Where, after `at`, the next statement, landmark or comment begins; into a statement, this goes."""
        buffer = self._buffer
        at = _BLANK.match(buffer, at, self._limit).end()  # type: ignore[union-attr]
        if at >= self._limit:
            return at
        if buffer.startswith(b"/*", at):
            self._quote, self._depth, self._spoken = b"/*", 1, True
            return at + 2
        at_line = at == 0 or buffer[at - 1] == 10
        if buffer.startswith(b"--", at) or (
            at_line and (buffer.startswith(b"\\", at) or _COPY.match(buffer, at, self._limit))
        ):
            return at
        self._begin_statement(at)
        return at

    def _landmark(self, at: int) -> bytes | None:
        """What begins at `at`, between statements: its kind; None where more lines have to be there to tell."""
        buffer = self._buffer
        if buffer.startswith(b"COPY", at):
            return _TABLE
        if buffer.startswith(b"\\", at):
            return _COMMAND
        if at and buffer[at - 1] != 10:
            return _COMMENTARY
        if found := _HEADER.match(buffer, at, self._limit):
            return found[1] if found[1] in _MAKES else _OTHER_ENTRY
        begun = buffer.startswith(b"--\n", at) and buffer.count(b"\n", at, self._limit) < _HEADER_LINES
        return None if begun and not self._final else _COMMENTARY

    def _reached(self, at: int, kind: bytes) -> tuple[int, Piece | None]:
        """Pass the landmark at `at`; gives where it ends, and the piece that it is, if it is one."""
        if kind == _TABLE:
            found = _COPY.match(self._buffer, at, self._limit)
            assert found is not None  # noqa: S101 - `_between` has seen it
            self._expect_settings()
            self._in_rows, self._in_preamble = True, False
            return found.end(), Table(found[1])
        if kind == _COMMAND:
            found = _RESTRICT.match(self._buffer, at, self._limit)
            if found is None:
                raise UncutError("it holds a command for psql")
            self._spoken = True
            return found.end(), None
        self._in_preamble = False
        if kind != _OTHER_ENTRY and (kind == b"COMMENT" or self._own_tablespace):
            self._expect_settings()
            self._kind, self._fits = kind, True
        found = _HEADER.match(self._buffer, at, self._limit)
        assert found is not None  # noqa: S101 - `_landmark` has seen it
        return found.end(), None

    def _expect_settings(self) -> None:
        if self._in_transaction:
            raise UncutError("a part of it is a transaction of its own")
        if not {b"client_encoding", b"standard_conforming_strings"} <= self._known:
            raise UncutError("it does not begin as pg_dump's scripts do")

    def _begin_statement(self, at: int) -> None:
        buffer = self._buffer
        self._in_statement = self._spoken = True
        if self._kind is not None and not _MAKES[self._kind].match(buffer, at, self._limit):
            self._fits = False
        if buffer.startswith(b"BEGIN;\n", at):
            self._in_transaction = True
        elif buffer.startswith(b"COMMIT;\n", at):
            self._in_transaction = False
        elif buffer.startswith((b"SET ", b"RESET ", b"SELECT pg_catalog.set_config("), at):
            self._set(at)

    def _set(self, at: int) -> None:
        """Note what a statement sets."""
        found = _SETTING.match(self._buffer, at, self._limit)
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

    def _statement(self, at: int) -> int:
        """Where, after `at`, the statement ends, or something begins that is read in another way."""
        buffer = self._buffer
        found = _SPECIAL.search(buffer, at, self._limit)
        if found is None:
            return self._limit
        mark = found[0]
        if mark == b";":
            self._in_statement = False
        elif mark == b"--":
            return self._line_end(found.start())
        elif mark == b"\\":
            raise UncutError("it holds a command for psql")
        elif mark == b"'" and found.start() and _ESCAPING.match(buffer, found.start() - 1):
            self._quote = b"E'"
        else:
            self._quote, self._depth = mark, 1
        return found.end()

    def _quoted(self, at: int) -> int:
        """Where, after `at`, the string or comment ends, or the end of what is there."""
        buffer, quote = self._buffer, self._quote or b""
        if quote == b"/*":
            while self._depth:
                found = _COMMENT_MARK.search(buffer, at, self._limit)
                if found is None:
                    return self._limit
                self._depth += 1 if found[0] == b"/*" else -1
                at = found.end()
        elif quote == b"E'":
            at = _ESCAPED.match(buffer, at, self._limit).end()  # type: ignore[union-attr]
            if at >= self._limit:
                return at
            at += 1
        else:
            found_at = buffer.find(quote, at, self._limit)
            if found_at < 0:
                return self._limit
            at = found_at + len(quote)
        self._quote = None
        return at

    def _line_end(self, at: int) -> int:
        end = self._buffer.find(b"\n", at, self._limit)
        return self._limit if end < 0 else end + 1

    def _passed(self, data: bytes, *, closing: bool = False) -> Iterator[Piece]:
        """Text that was read; with `closing` up to a landmark, where an entry that it belongs to ends."""
        if self._kind is None:
            if data:
                yield Text(data, not self._spoken)
            self._spoken = self._in_statement or self._quote is not None
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
        self._spoken = self._in_statement or self._quote is not None
