"""Anomalies: what is odd about a new backup, seen beside those before it.

A backup can be whole, and of a database that somebody has emptied an hour before. Nothing here says that a backup is
bad: each finding is a line for people, with the numbers that it goes by, so that they look while older backups are
still kept. A first backup has nothing to be compared with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Final

from larder.ledger.backups import Backup
from larder.manifest import Manifest
from larder.naming import artifact_name, parse_backup_id
from larder.progress import human_seconds, human_size
from larder.wording import hidden, plain

#: Bytes that an artifact may grow by against the backup before it.
GROWTH: Final = 1_000_000_000

#: How many earlier backups a new one is compared with at most, and how many there have to be.
LAST: Final = 10
ENOUGH: Final = 3

#: Bytes, and seconds, that a difference has to have to be worth telling, however many times as much it is.
SMALL: Final = 1_000_000
SHORT: Final = 60

#: A table of fewer rows may lose them all.
FEW_ROWS: Final = 100

#: How many tables, and objects of each kind of change, are named.
_TABLES: Final = 10
_OBJECTS: Final = 5

#: Characters of a name that are shown.
_LONGEST: Final = 120


def odd(
    new: Manifest,
    history: Iterable[Backup],
    previous: Manifest | None,
    seconds: float,
    earlier_seconds: Sequence[float],
) -> list[str]:
    """What is odd about the backup `new`, a line each; none where nothing is.

    `history` is what the ledger knows of the database's good backups, in any order, `previous` the manifest of the one
    that `new` names as the one before it, where it could be read. `seconds` is how long it took, `earlier_seconds` how
    long those before it did, newest first.
    """
    before = sorted((one for one in history if one.id < new.backup), key=lambda one: one.id, reverse=True)
    found = [*_growth(new, before), *_size(new, before), *_duration(seconds, earlier_seconds[:LAST])]
    if previous is not None and previous.engine == new.engine:
        since = f"since {previous.backup}"
        found += _lost_rows(since, previous.fingerprint, new.fingerprint)
        found += _changed_schema(since, previous.fingerprint, new.fingerprint)
        found += _turned_back(since, previous.fingerprint, new.fingerprint)
    return found


def _growth(new: Manifest, before: Sequence[Backup]) -> Iterator[str]:
    named = new.previous.backup if new.previous else None
    for one in before:
        grown = new.artifact.size - one.size
        if one.id == named and grown > GROWTH:
            yield (
                f"The artifact grew by {human_size(grown)} since {one.id}, from {human_size(one.size)} to "
                f"{human_size(new.artifact.size)}: more than {human_size(GROWTH)} is worth a look"
            )


def _size(new: Manifest, before: Iterable[Backup]) -> Iterator[str]:
    """Of the content; or else of the artifact, which tells of content that became simpler or more random."""
    alike = [one for one in before if _is_alike(new, one)][:LAST]
    for what, size, sizes in (
        ("content", new.raw.size, [one.raw_size for one in alike]),
        ("artifact", new.artifact.size, [one.size for one in alike]),
    ):
        usual = median(sizes) if len(sizes) >= ENOUGH else size
        if abs(size - usual) < SMALL or usual / 2 <= size <= usual * 2:
            continue
        how = "more than twice" if size > usual else "less than half of"
        yield (
            f"The {what} has {human_size(size)}, {how} the {human_size(usual)} that is the median of the last "
            f"{len(sizes)} backups"
        )
        return


def _is_alike(new: Manifest, other: Backup) -> bool:
    """Whether another backup was made in the same way: by the same engine, in the same format and encoding."""
    (_, new_stamp), (_, stamp) = parse_backup_id(new.backup), parse_backup_id(other.id)
    ending = new.artifact.name.removeprefix(artifact_name(new.engine, new_stamp, "", ""))
    return other.artifact == artifact_name(new.engine, stamp, ending, "")


def _duration(seconds: float, earlier: Sequence[float]) -> Iterator[str]:
    usual = median(earlier) if len(earlier) >= ENOUGH else seconds
    if seconds > usual * 3 and seconds - usual > SHORT:
        yield (
            f"The backup took {human_seconds(seconds)}, more than 3 times the {human_seconds(usual)} that is the "
            f"median of the last {len(earlier)}"
        )


def _lost_rows(since: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    earlier, tables = before.get("tables", {}), now.get("tables", {})
    # Partitions come and go: what counts is the table that they are parts of.
    whole = {
        name: table["partition_of"]
        for name, table in [*earlier.items(), *tables.items()]
        if "partition_of" in table
    }
    rows = _together(tables, whole)
    found: list[tuple[int, str]] = []
    for name, had in _together(earlier, whole).items():
        has = rows.get(name, 0)
        if had is None or had < FEW_ROWS or has is None or has * 2 >= had:
            continue
        state = "is gone" if name not in rows else f"has {has:,} rows" if has else "is empty"
        found.append((had - has, f"table '{_shown(name)}' {state}, and had {had:,} rows"))
    if found:
        lines = [line for _, line in sorted(found, key=lambda one: (-one[0], one[1]))]
        yield f"More than half of the rows went {since}: {_listed(lines, _TABLES, '; ')}"


def _together(tables: Mapping[str, Mapping[str, Any]], whole: Mapping[str, str]) -> dict[str, int | None]:
    """The rows by table, partitions counted as what they are parts of; None where they were not counted."""
    found: dict[str, int | None] = {}
    for name, table in tables.items():
        known, rows = found.get(whole.get(name, name), 0), table.get("rows")
        found[whole.get(name, name)] = None if known is None or rows is None else known + rows
    return found


def _changed_schema(since: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if "schema" not in before or "schema" not in now:
        return
    # What has no definition was made by the database itself, for something that has one.
    had, has = ({name: text for name, text in one["schema"].items() if text} for one in (before, now))
    changes = {
        "added": has.keys() - had.keys(),
        "removed": had.keys() - has.keys(),
        "changed": {name for name in has.keys() & had.keys() if _said(name, has) != _said(name, had)},
    }
    told = [f"{how} {_names(names)}" for how, names in changes.items() if names]
    if told:
        yield f"The schema changed {since}: {'; '.join(told)}"


def _said(name: str, schema: Mapping[str, str]) -> str:
    """A definition as it is compared: a server words it anew once it was restored, and older manifests had literals."""
    return plain(hidden(name, schema[name]))


def _turned_back(since: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    had, has = before.get("sequences", {}), now.get("sequences", {})
    found = [
        f"'{_shown(name)}' is at {has[name]['to'][0]}, and was at {had[name]['to'][0]}"
        for name in sorted(has.keys() & had.keys())
        if (has[name]["to"][0] - had[name]["to"][0]) * has[name]["by"] < 0
        # One that cycles begins anew when it has come to its end.
        and "cycle" not in now.get("schema", {}).get(f"sequence {name}", "").split()
    ]
    if found:
        yield f"Sequences went back {since}, and may give numbers again: {_listed(found, _OBJECTS, '; ')}"


def _names(names: Collection[str]) -> str:
    return _listed([_shown(name) for name in sorted(names)], _OBJECTS, ", ")


def _listed(lines: Sequence[str], most: int, between: str) -> str:
    more = len(lines) - most
    return between.join(lines[:most]) + (f"{between}and {more:,} more" if more > 0 else "")


def _shown(name: str) -> str:
    """A name that a manifest has, on one line and no longer than a line."""
    plain = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in name)
    return plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST - 1]}…"
