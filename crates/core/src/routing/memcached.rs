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
use crate::routing::placement::Map;
use crate::routing::route::Scratch;

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
    /// No range holds the key that is the word with this index.
    NoRange(usize),
    /// Not done here.
    Refuse,
}

/// Decides; `shards` then has the shard of each key of a split request.
#[inline]
pub fn decide(
    map: &Map<'_>,
    command: &TextCommand,
    data: &[u8],
    words: &[Word],
    scratch: &mut Scratch,
) -> TextRoute {
    let key = |index: usize| words.get(index).map_or(&b""[..], |word| bytes(data, *word));
    match command.shape {
        Shape::Keys => keys(map, data, words, 1, scratch),
        Shape::TimeKeys => keys(map, data, words, 2, scratch),
        Shape::Store | Shape::Compare | Shape::Delete | Shape::Delta | Shape::Touch => {
            to_shard(map.shard(key(1), &mut scratch.chance))
        }
        Shape::Meta | Shape::MetaStore => {
            to_shard(map.shard(&meta_key(data, words), &mut scratch.chance))
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
fn to_shard(shard: Option<u16>) -> TextRoute {
    shard.map_or(TextRoute::NoRange(1), TextRoute::Shard)
}

#[inline]
fn keys(
    map: &Map<'_>,
    data: &[u8],
    words: &[Word],
    first: usize,
    scratch: &mut Scratch,
) -> TextRoute {
    let keys = match words.get(first..) {
        None | Some([]) => return TextRoute::NoKeys,
        Some([word]) => {
            let shard = map.shard(bytes(data, *word), &mut scratch.chance);
            return shard.map_or(TextRoute::NoRange(first), TextRoute::Shard);
        }
        Some(keys) => keys,
    };
    if let Some(shard) = map.any_shard(&mut scratch.chance) {
        return TextRoute::Shard(shard);
    }
    scratch.shards.clear();
    for (index, word) in (first..).zip(keys) {
        match map.shard(bytes(data, *word), &mut scratch.chance) {
            Some(shard) => scratch.shards.push(shard),
            None => return TextRoute::NoRange(index),
        }
    }
    match scratch.shards.first() {
        Some(one) if scratch.shards.iter().all(|shard| shard == one) => TextRoute::Shard(*one),
        _ => TextRoute::Split(first),
    }
}
