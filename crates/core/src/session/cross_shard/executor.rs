//! The engine's side of operations across shards: their connections, their replies, and what the client is told.
//!
//! Owns: `CrossShards`, what a worker knows of all this; `Running`, an operation with its connections; the carrying out of
//! `Step`s and the reporting of `Event`s.
//!
//! Flow: a `Job` (jobs) -> `begin_job`: keys are locked by worker 0 and fenced by all (`notes`) -> `advance` gives the event to
//! the state machine and does the steps it wants: calls go out by `wire`, on connections that the operation has to itself ->
//! `operation_replied` collects a call's replies and advances again, until the answer is there and the keys are free.
//!
//! Must stay true: one call at a time for each part; a connection goes back to the pool only when it watches nothing and owes
//! nothing; the client gets one answer, whatever happens, unless it has left.
//! Rejected: the shared connections: a watch is a connection's own state, and a commit must not go out on another one.

use crate::error::{ClientError, OperationError};
use crate::limits::{CROSS_SHARD_RUNNING_MAX, CROSS_SHARD_WAITING_MAX};
use crate::routing::topology::{Keyspace, Topology};
use crate::session::backend::{InFlight, LinkState, Waiter, NONE};
use crate::session::cross_shard::answers::Told;
use crate::session::cross_shard::call::{Call, Mode, Outcome, Pid, Tx};
use crate::session::cross_shard::control::Control;
use crate::session::cross_shard::drains::Drain;
use crate::session::cross_shard::fences::{Fences, Parked};
use crate::session::cross_shard::jobs::Job;
use crate::session::cross_shard::late::Late;
use crate::session::cross_shard::member::Member;
use crate::session::cross_shard::notes::Note;
use crate::session::cross_shard::operation::Operation;
use crate::session::cross_shard::recovery::Subject;
use crate::session::cross_shard::registrar::{Claims, LockTable, ShardClaims};
use crate::session::cross_shard::remote::{Recovering, Remote};
use crate::session::cross_shard::steps::{Event, Phase, Plan, Step};
use crate::session::cross_shard::wire;
use crate::session::engine::{Engine, Identity, Level};
use crate::session::own_links::Owner;
use crate::session::slab::Slab;
use crate::session::stats::PerShard;
use crate::session::transaction_across::WATCHING;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// A call that is on its way.
#[derive(Debug)]
struct Asked {
    call: Call,
    /// Replies that are still to come.
    left: usize,
    bytes: Vec<u8>,
}

/// An operation that runs, and its connections.
#[derive(Debug)]
pub(crate) struct Running {
    operation: Operation,
    pub(crate) job: Job,
    links: Vec<u32>,
    asked: Vec<Option<Asked>>,
    /// The home connection watches the record.
    is_watching: bool,
    /// Workers that have drained.
    pub(crate) drained: usize,
    /// Connections that watch and have not said whether their keys are as they were.
    pub(crate) unvalidated: usize,
    /// They were asked, so they watch no longer.
    pub(crate) was_validated: bool,
}

/// What a worker knows of operations across shards.
#[derive(Debug)]
pub struct CrossShards {
    pub(crate) pid: Pid,
    /// What the members of its shards must agree on: one for each keyspace.
    pub(crate) terms: Vec<Arc<str>>,
    worker: usize,
    number: u64,
    pub(crate) running: Slab<Running>,
    pub(crate) by_tx: HashMap<Tx, u32>,
    /// One for each keyspace.
    pub(crate) fences: Vec<Fences>,
    /// One for each keyspace; used by worker 0.
    pub(crate) tables: Vec<LockTable>,
    /// Who wants what, of those in the tables.
    pub(crate) askers: HashMap<Tx, (usize, Claims)>,
    /// Fences that are installed and not drained.
    pub(crate) drains: Vec<Drain>,
    /// Questions to shards about requests that wait, ever.
    pub(crate) listings: u32,
    /// What is to be sent when an operation has its keys no more.
    pub(crate) late: Vec<(Tx, Late)>,
    /// Some connection was told of a fence, and sends nothing.
    pub(crate) has_behind: bool,
    /// Clients whose requests are to be shown again.
    pub(crate) unparked: VecDeque<Parked>,
    /// To be done before anything else is.
    pub(crate) notes: VecDeque<Note>,
    pub(crate) is_settling: bool,
    /// What worker 0 knows of operations of other proxies: one for each keyspace.
    pub(crate) members: Vec<Member>,
    /// One for each shard; used by worker 0.
    pub(crate) controls: Vec<Control>,
    /// By the name that the tables know.
    pub(crate) remotes: HashMap<Tx, Remote>,
    pub(crate) recoveries: Vec<Recovering>,
    /// So many were begun.
    pub(crate) recovered: u64,
    /// Times that the step of a trial was reached.
    pub(crate) points: u32,
    /// Jobs that met others, to be begun again at the next tick.
    pub(crate) postponed: Vec<Job>,
}

impl CrossShards {
    /// Nothing runs.
    pub fn new(identity: &Identity, topology: &Topology) -> Self {
        let spaces = topology.keyspaces.len();
        let table = || LockTable::new(CROSS_SHARD_RUNNING_MAX);
        let name: String = identity.run_id.chars().take(16).collect();
        let pid = Pid(name.into());
        let member = |space: &Keyspace| Member::new(pid.clone(), space.shards.len());
        Self {
            members: topology.keyspaces.iter().map(member).collect(),
            terms: topology.keyspaces.iter().map(terms).collect(),
            controls: topology.shards().map(|_| Control::default()).collect(),
            remotes: HashMap::new(),
            recoveries: Vec::new(),
            recovered: 0,
            points: 0,
            pid,
            worker: identity.worker,
            number: 0,
            running: Slab::default(),
            by_tx: HashMap::new(),
            fences: (0..spaces).map(|_| Fences::default()).collect(),
            tables: (0..spaces).map(|_| table()).collect(),
            askers: HashMap::new(),
            drains: Vec::new(),
            listings: 0,
            late: Vec::new(),
            has_behind: false,
            unparked: VecDeque::new(),
            notes: VecDeque::new(),
            is_settling: false,
            postponed: Vec::new(),
        }
    }

    /// Somebody will show the request of a client again.
    pub(crate) fn waits(&self, keyspace: u16, slot: u32, generation: u32) -> bool {
        let parked = Parked { slot, generation };
        self.unparked.contains(&parked)
            || self.fences[usize::from(keyspace)]
                .parked()
                .any(|other| other == parked)
    }

    fn next_tx(&mut self) -> Tx {
        self.number += 1;
        Tx(format!("{}-{}-{}", self.pid.0, self.worker, self.number).into())
    }
}

impl Engine {
    /// Begins an operation, for the first time or again.
    pub(crate) fn begin_job(&mut self, job: Job) {
        if self.cross_shards.running.len() >= CROSS_SHARD_WAITING_MAX {
            let error = ClientError::Operation(OperationError::TooMany);
            return self.answer_job(&job, &Told::Error(error));
        }
        if let Err(error) = self.shards_are_up(&job) {
            return self.answer_job(&job, &Told::Error(error));
        }
        match self.may_move(&job) {
            Ok(true) => {}
            // A shard's first connection has not told enough yet.
            Ok(false) => return self.cross_shards.postponed.push(job),
            Err(error) => return self.answer_job(&job, &Told::Error(error)),
        }
        let tx = self.cross_shards.next_tx();
        let claims: Claims = job
            .parts
            .iter()
            .zip(&job.shards)
            .map(|(part, &shard)| ShardClaims {
                shard,
                scope: part.scope,
                keys: part
                    .keys
                    .iter()
                    .map(|claim| (claim.key.clone(), claim.mode))
                    .collect(),
            })
            .collect();
        let plan = Plan {
            tx: tx.clone(),
            pid: self.cross_shards.pid.clone(),
            parts: job.parts.clone(),
            home: job.home,
            requests: job.requests.clone(),
            count: job.count,
            redo: job.redo.clone(),
            watches: !job.watches.is_empty(),
            is_careful: job.tries > 0,
        };
        let keyspace = job.asker.keyspace;
        let count = job.parts.len();
        let watches = job.watches.clone();
        let (index, generation) = self.cross_shards.running.insert(Running {
            operation: Operation::new(plan),
            job,
            links: vec![NONE; count],
            asked: (0..count).map(|_| None).collect(),
            is_watching: false,
            drained: 0,
            unvalidated: 0,
            was_validated: false,
        });
        self.adopt_watches(index, generation, &watches);
        self.cross_shards.by_tx.insert(tx.clone(), index);
        let worker = self.identity.worker;
        self.post(
            0,
            Note::Lock {
                tx,
                keyspace,
                claims,
                worker,
            },
        );
        self.settle_notes();
    }

    /// What is down is told before anything is locked or sent.
    fn shards_are_up(&mut self, job: &Job) -> Result<(), ClientError> {
        for &shard in &job.shards {
            let number = self.shard_number(&job.asker, shard);
            self.link_for(number, 0)?;
        }
        Ok(())
    }

    /// Whether values can be moved between home and the others, and their records stay; false: that is not known yet.
    pub(crate) fn may_move(&self, job: &Job) -> Result<bool, ClientError> {
        let refused = |error| Err(ClientError::Operation(error));
        let number = |part: usize| self.shard_number(&job.asker, job.shards[part]);
        let home = self.backends[number(job.home)].dump_version;
        let mut is_known = home != 0;
        for (index, part) in job.parts.iter().enumerate() {
            let shard = number(index);
            if self.all_stats[0].of_shard(shard, PerShard::Evicting) > 0 {
                return refused(OperationError::Evicts(part.shard.to_string()));
            }
            let version = self.backends[shard].dump_version;
            is_known &= version != 0;
            let comes = part.keys.iter().any(|key| key.is_wanted);
            let goes = part.keys.iter().any(|key| key.mode == Mode::Exclusive);
            let fits = (!comes || takes(home, version)) && (!goes || takes(version, home));
            if is_known && index != job.home && !fits {
                let home = &job.parts[job.home].shard;
                let which = format!("the server of '{home}' and that of '{}' dump values in formats that one does not take from the other", part.shard);
                return refused(OperationError::Versions(which));
            }
        }
        Ok(is_known)
    }

    /// Tells an operation what has happened, and does what it wants then.
    pub(crate) fn advance(&mut self, index: u32, event: Event) {
        let now_ms = self.now_ms;
        let mut steps = Vec::new();
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let Some(running) = self.cross_shards.running.get_mut(index) else {
                return;
            };
            let before = running.operation.phase();
            running.operation.after(event, now_ms, &mut steps);
            let after = running.operation.phase();
            self.pass_points(before, after, &steps);
            for step in std::mem::take(&mut steps) {
                if let Some(part) = self.step(index, step) {
                    events.push_back(Event::Lost(part));
                }
            }
        }
    }

    /// One step; a part whose connection cannot be had.
    fn step(&mut self, index: u32, step: Step) -> Option<usize> {
        match step {
            Step::Call(part, call) => return self.call_part(index, part, call, false),
            Step::CallAnew(part, call) => return self.call_part(index, part, call, true),
            Step::Validate => self.validate_watches(index),
            Step::Answer(answer) => self.answer_operation(index, answer),
            Step::Lift => {
                if let Some((tx, keyspace)) = self.running_tx(index) {
                    for worker in 0..self.identity.workers {
                        let tx = tx.clone();
                        self.post(worker, Note::Lift { tx, keyspace });
                    }
                }
            }
            Step::Withdraw => {
                if let Some((tx, keyspace)) = self.running_tx(index) {
                    self.post(0, Note::Withdraw { tx, keyspace });
                }
                self.end_running(index);
            }
            Step::Unlock => {
                if let Some((tx, keyspace)) = self.running_tx(index) {
                    self.post(0, Note::Unlock { tx, keyspace });
                }
                self.end_running(index);
            }
            Step::HandOver { is_undone } => {
                self.hand_over(index, is_undone);
                self.end_running(index);
            }
        }
        None
    }

    /// Reports an event when what is being done now is done.
    pub(crate) fn advance_later(&mut self, index: u32, event: Event) {
        let generation = self.cross_shards.running.generation(index);
        let note = Note::Event(index, generation, Box::new(event));
        self.cross_shards.notes.push_back(note);
    }

    /// Nobody here knows how it stands: worker 0 looks at its records, and lifts its fence then.
    fn hand_over(&mut self, index: u32, is_undone: bool) {
        let Some(running) = self.cross_shards.running.get(index) else {
            return;
        };
        let (plan, home) = (running.operation.plan(), running.job.home);
        let mut shards: Vec<_> = plan.parts.iter().map(|part| part.shard.clone()).collect();
        shards.swap(0, home);
        let subject = Subject {
            tx: plan.tx.clone(),
            coordinator: plan.pid.clone(),
            shards,
        };
        let keyspace = running.job.asker.keyspace;
        let (tx, subject) = (subject.tx.clone(), Box::new(subject));
        self.post(0, Note::TakeOver(keyspace, subject, is_undone));
        if is_undone {
            self.post(0, Note::Withdraw { tx, keyspace });
        }
    }

    pub(crate) fn running_tx(&self, index: u32) -> Option<(Tx, usize)> {
        let running = self.cross_shards.running.get(index)?;
        Some((
            running.operation.plan().tx.clone(),
            running.job.asker.keyspace,
        ))
    }

    /// It has its keys, and all is drained: it begins when all of its connections have joined. What is sent on one that joins
    /// later might run after this process slept and the operation was undone: recovery ends only what it finds.
    pub(crate) fn begin_when_connected(&mut self, index: u32) {
        let generation = self.cross_shards.running.generation(index);
        let Some(running) = self.cross_shards.running.get(index) else {
            return;
        };
        let is_drained = running.drained >= self.identity.workers;
        if !is_drained || running.operation.phase() != Phase::Locking {
            return;
        }
        let asker = running.job.asker;
        let shards = running.job.shards.clone();
        let mut are_up = true;
        for (part, &shard) in shards.iter().enumerate() {
            let Some(running) = self.cross_shards.running.get(index) else {
                return;
            };
            let mut link = running.links[part];
            if link == NONE {
                let number = self.shard_number(&asker, shard);
                let opened = self.open_for_operation(number, asker.lane, (index, generation, part));
                let Ok(opened) = opened else {
                    // It finds out at its first call, and gives up.
                    return self.advance(index, Event::Begin);
                };
                link = opened;
                if let Some(running) = self.cross_shards.running.get_mut(index) {
                    running.links[part] = opened;
                }
            }
            let link = self.links.get(link);
            are_up &= link.is_some_and(|link| link.state == LinkState::Up);
        }
        if are_up {
            self.advance(index, Event::Begin);
        }
    }

    /// A connection has joined: it may be the one that an operation waited for.
    pub(crate) fn operation_link_is_up(&mut self, id: u32) {
        let owner = self.links.get(id).map(|link| link.owner);
        if let Some(Owner::Operation {
            index, generation, ..
        }) = owner
        {
            if self
                .cross_shards
                .running
                .get_same(index, generation)
                .is_some()
            {
                self.begin_when_connected(index);
                self.settle_notes();
            }
        }
    }

    /// Sends a call to a part's shard; the part, if that cannot be done.
    fn call_part(
        &mut self,
        index: u32,
        part: usize,
        call: Call,
        may_be_new: bool,
    ) -> Option<usize> {
        let generation = self.cross_shards.running.generation(index);
        let running = self.cross_shards.running.get_mut(index)?;
        let mut link_id = running.links[part];
        if link_id == NONE {
            if !may_be_new {
                return Some(part);
            }
            let shard = running.job.shards[part];
            let (asker, lane) = (running.job.asker, running.job.asker.lane);
            let number = self.shard_number(&asker, shard);
            let Ok(opened) = self.open_for_operation(number, lane, (index, generation, part))
            else {
                return Some(part);
            };
            link_id = opened;
        }
        let mut bytes = Vec::new();
        let left = wire::encode(&call, &mut bytes);
        let running = self.cross_shards.running.get_mut(index)?;
        running.links[part] = link_id;
        match &call {
            Call::Prepare(prepare) => running.is_watching |= prepare.is_home,
            Call::Commit(_) => running.is_watching = false,
            _ => {}
        }
        running.asked[part] = Some(Asked {
            call,
            left,
            bytes: Vec::new(),
        });
        let (now_us, now_ms) = (self.now_us, self.now_ms);
        let link = self.links.get_mut(link_id)?;
        link.outgoing().push_owned(bytes);
        for _ in 0..left {
            let entry = InFlight {
                client: index,
                generation,
                number: 0,
                sent_us: now_us as u32,
                part: part as u16,
                waiter: Waiter::Operation,
            };
            link.await_reply(entry, now_ms);
        }
        self.touch_link(link_id);
        None
    }

    /// A piece of a reply to an operation's call.
    pub(crate) fn operation_replied(&mut self, entry: &InFlight, bytes: &[u8], done: bool) {
        let part = usize::from(entry.part);
        if part >= WATCHING {
            // Two short replies; that of EXEC is never cut, but what is not seen whole counts as changed.
            return self.watch_validated(entry, bytes);
        }
        let running = self
            .cross_shards
            .running
            .get_same(entry.client, entry.generation);
        let Some(asked) = running.and_then(|running| running.asked.get_mut(part)) else {
            return;
        };
        let Some(waited) = asked else {
            return;
        };
        waited.bytes.extend_from_slice(bytes);
        if !done {
            return;
        }
        waited.left = waited.left.saturating_sub(1);
        if waited.left > 0 {
            return;
        }
        if let Some(asked) = asked.take() {
            let outcome = wire::decode(&asked.call, &asked.bytes);
            if let (Call::Apply { tx, .. }, Outcome::Failed(error)) = (&asked.call, &outcome) {
                self.report_late(tx, error);
            }
            self.advance(entry.client, Event::Outcome(part, outcome));
            self.settle_notes();
        }
    }

    /// What is decided cannot be done on a shard yet.
    fn report_late(&mut self, tx: &Tx, error: &[u8]) {
        let fields = vec![
            ("operation", tx.0.to_string()),
            ("reason", crate::error::printable(error)),
        ];
        self.event(Level::Warning, "cross-shard-late", fields);
    }

    /// An operation's connection is gone.
    pub(crate) fn operation_lost(&mut self, index: u32, generation: u32, part: usize) {
        let running = self.cross_shards.running.get_same(index, generation);
        let Some(running) = running else {
            return;
        };
        if part >= WATCHING {
            self.advance(index, Event::Validated(false));
            return self.settle_notes();
        }
        running.links[part] = NONE;
        if running.operation.phase() == Phase::Locking {
            // It had not begun: it finds out at its first call, and gives up.
            self.advance(index, Event::Begin);
            return self.settle_notes();
        }
        let was_asked = running.asked[part].take().is_some();
        // What is over does not miss it.
        if was_asked || running.operation.phase() != Phase::Finishing {
            self.advance(index, Event::Lost(part));
            self.settle_notes();
        }
    }

    /// The operation is over, here: its connections go back.
    fn end_running(&mut self, index: u32) {
        let Some(running) = self.cross_shards.running.remove(index) else {
            return;
        };
        self.cross_shards.by_tx.remove(&running.operation.plan().tx);
        self.end_job_watches(&running.job, running.was_validated);
        let home = running.job.home;
        for (part, link) in running.links.iter().enumerate() {
            let owes = running.asked[part].is_some();
            let watches = running.is_watching && part == home;
            if *link != NONE {
                self.give_back(*link, !owes && !watches);
            }
        }
    }
}

/// Whether a server of one dump version takes what another dumps. From 12 to 79 are Redis' own since it left the BSD licence, and
/// 80 on are Valkey's; neither takes the other's.
fn takes(target: u16, source: u16) -> bool {
    source == target || (source < target && (source < 12 || target < 80))
}

/// The protocol's version and a digest of where keys are.
fn terms(space: &Keyspace) -> Arc<str> {
    let digest = sha1_smol::Sha1::from(space.map_text()).digest().to_string();
    format!("{}.{}", wire::VERSION, digest.get(..12).unwrap_or_default()).into()
}
