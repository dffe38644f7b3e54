"""What a database is as a whole, beside what lies in it: pg_dump leaves that out, and a restore has to keep it.

Encoding and locale are settled when a database is created; owner, settings, grants, comment and connection limit can be
changed at any time, in one transaction with the renaming that puts a database in another's place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from pydantic import TypeAdapter, ValidationError

from larder.errors import IntegrityError

#: Settings whose value is a list of quoted names. The same list is in PostgreSQL's `src/bin/pg_dump/dumputils.c`.
_LISTS = frozenset(
    """
    local_preload_libraries search_path session_preload_libraries shared_preload_libraries temp_tablespaces
    unix_socket_directories
    """.split()
)

_GRANTS = """
    SELECT coalesce(r.rolname, ''), a.privilege_type, a.is_grantable
    FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
         LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE d.datname = %s AND (a.grantee = 0 OR r.oid IS NOT NULL)
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_SETTINGS = """
    SELECT coalesce(r.rolname, ''), split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)
    FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole,
         unnest(s.setconfig) WITH ORDINALITY u (c, n)
    WHERE d.datname = %s AND (s.setrole = 0 OR r.oid IS NOT NULL)
    ORDER BY 1, n
"""

#: What pg_dump writes roles' names for. The bootstrap superuser has no line in pg_shdepend; what an extension brought
#: along is its own, and pg_dump names nobody for it but in grants. Subscriptions it leaves out
#: where its role is no superuser.
_ROLES = """
    SELECT r.rolname FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid
    WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype IN ('o', 'a', 'r')
      AND s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND NOT (s.deptype = 'o' AND (s.classid = 'pg_extension'::regclass OR EXISTS (
          SELECT FROM pg_depend e WHERE e.classid = s.classid AND e.objid = s.objid AND e.deptype = 'e')))
    UNION
    SELECT r.rolname FROM pg_roles r WHERE r.oid = 10 AND EXISTS (
        SELECT FROM (
            SELECT 'pg_class'::regclass::oid AS kind, oid FROM pg_class WHERE relowner = 10
                AND relnamespace <> 'pg_toast'::regnamespace
            UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE proowner = 10
            UNION ALL SELECT 'pg_type'::regclass, oid FROM pg_type WHERE typowner = 10
            UNION ALL SELECT 'pg_namespace'::regclass, oid FROM pg_namespace WHERE nspowner = 10
            UNION ALL SELECT 'pg_largeobject'::regclass, oid FROM pg_largeobject_metadata WHERE lomowner = 10
            UNION ALL SELECT 'pg_event_trigger'::regclass, oid FROM pg_event_trigger WHERE evtowner = 10
            UNION ALL SELECT 'pg_foreign_server'::regclass, oid FROM pg_foreign_server WHERE srvowner = 10
            UNION ALL SELECT 'pg_publication'::regclass, oid FROM pg_publication WHERE pubowner = 10
        ) o WHERE o.oid >= 16384 AND NOT EXISTS (
            SELECT FROM pg_depend e WHERE e.classid = o.kind AND e.objid = o.oid AND e.deptype = 'e'))
    UNION
    -- They are in a catalog of the whole server, and so are their lines in pg_shdepend.
    SELECT pg_get_userbyid(subowner) FROM pg_subscription
    WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND current_setting('is_superuser') = 'on'
    ORDER BY 1
"""
_EXTENSIONS = "SELECT extname, extversion FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1"
_TABLESPACES = """
    SELECT DISTINCT t.spcname FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace
    WHERE c.oid >= 16384 AND c.relnamespace <> 'pg_toast'::regnamespace ORDER BY 1
"""


@dataclass(frozen=True)
class Setting:
    """One value of `ALTER DATABASE … SET`, or of `ALTER ROLE … IN DATABASE … SET`."""

    #: Empty: everybody's.
    role: str
    name: str
    #: As the server keeps it. None: known to be set, and not written down.
    value: str | None


@dataclass(frozen=True)
class Grant:
    """One right of one role. Who granted it is not kept: it comes from the owner again."""

    #: Empty: everybody.
    role: str
    privilege: str
    grantable: bool


@dataclass(frozen=True)
class Facts:
    """One database as a whole."""

    encoding: str
    #: `c` (libc), `i` (ICU), `b` (built in).
    provider: str
    collate: str
    ctype: str
    #: ICU's or the built-in provider's.
    locale: str | None
    icu_rules: str | None
    owner: str
    tablespace: str
    #: -1: none.
    connection_limit: int
    is_template: bool
    comment: str | None
    settings: tuple[Setting, ...] = ()
    #: The whole of it, what everybody has by default included.
    grants: tuple[Grant, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What a manifest may hold. Applications keep secrets in settings of their own (`app.jwt_secret`), which have a
        dot: of those it holds the names only."""
        hidden = tuple(replace(found, value=None) if "." in found.name else found for found in self.settings)
        found = asdict(replace(self, settings=hidden))
        return {**found, "settings": list(found["settings"]), "grants": list(found["grants"])}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Facts:
        """What `to_json` gave; other keys are left alone. Raises `IntegrityError` for anything else."""
        try:
            known = {key: document[key] for key in cls.__dataclass_fields__ if key in document}
            return _ADAPTER.validate_python(known)
        except ValidationError:
            raise IntegrityError(
                "unable to read what the manifest says of the database: it has another shape"
            ) from None

    def roles(self) -> set[str]:
        """The roles that are named in it."""
        named = {self.owner, *(found.role for found in self.settings), *(found.role for found in self.grants)}
        return named - {""}

    def without(self, roles: set[str], owner: str) -> Facts:
        """The same without `roles`, whose place as owner is taken by `owner`."""
        return replace(
            self,
            owner=owner if self.owner in roles else self.owner,
            settings=tuple(found for found in self.settings if found.role not in roles),
            grants=tuple(found for found in self.grants if found.role not in roles),
        )

    def private(self) -> Facts:
        """The same for a database that is being built: nobody but its owner may connect, and it says nothing yet."""
        kept = tuple(found for found in self.grants if found.role == self.owner)
        return replace(self, connection_limit=-1, is_template=False, comment=None, grants=kept)


_ADAPTER = TypeAdapter(Facts)


@dataclass(frozen=True)
class Needs:
    """What a backup takes to come back, beside its content."""

    facts: Facts
    #: Roles that objects in it belong to, or are granted to.
    roles: tuple[str, ...]
    #: Version by name; plpgsql, which is everywhere, left out.
    extensions: dict[str, str]
    #: Where tables and indexes lie, beside the database's own tablespace.
    tablespaces: tuple[str, ...]
    #: Bytes that it took up on its server.
    size: int


def describe(connection: psycopg.Connection) -> dict[str, Any]:
    """What a fingerprint holds as `database`: `Facts`, and what a restore has to find on its server."""
    run = connection.execute
    facts = read(connection, connection.info.dbname)
    (size,) = run("SELECT pg_database_size(current_database())").fetchone() or (0,)
    return {
        **(facts.to_json() if facts else {}),
        "roles": [role for (role,) in run(_ROLES).fetchall()],
        "extensions": {str(name): str(version) for name, version in run(_EXTENSIONS).fetchall()},
        "tablespaces": [found for (found,) in run(_TABLESPACES).fetchall()],
        "size": int(size),
    }


def needs(fingerprint: Mapping[str, Any]) -> Needs | None:
    """What `describe` wrote into a fingerprint; None where it is of a backup from before it did.

    Raises `IntegrityError` where it has another shape.
    """
    found = fingerprint.get("database")
    if not isinstance(found, Mapping):
        return None
    facts = Facts.from_json(found)
    try:
        return _NEEDS.validate_python(
            {**{key: found.get(key) for key in Needs.__dataclass_fields__}, "facts": facts}
        )
    except ValidationError:
        raise IntegrityError(
            "unable to read what the manifest says of the database: it has another shape"
        ) from None


_NEEDS = TypeAdapter(Needs)


def read(connection: psycopg.Connection, name: str) -> Facts | None:
    """What database `name` of the server that `connection` leads to is; None where there is none."""
    version = connection.info.server_version
    provider = "datlocprovider::text" if version >= 150000 else "'c'"
    locale = "datlocale" if version >= 170000 else "daticulocale" if version >= 150000 else "NULL"
    rules = "daticurules" if version >= 160000 else "NULL"
    # A plain text of ours and the server's version, nobody else's.
    query: LiteralString = (
        f"SELECT pg_encoding_to_char(d.encoding), {provider}, datcollate, datctype, {locale}, {rules}, r.rolname,"  # noqa: S608
        " t.spcname, datconnlimit, datistemplate, shobj_description(d.oid, 'pg_database')"
        " FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba JOIN pg_tablespace t ON t.oid = d.dattablespace"
        " WHERE datname = %s"
    )
    row = connection.execute(query, [name]).fetchone()
    if row is None:
        return None
    facts = Facts(*row)
    return replace(
        facts,
        settings=tuple(Setting(*found) for found in connection.execute(_SETTINGS, [name]).fetchall()),
        grants=tuple(Grant(*found) for found in connection.execute(_GRANTS, [name]).fetchall()),
    )


def apply(connection: psycopg.Connection, name: str, facts: Facts) -> list[str]:
    """Make database `name` what `facts` say, in what can be changed: owner, settings, grants, comment, limits.

    Only what differs is touched, so a role that may not do the rest is not asked to. It works within a transaction, and
    again. A setting whose value is not known stays as it is; one that this role may not set is left out, and told of in
    what is given back, for people. Raises `psycopg.Error`.
    """
    found = read(connection, name)
    if found is None:
        raise psycopg.errors.InvalidCatalogName(f'database "{name}" does not exist')
    for statement in _changes(name, found, facts):
        connection.execute(statement)
    left = []
    for role in sorted({setting.role for setting in (*found.settings, *facts.settings)}):
        for setting, statement in _resets(name, role, found.settings, facts.settings):
            try:
                with connection.transaction():
                    connection.execute(statement)
            except psycopg.errors.InsufficientPrivilege:
                left.append(
                    f"this role may not set {setting}, which the old database has: ask a superuser to"
                )
    # A new owner takes the old one's rights along.
    now = read(connection, name)
    for statement in _regrant(name, now.grants if now else (), facts.grants):
        connection.execute(statement)
    return left


def _changes(name: str, found: Facts, wanted: Facts) -> Iterator[sql.Composed]:
    database = sql.Identifier(name)
    if found.owner != wanted.owner:
        yield sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, sql.Identifier(wanted.owner))
    if found.connection_limit != wanted.connection_limit:
        limit = sql.Literal(wanted.connection_limit)
        yield sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(database, limit)
    if found.is_template != wanted.is_template:
        yield sql.SQL("ALTER DATABASE {} IS_TEMPLATE {}").format(database, sql.Literal(wanted.is_template))
    if found.comment != wanted.comment:
        yield sql.SQL("COMMENT ON DATABASE {} IS {}").format(database, sql.Literal(wanted.comment))


def _resets(
    name: str, role: str, found: tuple[Setting, ...], wanted: tuple[Setting, ...]
) -> Iterator[tuple[str, sql.Composed]]:
    database = sql.Identifier(name)
    subject = sql.SQL("DATABASE {}").format(database)
    if role:
        subject = sql.SQL("ROLE {} IN DATABASE {}").format(sql.Identifier(role), database)
    have = {setting.name: setting.value for setting in found if setting.role == role}
    want = {setting.name: setting.value for setting in wanted if setting.role == role}
    for setting in have.keys() - want.keys():
        yield setting, sql.SQL("ALTER {} RESET {}").format(subject, sql.Identifier(setting))
    for setting, value in want.items():
        if value is not None and have.get(setting) != value:
            command = sql.SQL("ALTER {} SET {} TO {}")
            yield setting, command.format(subject, sql.Identifier(setting), _value(setting, value))


def _value(setting: str, value: str) -> sql.Composable:
    """A setting's value as SQL. A list is taken apart, or all of it would become the name of one thing."""
    items = list(_names(value)) if setting.lower() in _LISTS else [value]
    return sql.SQL(", ").join(sql.Literal(item) for item in items or [""])


def _names(value: str) -> Iterator[str]:
    """The names in `"$user", public`, as PostgreSQL's own SplitGUCList reads them."""
    rest = value.strip()
    while rest:
        if rest.startswith('"'):
            end = 1
            while (end := rest.find('"', end)) >= 0 and rest[end : end + 2] == '""':
                end += 2
            if end < 0:
                end = len(rest)
            yield rest[1:end].replace('""', '"')
            rest = rest[end + 1 :].lstrip().removeprefix(",").lstrip()
        else:
            item, _, rest = rest.partition(",")
            yield item.strip()
            rest = rest.lstrip()


def _regrant(name: str, found: tuple[Grant, ...], wanted: tuple[Grant, ...]) -> Iterator[sql.Composed]:
    if set(found) == set(wanted):
        return
    database = sql.Identifier(name)
    for role in sorted({grant.role for grant in found}):
        yield sql.SQL("REVOKE ALL ON DATABASE {} FROM {} CASCADE").format(database, _grantee(role))
    for grant in wanted:
        yield sql.SQL("GRANT {} ON DATABASE {} TO {}{}").format(
            # `CREATE`, `TEMPORARY`, `CONNECT`: the server's own words, held as those of a manifest.
            sql.SQL({"CREATE": "CREATE", "CONNECT": "CONNECT"}.get(grant.privilege, "TEMPORARY")),
            database,
            _grantee(grant.role),
            sql.SQL(" WITH GRANT OPTION" if grant.grantable else ""),
        )


def _grantee(role: str) -> sql.Composable:
    return sql.Identifier(role) if role else sql.SQL("PUBLIC")
