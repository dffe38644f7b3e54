"""PostgreSQL: pg_dump of the right version reads the snapshot that the fingerprint is counted in."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from larder.codecs import Codec
from larder.databases import Database, Dump, Look, _postgres_client, _postgres_connection
from larder.databases._postgres_connection import address_of, check_url, connect, recognises
from larder.databases._postgres_dump import Dumper
from larder.databases._postgres_in_place import PostgresInPlace
from larder.databases._postgres_restore import PostgresRestorer
from larder.databases._postgres_schema import PostgresSchema
from larder.databases._postgres_scratch import PostgresScratch
from larder.databases._postgres_selection import PostgresSelection
from larder.databases._postgres_snapshot import Snapshot
from larder.databases._postgres_urls import public_url, with_secrets_of
from larder.drilling import Scratch
from larder.progress import Progress
from larder.restoring import Mode, Plan, Restorer

if TYPE_CHECKING:
    from larder.config import DatabaseSettings

__all__ = [
    "DATABASE",
    "address_in",
    "check_url",
    "name_in",
    "public_url",
    "recognises",
    "restorer",
    "scratch",
    "sibling",
    "with_secrets_of",
]

_RESTORERS: dict[Mode, type[Restorer]] = {
    "swap": PostgresRestorer,
    "in-place": PostgresInPlace,
    "new": PostgresRestorer,
    "schema": PostgresSchema,
}


def name_in(url: str) -> str:
    """The database's name, or the service's; empty where the connection string tells neither."""
    found = _postgres_connection.parameters(url)
    return found.get("dbname") or found.get("service") or ""


def address_in(url: str, base: Path) -> str:
    """See `larder.databases.address_in`."""
    del base  # there is no file
    return _postgres_connection.address_in(url)


def server_in(url: str) -> str:
    """See `larder.databases.server_in`."""
    return _postgres_connection.address_in(url).rpartition("/")[0]


def sibling(url: str, name: str) -> str:
    """See `larder.databases.sibling`."""
    return _postgres_connection.with_database(url, name)


def restorer(settings: DatabaseSettings, plan: Plan) -> Restorer:
    """See `larder.databases.open_restorer`."""
    if plan.selective and plan.mode in ("swap", "new"):
        return PostgresSelection(settings, plan)
    return _RESTORERS[plan.mode](settings, plan)


def scratch(settings: DatabaseSettings, drill: str, folder: Path) -> Scratch:
    """See `larder.databases.open_scratch`."""
    return PostgresScratch(settings, drill, folder)


class PostgresDatabase(Database):
    """A database on a PostgreSQL server, 13 or newer, standbys included."""

    title = "PostgreSQL"

    def look(self) -> Look:
        """See the contract. Raises `ConfigurationError` where no pg_dump suits the server."""
        with self._connected() as connection:
            version = _version(connection)
            client = _postgres_client.choose(version, self.settings.postgres_bin)
            with Snapshot(self.name, connection, self.settings.exclude) as snapshot:
                began = time.time()
                size, clock = snapshot.size_and_clock()
                now = (began + time.time()) / 2
                warnings = [*_newer(client, version), *snapshot.warnings, *self._unreadable(snapshot)]
            return Look(
                description=f"PostgreSQL {version} at {address_of(connection)}/{connection.info.dbname}",
                server_version=version,
                tool=str(client),
                size=size,
                warnings=tuple(warnings),
                clock_difference=clock - now,
            )

    def dump(self, folder: Path, codec: Codec, progress: Progress, say: Callable[[str], None]) -> Dump:
        """See the contract. `format = "directory"` ignores `codec`: pg_restore wants each file compressed by itself."""
        with self._connected() as connection:
            say("Detected PostgreSQL database")
            version = _version(connection)
            client = _postgres_client.choose(version, self.settings.postgres_bin)
            say(f"Using {client} for PostgreSQL {version} at {address_of(connection)}")
            with Snapshot(self.name, connection, self.settings.exclude) as snapshot:
                say("Backing up PostgreSQL database...")
                dumper = Dumper(self.name, self.settings, client, connection, snapshot, folder, progress)
                before = snapshot.positions()
                level = self.settings.fingerprint_level
                snapshot.begin_reading(
                    rows=level != "schema", hashed=level == "content", largest=self.settings.content_up_to
                )
                directory = self.settings.format == "directory"
                content = dumper.directory() if directory else dumper.plain(codec)
                snapshot.finish_reading(self.settings.stall_timeout)
                fingerprint = {
                    "level": level,
                    "row_counts": self.settings.row_counts,
                    "tables": {table.name: snapshot.counted.get(table.name, {}) for table in snapshot.tables},
                    "database": snapshot.described,
                    **({"schema": snapshot.objects} if snapshot.objects else {}),
                    "sequences": _moved(before, snapshot.positions()),
                    "not_covered": snapshot.not_covered,
                }
            found = dumper.globals(codec) if self.settings.globals else None
        return Dump(
            form="folder" if directory else "file",
            suffix=".dir.tar" if directory else ".sql",
            content=content,
            server_version=version,
            tool=str(client),
            snapshot_at=snapshot.taken_at,
            fingerprint=fingerprint,
            globals=found,
            fullest=dumper.fullest,
            warnings=[*_newer(client, version), *snapshot.warnings, *dumper.warnings],
        )

    def _unreadable(self, snapshot: Snapshot) -> list[str]:
        found = snapshot.unreadable()
        if not found:
            return []
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        return [f"this role may not read {', '.join(found[:3])}{more}: grant SELECT on them, or exclude them"]

    @contextlib.contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        connection = connect(self.name, self.settings.url.get_secret_value())
        try:
            yield connection
        finally:
            connection.close()


DATABASE = PostgresDatabase


def _version(connection: psycopg.Connection) -> str:
    """`15.18`: what the server says, without its packager's additions."""
    said = connection.info.parameter_status("server_version") or "0"
    return said.split()[0]


def _moved(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> dict[str, dict[str, Any]]:
    """Where each sequence was before it was dumped, and after: pg_dump has read it in between."""
    return {
        name: {"from": before[name][:2], "to": after[name][:2], "by": after[name][2]}
        for name in before.keys() & after.keys()
    }


def _newer(client: _postgres_client.Client, server: str) -> list[str]:
    major = server.partition(".")[0]
    if str(client.major) == major:
        return []
    return [
        f"{client} is newer than the server ({server}): restoring may need a server of version {client.major}; "
        f"with the client programs of version {major} installed, it will not"
    ]
