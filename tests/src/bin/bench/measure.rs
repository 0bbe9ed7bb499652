//! What a run took: seconds, CPU by process, peak memory, write-ahead log.
use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::place::{Agents, Place};

/// A median is taken of each.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    pub seconds: f64,
    /// CPU seconds by process: source and target PostgreSQL, agents, the rest (clients, the coordinator).
    pub cpu: BTreeMap<&'static str, f64>,
    /// Peak resident memory of the agents, MiB.
    pub memory: BTreeMap<&'static str, f64>,
    /// Write-ahead log at the target, MB.
    pub wal: f64,
    /// COPY data as the ledger counts it, bytes; of pgconvoy's runs only.
    pub copied: u64,
}

impl Sample {
    pub fn line(&self) -> String {
        let cpu: Vec<String> = self
            .cpu
            .iter()
            .map(|(who, s)| format!("{who} {s:.1}"))
            .collect();
        let memory: Vec<String> = self
            .memory
            .iter()
            .map(|(who, m)| format!("{who} {m:.0}"))
            .collect();
        format!(
            "{:.2} s; CPU {}; WAL {:.0} MB{}{}",
            self.seconds,
            cpu.join(", "),
            self.wal,
            if memory.is_empty() { "" } else { "; MiB " },
            memory.join(", ")
        )
    }
}

/// Runs a command and measures it; its own output goes where it does not disturb, and is shown when it fails.
pub fn run(place: &Place, agents: Option<&Agents>, mut command: Command) -> Result<Sample> {
    let mut watched = vec![
        ("source-pg", place.source.postmaster()?),
        ("target-pg", place.target.postmaster()?),
    ];
    if let Some(agents) = agents {
        watched.push(("source-agent", agents.source.pid().context("it runs")?));
        watched.push(("target-agent", agents.target.pid().context("it runs")?));
    }
    let before: Vec<f64> = watched
        .iter()
        .map(|(_, pid)| cpu_of_tree(*pid))
        .collect::<Result<_>>()?;
    let (children, wal) = (cpu_of_children()?, wal_of(place)?);
    let output = place.folder.path().join("output");
    let file = fs::File::create(&output)?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file);
    let begin = Instant::now();
    let status = command.status().with_context(|| format!("{command:?}"))?;
    let seconds = begin.elapsed().as_secs_f64();
    ensure!(
        status.success(),
        "{command:?} ended with {status}:\n{}",
        fs::read_to_string(&output)?
    );
    let mut sample = Sample {
        seconds,
        ..Sample::default()
    };
    sample.cpu.insert("clients", cpu_of_children()? - children);
    for ((who, pid), before) in watched.iter().zip(before) {
        sample.cpu.insert(who, cpu_of_tree(*pid)? - before);
        if who.ends_with("agent") {
            sample.memory.insert(who, peak_memory(*pid)?);
        }
    }
    sample.wal = (wal_of(place)? - wal) / 1e6;
    Ok(sample)
}

fn wal_of(place: &Place) -> Result<f64> {
    let position = place
        .target
        .psql("postgres", "SELECT pg_current_wal_insert_lsn() - '0/0'")?;
    Ok(position.trim().parse()?)
}

/// CPU of a process, of its living descendants, and of those that it has waited for.
fn cpu_of_tree(root: u32) -> Result<f64> {
    let mut stats = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) {
            // It may have ended since it was listed.
            if let Ok(stat) = stat(&pid.to_string()) {
                stats.push((pid, stat));
            }
        }
    }
    let mut tree = vec![root];
    let mut at = 0;
    while at < tree.len() {
        let parent = tree[at];
        let children = stats.iter().filter(|(_, stat)| stat.parent == parent);
        tree.extend(children.map(|(pid, _)| *pid));
        at += 1;
    }
    let of_tree = stats.iter().filter(|(pid, _)| tree.contains(pid));
    Ok(of_tree.map(|(_, stat)| stat.own + stat.waited_for).sum())
}

fn cpu_of_children() -> Result<f64> {
    Ok(stat("self")?.waited_for)
}

struct Stat {
    parent: u32,
    own: f64,
    waited_for: f64,
}

/// proc(5): after the name in parentheses come state, parent, ... utime (14), stime, cutime, cstime, in ticks.
fn stat(pid: &str) -> Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = text
        .rsplit_once(") ")
        .context("a strange /proc/PID/stat")?
        .1;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let seconds = |at: usize| -> Result<f64> { Ok(fields[at].parse::<f64>()? / ticks) };
    Ok(Stat {
        parent: fields[1].parse()?,
        own: seconds(11)? + seconds(12)?,
        waited_for: seconds(13)? + seconds(14)?,
    })
}

fn peak_memory(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .context("VmHWM")?;
    let kib: f64 = line.split_whitespace().nth(1).context("VmHWM")?.parse()?;
    Ok(kib / 1024.0)
}

pub fn bytes(count: u64) -> String {
    format!("{:.0} MB", count as f64 / 1e6)
}
