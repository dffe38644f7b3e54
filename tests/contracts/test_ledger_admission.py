"""What the ledger promises of dumps that may not all run at a time: so many do, and the others wait in turn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from larder.errors import LarderError
from larder.ledger import Ledger
from larder.ledger.admission import Room
from larder.ledger.leases import Lease, Refusal
from larder.ledger.runs import QUEUE_PATIENCE, Run
from tests.losses import expire, lie, lost

SERVER = "postgresql://db.example:5432"
ROOM = Room(SERVER, 2, None, None, 10**12, {})


def begin(ledger: Ledger, number: int) -> Run:
    return ledger.runs.create(f"db{number}", "command", stores=["nas"])[0]


def take(ledger: Ledger, run: Run, room: Room = ROOM, host: str = "host-1") -> Lease | Refusal:
    return ledger.leases.take(run.id, "dump", host, room=room)


def begun(ledger: Ledger, run: Run, room: Room = ROOM) -> Lease:
    lease = take(ledger, run, room)
    assert isinstance(lease, Lease)
    return lease


def test_a_server_serves_so_many_dumps_and_the_others_wait_in_turn(ledger: Ledger) -> None:
    runs = [begin(ledger, number) for number in range(4)]
    first, _ = begun(ledger, runs[0]), begun(ledger, runs[1])
    assert [take(ledger, run) for run in runs[2:]] == [Refusal.FULL] * 2
    assert isinstance(take(ledger, begin(ledger, 9), replace(ROOM, server="postgresql://other:5432")), Lease)
    waiting = ledger.runs.get(runs[2].id)
    assert (waiting.state, waiting.waits, waiting.step) == ("queued", "server", None)
    assert waiting.progress == "waits for another dump of its server to end"
    assert ledger.admission.servers() == {SERVER: 2}
    ledger.leases.finish(first)
    assert ledger.admission.serves(SERVER) == 1
    assert [run.id for run in ledger.admission.waiting("server", SERVER, 9)] == [runs[2].id, runs[3].id]
    assert [ledger.admission.release(waiting), ledger.admission.release(waiting)] == [True, False]
    begun(ledger, runs[2])
    assert [run.id for run in ledger.admission.waiting("server", SERVER, 9)] == [runs[3].id]


def test_dumps_that_begin_at_once_are_counted_one_by_one(ledger: Ledger) -> None:
    runs = [begin(ledger, number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda run: take(ledger, run), runs))
    assert sum(isinstance(result, Lease) for result in results) == 2
    assert len(ledger.admission.waiting("server", SERVER, 9)) == 6


def test_a_dump_whose_worker_was_lost_takes_no_place(ledger: Ledger) -> None:
    one = replace(ROOM, per_server=1)
    killed = begin(ledger, 1)
    begun(ledger, killed, one)
    expire(ledger, killed)
    begun(ledger, begin(ledger, 2), one)


def test_a_host_makes_so_many_dumps(ledger: Ledger) -> None:
    one = replace(ROOM, server=None, per_host=1)
    begun(ledger, begin(ledger, 1), one)
    second = begin(ledger, 2)
    assert take(ledger, second, one) is Refusal.FULL
    assert ledger.runs.get(second.id).waits == "host"
    assert isinstance(take(ledger, begin(ledger, 3), one, "host-2"), Lease)


def test_a_dump_waits_for_room_that_others_give_back(ledger: Ledger) -> None:
    first = begin(ledger, 1)
    begun(ledger, first, replace(ROOM, needed=600, free=1000))
    second = begin(ledger, 2)
    # 100 of its 600 bytes are there: of 900 that are free, it takes 500 more.
    room = replace(ROOM, needed=500, free=900, used={first.id: 100})
    assert take(ledger, second, room) is Refusal.FULL
    assert ledger.runs.get(second.id).waits == "spool"
    assert isinstance(take(ledger, begin(ledger, 3), replace(room, needed=400)), Lease)
    ledger.runs.abandon(first.id, LarderError("stopped"))
    # Nobody gives back what is missing now: the dump itself says so.
    alone = begin(ledger, 4)
    for run in ledger.runs.latest(limit=9):
        if run.id != alone.id:
            ledger.runs.abandon(run.id, LarderError("stopped"))
    assert isinstance(take(ledger, alone, room), Lease)


def test_what_waits_is_not_lost(ledger: Ledger) -> None:
    one = replace(ROOM, per_server=1)
    begun(ledger, begin(ledger, 1), one)
    run = begin(ledger, 2)
    take(ledger, run, one)
    lie(ledger, run, 2 * QUEUE_PATIENCE)
    assert run.id not in lost(ledger)
    ledger.admission.hold()
    assert ledger.runs.get(run.id).lease_until > datetime.now(UTC)


@pytest.mark.parametrize("state", ["stored", "failed"])
def test_a_dump_is_expected_to_take_what_the_last_good_one_took(ledger: Ledger, state: str) -> None:
    run = begin(ledger, 1)
    for step in ("dump", "compress"):
        lease = ledger.leases.take(run.id, step, "host-1")
        assert isinstance(lease, Lease)
        ledger.leases.finish(lease, spooled=4711)
    if state == "failed":
        ledger.runs.abandon(run.id, LarderError("stopped"))
    else:
        for step, store in (("checksum", ""), ("upload", "nas"), ("rotate", ""), ("notify", "")):
            lease = ledger.leases.take(run.id, step, "host-1", store)
            ledger.leases.finish(lease)  # type: ignore[arg-type]
    assert ledger.admission.expected("db1") == (4711 if state == "stored" else None)
