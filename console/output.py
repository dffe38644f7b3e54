"""What commands print: tables and sentences for people, one JSON document for programs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape as _escape_markup
from rich.table import Table

from larder.errors import LarderError
from larder.secret import redact

#: Results go to standard output, everything else to standard error, so that a pipe gets results only.
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def escape(text: str) -> str:
    """`text` for printing: markup in it means nothing, and neither do control characters, to a terminal.

    Names and messages come from stores that others can write to.
    """
    return _escape_markup(
        "".join(character if _is_plain(character) else _spelled(character) for character in text)
    )


def _is_plain(character: str) -> bool:
    return character.isprintable() or character == "\n"


def _spelled(character: str) -> str:
    return character.encode("unicode_escape", errors="backslashreplace").decode()


def take_any_text() -> None:
    """Have standard output and error spell out what their encoding cannot hold, and not fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_json(document: object) -> None:
    """Print exactly one JSON document on standard output."""
    text = json.dumps(document, indent=2, ensure_ascii=False, default=_plain)
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, of an odd file name: JSON can only have it escaped.
        text = json.dumps(document, indent=2, default=_plain)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows below headings; a heading that starts with `>` is aligned to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        right = heading.startswith(">")
        table.add_column(heading.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    out.print(table)


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
