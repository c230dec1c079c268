//! One operation across shards, as its coordinator drives it: a state machine without I/O.
//!
//! Owns: `Operation`, its `Phase`, and `after`, the only way in which it moves.
//!
//! Flow: the keys are locked within the proxy and its workers have drained (`Begin`) -> PREPARE on every shard -> every other
//! member has acknowledged the fence, or was evicted -> values gathered (again, if there were others), watches validated ->
//! COMMIT at home -> APPLY on every shard with a changed key -> the answer -> CLEAN. What only reads elsewhere is answered after
//! COMMIT, and its claims are released behind that. Anything that does not go as planned before COMMIT releases what is claimed;
//! where not even that is certain, the operation is handed over to recovery, which knows only the records.
//!
//! Must stay true: COMMIT is sent at most once, on the connection that prepared home; nothing is sent again before it (a lost
//! connection ends the operation); the client hears "not done" only if COMMIT was not sent or is known to have done nothing; it
//! hears of success only when every shard has its new values. APPLY, RELEASE and CLEAN are conditional on records, so they
//! may be repeated on any connection.
//! Rejected: a time-out for COMMIT (its outcome would be unknown for nothing); handing over after COMMIT for a lost connection
//! (the coordinator is the one who still has the answer for the client).

use crate::limits::{
    CROSS_SHARD_ACK_MS, CROSS_SHARD_APPLY_RETRY_MS, CROSS_SHARD_GATHER_BYTES_MAX,
    CROSS_SHARD_LOCK_MS, CROSS_SHARD_PREPARE_MS,
};
use crate::session::cross_shard::call::{
    Call, Commit, Foreign, Held, Mode, Outcome, Pid, Prepare, Value, Written,
};
use crate::session::cross_shard::steps::{Again, Answer, Event, Phase, Plan, Step};
use std::sync::Arc;

/// What one shard is doing for it.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// A call without an outcome.
    is_asked: bool,
    /// It has a record.
    is_prepared: bool,
    /// Its connection was lost before COMMIT: nobody knows whether it has a record.
    is_lost: bool,
    values: Vec<Option<Value>>,
    /// Members that have not acknowledged.
    missing: Vec<Pid>,
    /// Members that do not hear what is published.
    silent: Vec<Pid>,
    /// Members that did before they were asked for.
    early: Vec<Pid>,
    /// The one that is being evicted.
    evicting: Option<Pid>,
    /// What it shall have.
    written: Vec<Held>,
    /// It has not got it, or has not done what its record says.
    is_owed: bool,
    /// When a call that failed is sent again (ms).
    again_ms: Option<u64>,
    failures: u32,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Operation {
    plan: Plan,
    phase: Phase,
    progress: Vec<Progress>,
    /// The step that is waited for is late from then on (ms).
    deadline_ms: u64,
    /// There are other members than this proxy.
    has_others: bool,
    /// Who has not acknowledged by now is waited for no longer.
    is_late: bool,
    /// The watches were asked about, or need not be.
    is_validated: bool,
    /// The home has a record of the decision.
    has_decision: bool,
    /// What the client will be told.
    answer: Option<Answer>,
}

impl Operation {
    /// Nothing is locked or sent yet.
    pub fn new(plan: Plan) -> Self {
        let progress = vec![Progress::default(); plan.parts.len()];
        Self {
            is_validated: !plan.watches,
            plan,
            phase: Phase::Locking,
            progress,
            deadline_ms: u64::MAX,
            has_others: false,
            is_late: false,
            has_decision: false,
            answer: None,
        }
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What it does.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The only way in which an operation moves.
    pub fn after(&mut self, event: Event, now_ms: u64, steps: &mut Vec<Step>) {
        match (self.phase, event) {
            (Phase::Locking, Event::Begin) => self.prepare(now_ms, steps),
            (Phase::Preparing, Event::Outcome(part, outcome)) => {
                self.prepared(part, outcome, now_ms, steps);
            }
            (Phase::Preparing | Phase::Fencing, Event::Fenced(part, pid)) => {
                self.fenced(part, &pid, now_ms, steps);
            }
            (Phase::Fencing, Event::Outcome(part, outcome)) => {
                self.evicted(part, outcome, now_ms, steps);
            }
            (Phase::Gathering, Event::Outcome(part, outcome)) => {
                self.gathered(part, outcome, steps);
            }
            (Phase::Gathering, Event::Validated(is_whole)) => self.validated(is_whole, steps),
            (Phase::Committing, Event::Outcome(part, outcome)) => {
                self.committed(part, outcome, steps);
            }
            (Phase::Applying, Event::Outcome(part, outcome)) => {
                self.applied(part, &outcome, now_ms, steps);
            }
            (Phase::Finishing | Phase::Releasing, Event::Outcome(part, _)) => {
                self.let_go(part, steps);
            }
            (Phase::Preparing | Phase::Fencing | Phase::Gathering, Event::Lost(part)) => {
                self.lost(part, steps);
            }
            (Phase::Committing, Event::Lost(part)) => {
                if part == self.plan.home {
                    self.hand_over(Answer::Unknown, false, steps);
                }
            }
            (Phase::Applying, Event::Lost(part)) => self.apply_later(part, now_ms),
            (Phase::Finishing | Phase::Releasing, Event::Lost(part)) => {
                // Its record is there, or is not: recovery looks.
                if std::mem::take(&mut self.progress[part].is_asked) {
                    let is_undone = self.phase == Phase::Releasing;
                    self.phase = Phase::HandedOver;
                    steps.push(Step::HandOver { is_undone });
                }
            }
            (_, Event::Tick) => self.tick(now_ms, steps),
            // What comes late, or from a shard that is not waited for.
            (
                Phase::Locking | Phase::HandedOver | Phase::Over,
                Event::Begin | Event::Outcome(..) | Event::Lost(_),
            )
            | (_, Event::Begin | Event::Fenced(..) | Event::Validated(_)) => {}
        }
    }

    fn others(&self) -> Vec<Arc<str>> {
        let parts = self.plan.parts.iter().enumerate();
        let others = parts.filter(|&(part, _)| part != self.plan.home);
        others.map(|(_, part)| part.shard.clone()).collect()
    }

    fn call(&mut self, part: usize, call: Call, steps: &mut Vec<Step>) {
        self.progress[part].is_asked = true;
        steps.push(Step::Call(part, call));
    }

    fn is_quiet(&self) -> bool {
        !self.progress.iter().any(|shard| shard.is_asked)
    }

    // ------------------------------------------------------------------------------------------------- before COMMIT

    fn prepare(&mut self, now_ms: u64, steps: &mut Vec<Step>) {
        self.phase = Phase::Preparing;
        self.deadline_ms = now_ms + CROSS_SHARD_PREPARE_MS as u64;
        let count = if self.plan.is_careful {
            1
        } else {
            self.plan.parts.len()
        };
        (0..count).for_each(|part| self.prepare_one(part, steps));
    }

    fn prepare_one(&mut self, part: usize, steps: &mut Vec<Step>) {
        let plan = &self.plan;
        let call = Call::Prepare(Prepare {
            tx: plan.tx.clone(),
            coordinator: plan.pid.clone(),
            home: plan.parts[plan.home].shard.clone(),
            participants: self.others(),
            is_home: part == plan.home,
            scope: plan.parts[part].scope,
            keys: plan.parts[part].keys.clone(),
            redo: plan.redo.clone(),
            gather_max: CROSS_SHARD_GATHER_BYTES_MAX as u64,
        });
        self.call(part, call, steps);
    }

    fn prepared(&mut self, part: usize, outcome: Outcome, now_ms: u64, steps: &mut Vec<Step>) {
        let shard = &mut self.progress[part];
        shard.is_asked = false;
        match outcome {
            Outcome::Prepared {
                members,
                silent,
                values,
            } => {
                shard.silent = silent;
                shard.is_prepared = true;
                shard.values = values;
                let early = std::mem::take(&mut shard.early);
                let others = members.into_iter().filter(|pid| *pid != self.plan.pid);
                let before = shard.missing.len();
                shard.missing.extend(others);
                self.has_others |= shard.missing.len() > before;
                shard.missing.retain(|pid| !early.contains(pid));
            }
            Outcome::Conflict(_) => self.will_say(Answer::Conflict),
            Outcome::Stranger => self.will_say(Answer::Again(Again::Stranger(part))),
            Outcome::TooLarge(bytes) => self.will_say(Answer::TooLarge(bytes)),
            Outcome::Failed(error) => self.will_say(Answer::Refused(error)),
            // Home's record was gone before it could be watched.
            _ => {
                shard.is_prepared = true;
                self.will_say(Answer::Again(Again::Resolved));
            }
        }
        if self.answer.is_none() && self.plan.is_careful {
            let next = self.progress.iter().position(|shard| !shard.is_prepared);
            if let Some(next) = next {
                return self.prepare_one(next, steps);
            }
        }
        if !self.is_quiet() {
            return;
        }
        if self.answer.is_some() {
            return self.release(steps);
        }
        self.phase = Phase::Fencing;
        self.deadline_ms = now_ms + CROSS_SHARD_ACK_MS as u64;
        self.evict(steps);
        self.look_whether_fenced(now_ms, steps);
    }

    /// The first reason stays.
    fn will_say(&mut self, answer: Answer) {
        self.answer.get_or_insert(answer);
    }

    fn fenced(&mut self, part: usize, pid: &Pid, now_ms: u64, steps: &mut Vec<Step>) {
        let Some(shard) = self.progress.get_mut(part) else {
            return;
        };
        if !shard.is_prepared {
            shard.early.push(pid.clone());
            return;
        }
        shard.missing.retain(|missing| missing != pid);
        if self.phase == Phase::Fencing {
            self.look_whether_fenced(now_ms, steps);
        }
    }

    fn look_whether_fenced(&mut self, now_ms: u64, steps: &mut Vec<Step>) {
        if !self.is_quiet() || self.progress.iter().any(|shard| !shard.missing.is_empty()) {
            return;
        }
        self.phase = Phase::Gathering;
        self.deadline_ms = now_ms + CROSS_SHARD_PREPARE_MS as u64;
        if self.has_others {
            for part in 0..self.plan.parts.len() {
                let keys = &self.plan.parts[part].keys;
                if keys.iter().any(|key| key.is_wanted) {
                    let call = Call::Gather {
                        tx: self.plan.tx.clone(),
                        keys: keys.clone(),
                        gather_max: CROSS_SHARD_GATHER_BYTES_MAX as u64,
                    };
                    self.call(part, call, steps);
                }
            }
        }
        if !self.is_validated {
            steps.push(Step::Validate);
        }
        self.commit_when_ready(steps);
    }

    /// No acknowledgement in time, or none to be hoped for: the shard itself ends what the member has there.
    fn evict(&mut self, steps: &mut Vec<Step>) {
        for part in 0..self.progress.len() {
            let shard = &mut self.progress[part];
            if shard.is_asked || shard.evicting.is_some() {
                continue;
            }
            let is_late = self.is_late;
            let is_due = |pid: &&Pid| is_late || shard.silent.contains(pid);
            if let Some(pid) = shard.missing.iter().find(is_due).cloned() {
                shard.evicting = Some(pid.clone());
                self.call(part, Call::Deregister { pid }, steps);
            }
        }
    }

    fn evicted(&mut self, part: usize, outcome: Outcome, now_ms: u64, steps: &mut Vec<Step>) {
        let shard = &mut self.progress[part];
        shard.is_asked = false;
        match outcome {
            _ if self.answer.is_some() => self.release(steps),
            Outcome::Connections(ids) => {
                if let Some(pid) = shard.evicting.clone() {
                    self.call(part, Call::Kill { pid, ids }, steps);
                }
            }
            Outcome::Killed => {
                let gone = shard.evicting.take();
                shard.missing.retain(|pid| Some(pid) != gone.as_ref());
                self.evict(steps);
                self.look_whether_fenced(now_ms, steps);
            }
            Outcome::Failed(error) => self.give_up(Answer::Refused(error), steps),
            _ => self.give_up(Answer::Again(Again::Resolved), steps),
        }
    }

    fn gathered(&mut self, part: usize, outcome: Outcome, steps: &mut Vec<Step>) {
        self.progress[part].is_asked = false;
        match outcome {
            Outcome::Gathered(values) => self.progress[part].values = values,
            Outcome::TooLarge(bytes) => self.will_say(Answer::TooLarge(bytes)),
            Outcome::Failed(error) => self.will_say(Answer::Refused(error)),
            _ => self.will_say(Answer::Again(Again::Resolved)),
        }
        self.commit_when_ready(steps);
    }

    fn validated(&mut self, is_whole: bool, steps: &mut Vec<Step>) {
        self.is_validated = true;
        if !is_whole {
            self.will_say(Answer::Broken);
        }
        self.commit_when_ready(steps);
    }

    fn commit_when_ready(&mut self, steps: &mut Vec<Step>) {
        if !self.is_quiet() || !self.is_validated {
            return;
        }
        if self.answer.is_some() {
            return self.release(steps);
        }
        let mut foreign = Vec::new();
        for (part, shard) in self.plan.parts.iter().zip(&mut self.progress) {
            if part.shard == self.plan.parts[self.plan.home].shard {
                continue;
            }
            let values = std::mem::take(&mut shard.values).into_iter();
            for (claim, value) in part.keys.iter().zip(values.chain(std::iter::repeat(None))) {
                foreign.push(Foreign {
                    shard: part.shard.clone(),
                    key: claim.key.clone(),
                    value,
                    is_written: claim.mode == Mode::Exclusive,
                    is_blind: claim.mode == Mode::Exclusive && !claim.is_wanted,
                });
            }
        }
        let call = Call::Commit(Commit {
            tx: self.plan.tx.clone(),
            coordinator: self.plan.pid.clone(),
            foreign,
            requests: self.plan.requests.clone(),
            count: self.plan.count,
            redo: self.plan.redo.clone(),
        });
        self.phase = Phase::Committing;
        self.deadline_ms = u64::MAX;
        self.call(self.plan.home, call, steps);
    }

    // -------------------------------------------------------------------------------------------------- after COMMIT

    fn committed(&mut self, part: usize, outcome: Outcome, steps: &mut Vec<Step>) {
        self.progress[part].is_asked = false;
        match outcome {
            Outcome::Committed { replies, written } => {
                self.progress[self.plan.home].is_prepared = false;
                self.answer = Some(Answer::Done(replies));
                self.distribute(written);
                self.phase = Phase::Applying;
                for part in 0..self.progress.len() {
                    if self.progress[part].is_owed {
                        self.apply(part, steps);
                    }
                }
                self.look_whether_applied(steps);
            }
            Outcome::NotCommitted => {
                self.will_say(Answer::Again(Again::Resolved));
                self.release(steps);
            }
            Outcome::Refused(error) => {
                self.will_say(Answer::Refused(error));
                self.release(steps);
            }
            _ => self.hand_over(Answer::Unknown, false, steps),
        }
    }

    /// The written values, in the order of the commit's written keys, to their shards.
    fn distribute(&mut self, written: Vec<Written>) {
        let mut written = written.into_iter();
        for (index, part) in self.plan.parts.iter().enumerate() {
            if index == self.plan.home {
                continue;
            }
            let keys = part
                .keys
                .iter()
                .filter(|claim| claim.mode == Mode::Exclusive);
            for claim in keys {
                if let Some(Written::Now(value)) = written.next() {
                    let held = (claim.key.clone(), value);
                    self.progress[index].written.push(held);
                    self.progress[index].is_owed = true;
                }
            }
            self.progress[index].is_owed |= self.plan.redo.is_some();
            self.has_decision |= self.progress[index].is_owed;
        }
    }

    fn apply(&mut self, part: usize, steps: &mut Vec<Step>) {
        let call = Call::Apply {
            tx: self.plan.tx.clone(),
            values: self.progress[part].written.clone(),
        };
        self.progress[part].again_ms = None;
        if self.progress[part].failures == 0 {
            self.call(part, call, steps);
        } else {
            self.progress[part].is_asked = true;
            steps.push(Step::CallAnew(part, call));
        }
    }

    fn applied(&mut self, part: usize, outcome: &Outcome, now_ms: u64, steps: &mut Vec<Step>) {
        match outcome {
            // If the record was not there, somebody else has applied it meanwhile.
            Outcome::Done(_) => {
                self.progress[part] = Progress::default();
                self.look_whether_applied(steps);
            }
            _ => self.apply_later(part, now_ms),
        }
    }

    /// It is decided, so it will be done: for want of memory or of a connection only later.
    fn apply_later(&mut self, part: usize, now_ms: u64) {
        let shard = &mut self.progress[part];
        if !shard.is_owed {
            return;
        }
        shard.is_asked = false;
        let wait_ms = (CROSS_SHARD_APPLY_RETRY_MS as u64) << shard.failures.min(4);
        shard.failures += 1;
        shard.again_ms = Some(now_ms + wait_ms);
    }

    fn look_whether_applied(&mut self, steps: &mut Vec<Step>) {
        if self.progress.iter().any(|shard| shard.is_owed) {
            return;
        }
        self.phase = Phase::Finishing;
        steps.push(Step::Lift);
        steps.extend(self.answer.take().map(Step::Answer));
        let tx = self.plan.tx.clone();
        for part in 0..self.progress.len() {
            if self.progress[part].is_prepared {
                self.call(part, Call::Release { tx: tx.clone() }, steps);
            }
        }
        if self.has_decision {
            self.call(self.plan.home, Call::Clean { tx }, steps);
        }
        self.end_when_quiet(steps);
    }

    // ------------------------------------------------------------------------------------------------- ways to the end

    /// Nothing has been sent: it may be given up at any time.
    fn wait_for_keys(&mut self, now_ms: u64, steps: &mut Vec<Step>) {
        if self.deadline_ms == u64::MAX {
            self.deadline_ms = now_ms + CROSS_SHARD_LOCK_MS as u64;
        } else if now_ms >= self.deadline_ms {
            self.phase = Phase::Over;
            steps.extend([Step::Answer(Answer::Waited), Step::Withdraw]);
        }
    }

    fn let_go(&mut self, part: usize, steps: &mut Vec<Step>) {
        self.progress[part].is_asked = false;
        self.progress[part].is_prepared = false;
        self.end_when_quiet(steps);
    }

    fn end_when_quiet(&mut self, steps: &mut Vec<Step>) {
        if self.is_quiet() {
            self.phase = Phase::Over;
            steps.push(Step::Unlock);
        }
    }

    /// COMMIT was not sent, and will not be: as soon as the other shards have answered, this ends.
    fn lost(&mut self, part: usize, steps: &mut Vec<Step>) {
        self.progress[part].is_lost = true;
        self.progress[part].is_asked = false;
        self.progress[part].evicting = None;
        self.will_say(Answer::Again(Again::Lost(part)));
        if self.is_quiet() {
            self.release(steps);
        }
    }

    /// Nothing was done: the claims are given back, on the connections on which they were made.
    fn release(&mut self, steps: &mut Vec<Step>) {
        if self.progress.iter().any(|shard| shard.is_lost) {
            if let Some(answer) = self.answer.take() {
                return self.hand_over(answer, true, steps);
            }
        }
        self.phase = Phase::Releasing;
        self.deadline_ms = u64::MAX;
        steps.push(Step::Lift);
        steps.extend(self.answer.take().map(Step::Answer));
        for part in 0..self.progress.len() {
            if self.progress[part].is_prepared {
                let tx = self.plan.tx.clone();
                self.call(part, Call::Release { tx }, steps);
            }
        }
        self.end_when_quiet(steps);
    }

    /// The same, without waiting for who does not answer: recovery looks again for what comes later.
    fn give_up(&mut self, answer: Answer, steps: &mut Vec<Step>) {
        self.will_say(answer);
        if let Some(answer) = self.answer.take() {
            self.hand_over(answer, true, steps);
        }
    }

    fn hand_over(&mut self, answer: Answer, is_undone: bool, steps: &mut Vec<Step>) {
        self.phase = Phase::HandedOver;
        steps.push(Step::Answer(answer));
        steps.push(Step::HandOver { is_undone });
    }

    fn tick(&mut self, now_ms: u64, steps: &mut Vec<Step>) {
        if self.phase == Phase::Locking {
            return self.wait_for_keys(now_ms, steps);
        }
        for part in 0..self.progress.len() {
            let again_ms = self.progress[part].again_ms;
            if self.phase == Phase::Applying && again_ms.is_some_and(|again| again <= now_ms) {
                self.apply(part, steps);
            }
        }
        if now_ms < self.deadline_ms {
            return;
        }
        if self.phase == Phase::Fencing && !self.is_late {
            self.deadline_ms = now_ms + CROSS_SHARD_PREPARE_MS as u64;
            self.is_late = true;
            return self.evict(steps);
        }
        if matches!(
            self.phase,
            Phase::Preparing | Phase::Fencing | Phase::Gathering
        ) {
            let late = self.progress.iter().position(|shard| shard.is_asked);
            let late = late.unwrap_or(self.plan.home);
            self.give_up(Answer::Again(Again::Late(late)), steps);
        }
    }
}
