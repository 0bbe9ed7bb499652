//! Pairs as they cross from the source agent to the target agent in a sync: half as long as [`Pair`]s, and easily compressed.
//!
//! Key and row are the first 48 bits of their hashes. Two different rows that agree in all of these are taken to be one row, which the
//! digest of the whole table, 128 bits of every row, then shows: such a table is copied again.
use super::{Malformed, Pair, Place};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlimPair {
    /// 48 bits.
    pub key: u64,
    /// 48 bits.
    pub row: u64,
    pub place: Place,
}

const HASH_BYTES: usize = 6;
/// Bytes of each field, in the order in which they are packed.
const PLANES: [usize; 5] = [HASH_BYTES, HASH_BYTES, 4, 4, 2];
const PACKED: usize = HASH_BYTES + HASH_BYTES + Place::PACKED;

impl From<Pair> for SlimPair {
    fn from(pair: Pair) -> Self {
        let first = |hash: u128| (hash >> 80) as u64;
        Self {
            key: first(pair.key),
            row: first(pair.row),
            place: pair.place,
        }
    }
}

impl SlimPair {
    /// Field by field: what is alike in all pairs lies together.
    pub fn pack_all(pairs: &[Self]) -> Vec<u8> {
        let mut packed = Vec::with_capacity(pairs.len() * PACKED);
        for (plane, bytes) in PLANES.into_iter().enumerate() {
            for pair in pairs {
                packed.extend_from_slice(&pair.field(plane).to_be_bytes()[8 - bytes..]);
            }
        }
        packed
    }

    fn field(&self, plane: usize) -> u64 {
        match plane {
            0 => self.key,
            1 => self.row,
            2 => self.place.table.into(),
            3 => self.place.block.into(),
            _ => self.place.offset.into(),
        }
    }

    /// Errors when it does not hold whole pairs.
    pub fn unpack_all(packed: &[u8]) -> Result<Vec<Self>, Malformed> {
        let count = packed.len() / PACKED;
        if packed.len() != count * PACKED {
            return Err(Malformed::new("a pair that is cut"));
        }
        let mut starts = [0; PLANES.len()];
        for plane in 1..PLANES.len() {
            starts[plane] = starts[plane - 1] + count * PLANES[plane - 1];
        }
        let field = |plane: usize, at: usize| {
            let begin = starts[plane] + at * PLANES[plane];
            packed[begin..begin + PLANES[plane]]
                .iter()
                .fold(0u64, |n, byte| n << 8 | u64::from(*byte))
        };
        Ok((0..count)
            .map(|at| Self {
                key: field(0, at),
                row: field(1, at),
                place: Place {
                    table: field(2, at) as u32,
                    block: field(3, at) as u32,
                    offset: field(4, at) as u16,
                },
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pairs_cross_by_the_first_bits_of_their_hashes() {
        let pair = |n: u32| Pair {
            key: u128::MAX - u128::from(n),
            row: (1 << 100) * u128::from(n),
            count: 1,
            place: Place {
                table: u32::MAX - n,
                block: n,
                offset: u16::MAX,
            },
        };
        let pairs: Vec<SlimPair> = [pair(1), pair(70_000)].map(SlimPair::from).into();
        assert_eq!((pairs[0].key, pairs[0].row), ((1 << 48) - 1, 1 << 20));
        let packed = SlimPair::pack_all(&pairs);
        assert_eq!(packed.len(), 44);
        assert_eq!(SlimPair::unpack_all(&packed).unwrap(), pairs);
        assert!(SlimPair::unpack_all(&packed[1..]).is_err());
        assert!(SlimPair::unpack_all(&[]).unwrap().is_empty());
    }
}
