//! Foreign data wrappers, servers, foreign tables and user mappings. The values of options that are secrets, and all those of user
//! mappings, leave the agent as digests only.
use super::{Ask, Query};

pub(super) fn queries(ask: &Ask) -> Vec<Query> {
    vec![
        wrappers(ask),
        servers(ask),
        tables(ask),
        columns(ask),
        user_mappings(ask),
    ]
}

/// A list of options as pg_options_to_table() tells them.
fn options(ask: &Ask, column: &str) -> String {
    format!(
        "(SELECT string_agg(o.option_name || '=' || {}, ', ' ORDER BY o.option_name) FROM pg_options_to_table({column}) o)",
        ask.setting("o.option_name", "coalesce(o.option_value, '')")
    )
}

fn wrappers(ask: &Ask) -> Query {
    format!(
        "SELECT f.tableoid, f.oid, 'foreign-data wrapper', quote_ident(f.fdwname), NULL, NULL, '', jsonb_build_object(
             'handler', nullif(f.fdwhandler::regproc::text, '-'),
             'validator', nullif(f.fdwvalidator::regproc::text, '-'),
             'options', {})
         FROM pg_foreign_data_wrapper f",
        options(ask, "f.fdwoptions")
    )
}

fn servers(ask: &Ask) -> Query {
    format!(
        "SELECT s.tableoid, s.oid, 'server', quote_ident(s.srvname), NULL, NULL, '', jsonb_build_object(
             'wrapper', quote_ident(f.fdwname),
             'type', s.srvtype,
             'version', s.srvversion,
             'options', {})
         FROM pg_foreign_server s JOIN pg_foreign_data_wrapper f ON f.oid = s.srvfdw",
        options(ask, "s.srvoptions")
    )
}

fn tables(ask: &Ask) -> Query {
    format!(
        "SELECT r.class, r.oid, r.kind, r.identity, r.schema, r.name, NULL, jsonb_build_object(
             'server', quote_ident(s.srvname),
             'foreign options', {})
         FROM pg_foreign_table f JOIN relation r ON r.oid = f.ftrelid JOIN pg_foreign_server s ON s.oid = f.ftserver",
        options(ask, "f.ftoptions")
    )
}

fn columns(ask: &Ask) -> Query {
    format!(
        "SELECT r.class, r.oid, 'column', format('%s.%I', r.identity, a.attname), r.schema, r.name, r.kind || ' ' || r.identity,
                jsonb_build_object('foreign options', {})
         FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid
         WHERE r.relkind = 'f' AND a.attfdwoptions IS NOT NULL AND NOT a.attisdropped",
        options(ask, "a.attfdwoptions")
    )
}

/// Through the view that shows the options only to whom they concern.
fn user_mappings(ask: &Ask) -> Query {
    format!(
        "SELECT 'pg_user_mapping'::regclass::oid, m.umid, 'user mapping',
                CASE m.umuser WHEN 0 THEN 'public' ELSE quote_ident(m.usename) END || ' on server ' || quote_ident(m.srvname),
                NULL, NULL, 'server ' || quote_ident(m.srvname), jsonb_build_object(
             'options', (SELECT string_agg(o.option_name || '=' || {}, ', ' ORDER BY o.option_name) FROM pg_options_to_table(m.umoptions) o))
         FROM pg_user_mappings m",
        ask.secret("coalesce(o.option_value, '')")
    )
}
