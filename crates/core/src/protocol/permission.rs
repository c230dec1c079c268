//! What a user must be allowed in order to use a command: its ACL categories, and what it does to its keys.
//!
//! Owns: the bits of categories and of needs, and how much of a request's keys is read and written where that depends on
//! its arguments. Which command has which is in the generated table.
//!
//! Flow: `Varies` narrows what a key specification says -> `needed_keys` gives each key with what is needed for it ->
//! `routing::acl` compares that with a user's rules.
//!
//! Must stay true: as servers count it, a key is read when its value reaches the client or another key, and written when it
//! changes; a key that is only asked about (EXISTS, TYPE) needs neither. A request whose needs cannot be told needs all.

use crate::protocol::command::{keys_of, Arg, CommandSpec, KeyError};

/// ACL categories, a bit each.
#[allow(missing_docs)] // each is the category of that name
pub mod category {
    pub const KEYSPACE: u32 = 1;
    pub const READ: u32 = 1 << 1;
    pub const WRITE: u32 = 1 << 2;
    pub const SET: u32 = 1 << 3;
    pub const SORTEDSET: u32 = 1 << 4;
    pub const LIST: u32 = 1 << 5;
    pub const HASH: u32 = 1 << 6;
    pub const STRING: u32 = 1 << 7;
    pub const BITMAP: u32 = 1 << 8;
    pub const HYPERLOGLOG: u32 = 1 << 9;
    pub const GEO: u32 = 1 << 10;
    pub const STREAM: u32 = 1 << 11;
    pub const PUBSUB: u32 = 1 << 12;
    pub const ADMIN: u32 = 1 << 13;
    pub const FAST: u32 = 1 << 14;
    pub const SLOW: u32 = 1 << 15;
    pub const BLOCKING: u32 = 1 << 16;
    pub const DANGEROUS: u32 = 1 << 17;
    pub const CONNECTION: u32 = 1 << 18;
    pub const TRANSACTION: u32 = 1 << 19;
    pub const SCRIPTING: u32 = 1 << 20;
    pub const BLOOM: u32 = 1 << 21;
    pub const CUCKOO: u32 = 1 << 22;
    pub const CMS: u32 = 1 << 23;
    pub const TOPK: u32 = 1 << 24;
    pub const TDIGEST: u32 = 1 << 25;
    pub const SEARCH: u32 = 1 << 26;
    pub const TIMESERIES: u32 = 1 << 27;
    pub const JSON: u32 = 1 << 28;
}

/// Their names in the order of the bits, which is the servers' order; those of modules come last.
pub const CATEGORIES: [&str; 29] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
    "bloom",
    "cuckoo",
    "cms",
    "topk",
    "tdigest",
    "search",
    "timeseries",
    "json",
];

/// The bit of the category of that name, ignoring ASCII case.
pub fn category_named(name: &[u8]) -> Option<u32> {
    let place = CATEGORIES
        .iter()
        .position(|known| known.as_bytes().eq_ignore_ascii_case(name))?;
    Some(1 << place)
}

/// What a command does to a key, as bits of `KeySpec::needs`.
pub mod needs {
    /// Its value is told, or goes elsewhere.
    pub const READ: u8 = 1;
    /// It changes.
    pub const WRITE: u8 = 1 << 1;
}

/// Whether a command's arguments say that it does less to its keys than its key specifications tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Varies {
    /// They do not.
    Never,
    /// Nothing is read unless one of these words is there.
    ReadsWith {
        /// Upper case.
        words: &'static [&'static [u8]],
        /// The first argument that may be one.
        from: u16,
        /// While there are only these, upper case and how many values follow each, the key is replaced, whatever it was.
        plain: &'static [(&'static [u8], u8)],
    },
    /// Nothing is written while there are only these words.
    OnlyReads {
        /// Upper case, and how many values follow each.
        options: &'static [(&'static [u8], u8)],
        /// The first argument that may be one.
        from: u16,
    },
}

impl Varies {
    /// The needs that these arguments rule out.
    fn spared(self, args: &[Arg], data: &[u8]) -> u8 {
        let is = |at: usize, word: &[u8]| args[at].of(data).eq_ignore_ascii_case(word);
        match self {
            Self::Never => 0,
            Self::ReadsWith { words, from, .. } => {
                let reads =
                    (from as usize..args.len()).any(|at| words.iter().any(|&word| is(at, word)));
                if reads {
                    0
                } else {
                    needs::READ
                }
            }
            Self::OnlyReads { options, from } if has_only(options, from, args, data) => {
                needs::WRITE
            }
            Self::OnlyReads { .. } => 0,
        }
    }

    /// Whether these arguments say that the key is replaced, whatever it was.
    pub fn overwrites(self, args: &[Arg], data: &[u8]) -> bool {
        match self {
            Self::ReadsWith { from, plain, .. } => has_only(plain, from, args, data),
            Self::Never | Self::OnlyReads { .. } => false,
        }
    }
}

/// Whether the arguments from one on are these options with their values and nothing else.
fn has_only(options: &[(&[u8], u8)], from: u16, args: &[Arg], data: &[u8]) -> bool {
    let mut at = from as usize;
    while let Some(arg) = args.get(at) {
        let word = arg.of(data);
        let known = options
            .iter()
            .find(|(option, _)| word.eq_ignore_ascii_case(option));
        let Some((_, values)) = known else {
            return false;
        };
        at += 1 + *values as usize;
    }
    // Beyond the end the last word lacks values: the server will say so.
    at <= args.len()
}

/// Puts the request's keys into `out` (which is emptied first): the position of each, and what is needed for it. As
/// `command::keys`, apart from that a request may have none.
pub fn needed_keys(
    spec: &CommandSpec,
    args: &[Arg],
    data: &[u8],
    out: &mut Vec<(u32, u8)>,
) -> Result<(), KeyError> {
    out.clear();
    let spared = spec.varies.spared(args, data);
    let mut found = Vec::new();
    for key_spec in spec.keys {
        found.clear();
        keys_of(spec, key_spec, args, data, &mut found)?;
        out.extend(found.iter().map(|&at| (at, key_spec.needs & !spared)));
    }
    Ok(())
}
