"""The chain: its links in order, and how they are sent."""

from __future__ import annotations

from celery import Signature, chain, current_app
from kombu.exceptions import OperationalError

from larder.errors import UnreachableError
from larder.ledger.runs import BACKUP_STEPS, Run, Step

#: Seconds to try to reach the broker before giving up; a message is small.
_SEND_POLICY = {"max_retries": 3, "interval_start": 0.2, "interval_step": 0.5, "interval_max": 2}


def task_name(step: str) -> str:
    """The name that Celery and Flower know a step by."""
    return f"backup.{step}"


def send(run: Run, first: str = BACKUP_STEPS[0], store: str = "") -> None:
    """Send a run's chain from the step `first` (of `store`) on; raises `UnreachableError` when the broker is away.

    Each link is immutable and carries the run id; an upload carries the name of its store beside, so that each store
    has a link of its own that people can see. Sending from a later step is how a run resumes.
    """
    start = next(index for index, step in enumerate(run.steps) if (step.name, step.store) == (first, store))
    try:
        chain(*(_link(run, step) for step in run.steps[start:])).apply_async(
            retry=True, retry_policy=_SEND_POLICY
        )
    except OperationalError as error:
        raise UnreachableError(
            f"unable to reach the broker: {error}", "check REDIS_URL, and that Redis is running"
        ) from None


def _link(run: Run, step: Step) -> Signature:
    args = (run.id, step.store) if step.store else (run.id,)
    return current_app.signature(task_name(step.name), args=args, immutable=True)
