"""Check-ins for Sentry's crons: one monitor a database, which says when a backup was due and did not come.

A monitor is made by its first check-in, of the database's own schedule. What is told is the name, the schedule, and how
long it took; it passes through `larder.secret` as errors do.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from typing import Any

from larder.config import DatabaseSettings
from larder.errors import NotFoundError
from larder.ledger.runs import BACKUP_STEPS, Run
from tasks import context, telling

#: Minutes that a backup may begin late, beside the time that starts are spread over: messages wait in queues.
_LATE = 5

#: Minutes that Sentry lets a monitor take or be late at most; it takes no check-in of one that asks for more.
#: https://github.com/getsentry/sentry/blob/master/src/sentry/monitors/constants.py
_MOST = 28 * 24 * 60

#: Characters that Sentry takes in a monitor's name.
_LONGEST = 50

#: Seconds that the last check-in may take: the process may be gone a moment later.
_PATIENCE = 2

#: What the ids of check-ins are made from, so that whoever ends a run knows the one that began it.
_SPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://larder.invalid/runs")


def listen() -> None:
    """Have backups check in from now on; to be called where Sentry has been set up."""
    telling.run_began.connect(_began)
    telling.run_ended.connect(_ended)


def _began(run: Run, **_: Any) -> None:
    _check_in(run, "in_progress")


def _ended(run: Run, **_: Any) -> None:
    import sentry_sdk  # noqa: PLC0415 - slow to import, and of no use without an address

    _check_in(run, "error" if run.state == "failed" else "ok", run.seconds)
    sentry_sdk.flush(_PATIENCE)


def _check_in(run: Run, status: str, seconds: float | None = None) -> None:
    from sentry_sdk.crons import capture_checkin  # noqa: PLC0415 - see `_ended`

    try:
        database = context.settings().database(run.database)
    except NotFoundError:
        # It has left the configuration since the run began: nobody waits for it any more.
        return
    capture_checkin(
        monitor_slug=slug(run.database),
        check_in_id=uuid.uuid5(_SPACE, run.id).hex,
        status=status,
        duration=seconds,
        monitor_config=_monitor(database, context.settings().spread),  # type: ignore[arg-type]
    )


def slug(database: str) -> str:
    """The monitor's name: `larder-shop`. A long one ends in a part of its hash, since Sentry takes 50 characters."""
    whole = f"larder-{database.lower()}"
    if len(whole) <= _LONGEST:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{whole[: _LONGEST - len(digest) - 1]}-{digest}"


def _monitor(database: DatabaseSettings, spread: int) -> dict[str, Any]:
    """When Sentry expects its check-ins. A step may take `time_limit`; without one, a run has until `rpo` is over."""
    limit = database.time_limit
    seconds = min(database.rpo, limit * len(BACKUP_STEPS)) if limit else database.rpo
    return {
        "schedule": {"type": "crontab", "value": database.schedule},
        "timezone": database.timezone,
        "checkin_margin": min(_LATE + math.ceil(spread / 60), _MOST),
        "max_runtime": min(math.ceil(seconds / 60), _MOST),
    }
