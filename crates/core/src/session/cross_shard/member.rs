//! What one proxy does about operations of others: a state machine without I/O, one for each process and keyspace.
//!
//! Owns: `Member`, its `Entry` for each record that is not of a running operation of its own, `Event` and `Step`.
//!
//! Flow: a record is heard of (`Message::Fence`, or any Join) -> `Lock`: the engine claims the keys in its own table of locks,
//! holds back requests for them in all workers, and reports `Drained` -> `Message::Fenced` to the coordinator -> the shard says
//! `Message::Released`, or a Join that was sent later shows the record no more -> `Unlock`. Each shard is joined again every
//! `CROSS_SHARD_SCAN_MS`, and every `CROSS_SHARD_POLL_MS` while there is an entry for it. A record that gets old is asked about;
//! if its coordinator does not answer, or nobody heard the question, it is recovered.
//!
//! Must stay true: between `Drained` and `Unlock` the record may be there, so a fence ends only by what the shard itself said
//! after the fence was known here; a Join that was sent earlier, or came over another connection, takes nothing away. `Fenced`
//! is said only after `Drained`, and may be said again. An operation of this process is never recovered from here while it
//! runs: it is told of (`Began`) before its first PREPARE.
//!
//! What the engine owes: every connection is named, then joins, and sends no request before what its Join told was given here
//! (`Found`) and the steps were done; the connection that hears messages subscribes before it joins. `Drained` means: everything
//! that was sent to the shard and that the claim forbids is answered, and every connection that was lost with something
//! unanswered is ended by word of the server (what is in a closed connection still runs).
//! Rejected: one fence for all shards of an operation: records go at different times; to ask the coordinator instead of the
//! records when a message is missing: it may be gone.

use crate::limits::{
    CROSS_SHARD_ACK_MS, CROSS_SHARD_POLL_MS, CROSS_SHARD_RECOVER_MS, CROSS_SHARD_SCAN_MS,
};
use crate::session::cross_shard::call::{Kind, Mode, Pid, Record, Scope, Tx};
use crate::session::cross_shard::message::Message;
use crate::session::cross_shard::recovery::Subject;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What has happened. Shards are numbered as the engine numbers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An operation of this process is about to send its first PREPARE.
    Began(Tx),
    /// It gave `HandOver`: its records are being recovered.
    HandedOver(Tx),
    /// It is over, or recovered. Also said of others that are recovered.
    Ended(Tx),
    /// The connection that hears a shard's messages is named and subscribed.
    Up(usize),
    /// It is lost, or what was sent on it last.
    Down(usize),
    /// The answer to `Step::Join`.
    Joined(usize, Vec<Record>),
    /// What another connection's Join told.
    Found(usize, Vec<Record>),
    /// Something was heard from a shard.
    Message(usize, Message),
    /// So many heard the `Ask` that was published on a shard.
    Reached(usize, Tx, u64),
    /// What `Step::Lock` wanted is locked, held back and drained.
    Drained(usize, Tx),
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Join a shard (again), on the connection that hears its messages.
    Join(usize),
    /// Hold back, from now on, what is claimed of a shard. When also no operation of this process has keys of it any more, and all is
    /// drained, say so. (One that only waits for its turn has none: whoever waited for it here would let the coordinator wait.)
    Lock(usize, Claim),
    /// Let go again, whether all was drained or not.
    Unlock(usize, Tx),
    /// Tell one member, or all.
    Publish(usize, Option<Pid>, Message),
    /// Begin a `Recovery`. Whether this process was the coordinator.
    Recover(Subject, bool),
}

/// What a record keeps from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose.
    pub tx: Tx,
    /// How much of the shard.
    pub scope: Scope,
    /// Which keys.
    pub keys: Vec<(Arc<[u8]>, Mode)>,
}

/// What is held back for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// It forbids nothing here.
    Nothing,
    /// The engine was told, and has not drained.
    Asked,
    Drained,
}

/// One record on one shard.
#[derive(Debug, Clone)]
struct Entry {
    subject: Subject,
    hold: Hold,
    /// When it was first heard of, in the order of entries and Joins.
    place: u64,
    /// It is old when this was long ago (ms).
    since_ms: u64,
    /// When its coordinator was asked (ms).
    asked_ms: Option<u64>,
}

#[derive(Debug, Clone, Default)]
struct Shard {
    is_up: bool,
    /// The place of the Join that is not answered.
    joining: Option<u64>,
    /// Another one is to follow it.
    joins_again: bool,
    joined_ms: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Member {
    pid: Pid,
    shards: Vec<Shard>,
    /// By shard and operation.
    entries: BTreeMap<(usize, Tx), Entry>,
    /// Operations of this process, and whether they run still.
    own: BTreeMap<Tx, bool>,
    recovering: BTreeSet<Tx>,
    /// Places given.
    places: u64,
}

impl Member {
    /// Knows nothing yet; all shards are down.
    pub fn new(pid: Pid, shards: usize) -> Self {
        Self {
            pid,
            shards: vec![Shard::default(); shards],
            entries: BTreeMap::new(),
            own: BTreeMap::new(),
            recovering: BTreeSet::new(),
            places: 0,
        }
    }

    /// Records for which something is held back.
    pub fn held(&self) -> usize {
        let holds = self.entries.values();
        holds.filter(|entry| entry.hold != Hold::Nothing).count()
    }

    /// The only way in which a member moves.
    pub fn after(&mut self, event: Event, now_ms: u64, steps: &mut Vec<Step>) {
        match event {
            Event::Began(tx) => drop(self.own.insert(tx, true)),
            Event::HandedOver(tx) => drop(self.own.insert(tx, false)),
            Event::Ended(tx) => self.ended(&tx, now_ms),
            Event::Up(shard) => {
                if let Some(state) = self.shards.get_mut(shard) {
                    state.is_up = true;
                    self.join(shard, now_ms, steps);
                }
            }
            Event::Down(shard) => {
                if let Some(state) = self.shards.get_mut(shard) {
                    state.is_up = false;
                    state.joining = None;
                }
            }
            Event::Joined(shard, records) => self.joined(shard, &records, now_ms, steps),
            Event::Found(shard, records) => {
                for record in &records {
                    self.found(shard, record, now_ms, steps);
                }
            }
            Event::Message(shard, message) => self.heard(shard, message, now_ms, steps),
            Event::Reached(shard, tx, count) => self.reached(shard, tx, count, steps),
            Event::Drained(shard, tx) => self.drained(shard, tx, steps),
            Event::Tick => self.tick(now_ms, steps),
        }
    }

    fn place(&mut self) -> u64 {
        self.places += 1;
        self.places
    }

    // ------------------------------------------------------------------------------------------------- records come and go

    fn join(&mut self, shard: usize, now_ms: u64, steps: &mut Vec<Step>) {
        let place = self.place();
        if let Some(state) = self.shards.get_mut(shard) {
            state.joining = Some(place);
            state.joined_ms = now_ms;
            steps.push(Step::Join(shard));
        }
    }

    fn joined(&mut self, shard: usize, records: &[Record], now_ms: u64, steps: &mut Vec<Step>) {
        let joining = self.shards.get_mut(shard);
        let Some(place) = joining.and_then(|state| state.joining.take()) else {
            return;
        };
        let here = (shard, Tx(Arc::from("")))..(shard + 1, Tx(Arc::from("")));
        let known = self.entries.range(here);
        let known = known.filter(|(_, entry)| entry.place < place);
        let known: Vec<Tx> = known.map(|((_, tx), _)| tx.clone()).collect();
        for tx in known {
            let kinds = records.iter().filter(|record| record.tx == tx);
            match kinds.map(|record| record.kind).next() {
                None => self.gone(shard, tx, steps),
                Some(Kind::Decided) => self.lift(shard, &tx, steps),
                Some(Kind::Fence) => self.say_fenced(shard, &tx, steps),
            }
        }
        for record in records {
            self.found(shard, record, now_ms, steps);
            let entry = self.entries.get(&(shard, record.tx.clone()));
            let is_old = entry.is_some_and(|entry| entry.place < place);
            if is_old && record.coordinator == self.pid {
                self.recover(shard, &record.tx, steps);
            }
        }
        let again = self.shards.get_mut(shard);
        if again.is_some_and(|state| std::mem::take(&mut state.joins_again)) {
            self.join(shard, now_ms, steps);
        }
    }

    /// A record is there, or was a moment ago.
    fn found(&mut self, shard: usize, record: &Record, now_ms: u64, steps: &mut Vec<Step>) {
        let at = (shard, record.tx.clone());
        // One of this process that does not run any more was given up before COMMIT: it forbids nothing.
        let forbids = record.kind == Kind::Fence && record.coordinator != self.pid;
        if self.own.contains_key(&record.tx) {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&at) {
            // It was lifted, and another connection that was told of it earlier holds it back again: the next Join ends that.
            if forbids && entry.hold == Hold::Nothing {
                entry.hold = Hold::Asked;
                steps.push(lock(shard, record));
            }
            return;
        }
        let entry = Entry {
            subject: Subject::from(record),
            hold: if forbids { Hold::Asked } else { Hold::Nothing },
            place: self.place(),
            since_ms: now_ms,
            asked_ms: None,
        };
        self.entries.insert(at, entry);
        if forbids {
            steps.push(lock(shard, record));
        }
    }

    fn gone(&mut self, shard: usize, tx: Tx, steps: &mut Vec<Step>) {
        self.lift(shard, &tx, steps);
        self.entries.remove(&(shard, tx));
    }

    fn lift(&mut self, shard: usize, tx: &Tx, steps: &mut Vec<Step>) {
        if let Some(entry) = self.entries.get_mut(&(shard, tx.clone())) {
            if std::mem::replace(&mut entry.hold, Hold::Nothing) != Hold::Nothing {
                steps.push(Step::Unlock(shard, tx.clone()));
            }
        }
    }

    fn ended(&mut self, tx: &Tx, now_ms: u64) {
        self.own.remove(tx);
        if self.recovering.remove(tx) {
            for (_, entry) in self.entries.iter_mut().filter(|((_, of), _)| of == tx) {
                entry.since_ms = now_ms;
                entry.asked_ms = None;
            }
        }
    }

    // ------------------------------------------------------------------------------------------------- what members say

    fn heard(&mut self, shard: usize, message: Message, now_ms: u64, steps: &mut Vec<Step>) {
        match message {
            Message::Fence {
                tx,
                coordinator,
                home,
                participants,
                scope,
                keys,
            } => {
                let record = Record {
                    tx,
                    kind: Kind::Fence,
                    coordinator,
                    home,
                    participants,
                    scope,
                    keys,
                };
                // Its own come back to who wrote them.
                if record.coordinator != self.pid {
                    self.found(shard, &record, now_ms, steps);
                }
            }
            // Anybody may have said so: the record itself is what counts.
            Message::Released { tx } => self.ask_whether_gone(shard, tx, now_ms, steps),
            Message::Ask { tx } => {
                if self.own.get(&tx) == Some(&true) {
                    steps.push(Step::Publish(shard, None, Message::Alive { tx }));
                }
            }
            Message::Alive { tx } => {
                for (_, entry) in self.entries.iter_mut().filter(|((_, of), _)| *of == tx) {
                    entry.since_ms = now_ms;
                    entry.asked_ms = None;
                }
            }
            // For the operation, which the engine finds.
            Message::Fenced { .. } => {}
        }
    }

    fn ask_whether_gone(&mut self, shard: usize, tx: Tx, now_ms: u64, steps: &mut Vec<Step>) {
        if !self.entries.contains_key(&(shard, tx)) {
            return;
        }
        match self.shards.get_mut(shard) {
            Some(state) if state.is_up && state.joining.is_none() => {
                self.join(shard, now_ms, steps);
            }
            // What is on its way may have looked before.
            Some(state) => state.joins_again = true,
            None => {}
        }
    }

    fn drained(&mut self, shard: usize, tx: Tx, steps: &mut Vec<Step>) {
        if let Some(entry) = self.entries.get_mut(&(shard, tx.clone())) {
            if entry.hold == Hold::Asked {
                entry.hold = Hold::Drained;
                self.say_fenced(shard, &tx, steps);
            }
        }
    }

    /// Also again, if the record stays: the first may have been lost.
    fn say_fenced(&self, shard: usize, tx: &Tx, steps: &mut Vec<Step>) {
        let entry = self.entries.get(&(shard, tx.clone()));
        if let Some(entry) = entry.filter(|entry| entry.hold == Hold::Drained) {
            let message = Message::Fenced {
                tx: tx.clone(),
                pid: self.pid.clone(),
            };
            let to = entry.subject.coordinator.clone();
            steps.push(Step::Publish(shard, Some(to), message));
        }
    }

    // ------------------------------------------------------------------------------------------------- what gets old

    fn reached(&mut self, shard: usize, tx: Tx, count: u64, steps: &mut Vec<Step>) {
        let entry = self.entries.get(&(shard, tx.clone()));
        let is_asked = entry.is_some_and(|entry| entry.asked_ms.is_some());
        if count == 0 && is_asked {
            self.recover(shard, &tx, steps);
        }
    }

    fn recover(&mut self, shard: usize, tx: &Tx, steps: &mut Vec<Step>) {
        let Some(entry) = self.entries.get(&(shard, tx.clone())) else {
            return;
        };
        if self.recovering.insert(tx.clone()) {
            let is_own = entry.subject.coordinator == self.pid;
            steps.push(Step::Recover(entry.subject.clone(), is_own));
        }
    }

    fn tick(&mut self, now_ms: u64, steps: &mut Vec<Step>) {
        let mut late = Vec::new();
        let mut watched = vec![false; self.shards.len()];
        for ((shard, tx), entry) in &mut self.entries {
            let is_up = self.shards.get(*shard).is_some_and(|state| state.is_up);
            if let Some(watched) = watched.get_mut(*shard) {
                *watched = true;
            }
            let is_own = entry.subject.coordinator == self.pid;
            if !is_up || is_own || self.recovering.contains(tx) {
                continue;
            }
            match entry.asked_ms {
                Some(asked) if now_ms >= asked + CROSS_SHARD_ACK_MS as u64 => {
                    late.push((*shard, tx.clone()));
                }
                None if now_ms >= entry.since_ms + CROSS_SHARD_RECOVER_MS as u64 => {
                    entry.asked_ms = Some(now_ms);
                    let to = entry.subject.coordinator.clone();
                    let message = Message::Ask { tx: tx.clone() };
                    steps.push(Step::Publish(*shard, Some(to), message));
                }
                _ => {}
            }
        }
        for (shard, tx) in late {
            self.recover(shard, &tx, steps);
        }
        for (shard, is_watched) in watched.into_iter().enumerate() {
            let every_ms = if is_watched {
                CROSS_SHARD_POLL_MS
            } else {
                CROSS_SHARD_SCAN_MS
            };
            let state = self.shards.get(shard);
            let is_due = state.is_some_and(|state| {
                let is_free = state.is_up && state.joining.is_none();
                is_free && now_ms >= state.joined_ms + every_ms as u64
            });
            if is_due {
                self.join(shard, now_ms, steps);
            }
        }
    }
}

fn lock(shard: usize, record: &Record) -> Step {
    let claim = Claim {
        tx: record.tx.clone(),
        scope: record.scope,
        keys: record.keys.clone(),
    };
    Step::Lock(shard, claim)
}
