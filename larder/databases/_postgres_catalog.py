"""The rest of a PostgreSQL catalog, by kind: what fingerprints hold beside the definitions of `_postgres_objects`.

A fingerprint says by its keys which kinds it holds. Of two that hold different kinds, because another Larder, another
server or a role with other rights made them, those are compared that both hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg

from larder.databases import _postgres_catalog_compare
from larder.databases._postgres_catalog_compare import kept
from larder.databases._postgres_catalog_details import DETAILS
from larder.databases._postgres_catalog_kinds import OBJECTS
from larder.databases._postgres_catalog_links import LINKS
from larder.databases._postgres_catalog_members import MEMBERS
from larder.databases._postgres_catalog_terms import Kind

#: The kind of schema `public`, which is there without being dumped.
PUBLIC = "public schema"

KINDS: dict[str, Kind] = {kind.name: kind for kind in (*LINKS, *OBJECTS, *DETAILS, *MEMBERS)}

#: By kind and identity the definition.
Catalog = dict[str, dict[str, str]]


def read(
    connection: psycopg.Connection, gone: Sequence[int] = (), *, whole: bool = False
) -> tuple[Catalog, list[str]]:
    """All kinds that this server has and this role may read, without what goes with the relations `gone`.

    As a fingerprint holds them, or, to be compared with one, the `whole` definitions. And a line for each kind that it
    may not read. Raises `psycopg.Error`.
    """
    found: Catalog = {}
    unread = []
    left_out = set(gone)
    superuser = connection.info.parameter_status("is_superuser") == "on"
    with connection.transaction():
        for kind in KINDS.values():
            if connection.info.server_version < kind.since:
                continue
            try:
                rows = _rows(connection, kind)
            except psycopg.errors.InsufficientPrivilege as error:
                unread.append(f"{kind.name}: {error.diag.message_primary}")
                continue
            if rows and kind.superuser and not superuser:
                unread.append(
                    f"{kind.name}: pg_dump leaves out what there is, because this role is no superuser"
                )
                continue
            found[kind.name] = {
                str(identity): _kept(kind, str(identity), definition, whole=whole)
                for identity, definition, relation in sorted(rows, key=lambda row: str(row[0]))
                # A detail that is as usual has no definition.
                if relation not in left_out and (definition is not None or kind not in DETAILS)
            }
    return found, unread


def _rows(connection: psycopg.Connection, kind: Kind) -> list[tuple[Any, ...]]:
    """What the kind's query gives, inside a transaction, which goes on where the server refuses it.

    Sent at once: there are fifty kinds, and of a small database most of what they take is the way there and back.
    """
    try:
        cursor = connection.execute(f"SAVEPOINT kind; {kind.query}; RELEASE kind".encode())
    except psycopg.Error:
        if not connection.closed:
            connection.execute("ROLLBACK TO kind")
        raise
    cursor.nextset()
    return cursor.fetchall()


def _kept(kind: Kind, identity: str, definition: str | None, *, whole: bool) -> str:
    text = definition or ""
    if kind.hidden:
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    return text if whole else kept(f"{kind.name} {identity}", text)


def differences(
    wanted: Mapping[str, Mapping[str, str]], found: Catalog, *, worded_alike: bool, unsure: list[str]
) -> Iterator[str]:
    """How one catalog differs from another in the kinds that both hold, an object a line.

    Where the two servers are not `worded_alike`, what may be another wording only is added to `unsure`.
    """
    both = [name for name in found if name in wanted]
    before = _flat(wanted, both)
    # No dump says that there is none, so a restore leaves the one that each new database has.
    now = _flat(found, [name for name in both if wanted[name] or name != PUBLIC])
    loose = {} if worded_alike else _flat(found, [name for name in both if KINDS[name].worded])
    return _postgres_catalog_compare.differences(before, now, loose, unsure)


def unknown(wanted: Mapping[str, Mapping[str, str]], found: Catalog, major: int) -> list[str]:
    """The kinds that could not be compared, of those that a server of version `major` has."""
    # There is one on each server, whatever a dump says of it.
    there = {kind.name for kind in KINDS.values() if kind.since // 10000 <= major or kind.name == PUBLIC}
    return sorted((there | wanted.keys()) - (found.keys() & wanted.keys()))


def _flat(catalog: Mapping[str, Mapping[str, str]], kinds: Sequence[str]) -> dict[str, str]:
    return {
        f"{kind} {identity}": definition for kind in kinds for identity, definition in catalog[kind].items()
    }
