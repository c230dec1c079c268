//! Reading streams of several shards with one request.
//!
//! Owns: `StreamRead` (such a request, taken apart), its fragments, and the merging of their replies.
//!
//! Must stay true: streams come in the order of the request's keys, as from one server; a fragment has the options of the
//! request but BLOCK; an ID that means "what is there now" is made a number once, before the client waits.
//! Rejected: the order in which shards answer: programs read the first stream first.

use crate::error::ClientError;
use crate::protocol::encode::{self, Proto};
use crate::protocol::errand;
use crate::protocol::request::strict_integer;
use crate::routing::merge::{counted_header, element_len, first_error, unexpected};
use crate::routing::route::{block_value, Request, Scratch};
use crate::session::backend::Waiter;
use crate::session::blocking_wait::Step;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use crate::session::stats::{PerKeyspace, PerShard};

/// A read of streams, taken apart.
#[derive(Debug, Clone)]
pub struct StreamRead {
    /// What stands before the keys, but BLOCK.
    head: Vec<Vec<u8>>,
    /// The keys in their order.
    pub keys: Vec<Vec<u8>>,
    ids: Vec<Vec<u8>>,
    /// Of each key, numbered through the topology.
    shards: Vec<usize>,
    block: Option<Vec<u8>>,
}

impl StreamRead {
    /// `first_shard`: of the keyspace.
    pub fn new(request: &Request<'_>, scratch: &Scratch, first_shard: usize) -> Self {
        let keys: Vec<usize> = scratch.keys.iter().map(|&key| key as usize).collect();
        let first = keys.first().copied().unwrap_or(0);
        let block = block_value(request);
        let without = |index: &usize| block.is_none_or(|at| *index != at && *index + 1 != at);
        Self {
            head: (0..first)
                .filter(without)
                .map(|index| request.arg(index).to_vec())
                .collect(),
            ids: keys
                .iter()
                .map(|key| request.arg(key + keys.len()).to_vec())
                .collect(),
            keys: keys.iter().map(|&key| request.arg(key).to_vec()).collect(),
            shards: scratch
                .shards
                .iter()
                .map(|&shard| first_shard + shard as usize)
                .collect(),
            block: block.map(|at| request.arg(at).to_vec()),
        }
    }

    /// How long it waits; 0: for ever.
    pub fn block_ms(&self) -> Result<u64, ClientError> {
        let text = self.block.as_deref().unwrap_or(b"0");
        match strict_integer(text) {
            Some(number) => {
                u64::try_from(number).map_err(|_| ClientError::Words("ERR timeout is negative"))
            }
            None => Err(ClientError::Words(
                "ERR timeout is not an integer or out of range",
            )),
        }
    }

    /// One request for each shard.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut shards: Vec<usize> = Vec::new();
        for &shard in &self.shards {
            if !shards.contains(&shard) {
                shards.push(shard);
            }
        }
        let step = |shard: usize| {
            let here = |index: &usize| self.shards[*index] == shard;
            let indexes: Vec<usize> = (0..self.keys.len()).filter(here).collect();
            let mut words: Vec<&[u8]> = self.head.iter().map(Vec::as_slice).collect();
            words.extend(indexes.iter().map(|&index| self.keys[index].as_slice()));
            words.extend(indexes.iter().map(|&index| self.ids[index].as_slice()));
            let mut request = Vec::new();
            encode::request(&mut request, &words);
            Step {
                shard,
                key: Vec::new(),
                request,
            }
        };
        shards.into_iter().map(step).collect()
    }

    /// Questions for the last entry of each stream of which only what comes later is wanted.
    pub(crate) fn last_ids(&self) -> Vec<(usize, Vec<u8>)> {
        let asked = (0..self.keys.len()).filter(|&index| self.ids[index] == b"$");
        asked
            .map(|index| (self.shards[index], errand::last_entry(&self.keys[index])))
            .collect()
    }

    /// The answers to `last_ids`.
    pub fn resolve(&mut self, parts: &[&[u8]]) {
        let mut parts = parts.iter();
        for id in self.ids.iter_mut().filter(|id| id.as_slice() == b"$") {
            let last = parts.next().and_then(|part| last_id(part));
            *id = last.unwrap_or_else(|| b"0-0".to_vec());
        }
    }
}

/// The ID of the one entry in a range; None for none.
fn last_id(range: &[u8]) -> Option<Vec<u8>> {
    let (1, entries) = counted_header(range)? else {
        return None;
    };
    let (_, entry) = counted_header(range.get(entries..)?)?;
    let text = range.get(entries + entry..)?;
    let (length, body) = counted_header(text)?;
    text.get(body..body + length).map(<[u8]>::to_vec)
}

/// Writes the streams of all parts in the order of `keys`; false when there are none, and nothing is written then.
pub fn merge_streams(parts: &[&[u8]], keys: &[Vec<u8>], proto: Proto, out: &mut Vec<u8>) -> bool {
    let mut found: Vec<(&[u8], &[u8])> = Vec::new();
    for part in parts {
        if matches!(
            *part,
            b"*-1\r\n" | b"_\r\n" | b"$-1\r\n" | b"*0\r\n" | b"%0\r\n"
        ) {
            continue;
        }
        if streams_of(part, proto, &mut found).is_none() {
            unexpected(out, "something else where streams belong");
            return true;
        }
    }
    if found.is_empty() {
        return false;
    }
    encode::map_or_array(out, proto, found.len());
    // A key may be given twice, and is answered twice.
    let mut is_written = vec![false; found.len()];
    for key in keys {
        let mut name = Vec::new();
        encode::bulk(&mut name, key);
        let next = (0..found.len()).find(|&at| !is_written[at] && found[at].0 == name);
        if let Some(at) = next {
            is_written[at] = true;
            if proto == Proto::Resp2 {
                encode::array(out, 2);
            }
            out.extend_from_slice(found[at].0);
            out.extend_from_slice(found[at].1);
        }
    }
    true
}

/// Names and entries of one shard's reply, as they stand there.
fn streams_of<'p>(
    part: &'p [u8],
    proto: Proto,
    found: &mut Vec<(&'p [u8], &'p [u8])>,
) -> Option<()> {
    let (count, mut at) = counted_header(part)?;
    for _ in 0..count {
        if proto == Proto::Resp2 {
            let (2, header) = counted_header(part.get(at..)?)? else {
                return None;
            };
            at += header;
        }
        let name = part.get(at..at + element_len(part.get(at..)?)?)?;
        at += name.len();
        let entries = part.get(at..at + element_len(part.get(at..)?)?)?;
        at += entries.len();
        found.push((name, entries));
    }
    (at == part.len()).then_some(())
}

impl Engine {
    /// Streams of several shards, without waiting.
    pub(crate) fn read_streams(&mut self, asker: &Asker, request: &Request<'_>) {
        self.stats().keyspace(asker.keyspace, PerKeyspace::Split, 1);
        let first = self.topology.keyspaces[asker.keyspace].first_shard;
        let read = StreamRead::new(request, &self.scratch, first);
        let steps = read.steps();
        let mut links = Vec::with_capacity(steps.len());
        for step in &steps {
            match self.link_of(asker, step.shard) {
                Ok(link) => links.push(link),
                Err(error) => {
                    self.stats().shard(step.shard, PerShard::Failed, 1);
                    return self.answer_error(asker, &error);
                }
            }
        }
        let kind = GatherKind::Streams { keys: read.keys };
        let number = self.reserve_gather(asker, Gather::new(kind, steps.len()));
        for (part, (step, link)) in steps.iter().zip(links).enumerate() {
            self.say_caching(asker, link);
            self.send(link, &step.request);
            self.sent(asker, link, number, part as u16, Waiter::Part);
        }
    }

    /// The one reply to `read_streams`.
    pub(crate) fn compose_streams(
        parts: &[&[u8]],
        keys: &[Vec<u8>],
        proto: Proto,
        out: &mut Vec<u8>,
    ) {
        if let Some(error) = first_error(parts) {
            out.extend_from_slice(error);
        } else if !merge_streams(parts, keys, proto, out) {
            encode::null_array(out, proto);
        }
    }
}
