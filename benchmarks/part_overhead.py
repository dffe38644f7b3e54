"""What the chain costs by itself: backups of tiny databases, less what engine, codec, hash and store take of them."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import defaultdict
from pathlib import Path
from typing import Any

from celery import Celery

from benchmarks import clocks
from benchmarks.data import fill_postgres_tiny
from benchmarks.figures import median
from benchmarks.fleet_parts import Fleet, fleet, small_databases
from benchmarks.stage import Stage
from tests.processes import eventually
from tests.servers import started

#: Backups that are not counted: both processes load what they need.
WARM_UP = 4


def run(stage: Stage, options: Namespace) -> dict[str, Any]:
    """Backups of one tiny database of each kind, one after the other, through a worker with 2 processes."""
    figures: dict[str, float] = {}
    steps: dict[str, dict[str, Any]] = {}
    cluster = started(options.postgres, as_it_comes=True)
    try:
        fill_postgres_tiny(cluster, "tiny")
        with fleet(stage.folder, **{clocks.FIGURES: str(stage.folder / "clocks")}) as here:
            small_databases(here.folder / "data", 1, 10_000)
            here.configure(
                f'postgres_bin = ["{cluster.bin}"]\n[databases.sqlite]\nurl = "sqlite:///data/d00000.db"\n'
                f'[databases.postgres]\nurl = "{cluster.url("tiny")}"\n'
            )
            with here.worker(2, (clocks.__file__,)):
                for name in ("sqlite", "postgres"):
                    found, steps[name] = _measured(stage, here, name, options.tiny)
                    figures |= {f"{name}_{key}": value for key, value in found.items()}
                    stage.say(
                        f"{name}: " + ", ".join(f"{key} {value:.0f} ms" for key, value in found.items())
                    )
    finally:
        cluster.remove()
    return {
        "settings": {"backups": options.tiny, "postgres": options.postgres},
        "figures": {name: round(value, 2) for name, value in figures.items()},
        "steps": steps,
    }


def _measured(stage: Stage, here: Fleet, name: str, count: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Medians in milliseconds: of the chain, of the work in it, of the ledger's part, and of what is not work."""
    with Celery(broker=here.redis_url) as app:
        for number in range(WARM_UP + count):
            app.send_task("backup", kwargs={"database": name}, queue="backup", ignore_result=True)
            eventually(lambda done=number: here.count(_over(name)) > done)
    assert here.count(_over(name, "'stored'")) == WARM_UP + count, here.log("worker")[-1500:]
    clocked = _by_run(stage.folder / "clocks")
    rows = here.ask(
        "SELECT runs.id, (julianday(runs.finished) - julianday(min(steps.started))) * 86400 FROM runs"
        f" JOIN steps ON steps.run = runs.id WHERE runs.database = '{name}'"
        f" GROUP BY runs.id ORDER BY runs.created LIMIT -1 OFFSET {WARM_UP}"
    )
    chain, work, ledger = [], [], []
    for run, seconds in rows:
        mine = clocked[run]
        chain.append(seconds * 1000)
        work.append(sum(one.get("work", 0) for one in mine.values()) * 1000)
        ledger.append(sum(one.get("ledger", 0) for one in mine.values()) * 1000)
    found = {
        "chain": median(chain),
        "work": median(work),
        "overhead": median([whole - part for whole, part in zip(chain, work, strict=True)]),
        "ledger": median(ledger),
    }
    return found, _steps(here, clocked, [run for run, _ in rows])


def _steps(here: Fleet, clocked: dict[str, dict[str, Any]], runs: list[str]) -> dict[str, Any]:
    """Of each step, medians in milliseconds: all of it, work, ledger."""
    times = defaultdict(list)
    for run, step, seconds in here.ask("SELECT run, name, seconds FROM steps ORDER BY position"):
        if run in runs:
            times[step].append(seconds * 1000)
    return {
        step: {
            "seconds": round(median(values), 2),
            **{
                room: round(
                    median([clocked[run].get(f"backup.{step}", {}).get(room, 0) * 1000 for run in runs]), 2
                )
                for room in ("work", "ledger")
            },
        }
        for step, values in times.items()
    }


def _over(name: str, states: str = "'stored', 'failed'") -> str:
    return f"SELECT count(*) FROM runs WHERE database = '{name}' AND state IN ({states})"


def _by_run(path: Path) -> dict[str, dict[str, Any]]:
    """What the clocks of each run's tasks have, by the task's name."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for line in path.read_text().splitlines():
        figures = json.loads(line)
        given = [*(figures["args"] or ()), *(figures["kwargs"] or {}).values()]
        for run in given:
            if isinstance(run, str):
                found[run][figures["task"]] = figures
    return found
