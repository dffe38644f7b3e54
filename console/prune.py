"""`larder prune`: what the retention policy keeps and deletes, and why; and the deletion itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from console import output
from console.output import escape
from larder import rotation
from larder.config import DatabaseSettings, StoreSettings
from larder.errors import LarderError
from larder.progress import short_size
from larder.rotation import Rotation
from larder.stores import open_store
from tasks import context


@dataclass
class _Outcome:
    """How it went in one store."""

    database: DatabaseSettings
    store: str
    #: What was found; None where the store could not be read.
    found: Rotation | None = None
    deleted: list[str] = field(default_factory=list)
    error: LarderError | None = None

    @property
    def exit_code(self) -> int:
        if self.error is not None:
            return self.error.exit_code
        return 1 if self.found is not None and self.found.plan.held else 0


def prune(name: str | None, *, dry_run: bool, force: bool, as_json: bool) -> int:
    """Apply the retention policy of every database, or of one, in each of its stores; gives the exit code.

    With `dry_run` nothing is deleted. `force` overrules what halts rotation, and accepts the sizes that backups have
    now. One store's trouble does not keep the others.
    """
    settings = context.settings()
    wanted = [settings.database(name)] if name is not None else list(settings.databases.values())
    outcomes = []
    for database in wanted:
        failed_run = rotation.last_failed(context.ledger(), database.name)
        for place in settings.stores_of(database):
            outcome = _prune(database, place, failed_run, dry_run=dry_run, force=force)
            outcomes.append(outcome)
            if not as_json:
                _print(outcome, dry_run=dry_run)
            if outcome.error is not None:
                output.print_error(outcome.error)
    if as_json:
        output.print_json([_document(outcome) for outcome in outcomes])
    return max((outcome.exit_code for outcome in outcomes), default=0)


def _prune(
    database: DatabaseSettings, place: StoreSettings, failed_run: str | None, *, dry_run: bool, force: bool
) -> _Outcome:
    outcome = _Outcome(database, place.name)
    ledger = context.ledger()
    try:
        # A run of the database may be at its own rotate step: to delete the same backup twice is harmless.
        outcome.found = rotation.look(
            open_store(place),
            database,
            ledger,
            context.trust(),
            datetime.now(UTC),
            failed_run=failed_run,
            force=force,
        )
        if not dry_run:
            if force:
                rotation.accept(outcome.found, ledger)
            cleared = rotation.clear(outcome.found, ledger)
            outcome.deleted, outcome.error = cleared.deleted, cleared.problem
            rotation.discard_abandoned(outcome.found.store, database, ledger)
    except LarderError as error:
        outcome.error = error
    return outcome


def _document(outcome: _Outcome) -> dict[str, Any]:
    document: dict[str, Any] = {
        "database": outcome.database.name,
        "store": outcome.store,
        "halted": outcome.found.plan.halted if outcome.found else None,
        "backups": list(_backups(outcome.found)) if outcome.found else [],
        "deleted": outcome.deleted,
    }
    if outcome.error is not None:
        document |= {"error": outcome.error.message, "hint": outcome.error.hint}
    return document


def _backups(found: Rotation) -> Iterator[dict[str, Any]]:
    for entry, verdict in found.judged:
        yield {
            "backup": entry.backup,
            "keep": verdict.keep,
            "reason": verdict.reason,
            "created": entry.manifest.created if entry.manifest else None,
            "size": entry.manifest.artifact.size if entry.manifest else None,
        }


def _print(outcome: _Outcome, *, dry_run: bool) -> None:
    if outcome.found is None:
        return
    found, name = outcome.found, outcome.database.name
    policy = rotation.policy_of(outcome.database).description
    output.out.print(f"[bold]{escape(name)}[/] in {escape(outcome.store)}, keeping {policy}")
    if found.plan.halted:
        output.out.print(f"[bold red]halted:[/] {escape(found.plan.halted)}")
    for line in _lines(found):
        output.out.print(line)
    output.out.print(_summary(outcome, dry_run=dry_run))


def _summary(outcome: _Outcome, *, dry_run: bool) -> str:
    verdicts = outcome.found.plan.verdicts if outcome.found else ()
    held = sum(verdict.held for verdict in verdicts)
    if held:
        return f"0 of {len(verdicts)} deleted; {held} would be, were rotation not halted"
    if dry_run:
        going = sum(not verdict.keep for verdict in verdicts)
        return f"{going} of {len(verdicts)} would be deleted; nothing was, this is a dry run"
    return f"{len(outcome.deleted)} of {len(verdicts)} deleted"


def _lines(found: Rotation) -> Iterator[str]:
    """A line for each backup, newest first. None is folded, however narrow the terminal: a reason may be long."""
    documents = list(_backups(found))
    longest = max((len(document["backup"]) for document in documents), default=0)
    for document in reversed(documents):
        created = datetime.fromisoformat(document["created"]) if document["created"] else None
        age = output.age(created) if created else "-"
        size = short_size(document["size"]) if document["size"] is not None else "-"
        verdict = "[green]keep  [/]" if document["keep"] else "[yellow]delete[/]"
        name, reason = f"{document['backup']:<{longest}}", document["reason"]
        yield f"  {escape(name)}  {age:>18}  {size:>5}  {verdict}  {escape(reason)}"
