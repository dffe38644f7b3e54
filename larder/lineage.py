"""Lineage: each manifest names the one before it, so that a backup which was removed or replaced shows.

The oldest backups of a shelf are what rotation takes away, and nobody misses them. What is missing from its middle, and
was not removed on purpose, was taken by somebody else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from larder.manifest import Previous


@dataclass(frozen=True)
class Link:
    """One copy of one backup, as its readable manifest tells it."""

    #: The backup's id.
    backup: str
    #: The hexadecimal SHA-256 of its manifest's bytes, as stored.
    digest: str
    #: The backup that its manifest names as the one before.
    previous: Previous | None


def gaps(links: Iterable[Link], removed: Collection[str] = ()) -> list[tuple[str, str]]:
    """What was replaced in the shelf of one database, or is missing from it: backup ids, each with its problem.

    `links` are the copies in all of its stores: a backup that only one of them keeps is there. `removed` are backups
    that were deleted on purpose, and others that are not to be missed, such as one whose manifest cannot be read.
    """
    shelf = sorted(set(links), key=lambda link: (link.backup, link.digest))
    digests: dict[str, set[str]] = {}
    for link in shelf:
        digests.setdefault(link.backup, set()).add(link.digest)
    found: dict[str, str] = {}
    for link in shelf:
        named = link.previous
        if named is None:
            continue
        if named.backup in digests:
            if digests[named.backup] != {named.sha256}:
                found.setdefault(named.backup, f"it was replaced: {link.backup} names another manifest")
        elif named.backup not in removed and shelf[0].backup < named.backup:
            found.setdefault(named.backup, f"backup {named.backup} is missing: {link.backup} names it")
    return sorted(found.items())
