"""How restores end: what was built beside a target is removed, and a request learns how it went."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from larder.databases import open_restorer
from larder.errors import LarderError
from larder.ledger.requests import Request
from larder.ledger.runs import Run
from larder.restore_target import settings_for
from larder.restoring import Restorer
from larder.spool import Spool
from tasks import context

#: The folder of a run's spool in which restorers note what they are about.
SCRATCH = "scratch"


def restorer_of(request: Request) -> Restorer:
    """What carries a request out; raises `NotAuthorisedError` where its target leads elsewhere now."""
    document = request.document
    source = document.wanted.backup.partition("/")[0]
    return open_restorer(settings_for(context.settings(), document.into, source), document.plan)


def remove_leftover(request: Request) -> bool:
    """Remove what `load` has built and no swap used, and note that; says whether there was anything."""
    there = restorer_of(request).drop_new()
    context.ledger().requests.note_leftover(request.id, there=False)
    return there


def recover_swap(request: Request, run: Run) -> bool:
    """Write down an exchange that was made, and not written down, by whoever was lost then; says whether there was one.

    Whether it was, the target alone can tell.
    """
    if not request.swapping or request.undoes:
        return False
    scratch = Spool(context.settings().spool_dir, run.id).folder / SCRATCH
    made, kept = restorer_of(request).swapped(run.stamp, scratch)
    if made:
        life = timedelta(seconds=request.document.keep_replaced)
        until = datetime.now(UTC) + life if kept or request.safety else None
        context.ledger().requests.record_swap(request, kept, until)
    return made


def abandon(request: Request, run_id: str, error: LarderError) -> None:
    """End a restore from outside, whose worker is gone: nothing half-built stays, and nothing of it in the spool."""
    ledger, settings = context.ledger(), context.settings()
    ledger.runs.abandon(run_id, error)
    try:
        now = ledger.requests.get(request.id)
        if not recover_swap(now, ledger.runs.get(run_id)) and now.leftover:
            remove_leftover(request)
    finally:
        ledger.requests.finish(request, failed=error.message)
        for ended in (run_id, *(part.id for part in ledger.runs.parts_of(run_id))):
            Spool(settings.spool_dir, ended).remove()
