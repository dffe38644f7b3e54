"""A PostgreSQL backup built beside the live database, under a name of its own, and put in its place at the end."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
from psycopg import sql
from pydantic import SecretStr

from larder.databases import (
    _postgres_build,
    _postgres_client,
    _postgres_examine,
    _postgres_facts,
    _postgres_load,
    _postgres_parallel,
    _postgres_swap,
    _postgres_target,
)
from larder.databases._postgres_connection import (
    child_conninfo,
    connect,
    with_database,
)
from larder.databases._postgres_facts import Facts
from larder.databases._postgres_load import Script, explained
from larder.databases._postgres_loaders import application, loading_environment, loading_options
from larder.databases._postgres_parallel import OneSessionError
from larder.databases._postgres_snapshot import trouble
from larder.databases._postgres_target import (
    beside,
    connect_beside,
    maintenance,
    version_of,
)
from larder.errors import LarderError
from larder.pipes import ReadAhead
from larder.process import Process
from larder.progress import Progress, human_seconds
from larder.restoring import Content, Kept, Restorer, Source, Target
from larder.streams import chunks

#: What may not end our own sessions.
_PATIENT = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")

#: Whether the server works for us: not while it waits for a lock, for us, or for a standby.
_AT_WORK = """
    SELECT count(*) FILTER (WHERE state = 'active' AND coalesce(wait_event_type NOT IN ('Lock', 'Client'), true)
                            AND wait_event IS DISTINCT FROM 'SyncRep'), pg_database_size(%(database)s::name)
    FROM pg_stat_activity WHERE datname = %(database)s AND application_name = %(application)s
"""

#: In the run's scratch folder: which databases were about to be exchanged.
_NOTE = "swap.json"

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


class PostgresRestorer(Restorer):
    """Modes `swap` and `new`."""

    @property
    def live(self) -> str:
        """The target's name on its server."""
        return _postgres_target.name_of(self.settings)

    @property
    def scratch(self) -> str:
        """The name of the database that is built."""
        return beside(self.live, f"__restore_{self.plan.id}")

    def look(self) -> Target:
        """See the contract."""
        return _postgres_target.look(self.settings)

    def refusals(self, source: Source, target: Target) -> list[LarderError]:
        """See the contract."""
        return _postgres_target.refusals(self.settings, self.plan, source, target)

    def load(self, content: Content, progress: Progress, say: Callable[[str], None]) -> list[str]:
        """See the contract."""
        try:
            with self._server() as connection:
                source, plan = content.source, self.plan
                warnings = _postgres_build.make_roles(connection, self.name, plan, source)
                facts, more = _postgres_build.facts_for(connection, self.live, source)
                warnings += more
                warnings += self._create(connection, facts)
                say(f"Restoring into database {self.scratch}...")
                warnings += self.fill(connection, content, progress, say)
                self._analyze(connection, source, warnings, say)
                comment = f"Larder's restore {plan.id}"
                warnings += _postgres_build.finish(connection, self.scratch, facts, comment)
        except BaseException:
            # The connection may be what was lost.
            with contextlib.suppress(LarderError):
                self.drop_new()
            raise
        return warnings

    def fill(
        self, connection: psycopg.Connection, content: Content, progress: Progress, say: Callable[[str], None]
    ) -> list[str]:
        """Load all of `content` into the empty database `scratch`; `connection` is to another. Gives warnings."""
        source, doing = content.source, f"unable to restore database '{self.name}'"
        client = _postgres_client.choose_loader(
            version_of(connection), source.tool, self.settings.postgres_bin
        )
        environment = loading_environment(connection, self.scratch, self.plan.id, self.settings.jobs)
        script = Script(
            doing,
            client.program("psql"),
            environment,
            child_conninfo(connection),
            stall_seconds=self.settings.stall_timeout,
            moved=self._activity(connection, source, None),
        )
        if content.folder is None:
            say(f"Using {client.name()} for PostgreSQL {version_of(connection)}")
            self._load_stream(connection, content, progress, say, script)
            return []
        argv = [client.program("pg_restore"), "--exit-on-error", "--no-password"]
        say(f"Using {client.name('pg_restore')} for PostgreSQL {version_of(connection)}")
        if client.major >= _postgres_load.SETS_NEWER_FROM > connection.info.server_version // 10000:
            # It would set what this server does not know, and stop there.
            with (
                explained(doing),
                Process(
                    [*argv, "--file=-", str(content.folder)], stall_seconds=self.settings.stall_timeout
                ) as process,
            ):
                script.run(_postgres_load.for_server(_whole(process, progress), version_of(connection)))
            return []
        jobs = [f"--jobs={self.settings.jobs}", f"--dbname={child_conninfo(connection)}"]
        with (
            explained(doing),
            Process(
                [*argv, *jobs, str(content.folder)],
                environment,
                stall_seconds=self.settings.stall_timeout,
                output=False,
                moved=self._activity(connection, source, progress),
                # It ends the processes that it loads with.
                death_signal=signal.SIGTERM,
            ) as process,
        ):
            process.finish()
        return []

    def _load_stream(
        self,
        connection: psycopg.Connection,
        content: Content,
        progress: Progress,
        say: Callable[[str], None],
        script: Script,
    ) -> None:
        """Load a plain dump, with several sessions where that can be, into the empty database."""
        version = version_of(connection)
        if self.settings.jobs > 1:
            try:
                self._load_beside(connection, content, progress, script)
                return
            except OneSessionError as reason:
                say(f"Loading anew, with one session: {reason}")
            facts, _ = _postgres_build.facts_for(connection, self.live, content.source)
            self._create(connection, facts)
            progress.restart(progress.total)
        stream = _postgres_load.checked(content, progress)
        script.run(_postgres_load.for_server(stream, version))

    def _load_beside(
        self, connection: psycopg.Connection, content: Content, progress: Progress, script: Script
    ) -> None:
        """Load a plain dump with several sessions. Raises `OneSessionError` where that cannot be."""
        options = loading_options(connection, self.settings.jobs)
        if not options:
            raise OneSessionError("a pooler is between this machine and the server")
        given = {"application_name": application(self.plan.id)}
        given |= dict(option.split("=", 1) for option in options)
        if connection.info.server_version >= 140000:
            given["idle_session_timeout"] = "0"

        def session() -> psycopg.Connection:
            made = connect(self.name, self._url_of(self.scratch))
            try:
                for name, value in given.items():
                    made.execute("SELECT set_config(%s, %s, false)", [name, value])
            except BaseException:
                made.close()
                raise
            return made

        # Decoding and hashing is as much work as cutting.
        with ReadAhead(_postgres_load.checked(content, Progress()), depth=4) as ahead:
            stream = _postgres_load.for_server(_counted(ahead, progress), version_of(connection))
            _postgres_parallel.load(script, stream, session, self.settings.jobs)

    def examine(self, content: Content, progress: Progress) -> list[str]:
        """See the contract."""
        progress.restart()
        return _postgres_examine.examine(
            self.name,
            lambda: connect(self.name, self._url_of(self.scratch)),
            content.source.fingerprint,
            self.settings.checks,
            self.settings.jobs,
            self.settings.stall_timeout,
        )

    def new_url(self) -> SecretStr:
        """See the contract."""
        with self._server() as connection:
            built = _postgres_facts.read(connection, self.scratch) is not None
        return SecretStr(self._url_of(self.scratch)) if built else self.settings.url

    def swap(
        self, content: Content, stamp: str, progress: Progress, say: Callable[[str], None]
    ) -> Kept | None:
        """See the contract."""
        del progress  # it takes no time
        with self._server() as connection:
            facts, _ = _postgres_build.facts_for(connection, self.live, content.source)
        kept = beside(self.live, f"__before_{stamp}")
        note = content.scratch / _NOTE
        return _postgres_swap.exchange(
            self.connect,
            self.live,
            self.scratch,
            kept,
            facts,
            say,
            note,
            may_replace=self.plan.may_replace,
        )

    def swapped(self, stamp: str, scratch: Path) -> tuple[bool, Kept | None]:
        """See the contract."""
        return _postgres_swap.exchanged(
            self.connect,
            self.live,
            self.scratch,
            beside(self.live, f"__before_{stamp}"),
            scratch / _NOTE,
            may_replace=self.plan.may_replace,
        )

    def drop_new(self) -> bool:
        """See the contract."""
        with self._server() as connection:
            return self._drop(connection)

    def undo(self, kept: Kept, stamp: str, say: Callable[[str], None]) -> Kept:
        """See the contract."""
        return _postgres_swap.put_back(
            self.connect, self.live, kept, beside(self.live, f"__undone_{stamp}"), say
        )

    def drop_kept(self, kept: Kept) -> bool:
        """See the contract."""
        return _postgres_swap.drop(self.connect, kept)

    def connect(self) -> psycopg.Connection:
        """Connect to another database of the target's server."""
        return connect_beside(self.settings)

    def _url_of(self, name: str) -> str:
        return with_database(self.settings.url.get_secret_value(), name)

    @contextlib.contextmanager
    def _server(self) -> Iterator[psycopg.Connection]:
        """A connection to another database, whose errors are told as the operator should read them."""
        with maintenance(self.settings) as connection:
            try:
                # It waits, idle, for as long as a load takes.
                for setting in _PATIENT:
                    connection.execute(f"SET {setting} = 0".encode())
                if connection.info.server_version >= 140000:
                    connection.execute("SET idle_session_timeout = 0")
                yield connection
            except psycopg.Error as error:
                hint = "restore with the role that owns the database, or with a superuser"
                raise trouble(self.name, "unable to restore database", error, hint) from None

    def _create(self, connection: psycopg.Connection, facts: Facts | None) -> list[str]:
        """Make the database that is built, empty, whatever there was by its name; gives warnings."""
        self._drop(connection)
        elsewhere = _postgres_facts.read(connection, self.live) is None
        return _postgres_build.create_private(connection, self.scratch, facts, elsewhere=elsewhere)

    def _activity(
        self, connection: psycopg.Connection, source: Source, progress: Progress | None
    ) -> Activity:
        """What keeps a long load alive; `progress` is told of the database's growth, as bytes of the backup."""
        needs = _postgres_facts.needs(source.fingerprint)
        whole = max(needs.size if needs else 0, 1)

        def told(size: int) -> None:
            if progress is not None:
                progress.reach(min(source.raw_size, size * source.raw_size // whole))

        return Activity(self.name, connection, self.scratch, application(self.plan.id), told)

    def _drop(self, connection: psycopg.Connection) -> bool:
        if _postgres_facts.read(connection, self.scratch) is None:
            return False
        connection.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self.scratch))
        )
        return True

    def _analyze(
        self, connection: psycopg.Connection, source: Source, warnings: list[str], say: Callable[[str], None]
    ) -> None:
        """Gather what the planner goes by, which no dump of today holds: without, the first hours are slow."""
        client = _postgres_client.choose_loader(
            version_of(connection), source.tool, self.settings.postgres_bin
        )
        began = time.monotonic()
        argv = [client.program("vacuumdb"), "--analyze-only", "--quiet", "--no-password"]
        argv += [f"--jobs={self.settings.jobs}", f"--dbname={child_conninfo(connection)}"]
        try:
            with (
                explained(f"unable to analyze database '{self.name}'"),
                Process(
                    argv,
                    loading_environment(connection, self.scratch, self.plan.id),
                    stall_seconds=self.settings.stall_timeout,
                    output=False,
                    moved=self._activity(connection, source, None),
                ) as process,
            ):
                process.finish()
        except LarderError as error:
            # It can be done at any time.
            warnings.append(f"{error.message}: run ANALYZE in it after the swap")
        else:
            say(f"Gathered statistics in {human_seconds(time.monotonic() - began)}")


def _counted(ahead: ReadAhead, progress: Progress) -> Iterator[bytes]:
    # It has what `chunks` asks of a file.
    for data in chunks(ahead):  # type: ignore[arg-type]
        progress.add(len(data))
        yield data


def _whole(process: Process, progress: Progress) -> Iterator[bytes]:
    """What a program writes, which has to end well."""
    for data in process.output():
        progress.add(len(data))
        yield data
    process.finish()
