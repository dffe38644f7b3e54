"""The sessions of a PostgreSQL database: who they are, whether we may end them, and ending them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import psycopg

#: Gives a connection in autocommit to a database of the same server that is not the one to be replaced.
Connect = Callable[[], psycopg.Connection]

#: Seconds between two looks for sessions while a name is held.
TICK = 0.005

#: Whether the current role may end a session `a` of role `r`.
MAY_END = """
    (coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = current_user), false)
     OR NOT coalesce(r.rolsuper, true)
        AND (pg_has_role(r.oid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE')))
"""

# Autovacuum has no role, and is ended by RENAME itself.
_SESSIONS = """
    FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid
    WHERE a.datid = ANY (%(oids)s) AND a.pid <> pg_backend_pid() AND a.usesysid IS NOT NULL
"""

#: A session `a` for people.
WHO = """
    coalesce(nullif(a.application_name, ''), 'a session') || ' (user ' || coalesce(a.usename, '?')
    || coalesce(', from ' || host(a.client_addr), '') || ')'
"""

#: Ends sessions; where a holder is named, only once that one holds the database's lock.
_END = f"""
    SELECT pg_terminate_backend(a.pid) {_SESSIONS} AND {MAY_END}
    AND (%(holder)s::int IS NULL OR EXISTS (
        SELECT FROM pg_locks WHERE pid = %(holder)s::int AND locktype = 'object' AND granted
        AND classid = 'pg_database'::regclass AND objid = ANY (%(oids)s) AND mode = 'AccessExclusiveLock'))
"""  # noqa: S608 - constants of our own


def session_words(connection: psycopg.Connection, *oids: int) -> list[tuple[str, bool]]:
    """Who is connected to these databases, for people, and whether our role may end each."""
    return [
        (str(who), bool(may))
        for who, may in connection.execute(
            f"SELECT {WHO}, {MAY_END} {_SESSIONS} ORDER BY a.pid", {"oids": list(oids)}
        ).fetchall()
    ]


def end_sessions(connection: psycopg.Connection, oids: Sequence[int], holder: int | None = None) -> int:
    """End the sessions of these databases, ours excepted; with `holder`, only once that process holds their lock.

    Gives how many were told to end, which they do a moment later.
    """
    return connection.execute(_END, {"oids": list(oids), "holder": holder}).rowcount


class Evictor:
    """Ends the sessions of a database for the length of a `with` block, from when `holder` has its lock."""

    def __init__(self, connect: Connect, oid: int, holder: int) -> None:
        # Connected before anything is held.
        self._connection = connect()
        self._oid, self._holder = oid, holder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"evict {oid}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        # Where this fails the sessions stay, RENAME says so, and is tried again.
        with contextlib.suppress(psycopg.Error):
            while not self._stop.is_set():
                end_sessions(self._connection, [self._oid], self._holder)
                self._stop.wait(TICK)
