//! A migration's phases: their order, what belongs to each, and how each runs.
//!
//! Invariant 4 (any kill): a phase may be run again from its beginning at any time; what is done is looked up, by the target agent, in
//! the ledger for rows and in the catalog for everything else.
mod copy;
pub mod objects;
mod schema;
pub mod snapshot;
mod steps;
pub mod verify;
pub mod wal;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgconvoy_proto::model::{Finding, IndexOn, Work};
use pgconvoy_proto::wire;

use crate::effort::Effort;
use crate::ends::{Ends, said};
use crate::events::{Event, Reporter};
use crate::ledger::Ledger;
use crate::live::Live;
use crate::run_dir::RunDir;
use crate::verdict::Verdict;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The archive crosses; roles; pre-data and row level security, in one transaction.
    Schema,
    /// Owners and grants, and what else the archive does not say of tables, before the first row.
    Access,
    /// Rows; and per table, as soon as its rows are in, constraints, indexes and the digest of what was stored.
    Copy,
    /// Of expressions, predicates and exclusions whose functions may read other tables.
    LateIndexes,
    PartitionedIndexes,
    /// Files of storage buckets. The target's Storage API writes to their rows, for which it needs the indexes; the application's triggers on
    /// these must not be there yet: they would fire.
    Objects,
    ForeignKeys,
    /// Triggers, rules, policies, publications, comments.
    PostData,
    /// Owners of what post-data made, and all that is about large objects but their pages.
    LateAccess,
    /// What this level of the platform computes from rows.
    Derived,
    /// Materialized views: policies, grants and owners are in place.
    Refresh,
    ViewIndexes,
    Sequences,
    Statistics,
    /// Settings, grants and comment of the database: last, its settings are for sessions to come.
    Database,
    /// Digests that are not read yet, and the comparison of rows and schema.
    Verify,
}

impl Phase {
    pub const ALL: [Self; 16] = [
        Self::Schema,
        Self::Access,
        Self::Copy,
        Self::LateIndexes,
        Self::PartitionedIndexes,
        Self::Objects,
        Self::ForeignKeys,
        Self::PostData,
        Self::LateAccess,
        Self::Derived,
        Self::Refresh,
        Self::ViewIndexes,
        Self::Sequences,
        Self::Statistics,
        Self::Database,
        Self::Verify,
    ];

    /// The phase that a step belongs to.
    pub fn of(work: &Work) -> Self {
        match work {
            Work::Roles(_) | Work::PreData => Self::Schema,
            Work::Access { late: false, .. }
            | Work::SystemGrants { .. }
            | Work::DefaultPrivileges { .. }
            | Work::DropNotNull { .. }
            | Work::Vacate { .. } => Self::Access,
            Work::KeyIndex { .. }
            | Work::Index {
                on: IndexOn::Table, ..
            } => Self::Copy,
            Work::Index {
                on: IndexOn::TableAndOthers,
                ..
            } => Self::LateIndexes,
            Work::Index {
                on: IndexOn::Partitioned,
                ..
            }
            | Work::AttachIndexes => Self::PartitionedIndexes,
            Work::ForeignKey(_) => Self::ForeignKeys,
            Work::PostData { .. } => Self::PostData,
            Work::Access { late: true, .. } | Work::LargeObjects { .. } => Self::LateAccess,
            Work::Derive(_) | Work::ManagedKeys => Self::Derived,
            Work::Refresh { .. } => Self::Refresh,
            Work::Index {
                on: IndexOn::MaterializedView,
                ..
            } => Self::ViewIndexes,
            Work::Sequences { .. } => Self::Sequences,
            Work::Statistics { .. } => Self::Statistics,
            Work::Database(_) => Self::Database,
        }
    }

    /// As the ledger has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Access => "access",
            Self::Copy => "copy",
            Self::LateIndexes => "late-indexes",
            Self::PartitionedIndexes => "partitioned-indexes",
            Self::Objects => "objects",
            Self::ForeignKeys => "foreign-keys",
            Self::PostData => "post-data",
            Self::LateAccess => "late-access",
            Self::Derived => "derived",
            Self::Refresh => "refresh",
            Self::ViewIndexes => "view-indexes",
            Self::Sequences => "sequences",
            Self::Statistics => "statistics",
            Self::Database => "database",
            Self::Verify => "verify",
        }
    }

    async fn run(self, run: &mut Run) -> anyhow::Result<()> {
        match self {
            Self::Schema => schema::run(run).await,
            Self::Copy => copy::run(run).await,
            Self::Objects => objects::run(run).await,
            Self::Verify => verify::run(run).await,
            Self::LateIndexes | Self::ForeignKeys | Self::ViewIndexes | Self::Statistics => {
                steps::side_by_side(run, self, run.effort.index_jobs).await
            }
            Self::Access
            | Self::PartitionedIndexes
            | Self::PostData
            | Self::LateAccess
            | Self::Derived
            | Self::Refresh
            | Self::Sequences
            | Self::Database => steps::in_order(run, self).await,
        }
    }
}

/// A migration that is being driven.
pub struct Run {
    pub ends: Ends,
    pub ledger: Ledger,
    pub effort: Effort,
    pub reporter: Arc<Reporter>,
    pub live: Arc<Live>,
    pub dir: RunDir,
    /// The phases that were run, and how long each took.
    pub timed: Vec<(Phase, Duration)>,
    /// Files that the source has rows of, when they were brought over.
    pub files: Option<u64>,
}

impl Run {
    /// Every phase from the first on: those that are done cost their look-ups.
    pub async fn phases(&mut self) -> anyhow::Result<Verdict> {
        for phase in Phase::ALL {
            if phase.is_idle(&self.ledger) {
                continue;
            }
            self.reporter.emit(&Event::Phase {
                phase: phase.name().into(),
            });
            self.record(wire::RecordRequest {
                phase: phase.name().into(),
                ..Default::default()
            })
            .await?;
            let begun = Instant::now();
            phase.run(self).await?;
            self.timed.push((phase, begun.elapsed()));
        }
        self.settle().await?;
        Ok(match self.ledger.differences() {
            0 if self.ledger.options.no_verify || self.ledger.options.skip_data => {
                Verdict::Unverified
            }
            0 => Verdict::Proven,
            _ => Verdict::Differs,
        })
    }

    /// What follows the rows of a sync: the steps of these phases that are open again.
    pub async fn after_sync(&mut self) -> anyhow::Result<()> {
        use Phase::{Derived, LateAccess, Refresh, Sequences, Statistics};
        for phase in [LateAccess, Derived, Refresh, Sequences, Statistics] {
            phase.run(self).await?;
        }
        self.refresh_ledger().await
    }

    /// Commits at the target do not wait for its disk, but this one does, and for all before it. Then the ledger is asked whether
    /// everything is still there: a crash of the target's PostgreSQL, too short for anybody to notice, may have undone the newest.
    async fn settle(&mut self) -> anyhow::Result<()> {
        self.record(wire::RecordRequest::default()).await?;
        self.refresh_ledger().await?;
        let undone = self.ledger.steps.iter().filter(|step| !step.is_done());
        let parts = self.ledger.missing_parts() + self.ledger.to_converge();
        let steps = undone.count();
        let entries = self.ledger.objects.map_or(0, |objects| objects.entries());
        let lost = self.files.unwrap_or(0).saturating_sub(entries);
        anyhow::ensure!(
            steps == 0 && parts == 0 && lost == 0,
            "the target's PostgreSQL crashed and lost what it had just done ({parts} parts, {steps} steps, {lost} files)"
        );
        Ok(())
    }

    pub async fn record(&mut self, request: wire::RecordRequest) -> anyhow::Result<()> {
        let request = wire::RecordRequest {
            migration: self.ledger.id.clone(),
            ..request
        };
        self.ends
            .target
            .record(request)
            .await
            .map_err(said("target"))?;
        Ok(())
    }

    pub async fn refresh_ledger(&mut self) -> anyhow::Result<()> {
        self.ledger = Ledger::read(&mut self.ends.target, Some(&self.ledger.id)).await?;
        Ok(())
    }

    pub async fn record_findings(&mut self, findings: Vec<Finding>) -> anyhow::Result<()> {
        for finding in &findings {
            self.reporter.emit(&Event::Finding(finding.clone()));
        }
        let findings = findings.into_iter().map(Into::into).collect();
        self.record(wire::RecordRequest {
            findings,
            ..Default::default()
        })
        .await
    }
}

impl Phase {
    /// Has no step in the plan, and does nothing else either.
    fn is_idle(self, ledger: &Ledger) -> bool {
        match self {
            Self::Objects => !ledger.options.storage_objects,
            Self::Copy => ledger.tables.is_empty() && !self.has_steps(ledger),
            Self::Verify => {
                ledger.options.no_verify || ledger.tables.is_empty() && ledger.options.skip_schema
            }
            _ => !self.has_steps(ledger),
        }
    }

    fn has_steps(self, ledger: &Ledger) -> bool {
        ledger
            .steps
            .iter()
            .any(|entry| Self::of(&entry.step.work) == self)
    }
}
