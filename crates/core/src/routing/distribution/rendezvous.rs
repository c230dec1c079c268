//! Rendezvous hashing (highest random weight): any shard may come or go, and only its own keys move.
//!
//! Owns: `Rendezvous`: 65,536 buckets of keys, each owned by the shard that draws the best lot for it. A lot depends on
//! the bucket and the shard's name alone, so a shard that comes takes what it wins and nothing else moves.
//!
//! Flow: names and weights -> lots for every bucket and shard, once -> a flat table; a look-up is one hash and one load.
//!
//! Must stay true: the table is the same on every machine, so lots are integers, the logarithm for weights included.
//! Rejected: drawing lots at each request (its cost grows with the number of shards); a tree of groups (adding a shard
//! then moves keys between old ones too). The price of buckets: with N shards of equal weight a share deviates by about
//! sqrt(N / 65536) of itself, 4% for 100 shards, 12% for 1000; for more evenness take `jump` or slots.

use crate::routing::distribution::ring::RingMember;
use crate::routing::key_hash::xxh3;

/// Buckets of keys.
const BUCKETS: usize = 1 << 16;
/// Bits of a logarithm behind the point.
const FRACTION: u32 = 32;
/// Steps of the table of logarithms.
const STEPS: usize = 1 << 12;

/// See the head of this file.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendezvous {
    owners: Box<[u16]>,
}

impl Rendezvous {
    /// The table for these shards; a weight of 0 counts as 1.
    pub fn new(members: &[RingMember]) -> Self {
        let names: Vec<u64> = members
            .iter()
            .map(|member| xxh3(member.name.as_bytes()))
            .collect();
        let first = members.first().map_or(1, |member| member.weight);
        let owners: Box<[u16]> = if members.iter().all(|member| member.weight == first) {
            // The best of equal weights is the largest lot: no logarithm is needed to compare them.
            let best = |bucket| {
                (0..)
                    .zip(&names)
                    .max_by_key(|&(_, &name)| lot(bucket, name))
            };
            (0..BUCKETS as u64)
                .map(|bucket| best(bucket).map_or(0, |(shard, _)| shard))
                .collect()
        } else {
            let logarithms = logarithms();
            (0..BUCKETS as u64)
                .map(|bucket| weighted(bucket, &names, members, &logarithms))
                .collect()
        };
        Self { owners }
    }

    /// The shard of a hash.
    #[inline]
    pub fn shard(&self, hash: u64) -> u16 {
        self.owners[(hash >> (64 - BUCKETS.trailing_zeros())) as usize]
    }

    /// For each of so many shards, which share of all hashes is its own.
    pub fn shares(&self, shards: usize) -> Vec<f64> {
        let mut counts = vec![0usize; shards];
        for &owner in &self.owners {
            counts[owner as usize] += 1;
        }
        counts
            .iter()
            .map(|&count| count as f64 / BUCKETS as f64)
            .collect()
    }
}

impl std::fmt::Debug for Rendezvous {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rendezvous")
    }
}

/// What a shard draws for a bucket: any of 2^64 numbers, each as likely (the finisher of SplitMix64).
#[inline]
pub fn lot(bucket: u64, name: u64) -> u64 {
    let mut value = name ^ bucket.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// With u even in (0, 1), the shard with the least -log(u) / weight wins as often as its weight says.
fn weighted(bucket: u64, names: &[u64], members: &[RingMember], logarithms: &[u64]) -> u16 {
    let mut best: Option<(u16, u128, u128)> = None;
    for ((shard, &name), member) in (0..).zip(names).zip(members) {
        let cost = u128::from(negative_logarithm(lot(bucket, name), logarithms));
        let weight = u128::from(member.weight.max(1));
        // cost / weight < best cost / best weight, without a division.
        if best.is_none_or(|(_, least, of)| cost * of < least * weight) {
            best = Some((shard, cost, weight));
        }
    }
    best.map_or(0, |(shard, ..)| shard)
}

/// -log2(lot / 2^64) with `FRACTION` bits behind the point.
fn negative_logarithm(lot: u64, logarithms: &[u64]) -> u64 {
    let lot = lot | 1;
    let zeros = lot.leading_zeros();
    // The lot as 1.xxx times a power of two; the logarithm of 1.xxx from the table, straight lines between its steps.
    let fraction = (lot << zeros) << 1;
    let step = (fraction >> 52) as usize;
    let within = (fraction >> 20) & 0xffff_ffff;
    let (low, high) = (logarithms[step], logarithms[step + 1]);
    let logarithm = low + (((high - low) * within) >> 32);
    ((u64::from(zeros) + 1) << FRACTION) - logarithm
}

/// log2(1 + step / STEPS) for each step and one more, bit by bit: squaring a number doubles its logarithm.
fn logarithms() -> Vec<u64> {
    let of = |step: usize| {
        let mut value = (1u128 << 63) + ((step as u128) << 63) / STEPS as u128;
        (0..FRACTION).fold(u64::from(step == STEPS) << FRACTION, |sum, bit| {
            if step == STEPS {
                return sum;
            }
            value = (value * value) >> 63;
            let doubled = value >> 64 != 0;
            value >>= u32::from(doubled);
            sum | u64::from(doubled) << (FRACTION - 1 - bit)
        })
    };
    (0..=STEPS).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_that_of_floating_point() {
        let table = logarithms();
        for shift in 0..63 {
            for odd in [1u64, 0x1234_5678_9abc_def1, u64::MAX, 0x8000_0000_0000_0001] {
                let lot = (odd >> shift) | 1;
                let found = negative_logarithm(lot, &table) as f64 / (1u64 << FRACTION) as f64;
                let wanted = 64.0 - (lot as f64).log2();
                assert!((found - wanted).abs() < 1e-6, "{lot}: {found} {wanted}");
            }
        }
    }
}
