//! Finds the rows in COPY data, whatever way the data is cut.
//!
//! Text: a row ends at a line feed (inside a value it is escaped). Binary: a header, then per row a 16-bit count of fields and
//! per field a 32-bit length (-1: null) and its bytes, then a trailer of 16 bits, -1. PostgreSQL manual, COPY, "File Formats".
use pgconvoy_proto::model::Format;

use super::Error;

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

pub enum Splitter {
    Text,
    Binary(Binary),
}

impl Splitter {
    pub fn new(format: Format) -> Self {
        match format {
            Format::Text => Self::Text,
            Format::Binary => Self::Binary(Binary::default()),
        }
    }

    /// The next step through `data`, which is not empty, and what is left of it.
    pub fn step<'a>(&mut self, data: &'a [u8]) -> Result<(Step<'a>, &'a [u8]), Error> {
        match self {
            Self::Text => Ok(text_step(data)),
            Self::Binary(binary) => binary.step(data),
        }
    }

    /// Whether the data may end here, as far as the format tells.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Text => true,
            Self::Binary(binary) => matches!(binary.at, At::End),
        }
    }
}

pub enum Step<'a> {
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

pub struct Binary {
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
