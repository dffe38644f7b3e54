"""Verification: a copy is read from its store again, through the filters that a restore uses, to its very end.

Nothing is written to the disk: bytes are hashed as they come, decrypted where this host may, decompressed, and hashed
again. What comes out has to be what the manifest says, and the manifest what its signer wrote.
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal, cast

from larder import codecs
from larder.catalog import Entry
from larder.encoding import decoding
from larder.errors import IntegrityError, LarderError, NotFoundError, RefusedError, UnreachableError
from larder.ledger import Ledger
from larder.ledger.backups import GONE, Backup
from larder.manifest import Content, File, Manifest
from larder.progress import Progress
from larder.shelf import Shelved
from larder.stores import Store
from larder.streams import Counted, Hashed, HashedReader, digest, pour

#: How many copies are read at a time. Hashing and decoding let go of Python's lock, so more than one core works.
AT_ONCE = 4


@dataclass(frozen=True)
class Copy:
    """One store's copy of a backup, to be read."""

    backup: str
    database: str
    store: Store
    entry: Entry
    #: What is known to be wrong with it before its bytes are read.
    faults: tuple[str, ...] = ()
    #: Whether it is the store's copy, and not what a second manifest calls so.
    first: bool = True

    @property
    def size(self) -> int:
        """How many bytes reading it takes, by its manifest."""
        return sum(file.size for file in self.entry.manifest.files) if self.entry.manifest else 0


@dataclass(frozen=True)
class Finding:
    """What reading one copy came to. Sizes in bytes, times in seconds."""

    copy: Copy
    #: What is wrong with its bytes, one clause each; none where they are as they were written.
    problems: tuple[str, ...]
    #: What could not be looked at, and why.
    notes: tuple[str, ...]
    read: int
    seconds: float
    #: Why the copy could not be read to its end, which says nothing about the copy.
    unread: LarderError | None = None

    @property
    def failure(self) -> LarderError | None:
        """Why nobody knows whether the copy is good. One that was deleted meanwhile need not be."""
        return None if isinstance(self.unread, NotFoundError) else self.unread

    @property
    def wrong(self) -> tuple[str, ...]:
        """All that is wrong: with its bytes, and what was known before they were read."""
        return (*self.copy.faults, *self.problems)

    @property
    def state(self) -> Literal["good", "broken", "unread"]:
        """`good` where every byte is as it was written."""
        if self.unread:
            return "unread"
        return "broken" if self.wrong else "good"


def record(ledger: Ledger, finding: Finding) -> bool:
    """Write a finding into the ledger; says whether it is bad news, which somebody has to be told.

    Only what was wrong with its bytes is written down: everything else shows again at each look. A copy that the ledger
    does not know is taken up where nothing else is wrong with it.
    """
    if finding.unread:
        return False
    if not finding.copy.first or not finding.copy.entry.trusted:
        # What a stranger has laid there says nothing about the copy of that name.
        return bool(finding.wrong)
    copy, manifest, store = finding.copy, finding.copy.entry.manifest, finding.copy.store.name
    if manifest is not None and copy.entry.good and not copy.faults:
        ledger.backups.adopt(manifest, {store: copy.entry.artifact_key})
    before = _problem(ledger, copy.backup, store)
    ledger.backups.checked(copy.backup, store, "; ".join(finding.problems) or None)
    return bool(finding.wrong) and (before is None or before == GONE)


def record_gone(ledger: Ledger, backup: str, store: str) -> bool:
    """Note that a copy is not there; says whether that is news. The note counts for nothing once the copy is back."""
    before = _problem(ledger, backup, store)
    if before is None:
        ledger.backups.missed(backup, store)
    return before is None


def _problem(ledger: Ledger, backup: str, store: str) -> str | None:
    known = ledger.backups.get(backup)
    return known.copies[store].problem if known and store in known.copies else None


def longest_unread(copies: Iterable[Copy], ledger: Ledger, budget: int) -> list[Copy]:
    """Those copies that were not read for the longest, up to `budget` bytes in all, and at least one."""
    known = ledger.backups.all()
    chosen: list[Copy] = []
    for copy in sorted(copies, key=lambda copy: (_last_read(copy, known), copy.backup, copy.store.name)):
        if chosen and copy.size > budget:
            break
        chosen.append(copy)
        budget -= copy.size
    return chosen


def _last_read(copy: Copy, known: Mapping[str, Backup]) -> datetime:
    found = known[copy.backup].copies.get(copy.store.name) if copy.backup in known else None
    return (found.verified if found else None) or datetime.min.replace(tzinfo=UTC)


def copies_of(shelved: Iterable[Shelved], stores: Mapping[str, Store]) -> list[Copy]:
    """Every copy of these backups that is there, second ones too, with what is wrong with it already."""
    found = []
    for one in shelved:
        for number, (name, entry) in enumerate((*one.copies.items(), *one.others)):
            faults = tuple(
                what for where, what in one.faults if where in (name, "") and not _was_read(one, name, what)
            )
            found.append(
                Copy(one.backup, one.database, stores[name], entry, faults, first=number < len(one.copies))
            )
    return found


def _was_read(one: Shelved, store: str, fault: str) -> bool:
    """Whether a fault is what an earlier reading found, about which this one shall say the last word."""
    copy = one.known.copies.get(store) if one.known else None
    return bool(copy and copy.problem and fault.startswith(copy.problem))


def verify(copies: Sequence[Copy], identities: Sequence[Path], progress: Progress) -> Iterator[Finding]:
    """Read copies to their end, several at a time; a finding for each, as it is made.

    `identities` are files with age identities, for artifacts that are encrypted.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(lambda copy: _examine(copy, identities, progress), copies)


def _examine(copy: Copy, identities: Sequence[Path], progress: Progress) -> Finding:
    began = time.monotonic()
    problems, notes, read = list[str](), list[str](), 0
    unread: LarderError | None = None
    for file, raw in _contents(copy.entry.manifest):
        reading = _Reading(copy, file, raw, identities)
        try:
            reading.to_the_end(progress)
        except IntegrityError as error:
            problems.append(error.message)
        except NotFoundError as error:
            if _is_gone(copy):
                unread = NotFoundError("it was deleted while it was read")
            elif not any(file.name in fault for fault in copy.faults):
                problems.append(error.message)
        except UnreachableError as error:
            unread = error
        except OSError as error:
            # A bad sector: what cannot be read cannot be restored.
            problems.append(f"{file.name} cannot be read: {(error.strerror or str(error)).lower()}")
        read += reading.read
        notes += reading.notes
    return Finding(copy, tuple(problems), tuple(notes), read, time.monotonic() - began, unread)


def _is_gone(copy: Copy) -> bool:
    """Whether the manifest went too, as when rotation deletes a backup."""
    try:
        return copy.store.size(copy.entry.manifest_key) is None
    except LarderError:
        return False


def _contents(manifest: Manifest | None) -> Iterator[tuple[File, Content]]:
    if manifest is None:
        return
    yield manifest.artifact, manifest.raw
    if manifest.globals is not None and manifest.globals_raw is not None:
        yield manifest.globals, manifest.globals_raw


class _Reading:
    """One file of one copy on its way through the filters."""

    def __init__(self, copy: Copy, file: File, raw: Content, identities: Sequence[Path]) -> None:
        self.notes: list[str] = []
        self.read = 0
        self._copy = copy
        self._file = file
        self._raw = raw
        self._identities = identities

    def to_the_end(self, progress: Progress) -> None:
        """Raise `IntegrityError` where the file, or what it decodes to, is not what the manifest says."""
        key = posixpath.join(self._copy.entry.folder, self._file.name)
        with closing(self._copy.store.open(key)) as stored:
            source = HashedReader(stored, progress)
            decoded = self._decode(cast(BinaryIO, source))
            # What a decoder has left: the rest of what it could not open.
            pour(cast(BinaryIO, source), cast(BinaryIO, Counted()))
        self.read = source.hashed.size
        self._compare("has", source.hashed, self._file)
        if decoded is not None:
            self._compare("decodes to", decoded, self._raw)

    def _decode(self, source: BinaryIO) -> Hashed | None:
        """What the file decodes to; None where this host may not open it."""
        encoding = self._copy.entry.manifest.encoding if self._copy.entry.manifest else ()
        if codecs.ENCRYPTION in encoding and not self._identities:
            self.notes.append(f"{self._file.name} was not decrypted: this host has no identity")
            return None
        try:
            with closing(decoding(encoding, self._identities).reader(source)) as reader:
                return digest(reader)
        except RefusedError as error:
            self.notes.append(f"{self._file.name} was not decrypted: {error.message}")
            return None
        except IntegrityError as error:
            raise IntegrityError(f"{self._file.name}: {error.message}", error.hint) from None

    def _compare(self, verb: str, found: Hashed, wanted: File | Content) -> None:
        if (found.size, found.sha256) != (wanted.size, wanted.sha256):
            raise IntegrityError(
                f"{self._file.name} {verb} {found.size} bytes with SHA-256 {found.sha256}, "
                f"and its manifest says {wanted.size} with {wanted.sha256}"
            )
