//! Publications with their members, subscriptions, and large objects.
use super::{Ask, Query, grants};

const FIFTEEN: u32 = 150_000;
const SIXTEEN: u32 = 160_000;
const SEVENTEEN: u32 = 170_000;

pub(super) fn queries(ask: &Ask) -> Vec<Query> {
    let mut queries = vec![
        PUBLICATIONS.to_owned(),
        GENERATED_COLUMNS.to_owned(),
        subscriptions(ask),
        large_objects(),
    ];
    if ask.version >= FIFTEEN {
        queries.extend([MEMBERS, SCHEMAS].map(str::to_owned));
    } else {
        queries.push(MEMBERS_OF_14.to_owned());
    }
    queries
}

const PUBLICATIONS: &str = "
    SELECT p.tableoid, p.oid, 'publication', quote_ident(p.pubname), NULL, NULL, '', jsonb_build_object(
        'all tables', CASE WHEN p.puballtables THEN 'yes' END,
        'publishes', concat_ws(', ', CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
                               CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END),
        'via root', CASE WHEN p.pubviaroot THEN 'yes' END)
    FROM pg_publication p";

/// PostgreSQL 18 and later.
const GENERATED_COLUMNS: &str = "
    SELECT p.tableoid, p.oid, 'publication', quote_ident(p.pubname), NULL, NULL, '',
           jsonb_build_object('generated columns', nullif(to_jsonb(p) ->> 'pubgencols', 'n'))
    FROM pg_publication p";

const MEMBERS: &str = "
    SELECT p.tableoid, p.oid, 'publication', quote_ident(p.pubname), NULL, NULL, '', jsonb_build_object(
        'tables', string_agg(r.prrelid::regclass
            || coalesce(' (' || (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attname) FROM pg_attribute a
                                 WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[])) || ')', '')
            || coalesce(' WHERE ' || pg_get_expr(r.prqual, r.prrelid), ''), E'\\n' ORDER BY r.prrelid::regclass::text))
    FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
    GROUP BY p.tableoid, p.oid, p.pubname";

const SCHEMAS: &str = "
    SELECT p.tableoid, p.oid, 'publication', quote_ident(p.pubname), NULL, NULL, '', jsonb_build_object(
        'schemas', string_agg(quote_ident(s.nspname), ', ' ORDER BY s.nspname))
    FROM pg_publication p JOIN pg_publication_namespace r ON r.pnpubid = p.oid JOIN pg_namespace s ON s.oid = r.pnnspid
    GROUP BY p.tableoid, p.oid, p.pubname";

const MEMBERS_OF_14: &str = "
    SELECT p.tableoid, p.oid, 'publication', quote_ident(p.pubname), NULL, NULL, '', jsonb_build_object(
        'tables', string_agg(r.prrelid::regclass::text, E'\\n' ORDER BY r.prrelid::regclass::text))
    FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
    GROUP BY p.tableoid, p.oid, p.pubname";

/// A dump carries them disabled and not connected: their state is not compared. Only a superuser may read where they connect to, or
/// whole rows: columns that only some majors have are named for these only.
fn subscriptions(ask: &Ask) -> Query {
    let since = |version, properties: &'static str| match ask.version >= version {
        true => properties,
        false => "",
    };
    format!(
        "SELECT 'pg_subscription'::regclass::oid, s.oid, 'subscription', quote_ident(s.subname), NULL, NULL, '', jsonb_build_object(
             'owner', quote_ident(pg_get_userbyid(s.subowner)),
             'publications', (SELECT string_agg(quote_ident(p), ', ' ORDER BY p) FROM unnest(s.subpublications) p),
             'slot', quote_ident(s.subslotname),
             'binary', CASE WHEN s.subbinary THEN 'yes' END,
             'streaming', CASE s.substream::text WHEN 'p' THEN 'parallel' WHEN 't' THEN 'yes' WHEN 'true' THEN 'yes' END,
             'synchronous commit', s.subsynccommit{fifteen}{sixteen}{seventeen}{conninfo})
         FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
         WHERE d.datname = current_database()",
        fifteen = since(
            FIFTEEN,
            ", 'two phase', CASE WHEN s.subtwophasestate <> 'd' THEN 'yes' END,
             'disable on error', CASE WHEN s.subdisableonerr THEN 'yes' END"
        ),
        sixteen = since(
            SIXTEEN,
            ", 'origin', s.suborigin,
             'password required', CASE WHEN NOT s.subpasswordrequired THEN 'no' END,
             'run as owner', CASE WHEN s.subrunasowner THEN 'yes' END"
        ),
        seventeen = since(
            SEVENTEEN,
            ", 'failover', CASE WHEN s.subfailover THEN 'yes' END"
        ),
        // To name the column is to need the privilege.
        conninfo = if ask.superuser {
            format!(", 'connection', {}", ask.secret("s.subconninfo"))
        } else {
            String::new()
        }
    )
}

/// Their content is compared elsewhere. pg_depend and comments know them by the catalog of their pages.
fn large_objects() -> Query {
    format!(
        "SELECT 'pg_largeobject'::regclass::oid, l.oid, 'large object', l.oid::text, NULL, NULL, '', jsonb_build_object(
             'owner', quote_ident(pg_get_userbyid(l.lomowner)),
             'grants', {})
         FROM pg_largeobject_metadata l",
        grants("coalesce(l.lomacl, acldefault('L', l.lomowner))", "l.lomowner")
    )
}
