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

#: More than any change of the clocks.
_CHANGE = timedelta(hours=3)


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
    except ValueError:
        # A number with thousands of digits.
        return "a field is out of range"
    return None


def next_slot(expression: str, timezone: str, after: datetime) -> datetime:
    """The first slot later than `after`, in UTC."""
    zone = ZoneInfo(timezone)
    start = after.astimezone(zone)
    # In the hour that the clocks show twice, cronsim counts from its first passage: what it gives may be over.
    slot = next(slot for slot in map(_in_utc, CronSim(expression, start)) if slot > after)
    if slot.astimezone(zone).utcoffset() == start.utcoffset() and not start.fold:
        return slot
    # Where clocks go back by half an hour, cronsim leaves out what comes right after; backwards, it finds it.
    for earlier in map(_in_utc, CronSim(expression, slot.astimezone(zone), reverse=True)):
        if earlier <= after:
            break
        slot = earlier
    return slot


def latest_slot(expression: str, timezone: str, now: datetime) -> datetime:
    """The last slot that is not later than `now`, in UTC."""
    just_after = now.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    start = just_after.astimezone(ZoneInfo(timezone))
    if start.fold:
        # Slots of the first passage through this hour are over, also those that the clocks have yet to show again.
        start = (just_after + _CHANGE).astimezone(ZoneInfo(timezone))
    slots = CronSim(expression, start, reverse=True)
    return next(slot for slot in map(_in_utc, slots) if slot <= now)


def _in_utc(slot: datetime) -> datetime:
    return slot.astimezone(UTC)


def offset(database: str, spread: float) -> timedelta:
    """How long after its slot a database starts: the same for each slot, even over `spread` seconds.

    A thousand databases with one schedule then do not start in one second. The share comes from the name, so
    that every scheduler finds the same one.
    """
    share = int.from_bytes(hashlib.sha256(database.encode()).digest()[:4]) / 2**32
    return timedelta(seconds=round(share * spread))
