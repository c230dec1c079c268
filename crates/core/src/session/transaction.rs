//! Transactions: MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! Owns: what stands between MULTI and EXEC of one client, and its watch; how EXEC's reply is put together is in
//! `transaction_reply`.
//!
//! Flow: MULTI sets `care::QUEUES` -> the gate gives every request to `queued`, which keeps its bytes -> EXEC sends MULTI, all of
//! them and EXEC in one piece on the shard's shared link. WATCH opens a link of the client's own; EXEC then goes there.
//!
//! Must stay true: a transaction goes to one shard whole, or nothing of it is sent; nothing of others comes between on its link;
//! WATCH and an EXEC under a watch are barriers on both sides, so that the two links of the client cannot overtake each other.
//! Rejected: all requests of a watching client on its own link: a barrier costs one round trip and nobody else anything.

use crate::error::{ClientError, KeyPlace, NOT_IN_TRANSACTION};
use crate::limits::{REQUEST_BYTES_TOTAL_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_COMMANDS_MAX};
use crate::protocol::command::{flags, keys, CommandSpec, Local, Merge, Policy};
use crate::protocol::encode;
use crate::protocol::errand;
use crate::protocol::request::RequestScanner;
use crate::routing::distribution::Distribution;
use crate::routing::route::{decide, shard_of_keys, Request, Route};
use crate::session::backend::{InFlight, Waiter, LANES};
use crate::session::client::care;
use crate::session::dispatch::{Asker, Taken};
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use crate::session::own_links::Purpose;
use crate::session::scripts::{sha_from_hex, Sha};
use crate::session::stats::{PerKeyspace, PerShard};
use crate::session::transaction_reply::ExecPlan;

/// Where a queued command is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// By the transaction's shard.
    Sent,
    /// By the shard that holds its keys.
    At(u16),
    /// By us, when the shard has executed the rest.
    Own(Local),
}

/// One queued command: its bytes end here.
#[derive(Debug, Clone)]
pub(crate) struct Queued {
    pub end: usize,
    pub deed: Deed,
    sha: Option<Sha>,
}

/// What stands between MULTI and EXEC.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub(crate) bytes: Vec<u8>,
    pub(crate) commands: Vec<Queued>,
    /// A key for each shard that has one.
    places: Vec<(u16, KeyPlace)>,
    is_spoiled: bool,
    /// Commands that were told QUEUED or an error.
    told: usize,
}

/// Keys of a client that are watched, all on one shard.
#[derive(Debug, Clone)]
pub struct Watch {
    shard: u16,
    /// None: it was lost, and nobody knows whether the keys changed.
    link: Option<u32>,
    lane: usize,
    key: KeyPlace,
    count: usize,
}

impl Transaction {
    /// The bytes of one queued request.
    pub(crate) fn request(&self, index: usize) -> &[u8] {
        let start = index
            .checked_sub(1)
            .map_or(0, |before| self.commands[before].end);
        &self.bytes[start..self.commands[index].end]
    }
}

impl Engine {
    /// One of the five commands.
    pub(crate) fn transaction(&mut self, asker: &Asker, local: Local, request: &Request<'_>) {
        let is_within = self
            .clients
            .get(asker.slot)
            .is_some_and(|client| client.care & care::QUEUES != 0);
        match (local, is_within) {
            (Local::Multi, true) => self.words(asker, "ERR MULTI calls can not be nested"),
            (Local::Watch, true) => self.words(asker, "ERR WATCH inside MULTI is not allowed"),
            (Local::Exec, false) => self.words(asker, "ERR EXEC without MULTI"),
            (Local::Discard, false) => self.words(asker, "ERR DISCARD without MULTI"),
            (Local::Multi, false) => {
                if let Some(client) = self.clients.get_mut(asker.slot) {
                    client.take_care(care::QUEUES, true);
                    client.particulars().transaction = Some(Box::default());
                }
                self.answer(asker, |out| encode::simple(out, "OK"));
            }
            (Local::Exec, true) => self.exec(asker),
            (Local::Watch, false) => self.watch(asker, request),
            (Local::Discard, true) => {
                self.take_transaction(asker.slot);
                self.unwatch(asker);
            }
            _ => self.unwatch(asker),
        }
    }

    fn words(&mut self, asker: &Asker, words: &'static str) {
        self.answer_error(asker, &ClientError::Words(words));
    }

    /// A request of a client that is within MULTI. None: it goes on as if it were not.
    pub(crate) fn queued(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
        request: &Request<'_>,
    ) -> Option<Taken> {
        if let Some(spec) = spec {
            if let Policy::Local(
                Local::Quit
                | Local::Reset
                | Local::Multi
                | Local::Exec
                | Local::Discard
                | Local::Watch,
            ) = spec.policy
            {
                return None;
            }
            if spec.flags & flags::NO_MULTI != 0 {
                let words = "ERR Command not allowed inside a transaction";
                return Some(self.turn_away(slot, &ClientError::Words(words)));
            }
        }
        let deed = match self.deed_of(slot, spec, request) {
            Ok(deed) => deed,
            Err(error) => return Some(self.turn_away(slot, &error)),
        };
        if let Err(error) = self.keep_queued(slot, spec, deed, request) {
            return Some(self.turn_away(slot, &error));
        }
        let now_ms = self.now_ms;
        if let Some(client) = self.clients.get_mut(slot) {
            client.request_ms = now_ms;
            client.last_command = spec.map_or("unknown", |spec| spec.full_name);
        }
        if let Some(asker) = self.asker_at_gate(slot) {
            self.stats()
                .keyspace(asker.keyspace, PerKeyspace::Requests, 1);
            self.answer(&asker, |out| encode::simple(out, "QUEUED"));
        }
        Some(Taken::Yes)
    }

    /// Where a command would be executed, or why it cannot be within a transaction.
    fn deed_of(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
        request: &Request<'_>,
    ) -> Result<Deed, ClientError> {
        let index = self
            .clients
            .get(slot)
            .map_or(0, |client| client.keyspace as usize);
        let space = &self.topology.keyspaces[index];
        let admission = &self.admissions[index];
        let is_random = matches!(space.distribution, Distribution::Random(_));
        let at = |shard| {
            if is_random {
                Deed::Sent
            } else {
                Deed::At(shard)
            }
        };
        let refused = |spec: Option<&'static CommandSpec>| ClientError::Refused {
            command: spec.map_or("unknown", |spec| spec.full_name),
            reason: NOT_IN_TRANSACTION,
        };
        match decide(space, admission, request, &mut self.scratch).1 {
            Route::Shard(shard) | Route::Script { shard, .. } => Ok(at(shard)),
            Route::Blocking | Route::Streams | Route::Split { .. } => {
                let spec = spec.ok_or_else(|| refused(None))?;
                shard_of_keys(space, admission, spec, request, &mut self.scratch).map(at)
            }
            // What is published on any shard comes to every subscriber.
            Route::AnyShard | Route::Local(Local::Publish | Local::Spublish) => Ok(Deed::Sent),
            Route::AllShards(merge)
                if space.shards.len() == 1 && !matches!(merge, Merge::Info | Merge::Config) =>
            {
                Ok(Deed::Sent)
            }
            Route::Local(local) if is_own(local) => Ok(Deed::Own(local)),
            Route::Refuse(error) => Err(*error),
            Route::AllShards(_)
            | Route::Scan
            | Route::ScriptLoad
            | Route::ScriptFlush
            | Route::Wait
            | Route::Local(_) => Err(refused(spec)),
        }
    }

    /// Keeps a request until EXEC, within the bounds.
    fn keep_queued(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
        deed: Deed,
        request: &Request<'_>,
    ) -> Result<(), ClientError> {
        let held = self.queued_bytes + self.incoming_bytes;
        let Some(client) = self.clients.get_mut(slot) else {
            return Ok(());
        };
        let space = &self.topology.keyspaces[client.keyspace as usize];
        let Some(transaction) = client.particulars().transaction.as_deref_mut() else {
            return Ok(());
        };
        transaction.told += 1;
        if transaction.is_spoiled {
            return Ok(());
        }
        let len = request.data.len();
        if transaction.commands.len() >= TRANSACTION_COMMANDS_MAX
            || transaction.bytes.len() + len > TRANSACTION_BYTES_MAX
            || held + len > REQUEST_BYTES_TOTAL_MAX
        {
            return Err(ClientError::TransactionTooLarge);
        }
        if let Deed::At(shard) = deed {
            if transaction.places.iter().all(|(known, _)| *known != shard) {
                let place = key_place(space, shard, spec, request);
                transaction.places.push((shard, place));
            }
        }
        let sha = match spec.map(|spec| spec.policy) {
            Some(Policy::Script { sha: true, .. }) => sha_from_hex(request.arg(1)),
            _ => None,
        };
        transaction.bytes.extend_from_slice(request.data);
        let end = transaction.bytes.len();
        transaction.commands.push(Queued { end, deed, sha });
        self.queued_bytes += len;
        Ok(())
    }

    /// Something could not be queued: EXEC will refuse. What was queued is forgotten at once.
    pub(crate) fn spoil_transaction(&mut self, slot: u32) {
        let Some(transaction) = self
            .clients
            .get_mut(slot)
            .and_then(|client| client.particulars.as_deref_mut())
            .and_then(|particulars| particulars.transaction.as_deref_mut())
        else {
            return;
        };
        self.queued_bytes -= transaction.bytes.len();
        let told = transaction.told;
        *transaction = Transaction {
            is_spoiled: true,
            told,
            ..Transaction::default()
        };
    }

    /// Ends the queueing.
    fn take_transaction(&mut self, slot: u32) -> Option<Box<Transaction>> {
        let client = self.clients.get_mut(slot)?;
        client.take_care(care::QUEUES, false);
        let transaction = client.particulars.as_deref_mut()?.transaction.take()?;
        self.queued_bytes -= transaction.bytes.len();
        Some(transaction)
    }

    fn take_watch(&mut self, slot: u32) -> Option<Box<Watch>> {
        let client = self.clients.get_mut(slot)?;
        client.particulars.as_deref_mut()?.watch.take()
    }

    /// RESET, or the client leaves: nothing is queued and nothing watched.
    pub(crate) fn forget_transaction(&mut self, slot: u32) {
        self.take_transaction(slot);
        let watch = self.take_watch(slot);
        self.end_watch(watch);
    }

    /// The watch's link goes, and the watch with it.
    fn end_watch(&mut self, watch: Option<Box<Watch>>) {
        if let Some(link) = watch.and_then(|watch| watch.link) {
            self.give_back(link, false);
        }
    }

    /// As CLIENT LIST shows them: commands queued (-1: not within MULTI) and keys watched.
    pub(crate) fn transaction_counts(&self, slot: u32) -> (i64, usize) {
        let particulars = self
            .clients
            .get(slot)
            .and_then(|client| client.particulars.as_deref());
        let queued = particulars.and_then(|known| known.transaction.as_ref());
        let watch = particulars.and_then(|known| known.watch.as_ref());
        (
            queued.map_or(-1, |transaction| transaction.commands.len() as i64),
            watch.map_or(0, |watch| watch.count),
        )
    }

    /// EXEC is taken only when all before it are answered, where it goes another way than they did or changes the client.
    pub(crate) fn exec_waits(&self, slot: u32) -> bool {
        self.clients
            .get(slot)
            .and_then(|client| client.particulars.as_deref())
            .is_some_and(|known| known.transaction.is_some() && known.watch.is_some())
    }

    fn exec(&mut self, asker: &Asker) {
        let Some(transaction) = self.take_transaction(asker.slot) else {
            return;
        };
        let watch = self.take_watch(asker.slot);
        self.stats()
            .keyspace(asker.keyspace, PerKeyspace::Transactions, 1);
        match self.exec_link(asker, &transaction, watch.as_deref()) {
            Ok(Way::Link(link, number)) => {
                self.burst(asker, *transaction, link, number, watch.is_some());
            }
            Ok(Way::Here) => {
                let mut out = Vec::new();
                self.exec_here(asker, &transaction, &mut out);
                self.answer(asker, |all| all.extend_from_slice(&out));
            }
            Ok(Way::Broken) => {
                self.aborted(asker);
                let proto = self.clients.get(asker.slot).map(|client| client.proto);
                self.answer(asker, |out| {
                    encode::null_array(out, proto.unwrap_or(encode::Proto::Resp2));
                });
            }
            Err(error) => {
                self.aborted(asker);
                self.end_watch(watch);
                self.answer_error(asker, &error);
            }
        }
    }

    fn aborted(&mut self, asker: &Asker) {
        self.stats()
            .keyspace(asker.keyspace, PerKeyspace::TransactionsAborted, 1);
    }

    /// Where a transaction is executed. Keys on several shards are refused here, and nowhere else.
    fn exec_link(
        &mut self,
        asker: &Asker,
        transaction: &Transaction,
        watch: Option<&Watch>,
    ) -> Result<Way, ClientError> {
        if transaction.is_spoiled {
            let words = "EXECABORT Transaction discarded because of previous errors.";
            return Err(ClientError::Words(words));
        }
        let mut places = transaction.places.clone();
        if let Some(watch) = watch {
            if places.iter().all(|(shard, _)| *shard != watch.shard) {
                places.push((watch.shard, watch.key.clone()));
            }
        }
        if places.len() > 1 {
            return Err(ClientError::CrossShard {
                command: "exec",
                keys: places.into_iter().map(|(_, place)| place).collect(),
            });
        }
        if let Some(watch) = watch {
            let number = self.shard_number(asker, watch.shard);
            return match watch.link {
                None => Ok(Way::Broken),
                Some(_) if watch.lane != asker.lane % LANES => Err(ClientError::WatchMoved),
                Some(link) => Ok(Way::Link(link, number)),
            };
        }
        let has_sent = transaction
            .commands
            .iter()
            .any(|queued| !matches!(queued.deed, Deed::Own(_)));
        let shard = match places.first() {
            Some((shard, _)) => *shard,
            None if !has_sent => return Ok(Way::Here),
            None => self.shard_for_anything(asker),
        };
        let number = self.shard_number(asker, shard);
        if self.admissions[asker.keyspace].share(shard) == 0 {
            let shard = self.shard_name(number);
            return Err(ClientError::ShardEjected { shard });
        }
        let link = self.link_for(number, asker.lane).inspect_err(|_| {
            self.stats().shard(number, PerShard::Failed, 1);
        })?;
        Ok(Way::Link(link, number))
    }

    /// The first shard that is up and takes keys; else the first.
    fn shard_for_anything(&self, asker: &Asker) -> u16 {
        let space = &self.topology.keyspaces[asker.keyspace];
        let is_up = |shard: &u16| {
            self.admissions[asker.keyspace].share(*shard) > 0
                && self.backends[space.first_shard + *shard as usize].health
                    == crate::session::backend::Health::Up
        };
        (0..space.shards.len() as u16).find(is_up).unwrap_or(0)
    }

    /// MULTI, the client's own bytes and EXEC, behind each other on one link.
    fn burst(
        &mut self,
        asker: &Asker,
        mut transaction: Transaction,
        link: u32,
        shard: usize,
        is_watched: bool,
    ) {
        for sha in transaction.commands.iter().filter_map(|queued| queued.sha) {
            if !self.backends[shard].scripts.contains(&sha) {
                self.load_ahead(asker, link, shard, &sha);
            }
        }
        let owns = transaction
            .commands
            .iter()
            .any(|queued| matches!(queued.deed, Deed::Own(_)));
        let mut bytes = Vec::new();
        if owns {
            for index in 0..transaction.commands.len() {
                if !matches!(transaction.commands[index].deed, Deed::Own(_)) {
                    bytes.extend_from_slice(transaction.request(index));
                }
            }
        } else {
            bytes = std::mem::take(&mut transaction.bytes);
        }
        let sent = transaction
            .commands
            .iter()
            .filter(|queued| !matches!(queued.deed, Deed::Own(_)))
            .count();
        let named = transaction
            .commands
            .iter()
            .any(|queued| queued.sha.is_some());
        let plan = ExecPlan {
            passes_on: !owns && !is_watched && !named,
            queue_error: None,
            is_begun: false,
            is_multi_refused: false,
            watch_link: is_watched.then_some(link),
            shard,
            transaction,
        };
        let gather = Gather::new(GatherKind::Exec(Box::new(plan)), 1);
        let place = self.reserve_gather(asker, gather);
        if let Some(link) = self.links.get_mut(link) {
            let out = link.outgoing();
            out.push(errand::MULTI);
            out.push_owned(bytes);
            out.push(errand::EXEC);
        }
        for _ in 0..=sent {
            self.await_queued(asker, link, place);
        }
        self.sent(asker, link, place, 0, Waiter::Part);
        if owns || is_watched {
            if let Some(client) = self.clients.get_mut(asker.slot) {
                client.raise_barrier();
            }
        }
    }

    /// Somebody waits for the QUEUED of one command.
    fn await_queued(&mut self, asker: &Asker, link: u32, number: u32) {
        let (now_us, now_ms) = (self.now_us, self.now_ms);
        if let Some(link) = self.links.get_mut(link) {
            let entry = InFlight {
                client: asker.slot,
                generation: asker.generation,
                number,
                sent_us: now_us as u32,
                part: 0,
                waiter: Waiter::Queued,
            };
            link.await_reply(entry, now_ms);
        }
    }

    fn watch(&mut self, asker: &Asker, request: &Request<'_>) {
        match self.watch_link(asker, request) {
            Ok(link) => {
                let place = crate::session::dispatch::client_number(self, asker);
                self.send(link, request.data);
                self.sent(asker, link, place, 0, Waiter::Client);
                if let Some(client) = self.clients.get_mut(asker.slot) {
                    client.raise_barrier();
                }
            }
            Err(error) => self.answer_error(asker, &error),
        }
    }

    /// The link on which keys of a WATCH are to be watched.
    fn watch_link(&mut self, asker: &Asker, request: &Request<'_>) -> Result<u32, ClientError> {
        let space = &self.topology.keyspaces[asker.keyspace];
        let Ok(spec) = crate::routing::route::specification(request) else {
            return Err(ClientError::Syntax);
        };
        let admission = &self.admissions[asker.keyspace];
        let shard = shard_of_keys(space, admission, spec, request, &mut self.scratch)?;
        let key = key_place(space, shard, Some(spec), request);
        let count = request.args.len() - 1;
        let lane = asker.lane % LANES;
        let number = space.first_shard + shard as usize;
        if let Some(client) = self.clients.get_mut(asker.slot) {
            if let Some(watch) = client.particulars().watch.as_deref_mut() {
                if watch.shard != shard {
                    return Err(ClientError::CrossShard {
                        command: spec.full_name,
                        keys: vec![watch.key.clone(), key],
                    });
                }
                if let (Some(link), true) = (watch.link, watch.lane == lane) {
                    watch.count += count;
                    return Ok(link);
                }
                // A watch that is lost already stays so; one in another database cannot be joined.
                return Err(ClientError::WatchMoved);
            }
        }
        let link = self.open_own(asker.slot, number, lane, Purpose::Watch)?;
        if let Some(client) = self.clients.get_mut(asker.slot) {
            client.particulars().watch = Some(Box::new(Watch {
                shard,
                link: Some(link),
                lane,
                key,
                count,
            }));
        }
        Ok(link)
    }

    /// DISCARD and UNWATCH: the link is given back when the shard has forgotten the watch.
    fn unwatch(&mut self, asker: &Asker) {
        let watch = self.take_watch(asker.slot);
        let Some(link) = watch.and_then(|watch| watch.link) else {
            return self.answer(asker, |out| encode::simple(out, "OK"));
        };
        let place = self.reserve_gather(asker, Gather::new(GatherKind::Unwatch { link }, 1));
        self.send(link, errand::UNWATCH);
        self.sent(asker, link, place, 0, Waiter::Part);
    }

    /// The connection on which keys were watched is gone: nobody knows whether they changed.
    pub(crate) fn watch_lost(&mut self, slot: u32) {
        let watch = self
            .clients
            .get_mut(slot)
            .and_then(|client| client.particulars.as_deref_mut())
            .and_then(|known| known.watch.as_deref_mut());
        if let Some(watch) = watch {
            watch.link = None;
        }
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

/// How a transaction is executed.
enum Way {
    /// On this link, of this shard.
    Link(u32, usize),
    /// By us alone.
    Here,
    /// Not at all: a watched key may have changed.
    Broken,
}

/// What we answer at once, from what we know of the client.
fn is_own(local: Local) -> bool {
    matches!(
        local,
        Local::Ping
            | Local::Echo
            | Local::Unwatch
            | Local::ClientId
            | Local::ClientSetname
            | Local::ClientGetname
            | Local::ClientSetinfo
            | Local::ClientInfo
            | Local::ClientNoEvict
            | Local::ClientNoTouch
            | Local::ClientGetredir
            | Local::ClientHelp
            | Local::ClusterKeyslot
            | Local::ClusterDisabled
    )
}

/// The first key of a request, for an error.
fn key_place(
    space: &crate::routing::topology::Keyspace,
    shard: u16,
    spec: Option<&'static CommandSpec>,
    request: &Request<'_>,
) -> KeyPlace {
    let mut found = Vec::new();
    let is_told =
        spec.is_some_and(|spec| keys(spec, request.args, request.data, &mut found).is_ok());
    let index = if is_told {
        found.first().copied()
    } else {
        None
    };
    let key = request.arg(index.unwrap_or(1) as usize);
    let shown = &key[..key.len().min(crate::limits::TEXT_IN_ERROR_MAX + 1)];
    (
        shown.to_vec(),
        space.group(key).phrase(),
        space.shards[shard as usize].name.clone(),
    )
}
