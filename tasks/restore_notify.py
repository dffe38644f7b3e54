"""notify, of a restore: what is left over is removed, the request is closed, and whoever is to know is told."""

from __future__ import annotations

from larder.errors import LarderError
from larder.ledger.requests import Request
from larder.notifiers import Notice, open_notifier
from larder.spool import Spool
from tasks.closing import recover_swap, remove_leftover
from tasks.step import Work, step, stored


@step("notify", kind="restore", spares=stored)
def notify(work: Work) -> None:
    """Close the restore, however it went. A notice that can't be sent never fails it."""
    request = work.ledger.requests.of_run(work.run.id)
    failed = work.run.state == "failed"
    if failed and not _recovered(work, request) and request.leftover:
        _remove_leftover(work, request)
    cause = f"at step {work.run.failed_step}: {work.run.error}" if failed else None
    work.ledger.requests.finish(request, failed=cause)
    _tell(work, request, failed=failed)
    for part in work.ledger.runs.parts_of(work.run.id):
        Spool(work.settings.spool_dir, part.id).remove()
    work.spool.remove()
    if not failed:
        work.say("Restore completed successfully!")


def _recovered(work: Work, request: Request) -> bool:
    """Whether the exchange was made after all, before whoever made it was lost. It is written down then."""
    try:
        made = recover_swap(request, work.run)
    except LarderError as error:
        work.complain(f"Whether the restored database is live could not be seen yet: {error.message}")
        # Nothing is removed before that is known.
        return True
    if made:
        work.complain(
            f"The restored database is live all the same. To go back: larder restore undo {request.id}"
        )
    return made


def _remove_leftover(work: Work, request: Request) -> None:
    """Remove what `load` built. Where the target does not answer, the guard tries again later."""
    try:
        if remove_leftover(request):
            work.say("What had been built beside the live database was removed; the live one is as it was")
    except LarderError as error:
        work.complain(
            f"What had been built beside the live database could not be removed yet: {error.message}"
        )


def _tell(work: Work, request: Request, *, failed: bool) -> None:
    notice = _notice(work, request, failed=failed)
    for settings in work.settings.notifiers.values():
        if notice.event not in settings.on:
            continue
        try:
            open_notifier(settings).send(notice)
        except LarderError as error:
            work.warn(f"{settings.name} could not be told: {error.message}")


def _notice(work: Work, request: Request, *, failed: bool) -> Notice:
    run, wanted = work.run, request.document.wanted
    return Notice(
        event="failure" if failed else "success",
        database=run.database,
        run=run.id,
        artifact=wanted.artifact,
        size=wanted.size,
        seconds=run.seconds,
        created=wanted.created,
        proof=wanted.proof,
        warnings=tuple(run.warnings),
        step=run.failed_step,
        error=run.error,
        hint=run.hint,
        about="restore",
        request=request.id,
        target=request.document.into.address,
    )
