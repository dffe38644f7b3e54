"""Drawn pages: templates, the words and measures that they use, and what is said where a page cannot be drawn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

import larder
from console import documents, output
from console.web import drawings
from larder.config import DatabaseSettings
from larder.errors import LarderError, NotFoundError
from larder.ledger import AwayError
from larder.ledger.runs import SAFETY_TRIGGER, Run
from larder.objectives import span
from larder.progress import human_seconds, human_size

logger = logging.getLogger("larder.console")

#: What the navigation leads to: an address, its name, and where the pages below it lie.
_PAGES: tuple[tuple[str, str, str], ...] = (
    ("/", "Databases", "/databases/"),
    ("/runs", "Runs", "/runs/"),
    ("/restores", "Restores", "/restores/"),
    ("/audit", "Audit", "/audit/"),
)

#: How a rule of a retention reads.
_RULES = {
    "days": "for {} days",
    "keep_last": "the newest {}",
    "hourly": "one an hour for {} hours",
    "daily": "one a day for {} days",
    "weekly": "one a week for {} weeks",
    "monthly": "one a month for {} months",
    "yearly": "one a year for {} years",
}

#: What a template is given, made of what was asked for.
View = Callable[[Request], Mapping[str, Any]]


def route(path: str, template: str, view: View) -> Route:
    """The page at `path`: what `view` found, as `template` has it."""
    return Route(path, partial(_answer, template, view))


def nothing_there(request: Request) -> Response:
    """What a person sees at an address that there is not."""
    error = NotFoundError(f"there is nothing at {request.url.path}")
    return _page("error.html", request, 404, title="There is no such thing", error=error)


def _answer(template: str, view: View, request: Request) -> Response:
    try:
        return _page(template, request, 200, **view(request))
    except NotFoundError as error:
        return _page("error.html", request, 404, title="There is no such thing", error=error)
    except LarderError as error:
        return _page("error.html", request, 503, title="Larder cannot tell just now", error=error)
    except AwayError as error:
        logger.error("the ledger cannot be asked: %s", type(error).__name__)
        away = LarderError("the ledger does not answer", "see whether its database runs: larder doctor")
        return _page("error.html", request, 503, title="Larder cannot tell just now", error=away)


def _page(template: str, request: Request, status: int, **values: Any) -> Response:
    drawn = _TEMPLATES.get_template(template).render(
        pages=_PAGES,
        path=request.url.path,
        flower=request.app.state.settings.console.flower_url,
        user=request.scope.get("user") or "",
        now=datetime.now(UTC),
        version=larder.__version__,
        **values,
    )
    return HTMLResponse(drawn, status)


def kind(run: Run) -> str:
    """What people call it: a backup that is a part of a restore is its safety backup."""
    return f"{SAFETY_TRIGGER} backup" if run.parent else run.kind


def _ago(moment: datetime) -> str:
    """`5 minutes ago`, or `in 5 minutes`: a page is drawn again every few seconds, and should not flicker."""
    now = datetime.now(UTC)
    return f"{output.age(moment, now)} ago" if moment <= now else f"in {output.age(now, moment)}"


def _age(seconds: float) -> str:
    """A time in two units, without seconds once there are minutes."""
    return span(seconds - seconds % 60 if seconds >= 120 else seconds)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _percent(run: Run) -> int | None:
    """How far the step is that a run is at, where that is known: its progress begins with it."""
    number, sign, _ = (run.progress or "").partition(" %")
    return int(number) if sign and number.isdigit() else None


def _place(run: Run) -> str:
    """Which of its steps a run is at: `step 2 of 7`."""
    at = next((number for number, step in enumerate(run.steps, 1) if step is run.open_step), len(run.steps))
    return f"step {at} of {len(run.steps)}"


def _kept(database: DatabaseSettings) -> str:
    """A retention as a sentence has it."""
    rules = database.retention.model_dump(exclude_none=True)
    return ", ".join(_RULES[rule].format(count) for rule, count in rules.items())


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "ago": _ago,
    "age": _age,
    "iso": _iso,
    "size": human_size,
    "seconds": human_seconds,
    "span": span,
    "moment": output.moment,
    "printable": output.printable,
    "kind": kind,
    "percent": _percent,
    "place": _place,
    "kept": _kept,
    "state": documents.state_of,
    "sparkline": drawings.sparkline,
    "bar": drawings.bar,
}
