"""The entry: a name in, a run in the ledger and a chain on its way out."""

from __future__ import annotations

from datetime import UTC, datetime

from celery import current_task, shared_task

from larder.config import DatabaseSettings
from larder.errors import LarderError, UnreachableError
from larder.ledger.runs import Run
from larder.schedule import latest_slot
from tasks import chain, context, queues

#: What a scheduled message says of itself. Everything else is somebody's wish, and has no slot.
SCHEDULED = "schedule"
CALLED = "call"


@shared_task(name="backup")
def backup(database: str, trigger: str = CALLED) -> str:
    """Back up one configured database; gives the run's id.

    Ad hoc: `celery -A workers call backup --kwargs '{"database": "shop"}'`. A name that is not configured fails, and so
    does a database whose backup is under way.
    """
    # Anybody who reaches Redis chooses the words of a message; two of them are known.
    return start(database, SCHEDULED if trigger == SCHEDULED else CALLED).id


def start(database: str, trigger: str) -> Run:
    """Write a run into the ledger and send its chain.

    A scheduled run has a slot, and the second one of the same slot is the first one: two schedulers make one backup.
    Raises `NotFoundError`, `BusyError`, and `UnreachableError` when the broker does not take the chain; the run is then
    closed as failed, and its slot is free for another try.
    """
    settings = context.settings().database(database)
    runs = context.ledger().runs
    places = [store.name for store in context.settings().stores_of(settings)]
    slot = _slot(settings) if trigger == SCHEDULED else None
    run, is_new = runs.create(database, trigger, slot, stores=places)
    if is_new:
        if current_task:
            queues.at_hand(current_task, run)
        try:
            chain.send(run)
        except UnreachableError as error:
            runs.withdraw(run.id, error)
            raise
        except Exception as error:
            runs.withdraw(run.id, LarderError(f"unable to send the chain: {type(error).__name__}"))
            raise
    return run


def _slot(settings: DatabaseSettings) -> datetime:
    return latest_slot(settings.schedule, settings.timezone, datetime.now(UTC))
