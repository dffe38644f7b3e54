"""What commands print: tables and sentences for people, one JSON document for programs."""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape as _escape_markup
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from larder.errors import LarderError
from larder.secret import redact

#: Results go to standard output, everything else to standard error, so that a pipe gets results only.
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _spelled_in_json(character: str) -> str:
    return json.dumps(character)[1:-1]


def escape(text: str) -> str:
    """`text` for printing: markup in it means nothing, and neither do control characters, to a terminal.

    Names and messages come from stores that others can write to.
    """
    return _escape_markup(printable(text))


def printable(text: str, spell: Callable[[str], str] = _spelled) -> str:
    """`text` with every character that is none for the eye spelled out: `\\x1b`, `\\u202e`. A line's end stays."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else spell(one) for one in text)


def take_any_text() -> None:
    """Have standard output and error spell out what their encoding cannot hold, and not fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_json(document: object) -> None:
    """Print exactly one JSON document on standard output, which is UTF-8 whatever a terminal's encoding is."""
    utf8 = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    text = json.dumps(document, indent=2, ensure_ascii=not utf8, default=_plain)
    # What does not print stands in texts only, where JSON can have it escaped: half a surrogate pair has to be.
    lines = (printable(line, spell=_spelled_in_json) for line in text.split("\n"))
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows below headings; a heading that starts with `>` is aligned to the right. A `Text` keeps its colours."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        right = heading.startswith(">")
        table.add_column(heading.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else escape(str(cell)) for cell in row))
    # A row is a line, however narrow the terminal: names can be copied, and lines found by grep.
    wanted = Measurement.get(out, out.options.update(max_width=10_000), table).maximum
    # Where TERM is dumb, a width counts only beside a height.
    Console(highlight=False, width=wanted, height=25).print(table, soft_wrap=False)


def fail(error: LarderError, *, as_json: bool) -> NoReturn:
    """Say what went wrong and how to mend it, and leave with the error's exit code."""
    if as_json:
        print_json({"error": error.message, "hint": error.hint, "exit_code": error.exit_code})
    print_error(error)
    raise SystemExit(error.exit_code)


def print_error(error: LarderError) -> None:
    """An error and its hint, on standard error."""
    err.print(f"[bold red]error:[/] {escape(redact(error.message))}")
    if error.hint:
        err.print(f"[yellow]HINT:[/] {escape(redact(error.hint))}")


def moment(value: datetime | None) -> str:
    """`2025-10-16 02:00:00`, UTC."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if value else "-"


def age(value: datetime, now: datetime | None = None) -> str:
    """`5 minutes`, `3 hours`, `12 days`: how long ago `value` was."""
    seconds = ((now or datetime.now(UTC)) - value).total_seconds()
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length * 2 or (unit == "minute" and seconds >= 60):
            count = int(seconds // length)
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return "less than a minute"


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(value)
