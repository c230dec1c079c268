//! What one worker holds back: the keys that operations across shards have to themselves at the moment.
//!
//! Owns: `Fences`, the worker's table for one keyspace: which operation has which key in which mode, and who waits for it.
//!
//! Flow: `install` -> requests ask `holder` -> who must wait is `park`ed under the operation that is in the way -> `lift` gives
//! them back, to be shown again.
//!
//! Must stay true: a key is held as long as an operation that claims it is in the table; installing or lifting twice does no harm.
//! Rejected: a lock for each key (the hot path would have to take it); a list of fences to be searched (there may be many).

use crate::limits::CROSS_SHARD_DOUBT_TICKS;
use crate::session::cross_shard::call::{Mode, Scope, Tx};
use crate::session::cross_shard::registrar::Claims;
use std::collections::HashMap;
use std::sync::Arc;

/// A client that waits: its place and generation, and since when (ms).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parked {
    /// Its place.
    pub slot: u32,
    /// See `slot`.
    pub generation: u32,
}

#[derive(Debug)]
struct Fence {
    claims: Claims,
    parked: Vec<Parked>,
    /// Ticks that it has been there.
    age: u32,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Fences {
    by_key: HashMap<Arc<[u8]>, Vec<(Tx, Mode)>>,
    by_tx: HashMap<Tx, Fence>,
    /// Operations that have whole shards, with the shard.
    whole: Vec<(Tx, u16)>,
}

impl Fences {
    /// Nothing is held back.
    pub fn is_empty(&self) -> bool {
        self.by_tx.is_empty()
    }

    /// How many operations have something.
    pub fn len(&self) -> usize {
        self.by_tx.len()
    }

    /// It is in the table.
    pub fn knows(&self, tx: &Tx) -> bool {
        self.by_tx.contains_key(tx)
    }

    /// Holds back what an operation claims.
    pub fn install(&mut self, tx: &Tx, claims: &Claims) {
        if self.knows(tx) {
            return;
        }
        for claim in claims.iter() {
            if claim.scope == Scope::All {
                self.whole.push((tx.clone(), claim.shard));
            }
            for (key, mode) in &claim.keys {
                let holders = self.by_key.entry(key.clone()).or_default();
                holders.push((tx.clone(), *mode));
            }
        }
        let fence = Fence {
            claims: claims.clone(),
            parked: Vec::new(),
            age: 0,
        };
        self.by_tx.insert(tx.clone(), fence);
    }

    /// Holds back no longer; who waited for it.
    pub fn lift(&mut self, tx: &Tx) -> Vec<Parked> {
        let Some(fence) = self.by_tx.remove(tx) else {
            return Vec::new();
        };
        self.whole.retain(|(whole, _)| whole != tx);
        for (key, _) in fence.claims.iter().flat_map(|claim| &claim.keys) {
            if let Some(holders) = self.by_key.get_mut(key) {
                holders.retain(|(holder, _)| holder != tx);
                if holders.is_empty() {
                    self.by_key.remove(key);
                }
            }
        }
        fence.parked
    }

    /// Who keeps a request from a key of this shard, if somebody does.
    pub fn holder(&self, shard: u16, key: &[u8], is_written: bool) -> Option<&Tx> {
        let whole = self.whole.iter().find(|(_, whole)| *whole == shard);
        if let Some((tx, _)) = whole {
            return Some(tx);
        }
        let holders = self.by_key.get(key)?;
        let wanted = if is_written {
            Mode::Exclusive
        } else {
            Mode::Shared
        };
        let holder = holders.iter().find(|(_, mode)| !mode.goes_with(wanted));
        holder.map(|(tx, _)| tx)
    }

    /// Who keeps a request from what may be any key: somebody who has all of a shard.
    pub fn holder_of_all(&self) -> Option<&Tx> {
        self.whole.first().map(|(tx, _)| tx)
    }

    /// A tick has passed; those that have been there for long.
    pub fn grow_old(&mut self) -> Vec<Tx> {
        let mut old = Vec::new();
        for (tx, fence) in &mut self.by_tx {
            fence.age += 1;
            if fence.age.is_multiple_of(CROSS_SHARD_DOUBT_TICKS as u32) {
                old.push(tx.clone());
            }
        }
        old
    }

    /// Whether an operation claims a key of this shard.
    pub fn has(&self, tx: &Tx, shard: u16, key: &[u8]) -> bool {
        let whole = || self.whole.iter().any(|it| it.1 == shard && it.0 == *tx);
        let holders = self.by_key.get(key).map_or(&[][..], Vec::as_slice);
        holders.iter().any(|(holder, _)| holder == tx) || whole()
    }

    /// Somebody waits until that operation is over.
    pub fn park(&mut self, tx: &Tx, parked: Parked) {
        if let Some(fence) = self.by_tx.get_mut(tx) {
            fence.parked.push(parked);
        }
    }

    /// Everybody who waits.
    pub fn parked(&self) -> impl Iterator<Item = Parked> + '_ {
        self.by_tx
            .values()
            .flat_map(|fence| fence.parked.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::cross_shard::registrar::ShardClaims;

    fn claims(scope: Scope, keys: &[(&str, Mode)]) -> Claims {
        let keys = keys
            .iter()
            .map(|(key, mode)| (key.as_bytes().into(), *mode));
        Arc::new([ShardClaims {
            shard: 3,
            scope,
            keys: keys.collect(),
        }])
    }

    fn tx(name: &str) -> Tx {
        Tx(name.into())
    }

    #[test]
    fn shared_keys_are_read_and_exclusive_ones_are_not() {
        let mut fences = Fences::default();
        fences.install(
            &tx("a"),
            &claims(Scope::Keys, &[("s", Mode::Shared), ("x", Mode::Exclusive)]),
        );
        fences.install(&tx("b"), &claims(Scope::Keys, &[("s", Mode::Shared)]));
        assert_eq!(fences.holder(3, b"s", false), None);
        assert!(fences.holder(3, b"s", true).is_some());
        assert_eq!(fences.holder(3, b"x", false), Some(&tx("a")));
        assert_eq!(fences.holder(3, b"other", true), None);
        fences.lift(&tx("a"));
        assert_eq!(fences.holder(3, b"s", true), Some(&tx("b")));
        fences.lift(&tx("b"));
        assert!(fences.is_empty() && fences.by_key.is_empty());
    }

    #[test]
    fn a_whole_shard_is_held_and_others_are_not() {
        let mut fences = Fences::default();
        fences.install(&tx("all"), &claims(Scope::All, &[]));
        assert_eq!(fences.holder(3, b"any", false), Some(&tx("all")));
        assert_eq!(fences.holder(2, b"any", true), None);
        assert_eq!(fences.holder_of_all(), Some(&tx("all")));
        let parked = Parked {
            slot: 1,
            generation: 2,
        };
        fences.park(&tx("all"), parked);
        assert_eq!(fences.lift(&tx("all")), [parked]);
        assert_eq!(fences.holder(3, b"any", false), None);
        assert_eq!(fences.holder_of_all(), None);
    }
}
