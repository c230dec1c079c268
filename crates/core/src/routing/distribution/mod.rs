//! Distributions: from the hashed part of a key to a shard.
//!
//! Owns: the choice between kinds of distribution; each kind has a file of its own. The topology holds one
//! `Distribution` per keyspace, built and validated when the topology is, and only read afterwards.
//!
//! Must stay true: `shard` takes constant or logarithmic time, and depends on nothing but its arguments, so every worker,
//! every proxy and the client library agree. Only `Ranges` may have no shard for a key. `Random` is none of this: who
//! routes draws a number instead of asking it.
//!
//! Rejected: a trait object per keyspace. The kinds are few and known, and a `match` lets the common one be inlined.

mod jump;
mod modula;
mod range;
mod rendezvous;
mod ring;
mod slots;

pub use jump::jump;
pub use modula::Modula;
pub use range::{PartGiven, Ranges, TableGiven};
pub use rendezvous::Rendezvous;
pub use ring::{Ring, RingMember};
pub use slots::{CodisSlots, SlotTable, Slots, SlotsError, CODIS_SLOTS};

use crate::routing::admission::Admission;
use crate::routing::hash::{crc16, SLOTS};
use crate::routing::key_hash::{crc32, xxh3};

/// How the keys of a keyspace are spread over its shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// 16384 slots by CRC16, each owned by a shard: Redis Cluster's way.
    Slots(Slots),
    /// 1024 slots by CRC32, each owned by a shard: Codis' way.
    Codis(CodisSlots),
    /// Points on a circle: Twemproxy's ketama, redis-rb, Predis.
    Ring(Ring),
    /// Hash modulo the weights: Twemproxy's way.
    Modula(Modula),
    /// Any of so many shards; only where a lost key does no harm.
    Random(u16),
    /// Tables of ids.
    Ranges(Ranges),
    /// Jump consistent hash over so many shards.
    Jump(u16),
    /// Highest random weight.
    Rendezvous(Rendezvous),
}

/// What a key's group is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Redis Cluster's or Codis' slot.
    Slot(u16),
    /// The hash that decides.
    Hash(u64),
    /// The key itself is looked up, or nothing is.
    Key,
}

impl Group {
    /// As errors say it, behind the key.
    pub fn phrase(self) -> String {
        match self {
            Self::Slot(slot) => format!("in slot {slot}"),
            Self::Hash(hash) => format!("with hash {hash}"),
            Self::Key => String::new(),
        }
    }

    /// As explanations list it: the word and the number.
    pub fn label(self) -> String {
        match self {
            Self::Slot(slot) => format!("slot {slot} "),
            Self::Hash(hash) => format!("hash {hash} "),
            Self::Key => String::new(),
        }
    }
}

/// Redis Cluster's slot of a hashed part.
#[inline]
pub fn cluster_slot(part: &[u8]) -> u16 {
    crc16(part) & (SLOTS as u16 - 1)
}

impl Distribution {
    /// The index of the shard that owns a key; `part` is what of it is hashed (see `affinity::hashed_part`).
    #[inline]
    pub fn shard(&self, key: &[u8], part: &[u8]) -> Option<u16> {
        match self {
            Self::Slots(slots) => Some(slots.shard(cluster_slot(part))),
            Self::Codis(slots) => Some(slots.shard(codis_slot(part))),
            Self::Ring(ring) => Some(ring.shard(ring.hash(part))),
            Self::Modula(modula) => Some(modula.shard(modula.hash(part))),
            Self::Ranges(ranges) => ranges.shard(key, part),
            Self::Jump(shards) => Some(jump(xxh3(part), *shards)),
            Self::Rendezvous(rendezvous) => Some(rendezvous.shard(xxh3(part))),
            Self::Random(shards) => Some((xxh3(part) % u64::from(*shards).max(1)) as u16),
        }
    }

    /// The shard that takes a key whose owner may not, because it is ejected or takes only some of its keys.
    ///
    /// On a ring that is the owner of the next point; elsewhere the others draw lots for the key, so that each of them
    /// gets some. With nobody else to take it the key stays with its owner.
    #[cold]
    pub fn shard_admitted(&self, part: &[u8], owner: u16, admission: &Admission) -> u16 {
        let lot = xxh3(part);
        if admission.takes(owner, lot) {
            return owner;
        }
        let found = match self {
            Self::Ring(ring) => {
                let mut others = ring.owners_from(ring.hash(part));
                others.find(|&shard| admission.takes(shard, lot))
            }
            Self::Slots(_)
            | Self::Codis(_)
            | Self::Modula(_)
            | Self::Ranges(_)
            | Self::Jump(_)
            | Self::Rendezvous(_)
            | Self::Random(_) => (0..admission.shards())
                .filter(|&shard| admission.takes(shard, lot))
                .max_by_key(|&shard| rendezvous::lot(lot, u64::from(shard))),
        };
        found.unwrap_or(owner)
    }

    /// What people are told of a key's place before they are told its shard.
    pub fn group(&self, part: &[u8]) -> Group {
        match self {
            Self::Slots(_) => Group::Slot(cluster_slot(part)),
            Self::Codis(_) => Group::Slot(codis_slot(part)),
            Self::Ring(ring) => Group::Hash(ring.hash(part).into()),
            Self::Modula(modula) => Group::Hash(modula.hash(part).into()),
            Self::Jump(_) | Self::Rendezvous(_) => Group::Hash(xxh3(part)),
            Self::Ranges(_) | Self::Random(_) => Group::Key,
        }
    }

    /// Which share of the hash space each of so many shards owns. None where that cannot be said: how many keys a range
    /// holds is the application's affair.
    pub fn shares(&self, shards: usize) -> Option<Vec<f64>> {
        match self {
            Self::Slots(slots) => Some(slots.shares(shards)),
            Self::Codis(slots) => Some(slots.shares(shards)),
            Self::Ring(ring) => Some(ring.shares(shards)),
            Self::Modula(modula) => Some(modula.shares(shards)),
            Self::Rendezvous(rendezvous) => Some(rendezvous.shares(shards)),
            Self::Jump(_) | Self::Random(_) => Some(vec![1.0 / shards as f64; shards]),
            Self::Ranges(_) => None,
        }
    }

    /// As people write it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Slots(_) => "slots",
            Self::Codis(_) => "codis slots",
            Self::Ring(ring) => ring.name(),
            Self::Modula(_) => "modula",
            Self::Random(_) => "random",
            Self::Ranges(_) => "range",
            Self::Jump(_) => "jump",
            Self::Rendezvous(_) => "rendezvous",
        }
    }
}

#[inline]
fn codis_slot(part: &[u8]) -> u16 {
    (crc32(part) % CODIS_SLOTS as u32) as u16
}
