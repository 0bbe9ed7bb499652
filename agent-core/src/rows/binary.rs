//! The fields of a whole row in the binary format (PostgreSQL manual, COPY, "Binary Format").

/// Before each field.
pub const LENGTH_BYTES: usize = 4;
/// Before the first field.
const COUNT_BYTES: usize = 2;

/// Where each field begins, its length first, and its value, empty for a null; up to the first that is not there whole.
pub fn fields(row: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut begin = COUNT_BYTES;
    std::iter::from_fn(move || {
        let value = value(row.get(begin..)?)?;
        let at = begin;
        begin += LENGTH_BYTES + value.len();
        Some((at, value))
    })
}

/// The value that `data` begins with, after its length.
fn value(data: &[u8]) -> Option<&[u8]> {
    let (length, rest) = data.split_first_chunk()?;
    match i32::from_be_bytes(*length) {
        -1 => Some(&[]),
        length => rest.get(..usize::try_from(length).ok()?),
    }
}
