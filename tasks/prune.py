"""prune: the retention policy is applied now, without a backup before it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from celery import shared_task

from larder import rotation
from larder.errors import LarderError
from larder.stores import open_store
from tasks import context

logger = logging.getLogger("larder.prune")


@shared_task(name="prune")
def prune(database: str) -> int:
    """Rotate one configured database in each of its stores; gives how many copies were deleted.

    Ad hoc: `celery -A workers call prune --kwargs '{"database": "shop"}'`. One store's trouble does not keep the
    others. Raises `LarderError` with all of it, and where rotation is halted: nobody may be looking at the log.
    """
    settings, ledger = context.settings(), context.ledger()
    wanted = settings.database(database)
    failed_run = rotation.last_failed(ledger, wanted.name)
    deleted, troubles = 0, []
    for place in settings.stores_of(wanted):
        try:
            found = rotation.look(
                open_store(place), wanted, ledger, context.trust(), datetime.now(UTC), failed_run=failed_run
            )
            cleared = rotation.clear(found, ledger)
            rotation.discard_abandoned(found.store, wanted, ledger)
        except LarderError as error:
            troubles.append(f"{place.name}: {error.message}")
            continue
        deleted += len(cleared.deleted)
        logger.info("deleted %d old backup(s) of '%s' from %s", len(cleared.deleted), database, place.name)
        if cleared.problem:
            troubles.append(f"{place.name}: {cleared.problem.message}")
        if found.plan.halted:
            troubles.append(f"{place.name}: rotation is halted: {found.plan.halted}")
    if troubles:
        raise LarderError(f"unable to prune '{database}': {'; '.join(troubles)}")
    return deleted
