//! Who waits for a key of several shards, in the order in which they came.
//!
//! Owns: `Lines`, one line for each key that somebody of this worker waits for, and whose turn it is.
//!
//! Flow: a wait joins the line of each of its keys -> who is first in a line looks at that key, and is told by the shard when it
//! changes; who is not does neither -> when a wait ends, whoever has become first anywhere is called, and looks.
//!
//! Must stay true: whoever is first in a line watches that key or is on its way to; a wait that is over is in no line; being
//! called never happens within another call, however many have to be called one after the other.
//! Rejected: all of them being told: one element woke everybody, each cost some requests, and who got it was chance.

use crate::session::engine::Engine;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Keyspace and database.
pub(crate) type Space = (usize, usize);

/// A client that waits, and its generation.
pub(crate) type Waiting = (u32, u32);

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// By the number with which a wait joined.
    lines: HashMap<(Space, Vec<u8>), BTreeMap<u64, Waiting>>,
    joined: u64,
    /// Those whose turn has come and who do not know it yet, with the key.
    called: VecDeque<(Waiting, Vec<u8>)>,
    is_calling: bool,
}

impl Lines {
    /// Joins the lines of some keys; the number by which it is known there.
    pub(crate) fn join<'k>(
        &mut self,
        space: Space,
        keys: impl Iterator<Item = &'k [u8]>,
        waiting: Waiting,
    ) -> u64 {
        self.joined += 1;
        for key in keys {
            let line = self.lines.entry((space, key.to_vec())).or_default();
            line.insert(self.joined, waiting);
        }
        self.joined
    }

    /// Whether it is first in a key's line.
    pub(crate) fn is_first(&self, space: Space, key: &[u8], number: u64) -> bool {
        let line = self.lines.get(&(space, key.to_vec()));
        let first = line.and_then(BTreeMap::first_key_value);
        first.is_some_and(|(&first, _)| first == number)
    }

    /// Leaves the line of a key; who is first then is to be called.
    fn leave(&mut self, space: Space, key: &[u8], number: u64) {
        let place = (space, key.to_vec());
        let Some(line) = self.lines.get_mut(&place) else {
            return;
        };
        let was_first = line.first_key_value().is_some_and(|(&it, _)| it == number);
        line.remove(&number);
        match line.first_key_value() {
            None => {
                self.lines.remove(&place);
            }
            Some((_, &next)) if was_first => self.called.push_back((next, place.1)),
            Some(_) => {}
        }
    }

    /// Everybody in a line, with its key; for the audit.
    pub(crate) fn everybody(&self) -> impl Iterator<Item = (&[u8], Waiting)> {
        self.lines.iter().flat_map(|((_, key), line)| {
            let key = key.as_slice();
            line.values().map(move |&waiting| (key, waiting))
        })
    }
}

impl Engine {
    /// A wait is over: it leaves its lines, and those whose turn it is now look at their keys.
    pub(crate) fn leave_lines<'k>(
        &mut self,
        space: Space,
        keys: impl Iterator<Item = &'k [u8]>,
        number: u64,
    ) {
        for key in keys {
            self.lines.leave(space, key, number);
        }
        if std::mem::replace(&mut self.lines.is_calling, true) {
            return;
        }
        while let Some(((slot, generation), key)) = self.lines.called.pop_front() {
            self.called(slot, generation, &key);
        }
        self.lines.is_calling = false;
    }
}
