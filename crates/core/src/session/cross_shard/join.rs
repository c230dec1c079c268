//! Being a member of the shards that one uses.
//!
//! Owns: what every connection to a shard is told first where operations across shards are possible, what its answer brings, and
//! connections that were lost with something under way.
//!
//! Flow: a connection is named, asked for its number, and registered (`Join`), before anything else is sent on it -> the answer
//! tells the fences that are there: they are held back before the first request goes out. A lost connection on which something
//! was under way is a ghost until the shard has confirmed its end.
//!
//! Must stay true: named first, then registered: whoever takes this proxy off the shard's list finds every connection of it by
//! name; nothing is dispatched on a connection before its fences are known; a ghost is ended on the server process that knew it.
//! Rejected: registering once for each proxy: a connection that was made after it was taken off the list would not know.

use crate::protocol::errand;
use crate::session::backend::{InFlight, Link, LinkState, Waiter};
use crate::session::client::care;
use crate::session::cross_shard::call::{Call, Kind, Outcome, Record};
use crate::session::cross_shard::notes::Note;
use crate::session::cross_shard::registrar::{Claims, ShardClaims};
use crate::session::cross_shard::remote::name_on;
use crate::session::cross_shard::wire;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::own_links::{Owner, Purpose};
use std::sync::Arc;

impl Engine {
    /// Whether the clients of a shard's keyspace have operations across shards.
    pub(crate) fn is_member_of(&self, shard: usize) -> bool {
        self.topology.keyspaces[self.backends[shard].keyspace].cross_shard
    }

    /// What all members of a shard must agree on.
    pub(crate) fn terms_of(&self, shard: usize) -> Arc<str> {
        let keyspace = self.backends[shard].keyspace;
        self.cross_shards.terms[keyspace].clone()
    }

    /// What a connection is told to become a member's: name, number, registration. With the number of answers.
    pub(crate) fn membership_greeting(
        &self,
        shard: usize,
        is_aside: bool,
    ) -> Option<(Vec<u8>, u8)> {
        if is_aside || !self.is_member_of(shard) {
            return None;
        }
        let mut out = Vec::new();
        let pid = self.cross_shards.pid.clone();
        wire::greeting(&pid, &mut out);
        out.extend_from_slice(errand::WHO);
        let terms = self.terms_of(shard);
        let answers = 2 + wire::encode(&Call::Join { pid, terms }, &mut out);
        Some((out, answers as u8))
    }

    /// One of these answers; false when the link is lost over it.
    pub(crate) fn membership_answered(&mut self, id: u32, left: u8, answer: &[u8]) -> bool {
        let Some(link) = self.links.get_mut(id) else {
            return false;
        };
        if left == link.join_left.wrapping_add(1) {
            let text = answer.get(1..).map(<[u8]>::trim_ascii_end);
            let number = text.and_then(crate::protocol::request::strict_integer);
            link.server_id = number
                .and_then(|number| u64::try_from(number).ok())
                .unwrap_or(0);
            return true;
        }
        if left != link.join_left {
            return true;
        }
        let shard = link.shard;
        let pid = self.cross_shards.pid.clone();
        let terms = self.terms_of(shard);
        match wire::decode(&Call::Join { pid, terms }, answer) {
            Outcome::Joined {
                dump_version,
                records,
                evicts,
                ..
            } => {
                self.note_eviction(shard, evicts);
                self.backends[shard].dump_version = dump_version;
                self.joined(id, shard, records);
                true
            }
            Outcome::Incompatible(who) => {
                self.link_lost(id, &format!("another shoal uses it whose version does not go with this one; stop that one first: {who}"));
                false
            }
            outcome => {
                let reason = match outcome {
                    Outcome::Failed(error) => crate::error::printable(&error),
                    _ => "it gave no sensible answer".to_string(),
                };
                self.link_lost(id, &format!("it does not register this proxy: {reason}"));
                false
            }
        }
    }

    /// The records of a shard, as a new connection was told them.
    fn joined(&mut self, id: u32, shard: usize, records: Vec<Record>) {
        let keyspace = self.backends[shard].keyspace;
        for record in &records {
            let is_own = record.coordinator == self.cross_shards.pid;
            let name = name_on(&record.tx, shard);
            let is_known = self.cross_shards.fences[keyspace].knows(&name);
            if record.kind == Kind::Fence && !is_own && !is_known {
                let claims = self.claims_of_record(shard, record);
                self.cross_shards.fences[keyspace].install(&name, &claims);
                self.care |= care::FENCED;
                // What waits in it was let pass before the fence was known, and nobody may be waiting for it to be answered.
                // (Steps of the protocol are not: they may be what ends the fence.)
                let link = self.links.get_mut(id);
                let is_of_clients = |link: &&mut Link| {
                    !matches!(link.owner, Owner::Control | Owner::Operation { .. })
                };
                if let Some(link) = link.filter(is_of_clients) {
                    link.behind.push(name);
                    self.cross_shards.has_behind = true;
                }
            }
        }
        if !records.is_empty() {
            self.post(0, Note::Found(shard, records));
            self.settle_notes();
        }
    }

    /// What a record claims, as the tables of this process have it.
    pub(crate) fn claims_of_record(&self, shard: usize, record: &Record) -> Claims {
        let first = self.topology.keyspaces[self.backends[shard].keyspace].first_shard;
        Arc::new([ShardClaims {
            shard: (shard - first) as u16,
            scope: record.scope,
            keys: record.keys.clone(),
        }])
    }

    // ------------------------------------------------------------------------------------------------------- ghosts

    /// A connection was lost.
    pub(crate) fn note_ghost(&mut self, link: &Link) {
        self.keep_ghost(link);
        // What was to be answered on it will not be.
        if !self.cross_shards.drains.is_empty() {
            self.look_at_drains();
            self.settle_notes();
        }
    }

    /// A connection is gone: what was under way on it may still run, until the shard has confirmed its end.
    pub(crate) fn keep_ghost(&mut self, link: &Link) {
        let touches_keys = matches!(
            link.owner,
            Owner::Lane
                | Owner::Ending
                | Owner::Client {
                    purpose: Purpose::Watch | Purpose::Track | Purpose::Wake | Purpose::Block,
                    ..
                }
        );
        let is_work = |entry: &InFlight| !matches!(entry.waiter, Waiter::Probe | Waiter::Ghost);
        let was_up = matches!(link.state, LinkState::Up | LinkState::Retired);
        if touches_keys
            && was_up
            && link.server_id != 0
            && self.is_member_of(link.shard)
            && link.queue.iter().any(is_work)
        {
            self.backends[link.shard].ghosts.push(link.server_id);
            self.end_ghosts(link.shard, Some(link.server_id));
        }
    }

    /// Asks a shard to end them, or one of them, where it can be asked.
    pub(crate) fn end_ghosts(&mut self, shard: usize, only: Option<u64>) {
        let main = self.backends[shard].links[0];
        let is_up = |link: &Link| link.state == LinkState::Up;
        if !self.links.get(main).is_some_and(is_up) {
            return;
        }
        let all = self.backends[shard].ghosts.clone();
        for number in only.map_or(all, |number| vec![number]) {
            if let Some(link) = self.links.get_mut(main) {
                errand::end_connection(link.outgoing().tail(), number);
            }
            self.sent(&Asker::NOBODY, main, number as u32, 0, Waiter::Ghost);
        }
    }

    /// The shard has ended it, or did not know it any more.
    pub(crate) fn ghost_is_gone(&mut self, shard: usize, number: u32) {
        self.backends[shard]
            .ghosts
            .retain(|&ghost| ghost as u32 != number);
        self.look_at_drains();
        self.settle_notes();
    }

    /// A shard's main connection is up: to the same process as before, which may have ghosts to end, or to another, which has none.
    pub(crate) fn look_at_ghosts(&mut self, shard: usize, run_id: Option<String>) {
        if self.backends[shard].run_id != run_id {
            self.backends[shard].run_id = run_id;
            self.backends[shard].ghosts.clear();
            self.look_at_drains();
            self.settle_notes();
        } else {
            self.end_ghosts(shard, None);
        }
    }
}
