//! Which shards of a cache take their keys at the moment.
//!
//! Owns: `Admission`, one keyspace's shares as one worker sees them. A shard is in (it takes all of its keys), ejected (none),
//! or coming back (a growing share of them). Who decides that is in `session::ejection`; the router only asks.
//!
//! Must stay true: a store's admission is always whole; while every shard is in, asking costs one load; whether a shard
//! that is coming back takes a key depends on the key and the share alone, and a key that it has taken stays taken while
//! the share grows, so that each key moves once on the way out and once on the way back.

use crate::limits::READMIT_STEPS;

/// A share that is whole: the shard takes all of its keys.
pub const SHARE_WHOLE: u8 = READMIT_STEPS as u8;

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    shares: Box<[u8]>,
    is_whole: bool,
}

impl Admission {
    /// Every shard takes its keys.
    pub fn whole(shards: usize) -> Self {
        Self {
            shares: vec![SHARE_WHOLE; shards].into(),
            is_whole: true,
        }
    }

    /// No shard is ejected or coming back.
    #[inline]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.shares.len() as u16
    }

    /// How many sixteenths of its keys a shard takes; 0 for one that does not exist.
    #[inline]
    pub fn share(&self, shard: u16) -> u8 {
        self.shares.get(shard as usize).copied().unwrap_or(0)
    }

    /// Changes a shard's share. A shard that does not exist has none.
    pub fn set_share(&mut self, shard: u16, share: u8) {
        if let Some(place) = self.shares.get_mut(shard as usize) {
            *place = share.min(SHARE_WHOLE);
        }
        self.is_whole = self.shares.iter().all(|&share| share == SHARE_WHOLE);
    }

    /// Whether a shard takes a key with this hash. `hash` should be well mixed in its low four bits.
    #[inline]
    pub fn takes(&self, shard: u16, hash: u64) -> bool {
        ((hash % READMIT_STEPS as u64) as u8) < self.share(shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_taken_back_stays() {
        let mut admission = Admission::whole(3);
        assert!(admission.is_whole() && admission.takes(2, u64::MAX));
        assert!(!admission.takes(3, 0), "no such shard");
        for hash in 0..64 {
            let mut was_taken = false;
            for share in 0..=SHARE_WHOLE {
                admission.set_share(1, share);
                let is_taken = admission.takes(1, hash);
                assert!(is_taken || !was_taken, "hash {hash} share {share}");
                assert!(!(is_taken && share == 0));
                was_taken = is_taken;
                assert!(admission.takes(0, hash) && admission.takes(2, hash));
            }
            assert!(was_taken && admission.is_whole());
        }
    }
}
