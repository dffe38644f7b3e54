"""The links of a restore, one by one in this process: what each refuses, and what a lost one leaves to be found."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery.exceptions import Ignore

from larder import restore_plan, shelf
from larder.approval import approve
from larder.databases._sqlite_restore import SqliteRestorer
from larder.errors import LarderError, LeaseLostError, NotAuthorisedError, UnreachableError
from larder.ledger import Ledger, losses, tables
from larder.ledger.leases import Lease, Leases
from larder.ledger.requests import Request
from larder.ledger.runs import Run
from larder.restore_plan import Wish
from larder.restore_request import RestoreRequest
from tasks import backup as backups
from tasks import chain, context, guard, queues, restore, telling, undo
from tasks.authorize import authorize
from tasks.check import check
from tasks.checksum import checksum
from tasks.compress import compress
from tasks.dump import dump
from tasks.examine import examine
from tasks.fetch import fetch
from tasks.load import load
from tasks.migrate import migrate
from tasks.notify import notify as backup_notify
from tasks.restore_notify import notify
from tasks.rotate import rotate
from tasks.safety import safety
from tasks.swap import swap
from tasks.upload import upload
from tests.approvals import ALICE
from tests.channels import Web, serving
from tests.losses import heard

OLD, NEW = 99, 10


@dataclass
class Stand:
    """A database of `OLD` rows, with a backup that has `NEW` of them."""

    folder: Path
    #: What was sent to the broker.
    sent: list[Any]

    @property
    def ledger(self) -> Ledger:
        return context.ledger()

    def fill(self, count: int) -> None:
        with sqlite3.connect(self.folder / "shop.db") as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER)")
            connection.execute("DELETE FROM orders")
            connection.executemany("INSERT INTO orders VALUES (?)", [(n,) for n in range(count)])
        connection.close()

    @property
    def rows(self) -> int:
        connection = sqlite3.connect(self.folder / "shop.db")
        try:
            return int(connection.execute("SELECT count(*) FROM orders").fetchone()[0])
        finally:
            connection.close()

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("shop.db.*"))

    def configure(self, more: str = "") -> None:
        (self.folder / "larder.toml").write_text(
            f'state_dir = "{self.folder / "state"}"\n'
            f'[databases.shop]\nurl = "sqlite:///{self.folder / "shop.db"}"\n{more}'
            f'[stores.nas]\npath = "nas"\n[approvers.alice]\npublic_key = "{ALICE.public_key}"\n'
        )
        context.settings.cache_clear()

    def back_up(self) -> None:
        run = backups.start("shop", "command")
        for link in (dump, compress, checksum):
            link(run.id)
        upload(run.id, "nas")
        rotate(run.id)
        backup_notify(run.id)

    def ask(self, backup: str = "") -> RestoreRequest:
        found = shelf.read(context.settings(), self.ledger, context.trust()).of("shop")
        one = found[-1] if backup == "shop/latest" else found[0]
        planned = restore_plan.outline(context.settings(), one, Wish("shop", "swap"))
        document = restore_plan.document_of(
            context.settings(), planned, "a test wants it", "bob", "bob@here", context.host()
        )
        self.ledger.requests.create(document, "shop")
        return document

    def begin(self) -> tuple[RestoreRequest, Run]:
        document = self.ask()
        return document, restore.start(document.request, approve(document, ALICE).text, "test")

    def go_on(self, run: Run, upto: str = "notify") -> None:
        """Have the links of a restore done, as far as `upto`."""
        (part,) = self.ledger.runs.parts_of(run.id)
        for link in (authorize, fetch, check):
            link(run.id)
        for link in (dump, compress, checksum):
            link(part.id)
        upload(part.id, "nas")
        for name, link in {
            "safety": safety,
            "load": load,
            "examine": examine,
            "migrate": migrate,
            "swap": swap,
            "notify": notify,
        }.items():
            link(run.id)
            if name == upto:
                return

    def request(self, document: RestoreRequest) -> Request:
        return self.ledger.requests.get(document.request)

    def events(self, document: RestoreRequest) -> list[str]:
        return [entry.event for entry in self.ledger.audit.read(document.request)]

    def change(self, table: sa.Table, which: sa.ColumnElement[bool], **values: object) -> None:
        with self.ledger._engine.begin() as connection:
            connection.execute(table.update().where(which).values(**values))


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    for variable in ("DATABASE_URL", "BACKUP_DIR", "REDIS_URL", "BACKUP_S3_BUCKET", "SLACK_WEBHOOK_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LARDER_CONFIG", str(tmp_path / "larder.toml"))
    made = Stand(tmp_path, [])
    monkeypatch.setattr(chain, "send", lambda *what: made.sent.append(what))
    monkeypatch.setattr(queues, "see_that_broker_answers", lambda: None)
    monkeypatch.setattr(queues, "waiting_in", lambda _queue: 0)
    monkeypatch.setattr(losses, "LYING", timedelta(0))
    context.settings.cache_clear()
    context.signer.cache_clear()
    context._ledger_of.cache_clear()
    made.configure()
    made.fill(NEW)
    made.back_up()
    made.fill(OLD)
    yield made
    made.ledger.close()
    context.settings.cache_clear()
    context.signer.cache_clear()
    context._ledger_of.cache_clear()


def test_a_restore_goes_through_and_can_be_undone(stand: Stand) -> None:
    document, run = stand.begin()
    stand.go_on(run)
    assert (stand.rows, stand.request(document).state) == (NEW, "done")
    before = stand.request(document)
    back = undo.start(before, replace(document, request="0" * 12), "bob")
    for link in (authorize, swap, notify):
        link(back.id)
    assert (stand.rows, stand.request(document).state) == (OLD, "undone")


def test_whoever_hears_of_restores_hears_that_one_is_wanted_done_and_undone(stand: Stand) -> None:
    channel = Web()
    with serving(channel):
        address = f"http://127.0.0.1:{channel.port}/hook"
        stand.configure(f'[notifiers.team]\nurl = "{address}"\non = ["restore"]\n')
        document, run = stand.begin()
        assert telling.asked(context.settings(), document, "shop") == []
        stand.go_on(run)
        back = undo.start(stand.request(document), replace(document, request="0" * 12), "bob")
        for link in (authorize, swap, notify):
            link(back.id)
    asked, done, undone = (json.loads(body)["text"] for body in channel.bodies)
    assert asked == (
        f"Restore into shop asked for by bob: {document.wanted.backup}, request {document.request}"
    )
    assert f"larder restore approve {document.request} --key" in channel.received[0]
    assert "a test wants it" in channel.received[0]
    assert done.startswith("Restore into shop done: ")
    assert undone.startswith("Undoing a restore of shop done: ")


class _KilledError(BaseException):
    """What no handler catches."""


def killed_after_exchange(stand: Stand, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the worker die between the exchange and its commit in the ledger."""
    stand.go_on(run, "migrate")
    finish = Leases.finish

    def die(self: Leases, lease: Lease, **options: Any) -> None:
        if lease.step == "swap":
            raise _KilledError
        finish(self, lease, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Leases, "finish", die)
        with pytest.raises(_KilledError):
            swap(run.id)
    assert stand.rows == NEW


def test_an_exchange_whose_worker_was_lost_is_found_and_can_be_undone(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, run = stand.begin()
    killed_after_exchange(stand, run, monkeypatch)
    # Nobody went on with it for a long time, and the next backup closes it.
    long_ago = datetime.now(UTC) - timedelta(days=1)
    stand.change(tables.runs, tables.runs.c.id == run.id, lease_until=long_ago)
    backups.start("shop", "command")
    assert stand.ledger.runs.get(run.id).state == "failed"
    stand.sent.clear()
    guard.guard()
    assert [what[1] for what in stand.sent if what[0].id == run.id] == ["notify"]
    notify(run.id)
    found = stand.request(document)
    assert (found.state, found.undoable, found.kept is not None) == ("failed", True, True)
    assert stand.events(document)[-2:] == ["swapped", "failed"]
    assert len(stand.kept()) == 1


def test_an_exchange_that_could_not_be_looked_for_is_looked_for_again(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, run = stand.begin()
    killed_after_exchange(stand, run, monkeypatch)
    stand.ledger.runs.abandon(run.id, LarderError("its worker was lost"))

    def away(*_: object) -> None:
        raise UnreachableError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(SqliteRestorer, "swapped", away)
        notify(run.id)
        guard.guard()
    assert (stand.request(document).state, stand.request(document).kept) == ("failed", None)
    guard.guard()
    found = stand.request(document)
    assert (found.undoable, found.swapping, found.leftover) == (True, False, False)
    assert not (stand.folder / "state" / "spool" / run.id).exists()


def test_a_restore_that_is_being_closed_is_left_to_its_own_last_link(stand: Stand) -> None:
    document, run = stand.begin()
    stand.go_on(run, "migrate")
    stand.ledger.runs.abandon(run.id, LarderError("stopped"))
    assert isinstance(stand.ledger.leases.take(run.id, "notify", context.host()), Lease)
    guard.guard()
    assert stand.request(document).state == "running"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", "the rows of every table are as in the backup, every check is true"),
        ('row_counts = "off"\n', "every table is there, every check is true; the backup has no row counts"),
    ],
    ids=["counted", "not counted"],
)
def test_what_was_compared_is_what_is_said(stand: Stand, more: str, said: str) -> None:
    stand.configure(more)
    stand.fill(NEW)
    stand.back_up()
    document = stand.ask("shop/latest")
    run = restore.start(document.request, approve(document, ALICE).text, "test")
    stand.go_on(run, "examine")
    assert f"Restored database examined: {said}" in [line.text for line in stand.ledger.journal.read(run.id)]


def test_a_run_that_goes_on_after_its_exchange_says_done(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, run = stand.begin()
    killed_after_exchange(stand, run, monkeypatch)
    past = datetime.now(UTC) - timedelta(minutes=2)
    stand.change(tables.runs, tables.runs.c.id == run.id, lease_until=past)
    heard(stand.ledger, context.host())
    assert [lost.id for lost in stand.ledger.losses.expired()] == [run.id]
    swap(run.id)
    notify(run.id)
    assert (stand.request(document).state, stand.request(document).undoable) == ("done", True)


def test_an_exchange_is_not_begun_without_the_lease(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    document, run = stand.begin()
    stand.go_on(run, "migrate")

    def lost(_self: Leases, _lease: Lease) -> None:
        raise LeaseLostError("another attempt has taken it over")

    monkeypatch.setattr(Leases, "renew", lost)
    with pytest.raises(Ignore):
        swap(run.id)
    assert (stand.rows, stand.request(document).swapping) == (OLD, False)


def test_a_link_of_another_chain_is_refused(stand: Stand) -> None:
    document, run = stand.begin()
    stand.go_on(run, "swap")
    with pytest.raises(NotAuthorisedError):
        backup_notify(run.id)
    (part,) = stand.ledger.runs.parts_of(run.id)
    with pytest.raises(NotAuthorisedError):
        load(part.id)
    assert stand.request(document).state == "running"
    notify(run.id)
    assert stand.request(document).state == "done"


def test_a_restore_that_is_over_and_was_not_closed_is_closed(stand: Stand) -> None:
    document, run = stand.begin()
    stand.go_on(run)
    stand.change(tables.requests, tables.requests.c.id == document.request, state="running")
    guard.guard()
    assert stand.request(document).state == "done"


def test_another_hosts_file_is_not_replaced(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    document, run = stand.begin()
    assert (document.into.host, run.host) == (context.host(), context.host())
    monkeypatch.setattr(context, "host", lambda: "web-b-012345")
    with pytest.raises(NotAuthorisedError, match="was approved"):
        authorize(run.id)
    assert stand.rows == OLD


def test_an_approval_that_nobody_began_in_time_is_not_good_any_more(stand: Stand) -> None:
    document, run = stand.begin()
    days_ago = datetime.now(UTC) - timedelta(days=3)
    stand.change(tables.approvals, tables.approvals.c.run == run.id, presented=days_ago)
    with pytest.raises(NotAuthorisedError, match="handed in at"):
        authorize(run.id)
    assert "refused" in stand.events(document)


def test_a_document_that_was_changed_in_the_ledger_is_not_the_approved_one(stand: Stand) -> None:
    document, run = stand.begin()
    changed = replace(document, safety_backup=False)
    stand.change(
        tables.requests, tables.requests.c.id == document.request, document=changed.to_bytes().decode()
    )
    with pytest.raises(NotAuthorisedError, match="not the one that was approved"):
        authorize(run.id)


def test_how_long_it_is_kept_was_approved_too(stand: Stand) -> None:
    document, run = stand.begin()
    stand.configure("keep_replaced = 0\n")
    stand.go_on(run)
    guard.guard()
    assert stand.request(document).undoable
    assert len(stand.kept()) == 1


def test_what_nobody_can_undo_any_more_is_let_go(stand: Stand) -> None:
    document, run = stand.begin()
    stand.go_on(run)
    (pin,) = (stand.folder / "nas").rglob("*.pin")
    past = datetime.now(UTC) - timedelta(seconds=1)
    stand.change(tables.requests, tables.requests.c.id == document.request, kept_until=past)
    guard.guard()
    assert (stand.kept(), pin.exists(), stand.request(document).kept) == ([], False, None)
    assert stand.events(document)[-1] == "let go"
    with pytest.raises(NotAuthorisedError, match="no longer"):
        undo.start(stand.request(document), replace(document, request="1" * 12), "bob")
    assert not stand.request(document).undoable


def test_a_failed_restore_leaves_nothing_beside(stand: Stand) -> None:
    stand.configure('checks = ["SELECT count(*) > 50 FROM orders"]\n')
    document, run = stand.begin()
    with pytest.raises(LarderError):
        stand.go_on(run)
    assert stand.sent[-1][1] == "notify"
    notify(run.id)
    assert (stand.rows, stand.request(document).state, stand.request(document).leftover) == (
        OLD,
        "failed",
        False,
    )
    assert [path.name for path in stand.folder.glob(".shop.db*")] == []
