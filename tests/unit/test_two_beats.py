"""Two beats and two guards at a time, through an hour of slots: each slot makes one run, and each run one message."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, current_app
from celery.beat import ScheduleEntry, Scheduler

import beat_schedule
from larder.ledger import tables
from larder.ledger.runs import Run
from tasks import backup, chain, context, guard, queues
from tests.losses import heard, lie

MINUTE = timedelta(minutes=1)


class Clock(datetime):
    """The hour's clock, which the test sets on."""

    present = datetime(2031, 5, 1, 12, 0, 30, tzinfo=UTC)

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.present.astimezone(tz)


class Beat(Scheduler):
    """A beat whose messages are kept for the test to deliver."""

    #: It has no broker to connect to.
    producer = None

    def setup_schedule(self) -> None:
        super().setup_schedule()
        self.messages: list[dict[str, Any]] = []

    def apply_async(self, entry: ScheduleEntry, **_: Any) -> None:
        self.messages.append(entry.kwargs)

    def tick_until_idle(self) -> list[dict[str, Any]]:
        """What this beat sends now."""
        self.messages.clear()
        while self.tick() == 0:
            pass
        return list(self.messages)


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A database that is due each minute; gives the runs whose messages were sent, in order."""
    for variable in ("DATABASE_URL", "BACKUP_DIR", "REDIS_URL", "BACKUP_S3_BUCKET", "SLACK_WEBHOOK_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LARDER_CONFIG", str(tmp_path / "larder.toml"))
    (tmp_path / "larder.toml").write_text(
        f'state_dir = "{tmp_path / "state"}"\n[databases.shop]\nurl = "sqlite:///{tmp_path / "shop.db"}"\n'
        'schedule = "* * * * *"\n'
    )
    sqlite3.connect(tmp_path / "shop.db").close()
    found: list[str] = []

    def send(run: Run, *_: Any) -> None:
        found.append(run.id)

    monkeypatch.setattr(chain, "send", send)
    monkeypatch.setattr(queues, "waiting_in", lambda _queue: 0)
    monkeypatch.setattr(current_app, "send_task", lambda *_, **__: None)
    monkeypatch.setattr(beat_schedule, "datetime", Clock)
    monkeypatch.setattr(backup, "datetime", Clock)
    context.settings.cache_clear()
    context._ledger_of.cache_clear()
    yield found
    context.ledger().close()
    context.settings.cache_clear()
    context._ledger_of.cache_clear()


def test_two_beats_and_two_guards_make_one_run_of_each_slot(
    sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = context.ledger()
    heard(ledger, context.host())
    entries = beat_schedule.beat_schedule(context.settings())
    app = Celery(set_as_current=False)
    app.conf.update(beat_schedule={"backup shop": entries["backup shop"]}, result_expires=None)
    beats = [Beat(app), Beat(app)]
    assert [beat.tick_until_idle() for beat in beats] == [[], []]
    with ThreadPoolExecutor(2) as pool:
        for minute in range(1, 61):
            monkeypatch.setattr(Clock, "present", Clock.present + MINUTE)
            messages = [beat.tick_until_idle() for beat in beats]
            assert messages == [[{"database": "shop", "trigger": "schedule"}]] * 2
            (first,), (second,) = messages
            both = _at_once(pool, partial(backup.backup, **first), partial(backup.backup, **second))
            assert both[0] == both[1] == sent[-1]
            assert sent.count(both[0]) == 1
            if minute % 10 == 0:
                # Its message is lost, and both guards look for it at the same time.
                lie(ledger, ledger.runs.get(both[0]))
                _at_once(pool, guard.guard, guard.guard)
                assert sent.count(both[0]) == 2
            _store(both[0])
    slots = [run.slot for run in ledger.runs.latest("shop", limit=100)]
    assert len(slots) == len(set(slots)) == 60


def _at_once(pool: ThreadPoolExecutor, *acts: Callable[[], Any]) -> list[Any]:
    """Have all of `acts` begin at the same moment; gives what they give."""
    start = threading.Barrier(len(acts))

    def act(one: Callable[[], Any]) -> Any:
        start.wait()
        return one()

    return list(pool.map(act, acts))


def _store(run_id: str) -> None:
    """Have a run end well."""
    with context.ledger()._engine.begin() as connection:
        connection.execute(tables.runs.update().where(tables.runs.c.id == run_id).values(state="stored"))
