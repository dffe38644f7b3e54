"""What the ledger promises of objectives: the facts that they are judged by, and what was missed and told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from larder.errors import LarderError
from larder.ledger import Ledger, open_ledger, schema
from larder.ledger.drills import Outcome
from larder.ledger.misses import VERIFICATION, Miss
from larder.objectives import Facts
from tests import standings

CLOCK = ("schedule", "every")


def at(day: int, hour: int = 2) -> datetime:
    return datetime(2025, 10, day, hour, tzinfo=UTC)


def keep(ledger: Ledger, database: str, day: int) -> str:
    return standings.keep(ledger, database, at(day))


def drill(
    ledger: Ledger, backup: str, day: int, outcome: Outcome = "proven", trigger: str = "schedule"
) -> None:
    """A drill of a day, whose recovery took as many seconds."""
    standings.drill(ledger, backup, outcome, day, created=at(day), trigger=trigger)


def facts(ledger: Ledger, database: str = "shop") -> Facts:
    return ledger.standings.of([database], CLOCK)[database]


# Standings


def test_nothing_is_known_of_a_new_database(ledger: Ledger) -> None:
    assert ledger.standings.of([], CLOCK) == {}
    assert facts(ledger) == Facts()


def test_the_newest_backup_is_one_that_is_not_broken_and_has_a_good_copy(ledger: Ledger) -> None:
    for day in (10, 11, 12):
        keep(ledger, "shop", day)
    keep(ledger, "crm", 15)
    assert facts(ledger).newest == at(12)
    ledger.backups.checked("shop/20251012_020000", "nas", "it is cut short")
    assert facts(ledger).newest == at(11)
    # Its copy is gone, which says nothing of what it held, and nobody could restore it.
    ledger.backups.missed("shop/20251011_020000", "nas")
    assert facts(ledger).newest == at(10)
    assert facts(ledger, "crm").newest == at(15)


def test_the_newest_proven_backup_and_the_last_proven_recovery(ledger: Ledger) -> None:
    first, second, third = (keep(ledger, "shop", day) for day in (10, 11, 12))
    drill(ledger, first, 13)
    found = facts(ledger)
    assert (found.proven, found.proven_created, found.recovery_seconds) == (first, at(10), 13)
    drill(ledger, second, 14)
    drill(ledger, third, 15, "broken")
    drill(ledger, second, 16, "failed")
    found = facts(ledger)
    assert (found.proven, found.newest, found.recovery_seconds) == (second, at(11), 14)
    assert not found.took_older


def test_a_drill_of_the_clock_that_took_an_older_backup_is_told_from_others(ledger: Ledger) -> None:
    first, second = (keep(ledger, "shop", day) for day in (10, 11))
    drill(ledger, second, 13)
    drill(ledger, first, 14, trigger="command")
    assert not facts(ledger).took_older
    drill(ledger, first, 15)
    assert facts(ledger).took_older
    drill(ledger, second, 16)
    assert not facts(ledger).took_older


def test_a_backup_is_under_way_until_its_run_is_over(ledger: Ledger) -> None:
    run, _ = ledger.runs.create("shop", "command", stores=["local"])
    ledger.runs.create("crm", "command", stores=["local"])
    assert facts(ledger).under_way == run.created
    assert facts(ledger).since == run.created
    ledger.runs.abandon(run.id, LarderError("stopped"))
    found = facts(ledger)
    assert (found.under_way, found.since) == (None, run.created)
    ledger.drills.begin("shop", keep(ledger, "shop", 10), "local", "command")
    assert facts(ledger).under_way is None
    # The ledger is newer than its oldest backup.
    assert facts(ledger).since == at(10)


def test_a_thousand_databases_are_asked_for_at_once(ledger: Ledger) -> None:
    keep(ledger, "db999", 10)
    found = ledger.standings.of([f"db{number}" for number in range(2000)], CLOCK)
    assert len(found) == 2000
    assert [name for name, one in found.items() if one.newest] == ["db999"]


# Misses


def the_miss(ledger: Ledger) -> Miss:
    [miss] = ledger.misses.current()
    return miss


def test_a_miss_is_begun_once_and_ends_once(ledger: Ledger) -> None:
    assert ledger.misses.begin("shop", "rpo", "it is old")
    assert not ledger.misses.begin("shop", "rpo", "it is older")
    assert ledger.misses.begin("shop", "rto", "it was slow")
    assert [miss.objective for miss in ledger.misses.open()] == ["rpo", "rto"]
    miss = ledger.misses.current()[0]
    assert (miss.database, miss.detail, miss.ended, miss.judged) == ("shop", "it is old", None, True)
    assert abs(datetime.now(UTC) - miss.since) < timedelta(minutes=1)
    assert ledger.misses.end(miss)
    assert not ledger.misses.end(miss)
    assert [one.objective for one in ledger.misses.open()] == ["rto"]
    assert [one.ended is None for one in ledger.misses.current()] == [False, True]
    assert ledger.misses.begin("shop", "rpo", "again")


def test_who_heard_of_it_and_of_its_end_is_kept_with_the_time(ledger: Ledger) -> None:
    ledger.misses.begin("shop", "rpo", "it is old")
    assert ledger.misses.told(the_miss(ledger), {"team"}, everybody=True)
    assert ledger.misses.told(the_miss(ledger), {"dba"}, everybody=True)
    found = the_miss(ledger)
    assert (sorted(found.heard), found.relieved, found.told) == (["dba", "team"], {}, False)
    assert abs(datetime.now(UTC) - found.heard["team"]) < timedelta(minutes=1)
    ledger.misses.end(found)
    assert ledger.misses.told(the_miss(ledger), {"dba"}, everybody=False)
    found = the_miss(ledger)
    assert (sorted(found.heard), list(found.relieved), found.told) == (["dba", "team"], ["dba"], False)
    assert ledger.misses.told(found, {"team"}, everybody=True)
    assert the_miss(ledger).told


def test_what_ends_while_people_are_told_that_it_is_missed_is_told_too(ledger: Ledger) -> None:
    ledger.misses.begin("shop", "rpo", "it is old")
    read = the_miss(ledger)
    ledger.misses.end(read)
    assert not ledger.misses.told(read, {"team"}, everybody=True)
    found = the_miss(ledger)
    assert (found.ended is not None, found.told, found.heard) == (True, False, {})


def test_what_ends_silently_is_told_to_nobody(ledger: Ledger) -> None:
    ledger.misses.begin("shop", "rpo", "it is old")
    ledger.misses.end(the_miss(ledger), silently=True)
    assert (ledger.misses.open(), the_miss(ledger).told) == ([], True)


def fail(ledger: Ledger, run: str, step: str = "dump") -> None:
    ledger.misses.fail("shop", "backup", f"it failed in {run}", run=run, step=step, hint="mend it")


def test_what_fails_again_at_the_same_step_is_known_and_at_another_one_is_news(ledger: Ledger) -> None:
    fail(ledger, "one")
    ledger.misses.told(the_miss(ledger), {"team"}, everybody=True)
    fail(ledger, "two")
    found = the_miss(ledger)
    assert (found.run, found.detail, list(found.heard)) == ("two", "it failed in two", ["team"])
    fail(ledger, "three", "upload")
    found = the_miss(ledger)
    assert (found.run, found.step, found.heard) == ("three", "upload", {})


def test_what_fails_otherwise_while_people_are_told_is_told_too(ledger: Ledger) -> None:
    fail(ledger, "one")
    read = the_miss(ledger)
    fail(ledger, "two", "upload")
    assert not ledger.misses.told(read, {"team"}, everybody=True)
    assert the_miss(ledger).heard == {}


def test_what_is_news_of_the_same_step_is_told_even_while_people_are_told(ledger: Ledger) -> None:
    def verified(found: str, *, news: bool) -> None:
        ledger.misses.fail("shop", VERIFICATION, found, run=None, step="verify", hint="see to it", news=news)

    verified("one copy", news=True)
    read = the_miss(ledger)
    verified("two copies", news=True)
    assert not ledger.misses.told(read, {"team"}, everybody=True)
    assert ledger.misses.told(the_miss(ledger), {"team"}, everybody=True)
    verified("both copies", news=False)
    found = the_miss(ledger)
    assert (found.detail, list(found.heard)) == ("both copies", ["team"])
    verified("three copies", news=True)
    assert the_miss(ledger).heard == {}


def test_what_failed_is_well_again_once_and_is_no_objective(ledger: Ledger) -> None:
    assert not ledger.misses.recover("shop", "backup")
    fail(ledger, "one")
    assert not ledger.misses.recover("crm", "backup")
    assert not ledger.misses.recover("shop", "drill")
    assert ledger.misses.recover("shop", "backup")
    assert not ledger.misses.recover("shop", "backup")
    found = the_miss(ledger)
    assert (found.ended is not None, found.told, found.judged) == (True, False, False)
    hour = timedelta(hours=1)
    assert ledger.misses.between(found.since - hour, found.since + hour) == []


def test_what_an_older_schema_has_of_misses_is_kept_and_told_again_while_it_lasts(ledger_url: str) -> None:
    engine = schema.open_engine(ledger_url, revision="0007")
    with engine.begin() as connection:
        for objective, ended, heard in (("rpo", None, '["team"]'), ("rto", datetime.now(UTC), None)):
            connection.execute(
                sa.text(
                    "INSERT INTO misses (database, objective, detail, since, ended, told, heard)"
                    " VALUES ('shop', :objective, 'x', :now, :ended, :told, :heard)"
                ),
                {
                    "objective": objective,
                    "now": datetime.now(UTC),
                    "ended": ended,
                    "told": True,
                    "heard": heard,
                },
            )
    engine.dispose()
    ledger = open_ledger(ledger_url)
    found = ledger.misses.current()
    assert [(one.objective, one.told, one.heard, one.relieved) for one in found] == [
        ("rpo", False, {}, {}),
        ("rto", True, {}, {}),
    ]
    ledger.close()


def test_however_many_begin_and_end_a_miss_one_of_them_does(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        begun = list(pool.map(lambda _: ledger.misses.begin("shop", "rpo", "it is old"), range(8)))
        miss = the_miss(ledger)
        ended = list(pool.map(lambda _: ledger.misses.end(miss), range(8)))
    assert (sum(begun), sum(ended)) == (1, 1)


def test_one_at_a_time_tells_and_writes_do_not_wait_for_it(ledger: Ledger) -> None:
    with ledger.misses.telling() as alone:
        assert alone
        with ledger.misses.telling() as second:
            assert not second
        assert ledger.misses.begin("shop", "rpo", "it is old")
        assert ledger.misses.told(the_miss(ledger), {"team"}, everybody=True)
    with ledger.misses.telling() as again:
        assert again


def test_whoever_told_and_failed_leaves_it_to_others(ledger: Ledger) -> None:
    with pytest.raises(KeyboardInterrupt), ledger.misses.telling():
        raise KeyboardInterrupt
    with ledger.misses.telling() as alone:
        assert alone
