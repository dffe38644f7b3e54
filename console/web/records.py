"""Records: backups and runs as the ledger knows them, in the words of the commands."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.glance import glance
from console.runs import document_of
from console.web.answers import Answer, flag
from larder.errors import NotFoundError
from larder.ledger.backups import Backup
from tasks import context

#: Rows of an answer, where nobody says how many, and at most.
_ROWS = 100
_MOST = 1000

#: How many of a run's last lines are shown.
_LINES = 500


def routes() -> list[Route]:
    """Status, backups and runs."""
    return [
        Route("/api/status", _status),
        Route("/api/backups", _backups),
        Route("/api/backups/{database}/{stamp}", _backup),
        Route("/api/runs", _runs),
        Route("/api/runs/{run}", _run),
    ]


def _status(request: Request) -> Response:
    found = glance(request.app.state.settings, context.ledger(), datetime.now(UTC))
    return Answer([one.document() for one in found])


def _backups(request: Request) -> Response:
    limit = _limit(request)
    database, before = request.query_params.get("database"), request.query_params.get("before")
    ledger = context.ledger()
    if database is not None:
        request.app.state.settings.database(database)
    last = ledger.backups.get(before) if before is not None else None
    if before is not None and last is None:
        raise NotFoundError(f"unable to find backup '{before}'", "leave before out, and begin anew")
    return Answer([document_of_backup(one) for one in ledger.backups.latest(database, limit, before=last)])


def _backup(request: Request) -> Response:
    backup_id = f"{request.path_params['database']}/{request.path_params['stamp']}"
    found = context.ledger().backups.get(backup_id)
    if found is None:
        raise NotFoundError(f"unable to find backup '{backup_id}'", "/api/backups lists them")
    return Answer(document_of_backup(found))


def _runs(request: Request) -> Response:
    limit, failed = _limit(request), flag(request, "failed")
    database, before = request.query_params.get("database"), request.query_params.get("before")
    if database is not None:
        request.app.state.settings.database(database)
    runs = context.ledger().runs
    last = runs.get(before) if before is not None else None
    found = runs.latest(database, kind=None, failed=failed, limit=limit, before=last)
    return Answer([document_of(run) for run in found])


def _run(request: Request) -> Response:
    ledger = context.ledger()
    run = ledger.runs.get(request.path_params["run"])
    lines = [
        {"time": line.moment, "level": line.level, "text": line.text}
        for line in ledger.journal.last(run.id, _LINES)
    ]
    return Answer({**document_of(run), "log": lines})


def _limit(request: Request) -> int:
    """How many rows are wanted; raises `HTTPException` for what cannot be."""
    text = request.query_params.get("limit", str(_ROWS))
    if text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= _MOST:
        return int(text)
    raise HTTPException(400, f"limit has to be a whole number from 1 to {_MOST:,}")


def document_of_backup(backup: Backup) -> dict[str, Any]:
    """A backup as `larder list --json` prints it, and what is wrong with its copies."""
    return {
        "backup": backup.id,
        "database": backup.database,
        "engine": backup.engine,
        "created": backup.created,
        "artifact": backup.artifact,
        "size": backup.size,
        "sha256": backup.sha256,
        "raw_size": backup.raw_size,
        "stores": sorted(backup.copies),
        "proof": backup.proof,
        "pinned": backup.pinned,
        "problems": [
            f"{name}: {copy.problem}" for name, copy in sorted(backup.copies.items()) if copy.problem
        ],
    }
