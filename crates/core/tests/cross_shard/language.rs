//! What clients of the simulation ask, and what it does to keys: the one definition that shards and the judge both use.

use shoal_core::session::cross_shard::call::{KeyClaim, Mode, Redo, Scope, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A key is a number; it lies on the shard `key % shards`.
pub type Key = u8;

/// Keys are lower than this.
pub const KEYS_MAX: Key = 6;

/// What a key holds: a list of tokens, never empty.
pub type Tokens = Vec<u32>;

/// Stands in the place of a key that is written without being read.
pub const MARK: u32 = u32::MAX;

/// Keys and what they hold.
pub type Store = BTreeMap<Key, Tokens>;

/// One for each thing that is told.
pub type Reply = Vec<Option<Tokens>>;

/// What a client asks: one command, atomic as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// GET, MGET.
    Get(Vec<Key>),
    /// SET, MSET: each key then holds this one token.
    Set(Vec<Key>, u32),
    /// RPUSH to each of the keys; how long they are then.
    Push(Vec<Key>, u32),
    /// RENAME; nil if there is nothing to rename.
    Rename(Key, Key),
    /// LMOVE: the first token of the one to the end of the other.
    Move(Key, Key),
    /// SUNIONSTORE: the first key then holds what the others hold, in a row; how long it is.
    Store(Key, Vec<Key>),
    /// FLUSHALL.
    Flush,
}

impl Op {
    /// The keys, each once, and what of them it needs: whether it writes, whether it reads.
    pub fn keys(&self) -> Vec<(Key, bool, bool)> {
        let mut keys: Vec<(Key, bool, bool)> = match self {
            Self::Get(keys) => keys.iter().map(|key| (*key, false, true)).collect(),
            Self::Set(keys, _) => keys.iter().map(|key| (*key, true, false)).collect(),
            Self::Push(keys, _) => keys.iter().map(|key| (*key, true, true)).collect(),
            Self::Rename(from, to) => vec![(*from, true, true), (*to, true, false)],
            Self::Move(from, to) => vec![(*from, true, true), (*to, true, true)],
            Self::Store(to, from) => {
                let from = from.iter().map(|key| (*key, false, true));
                std::iter::once((*to, true, false)).chain(from).collect()
            }
            Self::Flush => (0..KEYS_MAX).map(|key| (key, true, false)).collect(),
        };
        keys.sort_unstable();
        keys
    }

    /// How much it claims of each shard.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Flush => Scope::All,
            _ => Scope::Keys,
        }
    }

    /// What shards keep of it to do it themselves.
    pub fn redo(&self) -> Option<Redo> {
        (*self == Self::Flush).then(|| Redo(Arc::from("FLUSHALL")))
    }

    /// What it claims of one shard's keys; none where it claims all.
    pub fn claims(&self, shard: usize, shards: usize, is_home: bool) -> Vec<KeyClaim> {
        if self.scope() == Scope::All {
            return Vec::new();
        }
        let keys = self.keys().into_iter();
        let keys = keys.filter(|(key, _, _)| *key as usize % shards == shard);
        let claim = |(key, writes, reads): (Key, bool, bool)| KeyClaim {
            key: Arc::from([key].as_slice()),
            mode: if writes {
                Mode::Exclusive
            } else {
                Mode::Shared
            },
            is_wanted: reads && !is_home,
        };
        keys.map(claim).collect()
    }

    /// Does it.
    pub fn run(&self, store: &mut Store) -> Reply {
        let length = |tokens: &Tokens| Some(vec![tokens.len() as u32]);
        match self {
            Self::Get(keys) => keys.iter().map(|key| store.get(key).cloned()).collect(),
            Self::Set(keys, token) => {
                store.extend(keys.iter().map(|key| (*key, vec![*token])));
                Vec::new()
            }
            Self::Push(keys, token) => {
                let push = |key: &Key| {
                    let tokens = store.entry(*key).or_default();
                    tokens.push(*token);
                    length(tokens)
                };
                keys.iter().map(push).collect()
            }
            Self::Rename(from, to) => {
                let moved = store.remove(from);
                store.extend(moved.clone().map(|tokens| (*to, tokens)));
                vec![moved.map(|_| Vec::new())]
            }
            Self::Move(from, to) => {
                let Some(mut tokens) = store.remove(from) else {
                    return vec![None];
                };
                let token = tokens.remove(0);
                if !tokens.is_empty() {
                    store.insert(*from, tokens);
                }
                store.entry(*to).or_default().push(token);
                vec![Some(vec![token])]
            }
            Self::Store(to, from) => {
                let all = from.iter().filter_map(|key| store.get(key)).flatten();
                let all: Tokens = all.copied().collect();
                store.remove(to);
                let reply = length(&all);
                if !all.is_empty() {
                    store.insert(*to, all);
                }
                vec![reply]
            }
            Self::Flush => {
                store.clear();
                Vec::new()
            }
        }
    }
}

fn put(tokens: &Tokens, out: &mut Vec<u8>) {
    out.push(tokens.len() as u8);
    tokens
        .iter()
        .for_each(|token| out.extend(token.to_le_bytes()));
}

fn take(bytes: &[u8]) -> (Tokens, &[u8]) {
    let (tokens, rest) = bytes[1..].split_at(bytes[0] as usize * 4);
    let word = |word: &[u8]| u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
    (tokens.chunks(4).map(word).collect(), rest)
}

/// As DUMP would give it.
pub fn dump(tokens: Option<&Tokens>) -> Option<Value> {
    tokens.map(|tokens| {
        let mut dump = Vec::new();
        put(tokens, &mut dump);
        Value {
            expires_ms: None,
            dump: dump.into(),
        }
    })
}

/// As RESTORE would do.
pub fn restore(store: &mut Store, key: &[u8], value: Option<&Value>) {
    match value {
        Some(value) => drop(store.insert(key[0], take(&value.dump).0)),
        None => drop(store.remove(&key[0])),
    }
}

pub fn encode_reply(reply: &Reply) -> Vec<u8> {
    let mut out = Vec::new();
    for tokens in reply {
        out.push(u8::from(tokens.is_some()));
        put(tokens.as_ref().unwrap_or(&Vec::new()), &mut out);
    }
    out
}

pub fn decode_reply(mut bytes: &[u8]) -> Reply {
    let mut reply = Vec::new();
    while let Some((is_some, rest)) = bytes.split_first() {
        let (tokens, rest) = take(rest);
        reply.push((*is_some == 1).then_some(tokens));
        bytes = rest;
    }
    reply
}
