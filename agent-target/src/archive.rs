//! The schema archive at the target: received once, kept under `--data-dir` with mode 0600, read through its table of
//! contents. Beside it, until they are used, the secrets of roles and of the database.
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgconvoy_agent_core::child;
use pgconvoy_agent_core::tools::{Tool, Tools};
use pgconvoy_proto::model::Entry;
use pgconvoy_proto::secrets::Secrets;
use pgconvoy_proto::wire;
use tokio::io::AsyncWriteExt;
use tokio::sync::OnceCell;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;
use xxhash_rust::xxh3::Xxh3;

use crate::restore::prepared::Statements;

/// A bound for memory, bytes: some 200 for each of 300,000 roles.
const MOST_SECRETS: usize = 64 << 20;

/// The archives' folder, one folder per migration.
#[derive(Clone)]
pub struct Store {
    data_dir: PathBuf,
    pg_bin: Option<PathBuf>,
    /// By migration: finding pg_restore and reading a table of contents costs several processes, and every step needs both.
    opened: Arc<Mutex<HashMap<String, Arc<Opened>>>>,
}

/// An archive that is there, with the pg_restore for it.
pub struct Opened {
    pub tool: Tool,
    pub path: PathBuf,
    pub contents: Contents,
    /// Of all planned indexes, written when the first of them is built.
    pub indexes: OnceCell<Statements>,
}

impl Store {
    pub fn new(data_dir: PathBuf, pg_bin: Option<PathBuf>) -> Self {
        Self {
            data_dir,
            pg_bin,
            opened: Arc::default(),
        }
    }

    /// The migration's archive, without the entries that its selection leaves out. None: it is not there.
    pub async fn open(
        &self,
        migration: &str,
        skipped: &[Entry],
        server_major: u32,
    ) -> Result<Option<Arc<Opened>>, Status> {
        if let Some(opened) = self.lock().get(migration) {
            return Ok(Some(opened.clone()));
        }
        let path = self.archive(migration)?;
        if !path.exists() {
            return Ok(None);
        }
        let tool = restore_tool(self.pg_bin.as_deref(), &path, server_major).await?;
        let contents = Contents::read(&tool, &path, &skipped.iter().copied().collect()).await?;
        let opened = Arc::new(Opened {
            tool,
            path,
            contents,
            indexes: OnceCell::new(),
        });
        self.lock().insert(migration.to_owned(), opened.clone());
        Ok(Some(opened))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Opened>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn folder(&self, migration: &str) -> Result<PathBuf, Status> {
        // An id comes over the wire: it must not name another folder.
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if migration.is_empty() || !migration.chars().all(plain) {
            return Err(Status::invalid_argument(format!(
                "{migration:?} is no migration's id"
            )));
        }
        // A name of our own: what else lies in the data folder is not taken for ours, nor removed as ours.
        Ok(self.data_dir.join(format!("{migration}.archive")))
    }

    fn archive(&self, migration: &str) -> Result<PathBuf, Status> {
        Ok(self.folder(migration)?.join("schema.dump"))
    }

    fn secrets_file(&self, migration: &str) -> Result<PathBuf, Status> {
        Ok(self.folder(migration)?.join("secrets.json"))
    }

    /// Whether the migration's archive is there, and with it what came with it.
    pub fn has_archive(&self, migration: &str) -> Result<bool, Status> {
        Ok(self.archive(migration)?.exists())
    }

    /// FAILED_PRECONDITION: the archive was received, and its folder is lost.
    pub fn lost(&self) -> Status {
        Status::failed_precondition(format!(
            "the schema archive is not in {}: was --data-dir changed? pgconvoy resume has it sent again",
            self.data_dir.display()
        ))
    }

    /// The secrets that came with the archive; none once they were forgotten.
    pub fn secrets(&self, migration: &str) -> Result<Secrets, Status> {
        if !self.has_archive(migration)? {
            return Err(self.lost());
        }
        let path = self.secrets_file(migration)?;
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Secrets::decode(&bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Secrets::default()),
            Err(error) => Err(cannot("read", &path, &error)),
        }
    }

    /// Once all of it is at the target nobody needs them any more.
    pub fn forget_secrets(&self, migration: &str) -> Result<(), Status> {
        let path = self.secrets_file(migration)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(cannot("remove", &path, &error))
            }
            _ => Ok(()),
        }
    }

    /// Before the archive takes its name: who finds an archive finds its secrets.
    fn keep_secrets(&self, migration: &str, secrets: &[u8]) -> Result<(), Status> {
        Secrets::decode(secrets)?;
        let path = self.secrets_file(migration)?;
        let folder = self.folder(migration)?;
        let failed = |error: std::io::Error| cannot("write in", &folder, &error);
        let mut file = tempfile::NamedTempFile::new_in(&folder).map_err(failed)?;
        file.write_all(secrets).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&path).map_err(|e| failed(e.error))?;
        Ok(())
    }

    /// Receives an archive: into a temporary file, which takes its name when the digest agrees.
    pub async fn receive(
        &self,
        mut frames: impl Stream<Item = Result<wire::ArchiveFrame, Status>> + Unpin,
    ) -> Result<(String, u64), Status> {
        let mut next = frames.next().await.transpose()?;
        let migration = next
            .as_ref()
            .map(|f| f.migration.clone())
            .unwrap_or_default();
        let folder = self.folder(&migration)?;
        private_folder(&folder).map_err(|e| cannot("create", &folder, &e))?;
        let file = tempfile::NamedTempFile::new_in(&folder)
            .map_err(|e| cannot("write in", &folder, &e))?;
        let mut out =
            tokio::fs::File::from_std(file.reopen().map_err(|e| cannot("write in", &folder, &e))?);
        let (mut hash, mut bytes, mut secrets) = (Xxh3::new(), 0, Vec::new());
        while let Some(frame) = next {
            hash.update(&frame.secrets);
            hash.update(&frame.data);
            secrets.extend_from_slice(&frame.secrets);
            if secrets.len() > MOST_SECRETS {
                return Err(Status::invalid_argument(
                    "more secrets than a server can have",
                ));
            }
            bytes += frame.data.len() as u64;
            out.write_all(&frame.data)
                .await
                .map_err(|e| cannot("write in", &folder, &e))?;
            if !frame.digest.is_empty() {
                if frame.digest[..] != hash.digest128().to_be_bytes()[..] {
                    return Err(Status::data_loss("the archive was damaged on the way"));
                }
                out.sync_all()
                    .await
                    .map_err(|e| cannot("write in", &folder, &e))?;
                self.keep_secrets(&migration, &secrets)?;
                let path = self.archive(&migration)?;
                file.persist(&path)
                    .map_err(|e| cannot("write", &path, &e.error))?;
                self.lock().remove(&migration);
                return Ok((migration, bytes));
            }
            next = frames.next().await.transpose()?;
        }
        Err(Status::data_loss(
            "the archive's stream ended before its end",
        ))
    }

    pub fn remove(&self, migration: &str) -> Result<bool, Status> {
        let folder = self.folder(migration)?;
        self.lock().remove(migration);
        match std::fs::remove_dir_all(&folder) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(cannot("remove", &folder, &error)),
        }
    }
}

fn private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Status {
    Status::resource_exhausted(format!(
        "cannot {what} {}: {error} (see --data-dir of the target agent)",
        path.display()
    ))
}

/// One line of an archive's table of contents, as `pg_restore --list` prints it and `--use-list` reads it.
///
/// Only the numbers and the leading words are taken from it: names with spaces make the rest ambiguous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub dump_id: u32,
    /// At the source. Entries without an object of their own (comments, row level security) have class 0.
    pub entry: Entry,
    /// "TABLE", "FK CONSTRAINT", and whatever follows, names included.
    pub rest: String,
    /// Verbatim.
    pub text: String,
}

impl Line {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (dump_id, rest) = text.split_once("; ")?;
        let (class, rest) = rest.split_once(' ')?;
        let (oid, rest) = rest.split_once(' ')?;
        Some(Self {
            dump_id: dump_id.parse().ok()?,
            entry: Entry {
                class: class.parse().ok()?,
                oid: oid.parse().ok()?,
            },
            rest: rest.to_owned(),
            text: text.to_owned(),
        })
    }

    /// Whether the entry is of this kind: its description starts with these words.
    pub fn is(&self, kind: &str) -> bool {
        self.rest
            .strip_prefix(kind)
            .is_some_and(|rest| rest.starts_with(' '))
    }

    pub fn is_any(&self, kinds: &[&str]) -> bool {
        kinds.iter().any(|kind| self.is(kind))
    }
}

/// An archive's table of contents, in its own order.
pub struct Contents {
    pub pre_data: Vec<Line>,
    pub post_data: Vec<Line>,
}

impl Contents {
    /// Reads it, without the entries that are not ours to make and those that the selection leaves out.
    async fn read(
        restore: &Tool,
        archive: &Path,
        skipped: &HashSet<Entry>,
    ) -> Result<Self, Status> {
        let list = |more: Vec<String>| async move {
            let mut command = child::command(&restore.path);
            command.arg("--list").args(more).arg(archive);
            let mut listed = Vec::new();
            child::run(command, &mut listed)
                .await
                .map_err(|e| Status::internal(e.to_string()))?;
            Ok::<_, Status>(listing(&String::from_utf8_lossy(&listed)))
        };
        // Verbose: all sections, and what each entry depends on.
        let following = match skipped.is_empty() {
            true => HashSet::new(),
            false => following(&list(vec!["--verbose".into()]).await?, skipped),
        };
        let ours = |line: &Line| {
            // Grants are applied one by one from the catalog; DEFAULT ACL stays.
            let never = line.is_any(&["ACL", "DATABASE", "DATABASE PROPERTIES"]);
            !skipped.contains(&line.entry) && !following.contains(&line.dump_id) && !never
        };
        let section = |name: &'static str| async move {
            let listed = list(vec![format!("--section={name}")]).await?;
            let lines = listed.into_iter().map(|(line, _)| line);
            Ok::<_, Status>(lines.filter(ours).collect::<Vec<Line>>())
        };
        Ok(Self {
            pre_data: section("pre-data").await?,
            post_data: section("post-data").await?,
        })
    }
}

/// Entries without an object of their own: they go with what they depend on.
const FOLLOWING: &[&str] = &[
    "COMMENT",
    "SECURITY LABEL",
    "TABLE ATTACH",
    "INDEX ATTACH",
    "SEQUENCE OWNED BY",
];

/// Those that go with a skipped one, by dump id.
fn following(listed: &[Listed], skipped: &HashSet<Entry>) -> HashSet<u32> {
    let left_out: HashSet<u32> = listed
        .iter()
        .filter(|(line, _)| skipped.contains(&line.entry))
        .map(|(line, _)| line.dump_id)
        .collect();
    let follows = |(line, needs): &&Listed| {
        line.is_any(FOLLOWING) && needs.iter().any(|id| left_out.contains(id))
    };
    let following = listed.iter().filter(follows);
    following.map(|(line, _)| line.dump_id).collect()
}

/// An entry, and the dump ids of those that it depends on, where the list is verbose.
type Listed = (Line, Vec<u32>);

/// In a verbose list a comment below an entry says what it depends on.
fn listing(text: &str) -> Vec<Listed> {
    let mut listed: Vec<Listed> = Vec::new();
    for line in text.lines() {
        if let Some(needs) = line.strip_prefix(";\tdepends on: ") {
            if let Some((_, of_last)) = listed.last_mut() {
                of_last.extend(needs.split(' ').filter_map(|id| id.parse::<u32>().ok()));
            }
        } else if !line.starts_with(';') {
            listed.extend(Line::parse(line).map(|line| (line, Vec::new())));
        }
    }
    listed
}

/// The pg_restore for an archive: at least the pg_dump that made it, the target server's major if there is one.
async fn restore_tool(
    pg_bin: Option<&Path>,
    archive: &Path,
    server_major: u32,
) -> Result<Tool, Status> {
    let tools = Tools::find(pg_bin).await;
    let failed = |e: pgconvoy_agent_core::tools::Error| Status::internal(e.to_string());
    // Any pg_restore reads the header, unless the archive's format is newer than it knows; the newest knows most.
    let newest = tools.newest_restore().map_err(failed)?;
    let mut command = child::command(&newest.path);
    command.arg("--list").arg(archive);
    let mut listed = Vec::new();
    child::run(command, &mut listed)
        .await
        .map_err(|e| Status::internal(e.to_string()))?;
    let text = String::from_utf8_lossy(&listed);
    let made_by = text
        .lines()
        .find_map(|line| line.split_once("Dumped by pg_dump version: "))
        .and_then(|(_, version)| version.split(['.', ' ']).next()?.parse().ok())
        .ok_or_else(|| Status::internal("the archive does not say which pg_dump made it"))?;
    tools
        .pick_restore(made_by, server_major)
        .cloned()
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_are_read_by_their_numbers_and_first_words() {
        let line =
            Line::parse("3382; 2606 16412 FK CONSTRAINT my schema a b_fkey some owner").unwrap();
        assert_eq!(line.dump_id, 3382);
        assert_eq!(
            line.entry,
            Entry {
                class: 2606,
                oid: 16412
            }
        );
        assert!(line.is("FK CONSTRAINT") && !line.is("CONSTRAINT") && !line.is("FK CONSTRAINTS"));
        assert!(Line::parse("; a comment of the list").is_none());
    }

    #[test]
    fn what_an_entry_depends_on_stands_below_it() {
        let text = "; Archive\n10; 1259 16412 TABLE s a o\n;\tdepends on: 6 7\n11; 0 0 COMMENT s TABLE a o\n;\tdepends on: 10\n";
        let listed = listing(text);
        let needs: Vec<_> = listed.iter().map(|(l, n)| (l.dump_id, n.clone())).collect();
        assert_eq!(needs, [(10, vec![6, 7]), (11, vec![10])]);
    }

    #[test]
    fn an_id_cannot_leave_the_data_dir() {
        let store = Store::new("/data".into(), None);
        assert!(store.folder("../etc").is_err() && store.folder("").is_err());
        assert_eq!(
            store.folder("0198-a").unwrap(),
            Path::new("/data/0198-a.archive")
        );
    }
}
