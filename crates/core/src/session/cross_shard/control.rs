//! The connection to each shard on which a proxy hears of others' operations, and on which it asks about records.
//!
//! Owns: `Control`, one for each shard, kept by worker 0: its connection, and what was asked on it, in order.
//!
//! Flow: opened when the shard can be reached -> subscribed to what all members hear and to what this one is told -> `Member`
//! hears that it is up. Joins, questions and the calls of recoveries go out on it and are answered in order; messages come
//! between the answers.
//!
//! Must stay true: subscribed before the first Join on it; when it is lost, everything that was asked on it is lost, and said so.
//! Rejected: a connection for each of the two: the order of what is heard and what is answered says what a Join has seen.

use crate::limits::CROSS_SHARD_CONTROL_MS;
use crate::protocol::encode::Proto;
use crate::protocol::errand;
use crate::protocol::subscription::Kind;
use crate::routing::merge::counted_header;
use crate::session::backend::{lane, Health, InFlight, Waiter};
use crate::session::cross_shard::call::{Call, Outcome, Pid, Tx};
use crate::session::cross_shard::elements::Elements;
use crate::session::cross_shard::member::Event;
use crate::session::cross_shard::message::{own_channel, Message, CONTROL};
use crate::session::cross_shard::notes::Note;
use crate::session::cross_shard::wire;
use crate::session::engine::Engine;
use crate::session::own_links::Owner;
use crate::session::stats::PerShard;
use std::collections::VecDeque;

/// What was asked on a control connection.
#[derive(Debug)]
pub(crate) enum Question {
    /// The records that are there.
    Join(Call),
    /// How many hear that question about an operation.
    Ask(Tx),
    /// Nothing that matters.
    Telling,
    /// A step of a recovery: its number, the shard's number in its subject, and the call.
    Recovery(u64, usize, Call),
}

#[derive(Debug)]
struct Asked {
    question: Question,
    left: usize,
    bytes: Vec<u8>,
}

/// A connection, and what was asked on it.
#[derive(Debug, Default)]
struct Line {
    link: Option<u32>,
    asked: VecDeque<Asked>,
}

/// One shard's. Servers end a connection that has subscribed when much waits to be read on it, and a recovery may bring many
/// megabytes: it has a connection of its own, while it is needed.
#[derive(Debug, Default)]
pub struct Control {
    hears: Line,
    recovers: Line,
    tried_ms: u64,
}

impl Engine {
    /// Opens what is missing, where the shard can be reached.
    pub(crate) fn look_at_controls(&mut self) {
        if self.identity.worker != 0 || self.is_stopping {
            return;
        }
        for shard in 0..self.backends.len() {
            let control = &self.cross_shards.controls[shard];
            // One that was lost soon after it was made is not made again at once.
            let is_due = control.tried_ms == 0
                || self.now_ms >= control.tried_ms + CROSS_SHARD_CONTROL_MS as u64;
            if is_due {
                self.ensure_control(shard);
            }
        }
    }

    /// Opens it if it is missing and the shard can be reached: others count on being heard.
    pub(crate) fn ensure_control(&mut self, shard: usize) {
        let is_wanted = self.identity.worker == 0
            && !self.is_stopping
            && self.is_member_of(shard)
            && self.cross_shards.controls[shard].hears.link.is_none();
        if is_wanted && self.backends[shard].health == Health::Up {
            self.open_control(shard);
        }
    }

    fn open_control(&mut self, shard: usize) {
        let own = self.topology.keyspaces[self.backends[shard].keyspace].database;
        let id = self.open_exclusive(shard, lane(0, own, Proto::Resp3));
        let mut request = Vec::new();
        let names = [CONTROL.into(), own_channel(&self.cross_shards.pid).into()];
        errand::subscribe(&mut request, Kind::Channel, true, &names);
        if let Some(link) = self.links.get_mut(id) {
            link.owner = Owner::Control;
            // Answered by pushes alone.
            link.outgoing().push(&request);
        }
        let control = &mut self.cross_shards.controls[shard];
        control.hears = Line {
            link: Some(id),
            asked: VecDeque::new(),
        };
        control.tried_ms = self.now_ms.max(1);
        self.member_event(shard, Event::Up);
    }

    /// A control connection is gone.
    pub(crate) fn control_lost(&mut self, shard: usize, id: u32) {
        let control = &mut self.cross_shards.controls[shard];
        let hears = control.hears.link == Some(id);
        let line = if hears {
            std::mem::take(&mut control.hears)
        } else {
            std::mem::take(&mut control.recovers)
        };
        for asked in line.asked {
            if let Question::Recovery(number, part, _) = asked.question {
                self.recovery_lost(number, part);
            }
        }
        if hears {
            self.member_event(shard, Event::Down);
        }
        self.settle_notes();
    }

    /// Asks something; false when there is no connection.
    pub(crate) fn ask_control(
        &mut self,
        shard: usize,
        question: Question,
        words: &[u8],
        left: usize,
    ) -> bool {
        let (now_us, now_ms) = (self.now_us, self.now_ms);
        let is_recovery = matches!(question, Question::Recovery(..));
        if is_recovery && !self.open_recovery(shard) {
            return false;
        }
        let control = &mut self.cross_shards.controls[shard];
        let line = if is_recovery {
            &mut control.recovers
        } else {
            &mut control.hears
        };
        let Some(id) = line.link else {
            return false;
        };
        let Some(link) = self.links.get_mut(id) else {
            return false;
        };
        link.outgoing().push(words);
        for _ in 0..left {
            let entry = InFlight::of_nobody(Waiter::Control, now_us);
            link.await_reply(entry, now_ms);
        }
        line.asked.push_back(Asked {
            question,
            left,
            bytes: Vec::new(),
        });
        self.touch_link(id);
        true
    }

    /// The connection on which recoveries speak to a shard; false when it cannot be had.
    fn open_recovery(&mut self, shard: usize) -> bool {
        if self.cross_shards.controls[shard].recovers.link.is_some() {
            return true;
        }
        if self.is_stopping || self.backends[shard].health != Health::Up {
            return false;
        }
        let own = self.topology.keyspaces[self.backends[shard].keyspace].database;
        let id = self.open_exclusive(shard, lane(0, own, Proto::Resp3));
        if let Some(link) = self.links.get_mut(id) {
            link.owner = Owner::Control;
        }
        self.cross_shards.controls[shard].recovers.link = Some(id);
        true
    }

    /// Registers again, and asks what is there.
    pub(crate) fn ask_records(&mut self, shard: usize) {
        let pid = self.cross_shards.pid.clone();
        let terms = self.terms_of(shard);
        let call = Call::Join { pid, terms };
        let mut words = Vec::new();
        let left = wire::encode(&call, &mut words);
        self.ask_control(shard, Question::Join(call), &words, left);
    }

    /// Tells one member of a shard, or all.
    pub(crate) fn publish_control(&mut self, shard: usize, to: Option<Pid>, message: Message) {
        let channel = to.map_or_else(|| CONTROL.to_vec(), |pid| own_channel(&pid));
        let mut words = Vec::new();
        errand::publish(&mut words, &channel, &message.encode());
        let question = match message {
            Message::Ask { tx } => Question::Ask(tx),
            _ => Question::Telling,
        };
        self.ask_control(shard, question, &words, 1);
    }

    /// A piece of an answer.
    pub(crate) fn control_answered(&mut self, id: u32, shard: usize, bytes: &[u8], done: bool) {
        let control = &mut self.cross_shards.controls[shard];
        let line = if control.hears.link == Some(id) {
            &mut control.hears
        } else {
            &mut control.recovers
        };
        let Some(asked) = line.asked.front_mut() else {
            return;
        };
        asked.bytes.extend_from_slice(bytes);
        asked.left -= usize::from(done && asked.left > 0);
        if asked.left > 0 || !done {
            return;
        }
        let Some(asked) = line.asked.pop_front() else {
            return;
        };
        match asked.question {
            Question::Join(call) => match wire::decode(&call, &asked.bytes) {
                Outcome::Joined {
                    records, evicts, ..
                } => {
                    self.note_eviction(shard, evicts);
                    self.member_event(shard, |shard| Event::Joined(shard, records));
                }
                _ => {
                    self.link_lost(id, "it does not tell its records");
                }
            },
            Question::Ask(tx) => {
                let count = Elements::new(&asked.bytes).integer().unwrap_or(0);
                let count = u64::try_from(count).unwrap_or(0);
                self.member_event(shard, |shard| Event::Reached(shard, tx, count));
            }
            Question::Telling => {}
            Question::Recovery(number, part, call) => {
                let outcome = wire::decode(&call, &asked.bytes);
                self.recovery_answered(number, part, outcome);
            }
        }
        self.settle_notes();
    }

    /// Whether a shard evicts keys of any kind, for all workers to see.
    pub(crate) fn note_eviction(&self, shard: usize, evicts: bool) {
        if self.identity.worker == 0 {
            let cell = PerShard::Evicting;
            self.stats().set_shard(shard, cell, u64::from(evicts));
        }
    }

    /// Something was heard on it.
    pub(crate) fn control_heard(&mut self, id: u32, push: &[u8]) {
        let Some(shard) = self.links.get(id).map(|link| link.shard) else {
            return;
        };
        let Some(message) = payload(push).and_then(Message::decode) else {
            return;
        };
        if let Message::Fenced { tx, pid } = message {
            if let Some(worker) = self.worker_of(&tx) {
                self.post(worker, Note::Fenced { tx, shard, pid });
            }
        } else {
            self.member_event(shard, |shard| Event::Message(shard, message));
        }
        self.settle_notes();
    }

    /// The worker of this process that coordinates an operation.
    fn worker_of(&self, tx: &Tx) -> Option<usize> {
        let rest = tx.0.strip_prefix(&*self.cross_shards.pid.0)?;
        let worker: usize = rest.strip_prefix('-')?.split('-').next()?.parse().ok()?;
        (worker < self.identity.workers).then_some(worker)
    }
}

/// What a message says: the last of its three words.
fn payload(push: &[u8]) -> Option<&[u8]> {
    let (count, body) = counted_header(push)?;
    let mut words = Elements::new(push.get(body..)?);
    if count != 3 || words.text()? != b"message" {
        return None;
    }
    words.text()?;
    words.text()
}
