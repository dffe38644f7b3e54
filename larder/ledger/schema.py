"""Opening the ledger's database, and bringing its tables up to date.

Any number of processes may start at once: one of them migrates, the others wait for it. On SQLite they wait at a
file lock beside the ledger, on PostgreSQL at an advisory lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import event

from larder.errors import ConfigurationError, LarderError, RefusedError, UnreachableError
from larder.spool import disk_error, make_private

#: The newest revision in `migrations/versions`; a test holds the two together.
HEAD = "0009"

#: Seconds to wait for another process that is writing.
BUSY_TIMEOUT = 30

#: Seconds after which PostgreSQL ends a transaction in which nothing happens: whoever began it was stopped on the way,
#: with its machine or without, and holds locks that all others wait for. Nobody tells people for as long.
FROZEN = 120

#: A connection is taken for dead two minutes after the server's machine was last heard of, also where it has not
#: acknowledged what was sent (that limit is in milliseconds).
_KEEPALIVES = {
    "keepalives_idle": 60,
    "keepalives_interval": 10,
    "keepalives_count": 6,
    "tcp_user_timeout": 120_000,
}

#: PostgreSQL's code for it: https://www.postgresql.org/docs/current/errcodes-appendix.html
_IDLE_IN_TRANSACTION = "25P03"

#: Any number that no other user of the same PostgreSQL takes for its own lock: "larder" in ASCII.
_ADVISORY_LOCK = int.from_bytes(b"larder")

#: A file for each revision, whose name begins with it.
_VERSIONS = Path(__file__).parent / "migrations" / "versions"

_CURE = "check LARDER_LEDGER_URL: postgresql://… or sqlite:///…"


def open_engine(url: str, revision: str = HEAD) -> sa.Engine:
    """A ledger at `url` (`sqlite:///…` or `postgresql://…`), migrated to `revision`.

    Raises `UnreachableError`, `RefusedError` where what is there is no ledger or may not be used, `ConfigurationError`
    where `url` leads nowhere, and `ExhaustedError` for a full disk.
    """
    with _told(url):
        engine = _sqlite(url) if url.startswith("sqlite") else _postgres(url)
        try:
            if engine.dialect.name == "sqlite":
                # The first connection changes how a new file keeps its journal. Of several who do that at a time, all
                # but one are told at once that it is locked, however long they would wait.
                with _migration_lock(engine):
                    engine.connect().close()
            _migrate(engine, revision)
        except BaseException:
            engine.dispose()
            raise
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
        statement = "BEGIN" if connection.get_execution_options().get("reads") else "BEGIN IMMEDIATE"
        try:
            # By the driver: SQLAlchemy's own way takes as long as the rest of a transaction's frame.
            cast(sqlite3.Connection, connection.connection.dbapi_connection).execute(statement)
        except sqlite3.Error as error:
            raise sa.exc.DBAPIError.instance(statement, None, error, sqlite3.Error) from error

    return engine


def _postgres(url: str) -> sa.Engine:
    parsed = sa.make_url(url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(
        parsed, pool_pre_ping=True, pool_size=2, connect_args={"connect_timeout": 10, **_KEEPALIVES}
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('lock_timeout', %s, false),"
                " set_config('idle_in_transaction_session_timeout', %s, false)",
                [f"{BUSY_TIMEOUT}s", f"{FROZEN}s"],
            )
        connection.commit()

    @event.listens_for(engine, "handle_error")
    def _ended(context: sa.engine.ExceptionContext) -> None:
        # The driver files it under the server's own faults; to whoever was stopped the ledger was away, and is back.
        error = context.original_exception
        if getattr(error, "sqlstate", None) == _IDLE_IN_TRANSACTION:
            raise sa.exc.OperationalError(context.statement, None, error) from error

    return engine


def _migrate(engine: sa.Engine, revision: str) -> None:
    found = _revision(engine)
    if found == revision:
        return
    if found is not None and not any(_VERSIONS.glob(f"{found}_*.py")):
        raise ConfigurationError(
            f"unable to use the ledger: its tables are of revision '{found}', which this version does not know",
            f"use the version of Larder that made it, or a later one; or, where it is another program's, {_CURE}",
        )
    with _migration_lock(engine):
        if _revision(engine) == revision:
            return
        from alembic import command  # noqa: PLC0415 - slow to import, and needed once in a ledger's life
        from alembic.config import Config  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(_VERSIONS.parent))
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
        with engine.begin() as connection:
            # A ledger of years takes its time, and whoever waits for that does nothing meanwhile.
            for patience in ("lock_timeout", "idle_in_transaction_session_timeout"):
                connection.execute(sa.select(sa.func.set_config(patience, "0", True)))
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            yield
        return
    descriptor = os.open(f"{engine.url.database}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Turn what the driver and the system say into what the operator should read."""
    try:
        yield
    except (sa.exc.SQLAlchemyError, OSError, ValueError) as error:
        raise _plain(url, error) from None


def _plain(url: str, error: Exception) -> LarderError:
    """What the operator should read where the ledger at `url` cannot be opened."""
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        return ConfigurationError("unable to open the ledger: its address cannot be read", _CURE)
    what = f"unable to open the ledger at {parsed.render_as_string(hide_password=True)}"
    if isinstance(error, OSError):
        return _of_disk(what, error, Path(parsed.database or "."))
    if not isinstance(error, sa.exc.DBAPIError):
        return ConfigurationError(f"{what}: its parameters cannot be used", _CURE)
    what = f"{what}: {_first_line(error)}"
    if isinstance(error, sa.exc.OperationalError):
        return UnreachableError(what, f"see that the folder can be written to, or {_CURE}")
    if isinstance(error, sa.exc.ProgrammingError) and getattr(error.orig, "sqlstate", "") is None:
        # The driver's own word; what a server refuses has a code.
        return ConfigurationError(what, _CURE)
    return RefusedError(
        what, f"see whether it is Larder's ledger, and what this user may do there; or {_CURE}"
    )


def _of_disk(what: str, error: OSError, path: Path) -> LarderError:
    reason = f"{what}: {(error.strerror or str(error)).lower()}"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return RefusedError(reason, "see who owns the file, and whether its disk is mounted read-only")
    if isinstance(error, IsADirectoryError | NotADirectoryError | FileNotFoundError):
        return ConfigurationError(reason, _CURE)
    return disk_error(error, path.parent)


def _first_line(error: sa.exc.DBAPIError) -> str:
    return next(iter(str(error.orig or "").strip().splitlines()), "no connection").lower()
