"""What the fields of a manifest are made of: kinds of value, each with what it may be.

A manifest may come from anybody who can write to a store. What is in these bounds can be printed, calculated with,
and kept in every ledger.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from larder import naming
from larder.errors import LarderError

#: To the second and always alike, so that texts sort as the times do.
TIME: Final = "%Y-%m-%dT%H:%M:%SZ"

#: The years in which every time zone's calendar can be worked with, with room to both sides.
_YEARS: Final = range(1970, 9000)

#: More than any store can hold, and what every database's whole numbers can.
_MOST: Final = 2**63 - 1

#: How deep lists and objects may lie in each other. Engines need three levels.
_LEVELS: Final = 16


def _moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
        known = moment.strftime(TIME) == text and moment.year in _YEARS
    except ValueError:
        known = False
    if not known:
        raise ValueError("has to be a time in UTC, as 2025-10-16T02:00:00Z")
    return text


def _backup_id(text: str) -> str:
    try:
        _, stamp = naming.parse_backup_id(text)
    except LarderError:
        stamp = naming.LATEST
    if stamp == naming.LATEST:
        raise ValueError("has to be a backup's id, as shop/20251016_020000")
    return text


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    return text


def _fingerprint(found: dict[str, Any]) -> dict[str, Any]:
    """Its shape, which whoever shows a manifest relies on; what else engines write is theirs."""
    row_counts, tables = found.get("row_counts", ""), found.get("tables", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ValueError("has to have tables by their names")
    for table in tables.values():
        rows = table.get("rows", 0)
        if not isinstance(rows, int) or isinstance(rows, bool) or not 0 <= rows <= _MOST:
            raise ValueError("has a number of rows that is none")
    if not isinstance(row_counts, str) or _is_deeper(found, _LEVELS):
        raise ValueError(f"has row_counts that are no text, or more than {_LEVELS} levels")
    return found


def _is_deeper(value: Any, levels: int) -> bool:
    layer = [value]
    # One level after the other: each backup's rotation comes here for all manifests of its database.
    for _ in range(levels):
        layer = [
            child
            for parent in layer
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not layer:
            return False
    return True


Size = Annotated[int, Field(ge=0, le=_MOST, strict=True)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=f"^{naming.BARE_NAME}$")]
BackupId = Annotated[str, AfterValidator(_backup_id)]
Moment = Annotated[str, AfterValidator(_moment)]
Fingerprint = Annotated[dict[str, Any], AfterValidator(_fingerprint)]

#: As long as the ledger's columns for them are.
Engine = Annotated[str, Field(min_length=1, max_length=20), AfterValidator(_printable)]
RunId = Annotated[str, Field(min_length=1, max_length=32), AfterValidator(_printable)]
Host = Annotated[str, Field(max_length=80), AfterValidator(_printable)]
