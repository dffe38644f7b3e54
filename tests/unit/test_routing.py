"""The order in which a worker looks at its queues."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from larder.ledger import open_ledger
from tasks import context, queues
from workers.routing import BegunFirst, route


def test_what_has_begun_goes_on_before_anything_else_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "host", lambda: "here-0a1b2c")
    cycle = BegunFirst()
    cycle.update(["backup", "drill", "host.here-0a1b2c", "restore", "guard"])
    assert cycle.consume(5) == ["guard", "host.here-0a1b2c", "backup", "drill", "restore"]
    for used in ("host.here-0a1b2c", "backup"):
        cycle.rotate(used)
    assert cycle.consume(5) == ["guard", "host.here-0a1b2c", "drill", "restore", "backup"]


def test_the_next_link_of_a_run_goes_by_what_this_very_task_has_in_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    run, _ = ledger.runs.create("shop", "command", stores=["nas"])
    taken: Any = ledger.leases.take(run.id, "dump", "elsewhere-0a1b2c")
    monkeypatch.setattr(context, "ledger", lambda: ledger)
    monkeypatch.setattr(context, "settings", lambda: SimpleNamespace(databases={}))
    app = Celery(broker="memory://", set_as_current=False)
    found: list[Any] = []

    @app.task(bind=True)  # type: ignore[untyped-decorator]
    def dump(task: Any) -> None:
        queues.at_hand(task, replace(taken.whole, host="here-0a1b2c"))
        found.append(route("backup.compress", (run.id,)))

    @app.task  # type: ignore[untyped-decorator]
    def guard() -> None:
        found.append(route("backup.compress", (run.id,)))

    dump.apply(throw=True)
    guard.apply(throw=True)
    found.append(route("backup.compress", (run.id,)))
    assert found == [{"queue": "host.here-0a1b2c"}, *[{"queue": "host.elsewhere-0a1b2c"}] * 2]
    ledger.close()
