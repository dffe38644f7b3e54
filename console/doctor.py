"""`larder doctor`: one line a check, with a hint where one is needed."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

import redis

from console import output
from console.output import escape
from larder.config import Settings
from larder.errors import LarderError
from larder.health import Check, checks, clock_check
from larder.manifest_fields import TIME
from larder.notifiers import Notice, send_all
from tasks import context
from workers.embedded import OLDEST_REDIS, find_redis
from workers.redis_client import client_of

_SHOWN = {"ok": "[green]ok  [/]", "warning": "[yellow]warn[/]", "failed": "[red]FAIL[/]"}

#: Seconds to wait for the broker, and for workers to answer.
_PATIENCE = 5


def print_checks(*, tell: bool, as_json: bool) -> int:
    """Print every check as soon as it is made; gives 1 when one failed. `tell` has every notifier told something."""
    settings = context.settings()
    found: list[Check] = []
    for check in itertools.chain(_all(settings), _told(settings) if tell else ()):
        found.append(check)
        if not as_json:
            _print(check)
    if as_json:
        output.print_json({"ok": _fine(found), "checks": [asdict(check) for check in found]})
    return 0 if _fine(found) else 1


def _fine(found: list[Check]) -> bool:
    return all(check.state != "failed" for check in found)


def _all(settings: Settings) -> Iterator[Check]:
    yield from checks(settings, context.ledger)
    if settings.redis_url is None:
        yield _embedded_redis()
    else:
        yield from _broker(settings.redis_url.get_secret_value())


def _told(settings: Settings) -> Iterator[Check]:
    """What becomes of a message to every notifier."""
    host = socket.gethostname()
    notice = Notice(
        event="test",
        database=host,
        run="",
        artifact=None,
        size=None,
        seconds=0,
        created=datetime.now(UTC).strftime(TIME),
        proof=None,
        about="test",
        detail=f"somebody has tried it with larder doctor --tell on {host}",
    )
    told = [place for place in settings.notifiers.values() if place.grouped]
    for place, error in zip(told, send_all([(place, notice) for place in told]), strict=True):
        if error is None:
            yield Check("notice", place.name, "ok", "was told: see whether it has arrived")
        else:
            yield Check("notice", place.name, "failed", error.message, error.hint)
    for place in settings.notifiers.values():
        if not place.grouped:
            yield Check("notice", place.name, "ok", "was not tried: a ping would say that a backup was made")


def _embedded_redis() -> Check:
    try:
        path, version = find_redis()
    except LarderError as error:
        return Check("redis", "embedded", "failed", error.message, error.hint)
    shown = ".".join(map(str, version))
    return Check(
        "redis", "embedded", "ok", f"{path} {shown}; REDIS_URL is not set, so each command starts its own"
    )


def _broker(url: str) -> Iterator[Check]:
    try:
        client = client_of(url, _PATIENCE)
        info = client.info("server")
        seconds, microseconds = client.time()
    except (redis.RedisError, ValueError, TypeError, OSError) as error:
        reason = type(error).__name__
        yield Check(
            "redis",
            "REDIS_URL",
            "failed",
            f"does not answer ({reason})",
            "check REDIS_URL, and that Redis runs",
        )
        return
    version = tuple(int(part) for part in str(info["redis_version"]).split("."))
    if version >= OLDEST_REDIS:
        yield Check("redis", "REDIS_URL", "ok", f"Redis {info['redis_version']}")
    else:
        oldest = ".".join(map(str, OLDEST_REDIS))
        yield Check(
            "redis", "REDIS_URL", "failed", f"Redis {info['redis_version']}", f"use {oldest} or newer"
        )
    yield clock_check("Redis", seconds + microseconds / 1e6 - time.time())
    yield _workers()


def _workers() -> Check:
    from workers.celery import app  # noqa: PLC0415 - brings Celery, which the other checks do without

    names = sorted(name for answer in app.control.ping(timeout=2) for name in answer)
    if names:
        return Check("workers", "REDIS_URL", "ok", ", ".join(names))
    return Check("workers", "REDIS_URL", "failed", "none answers", "start one: celery -A workers worker")


def _print(check: Check) -> None:
    output.out.print(
        f"{_SHOWN[check.state]} {escape(check.name)} {escape(check.subject)}: {escape(check.detail)}"
    )
    if check.hint and check.state != "ok":
        output.out.print(f"       [yellow]HINT:[/] {escape(check.hint)}")
