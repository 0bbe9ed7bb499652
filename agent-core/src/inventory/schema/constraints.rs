//! Constraints of tables and domains, with the state of the index that carries them.
use super::Query;

pub(super) fn queries() -> Vec<Query> {
    [OF_TABLES, OF_DOMAINS].map(str::to_owned).to_vec()
}

/// A partition's share of its root's constraint has a name that PostgreSQL may have invented: it is known by the root's (unless the
/// partition has another constraint of that name). The rows that a foreign key has for each partition of the table it references, and
/// NOT NULL constraints (PostgreSQL 18; they are told with their column), are left out. A foreign key holds as its triggers fire, at both
/// tables, and so does what is deferrable: told where one is not enabled as usual. Where a check comes from does not matter in partitions: PostgreSQL holds it there for
/// inherited alone, however it was made.
const OF_TABLES: &str = "
    WITH RECURSIVE lineage AS (
        SELECT k.oid, k.oid AS root FROM pg_constraint k WHERE k.conparentid = 0 AND k.conrelid <> 0
        UNION ALL
        SELECT k.oid, l.root FROM pg_constraint k JOIN lineage l ON l.oid = k.conparentid)
    SELECT t.class, t.member_oid, 'constraint', CASE
               WHEN l.root = k.oid THEN format('%I on %s', k.conname, t.identity)
               WHEN EXISTS (SELECT FROM pg_constraint o WHERE o.conrelid = k.conrelid AND o.conname = root.conname AND o.oid <> k.oid)
               THEN format('%I on %s, inherited', root.conname, t.identity)
               ELSE format('%I on %s', root.conname, t.identity) END,
           t.schema, t.name, t.kind || ' ' || t.identity, jsonb_build_object(
        'definition', regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', ''),
        'validated', k.convalidated,
        'inherited from', CASE WHEN l.root <> k.oid THEN format('%I on %s', root.conname, rt.identity) END,
        'index valid', i.indisvalid AND i.indisready AND i.indislive,
        'triggers', (SELECT string_agg(DISTINCT format('%s %s', g.tgenabled, g.tgfoid::regproc), ', '
                                       ORDER BY format('%s %s', g.tgenabled, g.tgfoid::regproc))
                     FROM pg_trigger g WHERE g.tgconstraint = k.oid AND g.tgenabled <> 'O'),
        'index options', (SELECT string_agg(o, ', ' ORDER BY o) FROM pg_class x, unnest(x.reloptions) o WHERE x.oid = i.indexrelid),
        'statistics targets', (SELECT string_agg(a.attnum || ': ' || a.attstattarget, ', ' ORDER BY a.attnum)
                               FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0),
        'declared', CASE WHEN k.contype = 'c' AND k.coninhcount > 0 AND NOT c.relispartition
                         THEN format('%sinherited from %s', CASE WHEN k.conislocal THEN 'here, and ' ELSE '' END, k.coninhcount) END,
        'depends on extension', (SELECT b.extensions FROM bound b WHERE b.classid = 'pg_class'::regclass AND b.objid = i.indexrelid),
        'clustered', CASE WHEN i.indisclustered THEN 'yes' END,
        'replica identity', CASE WHEN i.indisreplident THEN 'yes' END)
    FROM lineage l
    JOIN pg_constraint k ON k.oid = l.oid
    JOIN pg_constraint root ON root.oid = l.root
    JOIN relation t ON t.oid = k.conrelid
    JOIN pg_class c ON c.oid = k.conrelid
    JOIN relation rt ON rt.oid = root.conrelid
    LEFT JOIN pg_constraint p ON p.oid = k.conparentid
    LEFT JOIN pg_index i ON i.indexrelid = k.conindid AND k.contype IN ('p', 'u', 'x')
    WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND (k.contype <> 'f' OR k.confrelid = coalesce(p.confrelid, k.confrelid))";

const OF_DOMAINS: &str = "
    SELECT t.tableoid, t.oid, 'constraint', format('%I on %I.%I', k.conname, n.nspname, t.typname), n.nspname, NULL,
           format('type %I.%I', n.nspname, t.typname), jsonb_build_object(
        'definition', regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', ''),
        'validated', k.convalidated)
    FROM pg_constraint k JOIN pg_type t ON t.oid = k.contypid JOIN own_schema n ON n.oid = t.typnamespace
    WHERE k.contype = 'c'";
