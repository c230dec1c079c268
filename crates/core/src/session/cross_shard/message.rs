//! What proxies tell each other about operations across shards, over the Pub/Sub of the shards that are concerned.
//!
//! Owns: `Message`, its bytes, and the names of the channels.
//!
//! Flow: a shard's script publishes `Fence` and `Released` on `CONTROL`, to all members of that shard; members answer on
//! the coordinator's own channel (`own_channel`). A message speaks of the shard it is heard from, and of no other.
//!
//! Must stay true: losing or doubling a message costs time, never safety, and so does inventing one, but for `Fenced`, which the
//! coordinator has to believe: clients may not publish here. Whoever hears another asks the records before it does what cannot
//! be taken back. Any bytes may be in a key. What is malformed is `None`, and is ignored.
//! Rejected: connections between proxies: they would need addresses, and would not hear when a shard cannot be reached.

use crate::limits::REQUEST_ARGS_MAX;
use crate::protocol::encode;
use crate::session::cross_shard::call::{Mode, Pid, Scope, Tx};
use crate::session::cross_shard::elements::Elements;
use std::sync::Arc;

/// All members of a shard listen here.
pub const CONTROL: &[u8] = b"__shoal:ctl";

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// From a shard: an operation claims keys of it.
    Fence {
        /// Whose.
        tx: Tx,
        /// Who wants to hear `Fenced`.
        coordinator: Pid,
        /// Name of the home shard.
        home: Arc<str>,
        /// Names of the others.
        participants: Vec<Arc<str>>,
        /// How much is claimed.
        scope: Scope,
        /// What is claimed.
        keys: Vec<(Arc<[u8]>, Mode)>,
    },
    /// To the coordinator: a member has nothing under way any more that the claim forbids, and sends nothing new.
    Fenced {
        /// Whose.
        tx: Tx,
        /// The member.
        pid: Pid,
    },
    /// From a shard: what was claimed of it is free.
    Released {
        /// Whose.
        tx: Tx,
    },
    /// To the coordinator: is it still at work?
    Ask {
        /// Whose.
        tx: Tx,
    },
    /// To all: it is.
    Alive {
        /// Whose.
        tx: Tx,
    },
}

/// Where one member is spoken to.
pub fn own_channel(pid: &Pid) -> Vec<u8> {
    [b"__shoal:c:", pid.0.as_bytes()].concat()
}

/// The letter of a mode.
pub(crate) fn letter(mode: Mode) -> &'static [u8] {
    match mode {
        Mode::Shared => b"S",
        Mode::Exclusive => b"X",
    }
}

/// A mode by its letter.
pub(crate) fn mode(letter: &[u8]) -> Option<Mode> {
    match letter {
        b"S" => Some(Mode::Shared),
        b"X" => Some(Mode::Exclusive),
        _ => None,
    }
}

/// The word of a scope.
pub(crate) fn word(scope: Scope) -> &'static [u8] {
    match scope {
        Scope::Keys => b"k",
        Scope::All => b"a",
    }
}

impl Message {
    /// What is published.
    pub fn encode(&self) -> Vec<u8> {
        let mut words: Vec<&[u8]> = Vec::new();
        let count;
        match self {
            Self::Fence {
                tx,
                coordinator,
                home,
                participants,
                scope,
                keys,
            } => {
                count = participants.len().to_string();
                words.extend([b"fence", tx.0.as_bytes(), coordinator.0.as_bytes()]);
                words.extend([home.as_bytes(), word(*scope), count.as_bytes()]);
                words.extend(participants.iter().map(|name| name.as_bytes()));
                for (key, mode) in keys {
                    words.extend([letter(*mode), key]);
                }
            }
            Self::Fenced { tx, pid } => {
                words.extend([b"fenced", tx.0.as_bytes(), pid.0.as_bytes()]);
            }
            Self::Released { tx } => words.extend([b"released", tx.0.as_bytes()]),
            Self::Ask { tx } => words.extend([b"ask".as_slice(), tx.0.as_bytes()]),
            Self::Alive { tx } => words.extend([b"alive", tx.0.as_bytes()]),
        }
        let mut out = Vec::new();
        encode::request(&mut out, &words);
        out
    }

    /// What was published; None, if it is no message of this version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut whole = Elements::new(bytes);
        let (count, mut words) = whole.array().filter(|_| whole.is_at_end())?;
        if count > REQUEST_ARGS_MAX {
            return None;
        }
        let kind = words.text()?;
        let tx = Tx(name(&mut words)?);
        let message = match kind {
            b"fence" => fence(tx, &mut words)?,
            b"fenced" => Self::Fenced {
                tx,
                pid: Pid(name(&mut words)?),
            },
            b"released" => Self::Released { tx },
            b"ask" => Self::Ask { tx },
            b"alive" => Self::Alive { tx },
            _ => return None,
        };
        words.is_at_end().then_some(message)
    }
}

fn fence(tx: Tx, words: &mut Elements) -> Option<Message> {
    let coordinator = Pid(name(words)?);
    let home = name(words)?;
    let scope = match words.text()? {
        b"k" => Scope::Keys,
        b"a" => Scope::All,
        _ => return None,
    };
    let count: usize = std::str::from_utf8(words.text()?).ok()?.parse().ok()?;
    // A count that lies meets the end of the words.
    let mut participants = Vec::new();
    for _ in 0..count {
        participants.push(name(words)?);
    }
    let mut keys = Vec::new();
    while !words.is_at_end() {
        let mode = mode(words.text()?)?;
        keys.push((Arc::from(words.text()?), mode));
    }
    Some(Message::Fence {
        tx,
        coordinator,
        home,
        participants,
        scope,
        keys,
    })
}

/// The next word, where only readable text can stand.
pub(crate) fn name(words: &mut Elements) -> Option<Arc<str>> {
    std::str::from_utf8(words.text()?).ok().map(Arc::from)
}
