"""Bytes go no faster than somebody wants, whoever counts them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from larder import pacing
from larder.pacing import Pacer
from larder.progress import Progress


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, which take no time here."""
    found: list[float] = []
    monkeypatch.setattr(pacing.time, "sleep", found.append)
    monkeypatch.setattr(pacing.time, "monotonic", lambda: 100 + sum(found))
    return found


def test_bytes_are_held_up_to_their_rate(slept: list[float]) -> None:
    progress = Progress()
    progress.pacer = Pacer(1000)
    progress.add(500)
    progress.reach(2500)
    # A retry begins lower, and is not paid back.
    progress.reach(0)
    assert sum(slept) == pytest.approx(2.5)


def test_a_pause_is_not_made_up_for(slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    pacer = Pacer(1000)
    monkeypatch.setattr(pacing.time, "monotonic", lambda: 1000 + sum(slept))
    pacer.spend(1000)
    assert sum(slept) == pytest.approx(1)


def test_several_threads_share_one_rate() -> None:
    pacer, began = Pacer(1_000_000), time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: pacer.spend(50_000), range(4)))
    assert time.monotonic() - began >= 0.19
