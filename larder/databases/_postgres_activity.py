"""Whether a server works for the sessions of a restore, and how far it is, seen from another database."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg

from larder.databases import _postgres_facts
from larder.databases._postgres_loaders import application
from larder.databases._postgres_snapshot import trouble
from larder.progress import Progress
from larder.restoring import Source

#: Whether the server works for us: not while it waits for a lock, for us, or for a standby.
_AT_WORK = """
    SELECT count(*) FILTER (WHERE state = 'active' AND coalesce(wait_event_type NOT IN ('Lock', 'Client'), true)
                            AND wait_event IS DISTINCT FROM 'SyncRep'), pg_database_size(%(database)s::name)
    FROM pg_stat_activity WHERE datname = %(database)s AND application_name = %(application)s
"""

#: Seconds between two looks at what the server does.
_LOOK_EVERY = 1.0


class Activity:
    """Says something new whenever the server works for the sessions of `application` in `database`.

    For `Process(moved=…)`: building a large index for an hour is no stall, and waiting for a lock is. `connection`
    leads to another database, and `told` gets the size of this one, in bytes.
    """

    def __init__(
        self,
        name: str,
        connection: psycopg.Connection,
        database: str,
        application: str,
        told: Callable[[int], None] = lambda _size: None,
    ) -> None:
        self._name = name
        self._connection = connection
        self._wanted = {"database": database, "application": application}
        self._told = told
        self._looked = 0.0
        self._seen = 0

    def __call__(self) -> int:
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY:
            self._looked = now
            try:
                row = self._connection.execute(_AT_WORK, self._wanted).fetchone()
            except psycopg.Error as error:
                raise trouble(self._name, "unable to restore database", error) from None
            working, size = row or (0, 0)
            self._seen += 1 if working else 0
            self._told(int(size))
        return self._seen


def growth(
    name: str,
    connection: psycopg.Connection,
    database: str,
    plan_id: str,
    source: Source,
    progress: Progress | None,
) -> Activity:
    """The activity of a load into `database`; `progress` is told of its growth, as bytes of the backup."""
    needs = _postgres_facts.needs(source.fingerprint)
    whole = max(needs.size if needs else 0, 1)

    def told(size: int) -> None:
        if progress is not None:
            progress.reach(min(source.raw_size, size * source.raw_size // whole))

    return Activity(name, connection, database, application(plan_id), told)
