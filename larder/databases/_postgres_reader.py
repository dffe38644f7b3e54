"""A script of pg_dump read as psql reads it, so that what is inside a string, a body or a comment is known to be."""

from __future__ import annotations

import re

#: Where, within a statement, something begins that has to be read in another way, or the statement ends.
_SPECIAL = re.compile(
    rb"""[;"'\\]|--|/\*|(?<![\w$\x80-\xff])\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?\$""",
)
_ESCAPING = re.compile(rb"(?<![\w$\x80-\xff])[eE]'")
_ESCAPED = re.compile(rb"(?:[^'\\]+|\\.|'')*", re.DOTALL)
_COMMENT_MARK = re.compile(rb"/\*|\*/")
_END_OF_ROWS = re.compile(rb"\n\\\.\n")
_BLANK = re.compile(rb"\s*")


class Reader:
    """Where one is in a script that comes in pieces: between statements, within one, in a string, in a comment.

    `buffer` holds what is to be read, from `at` up to `limit`, where a line ends; but for the last of it.
    """

    def __init__(self) -> None:
        self.buffer = b""
        self.at = 0
        self.limit = 0
        #: Whether there is nothing to come.
        self.final = False
        self.in_statement = False
        #: Whether a backslash escapes in every string, as in servers with `standard_conforming_strings = off`.
        self.old_strings = False
        self._unfinished: list[bytes] = []
        #: What closes the string or comment that the text is within; comments may be nested.
        self._quote: bytes | None = None
        self._depth = 0

    @property
    def is_between(self) -> bool:
        """Whether a statement may begin."""
        return self._quote is None and not self.in_statement

    def add(self, data: bytes) -> bool:
        """Take in what comes next; says whether that ends a line, before which nothing can be told."""
        if b"\n" not in data:
            self._unfinished.append(data)
            return False
        rest = self.buffer[self.at :]
        self.buffer = b"".join([rest, *self._unfinished, data]) if rest or self._unfinished else data
        self._unfinished.clear()
        self.at, self.limit = 0, self.buffer.rfind(b"\n") + 1
        return True

    def resume(self, data: bytes) -> bytes:
        """Take in what comes next, in which a line ends; gives the line that this completes, and reads on after it.

        All lines until now have to be read. Unlike with `add`, `data` is not copied.
        """
        end = data.find(b"\n") + 1
        line = b"".join([self.buffer[self.at :], *self._unfinished, data[:end]])
        self._unfinished.clear()
        self.buffer, self.at, self.limit = data, end, data.rfind(b"\n") + 1
        return line

    def close(self) -> None:
        """Nothing is to come: what is left can be read."""
        self.buffer = b"".join([self.buffer[self.at :], *self._unfinished])
        self._unfinished.clear()
        self.at, self.limit, self.final = 0, len(self.buffer), True

    def give_back(self) -> bytes:
        """What was added and is not read, from `at` on; it is forgotten here."""
        rest = self.buffer[self.at :]
        self.buffer, self.at, self.limit = b"", 0, 0
        return rest

    def is_line(self, at: int) -> bool:
        """Whether a line begins at `at`."""
        return at == 0 or self.buffer[at - 1] == 10

    def line_end(self, at: int) -> int:
        """Where the line ends that `at` is in."""
        end = self.buffer.find(b"\n", at, self.limit)
        return self.limit if end < 0 else end + 1

    def past_blank(self, at: int) -> int:
        """Where, after `at`, there is something to see."""
        return _BLANK.match(self.buffer, at, self.limit).end()  # type: ignore[union-attr]

    def rows(self, at: int) -> tuple[int, bool]:
        """Where the rows end that begin at `at`, or all that is there of them, and whether their end mark is next."""
        buffer = self.buffer
        if buffer.startswith(b"\\.\n", at):
            return at, True
        # Looking for one byte is so much faster that it pays.
        found = _END_OF_ROWS.search(buffer, at) if buffer.find(b"\\", at) >= 0 else None
        return (found.start() + 1, True) if found else (self.limit, False)

    def begin_comment(self, at: int) -> int:
        """Go into the comment that begins between statements, at `at`."""
        self._quote, self._depth = b"/*", 1
        return at + 2

    def within(self, at: int) -> tuple[int, bool]:
        """Go on, from `at`, within a statement, a string or a comment, up to where it ends or another begins.

        Gives where that is, and whether a backslash is there that psql would take for a command.
        """
        return self._statement(at) if self._quote is None else (self._quoted(at), False)

    def _statement(self, at: int) -> tuple[int, bool]:
        buffer = self.buffer
        found = _SPECIAL.search(buffer, at, self.limit)
        if found is None:
            return self.limit, False
        mark = found[0]
        if mark == b";":
            self.in_statement = False
        elif mark == b"--":
            return self.line_end(found.start()), False
        elif mark == b"\\":
            return found.end(), True
        elif mark == b"'" and (
            self.old_strings or (found.start() and _ESCAPING.match(buffer, found.start() - 1))
        ):
            self._quote = b"E'"
        else:
            self._quote, self._depth = mark, 1
        return found.end(), False

    def _quoted(self, at: int) -> int:
        """Where, after `at`, the string or comment ends, or the end of what is there."""
        buffer, quote = self.buffer, self._quote or b""
        if quote == b"/*":
            while self._depth:
                found = _COMMENT_MARK.search(buffer, at, self.limit)
                if found is None:
                    return self.limit
                self._depth += 1 if found[0] == b"/*" else -1
                at = found.end()
        elif quote == b"E'":
            at = _ESCAPED.match(buffer, at, self.limit).end()  # type: ignore[union-attr]
            if at >= self.limit:
                return at
            at += 1
        else:
            found_at = buffer.find(quote, at, self.limit)
            if found_at < 0:
                return self.limit
            at = found_at + len(quote)
        self._quote = None
        return at
