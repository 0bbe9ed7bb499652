//! Measures pgconvoy beside its peers: same data, same servers, a fresh target for every run, contenders in turn.
//!
//! What is compared is measured in the same rounds: a machine that others use gives ratios, not seconds. scripts/bench.sh runs it.
mod contender;
mod data;
mod measure;
mod place;
mod report;
mod timeline;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

use contender::Contender;
use data::Data;
use place::{Link, Place};
use report::Report;

#[derive(Parser)]
#[command(about = "Measures pgconvoy beside its peers; see docs/performance.md")]
struct Args {
    /// Data sets: pgbench, mixed, small, empty, noise
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "pgbench,mixed,small,empty"
    )]
    data: Vec<Data>,
    /// Size of the data: 100 is 10 M rows of pgbench, 2 GB of mixed data, 5,000 small tables, 500 MB of noise
    #[arg(long, default_value_t = 100)]
    percent: u32,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only these contenders; all that are on PATH by default
    #[arg(long, value_delimiter = ',')]
    only: Vec<Contender>,
    /// Through an emulated link between the two --namespaces: delay one way in ms, Mbit/s, loss in percent; repeatable
    #[arg(long, value_name = "MS/MBIT/PERCENT", requires = "namespaces")]
    link: Vec<Link>,
    /// The source's and the target's network namespace; they are there already
    #[arg(long, value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Congestion control of TCP in the namespaces
    #[arg(long, requires = "namespaces")]
    congestion: Option<String>,
    /// More arguments for `pgconvoy migrate`
    #[arg(long, allow_hyphen_values = true, value_delimiter = ' ')]
    migrate: Vec<String>,
    /// Results as JSON
    #[arg(long, default_value = "bench.json")]
    json: PathBuf,
    /// Draw what pgconvoy did when, in its last run
    #[arg(long)]
    timeline: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut report = Report::new(args.percent, args.rounds);
    if args.link.is_empty() {
        measure_all(&args, None, &mut report)?;
    }
    for link in &args.link {
        measure_all(&args, Some(link), &mut report)?;
    }
    report.write(&args.json)?;
    println!("\n{}", report.text());
    println!("written to {}", args.json.display());
    Ok(())
}

fn measure_all(args: &Args, link: Option<&Link>, report: &mut Report) -> Result<()> {
    let place = Place::prepare(&args.namespaces, link, args.congestion.as_deref())?;
    for data in &args.data {
        let size = data.build(&place, args.percent)?;
        eprintln!("== {data}, {}: {}", place.name, measure::bytes(size));
        let contenders: Vec<Contender> = Contender::ALL
            .into_iter()
            .filter(|c| args.only.is_empty() || args.only.contains(c))
            .filter(|c| c.can_run(*data))
            .collect();
        // Not counted: memory that the machine uses for the first time since it was started costs whoever comes first.
        if let Some(first) = contenders.first() {
            let sample = first.run(&place, *data, &args.migrate)?;
            eprintln!("   warm-up {first}: {}", sample.line());
        }
        for round in 0..args.rounds {
            // Nobody is always the one who runs after the same other.
            let mut contenders = contenders.clone();
            let first = round % contenders.len().max(1);
            contenders.rotate_left(first);
            for contender in &contenders {
                let sample = contender
                    .run(&place, *data, &args.migrate)
                    .with_context(|| format!("{contender} on {data}"))?;
                eprintln!("   {} {contender}: {}", round + 1, sample.line());
                report.add(&place.name, *data, *contender, sample);
            }
        }
    }
    if args.timeline {
        println!("{}", timeline::draw(&place.latest_events())?);
    }
    Ok(())
}
