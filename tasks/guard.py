"""guard: runs whose worker was killed go on from the step that was open, and what is kept too long is let go."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import sqlalchemy as sa
from celery import shared_task

from larder import pins
from larder.errors import LarderError, UnreachableError
from larder.ledger.leases import LAST_STEP
from larder.ledger.requests import Request
from larder.ledger.runs import SWAP, Run
from larder.stores import open_store
from tasks import chain, context, drill_closing, objectives, swap
from tasks.closing import clear_up, empty_spool, restorer_of
from tasks.step import MAX_TRIES, logger, tell


@shared_task(name="guard")
def guard() -> int:
    """Send the chains of lost runs in this host's spool again; gives how many. Then see to what is over.

    What a step has made is found by its next attempt: a finished folder in the spool, parts of an upload in a bucket. A
    step that has cost its worker too often ends the run. However many guards there are, one of them acts.
    """
    taken_up = _each(_take_up_lost)
    _each(_settle, drill_closing.settle, drill_closing.begin_due, objectives.watch)
    tidy()
    return taken_up


def tidy() -> None:
    """Let go of what restores and drills have left, or keep no longer. So do commands with a worker of their own."""
    _each(_remove_leftovers, _let_go, drill_closing.clear_up)


def _each(*duties: Callable[[], int | None]) -> int:
    """Do each of `duties`: a fault in one keeps nobody from the others. Gives the sum of what they give.

    Raises where the ledger does not answer: nothing can be done without it.
    """
    done = 0
    for duty in duties:
        try:
            done += duty() or 0
        except sa.exc.OperationalError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the others are to be done
            logger.exception("unexpected error while the guard was at %s", duty.__name__.strip("_"))
    return done


def _take_up_lost() -> int:
    runs = context.ledger().runs
    return sum(_take_up(run) for run in runs.lost_on(context.host()) if runs.take_up(run))


def _take_up(run: Run) -> bool:
    step = run.open_step
    if step is None:
        return False
    if step.attempts >= (swap.TRIES if run.kind == "restore" and step.name == SWAP else MAX_TRIES):
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


def _settle() -> None:
    """Have restores closed whose run was ended from outside, or whose last message is lost."""
    ledger = context.ledger()
    for request in ledger.requests.in_state("running"):
        run = ledger.runs.get(request.run or "")
        if not run.over:
            continue
        if run.step_named(LAST_STEP).state in ("done", "failed"):
            # Told about, and not closed: somebody has sent that link by itself.
            ledger.requests.finish(request, failed=run.error if run.state == "failed" else None)
        else:
            try:
                chain.send(run, LAST_STEP)
            except UnreachableError as error:
                logger.error("restore %s is over, and could not be closed: %s", request.id, error.message)


def _remove_leftovers() -> None:
    """See to what failed restores have left at their targets, where those did not answer before."""
    for request in context.ledger().requests.with_leftovers():
        try:
            if _is_elsewhere(request):
                continue
            run = context.ledger().runs.get(request.run or "")
            made, _ = clear_up(request, run)
            empty_spool(request.id, run)
            what = "its restored database is live" if made else "nothing of it is beside the live database"
            logger.info("restore %s failed, and was seen to: %s", request.id, what)
        except LarderError as error:
            logger.error("what restore %s has left could not be seen to: %s", request.id, error.message)


def _let_go() -> None:
    """Let go of what restores replaced once they can be undone no longer, and of the pins of their safety backups."""
    for request in context.ledger().requests.no_longer_kept(datetime.now(UTC)):
        try:
            if _is_elsewhere(request):
                continue
            dropped = restorer_of(request).drop_kept(request.kept) if request.kept else False
            _unpin(request)
        except LarderError as error:
            logger.error("what restore %s replaced could not be let go: %s", request.id, error.message)
            continue
        context.ledger().requests.let_go(request, dropped=dropped)
        name = request.kept.name if request.kept else request.safety
        logger.info("restore %s can be undone no longer: %s was let go", request.id, name)


def _is_elsewhere(request: Request) -> bool:
    """Whether a file was restored on another host, whose own guard sees to it."""
    return restorer_of(request).local and context.ledger().runs.get(request.run or "").host != context.host()


def _unpin(request: Request) -> None:
    known = context.ledger().backups.get(request.safety) if request.safety else None
    if known is None:
        return
    stores = context.settings().stores
    for name, copy in known.copies.items():
        if name in stores:
            pins.unpin_artifact(open_store(stores[name]), copy.key)
    context.ledger().backups.set_pinned(known.id, pinned=False)
