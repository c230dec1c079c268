//! Taking from keys of several shards as one server would: by one operation across shards, in the order of the keys.
//!
//! Owns: `Together`, what a wait needs for that: its request in pieces, and what was seen when its keys were last looked at.
//!
//! Flow: `Peeking`, how long is what each key holds (on the shared connections), or the same while `Watching` -> nothing: it rests as
//! every wait does. Something in the first of its keys: the form that does not wait takes it there. In a later one: an operation over the
//! keys up to that one executes the request itself, where that key is; within EXEC a server does not wait. What moves something to
//! another shard (BLMOVE) is always an operation. When nothing came of it all keys are looked at again.
//!
//! Must stay true: a look is only a hint: what is taken is decided by a server that has all keys before it, with nobody else at them;
//! keys after the one that has something are not claimed; of a key for which others stand in line before it nothing is taken.
//! Rejected: an operation over all keys in any case: to take one element of a long list it would move the list to another shard and back.
//! Operations to find out that there is nothing: nearly all looks of a waiting client find nothing.

use crate::error::ClientError;
use crate::protocol::command::{CommandSpec, Undo};
use crate::protocol::encode;
use crate::protocol::errand;
use crate::protocol::request::RequestScanner;
use crate::routing::route::{Request, Scratch};
use crate::session::backend::NONE;
use crate::session::blocking_wait::{Stage, Wait};
use crate::session::cross_shard::jobs::{Job, Keys, ReplyKind};
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use crate::session::wait_words::write_taken;

/// See the head of this file.
#[derive(Debug, Clone)]
pub(crate) struct Together {
    spec: &'static CommandSpec,
    /// What stands before the keys (where they are counted, without their number), and behind them.
    head: Vec<Vec<u8>>,
    tail: Vec<Vec<u8>>,
    is_counted: bool,
    /// It moves what it takes to a key of another shard.
    moves: bool,
    is_sorted: bool,
    /// Which key each part of a look is about.
    asked: Vec<Option<usize>>,
    /// Keys that hold something of another kind.
    is_other: Vec<bool>,
}

impl Together {
    /// `waited`: so many of the keys it waits for.
    pub(crate) fn new(
        spec: &'static CommandSpec,
        request: &Request<'_>,
        scratch: &Scratch,
        undo: Undo,
        (waited, is_counted): (usize, bool),
    ) -> Option<Self> {
        let first = *scratch.keys.first()? as usize;
        let behind = *scratch.keys.get(waited.checked_sub(1)?)? as usize + 1;
        let words = |range: std::ops::Range<usize>| range.map(|at| request.arg(at).to_vec());
        Some(Self {
            spec,
            head: words(0..first - usize::from(is_counted)).collect(),
            tail: words(behind..request.args.len()).collect(),
            is_counted,
            moves: spec.keys.len() > 1,
            is_sorted: undo == Undo::Scores,
            asked: Vec::new(),
            is_other: vec![false; waited],
        })
    }

    /// The request for these keys alone.
    fn request(&self, keys: &[&[u8]]) -> Vec<u8> {
        let count = keys.len().to_string();
        let mut words: Vec<&[u8]> = self.head.iter().map(Vec::as_slice).collect();
        if self.is_counted {
            words.push(count.as_bytes());
        }
        words.extend(keys);
        words.extend(self.tail.iter().map(Vec::as_slice));
        let mut out = Vec::new();
        encode::request(&mut out, &words);
        out
    }

    /// A question for what a key holds.
    pub(crate) fn look(&self, key: &[u8]) -> Vec<u8> {
        errand::length(key, self.is_sorted)
    }

    /// What the parts of a look are about.
    pub(crate) fn looks_at(&mut self, asked: Vec<Option<usize>>) {
        self.asked = asked;
    }

    /// The first key that has something. For who begins to wait that is also one of another kind, for whose error he asks; who
    /// waits already passes it over.
    fn found(&mut self, parts: &[&[u8]], has_looked: bool) -> Option<usize> {
        let mut found: Option<usize> = None;
        for (part, asked) in parts.iter().zip(&self.asked) {
            let Some(step) = *asked else {
                continue;
            };
            let is_error = part.starts_with(b"-");
            if let Some(is_other) = self.is_other.get_mut(step) {
                *is_other = is_error && has_looked;
            }
            let has_something = if is_error {
                !has_looked
            } else {
                part.starts_with(b":") && *part != b":0\r\n"
            };
            if has_something && found.is_none_or(|found| step < found) {
                found = Some(step);
            }
        }
        found
    }
}

/// Whether an answer to an operation is that there was nothing.
fn is_nothing(reply: &[u8]) -> bool {
    matches!(reply, b"$-1\r\n" | b"*-1\r\n" | b"_\r\n")
}

impl Wait {
    /// It looks at its keys before it takes.
    pub(super) fn looks_first(&self) -> bool {
        self.together.is_some()
    }

    /// An error may say of a key what it holds.
    pub(super) fn is_of_a_look(&self) -> bool {
        self.looks_first() && matches!(self.stage, Stage::Peeking | Stage::Watching)
    }

    /// What an operation refused is told, also to who waits already: it has looked at what its keys hold.
    pub(super) fn moves(&self) -> bool {
        self.together
            .as_ref()
            .is_some_and(|together| together.moves)
    }
}

impl Engine {
    /// Whether waits of this client may take by operations.
    pub(crate) fn takes_together(&self, asker: &Asker) -> bool {
        let space = &self.topology.keyspaces[asker.keyspace];
        let client = self.clients.get(asker.slot);
        space.cross_shard && client.is_some_and(|client| client.database == space.database)
    }

    /// Keys for which it is a wait's turn, up to one of them.
    fn own_steps(&self, wait: &Wait, last: usize) -> Vec<usize> {
        let steps = wait.steps.iter().enumerate().take(last.saturating_add(1));
        let own = steps.filter(|(at, step)| {
            let together = wait.together.as_ref();
            let is_other = together.is_some_and(|it| it.is_other.get(*at) == Some(&true));
            !is_other && self.lines.is_first(wait.space, &step.key, wait.in_line)
        });
        own.map(|(at, _)| at).collect()
    }

    /// Questions for all keys whose turn it is, with whom they are about.
    pub(super) fn peeks(&self, wait: &Wait) -> (Vec<(usize, u32, Vec<u8>)>, Vec<Option<usize>>) {
        let (mut parts, mut asked) = (Vec::new(), Vec::new());
        if let Some(together) = &wait.together {
            for (at, step) in wait.steps.iter().enumerate() {
                if self.lines.is_first(wait.space, &step.key, wait.in_line) {
                    parts.push((step.shard, NONE, together.look(&step.key)));
                    asked.push(Some(at));
                }
            }
        }
        (parts, asked)
    }

    /// Every key has said what it holds: where to take, if anywhere.
    pub(super) fn after_look(&self, wait: &mut Wait, parts: &[&[u8]]) -> Option<Stage> {
        let has_looked = wait.has_looked;
        let together = wait.together.as_mut()?;
        let moves = together.moves;
        let found = together.found(parts, has_looked)?;
        let own = self.own_steps(wait, found);
        if !own.contains(&found) {
            return None;
        }
        Some(if own.len() == 1 && !moves {
            Stage::Taking(found)
        } else {
            Stage::Together(found)
        })
    }

    /// Nothing came of it: somebody was first, or there is something of another kind. All is looked at again.
    pub(super) fn look_again(&self, wait: &mut Wait) -> Stage {
        wait.has_looked = true;
        for watch in &mut wait.watches {
            watch.is_stale = true;
        }
        Stage::Watching
    }

    /// Every answer is there. What is next, and whether nothing ends the wait before that; None: something was taken, and is written.
    pub(super) fn waited_together(
        &self,
        wait: &mut Wait,
        parts: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Option<(Stage, bool)> {
        let first = parts.first().copied().unwrap_or_default();
        let is_error = first.starts_with(b"-");
        match wait.stage {
            Stage::Taking(at) => {
                let step = wait.steps.get(at).filter(|_| !is_error);
                if step.is_some_and(|step| write_taken(&step.key, first, out)) {
                    return None;
                }
                Some((self.look_again(wait), false))
            }
            Stage::Together(_) => {
                if !is_error && !is_nothing(first) {
                    out.extend_from_slice(first);
                    return None;
                }
                Some((self.look_again(wait), false))
            }
            Stage::Peeking | Stage::Watching | Stage::Resting | Stage::Resolving => {
                let found = self.after_look(wait, parts).map(|stage| (stage, true));
                Some(found.unwrap_or_else(|| (self.after_taking(wait), false)))
            }
        }
    }

    /// Begins the operation that takes from the keys up to that one. `Err`: it is not possible here.
    pub(super) fn job_to_take(
        &mut self,
        asker: &Asker,
        wait: &Wait,
        last: usize,
    ) -> Result<Job, ClientError> {
        let own = self.own_steps(wait, last);
        let names: Vec<&[u8]> = own
            .iter()
            .map(|&at| wait.steps[at].key.as_slice())
            .collect();
        let Some(together) = &wait.together else {
            return Err(ClientError::Syntax);
        };
        let bytes = together.request(&names);
        let mut scanner = RequestScanner::default();
        scanner.scan(&bytes, true);
        let request = Request {
            data: &bytes,
            args: &scanner.args,
        };
        let mut keys = Keys::default();
        self.claim(asker.keyspace, together.spec, &request, &mut keys)?;
        if !together.moves {
            let first = self.topology.keyspaces[asker.keyspace].first_shard;
            keys.prefer((wait.steps[last].shard - first) as u16);
        }
        let number = wait.number;
        let mut job = self.job(
            asker,
            number,
            &keys,
            bytes.as_slice().into(),
            1,
            ReplyKind::Single,
        )?;
        job.undo = wait.undo;
        job.waits = true;
        self.may_move(&job)?;
        Ok(job)
    }

    /// Reads what has changed since it was last read.
    pub(super) fn watch_stale(&mut self, wait: &mut Wait, parts: &mut Vec<(usize, u32, Vec<u8>)>) {
        let mut asked = vec![None; parts.len()];
        let stale = wait.watches.iter_mut();
        for watch in stale.filter(|watch| watch.is_stale && watch.link != NONE) {
            watch.is_stale = false;
            let Some(together) = &wait.together else {
                parts.push((watch.shard, watch.link, watch.request.clone()));
                continue;
            };
            for (at, step) in wait.steps.iter().enumerate() {
                let is_first = self.lines.is_first(wait.space, &step.key, wait.in_line);
                if step.shard == watch.shard && is_first {
                    parts.push((watch.shard, watch.link, together.look(&step.key)));
                    asked.push(Some(at));
                }
            }
        }
        if let Some(together) = &mut wait.together {
            together.looks_at(asked);
        }
    }

    /// The keys up to that one, as one operation; where that is not possible, one after the other.
    pub(super) fn take_together(&mut self, asker: &Asker, mut wait: Box<Wait>, last: usize) {
        let job = self.job_to_take(asker, &wait, last);
        let number = wait.number;
        match job {
            Ok(job) => {
                let Some(client) = self.clients.get_mut(asker.slot) else {
                    return;
                };
                client.particulars().wait = Some(wait);
                let gather = Gather::new(GatherKind::Wait, 1);
                client.replies.put_gather(number, gather);
                self.begin_job(job);
            }
            Err(error) if wait.moves() => {
                self.close_watches(&wait);
                let mut line = Vec::new();
                self.write_error(asker.keyspace, &error, &mut line);
                self.finish_wait(asker.slot, number, line);
            }
            Err(_) => {
                wait.together = None;
                let first = self.next_step(&wait, 0);
                wait.stage = first.map_or(Stage::Resting, Stage::Taking);
                self.go_on(asker, wait);
            }
        }
    }
}
