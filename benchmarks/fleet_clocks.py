"""Two beats, two workers and two guards at a time, for an hour of simulated schedules: one backup of each slot.

Started as a program, it is Celery with a clock that runs faster: that of schedules and of the slots that they make. All
else, as leases and timeouts, goes by the real one.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from celery import Celery
from celery.__main__ import main as celery

import beat_schedule
from benchmarks.fleet_flood import OVER, STORED
from benchmarks.fleet_parts import Fleet, Targets, fleet, small_databases
from tasks import backup
from tests.processes import eventually

#: How many times faster than the real clock it runs.
SPEED = 10

#: The databases, each due every minute of that clock.
DATABASES = 2

#: Seconds between two pairs of guards.
GUARDS_EVERY = 2.0

#: When it began to run faster, in seconds since 1970: the same for everybody.
_BEGAN = "FLEET_CLOCK"


def clocks(minutes: int, targets: Targets) -> None:
    """Have two beats send what is due in `minutes` minutes, while guards come in pairs."""
    print(
        f"\nclocks: two beats and pairs of guards, {minutes} minutes of {DATABASES} databases that are due each minute"
    )
    began = time.time()
    with fleet(**{_BEGAN: str(began)}) as here, ExitStack() as processes:
        names = small_databases(here.folder / "data", DATABASES)
        here.configure("\n".join(
            f'[databases.{name}]\nurl = "sqlite:///data/{name}.db"\nschedule = "* * * * *"\n' for name in names
        ))  # fmt: skip
        launcher = (str(Path(__file__)),)
        processes.enter_context(here.worker(2, launcher))
        with ExitStack() as beats:
            for name in ("one", "two"):
                schedule = str(here.folder / f"schedule-{name}")
                beats.enter_context(here.celery("beat", "-s", schedule, "--max-interval", "1", name=f"beat-{name}",
                                                launcher=launcher))  # fmt: skip
            for name in ("one", "two"):
                eventually(lambda log=f"beat-{name}": "beat: Starting" in here.log(log))
            sent = _guards(here, time.monotonic() + minutes * 60 / SPEED)
        _drain(here)
        slots = dict(here.ask("SELECT database, count(*) FROM runs WHERE slot IS NOT NULL GROUP BY database"))
        runs = here.count("SELECT count(*) FROM runs")
        both = [here.log(f"beat-{name}").count("Sending due task backup") for name in ("one", "two")]
        targets.note("messages from either beat", f"{both[0]}, {both[1]}")
        targets.note("guards, two at a time", sent)
        targets.check(
            "minutes of a database that either beat left out", minutes * DATABASES - min(both), DATABASES
        )
        targets.equal("runs, each of a slot", sum(slots.values()), runs)
        targets.equal("slots with more than one run", runs - here.count(
            "SELECT count(*) FROM (SELECT DISTINCT database, slot FROM runs)"), 0)  # fmt: skip
        targets.equal("of them stored", here.count(STORED), runs)
        targets.equal("slots that nobody backed up", _left_out(here), 0)
        kept = len(list((here.folder / "backups").glob("*/*.manifest.json")))
        targets.equal("artifacts in the store", kept, runs)


def _guards(here: Fleet, until: float) -> int:
    """Send guards, two at a time; gives how many."""
    sent = 0
    with Celery(broker=here.redis_url) as app:
        while time.monotonic() < until:
            for _ in range(2):
                app.send_task("guard", queue="backup", ignore_result=True)
            sent += 2
            time.sleep(GUARDS_EVERY)
    return sent


def _drain(here: Fleet) -> None:
    """Wait until nothing is left to do."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not here.messages() and here.count(OVER) == here.count("SELECT count(*) FROM runs"):
            return
        time.sleep(0.5)


def _left_out(here: Fleet) -> int:
    """How many minutes there are between the first slot of a database and its last one that have no run."""
    left = 0
    for first, last, count in here.ask("SELECT min(slot), max(slot), count(*) FROM runs GROUP BY database"):
        between = datetime.fromisoformat(last) - datetime.fromisoformat(first)
        left += round(between / timedelta(minutes=1)) + 1 - count
    return left


class _Fast(datetime):
    """A clock that has run `SPEED` times as fast since it began."""

    began = 0.0

    @classmethod
    def now(cls, tz: object = None) -> datetime:
        moment = cls.began + (time.time() - cls.began) * SPEED
        return datetime.fromtimestamp(moment, UTC).astimezone(tz)


def _run_fast() -> None:
    _Fast.began = float(os.environ[_BEGAN])
    beat_schedule.datetime = backup.datetime = _Fast
    # Beat's own entries go by the real clock, and would stand before all that go by this one.
    app.conf.update(result_expires=None)
    del app.conf.beat_schedule["guard"]
    celery()


if __name__ == "__main__":
    # The application belongs to the processes: who measures them has no such configuration.
    from workers.celery import app

    _run_fast()
