//! Who owns what and who may do what: the same query at both ends, so that the two can be compared and made equal.
//!
//! Grants are *effective*: where the catalog holds none, the built-in default (acldefault) is spelled out. Members of extensions
//! keep the owner that CREATE EXTENSION gave them, but are granted as at the source.
use std::collections::BTreeMap;

use pgconvoy_proto::model::{Access, Entry, Grant, Made, Oid};
use tokio_postgres::{Error, Row};

use super::{foreign_schema, identity, query_quoted};
use crate::session::Session;

/// One row per object that has an owner: catalog, OID, owner, ACL (effective), keywords for ALTER and GRANT, made late.
/// Left out: what follows another object's owner (owned sequences, row types, array and multirange types).
pub(super) fn objects() -> String {
    format!(
        "SELECT c.tableoid AS class, c.oid, c.relowner AS owner,
                coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::\"char\" ELSE 'r' END, c.relowner)) AS acl,
                CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                     WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END AS keyword,
                CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS grant_keyword, false AS late,
                EXISTS (SELECT FROM pg_depend d WHERE c.relkind = 'S' AND d.classid = c.tableoid AND d.objid = c.oid
                        AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')) AS follows
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' AND NOT {foreign}
         UNION ALL
         SELECT n.tableoid, n.oid, nspowner, coalesce(nspacl, acldefault('n', nspowner)), 'SCHEMA', 'SCHEMA', false, false
         FROM pg_namespace n WHERE NOT {foreign}
         UNION ALL
         SELECT p.tableoid, p.oid, proowner, coalesce(proacl, acldefault('f', proowner)), 'ROUTINE', 'ROUTINE', false, false
         FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE NOT {foreign}
         UNION ALL
         SELECT t.tableoid, t.oid, typowner, coalesce(typacl, acldefault('T', typowner)), 'TYPE', 'TYPE', false, false
         FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace LEFT JOIN pg_class r ON r.oid = t.typrelid
         WHERE NOT {foreign} AND t.typtype <> 'm' AND t.typisdefined AND (t.typrelid = 0 OR r.relkind = 'c')
           AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
         UNION ALL
         SELECT l.tableoid, l.oid, lanowner, coalesce(lanacl, acldefault('l', lanowner)), 'LANGUAGE', 'LANGUAGE', false, false
         FROM pg_language l WHERE l.oid >= 16384 AND lanpltrusted
         UNION ALL
         SELECT f.tableoid, f.oid, fdwowner, coalesce(fdwacl, acldefault('F', fdwowner)),
                'FOREIGN DATA WRAPPER', 'FOREIGN DATA WRAPPER', false, false FROM pg_foreign_data_wrapper f
         UNION ALL
         SELECT s.tableoid, s.oid, srvowner, coalesce(srvacl, acldefault('S', srvowner)),
                'SERVER', 'FOREIGN SERVER', false, false FROM pg_foreign_server s
         UNION ALL
         SELECT o.tableoid, o.oid, oprowner, NULL, 'OPERATOR', NULL, false, false
         FROM pg_operator o JOIN pg_namespace n ON n.oid = oprnamespace WHERE NOT {foreign}
         UNION ALL
         SELECT o.tableoid, o.oid, opcowner, NULL, 'OPERATOR CLASS', NULL, false, false
         FROM pg_opclass o JOIN pg_namespace n ON n.oid = opcnamespace WHERE NOT {foreign}
         UNION ALL
         SELECT o.tableoid, o.oid, opfowner, NULL, 'OPERATOR FAMILY', NULL, false, false
         FROM pg_opfamily o JOIN pg_namespace n ON n.oid = opfnamespace WHERE NOT {foreign}
         UNION ALL
         SELECT o.tableoid, o.oid, collowner, NULL, 'COLLATION', NULL, false, false
         FROM pg_collation o JOIN pg_namespace n ON n.oid = collnamespace WHERE NOT {foreign}
         UNION ALL
         SELECT o.tableoid, o.oid, conowner, NULL, 'CONVERSION', NULL, false, false
         FROM pg_conversion o JOIN pg_namespace n ON n.oid = connamespace WHERE NOT {foreign}
         UNION ALL
         SELECT o.tableoid, o.oid, dictowner, NULL, 'TEXT SEARCH DICTIONARY', NULL, false, false
         FROM pg_ts_dict o JOIN pg_namespace n ON n.oid = dictnamespace WHERE NOT {foreign}
         UNION ALL
         SELECT o.tableoid, o.oid, cfgowner, NULL, 'TEXT SEARCH CONFIGURATION', NULL, false, false
         FROM pg_ts_config o JOIN pg_namespace n ON n.oid = cfgnamespace WHERE NOT {foreign}
         UNION ALL
         SELECT o.tableoid, o.oid, stxowner, NULL, 'STATISTICS', NULL, true, false
         FROM pg_statistic_ext o JOIN pg_namespace n ON n.oid = stxnamespace WHERE NOT {foreign}
         UNION ALL
         SELECT tableoid, oid, evtowner, NULL, 'EVENT TRIGGER', NULL, true, false FROM pg_event_trigger
         UNION ALL
         SELECT tableoid, oid, pubowner, NULL, 'PUBLICATION', NULL, true, false FROM pg_publication
         UNION ALL
         SELECT 'pg_subscription'::regclass, s.oid, subowner, NULL, 'SUBSCRIPTION', NULL, true, false
         FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()",
        foreign = foreign_schema("n"),
    )
}

/// An object's access, and whether post-data makes it.
pub struct Found {
    pub access: Access,
    pub late: bool,
    /// Whether pg_dump may put it off until post-data.
    pub may_be_late: bool,
    /// Its pg_class OID, when it is a relation.
    pub relation: Option<Oid>,
}

/// Everything that has an owner, in order of identity; of members of extensions only what can be granted.
pub async fn read(session: &Session) -> Result<Vec<Found>, Error> {
    let query = format!(
        "WITH o AS MATERIALIZED ({})
         SELECT i.type, {}, o.keyword, o.grant_keyword, pg_get_userbyid(o.owner), o.late,
                o.follows OR member.yes, NOT member.yes AND o.keyword IN ('MATERIALIZED VIEW', 'ROUTINE'),
                o.class, o.oid,
                CASE WHEN o.class = 'pg_class'::regclass THEN o.oid END,
                a.ordinality, pg_get_userbyid(a.grantor),
                CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable
         FROM o
         CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) i
         LEFT JOIN LATERAL aclexplode(o.acl) WITH ORDINALITY a ON true
         CROSS JOIN LATERAL (SELECT EXISTS (
             SELECT FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e') AS yes) member
         WHERE NOT member.yes OR o.grant_keyword IS NOT NULL
         ORDER BY 1, 2, a.ordinality",
        objects(),
        identity("i.identity"),
    );
    let mut found: Vec<Found> = Vec::new();
    for row in query_quoted(session, &query, &[]).await? {
        let (kind, name): (String, String) = (row.get(0), row.get(1));
        let same = |f: &Found| f.access.identity == name && f.access.kind == kind;
        if !found.last().is_some_and(same) {
            let follows: bool = row.get(6);
            found.push(Found {
                access: Access {
                    entry: Entry {
                        class: row.get(8),
                        oid: row.get(9),
                    },
                    kind,
                    identity: name,
                    owner_keyword: if follows { String::new() } else { row.get(2) },
                    grant_keyword: row.get(3),
                    owner: row.get(4),
                    grants: Vec::new(),
                    column_grants: Vec::new(),
                },
                late: row.get(5),
                may_be_late: row.get(7),
                relation: row.get(10),
            });
        }
        if let (Some(object), Some(_)) = (found.last_mut(), row.get::<_, Option<i64>>(11)) {
            object.access.grants.push(grant(&row, 12));
        }
    }
    let mut columns = column_grants(session).await?;
    for object in &mut found {
        if let Some(grants) = object.relation.and_then(|oid| columns.remove(&oid)) {
            object.access.column_grants = grants;
        }
    }
    Ok(found)
}

/// Four columns from `at` on: grantor, grantee, privilege, grantable.
pub(super) fn grant(row: &Row, at: usize) -> Grant {
    Grant {
        grantor: row.get(at),
        grantee: row.get(at + 1),
        privilege: row.get(at + 2),
        grantable: row.get(at + 3),
    }
}

async fn column_grants(
    session: &Session,
) -> Result<BTreeMap<Oid, Vec<(String, Vec<Grant>)>>, Error> {
    let rows = session
        .query(
            "SELECT c.attrelid, c.attname, pg_get_userbyid(a.grantor),
                    CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable
             FROM pg_attribute c CROSS JOIN LATERAL aclexplode(c.attacl) WITH ORDINALITY a
             WHERE c.attacl IS NOT NULL AND c.attnum > 0 AND NOT c.attisdropped
             ORDER BY c.attrelid, c.attnum, a.ordinality",
            &[],
        )
        .await?;
    let mut columns: BTreeMap<Oid, Vec<(String, Vec<Grant>)>> = BTreeMap::new();
    for row in rows {
        let of_table = columns.entry(row.get(0)).or_default();
        let name: String = row.get(1);
        if of_table.last().is_none_or(|(last, _)| *last != name) {
            of_table.push((name, Vec::new()));
        }
        if let Some((_, grants)) = of_table.last_mut() {
            grants.push(grant(&row, 2));
        }
    }
    Ok(columns)
}

/// What post-data makes, or may make, that has an identity of its own: catalog and OID, members of extensions left out. pg_dump
/// puts a materialized view or a function off until post-data when it needs a primary key (GROUP BY, BEGIN ATOMIC).
const LATE_OBJECTS: &str = "
    SELECT tableoid AS class, oid FROM pg_trigger WHERE NOT tgisinternal AND tgparentid = 0
    UNION ALL SELECT tableoid, oid FROM pg_policy
    UNION ALL SELECT tableoid, oid FROM pg_rewrite WHERE rulename <> '_RETURN' AND oid >= 16384
    UNION ALL SELECT tableoid, oid FROM pg_constraint WHERE contype = 'c' AND NOT convalidated
    UNION ALL SELECT tableoid, oid FROM pg_class WHERE relkind = 'm'
    UNION ALL SELECT tableoid, oid FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT tableoid, oid FROM pg_event_trigger
    UNION ALL SELECT tableoid, oid FROM pg_publication
    UNION ALL SELECT tableoid, oid FROM pg_publication_rel
    UNION ALL SELECT tableoid, oid FROM pg_statistic_ext
    -- Not everybody may read its whole rows.
    UNION ALL SELECT 'pg_subscription'::regclass, s.oid FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
    WHERE d.datname = current_database()";

/// PostgreSQL 15 and later.
const SCHEMAS_OF_PUBLICATIONS: &str =
    "UNION ALL SELECT tableoid, oid FROM pg_publication_namespace";
const FIFTEEN: u32 = 150_000;

/// What post-data makes, as pg_identify_object() names it.
pub async fn late_objects(session: &Session) -> Result<Vec<Made>, Error> {
    let more = match session.server_version() {
        FIFTEEN.. => SCHEMAS_OF_PUBLICATIONS,
        _ => "",
    };
    let query = format!(
        "SELECT o.class, o.oid, i.type, {} FROM ({LATE_OBJECTS} {more}) o
         CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) i
         WHERE i.identity IS NOT NULL AND NOT EXISTS (
             SELECT FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e')
         ORDER BY 3, 4",
        identity("i.identity"),
    );
    let rows = query_quoted(session, &query, &[]).await?;
    let made = rows.iter().map(|row| Made {
        entry: Entry {
            class: row.get(0),
            oid: row.get(1),
        },
        kind: row.get(2),
        identity: row.get(3),
    });
    Ok(made.collect())
}
