//! Files on their way: downloaded, digested, cut into chunks and pushed to the target agent as they come. In memory of one there are
//! [`CHUNKS_SEALED`] chunks, the one that is gathered, and the HTTP/2 window.
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pgconvoy_agent_core::progress::{Counters, REPORT_EVERY};
use pgconvoy_agent_core::status;
use pgconvoy_agent_core::storage::{Download, Error, Storage};
use pgconvoy_proto::frame::{CHUNK_BYTES, Sealer};
use pgconvoy_proto::model::object::{FileDigest, FileDigester, Object};
use pgconvoy_proto::model::{Finding, Severity};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::copy_objects_event::Event;
use pgconvoy_proto::wire::object_frame::Frame;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::rows::{self, FileRow, Place};
use crate::chunks::{CHUNKS_SEALED, sealer};
use crate::lanes::{Lane, Lanes, from_target};

pub struct Job {
    pub migration: String,
    pub target: String,
    pub place: Place,
    pub objects: Vec<Object>,
    /// Of the rows, what goes along.
    pub columns: Vec<String>,
    /// As [`pgconvoy_proto::frame::Sealer::new`] takes it.
    pub compression: i32,
}

type Events = mpsc::Sender<Result<wire::CopyObjectsEvent, Status>>;

/// Copies one after another, and tells of the progress and of each that the target's ledger has.
pub async fn copy(storage: Storage, lanes: Lanes, job: Job, events: Events) -> Result<(), Status> {
    let counters = Arc::new(Counters::default());
    let (copied, mut done) = mpsc::channel(1);
    let copying = copy_all(&storage, &lanes, job, counters.clone(), copied);
    let telling = async {
        let mut tick = tokio::time::interval(REPORT_EVERY);
        loop {
            let event = tokio::select! {
                next = done.recv() => match next {
                    Some(one) => Event::Copied(one),
                    None => return,
                },
                _ = tick.tick() => Event::Progress(counters.read().into()),
            };
            let event = wire::CopyObjectsEvent { event: Some(event) };
            // A caller that has left takes the task with it.
            events.send(Ok(event)).await.ok();
        }
    };
    // All that is done is told, before what went wrong.
    tokio::join!(copying, telling).0
}

/// `copied` is told of each.
async fn copy_all(
    storage: &Storage,
    lanes: &Lanes,
    job: Job,
    counters: Arc<Counters>,
    copied: mpsc::Sender<wire::ObjectCopied>,
) -> Result<(), Status> {
    let mut rows = rows::of(&job.place, &job.objects, &job.columns).await?;
    let mut lane = lanes.take(&job.target).await?;
    for object in &job.objects {
        let row = rows.remove(object);
        let one = File {
            storage,
            job: &job,
            object,
            counters: &counters,
        };
        let done = match row {
            Some(row) => one.copy(&mut lane, &row).await?,
            // Nothing at the target either, but what an earlier snapshot had: the rows' comparison tells.
            None => one.told(None, true, Vec::new()),
        };
        if copied.send(done).await.is_err() {
            return Ok(());
        }
    }
    lanes.give_back(&job.target, lane);
    Ok(())
}

struct File<'a> {
    storage: &'a Storage,
    job: &'a Job,
    object: &'a Object,
    counters: &'a Counters,
}

impl File<'_> {
    async fn copy(&self, lane: &mut Lane, row: &FileRow) -> Result<wire::ObjectCopied, Status> {
        let failed = |error| status::storage(&format!("reading {}", self.object), error);
        let download = match Download::open(self.storage, self.object).await {
            Ok(download) => download,
            Err(Error::NotFound(said)) => {
                self.put(lane, self.header(row, 0, true), None).await?;
                return Ok(self.told(None, true, vec![self.missing(&said)]));
            }
            Err(Error::Refused(said)) => {
                self.put(lane, self.header(row, 0, true), None).await?;
                return Ok(self.told(None, true, vec![self.missing(&said)]));
            }
            Err(error) => return Err(failed(error)),
        };
        let bytes = download.bytes.or(row.bytes()).ok_or_else(|| {
            Status::internal(format!(
                "{}: neither its row nor the Storage API says how long it is",
                self.object
            ))
        })?;
        let mut findings: Vec<Finding> = self.unlike(row, bytes, &download).into_iter().collect();
        let header = self.header(row, bytes, false);
        let receipt = self.put(lane, header, Some(download)).await?;
        if let Some(refusal) = receipt.refusal {
            findings.push(Finding::try_from(refusal)?);
        }
        let mut told = self.told(receipt.file, false, findings);
        told.untouched = receipt.untouched;
        Ok(told)
    }

    fn told(
        &self,
        file: Option<wire::FileDigest>,
        missing: bool,
        findings: Vec<Finding>,
    ) -> wire::ObjectCopied {
        wire::ObjectCopied {
            object: Some(self.object.clone().into()),
            file,
            missing,
            untouched: false,
            findings: findings.into_iter().map(Into::into).collect(),
        }
    }

    fn header(&self, row: &FileRow, bytes: u64, missing: bool) -> wire::ObjectHeader {
        wire::ObjectHeader {
            migration: self.job.migration.clone(),
            object: Some(self.object.clone().into()),
            bytes,
            content_type: row.content_type(),
            cache_control: row.cache_control(),
            row: row.text.clone(),
            mark: row.mark.clone(),
            missing,
        }
    }

    /// Pushes header and bytes; ends with the target's receipt.
    async fn put(
        &self,
        lane: &mut Lane,
        header: wire::ObjectHeader,
        download: Option<Download<'_>>,
    ) -> Result<wire::ObjectReceipt, Status> {
        let (frames, receiver) = mpsc::channel(CHUNKS_SEALED);
        // The channel is empty.
        frames.send(frame(Frame::Header(header))).await.ok();
        let mut put = std::pin::pin!(lane.put_object(ReceiverStream::new(receiver)));
        let sent = async {
            match download {
                Some(download) => self.send(download, frames).await,
                None => Ok(None),
            }
        };
        let mut sent = std::pin::pin!(sent);
        let mut reading = true;
        let mut file = None;
        // Whichever breaks first ends it: the other may be waiting for it.
        let receipt = loop {
            tokio::select! {
                ended = &mut sent, if reading => {
                    file = ended?;
                    reading = false;
                }
                answer = &mut put => break answer.map_err(from_target)?.into_inner(),
            }
        };
        let stored = receipt.file.clone().map(FileDigest::try_from).transpose()?;
        if stored.is_some() && stored != file {
            return Err(Status::data_loss(format!(
                "{}: the receipt is not for what was sent",
                self.object
            )));
        }
        Ok(receipt)
    }

    /// The file's digest; none when the target has ended the call before it was through.
    async fn send(
        &self,
        mut download: Download<'_>,
        frames: mpsc::Sender<wire::ObjectFrame>,
    ) -> Result<Option<FileDigest>, Status> {
        let failed = |error| status::storage(&format!("reading {}", self.object), error);
        let mut chunks = Chunks {
            sealer: sealer(self.job.compression)?,
            gathered: BytesMut::new(),
            frames,
            sent: 0,
        };
        let mut digester = FileDigester::default();
        while let Some(data) = download.next().await.map_err(failed)? {
            digester.feed(&data);
            self.counters.add(0, data.len() as u64, 0);
            if !chunks.add(&data, self.counters).await? {
                return Ok(None);
            }
        }
        let file = digester.finish();
        Ok(chunks.end(file, self.counters).await?.then_some(file))
    }

    /// The row speaks of other contents than the API gives: somebody writes, or the store was changed behind the API's back.
    fn unlike(&self, row: &FileRow, bytes: u64, download: &Download<'_>) -> Option<Finding> {
        let plain = |etag: &str| etag.trim_start_matches("W/").trim_matches('"').to_owned();
        let etags = (row.etag().map(plain), download.etag.as_deref().map(plain));
        let size = row.bytes().is_some_and(|of_row| of_row != bytes);
        let etag = matches!(&etags, (Some(row), Some(file)) if row != file);
        (size || etag).then(|| {
            // An etag alone may be another one for no reason but that the store was moved.
            Finding::new(
                if size { Severity::Warning } else { Severity::Info },
                "file-changed",
                self.object.to_string(),
                format!(
                    "its row speaks of {} bytes with etag {}, the source's Storage API gives {} with etag {}: the file of now was copied",
                    row.bytes().map_or_else(|| "?".into(), |b| b.to_string()),
                    etags.0.as_deref().unwrap_or("?"),
                    bytes,
                    etags.1.as_deref().unwrap_or("?"),
                ),
            )
            .hint("if the application was writing: pgconvoy sync")
        })
    }

    fn missing(&self, said: &str) -> Finding {
        Finding::new(
            Severity::Warning,
            "file-missing",
            self.object.to_string(),
            format!("the source has a row and no file ({said}): the target has the same"),
        )
        .hint("upload it again at the source, or delete it there")
    }
}

fn frame(frame: Frame) -> wire::ObjectFrame {
    wire::ObjectFrame { frame: Some(frame) }
}

/// Cuts into chunks and seals them. Large files are media mostly: the sealer soon leaves them as they are.
struct Chunks {
    sealer: Sealer,
    gathered: BytesMut,
    frames: mpsc::Sender<wire::ObjectFrame>,
    sent: u64,
}

impl Chunks {
    /// False: nobody takes them any more.
    async fn add(&mut self, data: &Bytes, counters: &Counters) -> Result<bool, Status> {
        self.gathered.extend_from_slice(data);
        while self.gathered.len() >= CHUNK_BYTES {
            let raw = self.gathered.split_to(CHUNK_BYTES).freeze();
            if !self.seal(raw, counters).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn end(mut self, file: FileDigest, counters: &Counters) -> Result<bool, Status> {
        let last = self.gathered.split().freeze();
        if !last.is_empty() && !self.seal(last, counters).await? {
            return Ok(false);
        }
        let trailer = wire::ObjectTrailer {
            file: Some(file.into()),
            chunks: self.sent,
        };
        Ok(self
            .frames
            .send(frame(Frame::Trailer(trailer)))
            .await
            .is_ok())
    }

    async fn seal(&mut self, raw: Bytes, counters: &Counters) -> Result<bool, Status> {
        let chunk = self
            .sealer
            .seal(raw)
            .map_err(|error| Status::internal(format!("compression failed: {error}")))?;
        counters.add(0, 0, chunk.payload.len() as u64);
        self.sent += 1;
        Ok(self.frames.send(frame(Frame::Chunk(chunk))).await.is_ok())
    }
}
