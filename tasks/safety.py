"""safety: what is about to be replaced lies in its stores, read back, and is pinned there."""

from __future__ import annotations

from datetime import UTC, datetime

from larder import pins
from larder.errors import IntegrityError
from larder.ledger.runs import Run
from larder.naming import manifest_name
from larder.spool import Spool
from larder.stores import open_store
from tasks.step import Work, step


@step("safety", "restore")
def safety(work: Work) -> None:
    """See that the safety backup, whose own steps came before this one, is stored; keep it until nobody can undo."""
    backup = _stored(work)
    holding = [link.store for link in backup.uploads if link.state == "done"]
    known = work.ledger.backups.get(backup.backup)
    if known is None or not set(holding) <= known.copies.keys():
        raise IntegrityError(
            f"unable to find the copies of safety backup {backup.backup} that were just made",
            "ask for the restore again",
        )
    for name in holding:
        key = known.copies[name].key
        pins.pin_artifact(open_store(work.settings.store(name)), key, manifest_name(key), datetime.now(UTC))
    work.ledger.backups.set_pinned(backup.backup, pinned=True)
    work.ledger.requests.note_safety(work.ledger.requests.of_run(work.run.id).id, backup.backup)
    Spool(work.settings.spool_dir, backup.id).remove()
    work.say(f"Safety backup stored: {backup.backup}, kept in {', '.join(holding)}")


def _stored(work: Work) -> Run:
    for part in work.ledger.runs.parts_of(work.run.id):
        if part.state == "stored":
            return part
    raise IntegrityError(
        f"unable to find the safety backup of '{work.run.database}' that this restore began with",
        "ask for the restore again",
    )
