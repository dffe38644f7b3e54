"""Hosts: which machines' workers were heard of last, so that a lost one is told from a ledger that was away.

Each worker says every `BEAT` seconds that its host is there, straight to the ledger: whatever becomes of Redis, and of
what its pool does. A lease that has run out means that whoever held it is gone only where its host has been heard of
all along, and could have renewed it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from larder.ledger import tables

#: How often a worker says that its host is there.
BEAT = timedelta(seconds=15)

#: Whoever was not heard of for longer was away meanwhile: the machine, or the ledger.
GAP = 4 * BEAT

#: How long a host that was away has to renew the leases of what it is still at.
SETTLE = timedelta(seconds=25)

#: A host that was not heard of for longer is gone. A machine that starts anew is back before.
HOST_PATIENCE = timedelta(minutes=10)

#: Hosts that were not heard of for longer are forgotten.
_FORGOTTEN = timedelta(days=30)


@dataclass(frozen=True)
class Host:
    """When a host was heard of last, and since when without a gap. Times are UTC."""

    id: str
    seen: datetime
    since: datetime

    def answers(self, now: datetime) -> bool:
        """Whether it is there, and has been for so long that every lease that it holds is renewed."""
        return abs(now - self.seen) <= GAP and now - self.since >= SETTLE

    def is_there(self, now: datetime) -> bool:
        """Whether it was heard of lately."""
        return abs(now - self.seen) <= GAP

    def gone(self, now: datetime) -> bool:
        """Whether nobody waits for it any more."""
        return now - self.seen > HOST_PATIENCE

    def misses(self, now: datetime) -> bool:
        """Whether it has been there for so long that it would have heard of every other one that is there."""
        return self.answers(now) and now - self.since >= GAP


class Hosts:
    """All hosts that a ledger has heard of."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def beat(self, host: str) -> None:
        """Note that `host` is there."""
        now, hosts = datetime.now(UTC), tables.hosts
        # A clock that was set back looks like a gap too: what was written by the other time says nothing.
        unbroken = sa.and_(hosts.c.seen >= now - GAP, hosts.c.seen <= now + GAP)
        since = sa.case((unbroken, hosts.c.since), else_=now)
        with self._engine.begin() as connection:
            noted = connection.execute(
                hosts.update().where(hosts.c.id == host).values(seen=now, since=since)
            ).rowcount
            if noted:
                return
        try:
            with self._engine.begin() as connection:
                connection.execute(hosts.insert().values(id=host, seen=now, since=now))
        except sa.exc.IntegrityError:
            # Another worker of the same host was faster.
            return

    def known(self) -> dict[str, Host]:
        """Every host, by its id."""
        with self._engine.connect().execution_options(reads=True) as connection:
            return {row["id"]: Host(**row) for row in connection.execute(sa.select(tables.hosts)).mappings()}

    def forget(self) -> None:
        """Forget hosts that are long gone: containers that keep no spool have another name each time."""
        with self._engine.begin() as connection:
            long_ago = datetime.now(UTC) - _FORGOTTEN
            connection.execute(tables.hosts.delete().where(tables.hosts.c.seen < long_ago))


def could_have_renewed(now: datetime) -> sa.ColumnElement[bool]:
    """Whether whoever holds a run's lease, which ran out, would have renewed it: its host is there, or gone.

    A host is gone where another was heard of all along, and it was not; one that was never heard of may be long gone.
    """
    hosts, other = tables.hosts.c, tables.hosts.alias("other").c
    fresh = now - GAP
    answers = sa.and_(hosts.seen >= fresh, hosts.seen <= now + GAP, hosts.since <= now - SETTLE)
    missed = sa.exists().where(other.seen >= fresh, other.seen <= now + GAP, other.since <= fresh)
    gone = sa.and_(hosts.seen < now - HOST_PATIENCE, missed)
    unsettled = sa.exists().where(hosts.id == tables.runs.c.host, ~sa.or_(answers, gone))
    return ~unsettled
