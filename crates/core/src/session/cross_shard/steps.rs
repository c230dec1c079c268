//! What an operation is given, what can happen to it, and what it wants done.
//!
//! Owns: `Plan` (everything that is to be done), its `Phase`, `Event` (what has happened), `Step` (what is to be done next) and `Answer` (what
//! the client is told). `operation` moves between them; the engine and the simulation carry steps out and report events.
//!
//! Must stay true: an operation gives exactly one `Answer`, and ends with exactly one `Unlock`, `Withdraw` or `HandOver`.

use crate::session::cross_shard::call::{Call, KeyClaim, Outcome, Pid, Redo, Scope, Tx};
use std::sync::Arc;

/// What an operation needs of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The shard's name.
    pub shard: Arc<str>,
    /// How much of it is claimed.
    pub scope: Scope,
    /// Which keys.
    pub keys: Vec<KeyClaim>,
}

/// Everything that is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Whose.
    pub tx: Tx,
    /// Who coordinates it.
    pub pid: Pid,
    /// One for each shard, in the order of the shards.
    pub parts: Vec<Part>,
    /// Which of them is home.
    pub home: usize,
    /// The client's requests, behind each other.
    pub requests: Arc<[u8]>,
    /// How many.
    pub count: usize,
    /// What is done to every shard, in place of the one request.
    pub redo: Option<Redo>,
    /// The client watches keys: whether they are as they were is asked when all is fenced.
    pub watches: bool,
    /// Shards are prepared one after the other: slower, but two operations that do so cannot take turns in stopping each other.
    pub is_careful: bool,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The keys are being locked within this proxy.
    Locking,
    /// Shards are asked to claim.
    Preparing,
    /// Other members are waited for.
    Fencing,
    /// Values are gathered again, watches validated.
    Gathering,
    /// COMMIT was sent.
    Committing,
    /// Committed: shards are given their new values.
    Applying,
    /// Answered; records go.
    Finishing,
    /// It will not be done; what was claimed is given back.
    Releasing,
    /// Recovery has it.
    HandedOver,
    /// Over.
    Over,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The keys are locked, and everything that was sent before is answered, in all workers.
    Begin,
    /// A shard answered the call that it was sent last.
    Outcome(usize, Outcome),
    /// The connection to a shard is lost, or could not be had.
    Lost(usize),
    /// A member has drained its connections to a shard, and holds back what is claimed.
    Fenced(usize, Pid),
    /// Whether the keys that the client watches are as they were.
    Validated(bool),
    /// Time has passed.
    Tick,
}

/// What the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The replies to its requests, behind each other.
    Done(Vec<u8>),
    /// A watched key has changed: not done.
    Broken,
    /// Not done: others had keys of it.
    Conflict,
    /// Not done: it has waited for its keys too long.
    Waited,
    /// Not done: shards or proxies did not answer in time, or a connection was lost.
    Again(Again),
    /// Not done: a shard refused it, with these words (without the line end).
    Refused(Vec<u8>),
    /// Not done: so many bytes would have to be moved.
    TooLarge(u64),
    /// Nobody knows yet; recovery will find out.
    Unknown,
}

/// Why an operation was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// A shard's connection was lost, or could not be had.
    Lost(usize),
    /// A shard did not answer in time.
    Late(usize),
    /// A shard does not count this proxy among its members.
    Stranger(usize),
    /// Somebody took the coordinator for dead.
    Resolved,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this to a shard, on the connection that the operation has there.
    Call(usize, Call),
    /// The same, on a connection that may be a new one.
    CallAnew(usize, Call),
    /// Ask whether the keys that the client watches are as they were.
    Validate,
    /// Tell the client.
    Answer(Answer),
    /// What other requests are held back for goes on: the workers lift the fence.
    Lift,
    /// The keys are free for other operations of this proxy. The operation is over.
    Unlock,
    /// Nothing was sent, and nothing will be: it leaves the line for its keys, and what may be held back for it already goes on. The
    /// operation is over.
    Withdraw,
    /// Recovery shall find out and finish it; it lifts and unlocks.
    HandOver {
        /// COMMIT was not sent, and will not be: so nothing keeps others from the keys but records, where they are.
        is_undone: bool,
    },
}
