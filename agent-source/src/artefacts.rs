//! What the source has of row level security and of storage, as SQL that a person can read and run. Values of columns that may hold a
//! secret are left out.
use std::fmt::Write;

use bytes::Bytes;
use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::session::{LOOK, Session, qualified, quote_ident};
use pgconvoy_agent_core::status;
use pgconvoy_proto::model::Selection;
use pgconvoy_proto::selection::Filter;
use pgconvoy_proto::wire;
use tokio::sync::mpsc;
use tokio_postgres::Error;
use tonic::Status;

const FRAME_BYTES: usize = 256 << 10;

/// Every table with its flags, in order of name.
const FLAGS: &str = "
    SELECT n.nspname::text, c.relname::text, format(
        E'ALTER TABLE %1$I.%2$I %3$s ROW LEVEL SECURITY;\\nALTER TABLE %1$I.%2$I %4$s ROW LEVEL SECURITY;',
        n.nspname, c.relname, CASE WHEN c.relrowsecurity THEN 'ENABLE' ELSE 'DISABLE' END,
        CASE WHEN c.relforcerowsecurity THEN 'FORCE' ELSE 'NO FORCE' END)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgconvoy') AND n.nspname !~ '^pg_(toast|temp)'
    ORDER BY 1, 2";

const POLICIES: &str = "
    SELECT n.nspname::text, c.relname::text, format('CREATE POLICY %I ON %I.%I AS %s FOR %s TO %s%s%s;',
        p.polname, n.nspname, c.relname, CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
        CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
        (SELECT string_agg(CASE o WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(o)) END, ', ' ORDER BY pg_get_userbyid(o))
         FROM unnest(p.polroles) o),
        E'\\n  USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
        E'\\n  WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')')
        || coalesce(format(E'\\nCOMMENT ON POLICY %I ON %I.%I IS ', p.polname, n.nspname, c.relname)
                    || quote_literal(obj_description(p.oid, 'pg_policy')) || ';', '')
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgconvoy')
    ORDER BY 1, 2, p.polname";

/// Whether the role may read storage.buckets, all of it; no row: it is not there. By its OID: its name cannot be looked up without USAGE.
const BUCKETS: &str = "
    SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'storage' AND c.relname = 'buckets' AND c.relkind IN ('r', 'p')";

/// Columns of storage.buckets that can be written and whose names do not speak of secrets.
const BUCKET_COLUMNS: &str = "
    SELECT a.attname::text FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'storage' AND c.relname = 'buckets' AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
      AND a.attidentity <> 'a' AND a.attname !~* '(passw|secret|token|credential|auth|_key$)'
    ORDER BY a.attnum";

const STORAGE: &str = "storage";

pub async fn send(
    database: Database,
    selection: Selection,
    out: mpsc::Sender<Result<wire::Artefact, Status>>,
) -> Result<(), Status> {
    let filter = Filter::new(&selection).map_err(|e| Status::invalid_argument(e.to_string()))?;
    let session = database.connect("pgconvoy artefacts").await?;
    let failed = |error| status::postgres("reading policies and storage", &error);
    // It goes into a comment: the name of a database may have more than one line.
    let place = database.describe().replace(['\n', '\r'], " ");
    let files = files(&session, &filter, &place).await.map_err(failed)?;
    for (name, text) in files {
        for data in text.as_bytes().chunks(FRAME_BYTES) {
            let artefact = wire::Artefact {
                name: name.into(),
                data: Bytes::copy_from_slice(data),
            };
            if out.send(Ok(artefact)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn files(
    session: &Session,
    filter: &Filter,
    place: &str,
) -> Result<[(&'static str, String); 2], Error> {
    session.batch_execute(LOOK).await?;
    let now: String = session.query_one("SELECT now()::text", &[]).await?.get(0);
    let head = |what: &str| format!("-- {what}\n-- of {place}\n-- at {now}\n\n");
    let flags = statements(session, FLAGS).await?;
    let policies = statements(session, POLICIES).await?;
    let mut rls = head("Row level security: every table's flags, then every policy");
    let admitted = |(schema, table, _): &&Statement| filter.admits(schema, table);
    for (.., sql) in flags
        .iter()
        .filter(admitted)
        .chain(policies.iter().filter(admitted))
    {
        rls += sql;
        rls.push('\n');
    }
    let mut storage = head("Storage: buckets, and the policies on the schema storage");
    if has_storage(session).await? {
        storage += &buckets(session).await?;
        let of_storage = |(schema, ..): &&Statement| schema == STORAGE;
        for (.., sql) in flags
            .iter()
            .filter(of_storage)
            .chain(policies.iter().filter(of_storage))
        {
            storage += sql;
            storage.push('\n');
        }
    } else {
        storage += "-- there is no schema \"storage\" in this database\n";
    }
    session.batch_execute("COMMIT").await?;
    Ok([("rls_policies.sql", rls), ("storage_config.sql", storage)])
}

/// Schema and table, and SQL about it.
type Statement = (String, String, String);

async fn statements(session: &Session, query: &str) -> Result<Vec<Statement>, Error> {
    let rows = session.query(query, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect())
}

async fn has_storage(session: &Session) -> Result<bool, Error> {
    let ask = "SELECT FROM pg_namespace WHERE nspname = 'storage'";
    Ok(session.query_opt(ask, &[]).await?.is_some())
}

/// The rows of storage.buckets as statements, or why there are none.
async fn buckets(session: &Session) -> Result<String, Error> {
    match session.query_opt(BUCKETS, &[]).await? {
        None => return Ok("-- there is no table storage.buckets in this database\n".into()),
        Some(row) if row.get(0) => {}
        Some(_) => return Ok("-- the agent's role may not read storage.buckets\n".into()),
    }
    let columns: Vec<String> = session
        .query(BUCKET_COLUMNS, &[])
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    let names: Vec<String> = columns.iter().map(|name| quote_ident(name)).collect();
    let values: Vec<String> = names
        .iter()
        .map(|name| format!("quote_nullable({name}::text)"))
        .collect();
    let table = qualified(STORAGE, "buckets");
    let query = format!(
        "SELECT concat_ws(', ', {}) FROM {table} ORDER BY 1",
        values.join(", ")
    );
    let mut text = String::new();
    for row in session.query(&query, &[]).await? {
        let values: &str = row.get(0);
        // A String takes everything.
        let _ = writeln!(
            text,
            "INSERT INTO {table} ({}) VALUES ({values}) ON CONFLICT DO NOTHING;",
            names.join(", ")
        );
    }
    Ok(text)
}
