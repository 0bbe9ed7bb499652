//! COPY data, whatever it holds and wherever it is cut: no panic, no endless loop, and every way to read it says the same.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pgconvoy_agent_core::rows::fields::{Layout, Row, Rows, TableDigester};
use pgconvoy_agent_core::rows::{Error, RowDigester};
use pgconvoy_proto::model::{Digest, Format};

fuzz_target!(|input: (bool, u8, u8, Vec<u16>, Vec<u8>)| {
    let (binary, key, columns, cuts, bytes) = input;
    let format = if binary { Format::Binary } else { Format::Text };
    // Fuzzing would spend its time on finding a header.
    let mut data = if binary { b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec() } else { Vec::new() };
    data.extend(bytes);

    let whole = digest(format, &[&data]);
    let pieces = pieces(&data, &cuts);
    assert_eq!(digest(format, &pieces).is_ok(), whole.is_ok());
    if let Ok(whole) = &whole {
        assert_eq!(digest(format, &pieces).as_ref(), Ok(whole));
    }
    fields(format, key, columns, &data, &pieces, whole);
});

fn pieces<'a>(data: &'a [u8], cuts: &[u16]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = data;
    for cut in cuts {
        let (piece, after) = rest.split_at(usize::from(*cut).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

fn digest(format: Format, pieces: &[&[u8]]) -> Result<Digest, Error> {
    let mut digester = RowDigester::new(format);
    for piece in pieces {
        digester.feed(piece)?;
    }
    digester.finish()
}

/// Field by field: where the rows have the columns that are asked for, the digest is that of the rows; nothing else panics.
fn fields(format: Format, key: u8, columns: u8, data: &[u8], pieces: &[&[u8]], whole: Result<Digest, Error>) {
    let layout = Layout {
        format,
        key: usize::from(key.min(columns)),
        copied: usize::from(columns),
        generated: 0,
        placed: false,
    };
    let read = |pieces: &[&[u8]]| {
        let mut digester = TableDigester::new(layout, 8);
        for piece in pieces {
            digester.feed(piece)?;
        }
        digester.finish()
    };
    let among = read(&[data]);
    assert_eq!(read(pieces).is_ok(), among.is_ok());
    if let Ok(found) = &among {
        assert_eq!(Ok(found.digest), whole);
        assert_eq!(Ok(found), read(pieces).as_ref());
        let sum = found.buckets.iter().fold(0u64, |sum, bucket| sum.wrapping_add(*bucket));
        assert_eq!(sum, found.digest.sum as u64);
    }
    let placed = Layout { placed: true, generated: 1, ..layout };
    // An error is as good as a pair here: neither may panic.
    let _ = Rows::new(format).feed(data, |bytes| {
        let row = Row::new(placed, bytes)?;
        row.pair(row.key()).map(drop)
    });
}
