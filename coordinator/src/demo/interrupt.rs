//! Ctrl-C and SIGTERM, seen once and for all.
use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::signal::unix::{self, SignalKind};

pub struct Interrupt {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    seen: Option<Seen>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// From the terminal: every process in the foreground had it too.
    Interrupt,
    Terminate,
}

impl Interrupt {
    /// From here on these signals no longer end the process by themselves.
    pub fn listen() -> Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            seen: None,
        })
    }

    pub async fn wait(&mut self) {
        if self.seen.is_none() {
            let seen = tokio::select! {
                _ = self.interrupt.recv() => Seen::Interrupt,
                _ = self.terminate.recv() => Seen::Terminate,
            };
            self.seen = Some(seen);
        }
    }

    /// Whether one has come, without waiting for it.
    pub fn seen(&mut self) -> bool {
        let waker = &mut std::task::Context::from_waker(std::task::Waker::noop());
        if self.seen.is_none() && self.interrupt.poll_recv(waker).is_ready() {
            self.seen = Some(Seen::Interrupt);
        }
        if self.seen.is_none() && self.terminate.poll_recv(waker).is_ready() {
            self.seen = Some(Seen::Terminate);
        }
        self.seen.is_some()
    }

    /// Tells a child of the same process group what it has not heard itself.
    pub fn pass_on(&self, child: &Child) {
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let (Some(pid), Some(Seen::Terminate)) = (pid, self.seen) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::INT);
        }
    }
}
