//! Everything a database holds besides rows, as a flat list of objects with their properties: what both ends are compared by.
//!
//! Each family of objects has a file of queries. Every query yields the same eight columns (see [`Query`]), and what several say of one
//! object is put together: its shape, its owner and grants, its comment. Nothing is asked per object, so that
//! 20,000 functions cost what one query costs. What PostgreSQL knows by OID is told by what it denotes (names under an empty search
//! path, the deparser's text), and where it invents a name (children of a partitioned table's index, sequences of identity columns)
//! the object is identified by what it belongs to. Every name is quoted: which words need quotes is another matter in every major.
//!
//! A property that an object does not have is absent. A fact that only some majors know is a property of its own, which the coordinator
//! leaves out when one end lacks it.
mod constraints;
mod foreign;
mod indexes;
mod members;
mod operators;
mod publications;
mod relations;
mod remarks;
mod roles;
mod routines;
mod security;
mod text_search;
mod triggers;
mod types;

use std::collections::BTreeMap;
use std::collections::HashSet;

use pgconvoy_proto::model::SchemaObject;
use pgconvoy_proto::selection::{Filter, Unread};
use serde_json::Value;
use tokio_postgres::Error;

use super::{built, foreign_schema};
use crate::session::{Session, quote_literal};

/// One query. Its columns, in this order: `class` and `oid` (the object that an extension's membership would be recorded for; members
/// are left out), `kind`, `identity`, `schema` and `relation` (unquoted; what a selection is about; null: of the whole
/// schema, of the whole database), `parent` (kind and identity of what the object goes with; null: its schema), `properties`
/// (a JSON object; a null is no property).
type Query = String;

/// What the queries are told.
struct Ask {
    /// server_version_num
    version: u32,
    /// Goes into the digest of every secret, as hexadecimal digits.
    salt: String,
    superuser: bool,
}

impl Ask {
    /// `name` and `value` are SQL. The value, or, where the name is that of a secret, its digest: no secret leaves the agent.
    fn setting(&self, name: &str, value: &str) -> String {
        format!(
            "CASE WHEN {name} ~* '(passw|secret|token|key|credential|auth)' THEN {} ELSE {value} END",
            self.secret(value)
        )
    }

    /// The digest of a value, as [`pgconvoy_proto::model::MASK`] marks it.
    fn secret(&self, value: &str) -> String {
        format!(
            "'(masked:' || encode(sha256(convert_to({} || {value}, 'UTF8')), 'hex') || ')'",
            quote_literal(&self.salt)
        )
    }
}

/// The effective grants of an ACL, a line for each grantee and grantor: `alice=INSERT,SELECT*/bob`. The owner is called `(owner)`: who
/// that is, is a property of its own, and what an owner may do is not another grant where the owner is another.
fn grants(acl: &str, owner: &str) -> String {
    grant_lines(&format!("aclexplode({acl})"), owner, "a.grantee, a.grantor")
}

/// The same of rows as aclexplode() tells them, a line for each `by`.
fn grant_lines(rows: &str, owner: &str, by: &str) -> String {
    let role = |column: &str| {
        format!(
            "CASE {column} WHEN 0 THEN 'PUBLIC' WHEN {owner} THEN '(owner)' ELSE quote_ident(pg_get_userbyid({column})) END"
        )
    };
    format!(
        "(SELECT string_agg(g.line, E'\\n' ORDER BY g.line) FROM (
             SELECT format('%s=%s/%s', {}, string_agg(a.privilege_type
                 || CASE WHEN a.is_grantable AND a.grantee <> {owner} THEN '*' ELSE '' END, ',' ORDER BY a.privilege_type), {}) AS line
             FROM {rows} a GROUP BY {by}) g)",
        role("a.grantee"),
        role("a.grantor")
    )
}

/// What the queries share: the schemas that count, members of extensions, what DEPENDS ON EXTENSION, and relations by name.
fn shared() -> String {
    format!(
        "own_schema AS MATERIALIZED (
             SELECT n.oid, n.nspname, n.tableoid AS class FROM pg_namespace n WHERE NOT {}),
         member AS MATERIALIZED (
             SELECT classid, objid, 'extension ' || quote_ident(e.extname) AS extension
             FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
             WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass),
         bound AS MATERIALIZED (
             SELECT classid, objid, string_agg(quote_ident(e.extname), ', ' ORDER BY e.extname) AS extensions
             FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
             WHERE d.deptype = 'x' AND d.refclassid = 'pg_extension'::regclass GROUP BY classid, objid),
         relation AS MATERIALIZED (
             SELECT CASE c.relkind WHEN 'c' THEN 'pg_type'::regclass::oid ELSE c.tableoid END AS class,
                    CASE c.relkind WHEN 'c' THEN c.reltype ELSE c.oid END AS member_oid,
                    c.oid, c.relkind, n.nspname AS schema, CASE WHEN c.relkind <> 'c' THEN c.relname END AS name,
                    CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                         WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type' ELSE 'table' END AS kind,
                    format('%I.%I', n.nspname, c.relname) AS identity
             FROM pg_class c JOIN own_schema n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND c.relpersistence <> 't')",
        foreign_schema("n")
    )
}

/// Everything that the filters admit, by kind and identity, as the session's transaction sees it: it must be in one. What belongs to no
/// schema is told when `whole` only.
pub async fn read(
    session: &Session,
    salt: &[u8],
    filters: &[Filter],
    whole: bool,
) -> Result<Vec<SchemaObject>, Error> {
    session
        .batch_execute("SET LOCAL quote_all_identifiers = on")
        .await?;
    let superuser: bool = session
        .query_one("SELECT current_setting('is_superuser') = 'on'", &[])
        .await?
        .get(0);
    let ask = Ask {
        superuser,
        version: session.server_version(),
        salt: salt.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let mut found = BTreeMap::new();
    for query in queries(&ask) {
        gather(session, &query, &mut found).await?;
    }
    positions(session, &mut found).await?;
    let admitted = |object: &Found| match (&object.schema, &object.relation) {
        (None, _) => whole,
        (Some(schema), None) => filters.iter().all(|f| f.admits_schema(schema)),
        (Some(schema), Some(name)) => filters.iter().all(|f| f.admits(schema, name)),
    };
    Ok(found
        .into_values()
        .filter(admitted)
        .map(|found| found.object)
        .collect())
}

/// What an object is comes before what is said of it: the first that names an object says what it belongs to.
fn queries(ask: &Ask) -> Vec<Query> {
    [
        relations::queries(),
        constraints::queries(),
        indexes::queries(),
        types::queries(),
        routines::queries(),
        operators::queries(),
        text_search::queries(),
        triggers::queries(ask),
        publications::queries(ask),
        foreign::queries(ask),
        roles::queries(ask),
        security::queries(),
        members::queries(ask),
        remarks::queries(),
    ]
    .concat()
}

struct Found {
    object: SchemaObject,
    schema: Option<String>,
    relation: Option<String>,
}

type All = BTreeMap<(String, String), Found>;

async fn gather(session: &Session, query: &str, found: &mut All) -> Result<(), Error> {
    let query = format!(
        "WITH {}, q (class, oid, kind, identity, schema, relation, parent, properties) AS ({query})
         SELECT q.kind, q.identity, q.schema::text, q.relation::text,
                coalesce(q.parent, 'schema ' || quote_ident(q.schema::text), ''), q.properties
         FROM q LEFT JOIN member m ON m.classid = q.class AND m.objid = q.oid
         WHERE m.objid IS NULL AND q.identity IS NOT NULL",
        shared()
    );
    for row in session.query(&query, &[]).await? {
        let kind = plain_kind(row.get(0)).to_owned();
        let identity: String = row.get(1);
        let entry = found
            .entry((kind, identity))
            .or_insert_with_key(|key| Found {
                object: SchemaObject {
                    kind: key.0.clone(),
                    identity: key.1.clone(),
                    parent: row.get(4),
                    properties: BTreeMap::new(),
                },
                schema: row.get(2),
                relation: row.get(3),
            });
        if let Value::Object(properties) = row.get(5) {
            let said = properties
                .into_iter()
                .filter_map(|(name, value)| Some((name, text(value)?)));
            entry.object.properties.extend(said);
        }
    }
    Ok(())
}

/// pg_identify_object() tells columns and constraints by what they are of; here they are of one kind.
fn plain_kind(kind: &str) -> &str {
    match kind {
        "table constraint" | "domain constraint" => "constraint",
        column if column.ends_with(" column") => "column",
        other => other,
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

/// Where sequences stand: not in the catalog, and not transactional.
async fn positions(session: &Session, found: &mut All) -> Result<(), Error> {
    let sequences = found
        .values_mut()
        .filter(|found| found.object.kind == "sequence")
        .filter_map(|found| Some((found.object.get("name")?.to_owned(), &mut found.object)));
    let mut sequences: BTreeMap<String, &mut SchemaObject> = sequences.collect();
    for value in built::sequences(session, &HashSet::new(), &Unread::default()).await? {
        if let Some(object) = sequences.get_mut(&format!("{}.{}", value.schema, value.name)) {
            object
                .properties
                .insert("position".into(), value.position());
        }
    }
    Ok(())
}
