"""Leases: who may work on a run's step now, and whose commit counts.

A worker that starts a step takes the run's next attempt number and a lease. While it works, it renews the lease. Every
change that it makes to the run is `UPDATE … WHERE attempt = mine`: once somebody else has started the step anew,
its number is stale and its changes touch no row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import sqlalchemy as sa

from larder.errors import LarderError, LeaseLostError, NotFoundError
from larder.ledger import tables
from larder.ledger.admission import Room, admit
from larder.ledger.journal import Unwritten, insert
from larder.ledger.runs import QUEUE_PATIENCE, SAFETY, Kind, Run, good_end, load_one

#: How long a lease lasts without being renewed.
TTL = timedelta(seconds=60)

#: The step that is still to do when a run has failed: somebody has to be told.
LAST_STEP = "notify"


class Refusal(Enum):
    """Why a delivered step has nothing to do."""

    DONE = "it was done before"
    OVER = "the run is over"
    BUSY = "another attempt is at it"
    EARLY = "an earlier step is not done"
    PASSED = "the chain went on without it"
    ELSEWHERE = "it goes on on another host"
    FULL = "it waits for other dumps to end"
    STRANGE = "its run has no such link, or nobody has approved it"


@dataclass(frozen=True)
class Lease:
    """The right to work on one step of one run, for as long as it is renewed."""

    run: str
    step: str
    #: The store that an upload is for; empty for every other link.
    store: str
    attempt: int
    #: How often this step has been started, this time included.
    tries: int
    began: datetime
    #: The run as it was once the step had begun; None where nobody has taken this lease from a ledger.
    whole: Run | None = field(default=None, compare=False, repr=False)


class Leases:
    """Taking, renewing and ending leases."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def take(
        self,
        run_id: str,
        step: str,
        host: str,
        store: str = "",
        room: Room | None = None,
        *,
        kind: Kind | None = None,
    ) -> Lease | Refusal:
        """Start `step` (for `store`) on `host`, or say why there is nothing to start. Raises `NotFoundError`.

        `room` is what there is for a dump, which waits where that is too little. `kind` is the chain that the link is
        one of, where whoever sent it is not to be believed: a run of another kind, or a restore that nobody has begun,
        has no such link.
        """
        now = datetime.now(UTC)
        with self._engine.begin() as connection:
            run = load_one(connection, run_id, lock=True)
            if run is None:
                raise NotFoundError(f"unable to start step '{step}': there is no run '{run_id}'")
            if kind is not None and (run.kind != kind or not _is_approved(run, step)):
                return Refusal.STRANGE
            place = _place(run, step, store)
            refusal = (
                _refusal(run, place, now)
                or _out_of_turn(connection, run, step)
                or _of_another(run, place, host)
            )
            if refusal is not None:
                return refusal
            if room is not None:
                admitted, wait = admit(connection, run_id, host, room, now)
                if wait:
                    return Refusal.FULL
                run = replace(run, **admitted)
            return self._start(connection, run, place, host, now)

    def renew(self, lease: Lease) -> None:
        """Hold on to `lease` for another `TTL`; raises `LeaseLostError`."""
        now = datetime.now(UTC)
        with self._engine.begin() as connection:
            _guarded(connection, lease, lease_until=now + TTL)
            _hold_outer(connection, lease, now)

    def report(self, lease: Lease, progress: str) -> None:
        """Write down how far the step is; raises `LeaseLostError`."""
        with self._engine.begin() as connection:
            _guarded(connection, lease, progress=progress)

    def warn(self, lease: Lease, warning: str) -> None:
        """Add a warning to the run, once; raises `LeaseLostError`."""
        with self._engine.begin() as connection:
            found = connection.execute(
                sa.select(tables.runs.c.warnings).where(tables.runs.c.id == lease.run)
            ).scalar_one()
            if warning not in found:
                _guarded(connection, lease, warnings=[*found, warning])

    def finish(
        self,
        lease: Lease,
        *,
        artifact: str | None = None,
        spooled: int | None = None,
        also: Callable[[sa.Connection], None] | None = None,
        error: str | None = None,
        lines: Sequence[Unwritten] = (),
    ) -> None:
        """Commit the step as done, and what `also` writes, in one transaction; raises `LeaseLostError`.

        Done twice is fine: whoever did not hear that it was committed may ask again. `error` says what went wrong in a
        step whose failure does not fail the run. `lines` are what the journal does not have yet.
        """
        now = datetime.now(UTC)
        values: dict[str, Any] = {"progress": None, "lease_until": now + QUEUE_PATIENCE}
        if artifact is not None:
            values["artifact"] = artifact
        if spooled is not None:
            values["spooled"] = spooled
        with self._engine.begin() as connection:
            _guarded(connection, lease, **values)
            if not _end_step(connection, lease, now, "failed" if error else "done", error):
                return
            insert(connection, lines)
            if also is not None:
                also(connection)
            _hold_outer(connection, lease, now)
            _end_run(connection, lease, now)

    def wait(self, lease: Lease, error: LarderError, seconds: float) -> None:
        """Give the step back, to be started again in `seconds`; raises `LeaseLostError`."""
        now = datetime.now(UTC)
        again = f"trying again in {seconds:.0f} s"
        with self._engine.begin() as connection:
            _guarded(
                connection,
                lease,
                progress=again,
                lease_until=now + timedelta(seconds=seconds) + QUEUE_PATIENCE,
            )
            _end_step(connection, lease, now, "waiting", error.message)

    def give_back(self, lease: Lease, *, counted: bool) -> None:
        """Let go of a step that was begun and is not done, for anybody to begin; raises `LeaseLostError`.

        The attempt grows: what is left of whoever had it changes nothing any more. Unless it is `counted`, the step was
        started once less.
        """
        now = datetime.now(UTC)
        with self._engine.begin() as connection:
            _guarded(
                connection,
                lease,
                attempt=lease.attempt + 1,
                progress=None,
                lease_until=now + QUEUE_PATIENCE,
            )
            _end_step(connection, lease, now, "waiting", "its worker ended")
            if not counted:
                connection.execute(_LINK, {**_names(lease), "attempts": lease.tries - 1})
            _hold_outer(connection, lease, now)

    def fail(
        self, lease: Lease, error: LarderError, *, also: Callable[[sa.Connection], None] | None = None
    ) -> None:
        """End the run as failed at this step, and commit what `also` writes; raises `LeaseLostError`."""
        now = datetime.now(UTC)
        with self._engine.begin() as connection:
            _guarded(
                connection,
                lease,
                state="failed",
                failed_step=lease.step,
                error=error.message,
                hint=error.hint,
                exit_code=error.exit_code,
                finished=now,
                progress=None,
            )
            _end_step(connection, lease, now, "failed", error.message)
            if also is not None:
                also(connection)

    def _start(self, connection: sa.Connection, run: Run, place: int, host: str, now: datetime) -> Lease:
        link = run.steps[place]
        values: dict[str, Any] = {"attempt": run.attempt + 1, "lease_until": now + TTL, "progress": None}
        if not run.over:
            values |= {"state": "running", "step": link.name, "host": host}
        begun: dict[str, Any] = {
            "state": "running",
            "attempts": link.attempts + 1,
            "started": now,
            "finished": None,
            "error": None,
        }
        steps = (*run.steps[:place], replace(link, **begun), *run.steps[place + 1 :])
        lease = Lease(
            run=run.id,
            step=link.name,
            store=link.store,
            attempt=values["attempt"],
            tries=begun["attempts"],
            began=now,
            whole=replace(run, **values, steps=steps),
        )
        connection.execute(_TAKE, {"this_run": run.id, **values})
        connection.execute(_LINK, {**_names(lease), **begun})
        return lease


def _place(run: Run, step: str, store: str) -> int:
    """Which of the run's links it is."""
    for place, link in enumerate(run.steps):
        if (link.name, link.store) == (step, store):
            return place
    which = f" for store '{store}'" if store else ""
    raise NotFoundError(f"unable to start step '{step}'{which}: run '{run.id}' has no such step")


def _is_approved(run: Run, step: str) -> bool:
    """Whether a restore has begun as it should: its first link has spent the approval."""
    return run.kind != "restore" or step == run.steps[0].name or run.steps[0].state == "done" or run.over


def _refusal(run: Run, place: int, now: datetime) -> Refusal | None:
    link = run.steps[place]
    if link.state == "done":
        return Refusal.DONE
    if link.state == "running" and run.lease_until > now:
        return Refusal.BUSY
    if run.over:
        return None if link.name == LAST_STEP else Refusal.OVER
    if any(other.state not in ("done", "failed") for other in run.steps[:place]):
        return Refusal.EARLY
    if any(other.state != "pending" for other in run.steps[place + 1 :]):
        # A failed upload that the chain went on without: a message of it that comes late starts nothing anew.
        return Refusal.PASSED
    return None


def _of_another(run: Run, place: int, host: str) -> Refusal | None:
    """Whether what the step needs lies in the spool of another host. A run that is over is told about anywhere."""
    pinned = not run.over and run.host is not None and place > 0
    return Refusal.ELSEWHERE if pinned and run.host != host else None


def _out_of_turn(connection: sa.Connection, run: Run, step: str) -> Refusal | None:
    """Whether a run that is a part of another's chain, or that has such a part, is not at this point of it yet."""
    if step == SAFETY:
        part = sa.select(tables.runs.c.id).where(
            tables.runs.c.parent == run.id, tables.runs.c.state.in_(tables.ACTIVE)
        )
        return Refusal.EARLY if connection.execute(part.limit(1)).scalar() else None
    if run.parent is None:
        return None
    outer = sa.select(tables.runs.c.state).where(tables.runs.c.id == run.parent)
    if connection.execute(outer).scalar() not in tables.ACTIVE:
        return Refusal.OVER
    states = sa.select(tables.steps.c.name, tables.steps.c.state)
    before = connection.execute(
        states.where(tables.steps.c.run == run.parent).order_by(tables.steps.c.position)
    )
    for name, state in before:
        if name == SAFETY:
            return None
        if state != "done":
            return Refusal.EARLY
    return None


def _hold_outer(connection: sa.Connection, lease: Lease, now: datetime) -> None:
    """While a part of its chain is at work, a run is not lost."""
    if lease.whole is None or lease.whole.parent is None:
        return
    connection.execute(
        tables.runs.update()
        .where(tables.runs.c.id == lease.whole.parent, tables.runs.c.state.in_(tables.ACTIVE))
        .values(lease_until=now + QUEUE_PATIENCE)
    )


def _end_run(connection: sa.Connection, lease: Lease, now: datetime) -> None:
    """End the run well where this was its last link."""
    run = lease.whole
    if run is None or (run.steps[-1].name, run.steps[-1].store) != (lease.step, lease.store):
        return
    connection.execute(_END, {"this_run": lease.run, "state": good_end(run.kind), "finished": now})


#: Made once: each step needs them all.
_TAKE = tables.runs.update().where(tables.runs.c.id == sa.bindparam("this_run"))
_END = _TAKE.where(tables.runs.c.state.in_(tables.ACTIVE))
_GUARDED = _TAKE.where(tables.runs.c.attempt == sa.bindparam("this_attempt"))
_LINK = tables.steps.update().where(
    tables.steps.c.run == sa.bindparam("this_run"),
    tables.steps.c.name == sa.bindparam("this_name"),
    tables.steps.c.store == sa.bindparam("this_store"),
)
_LINK_UNLESS = _LINK.where(tables.steps.c.state != sa.bindparam("other_state"))


def _names(lease: Lease) -> dict[str, str]:
    """What the statements call a lease's link by."""
    return {"this_run": lease.run, "this_name": lease.step, "this_store": lease.store}


def _guarded(connection: sa.Connection, lease: Lease, **values: object) -> None:
    this = {"this_run": lease.run, "this_attempt": lease.attempt}
    if connection.execute(_GUARDED, {**this, **values}).rowcount == 0:
        raise LeaseLostError(f"unable to go on with run {lease.run}: another attempt has taken it over")


def _end_step(connection: sa.Connection, lease: Lease, now: datetime, state: str, error: str | None) -> bool:
    """End the step; False where it has ended so before."""
    ended = {
        "state": state,
        "finished": now,
        "seconds": (now - lease.began).total_seconds(),
        "error": error,
    }
    return connection.execute(_LINK_UNLESS, {**_names(lease), "other_state": state, **ended}).rowcount > 0
