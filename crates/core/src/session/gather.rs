//! Replies that are put together from several: the fragments of one request.
//!
//! Owns: `Gather`, which collects the parts (from shards or from other workers) and says when it has them all, and what
//! is to be made of them then.
//!
//! Must stay true: a part that failed makes the whole fail, unless the kind says that it can do without; the bytes held
//! are counted against `GATHER_BYTES_MAX`.

use crate::limits::GATHER_BYTES_MAX;
use crate::protocol::command::Merge;
use crate::routing::topology::SlowRules;
use crate::session::heads::NO_HEAD;
use crate::session::memcached::merge::TextMerge;
use crate::session::publish::Tally;
use crate::session::scan::ScanStep;
use crate::session::tracking::TrackingStep;
use crate::session::transaction_reply::ExecPlan;
use std::sync::Arc;

/// What is made of the parts.
#[derive(Debug, Clone)]
pub enum GatherKind {
    /// By the rule of the command table; `order` as `merge::merge` wants it.
    Merge {
        /// The rule.
        merge: Merge,
        /// For each key the fragment that holds it.
        order: Vec<u16>,
    },
    /// INFO: the client's arguments choose the sections. Each worker's headcount, then the shards; those that are down are left out.
    Info {
        /// The client's arguments.
        sections: Vec<Vec<u8>>,
    },
    /// SCAN: its way over the shards.
    Scan(Box<ScanStep>),
    /// A script that is named by its SHA-1: NOSCRIPT is mended once.
    Named {
        /// The whole request, to send it again.
        request: Arc<[u8]>,
        /// The script's name.
        sha: [u8; 20],
        /// The shard, numbered through the topology.
        shard: u32,
    },
    /// The shards' libraries, wanted before a function is called.
    Functions {
        /// The call.
        request: Arc<[u8]>,
        /// Its shard, numbered through the topology; its part is the first.
        shard: u32,
    },
    /// The same bytes to every shard: the reply says where it failed.
    Everywhere {
        /// The rule.
        merge: Merge,
        /// For each part the shard, as an index within the keyspace.
        shards: Vec<u16>,
    },
    /// KEYS, where some of the names are our own.
    Names,
    /// CONFIG SET: as `Everywhere`, then the workers take their part of it.
    Settings {
        /// See `Everywhere`.
        shards: Vec<u16>,
        /// What the slow log is to go by from now on.
        slow: Option<SlowRules>,
    },
    /// SCRIPT EXISTS: which of the scripts are known here, so that a shard which lacks one is given it.
    Known(Vec<bool>),
    /// SCRIPT LOAD: remembered when every shard has taken it.
    Load {
        /// The script.
        body: Arc<[u8]>,
        /// For each part the shard, as an index within the keyspace.
        shards: Vec<u16>,
    },
    /// EXEC.
    Exec(Box<ExecPlan>),
    /// UNWATCH or DISCARD: the links on which keys were watched are given back.
    Unwatch {
        /// Those links.
        links: Vec<u32>,
    },
    /// Replies of memcached.
    Text(TextMerge),
    /// A step of a request that waits for keys on several shards.
    Wait,
    /// Streams of several shards.
    Streams {
        /// The request's keys in their order.
        keys: Vec<Vec<u8>>,
    },
    /// ACL LOG of all workers: entries, as `acl_log` writes them.
    AclLog {
        /// So many of them.
        limit: usize,
    },
    /// CLIENT LIST of all workers: lines.
    ClientList,
    /// Something that every worker has taken: OK.
    AllTook,
    /// An operation across shards: its answer, whole.
    Operation,
    /// Texts of the shards of these names.
    Texts {
        /// In the order of the parts.
        shards: Vec<String>,
    },
    /// The same, of MONITOR.
    Monitor,
    /// SLOWLOG GET of all workers and, after them, of the shards of these names.
    SlowGet {
        /// Entries at most.
        count: usize,
        /// Of SLOWLOG GET SHARDS.
        shards: Vec<String>,
    },
    /// SLOWLOG LEN of all workers.
    SlowLen {
        /// What the log may hold.
        most: usize,
    },
    /// What workers know of subscriptions.
    Census(Tally),
    /// CLIENT KILL of all workers: counts; the old form wants OK or an error.
    ClientKill {
        /// `CLIENT KILL addr:port`.
        old_form: bool,
    },
    /// A step of CLIENT TRACKING.
    Tracking(TrackingStep),
}

/// See the head of this file.
#[derive(Debug)]
pub struct Gather {
    /// What is made of the parts.
    pub kind: GatherKind,
    /// The parts; whole once `left` is 0.
    pub parts: Vec<Vec<u8>>,
    /// When it was asked for, in microseconds; wraps.
    pub began_us: u32,
    /// The number of the request's head.
    pub head: u16,
    /// The slowest of several parts that were slow: its shard, and how long that took.
    pub slowest: Option<(usize, u64)>,
    left: usize,
    bytes: usize,
    too_large: bool,
}

impl Gather {
    /// Waits for so many parts.
    pub fn new(kind: GatherKind, parts: usize) -> Box<Self> {
        Box::new(Self {
            kind,
            parts: vec![Vec::new(); parts],
            began_us: 0,
            head: NO_HEAD,
            slowest: None,
            left: parts,
            bytes: 0,
            too_large: false,
        })
    }

    /// Has places for so many parts, and is whole when fewer are there: the others are asked for only then.
    pub fn awaiting(kind: GatherKind, parts: usize, left: usize) -> Box<Self> {
        let mut gather = Self::new(kind, parts);
        gather.left = left;
        gather
    }

    /// A piece of a part; true when it was the last piece of the last part.
    pub fn chunk(&mut self, part: u16, bytes: &[u8], done: bool) -> bool {
        if self.bytes + bytes.len() > GATHER_BYTES_MAX {
            self.overflow();
        }
        if let Some(held) = self.parts.get_mut(part as usize) {
            if !self.too_large {
                held.extend_from_slice(bytes);
                self.bytes += bytes.len();
            }
        }
        if done {
            self.left = self.left.saturating_sub(1);
        }
        self.left == 0
    }

    /// A part that will not come: whatever of it has come is replaced by the error.
    pub fn fail(&mut self, part: u16, error: &[u8]) -> bool {
        if let Some(held) = self.parts.get_mut(part as usize) {
            self.bytes = self.bytes - held.len() + error.len();
            held.clear();
            held.extend_from_slice(error);
        }
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }

    /// Gives up what has come: the reply will be an error that says so.
    pub fn overflow(&mut self) {
        self.too_large = true;
        self.bytes = 0;
        self.parts.iter_mut().for_each(|part| *part = Vec::new());
    }

    /// Something of a part has come.
    pub fn is_begun(&self) -> bool {
        self.bytes > 0 || self.too_large
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// More bytes came than may be held; the parts are not whole.
    pub fn is_too_large(&self) -> bool {
        self.too_large
    }
}
