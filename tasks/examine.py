"""examine: what was loaded is what the backup's fingerprint says, and what the configuration asks of it."""

from __future__ import annotations

from larder.errors import IntegrityError
from tasks.restoration import compared, content_of, restoration
from tasks.step import Work, step

#: How many differences a message names.
SHOWN = 20


@step("examine", "restore")
def examine(work: Work) -> None:
    """Compare table by table, and run the `checks`. Nothing was replaced yet, and nothing is where anything differs."""
    found = restoration(work)
    differences = found.restorer.examine(content_of(work), work.progress)
    if differences:
        shown = "; ".join(differences[:SHOWN])
        more = f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise IntegrityError(
            f"unable to accept what was restored from {found.request.backup}: {shown}{more}",
            "nothing was replaced; restore an earlier backup (larder list), or mend the check that is not true",
        )
    if found.restorer.beside:
        work.say(f"Restored database examined: {compared(work)}")
