"""Markup: HTML and SVG put together from elements, so that no text can be taken for an element.

What is given as text is escaped, always; only what `element` made is markup. There is no other way to make any.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

#: Elements that hold nothing, and have no end.
_VOID = frozenset({"br", "meta"})


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


#: What an element may hold: markup, text, numbers, lists of these; None is nothing.
Content = Markup | str | int | float | Iterable["Content"] | None


def element(name: str, /, *content: Content, **attributes: str | float | None) -> Markup:
    """`<name …>content</name>`. An attribute that is a keyword of Python ends in `_`; others have `_` for `-`."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{''.join(map(_rendered, content))}</{name}>")


def style(text: str) -> Markup:
    """A style sheet, which is the program's own and holds nothing that was read somewhere."""
    if "<" in text:
        raise ValueError("a style sheet may hold no element")
    return Markup(f"<style>{text}</style>")


def page(head: Iterable[Markup], *body: Content) -> bytes:
    """A whole document, UTF-8."""
    whole = element("html", element("head", head), element("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n".encode()


def _rendered(content: Content) -> str:
    if content is None:
        return ""
    if isinstance(content, Markup):
        return content
    if isinstance(content, str | int | float):
        return _escaped(_text(content))
    return "".join(map(_rendered, content))


def _text(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".rstrip("0").rstrip(".")
    return str(value)


def _escaped(text: str) -> str:
    """Every character that is none for the eye is spelled out: what turns the reading direction round, for one."""
    if not text.isprintable():
        text = "".join(
            one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text
        )
    return html.escape(text)
