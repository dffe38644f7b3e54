"""Rotation: the retention policy, applied to what one store holds of one database.

Nothing keeps two of them apart, such as a run's `rotate` and somebody's `larder prune`: to delete is idempotent, and
the laws of retention hold for each by itself, so that neither deletes the newest.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from larder import catalog
from larder.catalog import Entry
from larder.errors import IntegrityError, LarderError, RefusedError
from larder.ledger import Ledger
from larder.ledger.backups import GONE, Backup
from larder.naming import pin_name, sidecar_name
from larder.retention import Item, Plan, Policy, Proof, Verdict, plan
from larder.settings import DatabaseSettings
from larder.stores import Store
from larder.trust import Trust

#: How many of a database's runs are looked through for what they began to upload. Older ones were when they were newer.
RUNS = 1000

#: How many characters a stamp has, at the end of a name's stem.
_STAMP = 15

#: Of every backup, while neither the configuration nor the ledger knows a key: whose these are, nobody can say.
_NOBODY_KNOWN = "no signature is known here: larder catalog rebuild, or [signers.NAME], makes them known"


@dataclass(frozen=True)
class Rotation:
    """One database's backups in one store, with what is to become of each."""

    store: Store
    database: DatabaseSettings
    entries: tuple[Entry, ...]
    plan: Plan
    #: How many backups of the folder, whosever they are, claim each key.
    claims: Counter[str]
    #: The keys of files of the database's folder that belong to no manifest.
    foreign: tuple[str, ...] = ()

    @property
    def judged(self) -> Iterator[tuple[Entry, Verdict]]:
        """Each backup with its verdict."""
        return zip(self.entries, self.plan.verdicts, strict=True)

    @property
    def leaving(self) -> list[tuple[Entry, Verdict]]:
        """What goes, oldest first."""
        return [(entry, verdict) for entry, verdict in self.judged if not verdict.keep]


@dataclass(frozen=True)
class Cleared:
    """What came of a rotation."""

    #: The ids of the backups that are gone from the store.
    deleted: list[str]
    #: What the store refused, or what is gone and should not be; None where all is as planned.
    problem: LarderError | None


def policy_of(database: DatabaseSettings) -> Policy:
    """The rules of a database, as retention wants them."""
    return Policy(database=database.name, zone=ZoneInfo(database.timezone), **database.retention.model_dump())


def last_failed(ledger: Ledger, database: str) -> str | None:
    """The id of the database's newest run that is over, if it failed."""
    newest = next(iter(ledger.runs.latest(database, over=True, limit=1)), None)
    return newest.id if newest is not None and newest.state == "failed" else None


def look(
    store: Store,
    database: DatabaseSettings,
    ledger: Ledger,
    trust: Trust,
    now: datetime,
    *,
    failed_run: str | None = None,
    force: bool = False,
) -> Rotation:
    """Read the store and judge what it holds; raises what the store raises, and deletes nothing.

    Raises `RefusedError` where nothing is left of what the ledger knows there: a disk that is not mounted looks so.
    """
    found = catalog.read(store, database.folder, trust)
    entries = found.of(database.name)
    known = ledger.backups.all(database.name)
    if not entries:
        _see_that_none_is_known(store.name, database.name, known.values())
    items = [_item(entry, known.get(entry.backup), store.name, trust) for entry in entries]
    accepted = ledger.backups.accepted(database.name)
    judged = plan(items, policy_of(database), now, failed_run, accepted=accepted, force=force)
    claims = Counter(key for entry in found.backups for key in {entry.manifest_key, *entry.beside})
    foreign = tuple(key for key in found.foreign if posixpath.dirname(key) == database.folder)
    return Rotation(store, database, tuple(entries), judged, claims, foreign)


def accept(found: Rotation, ledger: Ledger) -> None:
    """Note that somebody has looked and says that the newest backup's size is right, though it may have shrunk."""
    if found.plan.newest is not None:
        ledger.backups.accept(found.database.name, found.plan.newest)


def clear(found: Rotation, ledger: Ledger) -> Cleared:
    """Delete what the plan lets go, see that exactly that is gone, and note it in the ledger. Done twice is fine.

    What a store refuses to delete does not keep the rest. Raises `UnreachableError` where it does not answer.
    """
    deleted: list[str] = []
    refused: list[LarderError] = []
    claims = found.claims.copy()
    for entry, verdict in found.leaving:
        spared = {key for key in entry.keys if claims[key] > 1}
        # Before: whoever finds the rest of one that was killed half-way has to know that it was on purpose.
        _intend(found, entry, verdict, ledger)
        try:
            _remove(found.store, entry, spared)
        except LarderError as error:
            if error.retryable:
                raise
            refused.append(error)
        finally:
            # Each at once, and whatever happened: a backup is gone as soon as its manifest is, and whoever looks for it
            # has to find that it was on purpose.
            if found.store.size(entry.manifest_key) is None:
                claims.subtract(entry.keys)
                _note(found, entry, verdict, ledger)
                deleted.append(entry.backup)
    return Cleared(deleted, _problem(found, refused))


def discard_abandoned(store: Store, database: DatabaseSettings, ledger: Ledger) -> list[str]:
    """Remove from a server what killed uploads of this database's runs left there; gives their keys.

    Only names that the ledger knows from runs that are over: what others upload, or a run that is under way, is left.
    """
    begun = [key for key in store.unfinished(database.folder) if posixpath.dirname(key) == database.folder]
    if not begun:
        return []
    runs = ledger.runs.latest(database.name, over=True, limit=RUNS)
    artifacts = [run.artifact for run in runs if run.artifact]
    abandoned = [key for key in begun if _is_of(posixpath.basename(key), artifacts)]
    for key in abandoned:
        store.discard(key)
    return abandoned


def discard_orphans(found: Rotation, ledger: Ledger) -> list[str]:
    """Delete files that uploads of this database's runs left without a manifest, or deletions; gives their keys.

    Only those of runs that are over, whose copy was never whole in this store, or was deleted on purpose. Where a
    manifest has vanished otherwise, what is left may be all that there is of a backup. Raises what the store raises.
    """
    if not found.foreign:
        return []
    stamps = {posixpath.basename(key).partition(".")[0][-_STAMP:] for key in found.foreign}
    artifacts = ledger.losses.orphans(found.database.name, found.store.name, stamps)
    known = [*artifacts, *map(sidecar_name, artifacts)]
    orphans = [key for key in found.foreign if _is_of(posixpath.basename(key), known)]
    for key in orphans:
        found.store.delete(key)
    return orphans


def _see_that_none_is_known(store: str, database: str, known: Iterable[Backup]) -> None:
    count = sum(store in backup.copies for backup in known)
    if count:
        raise RefusedError(
            f"unable to rotate {store}: the ledger knows {count} backup{'s' if count > 1 else ''} of '{database}' "
            "there, and none is there",
            "see whether the disk is mounted; if it was emptied on purpose: larder catalog rebuild",
        )


def _item(entry: Entry, known: Backup | None, store: str, trust: Trust) -> Item:
    manifest = entry.manifest
    proof, problem = _proof(entry, known, store, trust)
    return Item(
        backup=entry.backup,
        created=manifest.created_at if manifest else None,
        raw_size=manifest.raw.size if manifest else 0,
        suffix=manifest.suffix if manifest else "",
        proof=proof,
        pinned=entry.pinned,
        problem=problem,
    )


def _proof(entry: Entry, known: Backup | None, store: str, trust: Trust) -> tuple[Proof, str]:
    """What this very copy is worth, and what is unclear about it.

    One that was read to its end and found wrong is broken, however good it looks. What is the matter otherwise may be
    the matter with this machine: a key that it has not met, a disk that it has not mounted.
    """
    if entry.manifest is None or not entry.trusted:
        return "unclear", next(iter(entry.problems), "")
    if not trust.configured and not trust.known:
        return "unclear", _NOBODY_KNOWN
    copy = known.copies.get(store) if known else None
    # What was read is what lies in its own place, and no copied manifest.
    read_wrong = copy is not None and copy.problem not in (None, GONE) and bool(entry.beside)
    if entry.damaged or read_wrong:
        return "broken", ""
    if entry.problems:
        return "unclear", entry.problems[0]
    if known is not None and known.proof == "broken" and copy is None:
        return "unclear", "every copy of it that was read is wrong, and this one was not"
    return ("proven" if known is not None and known.proof == "proven" else "stored"), ""


def _remove(store: Store, entry: Entry, spared: Collection[str]) -> None:
    """Delete a backup, unless somebody has pinned it since the store was read."""
    if store.size(pin_name(entry.artifact_key)) is None:
        catalog.remove(store, entry, spared)


def _intend(found: Rotation, entry: Entry, verdict: Verdict, ledger: Ledger) -> None:
    if entry.manifest is not None and _is_the_backup(found, entry):
        ledger.backups.leaves(found.store.name, entry.backup, _reason(verdict))


def _note(found: Rotation, entry: Entry, verdict: Verdict, ledger: Ledger) -> None:
    if _is_the_backup(found, entry):
        ledger.backups.forget(found.store.name, [entry.backup], _reason(verdict))


def _reason(verdict: Verdict) -> str:
    return f"by its retention policy: {verdict.reason}"


def _is_the_backup(found: Rotation, entry: Entry) -> bool:
    """Whether nothing is left of a backup once an entry is gone: a copied manifest, in no place of its own, is none."""
    return not any(
        other.backup == entry.backup and kept.keep and other.beside for other, kept in found.judged
    )


def _problem(found: Rotation, refused: list[LarderError]) -> LarderError | None:
    there = found.store.sizes(found.database.folder) if found.leaving else None
    missing = [
        entry.backup
        for entry, verdict in found.judged
        if verdict.keep
        and there is not None
        and (entry.manifest_key not in there or (entry.good and entry.artifact_key not in there))
    ]
    if missing:
        return IntegrityError(
            f"unable to rotate {found.store.name}: {', '.join(missing)} should stay, and is gone",
            "see whether somebody else deletes backups there",
        )
    if refused:
        return RefusedError(
            f"unable to delete {len(refused)} of {len(found.leaving)} backups from {found.store.name}: "
            f"{refused[0].message}",
            refused[0].hint,
        )
    return None


def _is_of(name: str, artifacts: Iterable[str]) -> bool:
    """Whether a file is one of the artifacts, or the globals beside one."""
    return any(
        name == artifact or name.startswith(f"{artifact.partition('.')[0]}.globals.sql")
        for artifact in artifacts
    )
