"""Who may do what in a PostgreSQL database, what is said of its objects, and where it is tied to others.

pg_dump decides what is here. What no dump holds would make every honest backup look broken; so objects that came with
the server, with an extension, or by themselves for another object, are left out.
"""

# ruff: noqa: S608 - the queries are texts of ours and nobody else's

from __future__ import annotations

from typing import LiteralString

from larder.databases._postgres_catalog_terms import Kind, function, mine, options, owner
from larder.databases._postgres_objects import ours, rights

#: More large objects than this are told by what they have in common.
MOST_LARGE_OBJECTS = 1000

#: Comments and labels that pg_dump writes: none of what exists for the sake of something else.
_TOLD: LiteralString = (
    " LEFT JOIN pg_class c ON t.classoid = 'pg_class'::regclass AND c.oid = t.objoid"
    " LEFT JOIN pg_index x ON x.indexrelid = c.oid"
    " LEFT JOIN pg_constraint k ON t.classoid = 'pg_constraint'::regclass AND k.oid = t.objoid"
    " LEFT JOIN pg_trigger g ON t.classoid = 'pg_trigger'::regclass AND g.oid = t.objoid"
    " LEFT JOIN pg_policy p ON t.classoid = 'pg_policy'::regclass AND p.oid = t.objoid"
    " LEFT JOIN pg_rewrite r ON t.classoid = 'pg_rewrite'::regclass AND r.oid = t.objoid"
    " LEFT JOIN pg_statistic_ext s ON t.classoid = 'pg_statistic_ext'::regclass AND s.oid = t.objoid"
    " LEFT JOIN pg_type y ON t.classoid = 'pg_type'::regclass AND y.oid = t.objoid"
    " LEFT JOIN pg_class yc ON yc.oid = y.typrelid"
    " CROSS JOIN LATERAL pg_identify_object(t.classoid, t.objoid, t.objsubid) i"
    # People number large objects themselves.
    " WHERE (t.objoid >= 16384 OR t.classoid = 'pg_largeobject'::regclass)"
    " AND t.classoid NOT IN ('pg_extension'::regclass, 'pg_subscription'::regclass)"
    " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = t.classoid AND d.objid = t.objoid"
    " AND (d.deptype = 'e' OR d.deptype = 'i' AND t.classoid = 'pg_proc'::regclass))"
    " AND coalesce(i.schema !~ '^(pg_|information_schema$)', true) AND i.identity !~ '\\mpg_temp_\\d+\\.'"
    " AND (x.indexrelid IS NULL OR x.indisvalid OR c.relkind = 'I')"
    " AND (k.oid IS NULL OR k.contype NOT IN ('n', 't') AND k.conislocal AND (k.contype <> 'f' OR k.conparentid = 0))"
    " AND (g.oid IS NULL OR NOT g.tgisinternal AND g.tgparentid = 0) AND (r.oid IS NULL OR r.rulename <> '_RETURN')"
    " AND (y.oid IS NULL OR y.typtype IN ('d', 'e', 'r') OR yc.relkind = 'c'"
    " OR y.typtype = 'b' AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = y.oid))"
)
_GOES_WITH: LiteralString = (
    "coalesce(x.indrelid, c.oid, k.conrelid, g.tgrelid, p.polrelid, r.ev_class, s.stxrelid, 0)::bigint"
)

_LARGE_OBJECT: LiteralString = (
    "SELECT m.oid, "
    + owner("m.lomowner")
    + " || ', rights ' || "
    + rights("coalesce(m.lomacl, acldefault('L', m.lomowner))")
    + " AS said, count(*) OVER () > {most} AS many FROM pg_largeobject_metadata m"
)

LINKS: tuple[Kind, ...] = (
    Kind(
        "comment on",
        "SELECT i.type || ' ' || i.identity, t.description, " + _GOES_WITH + " FROM pg_description t" + _TOLD,
        hidden=True,
    ),
    Kind(
        "security label of",
        "SELECT format('%s %s by %I', i.type, i.identity, t.provider), t.label, "
        + _GOES_WITH
        + " FROM pg_seclabel t"
        + _TOLD,
        hidden=True,
    ),
    Kind(
        "public schema",
        # pg_dump brings owner, comment and rights of it back since version 15.
        "SELECT quote_ident(t.nspname), concat_ws(', ', " + owner("t.nspowner") + ", 'comment '"
        " || hashtextextended(obj_description(t.oid, 'pg_namespace') COLLATE \"C\", 0), 'rights '"
        " || " + rights("coalesce(t.nspacl, acldefault('n', t.nspowner))") + "), 0"
        " FROM pg_namespace t WHERE t.nspname = 'public'",
        since=150000,
    ),
    Kind(
        "default privileges",
        "SELECT concat_ws(' ', 'of', quote_ident(pg_get_userbyid(t.defaclrole)),"
        " 'in schema ' || quote_ident(n.nspname), 'on', CASE t.defaclobjtype"
        " WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions'"
        " WHEN 'T' THEN 'types' WHEN 'n' THEN 'schemas' WHEN 'L' THEN 'large objects' ELSE t.defaclobjtype::text END),"
        " "
        + rights("t.defaclacl")
        + ", 0 FROM pg_default_acl t LEFT JOIN pg_namespace n ON n.oid = t.defaclnamespace",
    ),
    Kind(
        "publication",
        "SELECT quote_ident(t.pubname), concat_ws(' ', " + owner("t.pubowner") + ", CASE WHEN t.puballtables"
        " THEN 'all tables' END, CASE WHEN t.pubinsert THEN 'insert' END, CASE WHEN t.pubupdate THEN 'update' END,"
        " CASE WHEN t.pubdelete THEN 'delete' END, CASE WHEN t.pubtruncate THEN 'truncate' END,"
        " CASE WHEN t.pubviaroot THEN 'via root' END, 'generated ' || nullif(to_jsonb(t) ->> 'pubgencols', 'n')), 0"
        " FROM pg_publication t WHERE " + mine("pg_publication", "t.oid"),
    ),
    Kind(
        "published table",
        "SELECT format('%s in %I', t.prrelid::regclass, p.pubname), NULL, t.prrelid::bigint"
        " FROM pg_publication_rel t JOIN pg_publication p ON p.oid = t.prpubid WHERE "
        + mine("pg_publication", "p.oid"),
    ),
    Kind(
        "published columns",
        "SELECT format('%s in %I', t.prrelid::regclass, p.pubname), (SELECT string_agg(quote_ident(a.attname), ', '"
        ' ORDER BY a.attname COLLATE "C") FROM pg_attribute a WHERE a.attrelid = t.prrelid AND a.attnum ='
        " ANY (t.prattrs)), t.prrelid::bigint FROM pg_publication_rel t JOIN pg_publication p ON p.oid = t.prpubid"
        " WHERE t.prattrs IS NOT NULL AND " + mine("pg_publication", "p.oid"),
        since=150000,
    ),
    Kind(
        "published rows",
        "SELECT format('%s in %I', t.prrelid::regclass, p.pubname), pg_get_expr(t.prqual, t.prrelid),"
        " t.prrelid::bigint FROM pg_publication_rel t JOIN pg_publication p ON p.oid = t.prpubid"
        " WHERE t.prqual IS NOT NULL AND " + mine("pg_publication", "p.oid"),
        since=150000,
        worded=True,
    ),
    Kind(
        "published schema",
        "SELECT format('%I in %I', n.nspname, p.pubname), NULL, 0 FROM pg_publication_namespace t"
        " JOIN pg_publication p ON p.oid = t.pnpubid JOIN pg_namespace n ON n.oid = t.pnnspid WHERE "
        + mine("pg_publication", "p.oid"),
        since=150000,
    ),
    Kind(
        "subscription",
        # Its connection string holds a password, and is never asked for.
        "SELECT quote_ident(t.subname), concat_ws(' ', " + owner("t.subowner") + ", 'to', (SELECT string_agg("
        "quote_ident(u), ', ' ORDER BY u COLLATE \"C\") FROM unnest(t.subpublications) u), 'slot',"
        " quote_nullable(t.subslotname)), 0 FROM pg_subscription t WHERE t.subdbid ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())",
        superuser=True,
    ),
    Kind(
        "foreign data wrapper",
        "SELECT quote_ident(t.fdwname), concat_ws(' ', "
        + owner("t.fdwowner")
        + ", 'handler ' || "
        + function("t.fdwhandler")
        + ", 'validator ' || "
        + function("t.fdwvalidator")
        + ", 'options ' || "
        + options("t.fdwoptions")
        + ", 'rights', "
        + rights("coalesce(t.fdwacl, acldefault('F', t.fdwowner))")
        + "), 0"
        " FROM pg_foreign_data_wrapper t WHERE " + mine("pg_foreign_data_wrapper", "t.oid"),
    ),
    Kind(
        "foreign server",
        "SELECT quote_ident(t.srvname), concat_ws(' ', "
        + owner("t.srvowner")
        + ", 'of', quote_ident(w.fdwname),"
        " 'type ' || quote_literal(t.srvtype), 'version ' || quote_literal(t.srvversion), 'options ' || "
        + options("t.srvoptions")
        + ", 'rights', "
        + rights("coalesce(t.srvacl, acldefault('S', t.srvowner))")
        + "), 0"
        " FROM pg_foreign_server t JOIN pg_foreign_data_wrapper w ON w.oid = t.srvfdw WHERE "
        + mine("pg_foreign_server", "t.oid"),
    ),
    Kind(
        "user mapping",
        "SELECT format('of %I at %I', t.usename, t.srvname), NULL, 0 FROM pg_user_mappings t WHERE "
        + mine("pg_foreign_server", "t.srvid"),
    ),
    Kind(
        "foreign table",
        "SELECT t.ftrelid::regclass::text, s.srvname || ' ' || coalesce(array_to_string(t.ftoptions, ' '), ''),"
        " t.ftrelid::bigint FROM pg_foreign_table t JOIN pg_foreign_server s ON s.oid = t.ftserver"
        " JOIN pg_class c ON c.oid = t.ftrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE "
        + ours("pg_class", "c.oid"),
        hidden=True,
    ),
    Kind(
        "foreign column",
        "SELECT format('%s.%I', a.attrelid::regclass, a.attname), array_to_string(a.attfdwoptions, ' '), c.oid::bigint"
        " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'f' AND a.attfdwoptions IS NOT NULL AND NOT a.attisdropped AND "
        + ours("pg_class", "c.oid"),
        hidden=True,
    ),
    Kind(
        "large object",
        "WITH t AS (" + _LARGE_OBJECT.replace("{most}", str(MOST_LARGE_OBJECTS)) + ")"
        " SELECT oid::text, said, 0 FROM t WHERE NOT many UNION ALL SELECT 'all of ' || said, count(*) || ' with the"
        " numbers ' || encode(sha256(string_agg(oid::text, ',' ORDER BY oid)::bytea), 'hex'), 0 FROM t WHERE many"
        " GROUP BY said",
    ),
)
