"""notify, of a restore: what is left over is removed, the request is closed, and whoever is to know is told."""

from __future__ import annotations

from larder import notifiers
from larder.errors import LarderError
from larder.ledger.requests import Request
from larder.notifiers import Notice
from tasks.closing import clear_up, empty_spool
from tasks.step import Work, step, stored
from tasks.telling import notice_of


@step("notify", "restore", spares=stored)
def notify(work: Work) -> None:
    """Close the restore, however it went. A notice that can't be sent never fails it."""
    request = work.ledger.requests.of_run(work.run.id)
    failed = work.run.state == "failed"
    if failed:
        _clear_up(work, request)
    cause = f"at step {work.run.failed_step}: {work.run.error}" if failed else None
    work.ledger.requests.finish(request, failed=cause)
    for problem in notifiers.tell(work.settings.notifiers.values(), _notice(work, request)):
        work.warn(problem)
    empty_spool(request.id, work.run)
    if not failed:
        work.say("Restore completed successfully!")


def _clear_up(work: Work, request: Request) -> None:
    """Remove what was built, unless it is live all the same. Where the target does not answer, the guard asks again."""
    try:
        made, removed = clear_up(request, work.run)
    except LarderError as error:
        work.complain(f"What this restore has left could not be seen to yet: {error.message}")
        return
    if made:
        work.complain(
            f"The restored database is live all the same. To go back: larder restore undo {request.id}"
        )
    if removed:
        work.say("What had been built beside the live database was removed; the live one is as it was")


def _notice(work: Work, request: Request) -> Notice:
    wanted = request.document.wanted
    return notice_of(
        work.run,
        None,
        artifact=wanted.artifact,
        size=wanted.size,
        created=wanted.created,
        proof=wanted.proof,
        about="restore",
        request=request.id,
        target=request.document.into.address,
        undoes=request.undoes or "",
    )
