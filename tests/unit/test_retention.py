"""Retention: never deletes what it should not, whatever lies on the shelf; and keeps what its rules say, day by day."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from larder.retention import Item, Plan, Policy, kept_until, plan
from larder.retention_rules import EVIDENCE_DAYS, TOLERANCE

NOW = datetime(2025, 10, 16, 2, 0, 0, tzinfo=UTC)
DAY = 86400
BERLIN = ZoneInfo("Europe/Berlin")
RULES = ("days", "keep_last", "hourly", "daily", "weekly", "monthly", "yearly")


def made(created: datetime, proof: str = "stored", **more: Any) -> Item:
    """A backup that was taken at `created`."""
    values = {"raw_size": 1000, "suffix": ".sql", **more}
    return Item(f"shop/{created:%Y%m%d_%H%M%S}", created, proof=proof, **values)  # type: ignore[arg-type]


def aged(age: float, proof: str = "stored", **more: Any) -> Item:
    """A backup that was taken `age` seconds before `NOW`."""
    return made(NOW - timedelta(seconds=age), proof, **more)


def unreadable(name: str) -> Item:
    return Item(f"shop/{name}.manifest.json", None, 0, "", "unclear")


def policy(**rules: Any) -> Policy:
    return Policy("shop", **rules)


DAYS_30 = policy(days=30)


def for_any(*strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`given`, without a deadline: that a machine is busy shows nothing about retention."""
    return lambda test: settings(deadline=None)(given(*strategies)(test))


items = st.lists(
    st.one_of(
        st.builds(
            aged,
            # Many of the same age, many on the very boundary, and some from the future.
            st.sampled_from([0, 1, 30 * DAY - 1, 30 * DAY, 30 * DAY + 1, 31 * DAY, 400 * DAY, -5, -900 * DAY])
            | st.integers(0, 3 * DAY)
            | st.integers(-100 * DAY, 1000 * DAY),
            st.sampled_from(["stored", "stored", "proven", "broken", "unclear"]),
            raw_size=st.sampled_from([1000, 1000, 10]),
            suffix=st.sampled_from([".sql", ".sql", ".db"]),
            pinned=st.sampled_from([False, False, False, True]),
        ),
        st.builds(unreadable, st.sampled_from(["a", "b", "c"])),
    ),
    max_size=14,
)
policies = (
    st.fixed_dictionaries(
        {},
        optional={
            "days": st.sampled_from([1, 30, 365]),
            "zone": st.sampled_from([UTC, BERLIN, ZoneInfo("Asia/Kolkata"), ZoneInfo("America/St_Johns")]),
            **{word: st.integers(1, 5) for word in RULES if word != "days"},
        },
    )
    .filter(lambda rules: rules.keys() & set(RULES))
    .map(lambda rules: Policy("shop", **rules))
)
runs = st.sampled_from([None, None, "4f3a2b"])
accepted = st.none() | st.integers(-3 * DAY, 100 * DAY).map(lambda age: NOW - timedelta(seconds=age))
forced = st.booleans()


def kept(
    found: list[Item],
    by: Policy = DAYS_30,
    now: datetime = NOW,
    failed: str | None = None,
    force: bool = True,
) -> list[Item]:
    verdicts = plan(found, by, now, failed, force=force).verdicts
    assert [verdict.backup for verdict in verdicts] == [item.backup for item in found]
    assert all(verdict.reason for verdict in verdicts)
    return [item for item, verdict in zip(found, verdicts, strict=True) if verdict.keep]


def reasons(found: list[Item], by: Policy = DAYS_30) -> list[str]:
    return [verdict.reason for verdict in plan(found, by, NOW, force=True).verdicts]


def newest(found: list[Item], *proofs: str) -> list[Item]:
    """The newest of those items with one of `proofs`; several of one second are all the newest."""
    times = [item.created for item in found if item.created and item.proof in proofs]
    return [item for item in found if times and item.created == max(times) and item.proof in proofs]


# The laws, over any shelf and any policy


@for_any(items, policies, runs, forced)
def test_a_shelf_is_never_emptied(found: list[Item], by: Policy, failed: str | None, force: bool) -> None:
    if any(item.stored for item in found):
        assert any(item.stored for item in kept(found, by, NOW, failed, force))


@for_any(items, policies, runs, forced)
def test_the_newest_stored_and_the_newest_proven_stay(
    found: list[Item], by: Policy, failed: str | None, force: bool
) -> None:
    left = kept(found, by, NOW, failed, force)
    credible = [item for item in found if item.created and item.created <= NOW + TOLERANCE]
    for shelf in (found, credible):
        for wanted in (newest(shelf, "stored", "proven"), newest(shelf, "proven")):
            assert not wanted or any(item in left for item in wanted)


@for_any(items, policies, runs, forced)
def test_pinned_and_unclear_and_unreadable_ones_and_those_from_the_future_stay(
    found: list[Item], by: Policy, failed: str | None, force: bool
) -> None:
    left = kept(found, by, NOW, failed, force)
    for item in found:
        unclear = item.created is None or item.proof == "unclear"
        if unclear or item.pinned or (item.created and item.created > NOW + TOLERANCE):
            assert item in left


@for_any(items, policies)
def test_broken_and_unclear_ones_never_count(found: list[Item], by: Policy) -> None:
    good = [item for item in found if item.stored]
    assert kept(good, by) == [item for item in kept(found, by) if item.stored]


@for_any(items, policies, runs, accepted)
def test_unclear_ones_change_nothing_for_others_not_even_a_halt(
    found: list[Item], by: Policy, failed: str | None, since: datetime | None
) -> None:
    others = [item for item in found if item.proof != "unclear"]
    whole, without = (plan(shelf, by, NOW, failed, accepted=since) for shelf in (found, others))
    assert whole.halted == without.halted
    assert whole.newest == without.newest
    left = [verdict for item, verdict in zip(found, whole.verdicts, strict=True) if item.proof != "unclear"]
    assert left == list(without.verdicts)


@for_any(items, policies)
def test_a_broken_one_is_evidence_until_it_is_old_and_a_stored_one_is_newer(
    found: list[Item], by: Policy
) -> None:
    left = kept(found, by)
    for item in found:
        if item.created and not item.stored and item not in left:
            assert NOW - item.created > timedelta(days=by.days or EVIDENCE_DAYS)
            assert any(other.stored and other.created > item.created for other in left if other.created)


@for_any(items, policies)
def test_what_is_not_older_than_the_days_stays(found: list[Item], by: Policy) -> None:
    left = kept(found, by)
    for item in found:
        if by.days and item.created and NOW - item.created <= timedelta(days=by.days):
            assert item in left


@for_any(items, st.sampled_from([1, 30, 365]))
def test_with_days_alone_a_recent_one_lets_all_go_that_is_older(found: list[Item], days: int) -> None:
    for item in kept([*found, aged(0, "proven")], policy(days=days)):
        old = item.created is not None and NOW - item.created > timedelta(days=days)
        assert not old or item.pinned or item.proof == "unclear"


@for_any(items, policies, runs, forced)
def test_doing_it_again_changes_nothing(
    found: list[Item], by: Policy, failed: str | None, force: bool
) -> None:
    left = kept(found, by, NOW, failed, force)
    assert kept(left, by, NOW, failed, force) == left


@for_any(items, policies, runs, forced, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(
    found: list[Item], by: Policy, failed: str | None, force: bool, chance: random.Random
) -> None:
    mixed = chance.sample(found, len(found))
    first, second = plan(found, by, NOW, failed, force=force), plan(mixed, by, NOW, failed, force=force)
    by_key = lambda verdict: (verdict.backup, verdict.keep, verdict.reason)  # noqa: E731
    assert sorted(first.verdicts, key=by_key) == sorted(second.verdicts, key=by_key)
    assert first.halted == second.halted


@for_any(items, policies, st.sampled_from(RULES), st.integers(1, 400))
def test_a_larger_count_keeps_no_less(found: list[Item], by: Policy, word: str, more: int) -> None:
    if word in by.rules:
        larger = Policy("shop", zone=by.zone, **{**by.rules, word: by.rules[word] + more})
        left = kept(found, larger)
        assert all(item in left for item in kept(found, by))


@for_any(items, policies, st.sampled_from(RULES), st.integers(1, 9))
def test_another_rule_keeps_no_less(found: list[Item], by: Policy, word: str, count: int) -> None:
    # Days have a say about broken ones too, which stay 30 where there are none.
    good = [item for item in found if item.stored]
    if word not in by.rules:
        left = kept(good, Policy("shop", zone=by.zone, **by.rules, **{word: count}))
        assert all(item in left for item in kept(good, by))


@for_any(items, policies, runs, accepted)
def test_a_halt_deletes_nothing_and_says_what_the_policy_would(
    found: list[Item], by: Policy, failed: str | None, since: datetime | None
) -> None:
    halted, open_ = (plan(found, by, NOW, failed, accepted=since, force=forced) for forced in (False, True))
    assert open_.halted is None
    if failed:
        assert halted.halted
    if not halted.halted:
        assert halted == open_
        return
    assert all(verdict.keep for verdict in halted.verdicts)
    for verdict, alone in zip(halted.verdicts, open_.verdicts, strict=True):
        assert verdict.held is not alone.keep
        if verdict.held:
            assert verdict.reason == f"would be deleted ({alone.reason}), but rotation is halted"
        else:
            assert verdict.reason == alone.reason
    assert halted.held is any(not verdict.keep for verdict in open_.verdicts)
    assert "larder prune shop --dry-run" in halted.halted
    assert "larder prune shop --force" in halted.halted


@for_any(st.integers(-10000, 10000), policies)
def test_nothing_goes_before_the_time_that_it_is_locked_until(days: int, by: Policy) -> None:
    created = NOW + timedelta(days=days)
    until = kept_until(by, created)
    assert (until is None) is (by.days is None)
    if until is not None:
        old, new = made(created), made(until, "proven")
        assert kept([old, new], by, until) == [old, new]


# Rules, one by one


def test_exactly_as_old_as_the_policy_stays() -> None:
    fresh, exact, over = aged(0), aged(30 * DAY), aged(30 * DAY + 1)
    assert kept([over, exact, fresh]) == [exact, fresh]
    assert kept([over, exact, fresh], now=NOW + timedelta(microseconds=1)) == [fresh]


def test_reasons_are_in_the_words_of_the_configuration() -> None:
    shelf = [aged(n * DAY) for n in (400, 20, 1, 0)]
    assert reasons(shelf, policy(days=7, daily=2, yearly=2)) == [
        "yearly: 2 of 2",
        "it is older than 7 days, and no other rule keeps it",
        "it is not older than 7 days, daily: 2 of 2",
        "it is not older than 7 days, daily: 1 of 2, yearly: 1 of 2",
    ]
    assert reasons(shelf, policy(keep_last=1))[-2:] == ["no rule keeps it", "keep_last: 1 of 1"]
    assert reasons([aged(40 * DAY, pinned=True), aged(0)]) == ["pinned", "it is not older than 30 days"]
    assert reasons([aged(40 * DAY, "broken"), aged(0)])[0] == "it is broken, and older than 30 days"
    assert reasons([aged(20 * DAY, "broken"), aged(0)])[0].startswith(
        "it is broken, and not older than 30 days"
    )
    assert reasons([unreadable("a")]) == ["its manifest cannot be read"]


def test_an_unclear_one_stays_and_says_what_is_unclear() -> None:
    strange = aged(4000 * DAY, "unclear", problem="its sidecar is missing")
    assert kept([strange, aged(0)]) == [strange, aged(0)]
    assert reasons([strange, aged(0)])[0] == "its sidecar is missing"
    assert reasons([aged(4000 * DAY, "unclear"), aged(0)])[0] == "it is not clear what it is worth"


def test_an_unclear_one_takes_no_good_ones_place() -> None:
    good, strange = aged(90 * DAY), aged(0, "unclear", problem="its sidecar is missing")
    assert kept([good, strange]) == [good, strange]
    assert kept([good, strange], policy(keep_last=1)) == [good, strange]


def test_the_last_ones_stay_whatever_their_age() -> None:
    ancient, older, proven = aged(4000 * DAY), aged(5000 * DAY), aged(6000 * DAY, "proven")
    assert kept([proven, older, ancient]) == [proven, ancient]
    assert reasons([proven, older, ancient]) == [
        "it is the newest proven backup",
        "it is older than 30 days",
        "it is the newest stored backup",
    ]


def test_a_broken_one_does_not_count_as_the_newest() -> None:
    good, broken = aged(90 * DAY), aged(40 * DAY, "broken")
    assert kept([good, broken]) == [good, broken]
    assert kept([good, broken, aged(DAY)]) == [aged(DAY)]


def test_while_nothing_is_good_nothing_goes() -> None:
    shelf = [aged(age * DAY, "broken") for age in (40, 90, 400)] + [unreadable("a")]
    assert kept(shelf) == shelf


def test_a_broken_one_fills_no_day() -> None:
    shelf = [aged(2 * DAY), aged(DAY + 60), aged(DAY, "broken"), aged(0, "broken")]
    assert kept(shelf, policy(daily=2)) == shelf
    assert reasons(shelf, policy(daily=2))[:2] == ["daily: 2 of 2", "daily: 1 of 2"]


@pytest.mark.parametrize("found", [[], [unreadable("a")]])
def test_nothing_to_judge_is_fine(found: list[Item]) -> None:
    assert kept(found, force=False) == found


@pytest.mark.parametrize("rules", [{}, {"days": 0}, {"daily": 7, "weekly": -1}])
def test_a_policy_that_would_keep_nothing_is_none(rules: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="unable to make a policy"):
        policy(**rules)


def test_a_policy_says_what_it_keeps() -> None:
    assert DAYS_30.description == "last 30 days"
    assert policy(keep_last=5, daily=7, weekly=4).description == "last 5 backups, daily 7, weekly 4"


# Halts, one by one


def days_old(*ages: float, **more: Any) -> list[Item]:
    return [aged(age * DAY, **more) for age in ages]


def halted(
    found: list[Item],
    by: Policy = DAYS_30,
    now: datetime = NOW,
    failed: str | None = None,
    accepted: datetime | None = None,
) -> str:
    return plan(found, by, now, failed, accepted=accepted).halted or ""


def test_a_failed_run_halts() -> None:
    shelf = days_old(40, 1, 0)
    assert halted(shelf) == ""
    assert "the last run failed (larder watch 4f3a2b says why)" in halted(shelf, failed="4f3a2b")


def test_half_the_size_passes_and_less_halts() -> None:
    before = days_old(*range(10, 0, -1), raw_size=1000)
    assert halted([*before, aged(0, raw_size=500)]) == ""
    told = halted([*before, aged(0, raw_size=499)])
    assert "shop/20251016_020000 holds 499B, less than half of 1000B, the median of the 10 before it" in told
    # Another form has another size, and a broken one none that counts.
    assert halted([*before, aged(0, raw_size=499, suffix=".dir.tar")]) == ""
    assert halted([*before, aged(0, "broken", raw_size=1)]) == ""
    assert halted([*days_old(5, 4, raw_size=10**9, proof="broken"), aged(0, raw_size=1)]) == ""


def test_the_last_ten_are_what_sizes_are_compared_with() -> None:
    larger, before = days_old(*range(20, 10, -1), raw_size=1000), days_old(*range(10, 0, -1), raw_size=600)
    assert halted([*larger, *before, aged(0, raw_size=300)]) == ""
    assert "less than half of 600B, the median of the 10" in halted([*larger, *before, aged(0, raw_size=299)])
    assert "what the one before it holds" in halted([aged(DAY), aged(0, raw_size=1)])


@pytest.mark.parametrize("by", [policy(keep_last=3), DAYS_30, policy(daily=7)])
def test_a_database_that_stays_small_halts_until_somebody_accepts_it(by: Policy) -> None:
    good = days_old(*range(5, 0, -1), raw_size=1000)
    shelf = kept(good, by, force=False)
    for day in range(100):
        now = NOW + timedelta(days=day)
        shelf.append(made(now, raw_size=10))
        told = halted(shelf, by, now)
        assert f"{shelf[-1].backup} holds 10B, less than half of 1000B" in told
        assert ("and so do the 99 before it" in told) is (day == 99)
        shelf = kept(shelf, by, now, force=False)
    assert all(item in shelf for item in kept(good, by, force=False))
    since = shelf[-1].created
    assert since is not None
    assert plan(shelf, by, since).newest == since
    assert halted(shelf, by, since, accepted=since) == ""
    # From here on, sizes are held against what was accepted.
    later = since + timedelta(days=1)
    assert halted([*shelf, made(later, raw_size=5)], by, later, accepted=since) == ""
    told = halted([*shelf, made(later, raw_size=4)], by, later, accepted=since)
    assert "holds 4B, less than half of 10B, what the one before it holds" in told


def test_one_that_is_back_to_its_size_ends_the_halt() -> None:
    shrunk = [*days_old(9, 8, 7, raw_size=1000), *days_old(6, 5, 4, 3, 2, 1, raw_size=10)]
    assert halted(shrunk)
    assert halted([*shrunk, aged(0, raw_size=501)]) == ""
    assert halted([*shrunk, aged(0, raw_size=499)])


def test_what_shrinks_step_by_step_is_followed() -> None:
    shelf = [aged(day * DAY, raw_size=round(1000 * 1.1**day)) for day in range(60, -1, -1)]
    assert all(halted(shelf[:count], now=shelf[count - 1].created or NOW) == "" for count in range(1, 61))


@pytest.mark.parametrize("proof", ["stored", "broken"])
def test_a_backup_from_the_future_halts(proof: str) -> None:
    soon, later = aged(-300, proof), aged(-301, proof)
    assert halted([*days_old(40, 1), soon]) == ""
    told = halted([*days_old(40, 1), later])
    assert "shop/20251016_020501 is dated 2025-10-16 02:05 UTC, more than 5 minutes after now" in told
    assert later in kept([*days_old(40, 1), later])


def test_a_future_one_takes_no_other_ones_place() -> None:
    future, good, old = aged(-3650 * DAY), aged(60 * DAY), aged(90 * DAY)
    assert kept([old, good, future]) == [good, future]


def test_a_clock_that_jumped_halts() -> None:
    daily = days_old(*range(60))
    assert halted(daily, now=NOW) == ""
    leap = NOW + timedelta(days=90)
    # Somebody prunes before the next backup, or the next backup's own rotation comes first.
    assert "59 backups are older than 30 days all at once: none was made between" in halted(daily, now=leap)
    told = halted([*daily, made(leap)], now=leap)
    assert "2025-10-16 02:00 UTC and 2026-01-14 02:00 UTC" in told
    # What other rules or the laws keep does not hide it.
    proven = [aged(0, "proven"), *daily[1:], made(leap)]
    assert halted(proven, now=leap)
    assert halted([*daily, made(leap)], policy(days=30, monthly=12), now=leap)
    assert halted([*daily, made(leap)], policy(monthly=12), now=leap) == ""


def test_a_few_that_expire_or_a_schedule_of_months_do_not_halt() -> None:
    assert halted(days_old(72, 71, 0)) == ""
    assert halted(days_old(73, 72, 71, 0)) != ""
    shelf: list[Item] = []
    for month in range(40):
        now = NOW + timedelta(days=31 * month)
        shelf = [*shelf, made(now)]
        assert halted(shelf, now=now) == ""
        shelf = kept(shelf, now=now, force=False)


def test_an_archive_that_breaks_all_at_once_halts() -> None:
    """As it looks when a store has lost files."""
    by = policy(daily=7, yearly=10)
    good = days_old(*(365 * year for year in range(8, 0, -1)), *range(7, 0, -1))
    assert halted(good, by) == ""
    broken = [made(item.created, "broken") for item in good[:8] if item.created]
    told = halted([*broken, *good[8:]], by)
    assert "8 backups that the rules would keep are broken, the newest of them shop/20241016_020000" in told
    assert halted([*good[:6], *broken[6:], *good[8:]], by) == ""
    # What is too old in any case may be broken too.
    assert halted([*days_old(50, 49, 48, 47, proof="broken"), *days_old(1, 0)]) == ""


def test_every_cause_is_told() -> None:
    told = halted([*days_old(40, 1), aged(0, raw_size=1), aged(-DAY)], failed="4f3a2b")
    assert told.count("; and ") == 2


# Ten years, day by day


def rotated(by: Policy, times: Iterator[datetime]) -> Iterator[tuple[datetime, set[datetime]]]:
    """What is left on the shelf after each backup, where rotation follows each of them and nothing ever halts it."""
    shelf: list[Item] = []
    for now in times:
        shelf.append(made(now, raw_size=1000 + len(shelf)))
        found: Plan = plan(shelf, by, now + timedelta(minutes=3))
        assert found.halted is None
        shelf = [item for item, verdict in zip(shelf, found.verdicts, strict=True) if verdict.keep]
        yield now, {item.created for item in shelf if item.created}


def every_day(first: date, last: date, hour: int, minute: int = 0) -> Iterator[datetime]:
    day = first
    while day <= last:
        yield datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)
        day += timedelta(days=1)


def test_thirty_days_for_ten_years() -> None:
    first, last = date(2015, 6, 15), date(2025, 6, 15)
    # Looked at some minutes after each backup: the one of thirty days ago is older than thirty days by then.
    for now, left in rotated(DAYS_30, every_day(first, last, 2)):
        wanted = {now - timedelta(days=back) for back in range(30)}
        assert left == {moment for moment in wanted if moment.date() >= first}


def test_thirty_days_are_the_last_thirty_one_dates_for_ten_years() -> None:
    """To the second, as long as rotation follows at once: today, and thirty days before it."""
    first, last = date(2015, 6, 15), date(2025, 6, 15)
    shelf: list[Item] = []
    for now in every_day(first, last, 2):
        shelf = kept([*shelf, made(now)], now=now, force=False)
        wanted = [now.date() - timedelta(days=back) for back in range(30, -1, -1)]
        assert [item.created.date() for item in shelf if item.created] == [
            day for day in wanted if day >= first
        ]


def last_days(today: date, first: date) -> set[date]:
    """What daily 7, weekly 4, monthly 12, yearly 10 leave of a backup on every day, by the calendar alone."""
    wanted = {today - timedelta(days=back) for back in range(7)}
    sunday = today + timedelta(days=6 - today.weekday())
    wanted |= {min(today, sunday - timedelta(weeks=back)) for back in range(4)}
    month, year = date(today.year, today.month, 1), today.year
    wanted.add(today)
    for _ in range(11):
        end = month - timedelta(days=1)
        wanted.add(end)
        month = date(end.year, end.month, 1)
    wanted |= {date(year - back, 12, 31) for back in range(1, 10)}
    return {day for day in wanted if day >= first}


def test_grandfather_father_and_son_for_ten_years_in_berlin() -> None:
    by = policy(daily=7, weekly=4, monthly=12, yearly=10, zone=BERLIN)
    # In Berlin it is half past midnight, or half past one, of the next day.
    first, last = date(2015, 6, 15), date(2025, 12, 31)
    berlin = first + timedelta(days=1)
    seen = set()
    for now, left in rotated(by, every_day(first, last, 23, 30)):
        days = {moment.astimezone(BERLIN).date() for moment in left}
        assert len(days) == len(left)
        assert days == last_days(now.astimezone(BERLIN).date(), berlin), now
        seen |= days
    assert {date(2016, 2, 29), date(2020, 2, 29), date(2024, 2, 29), date(2021, 2, 28)} <= seen
    assert date(2015, 12, 31) in last_days(date(2024, 12, 30), berlin)


@pytest.mark.parametrize(
    ("name", "gaps"),
    [
        ("UTC", {60}),
        ("Europe/Berlin", {60}),
        ("Asia/Kolkata", {60}),
        # The clocks change by half an hour, so that some hours have one backup only.
        ("Australia/Lord_Howe", {30, 60}),
    ],
)
def test_an_hour_that_comes_twice_is_two_hours(name: str, gaps: set[int]) -> None:
    """Of a backup each half hour, past the changes of the clocks, one an hour stays: none is merged with another."""
    found = set()
    for start in (date(2025, 3, 29), date(2025, 4, 5), date(2025, 10, 4), date(2025, 10, 25)):
        first = datetime(start.year, start.month, start.day, 0, 15, tzinfo=UTC)
        shelf = [made(first + timedelta(minutes=30 * n)) for n in range(96)]
        now = first + timedelta(days=2)
        left = [
            item.created for item in kept(shelf, policy(hourly=40, zone=ZoneInfo(name)), now) if item.created
        ]
        assert len(left) == 40
        # The last hour is not over yet.
        found |= {(later - earlier).seconds // 60 for earlier, later in pairwise(left[:-1])}
    assert found == gaps


def test_the_long_day_is_one_day_and_weeks_are_those_of_the_zone() -> None:
    # Sunday 26 October 2025 has 25 hours in Berlin; half past eleven at night in UTC is Monday there.
    sunday, monday = datetime(2025, 10, 26, 22, 30, tzinfo=UTC), datetime(2025, 10, 26, 23, 30, tzinfo=UTC)
    saturday = datetime(2025, 10, 25, 22, 30, tzinfo=UTC)
    shelf = [made(saturday), made(sunday), made(monday)]
    now = monday + timedelta(hours=1)
    assert kept(shelf, policy(daily=2, zone=BERLIN), now) == [made(sunday), made(monday)]
    assert kept(shelf, policy(weekly=2, zone=BERLIN), now) == [made(sunday), made(monday)]
    assert kept(shelf, policy(weekly=2), now) == [made(monday)]


def test_the_week_at_new_year_is_one_week_and_two_years() -> None:
    shelf = [made(datetime(2024, 12, 31, 12, tzinfo=UTC)), made(datetime(2025, 1, 1, 12, tzinfo=UTC))]
    now = datetime(2025, 1, 2, tzinfo=UTC)
    assert kept(shelf, policy(weekly=5), now) == shelf[1:]
    assert kept(shelf, policy(yearly=5), now) == shelf
    assert kept(shelf, policy(monthly=5), now) == shelf
