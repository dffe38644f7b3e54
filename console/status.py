"""`larder status`: each database at a glance."""

from __future__ import annotations

from datetime import UTC, datetime
from math import ceil
from typing import Any

from rich.text import Text

from console import output
from console.glance import glance
from console.output import escape
from larder.errors import ConfigurationError
from larder.progress import human_seconds, short_size
from tasks import context

#: What the table is headed with.
_HEADINGS = (
    "database",
    "",
    "newest backup",
    ">age",
    ">size",
    "proof",
    "copies",
    ">proven",
    ">recovery",
    "last run",
    "next run (UTC)",
)


def print_status(*, as_json: bool) -> int:
    """Print the state of every configured database; gives 1 when one is not safe."""
    settings, ledger = context.settings(), context.ledger()
    if not settings.databases:
        raise ConfigurationError(
            "unable to tell how databases are: none is configured",
            "set DATABASE_URL, or write larder.toml; larder list shows what the stores hold",
        )
    found = glance(settings, ledger, datetime.now(UTC))
    if as_json:
        output.print_json([one.document() for one in found])
    else:
        output.print_table(_HEADINGS, [_row(one.document()) for one in found])
        for one in found:
            for line in one.remarks():
                output.out.print(f"[yellow]{escape(one.settings.name)}:[/] {escape(line)}")
    return 0 if all(one.safe for one in found) else 1


def _row(state: dict[str, Any]) -> tuple[object, ...]:
    last = state["last_run"]
    running = state["running"]
    if running:
        shown = " ".join(filter(None, ["running", running["step"], running["progress"]]))
    elif last:
        shown = f"{last['state']} in {human_seconds(last['seconds'])}"
    else:
        shown = "never"
    return (
        state["database"],
        Text("safe", "green") if state["safe"] else Text("UNSAFE", "bold red"),
        state["backup"] or "none",
        output.age(state["created"]) if state["created"] else "-",
        short_size(state["size"]) if state["size"] is not None else "-",
        state["proof"] or "-",
        _copies(state),
        output.age(state["proven_created"]) if state["proven_created"] else "never",
        _recovery(state["objectives"]["rto"]),
        shown,
        output.moment(state["next_run"]),
    )


def _copies(state: dict[str, Any]) -> str:
    """`2 of 2`, or `1 of 2, 1 damaged`: the copies that are good, of those that there should be."""
    held, damaged = len(state["stores"]), len(state["problems"])
    shown = f"{held - damaged} of {held + len(state['missing_stores'])}"
    return f"{shown}, {damaged} damaged" if damaged else shown


def _recovery(rto: dict[str, Any]) -> str:
    """`12 m of 30 m`: what it took, against what it may take."""
    return "-" if rto["seconds"] is None else f"{_short(rto['seconds'])} of {_short(rto['target'])}"


def _short(seconds: float) -> str:
    """A time in one unit, rounded up, so that none that is over its target reads as if it were not."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * length:
            return f"{ceil(seconds / length)} {unit}"
    return f"{ceil(seconds)} s"
