"""The empty database that a backup is loaded into: what has to be there before, what it is, and that it lasts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import LiteralString

import psycopg
from psycopg import sql

from larder.databases import _postgres_facts
from larder.databases._postgres_facts import Facts
from larder.databases._postgres_load import masked
from larder.databases._postgres_target import listed, missing_roles
from larder.errors import RefusedError, UnreachableError
from larder.restoring import Plan, Source

#: How a server says that it does not know a locale, or was built without the provider of it.
_NO_SUCH_LOCALE = (
    psycopg.errors.WrongObjectType,
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.FeatureNotSupported,
)


def make_roles(connection: psycopg.Connection, name: str, plan: Plan, source: Source) -> list[str]:
    """Create the roles that a backup takes and the server lacks, where `plan` says so; gives warnings.

    Raises `RefusedError`, calling the target `name`, where there are such roles and it does not; and `psycopg.Error`.
    """
    needs = _postgres_facts.needs(source.fingerprint)
    missing = missing_roles(connection, set(needs.roles)) if needs else []
    if not missing:
        return []
    if not plan.create_roles:
        raise RefusedError(
            f"unable to restore database '{name}': its server has no role {listed(missing)}",
            "create them, or restore with --create-roles",
        )
    for role in missing:
        connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
    return [f"created role {listed(missing)}, without the right to log in and without a password"]


def facts_for(connection: psycopg.Connection, live: str, source: Source) -> tuple[Facts | None, list[str]]:
    """What a new database is to be: what `live` is, or, where there is none, what was backed up; and warnings."""
    found = _postgres_facts.read(connection, live)
    needs = _postgres_facts.needs(source.fingerprint)
    if found is not None or needs is None:
        return found, []
    missing = missing_roles(connection, needs.facts.roles())
    facts = needs.facts.without(set(missing), connection.info.user)
    warnings = []
    if missing:
        warnings.append(
            f"the server has no role {listed(missing)}: what the database was set and granted for them is left out"
        )
    if hidden := [setting.name for setting in facts.settings if setting.value is None]:
        warnings.append(
            f"the backup does not hold the value of {listed(hidden)}: ALTER DATABASE … SET them again"
        )
    tablespaces = {name for (name,) in connection.execute("SELECT spcname FROM pg_tablespace").fetchall()}
    if facts.tablespace not in tablespaces:
        warnings.append(
            f"the server has no tablespace '{facts.tablespace}': the database lies in its usual place"
        )
        facts = replace(facts, tablespace="pg_default")
    return facts, warnings


def create_private(
    connection: psycopg.Connection, name: str, facts: Facts | None, *, elsewhere: bool
) -> list[str]:
    """Create database `name`, empty, for nobody but the owner to connect to; gives warnings.

    With `elsewhere`, `facts` are another server's, whose locale this one may not have, or whose kind of locale it was
    built without: then it has its own.

    Raises `RefusedError` where the server has to be another, or told something else before, `UnreachableError` while
    somebody else makes a database of that name, and `psycopg.Error`.
    """
    warnings = []
    with _explained(name):
        try:
            _create(connection, name, facts)
        except _NO_SUCH_LOCALE as error:
            if facts is None or not elsewhere:
                raise
            warnings.append(f"{_said(error)}: the database has the server's own locale")
            _create(connection, name, None, encoding=facts.encoding, owner=facts.owner)
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
    return warnings


def _create(
    connection: psycopg.Connection, name: str, facts: Facts | None, *, encoding: str = "", owner: str = ""
) -> None:
    """Create it with what cannot be changed afterwards, and `facts`' owner and tablespace.

    Without `facts` it has the server's own locale, and `encoding` and `owner` where they are given. `connection` is in
    autocommit, and to another database. Raises `psycopg.Error`.
    """
    options: list[sql.Composable] = [sql.SQL("TEMPLATE template0")]

    def option(word: LiteralString, value: str | None, kind: type[sql.Literal | sql.Identifier]) -> None:
        if value:
            options.append(sql.SQL(word + " {}").format(kind(value)))

    option("ENCODING", facts.encoding if facts else encoding, sql.Literal)
    option("OWNER", facts.owner if facts else owner, sql.Identifier)
    if facts is not None:
        # Naming it takes a right that having it by default does not.
        option("TABLESPACE", facts.tablespace if facts.tablespace != "pg_default" else "", sql.Identifier)
        option("LC_COLLATE", facts.collate, sql.Literal)
        option("LC_CTYPE", facts.ctype, sql.Literal)
        if connection.info.server_version >= 150000:
            provider = {"i": "icu", "b": "builtin"}.get(facts.provider, "libc")
            option("LOCALE_PROVIDER", provider, sql.Identifier)
        if facts.provider == "i":
            option("ICU_LOCALE", facts.locale, sql.Literal)
            option("ICU_RULES", facts.icu_rules, sql.Literal)
        if facts.provider == "b":
            option("BUILTIN_LOCALE", facts.locale, sql.Literal)
    connection.execute(
        sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), sql.SQL(" ").join(options))
    )


def finish(connection: psycopg.Connection, name: str, facts: Facts | None, comment: str) -> list[str]:
    """Tell a database that was loaded what it takes to work in it, and have all of it on the disk; gives warnings.

    A commit that waits for the disk takes with it all that was written before it, the commits of those included that
    did not wait: so nothing of the load can be lost by a crash of the server once this has returned. Standbys are not
    waited for. Raises `psycopg.Error`.
    """
    with connection.transaction():
        connection.execute("SET LOCAL synchronous_commit = local")
        left = _postgres_facts.apply(connection, name, facts.private()) if facts is not None else []
        # Always something to write, without which a commit does not wait.
        connection.execute(
            sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(comment))
        )
    return left


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    doing = f"unable to create database '{name}'"
    try:
        yield
    except psycopg.errors.FeatureNotSupported as error:
        raise RefusedError(
            f"{doing}: {_said(error)}",
            "restore into a server that was built with what the database takes: ICU, or a newer version",
        ) from None
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise RefusedError(
            f"{doing}: {_said(error)}",
            "see whether the server is a standby; else: ALTER ROLE … RESET default_transaction_read_only",
        ) from None
    except (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateDatabase):
        raise UnreachableError(
            f"{doing}: another session is making it",
            "it may be one of an attempt that was killed, and is over in a moment: try again",
        ) from None


def _said(error: psycopg.Error) -> str:
    return masked(error.diag.message_primary or type(error).__name__)
