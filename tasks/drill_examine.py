"""examine, of a drill: what came back is what was there, and the backup is proven; or it is not, and is broken."""

from __future__ import annotations

from larder.drilling import Examination
from larder.errors import IntegrityError
from larder.ledger.drills import Finding, Outcome
from tasks.examine import SHOWN
from tasks.restoration import content_of, scratch_of
from tasks.step import Work, step


@step("examine", "drill")
def examine(work: Work) -> None:
    """Compare the scratch database with the backup's fingerprint, and run the database's `checks`.

    A difference says that the backup is broken. A check that is not true says nothing of the kind: it may ask for what
    was not there yet when an older backup was made.
    """
    drill = work.ledger.drills.get(work.run.id)
    found = scratch_of(work).examine(content_of(work), work.progress)
    finding = _finding(found)
    work.also = lambda connection: work.ledger.drills.record(connection, work.run.id, drill.backup, finding)
    if finding.differences:
        shown = "; ".join(finding.differences[:SHOWN])
        more = f"; and {len(finding.differences) - SHOWN} more" if len(finding.differences) > SHOWN else ""
        what = "what came back is not what was backed up: " if found.differences else ""
        raise IntegrityError(
            f"unable to prove backup {drill.backup}: {what}{shown}{more}",
            "see what the backup leaves out, make another, and keep the earlier ones"
            if found.differences
            else "mend the check, or see what is wrong with the database; the backup itself counts as before",
        )
    tables = f"{found.tables} table{'' if found.tables == 1 else 's'}"
    work.say(f"Backup {drill.backup} proven ({found.level}): {tables}, {found.rows} rows, no difference")
    for line in found.not_covered:
        work.say(f"Not covered: {line}")


def _finding(found: Examination) -> Finding:
    outcome: Outcome = "broken" if found.differences else "failed" if found.failed_checks else "proven"
    return Finding(
        outcome,
        found.level,
        found.tables,
        found.rows,
        found.differences + found.failed_checks,
        found.not_covered,
    )
