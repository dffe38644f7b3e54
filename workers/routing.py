"""Which queue a task goes to: the dump to its database's queue, the rest to the host that holds its spool."""

from __future__ import annotations

from typing import Any

from kombu import Queue

from larder.config import Settings
from larder.errors import NotFoundError
from larder.ledger.runs import BACKUP_STEPS
from tasks import context
from tasks.chain import task_name

#: Where backups are asked for, and where dumps go unless their database names another queue.
DEFAULT_QUEUE = "backup"

_DUMP = task_name(BACKUP_STEPS[0])
_AFTER_DUMP = frozenset(task_name(name) for name in BACKUP_STEPS[1:])


def host_queue(host: str) -> str:
    """The queue of everybody who can see `host`'s spool."""
    return f"host.{host}"


def queues(settings: Settings) -> list[Queue]:
    """What a worker consumes that is started without `-Q`: every queue that a database names."""
    names = {DEFAULT_QUEUE, *(database.queue for database in settings.databases.values())}
    return [Queue(name) for name in sorted(names)]


def route(
    name: str, args: Any = (), kwargs: Any = None, options: Any = None, task: Any = None, **_: Any
) -> dict[str, str] | None:
    """Celery's router: looks a link's run up in the ledger, as it is sent.

    A failed run that never reached a host is told about by whoever takes the default queue.
    """
    if name != _DUMP and name not in _AFTER_DUMP:
        return None
    run_id = args[0] if args else (kwargs or {}).get("run_id", "")
    try:
        run = context.ledger().runs.get(run_id)
        if name == _DUMP:
            return {"queue": context.settings().database(run.database).queue}
    except NotFoundError:
        return {"queue": DEFAULT_QUEUE}
    return {"queue": host_queue(run.host) if run.host else DEFAULT_QUEUE}
