//! Medians and ratios, for people and for machines.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::contender::Contender;
use crate::data::Data;
use crate::measure::Sample;

/// Where, on what, by whom.
type Key = (String, Data, Contender);

pub struct Report {
    percent: u32,
    rounds: usize,
    samples: BTreeMap<Key, Vec<Sample>>,
}

/// Seconds of the first by those of the second.
const RATIOS: [(Contender, Contender); 9] = [
    (Contender::Unverified, Contender::Pgcopydb),
    (Contender::Unverified, Contender::Pipe),
    (Contender::Unverified, Contender::Directory),
    (Contender::Migrate, Contender::Pgcopydb),
    (Contender::Migrate, Contender::Pipe),
    (Contender::OneStream, Contender::OnePipe),
    (Contender::TwoStreams, Contender::OnePipe),
    (Contender::Verify, Contender::Scan),
    (Contender::Pgcopydb, Contender::Pipe),
];

impl Report {
    pub fn new(percent: u32, rounds: usize) -> Self {
        Self {
            percent,
            rounds,
            samples: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, place: &str, data: Data, contender: Contender, sample: Sample) {
        self.samples
            .entry((place.to_owned(), data, contender))
            .or_default()
            .push(sample);
    }

    pub fn text(&self) -> String {
        let mut text = format!(
            "medians of {} rounds, {} % of the data\n",
            self.rounds, self.percent
        );
        let mut last = None;
        for ((place, data, contender), samples) in &self.samples {
            if last != Some((place, data)) {
                let _ = writeln!(text, "\n{data}, {place}");
                last = Some((place, data));
            }
            let _ = writeln!(
                text,
                "  {:<30} {}",
                contender.to_string(),
                median_of(samples).line()
            );
            let _ = write!(text, "{}", per_gigabyte(samples));
            for (_, peer) in RATIOS.iter().filter(|(own, _)| own == contender) {
                if let Some(ratio) = self.ratio(place, *data, *contender, *peer) {
                    let _ = writeln!(text, "  {:<30}   {ratio:.2} of {peer}", "");
                }
            }
        }
        text
    }

    /// The median of the ratios of each round: what disturbs one run disturbs its neighbours as well.
    fn ratio(&self, place: &str, data: Data, own: Contender, peer: Contender) -> Option<f64> {
        let own = self.samples.get(&(place.to_owned(), data, own))?;
        let peer = self.samples.get(&(place.to_owned(), data, peer))?;
        let ratios = own
            .iter()
            .zip(peer)
            .map(|(own, peer)| own.seconds / peer.seconds);
        Some(median(ratios.collect()))
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let results: Vec<Value> = self
            .samples
            .iter()
            .map(|((place, data, contender), samples)| {
                let ratios = RATIOS.iter().filter(|(own, _)| own == contender);
                let ratios: BTreeMap<String, f64> = ratios
                    .filter_map(|(_, peer)| {
                        Some((
                            peer.to_string(),
                            self.ratio(place, *data, *contender, *peer)?,
                        ))
                    })
                    .collect();
                json!({
                    "place": place, "data": data.to_string(), "contender": contender.to_string(),
                    "median": as_json(&median_of(samples)), "ratios": ratios,
                    "runs": samples.iter().map(as_json).collect::<Vec<_>>(),
                })
            })
            .collect();
        let all = json!({ "percent": self.percent, "rounds": self.rounds, "results": results });
        Ok(std::fs::write(path, serde_json::to_string_pretty(&all)?)?)
    }
}

fn as_json(sample: &Sample) -> Value {
    json!({
        "seconds": sample.seconds, "cpu_seconds": sample.cpu, "peak_mib": sample.memory, "wal_mb": sample.wal,
        "copied_bytes": sample.copied,
    })
}

/// CPU seconds per GB of COPY data, where that is known.
fn per_gigabyte(samples: &[Sample]) -> String {
    let median = median_of(samples);
    let gigabytes = median.copied as f64 / 1e9;
    if gigabytes < 0.05 {
        return String::new();
    }
    let each: Vec<String> = median
        .cpu
        .iter()
        .map(|(who, s)| format!("{who} {:.2}", s / gigabytes))
        .collect();
    format!(
        "  {:<30}   CPU s per GB of {gigabytes:.2}: {}\n",
        "",
        each.join(", ")
    )
}

fn median_of(samples: &[Sample]) -> Sample {
    let of = |value: &dyn Fn(&Sample) -> f64| median(samples.iter().map(value).collect());
    let maps = |map: &dyn Fn(&Sample) -> &BTreeMap<&'static str, f64>| {
        let keys = samples
            .first()
            .into_iter()
            .flat_map(|sample| map(sample).keys().copied());
        keys.map(|key| {
            (
                key,
                of(&|sample| map(sample).get(key).copied().unwrap_or(0.0)),
            )
        })
        .collect()
    };
    Sample {
        seconds: of(&|sample| sample.seconds),
        cpu: maps(&|sample| &sample.cpu),
        memory: maps(&|sample| &sample.memory),
        wal: of(&|sample| sample.wal),
        copied: of(&|sample| sample.copied as f64) as u64,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => 0.0,
        (length, middle) if length % 2 == 1 => values[middle],
        (_, middle) => f64::midpoint(values[middle - 1], values[middle]),
    }
}
