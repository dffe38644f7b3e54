"""What goes on beside a step: a ledger that is away makes a commit wait, and progress holds nobody up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery
from celery.app import events
from celery.events.dispatcher import EventDispatcher
from celery.utils.threads import LocalStack

from larder.errors import LarderError, LeaseLostError
from larder.ledger import Ledger, open_ledger
from larder.ledger.leases import Lease, Leases
from larder.progress import Report
from tasks import keeping
from tests.processes import eventually


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    yield opened
    opened.close()


def take(ledger: Ledger) -> Lease:
    run, _ = ledger.runs.create("shop", "command", stores=["nas"])
    lease = ledger.leases.take(run.id, "dump", "host")
    assert isinstance(lease, Lease)
    return lease


def test_a_commit_waits_for_a_ledger_that_is_away(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    lease, left = take(ledger), [1, 1]
    finish = Leases.finish

    def be_away_first(self: Leases, lease: Lease, **what: Any) -> None:
        if left:
            left.pop()
            raise sa.exc.OperationalError("UPDATE", {}, Exception("no answer"))
        finish(self, lease, **what)

    monkeypatch.setattr(Leases, "finish", be_away_first)
    monkeypatch.setattr(keeping, "_PAUSE", 0.01)
    keeping.commit(ledger, lease, keeping.Lines(ledger))
    assert ledger.runs.get(lease.run).steps[0].state == "done"
    left.append(1)
    monkeypatch.setattr(keeping, "COMMIT_PATIENCE", -1)
    with pytest.raises(sa.exc.OperationalError):
        keeping.commit(ledger, lease, keeping.Lines(ledger))


def said(ledger: Ledger, lease: Lease) -> list[str]:
    return [line.text for line in ledger.journal.read(lease.run)]


def test_what_a_step_says_is_in_the_journal_while_it_goes_on_and_its_lease_is_renewed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_RENEW_EVERY", 0)
    lease = take(ledger)
    until, lines = ledger.runs.get(lease.run).lease_until, keeping.Lines(ledger)
    with keeping.Keeper(ledger, lease, lines):
        lines.add(lease.run, "INFO", "Backing up...")
        lines.add(lease.run, "INFO", "A name with \0 and \udcff in it")
        eventually(lambda: said(ledger, lease) == ["Backing up...", "A name with \\0 and \\udcff in it"])
        eventually(lambda: ledger.runs.get(lease.run).lease_until > until)
    lines.write()
    assert len(said(ledger, lease)) == 2


def test_the_last_lines_of_a_step_are_written_with_its_commit_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, lines, left, finish = take(ledger), keeping.Lines(ledger), [1], Leases.finish

    def be_not_heard(self: Leases, lease: Lease, **what: Any) -> None:
        finish(self, lease, **what)
        if left:
            left.pop()
            raise sa.exc.OperationalError("COMMIT", {}, Exception("no answer"))

    monkeypatch.setattr(Leases, "finish", be_not_heard)
    monkeypatch.setattr(keeping, "_PAUSE", 0.01)
    lines.add(lease.run, "INFO", "It is done")
    keeping.commit(ledger, lease, lines)
    lines.write()
    assert said(ledger, lease) == ["It is done"]


def test_lines_outlast_a_ledger_that_is_away_and_a_lease_that_is_lost(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, lines = take(ledger), keeping.Lines(ledger)
    lines.add(lease.run, "WARN", "It will be late")
    with monkeypatch.context() as away:
        error = sa.exc.OperationalError("INSERT", {}, Exception("no answer"))
        away.setattr(ledger.journal, "write_all", Raising(error))
        lines.write()
    ledger.runs.abandon(lease.run, LarderError("unable to go on"))
    with pytest.raises(LeaseLostError):
        keeping.commit(ledger, lease, lines)
    assert not said(ledger, lease)
    lines.write()
    assert said(ledger, lease) == ["It will be late"]


class Raising:
    """Whatever is asked of it, it raises the same."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, *_: object) -> None:
        raise self.error


class Slow:
    """A broker that says nothing until it is let go."""

    request = None

    def __init__(self) -> None:
        self.told: list[str] = []
        self.go_on = threading.Event()
        self.request_stack = LocalStack()

    def send_event(self, _kind: str, *, retry: bool, result: str) -> None:
        assert not retry
        self.go_on.wait()
        self.told.append(result)


def test_progress_holds_nobody_up_and_the_latest_is_told(ledger: Ledger) -> None:
    lease, broker = take(ledger), Slow()
    reporter = keeping.Reporter(broker, ledger, lease)  # type: ignore[arg-type]
    for done in (1, 2, 3):
        reporter.report(Report(done, 10, 1))
    eventually(lambda: ledger.runs.get(lease.run).progress)
    broker.go_on.set()
    eventually(lambda: broker.told and broker.told[-1].startswith("30 %"))
    reporter.end()
    assert ledger.runs.get(lease.run).progress == broker.told[-1]


def test_flower_hears_whose_progress_it_is(ledger: Ledger) -> None:
    heard: list[tuple[str, Any]] = []

    class Dispatcher(EventDispatcher):  # type: ignore[misc]
        def send(self, kind: str, *_: Any, **fields: Any) -> None:
            heard.append((kind, fields))

    class Events(events.Events):  # type: ignore[misc]
        dispatcher_cls = Dispatcher

    app = Celery(broker="memory://", events=Events, set_as_current=False)
    lease = take(ledger)

    @app.task(bind=True)  # type: ignore[untyped-decorator]
    def dump(task: Any) -> None:
        reporter = keeping.Reporter(task, ledger, lease)
        reporter.report(Report(3, 10, 1))
        eventually(lambda: heard)
        reporter.end()

    dump.apply(task_id="the-dump", throw=True)
    kind, fields = heard[0]
    assert (kind, fields["uuid"]) == ("task-progress", "the-dump")
    assert fields["result"].startswith("30 %")
