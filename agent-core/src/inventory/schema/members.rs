//! What somebody made on a table of an extension: pg_dump writes the extension, and nothing of this.
use super::{Ask, Query};
use crate::inventory::trigger_definition;

pub(super) fn queries(ask: &Ask) -> Vec<Query> {
    let query = EXTRAS.replace("{trigger}", &trigger_definition("t"));
    vec![query.replace("{whole}", &ask.secret("pg_get_triggerdef(t.oid)"))]
}

/// Told under the extension and by how to make them: what the extension's own script made of these is at both ends, where both have the
/// same version. Of a trigger with arguments the statement is told without them, and a digest of all of it. Policies are left aside,
/// which pg_dump does write. The classes are zero: members' are not left out here.
const EXTRAS: &str = "
    SELECT 0::oid, 0::oid, i.type, i.identity, r.schema, r.name, m.extension,
           jsonb_build_object('made by', o.made, 'definition', o.whole)
    FROM (SELECT t.tableoid AS class, t.oid, t.tgrelid AS on_relation,
                 {trigger} AS made,
                 CASE WHEN t.tgnargs > 0 THEN {whole} END AS whole
          FROM pg_trigger t WHERE NOT t.tgisinternal
          UNION ALL
          SELECT 'pg_class'::regclass, x.indexrelid, x.indrelid, pg_get_indexdef(x.indexrelid), NULL FROM pg_index x
          WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.indexrelid AND k.contype IN ('p', 'u', 'x'))
          UNION ALL
          SELECT w.tableoid, w.oid, w.ev_class, pg_get_ruledef(w.oid), NULL FROM pg_rewrite w WHERE w.rulename <> '_RETURN'
          UNION ALL
          SELECT k.tableoid, k.oid, k.conrelid,
                 format('ALTER TABLE %s ADD CONSTRAINT %I %s', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid)), NULL
          FROM pg_constraint k WHERE k.conrelid <> 0 AND k.contype IN ('c', 'f', 'p', 'u', 'x')) o
    JOIN relation r ON r.oid = o.on_relation
    JOIN member m ON m.classid = r.class AND m.objid = r.member_oid
    CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) i
    WHERE NOT EXISTS (SELECT FROM member own WHERE own.classid = o.class AND own.objid = o.oid)";
