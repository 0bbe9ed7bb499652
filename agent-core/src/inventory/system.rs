//! Grants on PostgreSQL's own objects, where somebody has changed them: told as what is granted beyond, and what is missing of, what
//! initdb granted (pg_init_privs, else the built-in default). So pg_dump does it with pg_catalog: majors have other objects and grant
//! otherwise, and what somebody decided is the change. Members of extensions are the extensions' affair, but for initdb's own `plpgsql`.
use std::collections::HashMap;

use pgconvoy_proto::model::{Grant, SystemGrants};
use tokio_postgres::{Error, Row};

use super::{access, identity, query_quoted};
use crate::session::Session;

/// One row per object, and per column that is granted by itself: catalog, OID, column number (0: the object), owner, keyword for GRANT,
/// effective ACL, and what initdb made of it. The first superuser, who owned it then, counts as the owner.
fn objects() -> String {
    let of_relation = "CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END";
    format!(
        "SELECT a.class, a.oid, a.sub, a.owner, a.keyword, coalesce(a.acl, acldefault(a.letter, a.owner)) AS acl,
                coalesce(i.initprivs, acldefault(a.letter, a.owner) || CASE WHEN a.shipped IS NULL THEN '{{}}'::aclitem[]
                    ELSE ARRAY[makeaclitem(0, a.owner, a.shipped, false)] END) AS initial
         FROM (SELECT c.tableoid AS class, c.oid, 0 AS sub, c.relowner AS owner, {of_relation} AS keyword, c.relacl AS acl,
                      CASE c.relkind WHEN 'S' THEN 's'::\"char\" ELSE 'r' END AS letter,
                      CASE WHEN {OPEN_VIEW} THEN 'SELECT' END AS shipped
               FROM pg_class c JOIN {SYSTEM_SCHEMA} ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S')
               UNION ALL
               SELECT c.tableoid, c.oid, t.attnum, c.relowner, {of_relation}, t.attacl, 'c', NULL
               FROM pg_class c JOIN {SYSTEM_SCHEMA} ON n.oid = c.relnamespace JOIN pg_attribute t ON t.attrelid = c.oid
               WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p') AND t.attnum > 0 AND NOT t.attisdropped
               UNION ALL
               SELECT p.tableoid, p.oid, 0, p.proowner, 'ROUTINE', p.proacl, 'f', NULL
               FROM pg_proc p JOIN {SYSTEM_SCHEMA} ON n.oid = p.pronamespace
               UNION ALL
               SELECT t.tableoid, t.oid, 0, t.typowner, 'TYPE', t.typacl, 'T', NULL
               FROM pg_type t JOIN {SYSTEM_SCHEMA} ON n.oid = t.typnamespace
               UNION ALL
               SELECT l.tableoid, l.oid, 0, l.lanowner, 'LANGUAGE', l.lanacl, 'l', NULL FROM pg_language l WHERE l.oid < 16384 AND l.lanpltrusted
               UNION ALL
               SELECT n.tableoid, n.oid, 0, n.nspowner, 'SCHEMA', n.nspacl, 'n',
                      CASE n.nspname WHEN 'information_schema' THEN 'USAGE' END FROM {SYSTEM_SCHEMA}) a
         LEFT JOIN pg_init_privs i ON i.classoid = a.class AND i.objoid = a.oid AND i.objsubid = a.sub
         WHERE a.keyword = 'LANGUAGE'
            OR NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = a.class AND d.objid = a.oid AND d.deptype = 'e')"
    )
}

const SYSTEM_SCHEMA: &str = "(SELECT tableoid, * FROM pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema')) n";

/// initdb runs information_schema.sql after it has filled pg_init_privs: what that grants PUBLIC is not there. It is the same from 14 to 18:
/// the schema's USAGE, and SELECT on everything but these.
const OPEN_VIEW: &str = "n.nspname = 'information_schema' AND c.relname !~ '^_pg_' AND c.relname NOT IN ('sql_parts', 'transforms')";

/// What initdb granted, as aclexplode() tells it.
const INITIAL: &str = "
    (SELECT CASE i.grantor WHEN 10 THEN o.owner ELSE i.grantor END, CASE i.grantee WHEN 10 THEN o.owner ELSE i.grantee END,
            i.privilege_type, i.is_grantable FROM aclexplode(o.initial) i)";

/// SQL: the objects whose ACL is not initdb's, as `o`, and as sets of rows of aclexplode() what is granted beyond it, and what is gone of it
/// (not where it is granted with more).
pub(super) struct Changes {
    pub objects: String,
    pub granted: String,
    pub revoked: String,
}

pub(super) fn changes() -> Changes {
    Changes {
        objects: format!(
            "(SELECT * FROM ({}) every WHERE acl IS DISTINCT FROM initial) o",
            objects()
        ),
        granted: format!(
            "(SELECT a.* FROM aclexplode(o.acl) WITH ORDINALITY a
              WHERE (a.grantor, a.grantee, a.privilege_type, a.is_grantable) NOT IN {INITIAL})"
        ),
        revoked: format!(
            "(SELECT a.*, 0::bigint AS ordinality FROM {INITIAL} a (grantor, grantee, privilege_type, is_grantable)
              WHERE NOT EXISTS (SELECT FROM aclexplode(o.acl) n WHERE n.is_grantable >= a.is_grantable
                  AND (n.grantor, n.grantee, n.privilege_type) = (a.grantor, a.grantee, a.privilege_type)))"
        ),
    }
}

/// Of some of [`objects`] and their `grants`: kind, identity, keyword, column, owner; grantor, grantee, privilege, grantable; then
/// `beyond`, and what they are sorted by.
fn described(objects: &str, grants: &str, beyond: bool) -> String {
    format!(
        "i.type, {}, o.keyword, (SELECT t.attname::text FROM pg_attribute t WHERE t.attrelid = o.oid AND t.attnum = o.sub AND o.sub > 0),
         pg_get_userbyid(o.owner)::text, pg_get_userbyid(a.grantor)::text,
         CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee)::text END, a.privilege_type, a.is_grantable, {beyond}, o.sub, a.ordinality
         FROM {objects} o CROSS JOIN LATERAL {grants} a CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) i",
        identity("i.identity")
    )
}

/// Everything that was changed, in order of identity, objects before their columns.
pub async fn changed(session: &Session) -> Result<Vec<SystemGrants>, Error> {
    let Changes {
        objects,
        granted,
        revoked,
    } = changes();
    let each = [(granted, true), (revoked, false)]
        .map(|(grants, beyond)| described("changed", &grants, beyond));
    let query = format!(
        "WITH changed AS MATERIALIZED (SELECT * FROM {objects})
         SELECT {} UNION ALL SELECT {} ORDER BY 1, 2, 11, 12",
        each[0], each[1]
    );
    let mut found: Vec<SystemGrants> = Vec::new();
    for row in query_quoted(session, &query, &[]).await? {
        let next = header(&row);
        if found.last().is_none_or(|last| place(last) != place(&next)) {
            found.push(next);
        }
        if let Some(changed) = found.last_mut() {
            let beyond: bool = row.get(9);
            let grants = if beyond {
                &mut changed.granted
            } else {
                &mut changed.revoked
            };
            grants.push(access::grant(&row, 5));
        }
    }
    Ok(found)
}

fn header(row: &Row) -> SystemGrants {
    SystemGrants {
        kind: row.get(0),
        identity: row.get(1),
        keyword: row.get(2),
        column: row.get(3),
        owner: row.get(4),
        granted: Vec::new(),
        revoked: Vec::new(),
    }
}

/// Kind and identity of the object, and the column.
pub type SystemPlace = (String, String, Option<String>);

pub fn place(changed: &SystemGrants) -> SystemPlace {
    let SystemGrants {
        kind,
        identity,
        column,
        ..
    } = changed;
    (kind.clone(), identity.clone(), column.clone())
}

/// Owner and effective grants.
#[derive(Default)]
pub struct Present {
    pub owner: String,
    pub grants: Vec<Grant>,
}

/// Those of the objects and columns that this server has, with their grants as they are now.
pub async fn present(
    session: &Session,
    wanted: &[SystemGrants],
) -> Result<HashMap<SystemPlace, Present>, Error> {
    let kinds: Vec<&str> = wanted.iter().map(|w| w.kind.as_str()).collect();
    let identities: Vec<&str> = wanted.iter().map(|w| w.identity.as_str()).collect();
    let effective = "(SELECT g.* FROM aclexplode(o.acl) WITH ORDINALITY g
                      UNION ALL SELECT NULL, NULL, NULL, NULL, 0 WHERE NOT EXISTS (SELECT FROM aclexplode(o.acl)))";
    let query = format!(
        "SELECT {} WHERE (i.type, {}) IN (SELECT * FROM unnest($1::text[], $2::text[])) ORDER BY 1, 2, 11, 12",
        described(&format!("({})", objects()), effective, true),
        identity("i.identity")
    );
    let mut found: HashMap<SystemPlace, Present> = HashMap::new();
    for row in query_quoted(session, &query, &[&kinds, &identities]).await? {
        let header = header(&row);
        let present = found.entry(place(&header)).or_default();
        present.owner = header.owner;
        if row.get::<_, Option<&str>>(7).is_some() {
            present.grants.push(access::grant(&row, 5));
        }
    }
    Ok(found)
}
