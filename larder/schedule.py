"""When a database is due: cron expressions in a time zone, and the slots that they make.

A slot is the nominal time of a scheduled run. Two schedulers that fire for the same slot make one backup, because
the ledger holds each (database, slot) once. Cron semantics, daylight saving included, are cronsim's, which
follows Debian's cron.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError


def problem_with(expression: str) -> str | None:
    """What is wrong with a five-field cron expression, or None."""
    if len(expression.split()) != 5:
        return "a schedule has five fields: minute hour day month weekday"
    try:
        next(CronSim(expression, datetime.now(UTC)))
    except CronSimError as error:
        return str(error).lower()
    except StopIteration:
        return "never comes round"
    return None


def next_slot(expression: str, timezone: str, after: datetime) -> datetime:
    """The first slot later than `after`, in UTC."""
    return next(CronSim(expression, after.astimezone(ZoneInfo(timezone)))).astimezone(UTC)


def latest_slot(expression: str, timezone: str, now: datetime) -> datetime:
    """The last slot that is not later than `now`, in UTC."""
    just_after = (now + timedelta(minutes=1)).astimezone(ZoneInfo(timezone)).replace(second=0, microsecond=0)
    return next(CronSim(expression, just_after, reverse=True)).astimezone(UTC)


def offset(database: str, spread: float) -> timedelta:
    """How long after its slot a database starts: the same for each slot, even over `spread` seconds.

    A thousand databases with one schedule then do not start in one second. The share comes from the name, so
    that every scheduler finds the same one.
    """
    share = int.from_bytes(hashlib.sha256(database.encode()).digest()[:4]) / 2**32
    return timedelta(seconds=round(share * spread))
