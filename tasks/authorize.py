"""authorize: the approval is taken, once; and what was approved is still so."""

from __future__ import annotations

from datetime import UTC, datetime

from larder.errors import NotAuthorisedError
from larder.ledger.requests import WORKER, Request
from larder.ledger.runs import QUEUE_PATIENCE
from larder.progress import human_size
from larder.restoring import Target
from tasks import context
from tasks.restoration import restoration
from tasks.step import Work, step

_AGAIN = "ask for it again: larder restore request"


@step("authorize", "restore")
def authorize(work: Work) -> None:
    """Take the approval that began this run, after a last look at whose it is and at what it is for."""
    try:
        request = work.ledger.requests.of_run(work.run.id)
        approver = _undone(work, request) if request.undoes else _approver(work, request)
        _see_that_it_is_this_host(request)
        found = restoration(work)
        target = found.restorer.look()
        _see_that_it_is_as_approved(request, target)
        # By this run alone; one that was killed right here has taken it already.
        work.ledger.requests.spend(work.run.id)
    except NotAuthorisedError as error:
        work.ledger.audit.write(
            "refused", work.ledger.requests.of_run(work.run.id).id, WORKER, why=error.message
        )
        raise
    what = f"Undo of restore {request.undoes} in" if request.undoes else f"Restore of {request.backup} into"
    work.say(f"{what} {target.description}, {approver}")
    if target.size is not None and request.document.replacing:
        work.say(f"It replaces what is there now: {human_size(target.size)}")


def _approver(work: Work, request: Request) -> str:
    granted = work.ledger.requests.granted(work.run.id)
    if granted is None:
        raise NotAuthorisedError(f"unable to restore by request {request.id}: nobody has approved it", _AGAIN)
    if work.settings.approver_keys.get(granted.approver) != granted.public_key:
        raise NotAuthorisedError(
            f"unable to restore by request {request.id}: the key that approved it is none of this worker's approvers",
            "it was removed since, or the workers' larder.toml differs from where the approval was handed in",
        )
    if granted.document != request.document.digest:
        raise NotAuthorisedError(
            f"unable to restore by request {request.id}: its document is not the one that was approved",
            "somebody has changed the ledger: see larder audit list",
        )
    if granted.spent is None and datetime.now(UTC) - granted.presented > QUEUE_PATIENCE:
        raise NotAuthorisedError(
            f"unable to restore by request {request.id}: its approval was handed in at "
            f"{granted.presented:%Y-%m-%d %H:%M} UTC, and no worker has begun within an hour",
            "see that workers are running, and ask for it again",
        )
    return f"approved by {granted.approver}"


def _see_that_it_is_this_host(request: Request) -> None:
    """A file's name, or a loopback address, means another database on every host."""
    host = request.document.into.host
    if host is not None and host != context.host():
        raise NotAuthorisedError(
            f"unable to restore into {request.document.into.address} here: that of host {host} was approved",
            "ask for it on the host that it is on",
        )


def _undone(work: Work, request: Request) -> str:
    """The restore that is taken back was approved, and can be taken back still."""
    before = work.ledger.requests.get(request.undoes or "")
    if not before.undoable:
        raise NotAuthorisedError(
            f"unable to undo request {before.id}: what it replaced is kept no longer",
            "see: larder restore list",
        )
    return f"asked for by {request.document.requester}"


def _see_that_it_is_as_approved(request: Request, target: Target) -> None:
    replaces = request.document.into.replaces
    if target.exists == (replaces is not None) or request.undoes:
        return
    now = (
        "is a database there now, which nobody has approved to replace"
        if target.exists
        else "is none there any more"
    )
    raise NotAuthorisedError(f"unable to restore into {target.description}: there {now}", _AGAIN)
