"""A host that goes down at any moment of a drill: no cluster, process or folder is left once the guard has passed."""

from __future__ import annotations

import os
import random
import subprocess

import pytest

from tests.drills import clusters_of, drills_of, guard_passes, kill_host, left_of
from tests.dumps import wait_for
from tests.house import House
from tests.restores import back_up
from tests.servers import SAMPLE, Clusters

#: How often a host goes down, and within how many seconds of its drill: that takes about as long.
TIMES = int(os.environ.get("LARDER_TEST_KILLS", "20"))
SPAN = 2.5

SEED = os.environ.get("LARDER_TEST_SEED") or str(random.SystemRandom().randrange(1 << 32))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


def test_a_drill_that_is_killed_leaves_nothing(
    tmp_path_factory: pytest.TempPathFactory, clusters: Clusters
) -> None:
    print(f"seed {SEED}")  # noqa: T201 - to kill at the same moments again
    chance = random.Random(SEED)
    server = clusters.get(18)
    house = House(tmp_path_factory.mktemp("house"))
    with server.database("killed") as name:
        server.execute(SAMPLE, name)
        house.configure(
            f'postgres_bin = ["{server.bin}"]\n[databases.shop]\nurl_env = "URL"\nfingerprint = "content"\n'
        )
        house.environment["URL"] = server.url(name)
        back_up(house, "shop")
        at: dict[str, int] = {}
        for number in range(TIMES):
            started = house.start("larder", "drill", "shop", "--json")
            wait_for(lambda number=number: begun(house) > number)  # type: ignore[misc]
            try:
                started.wait(chance.uniform(0, SPAN))
            except subprocess.TimeoutExpired:
                kill_host(house)
            started.communicate()
            run = drills_of(house)[0]
            at[str(run.step)] = at.get(str(run.step), 0) + 1
            wait_for(lambda: clusters_of(house) == [])
            guard_passes(house)
            assert left_of(house) == [], (number, run.step)
        print(f"killed at: {at}")  # noqa: T201
        done = house.larder("drill", "shop")
        assert done.returncode == 0, done.stderr
    assert left_of(house) == []


def begun(house: House) -> int:
    """How many drills a worker has begun."""
    return sum(run.step is not None for run in drills_of(house))
