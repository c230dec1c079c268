//! The judge: whether what clients saw can have happened one after the other (Wing and Gong's search, with Lowe's memory).
//!
//! An operation of which nobody knows whether it was done may be put anywhere after its call, or nowhere. One that was said not to
//! have been done is not in the history: if it was done all the same, something will not fit.

use crate::language::{Op, Reply, Store};
use std::collections::HashSet;

const KNOWN_MAX: usize = 20_000;

/// One operation as its client saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub op: Op,
    pub called: u64,
    /// None: it is not known whether it was done.
    pub returned: Option<(u64, Reply)>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct History {
    pub seen: Vec<Seen>,
}

impl History {
    /// Whether there is an order that respects time and gives every reply.
    pub fn is_strictly_serializable(&self) -> bool {
        assert!(self.seen.len() <= 64, "too long for the judge");
        let mut seen = self.seen.clone();
        // Who returned first was probably first: found sooner so.
        seen.sort_by_key(|seen| seen.returned.as_ref().map_or(u64::MAX, |(at, _)| *at));
        let must = seen.iter().take_while(|seen| seen.returned.is_some());
        let must = must.count();
        let mut known = HashSet::new();
        let is_found = search(&seen, must, 0, &Store::new(), &mut known);
        // So many ways were looked at that it is given up: no verdict.
        is_found || known.len() > KNOWN_MAX
    }
}

fn search(
    seen: &[Seen],
    must: usize,
    done: u64,
    store: &Store,
    known: &mut HashSet<(u64, Store)>,
) -> bool {
    let is_open = |index: usize| done & (1 << index) == 0;
    let Some(first) = (0..must).find(|index| is_open(*index)) else {
        return true;
    };
    let before = seen[first].returned.as_ref().map_or(0, |(at, _)| *at);
    for (index, one) in seen.iter().enumerate() {
        if !is_open(index) || one.called > before {
            continue;
        }
        let mut after = store.clone();
        let reply = one.op.run(&mut after);
        if one
            .returned
            .as_ref()
            .is_some_and(|(_, told)| *told != reply)
        {
            continue;
        }
        // An operation that does nothing and that nobody heard of need not be placed.
        if one.returned.is_none() && after == *store {
            continue;
        }
        let done = done | (1 << index);
        if known.len() > KNOWN_MAX {
            return false;
        }
        if known.insert((done, after.clone())) && search(seen, must, done, &after, known) {
            return true;
        }
    }
    false
}
