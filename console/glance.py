"""The glance: how each configured database stands, as `larder status --json`, the API, the metrics and the page say it.

A few questions to the ledger, however many databases there are: pages and monitors ask often.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from larder.config import DatabaseSettings, Settings
from larder.ledger import Ledger
from larder.ledger.backups import Backup
from larder.ledger.drills import Drill
from larder.ledger.runs import Run
from larder.objectives import Facts, Objective, judge
from larder.schedule import next_slot, offset
from tasks.objectives import facts_of


@dataclass(frozen=True)
class Glance:
    """One database."""

    settings: DatabaseSettings
    #: The names of the stores that should have its backups.
    stores: tuple[str, ...]
    facts: Facts
    objectives: tuple[Objective, ...]
    newest: Backup | None
    #: The last backup run that is over, and the one that is not.
    last: Run | None
    active: Run | None
    #: The newest drill that has come to anything.
    drill: Drill | None
    next_run: datetime

    @property
    def safe(self) -> bool:
        """Whether there is nothing about it that somebody should see to."""
        broken = self.drill is not None and self.drill.outcome == "broken"
        return self._is_backed_up and not broken and not any(one.met is False for one in self.objectives)

    @property
    def _is_backed_up(self) -> bool:
        """Whether the last run has made a good backup, whose every copy is good, as far as is known."""
        if self.newest is None or self.newest.proof == "broken" or self.problems:
            return False
        last = self.last
        return not (last and (last.state == "failed" or any(link.state == "failed" for link in last.uploads)))

    @property
    def missing_stores(self) -> list[str]:
        """The stores that should have a copy of the newest backup, and have none."""
        held = self.newest.copies if self.newest else {}
        return [store for store in self.stores if store not in held]

    @property
    def problems(self) -> list[str]:
        """What the last reading of the newest backup's copies found, a line each."""
        copies = self.newest.copies if self.newest else {}
        return [f"{store}: {copy.problem}" for store, copy in sorted(copies.items()) if copy.problem]

    @property
    def by_name(self) -> dict[str, Objective]:
        """The objectives by their words in the configuration."""
        return {objective.name: objective for objective in self.objectives}

    def remarks(self) -> Iterator[str]:
        """What somebody should know of it, a line each."""
        if self.newest and self.missing_stores:
            yield f"no copy of {self.newest.id} in {', '.join(self.missing_stores)}"
        yield from self.problems
        if self.last:
            yield from [f"the last run failed: {self.last.error}"] if self.last.error else []
            yield from self.last.warnings
        for objective in self.objectives:
            if objective.met is False:
                yield f"{objective.name} is missed: {objective.detail}"
        drill = self.drill
        if drill is None or drill.outcome == "proven":
            return
        what = "found it broken" if drill.outcome == "broken" else "failed"
        yield f"the last drill, of {drill.backup}, {what}{f': {drill.error}' if drill.error else ''}"

    def document(self) -> dict[str, Any]:
        """It as JSON has it."""
        newest, active = self.newest, self.active
        return {
            "database": self.settings.name,
            "safe": self.safe,
            "backup": newest.id if newest else None,
            "created": newest.created if newest else None,
            "size": newest.size if newest else None,
            "proof": newest.proof if newest else None,
            "stores": sorted(newest.copies) if newest else [],
            "missing_stores": self.missing_stores,
            "problems": self.problems,
            "last_run": _last_run(self.last),
            "running": {"run": active.id, "step": active.step, "progress": active.progress}
            if active
            else None,
            "next_run": self.next_run,
            "newest_proven": self.facts.proven,
            "proven_created": self.facts.proven_created,
            "recovery_seconds": self.facts.recovery_seconds,
            "objectives": {objective.name: _standing(objective) for objective in self.objectives},
            "last_drill": _drill(self.drill),
        }


def glance(settings: Settings, ledger: Ledger, now: datetime) -> list[Glance]:
    """How every configured database stands, in the configuration's order."""
    facts = facts_of(settings, ledger)
    newest, last, drills = ledger.backups.newest(), ledger.runs.last_over(), ledger.drills.last()
    active = {
        run.database: run for run in ledger.runs.active() if run.kind == "backup" and run.parent is None
    }
    found = []
    for name, database in settings.databases.items():
        found.append(
            Glance(
                database,
                tuple(store.name for store in settings.stores_of(database)),
                facts[name],
                tuple(judge(database, facts[name], now).values()),
                newest.get(name),
                last.get(name),
                active.get(name),
                drills.get(name),
                _next_run(database, settings.spread, now),
            )
        )
    return found


def _next_run(database: DatabaseSettings, spread: int, now: datetime) -> datetime:
    delay = offset(database.name, spread)
    return next_slot(database.schedule, database.timezone, now.astimezone(UTC) - delay) + delay


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
