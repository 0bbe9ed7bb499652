//! Joins what several COPY TO statements give to the COPY data of one.
use bytes::Bytes;
use pgconvoy_proto::model::Format;

use super::Error;
use super::split::{Splitter, Step};

/// PostgreSQL manual, COPY, "Binary Format": signature, flags, length of the header's extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: &[u8] = b"\xff\xff";

/// Text has neither header nor trailer; in binary those of the single statements are left out.
pub struct Joiner {
    format: Format,
    splitter: Splitter,
    begun: bool,
}

impl Joiner {
    pub fn new(format: Format) -> Self {
        Self {
            format,
            splitter: Splitter::new(format),
            begun: false,
        }
    }

    /// Adds to `joined` what goes on of a statement's data. Nothing is copied.
    pub fn feed(&mut self, data: Bytes, joined: &mut Vec<Bytes>) -> Result<(), Error> {
        if self.format == Format::Text {
            joined.push(data);
            return Ok(());
        }
        self.begin(joined);
        let mut rest = &data[..];
        while !rest.is_empty() {
            let (step, after) = self.splitter.step(rest)?;
            match step {
                Step::Skip => {}
                // A count of fields that was cut in two: its first byte was held back, and is not of this data.
                Step::RowPart(bytes) if bytes.len() == 1 => {
                    joined.push(Bytes::copy_from_slice(bytes))
                }
                Step::RowPart(bytes) | Step::RowEnd(bytes) => joined.push(data.slice_ref(bytes)),
            }
            rest = after;
        }
        Ok(())
    }

    /// The statement's data is through; an error when it stopped inside a row.
    pub fn next_statement(&mut self) -> Result<(), Error> {
        let splitter = std::mem::replace(&mut self.splitter, Splitter::new(self.format));
        if splitter.is_whole() {
            Ok(())
        } else {
            Err(Error::Truncated)
        }
    }

    /// What ends the joined data.
    pub fn finish(mut self, joined: &mut Vec<Bytes>) {
        if self.format == Format::Binary {
            self.begin(joined);
            joined.push(Bytes::from_static(TRAILER));
        }
    }

    fn begin(&mut self, joined: &mut Vec<Bytes>) {
        if !std::mem::replace(&mut self.begun, true) {
            joined.push(Bytes::from_static(HEADER));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn statement(rows: &[&[u8]]) -> Vec<u8> {
        let mut data = HEADER.to_vec();
        for row in rows {
            data.extend([0, 1]);
            data.extend((row.len() as u32).to_be_bytes());
            data.extend(*row);
        }
        data.extend(TRAILER);
        data
    }

    fn joined(format: Format, statements: &[Vec<u8>], cut: usize) -> Vec<u8> {
        let mut joiner = Joiner::new(format);
        let mut joined = Vec::new();
        for statement in statements {
            let (a, b) = statement.split_at(cut.min(statement.len()));
            joiner.feed(Bytes::copy_from_slice(a), &mut joined).unwrap();
            joiner.feed(Bytes::copy_from_slice(b), &mut joined).unwrap();
            joiner.next_statement().unwrap();
        }
        joiner.finish(&mut joined);
        joined.concat()
    }

    #[test]
    fn statements_become_one_wherever_their_data_is_cut() {
        let one = statement(&[b"a", b"", b"long enough"]);
        let parts = [
            statement(&[b"a"]),
            statement(&[]),
            statement(&[b"", b"long enough"]),
        ];
        for cut in 0..parts[2].len() {
            assert_eq!(joined(Format::Binary, &parts, cut), one, "{cut}");
        }
        assert_eq!(joined(Format::Binary, &[], 0), statement(&[]));
        let text = [b"a\tb\n".to_vec(), b"c\n".to_vec()];
        assert_eq!(joined(Format::Text, &text, 2), b"a\tb\nc\n");
    }

    #[test]
    fn a_statement_that_stops_inside_a_row_is_an_error() {
        let whole = statement(&[b"abc"]);
        for end in 0..whole.len() {
            let mut joiner = Joiner::new(Format::Binary);
            joiner
                .feed(Bytes::copy_from_slice(&whole[..end]), &mut Vec::new())
                .unwrap();
            assert_eq!(joiner.next_statement(), Err(Error::Truncated), "{end}");
        }
    }
}
