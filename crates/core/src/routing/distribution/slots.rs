//! The table of slots: which shard owns each of them.
//!
//! Owns: `SlotTable`, immutable once made, either dealt evenly or from ranges that the configuration gives; Redis Cluster's
//! 16384 slots (`Slots`) and Codis' 1024 (`CodisSlots`) are two sizes of it.
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

/// An immutable table from slot to shard index; `N` is a power of two.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotTable<const N: usize> {
    owners: Box<[u16; N]>,
}

/// Redis Cluster's slots.
pub type Slots = SlotTable<SLOTS>;

/// Codis' slots.
pub type CodisSlots = SlotTable<CODIS_SLOTS>;

/// Number of slots that Codis has.
pub const CODIS_SLOTS: usize = 1024;

/// Why ranges do not make a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotsError {
    /// A range ends before it begins, or beyond the last slot.
    Range {
        /// First slot as given.
        first: u16,
        /// Last slot as given.
        last: u16,
        /// Number of slots there are.
        slots: usize,
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
            SlotsError::Range { first, last, slots } => write!(
                f,
                "slots {first}-{last}: a range goes upwards and ends at {} at most",
                slots - 1
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

impl<const N: usize> SlotTable<N> {
    /// Deals the slots evenly, in contiguous ranges whose sizes differ by at most one, with the bounds that Redis
    /// Cluster's usual tool chooses (three shards: 0-5460, 5461-10922, 10923-16383).
    ///
    /// `shards` is taken as at least 1 and at most N; the topology refuses other numbers before.
    pub fn even(shards: usize) -> Self {
        let shards = shards.clamp(1, N);
        let mut owners = Box::new([0; N]);
        // Range `i` begins at i * N / shards, rounded half up.
        let begin = |shard: usize| (2 * shard * N + shards) / (2 * shards);
        for shard in 0..shards {
            owners[begin(shard)..begin(shard + 1)].fill(shard as u16);
        }
        Self { owners }
    }

    /// Makes a table from (first slot, last slot, shard index), in any order. Every slot must be given exactly once and
    /// every shard index be below `shards`; a shard may own no slot.
    pub fn from_ranges(ranges: &[(u16, u16, u16)], shards: usize) -> Result<Self, SlotsError> {
        let mut owners = Box::new([NOBODY; N]);
        let mut twice = Vec::new();
        for &(first, last, shard) in ranges {
            if first > last || last as usize >= N {
                return Err(SlotsError::Range {
                    first,
                    last,
                    slots: N,
                });
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
            if twice.len() >= N {
                break;
            }
        }
        if !twice.is_empty() {
            twice.sort_unstable();
            twice.dedup();
            return Err(SlotsError::Twice(runs(twice.into_iter())));
        }
        let missing = (0..N as u16).filter(|&slot| owners[slot as usize] == NOBODY);
        let missing = runs(missing);
        if !missing.is_empty() {
            return Err(SlotsError::Missing(missing));
        }
        Ok(Self { owners })
    }

    /// The shard that owns a slot. Bits beyond the slot's own are ignored.
    #[inline]
    pub fn shard(&self, slot: u16) -> u16 {
        self.owners[slot as usize & (N - 1)]
    }

    /// For each of so many shards, which share of the slots is its own.
    pub fn shares(&self, shards: usize) -> Vec<f64> {
        let mut counts = vec![0usize; shards];
        for &owner in self.owners.iter() {
            counts[owner as usize] += 1;
        }
        counts
            .iter()
            .map(|&count| count as f64 / N as f64)
            .collect()
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

impl<const N: usize> fmt::Debug for SlotTable<N> {
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
    fn codis_has_fewer_slots() {
        assert_eq!(
            CodisSlots::even(3).ranges(),
            [(0, 340, 0), (341, 682, 1), (683, 1023, 2)]
        );
        let error = CodisSlots::from_ranges(&[(0, 1024, 0)], 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "slots 0-1024: a range goes upwards and ends at 1023 at most"
        );
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
