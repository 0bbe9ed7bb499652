//! Compares the pairs of both ends, in the order of their keys: which rows are wanted of the source, and which are surplus here.
//!
//! Rows of one key are compared as a multiset: so are tables without a key, and tables that hold rows of several snapshots, where a key
//! may be there twice.
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use pgconvoy_agent_core::narrow::Sorted;
use pgconvoy_proto::frame::Opener;
use pgconvoy_proto::model::{Oid, Place, Relation, SlimPair};
use pgconvoy_proto::wire::sync_frame::Frame;
use tonic::Status;

use super::places::Places;
use super::{Frames, spilled};

/// What differs.
pub struct Differing {
    /// Only at the source.
    pub inserted: u64,
    /// A key that is at both ends, with other contents.
    pub changed: u64,
    /// Only at the target.
    pub deleted: u64,
    /// At the source: rows to send. Of pages their [`object`], as often as it has pages that differ.
    pub wanted: Places,
    /// At the target: rows to delete; or objects.
    pub surplus: Places,
    /// What of a place is kept.
    kept: fn(Place) -> Place,
    /// Of the pairs that came, compressed.
    pub wire_bytes: u64,
}

/// None: one of the two ends has too many rows that are alike. This end's are none then; the source's pairs are taken in any case: what it
/// sends next comes behind them.
pub fn merge(
    own: Option<Sorted>,
    frames: &mut Frames,
    relation: &Relation,
    folder: &Path,
) -> Result<Option<Differing>, Status> {
    let mut theirs = Theirs::new(frames)?;
    let Some(own) = own else {
        while theirs.next.is_some() {
            theirs.advance()?;
        }
        return Ok(None);
    };
    let mut found = Differing::nothing(relation, folder).map_err(spilled)?;
    let mut own = Own::new(own)?;
    let (mut ours_alike, mut theirs_alike) = (Vec::new(), Vec::new());
    loop {
        let key = match (own.next, theirs.next) {
            (Some(our), Some(their)) => our.key.min(their.key),
            (Some(pair), None) | (None, Some(pair)) => pair.key,
            (None, None) => break,
        };
        while let Some(pair) = own.next.filter(|pair| pair.key == key) {
            ours_alike.push(pair);
            own.advance()?;
        }
        while let Some(pair) = theirs.next.filter(|pair| pair.key == key) {
            theirs_alike.push(pair);
            theirs.advance()?;
        }
        found
            .add(&mut ours_alike, &mut theirs_alike)
            .map_err(spilled)?;
    }
    found.wire_bytes = theirs.wire_bytes;
    Ok((!theirs.given_up).then_some(found))
}

impl Differing {
    pub(super) fn nothing(relation: &Relation, folder: &Path) -> io::Result<Self> {
        Ok(Self {
            kept: match relation {
                Relation::Table => |place| place,
                Relation::LargeObjects { .. } => |place| object(place.table),
            },
            inserted: 0,
            changed: 0,
            deleted: 0,
            wanted: Places::new(folder)?,
            surplus: Places::new(folder)?,
            wire_bytes: 0,
        })
    }

    pub fn total(&self) -> u64 {
        self.inserted + self.changed + self.deleted
    }

    /// Takes the rows of one key of both ends. Rows that are at both cancel out, one by one.
    fn add(&mut self, ours: &mut Vec<SlimPair>, theirs: &mut Vec<SlimPair>) -> io::Result<()> {
        if let ([our], [their]) = (ours.as_slice(), theirs.as_slice())
            && our.row == their.row
        {
            ours.clear();
            theirs.clear();
            return Ok(());
        }
        for pairs in [&mut *ours, &mut *theirs] {
            pairs.sort_unstable_by_key(|pair| (pair.row, pair.place));
        }
        let (mut here, mut there) = (ours.drain(..).peekable(), theirs.drain(..).peekable());
        let (mut surplus, mut wanted) = (0, 0);
        loop {
            let (our, their) = (here.peek().map(|p| p.row), there.peek().map(|p| p.row));
            let (take_our, take_their) = match (our, their) {
                (None, None) => break,
                (Some(our), Some(their)) => (our <= their, their <= our),
                (our, their) => (our.is_some(), their.is_some()),
            };
            let (our, their) = (
                if take_our { here.next() } else { None },
                if take_their { there.next() } else { None },
            );
            match (our, their) {
                (Some(our), None) => {
                    self.surplus.push((self.kept)(our.place))?;
                    surplus += 1;
                }
                (None, Some(their)) => {
                    self.wanted.push((self.kept)(their.place))?;
                    wanted += 1;
                }
                _ => {}
            }
        }
        let changed = surplus.min(wanted);
        self.changed += changed;
        self.inserted += wanted - changed;
        self.deleted += surplus - changed;
        Ok(())
    }

    /// The large objects that differ, and the same as places: see [`object`].
    pub fn objects(self, folder: &Path) -> io::Result<(Vec<Oid>, Places)> {
        let mut objects = BTreeSet::new();
        for batch in self.wanted.batches().chain(self.surplus.batches()) {
            objects.extend(batch?.into_iter().map(|place| place.block));
        }
        let mut wanted = Places::new(folder)?;
        for oid in &objects {
            wanted.push(object(*oid))?;
        }
        Ok((objects.into_iter().collect(), wanted))
    }
}

/// A large object as a place: whichever of its pages differs, the object is brought over.
fn object(oid: Oid) -> Place {
    Place {
        table: 0,
        block: oid,
        offset: 0,
    }
}

/// This end's pairs.
struct Own {
    partitions: Sorted,
    partition: std::vec::IntoIter<pgconvoy_proto::model::Pair>,
    next: Option<SlimPair>,
}

impl Own {
    fn new(partitions: Sorted) -> Result<Self, Status> {
        let mut own = Self {
            partitions,
            partition: Vec::new().into_iter(),
            next: None,
        };
        own.advance()?;
        Ok(own)
    }

    fn advance(&mut self) -> Result<(), Status> {
        loop {
            if let Some(pair) = self.partition.next() {
                self.next = Some(pair.into());
                return Ok(());
            }
            match self.partitions.next() {
                Some(pairs) => self.partition = pairs.map_err(spilled)?.into_iter(),
                None => {
                    self.next = None;
                    return Ok(());
                }
            }
        }
    }
}

/// The source's pairs, as they come.
struct Theirs<'a> {
    frames: &'a mut Frames,
    opener: Opener,
    chunk: std::vec::IntoIter<SlimPair>,
    next: Option<SlimPair>,
    given_up: bool,
    wire_bytes: u64,
}

impl<'a> Theirs<'a> {
    fn new(frames: &'a mut Frames) -> Result<Self, Status> {
        let opener = Opener::new().map_err(|error| Status::internal(error.to_string()))?;
        let mut theirs = Self {
            frames,
            opener,
            chunk: Vec::new().into_iter(),
            next: None,
            given_up: false,
            wire_bytes: 0,
        };
        theirs.advance()?;
        Ok(theirs)
    }

    fn advance(&mut self) -> Result<(), Status> {
        let before = self.next;
        while self.chunk.as_slice().is_empty() {
            let Some(frame) = self.frames.blocking_recv() else {
                return Err(Status::unavailable("the source agent ended the call"));
            };
            match frame?.frame {
                Some(Frame::Pairs(chunk)) => {
                    self.wire_bytes += chunk.payload.len() as u64;
                    let packed = self.opener.open(chunk);
                    let packed = packed.map_err(|error| Status::data_loss(error.to_string()))?;
                    self.chunk = SlimPair::unpack_all(&packed)?.into_iter();
                }
                Some(Frame::PairsEnd(end)) => {
                    self.given_up = end.given_up;
                    self.next = None;
                    return Ok(());
                }
                _ => return Err(Status::invalid_argument("a frame that is not of pairs")),
            }
        }
        self.next = self.chunk.next();
        match (before, self.next) {
            (Some(before), Some(next)) if next.key < before.key => {
                Err(Status::data_loss("the source's pairs are out of order"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pairs(rows: &[u64], end: u32) -> Vec<SlimPair> {
        let each = rows.iter().enumerate();
        each.map(|(at, row)| SlimPair {
            key: 1,
            row: *row,
            place: Place {
                table: end,
                block: at as u32,
                offset: 1,
            },
        })
        .collect()
    }

    fn blocks(places: Places) -> Vec<u32> {
        let all = places.batches().flat_map(Result::unwrap);
        all.map(|place| place.block).collect()
    }

    fn differing(ours: &[u64], theirs: &[u64]) -> ((u64, u64, u64), Vec<u32>, Vec<u32>) {
        let mut found = Differing::nothing(&Relation::Table, &std::env::temp_dir()).unwrap();
        found
            .add(&mut pairs(ours, 1), &mut pairs(theirs, 2))
            .unwrap();
        let counts = (found.inserted, found.changed, found.deleted);
        (counts, blocks(found.surplus), blocks(found.wanted))
    }

    #[test]
    fn what_is_at_both_ends_stays() {
        assert_eq!(differing(&[5], &[5]), ((0, 0, 0), vec![], vec![]));
        assert_eq!(
            differing(&[5, 5, 6], &[6, 5, 5]),
            ((0, 0, 0), vec![], vec![])
        );
    }

    #[test]
    fn a_changed_row_is_deleted_and_wanted() {
        assert_eq!(differing(&[5], &[6]), ((0, 1, 0), vec![0], vec![0]));
    }

    #[test]
    fn copies_of_a_row_are_counted_and_each_has_its_place() {
        assert_eq!(differing(&[5, 5, 5], &[5]), ((0, 0, 2), vec![1, 2], vec![]));
        assert_eq!(differing(&[5], &[5, 5, 5]), ((2, 0, 0), vec![], vec![1, 2]));
        assert_eq!(
            differing(&[4, 5, 5], &[5, 7, 7]),
            ((0, 2, 0), vec![0, 2], vec![1, 2])
        );
    }

    #[test]
    fn of_large_objects_each_that_differs_is_wanted_once() {
        let folder = std::env::temp_dir();
        let large_objects = Relation::LargeObjects {
            objects: 2,
            slices: Vec::new(),
        };
        let mut found = Differing::nothing(&large_objects, &folder).unwrap();
        let page = |table: Oid, block: u32, row| SlimPair {
            key: block.into(),
            row,
            place: Place {
                table,
                block,
                offset: 0,
            },
        };
        for (oid, block) in [(7, 1), (7, 2), (9, 0)] {
            found
                .add(
                    &mut vec![page(oid, block, 1)],
                    &mut vec![page(oid, block, 2)],
                )
                .unwrap();
        }
        let (objects, wanted) = found.objects(&folder).unwrap();
        assert_eq!((objects, wanted.count()), (vec![7, 9], 2));
    }
}
