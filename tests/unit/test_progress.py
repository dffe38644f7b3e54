"""Progress: counts rightly, tells rarely, never raises."""

from __future__ import annotations

import pytest

from larder import progress
from larder.progress import Progress, Report, human_seconds, human_size, short_size


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """Reports, of which none is held back."""
    monkeypatch.setattr(progress, "REPORT_EVERY", 0)
    return []


def test_counts_and_tells(told: list[Report]) -> None:
    counted = Progress(told.append, total=100)
    counted.add(30)
    counted.add(20)
    counted.reach(80)
    assert [(report.done, report.total) for report in told] == [(30, 100), (50, 100), (80, 100)]
    counted.restart(7)
    counted.add(7)
    assert (told[-1].done, told[-1].total, told[-1].fraction) == (7, 7, 1.0)


def test_tells_not_too_often() -> None:
    told: list[Report] = []
    counted = Progress(told.append)
    for _ in range(10_000):
        counted.add(1)
    assert counted.done == 10_000
    assert len(told) <= 2


def test_a_watcher_that_raises_is_ignored(told: list[Report]) -> None:
    def broken(report: Report) -> None:
        raise RuntimeError("nobody is watching")

    counted = Progress(broken)
    counted.add(5)
    assert counted.done == 5


def test_a_report_reads_well() -> None:
    assert str(Report(1_200_000_000, 2_900_000_000, 8.0)) == (
        "41 % · 1.2 GB of 2.9 GB · 150.0 MB/s · 11 s left"
    )
    assert str(Report(5_000, None, 0.0)) == "5.0 kB · 0 B/s"
    assert str(Report(0, 100, 1.0)) == "0 % · 0 B of 100 B · 0 B/s"
    assert str(Report(100, 100, 2.0)) == "100 % · 100 B of 100 B · 50 B/s"
    # A dump that is larger than the server guessed does not go past the end.
    assert Report(300, 200, 1.0).left is None
    assert Report(300, 200, 1.0).fraction == 1.0
    assert Report(0, 0, 1.0).fraction is None


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"),
        (45_000_000, "45.0 MB"), (2_900_000_000, "2.9 GB"), (999_999_999_999, "1.00 TB"), (3.2e15, "3200.00 TB"),
    ],
)  # fmt: skip
def test_sizes(size: float, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"), (0.44, "0.4 s"), (9.94, "9.9 s"), (9.97, "10 s"), (59.4, "59 s"), (59.6, "1 min 0 s"),
        (200, "3 min 20 s"), (3599.6, "1 h 0 min"), (7500, "2 h 5 min"), (100_000, "27 h 46 min"),
    ],
)  # fmt: skip
def test_times(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.0K"),
        (47_185_920, "45M"),
        (1024**2 - 1, "1.0M"),
        (5 * 1024**4, "5.0T"),
    ],
)
def test_short_sizes(size: float, text: str) -> None:
    assert short_size(size) == text
