"""`larder doctor`: one line a check, with a hint where one is needed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict

import redis

from console import output
from console.output import escape
from larder.config import Settings
from larder.errors import LarderError
from larder.health import Check, checks, clock_check
from tasks import context
from workers.embedded import OLDEST_REDIS, find_redis
from workers.redis_client import client_of

_SHOWN = {"ok": "[green]ok  [/]", "warning": "[yellow]warn[/]", "failed": "[red]FAIL[/]"}

#: Seconds to wait for the broker, and for workers to answer.
_PATIENCE = 5


def print_checks(*, as_json: bool) -> int:
    """Print every check as soon as it is made; gives 1 when one failed."""
    settings = context.settings()
    found: list[Check] = []
    for check in _all(settings):
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
