"""What a database is held to, and how it stands: on given facts, at a given time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from larder.config import DatabaseSettings
from larder.objectives import Facts, Objective, between_drills, judge, span

#: A Thursday.
NOW = datetime(2025, 10, 16, 12, tzinfo=UTC)
HOUR, DAY = 3600.0, 86400.0


def a_database(**keys: Any) -> DatabaseSettings:
    return DatabaseSettings(name="shop", url=SecretStr("sqlite:///shop.db"), **keys)


def ago(**time: float) -> datetime:
    return NOW - timedelta(**time)


def rpo(facts: Facts, **keys: Any) -> Objective:
    return judge(a_database(**keys), facts, NOW)["rpo"]


def proof(facts: Facts, **keys: Any) -> Objective:
    return judge(a_database(**keys), facts, NOW)["proof"]


def rto(facts: Facts, **keys: Any) -> Objective:
    return judge(a_database(**keys), facts, NOW)["rto"]


# The newest backup


def test_a_backup_that_is_younger_than_rpo_meets_it_and_an_older_one_does_not() -> None:
    found = rpo(Facts(newest=ago(hours=10)))
    assert (found.value, found.target, found.met) == (10 * HOUR, DAY, True)
    assert found.detail == "newest backup is 10 h old, 24 h are allowed"
    found = rpo(Facts(newest=ago(hours=76)))
    assert (found.value, found.met) == (76 * HOUR, False)
    assert found.detail == "newest backup is 3 d 4 h old, 24 h are allowed"
    assert rpo(Facts(newest=ago(hours=76)), rpo="4d").met


def test_a_database_that_was_configured_a_minute_ago_is_not_late() -> None:
    assert rpo(Facts()).met is None
    assert rpo(Facts(since=ago(minutes=1))).met is None


def test_a_database_whose_runs_make_nothing_good_is_late_after_rpo() -> None:
    found = rpo(Facts(since=ago(hours=25)))
    assert (found.value, found.met) == (None, False)
    assert found.detail == "no good backup after 25 h, 24 h are allowed"


def test_a_nightly_backup_is_not_late_while_the_next_one_is_made() -> None:
    newest, begun = ago(hours=25), ago(minutes=55)
    assert rpo(Facts(newest=newest)).met is False
    assert rpo(Facts(newest=newest, under_way=begun)).met
    assert rpo(Facts(newest=ago(hours=24, minutes=2))).met


def test_a_backup_that_takes_too_long_or_begins_too_late_does_not_excuse() -> None:
    assert rpo(Facts(newest=ago(hours=27), under_way=ago(hours=3))).met is False
    assert rpo(Facts(newest=ago(hours=25), under_way=ago(minutes=50))).met is False


def test_a_short_rpo_has_a_short_leeway() -> None:
    assert rpo(Facts(newest=ago(seconds=65)), rpo=60).met
    assert rpo(Facts(newest=ago(seconds=67)), rpo=60).met is False


# The newest proven backup


def test_without_drills_the_newest_proven_backup_is_shown_and_not_judged() -> None:
    found = proof(Facts(proven="shop/1", proven_created=ago(days=90)))
    assert (found.value, found.target, found.met) == (90 * DAY, None, None)
    assert found.detail == "newest proven backup is 90 d old, and no drill is scheduled"
    assert proof(Facts()).value is None


def test_a_night_of_25_hours_is_no_miss() -> None:
    berlin = a_database(schedule="0 4 * * *", timezone="Europe/Berlin")
    # On this Sunday clocks go back at 03:00, and four o'clock is at three in UTC.
    before, at = datetime(2026, 10, 24, 2, 0, tzinfo=UTC), datetime(2026, 10, 25, 2, 58, tzinfo=UTC)
    assert judge(berlin, Facts(newest=before), at)["rpo"].met is True
    assert judge(berlin, Facts(newest=before), at + timedelta(minutes=9))["rpo"].met is False
    other = before - timedelta(days=7)
    assert judge(berlin, Facts(newest=other), other + timedelta(hours=24, minutes=58))["rpo"].met is False


def test_with_a_weekly_drill_the_newest_proven_backup_may_be_a_week_and_rpo_old() -> None:
    weekly = {"drill": "0 4 * * 0"}
    found = proof(Facts(proven="shop/1", proven_created=ago(hours=76)), **weekly)
    assert (found.target, found.met) == (8 * DAY, True)
    assert found.detail == "newest proven backup is 3 d 4 h old, 8 d are allowed"
    # The next one has as long as a recovery may take, and begins five minutes late at most.
    found = proof(Facts(proven="shop/1", proven_created=ago(days=8, minutes=34)), **weekly)
    assert found.met is True
    found = proof(Facts(proven="shop/1", proven_created=ago(days=8, minutes=36)), **weekly)
    assert found.met is False
    assert found.detail == "newest proven backup is just over 8 d old, 8 d are allowed"


def test_a_drill_of_an_older_backup_leaves_the_newest_proven_one_to_the_next() -> None:
    facts = Facts(proven="shop/1", proven_created=ago(days=12), took_older=True)
    assert proof(facts, drill="0 4 * * 0").met
    assert (
        proof(Facts(proven="shop/1", proven_created=ago(days=16), took_older=True), drill="0 4 * * 0").met
        is False
    )


def test_nothing_proven_is_late_once_a_drill_should_have_been() -> None:
    assert proof(Facts(since=ago(days=7)), drill="0 4 * * 0").met is None
    found = proof(Facts(since=ago(days=9)), drill="0 4 * * 0")
    assert (found.value, found.met, found.detail) == (None, False, "no backup is proven, 8 d are allowed")


@pytest.mark.parametrize(
    ("keys", "seconds"),
    [
        ({}, None),
        ({"drill": "0 4 * * 0"}, 7 * DAY),
        # Monday to Wednesday are two days, and what a Thursday waits for is five.
        ({"drill": "0 4 * * 1,3"}, 5 * DAY),
        ({"drill_every": 7}, 7 * DAY),
        ({"drill_every": 4, "schedule": "0 */6 * * *"}, DAY),
        ({"drill": "0 4 * * 0", "drill_every": 2}, 2 * DAY),
        ({"drill": "0 0 29 2 *"}, 1461 * DAY),
    ],
)
def test_how_far_drills_are_apart(keys: dict[str, Any], seconds: float | None) -> None:
    assert between_drills(a_database(**keys), NOW) == seconds


def test_a_day_that_the_clocks_make_longer_is_waited_for() -> None:
    database = a_database(drill="0 4 * * *", timezone="Europe/Berlin")
    assert between_drills(database, datetime(2025, 10, 26, 12, tzinfo=UTC)) == 25 * HOUR


# Recovery


def test_a_recovery_is_held_to_rto() -> None:
    assert rto(Facts()).met is None
    found = rto(Facts(recovery_seconds=720.5))
    assert (found.value, found.target, found.met) == (720.5, 1800, True)
    assert found.detail == "the last recovery took 12 min, 30 min are allowed"
    assert (
        rto(Facts(recovery_seconds=1800.4)).detail
        == "the last recovery took just over 30 min, 30 min are allowed"
    )
    assert rto(Facts(recovery_seconds=1800.4)).met is False
    assert rto(Facts(recovery_seconds=1800.4), rto="1h").met


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.4 s"),
        (59.7, "60 s"),
        (119.9, "120 s"),
        (120, "2 min"),
        (185, "3 min 5 s"),
        (3600, "60 min"),
        (86400, "24 h"),
        (90000, "25 h"),
        (691200, "8 d"),
        (273600, "3 d 4 h"),
    ],
)
def test_spans_are_short_and_plain(seconds: float, text: str) -> None:
    assert span(seconds) == text
