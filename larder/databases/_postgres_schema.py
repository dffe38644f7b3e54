"""Chosen tables of a PostgreSQL backup, in schemas of their own in the live database, where rows can be copied from.

They are built and examined in a database beside it, moved into schemas of new names there, and brought over in one
transaction that only adds. What is live is not touched: what a restored table needs in its own schema (types,
functions) comes with it, as a copy.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from larder.databases import _postgres_apart, _postgres_client, _postgres_examine, _postgres_facts
from larder.databases._postgres_activity import Activity
from larder.databases._postgres_connection import child_conninfo, child_environment, connect
from larder.databases._postgres_examine import Table, shown
from larder.databases._postgres_load import Script, explained, for_server
from larder.databases._postgres_loaders import application, loading_environment
from larder.databases._postgres_selection import PostgresSelection, output_of
from larder.databases._postgres_snapshot import trouble
from larder.databases._postgres_target import listed, version_of
from larder.errors import BusyError, HeldError, IntegrityError, LarderError, RefusedError
from larder.process import Process
from larder.progress import Progress
from larder.restoring import Content, Kept, Source, Target

Say = Callable[[str], None]

#: Seconds that a session may take to end.
_PATIENCE = 30

#: How many tables are told one by one.
_TOLD = 20

_OURS = "FROM pg_stat_activity WHERE application_name = %s AND pid <> pg_backend_pid()"
_RIGHTS = """
    SELECT rolsuper OR rolcreatedb, has_database_privilege(current_database(), 'CREATE')
    FROM pg_roles WHERE rolname = current_user
"""
_SCHEMAS_OF = "SELECT nspname FROM pg_namespace WHERE nspname = ANY (%s) ORDER BY 1"


class PostgresSchema(PostgresSelection):
    """Mode `schema`. Nothing is replaced, so nothing is kept, and there is nothing to undo."""

    copies = 2

    def refusals(self, source: Source, target: Target) -> list[LarderError]:
        """See the contract."""
        found = super().refusals(source, target)
        doing = f"unable to restore into database '{self.name}'"
        if not self.plan.selective:
            hint = "choose some with --table NAME or --schema NAME, or use another mode"
            found.append(RefusedError(f"{doing}: mode schema brings chosen tables, and none is chosen", hint))
        if target.exists:
            with self._live() as connection:
                row = connection.execute(_RIGHTS).fetchone() or (False, False)
                role = connection.info.user
            if not row[0]:
                found.append(
                    RefusedError(
                        f"{doing}: role '{role}' may not create databases, and tables are built in one of their own",
                        f"ALTER ROLE {role} CREATEDB",
                    )
                )
            if not row[1]:
                found.append(
                    RefusedError(
                        f"{doing}: role '{role}' may not create schemas in it", "GRANT CREATE ON DATABASE …"
                    )
                )
        return found

    def swap(self, content: Content, stamp: str, progress: Progress, say: Say) -> Kept | None:
        """Bring the chosen tables over, as `<schema>_restored_<stamp>`; gives None. Done already: the same.

        Raises `RefusedError` where the live database lacks what they need, or has a schema of such a name already.
        """
        failed = None
        with self._live() as live:
            # Then the outcome of an earlier attempt is known: all of its schemas are there, or none.
            self._end_ours(live)
            if not _postgres_apart.ours(live, self.plan):
                try:
                    failed = self._bring(live, content, stamp, progress, say)
                finally:
                    with contextlib.suppress(psycopg.Error, LarderError):
                        self._end_ours(live)
        with self._live() as live:
            made = _postgres_apart.ours(live, self.plan)
            if failed is not None and not made:
                raise failed
            brought = _postgres_apart.tables(live, made)
        for new, table in brought[:_TOLD]:
            say(f"Restored {shown((made[new], table))} as {shown((new, table))}")
        if len(brought) > _TOLD:
            say(f"Restored {len(brought)} tables in all, into {listed(list(made))}")
        self.drop_new()
        return None

    def swapped(self, stamp: str, scratch: Path) -> tuple[bool, Kept | None]:
        """See the contract: whether its schemas are there, which somebody may have dropped since."""
        del stamp, scratch
        with self._live() as live:
            # In this order: they may end, and be there, just between the two.
            busy = live.execute(f"SELECT {_OURS}", [application(self.plan.id)]).rowcount
            made = bool(_postgres_apart.ours(live, self.plan))
        if busy and not made:
            raise HeldError(
                f"unable to tell what became of the restore into database '{self.name}': its session is at work",
                "wait until it has ended",
            )
        return made, None

    def undo(self, kept: Kept, stamp: str, say: Say) -> Kept:
        """Raises `RefusedError`: nothing was replaced."""
        del kept, stamp, say
        raise RefusedError(
            f"unable to undo the restore into database '{self.name}': it has replaced nothing",
            "DROP SCHEMA … CASCADE removes what it has brought",
        )

    def drop_kept(self, kept: Kept) -> bool:
        """Nothing was kept."""
        del kept
        return False

    def _bring(
        self, live: psycopg.Connection, content: Content, stamp: str, progress: Progress, say: Say
    ) -> LarderError | None:
        """Do it; gives the error after which nobody knows whether it was committed."""
        doing = f"unable to restore into database '{self.name}'"
        with self._server() as connection:
            if _postgres_facts.read(connection, self.scratch) is None:
                raise LarderError(f"{doing}: what was loaded, database '{self.scratch}', is gone")
        with self.built() as scratch:
            whole = [
                name
                for (name,) in scratch.execute("SELECT nspname FROM pg_namespace").fetchall()
                if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.plan.schemas)
            ]
            names = _postgres_apart.move(scratch, self.plan, stamp, whole)
            needed = _postgres_apart.elsewhere(scratch, names)
            tables = _postgres_apart.tables(scratch, names)
            self._refuse_hindrances(doing, live, names, needed)
            say(f"Adding {listed(list(names))} to database '{self.live}', in one transaction...")
            progress.restart()
            return self._carry_over(
                doing, scratch, live, names, self._rows(content.source, names, tables), progress
            )

    def _refuse_hindrances(
        self,
        doing: str,
        live: psycopg.Connection,
        names: Mapping[str, str],
        needed: list[_postgres_apart.Needed],
    ) -> None:
        taken = [str(name) for (name,) in live.execute(_SCHEMAS_OF, [list(names)]).fetchall()]
        if taken:
            raise RefusedError(
                f"{doing}: it has a schema {listed(taken)} already", "rename or drop it, and restore again"
            )
        if lacking := _postgres_apart.lacking(live, needed):
            raise RefusedError(
                f"{doing}: the chosen tables need what it does not have: {listed(lacking)}",
                "create it there, or restore into a database of its own: --mode new; nothing has been changed",
            )

    def _rows(self, source: Source, names: Mapping[str, str], tables: list[Table]) -> dict[Table, int | None]:
        """The rows that each table has to have, by the backup's fingerprint."""
        expected = _postgres_examine.expected(source.fingerprint)
        return {(schema, table): expected.get((names[schema], table)) for schema, table in tables}

    def _carry_over(
        self,
        doing: str,
        scratch: psycopg.Connection,
        live: psycopg.Connection,
        names: Mapping[str, str],
        rows: Mapping[Table, int | None],
        progress: Progress,
    ) -> LarderError | None:
        """pg_dump these schemas, and have psql make them in the live database, in one transaction."""
        version, database = version_of(live), live.info.dbname
        client = _postgres_client.choose(version, self.settings.postgres_bin)
        patterns = ['"' + name.replace('"', '""') + '"' for name in names]
        argv = [
            client.program("pg_dump"),
            "--no-password",
            f"--dbname={child_conninfo(scratch)}",
            "--encoding=UTF8",
        ]
        argv += [f"--schema={pattern}" for pattern in patterns]
        ours = application(self.plan.id)
        script = Script(
            doing,
            client.program("psql"),
            loading_environment(live, database, self.plan.id),
            child_conninfo(live),
            stall_seconds=self.settings.stall_timeout,
            moved=Activity(self.name, live, database, ours),
        )
        counting = [
            sql.SQL("SELECT count(*) FROM ONLY {};").format(sql.Identifier(*table)).as_string(live)
            for table in rows
        ]
        try:
            with (
                explained(doing),
                Process(
                    argv,
                    {**child_environment(scratch), "PGAPPNAME": ours},
                    stall_seconds=self.settings.stall_timeout,
                ) as process,
            ):
                script.run(
                    for_server(_counted(process, progress), version),
                    # Loading need not wait for the disk, and its one COMMIT has to.
                    before=["SET LOCAL synchronous_commit = on;", "SET LOCAL client_min_messages = warning;"],
                    after=["SET LOCAL row_security = off;", *counting],
                    guarded=True,
                    confirm=lambda said: _confirm(doing, said, rows),
                )
        except LarderError as error:
            if not script.committing:
                raise
            return error
        return None

    @contextlib.contextmanager
    def _live(self) -> Iterator[psycopg.Connection]:
        """A connection to the live database, whose errors are told as the operator should read them."""
        with contextlib.closing(connect(self.name, self.settings.url.get_secret_value())) as connection:
            try:
                for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
                    connection.execute(f"SET {setting} = 0".encode())
                if connection.info.server_version >= 140000:
                    connection.execute("SET idle_session_timeout = 0")
                yield connection
            except psycopg.Error as error:
                hint = "restore with the role that owns the database, or with a superuser"
                raise trouble(self.name, "unable to restore into database", error, hint) from None

    def _end_ours(self, connection: psycopg.Connection) -> None:
        """End what an earlier attempt has left on the server, and wait until it is gone."""
        deadline = time.monotonic() + _PATIENCE
        ours = application(self.plan.id)
        while connection.execute(f"SELECT pg_terminate_backend(pid) {_OURS}", [ours]).rowcount:
            if time.monotonic() >= deadline:
                raise BusyError(
                    f"unable to restore into database '{self.name}': an earlier attempt's session does not end",
                    f"see application_name '{ours}' in pg_stat_activity",
                )
            time.sleep(0.05)


def _counted(process: Process, progress: Progress) -> Iterator[bytes]:
    for data in output_of(process):
        progress.add(len(data))
        yield data


def _confirm(doing: str, said: str, rows: Mapping[Table, int | None]) -> None:
    """Raise where what is about to be committed is not what was backed up."""
    found = [int(line) for line in said.splitlines() if re.fullmatch(r"\d+", line)]
    if len(found) != len(rows):
        raise IntegrityError(f"{doing}: psql has not said what it did", "nothing has been changed")
    lines = _postgres_examine.differences(rows, dict(zip(rows, found, strict=True)))
    if lines:
        raise IntegrityError(f"{doing}: {'; '.join(lines)}", "nothing has been changed")
