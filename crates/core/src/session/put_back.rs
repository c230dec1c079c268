//! What was taken for a client that has left by then: it is put back.
//!
//! Owns: `Orphan`, a reply that is to come for nobody and may hold an element, and what is done with it.
//!
//! Flow: a client leaves while a request waits on a connection of its own -> the shard is told to end the wait, and the
//! connection is read until it has (`Owner::Ending`). Or it leaves while a step of a wait on several shards is on its way -> the
//! reply is looked for on the shared link. What came with it goes back to the same end of the list, or with its score into the
//! sorted set.
//!
//! Must stay true: only what this proxy holds whole is put back, and nobody has been given any of it; what is put back is behind
//! nothing that was taken later by us, because the link is the one on which it came.
//! Rejected: closing the connection at once: what the shard had just taken for it would be lost in the socket, which happens
//! with one server too, but there the way is shorter by one connection. Holding an element until a client confirms it: there
//! is nothing in the protocol by which it could.

use crate::limits::PUT_BACK_BYTES_MAX;
use crate::protocol::command::{CommandSpec, Policy, Undo};
use crate::protocol::errand;
use crate::routing::route::{Request, Scratch};
use crate::session::backend::{InFlight, LinkState, Waiter};
use crate::session::blocking_wait::Taking;
use crate::session::cross_shard::late::Late;
use crate::session::dispatch::Asker;
use crate::session::engine::{Engine, Level};
use crate::session::own_links::{Owner, Purpose};
use crate::session::stats::PerKeyspace;
use crate::session::wait_words::{scalars, write_taken};

/// A reply that is to come for a client which has left.
#[derive(Debug)]
pub struct Orphan {
    client: u32,
    generation: u32,
    number: u32,
    undo: Undo,
    /// The key, where the reply does not name it.
    key: Option<Vec<u8>>,
    /// What has come of it.
    reply: Vec<u8>,
}

/// How what a request takes would be put back.
pub(crate) fn undo_of(spec: &CommandSpec, request: &Request<'_>, scratch: &Scratch) -> Undo {
    match spec.policy {
        Policy::Blocking(Undo::Named) => {
            let behind = scratch.keys.last().map_or(0, |&key| key as usize + 1);
            if request.arg(behind).eq_ignore_ascii_case(b"RIGHT") {
                Undo::Right
            } else {
                Undo::Left
            }
        }
        Policy::Blocking(undo) => undo,
        _ => Undo::Nothing,
    }
}

impl Engine {
    /// A client leaves: whether its connection is kept until the request that waits on it has ended.
    pub(crate) fn ends_by_itself(&mut self, id: u32) -> bool {
        let now_ms = self.now_ms;
        let Some(link) = self.links.get_mut(id) else {
            return false;
        };
        let (Owner::Client { purpose, .. }, LinkState::Up) = (link.owner, link.state) else {
            return false;
        };
        let waits = link.queue.back().copied();
        let Some(entry) = waits.filter(|entry| entry.waiter == Waiter::Client) else {
            return false;
        };
        let is_begun = link.queue.len() == 1 && !link.scanner.is_between();
        if purpose != Purpose::Block || link.undo == Undo::Nothing || is_begun {
            return false;
        }
        link.owner = Owner::Ending;
        link.progress_ms = now_ms;
        link.orphans.push(Orphan {
            client: entry.client,
            generation: entry.generation,
            number: entry.number,
            undo: link.undo,
            key: None,
            reply: Vec::new(),
        });
        if link.server_id == 0 {
            link.ends = Some(false);
            return link.queue.len() > 1;
        }
        let (shard, server_id) = (link.shard, link.server_id);
        self.tell_to_unblock(shard, server_id, false)
    }

    /// A client leaves that waits for keys of several shards: what may be on its way to it is looked for.
    pub(crate) fn leave_wait(&mut self, slot: u32) {
        let Some(wait) = self.take_wait(slot) else {
            return;
        };
        // Looked for first: whoever is called next may ask the same shard.
        self.expect_orphan(slot, wait.taking());
        self.close_watches(&wait);
    }

    fn expect_orphan(&mut self, slot: u32, taking: Option<Taking>) {
        let generation = self.clients.generation(slot);
        let Some(taking) = taking else {
            return;
        };
        let number = taking.number;
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        let begun = match client.replies.gather(number) {
            Some(gather) if !gather.is_too_large() => gather.parts.first().cloned(),
            _ => None,
        };
        let (Some(reply), Some(link)) = (begun, self.links.get_mut(taking.link)) else {
            return;
        };
        let is_its = |entry: &InFlight| {
            (entry.client, entry.generation, entry.number) == (slot, generation, number)
        };
        if link.queue.iter().any(is_its) {
            link.orphans.push(Orphan {
                client: slot,
                generation,
                number,
                undo: taking.undo,
                key: Some(taking.key),
                reply,
            });
        }
    }

    /// A piece of a reply for a client that has left.
    #[cold]
    pub(crate) fn orphaned(&mut self, id: u32, entry: &InFlight, bytes: &[u8], done: bool) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let is_its = |orphan: &Orphan| {
            (orphan.client, orphan.generation, orphan.number)
                == (entry.client, entry.generation, entry.number)
        };
        let Some(at) = link.orphans.iter().position(is_its) else {
            return;
        };
        if link.orphans[at].reply.len() + bytes.len() > PUT_BACK_BYTES_MAX {
            link.orphans.swap_remove(at);
            let shard = link.shard;
            return self.lost_element(shard, "it is too long to be put back");
        }
        link.orphans[at].reply.extend_from_slice(bytes);
        if done {
            let orphan = link.orphans.swap_remove(at);
            self.put_back(id, &orphan);
        }
    }

    fn put_back(&mut self, id: u32, orphan: &Orphan) {
        let mut named = Vec::new();
        let reply = match &orphan.key {
            Some(key) if write_taken(key, &orphan.reply, &mut named) => named.as_slice(),
            Some(_) => return,
            None => orphan.reply.as_slice(),
        };
        let Some(words) = scalars(reply) else {
            // An error, or nothing.
            return;
        };
        let Some((key, taken)) = words.split_first().filter(|(_, taken)| !taken.is_empty()) else {
            return;
        };
        let Some((bytes, count)) = back(orphan.undo, key, taken) else {
            return;
        };
        let Some(link) = self.links.get(id) else {
            return;
        };
        let shard = link.shard;
        let held = self.held_late(self.backends[shard].keyspace, &bytes);
        let Some(tx) = held else {
            return self.send_put_back(id, &bytes, count);
        };
        // The operation that has the key must not lose it, nor see it again.
        let late = Late::PutBack {
            shard,
            lane: link.lane.unwrap_or(link.exclusive_lane),
            request: bytes,
            count,
        };
        self.keep_late(tx, late);
    }

    /// What an operation has taken for a client that has left.
    pub(crate) fn put_back_taken(&mut self, asker: &Asker, undo: Undo, reply: &[u8]) {
        let words = scalars(reply).unwrap_or_default();
        let Some((key, taken)) = words.split_first().filter(|(_, taken)| !taken.is_empty()) else {
            return;
        };
        let space = &self.topology.keyspaces[asker.keyspace];
        let shard = space.shard_of(key, &self.admissions[asker.keyspace]);
        if let (Some((bytes, count)), Some(shard)) = (back(undo, key, taken), shard) {
            let shard = self.shard_number(asker, shard);
            self.put_back_late(shard, asker.lane, bytes, count);
        }
    }

    pub(crate) fn send_put_back(&mut self, id: u32, request: &[u8], count: usize) {
        let Some(link) = self.links.get(id) else {
            return;
        };
        let keyspace = self.backends[link.shard].keyspace;
        self.send(id, request);
        self.sent(&Asker::NOBODY, id, 0, 0, Waiter::PutBack);
        self.stats()
            .keyspace(keyspace, PerKeyspace::PutBack, count as i64);
    }

    /// A shard refused what was to be put back.
    #[cold]
    pub(crate) fn not_put_back(&mut self, shard: usize, error: &[u8]) {
        let reason = crate::error::printable(error.get(1..).unwrap_or_default());
        self.lost_element(shard, reason.trim_end());
    }

    /// What was taken for a client that has left is perhaps lost.
    pub(crate) fn lost_element(&mut self, shard: usize, reason: &str) {
        let mut fields = self.shard_fields(shard);
        fields.insert(0, ("reason", reason.to_string()));
        self.event(Level::Warning, "element-lost", fields);
    }
}

/// The request that puts back what was taken, and how many elements that are.
fn back(undo: Undo, key: &[u8], taken: &[&[u8]]) -> Option<(Vec<u8>, usize)> {
    let mut bytes = Vec::new();
    let count = match undo {
        Undo::Left | Undo::Right => {
            errand::push_back(&mut bytes, key, undo == Undo::Left, taken);
            taken.len()
        }
        Undo::Scores => {
            errand::add_back(&mut bytes, key, taken);
            taken.len() / 2
        }
        Undo::Named | Undo::Nothing => return None,
    };
    Some((bytes, count))
}
