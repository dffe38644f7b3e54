"""swap: the new database takes the live one's place, by its name, in one move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from larder.errors import BusyError, HeldError, NotAuthorisedError
from larder.restoring import Kept
from tasks.restoration import Restoration, compared, content_of, restoration
from tasks.step import Work, step

#: A server that is lost at the very commit has to be asked, once it is back, whether it was made: for some minutes.
TRIES = 12


@step("swap", "restore", tries=TRIES)
def swap(work: Work) -> None:
    """Exchange names. What was live stays beside, so that the restore can be undone, for `keep_replaced`.

    Killed before its commit in the ledger, it finds the exchange done, and writes down what is kept.
    """
    found = restoration(work)
    life = timedelta(seconds=found.request.document.keep_replaced)
    # Nobody else may be at it while names are exchanged; and whoever ends this restore in our place has to look first.
    work.ledger.leases.renew(work.lease)
    work.ledger.requests.begin_swap(found.request.id)
    try:
        kept = _exchange(work, found)
    except BusyError as error:
        # Whoever was told to stop an application may need a few seconds more.
        raise HeldError(error.message, error.hint) from None
    until = datetime.now(UTC) + life if kept or found.request.safety else None

    def record(connection: sa.Connection) -> None:
        work.ledger.requests.swapped(connection, found.request, kept, until)

    work.also = record
    if until:
        day = until.strftime("%Y-%m-%d %H:%M UTC")
        name = kept.name if kept else f"safety backup {found.request.safety}"
        work.say(f"What was there is kept as {name} until {day}: larder restore undo {found.request.id}")


def _exchange(work: Work, found: Restoration) -> Kept | None:
    if found.request.undoes and found.restorer.beside:
        return _put_back(work, found)
    work.progress.restart()
    kept = found.restorer.swap(content_of(work), work.run.stamp, work.progress, work.say)
    if not found.restorer.beside:
        work.say(f"Contents examined before the commit: {compared(work)}")
    return kept


def _put_back(work: Work, found: Restoration) -> Kept:
    before = work.ledger.requests.get(found.request.undoes or "")
    if before.kept is None:
        raise NotAuthorisedError(
            f"unable to undo request {before.id}: what it replaced is kept no longer",
            "see: larder restore list",
        )
    return found.restorer.undo(before.kept, work.run.stamp, work.say)
