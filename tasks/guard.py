"""guard: runs whose worker was killed go on from the step that was open."""

from __future__ import annotations

from celery import shared_task

from larder.errors import LarderError
from larder.ledger.leases import LAST_STEP
from larder.ledger.runs import Run
from tasks import chain, context
from tasks.step import MAX_TRIES, logger


@shared_task(name="guard")
def guard() -> int:
    """Send the chains of lost runs in this host's spool again; gives how many.

    What a step has made is found by its next attempt: a finished folder in the spool, parts of an upload in a bucket. A
    step that has cost its worker too often ends the run. However many guards there are, one of them acts.
    """
    ledger = context.ledger()
    return sum(_take_up(run) for run in ledger.runs.lost_on(context.host()) if ledger.runs.take_up(run))


def _take_up(run: Run) -> bool:
    step = run.open_step
    if step is None:
        return False
    if step.attempts >= MAX_TRIES:
        error = LarderError(
            f"its worker was lost {step.attempts} times at step {step.name}",
            "see the worker's log and the system's (out of memory?)",
        )
        context.ledger().runs.abandon(run.id, error)
        chain.send(run, LAST_STEP)
        return False
    logger.warning("run %s of %s was lost at step %s and goes on", run.id, run.database, step.name)
    chain.send(run, step.name, step.store)
    return True
