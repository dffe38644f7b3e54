"""What the parts of a report of evidence are made of: tables of facts, and how facts are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from larder.markup import Content, Markup, element
from larder.progress import human_seconds

#: How many rows of a long list are shown.
SHOWN: Final = 50

#: What is good news, and what is not; other words are neither.
_GOOD: Final = frozenset({"proven", "stored", "done"})
_BAD: Final = frozenset({"broken", "failed", "denied"})

#: What the document says of one thing.
Facts = Mapping[str, Any]

#: A column: its heading, what it shows of a row, and its class in the style sheet.
Column = tuple[str, Callable[[Facts], Content], str]


def section(title: str, *content: Content) -> Markup:
    """A part of the page under a heading."""
    return element("section", element("h2", title), *content)


def table(
    caption: str, columns: Sequence[Column], rows: Sequence[Facts], all_of_them: int | None = None
) -> Markup:
    """A table of `rows`, or a line that says that there are none. `all_of_them` says how many more there are."""
    if not rows:
        return element("p", f"{caption} None.", class_="soft")
    more = (all_of_them or len(rows)) - len(rows)
    shown = f"{caption} The newest {len(rows)}; {more} more are in the signed document." if more else caption
    heads = [element("th", heading, scope="col", class_=_number_class(kind)) for heading, _, kind in columns]
    body = [
        element("tr", [element("td", show(row), class_=kind or None) for _, show, kind in columns])
        for row in rows
    ]
    made = element(
        "table", element("caption", shown), element("thead", element("tr", heads)), element("tbody", body)
    )
    # Whoever has no mouse scrolls a wide table by its focus.
    return element("div", made, class_="wide", tabindex=0, role="region", aria_label=caption)


def _number_class(kind: str) -> str | None:
    return kind if kind == "number" else None


def newest(rows: Sequence[Facts], by: str) -> list[Facts]:
    """The newest rows of a long list, newest first, by what stands in `by`."""
    return sorted(rows, key=lambda row: row[by], reverse=True)[:SHOWN]


def listed(lines: Sequence[str]) -> Content:
    """Lines as a list; None where there are none."""
    return element("ul", [element("li", line) for line in lines]) if lines else None


def badge(word: str) -> Content:
    """A state in its colour."""
    kind = "good" if word in _GOOD else "bad" if word in _BAD else "warn"
    return element("b", word, class_=kind)


def code(text: str) -> Markup:
    """A name or number that somebody may copy."""
    return element("code", text)


def count(number: int, word: str) -> str:
    """`1,024 backups`."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def number(number: int | None) -> str:
    """`1,024`; a dash for none."""
    return "-" if number is None else f"{number:,}"


def seconds(seconds: float | None) -> str:
    """`3 min 20 s`; a dash for none."""
    return "-" if seconds is None else human_seconds(seconds)


def at(text: str | None) -> str:
    """`2026-10-01 02:00:00`; a dash for none."""
    return text[:19].replace("T", " ") if text else "-"


def moment(text: str) -> datetime:
    """The moment that a text of the document means."""
    return datetime.fromisoformat(text)
