//! The table of slots: which shard owns each of the 16384.
//!
//! Owns: `Slots`, immutable once made, either dealt evenly or from ranges that the configuration gives.
//!
//! Must stay true: every slot has exactly one shard, and that shard exists. A table from ranges that would leave a slot
//! without owner, or with two, is refused with the slots named: a silent default would send keys to the wrong shard.
//!
//! Rejected: a sorted list of ranges with binary search. The flat table is 32 KiB per topology and one load per key.

use std::fmt;

use crate::routing::hash::SLOTS;

/// Marks slots without an owner while a table is made.
const NOBODY: u16 = u16::MAX;
/// Ranges that an error lists before it only counts the rest.
const RANGES_SHOWN_MAX: usize = 8;

/// An immutable table from slot to shard index.
#[derive(Clone, PartialEq, Eq)]
pub struct Slots {
    owners: Box<[u16; SLOTS]>,
}

/// Why ranges do not make a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotsError {
    /// A range ends before it begins, or beyond the last slot.
    Range {
        /// First slot as given.
        first: u16,
        /// Last slot as given.
        last: u16,
    },
    /// A range names a shard that does not exist.
    Shard {
        /// First slot of the range.
        first: u16,
        /// Last slot of the range.
        last: u16,
        /// Index as given.
        shard: u16,
        /// Number of shards there are.
        shards: usize,
    },
    /// These slots were given more than once (first and last of each run).
    Twice(Vec<(u16, u16)>),
    /// These slots were not given (first and last of each run).
    Missing(Vec<(u16, u16)>),
}

impl fmt::Display for SlotsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SlotsError::Range { first, last } => write!(
                f,
                "slots {first}-{last}: a range goes upwards and ends at {} at most",
                SLOTS - 1
            ),
            SlotsError::Shard {
                first,
                last,
                shard,
                shards,
            } => write!(
                f,
                "slots {first}-{last}: shard index {shard} is unknown, there are {shards} shards"
            ),
            SlotsError::Twice(runs) => write!(f, "given more than once: {}", Runs(runs)),
            SlotsError::Missing(runs) => write!(f, "given to no shard: {}", Runs(runs)),
        }
    }
}

impl std::error::Error for SlotsError {}

/// "slots 0-5, 7 and 3 more ranges".
struct Runs<'a>(&'a [(u16, u16)]);

impl fmt::Display for Runs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("slots")?;
        for (index, (first, last)) in self.0.iter().take(RANGES_SHOWN_MAX).enumerate() {
            let separator = if index == 0 { " " } else { ", " };
            if first == last {
                write!(f, "{separator}{first}")?;
            } else {
                write!(f, "{separator}{first}-{last}")?;
            }
        }
        match self.0.len().saturating_sub(RANGES_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more ranges"),
        }
    }
}

impl Slots {
    /// Deals the slots evenly, in contiguous ranges whose sizes differ by at most one, with the bounds that Redis
    /// Cluster's usual tool chooses (three shards: 0-5460, 5461-10922, 10923-16383).
    ///
    /// `shards` is taken as at least 1 and at most 16384; the topology refuses other numbers before.
    pub fn even(shards: usize) -> Slots {
        let shards = shards.clamp(1, SLOTS);
        let mut owners = Box::new([0; SLOTS]);
        // Range `i` begins at i * 16384 / shards, rounded half up.
        let begin = |shard: usize| (2 * shard * SLOTS + shards) / (2 * shards);
        for shard in 0..shards {
            owners[begin(shard)..begin(shard + 1)].fill(shard as u16);
        }
        Slots { owners }
    }

    /// Makes a table from (first slot, last slot, shard index), in any order. Every slot must be given exactly once and
    /// every shard index be below `shards`; a shard may own no slot.
    pub fn from_ranges(ranges: &[(u16, u16, u16)], shards: usize) -> Result<Slots, SlotsError> {
        let mut owners = Box::new([NOBODY; SLOTS]);
        let mut twice = Vec::new();
        for &(first, last, shard) in ranges {
            if first > last || last as usize >= SLOTS {
                return Err(SlotsError::Range { first, last });
            }
            if shard as usize >= shards || shard == NOBODY {
                return Err(SlotsError::Shard {
                    first,
                    last,
                    shard,
                    shards,
                });
            }
            for slot in first..=last {
                let owner = &mut owners[slot as usize];
                if *owner != NOBODY {
                    twice.push(slot);
                }
                *owner = shard;
            }
            // A list that gives everything many times over would otherwise grow the evidence without bound.
            if twice.len() >= SLOTS {
                break;
            }
        }
        if !twice.is_empty() {
            twice.sort_unstable();
            twice.dedup();
            return Err(SlotsError::Twice(runs(twice.into_iter())));
        }
        let missing = (0..SLOTS as u16).filter(|&slot| owners[slot as usize] == NOBODY);
        let missing = runs(missing);
        if !missing.is_empty() {
            return Err(SlotsError::Missing(missing));
        }
        Ok(Slots { owners })
    }

    /// The shard that owns a slot. Bits beyond the slot's fourteen are ignored.
    #[inline]
    pub fn shard(&self, slot: u16) -> u16 {
        self.owners[slot as usize & (SLOTS - 1)]
    }

    /// The table as (first slot, last slot, shard index), ascending, neighbours of one shard joined.
    pub fn ranges(&self) -> Vec<(u16, u16, u16)> {
        let mut ranges: Vec<(u16, u16, u16)> = Vec::new();
        for (slot, &owner) in (0_u16..).zip(self.owners.iter()) {
            match ranges.last_mut() {
                Some((_, last, shard)) if *shard == owner => *last = slot,
                _ => ranges.push((slot, slot, owner)),
            }
        }
        ranges
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slots").field(&self.ranges()).finish()
    }
}

/// Joins ascending slots into (first, last) of each run.
fn runs(slots: impl Iterator<Item = u16>) -> Vec<(u16, u16)> {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for slot in slots {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == slot => *last = slot,
            _ => runs.push((slot, slot)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_dealing_of_small_numbers() {
        let cases: [(usize, &[(u16, u16, u16)]); 4] = [
            (1, &[(0, 16383, 0)]),
            (2, &[(0, 8191, 0), (8192, 16383, 1)]),
            (3, &[(0, 5460, 0), (5461, 10922, 1), (10923, 16383, 2)]),
            (
                4,
                &[
                    (0, 4095, 0),
                    (4096, 8191, 1),
                    (8192, 12287, 2),
                    (12288, 16383, 3),
                ],
            ),
        ];
        for (shards, ranges) in cases {
            assert_eq!(Slots::even(shards).ranges(), ranges);
        }
    }

    #[test]
    fn even_dealing_is_contiguous_and_even() {
        for shards in [
            1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 100, 1000, 4096, 5000, 16383, 16384,
        ] {
            let ranges = Slots::even(shards).ranges();
            assert_eq!(ranges.len(), shards);
            let sizes = ranges.iter().map(|(first, last, _)| last - first);
            assert!(
                sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1,
                "{shards}"
            );
            assert!(ranges
                .iter()
                .map(|range| usize::from(range.2))
                .eq(0..shards));
        }
        assert_eq!(Slots::even(0), Slots::even(1));
        assert_eq!(Slots::even(20_000), Slots::even(SLOTS));
    }

    #[test]
    fn ranges_come_back_joined_and_sorted() {
        let given = [(8192, 16383, 0), (1, 1, 1), (2, 8191, 1), (0, 0, 2)];
        let slots = Slots::from_ranges(&given, 4).unwrap();
        assert_eq!(slots.ranges(), [(0, 0, 2), (1, 8191, 1), (8192, 16383, 0)]);
        assert_eq!(Slots::from_ranges(&slots.ranges(), 3).unwrap(), slots);
        assert_eq!(slots.shard(8192), 0);
        assert_eq!(slots.shard(8191), 1);
        assert_eq!(slots.shard(u16::MAX), slots.shard(16383));
    }

    #[test]
    fn bad_ranges_are_named() {
        let cases: [(&[(u16, u16, u16)], &str); 7] = [
            (&[], "given to no shard: slots 0-16383"),
            (&[(1, 4, 0), (6, 16383, 1)], "given to no shard: slots 0, 5"),
            (
                &[(0, 9, 0), (5, 16383, 1)],
                "given more than once: slots 5-9",
            ),
            (&[(0, 16383, 0), (3, 3, 0)], "given more than once: slots 3"),
            (
                &[(0, 16383, 2)],
                "slots 0-16383: shard index 2 is unknown, there are 2 shards",
            ),
            (
                &[(0, 16384, 0)],
                "slots 0-16384: a range goes upwards and ends at 16383 at most",
            ),
            (
                &[(5, 4, 0)],
                "slots 5-4: a range goes upwards and ends at 16383 at most",
            ),
        ];
        for (ranges, text) in cases {
            assert_eq!(Slots::from_ranges(ranges, 2).unwrap_err().to_string(), text);
        }
        let holes: Vec<_> = (0..40).map(|slot| (slot * 2, slot * 2, 0)).collect();
        let text = Slots::from_ranges(&holes, 1).unwrap_err().to_string();
        assert_eq!(
            text,
            "given to no shard: slots 1, 3, 5, 7, 9, 11, 13, 15 and 32 more ranges"
        );
    }
}
