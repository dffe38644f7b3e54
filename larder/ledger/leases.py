"""Leases: who may work on a run's step now, and whose commit counts.

A worker that starts a step takes the run's next attempt number and a lease. While it works, it renews the lease. Every
change that it makes to the run is `UPDATE … WHERE attempt = mine`: once somebody else has started the step anew,
its number is stale and its changes touch no row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import sqlalchemy as sa

from larder.errors import LarderError, LeaseLostError, NotFoundError
from larder.ledger import tables
from larder.ledger.admission import Room, admit
from larder.ledger.runs import QUEUE_PATIENCE, SAFETY, good_end

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


class Leases:
    """Taking, renewing and ending leases."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def take(
        self, run_id: str, step: str, host: str, store: str = "", room: Room | None = None
    ) -> Lease | Refusal:
        """Start `step` (for `store`) on `host`, or say why there is nothing to start. Raises `NotFoundError`.

        `room` is what there is for a dump, which waits where that is too little.
        """
        now = datetime.now(UTC)
        with self._engine.begin() as connection:
            run = (
                connection.execute(sa.select(tables.runs).where(tables.runs.c.id == run_id).with_for_update())
                .mappings()
                .one_or_none()
            )
            if run is None:
                raise NotFoundError(f"unable to start step '{step}': there is no run '{run_id}'")
            links = (
                connection.execute(
                    sa.select(tables.steps)
                    .where(tables.steps.c.run == run_id)
                    .order_by(tables.steps.c.position)
                )
                .mappings()
                .all()
            )
            link = _link(links, run_id, step, store)
            refusal = (
                _refusal(run, links, link, now)
                or _out_of_turn(connection, run, step)
                or _of_another(run, link, host)
            )
            if refusal is not None:
                return refusal
            if room is not None and admit(connection, run_id, host, room, now):
                return Refusal.FULL
            lease = Lease(
                run=run_id,
                step=step,
                store=store,
                attempt=run["attempt"] + 1,
                tries=link["attempts"] + 1,
                began=now,
            )
            self._start(connection, lease, host, still_active=run["state"] in tables.ACTIVE)
            return lease

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
    ) -> None:
        """Commit the step as done, and what `also` writes, in one transaction; raises `LeaseLostError`.

        Done twice is fine: whoever did not hear that it was committed may ask again. `error` says what went wrong in a
        step whose failure does not fail the run.
        """
        now = datetime.now(UTC)
        values: dict[str, Any] = {"progress": None, "lease_until": now + QUEUE_PATIENCE}
        if artifact is not None:
            values["artifact"] = artifact
        if spooled is not None:
            values["spooled"] = spooled
        state = "failed" if error else "done"
        with self._engine.begin() as connection:
            _guarded(connection, lease, **values)
            if (
                connection.execute(sa.select(tables.steps.c.state).where(*_this_link(lease))).scalar()
                == state
            ):
                return
            _end_step(connection, lease, now, state, error)
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
                connection.execute(
                    tables.steps.update().where(*_this_link(lease)).values(attempts=lease.tries - 1)
                )
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

    def _start(self, connection: sa.Connection, lease: Lease, host: str, *, still_active: bool) -> None:
        values: dict[str, Any] = {
            "attempt": lease.attempt,
            "lease_until": lease.began + TTL,
            "progress": None,
        }
        if still_active:
            values |= {"state": "running", "step": lease.step, "host": host}
        connection.execute(tables.runs.update().where(tables.runs.c.id == lease.run).values(values))
        connection.execute(
            tables.steps.update()
            .where(*_this_link(lease))
            .values(state="running", attempts=lease.tries, started=lease.began, finished=None, error=None)
        )


def _link(links: Sequence[sa.RowMapping], run_id: str, step: str, store: str) -> sa.RowMapping:
    for link in links:
        if (link["name"], link["store"]) == (step, store):
            return link
    which = f" for store '{store}'" if store else ""
    raise NotFoundError(f"unable to start step '{step}'{which}: run '{run_id}' has no such step")


def _refusal(
    run: sa.RowMapping, links: Sequence[sa.RowMapping], link: sa.RowMapping, now: datetime
) -> Refusal | None:
    if link["state"] == "done":
        return Refusal.DONE
    if link["state"] == "running" and run["lease_until"] > now:
        return Refusal.BUSY
    if run["state"] not in tables.ACTIVE:
        return None if link["name"] == LAST_STEP else Refusal.OVER
    before = [other for other in links if other["position"] < link["position"]]
    if any(other["state"] not in ("done", "failed") for other in before):
        return Refusal.EARLY
    after = [other for other in links if other["position"] > link["position"]]
    if any(other["state"] != "pending" for other in after):
        # A failed upload that the chain went on without: a message of it that comes late starts nothing anew.
        return Refusal.PASSED
    return None


def _of_another(run: sa.RowMapping, link: sa.RowMapping, host: str) -> Refusal | None:
    """Whether what the step needs lies in the spool of another host. A run that is over is told about anywhere."""
    pinned = run["state"] in tables.ACTIVE and run["host"] is not None and link["position"] > 0
    return Refusal.ELSEWHERE if pinned and run["host"] != host else None


def _out_of_turn(connection: sa.Connection, run: sa.RowMapping, step: str) -> Refusal | None:
    """Whether a run that is a part of another's chain, or that has such a part, is not at this point of it yet."""
    if step == SAFETY:
        part = sa.select(tables.runs.c.id).where(
            tables.runs.c.parent == run["id"], tables.runs.c.state.in_(tables.ACTIVE)
        )
        return Refusal.EARLY if connection.execute(part.limit(1)).scalar() else None
    if run["parent"] is None:
        return None
    outer = sa.select(tables.runs.c.state).where(tables.runs.c.id == run["parent"])
    if connection.execute(outer).scalar() not in tables.ACTIVE:
        return Refusal.OVER
    states = sa.select(tables.steps.c.name, tables.steps.c.state)
    before = connection.execute(
        states.where(tables.steps.c.run == run["parent"]).order_by(tables.steps.c.position)
    )
    for name, state in before:
        if name == SAFETY:
            return None
        if state != "done":
            return Refusal.EARLY
    return None


def _hold_outer(connection: sa.Connection, lease: Lease, now: datetime) -> None:
    """While a part of its chain is at work, a run is not lost."""
    mine = sa.select(tables.runs.c.parent).where(tables.runs.c.id == lease.run).scalar_subquery()
    connection.execute(
        tables.runs.update()
        .where(tables.runs.c.id == mine, tables.runs.c.state.in_(tables.ACTIVE))
        .values(lease_until=now + QUEUE_PATIENCE)
    )


def _end_run(connection: sa.Connection, lease: Lease, now: datetime) -> None:
    """End the run well where this was its last link."""
    links = sa.select(tables.steps.c.name, tables.steps.c.store).where(tables.steps.c.run == lease.run)
    last = connection.execute(links.order_by(tables.steps.c.position.desc()).limit(1)).one()
    if tuple(last) != (lease.step, lease.store):
        return
    kind = connection.execute(sa.select(tables.runs.c.kind).where(tables.runs.c.id == lease.run)).scalar_one()
    connection.execute(
        tables.runs.update()
        .where(tables.runs.c.id == lease.run, tables.runs.c.state.in_(tables.ACTIVE))
        .values(state=good_end(kind), finished=now)
    )


def _this_link(lease: Lease) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        tables.steps.c.run == lease.run,
        tables.steps.c.name == lease.step,
        tables.steps.c.store == lease.store,
    )


def _guarded(connection: sa.Connection, lease: Lease, **values: object) -> None:
    changed = connection.execute(
        tables.runs.update()
        .where(tables.runs.c.id == lease.run, tables.runs.c.attempt == lease.attempt)
        .values(values)
    )
    if changed.rowcount == 0:
        raise LeaseLostError(f"unable to go on with run {lease.run}: another attempt has taken it over")


def _end_step(connection: sa.Connection, lease: Lease, now: datetime, state: str, error: str | None) -> None:
    connection.execute(
        tables.steps.update()
        .where(*_this_link(lease))
        .values(state=state, finished=now, seconds=(now - lease.began).total_seconds(), error=error)
    )
