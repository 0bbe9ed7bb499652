//! What narrows a difference down from a table to its rows: buckets, pairs, values.
//!
//! A pair stands for a row: the hash of its key, its digest, and where it lies. Pairs cross the network packed, sorted by key
//! and digest; rows themselves only when they are asked for.
use serde::{Deserialize, Serialize};

use super::{Digest, Malformed, Oid};

/// More buckets than this need more memory than they save reading.
pub const MAX_BUCKETS: u32 = 1 << 16;

/// A count of buckets to sum: 0 (none) or a power of two in range.
pub fn bucket_count(count: u32) -> Result<u32, Malformed> {
    if count == 0 || count.is_power_of_two() && count <= MAX_BUCKETS {
        Ok(count)
    } else {
        Err(Malformed::new(format!("{count} buckets")))
    }
}

/// What a scan of a table counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDigest {
    pub digest: Digest,
    /// Of the copied columns together with the stored generated ones; of no rows where the table has none.
    pub generated: Digest,
    /// Sum modulo 2^64 of the low halves of the row digests per key bucket; empty when not asked for. Where a difference lies is what
    /// they tell; that there is none is `digest`'s to say.
    pub buckets: Vec<u64>,
}

impl TableDigest {
    /// Adds what another part of the table counts.
    pub fn add(&mut self, other: &Self) {
        self.digest += other.digest;
        self.generated += other.generated;
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
        } else {
            for (sum, more) in self.buckets.iter_mut().zip(&other.buckets) {
                *sum = sum.wrapping_add(*more);
            }
        }
    }
}

/// Where a row version lies. It is of use as long as nobody writes the row.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Place {
    /// pg_class OID *at that end* of the table that holds the row: of a partition, where the table is one. Of a page, its
    /// large object.
    pub table: Oid,
    /// Of a large object: the page, at offset 0.
    pub block: u32,
    pub offset: u16,
}

impl Place {
    /// Of `tableoid` and `ctid` as text; none when they are not.
    pub fn parse(table: &str, ctid: &str) -> Option<Self> {
        let (block, offset) = ctid.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
        Some(Self {
            table: table.parse().ok()?,
            block: block.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }
}

impl Place {
    /// Length of a packed place, bytes.
    pub const PACKED: usize = 4 + 4 + 2;

    pub fn pack(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.table.to_be_bytes());
        into.extend_from_slice(&self.block.to_be_bytes());
        into.extend_from_slice(&self.offset.to_be_bytes());
    }

    /// The places of a message; an error when it does not hold whole ones.
    pub fn unpack_all(bytes: &[u8]) -> Result<impl Iterator<Item = Self>, Malformed> {
        let (places, rest) = bytes.as_chunks::<{ Self::PACKED }>();
        if rest.is_empty() {
            Ok(places.iter().map(Self::unpack))
        } else {
            Err(Malformed::new("a place that is cut"))
        }
    }

    fn unpack(packed: &[u8; Self::PACKED]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j] = *packed;
        Self {
            table: u32::from_be_bytes([a, b, c, d]),
            block: u32::from_be_bytes([e, f, g, h]),
            offset: u16::from_be_bytes([i, j]),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({},{})", self.block, self.offset)
    }
}

/// Rows of one table that have the same key and the same contents: one, where there is a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// XXH3-128 of the key columns; the row's digest where there is no key.
    pub key: u128,
    /// The row's digest.
    pub row: u128,
    pub count: u32,
    /// Of one of them.
    pub place: Place,
}

impl Pair {
    /// Length of a packed pair, bytes.
    pub const PACKED: usize = 16 + 16 + 4 + Place::PACKED;

    /// The bucket of a key among `buckets`, a power of two: its first bits, so that pairs in the order of their keys are also in the order
    /// of their buckets.
    pub fn bucket(key: u128, buckets: u32) -> usize {
        let bits = buckets.trailing_zeros();
        if bits == 0 {
            0
        } else {
            (key >> (128 - bits)) as usize
        }
    }

    pub fn pack(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.key.to_be_bytes());
        into.extend_from_slice(&self.row.to_be_bytes());
        into.extend_from_slice(&self.count.to_be_bytes());
        self.place.pack(into);
    }

    fn unpack(packed: &[u8; Self::PACKED]) -> Self {
        let (numbers, place) = packed.split_at(Self::PACKED - Place::PACKED);
        let hash = |at: usize| {
            packed[at..at + 16]
                .iter()
                .fold(0u128, |n, byte| n << 8 | u128::from(*byte))
        };
        Self {
            key: hash(0),
            row: hash(16),
            count: numbers[32..]
                .iter()
                .fold(0u32, |n, byte| n << 8 | u32::from(*byte)),
            place: place.first_chunk().map(Place::unpack).unwrap_or_default(),
        }
    }

    /// The pairs of a message; an error when it does not hold whole ones.
    pub fn unpack_all(bytes: &[u8]) -> Result<impl Iterator<Item = Self>, Malformed> {
        let (pairs, rest) = bytes.as_chunks::<{ Self::PACKED }>();
        if rest.is_empty() {
            Ok(pairs.iter().map(Self::unpack))
        } else {
            Err(Malformed::new("a pair that is cut"))
        }
    }
}

/// Which buckets are asked for: those whose bit is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// A power of two, at most [`MAX_BUCKETS`].
    pub count: u32,
    /// One bit per bucket, the lowest first.
    bits: Vec<u8>,
}

impl Buckets {
    pub fn none(count: u32) -> Self {
        Self {
            count,
            bits: vec![0; (count as usize).div_ceil(8)],
        }
    }

    /// Errors when the count is no power of two in range, or the bits are not as many.
    pub fn new(count: u32, bits: Vec<u8>) -> Result<Self, Malformed> {
        let beyond = bits
            .last()
            .is_some_and(|last| count < 8 && last >> count != 0);
        if count == 0 || bits.len() != (count as usize).div_ceil(8) || beyond {
            return Err(Malformed::new("not as many bits as buckets"));
        }
        Ok(Self {
            count: bucket_count(count)?,
            bits,
        })
    }

    /// The buckets whose sums differ: of two scans that counted equally many.
    pub fn differing(ours: &[u64], theirs: &[u64]) -> Self {
        let mut buckets = Self::none(ours.len().min(theirs.len()) as u32);
        for (bucket, (our, their)) in ours.iter().zip(theirs).enumerate() {
            if our != their {
                buckets.insert(bucket);
            }
        }
        buckets
    }

    /// How many are asked for.
    pub fn len(&self) -> u32 {
        self.bits.iter().map(|byte| byte.count_ones()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `most` of them.
    pub fn first(&self, most: u32) -> Self {
        let mut first = Self::none(self.count);
        let set = |bucket: &usize| self.bits[bucket / 8] & (1 << (bucket % 8)) != 0;
        for bucket in (0..self.count as usize).filter(set).take(most as usize) {
            first.insert(bucket);
        }
        first
    }

    pub fn insert(&mut self, bucket: usize) {
        self.bits[bucket / 8] |= 1 << (bucket % 8);
    }

    /// Whether the key's bucket is one of them.
    pub fn contains(&self, key: u128) -> bool {
        let bucket = Pair::bucket(key, self.count);
        self.bits[bucket / 8] & (1 << (bucket % 8)) != 0
    }

    pub fn bits(&self) -> &[u8] {
        &self.bits
    }
}

/// A column's value in one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// XXH3-128 of its text; none: null.
    pub hash: Option<u128>,
    /// The text as COPY writes it, its beginning where it is long; of key columns always, of others when asked for.
    pub text: Option<String>,
}

/// A row that was asked for: the values of the table's columns in their order, key first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowValues {
    pub place: Place,
    pub values: Vec<Value>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pairs_cross_packed() {
        let pair = Pair {
            key: u128::MAX - 3,
            row: 1 << 77,
            count: 70_000,
            place: Place {
                table: 1 << 31,
                block: 77,
                offset: 65_535,
            },
        };
        let mut bytes = Vec::new();
        pair.pack(&mut bytes);
        pair.pack(&mut bytes);
        let pairs: Vec<Pair> = Pair::unpack_all(&bytes).unwrap().collect();
        assert_eq!(pairs, [pair, pair]);
        assert!(Pair::unpack_all(&bytes[1..]).is_err());
    }

    #[test]
    fn the_order_of_keys_is_the_order_of_buckets() {
        assert_eq!(Pair::bucket(u128::MAX, 1), 0);
        assert_eq!(Pair::bucket(u128::MAX, 1 << 16), 65_535);
        assert_eq!(Pair::bucket(u128::MAX >> 1, 2), 0);
        assert_eq!(Pair::bucket(1 << 127, 2), 1);
    }

    #[test]
    fn buckets_that_cannot_be_are_refused() {
        assert!(Buckets::new(3, vec![0]).is_err());
        assert!(Buckets::new(1 << 17, vec![0; 1 << 14]).is_err());
        assert!(Buckets::new(16, vec![0]).is_err());
        // Found by fuzzing: bits of buckets that are not there.
        assert!(Buckets::new(1, vec![7]).is_err() && Buckets::new(1, vec![1]).is_ok());
        let mut ours = vec![7; 16];
        ours[15] = 8;
        let mut buckets = Buckets::differing(&ours, &[7; 16]);
        assert_eq!((buckets.len(), buckets.first(0).len()), (1, 0));
        buckets.insert(3);
        assert!(buckets.first(1).contains(3 << 124) && !buckets.first(1).contains(u128::MAX));
        assert!(buckets.contains(u128::MAX) && !buckets.contains(0));
        assert_eq!(Buckets::new(16, buckets.bits().to_vec()).unwrap(), buckets);
    }
}
