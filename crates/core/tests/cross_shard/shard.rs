//! A model of one shard: keys, the protocol's records, and every `Call` as `call` describes it, one atomic step at a time.

use crate::language::{dump, encode_reply, restore, Op, Store, MARK};
use crate::rules::Rules;
use crate::wires::{Heard, Id, Order, What, Wires};
use shoal_core::session::cross_shard::call::{
    Call, Commit, Foreign, Held, KeyClaim, Kind, Mode, Outcome, Pid, Prepare, Record, Scope, Tx,
    Value, Written,
};
use shoal_core::session::cross_shard::message::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// `d:<tx>`.
#[derive(Debug, Clone)]
struct Decision {
    coordinator: Pid,
    home: Arc<str>,
    participants: Vec<Arc<str>>,
    values: Vec<(Arc<str>, Held)>,
}

#[derive(Debug)]
pub struct Shard {
    pub index: usize,
    pub store: Store,
    /// Whether each is marked as being evicted.
    pub members: BTreeMap<Pid, bool>,
    fences: BTreeMap<Tx, Prepare>,
    decided: BTreeMap<Tx, Decision>,
    pub is_stopped: bool,
}

/// What a shard sees of the world besides itself.
pub struct Around<'w> {
    pub rules: Rules,
    pub wires: &'w mut Wires,
    /// Everything that clients have asked.
    pub asked: &'w [Op],
    /// Operations whose fence is complete: no other client's command may get through.
    pub fenced: &'w BTreeSet<Tx>,
    /// Committed, and still to be written to participants.
    pub committed: &'w mut BTreeMap<Tx, BTreeSet<usize>>,
    /// Messages are lost now.
    pub loses: bool,
    /// There is no memory for new values now.
    pub is_full: bool,
    /// What must not have happened.
    pub broken: &'w mut Vec<String>,
    pub evicted: &'w mut usize,
}

pub fn name(index: usize) -> Arc<str> {
    Arc::from(format!("s{index}").as_str())
}

pub fn index(name: &str) -> usize {
    name[1..].parse().expect("a shard's name")
}

impl Shard {
    pub fn new(index: usize) -> Self {
        Self {
            index,
            store: Store::new(),
            members: BTreeMap::new(),
            fences: BTreeMap::new(),
            decided: BTreeMap::new(),
            is_stopped: false,
        }
    }

    /// Nothing of the protocol is left.
    pub fn is_clean(&self) -> bool {
        self.fences.is_empty() && self.decided.is_empty()
    }

    /// Does the next order of a connection.
    pub fn execute(&mut self, id: Id, around: &mut Around) {
        let Some(wire) = around.wires.wires.get_mut(&id) else {
            return;
        };
        let Some(Order { tag, what }) = wire.up.pop_front() else {
            return;
        };
        let heard = match what {
            What::Name(pid) => {
                wire.name = Some(pid);
                Heard::Fine(tag)
            }
            What::Subscribe => {
                wire.is_subscribed = true;
                Heard::Fine(tag)
            }
            What::Watch(tx, outcome) => {
                let is_there = self.fences.contains_key(&tx);
                wire.watch = Some((tx, !is_there));
                let outcome = outcome.filter(|_| is_there);
                Heard::Outcome(tag, outcome.unwrap_or(Outcome::Gone))
            }
            What::Unwatch => {
                wire.watch = None;
                Heard::Fine(tag)
            }
            What::Call(Call::Join { pid, .. }) => {
                self.members.insert(pid, false);
                Heard::Records(tag, self.records())
            }
            What::Call(Call::Deregister { pid }) => {
                if around.rules.listed {
                    self.members
                        .entry(pid.clone())
                        .and_modify(|is_marked| *is_marked = true);
                } else {
                    self.members.remove(&pid);
                }
                let what = What::List(pid);
                return wire.up.push_front(Order { tag, what });
            }
            What::List(pid) => Heard::Outcome(tag, self.list(&pid, around.wires)),
            What::Call(Call::Kill { pid, mut ids }) => {
                if let (Some(id), true) = (ids.pop(), around.rules.kill) {
                    let what = What::Call(Call::Kill { pid, ids });
                    wire.up.push_front(Order { tag, what });
                    return around.wires.end(id);
                }
                let what = What::Forget(pid);
                return wire.up.push_front(Order { tag, what });
            }
            What::Forget(pid) => {
                if self.members.get(&pid) == Some(&true) {
                    self.members.remove(&pid);
                    *around.evicted += 1;
                }
                Heard::Outcome(tag, Outcome::Killed)
            }
            What::Call(call) => {
                let home = match &call {
                    Call::Prepare(prepare) if prepare.is_home => Some(prepare.tx.clone()),
                    _ => None,
                };
                let outcome = self.call(id, call, around);
                if let (Some(tx), Outcome::Prepared { .. }) = (home, &outcome) {
                    // WATCH and EXISTS follow: other connections may come in between.
                    if let Some(wire) = around.wires.wires.get_mut(&id) {
                        let what = What::Watch(tx, Some(outcome));
                        wire.up.push_front(Order { tag, what });
                    }
                    return;
                }
                Heard::Outcome(tag, outcome)
            }
            What::Request(number) => Heard::Reply(tag, self.request(number, around)),
            What::Publish(to, message) => {
                Heard::Count(tag, publish(self.index, to.as_ref(), &message, around))
            }
            What::End(id) => {
                around.wires.end(id);
                Heard::Fine(tag)
            }
        };
        answer(id, heard, around.wires);
    }

    fn list(&self, pid: &Pid, wires: &Wires) -> Outcome {
        let wires = wires.wires.iter().filter(|(_, wire)| {
            wire.shard == self.index && wire.is_open_there && wire.name.as_ref() == Some(pid)
        });
        Outcome::Connections(wires.map(|(id, _)| *id).collect())
    }

    fn request(&mut self, number: usize, around: &mut Around) -> Vec<u8> {
        let op = &around.asked[number];
        for (tx, fence) in self
            .fences
            .iter()
            .filter(|(tx, _)| around.fenced.contains(*tx))
        {
            let forbidden = op.keys().into_iter().any(|(key, writes, _)| {
                let claim = fence.keys.iter().find(|claim| claim.key[0] == key);
                claim.is_some_and(|claim| writes || claim.mode == Mode::Exclusive)
            });
            let forbidden = forbidden || fence.scope == Scope::All;
            if forbidden {
                let broken = format!("I1: {op:?} on shard {} under {tx:?}", self.index);
                around.broken.push(broken);
            }
        }
        encode_reply(&op.run(&mut self.store))
    }

    fn call(&mut self, id: Id, call: Call, around: &mut Around) -> Outcome {
        match call {
            Call::Prepare(prepare) => self.prepare(prepare, around),
            Call::Gather { tx, keys, .. } => match self.fences.get(&tx) {
                Some(_) => Outcome::Gathered(self.values(&keys)),
                None => Outcome::Gone,
            },
            Call::Commit(commit) => self.commit(id, commit, around),
            Call::Apply { tx, values } => self.apply(&tx, &values, around),
            Call::Release { tx } => {
                if around
                    .committed
                    .get(&tx)
                    .is_some_and(|to| to.contains(&self.index))
                {
                    around
                        .broken
                        .push(format!("I3: {tx:?} released on {}", self.index));
                }
                Outcome::Done(self.drop_fence(&tx, around))
            }
            Call::Clean { tx } => {
                self.decided.remove(&tx);
                Outcome::Done(true)
            }
            Call::Resolve { tx } => match self.decided.get(&tx) {
                Some(decision) => Outcome::Resolved(Some(decision.values.clone())),
                None => {
                    self.drop_fence(&tx, around);
                    Outcome::Resolved(None)
                }
            },
            Call::Join { .. } | Call::Deregister { .. } | Call::Kill { .. } => unreachable!(),
        }
    }

    fn values(&self, keys: &[KeyClaim]) -> Vec<Option<Value>> {
        let value = |claim: &KeyClaim| {
            let tokens = self.store.get(&claim.key[0]);
            tokens
                .filter(|_| claim.is_wanted)
                .and_then(|tokens| dump(Some(tokens)))
        };
        keys.iter().map(value).collect()
    }

    fn prepare(&mut self, prepare: Prepare, around: &mut Around) -> Outcome {
        let is_again = self.fences.contains_key(&prepare.tx) && !around.rules.give_up;
        if self.members.get(&prepare.coordinator) != Some(&false) {
            return Outcome::Stranger;
        }
        if around.is_full {
            return Outcome::Failed(b"OOM".to_vec());
        }
        for (tx, fence) in self.fences.iter().filter(|(tx, _)| **tx != prepare.tx) {
            let is_whole = prepare.scope == Scope::All || fence.scope == Scope::All;
            let conflict = is_whole
                || prepare.keys.iter().any(|claim| {
                    let other = fence.keys.iter().find(|other| other.key == claim.key);
                    other.is_some_and(|other| !other.mode.goes_with(claim.mode))
                });
            if conflict {
                return Outcome::Conflict(tx.clone());
            }
        }
        if let (Scope::All, Some(tx)) = (prepare.scope, self.decided.keys().next()) {
            return Outcome::Conflict(tx.clone());
        }
        let members: Vec<Pid> = self.members.keys().cloned().collect();
        let hears = |pid: &Pid| {
            around.wires.wires.values().any(|wire| {
                let is_there = wire.shard == self.index && wire.is_open_there;
                is_there && wire.is_subscribed && wire.name.as_ref() == Some(pid)
            })
        };
        let silent = members.iter().filter(|pid| !hears(pid)).cloned().collect();
        let values = self.values(&prepare.keys);
        if members.len() > 1 && !is_again {
            let message = Message::Fence {
                tx: prepare.tx.clone(),
                coordinator: prepare.coordinator.clone(),
                home: prepare.home.clone(),
                participants: prepare.participants.clone(),
                scope: prepare.scope,
                keys: claimed(&prepare),
            };
            publish(self.index, None, &message, around);
        }
        self.fences.insert(prepare.tx.clone(), prepare);
        Outcome::Prepared {
            members,
            silent,
            values,
        }
    }

    fn commit(&mut self, id: Id, commit: Commit, around: &mut Around) -> Outcome {
        let watch = around
            .wires
            .wires
            .get_mut(&id)
            .and_then(|wire| wire.watch.take());
        let is_untouched = watch == Some((commit.tx.clone(), false));
        if around.rules.watch && !is_untouched {
            return Outcome::NotCommitted;
        }
        if around.is_full {
            return Outcome::Refused(b"OOM".to_vec());
        }
        let mut store = self.store.clone();
        for foreign in &commit.foreign {
            restore(&mut store, &foreign.key, brought(foreign).as_ref());
        }
        let mut number = [0; 8];
        number.copy_from_slice(&commit.requests);
        let op = &around.asked[u64::from_le_bytes(number) as usize];
        let replies = encode_reply(&op.run(&mut store));
        let (mut values, mut written) = (Vec::new(), Vec::new());
        for foreign in &commit.foreign {
            let value = dump(store.remove(&foreign.key[0]).as_ref());
            if !foreign.is_written {
                continue;
            }
            if value == brought(foreign) {
                written.push(Written::Same);
            } else {
                let held = (foreign.key.clone(), value.clone());
                values.push((foreign.shard.clone(), held));
                written.push(Written::Now(value));
            }
        }
        self.store = store;
        let prepare = self.fences.get(&commit.tx).cloned();
        self.drop_fence(&commit.tx, around);
        if !values.is_empty() || commit.redo.is_some() {
            let mut to: BTreeSet<usize> = values.iter().map(|(shard, _)| index(shard)).collect();
            if let (Some(fence), true) = (&prepare, commit.redo.is_some()) {
                to.extend(fence.participants.iter().map(|shard| index(shard)));
            }
            around.committed.insert(commit.tx.clone(), to);
            let names: BTreeSet<Arc<str>> = commit
                .foreign
                .iter()
                .map(|foreign| foreign.shard.clone())
                .collect();
            let decision = Decision {
                coordinator: commit.coordinator,
                home: name(self.index),
                participants: prepare
                    .map_or_else(|| names.into_iter().collect(), |fence| fence.participants),
                values,
            };
            self.decided.insert(commit.tx, decision);
        }
        Outcome::Committed { replies, written }
    }

    fn apply(&mut self, tx: &Tx, values: &[Held], around: &mut Around) -> Outcome {
        let is_there = self.fences.contains_key(tx);
        if !is_there && around.rules.conditional {
            return Outcome::Done(false);
        }
        if around.is_full {
            if !around.rules.values_first {
                self.drop_fence(tx, around);
            }
            return Outcome::Failed(b"OOM".to_vec());
        }
        if self
            .fences
            .get(tx)
            .is_some_and(|fence| fence.redo.is_some())
        {
            self.store.clear();
        }
        for (key, value) in values {
            restore(&mut self.store, key, value.as_ref());
        }
        if let Some(to) = around.committed.get_mut(tx) {
            to.remove(&self.index);
        }
        Outcome::Done(self.drop_fence(tx, around))
    }

    fn drop_fence(&mut self, tx: &Tx, around: &mut Around) -> bool {
        for wire in around
            .wires
            .wires
            .values_mut()
            .filter(|wire| wire.shard == self.index)
        {
            if let Some((watched, is_touched)) = &mut wire.watch {
                *is_touched |= watched == tx;
            }
        }
        let is_there = self.fences.remove(tx).is_some();
        if is_there {
            publish(
                self.index,
                None,
                &Message::Released { tx: tx.clone() },
                around,
            );
        }
        is_there
    }

    fn records(&self) -> Vec<Record> {
        let fences = self.fences.values().map(|fence| Record {
            tx: fence.tx.clone(),
            kind: Kind::Fence,
            coordinator: fence.coordinator.clone(),
            home: fence.home.clone(),
            participants: fence.participants.clone(),
            scope: fence.scope,
            keys: claimed(fence),
        });
        let decided = self.decided.iter().map(|(tx, decision)| Record {
            tx: tx.clone(),
            kind: Kind::Decided,
            coordinator: decision.coordinator.clone(),
            home: decision.home.clone(),
            participants: decision.participants.clone(),
            scope: Default::default(),
            keys: Vec::new(),
        });
        fences.chain(decided).collect()
    }
}

/// What is put in the place of a key of another shard.
fn brought(foreign: &Foreign) -> Option<Value> {
    if foreign.is_blind {
        return dump(Some(&vec![MARK]));
    }
    foreign.value.clone()
}

fn claimed(prepare: &Prepare) -> Vec<(Arc<[u8]>, Mode)> {
    let keys = prepare.keys.iter();
    keys.map(|claim| (claim.key.clone(), claim.mode)).collect()
}

/// How many it reached.
fn publish(shard: usize, to: Option<&Pid>, message: &Message, around: &mut Around) -> u64 {
    let mut count = 0;
    for (id, wire) in &mut around.wires.wires {
        let is_meant = to.is_none_or(|to| wire.name.as_ref() == Some(to));
        if wire.shard != shard || !wire.is_subscribed || !wire.is_open_there || !is_meant {
            continue;
        }
        count += 1;
        if wire.is_open_here && !(around.loses && (id + count) % 2 == 0) {
            wire.down.push_back(Heard::Message(message.clone()));
        }
    }
    count
}

fn answer(id: Id, heard: Heard, wires: &mut Wires) {
    if let Some(wire) = wires.wires.get_mut(&id) {
        if wire.is_open_here && wire.is_open_there {
            wire.down.push_back(heard);
        }
    }
}
