//! Places of rows, gathered on disk: how many there are does not matter to memory.
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use pgconvoy_proto::model::Place;
use pgconvoy_proto::wire;
use pgconvoy_proto::wire::sync_answer::Answer;

use super::Answers;

/// Places that are read, or deleted, by one statement.
const BATCH: usize = 1 << 14;

pub struct Places {
    file: BufWriter<File>,
    count: u64,
}

impl Places {
    pub fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            file: BufWriter::new(tempfile::tempfile_in(folder)?),
            count: 0,
        })
    }

    pub fn push(&mut self, place: Place) -> io::Result<()> {
        let mut packed = Vec::with_capacity(Place::PACKED);
        place.pack(&mut packed);
        self.count += 1;
        self.file.write_all(&packed)
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// Batches of places, each in the order of table and ctid.
    pub fn batches(&mut self) -> io::Result<Batches> {
        self.file.flush()?;
        let mut file = self.file.get_ref().try_clone()?;
        file.rewind()?;
        Ok(Batches {
            file: BufReader::new(file),
            left: self.count,
        })
    }
}

pub struct Batches {
    file: BufReader<File>,
    left: u64,
}

impl Iterator for Batches {
    type Item = io::Result<Vec<Place>>;

    fn next(&mut self) -> Option<Self::Item> {
        let count = self.left.min(BATCH as u64);
        if count == 0 {
            return None;
        }
        self.left -= count;
        Some(self.read(count as usize))
    }
}

impl Batches {
    fn read(&mut self, count: usize) -> io::Result<Vec<Place>> {
        let mut packed = vec![0; count * Place::PACKED];
        self.file.read_exact(&mut packed)?;
        let mut places: Vec<Place> = Place::unpack_all(&packed)
            .map_err(io::Error::other)?
            .collect();
        places.sort_unstable();
        Ok(places)
    }
}

/// Asks the source for the rows at these places. Ends early, without an error, when nobody listens any more.
pub fn ask(mut places: Places, answers: &Answers) -> io::Result<()> {
    let send = |answer| {
        let answer = wire::SyncAnswer {
            answer: Some(answer),
        };
        answers.blocking_send(Ok(answer)).is_ok()
    };
    for batch in places.batches()? {
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
    fn places_come_back_in_sorted_batches() {
        let mut places = Places::new(&std::env::temp_dir()).unwrap();
        let place = |n: u32| Place {
            table: 1,
            block: n.wrapping_mul(0x9e37_79b9),
            offset: n as u16,
        };
        for n in 0..40_000 {
            places.push(place(n)).unwrap();
        }
        assert_eq!(places.count(), 40_000);
        let batches: Vec<Vec<Place>> = places.batches().unwrap().map(Result::unwrap).collect();
        assert_eq!(batches.len(), 3);
        assert!(batches.iter().all(|batch| batch.is_sorted()));
        let mut all = batches.concat();
        all.sort_unstable();
        let mut expected: Vec<Place> = (0..40_000).map(place).collect();
        expected.sort_unstable();
        assert_eq!(all, expected);
    }
}
