"""A broker's journey: Redis dies in the middle of ten chains, comes back with nothing, and all ten end stored."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.faults.machines import Redis
from tests.house import House
from tests.processes import eventually, running, worker

pytestmark = pytest.mark.usefixtures("no_process_left")

NAMES = [f"shop{number}" for number in range(10)]

#: Bytes of each database, and how many of them a second a step reads: a dump takes some seconds.
SIZE, RATE = 3_000_000, 1_000_000


def fill(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE noise (bytes)")
        connection.execute("INSERT INTO noise VALUES (randomblob(?))", [SIZE])


def runs(house: House) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(house.larder("runs", "--json").stdout)
    return found


def steps(run: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in run["steps"]}


def over(run: dict[str, Any]) -> bool:
    return run["state"] in ("stored", "failed") and run["steps"][-1]["state"] == "done"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_redis_comes_back_with_nothing_in_the_middle_of_ten_chains(tmp_path: Path) -> None:
    redis = Redis(tmp_path / "redis")
    house = House(tmp_path, REDIS_URL=redis.url)
    for name in NAMES:
        fill(tmp_path / f"{name}.db")
    lines = [
        f'[databases.{name}]\nurl = "sqlite:///{tmp_path / name}.db"\nmax_rate = "{RATE}B"' for name in NAMES
    ]
    house.configure("\n".join(lines) + "\n")
    redis.start()
    try:
        beat = house.start("celery", "-A", "workers", "beat", "--schedule", str(tmp_path / "beat"))
        with worker(house, "--concurrency", "4") as log, running(beat):
            for name in NAMES:
                asked = house.larder("backup", name, "--no-wait")
                assert asked.returncode == 0, asked.stderr

            eventually(lambda: any(steps(run)["dump"] == "done" for run in runs(house)))
            redis.kill()
            cut = runs(house)
            redis.start(wiped=True)
            assert [over(run) for run in cut] == [False] * len(NAMES)

            # A guard comes each minute, and takes for lost what has been in a queue for another.
            eventually(lambda: "was lost at step" in log.read_text())
            eventually(lambda: all(map(over, runs(house))))
    finally:
        redis.kill()
    ended = runs(house)
    assert sorted((run["database"], run["state"]) for run in ended) == [(name, "stored") for name in NAMES]
    assert [run["warnings"] for run in ended] == [[]] * len(NAMES)
    listed = json.loads(house.larder("list", "--json").stdout)
    assert sorted(one["backup"] for one in listed) == sorted(run["backup"] for run in ended)
    assert house.larder("verify", "--all").returncode == 0
