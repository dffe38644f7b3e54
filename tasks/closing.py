"""How restores end: what was built beside a target is removed, and a request learns how it went."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from larder.errors import LarderError
from larder.ledger.requests import Request
from larder.ledger.runs import Run
from larder.restore_target import restorer_for
from larder.restoring import Restorer
from larder.spool import Spool
from tasks import context

#: The folder of a run's spool in which restorers note what they are about.
SCRATCH = "scratch"


def restorer_of(request: Request) -> Restorer:
    """What carries a request out; raises `NotAuthorisedError` where its target leads elsewhere now."""
    return restorer_for(context.settings(), request.document)


def remove_leftover(request: Request) -> bool:
    """Remove what `load` has built and no swap used, and note that; says whether there was anything."""
    there = restorer_of(request).drop_new()
    context.ledger().requests.note_leftover(request.id, there=False)
    return there


def recover_swap(request: Request, run: Run) -> bool:
    """Write down an exchange that was made, and not written down, by whoever was lost then; says whether there was one.

    Whether it was, the target alone can tell.
    """
    if not request.swapping:
        return False
    restorer, requests = restorer_of(request), context.ledger().requests
    scratch = Spool(context.settings().spool_dir, run.id).folder / SCRATCH
    if request.undoes and restorer.beside:
        # Names alone do not tell an undo from what was there before it; undoing again finds it done.
        made, kept = False, None
    else:
        made, kept = restorer.swapped(run.stamp, scratch)
    if made:
        life = timedelta(seconds=request.document.keep_replaced)
        until = datetime.now(UTC) + life if kept or request.safety else None
        requests.record_swap(request, kept, until)
    else:
        requests.note_no_swap(request.id)
    return made


def clear_up(request: Request, run: Run) -> tuple[bool, bool]:
    """See to what a failed restore has left; says whether its exchange was made, and whether something was removed.

    Nothing is removed before it is known that the exchange was not made. Raises what the target raises: whoever is told
    of that leaves the request as it is, and the guard asks again.
    """
    if recover_swap(request, run):
        return True, False
    return False, request.leftover and remove_leftover(request)


def empty_spool(request_id: str, run: Run) -> None:
    """Remove what a restore and its safety backup have in the spool, unless it still has to tell of an exchange."""
    ledger, spool_dir = context.ledger(), context.settings().spool_dir
    for part in ledger.runs.parts_of(run.id):
        Spool(spool_dir, part.id).remove()
    if not ledger.requests.get(request_id).swapping:
        Spool(spool_dir, run.id).remove()


def abandon(request: Request, run_id: str, error: LarderError) -> None:
    """End a restore from outside, whose worker is gone: nothing half-built stays, and nothing of it in the spool."""
    ledger = context.ledger()
    ledger.runs.abandon(run_id, error)
    run = ledger.runs.get(run_id)
    try:
        clear_up(ledger.requests.get(request.id), run)
    finally:
        ledger.requests.finish(request, failed=error.message)
        empty_spool(request.id, run)
