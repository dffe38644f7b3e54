"""Objectives: what a database's backups are held to, and how they stand.

| objective | value | target |
|---|---|---|
| `rpo` | the age of the newest good backup | `rpo` |
| `proof` | the age of the newest backup that a drill has proven | `rpo`, and the time between two drills |
| `rto` | how long the last proven recovery took | `rto` |

What is proven lags behind what is backed up by as long as drills are apart: with a nightly backup and a weekly drill
the newest proven backup is up to a week older than the newest one, and held to `rpo` alone it would be late on six days
of seven. So the time between two drills is added, and where no drill is scheduled the age is shown and not judged.

Nothing here asks a ledger: `judge` is given the facts. Seconds everywhere, times in UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from larder.progress import human_seconds
from larder.schedule import latest_slot, next_slot

if TYPE_CHECKING:
    from larder.config import DatabaseSettings

Name = Literal["rpo", "proof", "rto"]

#: How late a backup may begin: messages wait in queues. Never more than `_SHARE` of rpo.
_LATE = 300.0

#: How much of rpo a backup may take that began in time. A nightly one with an rpo of a day is always stored a day and
#: some minutes after the one before: without this it would be missed, and met again, every night.
_SHARE = 0.1

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@dataclass(frozen=True)
class Facts:
    """What a ledger knows of one database; None for what there is not."""

    #: When its first run began, or its oldest backup was taken.
    since: datetime | None = None
    #: When the newest backup was taken that is not broken and has a good copy.
    newest: datetime | None = None
    #: When the backup began that is being made.
    under_way: datetime | None = None
    #: The newest proven backup, and when it was taken.
    proven: str | None = None
    proven_created: datetime | None = None
    #: Whether the last drill that the clock began was of an older backup than that one.
    took_older: bool = False
    #: From the store to a database that was examined, in the last drill that proved one.
    recovery_seconds: float | None = None


@dataclass(frozen=True)
class Objective:
    """How one objective stands."""

    name: Name
    #: None where there is nothing to measure.
    value: float | None
    #: None where the database has no such objective.
    target: float | None
    #: None where it is not judged.
    met: bool | None
    #: The same in words.
    detail: str


def judge(database: DatabaseSettings, facts: Facts, now: datetime) -> dict[Name, Objective]:
    """How the objectives of `database` stand at `now`, by name."""
    found = (_rpo(database, facts, now), _proof(database, facts, now), _rto(database, facts))
    return {objective.name: objective for objective in found}


def is_drilled(database: DatabaseSettings) -> bool:
    """Whether drills of the database begin by themselves."""
    return database.drill is not None or database.drill_every is not None


def between_drills(database: DatabaseSettings, now: datetime) -> float | None:
    """The longest time between two drills around `now`; None where none begin by themselves."""
    gaps = []
    if database.drill is not None:
        gaps.append(_gap(database.drill, database.timezone, now))
    if database.drill_every is not None:
        gaps.append(database.drill_every * _gap(database.schedule, database.timezone, now))
    return min(gaps, default=None)


def span(seconds: float) -> str:
    """`45 s`, `30 min`, `24 h`, `3 d 4 h`: a time in two units, the first of which there are two or more of."""
    if seconds < 2 * _MINUTE:
        return human_seconds(seconds) if round(seconds) < _MINUTE else f"{seconds:.0f} s"
    for length, unit, smaller, rest_unit in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if seconds >= 2 * length:
            count, rest = divmod(int(seconds), length)
            return f"{count} {unit} {rest // smaller} {rest_unit}" if rest >= smaller else f"{count} {unit}"
    raise AssertionError("unreachable")


def _rpo(database: DatabaseSettings, facts: Facts, now: datetime) -> Objective:
    target = _stretched(database, now)
    allowed = f"{span(target)} are allowed"
    if facts.newest is None:
        if facts.since is None:
            return Objective("rpo", None, target, None, "it was never backed up")
        waited = _seconds(facts.since, now)
        met = None if waited <= target else False
        return Objective("rpo", None, target, met, f"no good backup after {span(waited)}, {allowed}")
    age = _seconds(facts.newest, now)
    detail = f"newest backup is {_against(age, target)} old, {allowed}"
    late = min(_LATE, _SHARE * target)
    if age <= target + late:
        return Objective("rpo", age, target, True, detail)
    in_time = facts.under_way is not None and _seconds(facts.newest, facts.under_way) <= target + late
    if in_time and age <= target * (1 + _SHARE):
        return Objective("rpo", age, target, True, f"{detail}, and the next is being made")
    return Objective("rpo", age, target, False, detail)


def _stretched(database: DatabaseSettings, now: datetime) -> float:
    """`rpo`, and an hour more where the clocks are set back: a nightly backup is then 25 hours after the one before."""
    rpo = float(database.rpo)
    shorter, longer = _gaps(database.schedule, database.timezone, now)
    return longer if shorter <= rpo < longer <= rpo + _HOUR else rpo


def _proof(database: DatabaseSettings, facts: Facts, now: datetime) -> Objective:
    gap = between_drills(database, now)
    if gap is None:
        age = _seconds(facts.proven_created, now) if facts.proven_created else None
        shown = "no backup is proven" if age is None else f"newest proven backup is {span(age)} old"
        return Objective("proof", age, None, None, f"{shown}, and no drill is scheduled")
    # Now and then a drill takes an older backup, which leaves the newest proven one to the drill after it.
    target = database.rpo + gap * (2 if facts.took_older else 1)
    allowed = f"{span(target)} are allowed"
    if facts.proven_created is None:
        begun = facts.since is not None and _seconds(facts.since, now) > target
        return Objective("proof", None, target, False if begun else None, f"no backup is proven, {allowed}")
    age = _seconds(facts.proven_created, now)
    detail = f"newest proven backup is {_against(age, target)} old, {allowed}"
    # The next one takes its time too.
    return Objective("proof", age, target, age <= target + database.rto + _LATE, detail)


def _rto(database: DatabaseSettings, facts: Facts) -> Objective:
    target, value = float(database.rto), facts.recovery_seconds
    if value is None:
        return Objective("rto", None, target, None, "no drill has measured a recovery")
    detail = f"the last recovery took {_against(value, target)}, {span(target)} are allowed"
    return Objective("rto", value, target, value <= target, detail)


def _against(value: float, target: float) -> str:
    """A time that is over its target by less than is shown says that it is."""
    shown = span(value)
    return f"just over {shown}" if value > target and shown == span(target) else shown


def _seconds(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()


def _gap(expression: str, timezone: str, now: datetime) -> float:
    return _gaps(expression, timezone, now)[1]


def _gaps(expression: str, timezone: str, now: datetime) -> tuple[float, float]:
    # Looking for slots takes a while, many databases share a schedule, and guards ask every minute.
    return _gaps_in(expression, timezone, now.replace(minute=0, second=0, microsecond=0))


@lru_cache(maxsize=4096)
def _gaps_in(expression: str, timezone: str, hour: datetime) -> tuple[float, float]:
    """The gaps before the last slot and after it, the shorter one first: one is over just now, one is waited for."""
    last = latest_slot(expression, timezone, hour)
    before = latest_slot(expression, timezone, last - timedelta(minutes=1))
    gaps: Iterator[float] = map(_seconds, (before, last), (last, next_slot(expression, timezone, last)))
    shorter, longer = sorted(gaps)
    return shorter, longer
