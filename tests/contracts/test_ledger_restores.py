"""What the ledger promises of restores: requests, approvals that are good once, runs within runs, the audit trail."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from larder.approval import Approval
from larder.errors import BusyError, IntegrityError, LarderError, NotAuthorisedError, NotFoundError
from larder.ledger import Ledger
from larder.ledger.leases import Lease, Refusal
from larder.ledger.runs import RESTORE_STEPS, SAFETY_STEPS, Run
from larder.manifest_fields import TIME
from larder.restore_request import RestoreRequest
from larder.restoring import Kept
from tests.approvals import REQUEST
from tests.losses import expire, heard, lost

NOW = datetime.now(UTC)
KEPT = Kept("shop__before_20251016_030000", "16385", 1000)


def a_request(ledger: Ledger, **changes: object) -> RestoreRequest:
    document = replace(
        REQUEST,
        request=secrets.token_hex(6),
        wanted=replace(REQUEST.wanted, backup="shop/20251016_020000"),
        requested=NOW.strftime(TIME),
        expires=(NOW + timedelta(hours=1)).strftime(TIME),
    )
    document = replace(document, **changes)  # type: ignore[arg-type]
    ledger.requests.create(document, "shop")
    return document


def an_approval() -> Approval:
    return Approval(
        "alice", "k" * 44, secrets.token_hex(16), secrets.token_hex(32), NOW, NOW + timedelta(minutes=15)
    )


def present(
    ledger: Ledger, document: RestoreRequest, approval: Approval | None = None, **more: object
) -> Run:
    return ledger.requests.present(
        document.request,
        approval or an_approval(),
        more.get("steps", RESTORE_STEPS),  # type: ignore[arg-type]
        "shop",
        more.get("places", ["local"]),  # type: ignore[arg-type]
    )


def finish(ledger: Ledger, run: Run, *names: str) -> None:
    for name in names:
        lease = ledger.leases.take(run.id, name, "host-1", "local" if name == "upload" else "")
        assert isinstance(lease, Lease), (name, lease)
        ledger.leases.finish(lease)


def events(ledger: Ledger, request: str | None = None) -> list[str]:
    return [entry.event for entry in ledger.audit.read(request)]


def test_a_request_is_kept_word_by_word(ledger: Ledger) -> None:
    document = a_request(ledger, reason="Bestellungen „von heute“ fehlen")
    found = ledger.requests.get(document.request)
    assert (found.document, found.state, found.document.digest) == (document, "pending", document.digest)
    assert RestoreRequest.from_bytes(document.to_bytes()) == document
    with pytest.raises(NotFoundError):
        ledger.requests.get("0" * 12)


def test_an_approval_begins_one_run_once(ledger: Ledger) -> None:
    document, approval = a_request(ledger), an_approval()
    run = present(ledger, document, approval)
    assert (run.kind, run.holds, ledger.requests.of_run(run.id).state) == ("restore", "shop", "running")
    granted = ledger.requests.granted(run.id)
    assert granted is not None
    assert (granted.approver, granted.spent) == ("alice", None)
    with pytest.raises(NotAuthorisedError, match="under way"):
        present(ledger, document, an_approval())
    other = a_request(ledger)
    assert ledger.requests.approvers(ledger.requests.latest()) == {document.request: "alice"}
    ledger.runs.abandon(run.id, LarderError("stopped"))
    with pytest.raises(NotAuthorisedError, match="used before"):
        present(ledger, other, approval)
    assert ledger.requests.get(other.request).state == "pending"
    assert (ledger.requests.spend(run.id), ledger.requests.spend(run.id)) == (True, False)


def test_of_many_who_hand_in_one_token_one_begins(ledger: Ledger) -> None:
    document, approval = a_request(ledger), an_approval()

    def try_it(_: int) -> str:
        try:
            return present(ledger, document, approval).id
        except NotAuthorisedError:
            return ""

    with ThreadPoolExecutor(4) as pool:
        begun = [run for run in pool.map(try_it, range(8)) if run]
    assert len(begun) == 1
    assert len(ledger.runs.latest(kind="restore")) == 1
    assert events(ledger, document.request) == ["requested", "approved"]


def test_denied_and_expired_requests_begin_nothing(ledger: Ledger) -> None:
    document = a_request(ledger)
    assert ledger.requests.deny(document.request, "carol", "not today").state == "denied"
    with pytest.raises(NotAuthorisedError, match="it was denied"):
        present(ledger, document)
    with pytest.raises(NotAuthorisedError):
        ledger.requests.deny(document.request, "carol", "again")
    late = a_request(ledger, expires=(NOW - timedelta(seconds=5)).strftime(TIME))
    assert ledger.requests.get(late.request).expired
    with pytest.raises(NotAuthorisedError, match="expired"):
        present(ledger, late)
    assert ledger.runs.latest(kind=None) == []


def test_a_restore_holds_its_database_and_its_safety_backup_does_not_wait(ledger: Ledger) -> None:
    run = present(ledger, a_request(ledger))
    (part,) = ledger.runs.parts_of(run.id)
    assert (part.kind, part.trigger, part.parent, part.holds) == ("backup", "safety", run.id, None)
    assert [step.name for step in part.steps] == list(SAFETY_STEPS)
    with pytest.raises(BusyError, match="a restore"):
        ledger.runs.create("shop", "command", stores=["local"])
    with pytest.raises(BusyError):
        present(ledger, a_request(ledger))


def test_a_safety_backup_comes_in_its_turn(ledger: Ledger) -> None:
    run = present(ledger, a_request(ledger))
    (part,) = ledger.runs.parts_of(run.id)
    assert ledger.leases.take(part.id, "dump", "h") is Refusal.EARLY
    assert ledger.leases.take(run.id, "load", "h") is Refusal.EARLY
    finish(ledger, run, "authorize", "fetch", "check")
    assert ledger.leases.take(run.id, "safety", "h") is Refusal.EARLY
    finish(ledger, part, *SAFETY_STEPS)
    assert ledger.runs.get(part.id).state == "stored"
    finish(ledger, run, "safety", "load", "examine", "migrate", "swap", "notify")
    assert ledger.runs.get(run.id).state == "done"


def test_a_restore_is_not_lost_while_its_safety_backup_works(ledger: Ledger) -> None:
    heard(ledger, "host-1")
    run = present(ledger, a_request(ledger))
    finish(ledger, run, "authorize", "fetch", "check")
    (part,) = ledger.runs.parts_of(run.id)
    lease = ledger.leases.take(part.id, "dump", "host-1")
    assert isinstance(lease, Lease)
    expire(ledger, run)
    assert lost(ledger) == []
    ledger.runs.close_lost("shop")
    assert ledger.runs.get(run.id).state == "running"
    ledger.leases.renew(lease)
    assert ledger.runs.get(run.id).lease_until > datetime.now(UTC)


def test_a_restore_whose_worker_was_lost_before_its_safety_backup_is_found(ledger: Ledger) -> None:
    heard(ledger, "host-1")
    run = present(ledger, a_request(ledger))
    (part,) = ledger.runs.parts_of(run.id)
    assert isinstance(ledger.leases.take(run.id, "authorize", "host-1"), Lease)
    expire(ledger, run)
    assert lost(ledger) == [run.id]
    assert ledger.losses.take_up(ledger.runs.get(run.id))
    finish(ledger, run, "authorize", "fetch", "check")
    expire(ledger, part)
    # Its own message was lost: it lies where the restore does.
    assert lost(ledger) == [part.id]


def test_what_is_a_part_of_a_run_ends_with_it(ledger: Ledger) -> None:
    run = present(ledger, a_request(ledger))
    (part,) = ledger.runs.parts_of(run.id)
    ledger.runs.abandon(run.id, LarderError("stopped"), "safety")
    assert ledger.runs.get(run.id).failed_step == "safety"
    assert ledger.runs.get(part.id).state == "failed"
    assert ledger.leases.take(part.id, "dump", "h") is Refusal.OVER


def test_what_a_swap_keeps_is_written_with_its_commit(ledger: Ledger) -> None:
    document = a_request(ledger)
    run = present(ledger, document, places=None, steps=("authorize", "swap", "notify"))
    request = ledger.requests.get(document.request)
    finish(ledger, run, "authorize")
    lease = ledger.leases.take(run.id, "swap", "host-1")
    assert isinstance(lease, Lease)
    until = datetime.now(UTC) + timedelta(days=7)
    ledger.leases.finish(
        lease, also=lambda connection: ledger.requests.swapped(connection, request, KEPT, until)
    )
    ledger.requests.finish(request)
    ledger.requests.finish(request)
    done = ledger.requests.get(document.request)
    assert (done.state, done.kept, done.undoable) == ("done", KEPT, True)
    assert ledger.requests.no_longer_kept(datetime.now(UTC)) == []
    assert [one.id for one in ledger.requests.no_longer_kept(until)] == [document.request]
    ledger.requests.let_go(done, dropped=True)
    ledger.requests.let_go(done, dropped=True)
    assert not ledger.requests.get(document.request).undoable
    assert events(ledger, document.request) == ["requested", "approved", "swapped", "done", "let go"]


def test_an_undo_ends_what_it_takes_back(ledger: Ledger) -> None:
    document = a_request(ledger)
    run = present(ledger, document, places=None)
    until = datetime.now(UTC) + timedelta(days=7)
    ledger.requests.record_swap(ledger.requests.get(document.request), KEPT, until)
    ledger.runs.abandon(run.id, LarderError("over"))
    ledger.requests.finish(ledger.requests.get(document.request))
    back = replace(document, request=secrets.token_hex(6))
    undo = ledger.requests.begin_undo(
        back, document.request, ("authorize", "swap", "notify"), "shop", None, "bob"
    )
    request = ledger.requests.of_run(undo.id)
    assert (request.undoes, ledger.requests.granted(undo.id)) == (document.request, None)
    ledger.requests.finish(request)
    assert ledger.requests.get(document.request).state == "undone"


def test_what_is_being_undone_is_not_let_go(ledger: Ledger) -> None:
    document = a_request(ledger)
    run = present(ledger, document, places=None)
    request = ledger.requests.get(document.request)
    ledger.requests.record_swap(request, KEPT, datetime.now(UTC) + timedelta(seconds=1))
    ledger.runs.abandon(run.id, LarderError("over"))
    ledger.requests.finish(request)
    back = replace(document, request=secrets.token_hex(6))
    undo = ledger.requests.begin_undo(
        back, document.request, ("authorize", "swap", "notify"), "shop", None, "bob"
    )
    later = datetime.now(UTC) + timedelta(hours=1)
    assert ledger.requests.get(document.request).kept_until > later  # type: ignore[operator]
    assert ledger.requests.no_longer_kept(later + timedelta(days=3)) == []
    with pytest.raises(BusyError):
        ledger.requests.begin_undo(
            replace(document, request=secrets.token_hex(6)),
            document.request,
            ("authorize",),
            "shop",
            None,
            "bob",
        )
    ledger.requests.finish(ledger.requests.of_run(undo.id))
    assert ledger.requests.get(document.request).state == "undone"


def test_a_restore_that_was_lost_at_its_swap_is_left_to_its_next_attempt(ledger: Ledger) -> None:
    heard(ledger, "host-1")
    run = present(ledger, a_request(ledger), places=None, steps=("authorize", "swap", "notify"))
    finish(ledger, run, "authorize")
    assert isinstance(ledger.leases.take(run.id, "swap", "host-1"), Lease)
    expire(ledger, run)
    with pytest.raises(BusyError):
        ledger.runs.create("shop", "command", stores=["local"])
    assert lost(ledger) == [run.id]
    expire(ledger, run, timedelta(hours=1))
    assert ledger.runs.create("shop", "command", stores=["local"])[1]
    assert ledger.runs.get(run.id).state == "failed"


def test_the_trail_shows_every_change(ledger: Ledger) -> None:
    a_request(ledger)
    ledger.audit.write("refused", None, "worker", why="password=s3cr3t-t0ken and more")
    assert "s3cr3t" not in str(ledger.audit.read())
    count, last = ledger.audit.verify()
    ledger.audit.write("refused", None, "worker", why="…")
    assert (count, ledger.audit.verify(last)[0]) == (2, 3)
    with pytest.raises(IntegrityError, match="no row has the hash"):
        ledger.audit.verify("f" * 64)


@pytest.mark.parametrize(
    "what", ["UPDATE audit SET actor = 'x' WHERE number = 1", "DELETE FROM audit WHERE number = 1"]
)
def test_the_trail_can_only_be_added_to(ledger: Ledger, what: str) -> None:
    ledger.audit.write("refused", None, "worker", why="…")
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), ledger._engine.begin() as connection:
        connection.execute(sa.text(what))
    assert ledger.audit.verify()[0] == 1


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("UPDATE audit SET actor = 'x' WHERE number = 2", "row 2 was altered"),
        ("UPDATE audit SET facts = 'no json' WHERE number = 2", "row 2 was altered"),
        ("DELETE FROM audit WHERE number = 2", "row 3 stands where row 2 should"),
    ],
)
def test_whoever_takes_the_triggers_off_is_seen(ledger: Ledger, what: str, problem: str) -> None:
    for number in range(3):
        ledger.audit.write("refused", None, "worker", number=number)
    with ledger._engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("ALTER TABLE audit DISABLE TRIGGER ALL"))
        else:
            connection.execute(sa.text("DROP TRIGGER audit_refuses_update"))
            connection.execute(sa.text("DROP TRIGGER audit_refuses_delete"))
        connection.execute(sa.text(what))
    with pytest.raises(IntegrityError, match=problem):
        ledger.audit.verify()
    assert ledger.audit.read()
