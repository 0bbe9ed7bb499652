//! What happens during a command, told three ways: to `events.jsonl` in the run folder, to stdout as JSON lines, and to a person on
//! stderr.
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pgconvoy_proto::model::{Finding, How, Severity, SyncCounts};
use serde::Serialize;

use crate::live::{End, Moment};
use crate::text::{bytes, duration};
use crate::watch::Standing;

#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    Migration {
        id: String,
        source: String,
        target: String,
    },
    Phase {
        phase: String,
    },
    Progress(Moment),
    Table {
        table: String,
        rows: u64,
        bytes: u64,
        parts: usize,
    },
    Step {
        kind: String,
        object: String,
        seconds: f64,
    },
    Verified {
        table: String,
        rows: u64,
        digest: String,
        equal: bool,
    },
    Synced {
        table: String,
        #[serde(flatten)]
        counts: SyncCounts,
        wire_bytes: u64,
    },
    /// Files of storage buckets: rows of the source, those that were copied by this run, their bytes.
    Files {
        files: u64,
        copied: u64,
        bytes: u64,
        seconds: f64,
    },
    /// Something that an agent was asked for came to its end: `at` less `seconds` is when it began.
    Ran {
        end: End,
        what: String,
        seconds: f64,
    },
    Retry {
        what: String,
        attempt: u32,
        reason: String,
    },
    Finding(Finding),
    /// What `watch` saw in the ledger.
    Status(Standing),
    Note {
        text: String,
    },
}

/// How people are told.
enum Voice {
    /// A terminal: a bar that is drawn again and again, and lines above it.
    Live {
        bars: MultiProgress,
        bar: ProgressBar,
        source: ProgressBar,
        target: ProgressBar,
    },
    /// Not a terminal: lines.
    Plain,
}

pub struct Reporter {
    json: bool,
    voice: Voice,
    log: Mutex<Option<File>>,
}

/// On stdout. Whoever has stopped reading it (`| head`) does not end what is being done: it is in `events.jsonl` too.
pub fn print(text: &str) {
    use std::io::ErrorKind::BrokenPipe;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != BrokenPipe => {
            complain(&format!("pgconvoy: cannot write to stdout: {error}\n"));
        }
        _ => {}
    }
}

/// On stderr; where that cannot be written there is nobody left to tell.
pub fn complain(text: &str) {
    std::io::stderr().lock().write_all(text.as_bytes()).ok();
}

impl Reporter {
    pub fn new(json: bool) -> Self {
        let voice = if std::io::stderr().is_terminal() && !json {
            live()
        } else {
            Voice::Plain
        };
        Self {
            json,
            voice,
            log: Mutex::new(None),
        }
    }

    /// From now on every event is also written here.
    pub fn log_to(&self, file: File) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    }

    pub fn is_live(&self) -> bool {
        matches!(self.voice, Voice::Live { .. })
    }

    pub fn json(&self) -> bool {
        self.json
    }

    pub fn emit(&self, event: &Event) {
        let mut value = serde_json::to_value(event).unwrap_or_else(|e| unreachable!("{e}"));
        value["at"] = jiff::Timestamp::now().to_string().into();
        if let Some(log) = self
            .log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            && let Err(error) = writeln!(log, "{value}")
        {
            complain(&format!("pgconvoy: cannot write events.jsonl: {error}\n"));
        }
        if self.json {
            print(&format!("{value}\n"));
        }
        self.tell(event);
    }

    pub fn note(&self, text: impl Into<String>) {
        self.emit(&Event::Note { text: text.into() });
    }

    /// A line for people, above the live display where there is one.
    pub fn line(&self, text: &str) {
        match &self.voice {
            Voice::Live { bars, .. } if bars.println(text).is_ok() => {}
            _ => complain(&format!("{text}\n")),
        }
    }

    /// The result: the last line of stdout.
    pub fn result(&self, result: &serde_json::Value) {
        self.quiet();
        if self.json {
            print(&format!("{result}\n"));
        }
    }

    /// Ends the live display.
    pub fn quiet(&self) {
        if let Voice::Live {
            bars,
            bar,
            source,
            target,
        } = &self.voice
        {
            for bar in [bar, source, target] {
                bar.finish_and_clear();
            }
            // Nothing is lost when a terminal that went away cannot be cleared.
            bars.clear().ok();
        }
    }

    fn tell(&self, event: &Event) {
        match event {
            Event::Migration { id, source, target } => {
                self.line(&format!("migration {id}\n  from {source}\n  to   {target}"));
            }
            Event::Phase { phase } => self.line(&format!("* {phase}")),
            Event::Progress(moment) => self.show(moment),
            Event::Verified {
                table,
                equal: false,
                ..
            } => {
                self.line(&format!("  DIFFERS: {table}"));
            }
            Event::Retry {
                what,
                attempt,
                reason,
            } => {
                self.line(&format!(
                    "  {what}: attempt {attempt} failed ({reason}); trying again"
                ));
            }
            Event::Finding(finding) => self.line(&finding_text(finding)),
            Event::Status(standing) => self.line(&standing.to_string()),
            Event::Note { text } => self.line(&format!("  {text}")),
            Event::Synced { table, counts, .. } if counts.how != How::Equal => {
                self.line(&format!("  {table}: {}", synced_text(counts)));
            }
            Event::Files {
                files,
                copied,
                bytes: size,
                seconds,
            } => self.line(&format!(
                "  {copied} of {files} files copied, {} in {}",
                bytes(*size),
                duration(*seconds)
            )),
            Event::Table { .. }
            | Event::Step { .. }
            | Event::Ran { .. }
            | Event::Verified { .. }
            | Event::Synced { .. } => {}
        }
    }

    fn show(&self, moment: &Moment) {
        match &self.voice {
            Voice::Live {
                bar,
                source,
                target,
                ..
            } => {
                bar.set_length(moment.bytes_total.max(moment.bytes));
                bar.set_position(moment.bytes);
                bar.set_message(moment.text());
                source.set_message(doing("source", &moment.source));
                target.set_message(doing("target", &moment.target));
            }
            Voice::Plain => {
                let running: Vec<&str> = moment
                    .source
                    .iter()
                    .chain(&moment.target)
                    .take(3)
                    .map(String::as_str)
                    .collect();
                let running = running.join(", ");
                // What copies nothing has no progress but what it is at.
                if moment.bytes_total > 0 {
                    self.line(&format!("  {}; {running}", moment.text()));
                } else if !running.is_empty() {
                    self.line(&format!("  {running}"));
                }
            }
        }
    }
}

fn live() -> Voice {
    let bars = MultiProgress::new();
    let bar = bars.add(ProgressBar::new(0));
    let style = |template| {
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
    };
    bar.set_style(style("  [{bar:30}] {msg}").progress_chars("=> "));
    let line = || {
        let line = bars.add(ProgressBar::new(0));
        line.set_style(style("  {wide_msg}"));
        line
    };
    let (source, target) = (line(), line());
    Voice::Live {
        bars,
        bar,
        source,
        target,
    }
}

/// What a sync did for a table.
fn synced_text(counts: &SyncCounts) -> String {
    let rows = format!(
        "{} rows to insert, {} to change, {} to delete",
        counts.inserted, counts.changed, counts.deleted
    );
    match counts.how {
        How::Equal => "equal".into(),
        How::Rows => rows,
        How::Copy => format!("{rows}: so many that the whole table is copied again"),
    }
}

fn doing(end: &str, what: &[String]) -> String {
    if what.is_empty() {
        format!("{end}: idle")
    } else {
        format!("{end}: {}", what.join(", "))
    }
}

pub fn finding_text(finding: &Finding) -> String {
    let mark = match finding.severity {
        Severity::Info => "  info",
        Severity::Warning => "  WARNING",
        Severity::Difference => "  DIFFERENCE",
        Severity::Blocker => "  BLOCKER",
    };
    let mut text = format!(
        "{mark} [{}] {}: {}",
        finding.code, finding.object, finding.message
    );
    let values: Vec<String> = [
        ("source", &finding.source_value),
        ("target", &finding.target_value),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(end, value)| format!("{end}: {value}"))
    .collect();
    if !values.is_empty() {
        text += &format!(" ({})", values.join("; "));
    }
    if !finding.hint.is_empty() {
        text += &format!("\n      -> {}", finding.hint);
    }
    text
}
