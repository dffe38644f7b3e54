"""What Sentry's monitors hear: when a backup is due, that it begins and how it ended; and nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
from celery.signals import task_failure

from larder import config, secret
from larder.ledger import Ledger, open_ledger
from larder.ledger.runs import Run
from tasks import context, telling
from tests.canaries import Sink, sink
from workers import checkins, errors

FILE = """
spread = "10m"
[databases.shop]
url = "postgresql://backup:s3cr3t-p@db.example/shop"
schedule = "30 3 * * 1-5"
timezone = "Europe/Berlin"
time_limit = "2h"
[databases.crm]
url = "sqlite:///crm.db"
rpo = "6h"
[databases.archive]
url = "sqlite:///archive.db"
schedule = "0 3 1 * *"
rpo = "32d"
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    """A worker that tells a Sentry on this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(secret, "_known", set())
    monkeypatch.setattr(secret, "_ordered", ())
    Path("larder.toml").write_text(FILE)
    for logger in (logging.getLogger(name) for name in ("larder", "celery")):
        monkeypatch.setattr(logger, "handlers", logger.handlers[:])
    with sink() as server:
        settings = config.load({"SENTRY_DSN": f"http://k3yk3yk3y@{server.address}/1"})
        monkeypatch.setattr(context, "settings", lambda: settings)
        errors._start()
        yield server
        sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)
    task_failure.disconnect(errors._tell_of_task)
    telling.run_began.disconnect(checkins._began)
    telling.run_ended.disconnect(checkins._ended)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    yield made
    made.close()


def run_of(ledger: Ledger, name: str) -> Run:
    run, _ = ledger.runs.create(name, "command", stores=["local"])
    return run


def documents(told: Sink) -> list[dict[str, Any]]:
    sentry_sdk.flush(2)
    found = [json.loads(line) for body in told.bodies("/api/") for line in body.split(b"\n")[1:] if line]
    return [document for document in found if "monitor_slug" in document]


def test_a_backup_checks_in_as_it_begins_and_as_it_ends(told: Sink, ledger: Ledger) -> None:
    run = run_of(ledger, "shop")
    telling.run_began.send(sender=None, run=run)
    ended = replace(run, state="failed", finished=run.created + timedelta(seconds=90), error="s3cr3t-p")
    telling.run_ended.send(sender=None, run=ended)
    began, over = documents(told)
    assert (began["status"], over["status"], over["duration"]) == ("in_progress", "error", 90)
    assert began["check_in_id"] == over["check_in_id"]
    assert began["monitor_slug"] == over["monitor_slug"] == "larder-shop"
    assert over["monitor_config"] == {
        "schedule": {"type": "crontab", "value": "30 3 * * 1-5"},
        "timezone": "Europe/Berlin",
        "checkin_margin": 15,
        "max_runtime": 12 * 60,
    }
    assert b"s3cr3t" not in b"".join(told.bodies("/api/"))


def test_each_run_is_one_check_in_and_each_database_one_monitor(told: Sink, ledger: Ledger) -> None:
    runs = [run_of(ledger, name) for name in ("shop", "crm")]
    for run in runs:
        telling.run_ended.send(sender=None, run=replace(run, finished=datetime.now(UTC)))
    found = documents(told)
    assert [one["monitor_slug"] for one in found] == ["larder-shop", "larder-crm"]
    assert [one["status"] for one in found] == ["ok", "ok"]
    assert len({one["check_in_id"] for one in found}) == 2
    assert found[1]["monitor_config"]["max_runtime"] == 6 * 60


def test_a_monitor_asks_for_no_longer_time_than_sentry_gives(told: Sink, ledger: Ledger) -> None:
    """It refuses a check-in whose monitor asks for more, and nobody would hear that none came."""
    telling.run_began.send(sender=None, run=run_of(ledger, "archive"))
    [found] = documents(told)
    assert found["monitor_config"]["max_runtime"] == 28 * 24 * 60


def test_what_is_configured_no_longer_is_waited_for_by_nobody(told: Sink, ledger: Ledger) -> None:
    telling.run_began.send(sender=None, run=run_of(ledger, "gone"))
    assert documents(told) == []


def test_a_sentry_that_is_away_is_not_waited_for_long(told: Sink, ledger: Ledger) -> None:
    run = run_of(ledger, "shop")
    told.shutdown()
    told.server_close()
    began = datetime.now(UTC)
    telling.run_began.send(sender=None, run=run)
    telling.run_ended.send(sender=None, run=run)
    assert datetime.now(UTC) - began < timedelta(seconds=5)


def test_without_an_address_nobody_checks_in(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.load({"DATABASE_URL": "sqlite:///shop.db"})
    monkeypatch.setattr(context, "settings", lambda: settings)
    errors._start()
    assert (telling.run_began.receivers, telling.run_ended.receivers) == ([], [])


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("shop", "larder-shop"),
        ("Shop_2", "larder-shop_2"),
        ("x" * 43, "larder-" + "x" * 43),
        ("x" * 44, "larder-" + "x" * 34 + "-468a74d5"),
    ],
)
def test_a_monitors_name_is_one_that_sentry_takes(name: str, slug: str) -> None:
    assert checkins.slug(name) == slug
    assert len(slug) <= 50
    assert checkins.slug(name + "y") != slug
