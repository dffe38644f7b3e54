"""Chosen tables of a PostgreSQL backup, in a database of their own: with their rows, and what they need to be there.

All definitions that come before rows are restored; then the tables that nobody asked for are dropped again, so that
PostgreSQL itself says what goes with them. Rows, indexes and constraints follow for the chosen ones alone.
"""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from larder.databases import (
    _postgres_client,
    _postgres_examine,
    _postgres_facts,
    _postgres_load,
    _postgres_target,
    _postgres_toc,
    _postgres_trim,
)
from larder.databases._postgres_activity import Activity, growth
from larder.databases._postgres_connection import child_conninfo, connect
from larder.databases._postgres_examine import Table
from larder.databases._postgres_load import Script, explained
from larder.databases._postgres_loaders import loading_environment
from larder.databases._postgres_restore import PostgresRestorer
from larder.databases._postgres_snapshot import trouble
from larder.databases._postgres_target import version_of
from larder.databases._postgres_toc import Entry
from larder.databases._postgres_trim import Relation
from larder.errors import ExhaustedError, LarderError, RefusedError
from larder.process import Process
from larder.progress import Progress, human_size
from larder.restoring import Content, Source, Target
from larder.spool import disk_error
from larder.streams import durable_file

Say = Callable[[str], None]


class PostgresSelection(PostgresRestorer):
    """Mode `new` with chosen tables or schemas; in mode `swap` it only refuses."""

    #: How many times over the chosen tables lie on the server's disk meanwhile.
    copies = 1

    def refusals(self, source: Source, target: Target) -> list[LarderError]:
        """See the contract. A pattern that means no table of the fingerprint is one."""
        found = super().refusals(source, replace(target, free=None))
        doing = f"unable to restore into database '{self.name}'"
        if self.plan.mode == "swap":
            hint = "use mode schema, and copy rows from there; or mode new"
            found.append(
                RefusedError(f"{doing}: mode swap replaces all of it, by a part of the backup", hint)
            )
        if source.engine != self.settings.engine:
            return found
        names = [name for name in _postgres_examine.expected(source.fingerprint) if name[0]]
        # A partitioned table has no rows of its own: a fingerprint has its partitions only.
        found += _postgres_trim.unmatched(
            self.plan, [*names, *_perhaps_partitioned(self.plan.tables, names)], doing
        )
        size = self.copies * _share(source, self._wanted(source.fingerprint, set()))
        if target.free is not None and size > target.free:
            found.append(
                ExhaustedError(
                    f"{doing}: it takes about {human_size(size)}, and {human_size(target.free)} are free on the server",
                    "free some space on the database server's disk",
                )
            )
        return found

    def fill(
        self, connection: psycopg.Connection, content: Content, progress: Progress, say: Say
    ) -> list[str]:
        """Load what is chosen of `content` into the empty database `scratch`. Gives warnings."""
        doing = f"unable to restore database '{self.name}'"
        loader = _Loader(self, doing, connection, content, progress)
        say(f"Using {loader.client.name('pg_restore')} for PostgreSQL {version_of(connection)}")
        entries = _postgres_toc.parse(loader.listing())
        apart = _postgres_toc.left_out(entries, set(), set())
        loader.run("pre-data", [entry for entry in entries if entry.id not in apart])
        with self.built() as scratch:
            encoding = self._encoding(content.source)
            before = _postgres_trim.read(scratch, encoding)
            warnings = _postgres_trim.trim(scratch, self.plan, before, doing)
            out, more = self._left_out(scratch, entries, before, _postgres_trim.read(scratch, encoding))
        if any(entry.is_large_object for entry in entries):
            more.append("large objects are left out: they belong to no table")
        if self.settings.checks:
            more.append("the checks are not run: they may ask for what is not chosen")
        wanted = [entry for entry in entries if entry.id not in out]
        loader.run("data", wanted)
        loader.run("post-data", wanted)
        return warnings + more

    def examine(self, content: Content, progress: Progress) -> list[str]:
        """See the contract: the chosen tables are compared, all others have to be absent, `checks` are not run."""
        progress.restart()
        with self.built() as scratch:
            relations = _postgres_trim.read(scratch, self._encoding(content.source))
            # By name, or by what they inherit from, which only a database knows.
            oids = _postgres_trim.chosen(scratch, self.plan, relations)
        wanted = self._wanted(
            content.source.fingerprint, {found.name for found in relations if found.oid in oids}
        )
        return _postgres_examine.examine(
            self.name,
            lambda: connect(self.name, self._url_of(self.scratch)),
            {**content.source.fingerprint, "tables": wanted},
            (),
            self.settings.jobs,
            self.settings.stall_timeout,
        )

    @contextlib.contextmanager
    def built(self) -> Iterator[psycopg.Connection]:
        """A connection to the database that is built, whose errors are told as the operator should read them."""
        with contextlib.closing(connect(self.name, self._url_of(self.scratch))) as connection:
            try:
                for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
                    connection.execute(f"SET {setting} = 0".encode())
                if connection.info.server_version >= 140000:
                    connection.execute("SET idle_session_timeout = 0")
                connection.execute("SET synchronous_commit = off")
                connection.execute("SET client_min_messages = warning")
                yield connection
            except psycopg.Error as error:
                hint = "restore with the role that owned the database, or with a superuser"
                raise trouble(self.name, "unable to restore database", error, hint) from None

    def activity(
        self, connection: psycopg.Connection, source: Source, progress: Progress | None = None
    ) -> Activity:
        """What keeps a long load alive."""
        return growth(self.name, connection, self.scratch, self.plan.id, source, progress)

    def _wanted(self, fingerprint: Mapping[str, Any], also: set[Table]) -> dict[str, Any]:
        """The tables of a fingerprint that are chosen by name, or are among `also`."""
        found = {}
        for name, rows in fingerprint.get("tables", {}).items():
            table = _postgres_examine.table(name)
            if table is not None and (table in also or _postgres_trim.is_chosen(self.plan, table)):
                found[name] = rows
        return found

    def _encoding(self, source: Source) -> str:
        needs = _postgres_facts.needs(source.fingerprint)
        return needs.facts.encoding if needs else "UTF8"

    def _left_out(
        self, scratch: psycopg.Connection, entries: list[Entry], before: list[Relation], after: list[Relation]
    ) -> tuple[set[int], list[str]]:
        """The entries that cannot come, or are not chosen; and warnings."""
        named = _postgres_toc.relations(entries, [found.named for found in before])
        left = {found.named for found in after}
        kept = {id_ for id_, found in named.items() if found in left}
        if missing := left - {named[id_] for id_ in kept}:
            raise LarderError(
                f"unable to restore database '{self.name}': the backup's list has no entry of its own for "
                + _postgres_target.listed(sorted(found.name for found in missing)),
                "restore all of it with mode new",
            )
        out = _postgres_toc.left_out(entries, named.keys() - kept, kept)
        hollow = {named[id_] for id_ in _postgres_toc.hollow_views(entries, out, kept)}
        if hollow:
            _postgres_trim.drop(scratch, [found for found in after if found.named in hollow])
            kept = {id_ for id_ in kept if named[id_] not in hollow}
            out = _postgres_toc.left_out(entries, named.keys() - kept, kept)
        return out, _postgres_toc.told(entries, out, named, kept)


@dataclass
class _Loader:
    """pg_restore at work on parts of one folder."""

    restorer: PostgresSelection
    doing: str
    connection: psycopg.Connection
    content: Content
    progress: Progress

    @property
    def client(self) -> _postgres_client.Client:
        """The programs that read the folder."""
        return _postgres_client.choose_loader(
            version_of(self.connection), self.content.source.tool, self.restorer.settings.postgres_bin
        )

    @property
    def folder(self) -> Path:
        """Where the backup lies."""
        if self.content.folder is None:
            raise RefusedError(f"{self.doing}: the backup is one SQL script, of which no part can be taken")
        return self.content.folder

    def listing(self) -> bytes:
        """The table of contents, with what each entry depends on."""
        argv = [self.client.program("pg_restore"), "--list", "--verbose", str(self.folder)]
        with explained(self.doing), Process(argv, stall_seconds=self._patience) as process:
            listing = b"".join(process.output())
            process.finish()
        return listing

    def run(self, section: str, entries: Iterable[Entry]) -> None:
        """Restore those of `entries` that are in a section: `pre-data`, `data` or `post-data`."""
        chosen = self._write(section, entries)
        argv = [self.client.program("pg_restore"), "--exit-on-error", "--no-password"]
        argv += [f"--section={section}", f"--use-list={chosen}", str(self.folder)]
        restorer, source = self.restorer, self.content.source
        environment = loading_environment(
            self.connection, restorer.scratch, restorer.plan.id, restorer.settings.jobs
        )
        if self.client.major >= _postgres_load.SETS_NEWER_FROM > self.connection.info.server_version // 10000:
            # It would set what this server does not know, and stop there.
            self._run_as_script([*argv, "--file=-"], environment)
            return
        argv += [f"--jobs={restorer.settings.jobs}", f"--dbname={child_conninfo(self.connection)}"]
        told = self.progress if section == "data" else None
        with (
            explained(self.doing),
            Process(
                argv,
                environment,
                stall_seconds=self._patience,
                output=False,
                moved=restorer.activity(self.connection, source, told),
                # It ends the processes that it loads with.
                death_signal=signal.SIGTERM,
            ) as process,
        ):
            process.finish()

    def _run_as_script(self, argv: list[str], environment: Mapping[str, str]) -> None:
        script = Script(
            self.doing,
            self.client.program("psql"),
            environment,
            child_conninfo(self.connection),
            stall_seconds=self._patience,
            moved=self.restorer.activity(self.connection, self.content.source),
        )
        with explained(self.doing), Process(argv, stall_seconds=self._patience) as process:
            script.run(_postgres_load.for_server(output_of(process), version_of(self.connection)))

    def _write(self, section: str, entries: Iterable[Entry]) -> Path:
        path = self.content.scratch / f"{section}.list"
        try:
            with durable_file(path) as file:
                file.write(b"".join(b"%d;\n" % entry.id for entry in entries))
        except OSError as error:
            raise disk_error(error, self.content.scratch) from error
        return path

    @property
    def _patience(self) -> float:
        return self.restorer.settings.stall_timeout


def output_of(process: Process) -> Iterator[bytes]:
    """What a program writes, which has to end well."""
    yield from process.output()
    process.finish()


def _perhaps_partitioned(patterns: Iterable[str], names: list[Table]) -> list[Table]:
    """The tables that `patterns` name and a fingerprint lacks, where it has what their partitions may be called."""
    found = []
    for pattern in patterns:
        schema, _, table = pattern.rpartition(".")
        if re.search(r"[*?\[]", pattern) is None and any(
            re.fullmatch(re.escape(table) + r"(?:_|-|\.|\d).*", name, re.DOTALL) for _, name in names
        ):
            found.append((schema, table))
    return found


def _share(source: Source, wanted: Mapping[str, Any]) -> int:
    """About how many bytes the chosen tables take up, by their rows; 0 where nobody has counted."""
    needs = _postgres_facts.needs(source.fingerprint)
    rows = sum(found.get("rows") or 0 for found in source.fingerprint.get("tables", {}).values())
    part = sum(found.get("rows") or 0 for found in wanted.values())
    return ((needs.size if needs else 0) or source.raw_size) * part // rows if rows else 0
