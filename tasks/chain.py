"""The chains: their links in order, and how they are sent."""

from __future__ import annotations

from celery import Signature, chain, current_app
from kombu.exceptions import OperationalError

from larder.ledger.runs import SAFETY, Run, Step
from tasks import context
from tasks.queues import away

#: Seconds to try to reach the broker before giving up; a message is small.
_SEND_POLICY = {"max_retries": 3, "interval_start": 0.2, "interval_step": 0.5, "interval_max": 2}

#: Seconds that a step has for its end once its time is up, before its process is killed.
_GRACE = 120


def task_name(step: str, kind: str = "backup") -> str:
    """The name that Celery and Flower know a step by: `backup.dump`, `restore.load`."""
    return f"{kind}.{step}"


def send(run: Run, first: str | None = None, store: str = "") -> None:
    """Send a run's chain from the step `first` (of `store`) on; raises `UnreachableError` when the broker is away.

    Each link is immutable and carries the run id; an upload carries the name of its store beside, so that each store
    has a link of its own that people can see. Sending from a later step is how a run resumes. Where a run is a part of
    another's chain, or has such a part, what comes after it is sent with it.
    """
    links = _links(run)
    wanted = (run.id, first or run.steps[0].name, store)
    start = next(index for index, (of, step) in enumerate(links) if (of.id, step.name, step.store) == wanted)
    try:
        chain(*(_signature(of, step) for of, step in links[start:])).apply_async(
            retry=True, retry_policy=_SEND_POLICY
        )
    except OperationalError as error:
        raise away(error) from None


def _links(run: Run) -> list[tuple[Run, Step]]:
    """Every link of the chain that `run` passes through, each with the run that it belongs to."""
    runs = context.ledger().runs
    outer = runs.get(run.parent) if run.parent else run
    parts = runs.parts_of(outer.id) if outer.kind == "restore" else []
    found: list[tuple[Run, Step]] = []
    for step in outer.steps:
        if step.name == SAFETY:
            found += [(part, inner) for part in parts for inner in part.steps]
        found.append((outer, step))
    return found


def _signature(run: Run, step: Step) -> Signature:
    args = (run.id, step.store) if step.store else (run.id,)
    made = current_app.signature(task_name(step.name, run.kind), args=args, immutable=True)
    limit = _limit(run)
    return made.set(soft_time_limit=limit, time_limit=limit + _GRACE) if limit else made


def _limit(run: Run) -> int | None:
    """Seconds that a step may take. A restore is never ended half-way because it takes long."""
    database = context.settings().databases.get(run.database)
    return database.time_limit if database and run.kind != "restore" and not run.parent else None
