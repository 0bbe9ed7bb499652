#![allow(clippy::unwrap_used)]
use super::*;
use crate::rows::RowDigester;

const PLAIN: Layout = Layout {
    format: Format::Text,
    key: 1,
    copied: 2,
    generated: 0,
    placed: false,
};

/// Rows of three columns (one a key, one more that is copied, one generated) and the place, as COPY writes them.
fn placed(format: Format, rows: &[[Option<&str>; 3]]) -> Vec<u8> {
    let rows = rows.iter().enumerate();
    match format {
        Format::Text => rows
            .flat_map(|(n, row)| {
                let fields: Vec<&str> = row.iter().map(|v| v.unwrap_or("\\N")).collect();
                format!("{}\t16400\t({n},{})\n", fields.join("\t"), n + 1).into_bytes()
            })
            .collect(),
        Format::Binary => {
            let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
            for (n, row) in rows {
                data.extend(5i16.to_be_bytes());
                for value in row {
                    field(&mut data, value.map(str::as_bytes));
                }
                field(&mut data, Some(&16400u32.to_be_bytes()));
                let mut ctid = (n as u32).to_be_bytes().to_vec();
                ctid.extend((n as u16 + 1).to_be_bytes());
                field(&mut data, Some(&ctid));
            }
            data.extend((-1i16).to_be_bytes());
            data
        }
    }
}

fn copied(format: Format, rows: &[[Option<&str>; 3]]) -> Vec<u8> {
    match format {
        Format::Text => rows
            .iter()
            .flat_map(|row| {
                let fields: Vec<&str> = row[..2].iter().map(|v| v.unwrap_or("\\N")).collect();
                format!("{}\n", fields.join("\t")).into_bytes()
            })
            .collect(),
        Format::Binary => {
            let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
            for row in rows {
                data.extend(2i16.to_be_bytes());
                for value in &row[..2] {
                    field(&mut data, value.map(str::as_bytes));
                }
            }
            data.extend((-1i16).to_be_bytes());
            data
        }
    }
}

fn field(data: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => data.extend((-1i32).to_be_bytes()),
        Some(value) => {
            data.extend((value.len() as i32).to_be_bytes());
            data.extend(value);
        }
    }
}

const ROWS: &[[Option<&str>; 3]] = &[
    [Some("1"), Some("one"), Some("x")],
    [Some("2"), None, Some("")],
    [Some("3"), Some(""), None],
    [Some("4"), Some("one"), Some("x")],
];

fn layout(format: Format) -> Layout {
    Layout {
        format,
        key: 1,
        copied: 2,
        generated: 1,
        placed: true,
    }
}

fn pairs(format: Format, data: &[u8], cut: usize) -> Vec<Pair> {
    let mut rows = Rows::new(format);
    let mut pairs = Vec::new();
    for data in [&data[..cut], &data[cut..]] {
        rows.feed(data, |bytes| {
            let row = Row::new(layout(format), bytes)?;
            pairs.push(row.pair(row.key())?);
            Ok(())
        })
        .unwrap();
    }
    rows.finish().unwrap();
    pairs
}

#[test]
fn the_copied_columns_count_as_if_copy_had_written_these_alone() {
    for format in [Format::Text, Format::Binary] {
        let mut alone = RowDigester::new(format);
        alone.feed(&copied(format, ROWS)).unwrap();
        let mut among = TableDigester::new(layout(format), Rows::new(format), 4);
        among.feed(&placed(format, ROWS)).unwrap();
        let among = among.finish().unwrap();
        assert_eq!(alone.finish().unwrap(), among.digest, "{format}");
        let sum = among.buckets.iter().fold(0u64, |a, b| a.wrapping_add(*b));
        assert_eq!(sum, among.digest.sum as u64, "{format}");
        assert_eq!(among.generated.rows, 4);
    }
}

#[test]
fn a_generated_column_is_digested_apart() {
    let mut changed = ROWS.to_vec();
    changed[1][2] = Some("y");
    let digest = |rows: &[[Option<&str>; 3]]| {
        let mut digester = TableDigester::new(layout(Format::Binary), Rows::new(Format::Binary), 0);
        digester.feed(&placed(Format::Binary, rows)).unwrap();
        digester.finish().unwrap()
    };
    let (before, after) = (digest(ROWS), digest(&changed));
    assert_eq!(before.digest, after.digest);
    assert_ne!(before.generated, after.generated);
}

#[test]
fn pairs_tell_key_digest_and_place_wherever_the_data_is_cut() {
    for format in [Format::Text, Format::Binary] {
        let data = placed(format, ROWS);
        let whole = pairs(format, &data, 0);
        for cut in 0..data.len() {
            assert_eq!(pairs(format, &data, cut), whole, "{format} {cut}");
        }
        let place = |n: u32| Place {
            table: 16400,
            block: n,
            offset: n as u16 + 1,
        };
        let places: Vec<Place> = whole.iter().map(|pair| pair.place).collect();
        assert_eq!(places, (0..4).map(place).collect::<Vec<_>>());
        let mut other = ROWS.to_vec();
        other[2][1] = Some("three");
        let other = pairs(format, &placed(format, &other), 0);
        assert_eq!(whole[2].key, other[2].key);
        assert_ne!(whole[2].row, other[2].row);
        assert_eq!(whole[3], other[3]);
    }
}

#[test]
fn a_row_of_other_columns_is_refused() {
    assert!(Row::new(PLAIN, b"1\ttwo").is_ok());
    assert_eq!(Row::new(PLAIN, b"1").err(), Some(Error::Columns));
    assert_eq!(Row::new(PLAIN, b"1\ttwo\t3").err(), Some(Error::Columns));
    let binary = Layout {
        format: Format::Binary,
        ..PLAIN
    };
    assert_eq!(Row::new(binary, &[0, 1]).err(), Some(Error::Columns));
    assert_eq!(Row::new(binary, &[0, 2, 0]).err(), Some(Error::Truncated));
}

#[test]
fn a_table_without_columns_has_rows() {
    let layout = Layout {
        key: 0,
        copied: 0,
        ..PLAIN
    };
    let row = Row::new(layout, b"").unwrap();
    assert_eq!(row.copied().0, 0);
    let placed = Layout {
        placed: true,
        ..layout
    };
    let row = Row::new(placed, b"16400\t(7,9)").unwrap();
    assert_eq!(row.pair(row.key()).unwrap().place.block, 7);
}
