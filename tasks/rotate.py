"""rotate: old backups go, by the retention policy, in every store."""

from __future__ import annotations

from datetime import UTC, datetime

from larder import catalog, retention
from larder.errors import IntegrityError, LarderError
from larder.stores import Store, open_store
from tasks.step import Work, step


@step("rotate")
def rotate(work: Work) -> None:
    """Delete what the policy lets go, and see that exactly that is gone.

    A store that can't be rotated is a warning: the new backup is in it, and stands.
    """
    days = work.database.retention.days
    for settings in work.settings.stores_of(work.database):
        store = open_store(settings)
        work.say(f"Rotating old backups (keeping last {days} days)...")
        try:
            deleted, left = _rotate(work, store, days)
        except LarderError as error:
            if error.retryable:
                raise
            work.warn(f"Old backups in {store.name} could not be rotated: {error.message}")
            continue
        work.say(f"Deleted {deleted} old backup(s)")
        work.say(f"Total backups: {left}")


def _rotate(work: Work, store: Store, days: int) -> tuple[int, int]:
    """Apply the policy in one store; gives how many backups were deleted, and how many are left."""
    before = catalog.read(store, work.database.folder).of(work.database.name)
    verdicts = retention.plan(before, days, datetime.now(UTC))
    leaving = {verdict.backup for verdict in verdicts if not verdict.keep}
    for entry in before:
        if entry.backup in leaving:
            catalog.remove(store, entry)
    left = {entry.backup for entry in catalog.read(store, work.database.folder).of(work.database.name)}
    survivors = {verdict.backup for verdict in verdicts if verdict.keep}
    if left != survivors:
        raise IntegrityError(
            f"unable to rotate {store.name}: {len(left)} backups are left where the policy keeps {len(survivors)}",
            "see whether somebody else deletes or adds backups there",
        )
    work.ledger.backups.forget(store.name, leaving)
    return len(leaving), len(left)
