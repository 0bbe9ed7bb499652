//! How far a long call is: counters that work adds to, and the response stream that reports them and ends with the result.
//!
//! The work is a task that the stream owns: when the caller goes away the stream is dropped and the work with it.
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use pgconvoy_proto::model::Progress;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

pub const REPORT_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub struct Counters {
    rows: AtomicU64,
    bytes: AtomicU64,
    wire_bytes: AtomicU64,
}

impl Counters {
    pub fn add(&self, rows: u64, bytes: u64, wire_bytes: u64) {
        self.rows.fetch_add(rows, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.wire_bytes.fetch_add(wire_bytes, Relaxed);
    }

    pub fn read(&self) -> Progress {
        Progress {
            rows: self.rows.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            wire_bytes: self.wire_bytes.load(Relaxed),
        }
    }
}

/// A response stream fed by a task that lives no longer than the stream.
pub struct TaskStream<T> {
    items: mpsc::Receiver<Result<T, Status>>,
    _task: AbortOnDropHandle<()>,
}

impl<T: Send + 'static> TaskStream<T> {
    /// `work` sends items itself; an error that it returns is the last one.
    pub fn new<F, W>(work: W) -> Self
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
        W: FnOnce(mpsc::Sender<Result<T, Status>>) -> F,
    {
        let (sender, items) = mpsc::channel(16);
        let work = work(sender.clone());
        let task = tokio::spawn(async move {
            if let Err(status) = work.await {
                // A receiver that is gone has no use for the error either.
                sender.send(Err(status)).await.ok();
            }
        });
        Self {
            items,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Reports `counters` while `work` runs, then its result.
    pub fn with_progress<F>(counters: Arc<Counters>, report: fn(Progress) -> T, work: F) -> Self
    where
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        Self::new(move |sender| async move {
            let mut work = std::pin::pin!(work);
            let mut tick = tokio::time::interval(REPORT_EVERY);
            loop {
                tokio::select! {
                    result = &mut work => {
                        sender.send(result).await.ok();
                        return Ok(());
                    }
                    _ = tick.tick() => {
                        sender.send(Ok(report(counters.read()))).await.ok();
                    }
                }
            }
        })
    }
}

impl<T> Stream for TaskStream<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.poll_recv(cx)
    }
}
