"""Schedules: every slot once, also where the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from larder.schedule import latest_slot, next_slot, offset, problem_with

DAILY = "0 2 * * *"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "expression",
    [DAILY, "*/5 * * * *", "0 0 29 2 *", "0 0 1 jan mon", "0 4 * * 1-5", "0,30 2 L * *", "0 0 * * 7"],
)
def test_what_cron_reads_is_fine(expression: str) -> None:
    assert problem_with(expression) is None


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("", "five fields"), ("* * * *", "five fields"), ("0 0 2 * * *", "five fields"), ("@daily", "five fields"),
        ("60 * * * *", "bad minute"), ("* 24 * * *", "bad hour"), ("* * 0 * *", "bad day"), ("* * * 13 *", "bad month"),
        ("* * * * 8", "bad day-of-week"), ("a b c d e", "bad"), ("0 0 31 2 *", "bad day"), ("*/0 * * * *", "bad"),
        ("5-1 * * * *", "bad"), ("0 0 30,31 2 mon-tue", ""), ("9" * 5000 + " * * * *", "out of range"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(expression: str, problem: str) -> None:
    found = problem_with(expression)
    if problem:
        assert found is not None
        assert problem in found


@given(
    st.text("0123456789*/,-#LW ", max_size=20)
    | st.lists(st.text("0123456789*/,-#Lw²", max_size=4), min_size=5, max_size=5).map(" ".join)
)
def test_any_text_is_judged_without_an_error(expression: str) -> None:
    problem_with(expression)


def test_a_slot_is_later_than_after_and_not_later_than_now() -> None:
    slot = utc("2025-10-16T02:00:00")
    second = timedelta(microseconds=1)
    assert next_slot(DAILY, "UTC", slot - second) == slot
    assert next_slot(DAILY, "UTC", slot) == slot + timedelta(days=1)
    assert next_slot(DAILY, "UTC", slot + second) == slot + timedelta(days=1)
    assert latest_slot(DAILY, "UTC", slot - second) == slot - timedelta(days=1)
    assert latest_slot(DAILY, "UTC", slot) == slot
    assert latest_slot(DAILY, "UTC", slot + second) == slot
    assert next_slot(DAILY, "UTC", slot).tzinfo is UTC


def test_a_slot_is_in_the_schedules_own_time_zone() -> None:
    assert next_slot(DAILY, "Europe/Berlin", utc("2025-07-01T12:00:00")) == utc("2025-07-02T00:00:00")
    assert next_slot(DAILY, "Europe/Berlin", utc("2025-12-01T12:00:00")) == utc("2025-12-02T01:00:00")
    # Whatever zone the question comes in.
    asked = datetime(2025, 7, 1, 14, tzinfo=ZoneInfo("Asia/Tokyo"))
    assert next_slot(DAILY, "Europe/Berlin", asked) == utc("2025-07-02T00:00:00")


def test_an_hour_that_is_left_out_moves_its_slot_behind_it() -> None:
    # 02:30 on 30 March 2025 does not exist in Berlin: the clocks go from 02:00 to 03:00, at 01:00 UTC.
    half_past, moved = "30 2 * * *", utc("2025-03-30T01:00:00")
    assert next_slot(half_past, "Europe/Berlin", utc("2025-03-29T12:00:00")) == moved
    assert next_slot(half_past, "Europe/Berlin", moved) == utc("2025-03-31T00:30:00")
    assert latest_slot(half_past, "Europe/Berlin", moved) == moved
    assert latest_slot(half_past, "Europe/Berlin", moved - timedelta(seconds=1)) == utc("2025-03-29T01:30:00")


def test_an_hour_that_comes_twice_has_its_slot_once() -> None:
    # 02:30 on 26 October 2025 comes in Berlin at 00:30 and at 01:30 UTC.
    half_past, slot, following = "30 2 * * *", utc("2025-10-26T00:30:00"), utc("2025-10-27T01:30:00")
    assert next_slot(half_past, "Europe/Berlin", utc("2025-10-25T12:00:00")) == slot
    for minute in range(0, 150, 5):
        now = slot + timedelta(minutes=minute)
        assert next_slot(half_past, "Europe/Berlin", now) == following
        assert latest_slot(half_past, "Europe/Berlin", now) == slot


ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "America/Santiago",
]
EXPRESSIONS = [
    DAILY, "30 2 * * *", "0 0 * * *", "15,45 1-3 * * *", "*/15 2 * * *", "0 * * * *", "30 23 * * 0", "7 3 1 * *",
    "0 0,12 * * *", "45 1 * * *",
]  # fmt: skip
CHANGES = [
    utc("2025-03-30T01:00:00"), utc("2025-10-26T01:00:00"), utc("2025-03-09T07:00:00"), utc("2025-11-02T06:00:00"),
    utc("2025-04-05T15:00:00"), utc("2025-10-04T15:30:00"), utc("2025-04-24T22:00:00"), utc("2025-09-07T04:00:00"),
]  # fmt: skip


@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(ZONES),
    st.builds(
        lambda change, minutes, micros: change + timedelta(minutes=minutes, microseconds=micros),
        st.sampled_from(CHANGES),
        st.integers(-240, 240),
        st.sampled_from([0, 1, 30_000_000]),
    ),
)
@example("30 2 * * *", "Europe/Berlin", utc("2025-10-26T01:10:00"))
@example("*/15 2 * * *", "Australia/Lord_Howe", utc("2025-04-05T15:45:00"))
@example("*/15 2 * * *", "Australia/Lord_Howe", utc("2025-04-05T15:30:00"))
@example("*/15 2 * * *", "Australia/Lord_Howe", utc("2025-04-05T15:10:00"))
def test_both_ways_of_looking_agree(expression: str, zone: str, now: datetime) -> None:
    """Walked through one by one from the month before, the slots around a change of clocks are the same."""
    slots = [next_slot(expression, zone, now - timedelta(days=32))]
    while slots[-1] <= now:
        slots.append(next_slot(expression, zone, slots[-1]))
    assert all(earlier < later for earlier, later in pairwise(slots))
    assert next_slot(expression, zone, now) == slots[-1]
    assert latest_slot(expression, zone, now) == slots[-2]


def test_starts_are_spread_evenly_and_always_alike() -> None:
    starts = sorted(offset(f"database-{n}", 600) for n in range(1000))
    assert starts == sorted(offset(f"database-{n}", 600) for n in range(1000))
    assert timedelta(0) <= starts[0] < timedelta(seconds=10)
    assert timedelta(seconds=590) < starts[-1] <= timedelta(seconds=600)
    assert max(later - earlier for earlier, later in pairwise(starts)) < timedelta(seconds=10)
    assert offset("shop", 0) == timedelta(0)
