"""Which queue a task goes to: a first step to its database's queue, the rest to the host that holds its spool."""

from __future__ import annotations

import functools
from typing import Any

from kombu import Queue
from kombu.utils.scheduling import round_robin_cycle

from larder.config import Settings
from larder.errors import NotFoundError
from larder.ledger.runs import BACKUP_STEPS, DRILL_STEPS, RESTORE_STEPS, Kind
from tasks import context
from tasks.chain import task_name
from tasks.queues import DEFAULT_QUEUE, DRILL_QUEUE, GUARD_QUEUE, RESTORE_QUEUE, host_queue, known, queue_of

#: The tasks that have queues of their own, beside the links of chains.
_ENTRIES = {"restore": RESTORE_QUEUE, "drill": DRILL_QUEUE, "guard": GUARD_QUEUE}

_STEPS: dict[Kind, tuple[str, ...]] = {"backup": BACKUP_STEPS, "restore": RESTORE_STEPS, "drill": DRILL_STEPS}
_LINKS = frozenset(task_name(name, kind) for kind, steps in _STEPS.items() for name in steps)


class BegunFirst(round_robin_cycle):
    """The order in which a worker looks at its queues: the guard's, then its host's, then all others in turn.

    What has begun goes on before anything else begins: otherwise a flood fills the spool with dumps, and all of its
    runs end at once.
    """

    def consume(self, n: int) -> list[str]:
        """The names of `n` queues, in that order."""
        first = self._first
        return sorted(self.items[:n], key=lambda name: first.index(name) if name in first else len(first))

    @functools.cached_property
    def _first(self) -> tuple[str, ...]:
        return (GUARD_QUEUE, host_queue(context.host()))


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
    """Celery's router: looks a link's run up in the ledger, as it is sent, unless it is at hand."""
    if name in _ENTRIES:
        return {"queue": _ENTRIES[name]}
    if name not in _LINKS:
        return None
    run_id = args[0] if args else (kwargs or {}).get("run_id", "")
    try:
        if not isinstance(run_id, str) or not run_id.isascii():
            # No run's: whoever takes it refuses it.
            return {"queue": DEFAULT_QUEUE}
        run = known(run_id) or context.ledger().runs.get(run_id)
    except NotFoundError:
        return {"queue": DEFAULT_QUEUE}
    return {"queue": queue_of(run, name.rpartition(".")[2])}
