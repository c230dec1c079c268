//! What worker 0 does about operations of other proxies, and about those that nobody drives any more.
//!
//! Owns: the engine's side of `Member` and `Recovery`: their steps, and what is held back for others (`Remote`).
//!
//! Flow: `Member` wants a claim held back -> every worker fences it at once, and the lock table puts it ahead of whoever waits ->
//! no operation of this process has the keys and all workers have drained: `Drained`. A recovery's calls go out on the control
//! connections; at its end a handed-over operation's own fence is lifted.
//!
//! Must stay true: what is held back for a record of one shard ends with that record, not with another shard's.
//! Rejected: a table of its own for others' claims: an operation of this process must not run on keys that it has acknowledged.

use crate::session::cross_shard::call::{Call, Outcome, Record, Tx};
use crate::session::cross_shard::control::Question;
use crate::session::cross_shard::member::{Claim, Event, Step};
use crate::session::cross_shard::notes::Note;
use crate::session::cross_shard::recovery::{self, Recovery, Subject};
use crate::session::cross_shard::registrar::{Claims, ShardClaims};
use crate::session::cross_shard::wire;
use crate::session::engine::{Engine, Level};
use crate::session::stats::PerKeyspace;
use std::sync::Arc;

/// Something that is held back for a record of another proxy's.
#[derive(Debug)]
pub struct Remote {
    tx: Tx,
    /// Numbered through the topology.
    shard: usize,
    /// Workers that have drained.
    drained: usize,
    is_granted: bool,
    is_told: bool,
}

/// A recovery that runs.
#[derive(Debug)]
pub struct Recovering {
    recovery: Recovery,
    keyspace: usize,
    number: u64,
    is_own: bool,
}

/// By what name the tables know the claim of one record: each shard's ends by itself.
pub(crate) fn name_on(tx: &Tx, shard: usize) -> Tx {
    Tx(format!("{}@{shard}", tx.0).into())
}

impl Engine {
    /// Tells the member of a shard's keyspace; shards are numbered within it there.
    pub(crate) fn member_event(&mut self, shard: usize, event: impl FnOnce(usize) -> Event) {
        let keyspace = self.backends[shard].keyspace;
        let first = self.topology.keyspaces[keyspace].first_shard;
        self.tell_member(keyspace, event(shard - first));
    }

    /// Tells a keyspace's member, and does what it wants.
    pub(crate) fn tell_member(&mut self, keyspace: usize, event: Event) {
        let mut steps = Vec::new();
        let now_ms = self.now_ms;
        self.cross_shards.members[keyspace].after(event, now_ms, &mut steps);
        let first = self.topology.keyspaces[keyspace].first_shard;
        for step in steps {
            match step {
                Step::Join(shard) => self.ask_records(first + shard),
                Step::Lock(shard, claim) => self.hold_for_remote(keyspace, first + shard, claim),
                Step::Unlock(shard, tx) => self.let_go_remote(keyspace, first + shard, &tx),
                Step::Publish(shard, to, message) => {
                    self.publish_control(first + shard, to, message);
                }
                Step::Recover(subject, is_own) => {
                    let recovery = Recovery::new(subject, is_own);
                    self.begin_recovery(keyspace, recovery, is_own);
                }
            }
        }
    }

    /// Records that a connection of some worker was told of.
    pub(crate) fn records_found(&mut self, shard: usize, records: Vec<Record>) {
        self.member_event(shard, |shard| Event::Found(shard, records));
    }

    // ------------------------------------------------------------------------------------------- claims of others

    fn hold_for_remote(&mut self, keyspace: usize, shard: usize, claim: Claim) {
        let first = self.topology.keyspaces[keyspace].first_shard;
        let claims: Claims = Arc::new([ShardClaims {
            shard: (shard - first) as u16,
            scope: claim.scope,
            keys: claim.keys,
        }]);
        let name = name_on(&claim.tx, shard);
        self.cross_shards.remotes.insert(
            name.clone(),
            Remote {
                tx: claim.tx,
                shard,
                drained: 0,
                is_granted: false,
                is_told: false,
            },
        );
        for worker in 0..self.identity.workers {
            let (tx, claims) = (name.clone(), claims.clone());
            self.post(
                worker,
                Note::Fence {
                    tx,
                    keyspace,
                    claims,
                    worker: 0,
                },
            );
        }
        let mut granted = Vec::new();
        self.cross_shards.tables[keyspace].lock_ahead(&name, &claims, &mut granted);
        self.granted(keyspace, granted);
    }

    fn let_go_remote(&mut self, keyspace: usize, shard: usize, tx: &Tx) {
        let name = name_on(tx, shard);
        self.cross_shards.remotes.remove(&name);
        for worker in 0..self.identity.workers {
            let tx = name.clone();
            self.post(worker, Note::Lift { tx, keyspace });
        }
        self.unlock_keys(&name, keyspace);
    }

    /// Something has moved for a claim of another proxy's; false when it is none.
    pub(crate) fn remote_moved(&mut self, name: &Tx, has_drained: bool) -> bool {
        let workers = self.identity.workers;
        let Some(remote) = self.cross_shards.remotes.get_mut(name) else {
            return false;
        };
        if has_drained {
            remote.drained += 1;
        } else {
            remote.is_granted = true;
        }
        if remote.is_granted && remote.drained >= workers && !remote.is_told {
            remote.is_told = true;
            let (tx, shard) = (remote.tx.clone(), remote.shard);
            self.member_event(shard, |shard| Event::Drained(shard, tx));
        }
        true
    }

    // -------------------------------------------------------------------------------------------------- recoveries

    /// An operation of this process does not know how it stands: its records do.
    pub(crate) fn take_over(&mut self, keyspace: usize, subject: Subject, is_undone: bool) {
        self.tell_member(keyspace, Event::HandedOver(subject.tx.clone()));
        let mut granted = Vec::new();
        self.cross_shards.tables[keyspace].give_place(&subject.tx, &mut granted);
        self.granted(keyspace, granted);
        let recovery = if is_undone {
            Recovery::undone(subject)
        } else {
            Recovery::new(subject, true)
        };
        self.begin_recovery(keyspace, recovery, true);
    }

    fn begin_recovery(&mut self, keyspace: usize, recovery: Recovery, is_own: bool) {
        let subject = recovery.subject().clone();
        let is_known = |known: &Recovering| known.recovery.subject().tx == subject.tx;
        if self.cross_shards.recoveries.iter().any(is_known) {
            return;
        }
        self.report_recovery(keyspace, &subject, "cross-shard-recovery");
        self.cross_shards.recovered += 1;
        let number = self.cross_shards.recovered;
        self.cross_shards.recoveries.push(Recovering {
            recovery,
            keyspace,
            number,
            is_own,
        });
        self.move_recovery(number, recovery::Event::Begin);
    }

    fn report_recovery(&mut self, keyspace: usize, subject: &Subject, name: &'static str) {
        let fields = vec![
            ("keyspace", self.topology.keyspaces[keyspace].name.clone()),
            ("operation", subject.tx.0.to_string()),
            ("coordinator", subject.coordinator.0.to_string()),
            ("shards", subject.shards.join(",")),
        ];
        self.event(Level::Info, name, fields);
    }

    pub(crate) fn recovery_answered(&mut self, number: u64, part: usize, outcome: Outcome) {
        self.move_recovery(number, recovery::Event::Outcome(part, outcome));
    }

    pub(crate) fn recovery_lost(&mut self, number: u64, part: usize) {
        self.move_recovery(number, recovery::Event::Lost(part));
    }

    fn move_recovery(&mut self, number: u64, event: recovery::Event) {
        let now_ms = self.now_ms;
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut all = self.cross_shards.recoveries.iter_mut();
            let Some(running) = all.find(|running| running.number == number) else {
                return;
            };
            let mut steps = Vec::new();
            running.recovery.after(event, now_ms, &mut steps);
            let called = steps.iter().find_map(|step| match step {
                recovery::Step::Call(_, Call::Resolve { .. }) => Some("recover-evicted"),
                recovery::Step::Call(_, Call::Apply { .. } | Call::Release { .. }) => {
                    Some("recover-resolved")
                }
                recovery::Step::Call(_, Call::Clean { .. }) => Some("recover-applied"),
                _ => None,
            });
            let keyspace = running.keyspace;
            let shards = running.recovery.subject().shards.clone();
            if let Some(point) = called {
                self.at_point(point, false);
            }
            for step in steps {
                match step {
                    recovery::Step::Call(part, call) => {
                        let mut words = Vec::new();
                        let left = wire::encode(&call, &mut words);
                        let question = Question::Recovery(number, part, call);
                        let shard = self.shard_named(keyspace, &shards[part]);
                        let is_sent = shard
                            .is_some_and(|shard| self.ask_control(shard, question, &words, left));
                        if !is_sent {
                            events.push(recovery::Event::Lost(part));
                        }
                    }
                    recovery::Step::Over(was_committed) => {
                        self.recovery_is_over(number, was_committed);
                        return;
                    }
                }
            }
        }
    }

    fn shard_named(&self, keyspace: usize, name: &str) -> Option<usize> {
        let space = &self.topology.keyspaces[keyspace];
        let place = space.shards.iter().position(|shard| shard.name == name)?;
        Some(space.first_shard + place)
    }

    fn recovery_is_over(&mut self, number: u64, was_committed: bool) {
        let mut all = self.cross_shards.recoveries.iter();
        let Some(at) = all.position(|running| running.number == number) else {
            return;
        };
        let running = self.cross_shards.recoveries.swap_remove(at);
        let subject = running.recovery.subject().clone();
        let name = if was_committed {
            "cross-shard-finished"
        } else {
            "cross-shard-undone"
        };
        self.report_recovery(running.keyspace, &subject, name);
        let (tx, keyspace) = (subject.tx, running.keyspace);
        let cell = PerKeyspace::OperationsRecovered;
        self.stats().keyspace(keyspace, cell, 1);
        self.tell_member(keyspace, Event::Ended(tx.clone()));
        if running.is_own {
            for worker in 0..self.identity.workers {
                let tx = tx.clone();
                self.post(worker, Note::Lift { tx, keyspace });
            }
            self.unlock_keys(&tx, keyspace);
        }
    }

    /// What time brings about on worker 0.
    pub(crate) fn look_at_members(&mut self) {
        if self.identity.worker != 0 {
            return;
        }
        self.look_at_controls();
        for keyspace in 0..self.topology.keyspaces.len() {
            if self.topology.keyspaces[keyspace].cross_shard {
                self.tell_member(keyspace, Event::Tick);
            }
        }
        let running: Vec<u64> = self
            .cross_shards
            .recoveries
            .iter()
            .map(|running| running.number)
            .collect();
        for number in running {
            self.move_recovery(number, recovery::Event::Tick);
        }
    }
}
