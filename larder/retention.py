"""Retention: which backups stay and which go. Pure: entries and a time in, verdicts out.

A backup goes when it is older than the policy's days, and older than the newest good backup too. So the newest good one
never goes, whatever its age; and while there is no good one, nothing goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from larder.catalog import Entry
from larder.manifest import Manifest


@dataclass(frozen=True)
class Verdict:
    """Whether one backup stays, and why."""

    #: The backup's id.
    backup: str
    keep: bool
    #: A clause for the operator.
    reason: str


def plan(entries: Iterable[Entry], days: int, now: datetime) -> list[Verdict]:
    """A verdict for each of one database's entries, in their order. A backup exactly `days` days old stays.

    A backup that is dated later than `now` stays too, and does not count as the newest: a wrong clock made it.
    """
    found = list(entries)
    good = [
        entry.manifest
        for entry in found
        if entry.manifest and entry.good and entry.manifest.created_at <= now
    ]
    newest = max(good, key=lambda manifest: (manifest.created_at, manifest.backup), default=None)
    return [Verdict(entry.backup, *_judge(entry, newest, days, now)) for entry in found]


def _judge(entry: Entry, newest: Manifest | None, days: int, now: datetime) -> tuple[bool, str]:
    if entry.manifest is None:
        return True, "its manifest cannot be read"
    created = entry.manifest.created_at
    if created > now:
        return True, "it is dated in the future: see the clocks"
    if now - created <= timedelta(days=days):
        return True, f"it is not older than {days} days"
    if newest is None:
        return True, "there is no good backup"
    if entry.good and entry.backup == newest.backup:
        return True, "it is the newest good backup"
    if created >= newest.created_at:
        return True, "no good backup is newer"
    return False, f"it is older than {days} days"
