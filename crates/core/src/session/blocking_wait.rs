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
//! request to one shard, so it is taken once; a step that was sent is always waited for, whatever ends the wait; of those who wait
//! for a key only the first looks at it (`lines`), so that it is served first and one element wakes one client.
//! Rejected: moving a list onto itself (there is no such thing for sorted sets and streams, and it writes);
//! keyspace events (servers have to be configured for them); the blocking command on each shard (two could give).

mod ends;
mod together;

use crate::error::ClientError;
use crate::protocol::command::{CommandSpec, Find, Undo};
use crate::protocol::encode::{self, Proto};
use crate::protocol::errand;
use crate::routing::merge::{first_error, unexpected};
use crate::routing::route::{Request, Scratch};
use crate::session::backend::{Waiter, LANES, NONE};
use crate::session::blocking_wait::together::Together;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use crate::session::lines::Space;
use crate::session::own_links::Purpose;
use crate::session::put_back::undo_of;
use crate::session::streams::{merge_streams, StreamRead};
use crate::session::wait_words::{is_about, timeout_ms, write_taken};

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
    /// How much each key holds.
    Peeking,
    /// The step of this number, or all of a stream's.
    Taking(usize),
    /// An operation across shards over the keys up to that of this number.
    Together(usize),
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

/// Lists and sorted sets: the form that does not wait for each key, how what it takes is put back, and how it is taken together.
type Elements = (Vec<Step>, Undo, Option<Box<Together>>);

/// What a client has in hand that waits for keys on several shards.
#[derive(Debug, Clone)]
pub struct Wait {
    number: u32,
    /// Its number in the lines of its keys, and where those are.
    in_line: u64,
    space: Space,
    deadline_ms: Option<u64>,
    stage: Stage,
    steps: Vec<Step>,
    watches: Vec<Watch>,
    streams: Option<StreamRead>,
    /// It takes as one operation, where it takes from several shards.
    together: Option<Box<Together>>,
    /// How what a step takes would be put back.
    undo: Undo,
    /// On which link the last step of that kind was sent.
    taking_on: u32,
    /// It has looked at its keys once.
    has_looked: bool,
    /// It rests because somebody has the key of its next step.
    is_held: bool,
    /// It is to end when nothing was found: with this error, or as at its time-out.
    ending: Option<Option<&'static str>>,
}

impl Wait {
    /// What it waits for.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let of_streams = self.streams.iter().flat_map(|read| &read.keys);
        let of_streams = of_streams.map(Vec::as_slice);
        of_streams.chain(self.keys_in_line())
    }

    /// The keys for which it stands in line: reading streams takes nothing, so nobody has to wait for others there.
    pub(crate) fn keys_in_line(&self) -> impl Iterator<Item = &[u8]> {
        let steps = self.steps.iter().filter(|_| self.streams.is_none());
        steps.map(|step| step.key.as_slice())
    }

    /// As servers have it: a key of another type is an error for who begins to wait, and of no interest to who waits.
    fn ends_with(&self, error: &[u8]) -> bool {
        let is_passed_over = self.has_looked && self.streams.is_none() && !self.moves();
        let is_other_kind = error.starts_with(b"-WRONGTYPE");
        !(is_other_kind && (is_passed_over || self.is_of_a_look()))
    }

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
        spec: &'static CommandSpec,
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
        // Of what moves something only the first key is waited for.
        let waited = if spec.keys.len() > 1 { 1 } else { steps.len() };
        steps.truncate(waited);
        let undo = undo_of(spec, request, scratch);
        let together = self.takes_together(asker).then(|| {
            Together::new(spec, request, scratch, undo, (waited, is_counted)).map(Box::new)
        });
        let what = Err((steps, undo, together.flatten()));
        self.begin_wait(asker, (scratch, waited), request, timeout_ms, what);
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
            Ok(timeout_ms) => {
                let keys = (scratch, scratch.keys.len());
                self.begin_wait(asker, keys, request, timeout_ms, Ok(read))
            }
            Err(error) => self.answer_error(asker, &error),
        }
    }

    fn begin_wait(
        &mut self,
        asker: &Asker,
        (scratch, waited): (&Scratch, usize),
        request: &Request<'_>,
        timeout_ms: u64,
        what: Result<StreamRead, Elements>,
    ) {
        let mut shards: Vec<(usize, Vec<&[u8]>)> = Vec::new();
        for (&key, &shard) in scratch.keys.iter().zip(&scratch.shards).take(waited) {
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
        let mut together = None;
        let (stage, steps, streams, undo) = match what {
            Err((steps, undo, how)) => {
                together = how;
                (Stage::Taking(0), steps, None, undo)
            }
            Ok(read) if read.last_ids().is_empty() => {
                (Stage::Taking(0), read.steps(), Some(read), no_undo)
            }
            Ok(read) => (Stage::Resolving, Vec::new(), Some(read), no_undo),
        };
        self.begin_block(asker.slot);
        let number = self.reserve_gather(asker, Gather::new(GatherKind::Wait, 0));
        let mut wait = Box::new(Wait {
            number,
            in_line: 0,
            space: (asker.keyspace, asker.lane % LANES / 2),
            deadline_ms: (timeout_ms > 0).then(|| self.now_ms.saturating_add(timeout_ms)),
            stage,
            steps,
            watches,
            streams,
            together,
            undo,
            taking_on: NONE,
            has_looked: false,
            is_held: false,
            ending: None,
        });
        if wait.streams.is_none() {
            let who = (asker.slot, asker.generation);
            wait.in_line = self.lines.join(wait.space, wait.keys_in_line(), who);
            wait.stage = match self.next_step(&wait, 0) {
                Some(_) if wait.looks_first() => Stage::Peeking,
                Some(at) => Stage::Taking(at),
                None => Stage::Resting,
            };
        }
        self.go_on(asker, wait);
    }

    /// The next step, from that one on, for whose key it is this wait's turn.
    fn next_step(&self, wait: &Wait, from: usize) -> Option<usize> {
        let is_its_turn = |at: &usize| {
            let key = &wait.steps[*at].key;
            wait.streams.is_some() || self.lines.is_first(wait.space, key, wait.in_line)
        };
        (from..wait.steps.len()).find(is_its_turn)
    }

    /// Where a wait has its turn for some key. It watches only there.
    fn own_shards(&self, wait: &Wait) -> Vec<usize> {
        let is_stream = wait.streams.is_some();
        let steps = wait
            .steps
            .iter()
            .filter(|step| is_stream || self.lines.is_first(wait.space, &step.key, wait.in_line));
        steps.map(|step| step.shard).collect()
    }

    /// Nothing was found: rests if every change since is known where it has its turn.
    fn after_taking(&self, wait: &mut Wait) -> Stage {
        wait.has_looked = true;
        let own = self.own_shards(wait);
        let mut watches = wait.watches.iter();
        if watches.any(|watch| watch.is_stale && own.contains(&watch.shard)) {
            Stage::Watching
        } else {
            Stage::Resting
        }
    }

    /// It is first in the line of a key now.
    pub(crate) fn called(&mut self, slot: u32, generation: u32, key: &[u8]) {
        if self.clients.get_same(slot, generation).is_none() {
            return;
        }
        let Some(wait) = self.wait_of(slot) else {
            return;
        };
        let shards = wait.steps.iter().filter(|step| step.key == key);
        let shards: Vec<usize> = shards.map(|step| step.shard).collect();
        for watch in &mut wait.watches {
            watch.is_stale |= shards.contains(&watch.shard);
        }
        if wait.stage == Stage::Resting {
            self.wake(slot);
        }
    }

    /// Sends what the stage wants.
    fn go_on(&mut self, asker: &Asker, mut wait: Box<Wait>) {
        let mut parts: Vec<(usize, u32, Vec<u8>)> = Vec::new();
        wait.is_held = self.is_step_held(asker, &wait);
        if wait.is_held {
            wait.stage = Stage::Resting;
        }
        match wait.stage {
            Stage::Resting => wait.has_looked |= !wait.is_held,
            Stage::Resolving => {
                let read = wait.streams.iter();
                parts.extend(
                    read.flat_map(|read| read.last_ids())
                        .map(|(shard, bytes)| (shard, NONE, bytes)),
                );
            }
            Stage::Peeking => {
                let (looks, asked) = self.peeks(&wait);
                parts = looks;
                if let Some(together) = &mut wait.together {
                    together.looks_at(asked);
                }
            }
            Stage::Together(last) => return self.take_together(asker, wait, last),
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
                self.watch_stale(&mut wait, &mut parts);
                if parts.is_empty() {
                    wait.stage = Stage::Resting;
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
        self.send_steps(asker, number, parts);
    }

    /// To each shard its step; on this link, if there is one.
    fn send_steps(&mut self, asker: &Asker, number: u32, parts: Vec<(usize, u32, Vec<u8>)>) {
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

    /// Whether an operation across shards has the key of what is to be taken next. The wait is told when it has it no more.
    fn is_step_held(&mut self, asker: &Asker, wait: &Wait) -> bool {
        match (wait.stage, &wait.streams) {
            (Stage::Taking(at), None) => {
                let step = wait.steps.get(at).into_iter();
                self.parks_wait(asker, step.map(|step| step.key.as_slice()))
            }
            (Stage::Taking(_), Some(read)) => {
                self.parks_wait(asker, read.keys.iter().map(Vec::as_slice))
            }
            _ => false,
        }
    }

    /// Nobody has the key of its next step any more.
    pub(crate) fn let_wait_go_on(&mut self, slot: u32) {
        let wait = self.wait_of(slot);
        if wait.is_some_and(|wait| wait.is_held && wait.stage == Stage::Resting) {
            self.go_on_with(slot, Stage::Taking(0));
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
        let own = self.own_shards(wait);
        for watch in &mut wait.watches {
            if watch.link != NONE || !own.contains(&watch.shard) {
                continue;
            }
            watch.link = self.open_own(asker.slot, watch.shard, lane, Purpose::Wake)?;
            watch.is_stale = true;
            let link = self.links.get_mut(watch.link);
            if link.is_some_and(|link| !std::mem::replace(&mut link.tells, true)) {
                parts.push((watch.shard, watch.link, errand::TELL.to_vec()));
            }
        }
        Ok(())
    }

    /// A wait is over: its connections are for those whose turn it is now.
    pub(crate) fn close_watches(&mut self, wait: &Wait) {
        for watch in wait.watches.iter().filter(|watch| watch.link != NONE) {
            self.give_back(watch.link, true);
        }
        self.leave_lines(wait.space, wait.keys_in_line(), wait.in_line);
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
        let mut errors = parts.iter().filter_map(|part| first_error(&[part]));
        if let Some(error) = errors.find(|error| wait.ends_with(error)) {
            out.extend_from_slice(error);
            self.close_watches(&wait);
            return false;
        }
        let mut is_over = wait.is_late(self.now_ms) || wait.ending.is_some();
        if wait.looks_first() {
            let Some((stage, goes_on)) = self.waited_together(&mut wait, parts, out) else {
                self.close_watches(&wait);
                return false;
            };
            return self.wait_goes_on(asker, wait, stage, (is_over && !goes_on, proto), out);
        }
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
                self.after_taking(&mut wait)
            }
            (Stage::Taking(at), None) => {
                let step = wait.steps.get(at);
                let is_taken = |step: &Step| write_taken(&step.key, parts[0], out);
                if !parts[0].starts_with(b"-") && step.is_some_and(is_taken) {
                    self.close_watches(&wait);
                    return false;
                }
                if let Some(next) = self.next_step(&wait, at + 1) {
                    is_over = false;
                    Stage::Taking(next)
                } else {
                    self.after_taking(&mut wait)
                }
            }
            (_, streams) => {
                let is_nothing = |part: &&[u8]| matches!(*part, b":0\r\n" | b"+OK\r\n");
                let is_absent = streams.is_none() && parts.iter().all(is_nothing);
                match self.next_step(&wait, 0).filter(|_| !is_absent) {
                    Some(first) => {
                        is_over = false;
                        Stage::Taking(first)
                    }
                    None => self.after_taking(&mut wait),
                }
            }
        };
        self.wait_goes_on(asker, wait, next, (is_over, proto), out)
    }

    /// A shard tells that a key has changed.
    pub(crate) fn woken(&mut self, link: u32, slot: u32, generation: u32, push: &[u8]) {
        if self.clients.get_same(slot, generation).is_none() {
            return;
        }
        let Some(wait) = self.wait_of(slot) else {
            return;
        };
        let is_told = |watch: &&mut Watch| watch.link == link && is_about(push, &watch.request);
        let mut is_stale = false;
        for watch in wait.watches.iter_mut().filter(is_told) {
            watch.is_stale = true;
            is_stale = true;
        }
        if is_stale && wait.stage == Stage::Resting {
            self.wake(slot);
        }
    }

    fn wake(&mut self, slot: u32) {
        self.go_on_with(slot, Stage::Watching);
    }

    /// A wait that rests goes on.
    fn go_on_with(&mut self, slot: u32, stage: Stage) {
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
        let first = self.next_step(&wait, 0);
        wait.stage = match (stage, first) {
            (Stage::Taking(_), _) if wait.looks_first() => self.look_again(&mut wait),
            (Stage::Taking(_), Some(first)) => Stage::Taking(first),
            (Stage::Taking(_), None) => Stage::Resting,
            (stage, _) => stage,
        };
        self.go_on(&asker, wait);
    }
}
