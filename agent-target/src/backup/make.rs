//! Makes a backup: inventory, digests of rows and pg_dump's archive are of one snapshot.
use std::path::Path;
use std::sync::Arc;

use pgconvoy_agent_core::child::{self, Running};
use pgconvoy_agent_core::database::Database;
use pgconvoy_agent_core::progress::Counters;
use pgconvoy_agent_core::session::Session;
use pgconvoy_agent_core::snapshot::Snapshot;
use pgconvoy_agent_core::tools::{Tool, Tools};
use pgconvoy_agent_core::{scan, status};
use pgconvoy_proto::model::{Digest, Table};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Status;
use xxhash_rust::xxh3::Xxh3;

use super::unfinished::Unfinished;
use super::{
    ARCHIVE, BLOCK, MANIFEST, Manifest, Vault, cannot, read_back, restore_tool, write_manifest,
};
use crate::before::{Before, every_table};
use crate::rights;

/// How the backup's sessions are called in pg_stat_activity.
const APPLICATION: &str = "pgconvoy backup";
const JOBS: usize = 2;
/// Somebody who waits for an exclusive lock must not make pg_dump wait for ever.
const LOCK_WAIT: &str = "20s";

impl Vault {
    /// Backs the whole database up, but for the ledger. Nothing in the database is changed; what fails leaves no backup.
    pub async fn make(&self, database: &Database, id: &str) -> Result<(Manifest, String), Status> {
        let folder = self.folder(id)?;
        if folder.join(MANIFEST).exists() {
            return Err(Status::already_exists(format!("there is a backup {id}")));
        }
        let _unfinished = Unfinished::create(&folder)?;
        let manifest = self.make_in(database, id, &folder).await?;
        Ok((manifest, folder.display().to_string()))
    }

    async fn make_in(
        &self,
        database: &Database,
        id: &str,
        folder: &Path,
    ) -> Result<Manifest, Status> {
        rights::refuse_unreadable(&database.connect(APPLICATION).await?).await?;
        let snapshot = Snapshot::open(database, APPLICATION, &every_table()).await?;
        let (before, server_version) = {
            let holder = snapshot.holder().await?;
            let before = Before::under(&holder).await;
            let before = before
                .map_err(|error| status::postgres("reading the target's catalogs", &error))?;
            (before, holder.server_version())
        };
        let server = server_version / 10_000;
        let tools = Tools::find(self.pg_bin.as_deref()).await;
        let dump = tools
            .pick_dump(server)
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        let restore = restore_tool(&tools, dump.version.0, server)?;
        {
            let holder = snapshot.holder().await?;
            refuse_unlogged_identities(&holder, dump, server).await?;
        }
        let mut rows: Vec<(Table, Digest)> = Vec::with_capacity(snapshot.tables.len());
        for table in &snapshot.tables {
            let counters = Arc::new(Counters::default());
            let digest = scan::digest(&snapshot, table, 0, JOBS, &counters).await?;
            rows.push((table.clone(), digest.digest));
        }
        let (bytes, digest) = dump_to(database, dump, &snapshot, folder).await?;
        read_back(&restore, &folder.join(ARCHIVE)).await?;
        let manifest = Manifest {
            id: id.to_owned(),
            database: database.name().to_owned(),
            server_version,
            bytes,
            digest,
            before,
            rows,
        };
        write_manifest(folder, &manifest)?;
        Ok(manifest)
    }
}

/// From this major on sequences are logged or not, and pg_dump says which of an identity column's.
const SAYS_LOGGED: u32 = 15;

/// FAILED_PRECONDITION: the archive would hold a statement that the server it is to be restored into does not know.
async fn refuse_unlogged_identities(
    session: &Session,
    dump: &Tool,
    server: u32,
) -> Result<(), Status> {
    if server >= SAYS_LOGGED || dump.version.0 < SAYS_LOGGED {
        return Ok(());
    }
    let tables = session
        .query(
            "SELECT attrelid::regclass::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
             WHERE a.attidentity <> '' AND c.relpersistence = 'u' ORDER BY 1",
            &[],
        )
        .await
        .map_err(|error| status::postgres("looking at identity columns", &error))?;
    let Some(first) = tables.first() else {
        return Ok(());
    };
    Err(Status::failed_precondition(format!(
        "the unlogged table {} has an identity column: what pg_dump {} writes of it a server of version {server} does not take ({} such \
         tables). Nothing was changed: install postgresql-client-{server} beside the target agent",
        first.get::<_, &str>(0),
        dump.version.0,
        tables.len()
    )))
}

/// Length and digest of what pg_dump wrote.
async fn dump_to(
    database: &Database,
    tool: &Tool,
    snapshot: &Snapshot,
    folder: &Path,
) -> Result<(u64, String), Status> {
    let failed = |error: std::io::Error| cannot("write in", folder, &error);
    let file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    let mut out = tokio::fs::File::from_std(file.reopen().map_err(failed)?);
    let libpq = database.libpq(APPLICATION).await?;
    let mut command = child::command(&tool.path);
    libpq.apply(&mut command);
    command
        .args(["--format=custom", "--encoding=UTF8", "--no-password"])
        .arg("--exclude-schema=pgconvoy")
        .arg(format!("--lock-wait-timeout={LOCK_WAIT}"))
        .arg(format!("--snapshot={}", snapshot.exported))
        .args(["--dbname", &libpq.conninfo]);
    let refused = |error: child::Error| {
        Status::failed_precondition(format!(
            "the backup was not made, nothing was changed: {error}"
        ))
    };
    let mut running = Running::start(command).await.map_err(refused)?;
    let (mut hash, mut bytes, mut block) = (Xxh3::new(), 0, vec![0; BLOCK]);
    loop {
        let read = running.stdout().read(&mut block).await;
        let read = read.map_err(|e| Status::internal(format!("reading pg_dump's output: {e}")))?;
        if read == 0 {
            break;
        }
        hash.update(&block[..read]);
        bytes += read as u64;
        out.write_all(&block[..read]).await.map_err(failed)?;
    }
    out.flush().await.map_err(failed)?;
    let warnings = running.finish().await.map_err(refused)?;
    if !warnings.trim().is_empty() {
        tracing::warn!(%warnings, "pg_dump");
    }
    out.sync_all().await.map_err(failed)?;
    file.persist(folder.join(ARCHIVE))
        .map_err(|error| failed(error.error))?;
    Ok((bytes, format!("{:032x}", hash.digest128())))
}
