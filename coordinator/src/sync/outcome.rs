//! What a sync did and proved: for the ledger, for people and for machines.
use pgconvoy_proto::model::{Finding, How, Severity, SyncCounts};
use pgconvoy_proto::wire;
use serde_json::{Value, json};

use crate::converge::{Scanned, Synced};
use crate::ledger::Ledger;
use crate::phases::Run;
use crate::report;
use crate::schema::Displaced;
use crate::text::{bytes, columns, duration};
use crate::verdict::Verdict;

pub struct TableOutcome {
    pub scanned: Scanned,
    pub synced: Synced,
}

impl TableOutcome {
    /// So much was written that the planner's statistics and the visibility map are out of date.
    pub fn is_largely_new(&self) -> bool {
        let counts = self.synced.counts;
        counts.how == How::Copy || counts.total() > self.scanned.source.digest.rows / 10
    }
}

pub struct Outcome {
    pub snapshot: String,
    pub position: wire::PositionResponse,
    pub tables: Vec<TableOutcome>,
    pub seconds: f64,
    /// So many were set, and no table was looked at: --skip-data.
    pub sequences: Option<usize>,
}

/// Whether the source was written since the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    No,
    /// Something was written in the server; not, as far as is known, to these tables.
    Perhaps,
    Yes,
}

impl Outcome {
    fn moved(&self) -> Moved {
        match (self.position.transactions, self.position.written.len()) {
            (0, _) => Moved::No,
            (_, 0) => Moved::Perhaps,
            _ => Moved::Yes,
        }
    }

    fn counts(&self) -> SyncCounts {
        total(&self.tables)
    }

    fn wire_bytes(&self) -> u64 {
        self.tables
            .iter()
            .map(|table| table.synced.wire_bytes)
            .sum()
    }

    /// What the ledger, and with it the report, says of the sync.
    pub fn findings(&self, ledger: &Ledger) -> Vec<Finding> {
        if let Some(sequences) = self.sequences {
            let what = format!(
                "{sequences} sequences stand where the source's stood at LSN {}; no row was compared or brought (--skip-data)",
                self.position.lsn
            );
            return vec![Finding::new(Severity::Info, "synced", "sync", what)];
        }
        let counts = self.counts();
        let position = &self.position;
        let synced = Finding::new(
            Severity::Info,
            "synced",
            "sync",
            format!(
                "{} tables are of the snapshot at LSN {}: {} rows inserted, {} changed, {} deleted; {} crossed the network",
                self.tables.len(),
                position.lsn,
                counts.inserted,
                counts.changed,
                counts.deleted,
                bytes(self.wire_bytes())
            ),
        );
        let moved = |severity, message: String| {
            Finding::new(severity, "source-moved", ledger.source.clone(), message)
                .values(position.lsn.clone(), position.lsn_now.clone())
        };
        let now = &position.lsn_now;
        let moved = match self.moved() {
            Moved::No => moved(
                Severity::Info,
                format!("nothing was written at the source since the snapshot (now at LSN {now})"),
            ),
            Moved::Perhaps => moved(
                Severity::Info,
                format!(
                    "{} transactions were open at the snapshot or began since, in any database of the server (now at LSN {now}); \
                     none is known to have written to these tables",
                    position.transactions
                ),
            ),
            Moved::Yes => moved(
                Severity::Warning,
                format!(
                    "the source is being written to: since the snapshot {} (now at LSN {now})",
                    some(&position.written)
                ),
            )
            .hint("stop the application, and sync again"),
        };
        vec![synced, moved]
    }
}

/// Names that are told before the rest is counted.
const NAMES: usize = 10;

fn some(names: &[String]) -> String {
    let told: Vec<&str> = names.iter().take(NAMES).map(String::as_str).collect();
    match names.len() - told.len() {
        0 => told.join(", "),
        more => format!("{} and {more} more", told.join(", ")),
    }
}

pub fn total(tables: &[TableOutcome]) -> SyncCounts {
    let mut sum = SyncCounts::default();
    for table in tables {
        sum += table.synced.counts;
    }
    sum
}

fn table_json(outcome: &TableOutcome) -> Value {
    let TableOutcome { scanned, synced } = outcome;
    json!({
        "schema": scanned.table.schema, "table": scanned.table.name,
        "how": synced.counts.how, "inserted": synced.counts.inserted, "changed": synced.counts.changed,
        "deleted": synced.counts.deleted, "wire_bytes": synced.wire_bytes, "rows": scanned.source.digest.rows,
    })
}

fn table_text(outcomes: &[TableOutcome]) -> String {
    let head = [
        "table", "rows", "insert", "change", "delete", "how", "crossed",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let differing = outcomes
        .iter()
        .filter(|o| o.synced.counts.how != How::Equal);
    rows.extend(differing.map(|TableOutcome { scanned, synced }| {
        let counts = synced.counts;
        vec![
            scanned.table.to_string(),
            scanned.source.digest.rows.to_string(),
            counts.inserted.to_string(),
            counts.changed.to_string(),
            counts.deleted.to_string(),
            match counts.how {
                How::Copy => "copied again whole",
                _ => "row by row",
            }
            .into(),
            bytes(synced.wire_bytes),
        ]
    }));
    if rows.len() == 1 {
        String::new()
    } else {
        columns(&rows)
    }
}

/// Shows which sequences would be set.
pub fn dry_run_of_sequences(
    run: &Run,
    coming: &[Displaced],
    findings: Vec<Finding>,
) -> (Verdict, Value) {
    for finding in &findings {
        run.reporter
            .emit(&crate::events::Event::Finding(finding.clone()));
    }
    run.reporter.quiet();
    let head = ["sequence", "at source", "at target"].map(str::to_owned);
    let rows = coming.iter().map(|moved| {
        let Displaced {
            sequence,
            source,
            target,
            ..
        } = moved;
        vec![sequence.clone(), source.clone(), target.clone()]
    });
    if !coming.is_empty() {
        let all: Vec<Vec<String>> = std::iter::once(head.to_vec()).chain(rows).collect();
        run.reporter.line(&columns(&all));
    }
    run.reporter.line(&format!(
        "{} sequences stand elsewhere at the target; no row was compared (--skip-data); nothing was changed",
        coming.len()
    ));
    let sequences = coming.iter().map(|moved| {
        json!({ "sequence": moved.sequence, "source": moved.source, "target": moved.target })
    });
    let sequences: Vec<Value> = sequences.collect();
    let json = json!({ "sync": { "dry_run": true, "sequences": sequences }, "findings": findings });
    (Verdict::Ok, json)
}

/// Shows what would change.
pub fn dry_run(run: &Run, outcomes: &[TableOutcome], findings: Vec<Finding>) -> (Verdict, Value) {
    let counts = total(outcomes);
    for finding in &findings {
        run.reporter
            .emit(&crate::events::Event::Finding(finding.clone()));
    }
    run.reporter.quiet();
    let table = table_text(outcomes);
    if !table.is_empty() {
        run.reporter.line(&table);
    }
    run.reporter.line(&format!(
        "{} tables compared: {} rows to insert, {} to change, {} to delete; nothing was changed",
        outcomes.len(),
        counts.inserted,
        counts.changed,
        counts.deleted
    ));
    let tables: Vec<Value> = outcomes.iter().map(table_json).collect();
    let json = json!({ "sync": { "dry_run": true, "tables": tables }, "findings": findings });
    (Verdict::Ok, json)
}

pub fn json(run: &Run, outcome: &Outcome, findings: &[Finding]) -> Value {
    let mut json = report::json(&run.ledger);
    let counts = outcome.counts();
    let position = &outcome.position;
    let tables: Vec<Value> = outcome.tables.iter().map(table_json).collect();
    json["sync"] = json!({
        "snapshot": outcome.snapshot, "lsn": position.lsn, "lsn_now": position.lsn_now,
        "source_moved": match outcome.moved() {
            Moved::No => "no",
            Moved::Perhaps => "perhaps",
            Moved::Yes => "yes",
        },
        "transactions_since": position.transactions, "written_since": position.written,
        "inserted": counts.inserted, "changed": counts.changed, "deleted": counts.deleted,
        "wire_bytes": outcome.wire_bytes(), "seconds": outcome.seconds, "tables": tables,
        "findings": findings, "sequences": outcome.sequences,
    });
    json
}

/// Into the run folder, and to people.
pub fn tell(run: &Run, outcome: &Outcome, verdict: Verdict, json: &Value) {
    run.dir.write_report(&run.ledger, json, &run.reporter);
    run.reporter.quiet();
    if let Some(sequences) = outcome.sequences {
        run.reporter.line(&format!(
            "{verdict}: {sequences} sequences as the source's at LSN {}; no row was compared or brought (--skip-data); in {}",
            outcome.position.lsn,
            duration(outcome.seconds)
        ));
        return;
    }
    let table = table_text(&outcome.tables);
    if !table.is_empty() {
        run.reporter.line(&table);
    }
    let counts = outcome.counts();
    run.reporter.line(&format!(
        "{verdict}: {} tables as the source at LSN {}: {} rows inserted, {} changed, {} deleted, {} over the network, in {}",
        outcome.tables.len(),
        outcome.position.lsn,
        counts.inserted,
        counts.changed,
        counts.deleted,
        bytes(outcome.wire_bytes()),
        duration(outcome.seconds)
    ));
}
