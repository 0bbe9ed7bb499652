//! Backups of the target database, kept under `--data-dir` with mode 0600 until somebody removes them: one folder for each, with pg_dump's
//! archive and a manifest that says what was there.
//!
//! Invariant 7 (nothing destroyed unasked): a backup has its name only when it is whole, on the disk, and was read back to its end. Whoever
//! wants to restore it [`open`](Vault::open)s it first, which reads it again and compares it with its digest.
mod make;
mod restore;
mod unfinished;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use pgconvoy_agent_core::child;
use pgconvoy_agent_core::tools::{Tool, Tools};
use pgconvoy_proto::model::{Digest, Table};
use serde::{Deserialize, Serialize};
use tonic::Status;
use xxhash_rust::xxh3::Xxh3;

use crate::before::Before;

pub use restore::{restore, rows_differ};

/// No migration's id has a dot: see [`crate::archive::Store::folder`].
const FOLDER: &str = "target.backups";
const ARCHIVE: &str = "database.dump";
const MANIFEST: &str = "manifest.json";
const BLOCK: usize = 1 << 20;

/// From this major on pg_restore begins with `SET transaction_timeout`, which servers of older majors refuse.
const SETS_NEW_SETTINGS: u32 = 17;

#[derive(Clone)]
pub struct Vault {
    folder: PathBuf,
    pg_bin: Option<PathBuf>,
}

/// What a backup is of. Written after its archive: without it there is no backup.
#[derive(Serialize, Deserialize)]
pub struct Manifest {
    pub id: String,
    pub database: String,
    /// server_version_num
    pub server_version: u32,
    pub bytes: u64,
    /// XXH3-128 of the archive, hexadecimal.
    pub digest: String,
    pub before: Before,
    /// Every table, and what was in it when the archive was made: both are of one snapshot.
    pub rows: Vec<(Table, Digest)>,
}

/// One that was checked.
pub struct Backup {
    pub manifest: Manifest,
    pub archive: PathBuf,
    tool: Tool,
}

impl Vault {
    pub fn new(data_dir: &Path, pg_bin: Option<PathBuf>) -> Self {
        Self {
            folder: data_dir.join(FOLDER),
            pg_bin,
        }
    }

    fn folder(&self, id: &str) -> Result<PathBuf, Status> {
        // An id comes over the wire: it must not name another folder.
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if id.is_empty() || !id.chars().all(plain) {
            return Err(Status::invalid_argument(format!(
                "{id:?} is no backup's id"
            )));
        }
        Ok(self.folder.join(id))
    }

    /// Reads the backup to its end and compares it with its manifest. FAILED_PRECONDITION: there is none, or it is damaged.
    pub async fn open(&self, id: &str, server_version: u32) -> Result<Backup, Status> {
        let folder = self.folder(id)?;
        let path = folder.join(MANIFEST);
        let text = std::fs::read(&path).map_err(|error| {
            Status::failed_precondition(format!(
                "there is no backup {id} ({}: {error})",
                path.display()
            ))
        })?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|error| damaged(&path, &format!("not a manifest: {error}")))?;
        let archive = folder.join(ARCHIVE);
        let (bytes, digest) = digest_of(archive.clone()).await?;
        if (bytes, &digest) != (manifest.bytes, &manifest.digest) {
            let why = format!(
                "{bytes} bytes with digest {digest}, the manifest has {} bytes with digest {}",
                manifest.bytes, manifest.digest
            );
            return Err(damaged(&archive, &why));
        }
        let tools = Tools::find(self.pg_bin.as_deref()).await;
        let tool = restore_tool(
            &tools,
            manifest.server_version / 10_000,
            server_version / 10_000,
        )?;
        read_back(&tool, &archive).await?;
        Ok(Backup {
            manifest,
            archive,
            tool,
        })
    }
}

fn damaged(path: &Path, why: &str) -> Status {
    Status::failed_precondition(format!(
        "the backup is damaged: {}: {why}. Nothing was changed",
        path.display()
    ))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Status {
    Status::resource_exhausted(format!(
        "the backup was not made: cannot {what} {}: {error}; nothing was changed (see --data-dir of the target agent)",
        path.display()
    ))
}

async fn digest_of(path: PathBuf) -> Result<(u64, String), Status> {
    let read = move || {
        let mut file = std::fs::File::open(&path)?;
        let (mut hash, mut bytes, mut block) = (Xxh3::new(), 0, vec![0; BLOCK]);
        loop {
            match file.read(&mut block)? {
                0 => return Ok((bytes, format!("{:032x}", hash.digest128()))),
                read => {
                    hash.update(&block[..read]);
                    bytes += read as u64;
                }
            }
        }
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| Status::internal(error.to_string()))?
        .map_err(|error: std::io::Error| {
            Status::failed_precondition(format!("the backup cannot be read: {error}"))
        })
}

/// Reads the archive: its table of contents, and then all of it, as SQL that goes nowhere.
async fn read_back(tool: &Tool, archive: &Path) -> Result<(), Status> {
    for arguments in [
        ["--list", "--file=/dev/null"],
        ["--exit-on-error", "--file=/dev/null"],
    ] {
        let mut command = child::command(&tool.path);
        command.args(arguments).arg(archive);
        child::run(command, &mut tokio::io::sink())
            .await
            .map_err(|error| damaged(archive, &error.to_string()))?;
    }
    Ok(())
}

/// The pg_restore for a backup: it reads the archive, and says nothing that the server does not know.
fn restore_tool(tools: &Tools, dump_major: u32, server_major: u32) -> Result<Tool, Status> {
    let tool = tools
        .pick_restore(dump_major, server_major)
        .map_err(|error| Status::failed_precondition(error.to_string()))?;
    if tool.version.0 >= SETS_NEW_SETTINGS && server_major < SETS_NEW_SETTINGS {
        return Err(Status::failed_precondition(format!(
            "a backup of a server of version {server_major} needs pg_dump and pg_restore of {server_major} to {}: install \
             postgresql-client-{server_major} beside the target agent, which finds every version that is installed (with --pg-bin DIR only what \
             is in that folder). Nothing was changed",
            SETS_NEW_SETTINGS - 1
        )));
    }
    Ok(tool.clone())
}

/// Written beside its name, on the disk, and then named.
fn write_manifest(folder: &Path, manifest: &Manifest) -> Result<(), Status> {
    let path = folder.join(MANIFEST);
    let failed = |error: std::io::Error| cannot("write", &path, &error);
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    let text = pgconvoy_proto::model::to_json(manifest);
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    let folder = std::fs::File::open(folder).map_err(failed)?;
    folder.sync_all().map_err(failed)
}
