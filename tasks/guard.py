"""guard: runs that were lost go on, what has failed is told, and what is kept too long is let go."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import sqlalchemy as sa
from celery import current_app, shared_task

from larder import pins
from larder.errors import LarderError
from larder.ledger.leases import LAST_STEP
from larder.ledger.requests import Request
from larder.stores import open_store
from tasks import (
    admission,
    announcing,
    context,
    drill,
    drill_closing,
    objectives,
    overdue,
    queues,
    recovery,
    sweep,
)
from tasks.closing import clear_up, empty_spool, restorer_of
from tasks.step import logger

#: Seconds after which a message that nobody took is not needed any more: the next guard sends another.
_MINUTE = 60


@shared_task(name="guard")
def guard() -> int:
    """Have lost runs go on; gives how many. Then see to what is over. However many guards there are, one acts."""
    taken_up = _each(
        recovery.take_up_expired, recovery.send_lying, recovery.leave_stranded, admission.send_waiting
    )
    _each(recovery.tell_untold, _settle, drill_closing.settle)
    _each(drill.start_owed, drill_closing.begin_due, _hold_to_objectives)
    tidy()
    _have_others_tidy()
    return taken_up


@shared_task(name="tidy")
def tidy() -> None:
    """Let go of what runs have left on this host, or keep no longer. So do commands with a worker of their own."""
    _each(_remove_leftovers, _let_go, drill_closing.clear_up, sweep.sweep, _tell_all)


def _tell_all() -> None:
    """Have people hear of the rest where no guard tells them later: a command that brings its own worker ends now."""
    if context.ledger().runs.alone:
        for problem in announcing.announce(at_once=True):
            logger.error("%s", problem)


def _have_others_tidy() -> None:
    """Have every other host do the same for what lies on it. One that does not take it in time gets the next."""
    ledger, now, own = context.ledger(), datetime.now(UTC), context.host()
    ledger.hosts.forget()
    for host in ledger.hosts.known().values():
        if host.id != own and host.answers(now):
            current_app.send_task("tidy", queue=queues.host_queue(host.id), expires=_MINUTE)


def _hold_to_objectives() -> int:
    return overdue.begin(objectives.watch())


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


def _settle() -> None:
    """Close restores that people were told of, and that nobody has closed: somebody has sent that link by itself."""
    ledger = context.ledger()
    for request in ledger.requests.in_state("running"):
        run = ledger.runs.get(request.run or "")
        if run.over and run.step_named(LAST_STEP).state in ("done", "failed"):
            ledger.requests.finish(request, failed=run.error if run.state == "failed" else None)


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
