"""`larder status`: each database at a glance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Any

from console import output
from console.output import escape
from larder.config import DatabaseSettings, Settings
from larder.errors import ConfigurationError
from larder.ledger import Ledger
from larder.ledger.backups import Backup
from larder.ledger.drills import Drill
from larder.ledger.runs import Run
from larder.objectives import Facts, Objective, judge
from larder.progress import human_seconds, short_size
from larder.schedule import next_slot, offset
from tasks import context
from tasks.objectives import facts_of

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


@dataclass(frozen=True)
class _Proof:
    """What drills have shown of a database, and how its objectives stand."""

    facts: Facts
    objectives: tuple[Objective, ...]
    #: The newest one that has come to anything.
    drill: Drill | None

    @property
    def missed(self) -> bool:
        """Whether there is anything about it that somebody should see to."""
        broken = self.drill is not None and self.drill.outcome == "broken"
        return broken or any(objective.met is False for objective in self.objectives)


def print_status(*, as_json: bool) -> int:
    """Print the state of every configured database; gives 1 when one is not safe."""
    settings, ledger = context.settings(), context.ledger()
    if not settings.databases:
        raise ConfigurationError(
            "unable to tell how databases are: none is configured",
            "set DATABASE_URL, or write larder.toml; larder list shows what the stores hold",
        )
    now = datetime.now(UTC)
    facts = facts_of(settings, ledger)
    proofs = {
        name: _Proof(
            facts[name], tuple(judge(database, facts[name], now).values()), _last_drill(ledger, name)
        )
        for name, database in settings.databases.items()
    }
    states = [
        _state(database, settings, ledger, proofs[name]) for name, database in settings.databases.items()
    ]
    if as_json:
        output.print_json(states)
    else:
        output.print_table(
            _HEADINGS,
            [_row(state) for state in states],
        )
        for state in states:
            for line in (*_remarks(state), *_remarks_on_proof(proofs[state["database"]])):
                output.out.print(f"[yellow]{escape(state['database'])}:[/] {escape(line)}")
    return 0 if all(state["safe"] for state in states) else 1


def _state(database: DatabaseSettings, settings: Settings, ledger: Ledger, proof: _Proof) -> dict[str, Any]:
    backups = list(ledger.backups.all(database.name).values())
    newest = backups[-1] if backups else None
    last = next(iter(ledger.runs.latest(database.name, limit=1, over=True)), None)
    active = next((run for run in ledger.runs.latest(database.name, limit=1) if not run.over), None)
    delay = offset(database.name, settings.spread)
    due = next_slot(database.schedule, database.timezone, datetime.now(UTC) - delay) + delay
    return {
        "database": database.name,
        "safe": _is_safe(newest, last) and not proof.missed,
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
        "newest_proven": proof.facts.proven,
        "proven_created": proof.facts.proven_created,
        "recovery_seconds": proof.facts.recovery_seconds,
        "objectives": {objective.name: _standing(objective) for objective in proof.objectives},
        "last_drill": _drill(proof.drill),
    }


def _last_drill(ledger: Ledger, name: str) -> Drill | None:
    # One at most is under way.
    return next((drill for drill in ledger.drills.latest(name, limit=2) if drill.outcome), None)


def _standing(objective: Objective) -> dict[str, Any]:
    seconds = None if objective.value is None else round(objective.value, 3)
    return {"seconds": seconds, "target": objective.target, "met": objective.met}


def _drill(drill: Drill | None) -> dict[str, Any] | None:
    if drill is None:
        return None
    return {
        "run": drill.run,
        "backup": drill.backup,
        "outcome": drill.outcome,
        "finished": drill.finished,
        "level": drill.level,
        "recovery_seconds": drill.recovery_seconds,
        "error": drill.error,
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


def _remarks_on_proof(proof: _Proof) -> Iterator[str]:
    for objective in proof.objectives:
        if objective.met is False:
            yield f"{objective.name} is missed: {objective.detail}"
    drill = proof.drill
    if drill is None or drill.outcome == "proven":
        return
    what = "found it broken" if drill.outcome == "broken" else "failed"
    yield f"the last drill, of {drill.backup}, {what}{f': {drill.error}' if drill.error else ''}"


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
