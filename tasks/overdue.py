"""overdue: a database whose newest good backup is older than its `rpo` gets a run, whatever became of its schedule."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from larder.errors import BusyError, LarderError, UnreachableError
from larder.objectives import Name, Objective
from tasks import backup, context
from tasks.step import logger

#: Why such a run began.
OVERDUE = "overdue"

#: How long after the last run of a database another one begins: a part of `rpo`, and at least, and at most.
_SHARE = 0.25
_LEAST = timedelta(minutes=10)
_MOST = timedelta(hours=1)

#: How many one guard begins; the next one begins others.
_AT_ONCE = 100


def begin(found: Mapping[str, Mapping[Name, Objective]]) -> int:
    """Begin a run of each database that misses its `rpo`, unless one was tried a while ago; gives how many."""
    missing = [name for name, standing in found.items() if standing["rpo"].met is False]
    latest = context.ledger().standings.begun(missing)
    begun = 0
    for name in missing:
        last = latest.get(name)
        if begun == _AT_ONCE:
            break
        if last is not None and datetime.now(UTC) - last < _pause(context.settings().database(name).rpo):
            continue
        try:
            run = backup.start(name, OVERDUE)
        except (BusyError, UnreachableError) as error:
            logger.info("no backup of '%s' begins: %s", name, error.message)
        except LarderError as error:
            logger.error("unable to begin the backup of '%s', which is overdue: %s", name, error.message)
        else:
            begun += 1
            logger.warning("run %s of '%s' begins: %s", run.id, name, found[name]["rpo"].detail)
    return begun


def _pause(rpo: float) -> timedelta:
    return max(_LEAST, min(_MOST, timedelta(seconds=rpo) * _SHARE))
