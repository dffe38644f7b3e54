"""Which queue a task goes to: a first step to its database's queue, the rest to the host that holds its spool."""

from __future__ import annotations

from typing import Any

from kombu import Queue

from larder.config import Settings
from larder.errors import NotFoundError
from larder.ledger.runs import BACKUP_STEPS, DRILL_STEPS, RESTORE_STEPS, Kind, Run
from tasks import context
from tasks.chain import task_name

#: Where backups are asked for, and where dumps go unless their database names another queue.
DEFAULT_QUEUE = "backup"

#: Where restores are asked for and begin, unless their database names another queue than the default.
RESTORE_QUEUE = "restore"

#: Where drills are asked for and begin.
DRILL_QUEUE = "drill"

#: The tasks that begin a chain beside `backup`, and the queues that they go to.
_ENTRIES = {"restore": RESTORE_QUEUE, "drill": DRILL_QUEUE}

_STEPS: dict[Kind, tuple[str, ...]] = {"backup": BACKUP_STEPS, "restore": RESTORE_STEPS, "drill": DRILL_STEPS}
_FIRST = frozenset(task_name(steps[0], kind) for kind, steps in _STEPS.items())
_LATER = frozenset(task_name(name, kind) for kind, steps in _STEPS.items() for name in steps[1:])


def host_queue(host: str) -> str:
    """The queue of everybody who can see `host`'s spool."""
    return f"host.{host}"


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
    """Celery's router: looks a link's run up in the ledger, as it is sent.

    A failed run that never reached a host is told about by whoever takes the queue that it would have begun in.
    """
    if name in _ENTRIES:
        return {"queue": _ENTRIES[name]}
    if name not in _FIRST and name not in _LATER:
        return None
    run_id = args[0] if args else (kwargs or {}).get("run_id", "")
    try:
        if not isinstance(run_id, str) or not run_id.isascii():
            # No run's: whoever takes it refuses it.
            return {"queue": DEFAULT_QUEUE}
        run = context.ledger().runs.get(run_id)
    except NotFoundError:
        return {"queue": DEFAULT_QUEUE}
    if name in _LATER and run.host:
        return {"queue": host_queue(run.host)}
    return {"queue": _first_queue(run)}


def _first_queue(run: Run) -> str:
    if run.kind == "drill":
        return DRILL_QUEUE
    try:
        queue = context.settings().database(run.database).queue
    except NotFoundError:
        queue = DEFAULT_QUEUE
    return RESTORE_QUEUE if run.kind == "restore" and queue == DEFAULT_QUEUE else queue
