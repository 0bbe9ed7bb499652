//! Splits COPY data into rows and digests them, whatever way the data is cut.
//!
//! Text: a row ends at a line feed (inside a value it is escaped). Binary: a header, then per row a 16-bit count of fields and
//! per field a 32-bit length (-1: null) and its bytes, then a trailer of 16 bits, -1. PostgreSQL manual, COPY, "File Formats".
//! A row that lies whole in one buffer is hashed in one go; one that is cut is hashed as it comes, so that memory
//! does not depend on the length of rows.
use pgconvoy_proto::model::{Digest, Format};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// The byte that was held back when the count of a row's fields was cut in two.
static COUNT_HIGH: [u8; 128] = {
    let mut bytes = [0; 128];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = at as u8;
        at += 1;
    }
    bytes
};

const NEGATIVE_COUNT: Error = Error::NotBinary("a negative count of fields");

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("COPY data ends in the middle of a row")]
    Truncated,
    #[error("COPY data is not in PostgreSQL's binary format: {0}")]
    NotBinary(&'static str),
}

/// Digests the rows of one COPY stream.
pub struct RowDigester {
    splitter: Splitter,
    digest: Digest,
    /// Hash and length of the part of the current row that earlier buffers held.
    cut: Option<(Box<Xxh3>, u64)>,
}

enum Splitter {
    Text,
    Binary(Binary),
}

impl RowDigester {
    pub fn new(format: Format) -> Self {
        let splitter = match format {
            Format::Text => Splitter::Text,
            Format::Binary => Splitter::Binary(Binary::default()),
        };
        Self {
            splitter,
            digest: Digest::default(),
            cut: None,
        }
    }

    pub fn rows(&self) -> u64 {
        self.digest.rows
    }

    pub fn feed(&mut self, mut data: &[u8]) -> Result<(), Error> {
        while !data.is_empty() {
            let (step, rest) = match &mut self.splitter {
                Splitter::Text => text_step(data),
                Splitter::Binary(binary) => binary.step(data)?,
            };
            match step {
                Step::Skip => {}
                Step::RowEnd(bytes) => self.end_row(bytes),
                Step::RowPart(bytes) => {
                    let (hash, length) = self.cut.get_or_insert_with(|| (Box::new(Xxh3::new()), 0));
                    hash.update(bytes);
                    *length += bytes.len() as u64;
                }
            }
            data = rest;
        }
        Ok(())
    }

    fn end_row(&mut self, bytes: &[u8]) {
        match self.cut.take() {
            None => self.digest.add_row(bytes.len() as u64, xxh3_128(bytes)),
            Some((mut hash, length)) => {
                hash.update(bytes);
                self.digest
                    .add_row(length + bytes.len() as u64, hash.digest128());
            }
        }
    }

    /// The digest of all rows; an error when the data stopped inside one.
    pub fn finish(self) -> Result<Digest, Error> {
        let whole = match self.splitter {
            Splitter::Text => true,
            Splitter::Binary(binary) => matches!(binary.at, At::End),
        };
        if self.cut.is_some() || !whole {
            Err(Error::Truncated)
        } else {
            Ok(self.digest)
        }
    }
}

enum Step<'a> {
    /// Header, trailer: of no row.
    Skip,
    /// The current row goes on after these bytes.
    RowPart(&'a [u8]),
    /// The current row ends with these bytes.
    RowEnd(&'a [u8]),
}

fn text_step(data: &[u8]) -> (Step<'_>, &[u8]) {
    match memchr::memchr(b'\n', data) {
        Some(end) => (Step::RowEnd(&data[..end]), &data[end + 1..]),
        None => (Step::RowPart(data), &[]),
    }
}

/// Where in the binary format the next byte is.
#[derive(Clone, Copy, Debug)]
enum At {
    /// So many bytes of signature, flags and length of the extension were seen.
    Header(usize),
    /// So many bytes of the header's extension are to be skipped.
    Extension(u32),
    /// Before a row's count of fields.
    Row,
    /// After the first byte of a count, which is of a row or of the trailer: not hashed yet.
    Count(u8),
    /// The same, and it was hashed.
    CountLow(u8),
    /// Fields left in the row; bytes of the next one's length that were seen.
    Length { fields: u16, seen: usize },
    /// Fields left after this one; bytes left of this one.
    Value { fields: u16, left: u32 },
    /// After the trailer.
    End,
}

struct Binary {
    at: At,
    /// Bytes of a header or length that was cut.
    held: [u8; 19],
}

impl Default for Binary {
    fn default() -> Self {
        Self {
            at: At::Header(0),
            held: [0; 19],
        }
    }
}

impl Binary {
    fn step<'a>(&mut self, data: &'a [u8]) -> Result<(Step<'a>, &'a [u8]), Error> {
        match self.at {
            At::Header(seen) => self.header(seen, data),
            At::Extension(left) => {
                let (_, rest) = data.split_at(data.len().min(left as usize));
                let left = left - (data.len() - rest.len()) as u32;
                self.at = if left == 0 {
                    At::Row
                } else {
                    At::Extension(left)
                };
                Ok((Step::Skip, rest))
            }
            At::Row if data.starts_with(&[0xff, 0xff]) => {
                self.at = At::End;
                Ok((Step::Skip, &data[2..]))
            }
            At::Row if data.len() == 1 => {
                self.at = At::Count(data[0]);
                Ok((Step::Skip, &[]))
            }
            At::Row => match whole_row(data)? {
                Some(length) => Ok((Step::RowEnd(&data[..length]), &data[length..])),
                None => self.cut_row(data),
            },
            At::Count(0xff) if data[0] == 0xff => {
                self.at = At::End;
                Ok((Step::Skip, &data[1..]))
            }
            At::Count(high) => {
                self.at = At::CountLow(high);
                let byte = COUNT_HIGH.get(usize::from(high)).ok_or(NEGATIVE_COUNT)?;
                Ok((Step::RowPart(std::slice::from_ref(byte)), data))
            }
            At::End => Err(Error::NotBinary("bytes after the trailer")),
            At::CountLow(_) | At::Length { .. } | At::Value { .. } => self.cut_row(data),
        }
    }

    fn header<'a>(&mut self, seen: usize, data: &'a [u8]) -> Result<(Step<'a>, &'a [u8]), Error> {
        let take = data.len().min(self.held.len() - seen);
        self.held[seen..seen + take].copy_from_slice(&data[..take]);
        self.at = At::Header(seen + take);
        if seen + take == self.held.len() {
            if &self.held[..11] != SIGNATURE {
                return Err(Error::NotBinary("wrong signature"));
            }
            let extension =
                u32::from_be_bytes([self.held[15], self.held[16], self.held[17], self.held[18]]);
            self.at = if extension == 0 {
                At::Row
            } else {
                At::Extension(extension)
            };
        }
        Ok((Step::Skip, &data[take..]))
    }

    /// Follows a row that does not lie whole in the buffer, byte position by byte position.
    fn cut_row<'a>(&mut self, data: &'a [u8]) -> Result<(Step<'a>, &'a [u8]), Error> {
        let mut used = 0;
        while used < data.len() {
            match self.at {
                At::Row => {
                    self.at = At::CountLow(data[used]);
                    used += 1;
                }
                At::CountLow(high) => {
                    let count = i16::from_be_bytes([high, data[used]]);
                    used += 1;
                    match count {
                        0 => return Ok(self.row_end(data, used)),
                        1.. => {
                            self.at = At::Length {
                                fields: count as u16,
                                seen: 0,
                            }
                        }
                        _ => return Err(NEGATIVE_COUNT),
                    }
                }
                At::Length { fields, seen } => {
                    self.held[seen] = data[used];
                    used += 1;
                    if seen + 1 < 4 {
                        self.at = At::Length {
                            fields,
                            seen: seen + 1,
                        };
                        continue;
                    }
                    let length = i32::from_be_bytes([
                        self.held[0],
                        self.held[1],
                        self.held[2],
                        self.held[3],
                    ]);
                    let left = match length {
                        -1 => 0,
                        0.. => length as u32,
                        _ => return Err(Error::NotBinary("a negative length")),
                    };
                    self.at = match (left, fields - 1) {
                        (0, 0) => return Ok(self.row_end(data, used)),
                        (0, fields) => At::Length { fields, seen: 0 },
                        (left, fields) => At::Value { fields, left },
                    };
                }
                At::Value { fields, left } => {
                    let take = (data.len() - used).min(left as usize);
                    used += take;
                    let left = left - take as u32;
                    self.at = match (left, fields) {
                        (0, 0) => return Ok(self.row_end(data, used)),
                        (0, fields) => At::Length { fields, seen: 0 },
                        (left, fields) => At::Value { fields, left },
                    };
                }
                At::Header(_) | At::Extension(_) | At::Count(_) | At::End => {
                    unreachable!("not inside a row")
                }
            }
        }
        Ok((Step::RowPart(data), &[]))
    }

    fn row_end<'a>(&mut self, data: &'a [u8], used: usize) -> (Step<'a>, &'a [u8]) {
        self.at = At::Row;
        (Step::RowEnd(&data[..used]), &data[used..])
    }
}

/// Length of the row at the start of `data`; none when it is not whole.
fn whole_row(data: &[u8]) -> Result<Option<usize>, Error> {
    let Some(count) = data.first_chunk::<2>() else {
        return Ok(None);
    };
    let count = i16::from_be_bytes(*count);
    if count < 0 {
        return Err(NEGATIVE_COUNT);
    }
    let mut at = 2usize;
    for _ in 0..count {
        let Some(length) = data.get(at..).and_then(|rest| rest.first_chunk::<4>()) else {
            return Ok(None);
        };
        at += 4;
        match i32::from_be_bytes(*length) {
            -1 => {}
            length @ 0.. => at += length as usize,
            _ => return Err(Error::NotBinary("a negative length")),
        }
    }
    Ok((at <= data.len()).then_some(at))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn binary(rows: &[Vec<Option<Vec<u8>>>]) -> Vec<u8> {
        let mut data = SIGNATURE.to_vec();
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
