//! Distributions: from the hashed part of a key to a shard.
//!
//! Owns: the choice between kinds of distribution; each kind has a file of its own. The topology holds one
//! `Distribution` per keyspace, built and validated when the topology is, and only read afterwards.
//!
//! Must stay true: `shard` is total, takes constant or logarithmic time, and depends on nothing but its arguments, so
//! every worker, every proxy and the client library agree.
//!
//! Rejected: a trait object per keyspace. The kinds are few and known, and a `match` lets the common one be inlined.

mod slots;

pub use slots::{Slots, SlotsError};

use crate::routing::hash::{crc16, SLOTS};

/// How the keys of a keyspace are spread over its shards. Later kinds (ketama, modula, range, jump ...) become variants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// 16384 slots by CRC16, each owned by a shard: Redis Cluster's way.
    Slots(Slots),
}

impl Distribution {
    /// The index of the shard that owns keys with this hashed part (see `affinity::hashed_part`).
    #[inline]
    pub fn shard(&self, hashed_part: &[u8]) -> u16 {
        match self {
            Distribution::Slots(slots) => slots.shard(self.slot(hashed_part)),
        }
    }

    /// The slot of this hashed part. It names a key's group in errors and explanations, whatever the distribution.
    #[inline]
    pub fn slot(&self, hashed_part: &[u8]) -> u16 {
        crc16(hashed_part) & (SLOTS as u16 - 1)
    }
}
