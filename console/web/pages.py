"""The page: what there is to see of databases, runs, restores and the audit trail, drawn by the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

import larder
from console import documents, output
from console.glance import Glance, glance
from console.web import drawings
from console.web.health import health, unwell
from larder.errors import LarderError, NotFoundError
from larder.ledger import AwayError
from larder.ledger.runs import SAFETY_TRIGGER, Run
from larder.objectives import span
from larder.progress import human_seconds, human_size
from tasks import context

#: Databases of one page, and rows of one table.
_AT_ONCE = 48
_ROWS = 50

#: How many of a run's last lines are shown.
_LINES = 300

_PAGES: tuple[tuple[str, str], ...] = (
    ("/", "Databases"),
    ("/runs", "Runs"),
    ("/restores", "Restores"),
    ("/audit", "Audit"),
)

#: What stands above a page that cannot be drawn.
_UNKNOWN = "Larder cannot tell how your databases are"

View = Callable[[Request], Mapping[str, Any]]


def routes() -> list[Route]:
    """The pages."""
    views: dict[str, tuple[str, View]] = {
        "/": ("databases.html", _databases),
        "/databases/{name}": ("database.html", _database),
        "/runs": ("runs.html", _runs),
        "/runs/{run}": ("run.html", _run),
        "/restores": ("restores.html", _restores),
        "/audit": ("audit.html", _audit),
    }
    return [Route(path, partial(_drawn, template, view)) for path, (template, view) in views.items()]


def _drawn(template: str, view: View, request: Request) -> Response:
    """A page, or what is said where it cannot be drawn."""
    try:
        return _page(template, request, 200, **view(request))
    except NotFoundError as error:
        return _page("error.html", request, 404, title="There is no such thing", error=error)
    except LarderError as error:
        return _page("error.html", request, 503, title=_UNKNOWN, error=error)
    except AwayError:
        away = LarderError("the ledger does not answer", "see whether its database runs: larder doctor")
        return _page("error.html", request, 503, title=_UNKNOWN, error=away)


def _page(template: str, request: Request, status: int, **values: Any) -> Response:
    settings = request.app.state.settings
    drawn = _TEMPLATES.get_template(template).render(
        pages=_PAGES,
        path=request.url.path,
        flower=settings.console.flower_url,
        user=request.scope.get("user") or "",
        now=datetime.now(UTC),
        version=larder.__version__,
        **values,
    )
    return HTMLResponse(drawn, status)


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
    since = now - timedelta(days=30)
    return {
        "title": _summary(everything),
        "unsafe": sum(not one.safe for one in everything),
        "total": len(everything),
        "matching": len(found),
        "unwell": list(unwell(health(settings))),
        "active": [run for run in ledger.runs.active()[:20] if run.parent is None],
        "shown": shown,
        "sizes": ledger.backups.sizes(names, since),
        "times": ledger.runs.times(names, since),
        "name": wanted,
        "only_unsafe": only_unsafe,
        "number": number,
        "pages_count": count,
    }


def _summary(found: list[Glance]) -> str:
    unsafe = sum(not one.safe for one in found)
    if not found:
        return "No database is configured"
    if unsafe:
        databases = "database" if len(found) == 1 else "databases"
        return f"{unsafe} of {len(found)} {databases} need{'s' if unsafe == 1 else ''} somebody"
    return "The database is safe" if len(found) == 1 else f"All {len(found)} databases are safe"


def _page_number(text: str, rows: int) -> tuple[int, int]:
    count = max(-(-rows // _AT_ONCE), 1)
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 1
    return min(max(number, 1), count), count


def _database(request: Request) -> Mapping[str, Any]:
    settings, ledger, now = request.app.state.settings, context.ledger(), datetime.now(UTC)
    database = settings.database(request.path_params["name"])
    one = next(one for one in glance(settings, ledger, now) if one.settings.name == database.name)
    since = now - timedelta(days=90)
    return {
        "title": database.name,
        "one": one,
        "charts": drawings.of_database(
            ledger.backups.sizes([database.name], since).get(database.name, []),
            ledger.runs.times([database.name], since).get(database.name, []),
            now,
        ),
        "backups": ledger.backups.latest(database.name, _ROWS),
        "runs": ledger.runs.latest(database.name, kind=None, limit=20),
        "drills": ledger.drills.latest(database.name, limit=20),
        "stores": [store.name for store in settings.stores_of(database)],
        "retention": database.retention.model_dump(exclude_none=True),
    }


def _runs(request: Request) -> Mapping[str, Any]:
    failed = request.query_params.get("show") == "failed"
    found = context.ledger().runs.latest(kind=None, failed=failed, limit=_ROWS)
    return {"title": "Runs", "runs": found, "failed": failed}


def _run(request: Request) -> Mapping[str, Any]:
    ledger = context.ledger()
    run = ledger.runs.get(request.path_params["run"])
    return {
        "title": f"{_kind(run).capitalize()} of {run.database}",
        "run": run,
        "lines": ledger.journal.last(run.id, _LINES),
        "backup": ledger.backups.get(run.backup) if run.kind == "backup" else None,
        "drill": ledger.drills.get(run.id) if run.kind == "drill" else None,
        "asked": ledger.requests.of_run(run.id) if run.kind == "restore" else None,
        "others": ledger.runs.parts_of(run.id),
    }


def _restores(_request: Request) -> Mapping[str, Any]:
    return {"title": "Restores", "requests": context.ledger().requests.latest(_ROWS)}


def _audit(_request: Request) -> Mapping[str, Any]:
    audit = context.ledger().audit
    try:
        count, last = audit.verify()
        problem = None
    except LarderError as error:
        count, last, problem = 0, "", error.message
    return {"title": "Audit trail", "rows": audit.last(200), "count": count, "last": last, "problem": problem}


def _kind(run: Run) -> str:
    """What people call it: a backup that is a part of a restore is its safety backup."""
    return f"{SAFETY_TRIGGER} backup" if run.parent else run.kind


def _ago(moment: datetime | None) -> str:
    if moment is None:
        return "never"
    seconds = (datetime.now(UTC) - moment).total_seconds()
    return f"{output.age(moment)} ago" if seconds >= 0 else f"in {span(-seconds)}"


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _percent(run: Run) -> int | None:
    """How far the step is that a run is at, where that is known: its progress begins with it."""
    number, sign, _ = (run.progress or "").partition(" %")
    return int(number) if sign and number.isdigit() else None


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "ago": _ago,
    "iso": _iso,
    "size": human_size,
    "seconds": human_seconds,
    "span": span,
    "moment": output.moment,
    "printable": output.printable,
    "kind": _kind,
    "percent": _percent,
    "state": documents.state_of,
    "sparkline": drawings.sparkline,
}
