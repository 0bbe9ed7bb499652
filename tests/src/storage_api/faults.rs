//! What goes wrong, when a test wants it to.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

#[derive(Clone, Debug)]
pub enum Kind {
    /// In place of what the API would have done.
    Answer {
        status: u16,
        body: String,
        retry_after: Option<u64>,
    },
    /// The connection is cut after so many bytes of the file, on whichever way it is.
    CutAfter(u64),
    /// Nothing is done until the fault is lifted.
    Hold,
    /// All is done, and the answer waits until the fault is lifted.
    HoldAnswer,
}

pub struct Fault {
    method: &'static str,
    /// What the path has in it.
    path: String,
    kind: Kind,
    /// So many more times.
    left: Option<usize>,
    struck: Arc<AtomicUsize>,
    held: watch::Sender<bool>,
}

impl Fault {
    pub fn new(method: &'static str, path: impl Into<String>, kind: Kind) -> Self {
        Self {
            method,
            path: path.into(),
            kind,
            left: None,
            struck: Arc::default(),
            held: watch::Sender::new(true),
        }
    }

    pub fn status(method: &'static str, path: impl Into<String>, status: u16) -> Self {
        let kind = Kind::Answer {
            status,
            body: String::new(),
            retry_after: None,
        };
        Self::new(method, path, kind)
    }

    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.left = Some(times);
        self
    }
}

/// All that are injected. Cheap to ask when there is none.
#[derive(Default)]
pub struct Faults {
    all: Mutex<Vec<Fault>>,
}

impl Faults {
    /// How often it has struck is what the answer counts.
    pub fn inject(&self, fault: Fault) -> Arc<AtomicUsize> {
        let struck = fault.struck.clone();
        self.all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(fault);
        struck
    }

    /// Who was held goes on.
    pub fn lift_all(&self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for fault in all.drain(..) {
            fault.held.send_replace(false);
        }
    }

    /// What strikes this request.
    pub(super) fn strike(&self, method: &str, path: &str) -> Option<Struck> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = all.iter_mut().find(|fault| {
            fault.method == method && path.contains(&fault.path) && fault.left != Some(0)
        })?;
        if let Some(left) = &mut fault.left {
            *left -= 1;
        }
        if !matches!(fault.kind, Kind::HoldAnswer) {
            fault.struck.fetch_add(1, Ordering::Relaxed);
        }
        Some(Struck {
            kind: fault.kind.clone(),
            struck: fault.struck.clone(),
            held: fault.held.subscribe(),
        })
    }
}

/// A fault, for one request.
pub(super) struct Struck {
    pub kind: Kind,
    struck: Arc<AtomicUsize>,
    held: watch::Receiver<bool>,
}

impl Struck {
    /// All is done; only now it counts.
    pub fn count(&self) {
        self.struck.fetch_add(1, Ordering::Relaxed);
    }

    /// Until it is lifted, or gone with the API.
    pub async fn wait(&mut self) {
        self.held.wait_for(|held| !held).await.ok();
    }
}
