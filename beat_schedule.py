"""Settings in, Celery beat schedule out: one entry a database, each in its own time zone and at its own second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import BaseSchedule, schedstate

from larder.config import DatabaseSettings, Settings
from larder.schedule import next_slot, offset

#: How often lost runs are looked for, and what is kept too long is let go.
GUARD_EVERY = timedelta(minutes=1)


class DatabaseSchedule(BaseSchedule):
    """A cron expression in a time zone, moved by a fixed offset.

    Celery's own crontab knows one time zone for the whole application. This one asks `larder.schedule`, which also
    decides the slot of a run, so that beat and ledger can't disagree about when a database is due.
    """

    def __init__(self, expression: str, timezone: str, delay: timedelta = timedelta(0)) -> None:
        super().__init__(nowfun=lambda: datetime.now(UTC))
        self.expression = expression
        self.timezone = timezone
        self.delay = delay

    def due_after(self, moment: datetime) -> datetime:
        """The first time later than `moment` at which a run is due, in UTC."""
        return next_slot(self.expression, self.timezone, moment - self.delay) + self.delay

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """How long until the run after `last_run_at` is due; negative once it is overdue."""
        now: datetime = self.now()
        return self.due_after(_aware(last_run_at)) - now

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether a run is due, and in how many seconds to ask again. Slots missed while beat was down make one run."""
        remaining = self.remaining_estimate(last_run_at).total_seconds()
        if remaining > 0:
            return schedstate(is_due=False, next=remaining)
        return schedstate(is_due=True, next=(self.due_after(self.now()) - self.now()).total_seconds())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.expression, self.timezone, self.delay)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DatabaseSchedule) and self.__reduce__()[1] == other.__reduce__()[1]

    def __hash__(self) -> int:
        return hash(self.__reduce__()[1])

    def __repr__(self) -> str:
        return f"<{self.expression} {self.timezone} + {self.delay.total_seconds():.0f} s>"


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """What beat sends, and when: a `backup` for each database, `drill` and `verify` where wanted, and `guard`."""
    entries = {
        f"backup {name}": _entry("backup", database, database.schedule, settings)
        for name, database in settings.databases.items()
    }
    for name, database in settings.databases.items():
        if database.drill:
            entries[f"drill {name}"] = _entry("drill", database, database.drill, settings)
    if settings.verify:
        entries["verify"] = {
            "task": "verify",
            "schedule": DatabaseSchedule(settings.verify, "UTC"),
            "kwargs": {"trigger": "schedule"},
        }
    # One that nobody took in time is not missed: the next one does the same.
    entries["guard"] = {
        "task": "guard",
        "schedule": GUARD_EVERY,
        "options": {"expires": GUARD_EVERY.total_seconds()},
    }
    return entries


def _entry(task: str, database: DatabaseSettings, schedule: str, settings: Settings) -> dict[str, Any]:
    delay = offset(database.name, settings.spread)
    return {
        "task": task,
        "schedule": DatabaseSchedule(schedule, database.timezone, delay),
        "kwargs": {"database": database.name, "trigger": "schedule"},
    }


def _aware(moment: datetime) -> datetime:
    """Beat hands over its own idea of UTC, sometimes without saying so."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
