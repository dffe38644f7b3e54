"""`larder list` and `larder show`: what the stores hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.markup import escape

from console import output
from larder import catalog
from larder.catalog import Entry
from larder.config import DatabaseSettings, Settings
from larder.errors import ConfigurationError, IntegrityError, NotFoundError
from larder.ledger.backups import Backup
from larder.naming import LATEST, parse_backup_id
from larder.progress import short_size
from larder.stores import open_store
from tasks import context

#: The proof of a backup that the ledger has not seen: nobody has read it back yet.
UNVERIFIED = "unverified"


@dataclass
class _Shelf:
    """One backup with its copies, by the store's name."""

    database: str
    backup: str
    copies: dict[str, Entry] = field(default_factory=dict)

    @property
    def entry(self) -> Entry:
        """A copy whose manifest can be read, if there is one."""
        return next(
            (entry for entry in self.copies.values() if entry.manifest), next(iter(self.copies.values()))
        )

    @property
    def problems(self) -> list[str]:
        return [f"{store}: {problem}" for store, entry in self.copies.items() for problem in entry.problems]


def print_list(name: str | None, store: str | None, *, as_json: bool) -> int:
    """Print the backups of every database, or of one, or in one store; gives the exit code."""
    settings = context.settings()
    wanted = [settings.database(name)] if name is not None else list(settings.databases.values())
    shelves: list[_Shelf] = []
    foreign: list[str] = []
    for database in wanted:
        found, strangers = _read(settings, database, store)
        shelves += found
        foreign += strangers
    known = context.ledger().backups.all()
    shelves.sort(key=lambda shelf: (shelf.database, shelf.backup), reverse=True)
    if as_json:
        output.print_json([_document(shelf, known.get(shelf.backup)) for shelf in shelves])
    else:
        _print_table(shelves, known)
        for key in sorted(set(foreign)):
            output.err.print(f"[dim]foreign, not touched by Larder:[/] {escape(key)}")
    return IntegrityError.exit_code if any(shelf.problems for shelf in shelves) else 0


def print_backup(backup_id: str, *, as_json: bool) -> int:
    """Print a backup's manifest and copies; gives the exit code."""
    settings = context.settings()
    name, stamp = parse_backup_id(backup_id)
    shelves, _ = _read(settings, settings.database(name), None)
    shelves.sort(key=lambda shelf: shelf.backup)
    good = [shelf for shelf in shelves if not shelf.problems]
    found = good[-1:] if stamp == LATEST else [shelf for shelf in shelves if shelf.backup == backup_id]
    if not found:
        raise NotFoundError(f"unable to find backup '{backup_id}'", f"larder list {name} shows what there is")
    shelf = found[0]
    document = _document(shelf, context.ledger().backups.get(shelf.backup))
    document["manifest"] = shelf.entry.manifest.to_dict() if shelf.entry.manifest else None
    document["locations"] = _locations(settings, shelf)
    document["problems"] = shelf.problems
    if as_json:
        output.print_json(document)
    else:
        _print_backup(document)
    return IntegrityError.exit_code if shelf.problems else 0


def _read(
    settings: Settings, database: DatabaseSettings, store: str | None
) -> tuple[list[_Shelf], list[str]]:
    if store is not None and store not in settings.stores:
        raise ConfigurationError(
            f"unable to find store '{store}'", f"configured are: {', '.join(settings.stores)}"
        )
    shelves: dict[str, _Shelf] = {}
    foreign: list[str] = []
    for place in settings.stores_of(database):
        if store not in (None, place.name):
            continue
        opened = open_store(place)
        found = catalog.read(opened, database.folder)
        foreign += [opened.location(key) for key in found.foreign]
        for entry in found.of(database.name):
            shelf = shelves.setdefault(entry.backup, _Shelf(database.name, entry.backup))
            shelf.copies[place.name] = entry
    return list(shelves.values()), foreign


def _document(shelf: _Shelf, known: Backup | None) -> dict[str, Any]:
    manifest = shelf.entry.manifest
    proof = known.proof if known else UNVERIFIED
    return {
        "backup": shelf.backup,
        "database": shelf.database,
        "engine": manifest.engine if manifest else None,
        "created": manifest.created if manifest else None,
        "artifact": manifest.artifact.name if manifest else None,
        "size": manifest.artifact.size if manifest else None,
        "sha256": manifest.artifact.sha256 if manifest else None,
        "stores": sorted(shelf.copies),
        "proof": "broken" if shelf.problems else proof,
        "pinned": known.pinned if known else False,
    }


def _locations(settings: Settings, shelf: _Shelf) -> dict[str, str]:
    return {
        name: open_store(settings.stores[name]).location(entry.artifact_key)
        for name, entry in sorted(shelf.copies.items())
    }


def _print_table(shelves: Iterable[_Shelf], known: dict[str, Backup]) -> None:
    rows = []
    for shelf in shelves:
        document = _document(shelf, known.get(shelf.backup))
        created = datetime.fromisoformat(document["created"]) if document["created"] else None
        size = short_size(document["size"]) if document["size"] is not None else "-"
        remark = "; ".join(shelf.problems) or ("pinned" if document["pinned"] else "")
        age = output.age(created) if created else "-"
        rows.append((shelf.backup, age, size, document["proof"], ", ".join(document["stores"]), remark))
    output.print_table(("backup", ">age", ">size", "proof", "stores", ""), rows)


def _print_backup(document: dict[str, Any]) -> None:
    manifest = document["manifest"] or {}
    tables = (manifest.get("fingerprint") or {}).get("tables", {})
    rows = [table["rows"] for table in tables.values() if table.get("rows") is not None]
    output.out.print(f"[bold]{escape(document['backup'])}[/]  {document['proof']}")
    facts = {
        "created": document["created"],
        "made by": manifest.get("tool"),
        "server": manifest.get("server_version"),
        "artifact": document["artifact"],
        "size": f"{short_size(document['size'] or 0)}, decodes to {short_size(manifest.get('raw', {}).get('size', 0))}",
        "sha256": document["sha256"],
        "holds": f"{len(tables)} tables" + (f", {sum(rows):,} rows" if rows else ""),
    }
    for name, value in facts.items():
        output.out.print(f"  {name:<9} {escape(str(value))}")
    for store, location in document["locations"].items():
        output.out.print(f"  {'copy':<9} {escape(store)}: {escape(location)}")
    for warning in manifest.get("warnings", []):
        output.out.print(f"  [yellow]warning[/]   {escape(warning)}")
    for problem in document["problems"]:
        output.out.print(f"  [red]broken[/]    {escape(problem)}")
