"""What the queries of a PostgreSQL catalog are put together from."""

# ruff: noqa: S608 - the queries are texts of ours and nobody else's

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString


@dataclass(frozen=True)
class Kind:
    """One kind of object, or of detail that an object may have."""

    name: str
    #: Gives identity, definition, and the oid of the relation that it goes with (0: none).
    query: LiteralString
    #: The server's version that has it first, as `server_version_num` tells it.
    since: int = 130000
    #: Its text may be somebody's words, or hold a secret: known by its SHA-256 only.
    hidden: bool = False
    #: The server words it, another major version in its own way.
    worded: bool = False
    #: pg_dump leaves it out where its role is no superuser.
    superuser: bool = False


def mine(catalog: LiteralString, oid: LiteralString) -> LiteralString:
    """Whether an object that lies in no schema came neither with the server nor with an extension."""
    return (
        f"({oid} >= 16384 AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{catalog}'::regclass"
        f" AND d.objid = {oid} AND d.deptype = 'e'))"
    )


def function(oid: LiteralString) -> LiteralString:
    """A function's name, always whole: the server's own text leaves the schema out where no other has the name."""
    return (
        "(SELECT format('%I.%I', fn.nspname, f.proname) FROM pg_proc f JOIN pg_namespace fn"
        f" ON fn.oid = f.pronamespace WHERE f.oid = {oid})"
    )


def owner(oid: LiteralString) -> LiteralString:
    """`owner` and a role."""
    return f"'owner ' || quote_ident(pg_get_userbyid({oid}))"


def options(column: LiteralString) -> LiteralString:
    """The names of options, whose values may hold a password: a hash of one that is short is soon guessed."""
    return (
        "(SELECT string_agg(split_part(o, '=', 1), ', ' ORDER BY split_part(o, '=', 1) COLLATE \"C\")"
        f" FROM unnest({column}) o)"
    )


def named(kind: LiteralString, oid: LiteralString) -> LiteralString:
    """The whole name of a row of a catalog whose columns begin with `kind`: `opf`, `dict`."""
    table: dict[str, LiteralString] = {
        "opf": "pg_opfamily",
        "dict": "pg_ts_dict",
        "prs": "pg_ts_parser",
        "tmpl": "pg_ts_template",
        "coll": "pg_collation",
        "opc": "pg_opclass",
    }
    return (
        f"(SELECT format('%I.%I', xn.nspname, x.{kind}name) FROM {table[kind]} x JOIN pg_namespace xn"
        f" ON xn.oid = x.{kind}namespace WHERE x.oid = {oid})"
    )
