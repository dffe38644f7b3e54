"""What keys of the configuration are made of: the base of every table, and the kinds of value with their own spelling.

Whole numbers and truth values are strict: `jobs = "4"` and `days = true` are mistakes.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_DURATION = re.compile(r"([0-9]+)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_SIZE = re.compile(r"([0-9]+)\s*((?:[kmgt]i?)?b)", re.IGNORECASE)
_BYTES = {"b": 1} | {
    f"{letter}{kind}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for kind, base in (("b", 1000), ("ib", 1024))
}

DAY = 86400

#: Bytes of a raw Ed25519 public key.
_KEY_SIZE = 32


def seconds(value: object) -> object:
    """`"90s"`, `"10m"`, `"2h"`, `"7d"` as seconds; a number stays one."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError("has to be a duration, written as 90s, 10m, 2h or 7d")
    return int(match[1]) * _SECONDS[match[2]]


def size(value: object) -> object:
    """`"500 MB"`, `"50 GB"`, `"2 TB"` as bytes, in decimal units, or `"16 MiB"` in binary ones; a number stays one."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError("has to be a size, written as 500 MB, 50 GB or 2 TB")
    return int(match[1]) * _BYTES[match[2].lower()]


def _path(value: object) -> object:
    """A path with `~` spelled out. An empty one is a mistake: it would mean the working folder."""
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    if not text.strip() or "\0" in text or value == Path():
        raise ValueError("is empty, or no path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("starts with ~, and there is no such home folder") from None


def bytes_of(text: str, count: int) -> bytes:
    """The `count` bytes that `text` is the base64 of; raises `ValueError` for anything else.

    Base64 can spell the same bytes in several ways, one of which is taken: keys are compared as text.
    """
    try:
        found = base64.b64decode(text, validate=True)
    except ValueError:
        found = b""
    if len(found) != count or base64.b64encode(found).decode() != text:
        raise ValueError(f"has to be {count} bytes in base64")
    return found


def _public_key(text: str) -> str:
    bytes_of(text, _KEY_SIZE)
    return text


Whole = Annotated[int, Field(strict=True)]
YesNo = Annotated[bool, Field(strict=True)]
Duration = Annotated[Whole, BeforeValidator(seconds)]
Size = Annotated[Whole, BeforeValidator(size)]
Folder = Annotated[Path, BeforeValidator(_path)]
PublicKey = Annotated[str, AfterValidator(_public_key)]


class Table(BaseModel):
    """A table of larder.toml: unknown keys are mistakes, and what was written is never printed.

    Fields with `exclude` are no keys; the reader fills them in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def one_of(value: str, words: list[str]) -> str:
    """`value`, where it is one of `words`; raises `ValueError` naming them otherwise."""
    if value not in words:
        raise ValueError(f"there is no '{value}'; use one of: {', '.join(words)}")
    return value
