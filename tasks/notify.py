"""notify: whoever is to know is told how it went, and the run is over."""

from __future__ import annotations

from larder import notifiers
from larder.ledger.runs import Run
from larder.notifiers import Notice
from tasks.step import Work, step, stored


@step("notify", spares=stored)
def notify(work: Work) -> None:
    """Tell the notifiers about the run, success or failure. A notice that can't be sent never fails a backup."""
    failed = work.run.state == "failed"
    notice = _notice(work, failed=failed)
    # A store that has no copy is a failure to whoever wants to hear of failures, though the backup stands.
    events = ["failure" for link in work.run.uploads if link.state == "failed"]
    for problem in notifiers.tell(work.settings.notifiers.values(), notice, events):
        work.warn(problem)
    work.spool.remove()
    if not failed:
        work.say("Backup completed successfully!")


def _notice(work: Work, *, failed: bool) -> Notice:
    run: Run = work.run
    backup = work.ledger.backups.get(run.backup)
    return Notice(
        event="failure" if failed else "success",
        database=run.database,
        run=run.id,
        artifact=run.artifact,
        size=backup.size if backup else None,
        seconds=run.seconds,
        created=(backup.created if backup else run.created).strftime("%Y-%m-%dT%H:%M:%SZ"),
        proof=backup.proof if backup else None,
        stores=tuple(sorted(backup.copies)) if backup else (),
        warnings=tuple(run.warnings),
        step=run.failed_step,
        error=run.error,
        hint=run.hint,
    )
