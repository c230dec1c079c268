//! One queued command whose keys are on several shards, where the keyspace lets a transaction have several.
//!
//! Owns: `Pieces`, the command cut into one for each shard, and `Piece`, by which their replies become one again.
//!
//! Flow: outside a transaction such a command is split (`spread`); within one each of its pieces is queued as a command of its
//! shard, behind each other, and the last carries what makes one reply of theirs (`transaction_reply`).
//!
//! Must stay true: pieces are made of the client's own bytes, argument by argument; they are kept all or none; the client sees
//! one QUEUED and one reply. Rejected: cutting at EXEC: the request would have to be understood a second time.

use crate::protocol::command::Merge;
use crate::protocol::encode;
use crate::routing::route::{Request, Scratch};
use crate::session::spread::{argument_start, whole_argument};

/// What a queued command is of the client's.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    /// All of it.
    Whole,
    /// One of several; the next follows.
    Part,
    /// The last of several.
    Last(Box<Join>),
}

/// What makes one reply of several.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub merge: Merge,
    /// For each key the piece that has it, where the rule wants to know.
    pub order: Vec<u16>,
}

/// A command cut by shards, in the order of their first keys.
pub(crate) struct Pieces {
    /// For each its shard, the argument that is its first key, and its bytes.
    pub list: Vec<(u16, u32, Vec<u8>)>,
    pub join: Join,
}

impl Pieces {
    /// `scratch` as the decision to split left it.
    pub(crate) fn cut(request: &Request<'_>, scratch: &Scratch, step: u8, merge: Merge) -> Self {
        let mut shards: Vec<(u16, u32, u64)> = Vec::new();
        let mut order = Vec::with_capacity(scratch.shards.len());
        for (&key, &shard) in scratch.keys.iter().zip(&scratch.shards) {
            let known = shards.iter().position(|&(known, ..)| known == shard);
            let piece = known.unwrap_or_else(|| {
                shards.push((shard, key, 0));
                shards.len() - 1
            });
            shards[piece].2 += 1;
            order.push(piece as u16);
        }
        let name = whole_argument(request, 0);
        let mut list: Vec<(u16, u32, Vec<u8>)> = shards
            .into_iter()
            .map(|(shard, key, count)| {
                let mut bytes = Vec::new();
                bytes.push(b'*');
                encode::decimal(&mut bytes, 1 + count * u64::from(step));
                bytes.extend_from_slice(b"\r\n");
                bytes.extend_from_slice(name);
                (shard, key, bytes)
            })
            .collect();
        for (&key, &piece) in scratch.keys.iter().zip(&order) {
            let first = &request.args[key as usize];
            let last = key as usize + step as usize - 1;
            let last = request.args.get(last).unwrap_or(first);
            let end = (last.start + last.len + 2) as usize;
            let bytes = request.data.get(argument_start(first)..end);
            list[piece as usize]
                .2
                .extend_from_slice(bytes.unwrap_or_default());
        }
        if merge != Merge::KeyOrder {
            order.clear();
        }
        let join = Join { merge, order };
        Self { list, join }
    }

    /// How long all of them are.
    pub(crate) fn len(&self) -> usize {
        self.list.iter().map(|(.., bytes)| bytes.len()).sum()
    }
}
