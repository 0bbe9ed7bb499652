//! Digests the rows of COPY data.
//!
//! A row that lies whole in one buffer is hashed in one go; one that is cut is hashed as it comes, so that memory
//! does not depend on the length of rows. But for rows with arrays, which are looked at whole: one that is cut is put together first.
use pgconvoy_proto::model::{Digest, Format, Table};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

pub mod arrays;
mod binary;
pub mod fields;
pub mod join;
pub mod padding;
mod split;

use arrays::Arrays;
use padding::Padding;
use split::{Splitter, Step};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("COPY data ends in the middle of a row")]
    Truncated,
    #[error("COPY data is not in PostgreSQL's binary format: {0}")]
    NotBinary(&'static str),
    #[error("a row has not the columns that were asked for")]
    Columns,
}

/// Digests the rows of one COPY stream.
pub struct RowDigester {
    splitter: Splitter,
    digest: Digest,
    arrays: Option<Arrays>,
    /// Of the current row what earlier buffers held.
    cut: Option<Cut>,
}

enum Cut {
    /// Hash and length.
    Hashed(Box<Xxh3>, u64),
    Kept(Vec<u8>),
}

impl RowDigester {
    /// Of rows without arrays.
    pub fn new(format: Format) -> Self {
        Self {
            splitter: Splitter::new(format),
            digest: Digest::default(),
            arrays: None,
            cut: None,
        }
    }

    /// Of the table's copied columns.
    pub fn of(table: &Table) -> Self {
        Self {
            arrays: Arrays::of(table),
            ..Self::new(table.format)
        }
    }

    pub fn rows(&self) -> u64 {
        self.digest.rows
    }

    pub fn feed(&mut self, data: &[u8]) -> Result<(), Error> {
        self.pass(data, |_, _| {})
    }

    /// The same; and `out` gets the data, without the padding of rows that lie whole in it. They are digested as they came.
    pub fn feed_unpadded(
        &mut self,
        data: &[u8],
        padding: &Padding,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.pass(data, |whole, taken| match whole {
            Some(row) => {
                padding.take_off(row, out);
                out.extend_from_slice(&taken[row.len()..]);
            }
            None => out.extend_from_slice(taken),
        })
    }

    /// `each` sees the data piece by piece, with the row that lies whole in it, at its beginning, if one does.
    fn pass(
        &mut self,
        mut data: &[u8],
        mut each: impl FnMut(Option<&[u8]>, &[u8]),
    ) -> Result<(), Error> {
        while !data.is_empty() {
            let (step, rest) = self.splitter.step(data)?;
            let taken = &data[..data.len() - rest.len()];
            match step {
                Step::Skip => each(None, taken),
                Step::RowEnd(bytes) => {
                    each(self.cut.is_none().then_some(bytes), taken);
                    self.end_row(bytes);
                }
                Step::RowPart(bytes) => {
                    each(None, taken);
                    self.row_part(bytes);
                }
            }
            data = rest;
        }
        Ok(())
    }

    fn row_part(&mut self, bytes: &[u8]) {
        let cut = self.cut.get_or_insert_with(|| match self.arrays {
            None => Cut::Hashed(Box::new(Xxh3::new()), 0),
            Some(_) => Cut::Kept(Vec::new()),
        });
        match cut {
            Cut::Hashed(hash, length) => {
                hash.update(bytes);
                *length += bytes.len() as u64;
            }
            Cut::Kept(row) => row.extend_from_slice(bytes),
        }
    }

    fn end_row(&mut self, bytes: &[u8]) {
        match self.cut.take() {
            None => self.whole_row(bytes),
            Some(Cut::Hashed(mut hash, length)) => {
                hash.update(bytes);
                self.digest
                    .add_row(length + bytes.len() as u64, hash.digest128());
            }
            Some(Cut::Kept(mut row)) => {
                row.extend_from_slice(bytes);
                self.whole_row(&row);
            }
        }
    }

    fn whole_row(&mut self, row: &[u8]) {
        let hash = match &self.arrays {
            None => xxh3_128(row),
            Some(arrays) => xxh3_128(&arrays.as_loaded(row)),
        };
        self.digest.add_row(row.len() as u64, hash);
    }

    /// The digest of all rows; an error when the data stopped inside one.
    pub fn finish(self) -> Result<Digest, Error> {
        if self.cut.is_some() || !self.splitter.is_whole() {
            Err(Error::Truncated)
        } else {
            Ok(self.digest)
        }
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn binary(rows: &[Vec<Option<Vec<u8>>>]) -> Vec<u8> {
        let mut data = b"PGCOPY\n\xff\r\n\0".to_vec();
        data.extend([0; 8]);
        for row in rows {
            data.extend((row.len() as i16).to_be_bytes());
            for value in row {
                match value {
                    None => data.extend((-1i32).to_be_bytes()),
                    Some(value) => {
                        data.extend((value.len() as i32).to_be_bytes());
                        data.extend(value);
                    }
                }
            }
        }
        data.extend((-1i16).to_be_bytes());
        data
    }

    fn rows() -> Vec<Vec<Option<Vec<u8>>>> {
        vec![
            vec![Some(vec![1, 2, 3]), None, Some(vec![])],
            vec![],
            vec![None],
            vec![Some(vec![0xff; 300]), Some(b"x".to_vec()), None],
            (0..600).map(|n| Some(vec![n as u8; n % 5])).collect(),
        ]
    }

    fn digest(format: Format, data: &[u8], cuts: &[usize]) -> Result<Digest, Error> {
        let mut digester = RowDigester::new(format);
        let mut from = 0;
        for &cut in cuts.iter().chain([&data.len()]) {
            digester.feed(&data[from..cut])?;
            from = cut;
        }
        digester.finish()
    }

    #[test]
    fn every_way_to_cut_gives_the_same_digest() {
        let text = b"a\tb\n\nsecond\\nline\nlast\n".to_vec();
        for (format, data) in [(Format::Text, text), (Format::Binary, binary(&rows()))] {
            let whole = digest(format, &data, &[]).unwrap();
            assert_eq!(whole.rows, if format == Format::Text { 4 } else { 5 });
            for first in 0..data.len() {
                assert_eq!(
                    digest(format, &data, &[first]).unwrap(),
                    whole,
                    "{format} {first}"
                );
                let second = (first * 7 + 1).min(data.len()).max(first);
                assert_eq!(digest(format, &data, &[first, second]).unwrap(), whole);
            }
            let every: Vec<usize> = (0..data.len()).collect();
            assert_eq!(digest(format, &data, &every).unwrap(), whole);
        }
    }

    #[test]
    fn order_and_parts_do_not_matter_but_duplicates_count() {
        let mut reversed = rows();
        reversed.reverse();
        let whole = digest(Format::Binary, &binary(&rows()), &[]).unwrap();
        assert_eq!(
            digest(Format::Binary, &binary(&reversed), &[]).unwrap(),
            whole
        );

        let mut sum = digest(Format::Binary, &binary(&rows()[..2]), &[]).unwrap();
        sum += digest(Format::Binary, &binary(&rows()[2..]), &[]).unwrap();
        assert_eq!(sum, whole);

        let mut twice = rows();
        twice.push(twice[0].clone());
        twice.push(twice[0].clone());
        let twice = digest(Format::Binary, &binary(&twice), &[]).unwrap();
        assert_ne!(twice.sum, whole.sum);
    }

    #[test]
    fn data_that_stops_inside_a_row_is_an_error() {
        let data = binary(&rows());
        for end in 0..data.len() {
            assert_eq!(
                digest(Format::Binary, &data[..end], &[]),
                Err(Error::Truncated),
                "{end}"
            );
        }
        assert_eq!(digest(Format::Text, b"a\nb", &[]), Err(Error::Truncated));
    }

    #[test]
    fn what_is_not_copy_data_is_refused() {
        assert!(digest(Format::Binary, b"PGCOPY\nxxxxxxxxxxxxxxxxxxxxx", &[]).is_err());
        let mut longer = binary(&rows());
        longer.push(0);
        assert!(digest(Format::Binary, &longer, &[]).is_err());
    }
}
