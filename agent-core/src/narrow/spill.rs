//! Pairs on disk, sorted: written by partition (the first bits of the key), read back partition by partition, each sorted in memory.
//!
//! Memory: [`PARTITIONS`] buffers of [`BLOCK`] bytes while writing (8 MiB), one partition's pairs while reading: 65,000
//! of 16 million. The file has no name: it goes with the process, whatever ends it.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pgconvoy_proto::model::Pair;

const PARTITIONS: usize = 256;
/// Whole pairs, about 32 KiB.
const BLOCK: usize = 712 * Pair::PACKED;
/// Equal pairs are counted together whenever so many more have come.
const FOLD_EVERY: usize = 1 << 16;

/// What becomes of rows that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alike {
    /// They are one pair, with a count and the place of one of them: memory does not depend on how many they are.
    Counted,
    /// Each is a pair: see [`Spill::widest`].
    Apart,
}

#[derive(Default)]
struct Partition {
    /// Offsets of its blocks in the file.
    blocks: Vec<u64>,
    /// What is not a whole block yet.
    rest: Vec<u8>,
}

pub struct Spill {
    file: File,
    length: u64,
    partitions: Vec<Partition>,
}

impl Spill {
    pub fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            file: tempfile::tempfile_in(folder)?,
            length: 0,
            partitions: (0..PARTITIONS).map(|_| Partition::default()).collect(),
        })
    }

    pub fn push(&mut self, pair: &Pair) -> io::Result<()> {
        let partition = &mut self.partitions[Pair::bucket(pair.key, PARTITIONS as u32)];
        pair.pack(&mut partition.rest);
        if partition.rest.len() == BLOCK {
            self.file.write_all_at(&partition.rest, self.length)?;
            partition.blocks.push(self.length);
            partition.rest.clear();
            self.length += BLOCK as u64;
        }
        Ok(())
    }

    /// Pairs of the largest partition: what is in memory at once where rows that are alike are kept apart.
    pub fn widest(&self) -> u64 {
        let pairs = |p: &Partition| (p.blocks.len() * BLOCK + p.rest.len()) / Pair::PACKED;
        self.partitions.iter().map(pairs).max().unwrap_or(0) as u64
    }

    pub fn sorted(self, alike: Alike) -> Sorted {
        Sorted {
            file: self.file,
            partitions: self.partitions.into_iter(),
            alike,
        }
    }
}

/// Gives the partitions one after the other, each sorted.
pub struct Sorted {
    file: File,
    partitions: std::vec::IntoIter<Partition>,
    alike: Alike,
}

impl Iterator for Sorted {
    type Item = io::Result<Vec<Pair>>;

    fn next(&mut self) -> Option<Self::Item> {
        let partition = self.partitions.next()?;
        Some(load(&self.file, &partition, self.alike))
    }
}

fn load(file: &File, partition: &Partition, alike: Alike) -> io::Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    let mut folded = 0;
    let mut block = vec![0; BLOCK];
    let mut add = |bytes: &[u8], pairs: &mut Vec<Pair>| -> io::Result<()> {
        pairs.extend(Pair::unpack_all(bytes).map_err(io::Error::other)?);
        if alike == Alike::Counted && pairs.len() >= 2 * folded + FOLD_EVERY {
            fold(pairs);
            folded = pairs.len();
        }
        Ok(())
    };
    for offset in &partition.blocks {
        file.read_exact_at(&mut block, *offset)?;
        add(&block, &mut pairs)?;
    }
    add(&partition.rest, &mut pairs)?;
    match alike {
        Alike::Counted => fold(&mut pairs),
        Alike::Apart => pairs.sort_unstable(),
    }
    Ok(pairs)
}

/// Sorts; rows that are alike become one pair. They are as many as the table has copies of one row.
fn fold(pairs: &mut Vec<Pair>) {
    pairs.sort_unstable();
    pairs.dedup_by(|next, kept| {
        let alike = (next.key, next.row) == (kept.key, kept.row);
        if alike {
            kept.count = kept.count.saturating_add(next.count);
        }
        alike
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use pgconvoy_proto::model::Place;

    use super::*;

    fn pair(key: u128, row: u128, block: u32) -> Pair {
        Pair {
            key,
            row,
            count: 1,
            place: Place {
                table: 0,
                block,
                offset: 1,
            },
        }
    }

    #[test]
    fn pairs_come_back_sorted_and_counted() {
        let mut spill = Spill::new(&std::env::temp_dir()).unwrap();
        // Multiplied by an odd number, the keys come in no order; every fifth row is there twice.
        let key = |n: u128| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let rows = 300_000u32;
        for n in 0..rows {
            spill.push(&pair(key(n.into()), n.into(), n)).unwrap();
            if n % 5 == 0 {
                spill
                    .push(&pair(key(n.into()), n.into(), n + rows))
                    .unwrap();
            }
        }
        let all: Vec<Pair> = spill
            .sorted(Alike::Counted)
            .flat_map(Result::unwrap)
            .collect();
        assert_eq!(all.len(), rows as usize);
        assert!(all.is_sorted());
        assert!(
            all.iter()
                .all(|p| p.count == if p.row % 5 == 0 { 2 } else { 1 } && p.key == key(p.row))
        );
    }

    #[test]
    fn many_copies_of_one_row_are_one_pair() {
        let mut spill = Spill::new(&std::env::temp_dir()).unwrap();
        for n in 0..400_000 {
            spill.push(&pair(7, 7, n)).unwrap();
        }
        let all: Vec<Pair> = spill
            .sorted(Alike::Counted)
            .flat_map(Result::unwrap)
            .collect();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].count, 400_000);
    }

    #[test]
    fn rows_that_are_kept_apart_keep_their_places() {
        let mut spill = Spill::new(&std::env::temp_dir()).unwrap();
        for n in (0..2000).rev() {
            spill.push(&pair(7, 7, n)).unwrap();
        }
        spill.push(&pair(u128::MAX, 7, 0)).unwrap();
        assert_eq!(spill.widest(), 2000);
        let all: Vec<Pair> = spill
            .sorted(Alike::Apart)
            .flat_map(Result::unwrap)
            .collect();
        let blocks = all.iter().take(2000).map(|pair| pair.place.block);
        assert!(all.len() == 2001 && blocks.eq(0..2000));
    }
}
