//! What concerns all keys of a shard, where some of them are shoal's own records.
//!
//! Owns: the requests that shards are sent in place of a client's (`Engine::recast`), and the taking of our names out of replies.
//!
//! Flow: `Route::AllKeys` -> a keyspace without operations across shards: the request goes to every shard as it is. Else a count, a
//! random key and a flush go as scripts (`lua/`), so that what they leave out is left out in the same atomic step; the names of
//! KEYS and SCAN are taken out of the replies here. A flush of several shards is one
//! operation across them, with a claim on every key of each.
//!
//! Must stay true: no client sees a name that begins as ours do, or counts one; a flush leaves a shard's members registered,
//! and none is done while an operation has records there: what it has decided is in them.
//! Rejected: a script for KEYS everywhere: a shard would hold all names twice, and be busy for longer.

use crate::error::ClientError;
use crate::limits::CROSS_SHARD_SHARDS_MAX;
use crate::protocol::command::{AllKeys, Merge};
use crate::protocol::encode::{self, Proto};
use crate::protocol::errand;
use crate::routing::merge::{counted_header, element_len, merge};
use crate::routing::placement::RESERVED;
use crate::routing::route::Request;
use crate::routing::topology::Shard;
use crate::session::backend::{lane, lane_parts, LANES};
use crate::session::cross_shard::call::{Redo, Scope};
use crate::session::cross_shard::elements;
use crate::session::cross_shard::jobs::Job;
use crate::session::cross_shard::steps::Part;
use crate::session::cross_shard::wire::script;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use crate::session::stats::PerShard;
use std::sync::LazyLock;

script!(COUNT, "own", "count");
script!(RECORDS, "own", "records");
script!(ANY, "own", "any");
script!(FLUSH, "empty", "flush");

/// A flush as it is kept in records; None: a server would not take its words.
fn redo_of(request: &Request<'_>) -> Option<Redo> {
    let how = request.arg(1);
    let is_known = errand::EMPTYING
        .iter()
        .any(|known| how.eq_ignore_ascii_case(known));
    let fits = request.args.len() == 1 || (request.args.len() == 2 && is_known);
    let words = [request.arg(0), how].join(&b' ');
    let words = std::str::from_utf8(&words).ok().filter(|_| fits)?;
    Some(Redo(words.trim_end().into()))
}

/// How many records of ours a shard has, in that database.
pub(crate) fn count_records(database: u8) -> Vec<u8> {
    let mut out = Vec::new();
    errand::run_script(&mut out, &RECORDS, &[database.to_string().as_bytes()]);
    out
}

/// A whole array of names without ours; None: there are none of ours in it.
pub(crate) fn without_own(reply: &[u8]) -> Option<Vec<u8>> {
    let (count, body) = counted_header(reply).filter(|_| matches!(reply[0], b'*' | b'~'))?;
    let (left, names) = names_without_own(count, reply.get(body..)?)?;
    let mut out = Vec::with_capacity(names.len() + 16);
    match reply[0] {
        b'~' => encode::set(&mut out, Proto::Resp3, left),
        _ => encode::array(&mut out, left),
    }
    out.extend_from_slice(&names);
    Some(out)
}

/// So many names that stand behind each other, without ours, and how many are left; None: there are none of ours among them.
pub(crate) fn names_without_own(count: usize, names: &[u8]) -> Option<(usize, Vec<u8>)> {
    let mut left = count;
    let mut kept = Vec::new();
    // From here on nothing is kept yet.
    let (mut from, mut at) = (0, 0);
    while let Some(length) = names.get(at..).and_then(element_len) {
        let is_own = elements::text(&names[at..at + length])
            .is_some_and(|name| name.first_chunk() == Some(RESERVED));
        if is_own {
            kept.extend_from_slice(&names[from..at]);
            from = at + length;
            left = left.saturating_sub(1);
        }
        at += length;
    }
    if left == count {
        return None;
    }
    kept.extend_from_slice(&names[from..]);
    Some((left, kept))
}

impl Engine {
    /// What is asked of all keys, or done to them.
    pub(crate) fn all_keys(&mut self, asker: &Asker, what: AllKeys, request: &Request<'_>) {
        let (merge, shards) = (what.merge(), self.shards_in(asker.keyspace));
        if self.topology.keyspaces[asker.keyspace].cross_shard {
            match what {
                AllKeys::Names => return self.send_all(asker, GatherKind::Names, request.data),
                AllKeys::Flush | AllKeys::FlushAll if self.flush(asker, what, request) => return,
                AllKeys::Flush
                | AllKeys::FlushAll
                | AllKeys::Count
                | AllKeys::Any
                | AllKeys::Swap => {}
            }
        }
        let kind = GatherKind::Everywhere { merge, shards };
        match self.recast(asker, what, request) {
            Some(other) => self.send_all(asker, kind, &other),
            None => self.send_all(asker, kind, request.data),
        }
    }

    /// Begins one operation that empties all shards, where that can be; false: each is to be emptied by itself.
    fn flush(&mut self, asker: &Asker, what: AllKeys, request: &Request<'_>) -> bool {
        let space = &self.topology.keyspaces[asker.keyspace];
        let (database, proto) = lane_parts(asker.lane, space.database);
        let Some(redo) = redo_of(request) else {
            self.answer_error(asker, &ClientError::Syntax);
            return true;
        };
        let count = space.shards.len();
        let is_elsewhere = what == AllKeys::Flush && database != space.database;
        let evicts = |shard: usize| self.all_stats[0].of_shard(shard, PerShard::Evicting) > 0;
        if is_elsewhere
            || !(2..=CROSS_SHARD_SHARDS_MAX).contains(&count)
            || self.shards_of(asker.keyspace).any(evicts)
        {
            return false;
        }
        let part = |shard: &Shard| Part {
            shard: shard.name.as_str().into(),
            scope: Scope::All,
            keys: Vec::new(),
        };
        let parts = space.shards.iter().map(part).collect();
        // With all databases the keyspace's own is emptied, and there the records are.
        let own = lane((asker.lane / LANES) as u16, space.database, proto);
        let asker = Asker {
            lane: own,
            ..*asker
        };
        let place = self.reserve_gather(&asker, Gather::new(GatherKind::Operation, 1));
        let shards = (0..count as u16).collect();
        let job = Job {
            redo: Some(redo),
            ..Job::new(asker, place, shards, parts, request.data.into())
        };
        self.start_job(job);
        true
    }

    /// What a shard is sent in place of a request that concerns all keys; None: the request itself.
    fn recast(&self, asker: &Asker, what: AllKeys, request: &Request<'_>) -> Option<Vec<u8>> {
        let space = &self.topology.keyspaces[asker.keyspace];
        if !space.cross_shard {
            return None;
        }
        let (database, _) = lane_parts(asker.lane, space.database);
        let is_elsewhere = database != space.database;
        let own = space.database.to_string();
        let words = (0..request.args.len()).map(|index| request.arg(index));
        let mut out = Vec::new();
        match what {
            AllKeys::Count => errand::run_script(&mut out, &COUNT, &[]),
            AllKeys::Any => errand::run_script(&mut out, &ANY, &[]),
            AllKeys::Flush | AllKeys::FlushAll => {
                // Of another database alone our records are no part; with all of them the own one is emptied, too.
                let home: &[u8] = match what {
                    AllKeys::FlushAll if is_elsewhere => own.as_bytes(),
                    _ => b"",
                };
                let all: Vec<&[u8]> = std::iter::once(home).chain(words).collect();
                errand::run_script(&mut out, &FLUSH, &all);
            }
            // Of a database that has records the last is refused.
            AllKeys::Names | AllKeys::Swap => return None,
        }
        Some(out)
    }

    /// The names of all shards, without ours.
    pub(crate) fn compose_names(parts: &[&[u8]], proto: Proto, out: &mut Vec<u8>) {
        let rewritten: Vec<Option<Vec<u8>>> = parts.iter().map(|part| without_own(part)).collect();
        let parts = parts.iter().zip(&rewritten);
        let parts: Vec<&[u8]> = parts
            .map(|(part, other)| other.as_deref().unwrap_or(part))
            .collect();
        merge(Merge::Concat, &parts, &[], proto, 0, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_names_are_taken_out_and_others_stay_as_they_are() {
        for (reply, expected) in [
            (
                "*3\r\n$1\r\na\r\n$9\r\n__shoal:m\r\n$1\r\nb\r\n",
                Some("*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
            ),
            ("*1\r\n$9\r\n__shoal:m\r\n", Some("*0\r\n")),
            ("~1\r\n$8\r\n__shoal:\r\n", Some("~0\r\n")),
            ("*2\r\n$7\r\n__shoal\r\n$9\r\n_shoal::m\r\n", None),
            ("*1\r\n$16\r\n$9\r\n__shoal:m\r\n\r\n", None),
            ("*0\r\n", None),
            ("-ERR __shoal:\r\n", None),
            ("*-1\r\n", None),
            ("", None),
        ] {
            let found = without_own(reply.as_bytes());
            let found = found.map(|found| String::from_utf8_lossy(&found).into_owned());
            assert_eq!(found.as_deref(), expected, "{reply:?}");
        }
    }

    #[test]
    fn what_is_broken_is_left_to_who_joins_the_replies() {
        let broken = "*3\r\n$9\r\n__shoal:m\r\n$1\r\na\r\n$5\r\nb";
        let found = without_own(broken.as_bytes());
        assert_eq!(
            found.as_deref(),
            Some(&b"*2\r\n$1\r\na\r\n$5\r\nb"[..]),
            "as broken as it was"
        );
    }
}
