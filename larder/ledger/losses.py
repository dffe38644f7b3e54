"""Losses: runs that nobody works on any more, and how they are begun anew. The guard asks for them each minute.

| a run is | when | and then |
|---|---|---|
| expired | its lease ran out while its host was heard of all along | its open step is sent again |
| lying | it has been between two steps, or in a queue, for a while | its message is sent again, if it is lost |
| stranded | its host is gone | it fails, and another takes its place elsewhere |
| untold | it has failed, and nobody was told | its last link is sent |

What is done about a run is guarded by its attempt: of any number of guards, one does it.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from larder.errors import LarderError
from larder.ledger import tables
from larder.ledger.hosts import HOST_PATIENCE, Hosts
from larder.ledger.leases import LAST_STEP, TTL
from larder.ledger.runs import QUEUE_PATIENCE, UPLOAD, Run, Runs, waits_for_part

#: How long a run may lie between two steps before somebody looks whether its message is lost.
LYING = timedelta(seconds=60)

#: How long ago a failure is at most that is told late.
_NEWS = timedelta(days=7)

#: A step that failed is begun again within less.
_LONGEST_PAUSE = timedelta(minutes=5)

#: How often a link may cost its worker before nobody begins it again.
MOST_ATTEMPTS = 5

#: How many runs one guard looks at in a pass; the next one sees to the others.
_AT_ONCE = 1000


class Losses:
    """The runs of a ledger that were lost."""

    def __init__(self, engine: sa.Engine, runs: Runs, hosts: Hosts) -> None:
        self._engine = engine
        self._runs = runs
        self._hosts = hosts

    def expired(self) -> list[Run]:
        """The runs whose lease ran out although their host was heard of all along."""
        now, hosts = datetime.now(UTC), self._hosts.known()
        found = self._active(_at_work(), tables.runs.c.lease_until < now)
        return [run for run in found if run.host in hosts and hosts[run.host].answers(now)]

    def lying(self) -> list[Run]:
        """The runs that have been between two steps, or in a queue, for longer than `LYING`.

        `Run.lying_since` says since when. Those whose host does not answer wait for it.
        """
        now, hosts = datetime.now(UTC), self._hosts.known()
        found = self._active(~_at_work(), tables.runs.c.lease_until < now + QUEUE_PATIENCE - LYING)
        return [
            run for run in found if run.host is None or (run.host in hosts and hosts[run.host].answers(now))
        ]

    def stranded(self) -> list[Run]:
        """The runs that lie on a host that is gone.

        Another has to have been there all along to miss it. Where the ledger was away, or every machine has slept, or
        their clocks were set, nobody was heard of for a while, and nobody is gone.
        """
        now, hosts = datetime.now(UTC), self._hosts.known()
        if not any(host.misses(now) for host in hosts.values()):
            return []
        patience = sa.case((_at_work(), now - HOST_PATIENCE), else_=now - HOST_PATIENCE + QUEUE_PATIENCE)
        found = self._runs.select(
            tables.runs.c.state.in_(tables.ACTIVE),
            tables.runs.c.host.is_not(None),
            tables.runs.c.lease_until < patience,
            limit=_AT_ONCE,
        )
        return [run for run in found if (run.host not in hosts) or hosts[run.host].gone(now)]

    def untold(self) -> list[Run]:
        """The runs that have failed a while ago, and whose last link nobody is at. Those of hosts that are gone too.

        So are those that fail in times to come: a clock has been set back since.
        """
        now, state = datetime.now(UTC), tables.steps.c.state
        finished, until = tables.runs.c.finished, tables.runs.c.lease_until
        ahead = now + QUEUE_PATIENCE + _LONGEST_PAUSE
        idle = sa.or_(
            sa.and_(state == "pending", sa.or_(finished < now - LYING, finished > now + LYING)),
            sa.and_(state == "running", until < now),
            sa.and_(state == "waiting", sa.or_(until < now + QUEUE_PATIENCE - LYING, until > ahead)),
        )
        last = sa.exists().where(
            tables.steps.c.run == tables.runs.c.id,
            tables.steps.c.name == LAST_STEP,
            tables.steps.c.attempts < MOST_ATTEMPTS,
            idle,
        )
        return self._runs.select(
            tables.runs.c.state == "failed",
            tables.runs.c.parent.is_(None),
            tables.runs.c.finished > now - _NEWS,
            last,
            limit=_AT_ONCE,
        )

    def take_up(self, run: Run) -> bool:
        """Claim the right to send a lost run's chain again; of several who try, one gets it.

        The attempt grows, so that whoever held it before can commit nothing any more, and its open step waits.
        """
        with self._engine.begin() as connection:
            if not _claim(connection, run):
                return False
            _let_wait(connection, run, "its worker was lost")
            return True

    def leave(self, run: Run, error: LarderError) -> bool:
        """End a run whose host is gone, to be told about by any other; of several who try, one gets it.

        Its last link may be what that host was at.
        """
        with self._engine.begin() as connection:
            if not _claim(connection, run):
                return False
            _let_wait(connection, run, "its host is gone")
        self.unpin(run.id)
        return self._runs.abandon(run.id, error)

    def unpin(self, run_id: str) -> None:
        """Have what is left to do about a run done by any host."""
        with self._engine.begin() as connection:
            connection.execute(tables.runs.update().where(tables.runs.c.id == run_id).values(host=None))

    def orphans(self, database: str, store: str, stamps: Collection[str]) -> list[str]:
        """The artifacts of runs with these stamps that `store` should not have: of runs that are over.

        Their copy there was begun and never whole, or was deleted on purpose.
        """
        runs, steps, removed = tables.runs.c, tables.steps.c, tables.removed.c
        backup = runs.database + "/" + runs.stamp
        on_purpose = sa.exists().where(removed.backup == backup, removed.store == store)
        query = (
            sa.select(runs.artifact)
            .join(tables.steps, steps.run == runs.id)
            .where(
                runs.database == database,
                runs.stamp.in_(stamps),
                runs.state.not_in(tables.ACTIVE),
                runs.artifact.is_not(None),
                steps.name == UPLOAD,
                steps.store == store,
                sa.or_(sa.and_(steps.attempts > 0, steps.state != "done"), on_purpose),
            )
        )
        with self._engine.connect().execution_options(reads=True) as connection:
            return list(connection.execute(query).scalars())

    def correct(self) -> None:
        """Shorten leases that last for longer than any can: whoever took one has set its clock back since.

        So are runs between two steps brought back that would lie there until the clock has come to where it was.
        """
        now = datetime.now(UTC)
        with self._engine.begin() as connection:
            connection.execute(
                tables.runs.update()
                .where(
                    tables.runs.c.state == "running", _at_work(), tables.runs.c.lease_until > now + 2 * TTL
                )
                .values(lease_until=now + TTL)
            )
            connection.execute(
                tables.runs.update()
                .where(
                    tables.runs.c.state.in_(tables.ACTIVE),
                    ~_at_work(),
                    tables.runs.c.lease_until > now + QUEUE_PATIENCE + _LONGEST_PAUSE,
                )
                .values(lease_until=now + QUEUE_PATIENCE)
            )

    def _active(self, *wanted: sa.ColumnElement[bool]) -> list[Run]:
        """Active runs that wait for nothing: no slot, and no run that is a part of them."""
        return self._runs.select(
            tables.runs.c.state.in_(tables.ACTIVE),
            tables.runs.c.waits.is_(None),
            ~waits_for_part(),
            *wanted,
            limit=_AT_ONCE,
        )


def _at_work() -> sa.ColumnElement[bool]:
    """Whether somebody has begun a step of a run, and not ended it."""
    return sa.exists().where(tables.steps.c.run == tables.runs.c.id, tables.steps.c.state == "running")


def _claim(connection: sa.Connection, run: Run) -> bool:
    taken = connection.execute(
        tables.runs.update()
        .where(
            tables.runs.c.id == run.id,
            tables.runs.c.attempt == run.attempt,
            tables.runs.c.lease_until == run.lease_until,
            tables.runs.c.state.in_(tables.ACTIVE),
        )
        .values(
            lease_until=datetime.now(UTC) + QUEUE_PATIENCE,
            attempt=tables.runs.c.attempt + 1,
            progress=None,
        )
    )
    return taken.rowcount > 0


def _let_wait(connection: sa.Connection, run: Run, why: str) -> None:
    """Have the step that a lost run is at be one that anybody may begin."""
    connection.execute(
        tables.steps.update()
        .where(tables.steps.c.run == run.id, tables.steps.c.state == "running")
        .values(state="waiting", error=why)
    )
