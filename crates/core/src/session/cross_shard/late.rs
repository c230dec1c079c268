//! What the engine sends later than its request passed the gate, and what becomes of it when the keys are fenced by then.
//!
//! Owns: `Late`, and the asking of the fences once more: scripts and functions that a shard lacked, the second half of an EXEC under a
//! watch, elements that are put back, waits that were recalled, steps of waits over several shards, connections that were told of a fence
//! while requests waited in them.
//!
//! Flow: the place that is about to send asks `held_late` -> nobody has the keys: it sends. Else it keeps what is to be sent under that
//! operation's name -> the fence is lifted -> `do_late`: it is tried again, and asks again.
//!
//! Must stay true: nothing is sent on a fenced key; nothing that is kept is lost, unless its client has left and it is nothing that was
//! taken; a client of which something is kept is not read, so it does not overtake itself.
//! Rejected: counting all this as in flight until it is sent: it would be sent under the fence after all, and an operation would wait
//! for round trips to other shards.

use crate::protocol::encode;
use crate::protocol::request::RequestScanner;
use crate::routing::route::{specification, Request};
use crate::session::backend::{InFlight, Waiter, LANES};
use crate::session::client::Intake;
use crate::session::cross_shard::call::Tx;
use crate::session::cross_shard::fences::Parked;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::transaction_reply::ExecPlan;
use std::sync::Arc;

/// Something that is to be sent.
#[derive(Debug)]
pub(crate) enum Late {
    /// A client's request, behind what its shard lacked.
    Call {
        asker: Asker,
        /// The reply's place.
        number: u32,
        /// Numbered through the topology.
        shard: usize,
        /// Scripts or libraries, as requests.
        ahead: Vec<Vec<u8>>,
        request: Arc<[u8]>,
    },
    /// The parts of a transaction that follow the one which watched.
    Exec {
        asker: Asker,
        number: u32,
        plan: Box<ExecPlan>,
        watched: usize,
        reply: Vec<u8>,
    },
    /// What was taken for a client that has left.
    PutBack {
        shard: usize,
        lane: usize,
        request: Vec<u8>,
        count: usize,
    },
    /// A request that waits, and begins to do so again.
    Block {
        asker: Asker,
        number: u32,
        shard: usize,
        request: Vec<u8>,
        deadline_ms: Option<u64>,
    },
}

impl Engine {
    /// Who has a key of what is about to be sent, if somebody does.
    pub(crate) fn held_late(&self, keyspace: usize, data: &[u8]) -> Option<Tx> {
        if self.cross_shards.fences[keyspace].is_empty() {
            return None;
        }
        let mut scanner = RequestScanner::default();
        scanner.scan(data, true);
        let request = Request {
            data,
            args: &scanner.args,
        };
        self.holder_of(keyspace, specification(&request).ok(), &request)
    }

    /// Keeps something until an operation has its keys no more. Nothing more of its client is taken until then.
    pub(crate) fn keep_late(&mut self, tx: Tx, late: Late) {
        if let Late::Call { asker, .. } | Late::Exec { asker, .. } = &late {
            let client = self.clients.get_same(asker.slot, asker.generation);
            if let Some(client) = client.filter(|client| client.intake != Intake::Blocked) {
                client.raise_barrier();
            }
        }
        self.cross_shards.late.push((tx, late));
    }

    /// An operation has its keys no more.
    pub(crate) fn do_late(&mut self, tx: &Tx) {
        if self.cross_shards.has_behind {
            self.release_behind(tx);
        }
        let all = std::mem::take(&mut self.cross_shards.late);
        let (due, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|(held_by, _)| held_by == tx);
        self.cross_shards.late = left;
        for (_, late) in due {
            self.try_late(late);
        }
    }

    /// Connections that were told of its fence send what waits in them.
    fn release_behind(&mut self, tx: &Tx) {
        self.cross_shards.has_behind = false;
        for (id, link) in self.links.iter_mut() {
            let was_behind = !link.behind.is_empty();
            link.behind.retain(|other| other != tx);
            self.cross_shards.has_behind |= !link.behind.is_empty();
            if was_behind && link.behind.is_empty() && link.was_ready() {
                let mut held = std::mem::take(&mut link.held);
                link.out.append(&mut held);
                if !std::mem::replace(&mut link.dirty, true) {
                    self.dirty_links.push(id);
                }
            }
        }
    }

    fn try_late(&mut self, late: Late) {
        match late {
            Late::Call {
                asker,
                number,
                shard,
                ahead,
                request,
            } => self.call_late(&asker, number, shard, ahead, request),
            Late::Exec {
                asker,
                number,
                plan,
                watched,
                reply,
            } => {
                if self.is_there(&asker) {
                    self.exec_others(&asker, number, plan, watched, &reply);
                }
            }
            Late::PutBack {
                shard,
                lane,
                request,
                count,
            } => self.put_back_late(shard, lane, request, count),
            Late::Block {
                asker,
                number,
                shard,
                request,
                deadline_ms,
            } => self.block_again(&asker, number, shard, &request, deadline_ms),
        }
    }

    pub(crate) fn is_there(&mut self, asker: &Asker) -> bool {
        self.clients
            .get_same(asker.slot, asker.generation)
            .is_some()
    }

    /// A client's request behind what its shard lacks, now or when nobody has its keys.
    pub(crate) fn call_late(
        &mut self,
        asker: &Asker,
        number: u32,
        shard: usize,
        ahead: Vec<Vec<u8>>,
        request: Arc<[u8]>,
    ) {
        if !self.is_there(asker) {
            return;
        }
        if let Some(tx) = self.held_late(asker.keyspace, &request) {
            let asker = *asker;
            let late = Late::Call {
                asker,
                number,
                shard,
                ahead,
                request,
            };
            return self.keep_late(tx, late);
        }
        match self.link_of(asker, shard) {
            Ok(link) => {
                for bytes in ahead {
                    self.send_ahead(asker, link, |out| out.extend_from_slice(&bytes));
                }
                self.send(link, &request);
                self.sent(asker, link, number, 0, Waiter::Client);
            }
            Err(error) => {
                let mut line = Vec::new();
                self.write_error(asker.keyspace, &error, &mut line);
                self.answer_late(asker, number, line);
            }
        }
    }

    /// The reply in a place that was kept.
    pub(crate) fn answer_late(&mut self, asker: &Asker, number: u32, line: Vec<u8>) {
        if let Some(client) = self.clients.get_same(asker.slot, asker.generation) {
            client.replies.replace(number, line);
            self.touch_client(asker.slot);
            self.settle_client(asker.slot);
        }
    }

    pub(crate) fn put_back_late(
        &mut self,
        shard: usize,
        lane: usize,
        request: Vec<u8>,
        count: usize,
    ) {
        let keyspace = self.backends[shard].keyspace;
        if let Some(tx) = self.held_late(keyspace, &request) {
            let late = Late::PutBack {
                shard,
                lane,
                request,
                count,
            };
            return self.keep_late(tx, late);
        }
        match self.link_for(shard, lane % LANES) {
            Ok(link) => self.send_put_back(link, &request, count),
            Err(error) => self.lost_element(shard, &error.text()),
        }
    }

    // ------------------------------------------------------------------------------------- waits that begin again

    /// The reply to a request that waits and may have to begin again. `is_whole`: it came in one piece.
    pub(crate) fn pass_on_or_recall(
        &mut self,
        id: u32,
        entry: &InFlight,
        bytes: &[u8],
        (is_whole, done): (bool, bool),
    ) {
        let link = self.links.get_mut(id);
        let waits = link.and_then(|link| Some((link.shard, link.waits.as_deref_mut()?)));
        let is_ended = is_whole && bytes.starts_with(b"-UNBLOCKED");
        let recalled = waits.filter(|(_, waits)| waits.is_recalled && is_ended);
        let again =
            recalled.and_then(|(shard, waits)| Some((shard, waits.ends, waits.again.take()?)));
        let client = self.clients.get_same(entry.client, entry.generation);
        let (Some((shard, ends, again)), Some(client)) = (again, client) else {
            return self.pass_on(id, entry, bytes, done);
        };
        let asker = Asker {
            slot: entry.client,
            generation: entry.generation,
            keyspace: client.keyspace as usize,
            lane: client.lane(),
            mute: false,
        };
        let proto = client.proto;
        match ends {
            Some(error) => {
                let mut line = Vec::new();
                match error {
                    Some(error) => encode::error(&mut line, error),
                    None => encode::null_array(&mut line, proto),
                }
                self.answer_late(&asker, entry.number, line);
            }
            None => self.block_again(
                &asker,
                entry.number,
                shard,
                &again.request,
                again.deadline_ms,
            ),
        }
    }

    /// Ends a wait that is kept; false when none is.
    pub(crate) fn end_late_block(&mut self, slot: u32, error: Option<&'static str>) -> bool {
        let is_its = |(_, late): &(Tx, Late)| matches!(late, Late::Block { asker, .. } if asker.slot == slot);
        let Some(at) = self.cross_shards.late.iter().position(is_its) else {
            return false;
        };
        let (_, late) = self.cross_shards.late.swap_remove(at);
        if let Late::Block { asker, number, .. } = late {
            let client = self.clients.get_same(slot, asker.generation);
            let Some(proto) = client.map(|client| client.proto) else {
                return false;
            };
            let mut line = Vec::new();
            match error {
                Some(error) => encode::error(&mut line, error),
                None => encode::null_array(&mut line, proto),
            }
            self.answer_late(&asker, number, line);
        }
        true
    }

    /// A step of a wait over several shards is to be sent: who has its keys, if somebody does. The wait is told when not any more.
    pub(crate) fn parks_wait<'k>(
        &mut self,
        asker: &Asker,
        mut keys: impl Iterator<Item = &'k [u8]>,
    ) -> bool {
        let fences = &self.cross_shards.fences[asker.keyspace];
        if fences.is_empty() {
            return false;
        }
        let space = &self.topology.keyspaces[asker.keyspace];
        let admission = &self.admissions[asker.keyspace];
        let holder = keys.find_map(|key| {
            let shard = space.shard_of(key, admission)?;
            // A read of streams may be one of a group, which takes too.
            fences.holder(shard, key, true).cloned()
        });
        let Some(tx) = holder else {
            return false;
        };
        let parked = Parked {
            slot: asker.slot,
            generation: asker.generation,
        };
        self.cross_shards.fences[asker.keyspace].park(&tx, parked);
        true
    }

    /// Something is kept that was taken for a client which has left, or an operation is taking it.
    pub(crate) fn keeps_elements(&self) -> bool {
        let is_put_back = |(_, late): &(Tx, Late)| matches!(late, Late::PutBack { .. });
        let mut running = self.cross_shards.running.iter();
        running.any(|(_, running)| running.job.waits)
            || self.cross_shards.late.iter().any(is_put_back)
    }

    /// An EXEC's further parts: who has a key of them, if somebody does.
    pub(crate) fn holder_of_parts(&self, keyspace: usize, plan: &ExecPlan) -> Option<Tx> {
        let transaction = &plan.transaction;
        let mut all = 0..transaction.commands.len();
        all.find_map(|index| self.held_late(keyspace, transaction.request(index)))
    }
}
