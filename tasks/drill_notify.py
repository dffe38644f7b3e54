"""notify, of a drill: nothing of it is left, what it found is written down, and whoever is to know is told."""

from __future__ import annotations

from larder.errors import LarderError
from larder.ledger.drills import Drill
from tasks import announcing, telling
from tasks.restoration import scratch_of
from tasks.step import Work, step, stored


@step("notify", "drill", spares=stored)
def notify(work: Work) -> None:
    """Close the drill, however it went. A notice that can't be sent never changes what was found."""
    failed = work.run.state == "failed"
    gone = _clear_up(work) if failed else True
    drill = work.ledger.drills.close(work.run)
    if failed and _counts_no_more(work, drill):
        work.complain(f"Backup {drill.backup} counts no more: none of its copies is good")
    _note(work)
    for problem in announcing.announce(
        also=telling.of_each(work.settings, telling.of_drill(work.ledger, work.run))
    ):
        work.warn(problem)
    if gone:
        work.spool.remove()
    if not failed:
        work.say("Drill completed successfully!")


def _note(work: Work) -> None:
    """Write down that it has failed, or that one has gone well again: people hear of it by that."""
    if work.run.state == "failed":
        telling.note_failure(work.ledger, work.run)
    else:
        work.ledger.misses.recover(work.run.database, "drill")


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
