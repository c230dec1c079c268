//! The life of links: opened when first needed, greeted, up, lost, closed.
//!
//! Owns: which link a request travels on, what a connection is told before its first request, and what happens to those
//! who wait when it is lost.
//!
//! Must stay true: every entry of a lost link's queue gets exactly one error, in the place of its reply; nothing is sent
//! again; a shard's health follows its main link only.

use crate::error::ClientError;
use crate::protocol::encode::Proto;
use crate::protocol::errand::greeting;
use crate::protocol::memcached::line;
use crate::protocol::memcached::reply::TextReplyScanner;
use crate::session::backend::{
    lane_parts, Health, HealthEvent, InFlight, Link, LinkState, Waiter, NONE,
};
use crate::session::client::Intake;
use crate::session::engine::{Action, Engine, Level};
use crate::session::output::Output;
use crate::session::own_links::Owner;
use crate::session::stats::{CloseReason, PerShard};

impl Engine {
    /// The link for a database and protocol of a shard; opened when there is none yet.
    #[inline]
    pub(crate) fn link_for(&mut self, shard: usize, lane: usize) -> Result<u32, ClientError> {
        let backend = &self.backends[shard];
        let link = backend.links[lane];
        if link != NONE && backend.health == Health::Up {
            return Ok(link);
        }
        self.link_or_refusal(shard, lane)
    }

    fn link_or_refusal(&mut self, shard: usize, lane: usize) -> Result<u32, ClientError> {
        if self.is_stopping {
            return Err(ClientError::Stopping);
        }
        match self.backends[shard].health {
            Health::Down { .. } | Health::Retrying { .. } => {
                return Err(ClientError::ShardDown {
                    shard: self.shard_name(shard),
                    endpoint: self.endpoint(shard).to_string(),
                    reason: self.backends[shard].reason.clone(),
                });
            }
            Health::Idle => self.open_main(shard),
            Health::Opening | Health::Up => {}
        }
        let link = self.backends[shard].links[lane];
        Ok(if link == NONE {
            self.open(shard, Some(lane))
        } else {
            link
        })
    }

    /// Begins a shard's main connection.
    pub(crate) fn open_main(&mut self, shard: usize) {
        self.move_health(shard, HealthEvent::Begun);
        if self.backends[shard].links[0] == NONE {
            self.open(shard, Some(0));
        }
    }

    fn move_health(&mut self, shard: usize, event: HealthEvent) {
        let before = self.backends[shard].health;
        let after = before.after(event);
        self.backends[shard].health = after;
        self.stats()
            .set_shard(shard, PerShard::Up, u64::from(after == Health::Up));
    }

    fn open(&mut self, shard: usize, lane: Option<usize>) -> u32 {
        let mut fresh = Link::new(shard, lane, self.now_ms);
        if self.speaks_text(self.backends[shard].keyspace) {
            fresh.text_scanner = Some(TextReplyScanner::default());
        }
        let (link, _) = self.links.insert(fresh);
        if let Some(lane) = lane {
            self.backends[shard].links[lane] = link;
        }
        self.stats().shard(shard, PerShard::Connections, 1);
        self.stats().shard(shard, PerShard::Connects, 1);
        self.actions.push(Action::Open(link));
        link
    }

    /// A connection that serves one request alone and is closed after it. Its database and protocol are the lane's.
    pub(crate) fn open_exclusive(&mut self, shard: usize, lane: usize) -> u32 {
        self.exclusive_links += 1;
        let link = self.open(shard, None);
        if let Some(link) = self.links.get_mut(link) {
            link.exclusive_lane = lane;
        }
        link
    }

    /// Name of a shard.
    pub(crate) fn shard_name(&self, shard: usize) -> String {
        self.topology
            .shards()
            .nth(shard)
            .map_or_else(String::new, |(_, shard)| shard.name.clone())
    }

    /// Endpoint of a shard.
    pub(crate) fn endpoint(&self, shard: usize) -> &str {
        self.topology
            .shards()
            .nth(shard)
            .map_or("", |(_, shard)| &shard.endpoint)
    }

    /// The endpoint that a link is to be connected to.
    pub fn link_endpoint(&self, link: u32) -> Option<String> {
        self.links
            .get(link)
            .map(|link| self.endpoint(link.shard).to_string())
    }

    /// A link's keyspace, and the endpoint that it is to be connected to.
    pub fn link_place(&self, link: u32) -> Option<(usize, String)> {
        let keyspace = self.backends[self.links.get(link)?.shard].keyspace;
        Some((keyspace, self.link_endpoint(link)?))
    }

    /// The generation of a link's number.
    pub fn link_generation(&self, link: u32) -> u32 {
        self.links.generation(link)
    }

    /// A link's socket is connected: it is told what it must know.
    pub fn link_connected(&mut self, id: u32) {
        let now_ms = self.now_ms;
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let shard = link.shard;
        let own = self.topology.keyspaces[self.backends[shard].keyspace].database;
        let (database, proto) = lane_parts(link.lane.unwrap_or(link.exclusive_lane), own);
        // Of what may be asked about a script nothing depends on the database, and a busy server refuses to change it.
        let database = if link.is_aside { 0 } else { database };
        let is_main = link.lane == Some(0);
        let is_aside = link.is_aside;
        link.progress_ms = now_ms;
        link.greeted_ms = now_ms;
        if link.text_scanner.is_some() {
            link.out.push(line::VERSION);
            link.state = LinkState::Greeting(1);
            return self.touch_link(id);
        }
        let credentials = self
            .topology
            .shards()
            .nth(shard)
            .and_then(|(_, shard)| shard.credentials.as_ref());
        let credentials =
            credentials.map(|shown| (shown.username.as_deref(), shown.password.as_str()));
        let membership = self.membership_greeting(shard, is_aside);
        let shown = membership
            .as_ref()
            .map(|(words, count)| (words.as_slice(), *count, own));
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let answers = greeting(
            link.out.tail(),
            credentials,
            proto == Proto::Resp3,
            database,
            shown,
            is_main,
        );
        let tracked = self.greet_tracked(id);
        let answers = answers + tracked;
        if let Some(link) = self.links.get_mut(id) {
            if membership.is_some() {
                // Behind it come the change of the database, the last word, and what concerns tracking.
                link.join_left = 2 + u8::from(database != own) + tracked;
            }
            link.state = LinkState::Greeting(answers);
        }
        self.touch_link(id);
    }

    /// One whole answer to what a link was told first.
    pub(crate) fn greeted(&mut self, id: u32, left: u8) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let answer = std::mem::take(&mut link.greeting);
        let shard = link.shard;
        let is_busy = link.is_aside && answer.starts_with(b"-BUSY");
        let is_error = answer
            .first()
            .is_some_and(|first| matches!(first, b'-' | b'!'));
        if (is_error && !is_busy)
            || (link.text_scanner.is_some() && !answer.starts_with(line::VERSION_ANSWER))
        {
            let reason = format!("greeting refused: {}", self.harmless(shard, &answer));
            self.link_lost(id, &reason);
            return;
        }
        let joins = link.join_left > 0 && left >= link.join_left;
        if joins && !self.membership_answered(id, left, &answer) {
            return;
        }
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        if left > 1 {
            link.state = LinkState::Greeting(left - 1);
            return;
        }
        let is_main = link.lane == Some(0);
        if link.text_scanner.is_some() {
            let lacks_meta = line::lacks_meta(&answer);
            let holds_meta = std::mem::take(&mut link.holds_meta);
            self.backends[shard].lacks_meta = lacks_meta;
            if lacks_meta && holds_meta {
                self.link_lost(id, "it is too old for the meta commands");
                return;
            }
        }
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        link.state = LinkState::Up;
        if link.behind.is_empty() {
            let mut held = std::mem::take(&mut link.held);
            link.out.append(&mut held);
        }
        self.touch_link(id);
        if is_main {
            self.main_is_up(shard, &answer);
        }
        self.tracked_is_up(id);
        self.operation_link_is_up(id);
    }

    /// An error of a server as it may be shown: what we told the server in confidence (servers that do not know a command
    /// repeat its arguments) is taken out, and the rest is bounded.
    fn harmless(&self, shard: usize, answer: &[u8]) -> String {
        let mut text = crate::error::printable(answer);
        if let Some(at) = text.find(", with args beginning with") {
            text.truncate(at);
        }
        let credentials = self.topology.shards().nth(shard);
        if let Some(shown) = credentials.and_then(|(_, shard)| shard.credentials.as_ref()) {
            if !shown.password.is_empty() {
                text = text.replace(&shown.password, "***");
            }
        }
        text.trim_start_matches('-').trim_end().to_string()
    }

    fn main_is_up(&mut self, shard: usize, info: &[u8]) {
        if let Some(version) =
            field(info, b"redis_version:").or_else(|| field(info, line::VERSION_ANSWER))
        {
            self.backends[shard].version = version;
        }
        self.look_at_ghosts(shard, field(info, b"run_id:"));
        self.move_health(shard, HealthEvent::Ready);
        self.ensure_control(shard);
        self.backends[shard].reason.clear();
        self.stats().set_reason(shard, "");
        let fields = self.shard_fields(shard);
        self.event(Level::Info, "shard-up", fields);
    }

    pub(crate) fn shard_fields(&self, shard: usize) -> Vec<(&'static str, String)> {
        let keyspace = self.backends[shard].keyspace;
        vec![
            ("keyspace", self.topology.keyspaces[keyspace].name.clone()),
            ("shard", self.shard_name(shard)),
            ("endpoint", self.endpoint(shard).to_string()),
            ("worker", self.identity.worker.to_string()),
        ]
    }

    /// A shard closed a link's connection.
    pub fn link_ended(&mut self, id: u32) {
        if let Some(link) = self.links.get(id) {
            self.stats().shard(link.shard, PerShard::Eofs, 1);
        }
        self.link_lost(id, "it closed the connection");
    }

    /// An answer did not come in time.
    pub(crate) fn link_overdue(&mut self, id: u32, reason: &str) {
        if let Some(link) = self.links.get(id) {
            self.stats().shard(link.shard, PerShard::Timeouts, 1);
        }
        self.link_lost(id, reason);
    }

    /// A link's connection is gone or could not be made.
    pub fn link_lost(&mut self, id: u32, reason: &str) {
        let Some(link) = self.links.remove(id) else {
            return;
        };
        let shard = link.shard;
        self.actions.push(Action::CloseLink(id));
        self.stats().shard(shard, PerShard::Connections, -1);
        self.stats().shard(shard, PerShard::Losses, 1);
        let is_insecure = link.state == LinkState::Securing;
        self.stats()
            .shard(shard, PerShard::TlsFailures, i64::from(is_insecure));
        self.stalled.retain(|&(stalled, ..)| stalled != id);
        let mut fields = self.shard_fields(shard);
        fields.insert(0, ("reason", reason.to_string()));
        fields.push(("unanswered", link.queue.len().to_string()));
        match link.lane {
            Some(lane) if self.backends[shard].links[lane] == id => {
                self.backends[shard].links[lane] = NONE;
                if lane == 0 {
                    self.main_lost(shard, reason, fields);
                } else {
                    self.event(Level::Warning, "connection-lost", fields);
                }
            }
            Some(_) => self.event(Level::Warning, "connection-lost", fields),
            None => {
                self.exclusive_links -= 1;
                if link.owner == Owner::Subscriptions {
                    // What is published there meanwhile is not heard.
                    fields.push(("purpose", "subscriptions".to_string()));
                    self.event(Level::Warning, "connection-lost", fields);
                    self.feed_lost(shard, link.state, reason);
                } else {
                    self.event(Level::Debug, "connection-lost", fields);
                }
                self.own_link_lost(id, &link);
            }
        }
        self.note_ghost(&link);
        if link.owes_elements() {
            self.lost_element(shard, reason);
        }
        self.fail_waiting(&link, reason);
        self.let_go(id, &link.blocked);
        if link.lane.is_some() {
            self.note_failure(shard);
        }
    }

    /// Clients that waited for a link which is gone. Those that wait for something else by now go on waiting.
    fn let_go(&mut self, id: u32, blocked: &[(u32, u32)]) {
        for &(slot, generation) in blocked {
            let client = self.clients.get_same(slot, generation);
            if client.is_some_and(|client| client.intake == Intake::Link(id)) {
                self.open_intake(slot);
            }
        }
    }

    fn main_lost(&mut self, shard: usize, reason: &str, fields: Vec<(&'static str, String)>) {
        self.ask_again(Some(shard));
        let was = self.backends[shard].health;
        let chance = self.chance();
        // Until the shard is ejected its keys get errors: what is counted for that must not take longer and longer.
        let brief = self.ejection_rules(shard).map_or(0, |rules| rules.after);
        self.move_health(
            shard,
            HealthEvent::Lost {
                now_ms: self.now_ms,
                chance,
                brief,
            },
        );
        self.backends[shard].reason = reason.to_string();
        self.stats().set_reason(shard, reason);
        // A server that went away may come back without the scripts and functions it was given.
        self.backends[shard].scripts.clear();
        self.backends[shard].has_functions = false;
        let level = match was {
            Health::Up | Health::Opening | Health::Idle => Level::Warning,
            Health::Down { .. } | Health::Retrying { .. } => Level::Debug,
        };
        self.event(level, "shard-down", fields);
    }

    fn fail_waiting(&mut self, link: &Link, reason: &str) {
        let (shard, endpoint) = (
            self.shard_name(link.shard),
            self.endpoint(link.shard).to_string(),
        );
        let reason = reason.to_string();
        let lost = ClientError::ShardLost {
            shard: shard.clone(),
            endpoint: endpoint.clone(),
            reason: reason.clone(),
        };
        let unsent = ClientError::ShardDown {
            shard,
            endpoint,
            reason,
        };
        self.stats()
            .shard(link.shard, PerShard::Failed, link.queue.len() as i64);
        let mut bytes = [Vec::new(), Vec::new()];
        let keyspace = self.backends[link.shard].keyspace;
        self.write_error(keyspace, &lost, &mut bytes[0]);
        self.write_error(keyspace, &unsent, &mut bytes[1]);
        for entry in &link.queue {
            // Of a split request the other parts may have been executed, whatever became of this one.
            let is_unsent = !link.was_ready()
                && matches!(entry.waiter, Waiter::Client | Waiter::Again | Waiter::Quiet);
            self.fail_entry(entry, &bytes[usize::from(is_unsent)]);
        }
    }

    /// The error in place of a reply that will not come.
    fn fail_entry(&mut self, entry: &InFlight, error: &[u8]) {
        let Some(client) = self.clients.get_same(entry.client, entry.generation) else {
            return;
        };
        match entry.waiter {
            Waiter::Probe
            | Waiter::Prelude
            | Waiter::Queued
            | Waiter::Identity
            | Waiter::PutBack
            | Waiter::Listing
            | Waiter::Operation
            | Waiter::Control
            | Waiter::Ghost
            | Waiter::Subscription => {}
            Waiter::Part if client.replies.gather(entry.number).is_some() => {
                self.fail_part(entry.client, entry.number, entry.part, error);
            }
            // A part that is gathered no more is a script's reply that had begun to pass through.
            Waiter::Client | Waiter::Again | Waiter::Quiet | Waiter::Part => {
                if client.replies.replace(entry.number, error.to_vec()) {
                    self.touch_client(entry.client);
                    self.settle_client(entry.client);
                } else {
                    // Also if it was about to be closed for another reason.
                    client.reason = Some(CloseReason::ReplyCut);
                    self.drop_client(entry.client, CloseReason::ReplyCut);
                }
            }
        }
    }

    /// A link that nobody else shall use: what it owes is still taken, then it is closed.
    pub(crate) fn retire(&mut self, id: u32) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let (shard, Some(lane)) = (link.shard, link.lane) else {
            return;
        };
        if self.backends[shard].links[lane] != id || link.state != LinkState::Up {
            return;
        }
        link.state = LinkState::Retired;
        self.backends[shard].links[lane] = NONE;
        // Its clients must not overtake themselves on the link that takes its place.
        let waiting: Vec<(u32, u32)> = link
            .queue
            .iter()
            .map(|entry| (entry.client, entry.generation))
            .collect();
        for (client, generation) in waiting {
            if let Some(client) = self.clients.get_same(client, generation) {
                client.raise_barrier();
            }
        }
        self.open(shard, Some(lane));
    }

    /// Closes a link of which nobody wants to hear any more.
    pub(crate) fn close_link(&mut self, id: u32) {
        let Some(link) = self.links.remove(id) else {
            return;
        };
        self.actions.push(Action::CloseLink(id));
        self.stats().shard(link.shard, PerShard::Connections, -1);
        match link.lane {
            Some(lane) if self.backends[link.shard].links[lane] == id => {
                self.backends[link.shard].links[lane] = NONE
            }
            Some(_) => {}
            None => {
                self.exclusive_links -= 1;
                self.backends[link.shard]
                    .idle
                    .retain(|&(_, idle)| idle != id);
            }
        }
        self.stalled.retain(|&(stalled, ..)| stalled != id);
        // What was sent on it may still run.
        self.keep_ghost(&link);
        self.let_go(id, &link.blocked);
    }

    /// Puts a link on the list of those with something to write.
    pub(crate) fn touch_link(&mut self, id: u32) {
        if let Some(link) = self.links.get_mut(id) {
            if !link.dirty {
                link.dirty = true;
                self.dirty_links.push(id);
            }
        }
    }

    /// The output of a link that was on the dirty list; it is off the list. Nothing is shown before it is connected.
    #[inline]
    pub fn link_output(&mut self, id: u32) -> Option<&mut Output> {
        let link = self.links.get_mut(id)?;
        link.dirty = false;
        let is_there = !matches!(link.state, LinkState::Connecting | LinkState::Securing);
        is_there.then_some(&mut link.out)
    }

    /// Some of a link's output was written.
    #[inline]
    pub fn link_written(&mut self, id: u32, bytes: usize) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let shard = link.shard;
        let has_blocked = !link.blocked.is_empty();
        self.stats()
            .shard(shard, PerShard::ShardBytesOut, bytes as i64);
        if has_blocked {
            self.unblock(id);
        }
    }

    /// True when the caller may read from the link.
    #[inline]
    pub fn reads_link(&self, id: u32) -> bool {
        self.links.get(id).is_some_and(|link| !link.stalled)
    }
}

/// A `name:value` line of an INFO text.
fn field(info: &[u8], name: &[u8]) -> Option<String> {
    let line = info
        .split(|&byte| byte == b'\n')
        .find(|line| line.starts_with(name))?;
    // It is repeated to clients, so it has to look like what it should be.
    let value = line[name.len()..].trim_ascii_end();
    let is_plain = value.len() <= 32
        && value
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(byte));
    is_plain.then(|| String::from_utf8_lossy(value).into_owned())
}
