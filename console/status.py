"""`larder status`: each database at a glance."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from console import output
from console.output import escape
from larder.config import DatabaseSettings, Settings
from larder.errors import ConfigurationError
from larder.ledger import Ledger
from larder.ledger.backups import Backup
from larder.ledger.runs import Run
from larder.progress import human_seconds, short_size
from larder.schedule import next_slot, offset
from tasks import context


def print_status(*, as_json: bool) -> int:
    """Print the state of every configured database; gives 1 when one is not safe."""
    settings, ledger = context.settings(), context.ledger()
    if not settings.databases:
        raise ConfigurationError(
            "unable to tell how databases are: none is configured",
            "set DATABASE_URL, or write larder.toml; larder list shows what the stores hold",
        )
    states = [_state(database, settings, ledger) for database in settings.databases.values()]
    if as_json:
        output.print_json(states)
    else:
        output.print_table(
            (
                "database",
                "",
                "newest backup",
                ">age",
                ">size",
                "proof",
                "copies",
                "last run",
                "next run (UTC)",
            ),
            [_row(state) for state in states],
        )
        for state in states:
            for line in _remarks(state):
                output.out.print(f"[yellow]{escape(state['database'])}:[/] {escape(line)}")
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
        "safe": _is_safe(newest, last),
        "backup": newest.id if newest else None,
        "created": newest.created if newest else None,
        "size": newest.size if newest else None,
        "proof": newest.proof if newest else None,
        "stores": sorted(newest.copies) if newest else [],
        "missing_stores": _missing(database, settings, newest),
        "problems": _problems(newest),
        "last_run": _last_run(last),
        "running": {"run": active.id, "step": active.step, "progress": active.progress} if active else None,
        "next_run": due,
    }


def _is_safe(newest: Backup | None, last: Run | None) -> bool:
    """Whether there is a good backup that the last run has made, and every copy of it is good, as far as is known."""
    if newest is None or newest.proof == "broken" or _problems(newest):
        return False
    return not (last and (last.state == "failed" or any(link.state == "failed" for link in last.uploads)))


def _missing(database: DatabaseSettings, settings: Settings, newest: Backup | None) -> list[str]:
    held = newest.copies if newest else {}
    return [store.name for store in settings.stores_of(database) if store.name not in held]


def _problems(newest: Backup | None) -> list[str]:
    """What the last reading of the newest backup's copies found."""
    copies = newest.copies if newest else {}
    return [f"{store}: {copy.problem}" for store, copy in sorted(copies.items()) if copy.problem]


def _remarks(state: dict[str, Any]) -> Iterator[str]:
    if state["backup"] and state["missing_stores"]:
        yield f"no copy of {state['backup']} in {', '.join(state['missing_stores'])}"
    yield from state["problems"]
    last = state["last_run"]
    if last:
        yield from [f"the last run failed: {last['error']}"] if last["error"] else []
        yield from last["warnings"]


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
        "warnings": run.warnings,
    }


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
        "safe" if state["safe"] else "UNSAFE",
        state["backup"] or "none",
        output.age(state["created"]) if state["created"] else "-",
        short_size(state["size"]) if state["size"] is not None else "-",
        state["proof"] or "-",
        f"{len(state['stores'])} of {len(state['stores']) + len(state['missing_stores'])}",
        shown,
        output.moment(state["next_run"]),
    )
