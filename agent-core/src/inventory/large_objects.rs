//! Large objects: the pseudo table of their pages, who owns and may use them, and what is noted about them.
//!
//! pg_largeobject itself is for superusers only; everything here comes from pg_largeobject_metadata, which everybody may read.
use pgconvoy_proto::model::{
    Access, Entry, Format, Grant, LargeObjects, Note, Oid, Relation, Table,
};
use tokio_postgres::{Error, Row};

use super::access::grant;
use crate::large_objects::COLUMNS;
use crate::session::Session;

/// Of pg_largeobject (src/include/catalog/pg_largeobject.h), which no user table can have.
const PG_LARGEOBJECT: Oid = 2613;
/// How pg_identify_object() calls a large object.
const KIND: &str = "large object";
/// How ALTER, GRANT and COMMENT call one.
const KEYWORD: &str = "LARGE OBJECT";

/// Where parts may begin: so many places at most. They travel with every request about the relation.
const SLICES: u64 = 1000;

pub async fn count(session: &Session) -> Result<u64, Error> {
    let row = session
        .query_one("SELECT count(*) FROM pg_largeobject_metadata", &[])
        .await?;
    Ok(row.get::<_, i64>(0) as u64)
}

/// All large objects as one relation, as the session's transaction sees them; none when there are none.
pub async fn relation(session: &Session) -> Result<Option<Table>, Error> {
    let objects = count(session).await?;
    if objects == 0 {
        return Ok(None);
    }
    let bytes: i64 = session
        .query_one("SELECT pg_table_size('pg_catalog.pg_largeobject')", &[])
        .await?
        .get(0);
    let each = objects.div_ceil(SLICES) as i64;
    let slices = session
        .query(
            "SELECT oid FROM (SELECT oid, row_number() OVER (ORDER BY oid) - 1 AS number FROM pg_largeobject_metadata) o
             WHERE number % $1 = 0 ORDER BY oid",
            &[&each],
        )
        .await?;
    Ok(Some(Table {
        oid: PG_LARGEOBJECT,
        schema: "pg_catalog".into(),
        name: "pg_largeobject".into(),
        relation: Relation::LargeObjects {
            objects,
            slices: slices.iter().map(|row| row.get(0)).collect(),
        },
        columns: COLUMNS.iter().map(|&name| name.into()).collect(),
        generated: Vec::new(),
        padded: Vec::new(),
        arrays: Vec::new(),
        fixed: Vec::new(),
        managed: false,
        of_extension: false,
        key_columns: 2,
        format: Format::Binary,
        filter: None,
        size_bytes: bytes as u64,
        blocks: 0,
        through_root: false,
        unlogged: false,
    }))
}

/// How many large objects the role may not read, and some of their OIDs. PostgreSQL before 18 has no
/// has_largeobject_privilege().
pub async fn unreadable(session: &Session) -> Result<(u64, Vec<String>), Error> {
    let row = session
        .query_one(
            "SELECT count(*), coalesce((array_agg(oid::text ORDER BY oid))[1:5], '{}')
             FROM pg_largeobject_metadata
             WHERE current_setting('is_superuser') <> 'on' AND current_setting('lo_compat_privileges') <> 'on'
               AND NOT EXISTS (
                   SELECT FROM aclexplode(coalesce(lomacl, acldefault('L', lomowner))) a
                   WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))",
            &[],
        )
        .await?;
    Ok((row.get::<_, i64>(0) as u64, row.get(1)))
}

/// Some OIDs of large objects, of the first ones.
pub async fn sample(session: &Session, count: i64) -> Result<Vec<String>, Error> {
    let rows = session
        .query(
            "SELECT oid::text FROM pg_largeobject_metadata m ORDER BY m.oid LIMIT $1",
            &[&count],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Owners and effective grants, each with the ranges of OIDs that have them.
pub async fn shared_access(session: &Session) -> Result<Vec<LargeObjects>, Error> {
    let rows = session
        .query(
            "WITH numbered AS (
                 SELECT oid, lomowner, lomacl::text AS acl, row_number() OVER (ORDER BY oid)
                        - row_number() OVER (PARTITION BY lomowner, lomacl::text ORDER BY oid) AS island
                 FROM pg_largeobject_metadata
             ), islands AS (
                 SELECT lomowner, acl, min(oid) AS first, max(oid) AS last FROM numbered GROUP BY lomowner, acl, island
             ), alike AS (
                 SELECT min(first) AS example, array_agg(first ORDER BY first) AS firsts, array_agg(last ORDER BY first) AS lasts
                 FROM islands GROUP BY lomowner, acl
             )
             SELECT l.firsts, l.lasts, pg_get_userbyid(m.lomowner), a.privilege_type IS NOT NULL,
                    pg_get_userbyid(a.grantor), CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END,
                    a.privilege_type, a.is_grantable
             FROM alike l JOIN pg_largeobject_metadata m ON m.oid = l.example
             LEFT JOIN LATERAL aclexplode(coalesce(m.lomacl, acldefault('L', m.lomowner))) WITH ORDINALITY a ON true
             ORDER BY l.example, a.ordinality",
            &[],
        )
        .await?;
    let mut alike: Vec<LargeObjects> = Vec::new();
    for row in rows {
        let (firsts, lasts): (Vec<Oid>, Vec<Oid>) = (row.get(0), row.get(1));
        let ranges: Vec<(Oid, Oid)> = firsts.into_iter().zip(lasts).collect();
        if alike.last().is_none_or(|last| last.ranges != ranges) {
            alike.push(LargeObjects {
                owner: row.get(2),
                grants: Vec::new(),
                ranges,
            });
        }
        if let Some(last) = alike.last_mut() {
            last.grants.extend(grant_at(&row, 3));
        }
    }
    Ok(alike)
}

/// OIDs in ranges that do not overlap, from `from` on, ascending: at most `limit` of them.
pub async fn in_ranges(
    session: &Session,
    ranges: &[(Oid, Oid)],
    from: Oid,
    limit: i64,
) -> Result<Vec<Oid>, Error> {
    let (firsts, lasts): (Vec<Oid>, Vec<Oid>) = ranges.iter().copied().unzip();
    let rows = session
        .query(
            "SELECT m.oid FROM unnest($1::oid[], $2::oid[]) r (first, last)
             JOIN pg_largeobject_metadata m ON m.oid BETWEEN r.first AND r.last
             WHERE m.oid >= $3 ORDER BY m.oid LIMIT $4",
            &[&firsts, &lasts, &from, &limit],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Owner and effective grants of these large objects, as far as they exist.
pub async fn access(session: &Session, oids: &[Oid]) -> Result<Vec<Access>, Error> {
    let rows = session
        .query(
            "SELECT m.oid, pg_get_userbyid(m.lomowner), a.privilege_type IS NOT NULL,
                    pg_get_userbyid(a.grantor), CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END,
                    a.privilege_type, a.is_grantable
             FROM pg_largeobject_metadata m
             LEFT JOIN LATERAL aclexplode(coalesce(m.lomacl, acldefault('L', m.lomowner))) WITH ORDINALITY a ON true
             WHERE m.oid = ANY ($1) ORDER BY m.oid, a.ordinality",
            &[&oids],
        )
        .await?;
    let mut found: Vec<Access> = Vec::new();
    for row in rows {
        let oid: Oid = row.get(0);
        if found.last().is_none_or(|last| last.entry.oid != oid) {
            found.push(entry(oid, row.get(1), Vec::new()));
        }
        if let Some(last) = found.last_mut() {
            last.grants.extend(grant_at(&row, 2));
        }
    }
    Ok(found)
}

/// Five columns from `at` on: whether there is a grant, and the grant.
fn grant_at(row: &Row, at: usize) -> Option<Grant> {
    row.get::<_, bool>(at).then(|| grant(row, at + 1))
}

/// A large object's access, as other objects have it.
pub fn entry(oid: Oid, owner: String, grants: Vec<Grant>) -> Access {
    Access {
        entry: Entry {
            class: PG_LARGEOBJECT,
            oid,
        },
        kind: KIND.into(),
        identity: oid.to_string(),
        owner_keyword: KEYWORD.into(),
        grant_keyword: Some(KEYWORD.into()),
        owner,
        grants,
        column_grants: Vec::new(),
    }
}

/// Comments and security labels.
pub async fn notes(session: &Session) -> Result<Vec<Note>, Error> {
    let rows = session
        .query(
            "SELECT objoid, NULL, description FROM pg_description WHERE classoid = 'pg_largeobject'::regclass
             UNION ALL
             SELECT objoid, provider, label FROM pg_seclabel WHERE classoid = 'pg_largeobject'::regclass
             ORDER BY 1, 2 NULLS FIRST",
            &[],
        )
        .await?;
    let note = |row: &Row| Note {
        on: format!("{KEYWORD} {}", row.get::<_, Oid>(0)),
        provider: row.get(1),
        text: row.get(2),
    };
    Ok(rows.iter().map(note).collect())
}
