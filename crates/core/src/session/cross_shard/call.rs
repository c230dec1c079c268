//! What the protocol of operations across shards asks of one shard, and what the shard answers: values, no bytes.
//!
//! Owns: the nouns (`Tx`, `Pid`, `Mode`, `Value`, `Record`) and the two enums that everything else speaks in: `Call` and
//! `Outcome`. How a call looks on the wire, and how its replies are read, is in `wire`; the scripts are in `lua/`.
//!
//! Flow: `Operation` and `Recovery` give calls -> the engine writes them with `wire` on a link of their own, the simulation
//! does them on a model of a shard -> the outcome goes back as an event.
//!
//! Must stay true: one call is one atomic step of its shard, except `Deregister` and `Kill`; every call but `Prepare` and
//! `Commit` may be repeated. Records on a shard:
//! `__shoal:m` (hash: member to what it tells of itself), `__shoal:fs` (set: every transaction with a record here),
//! `__shoal:f:<tx>` (hash, while undecided: coordinator, home, participants, scope, keys with modes, redo), `__shoal:k` (hash: each
//! claimed key to its mode and transactions), `__shoal:d:<tx>` (hash, at home, from commit until all have applied: the values).
//! Rejected: bytes in the state machines: the simulation would have to run a server.

use std::sync::Arc;

/// Names one operation: `<pid>-<worker>-<number>`, never used twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tx(pub Arc<str>);

/// Names one life of one proxy process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(pub Arc<str>);

/// What an operation keeps others from doing with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Writing it.
    Shared,
    /// Reading and writing it.
    Exclusive,
}

impl Mode {
    /// Whether two operations may have the same key at once.
    pub fn goes_with(self, other: Self) -> bool {
        self == Self::Shared && other == Self::Shared
    }
}

/// How much of a shard is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// The keys that are named.
    #[default]
    Keys,
    /// Every key.
    All,
}

/// A key on one shard that an operation claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyClaim {
    /// The key.
    pub key: Arc<[u8]>,
    /// What others may not do.
    pub mode: Mode,
    /// Its value is needed at home (never true of home's own keys).
    pub is_wanted: bool,
}

/// A key's value as DUMP gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// When it expires, in milliseconds since 1970; None: it does not. An instant, because what is left of a time would grow
    /// by each way between shards.
    pub expires_ms: Option<u64>,
    /// The payload of DUMP.
    pub dump: Arc<[u8]>,
}

/// A key and what it holds: None, if it does not exist.
pub type Held = (Arc<[u8]>, Option<Value>);

/// Where an operation stands, as one shard's records say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `f:<tx>` is there: undecided, or decided and not applied here.
    Fence,
    /// `d:<tx>` is there: committed.
    Decided,
}

/// What an operation does to each shard as a whole, in a server's own words, with blanks between them. It names no keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redo(pub Arc<str>);

/// An operation's record on one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose.
    pub tx: Tx,
    /// Which of the two records.
    pub kind: Kind,
    /// The proxy that coordinates it.
    pub coordinator: Pid,
    /// Name of the home shard.
    pub home: Arc<str>,
    /// Names of all other shards that take part.
    pub participants: Vec<Arc<str>>,
    /// How much of this shard it claims (of a fence).
    pub scope: Scope,
    /// What it claims here (of a fence).
    pub keys: Vec<(Arc<[u8]>, Mode)>,
}

/// PREPARE: claims keys of a shard, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepare {
    /// Whose.
    pub tx: Tx,
    /// Who coordinates; refused unless it is a member.
    pub coordinator: Pid,
    /// Name of the home shard.
    pub home: Arc<str>,
    /// Names of the others.
    pub participants: Vec<Arc<str>>,
    /// This shard is home: the record is watched on this connection, too.
    pub is_home: bool,
    /// How much is claimed.
    pub scope: Scope,
    /// What is claimed.
    pub keys: Vec<KeyClaim>,
    /// Kept in the record, and done when it is applied, or at home by COMMIT; with `Scope::All` only.
    pub redo: Option<Redo>,
    /// Memory that the wanted values may take on the shard, in bytes.
    pub gather_max: u64,
}

/// COMMIT: everything that the operation does, in one EXEC at home. Only on the connection of the home's `Prepare`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Whose.
    pub tx: Tx,
    /// Who coordinates.
    pub coordinator: Pid,
    /// Foreign keys, as gathered; for a key that is not wanted `None`. All are brought before the commands, and gone after them.
    pub foreign: Vec<Foreign>,
    /// The client's requests, whole and behind each other.
    pub requests: Arc<[u8]>,
    /// How many they are.
    pub count: usize,
    /// This is done in place of the one request.
    pub redo: Option<Redo>,
}

/// A key of another shard that a commit needs at home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Name of its shard.
    pub shard: Arc<str>,
    /// The key.
    pub key: Arc<[u8]>,
    /// What it holds before.
    pub value: Option<Value>,
    /// It may change, so it is written back to its shard, if it has.
    pub is_written: bool,
    /// Its value was not gathered, because the requests replace it, or else leave it as it is.
    pub is_blind: bool,
}

/// What became of a foreign key that might be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It is as it was: nothing is to be applied.
    Same,
    /// What it holds now.
    Now(Option<Value>),
}

/// What one shard is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Registers a member (again), and tells the records that are there. The connection was named before.
    Join {
        /// Who.
        pid: Pid,
        /// What all members must agree on: this protocol's version, and where keys are.
        terms: Arc<str>,
    },
    /// See there.
    Prepare(Prepare),
    /// The wanted values again, now that all members have acknowledged the fence.
    Gather {
        /// Whose.
        tx: Tx,
        /// As for `Prepare`.
        keys: Vec<KeyClaim>,
        /// See `Prepare`.
        gather_max: u64,
    },
    /// See there.
    Commit(Commit),
    /// The values that a commit gave to keys of this shard, or what the record says is to be done; does nothing unless `f:<tx>` is
    /// there, and takes it away.
    Apply {
        /// Whose.
        tx: Tx,
        /// New values.
        values: Vec<Held>,
    },
    /// Gives up what is claimed: for what was only read, or will not be done.
    Release {
        /// Whose.
        tx: Tx,
    },
    /// At home, when every participant has applied: forgets the decision.
    Clean {
        /// Whose.
        tx: Tx,
    },
    /// At home: what was decided; if nothing was, it is decided now that it will not be done.
    Resolve {
        /// Whose.
        tx: Tx,
    },
    /// Marks a member as being evicted, and tells which connections are its. It counts as a member as long as these may live: only
    /// `Kill` takes it off the list, and only if it has not joined again meanwhile. A coordinator that is marked is a stranger.
    Deregister {
        /// Who.
        pid: Pid,
    },
    /// Ends connections: after the answer nothing that was sent on them runs any more. Then takes the member off the list, if it is
    /// marked still.
    Kill {
        /// Whose.
        pid: Pid,
        /// The shard's numbers of them.
        ids: Vec<u64>,
    },
}

/// What a shard answered to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// To `Join`.
    Joined {
        /// Version of the format in which this server dumps values.
        dump_version: u16,
        /// It evicts keys of any kind when its memory is full.
        evicts: bool,
        /// Members, this one among them.
        members: Vec<Pid>,
        /// What is there.
        records: Vec<Record>,
    },
    /// To `Join`: members of another version of this protocol are there. What they say of themselves.
    Incompatible(String),
    /// To `Prepare`.
    Prepared {
        /// All of them, the coordinator too.
        members: Vec<Pid>,
        /// Those of them that do not hear what is published there: nobody waits for them.
        silent: Vec<Pid>,
        /// One for each key; None for what is not there or not wanted.
        values: Vec<Option<Value>>,
    },
    /// To `Prepare`: another operation has one of the keys. Nothing was claimed.
    Conflict(Tx),
    /// To `Prepare`: the coordinator is no member. Nothing was claimed.
    Stranger,
    /// To `Prepare` and `Gather`: the wanted values take so many bytes. By `Prepare` nothing was claimed.
    TooLarge(u64),
    /// To `Gather`; as for `Prepared`.
    Gathered(Vec<Option<Value>>),
    /// To `Gather`: the record is not there any more.
    Gone,
    /// To `Commit`.
    Committed {
        /// The replies to the client's requests, behind each other.
        replies: Vec<u8>,
        /// What became of the written foreign keys, in the commit's order.
        written: Vec<Written>,
    },
    /// To `Commit`: the record at home had been touched. Nothing was done.
    NotCommitted,
    /// To `Commit`: the shard refused something while it was queued; its error, without the line end. Nothing was done.
    Refused(Vec<u8>),
    /// To `Apply` and `Release`: whether the record was there. `Clean` says true.
    Done(bool),
    /// To `Resolve`: what participants have to apply (shard, key, value); None: it was not and will not be committed.
    Resolved(Option<Vec<(Arc<str>, Held)>>),
    /// To `Deregister`: the shard's numbers of its connections.
    Connections(Vec<u64>),
    /// To `Kill`.
    Killed,
    /// An error, as the shard gave it, without the line end: of `Prepare` nothing was claimed.
    Failed(Vec<u8>),
}
