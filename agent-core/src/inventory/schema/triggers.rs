//! What fires: triggers, rules, event triggers, with their enabled state. The arguments of triggers, which may hold keys (a webhook's
//! do), leave the agent as digests only.
use super::{Ask, Query};

pub(super) fn queries(ask: &Ask) -> Vec<Query> {
    vec![triggers(ask), RULES.to_owned(), EVENT_TRIGGERS.to_owned()]
}

/// A partition's share of its root's trigger is known by the root's name. Those that PostgreSQL makes for constraints are left out;
/// before 15 it marks partitions' shares as its own too.
fn triggers(ask: &Ask) -> Query {
    let arguments = ask.secret("p.arguments");
    format!(
        "
    WITH RECURSIVE lineage AS (
        SELECT t.oid, t.tgname AS name, t.tgrelid AS root FROM pg_trigger t WHERE t.tgparentid = 0 AND NOT t.tgisinternal
        UNION ALL
        SELECT t.oid, l.name, l.root FROM pg_trigger t JOIN lineage l ON l.oid = t.tgparentid)
    SELECT r.class, r.member_oid, 'trigger', format('%I on %s', l.name, r.identity), r.schema, r.name,
           r.kind || ' ' || r.identity, jsonb_build_object(
        'definition', replace(p.before, format('TRIGGER %I ', t.tgname), 'TRIGGER ')
                      || CASE WHEN t.tgnargs > 0 THEN 'masked' ELSE '' END || ')',
        'arguments', CASE WHEN t.tgnargs > 0 THEN {arguments} END,
        'enabled', CASE t.tgenabled WHEN 'O' THEN 'origin' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica' WHEN 'A' THEN 'always' END,
        'inherited from', CASE WHEN t.tgparentid <> 0 THEN format('%I on %s', l.name, root.identity) END,
        'depends on extension', (SELECT b.extensions FROM bound b WHERE b.classid = 'pg_trigger'::regclass AND b.objid = t.oid))
    FROM lineage l
    JOIN pg_trigger t ON t.oid = l.oid
    JOIN relation r ON r.oid = t.tgrelid
    JOIN relation root ON root.oid = l.root
    CROSS JOIN LATERAL ({PARTED}) p"
    )
}

/// The text of trigger `t` before its arguments, and they with the bracket that closes it: in the text each is quoted, its quotes doubled,
/// with a comma and a blank before the next; in the catalog a zero ends each. Counted in bytes of the server's encoding, in none of which
/// a quote is part of another character.
const PARTED: &str = "
    SELECT convert_from(substr(d.text, 1, d.head), d.encoding) AS before, convert_from(substr(d.text, d.head + 1), d.encoding) AS arguments
    FROM (SELECT w.text, w.encoding, length(w.text) - 1 - length(t.tgargs) + t.tgnargs
                 - (length(w.printed) - length(replace(w.printed, '''', ''))) - greatest(4 * t.tgnargs - 2, 0) AS head
          FROM (SELECT convert_to(pg_get_triggerdef(t.oid), getdatabaseencoding()) AS text, getdatabaseencoding()::text AS encoding,
                       encode(t.tgargs, 'escape') AS printed) w) d";

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
