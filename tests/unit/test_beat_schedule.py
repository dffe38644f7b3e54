"""When beat sends what."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path

from beat_schedule import GUARD_EVERY, DatabaseSchedule, beat_schedule
from larder import config


class Frozen(DatabaseSchedule):
    """A schedule whose present is set by the test."""

    present = datetime(2025, 10, 16, 1, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.present


def at(schedule: Frozen, *moment: int) -> datetime:
    schedule.present = datetime(*moment, tzinfo=UTC)
    return schedule.present


def test_a_database_is_due_at_its_slot_and_once() -> None:
    schedule = Frozen("0 2 * * *", "UTC")
    started = at(schedule, 2025, 10, 16, 1, 0)
    assert schedule.is_due(started) == (False, 3600)
    at(schedule, 2025, 10, 16, 1, 59, 59)
    assert schedule.is_due(started) == (False, 1)
    ran = at(schedule, 2025, 10, 16, 2, 0, 0)
    assert schedule.is_due(started) == (True, 86400)
    assert schedule.is_due(ran) == (False, 86400)


def test_slots_that_beat_missed_make_one_run() -> None:
    schedule = Frozen("0 2 * * *", "UTC")
    last = at(schedule, 2025, 10, 10, 2, 0)
    now = at(schedule, 2025, 10, 16, 12, 0)
    assert schedule.is_due(last) == (True, 14 * 3600)
    assert not schedule.is_due(now).is_due


def test_a_schedule_keeps_its_own_time_zone_through_daylight_saving() -> None:
    schedule = Frozen("0 2 * * *", "Europe/Berlin")
    summer = schedule.due_after(datetime(2025, 10, 24, 12, tzinfo=UTC))
    winter = schedule.due_after(datetime(2025, 10, 27, 12, tzinfo=UTC))
    assert (summer.hour, winter.hour) == (0, 1)


def test_an_offset_moves_every_slot_by_the_same_time() -> None:
    schedule = Frozen("*/5 * * * *", "UTC", timedelta(seconds=200))
    moment = datetime(2025, 10, 16, 2, 0, tzinfo=UTC)
    times = []
    for _ in range(3):
        moment = schedule.due_after(moment)
        times.append(moment.strftime("%H:%M:%S"))
    assert times == ["02:03:20", "02:08:20", "02:13:20"]


def test_a_schedule_survives_the_file_that_beat_keeps() -> None:
    schedule = DatabaseSchedule("0 2 * * *", "Europe/Berlin", timedelta(seconds=7))
    again = pickle.loads(pickle.dumps(schedule))
    assert again == schedule
    assert again.is_due(datetime.now(UTC)).next > 0
    assert again != DatabaseSchedule("0 3 * * *", "Europe/Berlin", timedelta(seconds=7))


def test_a_time_without_a_zone_is_utc() -> None:
    schedule = Frozen("0 2 * * *", "UTC")
    at(schedule, 2025, 10, 16, 1, 0)
    assert schedule.is_due(datetime(2025, 10, 16, 1, 0)) == (False, 3600)  # noqa: DTZ001 - as beat does


def test_a_thousand_databases_are_spread(tmp_path: Path) -> None:
    tables = "".join(f'[databases.db{n}]\nurl = "sqlite:////data/{n}.db"\n' for n in range(1000))
    (tmp_path / "larder.toml").write_text('spread = "10m"\n' + tables)
    settings = config.load({"LARDER_CONFIG": str(tmp_path / "larder.toml")})
    entries = beat_schedule(settings)
    assert entries.pop("guard")["schedule"] == GUARD_EVERY
    assert len(entries) == 1000
    assert entries["backup db7"]["kwargs"] == {"database": "db7", "trigger": "schedule"}
    seconds = sorted(entry["schedule"].delay.total_seconds() for entry in entries.values())
    assert seconds[0] < 10
    assert 590 < seconds[-1] <= 600
    busiest = max(seconds.count(second) for second in seconds)
    assert busiest <= 10, "too many start in one second"
    assert beat_schedule(settings).items() >= entries.items()
