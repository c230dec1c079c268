//! One operation across shards, finished or undone from its records alone: a state machine without I/O.
//!
//! Owns: `Recovery`, what it is given (`Subject`, `Event`) and what it wants done (`Step`).
//!
//! Flow: the coordinator is evicted at home (taken off the list, its connections ended by the shard) -> RESOLVE at home tells
//! what was decided, or decides that it will not be done -> every participant: APPLY if it was committed, or RELEASE -> CLEAN at
//! home, if there is a decision. A step that fails, or whose connection is lost, is sent again, for ever, on any connection.
//!
//! Must stay true: nothing is asked of a participant before home has decided. Home decides once, whoever asks: RESOLVE and
//! COMMIT are each one atomic step there, and each makes the other impossible (a COMMIT that comes after RESOLVE finds the record
//! gone that it watches; a RESOLVE that comes after COMMIT finds the decision). CLEAN is sent when each participant has answered
//! its APPLY, also if its record was not there: with a decision at home, only an APPLY can have taken it. Every step depends on a
//! record of this very operation, which is never made twice, so several may recover at once, and any of them may stop and
//! go on much later.
//!
//! Why the eviction: what a stopped coordinator sent before may still run, and it may wake up. A PREPARE at home that runs after
//! RESOLVE would be followed by a COMMIT that finds its record untouched, though participants have been released. So its connections
//! to home end first; it holds all connections of an operation, named, before its first PREPARE, and gives up if one is lost.
//! Not if this proxy itself was the coordinator: its `Operation` has ended, so no COMMIT follows any more; one that is under way on
//! a lost connection was preceded there by PREPARE and WATCH, and is decided by which of it and RESOLVE comes first. A PREPARE under
//! way on a lost connection leaves a record without an operation: harmless, and found at the next look (`member`).
//! Rejected: to evict at the participants, too: what runs late there is released again, and ending the connections costs clients.

use crate::limits::CROSS_SHARD_APPLY_RETRY_MS;
use crate::session::cross_shard::call::{Call, Held, Outcome, Pid, Record, Tx};
use std::sync::Arc;

/// What is to be recovered, as any of its records tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Whose.
    pub tx: Tx,
    /// The proxy that coordinated it.
    pub coordinator: Pid,
    /// The shards that take part; home is the first.
    pub shards: Vec<Arc<str>>,
}

impl From<&Record> for Subject {
    fn from(record: &Record) -> Self {
        let home = std::iter::once(record.home.clone());
        Self {
            tx: record.tx.clone(),
            coordinator: record.coordinator.clone(),
            shards: home.chain(record.participants.iter().cloned()).collect(),
        }
    }
}

/// What has happened. Shards are numbered as in the subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It may start.
    Begin,
    /// A shard answered the call that it was sent last.
    Outcome(usize, Outcome),
    /// The connection to a shard is lost, or could not be had, or it did not answer in time.
    Lost(usize),
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this to a shard, on any connection.
    Call(usize, Call),
    /// No shard has a record any more. Whether there was a decision: without one, nothing of it was or will be written elsewhere
    /// than at home.
    Over(bool),
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    /// The coordinator is taken off home's list.
    Evicting,
    /// Its connections to home are being ended.
    Killing,
    Resolving,
    /// Participants are given their new values.
    Applying,
    /// Participants forget it.
    Releasing,
    Cleaning,
    Over,
}

/// What one shard still has to do.
#[derive(Debug, Clone, Default)]
struct Task {
    /// None: nothing.
    call: Option<Call>,
    /// It was sent, and is not answered.
    is_asked: bool,
    /// When it is sent again (ms).
    again_ms: Option<u64>,
    failures: u32,
}

const HOME: usize = 0;

/// See the head of this file.
#[derive(Debug)]
pub struct Recovery {
    subject: Subject,
    phase: Phase,
    /// This proxy was the coordinator.
    is_own: bool,
    /// It is sure that it was not decided.
    is_undone: bool,
    tasks: Vec<Task>,
    /// The last error of a shard, for who wants to know why it takes so long.
    trouble: Option<Vec<u8>>,
}

impl Recovery {
    /// Nothing is sent yet. `is_own`: the coordinator was this very process, and it has no `Operation` for it any more.
    pub fn new(subject: Subject, is_own: bool) -> Self {
        Self {
            tasks: vec![Task::default(); subject.shards.len()],
            subject,
            phase: Phase::Waiting,
            is_own,
            is_undone: false,
            trouble: None,
        }
    }

    /// The same of an operation of this process that never sent COMMIT, and never will: it need not ask home, and waits for no shard
    /// before it frees another.
    pub fn undone(subject: Subject) -> Self {
        Self {
            is_undone: true,
            ..Self::new(subject, true)
        }
    }

    /// What it recovers.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The last error that a shard gave instead of doing its part.
    pub fn trouble(&self) -> Option<&[u8]> {
        self.trouble.as_deref()
    }

    /// The only way in which a recovery moves.
    pub fn after(&mut self, event: Event, now_ms: u64, steps: &mut Vec<Step>) {
        match event {
            Event::Begin if self.phase == Phase::Waiting => self.begin(steps),
            Event::Outcome(shard, outcome) if self.is_asked(shard) => {
                self.outcome(shard, outcome, now_ms, steps);
            }
            Event::Lost(shard) if self.is_asked(shard) => self.repeat_later(shard, now_ms),
            Event::Tick => self.repeat(now_ms, steps),
            // What comes late, or from a shard that was not asked.
            Event::Begin | Event::Outcome(..) | Event::Lost(_) => {}
        }
    }

    fn is_asked(&self, shard: usize) -> bool {
        self.tasks.get(shard).is_some_and(|task| task.is_asked)
    }

    fn ask(&mut self, shard: usize, call: Call, steps: &mut Vec<Step>) {
        if let Some(task) = self.tasks.get_mut(shard) {
            task.is_asked = true;
            task.again_ms = None;
            task.call = Some(call.clone());
            steps.push(Step::Call(shard, call));
        }
    }

    fn begin(&mut self, steps: &mut Vec<Step>) {
        if self.is_undone {
            self.phase = Phase::Releasing;
            for shard in 0..self.tasks.len() {
                let tx = self.subject.tx.clone();
                self.ask(shard, Call::Release { tx }, steps);
            }
            return;
        }
        if self.is_own {
            return self.resolve(steps);
        }
        self.phase = Phase::Evicting;
        let pid = self.subject.coordinator.clone();
        self.ask(HOME, Call::Deregister { pid }, steps);
    }

    fn resolve(&mut self, steps: &mut Vec<Step>) {
        self.phase = Phase::Resolving;
        let tx = self.subject.tx.clone();
        self.ask(HOME, Call::Resolve { tx }, steps);
    }

    fn outcome(&mut self, shard: usize, outcome: Outcome, now_ms: u64, steps: &mut Vec<Step>) {
        match (self.phase, outcome) {
            (Phase::Evicting, Outcome::Connections(ids)) => {
                self.phase = Phase::Killing;
                let pid = self.subject.coordinator.clone();
                self.ask(HOME, Call::Kill { pid, ids }, steps);
            }
            (Phase::Killing, Outcome::Killed) => self.resolve(steps),
            (Phase::Resolving, Outcome::Resolved(decision)) => self.settle(decision, steps),
            (Phase::Applying | Phase::Releasing | Phase::Cleaning, Outcome::Done(_)) => {
                self.done(shard, steps);
            }
            (_, outcome) => {
                if let Outcome::Failed(error) = outcome {
                    self.trouble = Some(error);
                }
                self.repeat_later(shard, now_ms);
            }
        }
    }

    /// Home has decided; the others follow.
    fn settle(&mut self, decision: Option<Vec<(Arc<str>, Held)>>, steps: &mut Vec<Step>) {
        self.tasks[HOME] = Task::default();
        let is_committed = decision.is_some();
        self.phase = if is_committed {
            Phase::Applying
        } else {
            Phase::Releasing
        };
        let mut decision = decision.unwrap_or_default();
        for shard in HOME + 1..self.tasks.len() {
            let name = &self.subject.shards[shard];
            let (here, elsewhere) = decision.into_iter().partition(|(of, _)| of == name);
            decision = elsewhere;
            let tx = self.subject.tx.clone();
            let values: Vec<Held> = here.into_iter().map(|(_, held): (_, Held)| held).collect();
            // What was only read has nothing to take; what else is to be done there, its record knows.
            let call = if is_committed {
                Call::Apply { tx, values }
            } else {
                Call::Release { tx }
            };
            self.ask(shard, call, steps);
        }
        self.go_on_when_done(steps);
    }

    fn done(&mut self, shard: usize, steps: &mut Vec<Step>) {
        self.tasks[shard] = Task::default();
        self.go_on_when_done(steps);
    }

    fn go_on_when_done(&mut self, steps: &mut Vec<Step>) {
        if self.tasks.iter().any(|task| task.call.is_some()) {
            return;
        }
        if self.phase == Phase::Applying {
            self.phase = Phase::Cleaning;
            let tx = self.subject.tx.clone();
            return self.ask(HOME, Call::Clean { tx }, steps);
        }
        steps.push(Step::Over(self.phase == Phase::Cleaning));
        self.phase = Phase::Over;
    }

    fn repeat_later(&mut self, shard: usize, now_ms: u64) {
        if self.phase == Phase::Killing {
            // Meanwhile it may have other connections.
            self.phase = Phase::Evicting;
            let pid = self.subject.coordinator.clone();
            self.tasks[HOME].call = Some(Call::Deregister { pid });
        }
        let task = &mut self.tasks[shard];
        let wait_ms = (CROSS_SHARD_APPLY_RETRY_MS as u64) << task.failures.min(4);
        task.is_asked = false;
        task.failures += 1;
        task.again_ms = Some(now_ms + wait_ms);
    }

    fn repeat(&mut self, now_ms: u64, steps: &mut Vec<Step>) {
        for shard in 0..self.tasks.len() {
            let task = &self.tasks[shard];
            if task.again_ms.is_some_and(|again| again <= now_ms) {
                if let Some(call) = task.call.clone() {
                    self.ask(shard, call, steps);
                }
            }
        }
    }
}
