"""The rarer objects of a PostgreSQL database: operators, casts, text search, languages and the like.

pg_dump decides what is here. What no dump holds would make every honest backup look broken; so objects that came with
the server, with an extension, or by themselves for another object, are left out.
"""

# ruff: noqa: S608 - the queries are texts of ours and nobody else's

from __future__ import annotations

from typing import LiteralString

from larder.databases._postgres_catalog_terms import Kind, function, mine, named, owner
from larder.databases._postgres_objects import ours, rights

#: What an operator class or family is made of, from operators and functions that `{which}` chooses.
_MEMBERS: LiteralString = (
    "(SELECT string_agg(line, ', ' ORDER BY line COLLATE \"C\") FROM (SELECT format('%s %s %s %s', o.amopstrategy,"
    " o.amopopr::regoperator, o.amoppurpose, " + named("opf", "o.amopsortfamily") + ") AS line FROM pg_amop o"
    " WHERE {operators} UNION ALL SELECT format('%s (%s, %s) %s', p.amprocnum, format_type(p.amproclefttype, NULL),"
    " format_type(p.amprocrighttype, NULL), "
    + function("p.amproc")
    + ") FROM pg_amproc p WHERE {functions}) m)"
)
_OF_FAMILY = _MEMBERS.replace("{operators}", "o.amopfamily = t.oid").replace(
    "{functions}", "p.amprocfamily = t.oid"
)
_OF_CLASS = _MEMBERS.replace(
    "{operators}",
    "EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_amop'::regclass AND d.objid = o.oid"
    " AND d.refclassid = 'pg_opclass'::regclass AND d.refobjid = t.oid)",
).replace(
    "{functions}",
    "EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_amproc'::regclass AND d.objid = p.oid"
    " AND d.refclassid = 'pg_opclass'::regclass AND d.refobjid = t.oid)",
)

OBJECTS: tuple[Kind, ...] = (
    Kind(
        "operator",
        "SELECT t.oid::regoperator::text, concat_ws(' ', "
        + owner("t.oprowner")
        + ", 'function', "
        + function("t.oprcode")
        + ", 'commutator ' || nullif(t.oprcom, 0)::regoperator, 'negator '"
        " || nullif(t.oprnegate, 0)::regoperator, 'restrict ' || "
        + function("t.oprrest")
        + ", 'join ' || "
        + function("t.oprjoin")
        + ", CASE WHEN t.oprcanhash THEN 'hashes' END, CASE WHEN t.oprcanmerge THEN 'merges'"
        # Without a function it is a mere promise of another operator.
        " END), 0 FROM pg_operator t JOIN pg_namespace n ON n.oid = t.oprnamespace WHERE t.oprcode <> 0 AND "
        + ours("pg_operator", "t.oid"),
    ),
    Kind(
        "operator family",
        "SELECT format('%I.%I using %I', n.nspname, t.opfname, a.amname), concat_ws(' ', "
        + owner("t.opfowner")
        + ", "
        + _OF_FAMILY
        + "), 0 FROM pg_opfamily t JOIN pg_namespace n ON n.oid = t.opfnamespace"
        " JOIN pg_am a ON a.oid = t.opfmethod WHERE " + ours("pg_opfamily", "t.oid"),
    ),
    Kind(
        "operator class",
        "SELECT format('%I.%I using %I', n.nspname, t.opcname, a.amname), concat_ws(' ', "
        + owner("t.opcowner")
        + ", CASE WHEN t.opcdefault THEN 'default' END, 'for', format_type(t.opcintype, NULL), 'family', "
        + named("opf", "t.opcfamily")
        + ", 'storage ' || format_type(nullif(t.opckeytype, 0), NULL), "
        + _OF_CLASS
        + "), 0 FROM pg_opclass t JOIN pg_namespace n ON n.oid = t.opcnamespace JOIN pg_am a ON a.oid = t.opcmethod"
        " WHERE " + ours("pg_opclass", "t.oid"),
    ),
    Kind(
        "cast",
        "SELECT format('%s as %s', format_type(t.castsource, NULL), format_type(t.casttarget, NULL)),"
        " concat_ws(' ', t.castmethod, t.castcontext, "
        + function("t.castfunc")
        + "), 0 FROM pg_cast t WHERE "
        # Of a range to its multirange: made with that.
        + mine("pg_cast", "t.oid")
        + " AND NOT EXISTS (SELECT FROM pg_depend d"
        " WHERE d.classid = 'pg_cast'::regclass AND d.objid = t.oid AND d.deptype = 'i')",
    ),
    Kind(
        "collation",
        "SELECT format('%I.%I', n.nspname, t.collname), concat_ws(' ', "
        + owner("t.collowner")
        + ", t.collprovider,"
        " CASE WHEN NOT t.collisdeterministic THEN 'not deterministic' END, quote_literal(t.collcollate::text),"
        " quote_literal(t.collctype::text), quote_literal(coalesce(to_jsonb(t) ->> 'colllocale',"
        " to_jsonb(t) ->> 'colliculocale')), 'rules ' || quote_literal(to_jsonb(t) ->> 'collicurules')), 0"
        " FROM pg_collation t JOIN pg_namespace n ON n.oid = t.collnamespace WHERE "
        + ours("pg_collation", "t.oid"),
        worded=True,
    ),
    Kind(
        "conversion",
        "SELECT format('%I.%I', n.nspname, t.conname), concat_ws(' ', " + owner("t.conowner") + ", CASE WHEN"
        " t.condefault THEN 'default' END, 'from', pg_encoding_to_char(t.conforencoding), 'to',"
        " pg_encoding_to_char(t.contoencoding), " + function("t.conproc") + "), 0"
        " FROM pg_conversion t JOIN pg_namespace n ON n.oid = t.connamespace WHERE "
        + ours("pg_conversion", "t.oid"),
    ),
    Kind(
        "text search configuration",
        "SELECT format('%I.%I', n.nspname, t.cfgname), concat_ws(' ', "
        + owner("t.cfgowner")
        + ", 'parser', "
        + named("prs", "t.cfgparser")
        + ", (SELECT string_agg(format('%s %s', m.maptokentype, "
        + named("dict", "m.mapdict")
        + "), ', ' ORDER BY m.maptokentype, m.mapseqno) FROM pg_ts_config_map m"
        " WHERE m.mapcfg = t.oid)), 0 FROM pg_ts_config t JOIN pg_namespace n ON n.oid = t.cfgnamespace WHERE "
        + ours("pg_ts_config", "t.oid"),
    ),
    Kind(
        "text search dictionary",
        "SELECT format('%I.%I', n.nspname, t.dictname), concat_ws(' ', "
        + owner("t.dictowner")
        + ", 'template', "
        + named("tmpl", "t.dicttemplate")
        + ", t.dictinitoption), 0"
        " FROM pg_ts_dict t JOIN pg_namespace n ON n.oid = t.dictnamespace WHERE "
        + ours("pg_ts_dict", "t.oid"),
    ),
    Kind(
        "text search parser",
        "SELECT format('%I.%I', n.nspname, t.prsname), concat_ws(' ', "
        + function("t.prsstart")
        + ", "
        + function("t.prstoken")
        + ", "
        + function("t.prsend")
        + ", "
        + function("t.prslextype")
        + ", 'headline ' || "
        + function("t.prsheadline")
        + "), 0 FROM pg_ts_parser t JOIN pg_namespace n ON n.oid = t.prsnamespace WHERE "
        + ours("pg_ts_parser", "t.oid"),
    ),
    Kind(
        "text search template",
        "SELECT format('%I.%I', n.nspname, t.tmplname), concat_ws(' ', 'init ' || "
        + function("t.tmplinit")
        + ", 'lexize', "
        + function("t.tmpllexize")
        + "), 0"
        " FROM pg_ts_template t JOIN pg_namespace n ON n.oid = t.tmplnamespace WHERE "
        + ours("pg_ts_template", "t.oid"),
    ),
    Kind(
        "transform",
        "SELECT format('of %s for %I', format_type(t.trftype, NULL), l.lanname), concat_ws(' ', 'from ' || "
        + function("t.trffromsql")
        + ", 'to ' || "
        + function("t.trftosql")
        + "), 0 FROM pg_transform t"
        " JOIN pg_language l ON l.oid = t.trflang WHERE " + mine("pg_transform", "t.oid"),
    ),
    Kind(
        "language",
        "SELECT quote_ident(t.lanname), concat_ws(' ', "
        + owner("t.lanowner")
        + ", CASE WHEN t.lanpltrusted THEN"
        " 'trusted' END, 'handler', "
        + function("t.lanplcallfoid")
        + ", 'inline ' || "
        + function("t.laninline")
        + ", 'validator ' || "
        + function("t.lanvalidator")
        + ", 'rights', "
        + rights("coalesce(t.lanacl, acldefault('l', t.lanowner))")
        + "), 0 FROM pg_language t"
        " WHERE t.lanispl AND " + mine("pg_language", "t.oid"),
    ),
    Kind(
        "access method",
        "SELECT quote_ident(t.amname), concat_ws(' ', t.amtype, "
        + function("t.amhandler")
        + "), 0 FROM pg_am t WHERE "
        + mine("pg_am", "t.oid"),
    ),
    Kind(
        "base type",
        "SELECT format('%I.%I', n.nspname, t.typname), concat_ws(' ', "
        + owner("t.typowner")
        + ", "
        + function("t.typinput")
        + ", "
        + function("t.typoutput")
        + ", 'receive ' || "
        + function("t.typreceive")
        + ", 'send ' || "
        + function("t.typsend")
        + ", 'modifier ' || "
        + function("t.typmodin")
        + ", "
        + function("t.typmodout")
        + ", 'analyze ' || "
        + function("t.typanalyze")
        + ", 'subscript '"
        " || (to_jsonb(t) ->> 'typsubscript'), 'length', t.typlen, CASE WHEN t.typbyval THEN 'by value' END, 'align',"
        " t.typalign, 'storage', t.typstorage, 'category', t.typcategory, CASE WHEN t.typispreferred THEN 'preferred'"
        " END, 'delimiter', quote_literal(t.typdelim::text), 'default ' || quote_literal(t.typdefault), 'of '"
        " || format_type(nullif(t.typelem, 0), NULL), CASE WHEN t.typcollation <> 0 THEN 'collatable' END), 0"
        " FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype = 'b' AND NOT EXISTS"
        " (SELECT FROM pg_type e WHERE e.typarray = t.oid) AND " + ours("pg_type", "t.oid"),
    ),
)
