//! EXEC: where a transaction is executed, and its bytes on their way there.
//!
//! Owns: the choice of shards (`Way`), the cutting of a transaction into one part for each of them, and the sending.
//!
//! Flow: `exec` -> `way` -> all on one shard: MULTI, the client's own bytes and EXEC in one piece on one link. On several, where
//! the keyspace allows it: one such piece for each shard, all at once. Under a watch the shard that watches is first, alone; the
//! others follow when it has executed its part (`transaction_reply`).
//!
//! Must stay true: a part goes to its shard whole and nothing of others comes between on its link; nothing is sent when a shard
//! of it cannot be reached, and where the keyspace does not allow several shards their keys are refused here and nowhere else;
//! an EXEC under a watch is a barrier on both sides, so that the links of the client cannot overtake each other.
//! Rejected: one shard after the other without a watch: each costs a round trip, and the second is no more certain for it.

use crate::error::ClientError;
use crate::limits::KEYS_IN_ERROR_MAX;
use crate::protocol::command::Local;
use crate::protocol::encode;
use crate::protocol::errand;
use crate::protocol::request::RequestScanner;
use crate::routing::route::{cross_shard_off, Request};
use crate::session::backend::{Health, InFlight, Waiter, LANES};
use crate::session::cross_shard::late::Late;
use crate::session::dispatch::Asker;
use crate::session::engine::{Engine, Level};
use crate::session::gather::{Gather, GatherKind};
use crate::session::scripts::Sha;
use crate::session::stats::{PerKeyspace, PerShard};
use crate::session::transaction::{Deed, Transaction};
use crate::session::transaction_reply::{ExecPart, ExecPlan};
use crate::session::transaction_watch::{Watch, WatchPlace};

/// How a transaction is executed.
enum Way {
    /// On these links, one for each part; `first`: the part whose keys are watched, on its link.
    Sent {
        parts: Vec<(usize, u32)>,
        first: Option<usize>,
    },
    /// As one operation over several shards.
    Across,
    /// By us alone.
    Here,
    /// Not at all: a watched key may have changed.
    Broken,
}

/// What one shard is sent, between MULTI and EXEC.
#[derive(Default)]
struct Cut {
    bytes: Vec<u8>,
    commands: usize,
    scripts: Vec<Sha>,
}

impl Engine {
    /// EXEC is taken only when all before it are answered, where it goes another way than they did or changes the client.
    pub(crate) fn exec_waits(&self, slot: u32) -> bool {
        self.clients
            .get(slot)
            .and_then(|client| client.particulars.as_deref())
            .is_some_and(|known| known.transaction.is_some() && known.watch.is_some())
    }

    pub(crate) fn exec(&mut self, asker: &Asker) {
        let Some(transaction) = self.take_transaction(asker.slot) else {
            return;
        };
        let watch = self.take_watch(asker.slot);
        self.stats()
            .keyspace(asker.keyspace, PerKeyspace::Transactions, 1);
        match self.way(asker, &transaction, watch.as_deref()) {
            Ok(Way::Sent { parts, first }) => self.begin_exec(asker, *transaction, &parts, first),
            Ok(Way::Across) => self.exec_across(asker, *transaction, watch),
            Ok(Way::Here) => {
                let mut out = Vec::new();
                self.exec_here(asker, &transaction, &mut out);
                self.answer(asker, |all| all.extend_from_slice(&out));
            }
            Ok(Way::Broken) => {
                self.exec_aborted(asker);
                let proto = self.clients.get(asker.slot).map(|client| client.proto);
                self.answer(asker, |out| {
                    encode::null_array(out, proto.unwrap_or(encode::Proto::Resp2));
                });
            }
            Err(error) => {
                self.exec_aborted(asker);
                self.end_watch(asker.slot, watch);
                self.answer_error(asker, &error);
            }
        }
    }

    pub(crate) fn exec_aborted(&mut self, asker: &Asker) {
        self.stats()
            .keyspace(asker.keyspace, PerKeyspace::TransactionsAborted, 1);
    }

    /// Where a transaction is executed.
    fn way(
        &mut self,
        asker: &Asker,
        transaction: &Transaction,
        watch: Option<&Watch>,
    ) -> Result<Way, ClientError> {
        if transaction.is_spoiled {
            let words = "EXECABORT Transaction discarded because of previous errors.";
            return Err(ClientError::Words(words));
        }
        let places = &transaction.places;
        let mut shards: Vec<u16> = places.iter().map(|&(shard, _)| shard).collect();
        let watched = watch.iter().flat_map(|watch| &watch.places);
        let is_beyond = |place: &&WatchPlace| !shards.contains(&place.shard);
        let beyond: Vec<u16> = watched.filter(is_beyond).map(|place| place.shard).collect();
        let beyond_key = watch.filter(|_| !beyond.is_empty()).map(|watch| &watch.key);
        shards.extend(beyond);
        let space = &self.topology.keyspaces[asker.keyspace];
        if shards.len() > 1 && !space.transactions_per_shard {
            if space.cross_shard {
                return Ok(Way::Across);
            }
            let named = places.iter().map(|(_, place)| place);
            let named = named.chain(beyond_key);
            // One more than are shown: that there are more is shown too.
            let keys = named.take(KEYS_IN_ERROR_MAX + 1).cloned().collect();
            return Err(cross_shard_off(space, "exec", keys));
        }
        let has_sent = transaction
            .commands
            .iter()
            .any(|queued| !matches!(queued.deed, Deed::Own(_)));
        if shards.is_empty() {
            if !has_sent {
                return Ok(Way::Here);
            }
            shards.push(self.shard_for_anything(asker));
        }
        let mut parts = Vec::with_capacity(shards.len());
        let mut first = None;
        for shard in shards {
            let number = self.shard_number(asker, shard);
            let link = match watch.and_then(|watch| Some((watch.lane, watch.on(shard)?.link))) {
                Some((_, None)) => return Ok(Way::Broken),
                Some((lane, _)) if lane != asker.lane % LANES => {
                    return Err(ClientError::WatchMoved)
                }
                Some((_, Some(link))) => {
                    first = Some(parts.len());
                    link
                }
                None => self.exec_link(asker, shard, number)?,
            };
            parts.push((number, link));
        }
        Ok(Way::Sent { parts, first })
    }

    /// The link on which a part travels: the shared one, unless the shard is to know what the client reads.
    fn exec_link(&mut self, asker: &Asker, shard: u16, number: usize) -> Result<u32, ClientError> {
        if self.admissions[asker.keyspace].share(shard) == 0 {
            let shard = self.shard_name(number);
            return Err(ClientError::ShardEjected { shard });
        }
        self.link_of(asker, number)
            .inspect_err(|_| self.stats().shard(number, PerShard::Failed, 1))
    }

    /// The first shard that is up and takes keys; else the first.
    fn shard_for_anything(&self, asker: &Asker) -> u16 {
        let space = &self.topology.keyspaces[asker.keyspace];
        let is_up = |shard: &u16| {
            self.admissions[asker.keyspace].share(*shard) > 0
                && self.backends[space.first_shard + *shard as usize].health == Health::Up
        };
        (0..space.shards.len() as u16).find(is_up).unwrap_or(0)
    }

    /// Sends every part or, under a watch, that of the shard that watches.
    fn begin_exec(
        &mut self,
        asker: &Asker,
        mut transaction: Transaction,
        parts: &[(usize, u32)],
        first: Option<usize>,
    ) {
        if parts.len() > 1 {
            self.note_split_transaction(asker, &transaction);
        }
        let commands = &transaction.commands;
        let owns = commands
            .iter()
            .any(|queued| matches!(queued.deed, Deed::Own(_)));
        let is_named = commands.iter().any(|queued| queued.sha.is_some());
        let cuts = if parts.len() == 1 && !owns {
            // Nothing is to be put into the reply, so nobody looks at the requests again.
            vec![Cut {
                commands: commands.len(),
                scripts: commands.iter().filter_map(|queued| queued.sha).collect(),
                bytes: std::mem::take(&mut transaction.bytes),
            }]
        } else {
            cut(&transaction, parts.len(), |part| {
                first.is_none_or(|first| first == part)
            })
        };
        let plan = ExecPlan {
            passes_on: parts.len() == 1 && !owns && first.is_none() && !is_named,
            parts: parts
                .iter()
                .map(|&(shard, _)| ExecPart::new(shard))
                .collect(),
            watch: first.map(|first| (first, parts[first].1)),
            caching: self.trackers.caching,
            transaction,
        };
        let awaited = if first.is_some() { 1 } else { parts.len() };
        let kind = GatherKind::Exec(Box::new(plan));
        let place = self.reserve_gather(asker, Gather::awaiting(kind, parts.len(), awaited));
        for (part, (cut, &(shard, link))) in cuts.into_iter().zip(parts).enumerate() {
            if first.is_none_or(|first| first == part) {
                self.send_part(asker, link, shard, cut, (place, part as u16));
            }
        }
        if owns || first.is_some() {
            if let Some(client) = self.clients.get_mut(asker.slot) {
                client.raise_barrier();
            }
        }
    }

    /// The shard that watches has executed its part, and this is its reply: now the others.
    pub(crate) fn exec_others(
        &mut self,
        asker: &Asker,
        place: u32,
        plan: Box<ExecPlan>,
        watched: usize,
        reply: &[u8],
    ) {
        if let Some(tx) = self.holder_of_parts(asker.keyspace, &plan) {
            let late = Late::Exec {
                asker: *asker,
                number: place,
                plan,
                watched,
                reply: reply.to_vec(),
            };
            return self.keep_late(tx, late);
        }
        let shards: Vec<usize> = plan.parts.iter().map(|part| part.shard).collect();
        let cuts = cut(&plan.transaction, shards.len(), |part| part != watched);
        // What the client has said of its reads holds for all of them.
        self.trackers.caching = plan.caching;
        let mut gather = Gather::new(GatherKind::Exec(plan), shards.len());
        gather.chunk(watched as u16, reply, true);
        self.gather_bytes += gather.bytes();
        if let Some(client) = self.clients.get_mut(asker.slot) {
            client.replies.put_gather(place, gather);
        }
        for (part, (cut, shard)) in cuts.into_iter().zip(shards).enumerate() {
            if part == watched {
                continue;
            }
            match self.link_of(asker, shard) {
                Ok(link) => self.send_part(asker, link, shard, cut, (place, part as u16)),
                Err(error) => {
                    self.stats().shard(shard, PerShard::Failed, 1);
                    self.part_failed(asker, place, part as u16, &error);
                }
            }
        }
        self.trackers.caching = None;
    }

    /// MULTI, requests and EXEC, behind each other on one link.
    fn send_part(
        &mut self,
        asker: &Asker,
        link_id: u32,
        shard: usize,
        cut: Cut,
        (place, part): (u32, u16),
    ) {
        for sha in &cut.scripts {
            if !self.backends[shard].scripts.contains(sha) {
                self.load_ahead(asker, link_id, shard, sha);
            }
        }
        self.say_caching(asker, link_id);
        let (now_us, now_ms) = (self.now_us, self.now_ms);
        if let Some(link) = self.links.get_mut(link_id) {
            let out = link.outgoing();
            out.push(errand::MULTI);
            out.push_owned(cut.bytes);
            out.push(errand::EXEC);
            // For MULTI's OK, and for the QUEUED of each command.
            for _ in 0..=cut.commands {
                let entry = InFlight {
                    client: asker.slot,
                    generation: asker.generation,
                    number: place,
                    sent_us: now_us as u32,
                    part,
                    waiter: Waiter::Queued,
                };
                link.await_reply(entry, now_ms);
            }
        }
        self.sent(asker, link_id, place, part, Waiter::Part);
    }

    /// Counted, and told once: who set this may not know which of the program's transactions it concerns.
    fn note_split_transaction(&mut self, asker: &Asker, transaction: &Transaction) {
        let cell = PerKeyspace::TransactionsSplit;
        let before: u64 = self
            .all_stats
            .iter()
            .map(|stats| stats.of_keyspace(asker.keyspace, cell))
            .sum();
        self.stats().keyspace(asker.keyspace, cell, 1);
        if before > 0 {
            return;
        }
        let shown = transaction.places.iter().take(KEYS_IN_ERROR_MAX);
        let keys: Vec<String> = shown
            .map(|(_, (key, _, shard))| format!("{} on {shard}", crate::error::printable(key)))
            .collect();
        let space = &self.topology.keyspaces[asker.keyspace];
        let fields = vec![
            ("keyspace", space.name.clone()),
            ("keys", keys.join(", ")),
            (
                "meaning",
                "each shard's part is atomic, the whole is not; told once".to_string(),
            ),
        ];
        self.event(Level::Warning, "transaction-split", fields);
    }

    /// A transaction of which no shard needs to know.
    fn exec_here(&mut self, asker: &Asker, transaction: &Transaction, out: &mut Vec<u8>) {
        encode::array(out, transaction.commands.len());
        for (index, queued) in transaction.commands.iter().enumerate() {
            if let Deed::Own(local) = queued.deed {
                self.own_reply(asker, local, transaction.request(index), out);
            }
        }
    }

    /// What we answer to a queued command, into `out` instead of to the client.
    pub(crate) fn own_reply(
        &mut self,
        asker: &Asker,
        local: Local,
        data: &[u8],
        out: &mut Vec<u8>,
    ) {
        let mut scanner = RequestScanner::default();
        scanner.scan(data, true);
        let args = &scanner.args;
        self.captured = Some(Vec::new());
        if local == Local::Unwatch {
            self.answer(asker, |out| encode::simple(out, "OK"));
        } else {
            self.local(asker, local, &Request { data, args });
        }
        out.extend_from_slice(&self.captured.take().unwrap_or_default());
    }
}

/// The parts of a transaction that are wanted; the others stay empty.
fn cut(transaction: &Transaction, parts: usize, is_wanted: impl Fn(usize) -> bool) -> Vec<Cut> {
    let mut cuts: Vec<Cut> = (0..parts).map(|_| Cut::default()).collect();
    for (index, queued) in transaction.commands.iter().enumerate() {
        let part = queued.part as usize;
        if matches!(queued.deed, Deed::Own(_)) || !is_wanted(part) {
            continue;
        }
        if let Some(cut) = cuts.get_mut(part) {
            cut.bytes.extend_from_slice(transaction.request(index));
            cut.commands += 1;
            cut.scripts.extend(queued.sha);
        }
    }
    cuts
}
