"""What the ledger promises of objectives: the facts that they are judged by, and what was missed and told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from larder.errors import LarderError
from larder.ledger import Ledger
from larder.ledger.drills import Outcome
from larder.ledger.misses import Miss
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
    [miss] = ledger.misses.untold()
    return miss


def test_a_miss_is_begun_once_told_once_and_ends_once(ledger: Ledger) -> None:
    assert ledger.misses.begin("shop", "rpo", "it is old")
    assert not ledger.misses.begin("shop", "rpo", "it is older")
    assert ledger.misses.begin("shop", "rto", "it was slow")
    assert [miss.objective for miss in ledger.misses.open()] == ["rpo", "rto"]
    miss = ledger.misses.untold()[0]
    assert (miss.database, miss.detail, miss.ended) == ("shop", "it is old", None)
    assert abs(datetime.now(UTC) - miss.since) < timedelta(minutes=1)
    assert ledger.misses.told(miss)
    assert not ledger.misses.told(miss)
    assert ledger.misses.end(miss)
    assert not ledger.misses.end(miss)
    assert [one.objective for one in ledger.misses.open()] == ["rto"]
    ended = next(one for one in ledger.misses.untold() if one.id == miss.id)
    assert ended.ended is not None
    assert ledger.misses.told(ended)
    assert [one.objective for one in ledger.misses.untold()] == ["rto"]
    assert ledger.misses.begin("shop", "rpo", "again")


def test_what_ends_while_people_are_told_that_it_is_missed_is_told_too(ledger: Ledger) -> None:
    ledger.misses.begin("shop", "rpo", "it is old")
    read = the_miss(ledger)
    ledger.misses.end(read)
    assert not ledger.misses.told(read)
    assert the_miss(ledger).ended is not None


def test_what_ends_silently_is_told_to_nobody(ledger: Ledger) -> None:
    ledger.misses.begin("shop", "rpo", "it is old")
    ledger.misses.end(the_miss(ledger), silently=True)
    assert (ledger.misses.open(), ledger.misses.untold()) == ([], [])


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
        assert ledger.misses.told(the_miss(ledger))
    with ledger.misses.telling() as again:
        assert again


def test_whoever_told_and_failed_leaves_it_to_others(ledger: Ledger) -> None:
    with pytest.raises(KeyboardInterrupt), ledger.misses.telling():
        raise KeyboardInterrupt
    with ledger.misses.telling() as alone:
        assert alone
