//! What preflight needs to know of the source.
use std::collections::HashSet;
use std::path::Path;

use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::inventory::tables::WAITED_FOR;
use pgconvoy_agent_core::inventory::{
    access, built, built_in, large_objects, newer, roles, tables,
};
use pgconvoy_agent_core::session::{LOOK, Session};
use pgconvoy_agent_core::tools::Tools;
use pgconvoy_agent_core::{facts, status};
use pgconvoy_proto::facts::{Extension, ServerFacts, SourceFacts};
use pgconvoy_proto::model::{Entry, RoleChoice, Selection, Table};
use pgconvoy_proto::selection::{self, Filter, Idle};
use tokio_postgres::Error;
use tonic::Status;

use crate::secrets;

pub async fn gather(
    database: &Database,
    pg_bin: Option<&Path>,
    selection: &Selection,
    target_major: u32,
    choice: RoleChoice,
) -> Result<SourceFacts, Status> {
    let filter = Filter::new(selection).map_err(|e| Status::invalid_argument(e.to_string()))?;
    let session = database.connect("pgconvoy preflight").await?;
    let failed = |error| status::postgres("reading the catalogs", &error);
    let asked = Asked {
        filter: &filter,
        whole: selection.is_everything(),
        roles: choice,
    };
    let server = facts::server(&session, database).await.map_err(failed)?;
    let mut gathered = query(&session, server, &asked).await.map_err(failed)?;
    gathered.idle_globs = idle_globs(&session, selection).await?;
    match Tools::find(pg_bin)
        .await
        .pick_dump(session.server_version() / 10_000)
    {
        Ok(tool) => {
            let (major, minor) = tool.version;
            gathered.pg_dump = Ok(format!("{} {major}.{minor}", tool.path.display()));
            gathered.pg_dump_major = major;
        }
        Err(error) => gathered.pg_dump = Err(error.to_string()),
    }
    too_new(&session, &filter, target_major, &mut gathered)
        .await
        .map_err(failed)?;
    Ok(gathered)
}

/// Filters that nothing here answers to, whatever kind of relation they may mean.
async fn idle_globs(session: &Session, selection: &Selection) -> Result<Vec<Idle>, Status> {
    if selection.is_everything() {
        return Ok(Vec::new());
    }
    let rows = session
        .query(
            "SELECT n.nspname::text, c.relname::text FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid",
            &[],
        )
        .await
        .map_err(|error| status::postgres("reading the catalogs", &error))?;
    let schemas: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    let relations: Vec<(&str, &str)> = rows
        .iter()
        .filter_map(|row| Some((row.get(0), row.get::<_, Option<&str>>(1)?)))
        .collect();
    selection::idle(selection, &schemas, &relations)
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

/// What the target's major may not know: nothing where the target is at least as new.
async fn too_new(
    session: &Session,
    filter: &Filter,
    target_major: u32,
    gathered: &mut SourceFacts,
) -> Result<(), Error> {
    let dump = gathered.pg_dump_major;
    let server = session.server_version() / 10_000;
    if target_major >= server.max(dump) {
        return Ok(());
    }
    let excluded = built::excluded_relations(session, filter).await?;
    gathered.newer = newer::features(session, &excluded, target_major, dump).await?;
    if target_major < server {
        let (built_ins, syntax) = built_in::used(session, &excluded, target_major).await?;
        gathered.built_ins = built_ins;
        gathered.newer.extend(syntax);
    }
    Ok(())
}

/// What the migration is to be of.
struct Asked<'a> {
    filter: &'a Filter,
    /// The filter leaves nothing out.
    whole: bool,
    roles: RoleChoice,
}

async fn query(
    session: &Session,
    server: ServerFacts,
    asked: &Asked<'_>,
) -> Result<SourceFacts, Error> {
    // One transaction: the tables that are listed are the ones that are asked about.
    session.batch_execute(LOOK).await?;
    let mut selected = tables::relations(session, asked.filter).await?;
    tables::describe(session, &mut selected).await?;
    let (unreadable, filtered_by_rls) = readable(session, &selected).await?;
    let forced_rls = forced_rls(session, &selected).await?;
    let tables = selected.len() as u64;
    let mut large_objects = 0;
    let mut large_objects_unreadable = (0, Vec::new());
    if asked.filter.admits_large_objects() {
        large_objects = large_objects::count(session).await?;
        large_objects_unreadable = large_objects::unreadable(session).await?;
        selected.extend(large_objects::relation(session).await?);
    }
    let needed = needed_roles(session, asked).await?;
    let facts = SourceFacts {
        server,
        size_bytes: size(session, &selected).await?,
        tables,
        idle_globs: Vec::new(),
        unreadable,
        filtered_by_rls,
        forced_rls,
        extensions: session
            .query(
                "SELECT extname, extversion, extnamespace::regnamespace::text, extrelocatable FROM pg_extension
                 WHERE extname <> 'plpgsql' ORDER BY 1",
                &[],
            )
            .await?
            .iter()
            .map(|row| Extension {
                name: row.get(0),
                version: row.get(1),
                schema: row.get(2),
                relocatable: row.get(3),
            })
            .collect(),
        extension_tables: tables::of_extensions(session, asked.filter).await?,
        carried: roles::choose(session, asked.roles, &needed).await?,
        roles: needed,
        reads_passwords: secrets::passwords_readable(session).await?,
        large_objects,
        large_objects_unreadable,
        foreign_tables: names(
            session,
            "SELECT ftrelid::regclass::text FROM pg_foreign_table ORDER BY 1",
        )
        .await?,
        tablespaces: names(
            session,
            "SELECT DISTINCT spcname::text FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace
             WHERE spcname <> 'pg_global' ORDER BY 1",
        )
        .await?,
        subscriptions: names(
            session,
            "SELECT subname::text FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
             WHERE d.datname = current_database() ORDER BY 1",
        )
        .await?,
        event_triggers: names(
            session,
            "SELECT evtname::text FROM pg_event_trigger e WHERE NOT EXISTS (SELECT FROM pg_depend d
             WHERE d.classid = 'pg_event_trigger'::regclass AND d.objid = e.oid AND d.deptype = 'e') ORDER BY 1",
        )
        .await?,
        pg_dump: Err(String::new()),
        pg_dump_major: 0,
        newer: Vec::new(),
        built_ins: Vec::new(),
    };
    session.batch_execute("COMMIT").await?;
    Ok(facts)
}

/// What the tables take at the source, indexes included, and the large objects.
async fn size(session: &Session, selected: &[Table]) -> Result<u64, Error> {
    let oids: Vec<u32> = selected.iter().map(|table| table.oid).collect();
    let row = session
        .query_one(
            &format!(
                "WITH {WAITED_FOR}
                 SELECT coalesce(sum(CASE WHEN w.relation IS NULL THEN pg_total_relation_size(r.oid)
                                          ELSE c.relpages * current_setting('block_size')::int8 END), 0)::int8
                 FROM (
                     SELECT unnest($1::oid[]) UNION
                     SELECT p.relid FROM unnest($1::oid[]) t (oid) CROSS JOIN LATERAL pg_partition_tree(t.oid) p) r (oid)
                 LEFT JOIN pg_class c ON c.oid = r.oid
                 LEFT JOIN waited_for w ON w.relation = r.oid"
            ),
            &[&oids],
        )
        .await?;
    Ok(row.get::<_, i64>(0) as u64)
}

async fn needed_roles(
    session: &Session,
    asked: &Asked<'_>,
) -> Result<Vec<(String, String)>, Error> {
    let found = access::read(session).await?;
    let excluded = built::excluded_relations(session, asked.filter).await?;
    let skipped: HashSet<Entry> = built::skipped_entries(session, asked.filter, &excluded)
        .await?
        .into_iter()
        .collect();
    roles::needed(session, found.iter(), &skipped, asked.whole).await
}

async fn names(session: &Session, query: &str) -> Result<Vec<String>, Error> {
    Ok(session
        .query(query, &[])
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect())
}

/// Tables that the role may not read, and tables whose rows row level security would filter for it.
async fn readable(
    session: &Session,
    selected: &[Table],
) -> Result<(Vec<String>, Vec<String>), Error> {
    let oids: Vec<u32> = selected.iter().map(|table| table.oid).collect();
    let rows = session
        .query(
            "SELECT c.oid::regclass::text, has_table_privilege(c.oid, 'SELECT')
                        AND has_schema_privilege(c.relnamespace, 'USAGE'),
                    row_security_active(c.oid)
             FROM pg_class c WHERE c.oid = ANY ($1) ORDER BY 1",
            &[&oids],
        )
        .await?;
    let with = |at: usize, value: bool| {
        rows.iter()
            .filter(|row| row.get::<_, bool>(at) == value)
            .map(|row| row.get(0))
            .collect()
    };
    Ok((with(1, false), with(2, true)))
}

async fn forced_rls(session: &Session, selected: &[Table]) -> Result<Vec<String>, Error> {
    let oids: Vec<u32> = selected.iter().map(|table| table.oid).collect();
    let rows = session
        .query(
            "SELECT oid::regclass::text FROM pg_class
             WHERE oid = ANY ($1) AND relrowsecurity AND relforcerowsecurity ORDER BY 1",
            &[&oids],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
