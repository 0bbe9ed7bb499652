//! What preflight needs to know of the target.
use std::collections::HashSet;
use std::path::Path;

use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::inventory::holdings::{self, ReadError};
use pgconvoy_agent_core::inventory::{built_in, large_objects, roles};
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::tools::Tools;
use pgconvoy_agent_core::{facts, status};
use pgconvoy_proto::facts::{BuiltIn, Extension, TargetFacts};
use pgconvoy_proto::model::Oid;
use tokio_postgres::Error;
use tonic::Status;

use crate::ledger::read::LATEST_FIRST;
use crate::rights;

/// Named in a message; the rest is counted.
const SAMPLE: usize = 5;

/// `managed`: globs, schemas whose objects are a platform's.
pub async fn gather(
    database: &Database,
    pg_bin: Option<&Path>,
    managed: &[String],
) -> Result<TargetFacts, Status> {
    let session = database.connect("pgconvoy preflight").await?;
    let managed = managed_schemas(&session, managed).await?;
    let mut facts = query(&session, database, &managed)
        .await
        .map_err(|error| status::postgres("reading the target's catalogs", &error))?;
    let versions = Tools::find(pg_bin).await.restore_majors();
    facts.pg_restore = versions.map_err(|error| error.to_string());
    Ok(facts)
}

/// Positions of those that the server does not know.
pub async fn unknown(database: &Database, built_ins: &[BuiltIn]) -> Result<Vec<usize>, Status> {
    let session = database.connect("pgconvoy preflight").await?;
    built_in::unknown(&session, built_ins)
        .await
        .map_err(|error| status::postgres("reading the target's catalogs", &error))
}

/// Those of the database that the globs match.
pub async fn managed_schemas(session: &Session, globs: &[String]) -> Result<Vec<String>, Status> {
    holdings::managed(session, globs)
        .await
        .map_err(|error| match error {
            ReadError::Malformed(error) => error.into(),
            ReadError::Postgres(error) => status::postgres("reading the target's catalogs", &error),
        })
}

async fn query(
    session: &Session,
    database: &Database,
    managed: &[String],
) -> Result<TargetFacts, Error> {
    let objects = objects(session, managed).await?;
    let row = session
        .query_one(
            "SELECT has_database_privilege(current_database(), 'CREATE')",
            &[],
        )
        .await?;
    let (unfinished, finished) = migrations(session).await?;
    let extensions = |query: &'static str| async move {
        let rows = session.query(query, &[]).await?;
        Ok::<Vec<Extension>, Error>(
            rows.iter()
                .map(|r| Extension {
                    name: r.get(0),
                    version: r.get(1),
                    schema: r.get(2),
                    relocatable: r.get(3),
                })
                .collect(),
        )
    };
    Ok(TargetFacts {
        server: facts::server(session, database).await?,
        extensions_available: extensions(
            "SELECT name::text, coalesce(default_version, ''), '', false FROM pg_available_extensions ORDER BY 1",
        )
        .await?,
        extensions_installed: extensions(
            "SELECT extname::text, extversion, extnamespace::regnamespace::text, extrelocatable FROM pg_extension ORDER BY 1",
        )
        .await?,
        default_privileges: default_privileges(session).await?,
        roles: roles::read(session).await?,
        objects: objects.len() as u64,
        object_sample: objects.into_iter().take(SAMPLE).collect(),
        tables: tables(session).await?,
        of_others: rights::of_others(session).await?,
        large_objects: large_objects::count(session).await?,
        large_object_sample: large_objects::sample(session, SAMPLE as i64).await?,
        unfinished,
        finished,
        can_create: row.get(0),
        can_set_replication_role: can_set_replication_role(session).await?,
        // A server elsewhere may have its data in a folder that has a namesake here.
        disk_free: data_directory(session)
            .await?
            .filter(|_| database.is_on_this_machine())
            .and_then(|dir| free(Path::new(&dir))),
        pg_restore: Ok(Vec::new()),
    })
}

/// Where the server keeps the database: that of its tablespace. None: the role may not know.
pub async fn data_directory(session: &Session) -> Result<Option<String>, Error> {
    let row = session
        .query_one(
            "SELECT CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE') THEN coalesce(
                 (SELECT nullif(pg_tablespace_location(dattablespace), '') FROM pg_database
                  WHERE datname = current_database()), current_setting('data_directory')) END",
            &[],
        )
        .await?;
    Ok(row.get(0))
}

async fn default_privileges(session: &Session) -> Result<Vec<String>, Error> {
    let rows = session
        .query(
            "SELECT i.identity FROM pg_default_acl d
             CROSS JOIN LATERAL pg_identify_object(d.tableoid, d.oid, 0) i ORDER BY 1",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// User tables, views, sequences, functions and types outside extensions, the ledger and these schemas: what makes a target not empty.
pub async fn objects(session: &Session, managed: &[String]) -> Result<Vec<String>, Error> {
    let rows = session
        .query(
            "WITH o AS (
                 SELECT tableoid AS class, oid, relnamespace AS schema FROM pg_class
                 WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relpersistence <> 't'
                 UNION ALL SELECT tableoid, oid, pronamespace FROM pg_proc
                 UNION ALL SELECT t.tableoid, t.oid, t.typnamespace FROM pg_type t LEFT JOIN pg_class r ON r.oid = t.typrelid
                 WHERE (t.typrelid = 0 OR r.relkind = 'c')
                   AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid) AND t.typtype <> 'm')
             SELECT i.type || ' ' || i.identity
             FROM o JOIN pg_namespace n ON n.oid = o.schema CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) i
             WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgconvoy')
               AND n.nspname !~ '^pg_(toast|temp)' AND n.nspname <> ALL ($1)
               AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e')
             ORDER BY 1",
            &[&managed],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Looked into by one statement: each table is locked by it.
const TABLES_PER_STATEMENT: usize = 200;

/// User tables, with whether they hold rows, for a migration into an existing schema. What the role may not read counts as
/// holding some; a partitioned table holds what its partitions hold, of those that are not on another server.
pub async fn tables(session: &Session) -> Result<Vec<(String, bool)>, Error> {
    let named = session
        .query(
            "SELECT c.oid, n.nspname || '.' || c.relname, c.oid::regclass::text, c.relkind = 'p',
                    has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
               AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgconvoy') ORDER BY 2",
            &[],
        )
        .await?;
    let (mut holding, mut ask) = (HashSet::new(), Vec::new());
    for row in named.iter().filter(|row| !row.get::<_, bool>(3)) {
        let (oid, name): (Oid, &str) = (row.get(0), row.get(2));
        if row.get(4) {
            ask.push(format!(
                "SELECT {oid}::oid WHERE EXISTS (SELECT FROM ONLY {name})"
            ));
        } else {
            holding.insert(oid);
        }
    }
    for ask in ask.chunks(TABLES_PER_STATEMENT) {
        let rows = session.query(&ask.join(" UNION ALL "), &[]).await?;
        holding.extend(rows.iter().map(|row| row.get::<_, Oid>(0)));
    }
    let partitions = session
        .query(
            "SELECT c.oid, p.relid::oid FROM pg_class c CROSS JOIN LATERAL pg_partition_tree(c.oid) p
             WHERE c.relkind = 'p' AND p.isleaf",
            &[],
        )
        .await?;
    let of_partitions: HashSet<Oid> = partitions
        .iter()
        .filter(|row| holding.contains(&row.get(1)))
        .map(|row| row.get(0))
        .collect();
    let holds = |oid: Oid| holding.contains(&oid) || of_partitions.contains(&oid);
    Ok(named
        .iter()
        .map(|row| (row.get(1), holds(row.get(0))))
        .collect())
}

type Named = Option<(String, String)>;

/// The unfinished migration and its phase; the latest finished one and its verdict.
async fn migrations(session: &Session) -> Result<(Named, Named), Error> {
    let there: bool = session
        .query_one("SELECT to_regclass('pgconvoy.migrations') IS NOT NULL", &[])
        .await?
        .get(0);
    if !there {
        return Ok((None, None));
    }
    let one = |what: &'static str, of: &'static str| async move {
        let query = format!(
            "SELECT id, {what} FROM pgconvoy.migrations WHERE {of} ORDER BY {LATEST_FIRST} LIMIT 1"
        );
        let row = session.query_opt(&query, &[]).await?;
        Ok::<Named, Error>(row.map(|row| (row.get(0), row.get(1))))
    };
    Ok((
        one("phase", "verdict IS NULL").await?,
        one("verdict", "verdict IS NOT NULL").await?,
    ))
}

async fn can_set_replication_role(session: &Session) -> Result<bool, Error> {
    use tokio_postgres::error::SqlState;
    match session
        .batch_execute("BEGIN; SET LOCAL session_replication_role = replica; ROLLBACK")
        .await
    {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            session.batch_execute("ROLLBACK").await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Bytes free where `path` is, for this user; none when this host cannot see it.
pub fn free(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail * stat.f_frsize)
}
