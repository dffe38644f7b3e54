"""recovery: runs whose worker, message or host was lost go on, or end and are told. The guard has it done each minute.

What a step has made is found by its next attempt: a finished folder in the spool, parts of an upload in a bucket. A
step that has cost its worker too often ends the run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime

from larder.errors import LarderError
from larder.ledger.leases import LAST_STEP
from larder.ledger.losses import MOST_ATTEMPTS
from larder.ledger.runs import QUEUE_PATIENCE, SWAP, UPLOAD, Run
from tasks import chain, context, queues, swap
from tasks.step import logger, tell

_SEE_LOGS = "see the worker's log and the system's (out of memory?)"


def take_up_expired() -> int:
    """Send the chains of runs again whose worker was lost; gives how many."""
    losses = context.ledger().losses
    losses.correct()
    return sum(_go_on(run) for run in losses.expired() if losses.take_up(run))


def send_lying() -> int:
    """Send the messages of runs again that are lost; gives how many.

    A message that still waits in its queue is not lost. Where the queue is never empty, nobody can say, and after a
    while another one is sent: two of them do no harm.
    """
    losses, is_empty = context.ledger().losses, _looking()
    sent = 0
    for run in losses.lying():
        step = run.open_step
        if step is None:
            continue
        late = datetime.now(UTC) - run.lying_since > QUEUE_PATIENCE
        if (late or is_empty(queues.queue_of(run, step.name))) and losses.take_up(run):
            logger.warning("the message of run %s of %s was lost at step %s", run.id, run.database, step.name)
            chain.send(run, step.name, step.store)
            sent += 1
    return sent


def move_stranded() -> int:
    """Have runs begin anew elsewhere whose host is gone, or end; gives how many began anew."""
    ledger = context.ledger()
    moved = 0
    for run in ledger.losses.stranded():
        gone = LarderError(
            f"its host {run.host} is gone: none of its workers was heard of",
            "see whether that machine is up; what is left in its spool is removed once it is back",
        )
        if _can_start_over(run) and ledger.losses.start_over(run):
            logger.warning("run %s of %s starts over: %s", run.id, run.database, gone.message)
            ledger.journal.write(run.id, "WARN", f"The run starts over: {gone.message}")
            chain.send(ledger.runs.get(run.id))
            moved += 1
            continue
        outer = ledger.runs.get(run.parent) if run.parent else run
        if ledger.losses.leave(outer, gone):
            tell(ledger.runs.get(outer.id), gone)
    return moved


def tell_untold() -> None:
    """Have people told of runs that were ended from outside, or while nobody could be told."""
    ledger, is_empty, now = context.ledger(), _looking(), datetime.now(UTC)
    hosts = ledger.hosts.known()
    for run in ledger.losses.untold():
        if run.host and (run.host not in hosts or hosts[run.host].gone(now)):
            ledger.losses.unpin(run.id)
            run = ledger.runs.get(run.id)
        if is_empty(queues.queue_of(run, LAST_STEP)):
            chain.send(run, LAST_STEP)


def _looking() -> Callable[[str], bool]:
    """What says whether no message waits in a queue, each of which is looked at once."""
    return functools.cache(lambda queue: queues.waiting_in(queue) == 0)


def _go_on(run: Run) -> bool:
    step = run.open_step
    if step is None:
        return False
    if step.attempts >= (swap.TRIES if run.kind == "restore" and step.name == SWAP else MOST_ATTEMPTS):
        error = LarderError(
            f"its worker was lost {step.attempts} times at step {step.name}",
            _SEE_LOGS,
        )
        context.ledger().runs.abandon(run.id, error)
        tell(run, error)
        return False
    logger.warning("run %s of %s was lost at step %s and goes on", run.id, run.database, step.name)
    chain.send(run, step.name, step.store)
    return True


def _can_start_over(run: Run) -> bool:
    """Whether a run can begin anew on another host: one that destroys nothing, and has kept nothing yet."""
    if run.kind == "restore" or run.parent is not None:
        return False
    return all(step.attempts < MOST_ATTEMPTS for step in run.steps) and not any(
        step.name == UPLOAD and step.state == "done" for step in run.steps
    )
