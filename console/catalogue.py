"""`larder list` and `larder show`: what the stores hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from console import output
from console.output import escape
from larder import shelf
from larder.config import Settings
from larder.errors import IntegrityError, NotFoundError
from larder.naming import LATEST, parse_backup_id
from larder.progress import short_size
from larder.shelf import Shelf, Shelved
from larder.stores import open_store
from tasks import context

#: How many foreign files are named: a bucket may be somebody's photo album, too.
FOREIGN_SHOWN = 20


def print_list(name: str | None, store: str | None, *, as_json: bool) -> int:
    """Print the backups of every database, or of one, or in one store; gives the exit code."""
    found = read(store)
    shelved = list(found.backups) if name is None else of_database(found, name)
    shelved.reverse()
    if as_json:
        output.print_json([_document(one) for one in shelved])
    else:
        _print_table(shelved)
        if name is None:
            print_foreign(found)
    return exit_code(found, shelved)


def print_backup(backup_id: str, *, as_json: bool) -> int:
    """Print a backup's manifest and copies; gives the exit code."""
    found = read(None)
    one = find(found, backup_id, good=True)
    entry = one.entry
    document = _document(one)
    document["manifest"] = entry.manifest.to_dict() if entry and entry.manifest else None
    document["locations"] = _locations(context.settings(), one)
    if as_json:
        output.print_json(document)
    else:
        _print_backup(document)
    return exit_code(found, [one])


def read(store: str | None) -> Shelf:
    """The shelf, or what one store has on it; stores that are out of reach are named on standard error."""
    found = shelf.read(context.settings(), context.ledger(), context.trust(), store=store)
    for error in found.unreachable.values():
        output.print_error(error)
    return found


def of_database(found: Shelf, name: str) -> list[Shelved]:
    """The backups of a database that is configured, or that only its backups are left of.

    Raises `NotFoundError` where there is neither.
    """
    shelved = found.of(name)
    if not shelved:
        context.settings().database(name)
    return shelved


def find(found: Shelf, backup_id: str, *, good: bool = False) -> Shelved:
    """The backup `backup_id`, which may be `shop/latest`: then the newest, or the newest that is `good`.

    Raises `NotFoundError`.
    """
    name, stamp = parse_backup_id(backup_id)
    shelved = of_database(found, name)
    if stamp == LATEST:
        wanted = [one for one in shelved if one.good_copies or not good]
    else:
        wanted = [one for one in shelved if one.backup == backup_id]
    if not wanted:
        raise NotFoundError(f"unable to find backup '{backup_id}'", f"larder list {name} shows what there is")
    return wanted[-1]


def print_foreign(found: Shelf) -> None:
    """Name the files that belong to no backup, on standard error; of many, the first."""
    for location in found.foreign[:FOREIGN_SHOWN]:
        output.err.print(f"[dim]foreign, not touched by Larder:[/] {escape(location)}")
    if len(found.foreign) > FOREIGN_SHOWN:
        output.err.print(
            f"[dim]foreign, not touched by Larder:[/] {len(found.foreign) - FOREIGN_SHOWN:,} more"
        )


def exit_code(found: Shelf, shelved: Iterable[Shelved]) -> int:
    """What a command exits with that looked at these backups: broken ones come before stores that were out of reach."""
    if any(one.faults for one in shelved):
        return IntegrityError.exit_code
    return max((error.exit_code for error in found.unreachable.values()), default=0)


def _document(one: Shelved) -> dict[str, Any]:
    entry = one.entry
    manifest = entry.manifest if entry else None
    return {
        "backup": one.backup,
        "database": one.database,
        "engine": manifest.engine if manifest else None,
        "created": manifest.created if manifest else None,
        "artifact": manifest.artifact.name if manifest else None,
        "size": manifest.artifact.size if manifest else None,
        "sha256": manifest.artifact.sha256 if manifest else None,
        "stores": sorted(one.copies),
        "proof": one.proof,
        "pinned": one.pinned,
        "problems": one.problems,
        "missing_stores": one.absent,
    }


def _locations(settings: Settings, one: Shelved) -> dict[str, str]:
    return {
        name: open_store(settings.stores[name]).location(entry.artifact_key)
        for name, entry in sorted(one.copies.items())
    }


def _print_table(shelved: Sequence[Shelved]) -> None:
    rows = []
    for one in shelved:
        document = _document(one)
        created = datetime.fromisoformat(document["created"]) if document["created"] else None
        size = short_size(document["size"]) if document["size"] is not None else "-"
        remarks = ["pinned"] if one.pinned else []
        remarks += [f"not in {', '.join(one.absent)}"] if one.absent and one.copies else []
        age = output.age(created) if created else "-"
        rows.append(
            (one.backup, age, size, one.proof, ", ".join(document["stores"]) or "none", ", ".join(remarks))
        )
    output.print_table(("backup", ">age", ">size", "proof", "stores", ""), rows)
    for one in shelved:
        for problem in one.problems:
            output.out.print(f"[red]broken[/] {escape(one.backup)}: {escape(problem)}")
        if one.faults and one.good_copies:
            output.out.print(
                f"       its copy in {escape(', '.join(one.good_copies))} is good, as far as is known"
            )


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
        "encoding": ", ".join(manifest.get("encoding", ())) or "none",
        "size": f"{short_size(document['size'] or 0)}, decodes to {short_size(manifest.get('raw', {}).get('size', 0))}",
        "sha256": document["sha256"],
        "holds": f"{len(tables)} tables" + (f", {sum(rows):,} rows" if rows else ""),
        "signed by": (manifest.get("signature") or {}).get("key"),
        "after": (manifest.get("previous") or {}).get("backup") or "none: the first, as far as its host knew",
    }
    for name, value in facts.items():
        output.out.print(f"  {name:<9} {escape(str(value))}")
    for store, location in document["locations"].items():
        output.out.print(f"  {'copy':<9} {escape(store)}: {escape(location)}")
    for warning in manifest.get("warnings", []):
        output.out.print(f"  [yellow]warning[/]   {escape(warning)}")
    for problem in document["problems"]:
        output.out.print(f"  [red]broken[/]    {escape(problem)}")
