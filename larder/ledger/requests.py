"""Restores that somebody asked for, from the request to the day when what they replaced is let go.

| state | |
|---|---|
| `pending` | can be approved, until it expires |
| `running` | an approval was handed in; its run is under way |
| `done` | the restored database is live; while what it replaced is kept, it can be undone |
| `undone` | what it replaced is live again |
| `failed` | nothing was replaced; or, where it can be undone, what came after the swap failed |
| `denied` | somebody said no |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from larder.errors import BusyError, NotAuthorisedError, NotFoundError
from larder.ledger import tables
from larder.ledger.audit import Audit
from larder.ledger.runs import Run, Runs
from larder.restore_request import RestoreRequest
from larder.restoring import Kept

if TYPE_CHECKING:
    from larder.approval import Approval

State = Literal["pending", "running", "done", "undone", "failed", "denied"]

_LONG_AGO = datetime.min.replace(tzinfo=UTC)

_AGAIN = "ask for it again: larder restore request"

#: What the audit trail calls whoever acts for no person: a worker.
WORKER = "worker"


@dataclass(frozen=True)
class Request:
    """What the ledger knows of a request. Times are UTC."""

    id: str
    backup: str
    database: str
    state: State
    requested: datetime
    expires: datetime
    #: The request that this one takes back.
    undoes: str | None
    run: str | None
    #: The id of the safety backup, once it is stored.
    safety: str | None
    leftover: bool
    swapping: bool
    kept: Kept | None
    kept_until: datetime | None
    finished: datetime | None
    note: str | None
    document: RestoreRequest

    @property
    def expired(self) -> bool:
        """Whether nobody can approve it any more."""
        return self.state == "pending" and self.document.expired()

    @property
    def undoable(self) -> bool:
        """Whether `undo` can bring back what it replaced."""
        until = self.kept_until
        return self.state in ("done", "failed") and until is not None and until > datetime.now(UTC)


@dataclass(frozen=True)
class Granted:
    """An approval as it was handed in, for one run."""

    approver: str
    public_key: str
    #: The SHA-256 of the document that was approved.
    document: str
    presented: datetime
    spent: datetime | None


class Requests:
    """All requests of a ledger."""

    def __init__(self, engine: sa.Engine, runs: Runs, audit: Audit) -> None:
        self._engine = engine
        self._runs = runs
        self._audit = audit

    def create(self, document: RestoreRequest, database: str) -> Request:
        """Write down what somebody asks for; `database` is the configured one that it goes into, or is of."""
        with self._engine.begin() as connection:
            self._insert(connection, document, database)
            self._audit.add(
                connection,
                "requested",
                document.request,
                document.requester,
                account=document.account,
                backup=document.wanted.backup,
                target=document.into.address,
                mode=document.mode,
                reason=document.reason,
                document=document.digest,
            )
        return self.get(document.request)

    def get(self, request_id: str) -> Request:
        """The request `request_id`; raises `NotFoundError`."""
        found = self._load(tables.requests.c.id == request_id)
        if not found:
            raise NotFoundError(
                f"unable to find request '{request_id}'", "larder restore list shows what there is"
            )
        return found[0]

    def of_run(self, run_id: str) -> Request:
        """The request that a run carries out; raises `NotFoundError`."""
        found = self._load(tables.requests.c.run == run_id)
        if not found:
            raise NotFoundError(f"unable to find the request of run '{run_id}'")
        return found[0]

    def latest(self, limit: int = 50) -> list[Request]:
        """The newest requests, newest first."""
        return self._load(limit=limit)

    def between(self, start: datetime, end: datetime) -> list[Request]:
        """Those that were asked for, approved or ended from `start` on and before `end`, oldest first."""
        approved = sa.exists().where(
            tables.approvals.c.request == tables.requests.c.id,
            _within(tables.approvals.c.presented, start, end),
        )
        asked, ended = (
            _within(column, start, end)
            for column in (tables.requests.c.requested, tables.requests.c.finished)
        )
        return self._load(sa.or_(asked, approved, ended), limit=None)[::-1]

    def in_state(self, state: State) -> list[Request]:
        """The requests in a state, newest first."""
        return self._load(tables.requests.c.state == state)

    def with_leftovers(self) -> list[Request]:
        """Those that are over, and whose half-built database may be there still, or an exchange that nobody noted."""
        unsettled = sa.or_(tables.requests.c.leftover, tables.requests.c.swapping)
        return self._load(unsettled, tables.requests.c.state.not_in(["pending", "running"]))

    def no_longer_kept(self, now: datetime) -> list[Request]:
        """Those whose time to be undone is over, and whose replaced database is there still."""
        undo = tables.requests.alias("undo")
        is_undone_now = sa.exists().where(undo.c.undoes == tables.requests.c.id, undo.c.state == "running")
        return self._load(
            tables.requests.c.kept_until <= now, tables.requests.c.state != "running", ~is_undone_now
        )

    def deny(self, request_id: str, by: str, reason: str) -> Request:
        """Refuse a request for good; raises `NotFoundError`, and `NotAuthorisedError` where it is no longer pending."""
        with self._engine.begin() as connection:
            changed = connection.execute(
                tables.requests.update()
                .where(tables.requests.c.id == request_id, tables.requests.c.state == "pending")
                .values(state="denied", note=f"denied by {by}: {reason}", finished=datetime.now(UTC))
            )
            if changed.rowcount:
                self._audit.add(connection, "denied", request_id, by, reason=reason)
        found = self.get(request_id)
        if not changed.rowcount:
            raise NotAuthorisedError(f"unable to deny request {request_id}: it is {found.state}")
        return found

    def present(
        self,
        request_id: str,
        approval: Approval,
        steps: Sequence[str],
        holds: str,
        safety_in: Sequence[str] | None,
    ) -> Run:
        """Hand in an approval that was verified, and begin the request's run; all of it, or nothing.

        Raises `NotAuthorisedError` where the approval, or another of the same request, was handed in before, or the
        request is not pending any more; and `BusyError` while another run holds the target.
        """
        now, document = datetime.now(UTC), self.get(request_id).document
        try:
            with self._engine.begin() as connection:
                database = self._see_that_it_is_pending(connection, request_id)
                run = self._runs.begin_restore(
                    connection, database, holds, steps, safety_in, document.into.host
                )
                self._start(connection, request_id, run)
                connection.execute(
                    tables.approvals.insert().values(
                        token_id=approval.token_id,
                        token_hash=approval.token_hash,
                        request=request_id,
                        document=document.digest,
                        approver=approval.approver,
                        public_key=approval.public_key,
                        issued=approval.issued,
                        expires=approval.expires,
                        presented=now,
                        run=run.id,
                    )
                )
                self._audit.add(
                    connection,
                    "approved",
                    request_id,
                    approval.approver,
                    token_sha256=approval.token_hash,
                    key=approval.public_key,
                    run=run.id,
                )
                return run
        except sa.exc.IntegrityError:
            # By another process, between our look and our insert; or a token of an earlier try.
            if not self._was_used(approval):
                raise _taken_meanwhile(holds) from None
            raise NotAuthorisedError(
                f"unable to restore by request {request_id}: this approval was used before",
                "an approval is good once: have it approved again",
            ) from None

    def begin_undo(
        self,
        document: RestoreRequest,
        undoes: str,
        steps: Sequence[str],
        holds: str,
        safety_in: Sequence[str] | None,
        by: str,
    ) -> Run:
        """Begin to take back the request `undoes`, which its own approval covers.

        Raises `BusyError`, and `NotAuthorisedError` where what it replaced is kept no longer.
        """
        before = self.get(undoes)
        # Whatever happens meanwhile: it is kept until the undo is over.
        long_enough = max(before.kept_until or _LONG_AGO, datetime.now(UTC) + timedelta(days=1))
        try:
            with self._engine.begin() as connection:
                self._insert(connection, document, before.database, undoes=undoes)
                run = self._runs.begin_restore(
                    connection, before.database, holds, steps, safety_in, document.into.host
                )
                self._start(connection, document.request, run)
                kept = connection.execute(
                    tables.requests.update()
                    .where(tables.requests.c.id == undoes, tables.requests.c.kept_until.is_not(None))
                    .values(kept_until=long_enough)
                )
                if not kept.rowcount:
                    raise NotAuthorisedError(
                        f"unable to undo request {undoes}: what it replaced is kept no longer",
                        "larder restore list shows what can be undone",
                    )
                self._audit.add(connection, "undo", undoes, by, by_request=document.request, run=run.id)
        except sa.exc.IntegrityError:
            raise _taken_meanwhile(holds) from None
        return run

    def granted(self, run_id: str) -> Granted | None:
        """The approval that a run was begun by."""
        query = sa.select(
            tables.approvals.c.approver,
            tables.approvals.c.public_key,
            tables.approvals.c.document,
            tables.approvals.c.presented,
            tables.approvals.c.spent,
        ).where(tables.approvals.c.run == run_id)
        with self._engine.connect().execution_options(reads=True) as connection:
            found = connection.execute(query).one_or_none()
        return Granted(*found) if found else None

    def approvers(self, requests: Sequence[Request]) -> dict[str, str]:
        """Who has approved each of these requests whose approval was handed in, by the request's id."""
        query = sa.select(tables.approvals.c.request, tables.approvals.c.approver).where(
            tables.approvals.c.request.in_([one.id for one in requests])
        )
        with self._engine.connect().execution_options(reads=True) as connection:
            return {row.request: row.approver for row in connection.execute(query)}

    def spend(self, run_id: str) -> bool:
        """Take the approval of a run, which can be done once; False where somebody was first."""
        with self._engine.begin() as connection:
            taken = connection.execute(
                tables.approvals.update()
                .where(tables.approvals.c.run == run_id, tables.approvals.c.spent.is_(None))
                .values(spent=datetime.now(UTC))
            )
            return taken.rowcount > 0

    def note_leftover(self, request_id: str, *, there: bool) -> None:
        """Note that what `load` builds may be there, or is gone."""
        self._change(request_id, leftover=there)

    def begin_swap(self, request_id: str) -> None:
        """Note that from now on the exchange may have been made, whatever becomes of who makes it."""
        self._change(request_id, swapping=True)

    def note_no_swap(self, request_id: str) -> None:
        """Note that the target was asked, and the exchange was not made."""
        self._change(request_id, swapping=False)

    def note_safety(self, request_id: str, backup: str) -> None:
        """Note which backup the safety backup is."""
        self._change(request_id, safety=backup)

    def swapped(
        self, connection: sa.Connection, request: Request, kept: Kept | None, until: datetime | None
    ) -> None:
        """Note, in the transaction that commits the swap, what it keeps and until when."""
        connection.execute(
            tables.requests.update()
            .where(tables.requests.c.id == request.id)
            .values(kept=asdict(kept) if kept else None, kept_until=until, leftover=False, swapping=False)
        )
        self._audit.add(
            connection,
            "swapped",
            request.id,
            WORKER,
            target=request.document.into.address,
            kept=kept and kept.name,
        )

    def finish(self, request: Request, *, failed: str | None = None) -> None:
        """Note how a request ended; a second time is fine. One that took back another ends that too."""
        state: State = "failed" if failed else "done"
        with self._engine.begin() as connection:
            changed = connection.execute(
                tables.requests.update()
                .where(tables.requests.c.id == request.id, tables.requests.c.state == "running")
                .values(state=state, note=failed, finished=datetime.now(UTC))
            )
            if not changed.rowcount:
                return
            self._audit.add(connection, state, request.id, WORKER, **({"error": failed} if failed else {}))
            if request.undoes and not failed:
                connection.execute(
                    tables.requests.update()
                    .where(tables.requests.c.id == request.undoes)
                    # What is kept is live again. Its safety backup stays pinned until its time is over.
                    .values(state="undone", kept=None)
                )
                self._audit.add(connection, "undone", request.undoes, WORKER, by=request.id)

    def let_go(self, request: Request, *, dropped: bool) -> None:
        """Note that what a request replaced is kept no longer."""
        with self._engine.begin() as connection:
            changed = connection.execute(
                tables.requests.update()
                .where(tables.requests.c.id == request.id, tables.requests.c.kept_until.is_not(None))
                .values(kept=None, kept_until=None)
            )
            if changed.rowcount:
                name = request.kept.name if request.kept else None
                self._audit.add(connection, "let go", request.id, WORKER, kept=name, dropped=dropped)

    def record_swap(self, request: Request, kept: Kept | None, until: datetime | None) -> None:
        """The same, for an exchange that was found made after whoever made it was lost."""
        with self._engine.begin() as connection:
            self.swapped(connection, request, kept, until)

    def _was_used(self, approval: Approval) -> bool:
        same = sa.or_(
            tables.approvals.c.token_id == approval.token_id,
            tables.approvals.c.token_hash == approval.token_hash,
        )
        with self._engine.connect().execution_options(reads=True) as connection:
            return connection.execute(sa.select(tables.approvals.c.run).where(same)).first() is not None

    def _see_that_it_is_pending(self, connection: sa.Connection, request_id: str) -> str:
        """Raise `NotAuthorisedError` where a request cannot be begun any more; gives its database."""
        row = connection.execute(
            sa.select(tables.requests.c.state, tables.requests.c.expires, tables.requests.c.database)
            .where(tables.requests.c.id == request_id)
            .with_for_update()
        ).one_or_none()
        if row is None:
            raise NotFoundError(f"unable to find request '{request_id}'")
        if row.state != "pending":
            said = {"denied": "it was denied", "running": "it is under way"}.get(
                row.state, f"it is {row.state}"
            )
            raise NotAuthorisedError(f"unable to restore by request {request_id}: {said}", _AGAIN)
        if row.expires <= datetime.now(UTC):
            raise NotAuthorisedError(f"unable to restore by request {request_id}: it has expired", _AGAIN)
        return str(row.database)

    def _insert(
        self, connection: sa.Connection, document: RestoreRequest, database: str, undoes: str | None = None
    ) -> None:
        connection.execute(
            tables.requests.insert().values(
                id=document.request,
                backup=document.wanted.backup,
                database=database,
                document=document.to_bytes().decode(),
                state="pending",
                requested=datetime.fromisoformat(document.requested),
                expires=document.expires_at,
                undoes=undoes,
                leftover=False,
                swapping=False,
            )
        )

    def _start(self, connection: sa.Connection, request_id: str, run: Run) -> None:
        connection.execute(
            tables.requests.update()
            .where(tables.requests.c.id == request_id)
            .values(state="running", run=run.id)
        )

    def _change(self, request_id: str, **values: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(
                tables.requests.update().where(tables.requests.c.id == request_id).values(**values)
            )

    def _load(self, *wanted: sa.ColumnElement[bool], limit: int | None = 1000) -> list[Request]:
        query = (
            sa.select(tables.requests)
            .where(*wanted)
            .order_by(tables.requests.c.requested.desc(), tables.requests.c.id)
            .limit(limit)
        )
        with self._engine.connect().execution_options(reads=True) as connection:
            return [_request(dict(row)) for row in connection.execute(query).mappings()]


def _within(column: sa.Column[Any], start: datetime, end: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(column >= start, column < end)


def _taken_meanwhile(holds: str) -> BusyError:
    return BusyError(
        f"unable to start a restore into '{holds}': another run began in this very moment",
        "hand the same token in again: it is not spent",
    )


def _request(row: dict[str, Any]) -> Request:
    kept = Kept(**row.pop("kept")) if row["kept"] else row.pop("kept")
    document = RestoreRequest.from_bytes(row.pop("document").encode())
    return Request(**row, kept=kept, document=document)
