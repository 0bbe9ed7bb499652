//! Types: enums, domains, ranges, base types; collations and conversions. Row types of tables, array and multirange types belong to the
//! type that they are made of; a composite type's attributes are columns.
use super::Query;

pub(super) fn queries() -> Vec<Query> {
    [TYPES, COLLATIONS, COLLATION_RULES, CONVERSIONS]
        .map(str::to_owned)
        .to_vec()
}

const TYPES: &str = "
    SELECT t.tableoid, t.oid, 'type', format('%I.%I', n.nspname, t.typname), n.nspname, NULL, NULL,
    CASE t.typtype
    WHEN 'e' THEN jsonb_build_object(
        'variety', 'enum',
        'labels', (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid))
    WHEN 'd' THEN jsonb_build_object(
        'variety', 'domain',
        'base type', format_type(t.typbasetype, t.typtypmod),
        'not null', CASE WHEN t.typnotnull THEN 'yes' END,
        'default', coalesce(pg_get_expr(t.typdefaultbin, 0), t.typdefault),
        'collation', CASE WHEN t.typcollation NOT IN (0, b.typcollation) THEN t.typcollation::regcollation::text END)
    WHEN 'r' THEN jsonb_build_object(
        'variety', 'range',
        'subtype', r.rngsubtype::regtype::text,
        'operator class', (SELECT i.identity FROM pg_identify_object('pg_opclass'::regclass, r.rngsubopc, 0) i),
        'collation', CASE WHEN r.rngcollation NOT IN (0, s.typcollation) THEN r.rngcollation::regcollation::text END,
        'canonical', nullif(r.rngcanonical::regproc::text, '-'),
        'difference', nullif(r.rngsubdiff::regproc::text, '-'),
        'multirange', r.rngmultitypid::regtype::text)
    WHEN 'c' THEN jsonb_build_object('variety', 'composite')
    WHEN 'p' THEN jsonb_build_object('variety', 'shell')
    ELSE jsonb_build_object(
        'variety', 'base',
        'length', t.typlen,
        'by value', t.typbyval,
        'alignment', t.typalign,
        'storage', t.typstorage,
        'category', t.typcategory,
        'preferred', CASE WHEN t.typispreferred THEN 'yes' END,
        'delimiter', t.typdelim,
        'element', CASE WHEN t.typelem <> 0 THEN t.typelem::regtype::text END,
        'default', t.typdefault,
        'collatable', CASE WHEN t.typcollation <> 0 THEN 'yes' END,
        'input', nullif(t.typinput::regproc::text, '-'),
        'output', nullif(t.typoutput::regproc::text, '-'),
        'receive', nullif(t.typreceive::regproc::text, '-'),
        'send', nullif(t.typsend::regproc::text, '-'),
        'modifier input', nullif(t.typmodin::regproc::text, '-'),
        'modifier output', nullif(t.typmodout::regproc::text, '-'),
        'analyze', nullif(t.typanalyze::regproc::text, '-'),
        'subscript', nullif(t.typsubscript::regproc::text, '-')) END
    FROM pg_type t
    JOIN own_schema n ON n.oid = t.typnamespace
    LEFT JOIN pg_class c ON c.oid = t.typrelid
    LEFT JOIN pg_type b ON b.oid = t.typbasetype
    LEFT JOIN pg_range r ON r.rngtypid = t.oid
    LEFT JOIN pg_type s ON s.oid = r.rngsubtype
    WHERE t.typtype <> 'm' AND (t.typrelid = 0 OR c.relkind = 'c')
      AND NOT EXISTS (SELECT FROM pg_type a WHERE a.typarray = t.oid)";

/// The library's version is the server's, not the collation's; so is the encoding, of a copy of a built-in collation another one. PostgreSQL 14 keeps an ICU locale where the others keep LC_COLLATE.
const COLLATIONS: &str = "
    SELECT c.tableoid, c.oid, 'collation', format('%I.%I', n.nspname, c.collname), n.nspname, NULL, NULL, jsonb_build_object(
        'provider', CASE c.collprovider WHEN 'i' THEN 'icu' WHEN 'c' THEN 'libc' WHEN 'b' THEN 'builtin' WHEN 'd' THEN 'default' END,
        'locale', CASE WHEN c.collprovider <> 'c'
                       THEN coalesce(to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale', c.collcollate) END,
        'collate', CASE c.collprovider WHEN 'c' THEN c.collcollate END,
        'ctype', CASE c.collprovider WHEN 'c' THEN c.collctype END,
        'deterministic', c.collisdeterministic)
    FROM pg_collation c JOIN own_schema n ON n.oid = c.collnamespace";

/// PostgreSQL 16 and later.
const COLLATION_RULES: &str = "
    SELECT c.tableoid, c.oid, 'collation', format('%I.%I', n.nspname, c.collname), n.nspname, NULL, NULL,
           jsonb_build_object('rules', to_jsonb(c) ->> 'collicurules')
    FROM pg_collation c JOIN own_schema n ON n.oid = c.collnamespace";

const CONVERSIONS: &str = "
    SELECT c.tableoid, c.oid, 'conversion', format('%I.%I', n.nspname, c.conname), n.nspname, NULL, NULL, jsonb_build_object(
        'from', pg_encoding_to_char(c.conforencoding),
        'to', pg_encoding_to_char(c.contoencoding),
        'function', c.conproc::regproc::text,
        'default', CASE WHEN c.condefault THEN 'yes' END)
    FROM pg_conversion c JOIN own_schema n ON n.oid = c.connamespace";
