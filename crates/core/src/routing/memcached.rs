//! What to do with a memcached request: the same question as `route`, for the other protocol.
//!
//! Owns: `TextRoute` and the one function that makes it.
//!
//! Flow: a scanned request -> its keys -> shards (in `shards`, one for each key, when there are several) -> `TextRoute`.
//!
//! Must stay true: a request with keys goes only where all of them are; nothing here knows whether a shard can be reached.
//! Rejected: `route::Route` with more arms (a memcached request has no RESP arguments, and every arm there takes them).

use crate::protocol::memcached::command::{Shape, TextCommand};
use crate::protocol::memcached::request::{bytes, meta_key, Word};
use crate::routing::topology::Keyspace;

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextRoute {
    /// To one shard, by its index in the keyspace.
    Shard(u16),
    /// Keys on several shards; the first key is the word with this index.
    Split(usize),
    /// To every shard.
    AllShards,
    /// To any shard.
    AnyShard,
    /// The end of a batch of quiet requests.
    Nothing,
    /// No key: no value.
    NoKeys,
    /// The client goes.
    Quit,
    /// Not done here.
    Refuse,
}

/// Decides; `shards` then has the shard of each key of a split request.
#[inline]
pub fn decide(
    keyspace: &Keyspace,
    command: &TextCommand,
    data: &[u8],
    words: &[Word],
    shards: &mut Vec<u16>,
) -> TextRoute {
    let key = |index: usize| words.get(index).map_or(&b""[..], |word| bytes(data, *word));
    match command.shape {
        Shape::Keys => keys(keyspace, data, words, 1, shards),
        Shape::TimeKeys => keys(keyspace, data, words, 2, shards),
        Shape::Store | Shape::Compare | Shape::Delete | Shape::Delta | Shape::Touch => {
            TextRoute::Shard(keyspace.shard_of(key(1)))
        }
        Shape::Meta | Shape::MetaStore => {
            TextRoute::Shard(keyspace.shard_of(&meta_key(data, words)))
        }
        Shape::MetaNothing => TextRoute::Nothing,
        Shape::Flush | Shape::Verbosity => TextRoute::AllShards,
        Shape::Stats if words.len() == 1 || matches!(key(1), b"settings" | b"reset") => {
            TextRoute::AllShards
        }
        Shape::Version => TextRoute::AnyShard,
        Shape::Quit => TextRoute::Quit,
        Shape::Stats | Shape::Refused => TextRoute::Refuse,
    }
}

#[inline]
fn keys(
    keyspace: &Keyspace,
    data: &[u8],
    words: &[Word],
    first: usize,
    shards: &mut Vec<u16>,
) -> TextRoute {
    match words.get(first..) {
        None | Some([]) => TextRoute::NoKeys,
        Some([word]) => TextRoute::Shard(keyspace.shard_of(bytes(data, *word))),
        Some(keys) => {
            shards.clear();
            shards.extend(
                keys.iter()
                    .map(|word| keyspace.shard_of(bytes(data, *word))),
            );
            match shards.first() {
                Some(one) if shards.iter().all(|shard| shard == one) => TextRoute::Shard(*one),
                _ => TextRoute::Split(first),
            }
        }
    }
}
