//! Our side of the shards: the connections of one worker to one shard, and whether it can be reached.
//!
//! Owns: `Backend` (a shard's health and its connections, one for each database and protocol in use) and `Link` (one
//! connection: what is to be written, and who waits for which reply).
//!
//! Flow: a request finds its backend -> the link of its database and protocol -> bytes to `out`, an `InFlight` to
//! `queue`. Replies come in the order of `queue`. What a connection must be told first (password, protocol, database)
//! goes before; requests are kept in `held` until all of that was answered, because a request that overtakes a refused
//! SELECT would run in another database.
//!
//! Must stay true: `queue` has one entry for each request in `out` that has no whole reply, in the same order; a
//! backend's state moves only through `Health::after`.
//! Rejected: a pool of connections per shard with requests dealt round: a client could then overtake itself.

use crate::limits::{DATABASES, RECONNECT_MS_MAX, RECONNECT_MS_MIN};
use crate::protocol::command::Undo;
use crate::protocol::encode::Proto;
use crate::protocol::memcached::reply::TextReplyScanner;
use crate::protocol::reply::ReplyScanner;
use crate::session::cross_shard::call::Tx;
use crate::session::cross_shard::drains::Waits;
use crate::session::output::Output;
use crate::session::own_links::Owner;
use crate::session::put_back::Orphan;
use std::collections::{HashSet, VecDeque};

/// No link.
pub const NONE: u32 = u32::MAX;

/// Whether a shard can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Nothing was tried yet.
    Idle,
    /// The first connection is being made; requests wait for it.
    Opening,
    /// Reachable.
    Up,
    /// Not reachable; requests are refused at once. It is tried again at `retry_ms`.
    Down {
        /// On the engine's clock.
        retry_ms: u64,
        /// Failures in a row.
        attempts: u32,
    },
    /// A connection is being made again; requests are still refused.
    Retrying {
        /// Failures in a row.
        attempts: u32,
    },
}

/// What happens to a backend's main connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthEvent {
    /// It is being made.
    Begun,
    /// It answered what it was told first.
    Ready,
    /// It was lost or could not be made, at this time; `chance` is any number.
    Lost {
        /// On the engine's clock.
        now_ms: u64,
        /// Where the jitter comes from.
        chance: u64,
        /// So many failures are waited out shortly: those of which a cache wants to see so many before it ejects.
        brief: u32,
    },
}

impl Health {
    /// The only way in which a backend's state changes.
    pub fn after(self, event: HealthEvent) -> Self {
        match (self, event) {
            (Self::Idle, HealthEvent::Begun) => Self::Opening,
            (Self::Down { attempts, .. }, HealthEvent::Begun) => Self::Retrying { attempts },
            (
                Self::Idle | Self::Opening | Self::Up | Self::Retrying { .. } | Self::Down { .. },
                HealthEvent::Ready,
            ) => Self::Up,
            // A connection that had worked is made again at once: most often the shard lives and only closed it.
            (Self::Up, HealthEvent::Lost { now_ms, .. }) => Self::Down {
                retry_ms: now_ms,
                attempts: 0,
            },
            (
                Self::Idle | Self::Opening,
                HealthEvent::Lost {
                    now_ms,
                    chance,
                    brief,
                },
            ) => Self::wait(now_ms, 0, chance, brief),
            (
                Self::Down { attempts, .. } | Self::Retrying { attempts },
                HealthEvent::Lost {
                    now_ms,
                    chance,
                    brief,
                },
            ) => Self::wait(now_ms, attempts, chance, brief),
            (Self::Opening | Self::Up | Self::Retrying { .. }, HealthEvent::Begun) => self,
        }
    }

    fn wait(now_ms: u64, attempts: u32, chance: u64, brief: u32) -> Self {
        let full = (RECONNECT_MS_MIN as u64)
            .saturating_mul(1 << attempts.saturating_sub(brief).min(16))
            .min(RECONNECT_MS_MAX as u64);
        let wait = full - chance % (full / 2 + 1);
        Self::Down {
            retry_ms: now_ms + wait,
            attempts: attempts.saturating_add(1),
        }
    }

    /// As people are told it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Opening => "connecting",
            Self::Up => "up",
            Self::Down { .. } | Self::Retrying { .. } => "down",
        }
    }
}

/// Who waits for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiter {
    /// A client, for the reply as it is.
    Client,
    /// A client, for what comes before the answer to `mn`: a quiet request of memcached.
    Quiet,
    /// A part of a client's `Gather`.
    Part,
    /// Nobody; the reply shows that the shard lives.
    Probe,
    /// A client's EXEC, for QUEUED or the reason why not.
    Queued,
    /// The link: the number by which the shard knows it.
    Identity,
    /// Requests of clients, for the shard to confirm subscriptions; see `feed`.
    Subscription,
    /// Nobody; a script was loaded ahead of its use, or something sent ahead of WAIT.
    Prelude,
    /// A client, for the reply to a request that waits and may have to begin again.
    Again,
    /// The worker, for a shard's list of connections; the number of the question is in `number`.
    Listing,
    /// Nobody; what was taken for a client that has left is put back.
    PutBack,
    /// An operation across shards: its place and generation instead of a client's, and its part.
    Operation,
    /// Worker 0, for an answer on a control connection.
    Control,
    /// The worker: a lost connection, whose number is in `number`, runs nothing any more.
    Ghost,
}

/// A request without a whole reply.
#[derive(Debug, Clone, Copy)]
pub struct InFlight {
    /// The client's place and generation.
    pub client: u32,
    /// See `client`.
    pub generation: u32,
    /// Number of the request in the client's `Replies`.
    pub number: u32,
    /// When it was sent, in microseconds; wraps.
    pub sent_us: u32,
    /// Which part of a `Gather`; for a client's plain reply the number of the request's head.
    pub part: u16,
    /// Who waits.
    pub waiter: Waiter,
}

impl InFlight {
    /// Of a request that is no client's.
    pub fn of_nobody(waiter: Waiter, now_us: u64) -> Self {
        Self {
            client: u32::MAX,
            generation: 0,
            number: 0,
            sent_us: now_us as u32,
            part: 0,
            waiter,
        }
    }
}

/// What a link is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// The socket is not connected yet.
    Connecting,
    /// It is, and agrees on TLS.
    Securing,
    /// Waiting for answers to what it was told first: so many.
    Greeting(u8),
    /// In use.
    Up,
    /// No new requests; closed when the last reply has come.
    Retired,
}

/// One connection to a shard.
#[derive(Debug)]
pub struct Link {
    /// The shard, numbered through the topology.
    pub shard: usize,
    /// Its place among the backend's links; None for a connection that serves one request alone.
    pub lane: Option<usize>,
    /// Database and protocol of one that is nobody's lane.
    pub exclusive_lane: usize,
    /// Whose it is.
    pub owner: Owner,
    /// It asks about a running script: a shard that is busy with it is ready all the same.
    pub is_aside: bool,
    /// The number by which the shard knows it; 0: not asked yet.
    pub server_id: u64,
    /// The shard has been asked to tell on it when what is read there changes.
    pub tells: bool,
    /// A request waits on it: how what it takes would be put back.
    pub undo: Undo,
    /// The same request, where operations across shards are possible.
    pub waits: Option<Box<Waits>>,
    /// Fences that it was told of itself: nothing is sent on it until they are lifted.
    pub behind: Vec<Tx>,
    /// Its wait is to be ended, with an error or as at its time-out, as soon as the number by which the shard knows it has come.
    pub ends: Option<bool>,
    /// Replies that are to come for clients which have left, as far as something has to be put back.
    pub orphans: Vec<Orphan>,
    /// The beginning of a push that is for somebody.
    pub push: Vec<u8>,
    /// What it is doing.
    pub state: LinkState,
    /// To be written.
    pub out: Output,
    /// To be written once it is up.
    pub held: Output,
    /// Who waits for which reply.
    pub queue: VecDeque<InFlight>,
    /// So many answers of the greeting are to come with the one that tells the shard's records.
    pub join_left: u8,
    /// Replies that have come, ever; wraps.
    pub answered: u64,
    /// Where the current reply ends.
    pub scanner: ReplyScanner,
    /// The same, when the shard is a memcached.
    pub text_scanner: Option<TextReplyScanner>,
    /// A meta command waits in `held`: sent to a server that does not know it, its data would be requests.
    pub holds_meta: bool,
    /// A line of a reply that was cut.
    pub tail: Vec<u8>,
    /// The current reply is a push, which nobody waits for.
    pub in_push: bool,
    /// The reply to the current greeting.
    pub greeting: Vec<u8>,
    /// When a byte last came or, with nothing in flight before, when the oldest request was sent (ms).
    pub progress_ms: u64,
    /// The turn in which bytes last came (us).
    heard_us: u64,
    /// The turn before that in which bytes came: since then it was quiet (us).
    pub quiet_since_us: u64,
    /// The turn in which a reply on it last was late (us).
    pub late_us: u64,
    /// When it was connected (ms).
    pub greeted_ms: u64,
    /// When it was last used by a client (ms).
    pub used_ms: u64,
    /// It is not read, because a client does not take its replies.
    pub stalled: bool,
    /// Since when (ms).
    pub stalled_since_ms: u64,
    /// How long it was stalled before that, in all (ms).
    pub stalled_ms: u64,
    /// It is in the list of links with something to write.
    pub dirty: bool,
    /// Clients that are not read until it has written more.
    pub blocked: Vec<(u32, u32)>,
}

impl Link {
    /// A link about to be connected.
    pub fn new(shard: usize, lane: Option<usize>, now_ms: u64) -> Self {
        Self {
            shard,
            lane,
            exclusive_lane: 0,
            owner: if lane.is_some() {
                Owner::Lane
            } else {
                Owner::Request
            },
            is_aside: false,
            server_id: 0,
            tells: false,
            undo: Undo::Nothing,
            waits: None,
            behind: Vec::new(),
            ends: None,
            orphans: Vec::new(),
            push: Vec::new(),
            state: LinkState::Connecting,
            out: Output::keeping_much(),
            held: Output::default(),
            queue: VecDeque::new(),
            join_left: 0,
            answered: 0,
            scanner: ReplyScanner::default(),
            text_scanner: None,
            holds_meta: false,
            tail: Vec::new(),
            in_push: false,
            greeting: Vec::new(),
            progress_ms: now_ms,
            heard_us: 0,
            quiet_since_us: 0,
            late_us: 0,
            greeted_ms: now_ms,
            used_ms: now_ms,
            stalled: false,
            stalled_since_ms: now_ms,
            stalled_ms: 0,
            dirty: false,
            blocked: Vec::new(),
        }
    }

    /// Bytes came, in this turn.
    #[inline]
    pub fn heard(&mut self, now_us: u64) {
        if self.heard_us != now_us {
            self.quiet_since_us = self.heard_us;
            self.heard_us = now_us;
        }
    }

    /// Where a request's bytes go.
    #[inline]
    pub fn outgoing(&mut self) -> &mut Output {
        match self.state {
            LinkState::Up | LinkState::Retired if self.behind.is_empty() => &mut self.out,
            LinkState::Up | LinkState::Retired => &mut self.held,
            LinkState::Connecting | LinkState::Securing | LinkState::Greeting(_) => &mut self.held,
        }
    }

    /// Bytes that wait to be written.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.out.len() + self.held.len()
    }

    /// Someone waits for the reply to the bytes just given to `outgoing`.
    #[inline]
    pub fn await_reply(&mut self, entry: InFlight, now_ms: u64) {
        if self.queue.is_empty() {
            self.progress_ms = now_ms;
        }
        self.used_ms = now_ms;
        self.queue.push_back(entry);
    }

    /// Whose the reply is that comes now. `ends`: this is the end of it.
    #[inline]
    pub fn next_entry(&mut self, ends: bool) -> Option<InFlight> {
        if ends {
            self.answered = self.answered.wrapping_add(1);
            self.queue.pop_front()
        } else {
            self.queue.front().copied()
        }
    }

    /// Something that was taken for a client which has left may come, or has not been put back for sure.
    pub fn owes_elements(&self) -> bool {
        let is_put_back = |entry: &InFlight| entry.waiter == Waiter::PutBack;
        !self.orphans.is_empty() || self.queue.iter().any(is_put_back)
    }

    /// Requests were written to the socket, or may have been.
    pub fn was_ready(&self) -> bool {
        match self.state {
            LinkState::Up | LinkState::Retired => true,
            LinkState::Connecting | LinkState::Securing | LinkState::Greeting(_) => false,
        }
    }
}

/// A shard, as one worker sees it.
#[derive(Debug)]
pub struct Backend {
    /// Index of its keyspace.
    pub keyspace: usize,
    /// Whether it can be reached.
    pub health: Health,
    /// Why it is down, for people.
    pub reason: String,
    /// One link for each connection, database and protocol in use; `lane` numbers them.
    pub links: Box<[u32]>,
    /// Failures in a row, where they are counted (a cache).
    pub failures: u32,
    /// When the last of them was (ms).
    pub failed_ms: u64,
    /// When a probe was last answered as by a server that is well (ms).
    pub well_ms: u64,
    /// What the server says it is (`redis_version`), empty before the first connection.
    pub version: String,
    /// It is a memcached that is too old for the meta commands.
    pub lacks_meta: bool,
    /// Scripts it is known to have.
    pub scripts: HashSet<[u8; 20]>,
    /// It was looked whether it has the functions that other shards have; see `functions`.
    pub has_functions: bool,
    /// Connections that nobody has at the moment, with their lanes; see `own_links`.
    pub idle: Vec<(usize, u32)>,
    /// Lost connections on which something was sent that may still run: the shard's numbers of them.
    pub ghosts: Vec<u64>,
    /// The beginning of its list of connections.
    pub listing: Vec<u8>,
    /// The server process's own name, as its main connection was told.
    pub run_id: Option<String>,
    /// The version of the format in which it dumps values; 0: not known.
    pub dump_version: u16,
}

impl Backend {
    /// Nothing tried yet.
    pub fn new(keyspace: usize, connections: u16) -> Self {
        Self {
            failures: 0,
            failed_ms: 0,
            well_ms: 0,
            keyspace,
            health: Health::Idle,
            reason: String::new(),
            links: vec![NONE; usize::from(connections.max(1)) * LANES].into(),
            version: String::new(),
            lacks_meta: false,
            scripts: HashSet::new(),
            has_functions: false,
            idle: Vec::new(),
            ghosts: Vec::new(),
            listing: Vec::new(),
            run_id: None,
            dump_version: 0,
        }
    }
}

/// Lanes of one of a client's connections: one for each database that can be selected, and one more for the keyspace's
/// own where that lies beyond them, for each protocol.
pub const LANES: usize = (DATABASES + 1) * 2;

/// The place of the link for a connection, a database and a protocol. 0 is the main link, by which the shard's health is
/// judged.
#[inline]
pub fn lane(connection: u16, database: u8, proto: Proto) -> usize {
    let database = usize::from(database).min(DATABASES);
    usize::from(connection) * LANES + database * 2 + usize::from(proto == Proto::Resp3)
}

/// Database and protocol of a lane; `own` is the keyspace's own database.
pub fn lane_parts(lane: usize, own: u8) -> (u8, Proto) {
    let lane = lane % LANES;
    let is_own = lane / 2 == DATABASES;
    (
        if is_own { own } else { (lane / 2) as u8 },
        if lane % 2 == 1 {
            Proto::Resp3
        } else {
            Proto::Resp2
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_are_jittered_and_bounded() {
        let mut health = Health::Idle.after(HealthEvent::Begun);
        assert_eq!(health, Health::Opening);
        let mut longest = 0;
        for attempt in 0..20u64 {
            health = health.after(HealthEvent::Lost {
                now_ms: 1000,
                chance: attempt * 7919,
                brief: 0,
            });
            let Health::Down { retry_ms, attempts } = health else {
                panic!("not down: {health:?}")
            };
            assert_eq!(attempts as u64, attempt + 1);
            let wait = retry_ms - 1000;
            let full =
                (RECONNECT_MS_MIN as u64 * (1 << attempt.min(16))).min(RECONNECT_MS_MAX as u64);
            assert!(wait <= full && wait >= full / 2, "{wait} of {full}");
            longest = longest.max(wait);
            health = health.after(HealthEvent::Begun);
            assert_eq!(health, Health::Retrying { attempts });
        }
        assert!(longest > RECONNECT_MS_MAX as u64 / 2);
        assert_eq!(health.after(HealthEvent::Ready), Health::Up);
        assert_eq!(
            Health::Up.after(HealthEvent::Lost {
                now_ms: 5,
                chance: 9,
                brief: 0
            }),
            Health::Down {
                retry_ms: 5,
                attempts: 0
            }
        );
    }

    #[test]
    fn failures_that_a_cache_counts_come_soon_after_each_other() {
        let mut health = Health::Idle.after(HealthEvent::Begun);
        let mut now_ms = 0;
        for failure in 0..12 {
            health = health.after(HealthEvent::Lost {
                now_ms,
                chance: 0,
                brief: 10,
            });
            let Health::Down { retry_ms, .. } = health else {
                panic!("not down: {health:?}")
            };
            let doubled = if failure < 11 { 1 } else { 2 };
            assert_eq!(retry_ms - now_ms, RECONNECT_MS_MIN as u64 * doubled);
            now_ms = retry_ms;
            health = health.after(HealthEvent::Begun);
        }
    }

    #[test]
    fn each_connection_database_and_protocol_has_a_lane_of_its_own() {
        let mut seen = std::collections::HashSet::new();
        for connection in 0..3 {
            for database in (0..DATABASES as u8).chain([200]) {
                for proto in [Proto::Resp2, Proto::Resp3] {
                    assert!(seen.insert(lane(connection, database, proto)));
                    assert_eq!(
                        lane_parts(lane(connection, database, proto), 200),
                        (database, proto)
                    );
                }
            }
        }
        assert_eq!(lane(0, 0, Proto::Resp2), 0);
        assert_eq!(Backend::new(0, 3).links.len(), seen.len());
    }
}
