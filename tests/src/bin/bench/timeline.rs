//! Draws what pgconvoy did when, from `events.jsonl`: a line per thing that ran, in the order in which they began.
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

const WIDTH: usize = 70;
/// Things shorter than this share of the whole are counted, not drawn.
const SHORTEST: f64 = 0.004;

struct Span {
    begin: f64,
    end: f64,
    what: String,
}

/// Seconds are since the first event.
pub fn draw(events: &Path) -> Result<String> {
    let text = fs::read_to_string(events).with_context(|| events.display().to_string())?;
    let events: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let times: Vec<f64> = events.iter().map(time).collect::<Result<_>>()?;
    let (Some(first), Some(last)) = (times.first(), times.last()) else {
        return Ok("nothing happened".into());
    };
    let mut spans = Vec::new();
    let mut phase: Option<Span> = None;
    for (event, at) in events.iter().zip(&times) {
        let at = at - first;
        let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        match event["event"].as_str() {
            Some("phase") => {
                let next = Span {
                    begin: at,
                    end: last - first,
                    what: format!("* {}", word("phase")),
                };
                if let Some(mut before) = phase.replace(next) {
                    before.end = at;
                    spans.push(before);
                }
            }
            Some("ran") => spans.push(Span {
                begin: at - event["seconds"].as_f64().unwrap_or(0.0),
                end: at,
                what: format!("{:<6} {}", word("end"), word("what")),
            }),
            _ => {}
        }
    }
    spans.extend(phase);
    spans.sort_by(|a, b| a.begin.total_cmp(&b.begin));
    Ok(lines(&spans, last - first))
}

fn time(event: &Value) -> Result<f64> {
    let at: jiff::Timestamp = event["at"]
        .as_str()
        .context("an event without its time")?
        .parse()?;
    Ok(at.as_nanosecond() as f64 / 1e9)
}

fn lines(spans: &[Span], whole: f64) -> String {
    let mut text = String::new();
    let mut short = 0;
    let column = |at: f64| ((at / whole.max(1e-9)) * WIDTH as f64).round() as usize;
    for span in spans {
        if span.end - span.begin < whole * SHORTEST {
            short += 1;
            continue;
        }
        let (begin, end) = (column(span.begin).min(WIDTH - 1), column(span.end));
        let bar = format!("{}{}", " ".repeat(begin), "=".repeat((end - begin).max(1)));
        let what: String = span.what.chars().take(52).collect();
        let _ = writeln!(
            text,
            "{:7.2} {:6.2} |{bar:<WIDTH$}| {what}",
            span.begin,
            span.end - span.begin
        );
    }
    let _ = writeln!(
        text,
        "{short} more, each shorter than {:.0} ms; {whole:.2} s in all",
        whole * SHORTEST * 1e3
    );
    text
}
