"""Retention: never deletes what it should not, whatever lies on the shelf."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larder.catalog import Entry
from larder.manifest import Content, File, Manifest
from larder.retention import plan

NOW = datetime(2025, 10, 16, 2, 0, 0, tzinfo=UTC)
DAY = 86400


def entry(age: float, problems: tuple[str, ...] = (), database: str = "shop") -> Entry:
    """A backup taken `age` seconds before `NOW`."""
    created = NOW - timedelta(seconds=age)
    stamp = created.strftime("%Y%m%d_%H%M%S")
    manifest = Manifest(
        backup=f"{database}/{stamp}",
        database=database,
        engine="postgres",
        created=created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        artifact=File(f"backup_postgres_{stamp}.sql.gz", 1, "0" * 64),
        raw=Content(1, "0" * 64),
        encoding=("gzip",),
        form="file",
        suffix=".sql",
        server_version="16",
        tool="pg_dump 16",
        fingerprint={},
        run="r",
        host="h",
        larder="0.1.0",
    )
    return Entry(f"{database}/{manifest.artifact.name}.manifest.json", manifest, problems)


def unreadable(name: str) -> Entry:
    return Entry(f"shop/{name}.manifest.json", None, ("unable to read manifest: it is not JSON",))


entries = st.lists(
    st.one_of(
        st.builds(
            entry,
            # Many of the same age, many on the very boundary, and some from the future.
            st.sampled_from([0, 1, 30 * DAY - 1, 30 * DAY, 30 * DAY + 1, 31 * DAY, 400 * DAY, -5, -900 * DAY])
            | st.integers(-100 * DAY, 1000 * DAY),
            st.sampled_from([(), (), ("backup.sql.gz is missing",)]),
        ),
        st.builds(unreadable, st.sampled_from(["a", "b", "c"])),
    ),
    max_size=12,
)
days = st.sampled_from([1, 30, 365])


def kept(found: list[Entry], policy: int = 30, now: datetime = NOW) -> list[Entry]:
    verdicts = plan(found, policy, now)
    assert [verdict.backup for verdict in verdicts] == [one.backup for one in found]
    assert all(verdict.reason for verdict in verdicts)
    return [one for one, verdict in zip(found, verdicts, strict=True) if verdict.keep]


@given(entries, days)
def test_a_shelf_with_a_good_backup_keeps_one(found: list[Entry], policy: int) -> None:
    if any(one.good for one in found):
        assert any(one.good for one in kept(found, policy))


@given(entries, days)
def test_the_newest_good_one_stays(found: list[Entry], policy: int) -> None:
    good = [one for one in found if one.good]
    if good:
        newest = max(good, key=lambda one: one.manifest.created if one.manifest else "")
        assert newest in kept(found, policy)


@given(entries, days)
def test_only_what_is_older_than_the_policy_goes(found: list[Entry], policy: int) -> None:
    left = kept(found, policy)
    for one in found:
        if one not in left:
            assert one.manifest is not None
            assert NOW - one.manifest.created_at > timedelta(days=policy)
            # And a good backup that is newer lies in its place.
            assert any(
                other.good and other.manifest and other.manifest.created_at > one.manifest.created_at
                for other in left
            )


@given(entries, days)
def test_with_a_recent_good_one_all_that_is_older_goes(found: list[Entry], policy: int) -> None:
    for one in kept([*found, entry(0)], policy):
        assert one.manifest is None or NOW - one.manifest.created_at <= timedelta(days=policy)


@given(entries, days)
def test_doing_it_again_changes_nothing(found: list[Entry], policy: int) -> None:
    left = kept(found, policy)
    assert kept(left, policy) == left


@given(entries, days, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(found: list[Entry], policy: int, chance: random.Random) -> None:
    mixed = chance.sample(found, len(found))
    by_key = lambda verdict: (verdict.backup, verdict.keep, verdict.reason)  # noqa: E731
    assert sorted(plan(found, policy, NOW), key=by_key) == sorted(plan(mixed, policy, NOW), key=by_key)


@given(entries, st.integers(1, 400), st.integers(0, 400))
def test_a_longer_policy_keeps_no_less(found: list[Entry], policy: int, more: int) -> None:
    left = kept(found, policy + more)
    assert all(one in left for one in kept(found, policy))


def test_exactly_as_old_as_the_policy_stays() -> None:
    fresh, exact, over = entry(0), entry(30 * DAY), entry(30 * DAY + 1)
    assert kept([over, exact, fresh]) == [exact, fresh]
    assert kept([over, exact, fresh], now=NOW + timedelta(microseconds=1)) == [fresh]


def test_the_last_good_one_stays_whatever_its_age() -> None:
    ancient, older = entry(4000 * DAY), entry(5000 * DAY)
    assert kept([older, ancient]) == [ancient]
    assert plan([older, ancient], 30, NOW)[1].reason == "it is the newest good backup"


def test_a_broken_one_does_not_count_as_the_newest() -> None:
    good, broken = entry(90 * DAY), entry(40 * DAY, ("backup.sql.gz has 0 bytes, and its manifest says 9",))
    assert good in kept([good, broken])
    assert kept([good, broken, entry(DAY)]) == [entry(DAY)]


def test_while_nothing_is_good_nothing_goes() -> None:
    shelf = [entry(age * DAY, ("x is missing",)) for age in (40, 90, 400)] + [unreadable("a")]
    assert kept(shelf) == shelf


def test_a_clock_gone_wrong_costs_no_backup() -> None:
    future, good, old = entry(-3650 * DAY), entry(60 * DAY), entry(90 * DAY)
    assert kept([old, good, future]) == [good, future]
    assert "future" in plan([future], 30, NOW)[0].reason


@pytest.mark.parametrize("found", [[], [unreadable("a")]])
def test_nothing_to_judge_is_fine(found: list[Entry]) -> None:
    assert kept(found) == found
