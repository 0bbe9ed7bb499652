//! Runs the steps of a phase at the target: in order, or several at once.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use pgconvoy_proto::model::{Finding, Oid, Step, Work};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::target_client::TargetClient;
use tonic::transport::Channel;

use super::{Phase, Run};
use crate::ends::{retry, said};
use crate::events::{Event, Reporter};
use crate::ledger::Ledger;
use crate::live::{End, Live};
use crate::workers::each;

/// What is needed to run a step, apart from the rest of the run.
#[derive(Clone)]
pub struct StepRunner {
    pub migration: String,
    pub target: TargetClient<Channel>,
    pub reporter: Arc<Reporter>,
    pub live: Arc<Live>,
}

impl StepRunner {
    pub fn of(run: &Run) -> Self {
        Self {
            migration: run.ledger.id.clone(),
            target: run.ends.target.clone(),
            reporter: run.reporter.clone(),
            live: run.live.clone(),
        }
    }

    /// Runs steps together; tells of them and of what was found.
    pub async fn run(&self, steps: &[&Step]) -> anyhow::Result<()> {
        let Some(first) = steps.first() else {
            return Ok(());
        };
        let what = match steps.len() {
            1 => format!("{} {}", first.work.kind(), first.work.object()),
            more => format!(
                "{} {} and {} more",
                first.work.kind(),
                first.work.object(),
                more - 1
            ),
        };
        let _running = self.live.start(End::Target, what.clone());
        let begin = Instant::now();
        let numbers: Vec<u32> = steps.iter().map(|step| step.number).collect();
        let answer = retry(&self.reporter, &what, || {
            let mut target = self.target.clone();
            let request = wire::RunStepsRequest {
                migration: self.migration.clone(),
                steps: numbers.clone(),
            };
            async move { target.run_steps(request).await }
        })
        .await
        .map_err(said("target"))?;
        for finding in answer.into_inner().findings {
            self.reporter
                .emit(&Event::Finding(Finding::try_from(finding)?));
        }
        let seconds = begin.elapsed().as_secs_f64();
        for step in steps {
            let (kind, object) = (step.work.kind().into(), step.work.object());
            self.reporter.emit(&Event::Step {
                kind,
                object,
                seconds,
            });
        }
        Ok(())
    }
}

fn open_steps(run: &Run, phase: Phase) -> Vec<Step> {
    let of_phase = run
        .ledger
        .steps
        .iter()
        .filter(|entry| Phase::of(&entry.step.work) == phase);
    of_phase
        .filter(|entry| !entry.is_done())
        .map(|entry| entry.step.clone())
        .collect()
}

pub async fn in_order(run: &Run, phase: Phase) -> anyhow::Result<()> {
    let runner = StepRunner::of(run);
    let steps = open_steps(run, phase);
    // Steps of one kind belong together: owners and grants are applied with one look at the catalog.
    for alike in steps.chunk_by(|a, b| a.work.kind() == b.work.kind()) {
        runner.run(&alike.iter().collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// The largest tables first: no job should be left with one of them when the others are done.
pub async fn side_by_side(run: &Run, phase: Phase, jobs: usize) -> anyhow::Result<()> {
    let sizes = Sizes::of(&run.ledger);
    let mut steps = open_steps(run, phase);
    steps.sort_by_key(|step| std::cmp::Reverse(sizes.size(&step.work)));
    let mut groups: Vec<Vec<Step>> = Vec::new();
    for step in steps {
        let is_small = sizes.size(&step.work) < SMALL_STEP;
        match groups.last_mut() {
            Some(last)
                if is_small
                    && last.len() < SMALL_TOGETHER
                    && sizes.size(&last[0].work) < SMALL_STEP =>
            {
                last.push(step);
            }
            _ => groups.push(vec![step]),
        }
    }
    all(StepRunner::of(run), groups, jobs).await
}

/// A call costs more than the work on tables below this size: several steps are run by one.
const SMALL_STEP: u64 = 1 << 20;
const SMALL_TOGETHER: usize = 50;

/// How much a step has to read.
struct Sizes<'a> {
    by_oid: HashMap<Oid, u64>,
    by_name: HashMap<(&'a str, &'a str), u64>,
}

impl<'a> Sizes<'a> {
    fn of(ledger: &'a Ledger) -> Self {
        let tables = || ledger.tables.iter().map(|entry| &entry.table);
        Self {
            by_oid: tables().map(|t| (t.oid, t.size_bytes)).collect(),
            by_name: tables()
                .map(|t| ((t.schema.as_str(), t.name.as_str()), t.size_bytes))
                .collect(),
        }
    }

    /// Bytes; where it cannot be told it may be much.
    fn size(&self, work: &Work) -> u64 {
        let size = match work {
            Work::Index { size_bytes, .. } => Some(size_bytes),
            Work::ForeignKey(key) => self.by_oid.get(&key.table_oid),
            Work::Statistics { schema, name, .. } => {
                self.by_name.get(&(schema.as_str(), name.as_str()))
            }
            _ => None,
        };
        size.copied().unwrap_or(u64::MAX)
    }
}

/// Runs the groups of steps, `jobs` at once. The first error ends it.
pub async fn all(runner: StepRunner, groups: Vec<Vec<Step>>, jobs: usize) -> anyhow::Result<()> {
    let run = |group: Vec<Step>| {
        let runner = runner.clone();
        async move { runner.run(&group.iter().collect::<Vec<_>>()).await }
    };
    each(groups, jobs, run).await
}
