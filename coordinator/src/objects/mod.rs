//! Files of storage buckets: which there are at either end, what is to be copied, and what is proven of each.
//!
//! The source's rows say what there is; the ledger says of each file which row it was copied from (its mark), and what was read on both
//! sides. Copying again, resuming and syncing are the same: what the ledger does not have of the row of now.
mod bring;
mod list;
mod prove;

pub use bring::{Brought, to_copy};
pub use pgconvoy_proto::model::object::{TABLE, VERSION};

use std::sync::Arc;

use pgconvoy_proto::model::object::Object;
use pgconvoy_proto::model::{Finding, OF_OBJECTS, Options, Selection, Severity, Table};
use pgconvoy_proto::selection::Filter;

use list::{AtSource, AtTarget};

use crate::digest::Held;
use crate::ends::Ends;
use crate::events::Reporter;
use crate::ledger::Ledger;
use crate::live::Live;
use crate::phases::Run;

/// Whether files are carried, of what was asked for now.
pub fn are_carried(options: &Options, selection: &Selection) -> anyhow::Result<bool> {
    Ok(options.storage_objects
        && Filter::new(&options.selection)?.admits(TABLE.0, TABLE.1)
        && Filter::new(selection)?.admits(TABLE.0, TABLE.1))
}

pub fn is_about_file(finding: &Finding) -> bool {
    OF_OBJECTS.contains(&finding.code.as_str())
}

/// What was found before is forgotten when files are looked at again.
pub fn earlier(ledger: &Ledger) -> Vec<String> {
    let found = ledger.findings.iter().filter(|f| is_about_file(f));
    found.map(|finding| finding.object.clone()).collect()
}

/// What is carried of the rows of files: not all of it, where the target's level has no place for it.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    columns: Vec<String>,
    /// Condition; empty: all rows.
    filter: String,
}

impl Rows {
    /// Of the tables of a plan.
    pub fn of<'a>(tables: impl IntoIterator<Item = &'a Table>) -> Self {
        let mut tables = tables.into_iter();
        let found = tables.find(|table| table.is(TABLE));
        found.map_or_else(Self::default, |table| Self {
            columns: table.columns.clone(),
            filter: table.filter.clone().unwrap_or_default(),
        })
    }
}

/// What is done with files is done by one of these.
#[derive(Clone)]
pub struct Carrier {
    pub migration: String,
    /// What the source's rows are read under; its snapshot is empty: as they are now.
    pub held: Held,
    pub rows: Rows,
    pub ends: Ends,
    pub streams: usize,
    /// As [`pgconvoy_proto::frame::Sealer::new`] takes it.
    pub compression: i32,
    pub reporter: Arc<Reporter>,
    pub live: Arc<Live>,
}

impl Carrier {
    /// `rows`: see [`Rows::of`].
    pub fn of(run: &Run, snapshot: String, rows: Rows) -> Self {
        let key = run.ledger.id.clone();
        Self {
            migration: key.clone(),
            held: Held { key, snapshot },
            rows,
            ends: run.ends.clone(),
            streams: run.effort.streams,
            compression: run.effort.compression,
            reporter: run.reporter.clone(),
            live: run.live.clone(),
        }
    }
}

/// So many findings of a kind are told; the others are counted.
const MOST_TOLD: usize = 200;

/// The first of each kind, and how many more there are.
fn told(findings: Vec<Finding>) -> Vec<Finding> {
    let mut told: Vec<Finding> = Vec::new();
    let mut more: Vec<(Severity, String, usize)> = Vec::new();
    for finding in findings {
        let of_kind = told.iter().filter(|other| other.code == finding.code);
        if of_kind.count() < MOST_TOLD {
            told.push(finding);
            continue;
        }
        match more.iter_mut().find(|(_, code, _)| *code == finding.code) {
            Some((_, _, count)) => *count += 1,
            None => more.push((finding.severity, finding.code, 1)),
        }
    }
    told.extend(more.into_iter().map(|(severity, code, count)| {
        let message = format!("{count} more files are told of the same");
        Finding::new(severity, "files-more", code, message)
    }));
    told
}

/// Files that cross one after another in one call: a call costs more than a small file.
const TOGETHER: usize = 32;
const TOGETHER_BYTES: u64 = 8 << 20;

/// The largest first, small ones together.
fn batches(mut files: Vec<(Object, u64)>) -> Vec<Vec<(Object, u64)>> {
    files.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut batches: Vec<Vec<(Object, u64)>> = Vec::new();
    let mut room = 0;
    for file in files {
        match batches.last_mut() {
            Some(last) if last.len() < TOGETHER && file.1 <= room => {
                room -= file.1;
                last.push(file);
            }
            _ => {
                room = TOGETHER_BYTES.saturating_sub(file.1);
                batches.push(vec![file]);
            }
        }
    }
    batches
}

/// For people: the one, or how many.
fn named(files: &[(Object, u64)]) -> String {
    match files {
        [(one, _)] => format!("file {one}"),
        _ => format!("{} files", files.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_files_go_alone_and_small_ones_together() {
        let file = |name: usize, bytes| (Object::new("b", name.to_string()), bytes);
        let mut files = vec![file(0, 100 << 20), file(1, 9 << 20)];
        files.extend((2..102).map(|name| file(name, 10)));
        let batches = batches(files);
        let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, 1, 32, 32, 32, 4]);
        assert_eq!(batches.concat().len(), 102);
    }

    #[test]
    fn many_findings_of_a_kind_are_counted() {
        let finding =
            |n: usize| Finding::new(Severity::Warning, "file-missing", n.to_string(), "x");
        let told = told((0..MOST_TOLD + 7).map(finding).collect());
        assert_eq!(told.len(), MOST_TOLD + 1);
        assert!(told[MOST_TOLD].message.starts_with("7 more"));
    }
}
