"""recovery: runs whose worker, message or host was lost go on, or end and are told. The guard has it done each minute.

What a step has made is found by its next attempt: a finished folder in the spool, parts of an upload in a bucket. A
step that has cost its worker too often ends the run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime

from larder.errors import BusyError, LarderError
from larder.ledger.leases import LAST_STEP
from larder.ledger.losses import MOST_ATTEMPTS
from larder.ledger.runs import QUEUE_PATIENCE, SWAP, Run
from tasks import backup, chain, context, drill, queues, swap
from tasks.step import logger, tell

#: Why a run began in the place of another, whose host is gone.
INSTEAD = "instead"


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


def leave_stranded() -> int:
    """End runs whose host is gone, and begin others in their place; gives how many.

    Another run has files of another name: whatever a host writes that was only away for long is in nobody's way.
    """
    ledger, begun = context.ledger(), 0
    for run in ledger.losses.stranded():
        if _is_kept(run):
            # What is left to do takes nothing that lies in its spool.
            if ledger.losses.take_up(run):
                ledger.losses.unpin(run.id)
                _go_on(ledger.runs.get(run.id))
            continue
        outer = ledger.runs.get(run.parent) if run.parent else run
        gone = LarderError(
            f"its host {run.host} is gone: none of its workers was heard of",
            "see whether that machine is up; what lies in its spool is removed once it is back",
        )
        if ledger.losses.leave(outer, gone):
            tell(ledger.runs.get(outer.id), gone)
            begun += _replace(outer)
    return begun


def _is_kept(run: Run) -> bool:
    """Whether a backup has all the copies that it will have."""
    uploads = run.uploads
    return run.parent is None and bool(uploads) and all(link.state in ("done", "failed") for link in uploads)


def _replace(run: Run) -> bool:
    """Begin another run in the place of one whose host is gone. Once: the next one may be what hosts die of."""
    if run.kind == "restore" or run.trigger == INSTEAD:
        return False
    try:
        if run.kind == "drill":
            new = drill.start(context.ledger().drills.get(run.id).backup, INSTEAD)
        else:
            new = backup.start(run.database, INSTEAD)
    except BusyError:
        return False
    logger.warning("run %s of %s begins in the place of %s, whose host is gone", new.id, run.database, run.id)
    return True


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
            "see the worker's log and the system's (out of memory?)",
        )
        context.ledger().runs.abandon(run.id, error)
        tell(run, error)
        return False
    logger.warning("run %s of %s was lost at step %s and goes on", run.id, run.database, step.name)
    chain.send(run, step.name, step.store)
    return True
