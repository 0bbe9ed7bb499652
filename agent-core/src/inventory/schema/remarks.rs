//! Comments and security labels on everything.
use super::Query;

pub(super) fn queries() -> Vec<Query> {
    [COMMENTS, LABELS].map(str::to_owned).to_vec()
}

/// PostgreSQL's own comments are on objects that initdb made; of those only schema `public` and extensions are the database's to comment on.
/// Large objects may have any OID.
const COMMENTS: &str = "
    SELECT d.classoid, d.objoid, i.type, i.identity, (parse_ident(i.schema))[1], NULL, NULL, jsonb_build_object('comment', d.description)
    FROM pg_description d CROSS JOIN LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i
    WHERE (d.objoid >= 16384 OR d.classoid IN ('pg_largeobject'::regclass, 'pg_extension'::regclass)
           OR d.classoid = 'pg_namespace'::regclass AND d.objoid = to_regnamespace('public'))
      AND (i.schema IS NULL OR i.schema IN (SELECT quote_ident(n.nspname) FROM own_schema n))
      AND (d.classoid <> 'pg_namespace'::regclass OR d.objoid IN (SELECT n.oid FROM own_schema n))";

const LABELS: &str = "
    SELECT l.classoid, l.objoid, i.type, i.identity, (parse_ident(i.schema))[1], NULL, NULL, jsonb_object_agg('label of ' || l.provider, l.label)
    FROM pg_seclabel l CROSS JOIN LATERAL pg_identify_object(l.classoid, l.objoid, l.objsubid) i
    WHERE i.schema IS NULL OR i.schema IN (SELECT quote_ident(n.nspname) FROM own_schema n)
    GROUP BY l.classoid, l.objoid, i.type, i.identity, i.schema";
