//! Hash modulo, as Twemproxy does it.
//!
//! Owns: `Modula`: a list in which each shard stands as often as it weighs; a hash modulo the list's length is the place.
//!
//! Must stay true: shards stand in Twemproxy's order, by length of name and then by name, whatever the order in which the
//! configuration gives them.

use crate::routing::distribution::ring::{twemproxy_hash, RingMember};
use crate::routing::key_hash::KeyHash;

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modula {
    hash: KeyHash,
    signed: bool,
    places: Box<[u16]>,
}

impl Modula {
    /// The list for these shards. With none, every key is the first shard's.
    pub fn new(members: &[RingMember], hash: KeyHash, signed: bool) -> Self {
        let mut order: Vec<u16> = (0..members.len() as u16).collect();
        order.sort_by_key(|&shard| {
            let name = members[shard as usize].name.as_bytes();
            (name.len(), name)
        });
        let places = order
            .into_iter()
            .flat_map(|shard| std::iter::repeat_n(shard, members[shard as usize].weight as usize));
        let mut places: Vec<u16> = places.collect();
        if places.is_empty() {
            places.push(0);
        }
        Self {
            hash,
            signed,
            places: places.into(),
        }
    }

    /// The hash of a key's hashed part.
    #[inline]
    pub fn hash(&self, part: &[u8]) -> u32 {
        twemproxy_hash(self.hash, self.signed, part)
    }

    /// The shard of a hash.
    #[inline]
    pub fn shard(&self, hash: u32) -> u16 {
        self.places[hash as usize % self.places.len()]
    }

    /// For each of so many shards, which share of all hashes is its own.
    pub fn shares(&self, shards: usize) -> Vec<f64> {
        let mut counts = vec![0usize; shards];
        for &owner in &self.places {
            counts[owner as usize] += 1;
        }
        let places = self.places.len() as f64;
        counts.iter().map(|&count| count as f64 / places).collect()
    }
}
