//! What workers of one process tell each other about operations across shards, and what each does at once.
//!
//! Owns: `Note`, and the queue in which a worker's own are done.
//!
//! Flow: the coordinating worker asks worker 0 for the keys (`Lock`) -> granted, worker 0 tells every worker to hold them back
//! (`Fence`) -> each does so at once and, when everything that it had sent to those shards before is answered, says `Drained` ->
//! the operation begins. At its end every worker hears `Lift`, and worker 0 `Unlock`.
//!
//! Must stay true: a worker installs a fence before it looks what is in flight, so nothing slips between; notes for this worker
//! are done in order, after what is being done now, never within it; what was sent on a connection that is lost counts as sent until
//! the shard has confirmed that the connection is dead.
//! Rejected: a shared table with a lock: the hot path would have to look at it.

use crate::session::client::{care, Intake};
use crate::session::cross_shard::call::{Pid, Record, Tx};
use crate::session::cross_shard::jobs::Job;
use crate::session::cross_shard::member;
use crate::session::cross_shard::recovery::Subject;
use crate::session::cross_shard::registrar::Claims;
use crate::session::cross_shard::steps::Event;
use crate::session::engine::{Action, Engine, Level};
use crate::session::mail::Mail;

/// See the head of this file.
#[derive(Debug, Clone)]
pub enum Note {
    /// To worker 0: an operation of that worker wants keys of a keyspace (by index).
    Lock {
        /// Whose.
        tx: Tx,
        /// Where.
        keyspace: usize,
        /// What.
        claims: Claims,
        /// The coordinating worker.
        worker: usize,
    },
    /// To worker 0: it needs them no more.
    Unlock {
        /// Whose.
        tx: Tx,
        /// Where.
        keyspace: usize,
    },
    /// To worker 0: it will not be done; what may be held back for it goes on.
    Withdraw {
        /// Whose.
        tx: Tx,
        /// Where.
        keyspace: usize,
    },
    /// To worker 0: that worker holds keys back for these, and has for long. Are they still about?
    Doubt {
        /// Whose.
        txs: Vec<Tx>,
        /// Where.
        keyspace: usize,
        /// Who asks.
        worker: usize,
    },
    /// To everybody: hold these back, and tell that worker when everything before is answered.
    Fence {
        /// Whose.
        tx: Tx,
        /// Where.
        keyspace: usize,
        /// What.
        claims: Claims,
        /// Who is told.
        worker: usize,
    },
    /// To the worker that asked: this one has drained.
    Drained(Tx),
    /// To everybody: hold back no longer.
    Lift {
        /// Whose.
        tx: Tx,
        /// Where.
        keyspace: usize,
    },
    /// To worker 0: recovery shall find out about an operation of this process. Whether it is sure that it was not done.
    TakeOver(usize, Box<Subject>, bool),
    /// To worker 0: a connection to that shard (numbered through the topology) was told of these.
    Found(usize, Vec<Record>),
    /// To worker 0: enter this proxy in the list of that shard again (numbered through the topology).
    Register(usize),
    /// To a coordinating worker: a member holds back what its operation claims of a shard.
    Fenced {
        /// Whose.
        tx: Tx,
        /// Numbered through the topology.
        shard: usize,
        /// Who.
        pid: Pid,
    },
    /// An operation is begun again.
    Begin(Box<Job>),
    /// Something has happened to an operation of this worker (place and generation).
    Event(u32, u32, Box<Event>),
}

impl Engine {
    /// Tells a worker; this one too is told only after what is being done now.
    pub(crate) fn post(&mut self, worker: usize, note: Note) {
        if worker == self.identity.worker {
            self.cross_shards.notes.push_back(note);
        } else {
            self.actions
                .push(Action::Mail(worker, Mail::CrossShard(Box::new(note))));
        }
    }

    /// Does what there is to be done, until nothing is left. Called at the end of whatever may have posted something.
    pub(crate) fn settle_notes(&mut self) {
        if std::mem::replace(&mut self.cross_shards.is_settling, true) {
            return;
        }
        loop {
            if let Some(note) = self.cross_shards.notes.pop_front() {
                self.note(note);
            } else if let Some(parked) = self.cross_shards.unparked.pop_front() {
                let client = self.clients.get_same(parked.slot, parked.generation);
                match client.map(|client| client.intake) {
                    Some(Intake::Fenced) => self.open_intake(parked.slot),
                    Some(Intake::Blocked) => self.let_wait_go_on(parked.slot),
                    _ => {}
                }
            } else {
                break;
            }
        }
        self.cross_shards.is_settling = false;
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Lock {
                tx,
                keyspace,
                claims,
                worker,
            } => self.lock_keys(&tx, keyspace, claims, worker),
            Note::Unlock { tx, keyspace } => self.unlock_keys(&tx, keyspace),
            Note::Withdraw { tx, keyspace } => {
                self.lift_everywhere(&tx, keyspace);
                self.unlock_keys(&tx, keyspace);
            }
            Note::Doubt {
                txs,
                keyspace,
                worker,
            } => self.resolve_doubts(txs, keyspace, worker),
            Note::Fence {
                tx,
                keyspace,
                claims,
                worker,
            } => self.install_fence(tx, keyspace, &claims, worker),
            Note::Drained(tx) => self.worker_drained(&tx),
            Note::Lift { tx, keyspace } => self.lift_fence(&tx, keyspace),
            Note::TakeOver(keyspace, subject, is_undone) => {
                self.take_over(keyspace, *subject, is_undone);
            }
            Note::Register(shard) => self.ask_records(shard),
            Note::Found(shard, records) => self.records_found(shard, records),
            Note::Fenced { tx, shard, pid } => self.member_fenced(&tx, shard, pid),
            Note::Begin(job) => self.begin_job(*job),
            Note::Event(index, generation, event) => {
                if self.cross_shards.running.generation(index) == generation {
                    self.advance(index, *event);
                }
            }
        }
    }

    // ----------------------------------------------------------------------------------------------------- worker 0

    fn lock_keys(&mut self, tx: &Tx, keyspace: usize, claims: Claims, worker: usize) {
        let mut granted = Vec::new();
        self.cross_shards
            .askers
            .insert(tx.clone(), (worker, claims.clone()));
        let table = &mut self.cross_shards.tables[keyspace];
        table.lock(tx, &claims, true, &mut granted);
        self.granted(keyspace, granted);
    }

    pub(crate) fn unlock_keys(&mut self, tx: &Tx, keyspace: usize) {
        let mut granted = Vec::new();
        if self.cross_shards.askers.remove(tx).is_some() {
            self.tell_member(keyspace, member::Event::Ended(tx.clone()));
        }
        self.cross_shards.tables[keyspace].unlock(tx, &mut granted);
        self.granted(keyspace, granted);
    }

    /// Behind whatever this worker has told them of it before.
    fn lift_everywhere(&mut self, tx: &Tx, keyspace: usize) {
        for worker in 0..self.identity.workers {
            let tx = tx.clone();
            self.post(worker, Note::Lift { tx, keyspace });
        }
    }

    /// What nobody has in the table is over: a word of its end was lost, or came before that of its beginning.
    fn resolve_doubts(&mut self, txs: Vec<Tx>, keyspace: usize, worker: usize) {
        for tx in txs {
            if !self.cross_shards.tables[keyspace].knows(&tx) {
                let fields = vec![("operation", tx.0.to_string())];
                self.event(Level::Warning, "cross-shard-forgotten", fields);
                self.post(worker, Note::Lift { tx, keyspace });
            }
        }
    }

    /// Asks about what is held back for long.
    pub(crate) fn doubt_old_fences(&mut self) {
        let worker = self.identity.worker;
        for keyspace in 0..self.cross_shards.fences.len() {
            let txs = self.cross_shards.fences[keyspace].grow_old();
            if !txs.is_empty() {
                self.post(
                    0,
                    Note::Doubt {
                        txs,
                        keyspace,
                        worker,
                    },
                );
            }
        }
    }

    /// These have their keys now.
    pub(crate) fn granted(&mut self, keyspace: usize, granted: Vec<Tx>) {
        for tx in granted {
            if self.remote_moved(&tx, false) {
                continue;
            }
            let Some((worker, claims)) = self.cross_shards.askers.get(&tx).cloned() else {
                continue;
            };
            self.tell_member(keyspace, member::Event::Began(tx.clone()));
            for to in 0..self.identity.workers {
                let (tx, claims) = (tx.clone(), claims.clone());
                self.post(
                    to,
                    Note::Fence {
                        tx,
                        keyspace,
                        claims,
                        worker,
                    },
                );
            }
        }
    }

    // ------------------------------------------------------------------------------------------------- every worker

    fn install_fence(&mut self, tx: Tx, keyspace: usize, claims: &Claims, worker: usize) {
        self.cross_shards.fences[keyspace].install(&tx, claims);
        self.care |= care::FENCED;
        self.begin_drain(tx, keyspace, claims, worker);
    }

    fn worker_drained(&mut self, tx: &Tx) {
        if self.remote_moved(tx, true) {
            return;
        }
        let Some(&index) = self.cross_shards.by_tx.get(tx) else {
            return;
        };
        if let Some(running) = self.cross_shards.running.get_mut(index) {
            running.drained += 1;
            if running.drained == self.identity.workers {
                self.begin_when_connected(index);
            }
        }
    }

    /// Another proxy holds back what an operation of this worker claims.
    fn member_fenced(&mut self, tx: &Tx, shard: usize, pid: Pid) {
        let Some(&index) = self.cross_shards.by_tx.get(tx) else {
            return;
        };
        let Some(running) = self.cross_shards.running.get(index) else {
            return;
        };
        let first = self.topology.keyspaces[running.job.asker.keyspace].first_shard;
        let within = shard.wrapping_sub(first);
        let mut shards = running.job.shards.iter();
        if let Some(part) = shards.position(|&own| usize::from(own) == within) {
            self.advance(index, Event::Fenced(part, pid));
        }
    }

    fn lift_fence(&mut self, tx: &Tx, keyspace: usize) {
        let parked = self.cross_shards.fences[keyspace].lift(tx);
        self.cross_shards.unparked.extend(parked);
        self.cross_shards.drains.retain(|drain| drain.tx != *tx);
        if self
            .cross_shards
            .fences
            .iter()
            .all(|fences| fences.is_empty())
        {
            self.care &= !care::FENCED;
        }
        self.do_late(tx);
    }
}
