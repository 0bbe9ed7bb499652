//! Functions, procedures, window functions, aggregates; languages, casts and transforms.
use super::Query;

pub(super) fn queries() -> Vec<Query> {
    [ROUTINES, AGGREGATES, LANGUAGES, CASTS, TRANSFORMS]
        .map(str::to_owned)
        .to_vec()
}

/// Clause by clause: a difference then says which. The body of a function in standard SQL is what the deparser makes of it.
const ROUTINES: &str = "
    SELECT p.tableoid, p.oid, i.type, i.identity, n.nspname, NULL, NULL, jsonb_build_object(
        'arguments', pg_get_function_arguments(p.oid),
        'result', pg_get_function_result(p.oid),
        'language', l.lanname,
        'window', CASE p.prokind WHEN 'w' THEN 'yes' END,
        'volatility', CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END,
        'strict', CASE WHEN p.proisstrict THEN 'yes' END,
        'leakproof', CASE WHEN p.proleakproof THEN 'yes' END,
        'parallel', CASE p.proparallel WHEN 's' THEN 'safe' WHEN 'r' THEN 'restricted' ELSE 'unsafe' END,
        'security', CASE WHEN p.prosecdef THEN 'definer' ELSE 'invoker' END,
        'cost', p.procost,
        'rows', nullif(p.prorows, 0),
        'support', nullif(p.prosupport::regproc::text, '-'),
        'transforms', (SELECT string_agg(t::regtype::text, ', ') FROM unnest(p.protrftypes) t),
        'config', (SELECT string_agg(c, E'\\n' ORDER BY c) FROM unnest(p.proconfig) c),
        'library', p.probin,
        'body', CASE WHEN p.prosqlbody IS NULL THEN p.prosrc END,
        'SQL body', pg_get_function_sqlbody(p.oid),
        'depends on extension', (SELECT b.extensions FROM bound b WHERE b.classid = 'pg_proc'::regclass AND b.objid = p.oid))
    FROM pg_proc p
    JOIN own_schema n ON n.oid = p.pronamespace
    JOIN pg_language l ON l.oid = p.prolang
    CROSS JOIN LATERAL pg_identify_object(p.tableoid, p.oid, 0) i
    WHERE p.prokind <> 'a'";

const AGGREGATES: &str = "
    SELECT p.tableoid, p.oid, i.type, i.identity, n.nspname, NULL, NULL, jsonb_build_object(
        'arguments', pg_get_function_arguments(p.oid),
        'result', p.prorettype::regtype::text,
        'parallel', CASE p.proparallel WHEN 's' THEN 'safe' WHEN 'r' THEN 'restricted' ELSE 'unsafe' END,
        'variety', CASE a.aggkind WHEN 'o' THEN 'ordered set' WHEN 'h' THEN 'hypothetical set' ELSE 'plain' END,
        'direct arguments', nullif(a.aggnumdirectargs, 0),
        'state type', a.aggtranstype::regtype::text,
        'state function', a.aggtransfn::regprocedure::text,
        'state size', nullif(a.aggtransspace, 0),
        'initial value', a.agginitval,
        'final function', nullif(a.aggfinalfn::regprocedure::text, '-'),
        'final extra', CASE WHEN a.aggfinalextra THEN 'yes' END,
        'final modifies', a.aggfinalmodify,
        'combine function', nullif(a.aggcombinefn::regprocedure::text, '-'),
        'serial function', nullif(a.aggserialfn::regprocedure::text, '-'),
        'deserial function', nullif(a.aggdeserialfn::regprocedure::text, '-'),
        'moving state type', CASE WHEN a.aggmtranstype <> 0 THEN a.aggmtranstype::regtype::text END,
        'moving state function', nullif(a.aggmtransfn::regprocedure::text, '-'),
        'moving inverse function', nullif(a.aggminvtransfn::regprocedure::text, '-'),
        'moving state size', nullif(a.aggmtransspace, 0),
        'moving initial value', a.aggminitval,
        'moving final function', nullif(a.aggmfinalfn::regprocedure::text, '-'),
        'moving final extra', CASE WHEN a.aggmfinalextra THEN 'yes' END,
        'moving final modifies', a.aggmfinalmodify,
        'sort operator', CASE WHEN a.aggsortop <> 0 THEN a.aggsortop::regoperator::text END)
    FROM pg_proc p
    JOIN pg_aggregate a ON a.aggfnoid = p.oid
    JOIN own_schema n ON n.oid = p.pronamespace
    CROSS JOIN LATERAL pg_identify_object(p.tableoid, p.oid, 0) i";

const LANGUAGES: &str = "
    SELECT l.tableoid, l.oid, 'language', quote_ident(l.lanname), NULL, NULL, '', jsonb_build_object(
        'trusted', l.lanpltrusted,
        'owner', quote_ident(pg_get_userbyid(l.lanowner)),
        'handler', nullif(l.lanplcallfoid::regproc::text, '-'),
        'inline', nullif(l.laninline::regproc::text, '-'),
        'validator', nullif(l.lanvalidator::regproc::text, '-'))
    FROM pg_language l WHERE l.oid >= 16384";

const CASTS: &str = "
    SELECT c.tableoid, c.oid, i.type, i.identity, NULL, NULL, '', jsonb_build_object(
        'context', CASE c.castcontext WHEN 'i' THEN 'implicit' WHEN 'a' THEN 'assignment' ELSE 'explicit' END,
        'method', CASE c.castmethod WHEN 'f' THEN 'function' WHEN 'i' THEN 'input and output' ELSE 'binary' END,
        'function', CASE WHEN c.castfunc <> 0 THEN c.castfunc::regprocedure::text END)
    FROM pg_cast c CROSS JOIN LATERAL pg_identify_object(c.tableoid, c.oid, 0) i WHERE c.oid >= 16384";

const TRANSFORMS: &str = "
    SELECT t.tableoid, t.oid, i.type, i.identity, NULL, NULL, '', jsonb_build_object(
        'from sql', nullif(t.trffromsql::regprocedure::text, '-'),
        'to sql', nullif(t.trftosql::regprocedure::text, '-'))
    FROM pg_transform t CROSS JOIN LATERAL pg_identify_object(t.tableoid, t.oid, 0) i";
