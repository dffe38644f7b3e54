"""Notices about runs: what those of every kind say alike; and that a backup begins, and is over."""

from __future__ import annotations

from typing import Any

from celery.utils.dispatch import Signal

from larder import notifiers
from larder.config import Settings
from larder.ledger import Ledger
from larder.ledger.backups import Backup
from larder.ledger.runs import Run, good_end
from larder.manifest_fields import TIME
from larder.notifiers import Notice, NotifierSettings
from larder.restore_request import RestoreRequest

#: Sent with the `run` of a backup as its dump begins, and as people are told how it ended. Whoever listens is quick;
#: what it raises is written into the log, and fails nothing.
run_began = Signal(name="run_began", providing_args={"run"})
run_ended = Signal(name="run_ended", providing_args={"run"})


def notice_of(run: Run, made: Backup | None, /, **more: Any) -> Notice:
    """How `run` went, whose backup is `made`, where there is one; `more` are further fields of the notice."""
    told: dict[str, Any] = {
        "event": "failure" if run.state == "failed" else "success",
        "database": run.database,
        "run": run.id,
        "artifact": made.artifact if made else None,
        "size": made.size if made else None,
        "seconds": run.seconds,
        "created": (made.created if made else run.created).strftime(TIME),
        "proof": made.proof if made else None,
        "warnings": tuple(run.warnings),
        "step": run.failed_step,
        "error": run.error,
        "hint": run.hint,
    }
    return Notice(**(told | more))


def of_drill(ledger: Ledger, run: Run) -> Notice:
    """How a drill went, and what it found."""
    drill = ledger.drills.get(run.id)
    return notice_of(
        run,
        ledger.backups.get(drill.backup),
        about="drill",
        backup=drill.backup,
        outcome=drill.outcome,
        level=drill.level,
        tables=drill.tables,
        rows=drill.rows,
        recovery_seconds=drill.recovery_seconds,
        differences=tuple(drill.differences or ()),
    )


def begun(settings: Settings, run: Run) -> list[str]:
    """Tell whoever counts runs that a backup begins; gives what went wrong, a line each."""
    run_began.send(sender=None, run=run)
    return notifiers.tell(settings.notifiers.values(), notice_of(run, None, event="start"))


def of_each(settings: Settings, notice: Notice) -> list[tuple[NotifierSettings, Notice]]:
    """The messages to whoever hears of each run by itself: of failures, who counts runs. The others hear of many
    failures together, by `announcing`.
    """
    each = notice.event != "failure"
    return notifiers.wanting([one for one in settings.notifiers.values() if each or not one.grouped], notice)


def note_failure(ledger: Ledger, run: Run) -> bool:
    """Write down that a backup or drill has failed, of which people hear by that; False where a later one went well.

    The last link may lie in the queue of a host that is away, while later runs come to their end elsewhere.
    """
    over = ledger.runs.latest(run.database, kind=run.kind, over=True)
    later = next((one for one in over if one.parent is None and one.created > run.created), None)
    well = later is not None and later.state == good_end(run.kind)
    if later is None or well:
        ledger.misses.fail(
            run.database, run.kind, run.error or "", run=run.id, step=run.failed_step, hint=run.hint
        )
    if well:
        ledger.misses.recover(run.database, run.kind)
    return not well


def asked(settings: Settings, request: RestoreRequest, database: str) -> list[str]:
    """Tell whoever hears of restores that somebody wants one; gives what went wrong, a line each."""
    notice = Notice(
        event="asked",
        database=database,
        run="",
        artifact=request.wanted.artifact,
        size=request.wanted.size,
        seconds=0,
        created=request.requested,
        proof=request.wanted.proof,
        hint=f"larder restore approve {request.request} --key NAME.approver.key; or larder restore deny "
        f"{request.request}. It can be approved until {request.expires}",
        about="restore",
        request=request.request,
        requester=request.requester,
        reason=request.reason,
        target=request.into.address,
        backup=request.wanted.backup,
    )
    return notifiers.tell(settings.notifiers.values(), notice)
