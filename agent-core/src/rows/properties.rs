//! Properties of digests and of padding, on rows that proptest makes up.
#![allow(clippy::unwrap_used)]
use pgconvoy_proto::model::{Digest, Format};
use proptest::prelude::*;

use super::arrays::Arrays;
use super::fields::{Layout, Row, Rows, TableDigester};
use super::padding::Padding;
use super::{Error, RowDigester};

/// Rows of `columns` values, none: null.
type Values = Vec<Vec<Option<Vec<u8>>>>;

fn rows(columns: usize) -> impl Strategy<Value = Values> {
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
    prop::collection::vec(prop::collection::vec(value, columns), 0..20)
}

/// As COPY writes them (PostgreSQL manual, COPY, "File Formats").
fn encode(format: Format, rows: &Values) -> Vec<u8> {
    match format {
        Format::Text => rows.iter().flat_map(|row| text(row)).collect(),
        Format::Binary => {
            let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
            for row in rows {
                data.extend((row.len() as i16).to_be_bytes());
                for value in row {
                    let length = value.as_ref().map_or(-1, |value| value.len() as i32);
                    data.extend(length.to_be_bytes());
                    data.extend(value.iter().flatten());
                }
            }
            data.extend((-1i16).to_be_bytes());
            data
        }
    }
}

fn text(row: &[Option<Vec<u8>>]) -> Vec<u8> {
    let fields: Vec<Vec<u8>> = row
        .iter()
        .map(|value| match value {
            None => b"\\N".to_vec(),
            Some(value) => value
                .iter()
                .flat_map(|byte| match byte {
                    b'\n' => b"\\n".to_vec(),
                    b'\t' => b"\\t".to_vec(),
                    b'\\' => b"\\\\".to_vec(),
                    byte => vec![*byte],
                })
                .collect(),
        })
        .collect();
    let mut line = fields.join(&b'\t');
    line.push(b'\n');
    line
}

fn array() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    prop::collection::vec(
        prop::option::weighted(0.8, prop::collection::vec(any::<u8>(), 0..5)),
        0..4,
    )
}

/// As `array_send` writes it: one dimension, or none.
fn encode_array(elements: &[Option<Vec<u8>>], flag: bool) -> Vec<u8> {
    let mut data = i32::from(!elements.is_empty()).to_be_bytes().to_vec();
    data.extend(i32::from(flag).to_be_bytes());
    data.extend(17u32.to_be_bytes());
    if !elements.is_empty() {
        data.extend((elements.len() as i32).to_be_bytes());
        data.extend(1i32.to_be_bytes());
    }
    for element in elements {
        data.extend(
            element
                .as_ref()
                .map_or(-1, |element| element.len() as i32)
                .to_be_bytes(),
        );
        data.extend(element.iter().flatten());
    }
    data
}

fn digest(format: Format, rows: &Values) -> Digest {
    let mut digester = RowDigester::new(format);
    digester.feed(&encode(format, rows)).unwrap();
    digester.finish().unwrap()
}

fn pieces<'a>(mut data: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for cut in cuts {
        let (piece, rest) = data.split_at((*cut).min(data.len()));
        pieces.push(piece);
        data = rest;
    }
    pieces.push(data);
    pieces
}

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::Text), Just(Format::Binary)]
}

proptest! {
    #[test]
    fn order_does_not_matter(format in format(), (rows, shuffled) in rows(3).prop_flat_map(|rows| {
        (Just(rows.clone()), Just(rows).prop_shuffle())
    })) {
        prop_assert_eq!(digest(format, &rows), digest(format, &shuffled));
    }

    #[test]
    fn digests_of_parts_add_up(format in format(), rows in rows(3), at in any::<prop::sample::Index>()) {
        let (first, second) = rows.split_at(at.index(rows.len() + 1));
        let mut sum = digest(format, &first.to_vec());
        sum += digest(format, &second.to_vec());
        prop_assert_eq!(sum, digest(format, &rows));
    }

    #[test]
    fn another_multiset_has_another_digest(format in format(), mut a in rows(2), mut b in rows(2)) {
        let equal = digest(format, &a) == digest(format, &b);
        a.sort();
        b.sort();
        prop_assert_eq!(equal, a == b);
    }

    #[test]
    fn the_way_the_data_is_cut_does_not_matter(
        format in format(), rows in rows(3), cuts in prop::collection::vec(0usize..40, 0..12)
    ) {
        let data = encode(format, &rows);
        let mut cut = RowDigester::new(format);
        for piece in pieces(&data, &cuts) {
            cut.feed(piece).unwrap();
        }
        prop_assert_eq!(cut.finish().unwrap(), digest(format, &rows));
    }

    #[test]
    fn fields_are_found_wherever_the_data_is_cut(
        format in format(), rows in rows(4), cuts in prop::collection::vec(0usize..40, 0..12)
    ) {
        // Three columns are copied, one is generated.
        let layout = Layout { format, key: 2, copied: 3, generated: 1, placed: false };
        let data = encode(format, &rows);
        let mut digester = TableDigester::new(layout, Rows::new(format), 16);
        for piece in pieces(&data, &cuts) {
            digester.feed(piece).unwrap();
        }
        let found = digester.finish().unwrap();
        let copied: Values = rows.iter().map(|row| row[..3].to_vec()).collect();
        prop_assert_eq!(found.digest, digest(format, &copied));
        prop_assert_eq!(found.generated.sum, digest(format, &rows).sum);
        let sum = found.buckets.iter().fold(0u64, |sum, bucket| sum.wrapping_add(*bucket));
        prop_assert_eq!(sum, found.digest.sum as u64);
    }

    #[test]
    fn equal_keys_have_equal_hashes(format in format(), rows in rows(3)) {
        let layout = Layout { format, key: 2, copied: 3, generated: 0, placed: false };
        let mut keys = Vec::new();
        let mut reader = Rows::new(format);
        reader.feed(&encode(format, &rows), |bytes| {
            keys.push(Row::new(layout, bytes)?.key());
            Ok::<(), Error>(())
        }).unwrap();
        for (a, key_a) in rows.iter().zip(&keys) {
            for (b, key_b) in rows.iter().zip(&keys) {
                prop_assert_eq!(a[..2] == b[..2], key_a == key_b);
            }
        }
    }

    /// Whatever the flags say of nulls that are not there, and wherever the data is cut, the digest is that of the array as it is loaded.
    #[test]
    fn what_a_flag_of_no_nulls_says_does_not_matter(
        rows in prop::collection::vec((any::<u8>(), array(), any::<bool>()), 0..20),
        cuts in prop::collection::vec(0usize..40, 0..12),
    ) {
        let table = |flagged: bool| -> Values {
            rows.iter().map(|(n, elements, idle)| {
                let nulls = elements.iter().any(Option::is_none);
                let array = encode_array(elements, nulls || flagged && *idle);
                vec![Some(vec![*n]), Some(array), Some(vec![*n; 3])]
            }).collect()
        };
        let data = encode(Format::Binary, &table(true));
        let mut digester = RowDigester {
            arrays: Some(Arrays::new(vec![false, true])),
            ..RowDigester::new(Format::Binary)
        };
        for piece in pieces(&data, &cuts) {
            digester.feed(piece).unwrap();
        }
        prop_assert_eq!(digester.finish().unwrap(), digest(Format::Binary, &table(false)));
    }

    #[test]
    fn what_is_no_array_is_left_alone(rows in rows(2)) {
        let arrays = Arrays::new(vec![true, true]);
        for row in &rows {
            let data = encode(Format::Binary, &vec![row.clone()]);
            let row = &data[19..data.len() - 2];
            prop_assert_eq!(arrays.as_loaded(row).len(), row.len());
        }
    }

    /// Wherever the data is cut: rows that lie whole between two cuts lose their padding and nothing else, all others stay, and the
    /// digest is that of the data as it came.
    #[test]
    fn only_padding_of_whole_rows_goes(
        format in format(),
        rows in prop::collection::vec(prop::collection::vec(prop::option::of("[ab ]{0,3} {0,40}"), 4), 0..20),
        mut padded in prop::collection::vec(any::<bool>(), 4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        padded[2] = true;
        let bytes = |row: &Vec<Option<String>>| -> Vec<Option<Vec<u8>>> {
            row.iter().map(|value| value.clone().map(String::into_bytes)).collect()
        };
        let whole: Values = rows.iter().map(bytes).collect();
        let data = encode(format, &whole);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(data.len() + 1)).collect();
        cuts.sort_unstable();
        let (mut out, mut from) = (Vec::new(), 0);
        let mut digester = RowDigester::new(format);
        let padding = Padding::new(format, padded.clone());
        for &cut in cuts.iter().chain([&data.len()]) {
            digester.feed_unpadded(&data[from..cut], &padding, &mut out).unwrap();
            from = cut;
        }
        prop_assert_eq!(digester.finish().unwrap(), digest(format, &whole));

        // Of binary data: the header, and with the trailer.
        let (header, around) = if format == Format::Binary { (19, 21) } else { (0, 0) };
        let mut end = header;
        let expected: Values = rows.iter().map(|row| {
            let begin = end;
            end = begin + encode(format, &vec![bytes(row)]).len() - around;
            if cuts.iter().any(|cut| (begin + 1..end).contains(cut)) {
                return bytes(row);
            }
            bytes(&row.iter().zip(&padded).map(|(value, padded)| match value {
                Some(value) if *padded => Some(value.trim_end_matches(' ').to_owned()),
                value => value.clone(),
            }).collect())
        }).collect();
        prop_assert_eq!(out, encode(format, &expected));
    }
}
