//! Where keys are at the moment: a keyspace, and which of its shards take keys.
//!
//! Owns: `Map`, which both protocols' routers ask, the one distribution that is not a function of the key: any shard, and
//! which keys are not for clients.
//!
//! Must stay true: nothing is random here but by `chance`, which the caller owns.

use crate::routing::admission::Admission;
use crate::routing::distribution::Distribution;
use crate::routing::topology::Keyspace;

/// Keys that begin so are our own, on every shard of a keyspace with operations across shards.
pub const RESERVED: &[u8; 8] = b"__shoal:";

/// See the head of this file.
#[derive(Debug, Clone, Copy)]
pub struct Map<'a> {
    /// The keyspace.
    pub keyspace: &'a Keyspace,
    /// Which of its shards take keys.
    pub admission: &'a Admission,
}

impl Map<'_> {
    /// Whether a key is not for clients.
    #[inline]
    pub fn is_reserved(&self, key: &[u8]) -> bool {
        self.keyspace.cross_shard && key.first_chunk::<8>() == Some(RESERVED)
    }

    /// The shard of a key; None: no range holds it.
    #[inline]
    pub fn shard(&self, key: &[u8], chance: &mut u64) -> Option<u16> {
        if matches!(self.keyspace.distribution, Distribution::Random(_)) {
            return self.any_shard(chance);
        }
        self.keyspace.shard_of(key, self.admission)
    }

    /// With a random distribution one of the shards that are in (of all, when none is); else None.
    #[inline]
    pub fn any_shard(&self, chance: &mut u64) -> Option<u16> {
        matches!(self.keyspace.distribution, Distribution::Random(_))
            .then(|| draw(self.admission, chance))
    }
}

#[cold]
fn draw(admission: &Admission, chance: &mut u64) -> u16 {
    *chance = chance
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    let lot = *chance >> 32;
    let count = u64::from(admission.shards()).max(1);
    (0..count)
        .map(|offset| ((lot + offset) % count) as u16)
        .find(|&shard| admission.takes(shard, lot))
        .unwrap_or((lot % count) as u16)
}
