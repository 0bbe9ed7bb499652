//! What fires: triggers, rules, event triggers, with their enabled state.
use super::Query;

pub(super) fn queries() -> Vec<Query> {
    [TRIGGERS, RULES, EVENT_TRIGGERS]
        .map(str::to_owned)
        .to_vec()
}

/// A partition's share of its root's trigger is known by the root's name. Those that PostgreSQL makes for constraints are left out;
/// before 15 it marks partitions' shares as its own too.
const TRIGGERS: &str = "
    WITH RECURSIVE lineage AS (
        SELECT t.oid, t.tgname AS name, t.tgrelid AS root FROM pg_trigger t WHERE t.tgparentid = 0 AND NOT t.tgisinternal
        UNION ALL
        SELECT t.oid, l.name, l.root FROM pg_trigger t JOIN lineage l ON l.oid = t.tgparentid)
    SELECT r.class, r.member_oid, 'trigger', format('%I on %s', l.name, r.identity), r.schema, r.name,
           r.kind || ' ' || r.identity, jsonb_build_object(
        'definition', replace(pg_get_triggerdef(t.oid), format('TRIGGER %I ', t.tgname), 'TRIGGER '),
        'enabled', CASE t.tgenabled WHEN 'O' THEN 'origin' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica' WHEN 'A' THEN 'always' END,
        'inherited from', CASE WHEN t.tgparentid <> 0 THEN format('%I on %s', l.name, root.identity) END,
        'depends on extension', (SELECT b.extensions FROM bound b WHERE b.classid = 'pg_trigger'::regclass AND b.objid = t.oid))
    FROM lineage l
    JOIN pg_trigger t ON t.oid = l.oid
    JOIN relation r ON r.oid = t.tgrelid
    JOIN relation root ON root.oid = l.root";

/// The rule behind a view is the view.
const RULES: &str = "
    SELECT r.class, r.member_oid, 'rule', format('%I on %s', w.rulename, r.identity), r.schema, r.name,
           r.kind || ' ' || r.identity, jsonb_build_object(
        'definition', pg_get_ruledef(w.oid),
        'enabled', CASE w.ev_enabled WHEN 'O' THEN 'origin' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica' WHEN 'A' THEN 'always' END)
    FROM pg_rewrite w JOIN relation r ON r.oid = w.ev_class
    WHERE w.rulename <> '_RETURN'";

const EVENT_TRIGGERS: &str = "
    SELECT e.tableoid, e.oid, 'event trigger', quote_ident(e.evtname), NULL, NULL, '', jsonb_build_object(
        'event', e.evtevent,
        'tags', (SELECT string_agg(t, ', ' ORDER BY t) FROM unnest(e.evttags) t),
        'function', e.evtfoid::regprocedure::text,
        'enabled', CASE e.evtenabled WHEN 'O' THEN 'origin' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica' WHEN 'A' THEN 'always' END)
    FROM pg_event_trigger e";
