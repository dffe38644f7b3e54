"""The shelf: every backup that the stores hold, each with its copies, and whatever does not fit together.

A store's catalog knows its own files. Whether a backup is missing, was replaced, or lies where another database's
belong shows only when the catalogs of all stores, the ledger and the manifests' own chain are looked at side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from larder import catalog, lineage
from larder.catalog import Catalog, Entry
from larder.errors import LarderError, RefusedError, UnreachableError
from larder.ledger import Ledger
from larder.ledger.backups import GONE, Backup
from larder.lineage import Link
from larder.naming import BACKUP_ID
from larder.settings import Settings
from larder.stores import StoreSettings, open_store
from larder.trust import Trust

#: The proof of a backup that the ledger has not seen: nobody has read it back yet.
UNVERIFIED = "unverified"


@dataclass
class Shelved:
    """One backup: its copies by the store's name, and what is known of it."""

    database: str
    backup: str
    copies: dict[str, Entry] = field(default_factory=dict)
    #: Second manifests of it, each with the store that it lies in.
    others: list[tuple[str, Entry]] = field(default_factory=list)
    #: What the ledger knows; None for a backup that it has not seen.
    known: Backup | None = None
    #: What is wrong, by the store's name; an empty name means all of them.
    faults: list[tuple[str, str]] = field(default_factory=list)
    #: Stores of the database that were read, and have no copy: it was never there, or is gone, which is a fault too.
    absent: list[str] = field(default_factory=list)

    @property
    def entry(self) -> Entry | None:
        """A copy whose manifest can be read, or else any; None where every copy is missing."""
        copies = sorted(self.copies.values(), key=lambda entry: (not entry.good, entry.manifest is None))
        return copies[0] if copies else None

    @property
    def problems(self) -> list[str]:
        """What is wrong, one line each, with the store's name."""
        return [f"{store}: {what}" if store else what for store, what in self.faults]

    @property
    def good_copies(self) -> list[str]:
        """The stores whose copy nothing is known to be wrong with."""
        bad = {store for store, _ in self.faults}
        return [store for store in self.copies if store not in bad and "" not in bad]

    @property
    def proof(self) -> str:
        """`unverified`, `stored`, `proven`, or `broken` as soon as anything is wrong with any copy."""
        if self.faults:
            return "broken"
        return self.known.proof if self.known else UNVERIFIED

    @property
    def pinned(self) -> bool:
        """Whether a store keeps it whatever the retention policy says."""
        return any(entry.pinned for entry in self.copies.values())


@dataclass(frozen=True)
class Shelf:
    """What was found."""

    #: By database and time; those come first whose manifest cannot be read and that the ledger does not know.
    backups: tuple[Shelved, ...]
    #: Where files lie that belong to no backup, sorted.
    foreign: tuple[str, ...]
    #: Stores that could not be read, and why. What they hold is not on this shelf.
    unreachable: Mapping[str, LarderError]

    def of(self, database: str) -> list[Shelved]:
        """The backups of one database."""
        return [one for one in self.backups if one.database == database]


def read(
    settings: Settings, ledger: Ledger, trust: Trust, *, store: str | None = None, emptied: bool = False
) -> Shelf:
    """Read the catalogs of every store, or of one, and compare them with the ledger and with each other.

    A store that is out of reach does not hide the others. One that has nothing in it, where the ledger knows copies, is
    taken for one (a disk that is not mounted looks like that), unless it may have been `emptied`. Raises
    `NotFoundError` for a store that is not configured, and what the only store raises.
    """
    places = [settings.store(store)] if store is not None else list(settings.stores.values())
    known = ledger.backups.all()
    catalogs, unreachable = _catalogs(places, trust)
    if not emptied:
        _set_aside_empty(catalogs, unreachable, known)
    if unreachable and not catalogs:
        raise next(iter(unreachable.values()))
    shelved = _gathered(settings, catalogs, known)
    for backup in _missing(known, shelved, catalogs.keys(), ledger):
        found = shelved.setdefault(backup.id, Shelved(backup.database, backup.id))
        for name in sorted(backup.copies.keys() & catalogs.keys() - found.copies.keys()):
            found.faults.append((name, GONE))
    for one in shelved.values():
        one.known = known.get(one.backup)
        one.faults += [*_replaced(one), *_verified_faults(one)]
        one.absent = _absent(one, settings, catalogs.keys())
    if not unreachable and store is None:
        _add_stranded(known, shelved, settings)
        _compare_lineages(shelved, ledger)
    foreign = sorted(
        open_store(settings.stores[name]).location(key)
        for name, found_there in catalogs.items()
        for key in found_there.foreign
    )
    return Shelf(tuple(sorted(shelved.values(), key=_order)), tuple(foreign), unreachable)


def _catalogs(
    places: Iterable[StoreSettings], trust: Trust
) -> tuple[dict[str, Catalog], dict[str, LarderError]]:
    """The catalog of each store by its name, and the errors of those that could not be read."""
    found: dict[str, Catalog] = {}
    unreachable: dict[str, LarderError] = {}

    def look(place: StoreSettings) -> Catalog | UnreachableError:
        try:
            return catalog.read(open_store(place), "", trust)
        except UnreachableError as error:
            return error

    places = list(places)
    with ThreadPoolExecutor(max(len(places), 1)) as pool:
        for place, answer in zip(places, pool.map(look, places), strict=True):
            if isinstance(answer, LarderError):
                unreachable[place.name] = answer
            else:
                found[place.name] = answer
    return found, unreachable


def _set_aside_empty(
    catalogs: dict[str, Catalog], unreachable: dict[str, LarderError], known: Mapping[str, Backup]
) -> None:
    counts = Counter(name for backup in known.values() for name in backup.copies)
    for name in [name for name, found in catalogs.items() if not found.backups and not found.foreign]:
        if counts[name]:
            del catalogs[name]
            unreachable[name] = RefusedError(
                f"unable to find anything in store '{name}': the ledger knows {counts[name]} backups there",
                "see whether its disk is mounted, or the bucket is the right one; "
                f"if it was emptied on purpose: larder catalog rebuild --store {name}",
            )


def _gathered(
    settings: Settings, catalogs: Mapping[str, Catalog], known: Mapping[str, Backup]
) -> dict[str, Shelved]:
    """Every backup by its id (where nobody knows that: by store and key), with its copies."""
    folders = {database.folder: name for name, database in settings.databases.items()}
    ids = {(store, copy.key): backup.id for backup in known.values() for store, copy in backup.copies.items()}
    shelved: dict[str, Shelved] = {}
    for store, found in catalogs.items():
        # What is sound and in its own place counts as the copy, and whatever else calls itself so as another.
        for entry in sorted(found.backups, key=lambda entry: _suspicion(entry, folders)):
            backup = entry.backup if entry.manifest else ids.get((store, entry.artifact_key))
            one = shelved.setdefault(
                backup or f"{store}:{entry.manifest_key}",
                Shelved(_owner(entry, folders), backup or entry.manifest_key),
            )
            if store in one.copies:
                one.others.append((store, entry))
                one.faults.append((store, f"a second manifest of it lies at {entry.manifest_key}"))
                continue
            one.copies[store] = entry
            one.faults += [(store, problem) for problem in entry.problems]
            one.faults += [(store, problem) for problem in _misplaced(entry, folders)]
    return shelved


def _suspicion(entry: Entry, folders: Mapping[str, str]) -> tuple[bool, bool]:
    return not entry.good, folders.get(entry.folder) != _owner(entry, folders)


def _owner(entry: Entry, folders: Mapping[str, str]) -> str:
    """Whose backup it is: by its manifest, or else by the folder that it lies in."""
    return entry.manifest.database if entry.manifest else folders.get(entry.folder, entry.folder)


def _misplaced(entry: Entry, folders: Mapping[str, str]) -> Iterator[str]:
    # At the top of a store lie the backups of an only database, which may have had another name before.
    owner = folders.get(entry.folder) if entry.folder else None
    if owner and entry.manifest and entry.manifest.database != owner:
        yield f"it lies in the folder of database '{owner}'"


def _missing(
    known: Mapping[str, Backup], shelved: Mapping[str, Shelved], stores: Collection[str], ledger: Ledger
) -> Iterator[Backup]:
    """Backups that the ledger knows a copy of in one of `stores`, which has none."""

    def incomplete(backup: Backup) -> bool:
        there = shelved[backup.id].copies if backup.id in shelved else {}
        return any(name in stores and name not in there for name in backup.copies)

    for backup in known.values():
        if incomplete(backup):
            # Asked again: rotation may have removed it since, and writes that down at once.
            now = ledger.backups.get(backup.id)
            if now is not None and incomplete(now):
                yield now


def _replaced(one: Shelved) -> Iterator[tuple[str, str]]:
    """Copies that are not of the backup that the ledger knows; without a ledger's word, not of the same one."""
    readable = {name: entry for name, entry in one.copies.items() if entry.manifest is not None}
    if one.known is None:
        if len({entry.digest for entry in readable.values()}) > 1:
            yield "", "its copies have different manifests"
        return
    for name, entry in readable.items():
        if one.known.manifest is not None and entry.digest != one.known.manifest:
            yield name, "it was replaced: this ledger knows another manifest"
        elif entry.manifest is not None and entry.manifest.artifact.sha256 != one.known.sha256:
            yield name, "it was replaced: this ledger knows another artifact"


def _verified_faults(one: Shelved) -> Iterator[tuple[str, str]]:
    for name, copy in one.known.copies.items() if one.known else ():
        if copy.problem and copy.problem != GONE and name in one.copies and copy.verified:
            yield name, f"{copy.problem} (as read on {copy.verified:%Y-%m-%d %H:%M} UTC)"


def _absent(one: Shelved, settings: Settings, stores: Collection[str]) -> list[str]:
    if one.database not in settings.databases:
        return []
    wanted = settings.stores_of(settings.databases[one.database])
    return [place.name for place in wanted if place.name in stores and place.name not in one.copies]


def _add_stranded(known: Mapping[str, Backup], shelved: dict[str, Shelved], settings: Settings) -> None:
    """Backups whose every copy is in a store that has left the configuration."""
    for backup in known.values():
        if backup.id not in shelved and backup.copies and not backup.copies.keys() & settings.stores.keys():
            names = "', '".join(sorted(backup.copies))
            found = Shelved(backup.database, backup.id, known=backup)
            found.faults.append(("", f"its only copies are in '{names}', and no such store is configured"))
            shelved[backup.id] = found


def _compare_lineages(shelved: dict[str, Shelved], ledger: Ledger) -> None:
    """Each manifest names the one before it: see that this is the one that is there."""
    removed = {backup for backup, _ in ledger.backups.removed()}
    # What cannot be read is there all the same, and what is known to be gone was told.
    removed |= {one.backup for one in shelved.values() if one.copies or one.faults}
    links: dict[str, list[Link]] = {}
    for one in shelved.values():
        for entry in one.copies.values():
            if entry.manifest is not None and entry.digest is not None and entry.good:
                link = Link(one.backup, entry.digest, entry.manifest.previous)
                links.setdefault(one.database, []).append(link)
    for database, found in links.items():
        for backup, problem in lineage.gaps(found, removed):
            shelved.setdefault(backup, Shelved(database, backup)).faults.append(("", problem))


def _order(one: Shelved) -> tuple[str, bool, str]:
    return (one.database, bool(BACKUP_ID.fullmatch(one.backup)), one.backup)
