//! Which operation has which keys, within one process: worker 0 keeps one table for each keyspace.
//!
//! Owns: `LockTable`. An operation asks for all of its keys at once and gets them all at once, or waits.
//!
//! Flow: `lock` puts the operation at the end of the line of each of its keys, in one step -> it is granted when it is at the
//! front of all of them (shared ones together) and a place is free -> `unlock` takes it off, and tells who is granted now.
//!
//! Must stay true: who came first is first at every key, so nobody waits for somebody who waits for him, and nobody is
//! overtaken for ever; an operation of another proxy needs no place (it runs there).
//! Rejected: one lock after the other in an order of keys: it takes messages for each, and holds keys while waiting for others.

use crate::session::cross_shard::call::{Mode, Scope, Tx};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// What an operation claims of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardClaims {
    /// Index of the shard within its keyspace.
    pub shard: u16,
    /// How much of it.
    pub scope: Scope,
    /// Which keys.
    pub keys: Vec<(Arc<[u8]>, Mode)>,
}

/// What an operation claims of a keyspace.
pub type Claims = Arc<[ShardClaims]>;

/// What one can wait in line for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Resource {
    /// A key.
    Key(Arc<[u8]>),
    /// All keys of a shard: shared by those who claim keys of it.
    Shard(u16),
}

#[derive(Debug)]
struct Entry {
    resources: Vec<Resource>,
    /// Of how many of them it is not at the front.
    waits_for: usize,
    needs_place: bool,
    is_granted: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub struct LockTable {
    lines: HashMap<Resource, VecDeque<(Tx, Mode)>>,
    entries: HashMap<Tx, Entry>,
    /// Have all their keys, and wait for a place.
    ready: VecDeque<Tx>,
    running: usize,
    running_max: usize,
}

impl LockTable {
    /// An empty one; so many operations of this proxy may run at once.
    pub fn new(running_max: usize) -> Self {
        Self {
            lines: HashMap::new(),
            entries: HashMap::new(),
            ready: VecDeque::new(),
            running: 0,
            running_max,
        }
    }

    /// Operations that have keys or wait for them.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nobody has or wants anything.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// It has keys, or waits for them.
    pub fn knows(&self, tx: &Tx) -> bool {
        self.entries.contains_key(tx)
    }

    /// Puts an operation in line; those that are granted now (it alone, at most) are added to `granted`. `needs_place`: it runs in
    /// this process.
    pub fn lock(
        &mut self,
        tx: &Tx,
        claims: &[ShardClaims],
        needs_place: bool,
        granted: &mut Vec<Tx>,
    ) {
        if self.knows(tx) {
            return;
        }
        let mut resources = Vec::new();
        let mut waits_for = 0;
        for (resource, mode) in wanted(claims) {
            let line = self.lines.entry(resource.clone()).or_default();
            let is_free = line.iter().all(|(_, other)| mode.goes_with(*other));
            waits_for += usize::from(!is_free);
            line.push_back((tx.clone(), mode));
            resources.push(resource);
        }
        let entry = Entry {
            resources,
            waits_for,
            needs_place,
            is_granted: false,
        };
        self.entries.insert(tx.clone(), entry);
        if waits_for == 0 {
            self.ready.push_back(tx.clone());
            self.grant(granted);
        }
    }

    /// Puts a claim of another proxy's in line before everybody who has not got all keys yet: it may not wait for those, who
    /// may be waiting for the shard, and so for it.
    pub fn lock_ahead(&mut self, tx: &Tx, claims: &[ShardClaims], granted: &mut Vec<Tx>) {
        if self.knows(tx) {
            return;
        }
        let mut resources = Vec::new();
        let mut behind: Vec<Tx> = Vec::new();
        for (resource, mode) in wanted(claims) {
            let entries = &self.entries;
            let line = self.lines.entry(resource.clone()).or_default();
            let has_all = |(tx, _): &(Tx, Mode)| {
                let entry = entries.get(tx);
                entry.is_some_and(|entry| entry.is_granted)
            };
            let place = line.iter().take_while(|&waiting| has_all(waiting)).count();
            behind.extend(line.iter().skip(place).map(|(other, _)| other.clone()));
            line.insert(place, (tx.clone(), mode));
            resources.push(resource);
        }
        let entry = Entry {
            resources,
            waits_for: usize::MAX,
            needs_place: false,
            is_granted: false,
        };
        self.entries.insert(tx.clone(), entry);
        self.recount(tx);
        for other in behind {
            self.recount(&other);
        }
        self.grant(granted);
    }

    /// An operation keeps its keys, and does nothing any more: another may run in its place.
    pub fn give_place(&mut self, tx: &Tx, granted: &mut Vec<Tx>) {
        if let Some(entry) = self.entries.get_mut(tx) {
            if entry.is_granted && std::mem::take(&mut entry.needs_place) {
                self.running -= 1;
            }
        }
        self.grant(granted);
    }

    /// An operation needs its keys no more, or will not wait any longer; who is granted now is added to `granted`.
    pub fn unlock(&mut self, tx: &Tx, granted: &mut Vec<Tx>) {
        let Some(entry) = self.entries.remove(tx) else {
            return;
        };
        if entry.is_granted && entry.needs_place {
            self.running -= 1;
        }
        self.ready.retain(|ready| ready != tx);
        for resource in entry.resources {
            let Some(line) = self.lines.get_mut(&resource) else {
                continue;
            };
            let before = at_front(line);
            let position = line.iter().position(|(other, _)| other == tx);
            position.map(|position| line.remove(position));
            if line.is_empty() {
                self.lines.remove(&resource);
                continue;
            }
            // Who was at the front before is there still, unless it is the one that left.
            let front = line.iter().take(at_front(line));
            let newly: Vec<Tx> = front
                .skip(before.saturating_sub(1))
                .map(|(other, _)| other.clone())
                .collect();
            for other in newly {
                self.came_forward(&other);
            }
        }
        self.grant(granted);
    }

    /// Recounts what an operation waits for, from the lines themselves: the front of one of them has moved.
    fn came_forward(&mut self, tx: &Tx) {
        if self
            .entries
            .get(tx)
            .is_some_and(|entry| entry.waits_for > 0)
        {
            self.recount(tx);
        }
    }

    fn recount(&mut self, tx: &Tx) {
        let Some(entry) = self.entries.get(tx).filter(|entry| !entry.is_granted) else {
            return;
        };
        let is_behind = |resource: &&Resource| {
            self.lines.get(*resource).is_some_and(|line| {
                let position = line.iter().position(|(other, _)| other == tx);
                position.is_some_and(|position| position >= at_front(line))
            })
        };
        let waits_for = entry.resources.iter().filter(is_behind).count();
        if let Some(entry) = self.entries.get_mut(tx) {
            entry.waits_for = waits_for;
            self.ready.retain(|ready| ready != tx);
            if waits_for == 0 {
                self.ready.push_back(tx.clone());
            }
        }
    }

    fn grant(&mut self, granted: &mut Vec<Tx>) {
        let mut waiting = VecDeque::new();
        while let Some(tx) = self.ready.pop_front() {
            let Some(entry) = self.entries.get_mut(&tx) else {
                continue;
            };
            if entry.needs_place && self.running >= self.running_max {
                waiting.push_back(tx);
                continue;
            }
            self.running += usize::from(entry.needs_place);
            entry.is_granted = true;
            granted.push(tx);
        }
        self.ready = waiting;
    }
}

/// How many at the head of a line may go at once: one exclusive, or all shared ones before the first exclusive.
fn at_front(line: &VecDeque<(Tx, Mode)>) -> usize {
    match line.front() {
        None => 0,
        Some((_, Mode::Exclusive)) => 1,
        Some((_, Mode::Shared)) => line
            .iter()
            .take_while(|(_, mode)| *mode == Mode::Shared)
            .count(),
    }
}

/// What claims stand in line for: each key, and a share of its shard; or the shard.
fn wanted(claims: &[ShardClaims]) -> Vec<(Resource, Mode)> {
    let mut wanted = Vec::new();
    for claim in claims {
        if claim.scope == Scope::All {
            wanted.push((Resource::Shard(claim.shard), Mode::Exclusive));
            continue;
        }
        wanted.push((Resource::Shard(claim.shard), Mode::Shared));
        for (key, mode) in &claim.keys {
            wanted.push((Resource::Key(key.clone()), *mode));
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tx(name: &str) -> Tx {
        Tx(name.into())
    }

    fn keys(shard: u16, keys: &[(&str, Mode)]) -> ShardClaims {
        let keys = keys
            .iter()
            .map(|(key, mode)| (key.as_bytes().into(), *mode));
        ShardClaims {
            shard,
            scope: Scope::Keys,
            keys: keys.collect(),
        }
    }

    fn all(shard: u16) -> ShardClaims {
        ShardClaims {
            shard,
            scope: Scope::All,
            keys: Vec::new(),
        }
    }

    fn lock(table: &mut LockTable, name: &str, claims: &[ShardClaims]) -> Vec<Tx> {
        let mut granted = Vec::new();
        table.lock(&tx(name), claims, true, &mut granted);
        granted
    }

    fn unlock(table: &mut LockTable, name: &str) -> Vec<Tx> {
        let mut granted = Vec::new();
        table.unlock(&tx(name), &mut granted);
        granted
    }

    const S: Mode = Mode::Shared;
    const X: Mode = Mode::Exclusive;

    #[test]
    fn who_came_first_is_first_and_shared_ones_go_together() {
        let mut table = LockTable::new(64);
        assert_eq!(lock(&mut table, "a", &[keys(0, &[("k", S)])]), [tx("a")]);
        assert_eq!(lock(&mut table, "b", &[keys(0, &[("k", S)])]), [tx("b")]);
        assert_eq!(lock(&mut table, "c", &[keys(0, &[("k", X)])]), []);
        assert_eq!(lock(&mut table, "d", &[keys(0, &[("k", S)])]), []);
        assert_eq!(unlock(&mut table, "a"), []);
        assert_eq!(unlock(&mut table, "b"), [tx("c")]);
        assert_eq!(unlock(&mut table, "c"), [tx("d")]);
        assert_eq!(unlock(&mut table, "d"), []);
        assert!(table.is_empty() && table.lines.is_empty());
    }

    #[test]
    fn all_keys_are_had_at_once_or_none() {
        let mut table = LockTable::new(64);
        lock(&mut table, "a", &[keys(0, &[("x", X)])]);
        lock(&mut table, "b", &[keys(1, &[("y", X)])]);
        let both = [keys(0, &[("x", X)]), keys(1, &[("y", X)])];
        assert_eq!(lock(&mut table, "c", &both), []);
        assert_eq!(lock(&mut table, "d", &[keys(1, &[("y", X)])]), []);
        assert_eq!(unlock(&mut table, "b"), []);
        assert_eq!(unlock(&mut table, "a"), [tx("c")]);
        assert_eq!(unlock(&mut table, "c"), [tx("d")]);
    }

    #[test]
    fn a_whole_shard_waits_for_its_keys_and_they_for_it() {
        let mut table = LockTable::new(64);
        lock(&mut table, "a", &[keys(0, &[("x", S)])]);
        assert_eq!(lock(&mut table, "flush", &[all(0), all(1)]), []);
        assert_eq!(lock(&mut table, "b", &[keys(1, &[("y", S)])]), []);
        assert_eq!(unlock(&mut table, "a"), [tx("flush")]);
        assert_eq!(unlock(&mut table, "flush"), [tx("b")]);
    }

    #[test]
    fn who_leaves_the_line_lets_others_go() {
        let mut table = LockTable::new(64);
        lock(&mut table, "a", &[keys(0, &[("x", S)])]);
        assert_eq!(lock(&mut table, "b", &[keys(0, &[("x", X)])]), []);
        assert_eq!(lock(&mut table, "c", &[keys(0, &[("x", S)])]), []);
        assert_eq!(unlock(&mut table, "b"), [tx("c")]);
    }

    #[test]
    fn places_are_bounded_but_not_for_others() {
        let mut table = LockTable::new(1);
        assert_eq!(lock(&mut table, "a", &[keys(0, &[("x", X)])]), [tx("a")]);
        assert_eq!(lock(&mut table, "b", &[keys(0, &[("y", X)])]), []);
        let mut granted = Vec::new();
        table.lock(&tx("far"), &[keys(0, &[("z", X)])], false, &mut granted);
        assert_eq!(granted, [tx("far")]);
        assert_eq!(unlock(&mut table, "far"), []);
        assert_eq!(unlock(&mut table, "a"), [tx("b")]);
    }
}
