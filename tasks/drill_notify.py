"""notify, of a drill: nothing of it is left, what it found is written down, and whoever is to know is told."""

from __future__ import annotations

from larder import notifiers
from larder.errors import LarderError
from larder.ledger.drills import Drill
from larder.notifiers import Notice
from tasks.restoration import scratch_of
from tasks.step import Work, step, stored
from tasks.telling import notice_of


@step("notify", "drill", spares=stored)
def notify(work: Work) -> None:
    """Close the drill, however it went. A notice that can't be sent never changes what was found."""
    failed = work.run.state == "failed"
    gone = _clear_up(work) if failed else True
    drill = work.ledger.drills.close(work.run)
    if failed and _counts_no_more(work, drill):
        work.complain(f"Backup {drill.backup} counts no more: none of its copies is good")
    notice = _notice(work, drill)
    for problem in notifiers.tell(work.settings.notifiers.values(), notice):
        work.warn(problem)
    if gone:
        work.spool.remove()
    if not failed:
        work.say("Drill completed successfully!")


def _counts_no_more(work: Work, drill: Drill) -> bool:
    """Whether fetching it has shown the last copy of the backup to be damaged."""
    backup = work.ledger.backups.get(drill.backup)
    return drill.outcome == "failed" and backup is not None and backup.proof == "broken"


def _clear_up(work: Work) -> bool:
    """Remove what was built. Where that can't be done now, the folder in the spool stays, and the guard tries again."""
    try:
        scratch_of(work).drop()
    except LarderError as error:
        work.complain(f"What this drill has left could not be removed yet: {error.message}")
        return False
    return True


def _notice(work: Work, drill: Drill) -> Notice:
    return notice_of(
        work.run,
        work.ledger.backups.get(drill.backup),
        about="drill",
        backup=drill.backup,
        outcome=drill.outcome,
        level=drill.level,
        tables=drill.tables,
        rows=drill.rows,
        recovery_seconds=drill.recovery_seconds,
        differences=tuple(drill.differences or ()),
    )
