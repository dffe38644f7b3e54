"""PostgreSQL's scratch database: in a throw-away cluster on this machine, or on the server that `scratch_url` names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from pydantic import SecretStr

from larder.databases import _postgres_client, _postgres_facts, _postgres_proof, _postgres_scratch_note
from larder.databases._postgres_client import Server
from larder.databases._postgres_cluster import Cluster
from larder.databases._postgres_connection import address_in, connect, with_database
from larder.databases._postgres_place import Place, account
from larder.databases._postgres_scratch_note import Note
from larder.databases._postgres_scratch_server import ScratchServer, make_roles, restorer, tag
from larder.databases._postgres_snapshot import trouble
from larder.databases._postgres_target import listed
from larder.drilling import Examination, Scratch
from larder.errors import ConfigurationError, ExhaustedError, LarderError, NotFoundError, RefusedError
from larder.process import Process
from larder.progress import Progress, human_size
from larder.restoring import Content, Source

if TYPE_CHECKING:
    from larder.config import DatabaseSettings

#: How much more a restored database may take up than the one that was dumped; and a cluster beside it, in bytes.
_ROOM = 1.2
_CLUSTER = 200 << 20

#: Locks that a load takes in one transaction: for each table with its indexes, sequences and TOAST; and at least.
_LOCKS_PER_TABLE = 16
_LOCKS = 100_000

#: Sessions beside those that load or count.
_SESSIONS = 20

#: Tablespaces that every cluster has.
_USUAL = {"pg_default", "pg_global"}

#: Seconds that pg_config may take.
_PROBE_SECONDS = 20


class PostgresScratch(Scratch):
    """See the contract. What it takes of the live database's settings is never where that database is."""

    def __init__(self, settings: DatabaseSettings, drill: str, folder: Path) -> None:
        super().__init__(settings, drill, folder)
        self._cluster = Cluster(self.name, Place.of(drill, folder, settings.scratch_dir))
        url = settings.scratch_url
        self._server = ScratchServer(self._settings(url.get_secret_value()), drill) if url else None

    @property
    def database(self) -> str:
        """The scratch database's name on its server."""
        return restorer(self._settings(self._cluster.url), self.drill).scratch

    def refusals(self, source: Source) -> list[LarderError]:
        """See the contract."""
        if self._server is not None:
            return self._server.refusals(source)
        doing = f"unable to drill database '{self.name}'"
        if source.engine != "postgres":
            return [RefusedError(f"{doing}: the backup is of {source.engine}, not of PostgreSQL")]
        found = self._lack_of_space(doing, source)
        try:
            server = self._chosen(source)
            _postgres_client.choose_loader(str(server), source.tool, self.settings.postgres_bin)
        except ConfigurationError as error:
            return [*found, error]
        try:
            found += self._cluster.place.problems(server, account())
        except ConfigurationError as error:
            found.append(error)
        return found + _lack_of_extensions(doing, server, source)

    def load(self, content: Content, progress: Progress, say: Callable[[str], None]) -> list[str]:
        """See the contract."""
        self.drop()
        _postgres_scratch_note.write(self.folder, self._note())
        if self._server is not None:
            return self._server.load(content, progress, say)
        server = self._chosen(content.source)
        say(f"Making a throw-away PostgreSQL {server}...")
        self._cluster.create(server)
        with self._running(server, content.source):
            self._prepare(content.source)
            warnings = restorer(self._settings(self._cluster.url), self.drill).load(content, progress, say)
            with self._connected("postgres") as connection:
                tag(connection, self.database, self.drill)
        return warnings

    def examine(self, content: Content, progress: Progress) -> Examination:
        """See the contract. Raises `NotFoundError` where `load` has not built it, or somebody has removed it."""
        if self._server is not None:
            return self._compared(content.source, progress)
        if not self._cluster.is_there:
            raise NotFoundError(
                f"unable to examine the scratch database of '{self.name}': its cluster is gone",
                "start another drill, and see what cleans up in the folder that scratch_dir names, or the spool",
            )
        with self._running(self._chosen(content.source), content.source):
            return self._compared(content.source, progress)

    def drop(self) -> bool:
        """See the contract. Raises `LarderError` where it was built on another server than is configured now."""
        noted, now = _postgres_scratch_note.read(self.folder), self._note()
        if noted is not None and noted.server not in ("", now.server):
            raise LarderError(
                f"unable to remove the scratch database of '{self.name}': it is database '{self.database}' on "
                f"{noted.server}, where scratch_url no longer leads",
                f"name that server as scratch_url again; or drop it there, and then remove {self.folder.parent}",
            )
        cluster = self._cluster
        if noted is not None and noted.cluster:
            cluster = Cluster(self.name, replace(cluster.place, folder=Path(noted.cluster)))
        found = cluster.remove()
        if self._server is not None and (noted is None or noted.server):
            found |= self._server.drop()
        _postgres_scratch_note.forget(self.folder)
        return found

    def _note(self) -> Note:
        """Where the configuration says that it is to be built."""
        url = self.settings.scratch_url
        if url is None:
            return Note(cluster=str(self._cluster.place.folder))
        return Note(server=address_in(url.get_secret_value()).rpartition("/")[0])

    def _settings(self, url: str) -> DatabaseSettings:
        """Those of the database with `url`'s server in the place of its own, and a name of its own in messages."""
        given = {
            "url": SecretStr(with_database(url, f"drill_{self.drill}")),
            "name": f"{self.name} (scratch)",
        }
        return self.settings.model_copy(update=given)

    def _url(self, database: str) -> str:
        given = self.settings.scratch_url
        return with_database(given.get_secret_value() if given else self._cluster.url, database)

    def _chosen(self, source: Source) -> Server:
        return _postgres_client.choose_server(source.server_version, self.settings.postgres_bin)

    @contextlib.contextmanager
    def _running(self, server: Server, source: Source) -> Iterator[None]:
        sessions = 2 * self.settings.jobs + _SESSIONS
        locks = max(_LOCKS, _LOCKS_PER_TABLE * len(source.fingerprint.get("tables", ())))
        with self._cluster.running(server, sessions, locks):
            yield

    @contextlib.contextmanager
    def _connected(self, database: str) -> Iterator[psycopg.Connection]:
        name = f"{self.name} (scratch)"
        try:
            with contextlib.closing(connect(name, self._url(database))) as connection:
                yield connection
        except psycopg.Error as error:
            raise trouble(name, "unable to restore database", error) from None

    def _prepare(self, source: Source) -> None:
        """Make what the backup takes to be there before: roles and tablespaces."""
        needs = _postgres_facts.needs(source.fingerprint)
        with self._connected("postgres") as connection:
            make_roles(connection, source)
            wanted = {*needs.tablespaces, needs.facts.tablespace} - _USUAL if needs else set()
            for number, name in enumerate(sorted(wanted)):
                folder = self._cluster.make_folder(f"tablespace_{number}")
                connection.execute(
                    sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(
                        sql.Identifier(name), sql.Literal(str(folder))
                    )
                )

    def _compared(self, source: Source, progress: Progress) -> Examination:
        name = f"{self.name} (scratch)"
        found = _postgres_proof.examine(
            name,
            lambda: connect(name, self._url(self.database)),
            source,
            self.settings.checks,
            jobs=self.settings.jobs,
            stall_seconds=self.settings.stall_timeout,
            progress=progress,
        )
        return replace(found, not_covered=(*found.not_covered, *self._other_locale(source)))

    def _other_locale(self, source: Source) -> list[str]:
        """What could not be compared where this machine does not know the locale that the database had."""
        needs = _postgres_facts.needs(source.fingerprint)
        with self._connected(self.database) as connection:
            now = _postgres_facts.read(connection, self.database)
        if needs is None or now is None:
            return []
        before = needs.facts
        if (before.provider, before.collate, before.ctype) == (now.provider, now.collate, now.ctype):
            return []
        return [
            f"the order of text: the database had the locale '{before.locale or before.collate}', which is not known"
            f" here, and came back with '{now.locale or now.collate}'"
        ]

    def _lack_of_space(self, doing: str, source: Source) -> list[LarderError]:
        needs = _postgres_facts.needs(source.fingerprint)
        wanted = int(((needs.size if needs else 0) or source.raw_size) * _ROOM) + _CLUSTER
        free = self._cluster.place.free
        if free is None or free >= wanted:
            return []
        where = self._cluster.place.folder.parent
        return [
            ExhaustedError(
                f"{doing}: it takes about {human_size(wanted)}, and {human_size(free)} are free in {where}",
                "free some space there, or name another folder as scratch_dir in larder.toml",
            )
        ]


def _lack_of_extensions(doing: str, server: Server, source: Source) -> list[LarderError]:
    """The extensions that a backup takes and the installation of `server` has not."""
    needs = _postgres_facts.needs(source.fingerprint)
    folder = _extensions_of(server)
    if needs is None or folder is None:
        return []
    lacking = [name for name in needs.extensions if not (folder / f"{name}.control").is_file()]
    if not lacking:
        return []
    return [
        RefusedError(
            f"{doing}: PostgreSQL {server} in {server.folder} has no extension {listed(lacking)}",
            "install their packages on the worker, or name a server that has them as scratch_url in larder.toml",
        )
    ]


def _extensions_of(server: Server) -> Path | None:
    """Where an installation has the files of its extensions; None where it does not tell."""
    try:
        with Process(
            [str(server.folder / "pg_config"), "--sharedir"], stall_seconds=_PROBE_SECONDS
        ) as process:
            said = b"".join(process.output()).decode(errors="replace").strip()
            process.finish()
    except LarderError:
        said = str(server.folder.parent / "share")
    found = Path(said) / "extension"
    return found if found.is_dir() else None
