"""Health: whether all is well. For monitors a word, for those who have logged in everything that it is made of.

Whatever is away, an answer comes within seconds: all parts are asked at one time, each in a thread of its own, which
nobody waits for in the end.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.glance import glance
from console.web.answers import Answer, flag, logger
from larder.errors import LarderError
from larder.ledger import AwayError
from larder.settings import Settings
from larder.spool import Spool, free_bytes, run_folders
from larder.stores import open_store
from tasks import context
from workers.redis_client import client_of

#: Seconds that all parts have to answer.
_PATIENCE = 4.0

#: Seconds that an answer is good for: monitors ask often, and stores cost money.
_FRESH = 5.0
_FRESH_STORE = 60.0

#: A key that no store has.
_NO_KEY = "larder-health"

#: How the names of questions about stores begin.
_STORE = "store "


def routes() -> list[Route]:
    """Health for monitors, and two addresses for probes."""
    return [Route("/api/health", _health), Route("/api/live", _live), Route("/api/ready", _ready)]


@dataclass(frozen=True)
class Part:
    """How one thing is that backups need."""

    ok: bool
    detail: str
    #: What was found there, beside the words.
    found: list[dict[str, Any]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """It as JSON has it."""
        return {"ok": self.ok, "detail": self.detail}


_LATE = Part(ok=False, detail=f"no answer within {_PATIENCE:.0f} s")

#: What is asked how a thing is: it says so, or raises why it cannot.
Question = Callable[[], Part]


class Asked:
    """What was asked lately. A thing that does not answer is not asked again before it has."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, tuple[float, Future[Part]]] = {}

    def ask(self, name: str, question: Question) -> Future[Part]:
        """The answer to `question`, or the last one where that is good still. It is no error in any case."""
        fresh = _FRESH_STORE if name.startswith(_STORE) else _FRESH
        with self._lock:
            asked, found = self._found.get(name, (0.0, None))
            if found is None or (found.done() and time.monotonic() - asked > fresh):
                found = Future()
                self._found[name] = (time.monotonic(), found)
                # A daemon: one that hangs keeps neither the others waiting, nor the process from its end.
                threading.Thread(target=_answer, args=(found, name, question), daemon=True).start()
            return found


def _answer(found: Future[Part], name: str, question: Question) -> None:
    try:
        part = question()
    except LarderError as error:
        part = Part(ok=False, detail=error.message)
    except (redis.RedisError, AwayError, OSError, ValueError) as error:
        part = Part(ok=False, detail=f"does not answer ({type(error).__name__})")
    except Exception as error:  # noqa: BLE001
        # Plug-ins raise what they like. Whoever watches is told, and not that the console is ill.
        logger.error("unable to tell how this is: %s", name, exc_info=error)
        part = Part(ok=False, detail=f"cannot be asked ({type(error).__name__})")
    found.set_result(part)


_asked = Asked()


async def _health(request: Request) -> Response:
    detailed = flag(request, "detailed")
    begun = _begun(request.app.state.settings)
    await asyncio.wait([asyncio.wrap_future(found) for found in begun.values()], timeout=_PATIENCE)
    document = _document(begun)
    status = 200 if document["status"] == "ok" else 503
    # Whoever is here without a name was let through to hear a word, and not more.
    if not detailed or request.scope.get("user") is None:
        return Answer({"status": document["status"]}, status)
    return Answer(document, status)


async def _live(_request: Request) -> Response:
    return Answer({"status": "ok"})


async def _ready(_request: Request) -> Response:
    found = _asked.ask("ledger", _ledger)
    await asyncio.wait([asyncio.wrap_future(found)], timeout=_PATIENCE)
    return Answer({"status": "ok"}) if _told(found).ok else Answer({"status": "away"}, 503)


def health(settings: Settings) -> dict[str, Any]:
    """Everything that backups need, and how every database stands.

    `status` is `ok`; `unsafe`, where a database is not safe; `degraded`, where something that backups need is away.
    """
    begun = _begun(settings)
    wait(begun.values(), _PATIENCE)
    return _document(begun)


def _begun(settings: Settings) -> dict[str, Future[Part]]:
    """Every question, asked."""
    questions: dict[str, Question] = {
        "ledger": _ledger,
        "hosts": _hosts,
        "databases": lambda: _databases(settings),
        "disk": lambda: _disk(settings),
    }
    if settings.redis_url is not None:
        questions["broker"] = lambda: _broker(settings)
    for name in settings.stores:
        questions[f"{_STORE}{name}"] = _store(settings, name)
    return {name: _asked.ask(name, question) for name, question in questions.items()}


def _told(found: Future[Part]) -> Part:
    return found.result() if found.done() else _LATE


def _document(begun: Mapping[str, Future[Part]]) -> dict[str, Any]:
    found = {name: _told(one) for name, one in begun.items()}
    hosts, databases = found["hosts"], found["databases"]
    parts: dict[str, Part] = {
        # One place for all that it was asked: where it is away, that is said once.
        "ledger": next((one for one in (found["ledger"], hosts, databases) if not one.ok), found["ledger"]),
        **{name: found[name] for name in ("broker", "disk") if name in found},
    }
    if "broker" in found and hosts.ok:
        count = sum(host["answers"] for host in hosts.found)
        parts["workers"] = Part(
            count > 0, f"{count} host{'' if count == 1 else 's'} heard of within the last minute"
        )
    stores = {name.removeprefix(_STORE): part for name, part in found.items() if name.startswith(_STORE)}
    well = all(part.ok for part in (*parts.values(), *stores.values()))
    safe = all(one["safe"] for one in databases.found)
    return {
        "status": "degraded" if not well else "ok" if safe else "unsafe",
        **{name: part.document() for name, part in parts.items()},
        "stores": {name: part.document() for name, part in stores.items()},
        "hosts": hosts.found,
        "databases": databases.found,
    }


def _databases(settings: Settings) -> Part:
    found = glance(settings, context.ledger(), datetime.now(UTC))
    return Part(ok=True, detail="answers", found=[one.document() for one in found])


def _hosts() -> Part:
    now = datetime.now(UTC)
    found = [
        {"host": host.id, "seen": host.seen, "answers": host.is_there(now)}
        for host in sorted(context.ledger().hosts.known().values(), key=lambda one: one.id)
    ]
    return Part(ok=True, detail="answers", found=found)


def _ledger() -> Part:
    context.ledger().hosts.known()
    return Part(ok=True, detail="answers")


def _broker(settings: Settings) -> Part:
    assert settings.redis_url is not None  # noqa: S101 - it is asked for no other
    with client_of(settings.redis_url.get_secret_value(), _PATIENCE) as client:
        client.ping()
    return Part(ok=True, detail="answers")


def _disk(settings: Settings) -> Part:
    used, free = spool_use(settings), free_bytes(settings.state_dir)
    needed = max((one.spooled or 0 for one in context.ledger().runs.latest(limit=50)), default=0)
    room = free if settings.spool_limit is None else min(free, settings.spool_limit - used)
    if needed > room:
        return Part(
            ok=False, detail=f"{room:,} bytes are left for the spool; a backup took {needed:,} of late"
        )
    return Part(ok=True, detail=f"{free:,} bytes free, {used:,} in the spool")


def spool_use(settings: Settings) -> int:
    """Bytes that lie in this host's spool."""
    return sum(Spool(settings.spool_dir, folder.name).size for folder in run_folders(settings.spool_dir))


def _store(settings: Settings, name: str) -> Question:
    def ask() -> Part:
        store = open_store(settings.stores[name])
        keys = context.ledger().backups.newest_keys(name, 1)
        size = store.size(keys[0] if keys else _NO_KEY)
        if not keys:
            return Part(ok=True, detail="answers, and has no copy yet")
        if size is None:
            return Part(ok=False, detail=f"answers, and has no {keys[0]}, which should be there")
        return Part(ok=True, detail="answers, and has its newest copy")

    return ask


def unwell(document: dict[str, Any]) -> Iterator[str]:
    """What is away, a line each, of a health document."""
    for name in ("ledger", "broker", "workers", "disk"):
        if name in document and not document[name]["ok"]:
            yield f"{name}: {document[name]['detail']}"
    for name, part in document["stores"].items():
        if not part["ok"]:
            yield f"store {name}: {part['detail']}"
