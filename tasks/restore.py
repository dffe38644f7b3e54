"""The entry of a restore: a request and an approval in, a run in the ledger and a chain on its way out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from celery import shared_task

from larder import approval
from larder.config import Settings
from larder.errors import BusyError, LarderError, NotAuthorisedError, NotFoundError
from larder.ledger.requests import Request
from larder.ledger.runs import RESTORE_STEPS, SAFETY, Run
from larder.restore_request import RestoreRequest
from larder.restore_target import restorer_for
from tasks import chain, context, queues

#: The links of a restore that takes another back by exchanging names once more.
UNDO_STEPS = ("authorize", "swap", "notify")


@shared_task(name="restore")
def restore(request: str, token: str) -> str:
    """Carry out a restore that was asked for and approved; gives the run's id.

    `celery -A workers call restore --kwargs '{"request": "…", "token": "…"}'`. The token has crossed Redis then: it is
    spent before anything else happens. `larder restore run` sends no token.
    """
    # Anybody chooses what a message holds.
    return start(ascii(request)[1:-1], str(token), "celery call").id


def start(request_id: str, token: str, by: str) -> Run:
    """Hand in an approval, and send the chain of the restore that it approves; `by` is who does.

    Raises `NotFoundError`, `NotAuthorisedError`, which is audited, `BusyError`, and `UnreachableError` when the broker
    does not take the chain; the request has failed then.
    """
    ledger, settings = context.ledger(), context.settings()
    try:
        request = ledger.requests.get(request_id)
    except NotFoundError as error:
        ledger.audit.write("refused", None, by, why=error.message[:200])
        raise
    try:
        given = approval.verify(
            token, request.document, settings.approver_keys, settings.token_life, datetime.now(UTC)
        )
        places = safety_places(settings, request.document)
        steps = steps_of(settings, request.document, safety=places is not None)
        _see_that_it_can_begin(settings, request)
        run = ledger.requests.present(request.id, given, steps, holds(request), places)
    except NotAuthorisedError as error:
        ledger.audit.write("refused", request.id, by, why=error.message)
        raise
    return send(run, request)


def _see_that_it_can_begin(settings: Settings, request: Request) -> None:
    """Refuse what cannot begin now, before the approval is spent: a target that is away, or a file that is in use.

    A file that is another host's cannot be seen from here; its worker finds out.
    """
    restorer = restorer_for(settings, request.document)
    found = restorer.look()
    if restorer.local and found.sessions and found.exists:
        raise BusyError(
            f"unable to restore into {found.description}: it is in use by {'; '.join(found.sessions)}",
            "stop the application, and hand the same token in again: it is not spent",
        )
    # An approval that is spent on a chain that cannot be sent is lost.
    queues.see_that_broker_answers()


def send(run: Run, request: Request) -> Run:
    """Send the chain of a restore that was begun; closes it where it cannot be sent."""
    ledger = context.ledger()
    try:
        chain.send(run)
    except Exception as error:
        known = (
            error
            if isinstance(error, LarderError)
            else LarderError(f"unable to send: {type(error).__name__}")
        )
        ledger.runs.abandon(run.id, known)
        ledger.requests.finish(ledger.requests.get(request.id), failed=known.message)
        raise
    return run


def holds(request: Request) -> str:
    """What no other run may touch while this one is at it: the configured database, or else the address."""
    return request.document.into.database or request.document.into.address


def steps_of(settings: Settings, document: RestoreRequest, *, safety: bool) -> tuple[str, ...]:
    """The links of a restore. Where nothing is built beside the live database, `post_restore` comes after the swap."""
    steps = [step for step in RESTORE_STEPS if step != SAFETY or safety]
    if not restorer_for(settings, document).beside:
        steps.remove("migrate")
        steps.insert(steps.index("swap") + 1, "migrate")
    return tuple(steps)


def safety_places(settings: Settings, document: RestoreRequest) -> Sequence[str] | None:
    """The stores that the safety backup goes into; None where there is nothing to be backed up, or it is not wanted."""
    into = document.into
    if not document.safety_backup or into.replaces is None or into.database is None:
        return None
    return [store.name for store in settings.stores_of(settings.database(into.database))]
