//! EXEC over several shards, as one operation.
//!
//! Owns: the way from a queued transaction and its watch to a `Job`, and the asking whether watched keys are as they were.
//!
//! Flow: `exec_across` -> every queued request's claims, and a shared claim on each watched key -> the operation fences them -> it
//! asks for `validate_watches`: an empty MULTI, EXEC on each connection that watches -> the commit executes the client's requests
//! natively, at home -> the reply is put together like any EXEC's.
//!
//! Must stay true: watches are asked about only when everything is fenced, so that what was true then is true at the commit; what
//! we answer ourselves (PING ...) is done when the shards have executed the rest.
//! Rejected: comparing values: a key that was changed and changed back has been changed.

use crate::error::{ClientError, OperationError};
use crate::protocol::command::Access;
use crate::protocol::encode;
use crate::protocol::errand;
use crate::protocol::request::RequestScanner;
use crate::routing::claims::beyond_keys;
use crate::routing::route::{specification, Request};
use crate::session::backend::{InFlight, Waiter, LANES};
use crate::session::cross_shard::jobs::{Job, Keys, ReplyKind};
use crate::session::cross_shard::steps::Event;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use crate::session::own_links::{Owner, Purpose};
use crate::session::transaction::{Deed, Transaction};
use crate::session::transaction_reply::{ExecPart, ExecPlan};
use crate::session::transaction_watch::Watch;

/// Parts from this number on are connections that watch.
pub(crate) const WATCHING: usize = 1 << 15;

impl Engine {
    pub(crate) fn exec_across(
        &mut self,
        asker: &Asker,
        mut transaction: Transaction,
        watch: Option<Box<Watch>>,
    ) {
        let lanes_fit = watch
            .as_ref()
            .is_none_or(|watch| watch.lane == asker.lane % LANES);
        let places = watch.iter().flat_map(|watch| &watch.places);
        let links: Option<Vec<u32>> = places.map(|place| place.link).collect();
        let (Some(links), true) = (links, lanes_fit) else {
            self.exec_aborted(asker);
            self.end_watch(asker.slot, watch);
            let proto = self.clients.get(asker.slot).map(|client| client.proto);
            let proto = proto.unwrap_or(encode::Proto::Resp2);
            return match lanes_fit {
                true => self.answer(asker, |out| encode::null_array(out, proto)),
                false => self.answer_error(asker, &ClientError::WatchMoved),
            };
        };
        let mut keys = Keys::default();
        let claimed = self.claim_transaction(asker, &transaction, &mut keys);
        for place in watch.iter().flat_map(|watch| &watch.places) {
            for key in &place.keys {
                keys.watch(key, place.shard);
            }
        }
        let mut requests = Vec::with_capacity(transaction.bytes.len());
        let mut count = 0;
        for index in 0..transaction.commands.len() {
            if !matches!(transaction.commands[index].deed, Deed::Own(_)) {
                requests.extend_from_slice(transaction.request(index));
                count += 1;
            }
            transaction.commands[index].part = 0;
        }
        let job = claimed
            .and_then(|()| self.job(asker, 0, &keys, requests.into(), count, ReplyKind::Exec));
        let mut job = match job {
            Ok(job) => job,
            Err(error) => {
                self.exec_aborted(asker);
                self.end_watch(asker.slot, watch);
                return self.answer_error(asker, &error);
            }
        };
        let generation = |&link: &u32| (link, self.links.generation(link));
        job.watches = links.iter().map(generation).collect();
        let home = self.shard_number(asker, job.shards[job.home]);
        let plan = ExecPlan {
            passes_on: false,
            parts: vec![ExecPart::new(home)],
            watch: None,
            caching: None,
            transaction,
        };
        let kind = GatherKind::Exec(Box::new(plan));
        job.place = self.reserve_gather(asker, Gather::new(kind, 1));
        self.start_job(job);
    }

    /// What the queued requests claim.
    fn claim_transaction(
        &mut self,
        asker: &Asker,
        transaction: &Transaction,
        keys: &mut Keys,
    ) -> Result<(), ClientError> {
        for index in 0..transaction.commands.len() {
            if matches!(transaction.commands[index].deed, Deed::Own(_)) {
                continue;
            }
            let data = transaction.request(index);
            let mut scanner = RequestScanner::default();
            scanner.scan(data, true);
            let request = Request {
                data,
                args: &scanner.args,
            };
            if let Ok(spec) = specification(&request) {
                if let Some(error) = beyond_keys(spec, &request) {
                    return Err(error);
                }
                self.claim(asker.keyspace, spec, &request, keys)?;
                continue;
            }
            let space = &self.topology.keyspaces[asker.keyspace];
            let key = request.arg(1);
            let shard = space.shard_of(key, &self.admissions[asker.keyspace]);
            let none = || ClientError::Operation(OperationError::TooWide);
            keys.add(key, shard.ok_or_else(none)?, Access::Write);
        }
        Ok(())
    }

    /// The connections on which keys are watched belong to the operation from now on: it lives longer than its client may.
    pub(crate) fn adopt_watches(&mut self, index: u32, generation: u32, links: &[(u32, u32)]) {
        for (number, &(id, of_link)) in links.iter().enumerate() {
            let Some(link) = self.links.get_same(id, of_link) else {
                continue;
            };
            let owner = Owner::Operation {
                index,
                generation,
                part: (WATCHING + number) as u16,
            };
            match link.owner {
                Owner::Client {
                    slot,
                    generation: of_client,
                    purpose: Purpose::Watch,
                } => {
                    link.owner = owner;
                    self.disown(slot, of_client, id);
                }
                // It was begun before, and others had its keys.
                Owner::Operation { .. } => link.owner = owner,
                // The connection on which the client's reads are tracked stays what it is.
                _ => {}
            }
        }
    }

    /// The operation that had them is over.
    pub(crate) fn end_job_watches(&mut self, job: &Job, was_validated: bool) {
        for &(id, generation) in &job.watches {
            let Some(link) = self.links.get_same(id, generation) else {
                continue;
            };
            match link.owner {
                Owner::Operation { .. } => self.give_back(id, was_validated),
                Owner::Client { slot, .. } if !was_validated => {
                    self.unwatch_tracked(slot, id);
                }
                _ => {}
            }
        }
    }

    /// Asks every shard whether what is watched there is as it was.
    pub(crate) fn validate_watches(&mut self, index: u32) {
        let generation = self.cross_shards.running.generation(index);
        let Some(running) = self.cross_shards.running.get_mut(index) else {
            return;
        };
        let links = running.job.watches.clone();
        running.unvalidated = links.len();
        running.was_validated = true;
        let (now_us, now_ms) = (self.now_us, self.now_ms);
        for (number, (id, of_link)) in links.into_iter().enumerate() {
            let Some(link) = self.links.get_same(id, of_link) else {
                return self.advance_later(index, Event::Validated(false));
            };
            link.outgoing().push(errand::MULTI);
            link.outgoing().push(errand::EXEC);
            for reply in 0..2 {
                let entry = InFlight {
                    client: index,
                    generation,
                    number: reply,
                    sent_us: now_us as u32,
                    part: (WATCHING + number) as u16,
                    waiter: Waiter::Operation,
                };
                link.await_reply(entry, now_ms);
            }
            self.touch_link(id);
        }
    }

    /// What one of them said: the second of its replies is an empty array, or that something has changed.
    pub(crate) fn watch_validated(&mut self, entry: &InFlight, bytes: &[u8]) {
        if entry.number == 0 {
            return;
        }
        let running = self
            .cross_shards
            .running
            .get_same(entry.client, entry.generation);
        let Some(running) = running else {
            return;
        };
        running.unvalidated = running.unvalidated.saturating_sub(1);
        if !bytes.starts_with(b"*0") {
            self.advance_later(entry.client, Event::Validated(false));
        } else if running.unvalidated == 0 {
            self.advance_later(entry.client, Event::Validated(true));
        }
        self.settle_notes();
    }
}
