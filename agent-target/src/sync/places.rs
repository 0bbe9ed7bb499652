//! Places of rows, gathered on disk and given back in the order in which they lie: how many there are does not matter to memory, and whoever
//! reads or deletes the rows goes through the table once.
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pgconvoy_proto::model::{Oid, Place};
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::sync_answer::Answer;

use super::Answers;

/// Places that are read, or deleted, by one statement.
const BATCH: usize = 1 << 14;
/// Blocks of a table whose places are kept, and sorted, together: 1.2 million rows at most (a block of 8 KiB has room for 291).
const RANGE: u32 = 4096;
/// Whole places, about 1 KiB: what is in memory of each range.
const CHUNK: usize = 102 * Place::PACKED;

pub struct Places {
    file: File,
    length: u64,
    /// By table and range of blocks.
    ranges: BTreeMap<(Oid, u32), Range>,
    count: u64,
}

#[derive(Default)]
struct Range {
    /// Offsets of its chunks in the file.
    chunks: Vec<u64>,
    /// What is not a whole chunk yet.
    rest: Vec<u8>,
}

impl Places {
    pub fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            file: tempfile::tempfile_in(folder)?,
            length: 0,
            ranges: BTreeMap::new(),
            count: 0,
        })
    }

    pub fn push(&mut self, place: Place) -> io::Result<()> {
        let range = self
            .ranges
            .entry((place.table, place.block / RANGE))
            .or_default();
        place.pack(&mut range.rest);
        self.count += 1;
        if range.rest.len() == CHUNK {
            self.file.write_all_at(&range.rest, self.length)?;
            range.chunks.push(self.length);
            range.rest.clear();
            self.length += CHUNK as u64;
        }
        Ok(())
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// All of them, in the order of table and ctid, some at a time.
    pub fn batches(self) -> impl Iterator<Item = io::Result<Vec<Place>>> {
        let Self { file, ranges, .. } = self;
        let sorted = ranges.into_values().map(move |range| load(&file, &range));
        sorted.flat_map(|range| {
            let (range, error) = match range {
                Ok(range) => (range, None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            let batches: Vec<_> = range
                .chunks(BATCH)
                .map(|batch| Ok(batch.to_vec()))
                .collect();
            batches.into_iter().chain(error)
        })
    }
}

fn load(file: &File, range: &Range) -> io::Result<Vec<Place>> {
    let mut places = Vec::new();
    let mut chunk = vec![0; CHUNK];
    for offset in &range.chunks {
        file.read_exact_at(&mut chunk, *offset)?;
        places.extend(Place::unpack_all(&chunk).map_err(io::Error::other)?);
    }
    places.extend(Place::unpack_all(&range.rest).map_err(io::Error::other)?);
    places.sort_unstable();
    Ok(places)
}

/// Asks the source for the rows at these places. Ends early, without an error, when nobody listens any more.
pub fn ask(places: Places, answers: &Answers) -> io::Result<()> {
    let send = |answer| {
        let answer = wire::SyncAnswer {
            answer: Some(answer),
        };
        answers.blocking_send(Ok(answer)).is_ok()
    };
    for batch in places.batches() {
        let mut packed = Vec::with_capacity(BATCH * Place::PACKED);
        for place in batch? {
            place.pack(&mut packed);
        }
        if !send(Answer::Places(packed.into())) {
            return Ok(());
        }
    }
    send(Answer::PlacesEnd(wire::PlacesEnd {}));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_come_back_in_order_some_at_a_time() {
        let mut places = Places::new(&std::env::temp_dir()).unwrap();
        let place = |n: u32| Place {
            table: 1 + n % 2,
            // Multiplied by an odd number, the blocks come in no order.
            block: n.wrapping_mul(0x9e37_79b9) >> 17,
            offset: n as u16,
        };
        for n in 0..100_000 {
            places.push(place(n)).unwrap();
        }
        assert_eq!(places.count(), 100_000);
        let batches: Vec<Vec<Place>> = places.batches().map(Result::unwrap).collect();
        assert!(batches.iter().all(|batch| batch.len() <= BATCH));
        let mut expected: Vec<Place> = (0..100_000).map(place).collect();
        expected.sort_unstable();
        assert_eq!(batches.concat(), expected);
    }
}
