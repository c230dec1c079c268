//! Replies: from a link's bytes to the clients that wait for them.
//!
//! Owns: the way from bytes of a shard to the place of a client's reply, and the making of one reply from gathered parts.
//!
//! Flow: `link_received` -> scanner -> the entry at the head of the link's queue -> straight into the client's output, or
//! into its `Gather` -> `gathered` when the last part is there.
//!
//! Must stay true: every byte of a reply belongs to the entry at the head of the queue; a reply that nobody asked for, or
//! that is not RESP, ends the connection, because nothing after it can be trusted.

use crate::error::ClientError;
use crate::limits::{
    GATHER_TOTAL_MAX, GREETING_BYTES_MAX, OUTPUT_HARD, OUTPUT_HIGH, PUSH_BYTES_MAX, WINDOW_MIN,
};
use crate::protocol::command::Merge;
use crate::protocol::encode::{self, Proto};
use crate::protocol::memcached::line;
use crate::routing::merge::merge;
use crate::session::backend::{InFlight, LinkState, Waiter};
use crate::session::client::Intake;
use crate::session::cross_shard::elements::integer;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use crate::session::headcount::Headcount;
use crate::session::heads::Place;
use crate::session::info::{compose_texts, merge_info, Own};
use crate::session::memcached::merge::merge as merge_text;
use crate::session::named::compose_known;
use crate::session::own_links::Owner;
use crate::session::slowlog::compose_len;
use crate::session::stats::PerShard;
use std::sync::Arc;

impl Engine {
    /// Bytes came from a shard.
    pub fn link_received(&mut self, id: u32, data: &[u8]) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let shard = link.shard;
        link.heard(self.now_us);
        let tail = std::mem::take(&mut link.tail);
        self.stats()
            .shard(shard, PerShard::ShardBytesIn, data.len() as i64);
        if tail.is_empty() {
            let used = self.replies(id, data);
            self.keep_tail(id, &data[used..]);
        } else {
            let mut joined = tail;
            joined.extend_from_slice(data);
            let used = self.replies(id, &joined);
            self.keep_tail(id, &joined[used..]);
        }
        if !self.cross_shards.drains.is_empty() {
            self.look_at_drains();
            self.settle_notes();
        }
        let Some(link) = self.links.get(id) else {
            return;
        };
        if link.lane.is_none() && link.owner != Owner::Request {
            self.block_is_over(id);
        } else if link.queue.is_empty()
            && (link.state == LinkState::Retired
                || (link.owner == Owner::Request && link.was_ready()))
        {
            self.close_link(id);
        } else if !link.blocked.is_empty() {
            self.unblock(id);
        }
    }

    fn keep_tail(&mut self, id: u32, rest: &[u8]) {
        if !rest.is_empty() {
            if let Some(link) = self.links.get_mut(id) {
                link.tail = rest.to_vec();
            }
        }
    }

    /// Takes whole and partial replies; the bytes used.
    fn replies(&mut self, id: u32, data: &[u8]) -> usize {
        let now_ms = self.now_ms;
        let mut at = 0;
        while at < data.len() {
            let Some(link) = self.links.get_mut(id) else {
                return data.len();
            };
            let (is_first, scanned) = match &mut link.text_scanner {
                None => (link.scanner.is_between(), link.scanner.scan(&data[at..])),
                Some(scanner) => (scanner.is_between(), scanner.scan(&data[at..])),
            };
            let Ok(progress) = scanned else {
                let reason = if link.text_scanner.is_some() {
                    "it sent something that is not of the memcached protocol"
                } else {
                    "it sent something that is not RESP"
                };
                self.link_lost(id, reason);
                return data.len();
            };
            if progress.used == 0 {
                break;
            }
            let bytes = &data[at..at + progress.used];
            at += progress.used;
            if is_first {
                link.in_push = bytes[0] == b'>';
            }
            if link.in_push {
                self.take_push(id, bytes, progress.done);
                continue;
            }
            // Only what somebody waits for is progress: a shard that pushes and does not answer is not well.
            link.progress_ms = now_ms;
            if let LinkState::Greeting(left) = link.state {
                link.greeting.extend_from_slice(bytes);
                if link.greeting.len() > GREETING_BYTES_MAX {
                    self.link_lost(id, "its answer to the greeting is too long");
                    return data.len();
                }
                if progress.done {
                    self.greeted(id, left);
                }
                continue;
            }
            let is_quiet = link
                .queue
                .front()
                .is_some_and(|entry| entry.waiter == Waiter::Quiet);
            if is_quiet && is_first && bytes == line::ERROR {
                // Then `mn` behind it has no answer either, and what comes next is of other requests.
                self.link_lost(id, "it does not know the meta commands");
                return data.len();
            }
            // Of a quiet request only the answer to what was sent behind it is the end.
            let ends = progress.done && (!is_quiet || (is_first && bytes == line::NOTHING_ANSWER));
            let Some(entry) = link.next_entry(ends) else {
                self.link_lost(id, "it sent a reply that nobody asked for");
                return data.len();
            };
            let shard = link.shard;
            self.deliver(id, shard, &entry, bytes, is_first, ends);
        }
        at
    }

    /// A piece of a push that is for somebody.
    fn take_push(&mut self, id: u32, bytes: &[u8], done: bool) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let owner = link.owner;
        if !owner.takes_pushes() {
            return;
        }
        if done && link.push.is_empty() {
            return self.pushed(id, owner, bytes);
        }
        if link.push.len() + bytes.len() > PUSH_BYTES_MAX {
            return self.link_lost(id, "it sent a push that is too long");
        }
        link.push.extend_from_slice(bytes);
        if done {
            let push = std::mem::take(&mut link.push);
            self.pushed(id, owner, &push);
        }
    }

    #[inline]
    fn deliver(
        &mut self,
        id: u32,
        shard: usize,
        entry: &InFlight,
        bytes: &[u8],
        is_first: bool,
        done: bool,
    ) {
        let took = (self.now_us as u32).wrapping_sub(entry.sent_us);
        if done && entry.waiter != Waiter::Probe && !self.may_wait(id) {
            self.stats().latency(shard, u64::from(took));
        }
        if is_first && took >= self.slow.least_us {
            self.replied_late(id, shard, entry, took);
        }
        let is_error = match bytes[0] {
            b'-' | b'!' => true,
            b'E' | b'C' | b'S' => {
                self.speaks_text(self.backends[shard].keyspace) && line::is_error(bytes)
            }
            _ => false,
        };
        if is_first && is_error {
            self.stats().shard(shard, PerShard::Errors, 1);
        }
        if self.failing > 0 || (is_first && is_error) {
            self.note_reply(shard, bytes, is_first);
        }
        match entry.waiter {
            Waiter::Client => self.pass_on(id, entry, bytes, done),
            Waiter::Quiet => self.pass_on_quiet(id, entry, bytes, done),
            Waiter::Part => self.collect(id, entry, bytes, is_first, done),
            Waiter::Probe => {
                // PONG, or a memcached's version: a server that is loading its data answers too, but not so.
                if bytes.first() == Some(&b'+') || bytes.starts_with(line::VERSION_ANSWER) {
                    self.backends[shard].well_ms = self.now_ms;
                }
            }
            Waiter::Queued => self.note_queued(entry, bytes, is_first),
            Waiter::Operation => self.operation_replied(entry, bytes, done),
            Waiter::Control => self.control_answered(id, shard, bytes, done),
            Waiter::Ghost if done => self.ghost_is_gone(shard, entry.number),
            Waiter::Identity => {
                self.identified(id, bytes);
                self.number_known(id);
            }
            Waiter::PutBack if is_first && is_error => self.not_put_back(shard, bytes),
            Waiter::Again => self.pass_on_or_recall(id, entry, bytes, (is_first && done, done)),
            Waiter::Listing => self.listed(shard, entry.number, bytes, done),
            Waiter::Subscription if done => self.feed_refused(id, bytes),
            Waiter::Subscription | Waiter::Prelude | Waiter::PutBack | Waiter::Ghost => {}
        }
    }

    /// What is asked on a link may wait for ever: how long says nothing about the shard.
    #[inline]
    fn may_wait(&self, id: u32) -> bool {
        self.links
            .get(id)
            .is_some_and(|link| link.lane.is_none() && link.owner.may_wait())
    }

    /// A reply as it is, to its client.
    #[inline]
    pub(crate) fn pass_on(&mut self, id: u32, entry: &InFlight, bytes: &[u8], done: bool) {
        let Some(client) = self.clients.get_same(entry.client, entry.generation) else {
            return self.orphaned(id, entry, bytes, done);
        };
        if !client.dirty {
            client.dirty = true;
            client.replies.out.take_spare(&mut self.spares);
            self.dirty_clients.push(entry.client);
        }
        client.replies.chunk(entry.number, bytes, done);
        let held = client.replies.bytes();
        if held > OUTPUT_HIGH || client.intake != Intake::Open {
            self.after_reply(id, entry.client, held);
        }
    }

    /// What comes before the answer to `mn`, which itself is for nobody.
    fn pass_on_quiet(&mut self, id: u32, entry: &InFlight, bytes: &[u8], done: bool) {
        self.pass_on(id, entry, if done { b"" } else { bytes }, done);
    }

    /// Bounds, and clients that waited for a reply before they go on.
    fn after_reply(&mut self, link: u32, slot: u32, held: usize) {
        if held > OUTPUT_HARD {
            self.stall(link, slot);
        }
        if held > OUTPUT_HIGH {
            self.piled_up(slot);
        }
        self.settle_client(slot);
    }

    /// A piece of a part.
    fn collect(&mut self, id: u32, entry: &InFlight, bytes: &[u8], is_first: bool, done: bool) {
        let Some(client) = self.clients.get_same(entry.client, entry.generation) else {
            return self.orphaned(id, entry, bytes, done);
        };
        let is_named = client
            .replies
            .gather(entry.number)
            .is_none_or(|gather| matches!(gather.kind, GatherKind::Named { .. }));
        let is_passed = client.replies.gather(entry.number).is_some_and(
            |gather| matches!(&gather.kind, GatherKind::Exec(plan) if plan.passes_on && is_first && bytes[0] == b'*'),
        );
        if is_passed || (is_named && !(is_first && bytes.starts_with(b"-NOSCRIPT"))) {
            // A script's ordinary reply: from here on it passes through like any other.
            client.replies.take_gather(entry.number);
            return self.pass_on(id, entry, bytes, done);
        }
        let Some(gather) = client.replies.gather(entry.number) else {
            return;
        };
        let before = gather.bytes();
        let is_whole = gather.chunk(entry.part, bytes, done);
        self.gather_bytes = self.gather_bytes + gather.bytes() - before;
        if self.gather_bytes > GATHER_TOTAL_MAX {
            self.gather_bytes -= gather.bytes();
            gather.overflow();
        }
        if gather.bytes() > OUTPUT_HIGH {
            // Its next replies may be as large: fewer of them at a time.
            client.window = WINDOW_MIN as u16;
        }
        if is_whole {
            self.gathered(entry.client, entry.number);
        }
    }

    /// Every part is there: makes one reply of them.
    pub(crate) fn gathered(&mut self, slot: u32, number: u32) {
        let generation = self.clients.generation(slot);
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        let Some(gather) = client.replies.take_gather(number) else {
            return;
        };
        if gather.slowest.is_some() {
            self.gathered_late(
                Place {
                    client: slot,
                    generation,
                    number,
                },
                &gather,
            );
        }
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        self.gather_bytes -= gather.bytes();
        let proto = client.proto;
        let keyspace = client.keyspace as usize;
        let mut out = Vec::new();
        if gather.is_too_large() {
            self.write_error(keyspace, &ClientError::GatherTooLarge, &mut out);
        } else {
            let lane = client.lane();
            let asker = Asker {
                slot,
                generation,
                keyspace,
                lane,
                mute: false,
            };
            if self.compose(&asker, number, *gather, proto, &mut out) {
                return;
            }
        }
        self.touch_client(slot);
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        client.replies.complete(number, out);
        if client.replies.bytes() > OUTPUT_HIGH {
            self.piled_up(slot);
        }
        self.settle_client(slot);
    }

    /// Writes the one reply; true when the request was sent again instead, and its reply is still to come.
    fn compose(
        &mut self,
        asker: &Asker,
        number: u32,
        gather: Gather,
        proto: Proto,
        out: &mut Vec<u8>,
    ) -> bool {
        let parts: Vec<&[u8]> = gather.parts.iter().map(Vec::as_slice).collect();
        match gather.kind {
            GatherKind::Merge { merge: rule, order } => {
                self.rotate = self.rotate.wrapping_add(1);
                merge(rule, &parts, &order, proto, self.rotate, out);
            }
            GatherKind::Info { sections } => {
                self.compose_info(asker.keyspace, &parts, &sections, proto, out)
            }
            GatherKind::Scan(step) => return self.scanned(asker, number, step, parts[0], out),
            GatherKind::Named {
                request,
                sha,
                shard,
            } => {
                let call = (&request, &sha, shard as usize);
                return self.mend_script(asker, number, call, parts[0], out);
            }
            GatherKind::Functions { request, shard } => {
                let shard = shard as usize;
                return self.give_functions(asker, number, &request, shard, &parts, out);
            }
            GatherKind::Everywhere { merge, shards } => {
                self.compose_everywhere(asker.keyspace, merge, &shards, &parts, proto, out);
            }
            GatherKind::Names => Self::compose_names(&parts, proto, out),
            GatherKind::Settings { shards, slow } => {
                return self.compose_settings(asker, number, (&shards, slow), &parts, proto, out);
            }
            GatherKind::Known(known) => compose_known(&parts, &known, proto, out),
            GatherKind::Load { body, shards } => {
                self.compose_load(asker, (&body, &shards), &parts, proto, out);
            }
            GatherKind::Exec(plan) => return self.compose_exec(asker, number, plan, &parts, out),
            GatherKind::Unwatch { links } => {
                links.iter().for_each(|&link| self.give_back(link, true));
                encode::simple(out, "OK");
            }
            GatherKind::Text(how) => merge_text(&how, &parts, out),
            GatherKind::Wait => return self.waited(asker, &parts, proto, out),
            GatherKind::Streams { keys } => Self::compose_streams(&parts, &keys, proto, out),
            GatherKind::ClientList => encode::verbatim(out, proto, &parts.concat()),
            GatherKind::AclLog { limit } => self.compose_acl_log(&parts, limit, proto, out),
            GatherKind::AllTook => encode::simple(out, "OK"),
            GatherKind::Operation => out.extend_from_slice(parts[0]),
            GatherKind::SlowGet { count, shards } => {
                self.compose_slowlog(&parts, count, &shards, out)
            }
            GatherKind::Texts { shards } => compose_texts(&parts, &shards, proto, out),
            GatherKind::SlowLen { most } => compose_len(&parts, most, out),
            GatherKind::Monitor => {
                self.monitor_begins(asker.slot);
                encode::simple(out, "OK");
            }
            GatherKind::Census(tally) => Self::compose_census(&tally, &parts, out),
            GatherKind::ClientKill { old_form } => Self::compose_kill(&parts, old_form, out),
            GatherKind::Tracking(step) => {
                return self.go_on_tracking(asker, number, &step, &parts, out)
            }
        }
        false
    }

    /// `load`: a script, and the shards that were given it.
    fn compose_load(
        &mut self,
        asker: &Asker,
        load: (&Arc<[u8]>, &[u16]),
        parts: &[&[u8]],
        proto: Proto,
        out: &mut Vec<u8>,
    ) {
        let (body, shards) = load;
        self.compose_everywhere(asker.keyspace, Merge::First, shards, parts, proto, out);
        if out.first() == Some(&b'$') {
            self.remember_script(body);
        }
    }

    fn compose_info(
        &self,
        keyspace: usize,
        parts: &[&[u8]],
        sections: &[Vec<u8>],
        proto: Proto,
        out: &mut Vec<u8>,
    ) {
        let sections: Vec<&[u8]> = sections.iter().map(Vec::as_slice).collect();
        let (counted, parts) = parts.split_at(self.identity.workers.min(parts.len()));
        let headcount = Headcount::of(counted);
        let has_records = self.topology.keyspaces[keyspace].cross_shard;
        let texts = parts.len() / (1 + usize::from(has_records));
        let (parts, records) = parts.split_at(texts);
        let records = records.iter().filter_map(|part| integer(part)).sum();
        let text = self.with_own(keyspace, headcount, |own| {
            merge_info(parts, &Own { records, ..*own }, &sections)
        });
        encode::verbatim(out, proto, &text);
    }

    /// Takes the bytes of a gather's part that came from another worker.
    pub(crate) fn part_arrived(
        &mut self,
        slot: u32,
        generation: u32,
        number: u32,
        part: u16,
        bytes: &[u8],
    ) {
        let Some(client) = self.clients.get_same(slot, generation) else {
            return;
        };
        let Some(gather) = client.replies.gather(number) else {
            return;
        };
        let before = gather.bytes();
        let is_whole = gather.chunk(part, bytes, true);
        self.gather_bytes = self.gather_bytes + gather.bytes() - before;
        if is_whole {
            self.gathered(slot, number);
        }
    }

    /// A part that cannot be asked for.
    pub(crate) fn part_failed(
        &mut self,
        asker: &Asker,
        number: u32,
        part: u16,
        error: &ClientError,
    ) {
        let mut bytes = Vec::new();
        self.write_error(asker.keyspace, error, &mut bytes);
        self.fail_part(asker.slot, number, part, &bytes);
    }

    /// An error in place of a part.
    pub(crate) fn fail_part(&mut self, slot: u32, number: u32, part: u16, error: &[u8]) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        let Some(gather) = client.replies.gather(number) else {
            return;
        };
        let before = gather.bytes();
        let is_whole = gather.fail(part, error);
        self.gather_bytes = self.gather_bytes + gather.bytes() - before;
        if is_whole {
            self.gathered(slot, number);
        }
    }
}
