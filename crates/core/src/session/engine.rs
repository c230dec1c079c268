//! One worker's whole state, without its sockets: clients, backends, links, and what is to be done about them.
//!
//! Owns: `Engine`. Its methods are spread by noun: requests in `dispatch`, replies in `deliver`, our own answers in
//! `local` and `client_admin`, time in `upkeep`, reading in `intake`. This file has its shape, and the coming and going of
//! clients.
//!
//! Flow: the caller (epoll, the simulator, a fuzzer) sets the clock with `set_now`, reports what happened
//! (`client_received`, `link_received`, ...), then writes what the dirty clients and links have in `out`, and does the
//! `actions`. The engine never calls back.
//!
//! Must stay true: no socket, clock, thread or random number here; after every call the engine is consistent, so the
//! caller may drop a connection at any point.
//! Rejected: callbacks or a trait for the outside (the borrow checker and the reader would both have to follow them).

use crate::error::ClientError;
use crate::limits::WINDOW_MIN;
use crate::protocol::encode::Proto;
use crate::protocol::memcached::line;
use crate::protocol::memcached::request::TextScanner;
use crate::protocol::request::RequestScanner;
use crate::routing::admission::{Admission, SHARE_WHOLE};
use crate::routing::route::Scratch;
use crate::routing::topology::{Protocol, Topology};
use crate::session::acl::newcomer;
use crate::session::acl_log::AclLog;
use crate::session::backend::{Backend, Link};
use crate::session::client::{Client, Intake, ReplyMode};
use crate::session::cross_shard::executor::CrossShards;
use crate::session::cross_shard::trial::Trial;
use crate::session::ejection::Membership;
use crate::session::lines::Lines;
use crate::session::mail::Mail;
use crate::session::monitor::Seat;
use crate::session::output::Output;
use crate::session::pause::Pause;
use crate::session::replies::Replies;
use crate::session::scripts::Scripts;
use crate::session::slab::Slab;
use crate::session::slowlog::SlowLogs;
use crate::session::stats::{CloseReason, PerKeyspace, PerShard, Stats};
use crate::session::subscriptions::Subscriptions;
use crate::session::tracking::Trackers;
use std::sync::Arc;

/// What the engine wants done outside of it.
#[derive(Debug)]
pub enum Action {
    /// Connect a link to its shard's endpoint.
    Open(u32),
    /// Close a link's socket; the link is gone.
    CloseLink(u32),
    /// Close a client's socket; the client is gone.
    CloseClient(u32),
    /// As `CloseClient`, so that what was written to it is not lost: it may still be sending.
    LetClientGo(u32),
    /// The client may be read again.
    ReadClient(u32),
    /// The link may be read again.
    ReadLink(u32),
    /// To another worker.
    Mail(usize, Mail),
    /// Worth a log line.
    Event(Event),
    /// A test wants the process to end, or to stop, here.
    Fault {
        /// After what is to be written has been.
        is_written: bool,
        /// Stop.
        stops: bool,
    },
}

/// How urgent an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For who looks closely.
    Debug,
    /// Ordinary.
    Info,
    /// Somebody may have to look.
    Warning,
    /// Somebody must look.
    Error,
}

/// Something worth a log line.
#[derive(Debug, Clone)]
pub struct Event {
    /// How urgent.
    pub level: Level,
    /// What happened.
    pub name: &'static str,
    /// What there is to know, in order.
    pub fields: Vec<(&'static str, String)>,
}

/// What is fixed for the life of an engine.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Number of this worker.
    pub worker: usize,
    /// How many there are.
    pub workers: usize,
    /// As INFO shows it: 40 hexadecimal digits.
    pub run_id: String,
    /// As INFO shows it.
    pub process_id: u32,
    /// Port of each keyspace's listener, as bound.
    pub ports: Vec<u16>,
    /// Any number; jitter is derived from it.
    pub seed: u64,
    /// What tests have switched on.
    pub trial: Trial,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Engine {
    pub(crate) identity: Identity,
    pub(crate) topology: Arc<Topology>,
    /// Which shards take their keys, for each keyspace.
    pub(crate) admissions: Vec<Admission>,
    /// Where each shard of a cache is; kept by worker 0, which decides.
    pub(crate) memberships: Vec<Membership>,
    /// Backends with failures in a row.
    pub(crate) failing: usize,
    /// Milliseconds since 1970 when the engine's clock was 0.
    pub(crate) unix_start_ms: u64,
    pub(crate) clients: Slab<Client>,
    pub(crate) links: Slab<Link>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) scripts: Scripts,
    /// Cells of every worker; ours are at `identity.worker`.
    pub(crate) all_stats: Arc<Vec<Stats>>,
    pub(crate) now_us: u64,
    pub(crate) now_ms: u64,
    pub(crate) scanner: RequestScanner,
    pub(crate) text_scanner: TextScanner,
    pub(crate) scratch: Scratch,
    pub(crate) spares: Vec<Vec<u8>>,
    pub(crate) next_id: u64,
    pub(crate) chance: u64,
    pub(crate) rotate: usize,
    /// Bytes in all clients' gathers.
    pub(crate) gather_bytes: usize,
    /// Bytes in all clients' `incoming`.
    pub(crate) incoming_bytes: usize,
    /// Bytes of all clients' transactions that wait for EXEC.
    pub(crate) queued_bytes: usize,
    /// Where an answer of ours goes that belongs into another reply.
    pub(crate) captured: Option<Vec<u8>>,
    /// (link, client, generation): links that are not read because of a client.
    pub(crate) stalled: Vec<(u32, u32, u32)>,
    /// (client, generation): clients with much output.
    pub(crate) heavy: Vec<(u32, u32)>,
    pub(crate) exclusive_links: usize,
    /// (client, generation): those that wait for keys on several shards.
    pub(crate) waiting: Vec<(u32, u32)>,
    /// Who has subscribed to what.
    pub(crate) subscriptions: Subscriptions,
    /// Who of them is first for which key.
    pub(crate) lines: Lines,
    /// What concerns tracked clients.
    pub(crate) trackers: Trackers,
    /// What keeps the requests of all clients from the short way: bits of `care`.
    pub(crate) care: u8,
    /// What pauses each keyspace.
    pub(crate) pauses: Vec<Option<Pause>>,
    /// Who watches, in any worker.
    pub(crate) seats: Vec<Seat>,
    pub(crate) slow: SlowLogs,
    /// What each keyspace refused to its users.
    pub(crate) acl_logs: Vec<AclLog>,
    /// Operations across shards.
    pub(crate) cross_shards: CrossShards,
    pub(crate) is_stopping: bool,
    /// The second in which all clients were looked at.
    pub(crate) looked_s: u64,
    /// To be done by the caller, in order.
    pub actions: Vec<Action>,
    /// Clients with something to write.
    pub dirty_clients: Vec<u32>,
    /// Links with something to write.
    pub dirty_links: Vec<u32>,
}

/// One for each shard, numbered through the topology.
fn backends_of(topology: &Topology) -> Vec<Backend> {
    let spaces = topology.keyspaces.iter().enumerate();
    let backends = spaces.flat_map(|(index, space)| {
        let backend = move |_| Backend::new(index, space.connections);
        space.shards.iter().map(backend)
    });
    backends.collect()
}

impl Engine {
    /// Says what the time of day was when the engine's clock was 0 (ms since 1970). Only what people are shown needs it.
    pub fn started_at(&mut self, unix_ms: u64) {
        self.unix_start_ms = unix_ms;
    }

    /// An engine without clients. The caller should then do its actions: it wants its shards connected.
    pub fn new(
        identity: Identity,
        topology: Arc<Topology>,
        all_stats: Arc<Vec<Stats>>,
        now_us: u64,
    ) -> Self {
        let backends = backends_of(&topology);
        let admissions = topology
            .keyspaces
            .iter()
            .map(|keyspace| Admission::whole(keyspace.shards.len()))
            .collect();
        let memberships = vec![Membership::In; backends.len()];
        let pauses = vec![None; topology.keyspaces.len()];
        let slow = SlowLogs::new(&topology);
        let subscriptions = Subscriptions::new(topology.keyspaces.len(), backends.len());
        let acl_logs = AclLog::of_each(&topology);
        let chance = identity.seed | 1;
        let cross_shards = CrossShards::new(&identity, &topology);
        let mut engine = Self {
            identity,
            topology,
            admissions,
            memberships,
            failing: 0,
            unix_start_ms: 0,
            clients: Slab::default(),
            links: Slab::default(),
            backends,
            scripts: Scripts::default(),
            all_stats,
            now_us,
            now_ms: now_us / 1000,
            scanner: RequestScanner::default(),
            scratch: Scratch {
                chance,
                ..Scratch::default()
            },
            text_scanner: TextScanner::default(),
            spares: Vec::new(),
            next_id: 0,
            chance,
            rotate: 0,
            incoming_bytes: 0,
            queued_bytes: 0,
            captured: None,
            gather_bytes: 0,
            stalled: Vec::new(),
            heavy: Vec::new(),
            exclusive_links: 0,
            waiting: Vec::new(),
            subscriptions,
            lines: Lines::default(),
            trackers: Trackers::default(),
            care: 0,
            pauses,
            seats: Vec::new(),
            slow,
            acl_logs,
            cross_shards,
            is_stopping: false,
            looked_s: 0,
            actions: Vec::new(),
            dirty_clients: Vec::new(),
            dirty_links: Vec::new(),
        };
        engine.begin();
        engine
    }

    /// Connects shards that shall not wait for a request, and shows that all are in.
    fn begin(&mut self) {
        for shard in 0..self.backends.len() {
            if self.identity.worker == 0 {
                let share = u64::from(SHARE_WHOLE);
                self.stats().set_shard(shard, PerShard::Share, share);
            }
            if self.topology.keyspaces[self.backends[shard].keyspace].preconnect {
                self.open_main(shard);
            }
        }
    }

    /// Microseconds of a clock that never goes back.
    #[inline]
    pub fn set_now(&mut self, now_us: u64) {
        self.now_us = now_us;
        self.now_ms = now_us / 1000;
    }

    #[inline]
    pub(crate) fn stats(&self) -> &Stats {
        &self.all_stats[self.identity.worker]
    }

    /// An error of ours in the words of a keyspace's protocol.
    pub(crate) fn write_error(&self, keyspace: usize, error: &ClientError, out: &mut Vec<u8>) {
        write_error(self.topology.keyspaces[keyspace].protocol, error, out);
    }

    #[inline]
    pub(crate) fn speaks_text(&self, keyspace: usize) -> bool {
        self.topology.keyspaces[keyspace].protocol == Protocol::Memcached
    }

    /// Any number, the same ones for the same seed.
    pub(crate) fn chance(&mut self) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance
    }

    /// Clients at the moment.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// A client connected to a keyspace's listener; its place. When there are too many it is told so and closed.
    pub fn client_connected(&mut self, keyspace: u16, peer: String, local: String) -> u32 {
        let space = &self.topology.keyspaces[keyspace as usize];
        let connected: u64 = self
            .all_stats
            .iter()
            .map(|stats| stats.of_keyspace(keyspace as usize, PerKeyspace::Clients))
            .sum();
        let too_many = connected >= space.max_clients;
        let (user, care) = newcomer(space);
        let (connections, database) = (space.connections, space.database);
        self.next_id += 1;
        let id =
            (self.next_id - 1) * self.identity.workers as u64 + self.identity.worker as u64 + 1;
        let (slot, _) = self.clients.insert(Client {
            id,
            keyspace,
            connection: (id % u64::from(connections.max(1))) as u16,
            database,
            proto: Proto::Resp2,
            intake: Intake::Open,
            reply_mode: ReplyMode::On,
            user,
            care,
            dirty: false,
            ended: false,
            reason: None,
            stalls: false,
            is_heavy: false,
            window: WINDOW_MIN as u16,
            taken: 0,
            incoming: Vec::new(),
            scanner: None,
            replies: Replies::default(),
            particulars: None,
            peer: peer.into_boxed_str(),
            local: local.into_boxed_str(),
            since_ms: self.now_ms,
            request_ms: self.now_ms,
            received_ms: self.now_ms,
            written_ms: self.now_ms,
            last_command: "NULL",
        });
        self.stats()
            .keyspace(keyspace as usize, PerKeyspace::Clients, 1);
        self.stats()
            .keyspace(keyspace as usize, PerKeyspace::Accepted, 1);
        if too_many {
            self.refuse_client(slot, &ClientError::MaxClients, CloseReason::MaxClients);
        }
        slot
    }

    /// Says why and closes, after what was asked before has been answered.
    pub(crate) fn refuse_client(&mut self, slot: u32, error: &ClientError, reason: CloseReason) {
        if let Some(client) = self.clients.get_mut(slot) {
            let speaks = self.topology.keyspaces[client.keyspace as usize].protocol;
            client
                .replies
                .local(false, |out| write_error(speaks, error, out));
            client.intake = Intake::Closing;
            client.reason = Some(reason);
            self.touch_client(slot);
        }
    }

    /// Puts a client on the list of those with something to write.
    #[inline]
    pub(crate) fn touch_client(&mut self, slot: u32) {
        if let Some(client) = self.clients.get_mut(slot) {
            if !client.dirty {
                client.dirty = true;
                client.replies.out.take_spare(&mut self.spares);
                self.dirty_clients.push(slot);
            }
        }
    }

    /// The output of a client that was on the dirty list; it is off the list.
    #[inline]
    pub fn client_output(&mut self, slot: u32) -> Option<&mut Output> {
        let client = self.clients.get_mut(slot)?;
        client.dirty = false;
        Some(&mut client.replies.out)
    }

    /// After writing: gives the buffer of a client back that has nothing more to write.
    #[inline]
    pub fn client_rests(&mut self, slot: u32) {
        if let Some(client) = self.clients.get_mut(slot) {
            client.replies.out.give_spare(&mut self.spares);
        }
    }

    /// Forgets a client at once. Its requests in flight run on; their replies find nobody.
    pub(crate) fn drop_client(&mut self, slot: u32, reason: CloseReason) {
        self.drop_client_for(slot, reason, None);
    }

    /// As `drop_client`; what is known beyond the reason is logged.
    pub(crate) fn drop_client_for(
        &mut self,
        slot: u32,
        reason: CloseReason,
        detail: Option<String>,
    ) {
        let Some(client) = self.clients.get(slot) else {
            return;
        };
        self.report_close(slot, client.reason.unwrap_or(reason), detail);
        // From here on nothing that ends on its behalf makes it go on.
        let was_closing = self.clients.get_mut(slot).is_some_and(|client| {
            std::mem::replace(&mut client.intake, Intake::Closing) == Intake::Closing
        });
        if self.clients.get(slot).is_some_and(|client| client.stalls) {
            self.release_stalls(slot);
        }
        self.forget_transaction(slot);
        self.leave_wait(slot);
        self.end_monitor(slot);
        self.forget_subscriptions(slot);
        self.close_own_links(slot);
        self.forget_tracking(slot);
        if let Some(client) = self.clients.remove(slot) {
            self.incoming_bytes -= client.incoming.len();
            self.gather_bytes -= client.replies.gather_bytes();
            self.stats()
                .keyspace(client.keyspace as usize, PerKeyspace::Clients, -1);
            let is_in_peace = was_closing && !client.ended && client.replies.out.is_empty();
            self.actions.push(if is_in_peace {
                Action::LetClientGo(slot)
            } else {
                Action::CloseClient(slot)
            });
        }
    }

    /// Counts and logs the end of a client.
    fn report_close(&mut self, slot: u32, reason: CloseReason, detail: Option<String>) {
        let Some(client) = self.clients.get(slot) else {
            return;
        };
        self.stats().closed(reason);
        let cell = match reason {
            CloseReason::ClientClosed => Some(PerKeyspace::Ended),
            CloseReason::ClientError => Some(PerKeyspace::Broken),
            _ => None,
        };
        if let Some(cell) = cell {
            self.stats().keyspace(client.keyspace as usize, cell, 1);
        }
        let level = if reason.is_ordinary() {
            Level::Debug
        } else {
            Level::Info
        };
        let mut fields = vec![
            ("reason", reason.text().to_string()),
            ("client", client.id.to_string()),
            ("peer", client.peer.to_string()),
            (
                "keyspace",
                self.topology.keyspaces[client.keyspace as usize]
                    .name
                    .clone(),
            ),
        ];
        fields.extend(detail.map(|detail| ("detail", detail)));
        self.event(level, "client-closed", fields);
    }

    pub(crate) fn event(
        &mut self,
        level: Level,
        name: &'static str,
        fields: Vec<(&'static str, String)>,
    ) {
        self.actions.push(Action::Event(Event {
            level,
            name,
            fields,
        }));
    }
}

fn write_error(speaks: Protocol, error: &ClientError, out: &mut Vec<u8>) {
    match speaks {
        Protocol::Redis => error.write(out),
        Protocol::Memcached => line::error(out, error),
    }
}
