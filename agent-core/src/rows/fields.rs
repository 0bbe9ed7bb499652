//! Rows of COPY data, field by field: for digests of parts of a row, and for the row's key and place.
//!
//! A row is looked at whole. Messages hold whole rows as a rule, so that none is copied here; one that is cut is put together first.
use pgconvoy_proto::model::{Format, Pair, Place, Table, TableDigest};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::Error;
use super::arrays::Arrays;
use super::split::{Splitter, Step};

/// What the columns of a scan are, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub format: Format,
    /// The first so many columns are the key; 0: there is none, the whole row stands for it.
    pub key: usize,
    /// Copied columns, the key among them: what the row digest is of.
    pub copied: usize,
    /// Stored generated columns, after the copied ones.
    pub generated: usize,
    /// `tableoid` and `ctid` come last.
    pub placed: bool,
}

impl Layout {
    fn columns(&self) -> usize {
        self.copied + self.generated + if self.placed { 2 } else { 0 }
    }
}

/// Gives the whole rows of one COPY stream, with arrays as they are when they have been loaded.
pub struct Rows {
    splitter: Splitter,
    arrays: Option<Arrays>,
    cut: Vec<u8>,
    is_cut: bool,
}

impl Rows {
    /// Of rows without arrays.
    pub fn new(format: Format) -> Self {
        Self {
            splitter: Splitter::new(format),
            arrays: None,
            cut: Vec::new(),
            is_cut: false,
        }
    }

    /// Of rows that begin with the table's copied columns and the generated ones.
    pub fn of(table: &Table) -> Self {
        Self {
            arrays: Arrays::of(table),
            ..Self::new(table.format)
        }
    }

    /// Calls `each` with every row that ends in `data`.
    pub fn feed(
        &mut self,
        mut data: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let arrays = &self.arrays;
        let mut each = |row: &[u8]| match arrays {
            None => each(row),
            Some(arrays) => each(&arrays.as_loaded(row)),
        };
        while !data.is_empty() {
            let (step, rest) = self.splitter.step(data)?;
            match step {
                Step::Skip => {}
                Step::RowPart(bytes) => {
                    self.is_cut = true;
                    self.cut.extend_from_slice(bytes);
                }
                Step::RowEnd(bytes) if self.is_cut => {
                    self.cut.extend_from_slice(bytes);
                    each(&self.cut)?;
                    self.is_cut = false;
                    self.cut = Vec::new();
                }
                Step::RowEnd(bytes) => each(bytes)?,
            }
            data = rest;
        }
        Ok(())
    }

    /// An error when the data stopped inside a row.
    pub fn finish(self) -> Result<(), Error> {
        if self.is_cut || !self.splitter.is_whole() {
            Err(Error::Truncated)
        } else {
            Ok(())
        }
    }
}

/// One row under a layout: where its fields lie.
pub struct Row<'a> {
    layout: Layout,
    bytes: &'a [u8],
    /// End of the key, of the copied columns, of the generated ones.
    key_end: usize,
    copied_end: usize,
    generated_end: usize,
}

impl<'a> Row<'a> {
    /// Errors when the row has other columns than the layout says.
    pub fn new(layout: Layout, bytes: &'a [u8]) -> Result<Self, Error> {
        let mut ends = Ends::new(layout, bytes)?;
        let row = Self {
            layout,
            bytes,
            key_end: ends.after(layout.key)?,
            copied_end: ends.after(layout.copied)?,
            generated_end: ends.after(layout.copied + layout.generated)?,
        };
        if ends.after(layout.columns())? == bytes.len() {
            Ok(row)
        } else {
            Err(Error::Columns)
        }
    }

    /// Length and hash of the copied columns, as if COPY had written these alone: what [`super::RowDigester`] counts.
    pub fn copied(&self) -> (u64, u128) {
        let hash = match self.layout.format {
            Format::Text => xxh3_128(&self.bytes[..self.copied_end]),
            Format::Binary if self.layout.columns() == self.layout.copied => xxh3_128(self.bytes),
            Format::Binary => {
                let mut hash = Xxh3::new();
                hash.update(&(self.layout.copied as u16).to_be_bytes());
                hash.update(&self.bytes[2..self.copied_end]);
                hash.digest128()
            }
        };
        (self.copied_end as u64, hash)
    }

    /// Hash of the copied and the generated columns.
    pub fn with_generated(&self) -> u128 {
        xxh3_128(&self.bytes[..self.generated_end])
    }

    /// Hash of the key: what tells the row's bucket, and which row it is of at the other end.
    pub fn key(&self) -> u128 {
        match (self.layout.key, self.layout.format) {
            (0, _) => self.copied().1,
            (_, Format::Text) => xxh3_128(&self.bytes[..self.key_end]),
            (_, Format::Binary) => xxh3_128(&self.bytes[2..self.key_end]),
        }
    }

    /// Key, which the caller has hashed, digest and place; an error when the layout has no place.
    pub fn pair(&self, key: u128) -> Result<Pair, Error> {
        Ok(Pair {
            key,
            row: match self.layout.key {
                0 => key,
                _ => self.copied().1,
            },
            count: 1,
            place: self.place().ok_or(Error::Columns)?,
        })
    }

    fn place(&self) -> Option<Place> {
        let last = self.bytes.get(self.generated_end..)?;
        match self.layout.format {
            Format::Text => {
                let text = std::str::from_utf8(last).ok()?.trim_start_matches('\t');
                let (table, ctid) = text.split_once('\t')?;
                Place::parse(table, ctid)
            }
            // Two fields: 4 bytes of length and an oid; 4 bytes of length, a block number of 4 bytes, an offset of 2.
            Format::Binary => Some(Place {
                table: u32::from_be_bytes(*last.get(4..)?.first_chunk()?),
                block: u32::from_be_bytes(*last.get(12..)?.first_chunk()?),
                offset: u16::from_be_bytes(*last.get(16..)?.first_chunk()?),
            }),
        }
    }
}

/// Steps from field to field.
struct Ends<'a> {
    format: Format,
    bytes: &'a [u8],
    /// Fields that were passed, and where the last of them ends.
    passed: usize,
    at: usize,
}

impl<'a> Ends<'a> {
    fn new(layout: Layout, bytes: &'a [u8]) -> Result<Self, Error> {
        let at = match layout.format {
            Format::Text => 0,
            Format::Binary => {
                let count = bytes.first_chunk::<2>().ok_or(Error::Truncated)?;
                if usize::from(u16::from_be_bytes(*count)) != layout.columns() {
                    return Err(Error::Columns);
                }
                2
            }
        };
        Ok(Self {
            format: layout.format,
            bytes,
            passed: 0,
            at,
        })
    }

    /// Where field number `count` ends, from 1 on.
    fn after(&mut self, count: usize) -> Result<usize, Error> {
        while self.passed < count {
            self.at = match self.format {
                Format::Text => self.text_field()?,
                Format::Binary => self.binary_field()?,
            };
            self.passed += 1;
        }
        Ok(self.at)
    }

    /// A tab inside a value is escaped: a bare one separates.
    fn text_field(&self) -> Result<usize, Error> {
        let begin = match self.passed {
            0 => 0,
            _ if self.bytes.get(self.at) == Some(&b'\t') => self.at + 1,
            _ => return Err(Error::Columns),
        };
        let rest = &self.bytes[begin..];
        Ok(begin + memchr::memchr(b'\t', rest).unwrap_or(rest.len()))
    }

    fn binary_field(&self) -> Result<usize, Error> {
        let length = self.bytes.get(self.at..).and_then(|b| b.first_chunk::<4>());
        match i32::from_be_bytes(*length.ok_or(Error::Truncated)?) {
            -1 => Ok(self.at + 4),
            length @ 0.. => Ok(self.at + 4 + length as usize),
            _ => Err(Error::NotBinary("a negative length")),
        }
        .and_then(|end| {
            if end <= self.bytes.len() {
                Ok(end)
            } else {
                Err(Error::Truncated)
            }
        })
    }
}

/// Counts what one scan of a table gives: digests, and sums per bucket.
pub struct TableDigester {
    layout: Layout,
    rows: Rows,
    found: TableDigest,
}

impl TableDigester {
    /// `rows`: of the layout's format. `buckets`: a power of two, or 0 for none.
    pub fn new(layout: Layout, rows: Rows, buckets: u32) -> Self {
        Self {
            layout,
            rows,
            found: TableDigest {
                buckets: vec![0; buckets as usize],
                ..TableDigest::default()
            },
        }
    }

    pub fn rows(&self) -> u64 {
        self.found.digest.rows
    }

    pub fn feed(&mut self, data: &[u8]) -> Result<(), Error> {
        let Self {
            layout,
            rows,
            found,
        } = self;
        rows.feed(data, |bytes| {
            let row = Row::new(*layout, bytes)?;
            let (length, hash) = row.copied();
            found.digest.add_row(length, hash);
            if layout.generated > 0 {
                found
                    .generated
                    .add_row(bytes.len() as u64, row.with_generated());
            }
            if !found.buckets.is_empty() {
                let key = if layout.key == 0 { hash } else { row.key() };
                let bucket = Pair::bucket(key, found.buckets.len() as u32);
                found.buckets[bucket] = found.buckets[bucket].wrapping_add(hash as u64);
            }
            Ok(())
        })
    }

    /// An error when the data stopped inside a row.
    pub fn finish(self) -> Result<TableDigest, Error> {
        self.rows.finish()?;
        Ok(self.found)
    }
}

#[cfg(test)]
mod tests;
