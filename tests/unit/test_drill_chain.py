"""The links of a drill, one by one in this process: what each finds, what is written down, and what is left of it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import current_app

from larder.databases._sqlite_scratch import SqliteScratch
from larder.errors import BusyError, IntegrityError, LarderError, NotFoundError, RejectedError
from larder.ledger import Ledger, losses, tables
from larder.ledger.backups import Backup
from larder.ledger.drills import Drill
from larder.ledger.runs import Run
from tasks import backup as backups
from tasks import chain, context, drill, drill_closing, objectives, queues, recovery
from tasks.checksum import checksum
from tasks.compress import compress
from tasks.dump import dump
from tasks.notify import notify as backup_notify
from tasks.rotate import rotate
from tasks.upload import upload

for module in ("fetch", "check", "load", "drill_examine", "drop", "drill_notify", "guard"):
    importlib.import_module(f"tasks.{module}")

LINKS = ("fetch", "check", "load", "examine", "drop", "notify")
ROWS = 10


@dataclass
class Stand:
    """A database, and what was sent to the broker."""

    folder: Path
    sent: list[Any]

    @property
    def ledger(self) -> Ledger:
        return context.ledger()

    @property
    def spool(self) -> Path:
        return self.folder / "state" / "spool"

    def configure(self, more: str = "", name: str = "shop") -> None:
        (self.folder / "larder.toml").write_text(
            f'state_dir = "{self.folder / "state"}"\n'
            f'[databases.{name}]\nurl = "sqlite:///{self.folder / "shop.db"}"\n{more}'
            '[stores.nas]\npath = "nas"\n'
        )
        context.settings.cache_clear()

    def back_up(self) -> str:
        run = backups.start("shop", "command")
        for link in (dump, compress, checksum):
            link(run.id)
        upload(run.id, "nas")
        rotate(run.id)
        backup_notify(run.id)
        return run.backup

    def go_through(self, run: Run, upto: str = "notify") -> None:
        for name in LINKS[: LINKS.index(upto) + 1]:
            current_app.tasks[f"drill.{name}"](run.id)

    def fail_at(self, run: Run, step: str, kind: type[LarderError]) -> None:
        """Have the links done up to `step`, which fails, and then the last one."""
        before = LINKS.index(step)
        if before:
            self.go_through(run, LINKS[before - 1])
        with pytest.raises(kind):
            current_app.tasks[f"drill.{step}"](run.id)
        current_app.tasks["drill.notify"](run.id)

    def backup(self, backup: str) -> Backup:
        found = self.ledger.backups.get(backup)
        assert found is not None
        return found

    def drill_of(self, run: Run) -> Drill:
        return self.ledger.drills.get(run.id)

    def artifact(self, backup: str) -> Path:
        return self.folder / "nas" / self.backup(backup).copies["nas"].key

    def left(self) -> list[str]:
        return sorted(path.name for path in self.spool.iterdir() if path.is_dir())


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    for variable in ("DATABASE_URL", "BACKUP_DIR", "REDIS_URL", "BACKUP_S3_BUCKET", "SLACK_WEBHOOK_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LARDER_CONFIG", str(tmp_path / "larder.toml"))
    made = Stand(tmp_path, [])
    monkeypatch.setattr(chain, "send", lambda *what: made.sent.append(what))
    monkeypatch.setattr(queues, "waiting_in", lambda _queue: 0)
    monkeypatch.setattr(losses, "LYING", timedelta(0))
    for cached in (context.settings, context.signer, context._ledger_of):
        cached.cache_clear()
    made.configure()
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT)")
        connection.executemany("INSERT INTO orders (what) VALUES (?)", [(f"order {n}",) for n in range(ROWS)])
        connection.commit()
    yield made
    made.ledger.close()
    for cached in (context.settings, context.signer, context._ledger_of):
        cached.cache_clear()


def test_a_backup_is_proven_and_nothing_of_the_drill_is_left(stand: Stand) -> None:
    backup = stand.back_up()
    run = drill.start("shop", "command")
    stand.go_through(run)
    found = stand.drill_of(run)
    assert (found.backup, found.outcome, found.store) == (backup, "proven", "nas")
    assert (found.tables, found.rows, found.differences) == (1, ROWS, [])
    assert found.seconds is not None
    assert found.recovery_seconds == pytest.approx(
        sum(found.seconds[name] for name in ("fetch", "check", "load", "examine")), abs=0.01
    )
    assert (stand.ledger.runs.get(run.id).state, stand.backup(backup).proof) == ("done", "proven")
    assert stand.left() == []


def test_a_backup_whose_copies_are_read_again_stays_proven(stand: Stand) -> None:
    backup = stand.back_up()
    stand.go_through(drill.start("shop", "command"))
    stand.ledger.backups.checked(backup, "nas", "its size is wrong")
    assert stand.backup(backup).proof == "broken"
    stand.ledger.backups.checked(backup, "nas", None)
    assert stand.backup(backup).proof == "proven"


def test_a_copy_that_is_damaged_is_noted_and_proves_nothing(stand: Stand) -> None:
    backup = stand.back_up()
    path = stand.artifact(backup)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    run = drill.start("shop", "command")
    stand.fail_at(run, "fetch", IntegrityError)
    assert (stand.drill_of(run).outcome, stand.backup(backup).proof) == ("failed", "broken")
    assert "SHA-256" in (stand.backup(backup).copies["nas"].problem or "")
    assert stand.left() == []


def test_a_host_that_does_not_trust_the_signer_says_nothing_of_the_backup(stand: Stand) -> None:
    backup = stand.back_up()
    other = base64.b64encode(b"k" * 32).decode()
    with (stand.folder / "larder.toml").open("a") as file:
        file.write(f'[signers.other]\npublic_key = "{other}"\n')
    context.settings.cache_clear()
    run = drill.start("shop", "command")
    stand.fail_at(run, "fetch", IntegrityError)
    found = stand.backup(backup)
    assert (stand.drill_of(run).outcome, found.proof, found.copies["nas"].problem) == (
        "failed",
        "stored",
        None,
    )


def test_a_backup_that_does_not_decode_to_what_was_dumped_is_broken(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = stand.back_up()
    run = drill.start("shop", "command")
    stand.go_through(run, "fetch")
    # What was compressed was something else, and all that was signed and hashed since fits it.
    (fetched,) = (stand.spool / run.id / "fetch").glob("*.gz")
    other = gzip.compress(b"something else")
    fetched.write_bytes(other)
    row = stand.ledger.backups.get(backup)
    assert row is not None
    with stand.ledger._engine.begin() as connection:
        connection.execute(
            tables.backups.update()
            .where(tables.backups.c.id == backup)
            .values(sha256=hashlib.sha256(other).hexdigest())
        )
    current_app.tasks["drill.check"](run.id)
    with pytest.raises(IntegrityError):
        current_app.tasks["drill.load"](run.id)
    current_app.tasks["drill.notify"](run.id)
    assert (stand.drill_of(run).outcome, stand.backup(backup).proof) == ("broken", "broken")


def test_a_disk_that_loses_what_was_fetched_says_nothing_of_the_backup(stand: Stand) -> None:
    backup = stand.back_up()
    run = drill.start("shop", "command")
    stand.go_through(run, "check")
    (fetched,) = (stand.spool / run.id / "fetch").glob("*.gz")
    fetched.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(IntegrityError):
        current_app.tasks["drill.load"](run.id)
    current_app.tasks["drill.notify"](run.id)
    assert (stand.drill_of(run).outcome, stand.backup(backup).proof) == ("failed", "stored")


def test_a_check_that_is_not_true_fails_the_drill_and_not_the_backup(stand: Stand) -> None:
    stand.configure('checks = ["SELECT count(*) > 1000 FROM orders"]\n')
    backup = stand.back_up()
    run = drill.start(backup, "command")
    stand.fail_at(run, "examine", IntegrityError)
    found = stand.drill_of(run)
    assert (found.outcome, stand.backup(backup).proof) == ("failed", "stored")
    assert "count(*) > 1000" in str(found.differences)
    assert stand.ledger.runs.get(run.id).exit_code == IntegrityError.exit_code
    assert stand.left() == []


def test_the_guard_closes_a_drill_that_was_abandoned_and_removes_what_it_has_left(stand: Stand) -> None:
    stand.back_up()
    run = drill.start("shop", "command")
    stand.go_through(run, "load")
    stand.ledger.runs.abandon(run.id, LarderError("its worker was lost"))
    stand.sent.clear()
    recovery.tell_untold()
    assert [what[0].id for what in stand.sent] == [run.id]
    drill_closing.clear_up()
    assert stand.left() == []
    current_app.tasks["drill.notify"](run.id)
    assert (stand.drill_of(run).outcome, stand.drill_of(run).error) == ("failed", "its worker was lost")
    assert stand.ledger.drills.unclosed() == []


def test_what_a_drill_has_left_goes_although_its_database_is_configured_no_longer(stand: Stand) -> None:
    stand.back_up()
    run = drill.start("shop", "command")
    stand.go_through(run, "load")
    stand.ledger.runs.abandon(run.id, LarderError("its worker was lost"))
    stand.configure(name="market")
    drill_closing.clear_up()
    assert stand.left() == []


def test_a_fault_in_one_duty_of_the_guard_keeps_it_from_no_other(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.back_up()
    run = drill.start("shop", "command")
    stand.go_through(run, "load")
    stand.ledger.runs.abandon(run.id, LarderError("its worker was lost"))

    def fail() -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(objectives, "watch", fail)
    current_app.tasks["guard"]()
    assert stand.left() == []


def test_a_drill_is_due_after_so_many_backups(stand: Stand) -> None:
    stand.configure("drill_every = 2\n")
    stand.back_up()
    drill_closing.begin_due()
    assert stand.ledger.drills.count("shop", drill.BY_CLOCK) == 0
    stand.back_up()
    drill_closing.begin_due()
    drill_closing.begin_due()
    assert stand.ledger.drills.count("shop", drill.BY_CLOCK) == 1
    # It fails, and is made up for a day later.
    (found,) = stand.ledger.drills.latest("shop")
    stand.ledger.runs.abandon(found.run, LarderError("no room"))
    stand.ledger.drills.close(stand.ledger.runs.get(found.run))
    drill_closing.begin_due()
    assert stand.ledger.drills.count("shop", drill.BY_CLOCK) == 1
    with stand.ledger._engine.begin() as connection:
        connection.execute(tables.drills.update().values(created=datetime.now(UTC) - timedelta(days=2)))
    drill_closing.begin_due()
    assert stand.ledger.drills.count("shop", drill.BY_CLOCK) == 2


def test_a_slot_in_which_nothing_could_begin_is_made_up_for(stand: Stand) -> None:
    stand.configure('drill = "0 * * * *"\n')
    stand.back_up()
    other = drill.start("shop", "command")
    with pytest.raises(BusyError):
        drill.start_scheduled("shop")
    drill.start_owed()
    assert stand.ledger.drills.count("shop", drill.BY_CLOCK) == 0
    stand.go_through(other)
    drill.start_owed()
    drill.start_owed()
    assert stand.ledger.drills.count("shop", drill.BY_CLOCK) == 1
    assert stand.ledger.slots.owed("drill ") == []


def test_what_is_owed_for_too_long_is_left_to_the_next_slot(stand: Stand) -> None:
    stand.configure('drill = "0 4 * * 0"\n')
    stand.back_up()
    stand.ledger.slots.owe("drill shop", datetime.now(UTC) - drill.OWED)
    drill.start_owed()
    assert (stand.ledger.drills.latest("shop"), stand.ledger.slots.owed("drill ")) == ([], [])


def test_a_backup_that_the_server_rejects_is_broken_though_the_guard_comes_before_its_notice(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = stand.back_up()

    def reject(*_: object) -> None:
        raise RejectedError("unable to restore database: check constraint violated")

    monkeypatch.setattr(SqliteScratch, "load", reject)
    run = drill.start("shop", "command")
    stand.go_through(run, "check")
    with pytest.raises(IntegrityError, match="check constraint violated"):
        current_app.tasks["drill.load"](run.id)
    drill_closing.clear_up()
    current_app.tasks["drill.notify"](run.id)
    found = stand.drill_of(run)
    assert (found.outcome, stand.backup(backup).proof) == ("broken", "broken")
    assert found.differences == ["unable to restore database: check constraint violated"]


def test_a_backup_whose_last_copy_is_damaged_meanwhile_is_not_proven(stand: Stand) -> None:
    backup = stand.back_up()
    run = drill.start("shop", "command")
    stand.go_through(run, "load")
    stand.ledger.backups.checked(backup, "nas", "it has other bytes")
    for name in ("examine", "drop", "notify"):
        current_app.tasks[f"drill.{name}"](run.id)
    assert (stand.drill_of(run).outcome, stand.backup(backup).proof) == ("proven", "broken")
    stand.ledger.backups.checked(backup, "nas", None)
    assert stand.backup(backup).proof == "proven"


def test_a_slot_of_the_schedule_is_drilled_once(stand: Stand) -> None:
    stand.configure('drill = "0 4 * * 0"\n')
    stand.back_up()
    first = drill.start_scheduled("shop")
    assert first is not None
    stand.go_through(first)
    assert drill.start_scheduled("shop") is None


def test_now_and_then_an_older_backup_is_taken(stand: Stand) -> None:
    older, newest = stand.back_up(), stand.back_up()
    taken = []
    for _ in range(drill.OLDER_EVERY):
        run = drill.start_one_of("shop", "schedule")
        stand.go_through(run)
        taken.append(stand.drill_of(run).backup)
    assert taken == [newest] * (drill.OLDER_EVERY - 1) + [older]


def test_two_drills_of_a_database_do_not_run_at_once_and_keep_nobody_from_backing_up(stand: Stand) -> None:
    stand.back_up()
    first = drill.start("shop", "command")
    with pytest.raises(BusyError, match="a drill"):
        drill.start("shop", "command")
    stand.back_up()
    # Nobody renews the lease of one that was lost, and the next closes it.
    with stand.ledger._engine.begin() as connection:
        connection.execute(
            tables.runs.update()
            .where(tables.runs.c.id == first.id)
            .values(lease_until=datetime.now(UTC) - timedelta(days=1))
        )
    second = drill.start("shop", "command")
    assert stand.ledger.runs.get(first.id).state == "failed"
    stand.go_through(second)


@pytest.mark.parametrize("wanted", ["nobody", "shop", "shop/latest", "shop/20200101_000000"])
def test_what_is_not_there_cannot_be_drilled(stand: Stand, wanted: str) -> None:
    with pytest.raises(NotFoundError):
        drill.start(wanted, "command")
    assert stand.sent == []
