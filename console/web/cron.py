"""The cron endpoint: backups that somebody else's clock begins, as Vercel's does.

Called twice for one slot of a database's schedule it begins one backup, and says of it both times.
"""

from __future__ import annotations

from typing import Any

from celery import current_app
from kombu.exceptions import OperationalError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.web.answers import Answer, logger, refusal
from console.web.login import Tries, address_of, same, too_many
from larder.errors import BusyError, LarderError, UnreachableError
from larder.ledger.runs import Run
from larder.settings import Settings
from tasks import queues
from tasks.backup import SCHEDULED, start

#: Seconds that the broker has to answer.
_PATIENCE = 5


def routes(settings: Settings, tries: Tries) -> list[Route]:
    """`GET` and `POST /api/cron/backup`."""

    def begin(request: Request) -> Response:
        return _refused(request, settings, tries) or _begin(request, settings)

    route = Route("/api/cron/backup", begin, methods=["GET", "POST"])
    # Starlette adds it to GET; whoever only wants to see whether the address is there begins nothing.
    (route.methods or set()).discard("HEAD")
    return [route]


def _refused(request: Request, settings: Settings, tries: Tries) -> Response | None:
    """What is said to whoever does not know the secret."""
    if settings.cron_secret is None:
        logger.warning("somebody asks for backups at /api/cron/backup, and CRON_SECRET is not set")
        return refusal(401, "this needs a secret", "set CRON_SECRET where the console runs")
    address = address_of(request, settings.console)
    if wait := tries.wait(address):
        return too_many(wait)
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and same(given.strip(), settings.cron_secret.get_secret_value()):
        return None
    tries.note(address)
    return refusal(
        401,
        "the secret is missing, or wrong",
        "send Authorization: Bearer, and what CRON_SECRET is where the console runs",
        {"WWW-Authenticate": "Bearer"},
    )


def _begin(request: Request, settings: Settings) -> Response:
    if settings.redis_url is None:
        return refusal(503, "no worker would take it", "set REDIS_URL, and start a worker")
    if not settings.databases:
        return refusal(503, "no database is configured", "set DATABASE_URL, or write larder.toml")
    names = list(dict.fromkeys(request.query_params.getlist("database")))
    wanted = [settings.database(name).name for name in names] or list(settings.databases)
    begun: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    status, away = 202, _away()
    for name in wanted:
        try:
            # A run that is begun and cannot be sent uses up the slot, and who asks again would be told of that one.
            if away is not None:
                raise away
            begun.append(_document(start(name, SCHEDULED)))
        except LarderError as error:
            refused.append({"database": name, "error": error.message, "hint": error.hint})
            status = _worse(status, error)
            away = error if isinstance(error, UnreachableError) else None
    return Answer({"runs": begun, "refused": refused}, 202 if begun and status == 409 else status)


def _away() -> UnreachableError | None:
    """What is amiss where the broker does not answer; None where it does."""
    try:
        with current_app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=_PATIENCE)
    except OperationalError as error:
        return queues.away(error)
    return None


def _worse(status: int, error: LarderError) -> int:
    if isinstance(error, BusyError):
        return max(status, 409)
    return 503 if isinstance(error, UnreachableError) else max(status, 500)


def _document(run: Run) -> dict[str, Any]:
    return {
        "run": run.id,
        "database": run.database,
        "backup": run.backup,
        "state": run.state,
        "slot": run.slot,
    }
