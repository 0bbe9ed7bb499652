//! What a backup that was cut off leaves: nothing. The folder of one that is being made goes with the call, whichever way that ends, unless
//! the manifest is there; what an agent that was killed has left goes when the next one starts.
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tonic::Status;

use super::{ARCHIVE, MANIFEST, Vault, cannot};

/// The folder of a backup that is being made.
pub struct Unfinished {
    folder: PathBuf,
    /// Held while it is made: another agent with the same --data-dir keeps away.
    _lock: File,
}

impl Unfinished {
    pub fn create(folder: &Path) -> Result<Self, Status> {
        let create = || {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
            locked(folder)
        };
        let lock = create().map_err(|error| cannot("create", folder, &error))?;
        Ok(Self {
            folder: folder.to_owned(),
            _lock: lock,
        })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.folder) {
            tracing::warn!(%error, folder = %self.folder.display(), "what is left of a backup cannot be removed");
        }
    }
}

impl Vault {
    /// Removes what an agent has left that was killed while it made a backup.
    pub fn remove_unfinished(&self) {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::warn!(%error, folder = %self.folder.display(), "the backups cannot be listed");
                return;
            }
        };
        for folder in entries.flatten().map(|entry| entry.path()) {
            if !folder.is_dir() || folder.join(MANIFEST).exists() {
                continue;
            }
            match locked(&folder).and_then(|_lock| remove(&folder)) {
                Ok(()) => {
                    tracing::info!(folder = %folder.display(), "removed: a backup that was cut off")
                }
                Err(error) => {
                    tracing::warn!(%error, folder = %folder.display(), "a backup without a manifest stays")
                }
            }
        }
    }
}

/// An error when somebody else holds it. Gone when the file is closed, or its process has died.
fn locked(folder: &Path) -> io::Result<File> {
    let opened = File::open(folder)?;
    flock(&opened, FlockOperation::NonBlockingLockExclusive)?;
    Ok(opened)
}

/// Nothing of a backup that has a manifest, nor what is not of one.
fn remove(folder: &Path) -> io::Result<()> {
    if folder.join(MANIFEST).exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        // Temporary files are called so by crate `tempfile`.
        if name == ARCHIVE || name.as_encoded_bytes().starts_with(b".tmp") {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_cut_off_is_removed_and_nothing_else() {
        let data = tempfile::tempdir().unwrap();
        let vault = Vault::new(data.path(), None);
        let made = |id: &str, files: &[&str]| {
            let folder = vault.folder(id).unwrap();
            fs::create_dir_all(&folder).unwrap();
            for file in files {
                fs::write(folder.join(file), "x").unwrap();
            }
            folder
        };
        let whole = made("whole", &[ARCHIVE, MANIFEST]);
        let dumping = made("dumping", &[".tmpAbc123"]);
        let unread = made("unread", &[ARCHIVE]);
        let others = made("others", &["notes.txt"]);
        let another = Unfinished::create(&vault.folder("another").unwrap()).unwrap();
        vault.remove_unfinished();
        assert!(whole.join(ARCHIVE).exists() && others.join("notes.txt").exists());
        assert!(!dumping.exists() && !unread.exists());
        assert!(another.folder.exists(), "somebody makes it");
        let folder = another.folder.clone();
        drop(another);
        assert!(!folder.exists());
        drop(Unfinished {
            _lock: File::open(&whole).unwrap(),
            folder: whole.clone(),
        });
        assert!(whole.exists(), "it has its manifest");
    }
}
