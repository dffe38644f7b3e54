"""The pages: what there is to see of databases, runs, restores and the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.routing import Route

from console.glance import Glance, glance
from console.web import drawings
from console.web.drawn import kind, route
from console.web.health import health, unwell
from larder.errors import LarderError
from larder.ledger.runs import Run
from tasks import context

#: Databases of one page, and rows of one table.
_AT_ONCE = 48
_ROWS = 50

#: How many of the runs that are under way a page begins with.
_ACTIVE = 12

#: How many of the newest values a database's charts are drawn of.
_VALUES = 1000

#: How many of a run's last lines are shown.
_LINES = 300


def routes() -> list[Route]:
    """Their addresses."""
    return [
        route("/", "databases.html", _databases),
        route("/databases/{name}", "database.html", _database),
        route("/runs", "runs.html", _runs),
        route("/runs/{run}", "run.html", _run),
        route("/restores", "restores.html", _restores),
        route("/audit", "audit.html", _audit),
    ]


def _databases(request: Request) -> Mapping[str, Any]:
    settings, ledger, now = request.app.state.settings, context.ledger(), datetime.now(UTC)
    query = request.query_params
    everything = glance(settings, ledger, now)
    wanted, only_unsafe = query.get("name", "").strip(), query.get("show") == "unsafe"
    found = [
        one
        for one in sorted(everything, key=lambda one: (one.safe, one.settings.name))
        if wanted.lower() in one.settings.name.lower() and not (only_unsafe and one.safe)
    ]
    number, count = _page_number(query.get("page", "1"), len(found))
    shown = found[(number - 1) * _AT_ONCE : number * _AT_ONCE]
    names = [one.settings.name for one in shown]
    active = [run for run in ledger.runs.active() if run.parent is None]
    troubles = list(unwell(health(settings)))
    return {
        "title": _summary(everything, well=not troubles),
        "good": bool(everything) and not troubles and all(one.safe for one in everything),
        "total": len(everything),
        "matching": len(found),
        "unwell": troubles,
        "active": active[:_ACTIVE],
        "active_count": len(active),
        "next": min(everything, key=lambda one: one.next_run, default=None),
        "groups": [
            ("need", "Need somebody", [one for one in shown if not one.safe]),
            ("safe", "Safe", [one for one in shown if one.safe]),
        ],
        "sizes": ledger.backups.sizes(names, drawings.MOST),
        "times": ledger.runs.times(names, drawings.MOST),
        "name": wanted,
        "only_unsafe": only_unsafe,
        "number": number,
        "pages_count": count,
        "rest": urlencode({"name": wanted} | ({"show": "unsafe"} if only_unsafe else {})),
    }


def _summary(found: list[Glance], *, well: bool) -> str:
    unsafe = sum(not one.safe for one in found)
    if not found:
        return "No database is configured"
    if unsafe:
        databases = "database" if len(found) == 1 else "databases"
        return f"{unsafe} of {len(found):,} {databases} need{'s' if unsafe == 1 else ''} somebody"
    said = "The database is safe" if len(found) == 1 else f"All {len(found):,} databases are safe"
    return said if well else f"{said}, but something that backups need is away"


def _page_number(text: str, rows: int) -> tuple[int, int]:
    count = max(-(-rows // _AT_ONCE), 1)
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 1
    return min(max(number, 1), count), count


def _database(request: Request) -> Mapping[str, Any]:
    settings, ledger, now = request.app.state.settings, context.ledger(), datetime.now(UTC)
    database = settings.database(request.path_params["name"])
    one = next(one for one in glance(settings, ledger, now) if one.settings.name == database.name)
    name = database.name
    return {
        "title": name,
        "one": one,
        "charts": drawings.of_database(
            ledger.backups.sizes([name], _VALUES).get(name, []),
            ledger.runs.times([name], _VALUES).get(name, []),
            now,
        ),
        "backups": ledger.backups.latest(name, _ROWS),
        "runs": ledger.runs.latest(name, kind=None, limit=20),
        "drills": ledger.drills.latest(name, limit=10),
    }


def _runs(request: Request) -> Mapping[str, Any]:
    query, runs = request.query_params, context.ledger().runs
    name, failed, before = query.get("database", ""), query.get("show") == "failed", query.get("before")
    last: Run | None = runs.get(before) if before else None
    found = runs.latest(name or None, kind=None, failed=failed, limit=_ROWS + 1, before=last)
    shown = found[:_ROWS]
    same = ({"database": name} if name else {}) | ({"show": "failed"} if failed else {})
    return {
        "title": f"Runs of {name}" if name else "Runs",
        "runs": shown,
        "database": name,
        "failed": failed,
        "is_newest": last is None,
        "newest": f"?{urlencode(same)}",
        "older": f"?{urlencode(same | {'before': shown[-1].id})}" if len(found) > _ROWS else None,
    }


def _run(request: Request) -> Mapping[str, Any]:
    ledger = context.ledger()
    run = ledger.runs.get(request.path_params["run"])
    return {
        "title": f"{kind(run).capitalize()} of {run.database}",
        "run": run,
        "lines": ledger.journal.last(run.id, _LINES),
        "most_lines": _LINES,
        "backup": ledger.backups.get(run.backup) if run.kind == "backup" else None,
        "drill": ledger.drills.get(run.id) if run.kind == "drill" else None,
        "asked": ledger.requests.of_run(run.id) if run.kind == "restore" else None,
        "others": ledger.runs.parts_of(run.id),
    }


def _restores(_request: Request) -> Mapping[str, Any]:
    found = context.ledger().requests.latest(_ROWS)
    return {
        "title": "Restores",
        "requests": found,
        "approvers": context.ledger().requests.approvers(found),
    }


def _audit(_request: Request) -> Mapping[str, Any]:
    audit = context.ledger().audit
    problem: LarderError | None = None
    count, last = 0, ""
    try:
        count, last = audit.verify()
    except LarderError as error:
        problem = error
    return {"title": "Audit trail", "rows": audit.last(200), "count": count, "last": last, "problem": problem}
