"""What the ledger promises of runs that were lost: each is found when it is, and begun anew once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from larder.errors import BusyError, LarderError, LeaseLostError
from larder.ledger import Ledger, tables
from larder.ledger.hosts import GAP, HOST_PATIENCE, SETTLE
from larder.ledger.leases import TTL, Lease, Refusal
from larder.ledger.runs import UPLOAD, Run
from tests.losses import expire, heard, lie, lost

HOST = "host-1"
SECOND = timedelta(seconds=1)


def begin(ledger: Ledger, database: str = "shop") -> Run:
    return ledger.runs.create(database, "command", stores=["local", "nas"])[0]


def take(ledger: Ledger, run: Run, step: str, store: str = "") -> Lease:
    lease = ledger.leases.take(run.id, step, HOST, store)
    assert isinstance(lease, Lease)
    return lease


def finish(ledger: Ledger, run: Run, *steps: str) -> None:
    for step in steps:
        ledger.leases.finish(take(ledger, run, step, "local" if step == UPLOAD else ""))


def test_a_run_whose_worker_was_lost_is_taken_up_once(ledger: Ledger) -> None:
    heard(ledger, HOST)
    run = begin(ledger)
    finish(ledger, run, "dump")
    zombie = take(ledger, run, "compress")
    assert lost(ledger) == []
    expire(ledger, run)
    (found,) = ledger.losses.expired()
    assert found.open_step is not None
    assert (found.id, found.open_step.name, found.open_step.state) == (run.id, "compress", "running")
    assert [ledger.losses.take_up(found), ledger.losses.take_up(found)] == [True, False]
    assert lost(ledger) == []
    with pytest.raises(LeaseLostError):
        ledger.leases.finish(zombie)
    successor = take(ledger, run, "compress")
    assert successor.tries == 2
    ledger.leases.finish(successor)


@pytest.mark.parametrize(
    ("ago", "since", "found"),
    [
        (SECOND, SETTLE + SECOND, True),
        (SECOND, SETTLE - SECOND, False),
        (GAP + SECOND, timedelta(hours=1), False),
    ],
    ids=["it could have renewed it", "the ledger is just back", "the ledger may be away for it"],
)
def test_a_lease_is_lost_where_its_host_could_have_renewed_it(
    ledger: Ledger, ago: timedelta, since: timedelta, found: bool
) -> None:
    run = begin(ledger)
    take(ledger, run, "dump")
    expire(ledger, run)
    assert lost(ledger) == []
    heard(ledger, HOST, ago, since=since)
    assert (lost(ledger) == [run.id]) is found


def test_a_host_that_was_away_is_there_since_it_is_back(ledger: Ledger) -> None:
    heard(ledger, HOST, GAP + SECOND)
    ledger.hosts.beat(HOST)
    back = ledger.hosts.known()[HOST]
    assert back.since == back.seen
    ledger.hosts.beat(HOST)
    assert ledger.hosts.known()[HOST].since == back.since
    ledger.hosts.beat("host-2")
    assert sorted(ledger.hosts.known()) == [HOST, "host-2"]


@pytest.mark.parametrize("begun", [True, False], ids=["between two steps", "in its queue"])
def test_a_run_that_lies_about_is_found(ledger: Ledger, begun: bool) -> None:
    heard(ledger, HOST)
    run = begin(ledger)
    if begun:
        finish(ledger, run, "dump")
    assert lost(ledger) == []
    lie(ledger, run)
    (found,) = ledger.losses.lying()
    assert [ledger.losses.take_up(found), ledger.losses.take_up(found)] == [True, False]
    assert lost(ledger) == []
    take(ledger, run, "compress" if begun else "dump")


def test_a_run_whose_host_is_gone_ends_once(ledger: Ledger) -> None:
    run = begin(ledger)
    finish(ledger, run, "dump")
    zombie = take(ledger, run, "compress")
    heard(ledger, HOST, HOST_PATIENCE - SECOND)
    expire(ledger, run, HOST_PATIENCE + SECOND)
    assert ledger.losses.stranded() == []
    heard(ledger, HOST, HOST_PATIENCE + SECOND)
    # Nobody was heard of meanwhile: the ledger was away, or all have slept.
    assert ledger.losses.stranded() == []
    heard(ledger, "host-2", since=GAP - SECOND)
    assert ledger.losses.stranded() == []
    heard(ledger, "host-2", since=GAP + SECOND)
    (found,) = ledger.losses.stranded()
    gone = LarderError("gone")
    assert [ledger.losses.leave(found, gone), ledger.losses.leave(found, gone)] == [True, False]
    ended = ledger.runs.get(run.id)
    assert (ended.state, ended.host, ended.error) == ("failed", None, "gone")
    with pytest.raises(LeaseLostError):
        ledger.leases.finish(zombie)
    assert isinstance(ledger.leases.take(run.id, "notify", "host-2"), Lease)


def test_a_run_whose_host_went_while_people_were_told_is_told_about_by_another(ledger: Ledger) -> None:
    run = begin(ledger)
    finish(ledger, run, "dump", "compress", "checksum", UPLOAD)
    ledger.leases.finish(take(ledger, run, UPLOAD, "nas"))
    finish(ledger, run, "rotate")
    take(ledger, run, "notify")
    assert ledger.losses.leave(ledger.runs.get(run.id), LarderError("gone"))
    assert isinstance(ledger.leases.take(run.id, "notify", "host-2"), Lease)


def test_a_run_whose_lease_ran_out_while_nobody_could_renew_it_is_closed_by_no_other(ledger: Ledger) -> None:
    run = begin(ledger)
    take(ledger, run, "dump")
    expire(ledger, run)
    # The ledger is just back: its host, and every other, is heard of since a moment.
    heard(ledger, HOST, since=SETTLE - SECOND)
    with pytest.raises(BusyError):
        begin(ledger)
    heard(ledger, HOST, HOST_PATIENCE + SECOND)
    heard(ledger, "host-2", since=SECOND)
    with pytest.raises(BusyError):
        begin(ledger)
    heard(ledger, "host-2")
    assert begin(ledger).id != run.id
    assert ledger.runs.get(run.id).state == "failed"


def test_who_is_alone_knows_that_a_lease_which_ran_out_is_nobodys(ledger: Ledger) -> None:
    run = begin(ledger)
    take(ledger, run, "dump")
    expire(ledger, run)
    heard(ledger, HOST, timedelta(minutes=2))
    with pytest.raises(BusyError):
        begin(ledger)
    ledger.runs.alone = True
    assert begin(ledger).id != run.id


def test_a_later_step_is_for_the_host_that_has_the_spool(ledger: Ledger) -> None:
    run = begin(ledger)
    finish(ledger, run, "dump")
    assert ledger.leases.take(run.id, "compress", "host-2") is Refusal.ELSEWHERE
    take(ledger, run, "compress")


def test_a_lease_from_a_clock_that_was_set_back_ends_in_time(ledger: Ledger) -> None:
    run = begin(ledger)
    take(ledger, run, "dump")
    before = ledger.runs.get(run.id).lease_until
    expire(ledger, run, -timedelta(hours=3))
    ledger.losses.correct()
    assert ledger.runs.get(run.id).lease_until - before < TTL
    waiting = begin(ledger, "market")
    ledger.losses.correct()
    assert ledger.runs.get(waiting.id).lease_until == waiting.lease_until


def test_a_run_that_waits_since_a_clock_was_ahead_is_found_in_time(ledger: Ledger) -> None:
    run = begin(ledger)
    lie(ledger, run, -timedelta(hours=3))
    ledger.losses.correct()
    assert timedelta(0) <= datetime.now(UTC) - ledger.runs.get(run.id).lying_since < TTL
    # A step that is to be begun again in a minute and a half is none.
    lie(ledger, run, -timedelta(seconds=90))
    before = ledger.runs.get(run.id).lease_until
    ledger.losses.correct()
    assert ledger.runs.get(run.id).lease_until == before


@pytest.mark.parametrize("minutes", [-5, 180], ids=["a while ago", "by a clock that was ahead"])
def test_a_failure_that_nobody_was_told_of_is_found(ledger: Ledger, minutes: int) -> None:
    run = begin(ledger)
    ledger.runs.abandon(run.id, LarderError("stopped"))
    assert ledger.losses.untold() == []
    with ledger._engine.begin() as connection:
        finished = datetime.now(UTC) + timedelta(minutes=minutes)
        connection.execute(tables.runs.update().values(finished=finished))
    assert [untold.id for untold in ledger.losses.untold()] == [run.id]
    telling = take(ledger, run, "notify")
    assert ledger.losses.untold() == []
    ledger.leases.finish(telling)
    expire(ledger, run)
    assert ledger.losses.untold() == []
