"""What the ledger promises, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from larder.errors import (
    BusyError,
    ConfigurationError,
    LarderError,
    LeaseLostError,
    NotFoundError,
    RefusedError,
    UnreachableError,
)
from larder.ledger import AwayError, Ledger, open_ledger, schema, tables
from larder.ledger.admission import Room
from larder.ledger.leases import Lease, Refusal
from larder.ledger.runs import BACKUP_STEPS, RESTORE_STEPS, UPLOAD, Run
from larder.naming import stamp_of
from tests.losses import expire
from tests.standings import keep, manifest_of


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may do anything: become somebody who may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def begin(ledger: Ledger, database: str = "shop") -> Run:
    run, is_new = ledger.runs.create(database, "command", stores=["local"])
    assert is_new
    return run


def take(ledger: Ledger, run: Run, step: str) -> Lease:
    lease = ledger.leases.take(run.id, step, "host-1", "local" if step == UPLOAD else "")
    assert isinstance(lease, Lease)
    return lease


def pass_through(ledger: Ledger, run: Run, *names: str) -> None:
    for name in names:
        ledger.leases.finish(take(ledger, run, name))


def test_a_run_goes_through_its_steps_and_ends_stored(ledger: Ledger) -> None:
    run = begin(ledger)
    assert (run.state, [step.state for step in run.steps]) == ("queued", ["pending"] * 6)
    pass_through(ledger, run, *BACKUP_STEPS)
    run = ledger.runs.get(run.id)
    assert run.state == "stored"
    assert run.over
    assert [step.state for step in run.steps] == ["done"] * 6
    assert [step.attempts for step in run.steps] == [1] * 6
    assert run.finished is not None
    assert run.finished.tzinfo is not None
    assert abs((datetime.now(UTC) - run.finished).total_seconds()) < 60


def test_one_run_at_a_time_for_a_database(ledger: Ledger) -> None:
    run = begin(ledger)
    with pytest.raises(BusyError, match=run.id):
        ledger.runs.create("shop", "command", stores=["local"])
    begin(ledger, "crm")
    pass_through(ledger, run, *BACKUP_STEPS)
    begin(ledger)


def over_at(ledger: Ledger, moment: datetime) -> None:
    """A run that is over, and has taken the second of `moment`."""
    run = begin(ledger)
    ledger.runs.abandon(run.id, LarderError("enough"))
    with ledger._engine.begin() as connection:
        this = tables.runs.c.id == run.id
        connection.execute(tables.runs.update().where(this).values(stamp=stamp_of(moment)))


def test_backups_that_follow_each_other_faster_than_seconds_keep_their_order(ledger: Ledger) -> None:
    far = datetime.now(UTC) + timedelta(minutes=5)
    for second in range(3):
        over_at(ledger, far + timedelta(seconds=second))
    assert begin(ledger).stamp == stamp_of(far + timedelta(seconds=3))


def test_a_clock_that_was_set_back_by_days_leaves_seconds_that_are_taken(ledger: Ledger) -> None:
    over_at(ledger, datetime.now(UTC) + timedelta(days=2))
    now = datetime.now(UTC)
    taken = {stamp_of(now + timedelta(seconds=second)) for second in range(100)}
    for second in range(100):
        over_at(ledger, now + timedelta(seconds=second))
    run = begin(ledger)
    assert run.stamp not in taken
    assert run.stamp < stamp_of(now + timedelta(hours=1))


def test_a_process_that_is_stopped_with_locks_keeps_nobody_from_the_ledger_for_long(
    empty_postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "FROZEN", 1)
    with closing(open_ledger(empty_postgres_database)) as ledger:
        run = begin(ledger)
        with ledger._engine.connect() as stopped:
            stopped.execute(tables.runs.update().where(tables.runs.c.id == run.id).values(progress="1 %"))
            take(ledger, run, "dump")
            with pytest.raises(sa.exc.OperationalError, match="idle-in-transaction"):
                stopped.commit()


def test_nobody_waits_for_a_lock_of_the_ledger_for_ever(
    empty_postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "BUSY_TIMEOUT", 1)
    with closing(open_ledger(empty_postgres_database)) as ledger:
        run = begin(ledger)
        with ledger._engine.begin() as holder:
            holder.execute(tables.runs.update().where(tables.runs.c.id == run.id).values(progress="1 %"))
            with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
                take(ledger, run, "dump")


def test_two_schedulers_make_one_run_of_a_slot(ledger: Ledger) -> None:
    slot = datetime(2025, 10, 16, 2, tzinfo=UTC)
    first, is_new = ledger.runs.create("shop", "schedule", slot, stores=["local"])
    assert is_new
    second, is_new = ledger.runs.create("shop", "schedule", slot, stores=["local"])
    assert (second.id, is_new) == (first.id, False)
    pass_through(ledger, first, *BACKUP_STEPS)
    third, is_new = ledger.runs.create("shop", "schedule", slot, stores=["local"])
    assert (third.id, is_new) == (first.id, False)
    _, is_new = ledger.runs.create("shop", "schedule", slot + timedelta(days=1), stores=["local"])
    assert is_new


def test_a_run_that_reached_nobody_leaves_its_slot_to_the_next(ledger: Ledger) -> None:
    slot = datetime(2025, 10, 16, 2, tzinfo=UTC)
    unsent, _ = ledger.runs.create("shop", "schedule", slot, stores=["local"])
    ledger.runs.withdraw(unsent.id, UnreachableError("the broker is away"))
    assert ledger.runs.get(unsent.id).state == "failed"
    second, is_new = ledger.runs.create("shop", "schedule", slot, stores=["local"])
    assert (is_new, second.slot) == (True, slot)
    # One that is over is not withdrawn: its slot has been used.
    ledger.runs.abandon(second.id, LarderError("it failed"))
    ledger.runs.withdraw(second.id, UnreachableError("the broker is away"))
    assert ledger.runs.get(second.id).slot == slot


def test_of_many_that_start_at_once_one_wins(ledger: Ledger) -> None:
    slot = datetime(2025, 10, 16, 2, tzinfo=UTC)
    with ThreadPoolExecutor(8) as pool:
        made = list(
            pool.map(lambda _: ledger.runs.create("shop", "schedule", slot, stores=["local"]), range(16))
        )
    assert len({run.id for run, _ in made}) == 1
    assert sum(is_new for _, is_new in made) == 1


def test_two_runs_of_one_second_have_different_backups(ledger: Ledger) -> None:
    names = set()
    for _ in range(3):
        run = begin(ledger)
        names.add(run.backup)
        ledger.runs.abandon(run.id, LarderError("enough"))
    assert len(names) == 3


def test_a_lost_run_is_closed_and_does_not_stand_in_the_way(ledger: Ledger) -> None:
    lost = begin(ledger)
    held = take(ledger, lost, "dump")
    expire(ledger, lost)
    begin(ledger)
    closed = ledger.runs.get(lost.id)
    assert (closed.state, closed.failed_step) == ("failed", "dump")
    assert "lost" in (closed.error or "")
    with pytest.raises(LeaseLostError):
        ledger.leases.finish(held)


def test_a_step_that_is_delivered_twice_runs_once(ledger: Ledger) -> None:
    run = begin(ledger)
    lease = take(ledger, run, "dump")
    assert ledger.leases.take(run.id, "dump", "host-2") is Refusal.BUSY
    ledger.leases.finish(lease)
    assert ledger.leases.take(run.id, "dump", "host-2") is Refusal.DONE
    assert ledger.leases.take(run.id, "upload", "host-2", "local") is Refusal.EARLY
    ledger.runs.abandon(run.id, LarderError("enough"))
    assert ledger.leases.take(run.id, "compress", "host-2") is Refusal.OVER


def test_a_zombie_commits_nothing(ledger: Ledger) -> None:
    run = begin(ledger)
    zombie = take(ledger, run, "dump")
    expire(ledger, run)
    successor = take(ledger, run, "dump")
    assert successor.attempt > zombie.attempt
    assert successor.tries == 2
    error = LarderError("too late")
    for act in (
        lambda: ledger.leases.finish(zombie, artifact="zombie.sql"),
        lambda: ledger.leases.fail(zombie, error),
        lambda: ledger.leases.wait(zombie, error, 1),
        lambda: ledger.leases.renew(zombie),
        lambda: ledger.leases.report(zombie, "99 %"),
        lambda: ledger.leases.warn(zombie, "boo"),
    ):
        with pytest.raises(LeaseLostError):
            act()
    now = ledger.runs.get(run.id)
    assert (now.state, now.step, now.artifact, now.progress, now.warnings) == (
        "running",
        "dump",
        None,
        None,
        [],
    )
    ledger.leases.finish(successor, artifact="right.sql")
    assert ledger.runs.get(run.id).artifact == "right.sql"


def test_what_is_committed_along_is_in_the_same_transaction(ledger: Ledger) -> None:
    run = begin(ledger)
    lease = take(ledger, run, "dump")

    def also(connection: sa.Connection) -> None:
        raise RuntimeError("the disk is on fire")

    with pytest.raises(RuntimeError):
        ledger.leases.finish(lease, artifact="half.sql", also=also)
    now = ledger.runs.get(run.id)
    assert (now.artifact, now.step_named("dump").state) == (None, "running")


def test_a_failed_run_has_only_its_notice_left(ledger: Ledger) -> None:
    run = begin(ledger)
    lease = take(ledger, run, "dump")
    ledger.leases.fail(lease, UnreachableError("unable to reach it", "plug it in"))
    failed = ledger.runs.get(run.id)
    assert (failed.state, failed.failed_step, failed.error, failed.hint, failed.exit_code) == (
        "failed",
        "dump",
        "unable to reach it",
        "plug it in",
        6,
    )
    assert ledger.leases.take(run.id, "compress", "host-1") is Refusal.OVER
    pass_through(ledger, run, "notify")
    told = ledger.runs.get(run.id)
    assert (told.state, told.step_named("notify").state) == ("failed", "done")
    assert ledger.leases.take(run.id, "notify", "host-1") is Refusal.DONE


def test_a_commit_that_nobody_heard_of_may_be_made_again(ledger: Ledger) -> None:
    run = begin(ledger)
    lease, written = take(ledger, run, "dump"), []
    for _ in range(2):
        ledger.leases.finish(lease, also=lambda _: written.append("also"))
    assert written == ["also"]
    take(ledger, run, "compress")
    with pytest.raises(LeaseLostError):
        ledger.leases.finish(lease)


def test_a_waiting_step_can_be_taken_again(ledger: Ledger) -> None:
    run = begin(ledger)
    ledger.leases.wait(take(ledger, run, "dump"), UnreachableError("not yet"), 3)
    waiting = ledger.runs.get(run.id)
    assert (waiting.step_named("dump").state, waiting.progress) == ("waiting", "trying again in 3 s")
    assert take(ledger, run, "dump").tries == 2


def test_unknown_names_are_refused(ledger: Ledger) -> None:
    with pytest.raises(NotFoundError):
        ledger.runs.get("nothing")
    with pytest.raises(NotFoundError):
        ledger.leases.take("nothing", "dump", "host-1")
    with pytest.raises(NotFoundError):
        ledger.leases.take(begin(ledger).id, "nothing", "host-1")


def test_each_store_has_an_upload_of_its_own(ledger: Ledger) -> None:
    run, _ = ledger.runs.create("shop", "command", stores=["local", "offsite"])
    assert [(step.name, step.store) for step in run.steps] == [
        ("dump", ""), ("compress", ""), ("checksum", ""), ("upload", "local"), ("upload", "offsite"), ("rotate", ""),
        ("notify", ""),
    ]  # fmt: skip
    pass_through(ledger, run, "dump", "compress", "checksum")
    assert ledger.leases.take(run.id, "upload", "host-1", "offsite") is Refusal.EARLY
    with pytest.raises(NotFoundError, match="for store 'attic'"):
        ledger.leases.take(run.id, "upload", "host-1", "attic")
    with pytest.raises(NotFoundError, match="no such step"):
        ledger.leases.take(run.id, "upload", "host-1")
    first = take(ledger, run, "upload")
    ledger.leases.finish(first, error="the disk is on fire")
    second = ledger.leases.take(run.id, "upload", "host-1", "offsite")
    assert isinstance(second, Lease)
    assert ledger.leases.take(run.id, "upload", "host-1", "local") is Refusal.PASSED
    ledger.leases.finish(second)
    pass_through(ledger, run, "rotate", "notify")
    ended = ledger.runs.get(run.id)
    assert ended.state == "stored"
    assert [(link.store, link.state, link.error) for link in ended.uploads] == [
        ("local", "failed", "the disk is on fire"),
        ("offsite", "done", None),
    ]


def test_a_run_that_fails_keeps_what_it_has_made(ledger: Ledger) -> None:
    run = begin(ledger)
    pass_through(ledger, run, "dump", "compress", "checksum")
    manifest = manifest_of(run.backup)

    def record(connection: sa.Connection) -> None:
        ledger.backups.record(connection, manifest, {"local": "a"}, verified=datetime.now(UTC))

    ledger.leases.fail(take(ledger, run, "upload"), LarderError("too few copies"), also=record)
    assert ledger.runs.get(run.id).state == "failed"
    found = ledger.backups.get(run.backup)
    assert found is not None
    assert list(found.copies) == ["local"]


def record(ledger: Ledger, backup: str, *stores: str) -> None:
    with ledger._engine.begin() as connection:
        keys = dict.fromkeys(stores, "key")
        ledger.backups.record(connection, manifest_of(backup), keys, verified=datetime.now(UTC))


def test_a_broken_copy_makes_a_backup_broken_only_when_none_is_good(ledger: Ledger) -> None:
    record(ledger, "shop/20251016_020000", "local", "offsite")

    def proof() -> str:
        found = ledger.backups.get("shop/20251016_020000")
        assert found is not None
        return found.proof

    ledger.backups.checked("shop/20251016_020000", "local", "its bytes were altered")
    assert proof() == "stored"
    ledger.backups.checked("shop/20251016_020000", "offsite", "it is missing")
    assert proof() == "broken"
    ledger.backups.checked("shop/20251016_020000", "local", None)
    assert proof() == "stored"
    found = ledger.backups.get("shop/20251016_020000")
    assert found is not None
    assert {store: copy.problem for store, copy in found.copies.items()} == {
        "local": None,
        "offsite": "it is missing",
    }


def test_what_was_removed_on_purpose_is_remembered(ledger: Ledger) -> None:
    record(ledger, "shop/20251016_020000", "local", "offsite")
    ledger.backups.forget("local", ["shop/20251016_020000"])
    assert list(ledger.backups.all()["shop/20251016_020000"].copies) == ["offsite"]
    ledger.backups.forget("offsite", ["shop/20251016_020000"])
    ledger.backups.forget("offsite", ["shop/20251016_020000"])
    assert ledger.backups.all() == {}
    assert ledger.backups.removed("shop") == {
        ("shop/20251016_020000", "local"), ("shop/20251016_020000", "offsite")
    }  # fmt: skip
    assert ledger.backups.removed("crm") == set()


def test_a_backup_names_the_one_before_it(ledger: Ledger) -> None:
    for backup in (
        "shop/20251015_020000",
        "shop/20251016_020000",
        "shop/20251017_020000",
        "crm/20251016_120000",
    ):
        record(ledger, backup, "local")
    found = ledger.backups.newest_manifest("shop", "shop/20251017_020000")
    assert found is not None
    assert (found.backup, found.sha256) == (
        "shop/20251016_020000",
        manifest_of("shop/20251016_020000").digest,
    )
    assert ledger.backups.newest_manifest("shop", "shop/20251015_020000") is None


def test_found_copies_are_adopted_and_known_ones_left_alone(ledger: Ledger) -> None:
    record(ledger, "shop/20251016_020000", "local")
    ledger.backups.checked("shop/20251016_020000", "local", "its bytes were altered")
    ledger.backups.adopt(manifest_of("shop/20251016_020000"), {"local": "a", "offsite": "b"})
    ledger.backups.adopt(manifest_of("shop/20251017_020000"), {"offsite": "c"})
    found = ledger.backups.all("shop")
    assert found["shop/20251016_020000"].copies["local"].problem == "its bytes were altered"
    assert found["shop/20251016_020000"].copies["offsite"].verified is None
    assert found["shop/20251017_020000"].proof == "stored"


def test_a_slot_is_claimed_once(ledger: Ledger) -> None:
    slot = datetime(2025, 10, 16, 4, tzinfo=UTC)
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: ledger.slots.claim("verify", slot), range(16))) == 1
    assert ledger.slots.claim("verify", slot + timedelta(days=1))
    assert ledger.slots.claim("drill", slot)


def test_signers_are_remembered_once(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        news = list(pool.map(lambda _: ledger.signers.remember("AAAA", "host-1"), range(16)))
    assert sum(news) == 1
    assert ledger.signers.known() == {"AAAA": "host-1"}


def test_a_file_that_somebody_else_writes_to_for_too_long_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "BUSY_TIMEOUT", 0.05)
    with closing(open_ledger(f"sqlite:///{tmp_path}/ledger")) as ledger:
        with closing(sqlite3.connect(tmp_path / "ledger", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(AwayError, match="database is locked"):
                begin(ledger)
            assert ledger.runs.active() == [], "whoever reads waits for nobody"
        assert begin(ledger).state == "queued"


def test_many_may_open_a_new_ledger_at_a_time(tmp_path: Path) -> None:
    """Each of many new files is opened by eight at a time: one in twenty told somebody that it was locked."""
    start = threading.Barrier(8)

    def opened(url: str) -> int:
        start.wait()
        ledger = open_ledger(url)
        try:
            return len(ledger.runs.active())
        finally:
            ledger.close()

    with ThreadPoolExecutor(8) as pool:
        for number in range(60):
            url = f"sqlite:///{tmp_path / str(number)}/ledger.sqlite3"
            assert list(pool.map(opened, [url] * 8)) == [0] * 8


def test_a_ledger_of_the_first_schema_keeps_what_it_holds(ledger_url: str) -> None:
    """What a migration finds: a run that is over, with one upload for all of its stores."""
    engine = schema.open_engine(ledger_url, revision="0001")
    now = datetime.now(UTC)
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO runs (id, database, stamp, trigger, state, attempt, lease_until, created, warnings)"
                " VALUES ('r1', 'shop', '20251016_020000', 'command', 'stored', 6, :now, :now, '[]')"
            ),
            {"now": now},
        )
        connection.execute(
            sa.text(
                "INSERT INTO steps (run, name, position, state, attempts, seconds)"
                " VALUES ('r1', 'upload', 3, 'done', 1, 2.5)"
            )
        )
        connection.execute(
            sa.text(
                "INSERT INTO backups"
                " (id, database, run, engine, created, artifact, size, sha256, raw_size, proof, pinned)"
                " VALUES ('shop/20251016_020000', 'shop', 'r1', 'sqlite', :now, 'a', 1, 'b', 1, 'stored', :no)"
            ),
            {"now": now, "no": False},
        )
        connection.execute(
            sa.text("INSERT INTO copies VALUES ('shop/20251016_020000', 'local', 'a', :now)"), {"now": now}
        )
    engine.dispose()
    ledger = open_ledger(ledger_url)
    (link,) = ledger.runs.get("r1").steps
    assert (link.name, link.store, link.state, link.seconds) == ("upload", "", "done", 2.5)
    found = ledger.backups.all()["shop/20251016_020000"]
    assert (found.manifest, list(found.copies)) == (None, ["local"])
    ledger.close()


def test_the_journal_keeps_lines_in_order(ledger: Ledger) -> None:
    run = begin(ledger)
    for number in range(3):
        ledger.journal.write(run.id, "INFO", f"line {number}")
    lines = ledger.journal.read(run.id)
    assert [line.text for line in lines] == ["line 0", "line 1", "line 2"]
    assert [line.text for line in ledger.journal.read(run.id, after=lines[1].id)] == ["line 2"]


def test_latest_runs_come_newest_first(ledger: Ledger) -> None:
    first = begin(ledger)
    ledger.runs.abandon(first.id, LarderError("enough"))
    second = begin(ledger)
    other = begin(ledger, "crm")
    assert [run.id for run in ledger.runs.latest()] == [other.id, second.id, first.id]
    assert [run.id for run in ledger.runs.latest("shop")] == [second.id, first.id]
    assert [run.id for run in ledger.runs.latest(failed=True)] == [first.id]
    assert [run.id for run in ledger.runs.latest(limit=1)] == [other.id]


def test_runs_are_turned_over_page_by_page_also_those_of_one_moment(ledger: Ledger) -> None:
    for number in range(7):
        ledger.runs.abandon(begin(ledger, f"db{number}").id, LarderError("enough"))
    with ledger._engine.begin() as connection:
        moment = datetime.now(UTC)
        connection.execute(tables.runs.update().where(tables.runs.c.database > "db2").values(created=moment))
    every = ledger.runs.latest(kind=None)
    found: list[Run] = []
    while page := ledger.runs.latest(kind=None, limit=2, before=found[-1] if found else None):
        found += page
    assert [run.id for run in found] == [run.id for run in every]
    assert ledger.runs.latest("db1", before=found[-1]) == []


def test_the_last_sizes_and_times_of_some_databases(ledger: Ledger) -> None:
    for day in (16, 17, 18):
        keep(ledger, "shop", datetime(2025, 10, day, 2, tzinfo=UTC))
    keep(ledger, "crm", datetime(2025, 10, 17, 3, tzinfo=UTC))
    assert ledger.backups.sizes(["shop", "crm", "none"], 2) == {
        "shop": [(datetime(2025, 10, day, 2, tzinfo=UTC), 1.0) for day in (17, 18)],
        "crm": [(datetime(2025, 10, 17, 3, tzinfo=UTC), 1.0)],
    }
    runs = [begin(ledger), begin(ledger, "crm")]
    ledger.runs.abandon(runs[1].id, LarderError("enough"))
    pass_through(ledger, runs[0], *BACKUP_STEPS)
    stored = ledger.runs.get(runs[0].id)
    assert ledger.runs.times(["shop", "crm"], 5) == {"shop": [(stored.created, stored.seconds)]}
    assert ledger.runs.times([], 5) == {}


def test_the_seconds_of_some_steps_of_the_last_runs_that_went_well(ledger: Ledger) -> None:
    took: list[float] = []
    for number in range(4):
        run = begin(ledger)
        if number == 1:
            ledger.runs.abandon(run.id, LarderError("enough"))
            continue
        pass_through(ledger, run, *BACKUP_STEPS)
        links = ledger.runs.get(run.id).steps
        took.insert(0, sum(link.seconds or 0 for link in links if link.name in ("dump", UPLOAD)))
    latest = ledger.runs.latest("shop", limit=1)[0]
    assert ledger.runs.durations(latest, ("dump", UPLOAD), 10) == pytest.approx(took[1:])
    assert ledger.runs.durations(latest, ("dump", UPLOAD), 1) == pytest.approx(took[1:2])


def test_the_keys_of_the_newest_copies_in_a_store(ledger: Ledger) -> None:
    for day, stores in ((14, ["local"]), (16, ["local", "nas"]), (15, ["local"]), (17, ["nas"])):
        backup = f"{'shop' if day % 2 else 'crm'}/202510{day}_020000"
        keys = {store: f"{store}/{day}" for store in stores}
        made = replace(manifest_of(backup), created=f"2025-10-{day}T02:00:00Z")
        with ledger._engine.begin() as connection:
            ledger.backups.record(connection, made, keys, verified=None)
    assert ledger.backups.newest_keys("local", 2) == ["local/16", "local/15"]
    assert ledger.backups.newest_keys("nas") == ["nas/17", "nas/16"]
    assert ledger.backups.newest_keys("attic") == []


def test_a_link_of_another_chain_or_of_a_restore_that_nobody_began_is_refused(ledger: Ledger) -> None:
    run = begin(ledger)
    assert ledger.leases.take(run.id, "notify", "host-1", kind="restore") is Refusal.STRANGE
    with ledger._engine.begin() as connection:
        restore = ledger.runs.begin_restore(connection, "crm", "crm", RESTORE_STEPS, None)
    assert ledger.leases.take(restore.id, "load", "host-1", kind="restore") is Refusal.STRANGE
    assert ledger.leases.take(restore.id, "load", "host-1") is Refusal.EARLY
    assert isinstance(ledger.leases.take(restore.id, RESTORE_STEPS[0], "host-1", kind="restore"), Lease)


def test_a_lease_holds_the_run_as_the_ledger_has_it(ledger: Ledger) -> None:
    run = begin(ledger)
    room = Room(server="db.example", per_server=2, per_host=None, needed=7, free=10, used={})
    lease = ledger.leases.take(run.id, "dump", "host-1", room=room)
    assert isinstance(lease, Lease)
    assert lease.whole == ledger.runs.get(run.id)


def test_many_processes_may_open_a_new_ledger_at_once(ledger_url: str) -> None:
    code = "import os; from larder.ledger import open_ledger; open_ledger(os.environ['LEDGER']).runs.latest()"
    # Never in argv: tests beside this one look for passwords in every process of the machine.
    environment = {**os.environ, "LEDGER": ledger_url}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)
        for _ in range(6)
    ]
    for process in processes:
        _, complaints = process.communicate()
        assert process.returncode == 0, complaints.decode()


def test_the_migrations_make_the_tables_that_the_code_names(ledger: Ledger) -> None:
    found = sa.inspect(ledger._engine)
    for table in tables.metadata.sorted_tables:
        columns = {column["name"]: column for column in found.get_columns(table.name)}
        assert columns.keys() == set(table.columns.keys())
        for column in table.columns:
            assert columns[column.name]["nullable"] == column.nullable, f"{table.name}.{column.name}"
    indexes = {index["name"] for index in found.get_indexes("runs")}
    assert {"runs_by_time", "one_active_run_that_holds"} <= indexes
    scripts = Path(schema.__file__).parent / "migrations" / "versions"
    newest = max(path.name for path in scripts.glob("[0-9]*.py"))
    assert newest.startswith(schema.HEAD)


def test_a_ledger_out_of_reach_is_said_without_its_password() -> None:
    with pytest.raises(UnreachableError) as caught:
        open_ledger("postgresql://larder:s3cr3t-p%40ss%2Fword@127.0.0.1:1/larder")
    assert "127.0.0.1" in caught.value.message
    assert "s3cr3t" not in str(caught.value)


def test_a_ledger_file_is_private(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path / 'state' / 'ledger.sqlite3'}")
    begin(ledger)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "state").iterdir()}
    assert set(modes.values()) == {"0o600"}, modes
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    ledger.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cr3t-pw@h:notaport/larder",
        "postgresql://u:s3cr3t-pw@127.0.0.1:1/larder?foo=bar",
        "postgresql://u:s3cr3t-pw@127.0.0.1:1/larder?host=a:b&host=c:d",
        "sqlite:///{}",
        "sqlite:///{}/file/ledger.sqlite3",
    ],
    ids=["port", "parameter", "hosts", "folder", "below a file"],
)
def test_an_address_that_is_none_is_said(tmp_path: Path, url: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LarderError, match=r"unable to (open the ledger|use)") as caught:
        open_ledger(url.format(tmp_path))
    if "/file/" not in url:
        assert isinstance(caught.value, ConfigurationError)
    if url.startswith("sqlite"):
        assert str(tmp_path) in caught.value.message
    assert "s3cr3t" not in str(caught.value)


def test_a_ledger_that_may_not_be_used_is_said() -> None:
    # Outside pytest's own folder, into which nobody else can look.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "ledger.sqlite3"
        path.touch()
        path.chmod(0o444)
        with as_nobody(), pytest.raises(RefusedError, match="permission denied") as caught:
            open_ledger(f"sqlite:///{path}")
    assert str(path) in caught.value.message


def test_a_role_that_may_not_make_tables_is_said(empty_postgres_database: str) -> None:
    engine = sa.create_engine(sa.make_url(empty_postgres_database).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.exec_driver_sql("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
    engine.dispose()
    with pytest.raises(RefusedError, match="no schema has been selected"):
        open_ledger(empty_postgres_database)


def test_a_ledger_of_a_later_version_is_said_and_left(ledger_url: str) -> None:
    opened = open_ledger(ledger_url)
    with opened._engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    opened.close()
    with pytest.raises(ConfigurationError, match="'9999'") as caught:
        open_ledger(ledger_url)
    assert "later" in caught.value.hint


def test_a_file_that_is_no_ledger_is_said_and_left(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary" * 1000)
    with pytest.raises(RefusedError, match="not a database"):
        open_ledger(f"sqlite:///{path}")
    assert path.read_text() == "Dear diary" * 1000
