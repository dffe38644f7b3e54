"""What a PostgreSQL dump says of what came with an extension: rights that are others than the extension gave.

`CREATE EXTENSION` makes its members, and no dump describes them; but rights that somebody has granted or revoked since
are in it. Members belong to whoever restores them, so an owner's own rights are not told.
"""

# ruff: noqa: S608 - the queries are texts of ours and nobody else's

from __future__ import annotations

from collections.abc import Mapping
from typing import LiteralString

import psycopg

from larder.databases._postgres_catalog_terms import Kind

_NAME = "rights on extension's"

#: Who may do what, but the owner.
_OTHERS: LiteralString = (
    "(SELECT CASE a.grantee WHEN 0 THEN 'public' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS who,"
    " string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, '+'"
    " ORDER BY a.privilege_type) AS what FROM aclexplode({acl}) a"
    " WHERE a.privilege_type <> 'MAINTAIN' AND a.grantee <> a.grantor GROUP BY a.grantee)"
)


def _rights_in(
    catalog: LiteralString, acl: LiteralString, owner: LiteralString, kind: LiteralString
) -> LiteralString:
    return (
        f"SELECT '{catalog}'::regclass AS kind, oid, 0 AS part, {acl} AS acl, {owner} AS owner,"
        f" acldefault({kind}, {owner}) AS usual FROM {catalog}"
    )


#: Everything of an extension's whose rights were ever touched, by its script or since.
_MEMBERS: LiteralString = (
    " FROM ("
    + " UNION ALL ".join(
        (
            _rights_in(
                "pg_class",
                "relacl",
                "relowner",
                "CASE relkind WHEN 'S' THEN 's'::\"char\" ELSE 'r'::\"char\" END",
            ),
            "SELECT 'pg_class'::regclass, c.oid, a.attnum, a.attacl, c.relowner, NULL FROM pg_attribute a"
            " JOIN pg_class c ON c.oid = a.attrelid",
            _rights_in("pg_proc", "proacl", "proowner", "'f'"),
            _rights_in("pg_type", "typacl", "typowner", "'T'"),
            _rights_in("pg_namespace", "nspacl", "nspowner", "'n'"),
            _rights_in("pg_language", "lanacl", "lanowner", "'l'"),
            _rights_in("pg_foreign_data_wrapper", "fdwacl", "fdwowner", "'F'"),
            _rights_in("pg_foreign_server", "srvacl", "srvowner", "'S'"),
        )
    )
    + ") r JOIN pg_depend d ON d.classid = r.kind AND d.objid = r.oid AND d.objsubid = 0"
    " AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'"
    " LEFT JOIN pg_init_privs p ON p.classoid = r.kind AND p.objoid = r.oid AND p.objsubid = r.part"
    " CROSS JOIN LATERAL pg_identify_object(r.kind, r.oid, r.part) i"
)
_TOUCHED: LiteralString = " WHERE r.acl IS NOT NULL OR p.initprivs IS NOT NULL"

MEMBERS: tuple[Kind, ...] = (
    Kind(
        _NAME,
        "SELECT i.type || ' ' || i.identity || ' of ' || g.who, g.what, 0"
        + _MEMBERS
        + " CROSS JOIN LATERAL (SELECT coalesce(now.who, came.who) AS who, coalesce(now.what, 'none') AS what FROM "
        + _OTHERS.replace("{acl}", "coalesce(r.acl, r.usual)")
        + " now FULL JOIN "
        + _OTHERS.replace("{acl}", "coalesce(p.initprivs, r.usual)")
        + " came ON came.who = now.who WHERE now.what IS DISTINCT FROM came.what) g"
        + _TOUCHED,
    ),
)

_OWNERS: LiteralString = (
    "SELECT i.type || ' ' || i.identity || ' of ' || quote_ident(pg_get_userbyid(r.owner))"
    + _MEMBERS
    + _TOUCHED
)


def of_others(
    connection: psycopg.Connection, wanted: Mapping[str, Mapping[str, str]]
) -> dict[str, Mapping[str, str]]:
    """The catalog `wanted` without the rights of those who own the members in the database that `connection` leads to.

    What was granted to them comes back as what an owner has anyway. Raises `psycopg.Error`.
    """
    if not wanted.get(_NAME):
        return dict(wanted)
    owners = {str(name) for (name,) in connection.execute(_OWNERS).fetchall()}
    left = {name: rights for name, rights in wanted[_NAME].items() if name not in owners}
    return {**wanted, _NAME: left}
