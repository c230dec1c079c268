//! What one proxy holds back: the table that a request, an operation of its own and another proxy's claim are compared with.

use crate::language::{Key, Op, KEYS_MAX};
use shoal_core::session::cross_shard::call::{Mode, Scope, Tx};

/// What is held back on one shard for one operation.
#[derive(Debug, Clone)]
pub struct Hold {
    pub tx: Tx,
    pub shard: usize,
    pub is_own: bool,
    pub keys: Vec<(Key, Mode)>,
    /// Requests with a lower number were sent before.
    pub since: u64,
    /// Requests may pass again; the keys are not free for other operations of this proxy.
    pub is_lifted: bool,
    /// It was said that all is drained.
    pub is_drained: bool,
}

/// What a claim holds back: the keys that it names, or all of them.
pub fn held(scope: Scope, keys: impl Iterator<Item = (Key, Mode)>) -> Vec<(Key, Mode)> {
    match scope {
        Scope::Keys => keys.collect(),
        Scope::All => (0..KEYS_MAX).map(|key| (key, Mode::Exclusive)).collect(),
    }
}

#[derive(Debug, Default)]
pub struct Holds {
    pub holds: Vec<Hold>,
}

fn meet(keys: &[(Key, Mode)], others: &[(Key, Mode)]) -> bool {
    keys.iter().any(|(key, mode)| {
        let other = others.iter().find(|(other, _)| other == key);
        other.is_some_and(|(_, other)| !other.goes_with(*mode))
    })
}

impl Holds {
    /// A client's request has to wait.
    pub fn stop(&self, op: &Op) -> bool {
        let keys: Vec<(Key, Mode)> = op.keys().into_iter().map(with_mode).collect();
        let holds = self.holds.iter().filter(|hold| !hold.is_lifted);
        holds.into_iter().any(|hold| meet(&keys, &hold.keys))
    }

    /// An operation of this proxy has to wait: anybody has, or wants, one of its keys.
    pub fn meet(&self, op: &Op) -> bool {
        let keys: Vec<(Key, Mode)> = op.keys().into_iter().map(with_mode).collect();
        self.holds.iter().any(|hold| meet(&keys, &hold.keys))
    }

    /// Another proxy's claim has to wait for an operation of this one.
    pub fn is_taken(&self, hold: &Hold) -> bool {
        let own = self.holds.iter().filter(|other| other.is_own);
        own.into_iter().any(|own| meet(&hold.keys, &own.keys))
    }

    pub fn remove(&mut self, tx: &Tx, shard: Option<usize>) {
        let is_meant = |hold: &Hold| hold.tx == *tx && shard.is_none_or(|at| at == hold.shard);
        self.holds.retain(|hold| !is_meant(hold));
    }
}

fn with_mode((key, writes, _): (Key, bool, bool)) -> (Key, Mode) {
    let mode = if writes {
        Mode::Exclusive
    } else {
        Mode::Shared
    };
    (key, mode)
}
