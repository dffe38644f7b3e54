"""The table of contents of a pg_dump folder, as `pg_restore --list --verbose` prints it: which entries belong to what.

A line says `223; 1259 16404 TABLE public Order postgres`, and the next one what it depends on. Names are not quoted
there, so a name is never read from a line; lines are compared with what a database says that they have to be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

_LINE = re.compile(rb"^(\d+); (\d+) \d+ (.*)$")
_DEPENDS = re.compile(rb"^;\tdepends on:((?: \d+)+)$")

#: What is no part of a table, and would reach beyond a selection: large objects, and what works on its own.
_APART = (b"BLOB", b"PUBLICATION", b"SUBSCRIPTION", b"EVENT TRIGGER")
#: What is said of another entry, and goes where that goes.
_REMARKS = (b"ACL ", b"COMMENT ", b"SECURITY LABEL ")

#: What is told of where it is left out, by the word that it begins with.
_TOLD = {
    b"FK CONSTRAINT ": "foreign key",
    b"CHECK CONSTRAINT ": "check constraint",
    b"CONSTRAINT ": "constraint",
    b"TRIGGER ": "trigger",
    b"POLICY ": "policy",
    b"RULE ": "rule",
    b"INDEX ": "index",
    b"STATISTICS ": "statistics",
}

#: OIDs of the catalogs that an entry's second number names: pg_class, pg_constraint.
_PG_CLASS, _PG_CONSTRAINT = 1259, 2606


@dataclass(frozen=True)
class Entry:
    """One line of a table of contents."""

    id: int
    catalog: int
    #: `TABLE public Order postgres`, in the encoding of the database that was dumped.
    text: bytes
    needs: tuple[int, ...]

    @property
    def is_large_object(self) -> bool:
        """Whether it brings large objects."""
        return self.text.startswith(b"BLOB")

    @property
    def is_apart(self) -> bool:
        """Whether no selection has it."""
        return self.text.startswith(_APART)

    @property
    def is_view(self) -> bool:
        """A view, materialised ones included."""
        return self.catalog == _PG_CLASS and self.text.startswith((b"VIEW ", b"MATERIALIZED VIEW "))

    @property
    def is_index(self) -> bool:
        """An index, or a constraint that is one."""
        return (self.catalog == _PG_CLASS and self.text.startswith(b"INDEX ")) or (
            self.catalog == _PG_CONSTRAINT and self.text.startswith(b"CONSTRAINT ")
        )


@dataclass(frozen=True)
class Named:
    """A relation as a table of contents has it: `TABLE` and `public Order ` and `postgres`."""

    #: For people: `public."Order"`.
    name: str
    kind: str
    prefix: bytes
    owner: bytes

    @property
    def line(self) -> bytes:
        """What its entry says."""
        return self.kind.encode() + b" " + self.prefix + self.owner


def parse(listing: bytes) -> list[Entry]:
    """The entries of a listing, in its order, which is the one they have to be restored in."""
    found: list[Entry] = []
    for line in listing.splitlines():
        if match := _LINE.match(line):
            found.append(Entry(int(match[1]), int(match[2]), match[3], ()))
        elif found and (match := _DEPENDS.match(line)):
            last = found[-1]
            found[-1] = Entry(last.id, last.catalog, last.text, tuple(map(int, match[1].split())))
    return found


def relations(entries: Iterable[Entry], known: Iterable[Named]) -> dict[int, Named]:
    """Which entries are the relations of a database; one of which there are two is left out."""
    by_line: dict[bytes, Named | None] = {}
    for named in known:
        by_line[named.line] = None if named.line in by_line else named
    found = {entry.id: by_line.get(entry.text) for entry in entries if entry.catalog == _PG_CLASS}
    return {id_: named for id_, named in found.items() if named is not None}


def left_out(entries: Iterable[Entry], gone: Set[int], kept: Set[int]) -> set[int]:
    """What cannot be restored without the relations `gone`: they, and all that needs them, but the relations `kept`.

    A partition's index does without that of the table that it is a partition of.
    """
    by_id = {entry.id: entry for entry in entries}
    apart = {entry.id for entry in by_id.values() if entry.is_apart}
    out = set(gone)
    grown = True
    while grown:
        before = len(out), len(apart)
        for entry in by_id.values():
            if entry.id in out or entry.id in kept:
                continue
            if any(
                need in out and not (entry.is_index and by_id[need].is_index)
                for need in entry.needs
                if need in by_id
            ):
                out.add(entry.id)
            elif entry.text.startswith(_REMARKS) and any(need in apart for need in entry.needs):
                apart.add(entry.id)
        grown = (len(out), len(apart)) != before
    return out | apart


def told(entries: Iterable[Entry], out: set[int], named: Mapping[int, Named], kept: set[int]) -> list[str]:
    """What the relations `kept` had, and is left out, a line each."""
    lines = []
    for entry in entries:
        word = next((word for word in _TOLD if entry.text.startswith(word)), None)
        # Without a catalog, it only attaches a partition or its index.
        if entry.id not in out or word is None or entry.catalog == 0:
            continue
        rest = entry.text[len(word) :]
        mine = [need for need in dict.fromkeys(entry.needs) if need in kept and need in named]
        by_name = [need for need in mine if rest.startswith(named[need].prefix)]
        if word in (b"INDEX ", b"STATISTICS "):
            owner = next(iter(mine), None)
        else:
            owner = max(by_name, key=lambda need: len(named[need].prefix), default=None)
            rest = rest[len(named[owner].prefix) :] if owner is not None else rest
        if owner is None:
            continue
        label = rest.removesuffix(b" " + named[owner].owner).decode(errors="replace")
        others = sorted({named[need].name for need in entry.needs if need in out and need in named})
        why = f"needs {', '.join(others)}, not chosen" if others else "needs what is not chosen"
        lines.append(f"{_TOLD[word]} {label} of {named[owner].name} is left out: it {why}")
    return lines


def hollow_views(entries: Sequence[Entry], out: set[int], kept: set[int]) -> set[int]:
    """Views whose query comes as a rule at the end, and cannot come."""
    views = {entry.id for entry in entries if entry.is_view and entry.id in kept}
    return {
        need
        for entry in entries
        if entry.id in out and entry.text.startswith(b"RULE ")
        for need in entry.needs
        if need in views
    }
