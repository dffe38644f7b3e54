"""Chosen tables, and what goes with them, moved into schemas of their own, within the database that they were built in.

What belongs to an extension stays where it is: whoever loads these schemas elsewhere has to have the extension there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import sql

from larder.databases._postgres_examine import Table
from larder.databases._postgres_target import beside
from larder.restoring import Plan

#: From some objects to what they need, and to their parts (defaults, constraints, triggers, policies, indexes, rules,
#: own sequences); in the given schemas, that goes on. A temporary table, since two questions are asked of it.
_NEEDED = """
    CREATE TEMPORARY TABLE larder_needed ON COMMIT DROP AS
    WITH RECURSIVE needed (classid, objid, mine) AS (
        SELECT * FROM ({start}) s (classid, objid, mine)
        UNION
        SELECT f.classid, f.objid, f.objid >= 16384
            AND coalesce((pg_identify_object(f.classid, f.objid, 0)).schema = ANY ({quoted}), f.is_part)
            AND NOT EXISTS (SELECT FROM pg_depend e
                            WHERE e.classid = f.classid AND e.objid = f.objid AND e.deptype = 'e')
        FROM needed n CROSS JOIN LATERAL (
            SELECT d.refclassid, d.refobjid, false FROM pg_depend d
            WHERE d.classid = n.classid AND d.objid = n.objid AND d.deptype <> 'e'
            UNION ALL
            SELECT d.classid, d.objid, true FROM pg_depend d
            WHERE d.refclassid = n.classid AND d.refobjid = n.objid AND d.deptype IN ('a', 'i', 'P', 'S')
        ) f (classid, objid, is_part)
        WHERE n.mine
    )
    SELECT DISTINCT classid, objid, mine FROM needed WHERE objid >= 16384
"""
_RELATIONS = """
    SELECT 'pg_class'::regclass::oid, c.oid, true FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND n.nspname = ANY ({schemas})
    AND NOT EXISTS (SELECT FROM pg_depend e
                    WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
"""
#: Everything in some schemas.
_WHOLE = """
    SELECT d.classid, d.objid, true FROM pg_depend d JOIN pg_namespace n ON n.oid = d.refobjid
    WHERE d.refclassid = 'pg_namespace'::regclass AND n.nspname = ANY ({whole})
    AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e')
"""
_HOMES = """
    SELECT DISTINCT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND c.relpersistence <> 't'
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend e
                    WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e') ORDER BY 1
"""
#: What does not move by itself with something else: a row type, an array, an own sequence.
_MOVING = """
    SELECT i.type, i.identity, s.nspname
    FROM larder_needed n CROSS JOIN LATERAL pg_identify_object(n.classid, n.objid, 0) i
    JOIN pg_namespace s ON quote_ident(s.nspname) = i.schema
    WHERE n.mine AND CASE n.classid
        WHEN 'pg_class'::regclass THEN EXISTS (
            SELECT FROM pg_class c WHERE c.oid = n.objid AND (c.relkind IN ('r', 'p', 'f', 'v', 'm') OR c.relkind = 'S'
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = n.classid AND d.objid = n.objid
                            AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i'))))
        WHEN 'pg_type'::regclass THEN EXISTS (
            SELECT FROM pg_type t WHERE t.oid = n.objid
            AND (t.typrelid = 0 OR (SELECT relkind = 'c' FROM pg_class WHERE oid = t.typrelid))
            AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid))
        ELSE true
        END
"""
_ELSEWHERE = """
    SELECT i.type || ' ' || i.identity, a.type, a.object_names, a.object_args
    FROM (SELECT classid, objid FROM larder_needed WHERE NOT mine
          EXCEPT SELECT classid, objid FROM larder_needed WHERE mine) n,
         pg_identify_object(n.classid, n.objid, 0) i, pg_identify_object_as_address(n.classid, n.objid, 0) a
    WHERE i.schema IS DISTINCT FROM 'pg_toast'
    AND (i.type <> 'schema' OR NOT a.object_names[1] = ANY ({schemas})) ORDER BY 1
"""
_OURS = """
    SELECT nspname, substr(obj_description(oid, 'pg_namespace'), length(%(mark)s) + 1) FROM pg_namespace
    WHERE starts_with(obj_description(oid, 'pg_namespace'), %(mark)s) ORDER BY 1
"""
_TABLES = """
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname = ANY (%s) ORDER BY 1, 2
"""

#: What `ALTER … SET SCHEMA` calls an object, in the order in which they have to move: what is identified by the names
#: of others goes before those.
_WORDS: dict[str, LiteralString] = {
    "aggregate": "ROUTINE",
    "function": "ROUTINE",
    "procedure": "ROUTINE",
    "operator": "OPERATOR",
    "operator class": "OPERATOR CLASS",
    "operator family": "OPERATOR FAMILY",
    "collation": "COLLATION",
    "conversion": "CONVERSION",
    "text search parser": "TEXT SEARCH PARSER",
    "text search dictionary": "TEXT SEARCH DICTIONARY",
    "text search template": "TEXT SEARCH TEMPLATE",
    "text search configuration": "TEXT SEARCH CONFIGURATION",
    "statistics object": "STATISTICS",
    "view": "VIEW",
    "materialized view": "MATERIALIZED VIEW",
    "sequence": "SEQUENCE",
    "table": "TABLE",
    "foreign table": "FOREIGN TABLE",
    "type": "TYPE",
}


@dataclass(frozen=True)
class Needed:
    """Something outside the schemas that are brought, which has to be where they go."""

    #: For people: `type public.mood`.
    name: str
    #: As `pg_get_object_address` takes it.
    kind: str
    names: list[str]
    arguments: list[str]


def mark(plan: Plan) -> str:
    """What the comment of a restored schema begins with, by which it is known again; its old name follows."""
    return f"Larder's restore {plan.id} of schema "


def ours(connection: psycopg.Connection, plan: Plan) -> dict[str, str]:
    """The schemas that a restore has made in a database, and their old names. Raises `psycopg.Error`."""
    return {str(new): str(old) for new, old in connection.execute(_OURS, {"mark": mark(plan)}).fetchall()}


def tables(connection: psycopg.Connection, schemas: Iterable[str]) -> list[Table]:
    """The tables with rows of some schemas. Raises `psycopg.Error`."""
    return [
        (str(schema), str(table)) for schema, table in connection.execute(_TABLES, [list(schemas)]).fetchall()
    ]


def move(
    connection: psycopg.Connection, plan: Plan, stamp: str, is_whole: Iterable[str] = ()
) -> dict[str, str]:
    """Move all tables of a database into `<schema>_restored_<stamp>`, with what they need in theirs; gives these names
    with the old ones. Done already: the same.

    Of schemas in `is_whole`, all comes along. `connection` is in autocommit. Raises `psycopg.Error`.
    """
    if made := ours(connection, plan):
        return made
    homes = [str(name) for (name,) in connection.execute(_HOMES).fetchall()]
    whole = [name for name in is_whole if name in homes]
    new = {home: beside(home, f"_restored_{stamp}") for home in homes}
    with connection.transaction():
        _find(connection, homes, f"{_RELATIONS} UNION {_WHOLE}", whole)
        moving = [found for found in connection.execute(_MOVING).fetchall() if found[0] in _WORDS]
        for home, name in new.items():
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
            connection.execute(
                sql.SQL("COMMENT ON SCHEMA {} IS {}").format(
                    sql.Identifier(name), sql.Literal(mark(plan) + home)
                )
            )
        order = list(_WORDS)
        for kind, identity, schema in sorted(moving, key=lambda found: order.index(found[0])):
            # What PostgreSQL itself has quoted.
            statement = f"ALTER {_WORDS[kind]} {identity} SET SCHEMA "
            connection.execute(sql.SQL("{}{}").format(sql.SQL(statement), sql.Identifier(new[schema])))
    return {name: home for home, name in new.items()}


def elsewhere(connection: psycopg.Connection, schemas: Iterable[str]) -> list[Needed]:
    """What schemas of a database need that is not in them. Raises `psycopg.Error`."""
    names = list(schemas)
    with connection.transaction():
        _find(connection, names, _WHOLE, names)
        query = sql.SQL(_ELSEWHERE).format(schemas=sql.Literal(names))
        return [Needed(*row) for row in connection.execute(query).fetchall()]


def lacking(connection: psycopg.Connection, needed: Iterable[Needed]) -> list[str]:
    """Which of `needed` a database does not have, for people. Raises `psycopg.Error` where it is lost."""
    found = []
    for one in needed:
        try:
            connection.execute(
                "SELECT pg_get_object_address(%s, %s::text[], %s::text[])",
                [one.kind, one.names, one.arguments],
            )
        except psycopg.Error:
            if connection.closed:
                raise
            found.append(one.name)
    return found


def _find(connection: psycopg.Connection, schemas: list[str], start: LiteralString, whole: list[str]) -> None:
    array = sql.SQL("{}::text[]")
    quoted = sql.SQL("ARRAY(SELECT quote_ident(s) FROM unnest({}) s)")
    given = {
        "schemas": array.format(sql.Literal(schemas)),
        "quoted": quoted.format(array.format(sql.Literal(schemas))),
        "whole": array.format(sql.Literal(whole)),
    }
    connection.execute(sql.SQL(_NEEDED).format(start=sql.SQL(start).format(**given), **given))
