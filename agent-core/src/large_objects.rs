//! The pages of large objects as rows: how they are read. Both ends cut alike, or their digests could not agree.
//!
//! Read with the functions for large objects, under the transaction's snapshot: pg_largeobject is for superusers only.
use pgconvoy_proto::model::{Part, Place};

/// Bytes of a page; the last one of an object may be shorter.
pub const PAGE_BYTES: u32 = 256 << 10;
/// Of the pseudo table; the first two are its key.
pub const COLUMNS: [&str; 3] = ["loid", "page", "data"];

/// src/include/libpq/libpq-fs.h
const INV_READ: u32 = 0x40000;
/// src/include/libpq/libpq-fs.h: SEEK_END
const FROM_END: u32 = 2;

/// FROM for the pages of a part, or of all large objects.
pub fn of_part(part: Option<&Part>) -> String {
    pages(part.and_then(|part| part.condition("oid", |oid| oid.to_string())))
}

/// FROM for the pages of the objects that have pages at these places.
pub fn of_places(places: &[Place]) -> String {
    let oids: Vec<String> = places.iter().map(|place| place.table.to_string()).collect();
    pages(Some(format!("oid = ANY ('{{{}}}'::oid[])", oids.join(","))))
}

/// The pages of the objects that the condition on `oid` selects. Pages of nothing but zeros are left out (holes read so) unless they
/// are the last, which carries the length; an empty object has one page without bytes. In place of what tells where a table's
/// row lies (see [`Place`]) stand object and page.
///
/// Each level of the query runs one function per row, in this order. With joins instead PostgreSQL memoizes the lengths by
/// descriptor, and descriptors are used again (seen on 15).
fn pages(condition: Option<String>) -> String {
    let range = condition
        .map(|condition| format!(" WHERE {condition}"))
        .unwrap_or_default();
    let opened = format!(
        "SELECT oid, lo_open(oid, {INV_READ}) AS fd FROM pg_largeobject_metadata{range} OFFSET 0"
    );
    let measured = format!(
        "SELECT oid, fd, lo_lseek64(fd, 0, {FROM_END}) AS bytes FROM ({opened}) opened OFFSET 0"
    );
    let closed = format!(
        "SELECT oid, (greatest(bytes - 1, 0) / {PAGE_BYTES})::int4 + lo_close(fd) AS last FROM ({measured}) measured OFFSET 0"
    );
    let paged = format!(
        "SELECT oid, last, generate_series(0, last) AS page FROM ({closed}) closed OFFSET 0"
    );
    let read = format!(
        "SELECT oid, last, page, lo_get(oid, page::int8 * {PAGE_BYTES}, {PAGE_BYTES}) AS data FROM ({paged}) paged OFFSET 0"
    );
    let [oid, page, data] = COLUMNS;
    format!(
        "(SELECT oid AS {oid}, page AS {page}, data AS {data}, oid AS tableoid, format('(%s,0)', page)::tid AS ctid
          FROM ({read}) read WHERE page = last OR data <> (SELECT decode(repeat('00', {PAGE_BYTES}), 'hex'))) pages"
    )
}
