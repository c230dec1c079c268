//! What the machines of a proxy want done, and what may go on now.

use super::{Around, Flight, Link, Proxy, Running, Told, WORKERS};
use crate::holds::{held, Hold};
use crate::language::decode_reply;
use crate::shard::{index, name};
use crate::wires::{Id, Tag, What};
use shoal_core::session::cross_shard::call::{Call, Pid, Tx};
use shoal_core::session::cross_shard::member;
use shoal_core::session::cross_shard::message::Message;
use shoal_core::session::cross_shard::operation::Operation;
use shoal_core::session::cross_shard::recovery::{self, Recovery, Subject};
use shoal_core::session::cross_shard::steps::{Answer, Event, Part, Phase, Plan, Step};
use std::sync::Arc;

/// An operation that met another is begun again so often.
const TRIES: usize = 3;

impl Proxy {
    // ------------------------------------------------------------------------------------------------- the member

    pub(super) fn member(&mut self, event: member::Event, around: &mut Around) {
        let mut steps = Vec::new();
        self.member.after(event, around.now_ms, &mut steps);
        for step in steps {
            match step {
                member::Step::Join(shard) => {
                    let pid = self.pid.clone();
                    let what = What::Call(Call::Join {
                        pid,
                        terms: "".into(),
                    });
                    if !self.say(shard, Tag::Member, what, around) {
                        self.member(member::Event::Down(shard), around);
                    }
                }
                member::Step::Lock(shard, claim) => {
                    let keys = claim.keys.iter().map(|(key, mode)| (key[0], *mode));
                    self.holds.holds.push(Hold {
                        tx: claim.tx.clone(),
                        shard,
                        is_own: false,
                        keys: held(claim.scope, keys),
                        since: self.sequence,
                        is_lifted: !around.rules.fence,
                        is_drained: false,
                    });
                }
                member::Step::Unlock(shard, tx) => self.holds.remove(&tx, Some(shard)),
                member::Step::Publish(shard, to, message) => {
                    let tag = match &message {
                        Message::Ask { tx } => Tag::Asked(tx.clone()),
                        _ => Tag::Nobody,
                    };
                    self.say(shard, tag, What::Publish(to, message), around);
                }
                member::Step::Recover(subject, is_own) => self.recover(subject, is_own, around),
            }
        }
    }

    /// Over the connection that hears messages.
    fn say(&mut self, shard: usize, tag: Tag, what: What, around: &mut Around) -> bool {
        let link = self.control[shard].filter(|link| link.is_ready);
        link.is_some_and(|link| around.wires.send(link.id, tag, what))
    }

    // ------------------------------------------------------------------------------------------------- recoveries

    fn recover(&mut self, subject: Subject, is_own: bool, around: &mut Around) {
        let tx = subject.tx.clone();
        if self.recoveries.contains_key(&tx) {
            return;
        }
        if !around.rules.home_first {
            for shard in subject.shards.iter().skip(1) {
                let what = What::Call(Call::Release { tx: tx.clone() });
                self.say(index(shard), Tag::Nobody, what, around);
            }
        }
        let is_own = is_own || !around.rules.evict;
        self.begin_recovery(Recovery::new(subject, is_own), around);
    }

    fn begin_recovery(&mut self, recovery: Recovery, around: &mut Around) {
        let tx = recovery.subject().tx.clone();
        if self.recoveries.contains_key(&tx) {
            return;
        }
        self.recoveries.insert(tx.clone(), recovery);
        self.recovery(&tx, recovery::Event::Begin, around);
    }

    pub(super) fn recovery(&mut self, tx: &Tx, event: recovery::Event, around: &mut Around) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let Some(recovery) = self.recoveries.get_mut(tx) else {
                return;
            };
            let mut steps = Vec::new();
            recovery.after(event, around.now_ms, &mut steps);
            let shards = recovery.subject().shards.clone();
            for step in steps {
                match step {
                    recovery::Step::Call(at, call) => {
                        let tag = Tag::Recovery(tx.clone(), at);
                        if !self.say(index(&shards[at]), tag, What::Call(call), around) {
                            events.push(recovery::Event::Lost(at));
                        }
                    }
                    recovery::Step::Over(_) => {
                        self.recoveries.remove(tx);
                        *around.recovered += 1;
                        if self.running.remove(tx).is_some() {
                            self.holds.remove(tx, None);
                        }
                        self.member(member::Event::Ended(tx.clone()), around);
                    }
                }
            }
        }
    }

    // ------------------------------------------------------------------------------------------------- operations

    pub(super) fn operation(&mut self, tx: &Tx, event: Event, around: &mut Around) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let Some(running) = self.running.get_mut(tx) else {
                return;
            };
            let mut steps = Vec::new();
            running.operation.after(event, around.now_ms, &mut steps);
            let is_fenced = matches!(
                running.operation.phase(),
                Phase::Gathering | Phase::Committing | Phase::Applying
            );
            if is_fenced {
                around.fenced.insert(tx.clone());
            }
            for step in steps {
                events.extend(self.step(tx, step, around));
            }
        }
    }

    /// What happens because of it at once.
    fn step(&mut self, tx: &Tx, step: Step, around: &mut Around) -> Option<Event> {
        match step {
            Step::Call(part, call) => {
                let is_first = matches!(call, Call::Apply { .. });
                let link = self.link_of(tx, part, around);
                self.sent.insert((tx.clone(), part), call.clone());
                let tag = Tag::Part(tx.clone(), part);
                if !link.is_some_and(|id| around.wires.send(id, tag, What::Call(call))) {
                    return Some(Event::Lost(part));
                }
                if is_first && !around.rules.clean_last {
                    self.clean(tx, around);
                }
            }
            Step::CallAnew(part, call) => {
                let shard = self.running.get(tx)?.shards[part];
                let tag = Tag::Part(tx.clone(), part);
                if !self.say(shard, tag, What::Call(call), around) {
                    return Some(Event::Lost(part));
                }
            }
            Step::Validate => {
                return Some(Event::Validated(!around.chance.one_in(3)));
            }
            Step::Answer(answer) => self.answer(tx, answer, around),
            Step::Lift => {
                around.fenced.remove(tx);
                let own = self.holds.holds.iter_mut().filter(|hold| hold.tx == *tx);
                own.for_each(|hold| hold.is_lifted = true);
            }
            Step::Unlock | Step::Withdraw => {
                self.holds.remove(tx, None);
                if let Some(running) = self.running.remove(tx) {
                    self.keep(&running, around);
                }
                self.member(member::Event::Ended(tx.clone()), around);
            }
            Step::HandOver { is_undone } => self.hand_over(tx, is_undone, around),
        }
        None
    }

    /// What rule R8 forbids: the decision goes though not all have applied.
    fn clean(&mut self, tx: &Tx, around: &mut Around) {
        let Some(running) = self.running.get(tx) else {
            return;
        };
        let home = running.operation.plan().home;
        if let Some(link) = running.links[home] {
            let what = What::Call(Call::Clean { tx: tx.clone() });
            around.wires.send(link.id, Tag::Nobody, what);
        }
    }

    fn link_of(&mut self, tx: &Tx, part: usize, around: &mut Around) -> Option<Id> {
        let running = self.running.get(tx)?;
        if running.links[part].is_none() {
            let link = self.connect(running.shards[part], false, around);
            self.running.get_mut(tx)?.links[part] = Some(link);
        }
        self.running.get(tx)?.links[part].map(|link| link.id)
    }

    fn answer(&mut self, tx: &Tx, answer: Answer, around: &mut Around) {
        let Some(running) = self.running.get(tx) else {
            return;
        };
        let (client, number, tries) = (running.client, running.number, running.tries);
        let told = match answer {
            Answer::Done(replies) => Told::Done(decode_reply(&replies)),
            Answer::Unknown => Told::Unknown,
            Answer::Conflict if tries < TRIES => {
                self.waiting.push_back((client, number, tries + 1));
                return;
            }
            _ => Told::NotDone,
        };
        around.told.push((client, told));
    }

    /// Connections of an operation that is over serve the next.
    fn keep(&mut self, running: &Running, around: &mut Around) {
        for (shard, link) in running.shards.iter().zip(&running.links) {
            let Some(link) = link else {
                continue;
            };
            let is_kept = around.chance.one_in(2);
            if is_kept && around.wires.send(link.id, Tag::Nobody, What::Unwatch) {
                self.idle.push((*shard, link.id));
            } else {
                around.wires.close(link.id);
            }
        }
    }

    fn hand_over(&mut self, tx: &Tx, is_undone: bool, around: &mut Around) {
        let Some(running) = self.running.get_mut(tx) else {
            return;
        };
        let plan = running.operation.plan();
        let others = plan
            .parts
            .iter()
            .filter(|part| part.shard != plan.parts[plan.home].shard);
        let home = std::iter::once(&plan.parts[plan.home]);
        let subject = Subject {
            tx: tx.clone(),
            coordinator: self.pid.clone(),
            shards: home.chain(others).map(|part| part.shard.clone()).collect(),
        };
        for link in running.links.iter_mut().filter_map(Option::take) {
            around.wires.close(link.id);
        }
        self.member(member::Event::HandedOver(tx.clone()), around);
        if is_undone {
            self.holds.remove(tx, None);
            around.fenced.remove(tx);
            let recovery = Recovery::undone(subject);
            self.begin_recovery(recovery, around);
        } else {
            self.recover(subject, true, around);
        }
    }

    // ------------------------------------------------------------------------------------------------- what may go on

    fn connect(&mut self, shard: usize, is_control: bool, around: &mut Around) -> Link {
        let id = around.wires.connect(&self.pid, self.slot, shard);
        let pid = self.pid.clone();
        let naming = (Tag::Nobody, What::Name(pid.clone()));
        let joining = (
            Tag::Link,
            What::Call(Call::Join {
                pid,
                terms: "".into(),
            }),
        );
        let orders = match (is_control, around.rules.named_first) {
            (true, _) => vec![naming, (Tag::Link, What::Subscribe)],
            (false, true) => vec![naming, joining],
            // The name follows when the answer has come; see `is_ready`.
            (false, false) => vec![joining],
        };
        for (tag, what) in orders {
            around.wires.send(id, tag, what);
        }
        Link {
            id,
            is_ready: false,
        }
    }

    pub fn pump(&mut self, around: &mut Around) {
        for shard in 0..around.shards {
            if self.control[shard].is_none() {
                self.control[shard] = Some(self.connect(shard, true, around));
            }
            for worker in 0..WORKERS {
                if self.data[shard][worker].is_none() {
                    self.data[shard][worker] = Some(self.connect(shard, false, around));
                }
            }
        }
        self.look_whether_drained(around);
        self.begin(around);
        for _ in 0..self.waiting.len() {
            let Some((client, number, tries)) = self.waiting.pop_front() else {
                break;
            };
            if !self.send(client, number, tries, around) {
                self.waiting.push_back((client, number, tries));
            }
        }
    }

    fn look_whether_drained(&mut self, around: &mut Around) {
        let rules = around.rules;
        let mut drained = Vec::new();
        let mut ends = Vec::new();
        for (at, hold) in self.holds.holds.iter().enumerate() {
            let is_before =
                |(shard, sequence): (usize, u64)| shard == hold.shard && sequence <= hold.since;
            let mut flights = self.flights.values();
            let under_way = flights.any(|flight| is_before((flight.shard, flight.sequence)));
            let dead = self.dead.iter().filter(|(_, dead)| is_before(**dead));
            let dead: Vec<(usize, Id)> = dead.map(|(id, _)| (hold.shard, *id)).collect();
            let is_stopped = (under_way && rules.drained) || (!dead.is_empty() && rules.confirmed);
            if !hold.is_drained && !is_stopped && (hold.is_own || !self.holds.is_taken(hold)) {
                drained.push(at);
            }
            ends.extend(dead.into_iter().filter(|_| rules.confirmed));
        }
        for (shard, id) in ends {
            if !self.ending.contains(&id) && self.say(shard, Tag::End(id), What::End(id), around) {
                self.ending.insert(id);
            }
        }
        for at in drained {
            let Some(hold) = self.holds.holds.get_mut(at) else {
                continue;
            };
            hold.is_drained = true;
            if !hold.is_own {
                let event = member::Event::Drained(hold.shard, hold.tx.clone());
                self.member(event, around);
            }
        }
    }

    /// Operations that have their keys and their connections.
    fn begin(&mut self, around: &mut Around) {
        for tx in self.running.keys().cloned().collect::<Vec<_>>() {
            let Some(running) = self.running.get_mut(&tx) else {
                continue;
            };
            let mut holds = self.holds.holds.iter().filter(|hold| hold.tx == tx);
            let is_drained = holds.all(|hold| hold.is_drained);
            let is_connected = running
                .links
                .iter()
                .all(|link| link.is_some_and(|link| link.is_ready));
            let may_begin = is_connected || !around.rules.all_wires;
            if !running.has_begun && is_drained && may_begin {
                running.has_begun = true;
                self.member(member::Event::Began(tx.clone()), around);
                self.operation(&tx, Event::Begin, around);
            } else if !running.has_begun {
                // One that was lost before anything was asked on it.
                for part in 0..running.links.len() {
                    let link = self.running.get(&tx).and_then(|one| one.links[part]);
                    let is_lost = link.is_some_and(|link| !around.wires.is_open(link.id));
                    if is_lost {
                        let shard = self.running.get(&tx).map_or(0, |one| one.shards[part]);
                        let link = self.connect(shard, false, around);
                        self.running
                            .entry(tx.clone())
                            .and_modify(|one| one.links[part] = Some(link));
                    }
                }
            }
        }
    }

    /// Whether it went anywhere.
    fn send(&mut self, client: usize, number: usize, tries: usize, around: &mut Around) -> bool {
        let op = &around.asked[number];
        let shards = op
            .keys()
            .into_iter()
            .map(|(key, _, _)| key as usize % around.shards);
        let mut shards: Vec<usize> = shards.collect();
        shards.sort_unstable();
        shards.dedup();
        if shards.len() > 1 {
            return self.start(client, number, tries, shards, around);
        }
        let link = self.data[shards[0]][client % WORKERS].filter(|link| link.is_ready);
        let Some(link) = link.filter(|_| !self.holds.stop(op)) else {
            return false;
        };
        let flight = Flight {
            shard: shards[0],
            sequence: self.sequence + 1,
        };
        if !around
            .wires
            .send(link.id, Tag::Client(client), What::Request(number))
        {
            return false;
        }
        self.sequence += 1;
        self.flights.insert(client, flight);
        true
    }

    fn start(
        &mut self,
        client: usize,
        number: usize,
        tries: usize,
        shards: Vec<usize>,
        around: &mut Around,
    ) -> bool {
        let op = &around.asked[number];
        if self.holds.meet(op) {
            return false;
        }
        self.operations += 1;
        let tx = Tx(Arc::from(
            format!("{}-{}", self.pid.0, self.operations).as_str(),
        ));
        let home = around.chance.below(shards.len());
        let parts: Vec<Part> = shards
            .iter()
            .enumerate()
            .map(|(at, shard)| Part {
                shard: name(*shard),
                scope: op.scope(),
                keys: op.claims(*shard, around.shards, at == home),
            })
            .collect();
        for (shard, part) in shards.iter().zip(&parts) {
            self.holds.holds.push(Hold {
                tx: tx.clone(),
                shard: *shard,
                is_own: true,
                keys: held(
                    part.scope,
                    part.keys.iter().map(|claim| (claim.key[0], claim.mode)),
                ),
                since: self.sequence,
                is_lifted: !around.rules.fence,
                is_drained: false,
            });
        }
        let plan = Plan {
            tx: tx.clone(),
            pid: Pid(self.pid.0.clone()),
            parts,
            home,
            requests: (number as u64).to_le_bytes().as_slice().into(),
            count: 1,
            redo: op.redo(),
            watches: around.chance.one_in(8),
            is_careful: tries > 0 || around.careful,
        };
        let links = shards
            .iter()
            .map(|shard| self.link_for(*shard, around))
            .collect();
        let running = Running {
            operation: Operation::new(plan),
            client,
            number,
            tries,
            shards,
            links,
            has_begun: false,
        };
        self.running.insert(tx, running);
        true
    }

    fn link_for(&mut self, shard: usize, around: &mut Around) -> Option<Link> {
        let idle = self.idle.iter().position(|(at, _)| *at == shard);
        if let Some(at) = idle {
            let (_, id) = self.idle.remove(at);
            return Some(Link { id, is_ready: true });
        }
        around
            .rules
            .all_wires
            .then(|| self.connect(shard, false, around))
    }
}
