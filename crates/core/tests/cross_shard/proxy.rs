//! One life of one proxy: what the engine does around `Operation`, `Recovery` and `Member`, without its bytes and threads.
//!
//! Flow: the world lets it hear one thing from one connection, take a request, or look at the clock -> the machines say what is
//! to be done -> `pump` connects what is missing, says what is drained, and sends what may be sent.

mod drive;

use crate::chance::Chance;
use crate::holds::Holds;
use crate::language::{decode_reply, Op, Reply};
use crate::rules::Rules;
use crate::wires::{Heard, Id, Tag, What, Wires};
use shoal_core::session::cross_shard::call::{Call, Pid, Tx};
use shoal_core::session::cross_shard::member::{self, Member};
use shoal_core::session::cross_shard::message::Message;
use shoal_core::session::cross_shard::operation::Operation;
use shoal_core::session::cross_shard::recovery::{self, Recovery};
use shoal_core::session::cross_shard::steps::Event;
use shoal_core::session::cross_shard::steps::Phase;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const WORKERS: usize = 2;

/// What a client hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Done(Reply),
    NotDone,
    Unknown,
}

/// What a proxy sees of the world.
pub struct Around<'w> {
    pub rules: Rules,
    pub shards: usize,
    pub wires: &'w mut Wires,
    pub chance: &'w mut Chance,
    pub now_ms: u64,
    pub careful: bool,
    pub asked: &'w [Op],
    pub fenced: &'w mut BTreeSet<Tx>,
    /// Clients and what they hear.
    pub told: &'w mut Vec<(usize, Told)>,
    pub recovered: &'w mut usize,
}

/// A client's request on its way to a shard.
#[derive(Debug)]
struct Flight {
    shard: usize,
    sequence: u64,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    id: Id,
    is_ready: bool,
}

#[derive(Debug)]
struct Running {
    operation: Operation,
    client: usize,
    number: usize,
    tries: usize,
    shards: Vec<usize>,
    links: Vec<Option<Link>>,
    has_begun: bool,
}

#[derive(Debug)]
pub struct Proxy {
    pub pid: Pid,
    slot: usize,
    pub is_stopped: bool,
    member: Member,
    control: Vec<Option<Link>>,
    /// By shard and worker.
    data: Vec<Vec<Option<Link>>>,
    /// Connections of operations that are over.
    idle: Vec<(usize, Id)>,
    flights: BTreeMap<usize, Flight>,
    /// Connections lost with something unanswered: where, and what was the first of it.
    dead: BTreeMap<Id, (usize, u64)>,
    /// Those whose end was asked for.
    ending: BTreeSet<Id>,
    holds: Holds,
    sequence: u64,
    /// Clients' requests that were not sent: client, number, tries.
    waiting: VecDeque<(usize, usize, usize)>,
    running: BTreeMap<Tx, Running>,
    recoveries: BTreeMap<Tx, Recovery>,
    /// What parts of operations were asked last, and have not answered.
    sent: BTreeMap<(Tx, usize), Call>,
    operations: u64,
}

impl Proxy {
    pub fn new(pid: Pid, slot: usize, shards: usize) -> Self {
        Self {
            member: Member::new(pid.clone(), shards),
            pid,
            slot,
            is_stopped: false,
            control: vec![None; shards],
            data: vec![vec![None; WORKERS]; shards],
            idle: Vec::new(),
            flights: BTreeMap::new(),
            dead: BTreeMap::new(),
            ending: BTreeSet::new(),
            holds: Holds::default(),
            sequence: 0,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            recoveries: BTreeMap::new(),
            sent: BTreeMap::new(),
            operations: 0,
        }
    }

    /// Nothing is under way or held back.
    pub fn is_idle(&self) -> bool {
        let is_free = self.running.is_empty() && self.recoveries.is_empty();
        is_free && self.holds.holds.is_empty() && self.waiting.is_empty() && self.flights.is_empty()
    }

    /// Connections of operations that are in the middle of preparing, or of fencing and applying.
    pub fn critical(&self, is_early: bool) -> Vec<Id> {
        let running = self.running.values().filter(|one| {
            let phase = one.operation.phase();
            match is_early {
                true => phase == Phase::Preparing,
                false => matches!(phase, Phase::Fencing | Phase::Applying),
            }
        });
        let links = running.flat_map(|one| one.links.iter().flatten());
        links.map(|link| link.id).collect()
    }

    pub fn why(&self) -> String {
        let running = self.running.values();
        let phases: Vec<Phase> = running.map(|one| one.operation.phase()).collect();
        format!(
            "{:?} runs {phases:?}, recovers {:?}, holds {:?}, waiting {:?}, flights {:?}, dead {:?}",
            self.pid,
            self.recoveries.values().collect::<Vec<_>>(),
            self.holds.holds,
            self.waiting,
            self.flights,
            self.dead
        )
    }

    pub fn request(&mut self, client: usize, number: usize, around: &mut Around) {
        self.waiting.push_back((client, number, 0));
        self.pump(around);
    }

    pub fn tick(&mut self, around: &mut Around) {
        self.member(member::Event::Tick, around);
        for tx in self.running.keys().cloned().collect::<Vec<_>>() {
            self.operation(&tx, Event::Tick, around);
        }
        for tx in self.recoveries.keys().cloned().collect::<Vec<_>>() {
            self.recovery(&tx, recovery::Event::Tick, around);
        }
        self.pump(around);
    }

    // ------------------------------------------------------------------------------------------------- what is heard

    pub fn hear(&mut self, id: Id, around: &mut Around) {
        let Some(wire) = around.wires.wires.get_mut(&id) else {
            return;
        };
        let shard = wire.shard;
        let Some(heard) = wire.down.pop_front() else {
            return;
        };
        if !matches!(heard, Heard::Message(_) | Heard::Closed) {
            wire.asked.pop_front();
        }
        match heard {
            Heard::Closed => self.lose(id, around),
            Heard::Message(message) => self.message(shard, message, around),
            Heard::Outcome(Tag::Part(tx, part), outcome) => {
                self.sent.remove(&(tx.clone(), part));
                self.operation(&tx, Event::Outcome(part, outcome), around);
            }
            Heard::Outcome(Tag::Recovery(tx, at), outcome) => {
                self.recovery(&tx, recovery::Event::Outcome(at, outcome), around);
            }
            Heard::Records(Tag::Member, records) => {
                self.member(member::Event::Joined(shard, records), around);
            }
            Heard::Records(_, records) => {
                if around.rules.join_tells {
                    self.member(member::Event::Found(shard, records), around);
                }
                if !around.rules.named_first {
                    let what = What::Name(self.pid.clone());
                    around.wires.send(id, Tag::Nobody, what);
                }
                self.is_ready(id, around);
            }
            Heard::Reply(Tag::Client(client), reply) => {
                self.flights.remove(&client);
                around.told.push((client, Told::Done(decode_reply(&reply))));
            }
            Heard::Count(Tag::Asked(tx), count) => {
                self.member(member::Event::Reached(shard, tx, count), around);
            }
            Heard::Fine(Tag::End(dead)) => {
                self.dead.remove(&dead);
                self.ending.remove(&dead);
            }
            Heard::Fine(Tag::Link) => self.is_ready(id, around),
            Heard::Outcome(..) | Heard::Reply(..) | Heard::Count(..) | Heard::Fine(_) => {}
        }
        self.pump(around);
    }

    fn message(&mut self, shard: usize, message: Message, around: &mut Around) {
        if let Message::Fenced { tx, pid } = &message {
            let running = self.running.get(tx);
            let part = running.and_then(|one| one.shards.iter().position(|at| *at == shard));
            if let Some(part) = part {
                self.operation(tx, Event::Fenced(part, pid.clone()), around);
            }
        }
        self.member(member::Event::Message(shard, message), around);
    }

    /// The last order of a new connection is answered.
    fn is_ready(&mut self, id: Id, around: &mut Around) {
        let mut up = None;
        for (shard, link) in self.control.iter_mut().enumerate() {
            if let Some(link) = link.as_mut().filter(|link| link.id == id) {
                link.is_ready = true;
                up = Some(shard);
            }
        }
        let links = self.running.values_mut().flat_map(|one| &mut one.links);
        for link in links.chain(self.data.iter_mut().flatten()).flatten() {
            link.is_ready |= link.id == id;
        }
        if let Some(shard) = up {
            self.member(member::Event::Up(shard), around);
        }
    }

    /// A connection is found to be lost, or is closed.
    pub fn lose(&mut self, id: Id, around: &mut Around) {
        let Some(shard) = around.wires.wires.get(&id).map(|wire| wire.shard) else {
            return;
        };
        let tags = around.wires.close(id);
        self.idle.retain(|(_, idle)| *idle != id);
        for link in self.data.iter_mut().flatten() {
            if link.is_some_and(|link| link.id == id) {
                *link = None;
            }
        }
        let is_control = self.control[shard].is_some_and(|link| link.id == id);
        if is_control {
            self.control[shard] = None;
            self.member(member::Event::Down(shard), around);
        }
        let mut parts = Vec::new();
        for tag in tags {
            match tag {
                Tag::Client(client) => {
                    if let Some(flight) = self.flights.remove(&client) {
                        self.dead.entry(id).or_insert((shard, flight.sequence));
                    }
                    around.told.push((client, Told::Unknown));
                }
                Tag::Part(tx, part) => parts.push((tx, part)),
                Tag::Recovery(tx, at) => self.recovery(&tx, recovery::Event::Lost(at), around),
                Tag::End(dead) => drop(self.ending.remove(&dead)),
                Tag::Nobody | Tag::Link | Tag::Member | Tag::Asked(_) => {}
            }
        }
        for (tx, running) in &self.running {
            let part = |link: &Option<Link>| link.is_some_and(|link| link.id == id);
            let part = running.links.iter().position(part);
            let lost = part.map(|part| (tx.clone(), part));
            parts.extend(lost.filter(|lost| !parts.contains(lost)));
        }
        for (tx, part) in parts {
            if around.rules.give_up || !self.go_on_anew(&tx, part, id, around) {
                self.operation(&tx, Event::Lost(part), around);
            }
        }
    }

    /// What rule R9 forbids: the same over another connection.
    fn go_on_anew(&mut self, tx: &Tx, part: usize, id: Id, around: &mut Around) -> bool {
        let Some(running) = self.running.get_mut(tx) else {
            return false;
        };
        let phase = running.operation.phase();
        let is_before = matches!(
            phase,
            Phase::Preparing | Phase::Fencing | Phase::Gathering | Phase::Committing
        );
        if !is_before || running.links[part].is_none_or(|link| link.id != id) {
            return false;
        }
        let calls = running.operation.plan();
        let is_home = part == calls.home;
        let anew = around
            .wires
            .connect(&self.pid, self.slot, running.shards[part]);
        let pid = self.pid.clone();
        around
            .wires
            .send(anew, Tag::Nobody, What::Name(pid.clone()));
        around.wires.send(
            anew,
            Tag::Nobody,
            What::Call(Call::Join {
                pid,
                terms: "".into(),
            }),
        );
        if is_home && phase != Phase::Preparing {
            around
                .wires
                .send(anew, Tag::Nobody, What::Watch(tx.clone(), None));
        }
        running.links[part] = Some(Link {
            id: anew,
            is_ready: true,
        });
        if let Some(call) = self.sent.get(&(tx.clone(), part)).cloned() {
            around
                .wires
                .send(anew, Tag::Part(tx.clone(), part), What::Call(call));
        }
        true
    }
}
