//! Schemas, extensions, tables, views, materialized views, sequences, and their columns. Tablespaces are left aside: they belong to the
//! server.
use super::Query;

pub(super) fn queries() -> Vec<Query> {
    [SCHEMAS, EXTENSIONS, RELATIONS, COLUMNS, SEQUENCES]
        .map(str::to_owned)
        .to_vec()
}

const SCHEMAS: &str = "
    SELECT n.class, n.oid, 'schema', quote_ident(n.nspname), n.nspname, NULL, '', '{}'::jsonb FROM own_schema n";

/// Their owner is who created them at either end: no dump carries it.
const EXTENSIONS: &str = "
    SELECT e.tableoid, e.oid, 'extension', quote_ident(e.extname), NULL, NULL, '',
           jsonb_build_object('version', e.extversion, 'schema', n.nspname)
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace";

const RELATIONS: &str = "
    SELECT r.class, r.member_oid, r.kind, r.identity, r.schema, r.name, NULL, jsonb_build_object(
        'persistence', CASE c.relpersistence WHEN 'u' THEN 'unlogged' ELSE 'permanent' END,
        'partition key', CASE c.relkind WHEN 'p' THEN pg_get_partkeydef(c.oid) END,
        'partition bound', pg_get_expr(c.relpartbound, c.oid),
        'inherits', (SELECT string_agg(i.inhparent::regclass::text || CASE WHEN i.inhdetachpending THEN ' (detach pending)' ELSE '' END,
                                       ', ' ORDER BY i.inhseqno)
                     FROM pg_inherits i WHERE i.inhrelid = c.oid),
        'options', (SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(c.reloptions) o),
        'toast options', (SELECT string_agg(o, ', ' ORDER BY o) FROM pg_class t, unnest(t.reloptions) o
                          WHERE t.oid = c.reltoastrelid),
        'access method', (SELECT a.amname FROM pg_am a WHERE a.oid = c.relam),
        'of type', CASE WHEN c.reloftype <> 0 THEN c.reloftype::regtype::text END,
        'replica identity', CASE c.relreplident WHEN 'n' THEN 'nothing' WHEN 'f' THEN 'full' WHEN 'i' THEN 'index' END,
        'row security', CASE WHEN c.relrowsecurity THEN 'enabled' END,
        'forced row security', CASE WHEN c.relforcerowsecurity THEN 'enabled' END,
        'populated', CASE WHEN c.relkind = 'm' THEN c.relispopulated END,
        'definition', CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
        'depends on extension', (SELECT b.extensions FROM bound b WHERE b.classid = 'pg_class'::regclass AND b.objid = c.oid))
    FROM relation r JOIN pg_class c ON c.oid = r.oid
    WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f')";

/// By name. The position tells only where the order is the table's own: children of an inheritance whose parent got columns
/// later have another one after a dump, and a partition's is its own affair.
const COLUMNS: &str = "
    SELECT r.class, r.member_oid, 'column', format('%s.%I', r.identity, a.attname), r.schema, r.name,
           r.kind || ' ' || r.identity, jsonb_build_object(
        'position', CASE WHEN NOT heir.yes THEN row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum) END,
        'type', format_type(a.atttypid, a.atttypmod),
        'collation', CASE WHEN a.attcollation NOT IN (0, t.typcollation) THEN a.attcollation::regcollation::text END,
        'default', CASE a.attgenerated WHEN '' THEN pg_get_expr(d.adbin, d.adrelid) END,
        'generated', CASE a.attgenerated WHEN 's' THEN 'stored as ' || pg_get_expr(d.adbin, d.adrelid)
                                         WHEN 'v' THEN 'virtual as ' || pg_get_expr(d.adbin, d.adrelid) END,
        -- PostgreSQL 17 made it the whole tree's.
        CASE WHEN c.relispartition THEN 'identity of a partition' ELSE 'identity' END,
        CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' END,
        -- A NOT NULL constraint of PostgreSQL 18 is told here. An heir's name may be an inherited one.
        'not null', CASE WHEN a.attnotnull THEN coalesce(k.how, 'yes') END,
        'not null constraint', CASE WHEN NOT heir.yes THEN quote_ident(k.conname) END,
        'storage', CASE a.attstorage WHEN 'p' THEN 'plain' WHEN 'e' THEN 'external' WHEN 'm' THEN 'main' ELSE 'extended' END,
        'compression', CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END,
        'statistics target', nullif(a.attstattarget, -1),
        'options', (SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(a.attoptions) o),
        'declared', CASE WHEN heir.yes AND NOT c.relispartition AND a.attislocal AND a.attinhcount > 0 THEN 'here too' END)
    FROM relation r
    JOIN pg_class c ON c.oid = r.oid
    JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN (SELECT conrelid, conkey[1] AS attnum, conname, nullif(concat_ws(', ', CASE WHEN NOT convalidated THEN 'not validated' END,
                                                               CASE WHEN connoinherit THEN 'not inherited' END), '') AS how
               FROM pg_constraint WHERE contype = 'n' AND conrelid <> 0) k
           ON k.conrelid = a.attrelid AND k.attnum = a.attnum
    LEFT JOIN (SELECT DISTINCT inhrelid FROM pg_inherits) h ON h.inhrelid = c.oid
    CROSS JOIN LATERAL (SELECT h.inhrelid IS NOT NULL AS yes) heir
    WHERE r.relkind <> 'S'";

/// A sequence goes with the table that owns it. That of an identity column is known by the column; its name is what `position` is
/// looked up by and is not compared.
const SEQUENCES: &str = "
    SELECT r.class, r.oid, 'sequence', CASE o.deptype WHEN 'i' THEN 'of identity column ' || o.identity ELSE r.identity END,
           r.schema, coalesce(o.name, r.name), o.parent, jsonb_build_object(
        'name', r.schema || '.' || r.name,
        'persistence', CASE c.relpersistence WHEN 'u' THEN 'unlogged' ELSE 'permanent' END,
        'type', s.seqtypid::regtype::text,
        'start', s.seqstart,
        'increment', s.seqincrement,
        'minimum', s.seqmin,
        'maximum', s.seqmax,
        'cache', s.seqcache,
        'cycle', s.seqcycle,
        'owned by', o.identity)
    FROM relation r
    JOIN pg_class c ON c.oid = r.oid
    JOIN pg_sequence s ON s.seqrelid = r.oid
    LEFT JOIN (SELECT d.objid, d.deptype, t.name, t.kind || ' ' || t.identity AS parent, format('%s.%I', t.identity, a.attname) AS identity
               FROM pg_depend d JOIN relation t ON t.oid = d.refobjid
               JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
               WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')) o
           ON o.objid = r.oid";
