"""What Sentry is told: each error once, grouped, and without secrets."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import sentry_sdk
from celery.signals import task_failure

from larder import config, secret
from larder.errors import NotAuthorisedError, NotFoundError, UnreachableError
from tasks import context, telling
from tests.canaries import Sink, sink
from workers import checkins, errors


@dataclass(frozen=True)
class _Task:
    name: str


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    """A process that tells a Sentry on this machine."""
    monkeypatch.setattr(secret, "_known", set())
    monkeypatch.setattr(secret, "_ordered", ())
    loggers = [logging.getLogger(name) for name in ("larder", "celery")]
    handlers = [logger.handlers[:] for logger in loggers]
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
    for logger, before in zip(loggers, handlers, strict=True):
        logger.handlers[:] = before


def fail(error: BaseException, task: str = "backup.dump", task_id: str = "1") -> None:
    """Have a task fail, in a frame with a password in it, and be told of as Celery does."""
    password = "s3cr3t-p@ss/word"
    try:
        raise error
    except type(error):
        known = {"args": [password], "kwargs": {"token": password}}
        task_failure.send(sender=_Task(task), task_id=task_id, exception=error, **known)


def test_a_task_that_failed_is_told_without_its_arguments(
    told: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret.register("s3cr3t-p@ss/word")
    monkeypatch.setattr(sys, "argv", ["celery", "s3cr3t-p@ss/word"])
    fail(ValueError("invalid port in postgresql://u:s3cr3t-p%40ss%2Fword@db/shop and 's3cr3t-p@ss/word'"))
    [event] = told.events()
    assert event["exception"]["values"][0]["type"] == "ValueError"
    assert event["exception"]["values"][0]["stacktrace"]["frames"]
    assert event["tags"]["task"] == "backup.dump"
    assert b"s3cr3t" not in b"".join(told.bodies("/api/"))
    assert "k3yk3yk3y" not in json.dumps(event)


def test_a_secret_in_a_cause_is_masked(told: Sink) -> None:
    secret.register("it's a s3cr3t")
    try:
        try:
            raise ConnectionError("said: it's a s3cr3t")
        except ConnectionError as cause:
            raise RuntimeError(repr(str(cause))) from cause
    except RuntimeError as error:
        fail(error)
    [event] = told.events()
    assert [value["type"] for value in event["exception"]["values"]] == ["ConnectionError", "RuntimeError"]
    assert not any("s3cr3t" in value["value"] for value in event["exception"]["values"])


def test_expected_errors_are_one_issue_for_each_kind_and_step(told: Sink) -> None:
    for name in ("shop", "crm"):
        fail(UnreachableError(f"unable to reach database '{name}'"))
    fail(UnreachableError("unable to reach store 'nas'"), "backup.upload")
    assert [event["fingerprint"] for event in told.events()] == [
        ["larder", "UnreachableError", "backup.dump"],
        ["larder", "UnreachableError", "backup.dump"],
        ["larder", "UnreachableError", "backup.upload"],
    ]


@pytest.mark.parametrize("error", [NotFoundError("no such database"), NotAuthorisedError("no such approval")])
def test_what_was_asked_for_by_mistake_is_not_told(told: Sink, error: Exception) -> None:
    fail(error)
    fail(ValueError("and this is"))
    assert [event["exception"]["values"][0]["type"] for event in told.events()] == ["ValueError"]


def test_without_an_address_nothing_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.load({})
    monkeypatch.setattr(context, "settings", lambda: settings)
    errors._start()
    assert not sentry_sdk.get_client().is_active()


def test_an_error_that_nobody_foresaw_is_told_once(told: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    task = SimpleNamespace(request=SimpleNamespace(id="7"))
    monkeypatch.setattr(errors, "celery", SimpleNamespace(current_task=task))
    monkeypatch.setattr(logging.getLogger("larder"), "propagate", False)
    try:
        raise KeyError("gone")
    except KeyError as error:
        logging.getLogger("larder.run").error("unexpected error in run 1", exc_info=error)
        fail(UnreachableError("made of it"), task_id="7")
    fail(UnreachableError("another task's"), task_id="8")
    assert [event["exception"]["values"][-1]["type"] for event in told.events()] == [
        "KeyError",
        "UnreachableError",
    ]
