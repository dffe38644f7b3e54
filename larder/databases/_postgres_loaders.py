"""The sessions that load a backup: what they are called, and what each is given to be quick. For themselves only."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import psycopg

from larder.databases._postgres_connection import child_environment
from larder.databases._postgres_snapshot import LOST_CLIENT_CHECK, may_watch_clients

#: What is lost with `synchronous_commit = off` by a crash of the server is a database that is not live yet;
#: `_postgres_build.finish` has all of it on the disk before anybody may swap.
_OPTIONS = (
    "synchronous_commit=off",
    "maintenance_work_mem=256MB",
    "statement_timeout=0",
    "lock_timeout=0",
    "idle_in_transaction_session_timeout=0",
)

_INDEX_WORKERS = "SELECT setting::int FROM pg_settings WHERE name = 'max_parallel_maintenance_workers'"


def application(plan_id: str) -> str:
    """What the sessions of a restore are called in pg_stat_activity."""
    return f"larder-restore-{plan_id}"


def loading_environment(
    connection: psycopg.Connection, database: str, plan_id: str, jobs: int = 1
) -> dict[str, str]:
    """`child_environment` for psql and pg_restore that load into `database` of `connection`'s server.

    `jobs` is how many sessions load side by side.
    """
    environment = child_environment(connection)
    environment |= {"PGDATABASE": database, "PGAPPNAME": application(plan_id)}
    if given := loading_options(connection, jobs):
        options = " ".join(f"-c {option}" for option in given)
        environment["PGOPTIONS"] = f"{environment.get('PGOPTIONS', '')} {options}".strip()
    return environment


def loading_options(connection: psycopg.Connection, jobs: int = 1) -> list[str]:
    """What each of `jobs` sessions is given, as `name=value`; nothing where a pooler on the way rejects it."""
    with connection.transaction():
        watched = may_watch_clients(connection)
    (process,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
    if process != connection.info.backend_pid:
        return []
    given = [*_OPTIONS, *([LOST_CLIENT_CHECK] if watched else [])]
    if connection.info.server_version >= 170000:
        given.append("transaction_timeout=0")
    if jobs > 1 and is_here(connection):
        given.append(f"max_parallel_maintenance_workers={_index_workers(connection, jobs)}")
    return given


def is_here(connection: psycopg.Connection) -> bool:
    """Whether the server is on this machine, and shares its cores with us; not where that can't be told."""
    address = connection.info.hostaddr
    if address and not ipaddress.ip_address(address).is_loopback:
        return False
    try:
        # Through a tunnel, the number is another machine's.
        return Path(f"/proc/{connection.info.backend_pid}/comm").read_text().strip() == "postgres"
    except OSError:
        return False


def _index_workers(connection: psycopg.Connection, jobs: int) -> int:
    """How many helpers each of `jobs` sessions may take for an index, so that they have a core each.

    A server gives each two, however few cores there are. Then they share out what a session alone sorts in memory.
    """
    (allowed,) = connection.execute(_INDEX_WORKERS).fetchone() or (0,)
    return max(0, min(int(allowed), (os.cpu_count() or 1) // jobs - 1))
