"""The entry of a drill: a database in, the choice of a backup and a store, and a chain on its way out."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from celery import shared_task

from larder.config import Settings
from larder.errors import BusyError, LarderError, NotFoundError, UnreachableError
from larder.ledger.backups import Backup
from larder.ledger.runs import Run
from larder.naming import LATEST, parse_backup_id
from larder.schedule import latest_slot
from tasks import chain, context
from tasks.backup import CALLED, SCHEDULED
from tasks.step import logger

#: How long after its slot a drill may still begin.
OWED = timedelta(days=1)

#: Why a drill began that so many backups have called for.
EVERY = "every"

#: Why drills begin that nobody has asked for.
BY_CLOCK = (SCHEDULED, EVERY)

#: A drill that the clock has begun takes an older backup than the newest each time after this many.
OLDER_EVERY = 4


@shared_task(name="drill")
def drill(database: str, trigger: str = CALLED) -> str | None:
    """Restore the database's newest backup into a scratch database and compare; gives the run's id.

    `celery -A workers call drill --kwargs '{"database": "shop"}'`; `shop/20251016_020000` is one backup. What the clock
    begins is begun once in each of its slots, and now and then takes an older backup.
    """
    if trigger == SCHEDULED:
        run = start_scheduled(database)
        return run.id if run else None
    return start(database, CALLED).id


def start(wanted: str, trigger: str) -> Run:
    """Begin a drill of `wanted`: a configured database, or one of its backups (`shop/latest`).

    Raises `NotFoundError`, `BusyError`, and `UnreachableError` when the broker does not take the chain; the drill has
    failed then.
    """
    name, stamp = parse_backup_id(wanted) if "/" in wanted else (wanted, LATEST)
    context.settings().database(name)
    backups = _restorable(context.settings(), name)
    if stamp == LATEST:
        return _begin(_newest(name, backups), trigger)
    known = context.ledger().backups.get(wanted)
    if known is None:
        raise NotFoundError(
            f"unable to find backup {wanted}",
            f"larder list {name} shows what there is; larder catalog rebuild takes up what the ledger does not know",
        )
    return _begin(known, trigger)


def start_scheduled(name: str) -> Run | None:
    """Begin the drill of a slot of the database's `drill` schedule; None where another scheduler has begun it."""
    settings = context.settings().database(name)
    if settings.drill is None:
        return None
    slot = latest_slot(settings.drill, settings.timezone, datetime.now(UTC))
    if not context.ledger().slots.claim(f"drill {name}", slot):
        return None
    try:
        return start_one_of(name, SCHEDULED)
    except (BusyError, UnreachableError):
        # Another one is under way, or the broker is away: the guard begins it once that is over.
        context.ledger().slots.owe(f"drill {name}", slot)
        raise


def start_owed() -> None:
    """Begin the drills of slots that nothing could be begun in when they came. The guard has it done each minute."""
    ledger, settings = context.ledger(), context.settings()
    for task, slot in ledger.slots.owed("drill "):
        name = task.removeprefix("drill ")
        database = settings.databases.get(name)
        if database and database.drill and datetime.now(UTC) - slot < OWED:
            try:
                start_one_of(name, SCHEDULED)
            except (BusyError, UnreachableError):
                continue
            except LarderError as error:
                logger.error("unable to begin the drill of '%s': %s", name, error.message)
        ledger.slots.settle(task)


def start_one_of(name: str, trigger: str) -> Run:
    """Begin a drill of the newest backup, or, now and then, of an older one that is picked at random."""
    backups = _restorable(context.settings(), name)
    chosen = _newest(name, backups)
    older = [backup for backup in backups if backup.id != chosen.id]
    if older and context.ledger().drills.count(name, BY_CLOCK) % OLDER_EVERY == OLDER_EVERY - 1:
        chosen = random.choice(older)  # noqa: S311 - no secret
    return _begin(chosen, trigger)


def _restorable(settings: Settings, name: str) -> list[Backup]:
    """The backups of a database that a configured store has a copy of and that are not known to be broken."""
    return [
        backup
        for backup in context.ledger().backups.all(name).values()
        if backup.proof != "broken" and backup.copies.keys() & settings.stores.keys()
    ]


def _newest(name: str, backups: list[Backup]) -> Backup:
    if not backups:
        raise NotFoundError(
            f"unable to drill database '{name}': there is no backup of it that is not broken",
            f"make one: larder backup {name}; or larder catalog rebuild, for those that the ledger does not know",
        )
    return backups[-1]


def _begin(backup: Backup, trigger: str) -> Run:
    """Write the drill down, from any of the stores that have a copy, and send its chain."""
    ledger = context.ledger()
    stores = sorted(backup.copies.keys() & context.settings().stores.keys())
    if not stores:
        raise NotFoundError(f"unable to find a copy of {backup.id} in any configured store")
    good = [name for name in stores if backup.copies[name].problem is None]
    run = ledger.drills.begin(
        backup.database,
        backup.id,
        random.choice(good or stores),  # noqa: S311 - no secret
        trigger,
    )
    try:
        chain.send(run)
    except UnreachableError as error:
        _fail(run, error)
        raise
    except Exception as error:
        _fail(run, LarderError(f"unable to send the chain: {type(error).__name__}"))
        raise
    return run


def _fail(run: Run, error: LarderError) -> None:
    ledger = context.ledger()
    ledger.runs.abandon(run.id, error)
    ledger.drills.close(ledger.runs.get(run.id))
