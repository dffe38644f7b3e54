"""The normalised catalog of a PostgreSQL database: what there is in it, by kind and name, and how each is defined.

It is taken in the dump's snapshot, and once more of what came back. Everything is told under the search path of
`HARDENED`, so that names in definitions are whole on both sides. What belongs to an extension comes with that.
"""

# ruff: noqa: S608 - the queries are texts of ours and nobody else's

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import sql

#: Definitions that are longer are known by their SHA-256 only.
LONGEST = 200

#: Kinds whose definitions the server words anew, which another major version may do in another way.
_WORDED = ("column", "constraint", "index", "view", "trigger", "policy", "rule", "function", "type")

#: Kinds whose text may hold a secret, or somebody's words: known by their SHA-256 always.
_HIDDEN = ("function",)

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


def _ours(catalog: LiteralString, oid: LiteralString) -> LiteralString:
    return _OURS.replace("{catalog}", catalog).replace("{oid}", oid)


def _rights(acl: LiteralString) -> LiteralString:
    return _RIGHTS.replace("{acl}", acl)


#: `kind`, a query of identity, definition, and the oid of the relation that it belongs to (0: none).
_QUERIES: tuple[tuple[str, LiteralString], ...] = (
    (
        "schema",
        "SELECT quote_ident(n.nspname), 'owner ' || quote_ident(pg_get_userbyid(n.nspowner)) || ', rights '"
        " || " + _rights("coalesce(n.nspacl, acldefault('n', n.nspowner))") + ", 0"
        " FROM pg_namespace n WHERE " + _ours("pg_namespace", "n.oid") + " AND n.nspname <> 'public'",
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
        " || " + _rights("coalesce(c.relacl, acldefault('r', c.relowner))") + "), c.oid::bigint"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND c.relpersistence <> 't' AND "
        + _ours("pg_class", "c.oid"),
    ),
    (
        "column",
        "SELECT format('%I.%I.%I', n.nspname, c.relname, a.attname), concat_ws(' ',"
        " format_type(a.atttypid, a.atttypmod),"
        " CASE WHEN a.attcollation <> t.typcollation THEN 'collate ' || a.attcollation::regcollation END,"
        " CASE WHEN a.attnotnull THEN 'not null' END, CASE a.attidentity WHEN 'a' THEN 'identity always'"
        " WHEN 'd' THEN 'identity' END, CASE WHEN a.attgenerated <> '' THEN 'generated' ELSE 'default' END"
        " || ' ' || pg_get_expr(d.adbin, d.adrelid), 'rights ' || nullif("
        + _rights("a.attacl")
        + ", '')), c.oid::bigint"
        " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum"
        " WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'c') AND c.relpersistence <> 't' AND a.attnum > 0"
        " AND NOT a.attisdropped AND " + _ours("pg_class", "c.oid"),
    ),
    (
        "constraint",
        "SELECT format('%I on %s', k.conname, CASE WHEN k.conrelid <> 0 THEN k.conrelid::regclass::text"
        " ELSE k.contypid::regtype::text END), pg_get_constraintdef(k.oid), k.conrelid::bigint"
        " FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace"
        " WHERE k.contype IN ('c', 'f', 'p', 'u', 'x')"
        " AND (k.contype <> 'f' OR k.conparentid = 0) AND " + _ours("pg_class", "k.conrelid"),
    ),
    (
        "index",
        "SELECT format('%I.%I', n.nspname, c.relname), 'on ' || i.indrelid::regclass || regexp_replace("
        " pg_get_indexdef(i.indexrelid), '^.*? USING ', ' using ')"
        " || CASE WHEN i.indisunique THEN ', unique' ELSE '' END"
        " || CASE WHEN i.indisvalid THEN '' ELSE ', not valid' END"
        " || CASE WHEN i.indisclustered THEN ', clustered' ELSE '' END, i.indrelid::bigint"
        " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relpersistence <> 't' AND (i.indisvalid OR c.relkind = 'I') AND "
        + _ours("pg_class", "i.indrelid"),
    ),
    (
        "view",
        "SELECT format('%I.%I', n.nspname, c.relname), pg_get_viewdef(c.oid), c.oid::bigint"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('v', 'm') AND c.relpersistence <> 't' AND " + _ours("pg_class", "c.oid"),
    ),
    (
        "rule",
        "SELECT format('%I on %s', r.rulename, r.ev_class::regclass), pg_get_ruledef(r.oid), r.ev_class::bigint"
        " FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE r.rulename <> '_RETURN' AND " + _ours("pg_class", "c.oid"),
    ),
    (
        "trigger",
        "SELECT format('%I on %s', t.tgname, t.tgrelid::regclass),"
        " pg_get_triggerdef(t.oid) || ', ' || t.tgenabled::text,"
        " t.tgrelid::bigint FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT t.tgisinternal AND "
        + _ours("pg_class", "c.oid"),
    ),
    (
        "policy",
        "SELECT format('%I on %s', p.polname, p.polrelid::regclass), concat_ws(' ', p.polcmd::text,"
        " CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END,"
        " (SELECT string_agg(CASE r WHEN 0 THEN 'public' ELSE quote_ident(pg_get_userbyid(r)) END, ','"
        " ORDER BY CASE r WHEN 0 THEN 'public' ELSE quote_ident(pg_get_userbyid(r)) END)"
        " FROM unnest(p.polroles) r), pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)),"
        " p.polrelid::bigint FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE " + _ours("pg_class", "c.oid"),
    ),
    (
        "function",
        "SELECT p.oid::regprocedure::text, concat_ws(' ', p.prokind::text, pg_get_function_result(p.oid), l.lanname,"
        " p.provolatile::text, p.proisstrict::text, p.prosecdef::text, p.proparallel::text, p.proleakproof::text,"
        " array_to_string(p.proconfig, ' '),"
        " hashtextextended(p.prosrc COLLATE \"C\", 0), {body}, pg_get_function_arguments(p.oid), 'owner',"
        " pg_get_userbyid(p.proowner), 'rights', "
        + _rights("coalesce(p.proacl, acldefault('f', p.proowner))")
        + "), 0"
        " FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang"
        " WHERE " + _ours("pg_proc", "p.oid"),
    ),
    (
        "type",
        "SELECT format('%I.%I', n.nspname, t.typname), concat_ws(' ', CASE t.typtype WHEN 'e' THEN 'enum'"
        " WHEN 'd' THEN 'domain over ' || format_type(t.typbasetype, t.typtypmod) WHEN 'r' THEN 'range'"
        " WHEN 'c' THEN 'composite' ELSE t.typtype::text END, CASE WHEN t.typnotnull THEN 'not null' END,"
        " 'default ' || t.typdefault, (SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder)"
        " FROM pg_enum e WHERE e.enumtypid = t.oid), 'owner ' || quote_ident(pg_get_userbyid(t.typowner))), 0"
        " FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid"
        " WHERE t.typtype IN ('e', 'd', 'r', 'c') AND (t.typtype <> 'c' OR c.relkind = 'c') AND "
        + _ours("pg_type", "t.oid"),
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
        " WHERE c.relpersistence <> 't' AND " + _ours("pg_class", "c.oid"),
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
        "SELECT format('%I.%I', n.nspname, s.stxname), pg_get_statisticsobjdef(s.oid), s.stxrelid::bigint"
        " FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE "
        + _ours("pg_statistic_ext", "s.oid"),
    ),
)

#: Foreign keys of tables that stay to tables that were left out: they are in no dump of those that stay.
_REFERENCES: LiteralString = (
    "SELECT format('%%I on %%s', conname, conrelid::regclass) FROM pg_constraint"
    " WHERE confrelid = ANY (%(gone)s)"
)

_SEQUENCES: LiteralString = (
    "SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), s.seqincrement,"
    " has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT'), coalesce((SELECT"
    " d.refobjid::bigint FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid"
    " AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'), 0)"
    " FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relpersistence <> 't' AND " + _ours("pg_class", "c.oid") + " ORDER BY 3"
)

#: Quoted text and names, which count; casts; and white space and parentheses. A server words one and the same
#: expression with other casts and parentheses once it has been dumped and loaded.
_PARTS = re.compile(
    r"('(?:[^']|'')*')"
    r"|(::(?:\"(?:[^\"]|\"\")*\"|[a-z_][\w$]*)(?:\.(?:\"(?:[^\"]|\"\")*\"|[a-z_][\w$]*))?"
    r"(?: varying| precision| with(?:out)? time zone)?(?:\(\d+(?:,\s*\d+)?\))?(?: with(?:out)? time zone)?(?:\[\])*)"
    r"|(\"(?:[^\"]|\"\")*\")"
    r"|([\s()]+)"
)
#: White space that parts no two words.
_NEEDLESS = re.compile(r"\0+(?!\w)|(?<!\w)\0+")


def catalog(connection: psycopg.Connection, gone: Sequence[int] = ()) -> dict[str, str]:
    """Each object as `kind identity` with its definition, without what belongs to the relations `gone`.

    Raises `psycopg.Error`.
    """
    left_out = set(gone)
    found: dict[str, str] = {}
    for kind, query in _QUERIES:
        # Bodies in standard SQL came with version 14.
        body: LiteralString = (
            "pg_get_function_sqlbody(p.oid)" if connection.info.server_version >= 140000 else "NULL"
        )
        # Numbers, and nobody's words. pg_dump leaves out an identity with its table, and no other sequence.
        numbers = "{" + ",".join(map(str, sorted(left_out))) + "}"
        text = query.replace("{body}", body).replace("{gone}", numbers)
        for identity, definition, relation in connection.execute(text.encode()).fetchall():
            if not (relation and int(relation) in left_out):
                found[f"{kind} {identity}"] = _kept(kind, definition or "")
    if left_out:
        for (identity,) in connection.execute(_REFERENCES, {"gone": list(left_out)}).fetchall():
            found.pop(f"constraint {identity}", None)
    return dict(sorted(found.items()))


def _kept(kind: str, definition: str) -> str:
    if len(definition) <= LONGEST and kind not in _HIDDEN:
        return definition
    return "sha256:" + hashlib.sha256(plain(definition).encode()).hexdigest()


def plain(definition: str) -> str:
    """A definition without casts and parentheses, and with white space only between words, outside of quotes."""
    marked = _PARTS.sub(lambda part: part[1] or part[3] or ("\0" if part[4] else ""), definition)
    return re.sub("\0+", " ", _NEEDLESS.sub("", marked))


def differences(wanted: Mapping[str, str], found: Mapping[str, str], *, worded_alike: bool) -> Iterator[str]:
    """How one catalog differs from another, an object a line.

    Where the two servers word definitions differently (`worded_alike` is false), those are compared by their names.
    """
    for name in sorted({*wanted, *found}):
        if name not in found:
            yield f"{name} is missing"
        elif name not in wanted:
            yield f"{name} is not in the backup"
        elif (worded_alike or not name.startswith(_WORDED)) and plain(wanted[name]) != plain(found[name]):
            if wanted[name].startswith("sha256:"):
                yield f"{name}: its definition is another one"
            else:
                yield f"{name}: expected {wanted[name]}, found {found[name]}"


def positions(
    connection: psycopg.Connection, gone: Sequence[int] = ()
) -> tuple[dict[str, list[Any]], list[str]]:
    """Last value, whether that was given out, and increment of each sequence; and those that this role may not read.

    A sequence's position is no part of any snapshot: it is what it is when it is asked. Raises `psycopg.Error`.
    """
    found: dict[str, list[Any]] = {}
    unread = []
    for schema, sequence, name, increment, readable, table in connection.execute(_SEQUENCES).fetchall():
        if int(table) and int(table) in set(gone):
            continue
        if not readable:
            unread.append(f"the position of sequence {name}, which this role may not read")
            continue
        query = sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(schema, sequence))
        value, called = connection.execute(query).fetchone() or (0, False)
        found[str(name)] = [int(value), bool(called), int(increment)]
    return found, unread
