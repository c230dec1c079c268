//! One client: who it is, what it has set for its connection, and whether it is being read.
//!
//! Owns: `Client`. Its replies in order are in `Replies`; what is done with its requests is in `dispatch`.
//!
//! Must stay true: an idle client owns no buffer (its size is what 10,000 of them cost); whether it is read moves only
//! through `Intake`; a password is never kept.

use crate::protocol::encode::Proto;
use crate::protocol::request::RequestScanner;
use crate::session::backend::lane;
use crate::session::blocking_wait::Wait;
use crate::session::monitor::Watching;
use crate::session::replies::Replies;
use crate::session::stats::CloseReason;
use crate::session::subscriptions::Subscribed;
use crate::session::tracking::Tracking;
use crate::session::transaction::Transaction;
use crate::session::transaction_watch::Watch;

/// Whether a client's requests are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intake {
    /// They are.
    Open,
    /// Not until half of its requests in flight are answered.
    InFlight,
    /// Not until half of its output is written.
    Output,
    /// Not until the link has written half of what waits there.
    Link(u32),
    /// Not until every reply has been given: the next request changes how the connection is used.
    Barrier,
    /// Not until the pause of its keyspace ends.
    Paused,
    /// Not until the operation across shards is over that has a key of its next request.
    Fenced,
    /// Not until the subscriptions that were asked for before its PUBLISH are confirmed.
    Subscriptions,
    /// Not until the request that waits has its reply; only its end is looked for.
    Blocked,
    /// Never again; closed when everything is written.
    Closing,
}

/// What keeps requests from the short way, as bits of `Client::care` and `Engine::care`: 0 for nearly all.
pub mod care {
    /// The client has not authenticated.
    pub const STRANGER: u8 = 1;
    /// It is within MULTI.
    pub const QUEUES: u8 = 1 << 1;
    /// It has subscribed; if it speaks RESP2 it may do little else.
    pub const SUBSCRIBED: u8 = 1 << 2;
    /// It has connections of its own by which the shards know what it read.
    pub const TRACKED: u8 = 1 << 3;
    /// Its user may not do everything.
    pub const RULED: u8 = 1 << 4;
    /// Somebody watches every request of the worker.
    pub const MONITORED: u8 = 1 << 5;
    /// Clients are paused.
    pub const PAUSED: u8 = 1 << 6;
    /// Operations across shards have some keys to themselves.
    pub const FENCED: u8 = 1 << 7;
}

/// CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyMode {
    /// Every reply is given.
    On,
    /// None is.
    Off,
    /// The next one is not.
    SkipNext,
}

/// What few clients set; apart, so that the others do not pay for it.
#[derive(Debug, Default, Clone)]
pub struct Particulars {
    /// CLIENT SETNAME.
    pub name: Vec<u8>,
    /// CLIENT SETINFO LIB-NAME.
    pub library: Vec<u8>,
    /// CLIENT SETINFO LIB-VER.
    pub library_version: Vec<u8>,
    /// CLIENT NO-EVICT.
    pub no_evict: bool,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
    /// Connections to shards that it has to itself; see `own_links`.
    pub own_links: Vec<u32>,
    /// What stands between MULTI and EXEC.
    pub transaction: Option<Box<Transaction>>,
    /// Keys that are watched.
    pub watch: Option<Box<Watch>>,
    /// Keys on several shards for which it waits.
    pub wait: Option<Box<Wait>>,
    /// MONITOR.
    pub monitor: Option<Watching>,
    /// Channels and patterns whose messages it gets.
    pub subscribed: Option<Box<Subscribed>>,
    /// Since when its next request waits for the end of operations across shards (ms).
    pub fenced_since_ms: Option<u64>,
    /// CLIENT TRACKING.
    pub tracking: Option<Box<Tracking>>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Client {
    /// CLIENT ID: unique over all workers.
    pub id: u64,
    /// Index of its keyspace.
    pub keyspace: u16,
    /// Which of the connections to each shard it uses.
    pub connection: u16,
    /// SELECT.
    pub database: u8,
    /// HELLO.
    pub proto: Proto,
    /// Whether its requests are taken.
    pub intake: Intake,
    /// CLIENT REPLY.
    pub reply_mode: ReplyMode,
    /// Index of its user in the keyspace, once it has authenticated; None where there are none.
    pub user: Option<u16>,
    /// What keeps its requests from the short way: bits of `care`.
    pub care: u8,
    /// It is in the list of clients with something to write.
    pub dirty: bool,
    /// Nothing more comes from it.
    pub ended: bool,
    /// Why it will be closed, when that is decided.
    pub reason: Option<CloseReason>,
    /// Some link is stalled by it.
    pub stalls: bool,
    /// It is in the list of clients with much output.
    pub is_heavy: bool,
    /// Requests it may have in flight.
    pub window: u16,
    /// Bytes it has taken since its window last grew.
    pub taken: u64,
    /// Bytes of requests that are not whole, or not taken yet.
    pub incoming: Vec<u8>,
    /// Where the scan of `incoming` stopped.
    pub scanner: Option<Box<RequestScanner>>,
    /// Replies in order.
    pub replies: Replies,
    /// What few clients set.
    pub particulars: Option<Box<Particulars>>,
    /// `host:port` of both ends.
    pub peer: Box<str>,
    /// See `peer`.
    pub local: Box<str>,
    /// When it connected (ms).
    pub since_ms: u64,
    /// When a request of it was last taken (ms).
    pub request_ms: u64,
    /// When a byte of it last came (ms).
    pub received_ms: u64,
    /// When it last took a byte (ms).
    pub written_ms: u64,
    /// The last command, as CLIENT LIST shows it.
    pub last_command: &'static str,
}

impl Client {
    /// The lane of its requests, on every shard.
    #[inline]
    pub fn lane(&self) -> usize {
        lane(self.connection, self.database, self.proto)
    }

    /// What few clients set, made on first use.
    pub fn particulars(&mut self) -> &mut Particulars {
        self.particulars.get_or_insert_with(Box::default)
    }

    /// It may use commands.
    #[inline]
    pub fn is_trusted(&self) -> bool {
        self.care & care::STRANGER == 0
    }

    /// Sets or clears bits of `care`.
    pub fn take_care(&mut self, bits: u8, on: bool) {
        if on {
            self.care |= bits;
        } else {
            self.care &= !bits;
        }
    }

    /// The current request's reply is not given; moves SKIP on.
    #[inline]
    pub fn is_muted(&mut self) -> bool {
        match self.reply_mode {
            ReplyMode::On => false,
            ReplyMode::Off => true,
            ReplyMode::SkipNext => {
                self.reply_mode = ReplyMode::On;
                true
            }
        }
    }

    /// As after connecting (RESET), apart from its identity.
    pub fn reset(&mut self, newcomer: (Option<u16>, u8), database: u8) {
        self.database = database;
        self.proto = Proto::Resp2;
        self.reply_mode = ReplyMode::On;
        (self.user, self.care) = newcomer;
        if let Some(particulars) = &mut self.particulars {
            particulars.name.clear();
            particulars.no_evict = false;
            particulars.no_touch = false;
        }
    }

    /// Its next request is taken only when every earlier one has its reply.
    pub fn raise_barrier(&mut self) {
        if self.intake != Intake::Closing {
            self.intake = Intake::Barrier;
        }
    }

    /// The name it gave itself.
    pub fn name(&self) -> &[u8] {
        self.particulars
            .as_ref()
            .map_or(&[], |particulars| &particulars.name)
    }
}
