//! `watch`: reads the ledger again and again until the migration ends. It looks on from any machine, and holds up nobody: who drives the
//! migration does not know of it.
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::cli::WatchArgs;
use crate::ends::{self, Usage};
use crate::events::{Event, Reporter};
use crate::ledger::{Ledger, TableEntry};
use crate::text::bytes;
use crate::verdict::Verdict;
use crate::{Ended, report, show};

/// So often in a row the target agent may be out of reach: it is started again, or the network comes back.
const FAILURES: u32 = 10;

/// Where a migration stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    pub migration: String,
    pub phase: String,
    /// None while unfinished.
    pub verdict: Option<Verdict>,
    pub tables: usize,
    /// All of whose parts are there.
    pub tables_loaded: usize,
    pub tables_read_back: usize,
    pub rows: u64,
    /// Of COPY data.
    pub bytes: u64,
    pub steps: usize,
    pub steps_done: usize,
    pub steps_failed: usize,
    pub differences: usize,
}

impl Standing {
    fn of(ledger: &Ledger) -> Self {
        let loaded = |entry: &&TableEntry| entry.missing(ledger.options.part_bytes).is_empty();
        let parts = || ledger.tables.iter().flat_map(|entry| entry.parts.values());
        let steps = |state: &str| {
            ledger
                .steps
                .iter()
                .filter(|step| step.state == state)
                .count()
        };
        Self {
            migration: ledger.id.clone(),
            phase: ledger.phase.clone(),
            verdict: ledger.verdict,
            tables: ledger.tables.len(),
            tables_loaded: ledger.tables.iter().filter(loaded).count(),
            tables_read_back: ledger.tables.iter().filter(|e| e.target.is_some()).count(),
            rows: parts().map(|part| part.rows).sum(),
            bytes: parts().map(|part| part.bytes).sum(),
            steps: ledger.steps.len(),
            steps_done: steps("done"),
            steps_failed: steps("failed"),
            differences: ledger.differences(),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = jiff::Timestamp::now().strftime("%H:%M:%SZ");
        write!(
            f,
            "{now} phase {}; {} of {} tables loaded ({} rows, {}), {} read back; {} of {} steps done",
            self.phase,
            self.tables_loaded,
            self.tables,
            self.rows,
            bytes(self.bytes),
            self.tables_read_back,
            self.steps_done,
            self.steps
        )?;
        if self.steps_failed > 0 {
            write!(f, ", {} failed", self.steps_failed)?;
        }
        match self.differences {
            0 => Ok(()),
            n => write!(f, "; {n} differences"),
        }
    }
}

pub async fn watch(args: WatchArgs, migration: Option<&str>, reporter: &Reporter) -> Ended {
    let interval = Duration::from(args.interval);
    if interval.is_zero() {
        return Err(Usage("--interval: more than nothing".into()).into());
    }
    let mut target = ends::target(&args.ends).await?;
    let mut ledger = Ledger::read(&mut target, migration).await?;
    // The one that was there at first, even when another one begins.
    let id = ledger.id.clone();
    let mut last = None;
    let mut failures = 0;
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tick.tick().await;
    loop {
        let standing = Standing::of(&ledger);
        if last.as_ref() != Some(&standing) {
            reporter.emit(&Event::Status(standing.clone()));
            last = Some(standing);
        }
        if let Some(verdict) = ledger.verdict {
            show(reporter, &report::status_text(&ledger));
            return Ok((verdict, report::json(&ledger)));
        }
        ledger = loop {
            tick.tick().await;
            match Ledger::read(&mut target, Some(&id)).await {
                Ok(ledger) => break ledger,
                Err(error) if failures < FAILURES => {
                    failures += 1;
                    reporter.note(format!("cannot look: {error:#}; trying again"));
                }
                Err(error) => return Err(error),
            }
        };
        failures = 0;
    }
}
