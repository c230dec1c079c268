//! Rings: points on a circle of 32 bits, each a shard's.
//!
//! Owns: `Ring`, the sorted points of Twemproxy's ketama, of redis-rb's three eras and of Predis' two rings, and how a hash
//! finds its point. What differs between them is how points are made, how keys are hashed, and on which side of a hash its
//! point lies.
//!
//! Flow: names and weights -> points -> sorted, equal ones settled -> an index over the top bits, so that a look-up
//! searches among two points or so, however many shards there are.
//!
//! Must stay true: every point lies where the original puts it; of two equal points the one that was added last counts
//! (in the originals it replaces the first, but for Twemproxy, which leaves it open).
//! Rejected: a binary search over all points. It is logarithmic too, but misses the cache at each of its first steps.

use crate::routing::key_hash::{crc32, md5, u32_at, KeyHash};
use std::fmt;

/// Points of a shard of ordinary weight: ketama's and redis-rb's.
const POINTS: usize = 160;
/// The same of Predis' HashRing.
const PREDIS_REPLICAS: f64 = 128.0;

/// A shard, as a ring sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingMember {
    /// What is hashed for it.
    pub name: String,
    /// Its share; 1 is ordinary.
    pub weight: u32,
}

/// How keys are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hashing {
    /// By one of Twemproxy's functions; an empty key has the hash 0.
    Twemproxy { hash: KeyHash, signed: bool },
    /// By CRC32: redis-rb and Predis' HashRing.
    Crc32,
    /// By the first four bytes of MD5, the lowest first: Predis' KetamaRing.
    Md5,
}

/// Where the point of a hash lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The first one at or after it; past the last, the first.
    After,
    /// The last one at or before it; before the first, the last.
    Before,
}

/// See the head of this file.
#[derive(Clone, PartialEq, Eq)]
pub struct Ring {
    name: &'static str,
    hashing: Hashing,
    side: Side,
    points: Box<[u32]>,
    owners: Box<[u16]>,
    /// For each value of a hash's top bits the first point that is not below it; one more at the end.
    index: Box<[u32]>,
    shift: u32,
}

impl Ring {
    /// Twemproxy's ketama.
    pub fn ketama(members: &[RingMember], hash: KeyHash, signed: bool) -> Self {
        let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        let mut points = Vec::new();
        for (owner, member) in (0..).zip(members) {
            // In floats of 32 bits, as the original reckons; see the facts on weights in the tests.
            let share = member.weight as f32 / total as f32;
            let quads = share * POINTS as f32 / 4.0 * members.len() as f32;
            let digests = (f64::from(quads) + 1e-10) as f32;
            push_quads(&mut points, &member.name, digests.floor() as usize, owner);
        }
        Self::new(
            "ketama",
            Hashing::Twemproxy { hash, signed },
            Side::After,
            points,
        )
    }

    /// redis-rb up to 4.8: `is_md5` false, points by CRC32; from 5.0 on by the first four bytes of MD5, the highest first.
    pub fn redis_rb(members: &[RingMember], is_md5: bool) -> Self {
        let mut points = Vec::with_capacity(members.len() * POINTS);
        for (owner, member) in (0..).zip(members) {
            for number in 0..POINTS {
                let text = format!("{}:{number}", member.name);
                let point = if is_md5 {
                    u32_at(&md5(text.as_bytes()), 0).swap_bytes()
                } else {
                    crc32(text.as_bytes())
                };
                points.push((point, owner));
            }
        }
        Self::new("redis-rb", Hashing::Crc32, Side::Before, points)
    }

    /// Predis' HashRing.
    pub fn predis(members: &[RingMember]) -> Self {
        let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        let mut points = Vec::new();
        for (owner, member) in (0..).zip(members) {
            let share = f64::from(member.weight) / total as f64;
            let replicas = (share * members.len() as f64 * PREDIS_REPLICAS).round() as usize;
            points.extend(
                (0..replicas).map(|n| (crc32(format!("{}:{n}", member.name).as_bytes()), owner)),
            );
        }
        Self::new("predis", Hashing::Crc32, Side::Before, points)
    }

    /// Predis' KetamaRing.
    pub fn predis_ketama(members: &[RingMember]) -> Self {
        let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        let mut points = Vec::new();
        for (owner, member) in (0..).zip(members) {
            let share = f64::from(member.weight) / total as f64;
            let digests = (share * members.len() as f64 * (POINTS / 4) as f64).floor() as usize;
            push_quads(&mut points, &member.name, digests, owner);
        }
        Self::new("predis-ketama", Hashing::Md5, Side::After, points)
    }

    /// At least one point is needed: with none, every key is the first shard's.
    fn new(name: &'static str, hashing: Hashing, side: Side, mut points: Vec<(u32, u16)>) -> Self {
        if points.is_empty() {
            points.push((0, 0));
        }
        // A stable sort keeps equal points in the order in which they were added; the last of them stays.
        points.sort_by_key(|&(point, _)| point);
        points.reverse();
        points.dedup_by_key(|&mut (point, _)| point);
        points.reverse();
        let bits = points.len().next_power_of_two().trailing_zeros().max(1);
        let shift = 32 - bits;
        let index = (0..=1u64 << bits)
            .map(|top| points.partition_point(|&(point, _)| u64::from(point) < top << shift) as u32)
            .collect();
        Self {
            name,
            hashing,
            side,
            owners: points.iter().map(|&(_, owner)| owner).collect(),
            points: points.iter().map(|&(point, _)| point).collect(),
            index,
            shift,
        }
    }

    /// Whose ring it is.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The hash of a key's hashed part.
    #[inline]
    pub fn hash(&self, part: &[u8]) -> u32 {
        match self.hashing {
            Hashing::Twemproxy { hash, signed } => twemproxy_hash(hash, signed, part),
            Hashing::Crc32 => crc32(part),
            Hashing::Md5 => u32_at(&md5(part), 0),
        }
    }

    /// The shard of a hash.
    #[inline]
    pub fn shard(&self, hash: u32) -> u16 {
        self.owners[self.position(hash)]
    }

    /// The owners of the points from a hash's own on, once round, in the direction in which the ring is searched.
    pub fn owners_from(&self, hash: u32) -> impl Iterator<Item = u16> + '_ {
        let (start, count) = (self.position(hash), self.owners.len());
        let is_forward = self.side == Side::After;
        (0..count).map(move |step| {
            let step = if is_forward { step } else { count - step };
            self.owners[(start + step) % count]
        })
    }

    /// Points with their owners, ascending.
    pub fn points(&self) -> impl Iterator<Item = (u32, u16)> + '_ {
        self.points.iter().copied().zip(self.owners.iter().copied())
    }

    /// For each of so many shards, which share of all hashes is its own.
    pub fn shares(&self, shards: usize) -> Vec<f64> {
        let mut widths = vec![0u64; shards];
        let count = self.points.len();
        for (at, (&point, &owner)) in self.points.iter().zip(&self.owners).enumerate() {
            let width = match self.side {
                Side::After => point.wrapping_sub(self.points[(at + count - 1) % count]),
                Side::Before => self.points[(at + 1) % count].wrapping_sub(point),
            };
            // One point alone has the whole circle.
            widths[owner as usize] += if count == 1 {
                1 << 32
            } else {
                u64::from(width)
            };
        }
        widths
            .iter()
            .map(|&width| width as f64 / (1u64 << 32) as f64)
            .collect()
    }

    #[inline]
    fn position(&self, hash: u32) -> usize {
        let top = (hash >> self.shift) as usize;
        let (low, high) = (self.index[top] as usize, self.index[top + 1] as usize);
        let near = &self.points[low..high];
        match self.side {
            Side::After => {
                let at = low + near.partition_point(|&point| point < hash);
                if at == self.points.len() {
                    0
                } else {
                    at
                }
            }
            Side::Before => {
                let at = low + near.partition_point(|&point| point <= hash);
                at.checked_sub(1).unwrap_or(self.points.len() - 1)
            }
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Ring({:?}, {:?}, {} points)",
            self.hashing,
            self.side,
            self.points.len()
        )
    }
}

/// A key's hash as Twemproxy takes it: it does not hash an empty key.
#[inline]
pub fn twemproxy_hash(hash: KeyHash, signed: bool, part: &[u8]) -> u32 {
    if part.is_empty() {
        0
    } else {
        hash.of(part, signed)
    }
}

/// Four points for each digest of `name-number`.
fn push_quads(points: &mut Vec<(u32, u16)>, name: &str, digests: usize, owner: u16) {
    for number in 0..digests {
        let digest = md5(format!("{name}-{number}").as_bytes());
        points.extend([0, 4, 8, 12].map(|at| (u32_at(&digest, at), owner)));
    }
}
