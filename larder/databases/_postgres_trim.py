"""A database without rows that loses all tables but the chosen ones, and keeps what those need."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import sql

from larder.databases._postgres_examine import Table, shown
from larder.databases._postgres_target import listed
from larder.databases._postgres_toc import Named
from larder.errors import RefusedError
from larder.problems import nearest
from larder.restoring import Plan

#: How many tables one statement drops: each takes a lock.
_AT_ONCE = 50

_KINDS: Mapping[str, LiteralString] = {
    "r": "TABLE",
    "p": "TABLE",
    "f": "FOREIGN TABLE",
    "v": "VIEW",
    "m": "MATERIALIZED VIEW",
    "S": "SEQUENCE",
}

#: Everything but the system's and extensions' own; names as bytes, in the encoding and shape that pg_restore lists.
_RELATIONS = """
    SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text,
           convert_to(translate(format('%%s %%s ', n.nspname, c.relname), E'\\n\\r', '  '), %(encoding)s),
           convert_to(translate(pg_get_userbyid(c.relowner), E'\\n\\r', '  '), %(encoding)s)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND c.relpersistence <> 't'
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_depend d
                      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY 2, 3
"""
_PARENTS = """
    SELECT i.inhrelid::bigint, i.inhparent::bigint, c.relispartition
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relkind IN ('r', 'p', 'f')
"""
#: What a chosen table can lose with a table that is not.
_FEATURES = """
    SELECT 'column', attrelid::bigint, attname FROM pg_attribute
    WHERE attrelid = ANY (%(oids)s) AND attnum > 0 AND NOT attisdropped
    UNION SELECT 'identity', attrelid::bigint, attname FROM pg_attribute
    WHERE attrelid = ANY (%(oids)s) AND attidentity <> '' AND NOT attisdropped
    UNION SELECT 'default', d.adrelid::bigint, a.attname FROM pg_attrdef d
    JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE d.adrelid = ANY (%(oids)s)
    UNION SELECT 'check constraint', conrelid::bigint, conname FROM pg_constraint
    WHERE conrelid = ANY (%(oids)s) AND contype = 'c'
"""
#: Sequences that a chosen table takes numbers from, and another one owns.
_BORROWED = """
    SELECT DISTINCT n.nspname, s.relname
    FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace
    JOIN pg_depend owns ON owns.classid = 'pg_class'::regclass AND owns.objid = s.oid AND owns.deptype = 'a'
         AND owns.refclassid = 'pg_class'::regclass AND NOT owns.refobjid = ANY (%(oids)s)
    JOIN pg_depend uses ON uses.refclassid = 'pg_class'::regclass AND uses.refobjid = s.oid
         AND uses.classid = 'pg_attrdef'::regclass
    JOIN pg_attrdef d ON d.oid = uses.objid AND d.adrelid = ANY (%(oids)s)
    WHERE s.relkind = 'S'
"""


@dataclass(frozen=True)
class Relation:
    """A table, view, sequence or the like of a database."""

    oid: int
    schema: str
    table: str
    kind: str
    prefix: bytes
    owner: bytes

    @property
    def name(self) -> Table:
        """Schema and name, neither quoted."""
        return self.schema, self.table

    @property
    def named(self) -> Named:
        """What a table of contents calls it."""
        return Named(shown(self.name), _KINDS[self.kind], self.prefix, self.owner)


def is_chosen(plan: Plan, name: Table) -> bool:
    """Whether a selection means a table by its name."""
    return any(means(pattern, name) for pattern in plan.tables) or any(
        fnmatch.fnmatchcase(name[0], pattern) for pattern in plan.schemas
    )


def means(pattern: str, name: Table) -> bool:
    """Whether `schema.table` or `table`, with * and ?, upper and lower case apart, means a table."""
    return fnmatch.fnmatchcase(".".join(name), pattern) or fnmatch.fnmatchcase(name[1], pattern)


def unmatched(plan: Plan, names: Sequence[Table], doing: str) -> list[RefusedError]:
    """An error for each pattern of a selection that means none of `names`."""
    found = []
    for pattern in plan.tables:
        if not any(means(pattern, name) for name in names):
            whole = [".".join(name) for name in names]
            near = nearest(pattern, [*whole, *(table for _, table in names)])
            found.append(_no_such(f"{doing}: the backup has no table '{pattern}'", near, "tables", whole))
    for pattern in plan.schemas:
        schemas = list(dict.fromkeys(schema for schema, _ in names))
        if not any(fnmatch.fnmatchcase(schema, pattern) for schema in schemas):
            near = nearest(pattern, schemas)
            found.append(
                _no_such(
                    f"{doing}: the backup has no schema '{pattern}' with tables", near, "schemas", schemas
                )
            )
    return found


def _no_such(message: str, near: str | None, what: str, names: list[str]) -> RefusedError:
    return RefusedError(message, f"did you mean '{near}'?" if near else f"its {what} are {listed(names)}")


def read(connection: psycopg.Connection, encoding: str) -> list[Relation]:
    """Everything that a selection can mean, and sequences. `encoding` is the one that the backup has names in."""
    return [Relation(*row) for row in connection.execute(_RELATIONS, {"encoding": encoding}).fetchall()]


def chosen(connection: psycopg.Connection, plan: Plan, relations: Iterable[Relation]) -> set[int]:
    """The oids of what a selection means: by name, and what inherits from those, partitions included."""
    oids = {found.oid for found in relations if found.kind != "S" and is_chosen(plan, found.name)}
    parents = connection.execute(_PARENTS).fetchall()
    while more := {child for child, parent, _ in parents if parent in oids and child not in oids}:
        oids |= more
    return oids


def trim(connection: psycopg.Connection, plan: Plan, relations: Sequence[Relation], doing: str) -> list[str]:
    """Drop what is not chosen, with what needs it; gives warnings. `connection` is in autocommit.

    Raises `RefusedError` where a pattern means nothing, or a chosen table has a column that it would lose.
    """
    wrong = unmatched(plan, [found.name for found in relations if found.kind != "S"], doing)
    if wrong:
        raise RefusedError("; ".join(error.message for error in wrong), wrong[0].hint)
    keep = chosen(connection, plan, relations)
    by_oid = {found.oid: found for found in relations}
    tables = [oid for oid in keep if by_oid[oid].kind in "rpf"]
    before = _features(connection, tables)
    warnings = _let_go(connection, keep, by_oid)
    for schema, sequence in connection.execute(_BORROWED, {"oids": tables}).fetchall():
        connection.execute(
            sql.SQL("ALTER SEQUENCE {} OWNED BY NONE").format(sql.Identifier(schema, sequence))
        )
    drop(connection, [found for found in relations if found.oid not in keep and found.kind != "S"])
    lost = sorted(before - _features(connection, tables))
    for kind, oid, name in lost:
        table = shown(by_oid[oid].name)
        if kind == "column":
            raise RefusedError(
                f"{doing}: column {name} of table {table} is of a type that goes with a table that is not chosen",
                "choose that one too",
            )
        warnings.append(f"{kind} {name} of {table} is left out: it needs what is not chosen")
    return warnings


def _let_go(connection: psycopg.Connection, keep: set[int], by_oid: Mapping[int, Relation]) -> list[str]:
    """Have chosen tables stay when those that they inherit from go."""
    warnings = []
    for oid, parent_oid, is_partition in connection.execute(_PARENTS).fetchall():
        if oid not in keep or parent_oid in keep or parent_oid not in by_oid:
            continue
        child, parent = by_oid[oid], by_oid[parent_oid]
        names = [sql.Identifier(*child.name), sql.Identifier(*parent.name)]
        if is_partition:
            connection.execute(sql.SQL("ALTER TABLE {1} DETACH PARTITION {0}").format(*names))
        else:
            connection.execute(sql.SQL("ALTER TABLE {0} NO INHERIT {1}").format(*names))
        warnings.append(
            f"{shown(child.name)} comes without {shown(parent.name)}, which it "
            + ("is a partition of" if is_partition else "inherits from")
        )
    return warnings


def drop(connection: psycopg.Connection, relations: Sequence[Relation]) -> None:
    """Drop relations, with what needs them; some may be gone with others."""
    for kind in "vmfpr":
        names = [sql.Identifier(*found.name) for found in relations if found.kind == kind]
        for begin in range(0, len(names), _AT_ONCE):
            batch = sql.SQL(", ").join(names[begin : begin + _AT_ONCE])
            connection.execute(sql.SQL("DROP {} IF EXISTS {} CASCADE").format(sql.SQL(_KINDS[kind]), batch))


def _features(connection: psycopg.Connection, oids: list[int]) -> set[tuple[str, int, str]]:
    return {
        (str(kind), int(oid), str(name))
        for kind, oid, name in connection.execute(_FEATURES, {"oids": oids}).fetchall()
    }
