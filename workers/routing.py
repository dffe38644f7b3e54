"""Which queue a task goes to: a first step to its database's queue, the rest to the host that holds its spool."""

from __future__ import annotations

from typing import Any

from kombu import Queue

from larder.config import Settings
from larder.errors import NotFoundError
from larder.ledger.runs import BACKUP_STEPS, DRILL_STEPS, RESTORE_STEPS, Kind
from tasks import context
from tasks.chain import task_name
from tasks.queues import DEFAULT_QUEUE, DRILL_QUEUE, RESTORE_QUEUE, queue_of

#: The tasks that begin a chain beside `backup`, and the queues that they go to.
_ENTRIES = {"restore": RESTORE_QUEUE, "drill": DRILL_QUEUE}

_STEPS: dict[Kind, tuple[str, ...]] = {"backup": BACKUP_STEPS, "restore": RESTORE_STEPS, "drill": DRILL_STEPS}
_LINKS = frozenset(task_name(name, kind) for kind, steps in _STEPS.items() for name in steps)


def queues(settings: Settings) -> list[Queue]:
    """What a worker consumes that is started without `-Q`: every queue that a database names."""
    names = {
        DEFAULT_QUEUE,
        RESTORE_QUEUE,
        DRILL_QUEUE,
        *(database.queue for database in settings.databases.values()),
    }
    return [Queue(name) for name in sorted(names)]


def route(
    name: str, args: Any = (), kwargs: Any = None, options: Any = None, task: Any = None, **_: Any
) -> dict[str, str] | None:
    """Celery's router: looks a link's run up in the ledger, as it is sent."""
    if name in _ENTRIES:
        return {"queue": _ENTRIES[name]}
    if name not in _LINKS:
        return None
    run_id = args[0] if args else (kwargs or {}).get("run_id", "")
    try:
        if not isinstance(run_id, str) or not run_id.isascii():
            # No run's: whoever takes it refuses it.
            return {"queue": DEFAULT_QUEUE}
        run = context.ledger().runs.get(run_id)
    except NotFoundError:
        return {"queue": DEFAULT_QUEUE}
    return {"queue": queue_of(run, name.rpartition(".")[2])}
