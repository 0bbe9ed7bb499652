//! How far a migration is at this moment: counters that the workers add to, and what runs at each end.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgconvoy_proto::model::{Digest, Progress};
use serde::Serialize;
use tokio_util::task::AbortOnDropHandle;

use crate::events::{Event, Reporter};
use crate::text::{bytes, duration};

#[derive(Debug, Default)]
pub struct Live {
    pub bytes: AtomicU64,
    pub rows: AtomicU64,
    pub wire_bytes: AtomicU64,
    /// An estimate: the tables' size on disk.
    pub bytes_total: AtomicU64,
    pub tables_done: AtomicU64,
    pub tables_total: AtomicU64,
    source: Mutex<BTreeMap<u64, String>>,
    target: Mutex<BTreeMap<u64, String>>,
    next: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
pub enum End {
    Source,
    Target,
}

/// What is shown of a moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Moment {
    pub bytes: u64,
    pub bytes_total: u64,
    pub rows: u64,
    pub wire_bytes: u64,
    pub bytes_per_second: u64,
    /// Of the copy; none while it cannot be told.
    pub eta_seconds: Option<u64>,
    pub tables_done: u64,
    pub tables_total: u64,
    pub source: Vec<String>,
    pub target: Vec<String>,
}

impl Moment {
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} of about {}, {} rows, {}/s, {} of {} tables",
            bytes(self.bytes),
            bytes(self.bytes_total),
            self.rows,
            bytes(self.bytes_per_second),
            self.tables_done,
            self.tables_total
        );
        if let Some(eta) = self.eta_seconds {
            text += &format!(", {} left", duration(eta as f64));
        }
        text
    }
}

/// Something that runs; it is shown until this is dropped.
pub struct Running {
    live: Arc<Live>,
    end: End,
    number: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.live
            .running(self.end)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.number);
    }
}

impl Live {
    pub fn start(self: &Arc<Self>, end: End, what: String) -> Running {
        let number = self.next.fetch_add(1, Relaxed);
        self.running(end)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, what);
        Running {
            live: self.clone(),
            end,
            number,
        }
    }

    /// For one call.
    pub fn count(self: &Arc<Self>) -> Counted {
        Counted {
            live: self.clone(),
            so_far: Progress::default(),
        }
    }

    fn running(&self, end: End) -> &Mutex<BTreeMap<u64, String>> {
        match end {
            End::Source => &self.source,
            End::Target => &self.target,
        }
    }

    fn moment(&self, rate: f64) -> Moment {
        let list = |end| -> Vec<String> {
            let running = self
                .running(end)
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            running.values().cloned().collect()
        };
        let (bytes, bytes_total) = (self.bytes.load(Relaxed), self.bytes_total.load(Relaxed));
        let left = bytes_total.saturating_sub(bytes);
        let (tables_done, tables_total) = (
            self.tables_done.load(Relaxed),
            self.tables_total.load(Relaxed),
        );
        Moment {
            bytes,
            bytes_total,
            rows: self.rows.load(Relaxed),
            wire_bytes: self.wire_bytes.load(Relaxed),
            bytes_per_second: rate as u64,
            eta_seconds: (rate > 1.0 && left > 0 && tables_done < tables_total)
                .then(|| (left as f64 / rate) as u64),
            tables_done,
            tables_total,
            source: list(End::Source),
            target: list(End::Target),
        }
    }
}

/// Adds the progress of one call to what is shown, and takes it back when the call fails.
pub struct Counted {
    live: Arc<Live>,
    so_far: Progress,
}

impl Counted {
    pub fn set(&mut self, now: Progress) {
        let add = |counter: &AtomicU64, now: u64, before: u64| {
            counter.fetch_add(now.wrapping_sub(before), Relaxed);
        };
        add(&self.live.rows, now.rows, self.so_far.rows);
        add(&self.live.bytes, now.bytes, self.so_far.bytes);
        add(
            &self.live.wire_bytes,
            now.wire_bytes,
            self.so_far.wire_bytes,
        );
        self.so_far = now;
    }

    /// It went well.
    pub fn keep(mut self) {
        self.so_far = Progress::default();
    }

    /// It went well, and these are the rows.
    pub fn finish(mut self, rows: Digest) {
        self.set(Progress {
            rows: rows.rows,
            bytes: rows.bytes,
            wire_bytes: self.so_far.wire_bytes,
        });
        self.keep();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(Progress::default());
    }
}

/// Shows the progress regularly for as long as the returned handle lives.
pub fn show(live: Arc<Live>, reporter: Arc<Reporter>) -> AbortOnDropHandle<()> {
    let every = match (reporter.is_live(), reporter.json()) {
        (true, _) => Duration::from_millis(250),
        (false, true) => Duration::from_secs(1),
        (false, false) => Duration::from_secs(5),
    };
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        let (mut last, mut then, mut rate) = (0, Instant::now(), 0.0);
        loop {
            tick.tick().await;
            let bytes = live.bytes.load(Relaxed);
            let now = bytes.saturating_sub(last) as f64 / then.elapsed().as_secs_f64();
            // Smoothed over some ten ticks: a rate that people can read.
            rate = if rate == 0.0 {
                now
            } else {
                rate * 0.9 + now * 0.1
            };
            (last, then) = (bytes, Instant::now());
            reporter.emit(&Event::Progress(live.moment(rate)));
        }
    }))
}
