"""The server that `scratch_url` names: a drill makes a database there, and takes it away with all that it took.

Others use that server, and other drills. So what is made there has the drill's name, or is marked as ours, and nothing
else is ever dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from larder.databases import _postgres_facts
from larder.databases._postgres_restore import PostgresRestorer
from larder.databases._postgres_snapshot import trouble
from larder.databases._postgres_target import maintenance, missing_roles
from larder.errors import LarderError
from larder.progress import Progress
from larder.restoring import Content, Plan, Source

if TYPE_CHECKING:
    from larder.config import DatabaseSettings

#: What the roles are marked with that drills have made.
_MARK = "Larder has made this role for drills, and drops it when nothing depends on it"

#: Who holds it, shared, counts on the roles that are there; who takes it alone may drop some. Any number will do.
_LOCK = 0x6C61726472696C6C

_MARKED = "SELECT rolname FROM pg_roles WHERE shobj_description(oid, 'pg_authid') = %s ORDER BY 1"


def restorer(settings: DatabaseSettings, drill: str, *, create_roles: bool = False) -> PostgresRestorer:
    """What builds the database of `drill` on the server of `settings`, under a name that is that drill's alone."""
    return PostgresRestorer(settings, Plan(drill, "new", create_roles=create_roles))


def make_roles(connection: psycopg.Connection, source: Source) -> None:
    """Create the roles that a backup names and the server lacks, marked, nobody to log in. Raises `psycopg.Error`."""
    for role in _lacking(connection, source):
        with connection.transaction():
            connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
            connection.execute(
                sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(role), sql.Literal(_MARK))
            )


def tag(connection: psycopg.Connection, database: str, drill: str) -> None:
    """Say in the database's comment what it is there for. Raises `psycopg.Error`."""
    said = f"Larder's drill {drill}: a scratch database, dropped when the drill is over"
    connection.execute(
        sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(database), sql.Literal(said))
    )


def _lacking(connection: psycopg.Connection, source: Source) -> list[str]:
    needs = _postgres_facts.needs(source.fingerprint)
    if needs is None:
        return []
    named = {*needs.roles, *needs.facts.roles()}
    # Nobody may make one of PostgreSQL's own.
    return missing_roles(connection, {role for role in named if not role.startswith("pg_")})


class ScratchServer:
    """A drill's database on that server. `settings` are those of the backup's database, with this server's `url`."""

    def __init__(self, settings: DatabaseSettings, drill: str) -> None:
        self._settings = settings
        self._drill = drill
        self._restorer = restorer(settings, drill)

    def refusals(self, source: Source) -> list[LarderError]:
        """See the contract of `Scratch`."""
        with self._server("look at") as connection:
            lacking = bool(_lacking(connection, source))
        builder = restorer(self._settings, self._drill, create_roles=lacking)
        return builder.refusals(source, builder.look())

    def load(self, content: Content, progress: Progress, say: Callable[[str], None]) -> list[str]:
        """See the contract of `Scratch`."""
        with self._server("restore") as connection:
            connection.execute("SELECT pg_advisory_lock_shared(%s)", [_LOCK])
            make_roles(connection, content.source)
            warnings = self._restorer.load(content, progress, say)
            tag(connection, self._restorer.scratch, self._drill)
        return warnings

    def drop(self) -> bool:
        """Drop the drill's database, and the roles of drills that nothing needs any more."""
        found = self._restorer.drop_new()
        with self._server("clean up after") as connection:
            (alone,) = connection.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone() or (False,)
            # Another drill is loading, and drops them after us.
            marked = connection.execute(_MARKED, [_MARK]).fetchall() if alone else []
            for (role,) in marked:
                try:
                    connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))
                except (psycopg.errors.DependentObjectsStillExist, psycopg.errors.InsufficientPrivilege):
                    continue
        return found

    @contextlib.contextmanager
    def _server(self, doing: str) -> Iterator[psycopg.Connection]:
        """A connection to another database of that server."""
        with maintenance(self._settings) as connection:
            try:
                connection.execute("SET statement_timeout = 0")
                if connection.info.server_version >= 140000:
                    # It waits, idle, for as long as a load takes.
                    connection.execute("SET idle_session_timeout = 0")
                yield connection
            except psycopg.Error as error:
                hint = "name a role as user of scratch_url that may create databases and roles"
                raise trouble(self._settings.name, f"unable to {doing} database", error, hint) from None
