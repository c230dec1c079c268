//! Waiting for keys on several shards, without taking before it is this client's turn to take.
//!
//! Owns: `Wait`, what a client that waits so has in hand, and its steps.
//!
//! Flow: `Taking` (the command's form that does not wait, key after key in the request's order; all shards at once for
//! streams) -> nothing: `Watching` (on a connection of the client's own to each shard, with tracking on, a read of its keys:
//! from then on the shard tells when one changes) -> `Taking` again, unless the keys do not exist -> `Resting` until a shard
//! tells, the time is over, or CLIENT UNBLOCK -> `Watching` ...
//!
//! Must stay true: keys are watched before they are looked at, so nothing that is added is missed; an element is taken by one
//! request to one shard, so it is taken once; a step that was sent is always waited for, whatever ends the wait.
//! Rejected: moving a list onto itself (there is no such thing for sorted sets and streams, and it writes);
//! keyspace events (servers have to be configured for them); the blocking command on each shard (two could give).

use crate::error::ClientError;
use crate::protocol::command::{CommandSpec, Find, Undo};
use crate::protocol::encode::{self, Proto};
use crate::protocol::errand;
use crate::routing::merge::{counted_header, first_error, unexpected};
use crate::routing::route::{Request, Scratch};
use crate::session::backend::{Waiter, LANES, NONE};
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use crate::session::own_links::Purpose;
use crate::session::put_back::undo_of;
use crate::session::streams::{merge_streams, StreamRead};

/// What is asked of one shard, to take.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub shard: usize,
    pub key: Vec<u8>,
    pub request: Vec<u8>,
}

/// One shard that tells when a key of the request changes.
#[derive(Debug, Clone)]
struct Watch {
    shard: usize,
    /// A read of the keys.
    request: Vec<u8>,
    link: u32,
    /// Its keys have changed since they were last read there.
    is_stale: bool,
}

/// See the head of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Streams: which entry is the last one now.
    Resolving,
    /// The step of this number, or all of a stream's.
    Taking(usize),
    Watching,
    Resting,
}

/// A step that takes and has no answer yet.
pub(crate) struct Taking {
    pub link: u32,
    pub number: u32,
    pub undo: Undo,
    pub key: Vec<u8>,
}

/// What a client has in hand that waits for keys on several shards.
#[derive(Debug, Clone)]
pub struct Wait {
    number: u32,
    deadline_ms: Option<u64>,
    stage: Stage,
    steps: Vec<Step>,
    watches: Vec<Watch>,
    streams: Option<StreamRead>,
    /// How what a step takes would be put back.
    undo: Undo,
    /// On which link the last step of that kind was sent.
    taking_on: u32,
    /// It is to end when nothing was found: with this error, or as at its time-out.
    ending: Option<Option<&'static str>>,
}

impl Wait {
    fn is_late(&self, now_ms: u64) -> bool {
        self.deadline_ms.is_some_and(|deadline| deadline <= now_ms)
    }

    /// What may be taken at this moment.
    pub(crate) fn taking(&self) -> Option<Taking> {
        match (self.stage, &self.streams) {
            (Stage::Taking(at), None) => Some(Taking {
                link: self.taking_on,
                number: self.number,
                undo: self.undo,
                key: self.steps.get(at)?.key.clone(),
            }),
            _ => None,
        }
    }
}

impl Engine {
    /// Lists and sorted sets.
    pub(crate) fn wait_for_elements(
        &mut self,
        asker: &Asker,
        spec: &CommandSpec,
        scratch: &Scratch,
        request: &Request<'_>,
    ) {
        let is_counted = matches!(
            spec.keys.first().map(|keys| keys.find),
            Some(Find::Count { .. })
        );
        let last = request.args.len() - 1;
        let timeout = request.arg(if is_counted { 1 } else { last });
        let timeout_ms = match timeout_ms(timeout) {
            Ok(timeout_ms) => timeout_ms,
            Err(error) => return self.answer_error(asker, &error),
        };
        // The form that does not wait has the same name without its first letter.
        let name = spec.name.as_bytes().get(1..).unwrap_or_default();
        let behind = scratch.keys.last().map_or(last, |&key| key as usize + 1);
        let mut steps = Vec::with_capacity(scratch.keys.len());
        for (&key, &shard) in scratch.keys.iter().zip(&scratch.shards) {
            let key = request.arg(key as usize);
            let mut words = vec![name, key];
            if is_counted {
                words.insert(1, b"1");
                words.extend((behind..=last).map(|index| request.arg(index)));
            }
            let mut bytes = Vec::new();
            encode::request(&mut bytes, &words);
            steps.push(Step {
                shard: self.shard_number(asker, shard),
                key: key.to_vec(),
                request: bytes,
            });
        }
        let undo = undo_of(spec, request, scratch);
        self.begin_wait(asker, scratch, request, timeout_ms, Err((steps, undo)));
    }

    /// Streams.
    pub(crate) fn wait_for_streams(
        &mut self,
        asker: &Asker,
        scratch: &Scratch,
        request: &Request<'_>,
    ) {
        let first = self.topology.keyspaces[asker.keyspace].first_shard;
        let read = StreamRead::new(request, scratch, first);
        match read.block_ms() {
            Ok(timeout_ms) => self.begin_wait(asker, scratch, request, timeout_ms, Ok(read)),
            Err(error) => self.answer_error(asker, &error),
        }
    }

    fn begin_wait(
        &mut self,
        asker: &Asker,
        scratch: &Scratch,
        request: &Request<'_>,
        timeout_ms: u64,
        what: Result<StreamRead, (Vec<Step>, Undo)>,
    ) {
        let mut shards: Vec<(usize, Vec<&[u8]>)> = Vec::new();
        for (&key, &shard) in scratch.keys.iter().zip(&scratch.shards) {
            let (shard, key) = (self.shard_number(asker, shard), request.arg(key as usize));
            match shards.iter_mut().find(|(known, _)| *known == shard) {
                Some((_, keys)) => keys.push(key),
                None => shards.push((shard, vec![key])),
            }
        }
        let watches = shards.into_iter().map(|(shard, keys)| Watch {
            shard,
            request: errand::watch(&keys),
            link: NONE,
            is_stale: true,
        });
        let watches = watches.collect();
        let no_undo = Undo::Nothing;
        let (stage, steps, streams, undo) = match what {
            Err((steps, undo)) => (Stage::Taking(0), steps, None, undo),
            Ok(read) if read.last_ids().is_empty() => {
                (Stage::Taking(0), read.steps(), Some(read), no_undo)
            }
            Ok(read) => (Stage::Resolving, Vec::new(), Some(read), no_undo),
        };
        self.begin_block(asker.slot);
        let number = self.reserve_gather(asker, Gather::new(GatherKind::Wait, 0));
        let wait = Box::new(Wait {
            number,
            deadline_ms: (timeout_ms > 0).then(|| self.now_ms.saturating_add(timeout_ms)),
            stage,
            steps,
            watches,
            streams,
            undo,
            taking_on: NONE,
            ending: None,
        });
        self.go_on(asker, wait);
    }

    /// Sends what the stage wants.
    fn go_on(&mut self, asker: &Asker, mut wait: Box<Wait>) {
        let mut parts: Vec<(usize, u32, Vec<u8>)> = Vec::new();
        match wait.stage {
            Stage::Resting => {}
            Stage::Resolving => {
                let read = wait.streams.iter();
                parts.extend(
                    read.flat_map(|read| read.last_ids())
                        .map(|(shard, bytes)| (shard, NONE, bytes)),
                );
            }
            Stage::Taking(at) => {
                let count = if wait.streams.is_some() {
                    wait.steps.len()
                } else {
                    1
                };
                let steps = wait.steps.iter().skip(at).take(count);
                parts.extend(steps.map(|step| (step.shard, NONE, step.request.clone())));
            }
            Stage::Watching => {
                if let Err(error) = self.open_watches(asker, &mut wait, &mut parts) {
                    self.close_watches(&wait);
                    let mut line = Vec::new();
                    self.write_error(asker.keyspace, &error, &mut line);
                    return self.finish_wait(asker.slot, wait.number, line);
                }
                for watch in wait.watches.iter_mut().filter(|watch| watch.is_stale) {
                    watch.is_stale = false;
                    parts.push((watch.shard, watch.link, watch.request.clone()));
                }
            }
        }
        let (number, is_resting) = (wait.number, wait.stage == Stage::Resting);
        let Some(client) = self.clients.get_mut(asker.slot) else {
            return;
        };
        client.particulars().wait = Some(wait);
        let kind = GatherKind::Wait;
        client
            .replies
            .put_gather(number, Gather::new(kind, parts.len()));
        if is_resting {
            self.waiting.push((asker.slot, asker.generation));
            return;
        }
        for (part, (shard, own, bytes)) in parts.into_iter().enumerate() {
            let link = if own == NONE {
                self.link_for(shard, asker.lane)
            } else {
                Ok(own)
            };
            match link {
                Ok(link) => {
                    if let Some(wait) = self.wait_of(asker.slot) {
                        wait.taking_on = link;
                    }
                    self.send(link, &bytes);
                    self.sent(asker, link, number, part as u16, Waiter::Part);
                }
                Err(error) => self.part_failed(asker, number, part as u16, &error),
            }
        }
    }

    /// A connection to each shard that has none yet; it is told to tell.
    fn open_watches(
        &mut self,
        asker: &Asker,
        wait: &mut Wait,
        parts: &mut Vec<(usize, u32, Vec<u8>)>,
    ) -> Result<(), ClientError> {
        let lane = (asker.lane % LANES) | 1;
        for watch in &mut wait.watches {
            if watch.link == NONE {
                watch.link = self.open_own(asker.slot, watch.shard, lane, Purpose::Wake)?;
                watch.is_stale = true;
                parts.push((watch.shard, watch.link, errand::TELL.to_vec()));
            }
        }
        Ok(())
    }

    fn close_watches(&mut self, wait: &Wait) {
        for watch in wait.watches.iter().filter(|watch| watch.link != NONE) {
            self.give_back(watch.link, false);
        }
    }

    fn wait_of(&mut self, slot: u32) -> Option<&mut Wait> {
        let particulars = self.clients.get_mut(slot)?.particulars.as_deref_mut()?;
        particulars.wait.as_deref_mut()
    }

    pub(crate) fn take_wait(&mut self, slot: u32) -> Option<Box<Wait>> {
        let particulars = self.clients.get_mut(slot)?.particulars.as_deref_mut()?;
        particulars.wait.take()
    }

    pub(crate) fn is_waiting_for_several(&mut self, slot: u32) -> bool {
        self.wait_of(slot).is_some()
    }

    /// Every answer to a step is there. True when a further step was sent.
    pub(crate) fn waited(
        &mut self,
        asker: &Asker,
        parts: &[&[u8]],
        proto: Proto,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(mut wait) = self.take_wait(asker.slot) else {
            unexpected(out, "nobody waits");
            return false;
        };
        if let Some(error) = first_error(parts) {
            out.extend_from_slice(error);
            self.close_watches(&wait);
            return false;
        }
        let mut is_over = wait.is_late(self.now_ms) || wait.ending.is_some();
        let next = match (wait.stage, &mut wait.streams) {
            (Stage::Resolving, Some(read)) => {
                read.resolve(parts);
                wait.steps = read.steps();
                is_over = false;
                Stage::Taking(0)
            }
            (Stage::Taking(_), Some(read)) => {
                if merge_streams(parts, &read.keys, proto, out) {
                    self.close_watches(&wait);
                    return false;
                }
                after_taking(&wait)
            }
            (Stage::Taking(at), None) => {
                let step = wait.steps.get(at);
                if step.is_some_and(|step| write_taken(&step.key, parts[0], out)) {
                    self.close_watches(&wait);
                    return false;
                }
                if at + 1 < wait.steps.len() {
                    is_over = false;
                    Stage::Taking(at + 1)
                } else {
                    after_taking(&wait)
                }
            }
            (Stage::Watching | Stage::Resting | Stage::Resolving, streams) => {
                let is_absent = streams.is_none()
                    && parts
                        .iter()
                        .all(|part| matches!(*part, b":0\r\n" | b"+OK\r\n"));
                if !is_absent {
                    is_over = false;
                    Stage::Taking(0)
                } else {
                    after_taking(&wait)
                }
            }
        };
        if is_over {
            match wait.ending.flatten() {
                Some(error) => encode::error(out, error),
                None => encode::null_array(out, proto),
            }
            self.close_watches(&wait);
            return false;
        }
        wait.stage = next;
        self.go_on(asker, wait);
        true
    }

    /// A shard tells that a key has changed.
    pub(crate) fn woken(&mut self, link: u32, slot: u32, generation: u32) {
        if self.clients.get_same(slot, generation).is_none() {
            return;
        }
        let Some(wait) = self.wait_of(slot) else {
            return;
        };
        for watch in wait.watches.iter_mut().filter(|watch| watch.link == link) {
            watch.is_stale = true;
        }
        if wait.stage == Stage::Resting {
            self.wake(slot);
        }
    }

    fn wake(&mut self, slot: u32) {
        let (Some(mut wait), Some(client)) = (self.take_wait(slot), self.clients.get(slot)) else {
            return;
        };
        let asker = Asker {
            slot,
            generation: self.clients.generation(slot),
            keyspace: client.keyspace as usize,
            lane: client.lane(),
            mute: false,
        };
        wait.stage = Stage::Watching;
        self.go_on(&asker, wait);
    }

    /// Ends a wait when nothing of it is in flight: at once, or after the step.
    pub(crate) fn end_wait(&mut self, slot: u32, error: Option<&'static str>) {
        let Some(wait) = self.wait_of(slot) else {
            return;
        };
        if wait.stage != Stage::Resting {
            wait.ending = Some(error);
            return;
        }
        let (Some(wait), Some(client)) = (self.take_wait(slot), self.clients.get(slot)) else {
            return;
        };
        let mut line = Vec::new();
        match error {
            Some(error) => encode::error(&mut line, error),
            None => encode::null_array(&mut line, client.proto),
        }
        self.close_watches(&wait);
        self.finish_wait(slot, wait.number, line);
    }

    fn finish_wait(&mut self, slot: u32, number: u32, line: Vec<u8>) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        client.replies.take_gather(number);
        client.replies.complete(number, line);
        self.touch_client(slot);
        self.settle_client(slot);
    }

    /// The connection on which a client waits is gone. What was in flight on it gets its error as everywhere.
    pub(crate) fn wait_lost(&mut self, slot: u32, shard: usize, id: u32) {
        let Some(wait) = self.wait_of(slot) else {
            return;
        };
        for watch in wait.watches.iter_mut().filter(|watch| watch.link == id) {
            watch.link = NONE;
            watch.is_stale = true;
        }
        if wait.stage != Stage::Resting {
            return;
        }
        let Some(wait) = self.take_wait(slot) else {
            return;
        };
        let error = ClientError::WaitLost {
            shard: self.shard_name(shard),
            endpoint: self.endpoint(shard).to_string(),
        };
        let mut line = Vec::new();
        self.write_error(self.backends[shard].keyspace, &error, &mut line);
        self.close_watches(&wait);
        self.finish_wait(slot, wait.number, line);
    }

    /// Waits whose time is over.
    pub(crate) fn look_at_waits(&mut self) {
        self.waiting.sort_unstable();
        self.waiting.dedup();
        for (slot, generation) in std::mem::take(&mut self.waiting) {
            if self.clients.get_same(slot, generation).is_none() {
                continue;
            }
            let now_ms = self.now_ms;
            let Some(wait) = self.wait_of(slot) else {
                continue;
            };
            let is_late = wait.deadline_ms.is_some_and(|deadline| deadline <= now_ms);
            if is_late && wait.stage == Stage::Resting {
                self.end_wait(slot, None);
            } else {
                self.waiting.push((slot, generation));
            }
        }
    }
}

/// Nothing was found: rests if every change since is known.
fn after_taking(wait: &Wait) -> Stage {
    if wait.watches.iter().any(|watch| watch.is_stale) {
        Stage::Watching
    } else {
        Stage::Resting
    }
}

/// What one key gave, as the waiting command says it; false for nothing.
pub(crate) fn write_taken(key: &[u8], reply: &[u8], out: &mut Vec<u8>) -> bool {
    if matches!(reply, b"$-1\r\n" | b"*-1\r\n" | b"_\r\n" | b"*0\r\n") {
        return false;
    }
    match (reply.first(), counted_header(reply)) {
        (Some(b'$'), _) => {
            encode::array(out, 2);
            encode::bulk(out, key);
            out.extend_from_slice(reply);
        }
        // The key, and whatever it gave.
        (Some(b'*'), Some((2, _))) if names(reply, key) => out.extend_from_slice(reply),
        (Some(b'*'), Some((count, body))) => {
            encode::array(out, count + 1);
            encode::bulk(out, key);
            out.extend_from_slice(&reply[body..]);
        }
        _ => unexpected(out, "something else where an element belongs"),
    }
    true
}

/// An array of the key and an array: of the forms that can take several, each reply names its key.
fn names(reply: &[u8], key: &[u8]) -> bool {
    let mut head = Vec::new();
    encode::array(&mut head, 2);
    encode::bulk(&mut head, key);
    head.push(b'*');
    reply.starts_with(&head)
}

/// Seconds, as servers read them.
fn timeout_ms(text: &[u8]) -> Result<u64, ClientError> {
    let not_a_float = ClientError::Words("ERR timeout is not a float or out of range");
    let seconds = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<f64>().ok())
        .filter(|seconds| !seconds.is_nan());
    let Some(seconds) = seconds else {
        return Err(not_a_float);
    };
    if seconds < 0.0 {
        return Err(ClientError::Words("ERR timeout is negative"));
    }
    let ms = (seconds * 1000.0).ceil();
    if ms >= i64::MAX as f64 {
        return Err(ClientError::Words("ERR timeout is out of range"));
    }
    Ok(ms as u64)
}
