"""Everything that can go wrong, at any moment of any step: nothing is lost, doubled, left over, or falsely called good.

LARDER_TEST_INJECTED=200 LARDER_TEST_SEED=1 pytest -s -m slow tests/faults/test_faults.py
"""

from __future__ import annotations

import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.faults.rounds import Rounds
from tests.faults.world import World
from tests.object_storage import Bucket, ObjectServer
from tests.servers import Clusters

#: Faults in all, half of them with each kind of ledger, and those of a round.
COUNT = int(os.environ.get("LARDER_TEST_INJECTED", "100"))
AT_ONCE = 40

SEED = int(os.environ.get("LARDER_TEST_SEED") or random.randrange(1 << 32))

#: The seed of the few that everybody's tests try, in one round, and how many those are.
FIXED, FEW = 6, 10


def play(world: World, seed: int, count: int, at_once: int) -> None:
    """Rounds of `at_once` faults, until there were `count`."""
    rounds, began = Rounds(world, seed), time.monotonic()
    try:
        world.make()
        rounds.first()
        while len(rounds.injected) < count:
            problems = rounds.play(at_once)
            seconds = time.monotonic() - began
            sys.stdout.write(f"round {rounds.number}: {len(rounds.injected)} faults in {seconds:.0f} s\n")
            assert not problems, "\n".join([f"seed {seed}, round {rounds.number}:", *problems])
        problems = rounds.last()
        assert not problems, "\n".join([f"seed {seed}:", *problems])
    finally:
        world.close()
        sys.stdout.write(report(rounds, seed))


def report(rounds: Rounds, seed: int) -> str:
    """What was done, and what came of it."""
    made = rounds.injected
    ends = Counter(f"{run.kind} {run.state}" for run in rounds.ends)
    lines = [f"seed {seed}: {len(made)} faults in {rounds.number} rounds, {len(rounds.ends)} runs"]
    lines += _table(f"  {name}" for name in ends.elements())
    lines += _table(one.plan.kind for one in made)
    lines += _table(one.step for one in made)
    failed = [run for run in rounds.ends if run.state == "failed"]
    lines += _table(f"{run.kind}.{run.failed_step}: {_cause(run.error or '')}" for run in failed)
    return "\n".join(lines) + "\n"


def _cause(error: str) -> str:
    """An error without what is different each time."""
    return re.sub(r"/\S+|'[^']*'|\b[0-9a-f]{6,}\b|[0-9]+", "…", error)[:110]


def _table(names: Iterable[str]) -> list[str]:
    return [f"{count:6}  {name.strip()}" for name, count in sorted(Counter(names).items())]


def test_a_few_faults(tmp_path: Path, clusters: Clusters) -> None:
    play(World(tmp_path, clusters, small=True), FIXED, 1, FEW)


@pytest.mark.slow
@pytest.mark.timeout(300 + 12 * COUNT)
@pytest.mark.parametrize("ledger", ["sqlite", "postgres"])
def test_faults(
    tmp_path: Path,
    clusters: Clusters,
    bucket: Bucket,
    object_server: ObjectServer,
    monkeypatch: pytest.MonkeyPatch,
    ledger: str,
) -> None:
    for name, value in object_server.environment.items():
        monkeypatch.setenv(name, value)
    server = clusters.get(18) if ledger == "postgres" else None
    play(World(tmp_path, clusters, ledger=server, bucket=bucket), SEED, COUNT // 2, AT_ONCE)
