//! Indexes that carry no constraint (those that do are told with it), and statistics objects.
use super::Query;

pub(super) fn queries() -> Vec<Query> {
    [INDEXES, STATISTICS].map(str::to_owned).to_vec()
}

/// A partition's share of its root's index is known by the root's: its name may be PostgreSQL's invention. The definition is
/// without the index's own name.
const INDEXES: &str = "
    WITH RECURSIVE lineage AS (
        SELECT i.indexrelid AS oid, i.indexrelid AS root FROM pg_index i
        WHERE NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)
        UNION ALL
        SELECT h.inhrelid, l.root FROM pg_inherits h JOIN lineage l ON l.oid = h.inhparent)
    SELECT t.class, t.member_oid, 'index', format('%I.%I', rn.nspname, root.relname) ||
               CASE WHEN l.root <> l.oid THEN ' on ' || t.identity ELSE '' END,
           t.schema, t.name, t.kind || ' ' || t.identity, jsonb_build_object(
        'definition', replace(pg_get_indexdef(x.oid), format('INDEX %I ON', x.relname), 'INDEX ON'),
        'valid', i.indisvalid AND i.indisready AND i.indislive,
        'inherited from', CASE WHEN l.root <> l.oid THEN format('%I.%I', rn.nspname, root.relname) END,
        'clustered', CASE WHEN i.indisclustered THEN 'yes' END,
        'replica identity', CASE WHEN i.indisreplident THEN 'yes' END,
        'statistics targets', (SELECT string_agg(a.attnum || ': ' || a.attstattarget, ', ' ORDER BY a.attnum)
                               FROM pg_attribute a WHERE a.attrelid = x.oid AND a.attstattarget >= 0),
        'depends on extension', (SELECT b.extensions FROM bound b WHERE b.classid = 'pg_class'::regclass AND b.objid = x.oid))
    FROM lineage l
    JOIN pg_index i ON i.indexrelid = l.oid
    JOIN pg_class x ON x.oid = l.oid
    JOIN pg_class root ON root.oid = l.root
    JOIN pg_namespace rn ON rn.oid = root.relnamespace
    JOIN relation t ON t.oid = i.indrelid
    WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.oid AND k.contype IN ('p', 'u', 'x'))";

const STATISTICS: &str = "
    SELECT s.tableoid, s.oid, 'statistics object', format('%I.%I', n.nspname, s.stxname), t.schema, t.name,
           t.kind || ' ' || t.identity, jsonb_build_object(
        'kinds', (SELECT string_agg(k::text, ', ' ORDER BY k) FROM unnest(s.stxkind) k),
        'columns', (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
                    FROM pg_attribute a WHERE a.attrelid = s.stxrelid AND a.attnum = ANY (s.stxkeys)),
        'expressions', pg_get_expr(s.stxexprs, s.stxrelid),
        'statistics target', nullif(s.stxstattarget, -1))
    FROM pg_statistic_ext s JOIN own_schema n ON n.oid = s.stxnamespace JOIN relation t ON t.oid = s.stxrelid";
