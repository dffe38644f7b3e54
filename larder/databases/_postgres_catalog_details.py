"""What a PostgreSQL dump says of an object beyond its definition in `_postgres_objects`, where that is unusual.

What is as it comes by default is not told, on either side.
"""

# ruff: noqa: S608 - the queries are texts of ours and nobody else's

from __future__ import annotations

from typing import LiteralString

from larder.databases._postgres_catalog_terms import Kind, function, mine, owner
from larder.databases._postgres_objects import ours, rights


def _extraordinary(acl: LiteralString, kind: LiteralString, owner: LiteralString) -> LiteralString:
    """Rights, where they are others than those that come by default; else nothing."""
    usual: LiteralString = f"acldefault('{kind}', {owner})"
    return f"nullif({rights(f'coalesce({acl}, {usual})')}, {rights(usual)})"


_RELATIONS: LiteralString = (
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relpersistence <> 't' AND "
    + ours("pg_class", "c.oid")
)
_COLUMNS: LiteralString = (
    " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
    " JOIN pg_type t ON t.oid = a.atttypid WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relpersistence <> 't' AND "
    + ours("pg_class", "c.oid")
)
_MAINTAINERS: LiteralString = (
    "coalesce((SELECT string_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'public' ELSE"
    " quote_ident(pg_get_userbyid(a.grantee)) END || CASE WHEN a.is_grantable THEN '*' ELSE '' END, ',')"
    " FROM aclexplode({acl}) a WHERE a.privilege_type = 'MAINTAIN'), '')"
)
#: The table that an identity's sequence is part of: pg_dump leaves it out with that.
_IDENTITY_OF: LiteralString = (
    "coalesce((SELECT d.refobjid::bigint FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid"
    " AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'), 0)"
)

DETAILS: tuple[Kind, ...] = (
    Kind(
        "access method of",
        "SELECT c.oid::regclass::text, quote_ident(a.amname), c.oid::bigint"
        + _RELATIONS.replace(" WHERE", " JOIN pg_am a ON a.oid = c.relam WHERE", 1)
        + " AND c.relkind IN ('r', 'm') AND a.amname <> 'heap'",
    ),
    Kind(
        "tablespace of",
        # The database's own has number 0; where a drill lacks that, pg_default takes its place.
        "SELECT c.oid::regclass::text, quote_ident(s.spcname), coalesce(i.indrelid, c.oid)::bigint"
        + _RELATIONS.replace(
            " WHERE",
            " JOIN pg_tablespace s ON s.oid = c.reltablespace LEFT JOIN pg_index i ON i.indexrelid = c.oid WHERE",
            1,
        )
        + " AND c.relkind IN ('r', 'p', 'm', 'i', 'I') AND s.spcname <> 'pg_default'"
        " AND (i.indexrelid IS NULL OR i.indisvalid OR c.relkind = 'I')",
    ),
    Kind(
        "details of table",
        "SELECT c.oid::regclass::text, nullif(concat_ws(', ', 'of type ' || format_type(nullif(c.reloftype, 0), NULL),"
        " 'out of line: ' || array_to_string(o.reloptions, ' '), CASE WHEN c.relkind = 'm' AND NOT c.relispopulated"
        " THEN 'not populated' END, CASE c.relreplident WHEN 'f' THEN 'replica identity full' WHEN 'n' THEN"
        " 'replica identity nothing' WHEN 'i' THEN 'replica identity by ' || (SELECT x.indexrelid::regclass"
        " FROM pg_index x WHERE x.indrelid = c.oid AND x.indisreplident) END), ''), c.oid::bigint"
        + _RELATIONS.replace(" WHERE", " LEFT JOIN pg_class o ON o.oid = c.reltoastrelid WHERE", 1)
        + " AND c.relkind IN ('r', 'p', 'm')",
    ),
    Kind(
        "details of column",
        # A child's column takes how it is stored from its parent when it is made, which pg_dump does not take back.
        "SELECT format('%s.%I', c.oid::regclass, a.attname), nullif(concat_ws(' ', CASE WHEN a.attinhcount = 0 OR"
        " c.relispartition THEN nullif(concat_ws(' ', CASE WHEN c.relkind <> 'f' AND a.attstorage <> t.typstorage"
        " THEN 'storage ' || a.attstorage::text END,"
        " 'compression ' || nullif(to_jsonb(a) ->> 'attcompression', '')), '') END,"
        " 'statistics ' || nullif(coalesce(a.attstattarget, -1), -1), array_to_string(a.attoptions, ' '),"
        " CASE WHEN a.attgenerated = 'v' THEN 'virtual' END), ''), c.oid::bigint"
        + _COLUMNS
        + " AND c.relkind IN ('r', 'p', 'm', 'f')",
    ),
    Kind(
        "statistics of index",
        "SELECT format('%s column %s', c.oid::regclass, a.attnum), a.attstattarget::text, i.indrelid::bigint"
        + _COLUMNS.replace(" WHERE", " JOIN pg_index i ON i.indexrelid = c.oid WHERE", 1)
        + " AND a.attstattarget >= 0 AND (i.indisvalid OR c.relkind = 'I')",
    ),
    Kind(
        "inherited column",
        "SELECT format('%s.%I', c.oid::regclass, a.attname), concat_ws(' ', CASE WHEN a.attislocal THEN 'and its own'"
        " END, 'from', a.attinhcount), c.oid::bigint"
        + _COLUMNS
        + " AND c.relkind IN ('r', 'p', 'f') AND a.attinhcount > 0",
    ),
    Kind(
        "not-null constraint",
        # Of those that are inherited, pg_dump makes what it needs.
        "SELECT format('%s.%I', k.conrelid::regclass, a.attname), concat_ws(' ', quote_ident(k.conname),"
        " CASE WHEN k.connoinherit THEN 'no inherit' END, CASE WHEN NOT k.convalidated THEN 'not valid' END),"
        " k.conrelid::bigint FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid"
        " AND a.attnum = k.conkey[1] WHERE k.contype = 'n' AND k.coninhcount = 0 AND c.relpersistence <> 't' AND "
        + ours("pg_class", "c.oid"),
        since=180000,
    ),
    Kind(
        "attached index",
        "SELECT i.indexrelid::regclass::text, h.inhparent::regclass::text, i.indrelid::bigint"
        + _RELATIONS.replace(
            " WHERE",
            " JOIN pg_index i ON i.indexrelid = c.oid JOIN pg_inherits h ON h.inhrelid = c.oid WHERE",
            1,
        ),
    ),
    Kind(
        "maintainers of",
        "SELECT c.oid::regclass::text, nullif("
        + _MAINTAINERS.replace("{acl}", "coalesce(c.relacl, acldefault('r', c.relowner))")
        + ", "
        + _MAINTAINERS.replace("{acl}", "acldefault('r', c.relowner)")
        + "), c.oid::bigint"
        + _RELATIONS
        + " AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
        since=170000,
    ),
    Kind(
        "rights on sequence",
        "SELECT c.oid::regclass::text, "
        + _extraordinary("c.relacl", "s", "c.relowner")
        + ", "
        + _IDENTITY_OF
        + _RELATIONS
        + " AND c.relkind = 'S'",
    ),
    Kind(
        "unlogged sequence",
        "SELECT c.oid::regclass::text, 'unlogged', "
        + _IDENTITY_OF
        + _RELATIONS
        + " AND c.relkind = 'S' AND c.relpersistence = 'u'",
        since=150000,
    ),
    Kind(
        "state of rule",
        "SELECT format('%I on %s', r.rulename, c.oid::regclass), r.ev_enabled::text, c.oid::bigint"
        + _RELATIONS.replace(" WHERE", " JOIN pg_rewrite r ON r.ev_class = c.oid WHERE", 1)
        + " AND r.rulename <> '_RETURN' AND r.ev_enabled <> 'O'",
    ),
    Kind(
        "details of type",
        "SELECT format('%I.%I', n.nspname, t.typname), nullif(concat_ws(', ', CASE WHEN t.typtype = 'd' AND"
        " t.typcollation <> b.typcollation THEN 'collate ' || t.typcollation::regcollation END, 'rights ' || "
        + _extraordinary("t.typacl", "T", "t.typowner")
        + "), ''), 0 FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace"
        " LEFT JOIN pg_class c ON c.oid = t.typrelid LEFT JOIN pg_type b ON b.oid = t.typbasetype"
        " WHERE (t.typtype IN ('d', 'e', 'r') OR c.relkind = 'c' OR t.typtype = 'b' AND NOT EXISTS"
        " (SELECT FROM pg_type e WHERE e.typarray = t.oid)) AND " + ours("pg_type", "t.oid"),
    ),
    Kind(
        "range",
        "SELECT format('%I.%I', n.nspname, t.typname), concat_ws(' ', 'of', format_type(r.rngsubtype, NULL),"
        " 'collate ' || nullif(r.rngcollation, 0)::regcollation, (SELECT format('%I.%I', xn.nspname, x.opcname)"
        " FROM pg_opclass x JOIN pg_namespace xn ON xn.oid = x.opcnamespace WHERE x.oid = r.rngsubopc),"
        " 'canonical ' || "
        + function("r.rngcanonical")
        + ", 'difference ' || "
        + function("r.rngsubdiff")
        + ", 'multirange ' || format_type((to_jsonb(r) ->> 'rngmultitypid')::oid, NULL)), 0 FROM pg_range r"
        " JOIN pg_type t ON t.oid = r.rngtypid JOIN pg_namespace n ON n.oid = t.typnamespace WHERE "
        + ours("pg_type", "t.oid"),
    ),
    Kind(
        "aggregate",
        "SELECT p.oid::regprocedure::text, concat_ws(' ', a.aggkind, a.aggnumdirectargs, "
        + function("a.aggtransfn")
        + ", format_type(a.aggtranstype, NULL), a.aggtransspace, quote_literal(a.agginitval), 'final ' || "
        + function("a.aggfinalfn")
        + ", a.aggfinalextra, a.aggfinalmodify, 'combine ' || "
        + function("a.aggcombinefn")
        + ", 'serial ' || "
        + function("a.aggserialfn")
        + ", "
        + function("a.aggdeserialfn")
        + ", 'moving ' || concat_ws(' ', "
        + function("a.aggmtransfn")
        + ", "
        + function("a.aggminvtransfn")
        + ", format_type(nullif(a.aggmtranstype, 0), NULL), a.aggmtransspace, quote_literal(a.aggminitval), "
        + function("a.aggmfinalfn")
        + ", a.aggmfinalextra, a.aggmfinalmodify), 'sort ' || nullif(a.aggsortop, 0)::regoperator), 0"
        " FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid JOIN pg_namespace n ON n.oid = p.pronamespace"
        " WHERE " + ours("pg_proc", "p.oid"),
    ),
    Kind(
        "details of function",
        "SELECT p.oid::regprocedure::text, nullif(concat_ws(' ', 'cost ' || nullif(p.procost,"
        " CASE WHEN l.lanname IN ('c', 'internal') THEN 1 ELSE 100 END), 'rows ' || nullif(p.prorows,"
        " CASE WHEN p.proretset THEN 1000 ELSE 0 END), 'support ' || "
        + function("nullif(p.prosupport, 0)")
        + ", 'transforms ' || (SELECT string_agg(format_type(y, NULL), ', ' ORDER BY i) FROM unnest(p.protrftypes)"
        " WITH ORDINALITY u (y, i))), ''), 0 FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
        " JOIN pg_language l ON l.oid = p.prolang WHERE p.prokind <> 'a' AND " + ours("pg_proc", "p.oid"),
    ),
    Kind(
        "details of statistics",
        "SELECT format('%I.%I', n.nspname, s.stxname), concat_ws(' ', "
        + owner("s.stxowner")
        + ", 'target ' || nullif(coalesce(s.stxstattarget, -1), -1)), s.stxrelid::bigint FROM pg_statistic_ext s"
        " JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE " + ours("pg_statistic_ext", "s.oid"),
    ),
    Kind(
        "owner of event trigger",
        "SELECT quote_ident(e.evtname), quote_ident(pg_get_userbyid(e.evtowner)), 0 FROM pg_event_trigger e WHERE "
        + mine("pg_event_trigger", "e.oid"),
    ),
    Kind(
        "schema of extension",
        "SELECT quote_ident(e.extname), quote_ident(n.nspname), 0 FROM pg_extension e"
        " JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.oid >= 16384",
    ),
)
