//! Rows to measure with, as COPY writes them.
use bytes::Bytes;
use pgconvoy_proto::frame::CHUNK_BYTES;
use pgconvoy_proto::model::Format;

/// Whole rows of a narrow table, a chunk of them: a key, two numbers and a padded value, as pgbench has it.
pub fn rows(format: Format) -> Bytes {
    let mut data = Vec::new();
    if format == Format::Binary {
        data.extend(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    }
    let filler = " ".repeat(84);
    for id in 1i32.. {
        let row = match format {
            Format::Text => format!("{id}\t{}\t0\t{filler}\n", id / 100_000 + 1).into_bytes(),
            Format::Binary => {
                let mut row = 4i16.to_be_bytes().to_vec();
                for number in [id, id / 100_000 + 1, 0] {
                    row.extend(4i32.to_be_bytes());
                    row.extend(number.to_be_bytes());
                }
                row.extend((filler.len() as i32).to_be_bytes());
                row.extend(filler.bytes());
                row
            }
        };
        if data.len() + row.len() > CHUNK_BYTES {
            break;
        }
        data.extend(row);
    }
    data.into()
}

/// A chunk that does not compress.
pub fn noise() -> Bytes {
    let mut state = 1u64;
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    while bytes.len() < CHUNK_BYTES {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        bytes.push((state >> 56) as u8);
    }
    bytes.into()
}
