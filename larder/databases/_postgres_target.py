"""What is in a target's place on its PostgreSQL server, and what stands in the way of bringing a backup there."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from larder.databases import _postgres_client, _postgres_facts
from larder.databases._postgres_connection import address_of, connect, database_in, with_database
from larder.databases._postgres_facts import Needs
from larder.databases._postgres_snapshot import trouble
from larder.errors import ConfigurationError, ExhaustedError, LarderError, RefusedError
from larder.progress import human_size
from larder.restoring import Plan, Source, Target

if TYPE_CHECKING:
    from larder.config import DatabaseSettings

#: Bytes of a name at most; the server cuts what is longer, and two names may become one.
LONGEST = 63

#: Databases that are there on almost every server, and may be connected to while another one is renamed or dropped.
_MAINTENANCE = ("postgres", "template1")

#: How many names a message holds before it says how many more there are.
_NAMED = 5

_SESSIONS = """
    SELECT coalesce(nullif(application_name, ''), 'a session'), coalesce(usename, '?'), count(*)
    FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid() AND usesysid IS NOT NULL
    GROUP BY 1, 2 ORDER BY 1, 2
"""
_SLOTS = "SELECT slot_name FROM pg_replication_slots WHERE database = %s ORDER BY 1"
_SUBSCRIPTIONS = """
    SELECT subname FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = %s) ORDER BY 1
"""
_PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = %s ORDER BY 1"
_RIGHTS = """
    SELECT rolname, rolsuper, rolsuper OR rolcreatedb, rolsuper OR rolcreaterole,
           (SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = %s)
    FROM pg_roles WHERE rolname = current_user
"""
_MISSING_ROLES = """
    SELECT wanted FROM unnest(%s::text[]) AS wanted
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) ORDER BY 1
"""
_MISSING_EXTENSIONS = """
    SELECT wanted FROM unnest(%s::text[]) AS wanted
    WHERE NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = wanted) ORDER BY 1
"""
#: Extensions that only a superuser may create.
_UNTRUSTED = """
    SELECT x.name FROM pg_available_extensions x
    JOIN pg_available_extension_versions v ON v.name = x.name AND v.version = x.default_version
    WHERE x.name = ANY (%s) AND v.superuser AND NOT v.trusted ORDER BY 1
"""
_MISSING_TABLESPACES = """
    SELECT wanted FROM unnest(%s::text[]) AS wanted
    WHERE NOT EXISTS (SELECT FROM pg_tablespace WHERE spcname = wanted) ORDER BY 1
"""


def beside(name: str, suffix: str) -> str:
    """The name of a database that belongs to `name`: `shop__before_20251016_020000`, of at most `LONGEST` bytes.

    Where `name` has to be cut for that, a part of its hash keeps it apart from others that begin alike.
    """
    room = LONGEST - len(suffix.encode())
    if len(name.encode()) <= room:
        return name + suffix
    mark = "_" + hashlib.sha256(name.encode()).hexdigest()[:6]
    return name.encode()[: room - len(mark)].decode(errors="ignore") + mark + suffix


@contextlib.contextmanager
def maintenance(settings: DatabaseSettings) -> Iterator[psycopg.Connection]:
    """A connection to another database of the target's server, for the length of a block; see `connect_beside`."""
    connection = connect_beside(settings)
    try:
        yield connection
    finally:
        connection.close()


def connect_beside(settings: DatabaseSettings) -> psycopg.Connection:
    """Connect to another database of the target's server, as its user; to the target itself where none lets us.

    In autocommit. Raises `UnreachableError`, `RefusedError`.
    """
    url = settings.url.get_secret_value()
    refused: RefusedError | None = None
    for name in (*_MAINTENANCE, None):
        try:
            return connect(settings.name, with_database(url, name) if name else url)
        except RefusedError as error:
            refused = refused or error
    assert refused is not None  # noqa: S101 - every way out of the loop but the last try's refusal has been taken
    raise refused


def name_of(settings: DatabaseSettings) -> str:
    """The name that the target has on its server. Raises `ConfigurationError` where its connection string lacks it."""
    url = settings.url.get_secret_value()
    try:
        name = database_in(url)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"unable to use the connection string of '{settings.name}': {error.message}", error.hint
        ) from None
    if not name:
        raise ConfigurationError(
            f"unable to restore database '{settings.name}': its connection string does not name the database",
            "add dbname to it, beside the service",
        )
    return name


def version_of(connection: psycopg.Connection) -> str:
    """`15.18`: what the server says, without its packager's additions."""
    return (connection.info.parameter_status("server_version") or "0").split()[0]


def look(settings: DatabaseSettings) -> Target:
    """See `Restorer.look`."""
    live = name_of(settings)
    with maintenance(settings) as connection:
        version = version_of(connection)
        try:
            facts = _postgres_facts.read(connection, live)
            return Target(
                description=f"PostgreSQL {version} at {address_of(connection)}/{live}",
                exists=facts is not None,
                size=_size(connection, live) if facts else None,
                free=_free(connection, facts.tablespace if facts else "pg_default"),
                server_version=version,
                sessions=tuple(
                    f"{application} (user {user})" + (f": {count} sessions" if count > 1 else "")
                    for application, user, count in connection.execute(_SESSIONS, [live]).fetchall()
                ),
                warnings=tuple(_warnings(connection, live)),
            )
        except psycopg.Error as error:
            raise trouble(settings.name, "unable to look at database", error) from None


def _size(connection: psycopg.Connection, name: str) -> int | None:
    try:
        row = connection.execute("SELECT pg_database_size(%s::name)", [name]).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return None
    return int(row[0]) if row else None


def _free(connection: psycopg.Connection, tablespace: str) -> int | None:
    """Free bytes where the server writes, where that is this machine and its folder can be seen from here."""
    host, hostaddr = connection.info.host, connection.info.hostaddr
    if not (host.startswith("/") or (hostaddr and ipaddress.ip_address(hostaddr).is_loopback)):
        return None
    try:
        query = (
            "SELECT coalesce(nullif(pg_tablespace_location(oid), ''), current_setting('data_directory'))"
            " FROM pg_tablespace WHERE spcname = %s"
        )
        row = connection.execute(query, [tablespace]).fetchone()
        found = os.statvfs(row[0]) if row else None
    except (OSError, psycopg.errors.InsufficientPrivilege):
        return None
    return found.f_bavail * found.f_frsize if found else None


def _warnings(connection: psycopg.Connection, live: str) -> Iterator[str]:
    for query, what in (
        (
            _SLOTS,
            "logical replication slot {} stays with the old database: what reads from it has to start anew",
        ),
        (_SUBSCRIPTIONS, "subscription {} stays with the old database, and holds it"),
        (_PREPARED, "prepared transaction {} holds the database: commit it or roll it back before the swap"),
    ):
        try:
            found = [name for (name,) in connection.execute(query, [live]).fetchall()]
        except psycopg.errors.InsufficientPrivilege:
            continue
        yield from (what.format(f"'{name}'") for name in found)


@dataclass(frozen=True)
class _Rights:
    role: str
    is_superuser: bool
    may_create_databases: bool
    may_create_roles: bool
    #: Of the live database; None where there is none.
    is_owner: bool | None


def refusals(settings: DatabaseSettings, plan: Plan, source: Source, target: Target) -> list[LarderError]:
    """See `Restorer.refusals`."""
    doing = f"unable to restore into database '{settings.name}'"
    if source.engine != settings.engine:
        return [
            RefusedError(
                f"{doing}: it is {settings.engine}, and the backup is of {source.engine}", "name another one"
            )
        ]
    found = [*_versions(doing, settings, source, target), *_modes(doing, plan, source, target)]
    needs = _postgres_facts.needs(source.fingerprint)
    with maintenance(settings) as connection:
        try:
            row = connection.execute(_RIGHTS, [name_of(settings)]).fetchone()
            rights = _Rights(*row) if row else _Rights("?", False, False, False, None)
            found += _rights(doing, plan, rights)
            if needs is not None:
                found += _lacks(doing, connection, plan, needs, rights)
        except psycopg.Error as error:
            raise trouble(settings.name, "unable to look at database", error) from None
    size = (needs.size if needs else 0) or source.raw_size
    if target.free is not None and size > target.free:
        found.append(
            ExhaustedError(
                f"{doing}: it takes about {human_size(size)}, and {human_size(target.free)} are free on the server",
                "free some space on the database server's disk",
            )
        )
    return found


def _versions(
    doing: str, settings: DatabaseSettings, source: Source, target: Target
) -> Iterator[LarderError]:
    if _major(source.server_version) > _major(target.server_version):
        yield RefusedError(
            f"{doing}: the backup is of PostgreSQL {source.server_version}, and the server is {target.server_version}",
            f"restore into a server of version {_major(source.server_version)} or newer",
        )
    try:
        _postgres_client.choose_loader(target.server_version, source.tool, settings.postgres_bin)
    except ConfigurationError as error:
        yield error


def _major(version: str) -> int:
    major = version.partition(".")[0]
    return int(major) if major.isdecimal() else 0


def _modes(doing: str, plan: Plan, source: Source, target: Target) -> Iterator[LarderError]:
    if plan.mode == "new" and target.exists:
        yield RefusedError(
            f"{doing}: it exists, and mode new makes a new one", "name another database, or use swap"
        )
    if plan.mode in ("in-place", "schema") and not target.exists:
        yield RefusedError(
            f"{doing}: it does not exist, and mode {plan.mode} restores into one", "use mode new"
        )
    if plan.selective and source.form != "folder":
        yield RefusedError(
            f"{doing}: the backup is one SQL script, of which no part can be taken",
            'restore all of it with mode new, and copy from there; format = "directory" makes backups that have parts',
        )


def _rights(doing: str, plan: Plan, rights: _Rights) -> Iterator[LarderError]:
    if plan.mode in ("swap", "new") and not rights.may_create_databases:
        yield RefusedError(
            f"{doing}: role '{rights.role}' may not create databases",
            f"ALTER ROLE {rights.role} CREATEDB" + (", or use mode in-place" if plan.mode == "swap" else ""),
        )
    if plan.mode in ("swap", "in-place") and rights.is_owner is False:
        yield RefusedError(
            f"{doing}: role '{rights.role}' does not own it, and may not put another in its place",
            "connect as its owner, or as a superuser",
        )
    if plan.create_roles and not rights.may_create_roles:
        yield RefusedError(
            f"{doing}: role '{rights.role}' may not create roles", "create them before, as a superuser"
        )


def _lacks(
    doing: str, connection: psycopg.Connection, plan: Plan, needs: Needs, rights: _Rights
) -> Iterator[LarderError]:
    def those(query: str, wanted: Any) -> list[str]:
        return [name for (name,) in connection.execute(query.encode(), [list(wanted)]).fetchall()]

    if not plan.create_roles and (roles := those(_MISSING_ROLES, needs.roles)):
        yield RefusedError(
            f"{doing}: its server has no role {listed(roles)}", "create them, or restore with --create-roles"
        )
    if extensions := those(_MISSING_EXTENSIONS, needs.extensions):
        yield RefusedError(
            f"{doing}: its server has no extension {listed(extensions)}",
            "install their packages on the server",
        )
    if not rights.is_superuser and (untrusted := those(_UNTRUSTED, needs.extensions)):
        yield RefusedError(
            f"{doing}: role '{rights.role}' may not create extension {listed(untrusted)}",
            "restore as a superuser",
        )
    if tablespaces := those(_MISSING_TABLESPACES, needs.tablespaces):
        yield RefusedError(
            f"{doing}: its server has no tablespace {listed(tablespaces)}", "create them on the server"
        )


def missing_roles(connection: psycopg.Connection, roles: set[str]) -> list[str]:
    """Those of `roles` that the server does not have. Raises `psycopg.Error`."""
    return [role for (role,) in connection.execute(_MISSING_ROLES, [sorted(roles)]).fetchall()]


def listed(names: list[str]) -> str:
    """`'a', 'b' and 7 more`."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:_NAMED]) + more
