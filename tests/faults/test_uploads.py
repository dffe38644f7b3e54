"""Uploads to a server that fails in every way at random: what was reported as kept is there, byte by byte.

LARDER_TEST_FAULTS=500 LARDER_TEST_SEED=1 pytest -s tests/faults/test_uploads.py
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.putting import PART, s3_store, try_to_put
from tests.object_storage import ObjectServer, Proxy, faults

#: Uploads in all, half of them to an honest server.
COUNT = int(os.environ.get("LARDER_TEST_FAULTS", "60"))
SEED = int(os.environ.get("LARDER_TEST_SEED") or random.randrange(1 << 32))

#: The share of requests that something goes wrong with.
RATE = 0.2

#: Uploads at one time.
THREADS = 4

#: The least share of uploads that has to come through all the same.
FAIR = 0.5


@pytest.mark.timeout(120 + 4 * COUNT)
@pytest.mark.parametrize("honest", [True, False], ids=["honest", "lying"])
def test_what_was_reported_as_kept_is_there(
    object_server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, honest: bool
) -> None:
    for name, value in object_server.environment.items():
        monkeypatch.setenv(name, value)
    with Proxy(object_server, faults(SEED, RATE, seconds=0.1), honest=honest) as proxy:
        # Most of the time is boto3's waiting before it tries again.
        with ThreadPoolExecutor(THREADS) as pool:
            outcomes = Counter(pool.map(lambda number: _put(proxy, tmp_path, number), range(COUNT // 2)))
        report = "".join(f"{line}\n" for line in _report(proxy, outcomes))
    sys.stdout.write(f"seed {SEED}, {'honest' if honest else 'lying'} server: {report}")
    assert not [outcome for outcome in outcomes if outcome.startswith("WRONG")], f"seed {SEED}"
    assert outcomes["kept"] >= FAIR * outcomes.total(), f"seed {SEED}"


def _content(dice: random.Random) -> bytes:
    """Mostly a few bytes; at times what takes one part, or several."""
    kind = dice.random()
    if kind < 0.05:
        return b""
    if kind < 0.75:
        return dice.randbytes(dice.randrange(1, 100_000))
    if kind < 0.85:
        return dice.randbytes(PART + dice.randrange(-1, 2))
    return dice.randbytes(dice.randrange(PART, 4 * PART))


def _put(proxy: Proxy, folder: Path, number: int) -> str:
    """What came of it; WRONG where it was not what the store said."""
    key, source = f"shop/{number}", folder / str(number)
    content = _content(random.Random(f"{SEED} {number}"))
    source.write_bytes(content)
    # What is known of a server is known of a bucket: in a new one, all is found out again.
    bucket = proxy.server.bucket()
    try:
        outcome = try_to_put(
            lambda: s3_store(proxy.url, bucket.name, part_size=PART, prefix=""),
            key,
            source,
            hashlib.sha256(content).hexdigest(),
        )
        if outcome == "kept" and bucket.find(key) != content:
            return f"WRONG: {key}"
        return outcome
    finally:
        bucket.empty()
        source.unlink()


def _report(proxy: Proxy, outcomes: Counter[str]) -> Iterator[str]:
    made = proxy.faults_made()
    yield f"{len(proxy.requests)} requests, {made.total()} faults, {outcomes.total()} uploads"
    for name, count in [*sorted(made.items()), *sorted(outcomes.items())]:
        yield f"{count:6} {name}"
