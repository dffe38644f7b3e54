"""rotate: old backups go, by the retention policy, in every store that has the new one."""

from __future__ import annotations

from datetime import UTC, datetime

from larder import rotation
from larder.errors import LarderError
from larder.rotation import Rotation
from larder.stores import Store, StoreSettings, open_store
from tasks import context
from tasks.step import Work, step, stored


@step("rotate", "backup", spares=stored)
def rotate(work: Work) -> None:
    """Delete what the policy lets go, and see that exactly that is gone.

    A failed run never comes here, so that nothing goes after it; the next one that is stored cures it, and the failure
    is not held against this rotation. `larder prune`, which nobody's success precedes, asks for the newest run.

    A store that can't be rotated is a warning: the new backup is in it, and stands. One that does not answer is tried
    again, after the others.
    """
    out_of_reach: list[LarderError] = []
    for settings in _with_the_new_one(work):
        try:
            _rotate(work, open_store(settings))
        except LarderError as error:
            if error.retryable:
                out_of_reach.append(error)
            else:
                work.warn(f"Old backups in {settings.name} could not be rotated: {error.message}")
    if out_of_reach:
        raise out_of_reach[0]


def _with_the_new_one(work: Work) -> list[StoreSettings]:
    """The stores whose upload in this run succeeded: elsewhere the old ones are the newest that there are."""
    held = {link.store for link in work.run.uploads if link.state == "done"}
    return [settings for settings in work.settings.stores_of(work.database) if settings.name in held]


def _rotate(work: Work, store: Store) -> None:
    """Apply the policy in one store, which is named where there are several."""
    where = f" in {store.name}" if len(work.run.uploads) > 1 else ""
    work.say(f"Rotating old backups{where} (keeping {rotation.policy_of(work.database).description})...")
    found = rotation.look(store, work.database, work.ledger, context.trust(), datetime.now(UTC))
    if found.plan.halted:
        work.warn(f"Rotation of '{work.run.database}' is halted: {found.plan.halted}")
    cleared = rotation.clear(found, work.ledger)
    if cleared.problem:
        work.warn(f"Old backups in {store.name} could not all be deleted: {cleared.problem.message}")
    work.say(f"Deleted {len(cleared.deleted)} old backup(s){where}")
    work.say(f"Total backups{where}: {len(found.entries) - len(cleared.deleted)}")
    _discard_abandoned(work, found)
    _discard_orphans(work, found)


def _discard_abandoned(work: Work, found: Rotation) -> None:
    discarded = rotation.discard_abandoned(found.store, work.database, work.ledger)
    if discarded:
        work.say(f"Discarded {len(discarded)} abandoned upload(s)")


def _discard_orphans(work: Work, found: Rotation) -> None:
    try:
        discarded = rotation.discard_orphans(found, work.ledger)
    except LarderError as error:
        if error.retryable:
            raise
        # A store that locks what it keeps lets go of it later.
        work.mention(f"What broken off uploads left in {found.store.name} stays for now: {error.message}")
        return
    if discarded:
        work.say(f"Discarded {len(discarded)} file(s) that broken off uploads or deletions left")
