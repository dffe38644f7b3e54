"""A PostgreSQL backup built beside the live database, under a name of its own, and put in its place at the end."""

from __future__ import annotations

import contextlib
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
    _postgres_swap,
    _postgres_target,
)
from larder.databases._postgres_activity import growth
from larder.databases._postgres_connection import (
    child_conninfo,
    connect,
    with_database,
)
from larder.databases._postgres_facts import Facts
from larder.databases._postgres_filling import Filling
from larder.databases._postgres_load import explained
from larder.databases._postgres_loaders import loading_environment
from larder.databases._postgres_snapshot import trouble
from larder.databases._postgres_target import (
    beside,
    connect_beside,
    maintenance,
    version_of,
)
from larder.errors import LarderError
from larder.process import Process
from larder.progress import Progress, human_seconds
from larder.restoring import Content, Kept, Restorer, Source, Target

#: What may not end our own sessions.
_PATIENT = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")

#: In the run's scratch folder: which databases were about to be exchanged.
_NOTE = "swap.json"


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
        client = _postgres_client.choose_loader(
            version_of(connection), content.source.tool, self.settings.postgres_bin
        )
        program = "psql" if content.folder is None else "pg_restore"
        say(f"Using {client.name(program)} for PostgreSQL {version_of(connection)}")

        def empty() -> None:
            self._create(connection, _postgres_build.facts_for(connection, self.live, content.source)[0])
            progress.restart(progress.total)

        Filling(
            self.settings, self.plan.id, connection, self.scratch, client, content, progress, say, empty
        ).run()
        return []

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
                    moved=growth(self.name, connection, self.scratch, self.plan.id, source, None),
                ) as process,
            ):
                process.finish()
        except LarderError as error:
            # It can be done at any time.
            warnings.append(f"{error.message}: run ANALYZE in it after the swap")
        else:
            say(f"Gathered statistics in {human_seconds(time.monotonic() - began)}")
