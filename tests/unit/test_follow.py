"""Following a run ends, whatever became of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from console import follow as module
from console.follow import follow
from larder.errors import LarderError
from larder.ledger import Ledger, open_ledger, tables
from larder.ledger.leases import Lease


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    yield opened
    opened.close()


def test_a_run_whose_worker_was_lost_is_not_waited_for(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NOTICE_PATIENCE", 0)
    run, _ = ledger.runs.create("shop", "command", stores=["local"])
    assert isinstance(ledger.leases.take(run.id, "dump", "host"), Lease)
    past = datetime.now(UTC) - module.RESTART_PATIENCE - timedelta(seconds=1)
    with ledger._engine.begin() as connection:
        connection.execute(tables.runs.update().values(lease_until=past))
    (ended,) = follow(ledger, [run.id])
    assert (ended.state, ended.failed_step) == ("failed", "dump")
    assert "its worker was lost" in (ended.error or "")


def test_a_run_that_nobody_will_tell_about_is_not_waited_for(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NOTICE_PATIENCE", 0)
    run, _ = ledger.runs.create("shop", "command", stores=["local"])
    ledger.runs.abandon(run.id, LarderError("stopped by SIGINT"))
    (ended,) = follow(ledger, [run.id])
    assert ended.error == "stopped by SIGINT"


def test_what_the_watching_finds_out_ends_it(ledger: Ledger) -> None:
    run, _ = ledger.runs.create("shop", "command", stores=["local"])

    def check() -> None:
        raise LarderError("the worker is gone")

    with pytest.raises(LarderError, match="the worker is gone"):
        follow(ledger, [run.id], check)
