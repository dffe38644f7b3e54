"""What the guard does about runs that were lost, with a real ledger; what it sends is looked at, and goes nowhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import current_app

from larder.errors import LarderError, UnreachableError
from larder.ledger import Ledger, losses, tables
from larder.ledger.hosts import HOST_PATIENCE
from larder.ledger.leases import Lease
from larder.ledger.losses import MOST_ATTEMPTS
from larder.ledger.runs import Run
from tasks import backup, chain, context, guard, queues, recovery
from tests.losses import expire, heard, lie
from tests.standings import keep

SECOND = timedelta(seconds=1)


@dataclass
class Stand:
    """A configured database, what was sent to the broker, and how many messages wait there, by queue."""

    folder: Path
    sent: list[tuple[str, str]] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)

    @property
    def ledger(self) -> Ledger:
        return context.ledger()

    def send(self, run: Run, first: str | None = None, _store: str = "") -> None:
        self.sent.append((run.id, first or run.steps[0].name))

    def begin(self, trigger: str = "command") -> Run:
        run = backup.start("shop", trigger)
        self.sent.clear()
        return run

    def begin_lost(self, steps: tuple[str, ...] = (), at: str = "dump") -> Run:
        """A run that has gone through `steps`, and whose worker was lost at the next one."""
        run = self.begin()
        for name in steps:
            lease = self.ledger.leases.take(run.id, name, "elsewhere")
            self.ledger.leases.finish(lease)  # type: ignore[arg-type]
        self.ledger.leases.take(run.id, at, "elsewhere")
        return run


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    for variable in ("DATABASE_URL", "BACKUP_DIR", "REDIS_URL", "BACKUP_S3_BUCKET", "SLACK_WEBHOOK_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LARDER_CONFIG", str(tmp_path / "larder.toml"))
    (tmp_path / "larder.toml").write_text(
        f'state_dir = "{tmp_path / "state"}"\n[databases.shop]\nurl = "sqlite:///{tmp_path / "shop.db"}"\n'
        '[stores.nas]\npath = "nas"\n'
    )
    sqlite3.connect(tmp_path / "shop.db").close()
    context.settings.cache_clear()
    context._ledger_of.cache_clear()
    made = Stand(tmp_path)
    monkeypatch.setattr(chain, "send", made.send)
    monkeypatch.setattr(queues, "waiting_in", lambda queue: made.waiting.get(queue, 0))
    monkeypatch.setattr(
        current_app, "send_task", lambda name, **options: made.sent.append((options["queue"], name))
    )
    yield made
    made.ledger.close()
    context.settings.cache_clear()
    context._ledger_of.cache_clear()


@pytest.mark.parametrize(
    "error", [UnreachableError("the broker is away"), AttributeError("kombu's, on a lost connection")]
)
def test_what_cannot_be_sent_uses_up_no_slot(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(chain, "send", lambda *_: (_ for _ in ()).throw(error))
        with pytest.raises(type(error)):
            backup.start("shop", backup.SCHEDULED)
    again = backup.start("shop", backup.SCHEDULED)
    assert stand.sent == [(again.id, "dump")]
    assert [run.state for run in stand.ledger.runs.latest("shop", limit=9)] == ["queued", "failed"]


def test_a_lost_worker_s_run_goes_on_from_its_open_step(stand: Stand) -> None:
    run = stand.begin_lost(("dump",), "compress")
    heard(stand.ledger, "elsewhere")
    expire(stand.ledger, run)
    assert recovery.take_up_expired() == 1
    assert stand.sent == [(run.id, "compress")]
    assert recovery.take_up_expired() == 0


def test_a_run_that_costs_its_worker_too_often_ends_and_is_told(stand: Stand) -> None:
    run = stand.begin()
    heard(stand.ledger, "elsewhere")
    for _ in range(MOST_ATTEMPTS):
        stand.sent.clear()
        stand.ledger.leases.take(run.id, "dump", "elsewhere")
        expire(stand.ledger, run)
        recovery.take_up_expired()
    ended = stand.ledger.runs.get(run.id)
    assert (ended.state, stand.sent) == ("failed", [(run.id, "notify")])
    assert ended.error == "its worker was lost 5 times at step dump"


def test_a_message_that_is_lost_is_sent_again_and_one_that_waits_is_not(stand: Stand) -> None:
    run = stand.begin()
    lie(stand.ledger, run)
    stand.waiting["backup"] = 7
    assert recovery.send_lying() == 0
    stand.waiting["backup"] = 0
    assert recovery.send_lying() == 1
    assert stand.sent == [(run.id, "dump")]
    lie(stand.ledger, run, timedelta(hours=2))
    stand.waiting["backup"] = 7
    assert recovery.send_lying() == 1


def test_a_run_of_a_host_that_is_gone_fails_and_another_takes_its_place_once(stand: Stand) -> None:
    run = stand.begin_lost()
    heard(stand.ledger, "witness")
    for place in ("first", "second"):
        expire(stand.ledger, run, HOST_PATIENCE + SECOND)
        heard(stand.ledger, "elsewhere", HOST_PATIENCE + SECOND)
        assert recovery.leave_stranded() == (place == "first")
        assert stand.ledger.runs.get(run.id).state == "failed"
        assert stand.sent[0] == (run.id, "notify")
        if place == "first":
            (_, (second, step)) = stand.sent
            run = stand.ledger.runs.get(second)
            assert (run.trigger, step) == ("instead", "dump")
            stand.sent.clear()
            stand.ledger.leases.take(run.id, "dump", "elsewhere")
    assert len(stand.sent) == 1


def test_a_backup_that_has_its_copies_ends_well_though_its_host_is_gone(stand: Stand) -> None:
    run = stand.begin()
    for name, store in (("dump", ""), ("compress", ""), ("checksum", ""), ("upload", "nas")):
        lease = stand.ledger.leases.take(run.id, name, "elsewhere", store)
        stand.ledger.leases.finish(lease)  # type: ignore[arg-type]
    stand.ledger.leases.take(run.id, "rotate", "elsewhere")
    expire(stand.ledger, run, HOST_PATIENCE + SECOND)
    heard(stand.ledger, "elsewhere", HOST_PATIENCE + SECOND)
    heard(stand.ledger, context.host())
    recovery.leave_stranded()
    assert (stand.sent, stand.ledger.runs.get(run.id).host) == ([(run.id, "rotate")], None)
    assert isinstance(stand.ledger.leases.take(run.id, "rotate", context.host()), Lease)


def test_who_was_not_told_is_told_by_a_host_that_is_there(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stand.begin_lost()
    stand.ledger.runs.abandon(run.id, LarderError("stopped"))
    recovery.tell_untold()
    assert stand.sent == []
    monkeypatch.setattr(losses, "LYING", timedelta(0))
    recovery.tell_untold()
    assert stand.sent == [(run.id, "notify")]
    assert stand.ledger.runs.get(run.id).host is None


def test_an_overdue_database_gets_a_run_and_after_a_failure_another_a_while_later(stand: Stand) -> None:
    keep(stand.ledger, "shop", datetime.now(UTC) - timedelta(days=3))
    guard.guard()
    (run,) = stand.ledger.runs.latest("shop")
    assert (run.trigger, stand.sent) == ("overdue", [(run.id, "dump")])
    stand.ledger.runs.abandon(run.id, UnreachableError("no answer"))
    guard.guard()
    assert len(stand.ledger.runs.latest("shop")) == 1
    with stand.ledger._engine.begin() as connection:
        earlier = datetime.now(UTC) - timedelta(minutes=61)
        connection.execute(sa.update(tables.runs).values(created=earlier))
    guard.guard()
    assert len(stand.ledger.runs.latest("shop")) == 2


def test_every_host_that_is_there_tidies_what_lies_on_it(stand: Stand) -> None:
    heard(stand.ledger, "other")
    heard(stand.ledger, "away", timedelta(minutes=5))
    heard(stand.ledger, context.host())
    guard.guard()
    assert stand.sent == [("host.other", "tidy")]
