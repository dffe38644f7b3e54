"""`larder status`: each database at a glance."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from console import output
from larder.config import DatabaseSettings, Settings
from larder.ledger import Ledger
from larder.ledger.runs import Run
from larder.progress import human_seconds, short_size
from larder.schedule import next_slot, offset
from tasks import context


def print_status(*, as_json: bool) -> int:
    """Print the state of every configured database; gives 1 when one is not safe."""
    settings, ledger = context.settings(), context.ledger()
    states = [_state(database, settings, ledger) for database in settings.databases.values()]
    if as_json:
        output.print_json(states)
    else:
        output.print_table(
            ("database", "", "newest backup", ">age", ">size", "proof", "last run", "next run (UTC)"),
            [_row(state) for state in states],
        )
    return 0 if all(state["safe"] for state in states) else 1


def _state(database: DatabaseSettings, settings: Settings, ledger: Ledger) -> dict[str, Any]:
    backups = list(ledger.backups.all(database.name).values())
    newest = backups[-1] if backups else None
    last = next(iter(ledger.runs.latest(database.name, limit=1, over=True)), None)
    active = next((run for run in ledger.runs.latest(database.name, limit=1) if not run.over), None)
    delay = offset(database.name, settings.spread)
    due = next_slot(database.schedule, database.timezone, datetime.now(UTC) - delay) + delay
    return {
        "database": database.name,
        "safe": newest is not None and newest.proof != "broken" and not (last and last.state == "failed"),
        "backup": newest.id if newest else None,
        "created": newest.created if newest else None,
        "size": newest.size if newest else None,
        "proof": newest.proof if newest else None,
        "stores": sorted(newest.copies) if newest else [],
        "last_run": _last_run(last),
        "running": {"run": active.id, "step": active.step, "progress": active.progress} if active else None,
        "next_run": due,
    }


def _last_run(run: Run | None) -> dict[str, Any] | None:
    if run is None:
        return None
    return {
        "run": run.id,
        "state": run.state,
        "finished": run.finished,
        "seconds": round(run.seconds, 3),
        "failed_step": run.failed_step,
        "error": run.error,
    }


def _row(state: dict[str, Any]) -> tuple[object, ...]:
    last = state["last_run"]
    running = state["running"]
    if running:
        shown = " ".join(filter(None, ["running", running["step"], running["progress"]]))
    elif last:
        shown = f"{last['state']} in {human_seconds(last['seconds'])}"
        if last["error"]:
            shown += f": {last['error']}"
    else:
        shown = "never"
    return (
        state["database"],
        "safe" if state["safe"] else "UNSAFE",
        state["backup"] or "none",
        output.age(state["created"]) if state["created"] else "-",
        short_size(state["size"]) if state["size"] is not None else "-",
        state["proof"] or "-",
        shown,
        output.moment(state["next_run"]),
    )
