//! Takes the blanks off rows that pad the values of `character(n)`.
//!
//! "Values of type character are physically padded with spaces to the specified width n, and are stored and displayed that way"
//! (PostgreSQL manual, "Character Types"): whatever is loaded without its padding is stored with it. So the padding need not be
//! compressed, sent, checked and read by COPY, which counts the characters of every value that it is given, one by one, and none of
//! the blanks that it adds (`bpchar_input` in src/backend/utils/adt/varchar.c). Digests are of rows with their padding: the proof, which
//! reads both databases, is of all bytes.
use memchr::memchr_iter;
use pgconvoy_proto::model::{Format, Table};

use super::binary::{self, LENGTH_BYTES};

const BLANKS: [u8; 16] = [b' '; 16];

/// Knows which fields of a table's rows are padded.
pub struct Padding {
    format: Format,
    columns: Vec<bool>,
}

impl Padding {
    /// `columns`: of every column up to the last that is padded, whether it is.
    pub fn new(format: Format, columns: Vec<bool>) -> Self {
        Self { format, columns }
    }

    /// None for a table without such columns, and for one that somebody else makes: the columns there may be of another type.
    pub fn of(table: &Table) -> Option<Self> {
        if table.comes_with_keys() {
            return None;
        }
        let is_padded = |name| table.padded.contains(name);
        let last = table.columns.iter().rposition(is_padded)?;
        let columns = table.columns[..=last].iter().map(is_padded);
        Some(Self::new(table.format, columns.collect()))
    }

    /// Appends a whole row as COPY wrote it (a line of text without its end) to `out`, but not the padding. What is not a row of this
    /// table is appended as it is.
    pub fn take_off(&self, row: &[u8], out: &mut Vec<u8>) {
        match self.format {
            Format::Text => self.take_off_text(row, out),
            Format::Binary => self.take_off_binary(row, out),
        }
    }

    /// A blank is never escaped, and ends no escape: those before the tab are padding.
    fn take_off_text(&self, row: &[u8], out: &mut Vec<u8>) {
        let ends = memchr_iter(b'\t', row).chain([row.len()]);
        let (mut begin, mut done) = (0, 0);
        for (end, &padded) in ends.zip(&self.columns) {
            if padded {
                out.extend_from_slice(&row[done..begin + unpadded(&row[begin..end])]);
                done = end;
            }
            begin = end + 1;
        }
        out.extend_from_slice(&row[done..]);
    }

    fn take_off_binary(&self, row: &[u8], out: &mut Vec<u8>) {
        let mut done = 0;
        for ((begin, value), &padded) in binary::fields(row).zip(&self.columns) {
            let kept = &value[..if padded { unpadded(value) } else { value.len() }];
            if kept.len() < value.len() {
                out.extend_from_slice(&row[done..begin]);
                out.extend_from_slice(&(kept.len() as i32).to_be_bytes());
                out.extend_from_slice(kept);
                done = begin + LENGTH_BYTES + value.len();
            }
        }
        out.extend_from_slice(&row[done..]);
    }
}

/// The length of a value without the blanks at its end.
fn unpadded(mut value: &[u8]) -> usize {
    while let Some((rest, &BLANKS)) = value.split_last_chunk() {
        value = rest;
    }
    value
        .iter()
        .rposition(|byte| *byte != b' ')
        .map_or(0, |last| last + 1)
}
