//! Operators, their classes and families, and access methods.
use super::Query;

pub(super) fn queries() -> Vec<Query> {
    [OPERATORS, CLASSES, FAMILIES, ACCESS_METHODS]
        .map(str::to_owned)
        .to_vec()
}

/// One without a function is only the promise of a commutator or negator.
const OPERATORS: &str = "
    SELECT o.tableoid, o.oid, i.type, i.identity, n.nspname, NULL, NULL, jsonb_build_object(
        'result', o.oprresult::regtype::text,
        'function', o.oprcode::regprocedure::text,
        'commutator', CASE WHEN o.oprcom <> 0 THEN o.oprcom::regoperator::text END,
        'negator', CASE WHEN o.oprnegate <> 0 THEN o.oprnegate::regoperator::text END,
        'restrict', nullif(o.oprrest::regproc::text, '-'),
        'join', nullif(o.oprjoin::regproc::text, '-'),
        'hashes', CASE WHEN o.oprcanhash THEN 'yes' END,
        'merges', CASE WHEN o.oprcanmerge THEN 'yes' END)
    FROM pg_operator o
    JOIN own_schema n ON n.oid = o.oprnamespace
    CROSS JOIN LATERAL pg_identify_object(o.tableoid, o.oid, 0) i
    WHERE o.oprcode <> 0";

const CLASSES: &str = "
    SELECT o.tableoid, o.oid, i.type, i.identity, n.nspname, NULL, NULL, jsonb_build_object(
        'default', CASE WHEN o.opcdefault THEN 'yes' END,
        'input type', o.opcintype::regtype::text,
        'stored type', CASE WHEN o.opckeytype <> 0 THEN o.opckeytype::regtype::text END,
        'family', (SELECT f.identity FROM pg_identify_object('pg_opfamily'::regclass, o.opcfamily, 0) f))
    FROM pg_opclass o
    JOIN own_schema n ON n.oid = o.opcnamespace
    CROSS JOIN LATERAL pg_identify_object(o.tableoid, o.oid, 0) i";

/// With their members: those of its classes and the loose ones.
const FAMILIES: &str = "
    SELECT f.tableoid, f.oid, i.type, i.identity, n.nspname, NULL, NULL, jsonb_build_object(
        'operators', (SELECT string_agg(format('%s %s%s', a.amopstrategy, a.amopopr::regoperator, CASE a.amoppurpose WHEN 'o'
                          THEN ' for order by ' || (SELECT s.identity FROM pg_identify_object('pg_opfamily'::regclass, a.amopsortfamily, 0) s)
                          ELSE '' END), E'\\n' ORDER BY a.amopstrategy, a.amopopr::regoperator::text)
                      FROM pg_amop a WHERE a.amopfamily = f.oid),
        'functions', (SELECT string_agg(format('%s (%s, %s) %s', a.amprocnum, a.amproclefttype::regtype, a.amprocrighttype::regtype,
                          a.amproc::regprocedure), E'\\n' ORDER BY a.amprocnum, a.amproclefttype::regtype::text,
                          a.amprocrighttype::regtype::text)
                      FROM pg_amproc a WHERE a.amprocfamily = f.oid))
    FROM pg_opfamily f
    JOIN own_schema n ON n.oid = f.opfnamespace
    CROSS JOIN LATERAL pg_identify_object(f.tableoid, f.oid, 0) i";

const ACCESS_METHODS: &str = "
    SELECT a.tableoid, a.oid, 'access method', quote_ident(a.amname), NULL, NULL, '', jsonb_build_object(
        'type', CASE a.amtype WHEN 'i' THEN 'index' ELSE 'table' END,
        'handler', a.amhandler::regproc::text)
    FROM pg_am a WHERE a.oid >= 16384";
