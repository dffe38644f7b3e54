"""The normalised catalog of a PostgreSQL database: what there is in it, by kind and name, and how each is defined.

It is taken in the dump's snapshot, and once more of what came back. Everything is told under the search path of
`HARDENED`, so that names in definitions are whole on both sides. What belongs to an extension comes with that.
"""

# ruff: noqa: S608 - the queries are texts of ours and nobody else's

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

import psycopg

from larder.databases._postgres_catalog_compare import kept

_OURS: LiteralString = (
    "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
    " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{catalog}'::regclass AND d.objid = {oid}"
    " AND d.deptype = 'e')"
)
#: Who may do what, without who granted it; a right that comes by default is told like one that was granted.
_RIGHTS: LiteralString = (
    "coalesce((SELECT string_agg(who || '=' || what, ',' ORDER BY who, what) FROM ("
    "SELECT CASE a.grantee WHEN 0 THEN 'public' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS who,"
    " string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, '+'"
    " ORDER BY a.privilege_type) AS what"
    " FROM aclexplode({acl}) a WHERE a.privilege_type <> 'MAINTAIN' GROUP BY a.grantee) g), '')"
)


def ours(catalog: LiteralString, oid: LiteralString) -> LiteralString:
    """Whether what lies in schema `n` is neither the server's, nor an extension's, nor temporary."""
    return _OURS.replace("{catalog}", catalog).replace("{oid}", oid)


def rights(acl: LiteralString) -> LiteralString:
    """Who may do what by `acl`, as one text."""
    return _RIGHTS.replace("{acl}", acl)


#: `kind`, a query of identity, definition, the oid of the relation that it belongs to (0: none), and, of kinds with
#: expressions, whether it has any: another major version may word those in another way.
_QUERIES: tuple[tuple[str, LiteralString], ...] = (
    (
        "schema",
        "SELECT quote_ident(n.nspname), 'owner ' || quote_ident(pg_get_userbyid(n.nspowner)) || ', rights '"
        " || " + rights("coalesce(n.nspacl, acldefault('n', n.nspowner))") + ", 0"
        " FROM pg_namespace n WHERE " + ours("pg_namespace", "n.oid") + " AND n.nspname <> 'public'",
    ),
    (
        "table",
        "SELECT format('%I.%I', n.nspname, c.relname), concat_ws(', ', CASE c.relkind WHEN 'p' THEN 'partitioned by '"
        " || pg_get_partkeydef(c.oid) WHEN 'f' THEN 'foreign' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialised' END,"
        " CASE c.relpersistence WHEN 'u' THEN 'unlogged' END, pg_get_expr(c.relpartbound, c.oid),"
        " (SELECT 'inherits ' || string_agg(i.inhparent::regclass::text, ' ' ORDER BY i.inhseqno) FROM pg_inherits i"
        " WHERE i.inhrelid = c.oid), CASE WHEN c.relrowsecurity THEN 'row security' END,"
        " CASE WHEN c.relforcerowsecurity THEN 'forced' END, array_to_string(c.reloptions, ' '),"
        " 'owner ' || quote_ident(pg_get_userbyid(c.relowner)), 'rights '"
        " || " + rights("coalesce(c.relacl, acldefault('r', c.relowner))") + "), c.oid::bigint"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND c.relpersistence <> 't' AND "
        + ours("pg_class", "c.oid"),
    ),
    (
        "column",
        "SELECT format('%I.%I.%I', n.nspname, c.relname, a.attname), concat_ws(' ',"
        " format_type(a.atttypid, a.atttypmod),"
        " CASE WHEN a.attcollation <> t.typcollation THEN 'collate ' || a.attcollation::regcollation END,"
        " CASE WHEN a.attnotnull THEN 'not null' END, CASE a.attidentity WHEN 'a' THEN 'identity always'"
        " WHEN 'd' THEN 'identity' END, CASE WHEN a.attgenerated <> '' THEN 'generated' ELSE 'default' END"
        " || ' ' || pg_get_expr(d.adbin, d.adrelid), 'rights ' || nullif("
        + rights("a.attacl")
        + ", '')), c.oid::bigint, d.adbin IS NOT NULL"
        " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum"
        " WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'c') AND c.relpersistence <> 't' AND a.attnum > 0"
        " AND NOT a.attisdropped AND " + ours("pg_class", "c.oid"),
    ),
    (
        "constraint",
        "SELECT format('%I on %s', k.conname, CASE WHEN k.conrelid <> 0 THEN k.conrelid::regclass::text"
        " ELSE k.contypid::regtype::text END), pg_get_constraintdef(k.oid), k.conrelid::bigint,"
        " k.conbin IS NOT NULL OR k.conexclop IS NOT NULL"
        " FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace"
        " WHERE k.contype IN ('c', 'f', 'p', 'u', 'x')"
        " AND (k.contype <> 'f' OR k.conparentid = 0) AND " + ours("pg_class", "k.conrelid"),
    ),
    (
        "index",
        "SELECT format('%I.%I', n.nspname, c.relname), 'on ' || i.indrelid::regclass || regexp_replace("
        " pg_get_indexdef(i.indexrelid), '^.*? USING ', ' using ')"
        " || CASE WHEN i.indisunique THEN ', unique' ELSE '' END"
        " || CASE WHEN i.indisvalid THEN '' ELSE ', not valid' END"
        " || CASE WHEN i.indisclustered THEN ', clustered' ELSE '' END, i.indrelid::bigint,"
        " i.indexprs IS NOT NULL OR i.indpred IS NOT NULL"
        " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relpersistence <> 't' AND (i.indisvalid OR c.relkind = 'I') AND "
        + ours("pg_class", "i.indrelid"),
    ),
    (
        "view",
        "SELECT format('%I.%I', n.nspname, c.relname), pg_get_viewdef(c.oid), c.oid::bigint, true"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('v', 'm') AND c.relpersistence <> 't' AND " + ours("pg_class", "c.oid"),
    ),
    (
        "rule",
        "SELECT format('%I on %s', r.rulename, r.ev_class::regclass), pg_get_ruledef(r.oid), r.ev_class::bigint, true"
        " FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE r.rulename <> '_RETURN' AND " + ours("pg_class", "c.oid"),
    ),
    (
        "trigger",
        "SELECT format('%I on %s', t.tgname, t.tgrelid::regclass),"
        " pg_get_triggerdef(t.oid) || ', ' || t.tgenabled::text,"
        " t.tgrelid::bigint, t.tgqual IS NOT NULL FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT t.tgisinternal AND "
        + ours("pg_class", "c.oid"),
    ),
    (
        "policy",
        "SELECT format('%I on %s', p.polname, p.polrelid::regclass), concat_ws(' ', p.polcmd::text,"
        " CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END,"
        " (SELECT string_agg(CASE r WHEN 0 THEN 'public' ELSE quote_ident(pg_get_userbyid(r)) END, ','"
        " ORDER BY CASE r WHEN 0 THEN 'public' ELSE quote_ident(pg_get_userbyid(r)) END)"
        " FROM unnest(p.polroles) r), pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)),"
        " p.polrelid::bigint, true FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE " + ours("pg_class", "c.oid"),
    ),
    (
        "function",
        "SELECT p.oid::regprocedure::text, concat_ws(' ', p.prokind::text, pg_get_function_result(p.oid), l.lanname,"
        " p.provolatile::text, p.proisstrict::text, p.prosecdef::text, p.proparallel::text, p.proleakproof::text,"
        " array_to_string(p.proconfig, ' '),"
        " hashtextextended(p.prosrc COLLATE \"C\", 0), {body}, pg_get_function_arguments(p.oid), 'owner',"
        " pg_get_userbyid(p.proowner), 'rights', "
        + rights("coalesce(p.proacl, acldefault('f', p.proowner))")
        # Until version 14, the arguments of procedures were told in another way.
        + "), 0, p.pronargdefaults > 0 OR p.prokind = 'p' OR {body} IS NOT NULL"
        " FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang"
        " WHERE " + ours("pg_proc", "p.oid"),
    ),
    (
        "type",
        "SELECT format('%I.%I', n.nspname, t.typname), concat_ws(' ', CASE t.typtype WHEN 'e' THEN 'enum'"
        " WHEN 'd' THEN 'domain over ' || format_type(t.typbasetype, t.typtypmod) WHEN 'r' THEN 'range'"
        " WHEN 'c' THEN 'composite' ELSE t.typtype::text END, CASE WHEN t.typnotnull THEN 'not null' END,"
        " 'default ' || t.typdefault, (SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder)"
        " FROM pg_enum e WHERE e.enumtypid = t.oid), 'owner ' || quote_ident(pg_get_userbyid(t.typowner))), 0,"
        " t.typdefault IS NOT NULL"
        " FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid"
        " WHERE t.typtype IN ('e', 'd', 'r', 'c') AND (t.typtype <> 'c' OR c.relkind = 'c') AND "
        + ours("pg_type", "t.oid"),
    ),
    (
        "sequence",
        "SELECT format('%I.%I', n.nspname, c.relname), concat_ws(' ', format_type(s.seqtypid, NULL),"
        " 'by', s.seqincrement,"
        " 'from', s.seqmin, 'to', s.seqmax, 'start', s.seqstart, 'cache', s.seqcache,"
        " CASE WHEN s.seqcycle THEN 'cycle' END, 'owner ' || quote_ident(pg_get_userbyid(c.relowner)),"
        " (SELECT 'of ' || format('%s.%I', a.attrelid::regclass, a.attname) FROM pg_depend d JOIN pg_attribute a"
        " ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid WHERE d.classid = 'pg_class'::regclass"
        " AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')"
        " AND NOT d.refobjid = ANY ('{gone}'::oid[]))),"
        " coalesce((SELECT d.refobjid::bigint FROM pg_depend d WHERE d.classid = 'pg_class'::regclass"
        " AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'), 0)"
        " FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relpersistence <> 't' AND " + ours("pg_class", "c.oid"),
    ),
    ("large objects", "SELECT 'all', count(*)::text, 0 FROM pg_largeobject_metadata"),
    ("extension", "SELECT quote_ident(extname), '', 0 FROM pg_extension"),
    (
        "event trigger",
        "SELECT quote_ident(e.evtname), concat_ws(' ', e.evtevent, e.evtenabled::text, e.evtfoid::regproc::text,"
        " array_to_string(e.evttags, ',')), 0 FROM pg_event_trigger e WHERE NOT EXISTS (SELECT FROM pg_depend d"
        " WHERE d.classid = 'pg_event_trigger'::regclass AND d.objid = e.oid AND d.deptype = 'e')",
    ),
    (
        "statistics",
        "SELECT format('%I.%I', n.nspname, s.stxname), pg_get_statisticsobjdef(s.oid), s.stxrelid::bigint, true"
        " FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE "
        + ours("pg_statistic_ext", "s.oid"),
    ),
)

#: What comes with another object, as that is made: the functions of range types, with the rights that functions have
#: then; and checks that are inherited, valid or not as their parent's is by then.
_REMADE: LiteralString = (
    "SELECT 'function ' || d.objid::regprocedure FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass"
    " AND d.refclassid = 'pg_type'::regclass AND d.deptype = 'i' UNION ALL"
    " SELECT format('constraint %I on %s', conname, conrelid::regclass) FROM pg_constraint"
    " WHERE contype = 'c' AND conrelid <> 0 AND NOT conislocal"
)

#: Foreign keys of tables that stay to tables that were left out: they are in no dump of those that stay.
_REFERENCES: LiteralString = (
    "SELECT format('%%I on %%s', conname, conrelid::regclass) FROM pg_constraint"
    " WHERE confrelid = ANY (%(gone)s)"
)


def catalog(connection: psycopg.Connection, gone: Sequence[int] = ()) -> dict[str, str]:
    """Each object as `kind identity` with its definition, without what belongs to the relations `gone`.

    Raises `psycopg.Error`.
    """
    return {name: kept(name, definition) for name, definition in worded(connection, gone)[0].items()}


def remade(connection: psycopg.Connection) -> set[str]:
    """The objects that no dump holds, since the server makes them for the sake of others. Raises `psycopg.Error`."""
    return {name for (name,) in connection.execute(_REMADE).fetchall()}


def worded(connection: psycopg.Connection, gone: Sequence[int] = ()) -> tuple[dict[str, str], set[str]]:
    """As `catalog`, but the whole definitions, and which of the objects have expressions. Raises `psycopg.Error`."""
    left_out = set(gone)
    found: dict[str, str] = {}
    loose = set()
    for kind, query in _QUERIES:
        # Bodies in standard SQL came with version 14.
        body: LiteralString = (
            "pg_get_function_sqlbody(p.oid)" if connection.info.server_version >= 140000 else "NULL"
        )
        # Numbers, and nobody's words. pg_dump leaves out an identity with its table, and no other sequence.
        numbers = "{" + ",".join(map(str, sorted(left_out))) + "}"
        text = query.replace("{body}", body).replace("{gone}", numbers)
        for identity, definition, relation, *has in connection.execute(text.encode()).fetchall():
            if not (relation and int(relation) in left_out):
                found[f"{kind} {identity}"] = definition or ""
                loose |= {f"{kind} {identity}"} if any(has) else set()
    if left_out:
        for (identity,) in connection.execute(_REFERENCES, {"gone": list(left_out)}).fetchall():
            found.pop(f"constraint {identity}", None)
    return dict(sorted(found.items())), loose
