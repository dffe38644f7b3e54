"""Losses on purpose: hosts that are there, away, or gone, and runs that nobody works on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from larder.ledger import Ledger, tables
from larder.ledger.runs import QUEUE_PATIENCE, Run

HOUR = timedelta(hours=1)


def heard(ledger: Ledger, host: str, ago: timedelta = timedelta(0), *, since: timedelta = HOUR) -> None:
    """Have `host` heard of so long `ago` for the last time, and without a gap `since` then."""
    now = datetime.now(UTC)
    with ledger._engine.begin() as connection:
        connection.execute(tables.hosts.delete().where(tables.hosts.c.id == host))
        connection.execute(tables.hosts.insert().values(id=host, seen=now - ago, since=now - since))


def expire(ledger: Ledger, run: Run, ago: timedelta = timedelta(minutes=1)) -> None:
    """Make the run's lease one that ran out so long `ago`, as if its worker had been killed before that."""
    _set_lease(ledger, run, datetime.now(UTC) - ago)


def lie(ledger: Ledger, run: Run, time: timedelta = timedelta(minutes=2)) -> None:
    """Have a run lie between two steps for so long."""
    _set_lease(ledger, run, datetime.now(UTC) - time + QUEUE_PATIENCE)


def lost(ledger: Ledger) -> list[str]:
    """The ids of the runs that a guard would have go on."""
    return [run.id for run in (*ledger.losses.expired(), *ledger.losses.lying())]


def _set_lease(ledger: Ledger, run: Run, until: datetime) -> None:
    with ledger._engine.begin() as connection:
        connection.execute(tables.runs.update().where(tables.runs.c.id == run.id).values(lease_until=until))
