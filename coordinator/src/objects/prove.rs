//! What is proven of files: each end reads its own, through its own Storage API (invariant 3).
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pgconvoy_proto::model::object::{FileDigest, Object, ObjectState};
use pgconvoy_proto::model::{Finding, Progress, Severity, required};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::read_objects_event::Event;
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use super::{AtTarget, Carrier, batches, named, told};
use crate::ends::{retry, said};
use crate::live::End;
use crate::workers::each;

/// What a file is, as read; None: there is none.
type Read = HashMap<Object, Option<FileDigest>>;

impl Carrier {
    /// Has the target read what it has not read yet, and compares with what the source agent read when it sent it.
    pub async fn prove_copied(&self) -> anyhow::Result<Vec<Finding>> {
        let copied: Vec<_> = self
            .at_target(false)
            .await?
            .into_iter()
            .filter_map(|(object, at)| Some((object, at.entry?)))
            .filter(|(_, entry)| entry.state == ObjectState::Copied)
            .collect();
        let unread = copied.iter().filter(|(_, entry)| entry.read.is_none());
        let size = |file: Option<FileDigest>| file.map_or(0, |file| file.bytes);
        let unread = unread.map(|(object, entry)| (object.clone(), size(entry.file)));
        let read = self.read(unread.collect(), Reading::OwnTarget).await?;
        let found = copied.iter().filter_map(|(object, entry)| {
            let at_target = match entry.read {
                Some(read) => read,
                None => read.get(object).copied().flatten(),
            };
            compare(object, entry.file, at_target)
        });
        Ok(sorted(found.collect()))
    }

    /// Both ends read all files: how many there are at the source, and what is not equal. `keep`: the ledger gets what the target read.
    pub async fn compare_all(&self, keep: bool) -> anyhow::Result<(u64, Vec<Finding>)> {
        let at_source = self.at_source().await?;
        let at_target = self.at_target(false).await?;
        let files: Vec<(Object, u64)> = at_source
            .into_iter()
            .map(|file| (file.object, file.bytes))
            .collect();
        let how = match keep {
            true => Reading::OwnTarget,
            false => Reading::Target,
        };
        let (source, target) = tokio::try_join!(
            self.read(files.clone(), Reading::Source),
            self.read(files.clone(), how)
        )?;
        let one = |read: &Read, object| read.get(object).copied().flatten();
        let mut found: Vec<Finding> = files
            .iter()
            .filter_map(|(object, _)| compare(object, one(&source, object), one(&target, object)))
            .collect();
        found.extend(extra(&source, &at_target));
        Ok((files.len() as u64, sorted(found)))
    }

    async fn read(&self, files: Vec<(Object, u64)>, how: Reading) -> anyhow::Result<Read> {
        let gathered: Arc<Mutex<Read>> = Arc::default();
        let work = {
            let (carrier, gathered) = (self.clone(), gathered.clone());
            move |batch: Vec<(Object, u64)>| {
                let (carrier, gathered) = (carrier.clone(), gathered.clone());
                async move {
                    let read = carrier.read_batch(batch, how).await?;
                    let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
                    gathered.extend(read);
                    Ok(())
                }
            }
        };
        each(batches(files), self.streams, work).await?;
        let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *gathered))
    }

    async fn read_batch(&self, batch: Vec<(Object, u64)>, how: Reading) -> anyhow::Result<Read> {
        let (agent, end) = match how {
            Reading::Source => ("source", End::Source),
            Reading::Target | Reading::OwnTarget => ("target", End::Target),
        };
        let what = format!("reading {} at the {agent}", named(&batch));
        let _running = self.live.start(end, what.clone());
        let names: Vec<wire::ObjectName> =
            batch.into_iter().map(|(object, _)| object.into()).collect();
        retry(&self.reporter, &what, || {
            let (mut ends, objects) = (self.ends.clone(), names.clone());
            let migration = match how {
                Reading::OwnTarget => self.migration.clone(),
                Reading::Source | Reading::Target => String::new(),
            };
            let asked = objects.len();
            let request = wire::ReadObjectsRequest { migration, objects };
            let mut counted = self.live.count();
            async move {
                let events = match how {
                    Reading::Source => ends.source.read_objects(request).await?,
                    _ => ends.target.read_objects(request).await?,
                };
                let read = all(events.into_inner(), |progress| counted.set(progress)).await?;
                match read.len() == asked {
                    true => Ok(read),
                    false => Err(Status::unavailable("the stream ended before the last file")),
                }
            }
        })
        .await
        .map_err(said(agent))
    }
}

/// Who reads, and for whom.
#[derive(Clone, Copy, Debug)]
enum Reading {
    Source,
    Target,
    /// The ledger of the migration gets what was read.
    OwnTarget,
}

async fn all(
    mut events: Streaming<wire::ReadObjectsEvent>,
    mut progress: impl FnMut(Progress),
) -> Result<Read, Status> {
    let mut read = Read::new();
    while let Some(event) = events.next().await {
        match required(event?.event, "event")? {
            Event::Progress(now) => progress(now.into()),
            Event::Read(one) => {
                let object = required(one.object, "object")?.try_into()?;
                let file = one.file.map(TryInto::try_into).transpose()?;
                read.insert(object, file);
            }
        }
    }
    Ok(read)
}

fn compare(
    object: &Object,
    source: Option<FileDigest>,
    target: Option<FileDigest>,
) -> Option<Finding> {
    let finding = |severity, code: &str, message: &str| {
        Finding::new(severity, code, object.to_string(), message)
    };
    let found = match (source, target) {
        (Some(source), Some(target)) if source == target => return None,
        (Some(_), Some(_)) => finding(
            Severity::Difference,
            "file-differs",
            "the file at the target has other bytes",
        )
        .hint("pgconvoy sync --storage-objects copies it again"),
        (Some(_), None) => finding(
            Severity::Difference,
            "file-lost",
            "the target's Storage API has no such file",
        )
        .hint("pgconvoy sync --storage-objects copies it again"),
        (None, Some(_)) => finding(
            Severity::Difference,
            "file-extra",
            "the source has a row and no file, the target has a file",
        ),
        (None, None) => finding(
            Severity::Warning,
            "file-missing",
            "the source has a row and no file: the target has the same",
        ),
    };
    let shown = |file: Option<FileDigest>| file.map(|file| file.to_string()).unwrap_or_default();
    Some(found.values(shown(source), shown(target)))
}

/// Rows that are at the target only.
fn extra(source: &Read, at_target: &HashMap<Object, AtTarget>) -> Vec<Finding> {
    let only = at_target
        .iter()
        .filter(|(object, at)| at.present && !source.contains_key(object));
    only.map(|(object, _)| {
        Finding::new(
            Severity::Difference,
            "file-extra",
            object.to_string(),
            "it is at the target only",
        )
        .hint("pgconvoy sync --storage-objects deletes it, if the source has no row of it")
    })
    .collect()
}

fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by(|a, b| a.object.cmp(&b.object));
    told(findings)
}
