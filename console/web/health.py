"""Health: whether all is well. For monitors a word, for those who have logged in everything that it is made of.

Whatever is away, an answer comes within seconds: each part is asked in a thread, and left alone where it is silent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.glance import glance
from console.web.answers import Answer
from larder.errors import LarderError
from larder.ledger import AwayError, Ledger
from larder.settings import Settings
from larder.spool import Spool, free_bytes, run_folders
from larder.stores import open_store
from tasks import context

#: Seconds that a part has to answer, and that what it said is good for: monitors ask often, and stores cost money.
_PATIENCE = 4.0
_FRESH = 5.0
_FRESH_STORE = 60.0


def routes() -> list[Route]:
    """Health for monitors, and two addresses for probes."""
    return [
        Route("/api/health", _health),
        Route("/api/live", lambda _request: Answer({"status": "ok"})),
        Route("/api/ready", _ready),
    ]


@dataclass(frozen=True)
class Part:
    """How one thing is that backups need."""

    ok: bool
    detail: str

    def document(self) -> dict[str, Any]:
        """It as JSON has it."""
        return {"ok": self.ok, "detail": self.detail}


class Asked:
    """What was asked lately. A thing that does not answer is not asked again before it has."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="health")
        self._lock = threading.Lock()
        self._found: dict[str, tuple[float, Future[Any]]] = {}

    def ask(self, name: str, function: Callable[[], Any], fresh: float = _FRESH) -> Future[Any]:
        """The answer of `function`, or the one that is not older than `fresh` seconds."""
        with self._lock:
            asked, found = self._found.get(name, (0.0, None))
            if found is None or (found.done() and time.monotonic() - asked > fresh):
                found = self._pool.submit(function)
                self._found[name] = (time.monotonic(), found)
            return found

    def part(self, name: str, function: Callable[[], str], fresh: float = _FRESH) -> Part:
        """How something is, by a function that says so, or raises why not."""
        try:
            return Part(True, self.ask(name, function, fresh).result(_PATIENCE))
        except LateError:
            return Part(False, f"no answer within {_PATIENCE:.0f} s")
        except LarderError as error:
            return Part(False, error.message)
        except (redis.RedisError, AwayError, OSError) as error:
            return Part(False, f"does not answer ({type(error).__name__})")


_asked = Asked()


def _health(request: Request) -> Response:
    settings: Settings = request.app.state.settings
    document = health(settings)
    status = 200 if document["status"] == "ok" else 503
    detailed = request.query_params.get("detailed", "").lower() in ("true", "1", "yes")
    # Whoever is here without a name was let through to hear a word, and not more.
    if not detailed or request.scope.get("user") is None:
        return Answer({"status": document["status"]}, status)
    return Answer(document, status)


def _ready(_request: Request) -> Response:
    part = _asked.part("ledger", _ledger)
    return Answer({"status": "ok" if part.ok else "away"}, 200 if part.ok else 503)


def health(settings: Settings) -> dict[str, Any]:
    """Everything that backups need, and how every database stands.

    `status` is `ok`; `unsafe`, where a database is not safe; `degraded`, where something that backups need is away.
    """
    parts = {"ledger": _asked.part("ledger", _ledger)}
    if settings.redis_url is not None:
        parts["broker"] = _asked.part("broker", lambda: _broker(settings))
    parts["disk"] = _asked.part("disk", lambda: _disk(settings))
    stores = {
        name: _asked.part(f"store {name}", _store(settings, name), _FRESH_STORE) for name in settings.stores
    }
    databases, hosts = (
        (_value("databases", lambda: _databases(settings)), _value("hosts", _hosts))
        if parts["ledger"].ok
        else (None, None)
    )
    if settings.redis_url is not None and hosts is not None:
        count = sum(host["answers"] for host in hosts)
        parts["workers"] = Part(
            count > 0, f"{count} host{'' if count == 1 else 's'} heard of within the last minute"
        )
    well = all(part.ok for part in (*parts.values(), *stores.values())) and databases is not None
    safe = databases is not None and all(one["safe"] for one in databases)
    return {
        "status": "degraded" if not well else "ok" if safe else "unsafe",
        **{name: part.document() for name, part in parts.items()},
        "stores": {name: part.document() for name, part in stores.items()},
        "hosts": hosts or [],
        "databases": databases or [],
    }


def _value(name: str, function: Callable[[], Any]) -> Any:
    try:
        return _asked.ask(name, function).result(_PATIENCE)
    except (LateError, LarderError, AwayError):
        return None


def _databases(settings: Settings) -> list[dict[str, Any]]:
    return [one.document() for one in glance(settings, context.ledger(), datetime.now(UTC))]


def _hosts() -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    return [
        {"host": host.id, "seen": host.seen, "answers": host.is_there(now)}
        for host in sorted(context.ledger().hosts.known().values(), key=lambda one: one.id)
    ]


def _ledger() -> str:
    ledger: Ledger = context.ledger()
    ledger.hosts.known()
    return "answers"


def _broker(settings: Settings) -> str:
    assert settings.redis_url is not None  # noqa: S101 - it is asked for no other
    url = settings.redis_url.get_secret_value().partition(";")[0]
    with redis.Redis.from_url(url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE) as client:
        client.ping()
    return "answers"


def _disk(settings: Settings) -> str:
    used, free = spool_use(settings), free_bytes(settings.state_dir)
    needed = max((one.spooled or 0 for one in context.ledger().runs.latest(limit=50)), default=0)
    room = free if settings.spool_limit is None else min(free, settings.spool_limit - used)
    if needed > room:
        raise LarderError(f"{room:,} bytes are left for the spool; a backup took {needed:,} of late")
    return f"{free:,} bytes free, {used:,} in the spool"


def spool_use(settings: Settings) -> int:
    """Bytes that lie in this host's spool."""
    return sum(Spool(settings.spool_dir, folder.name).size for folder in run_folders(settings.spool_dir))


def _store(settings: Settings, name: str) -> Callable[[], str]:
    def ask() -> str:
        store = open_store(settings.stores[name])
        keys = context.ledger().backups.newest_keys(name, 1)
        for key in keys:
            if store.size(key) is None:
                raise LarderError(f"answers, and has no {key}, which should be there")
        return "answers, and has its newest copy" if keys else "has no copy yet"

    return ask


def unwell(document: dict[str, Any]) -> Iterator[str]:
    """What is away, a line each, of a health document."""
    for name in ("ledger", "broker", "workers", "disk"):
        if name in document and not document[name]["ok"]:
            yield f"{name}: {document[name]['detail']}"
    for name, part in document["stores"].items():
        if not part["ok"]:
            yield f"store {name}: {part['detail']}"
