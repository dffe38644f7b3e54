"""Opening the ledger's database, and bringing its tables up to date.

Any number of processes may start at once: one of them migrates, the others wait for it. On SQLite they wait at a
file lock beside the ledger, on PostgreSQL at an advisory lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from larder.errors import ConfigurationError, UnreachableError
from larder.spool import make_private

#: The newest revision in `migrations/versions`; a test holds the two together.
HEAD = "0002"

#: Seconds to wait for another process that is writing.
BUSY_TIMEOUT = 30

#: Any number that no other user of the same PostgreSQL takes for its own lock: "larder" in ASCII.
_ADVISORY_LOCK = int.from_bytes(b"larder")


def open_engine(url: str, revision: str = HEAD) -> sa.Engine:
    """A ledger at `url` (`sqlite:///…` or `postgresql://…`), migrated to `revision`; raises `UnreachableError`."""
    try:
        engine = _sqlite(url) if url.startswith("sqlite") else _postgres(url)
    except (sa.exc.ArgumentError, ValueError, OSError) as error:
        reason = error.strerror or "" if isinstance(error, OSError) else "it cannot be read as an address"
        raise ConfigurationError(
            f"unable to open the ledger: {reason.lower()}",
            "check LARDER_LEDGER_URL: postgresql://… or sqlite:///…",
        ) from None
    try:
        _migrate(engine, revision)
    except sa.exc.DatabaseError as error:
        engine.dispose()
        where = engine.url.render_as_string(hide_password=True)
        raise UnreachableError(
            f"unable to open the ledger at {where}: {_first_line(error)}",
            "see that the folder can be written to, or check LARDER_LEDGER_URL",
        ) from None
    return engine


def _sqlite(url: str) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT})
    path = engine.url.database
    if path:
        make_private(Path(path).parent)
        # SQLite gives its -wal and -shm files the mode of the database itself.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        # sqlite3's own transaction handling would begin transactions as readers that fail when they turn into
        # writers; `begin` below opens them as what they are.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        reads = connection.get_execution_options().get("reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _postgres(url: str) -> sa.Engine:
    parsed = sa.make_url(url).set(drivername="postgresql+psycopg")
    return sa.create_engine(parsed, pool_pre_ping=True, pool_size=2, connect_args={"connect_timeout": 10})


def _migrate(engine: sa.Engine, revision: str) -> None:
    if _revision(engine) == revision:
        return
    with _migration_lock(engine):
        if _revision(engine) == revision:
            return
        from alembic import command  # noqa: PLC0415 - slow to import, and needed once in a ledger's life
        from alembic.config import Config  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)


def _revision(engine: sa.Engine) -> str | None:
    with engine.connect().execution_options(reads=True) as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        return found


@contextmanager
def _migration_lock(engine: sa.Engine) -> Iterator[None]:
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_lock(_ADVISORY_LOCK)))
            try:
                yield
            finally:
                connection.execute(sa.select(sa.func.pg_advisory_unlock(_ADVISORY_LOCK)))
        return
    descriptor = os.open(f"{engine.url.database}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _first_line(error: sa.exc.DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0].lower() if error.orig else "no connection"
