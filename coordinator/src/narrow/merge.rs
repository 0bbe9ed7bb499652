//! Which rows differ, from the pairs of both ends. Pure.
use pgconvoy_proto::model::{Pair, Place};

/// Rows that differ: all are counted, the first ones kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// The key is at both ends, with different contents.
    pub changed: u64,
    /// At the source only.
    pub missing: u64,
    /// At the target only.
    pub extra: u64,
    pub examples: Vec<Example>,
    /// Examples to keep.
    pub keep: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Example {
    Changed {
        source: Place,
        target: Place,
    },
    /// So many alike: more than one only without a key.
    Missing {
        source: Place,
        count: u32,
    },
    Extra {
        target: Place,
        count: u32,
    },
}

impl Example {
    pub fn source(&self) -> Option<Place> {
        match *self {
            Self::Changed { source, .. } | Self::Missing { source, .. } => Some(source),
            Self::Extra { .. } => None,
        }
    }

    pub fn target(&self) -> Option<Place> {
        match *self {
            Self::Changed { target, .. } | Self::Extra { target, .. } => Some(target),
            Self::Missing { .. } => None,
        }
    }
}

impl Differences {
    pub fn new(keep: usize) -> Self {
        Self {
            keep,
            ..Self::default()
        }
    }

    pub fn total(&self) -> u64 {
        self.changed + self.missing + self.extra
    }

    /// Counts the rows of one key, all of both ends. Equal rows cancel out; what is left of both is one row that changed.
    pub fn add(&mut self, mut source: Vec<Pair>, mut target: Vec<Pair>) {
        cancel(&mut source, &mut target);
        let (mut source, mut target) = (source.into_iter(), target.into_iter());
        let (mut ours, mut theirs) = (source.next(), target.next());
        loop {
            match (&mut ours, &mut theirs) {
                (Some(our), Some(their)) => {
                    let both = our.count.min(their.count);
                    self.changed += u64::from(both);
                    self.keep(Example::Changed {
                        source: our.place,
                        target: their.place,
                    });
                    our.count -= both;
                    their.count -= both;
                }
                (Some(our), None) => {
                    self.missing += u64::from(our.count);
                    self.keep(Example::Missing {
                        source: our.place,
                        count: our.count,
                    });
                    our.count = 0;
                }
                (None, Some(their)) => {
                    self.extra += u64::from(their.count);
                    self.keep(Example::Extra {
                        target: their.place,
                        count: their.count,
                    });
                    their.count = 0;
                }
                (None, None) => return,
            }
            ours = ours.filter(|pair| pair.count > 0).or_else(|| source.next());
            theirs = theirs
                .filter(|pair| pair.count > 0)
                .or_else(|| target.next());
        }
    }

    fn keep(&mut self, example: Example) {
        if self.examples.len() < self.keep {
            self.examples.push(example);
        }
    }
}

/// Takes away the rows that are at both ends. A key has one row as a rule.
fn cancel(source: &mut Vec<Pair>, target: &mut Vec<Pair>) {
    for our in source.iter_mut() {
        if let Some(their) = target.iter_mut().find(|their| their.row == our.row) {
            let both = our.count.min(their.count);
            our.count -= both;
            their.count -= both;
        }
    }
    source.retain(|pair| pair.count > 0);
    target.retain(|pair| pair.count > 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(row: u128, count: u32) -> Pair {
        Pair {
            key: 1,
            row,
            count,
            place: place(row as u32),
        }
    }

    fn place(block: u32) -> Place {
        Place {
            table: 1,
            block,
            offset: 1,
        }
    }

    fn found(source: Vec<Pair>, target: Vec<Pair>) -> (u64, u64, u64) {
        let mut differences = Differences::new(2);
        differences.add(source, target);
        assert!(differences.examples.len() <= 2);
        (differences.changed, differences.missing, differences.extra)
    }

    #[test]
    fn equal_rows_are_no_difference() {
        assert_eq!(found(vec![pair(1, 1)], vec![pair(1, 1)]), (0, 0, 0));
        assert_eq!(found(vec![pair(1, 7)], vec![pair(1, 7)]), (0, 0, 0));
    }

    #[test]
    fn a_key_at_both_ends_is_a_changed_row() {
        assert_eq!(found(vec![pair(1, 1)], vec![pair(2, 1)]), (1, 0, 0));
    }

    #[test]
    fn a_key_at_one_end_is_missing_or_extra() {
        assert_eq!(found(vec![pair(1, 1)], vec![]), (0, 1, 0));
        assert_eq!(found(vec![], vec![pair(1, 1)]), (0, 0, 1));
    }

    #[test]
    fn copies_are_counted() {
        assert_eq!(found(vec![pair(1, 5)], vec![pair(1, 2)]), (0, 3, 0));
        assert_eq!(found(vec![pair(1, 2)], vec![pair(1, 5)]), (0, 0, 3));
        // A unique index that is not there, or broken: one key, several rows.
        let ours = vec![pair(1, 2), pair(2, 2)];
        assert_eq!(found(ours, vec![pair(2, 1), pair(3, 5)]), (3, 0, 2));
    }

    #[test]
    fn examples_name_the_places() {
        let mut differences = Differences::new(1);
        differences.add(vec![pair(1, 1)], vec![pair(2, 1)]);
        differences.add(vec![pair(3, 1)], vec![]);
        let example = Example::Changed {
            source: place(1),
            target: place(2),
        };
        assert_eq!(differences.examples, [example]);
        assert_eq!(differences.total(), 2);
    }
}
