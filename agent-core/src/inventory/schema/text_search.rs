//! Text search parsers, templates, dictionaries and configurations.
use super::Query;

pub(super) fn queries() -> Vec<Query> {
    [PARSERS, TEMPLATES, DICTIONARIES, CONFIGURATIONS]
        .map(str::to_owned)
        .to_vec()
}

const PARSERS: &str = "
    SELECT p.tableoid, p.oid, 'text search parser', format('%I.%I', n.nspname, p.prsname), n.nspname, NULL, NULL, jsonb_build_object(
        'start', p.prsstart::regproc::text,
        'gettoken', p.prstoken::regproc::text,
        'end', p.prsend::regproc::text,
        'headline', nullif(p.prsheadline::regproc::text, '-'),
        'lextypes', p.prslextype::regproc::text)
    FROM pg_ts_parser p JOIN own_schema n ON n.oid = p.prsnamespace";

const TEMPLATES: &str = "
    SELECT t.tableoid, t.oid, 'text search template', format('%I.%I', n.nspname, t.tmplname), n.nspname, NULL, NULL, jsonb_build_object(
        'init', nullif(t.tmplinit::regproc::text, '-'),
        'lexize', t.tmpllexize::regproc::text)
    FROM pg_ts_template t JOIN own_schema n ON n.oid = t.tmplnamespace";

const DICTIONARIES: &str = "
    SELECT d.tableoid, d.oid, 'text search dictionary', format('%I.%I', n.nspname, d.dictname), n.nspname, NULL, NULL, jsonb_build_object(
        'template', format('%I.%I', tn.nspname, t.tmplname),
        'options', d.dictinitoption)
    FROM pg_ts_dict d
    JOIN own_schema n ON n.oid = d.dictnamespace
    JOIN pg_ts_template t ON t.oid = d.dicttemplate
    JOIN pg_namespace tn ON tn.oid = t.tmplnamespace";

/// Token types are told by number: a parser's list of names is a function of its own.
const CONFIGURATIONS: &str = "
    SELECT c.tableoid, c.oid, 'text search configuration', format('%I.%I', n.nspname, c.cfgname), n.nspname, NULL, NULL, jsonb_build_object(
        'parser', format('%I.%I', pn.nspname, p.prsname),
        'mappings', (SELECT string_agg(m.maptokentype || ': ' || m.mapdict::regdictionary, E'\\n' ORDER BY m.maptokentype, m.mapseqno)
                     FROM pg_ts_config_map m WHERE m.mapcfg = c.oid))
    FROM pg_ts_config c
    JOIN own_schema n ON n.oid = c.cfgnamespace
    JOIN pg_ts_parser p ON p.oid = c.cfgparser
    JOIN pg_namespace pn ON pn.oid = p.prsnamespace";
