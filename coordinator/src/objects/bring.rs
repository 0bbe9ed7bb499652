//! Files on their way: those that the ledger does not have as the source has them now.
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use pgconvoy_proto::model::object::{FileDigest, Object, ObjectState};
use pgconvoy_proto::model::{Finding, Severity, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::copy_objects_event::Event;
use tokio_stream::StreamExt;
use tonic::Status;

use super::{AtSource, AtTarget, Carrier, batches, named, told};
use crate::ends::{retry, said};
use crate::live::End;
use crate::workers::each;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Brought {
    /// Rows of the source.
    pub files: u64,
    /// Files that the API took without writing their rows.
    untouched: u64,
    /// Of them gone since they were listed: where there is no snapshot.
    gone: u64,
    pub copied: u64,
    pub bytes: u64,
    pub findings: Vec<Finding>,
    /// What was to be copied, as findings call it.
    pub looked_at: HashSet<String>,
}

impl Carrier {
    pub async fn bring(&self) -> anyhow::Result<Brought> {
        let at_source = self.at_source().await?;
        let at_target = self.at_target(true).await?;
        let files = at_source.len() as u64;
        let todo = to_copy(at_source, &at_target);
        let looked_at = todo.iter().map(|(object, _)| object.to_string()).collect();
        let bytes = todo.iter().map(|(_, bytes)| bytes).sum();
        self.live.bytes_total.fetch_add(bytes, Relaxed);
        let gathered: Arc<Mutex<Brought>> = Arc::default();
        let work = {
            let (carrier, gathered) = (self.clone(), gathered.clone());
            move |batch| {
                let (carrier, gathered) = (carrier.clone(), gathered.clone());
                async move { carrier.copy(batch, gathered).await }
            }
        };
        each(batches(todo), self.streams, work).await?;
        let mut brought =
            std::mem::take(&mut *gathered.lock().unwrap_or_else(PoisonError::into_inner));
        brought.files = files - brought.gone;
        brought.looked_at = looked_at;
        brought.findings.sort_by(|a, b| a.object.cmp(&b.object));
        brought.findings = told(brought.findings);
        brought.findings.extend(not_written(brought.untouched));
        Ok(brought)
    }

    /// One call, again for those that are left when it breaks.
    async fn copy(
        &self,
        batch: Vec<(Object, u64)>,
        gathered: Arc<Mutex<Brought>>,
    ) -> anyhow::Result<()> {
        let what = named(&batch);
        let _source = self.live.start(End::Source, what.clone());
        let _target = self.live.start(End::Target, format!("upload {what}"));
        let left: VecDeque<Object> = batch.into_iter().map(|(object, _)| object).collect();
        let left = Arc::new(Mutex::new(left));
        retry(&self.reporter, &what, || {
            self.attempt(left.clone(), gathered.clone())
        })
        .await
        .map_err(said("source"))
    }

    async fn attempt(
        &self,
        left: Arc<Mutex<VecDeque<Object>>>,
        gathered: Arc<Mutex<Brought>>,
    ) -> Result<(), Status> {
        let asked: Vec<_> = {
            let left = left.lock().unwrap_or_else(PoisonError::into_inner);
            left.iter().cloned().map(Into::into).collect()
        };
        let request = wire::CopyObjectsRequest {
            migration: self.migration.clone(),
            snapshot: self.held.snapshot.clone(),
            target: self.ends.target_address.clone(),
            objects: asked,
            compression: self.compression,
            filter: self.rows.filter.clone(),
            columns: self.rows.columns.clone(),
        };
        let mut source = self.ends.source.clone();
        let mut events = source.copy_objects(request).await?.into_inner();
        let mut counted = self.live.count();
        while let Some(event) = events.next().await {
            match required(event?.event, "event")? {
                Event::Progress(progress) => counted.set(progress.into()),
                Event::Copied(copied) => {
                    left.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front();
                    let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
                    gathered.add(copied)?;
                }
            }
        }
        counted.keep();
        match left
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
        {
            true => Ok(()),
            false => Err(Status::unavailable("the stream ended before the last file")),
        }
    }
}

impl Brought {
    fn add(&mut self, copied: wire::ObjectCopied) -> Result<(), Status> {
        self.untouched += u64::from(copied.untouched);
        if let Some(file) = copied.file {
            self.copied += 1;
            self.bytes += FileDigest::try_from(file)?.bytes;
        }
        if copied.missing && copied.findings.is_empty() {
            self.gone += 1;
        }
        for finding in copied.findings {
            self.findings.push(finding.try_into()?);
        }
        Ok(())
    }
}

/// It is the API of that database: the target agent has seen to it before the first file.
fn not_written(untouched: u64) -> Option<Finding> {
    (untouched > 0).then(|| {
        Finding::new(
            Severity::Warning,
            "file-rows-not-written",
            "target's Storage API",
            format!("it took {untouched} files and did not write their rows, which a Storage API does: they have the source's versions"),
        )
        .hint("pgconvoy verify reads the files back: what it finds is there")
    })
}

/// Copied is what the ledger has of the source's row as it is now, with a row at the target that nobody has changed since, and not found to be
/// another file there. What was refused or missing is tried again.
pub fn to_copy(
    at_source: Vec<AtSource>,
    at_target: &HashMap<Object, AtTarget>,
) -> Vec<(Object, u64)> {
    let is_there = |file: &AtSource| {
        let Some(AtTarget {
            intact: true,
            entry: Some(entry),
            ..
        }) = at_target.get(&file.object)
        else {
            return false;
        };
        let not_another = entry.read.is_none_or(|read| read == entry.file);
        entry.state == ObjectState::Copied && entry.mark == file.mark && not_another
    };
    at_source
        .into_iter()
        .filter(|file| !is_there(file))
        .map(|file| (file.object, file.bytes))
        .collect()
}

#[cfg(test)]
mod tests {
    use pgconvoy_proto::model::object::{FileDigester, ObjectEntry};

    use super::*;

    fn is_copied_again(edit: impl FnOnce(&mut AtTarget, &mut ObjectEntry)) -> bool {
        let file = Some(FileDigester::default().finish());
        let mut entry = ObjectEntry {
            mark: "v1".into(),
            state: ObjectState::Copied,
            file,
            read: Some(file),
        };
        let mut at = AtTarget {
            present: true,
            intact: true,
            entry: None,
        };
        edit(&mut at, &mut entry);
        at.entry = Some(entry);
        let object = Object::new("b", "n");
        let source = AtSource {
            object: object.clone(),
            bytes: 7,
            mark: "v1".into(),
        };
        !to_copy(vec![source], &HashMap::from([(object, at)])).is_empty()
    }

    #[test]
    fn a_file_is_copied_again_when_anything_is_not_as_it_was() {
        assert!(!is_copied_again(|_, _| {}));
        assert!(!is_copied_again(|_, entry| entry.read = None));
        assert!(is_copied_again(|at, _| at.intact = false));
        assert!(is_copied_again(|_, entry| entry.mark = "v0".into()));
        assert!(is_copied_again(|_, entry| entry.read = Some(None)));
        assert!(is_copied_again(
            |_, entry| entry.state = ObjectState::Refused
        ));
    }
}
