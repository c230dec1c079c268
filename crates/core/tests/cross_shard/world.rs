//! One simulated world: shards, proxies and clients that take turns by chance, and what goes wrong in it.
//!
//! First everything may happen; then all is healed, and the world has to come to rest with nothing left behind.

use crate::chance::Chance;
use crate::history::{History, Seen};
use crate::language::{Key, Op, Store};
use crate::proxy::{self, Proxy, Told};
use crate::rules::Rules;
use crate::shard::{self, Shard};
use crate::wires::{Id, Wires};
use shoal_core::session::cross_shard::call::{Pid, Tx};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How a world is made.
#[derive(Debug, Clone)]
pub struct Conditions {
    pub shards: usize,
    pub proxies: usize,
    pub clients: usize,
    pub keys: Key,
    /// What each client asks.
    pub requests: usize,
    /// One turn in so many, something goes wrong; 0: never.
    pub faults: usize,
    /// And never more often than this.
    pub faults_max: usize,
    /// What goes wrong.
    pub kinds: Vec<Fault>,
    /// Shards are prepared one after the other.
    pub careful: bool,
    /// One turn in so many, time passes.
    pub haste: usize,
    /// Most operations write several keys and read none: what guards the gathering of values does not guard these.
    pub blind: bool,
    /// One operation in some empties everything.
    pub flushes: bool,
}

impl Conditions {
    pub fn by(chance: &mut Chance) -> Self {
        Self {
            shards: chance.between(2, 3),
            proxies: *chance.pick(&[1, 2, 2, 3, 3]),
            clients: chance.between(2, 5),
            keys: chance.between(3, 5) as Key,
            requests: chance.between(2, 6),
            faults: *chance.pick(&[0, 20, 40, 80, 160]),
            faults_max: chance.between(1, 10),
            kinds: match chance.below(3) {
                0 => ALL_FAULTS.to_vec(),
                _ => (0..3).map(|_| *chance.pick(&ALL_FAULTS)).collect(),
            },
            careful: chance.one_in(4),
            haste: *chance.pick(&[20, 60, 200]),
            blind: chance.one_in(4),
            flushes: chance.one_in(3),
        }
    }
}

/// How a world ended.
#[derive(Debug)]
pub struct Verdict {
    /// What clients saw can have happened one after the other.
    pub is_serializable: bool,
    /// Invariants that did not hold.
    pub broken: Vec<String>,
    /// What did not come to rest.
    pub stuck: Option<String>,
    pub history: History,
    /// Requests that were answered.
    pub done: usize,
    pub faults: usize,
    /// Recoveries that came to an end.
    pub recovered: usize,
    /// Members that were taken off a list.
    pub evicted: usize,
}

#[derive(Debug)]
struct Client {
    proxy: usize,
    left: usize,
    /// Its place in the history.
    waits: Option<usize>,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A proxy dies, and another life of it begins.
    Crash,
    /// A proxy does nothing for a while, then goes on as if nothing had been.
    Stop,
    /// The same for a shard.
    ShardStop,
    /// A shard comes back with its data.
    Restart,
    /// Shards have no memory for a while.
    Full,
    /// Messages are lost for a while.
    Lose,
    /// A proxy loses a connection: what it sent still runs.
    Cut,
    /// A shard ends a connection: what was sent does not run.
    End,
    /// Some connections of a proxy carry nothing for a while.
    Slow,
    /// A proxy stops for long in the middle of preparing, perhaps with a call that comes through only afterwards.
    TrapEarly,
    /// The same later: while others are waited for, or new values are on their way.
    TrapLate,
}

pub const ALL_FAULTS: [Fault; 11] = [
    Fault::Crash,
    Fault::Stop,
    Fault::ShardStop,
    Fault::Restart,
    Fault::Full,
    Fault::Lose,
    Fault::Cut,
    Fault::End,
    Fault::Slow,
    Fault::TrapEarly,
    Fault::TrapLate,
];

pub struct World {
    chance: Chance,
    conditions: Conditions,
    rules: Rules,
    now_ms: u64,
    turn: u64,
    wires: Wires,
    shards: Vec<Shard>,
    proxies: Vec<Proxy>,
    clients: Vec<Client>,
    asked: Vec<Op>,
    history: History,
    /// Operations whose fence is complete.
    fenced: BTreeSet<Tx>,
    /// Where committed operations have still to be applied.
    committed: BTreeMap<Tx, BTreeSet<usize>>,
    told: Vec<(usize, Told)>,
    broken: Vec<String>,
    /// What clients were told not to have been done.
    undone: BTreeSet<usize>,
    full_until: u64,
    losing_until: u64,
    /// Until which turn a connection carries nothing (true: to the proxy).
    slow: BTreeMap<(Id, bool), u64>,
    /// Who was stopped until when (true: a proxy).
    stops: Vec<(u64, usize, bool)>,
    lives: usize,
    faults: usize,
    recovered: usize,
    evicted: usize,
}

impl World {
    pub fn new(conditions: Conditions, rules: Rules, seed: u64) -> Self {
        let mut world = Self {
            chance: Chance::new(seed),
            rules,
            now_ms: 10_000,
            turn: 0,
            wires: Wires::default(),
            shards: (0..conditions.shards).map(Shard::new).collect(),
            proxies: Vec::new(),
            clients: Vec::new(),
            asked: Vec::new(),
            history: History::default(),
            fenced: BTreeSet::new(),
            committed: BTreeMap::new(),
            told: Vec::new(),
            broken: Vec::new(),
            undone: BTreeSet::new(),
            full_until: 0,
            losing_until: 0,
            slow: BTreeMap::new(),
            stops: Vec::new(),
            lives: 0,
            faults: 0,
            recovered: 0,
            evicted: 0,
            conditions,
        };
        for slot in 0..world.conditions.proxies {
            let proxy = world.life(slot);
            world.proxies.push(proxy);
        }
        for client in 0..world.conditions.clients {
            world.clients.push(Client {
                proxy: client % world.conditions.proxies,
                left: world.conditions.requests,
                waits: None,
            });
        }
        world
    }

    fn life(&mut self, slot: usize) -> Proxy {
        self.lives += 1;
        let pid = Pid(Arc::from(format!("p{slot}.{}", self.lives).as_str()));
        Proxy::new(pid, slot, self.conditions.shards)
    }

    pub fn run(mut self) -> Verdict {
        for slot in 0..self.proxies.len() {
            self.with_proxy(slot, |proxy, around| proxy.pump(around));
        }
        let mut turns = 0;
        while turns < 6000 && !self.is_asked_out() {
            turns += 1;
            let may_fail = self.conditions.faults > 0 && self.faults < self.conditions.faults_max;
            if may_fail && self.chance.one_in(self.conditions.faults) {
                self.fault();
            }
            self.turn();
        }
        self.heal();
        let stuck = self.rest();
        let mut all = Store::new();
        for shard in &self.shards {
            all.extend(shard.store.clone());
        }
        let op = Op::Get((0..self.conditions.keys).collect());
        let returned = Some((self.turn + 2, op.run(&mut all)));
        self.history.seen.push(Seen {
            op,
            called: self.turn + 1,
            returned,
        });
        let undone = std::mem::take(&mut self.undone);
        let mut place = 0;
        self.history.seen.retain(|_| {
            place += 1;
            !undone.contains(&(place - 1))
        });
        Verdict {
            is_serializable: self.history.is_strictly_serializable(),
            done: self
                .history
                .seen
                .iter()
                .filter(|seen| seen.returned.is_some())
                .count(),
            history: self.history,
            broken: self.broken,
            stuck,
            faults: self.faults,
            recovered: self.recovered,
            evicted: self.evicted,
        }
    }

    fn is_asked_out(&self) -> bool {
        let is_out = |client: &Client| client.left == 0 && client.waits.is_none();
        self.clients.iter().all(is_out)
    }

    // ------------------------------------------------------------------------------------------------- turns

    fn turn(&mut self) {
        self.turn += 1;
        self.wake();
        if self.chance.one_in(self.conditions.haste) {
            let passed = [1, 1, 10, 50, 100, 100, 250, 1_100, 2_500];
            self.now_ms += *self.chance.pick(&passed);
            let slot = self.chance.below(self.proxies.len());
            if !self.proxies[slot].is_stopped {
                self.with_proxy(slot, |proxy, around| proxy.tick(around));
            }
        }
        match self.chance.below(9) {
            0 | 1 => self.ask(),
            2..=4 => self.shard_turn(),
            _ => self.proxy_turn(),
        }
        self.hear();
        if self.turn.is_multiple_of(64) {
            self.wires.sweep();
        }
    }

    fn shard_turn(&mut self) {
        let ready = self.wires.wires.iter().filter(|(_, wire)| {
            wire.is_open_there && !wire.up.is_empty() && !self.shards[wire.shard].is_stopped
        });
        let ready = ready.filter(|(id, _)| !self.is_slow(**id, false));
        let ready: Vec<(Id, usize)> = ready.map(|(id, wire)| (*id, wire.shard)).collect();
        if ready.is_empty() {
            return;
        }
        let (id, at) = *self.chance.pick(&ready);
        let mut around = shard::Around {
            rules: self.rules,
            wires: &mut self.wires,
            asked: &self.asked,
            fenced: &self.fenced,
            committed: &mut self.committed,
            loses: self.losing_until > self.turn,
            is_full: self.full_until > self.turn,
            broken: &mut self.broken,
            evicted: &mut self.evicted,
        };
        self.shards[at].execute(id, &mut around);
    }

    fn proxy_turn(&mut self) {
        let ready = self.wires.wires.iter().filter(|(_, wire)| {
            wire.is_open_here && !wire.down.is_empty() && !self.proxies[wire.slot].is_stopped
        });
        let ready = ready.filter(|(id, _)| !self.is_slow(**id, true));
        let ready: Vec<(Id, usize)> = ready.map(|(id, wire)| (*id, wire.slot)).collect();
        if !ready.is_empty() {
            let (id, slot) = *self.chance.pick(&ready);
            self.with_proxy(slot, |proxy, around| proxy.hear(id, around));
        }
    }

    fn with_proxy(&mut self, slot: usize, act: impl FnOnce(&mut Proxy, &mut proxy::Around)) {
        let mut around = proxy::Around {
            rules: self.rules,
            shards: self.conditions.shards,
            wires: &mut self.wires,
            chance: &mut self.chance,
            careful: self.conditions.careful,
            now_ms: self.now_ms,
            asked: &self.asked,
            fenced: &mut self.fenced,
            told: &mut self.told,
            recovered: &mut self.recovered,
        };
        act(&mut self.proxies[slot], &mut around);
    }

    // ------------------------------------------------------------------------------------------------- clients

    fn ask(&mut self) {
        let at = self.chance.below(self.clients.len());
        let client = &mut self.clients[at];
        if client.waits.is_some() || client.left == 0 || self.proxies[client.proxy].is_stopped {
            return;
        }
        client.left -= 1;
        let number = self.asked.len();
        client.waits = Some(number);
        let slot = client.proxy;
        let op = self.op(number as u32 + 1);
        self.asked.push(op.clone());
        self.history.seen.push(Seen {
            op,
            called: self.turn,
            returned: None,
        });
        self.with_proxy(slot, |proxy, around| proxy.request(at, number, around));
    }

    fn op(&mut self, token: u32) -> Op {
        let count = self.conditions.keys as usize;
        let mut keys: Vec<Key> = (0..self.conditions.keys).collect();
        for at in 0..count {
            keys.swap(at, at + self.chance.below(count - at));
        }
        if self.chance.one_in(2) {
            // Of one shard.
            let shards = self.conditions.shards as Key;
            let shard = keys[0] % shards;
            keys.retain(|key| key % shards == shard);
        }
        if self.conditions.flushes && self.chance.one_in(8) {
            return Op::Flush;
        }
        let count = keys.len();
        let some = |chance: &mut Chance| keys[..chance.between(1, count.min(3))].to_vec();
        if self.conditions.blind && !self.chance.one_in(3) {
            return Op::Set(keys[..count.min(3)].to_vec(), token);
        }
        match self.chance.below(if count > 1 { 12 } else { 7 }) {
            0 | 1 => Op::Set(some(&mut self.chance), token),
            2..=4 => Op::Get(some(&mut self.chance)),
            5 | 6 => Op::Push(some(&mut self.chance), token),
            7 | 8 => Op::Rename(keys[0], keys[1]),
            9 | 10 => Op::Move(keys[0], keys[1]),
            _ => Op::Store(keys[0], keys[1..].to_vec()),
        }
    }

    fn hear(&mut self) {
        for (at, told) in std::mem::take(&mut self.told) {
            let Some(number) = self.clients[at].waits.take() else {
                self.broken
                    .push(format!("client {at} was told twice: {told:?}"));
                continue;
            };
            match told {
                Told::Done(reply) => self.history.seen[number].returned = Some((self.turn, reply)),
                Told::NotDone => drop(self.undone.insert(number)),
                Told::Unknown => {}
            }
        }
    }

    // ------------------------------------------------------------------------------------------------- what goes wrong

    fn fault(&mut self) {
        self.faults += 1;
        let kind = *self.chance.pick(&self.conditions.kinds);
        let slot = self.chance.below(self.proxies.len());
        let at = self.chance.below(self.shards.len());
        let until = self.turn + self.chance.between(20, 800) as u64;
        match kind {
            Fault::Crash => self.crash(slot),
            Fault::Stop => {
                self.proxies[slot].is_stopped = true;
                self.stops.push((until, slot, true));
            }
            Fault::ShardStop => {
                self.shards[at].is_stopped = true;
                self.stops.push((until, at, false));
            }
            Fault::Restart => self.restart(at),
            Fault::Full => self.full_until = self.turn + self.chance.between(5, 80) as u64,
            Fault::Lose => self.losing_until = until,
            Fault::Cut | Fault::End => self.cut(kind == Fault::Cut),
            Fault::Slow => self.slow_down(),
            Fault::TrapEarly | Fault::TrapLate => self.trap(slot, kind == Fault::TrapEarly),
        }
    }

    /// All of its connections close; what it sent may have come through, or a part of it.
    fn crash(&mut self, slot: usize) {
        let pid = self.proxies[slot].pid.clone();
        for wire in self
            .wires
            .wires
            .values_mut()
            .filter(|wire| wire.owner == pid)
        {
            wire.is_open_here = false;
            wire.down.clear();
            if self.chance.one_in(3) {
                let came = self.chance.below(wire.up.len() + 1);
                wire.up.truncate(came);
            }
        }
        for client in self
            .clients
            .iter_mut()
            .filter(|client| client.proxy == slot)
        {
            client.waits = None;
        }
        self.stops
            .retain(|(_, at, is_proxy)| !is_proxy || *at != slot);
        self.proxies[slot] = self.life(slot);
        self.with_proxy(slot, |proxy, around| proxy.pump(around));
    }

    /// Some connections carry nothing for a while, in one direction.
    fn slow_down(&mut self) {
        let slot = self.chance.below(self.proxies.len());
        let wires = self
            .wires
            .wires
            .iter()
            .filter(|(_, wire)| wire.slot == slot);
        for id in wires.map(|(id, _)| *id).collect::<Vec<_>>() {
            if self.chance.one_in(2) {
                let until = self.turn + self.chance.between(20, 800) as u64;
                self.slow.insert((id, self.chance.one_in(4)), until);
            }
        }
    }

    fn trap(&mut self, slot: usize, is_early: bool) {
        let critical = self.proxies[slot].critical(is_early);
        if critical.is_empty() || self.proxies[slot].is_stopped {
            self.faults -= 1;
            return;
        }
        let until = self.turn + self.chance.between(300, 1500) as u64;
        self.proxies[slot].is_stopped = true;
        self.stops.push((until, slot, true));
        if !self.chance.one_in(3) {
            let id = *self.chance.pick(&critical);
            self.slow
                .insert((id, false), until + self.chance.below(50) as u64);
        }
    }

    fn is_slow(&self, id: Id, is_down: bool) -> bool {
        self.slow
            .get(&(id, is_down))
            .is_some_and(|until| *until > self.turn)
    }

    /// Who was stopped goes on after some time.
    fn wake(&mut self) {
        let turn = self.turn;
        for (_, at, is_proxy) in self.stops.extract_if(.., |(until, ..)| *until <= turn) {
            if is_proxy {
                self.proxies[at].is_stopped = false;
            } else {
                self.shards[at].is_stopped = false;
            }
        }
    }

    /// It comes back with its data; no connection does.
    fn restart(&mut self, at: usize) {
        let ids = self.wires.wires.iter().filter(|(_, wire)| wire.shard == at);
        for id in ids.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.wires.end(id);
        }
        self.shards[at].is_stopped = false;
    }

    /// A connection is lost: the proxy closes it, or the shard does.
    fn cut(&mut self, by_proxy: bool) {
        let open = self
            .wires
            .wires
            .iter()
            .filter(|(_, wire)| wire.is_open_here);
        let busy = self.chance.one_in(2);
        let open = open.filter(|(_, wire)| !busy || wire.is_busy());
        let open: Vec<(Id, usize)> = open.map(|(id, wire)| (*id, wire.slot)).collect();
        if open.is_empty() {
            return;
        }
        let (id, slot) = *self.chance.pick(&open);
        if by_proxy && !self.proxies[slot].is_stopped {
            self.with_proxy(slot, |proxy, around| {
                proxy.lose(id, around);
                proxy.pump(around);
            });
        } else {
            self.wires.end(id);
        }
    }

    // ------------------------------------------------------------------------------------------------- the end

    fn heal(&mut self) {
        self.proxies
            .iter_mut()
            .for_each(|proxy| proxy.is_stopped = false);
        self.shards
            .iter_mut()
            .for_each(|shard| shard.is_stopped = false);
        self.full_until = 0;
        self.losing_until = 0;
        self.slow.clear();
        self.stops.clear();
        self.conditions.haste = 30;
    }

    /// What does not come to rest.
    fn rest(&mut self) -> Option<String> {
        for turn in 0..30_000 {
            self.turn();
            let is_clean = self.shards.iter().all(Shard::is_clean);
            let is_idle = self.proxies.iter().all(Proxy::is_idle);
            if turn > 50 && is_clean && is_idle && self.is_asked_out() {
                return None;
            }
        }
        let why: Vec<String> = self.proxies.iter().map(Proxy::why).collect();
        Some(format!("{why:#?}\n{:#?}", self.shards))
    }
}
