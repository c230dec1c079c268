//! A run: random steps, then everything is healed and every client must come to its end.

use crate::resp::{shown, trace};
use crate::world::{Peer, World};
use shoal_core::session::stats::{PerKeyspace, PerShard};

/// Steps that a healed world may take until everything is answered.
const STEPS_TO_FINISH: usize = 4_000_000;

impl World {
    /// The whole run.
    pub fn run(&mut self) {
        for _ in 0..self.conditions.steps {
            self.step();
        }
        self.heal();
        self.finish();
        self.close_all();
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..=9 => self.clients_ask(),
            10..=34 => {
                self.read_some();
            }
            35..=59 => {
                self.write_some();
            }
            60..=84 => self.shards_turn(),
            85..=89 => self.wires_connect(),
            90..=93 => self.deliver_mail(),
            94..=97 => self.pass_time(),
            98 if self.conditions.faults => self.something_breaks(),
            99 if self.conditions.slow_clients => self.somebody_is_slow(),
            _ => {}
        }
        self.end_troubles();
        self.audit();
    }

    /// The engine's books agree with themselves after every step.
    fn audit(&self) {
        for (index, engine) in self.engines.iter().enumerate() {
            if let Err(why) = engine.audit() {
                panic!("engine {index} at {} us: {why}", self.now_us);
            }
            let wires = self.wires.keys().filter(|(engine, _)| *engine == index);
            assert_eq!(engine.audit().map(|totals| totals.links), Ok(wires.count()));
        }
    }

    fn clients_ask(&mut self) {
        let open: Vec<usize> = (0..self.clients.len())
            .filter(|&at| {
                let client = &self.clients[at];
                !client.is_done
                    && !client.is_gone
                    && !client.has_ended
                    && client.asked.len() < self.conditions.habits.asked_max
            })
            .collect();
        if open.is_empty() {
            if self.clients.len() < self.conditions.clients {
                self.connect_client();
            }
            return;
        }
        let at = *self.chance.pick(&open);
        let mut count = self.chance.between(1, 12);
        if self.conditions.habits.bursts && self.chance.one_in(20) {
            count = 1500;
        }
        let (keyspace, client) = (&self.keyspace, &mut self.clients[at]);
        let placement = |key: &[u8]| keyspace.owner_of(key).expect("every key has a slot");
        for _ in 0..count {
            if !client.is_done {
                client.ask(
                    &self.conditions.habits,
                    &mut self.chance,
                    &placement,
                    self.now_us,
                );
            }
        }
        let peer = Peer::Client(client.engine, client.slot.expect("it is connected"));
        self.announce(peer);
    }

    fn shards_turn(&mut self) {
        let busy: Vec<(usize, u32)> = self
            .wires
            .iter()
            .filter(|(_, wire)| {
                // What the engine does not read stays with the shard.
                let has_room = wire.to_engine.len() < 4_000_000;
                has_room && !wire.is_broken && !wire.connection.inbox.is_empty()
            })
            .map(|(place, _)| *place)
            .collect();
        if busy.is_empty() {
            return;
        }
        let (engine, link) = *self.chance.pick(&busy);
        let Some(wire) = self.wires.get_mut(&(engine, link)) else {
            return;
        };
        let shard = &mut self.shards[wire.shard];
        for _ in 0..self.chance.between(1, 30) {
            match shard.turn(&mut wire.connection, &mut self.chance) {
                Some(reply) => {
                    let is_large = reply.len() > 1_000_000;
                    trace(|| {
                        format!(
                            "{} link {engine}/{link} shard {}: {}",
                            self.now_us,
                            wire.shard,
                            shown(&reply)
                        )
                    });
                    wire.to_engine.extend(reply);
                    if is_large {
                        break;
                    }
                }
                None => break,
            }
        }
        self.announce(Peer::Link(engine, link));
    }

    fn wires_connect(&mut self) {
        let waiting: Vec<(usize, u32)> = self
            .wires
            .iter()
            .filter(|(_, wire)| !wire.is_connected)
            .map(|(place, _)| *place)
            .collect();
        if waiting.is_empty() {
            return;
        }
        let (engine, link) = *self.chance.pick(&waiting);
        let Some(wire) = self.wires.get_mut(&(engine, link)) else {
            return;
        };
        if self.shards[wire.shard].is_up {
            wire.is_connected = true;
            self.engines[engine].link_connected(link);
        } else {
            wire.is_broken = true;
            self.engines[engine].link_lost(link, "connection refused");
        }
        self.act(engine);
    }

    fn deliver_mail(&mut self) {
        if let Some((worker, mail)) = self.mail.pop_front() {
            self.engines[worker].mail(mail);
            self.act(worker);
        }
    }

    fn pass_time(&mut self) {
        self.now_us += self.chance.below(3_000) as u64;
        for engine in 0..self.engines.len() {
            self.engines[engine].set_now(self.now_us);
        }
        if self.now_us >= self.next_tick_us {
            self.next_tick_us = self.now_us + 100_000;
            for engine in 0..self.engines.len() {
                self.engines[engine].tick();
                self.act(engine);
            }
        }
        // Now and then a while in which nothing else happens.
        if self.chance.one_in(30) {
            self.now_us += self.chance.below(150_000) as u64;
        }
    }

    fn something_breaks(&mut self) {
        match self.chance.below(6) {
            0 | 1 => {
                let wires: Vec<(usize, u32)> = self.wires.keys().copied().collect();
                if !wires.is_empty() {
                    let (engine, link) = *self.chance.pick(&wires);
                    self.break_wire(engine, link);
                }
            }
            2 => {
                let shard = self.chance.below(self.shards.len());
                self.shard_dies(shard);
            }
            3 | 4 => {
                for shard in 0..self.shards.len() {
                    self.shards[shard].is_up = true;
                }
            }
            _ => self.somebody_vanishes(),
        }
    }

    /// A connection breaks at some byte of either direction.
    fn break_wire(&mut self, engine: usize, link: u32) {
        let Some(mut wire) = self.wires.remove(&(engine, link)) else {
            return;
        };
        if !wire.is_broken && wire.is_connected {
            self.begin_trouble(engine, wire.shard);
            self.execute_some(wire.shard, &mut wire.connection);
            let arrives = self.chance.below(wire.to_engine.len() + 1);
            wire.to_engine.truncate(arrives);
            trace(|| {
                format!(
                    "{} link {engine}/{link} breaks, {arrives} bytes arrive",
                    self.now_us
                )
            });
            wire.is_broken = true;
        }
        self.wires.insert((engine, link), wire);
        self.announce(Peer::Link(engine, link));
    }

    fn shard_dies(&mut self, shard: usize) {
        for engine in 0..self.engines.len() {
            self.begin_trouble(engine, shard);
        }
        let wires: Vec<(usize, u32)> = self
            .wires
            .iter()
            .filter(|(_, wire)| wire.shard == shard)
            .map(|(place, _)| *place)
            .collect();
        for (engine, link) in wires {
            self.break_wire(engine, link);
        }
        self.shards[shard].is_up = false;
        self.shards[shard].restart();
    }

    fn somebody_vanishes(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let at = self.chance.below(self.clients.len());
        let client = &mut self.clients[at];
        if client.is_done || client.has_ended {
            return;
        }
        if self.chance.one_in(2) {
            client.is_gone = true;
            let arrives = self.chance.below(client.to_send.len() + 1);
            client.to_send.truncate(arrives);
        } else {
            client.has_ended = true;
        }
        let peer = Peer::Client(client.engine, client.slot.expect("it is connected"));
        self.announce(peer);
    }

    fn somebody_is_slow(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let at = self.chance.below(self.clients.len());
        let client = &mut self.clients[at];
        client.is_slow = !client.is_slow;
    }

    // ------------------------------------------------------------------------------------------------ the end

    /// Nothing is wrong any more.
    fn heal(&mut self) {
        self.conditions.faults = false;
        self.conditions.slow_clients = false;
        self.shards.iter_mut().for_each(|shard| shard.is_up = true);
        self.clients
            .iter_mut()
            .for_each(|client| client.is_slow = false);
    }

    /// One step of a world in which nobody asks anything new.
    fn quiet_step(&mut self) {
        match self.chance.below(6) {
            0 | 1 => {
                self.read_some();
            }
            2 | 3 => {
                self.write_some();
            }
            4 => self.shards_turn(),
            _ => {
                self.wires_connect();
                self.deliver_mail();
                self.pass_time();
            }
        }
        self.end_troubles();
    }

    /// Steps until something is true; it must become true.
    fn until(&mut self, what: &str, is_true: impl Fn(&Self) -> bool) {
        for step in 0..STEPS_TO_FINISH {
            if step % 16 == 0 && is_true(self) {
                return;
            }
            self.quiet_step();
        }
        let waiting: Vec<_> = self
            .clients
            .iter()
            .map(|client| (client.number, client.asked.front()))
            .collect();
        panic!("it never came true that {what}; waiting: {waiting:?}");
    }

    /// Every client gets every reply; then what the shards hold is compared with what clients know.
    fn finish(&mut self) {
        for at in 0..self.clients.len() {
            let (keyspace, client) = (&self.keyspace, &mut self.clients[at]);
            if !client.is_done && !client.is_gone && !client.has_ended {
                while !client.is_known() {
                    let placement =
                        |key: &[u8]| keyspace.owner_of(key).expect("every key has a slot");
                    client.ask(
                        &self.conditions.habits,
                        &mut self.chance,
                        &placement,
                        self.now_us,
                    );
                }
                client.unmute(self.now_us);
                let peer = Peer::Client(client.engine, client.slot.expect("it is connected"));
                self.announce(peer);
            }
        }
        self.until("every request is answered", |world| {
            world.clients.iter().all(|client| {
                client.asked.is_empty()
                    && !client.is_done
                    && !client.has_ended
                    && !client.is_gone
                    && client.scan.is_none()
            })
        });
        self.until("every shard is up", |world| {
            world
                .troubles
                .iter()
                .all(|trouble| trouble.until_us.is_some())
        });
        for client in &self.clients {
            for (database, key) in client.model.keys() {
                let shard = self.keyspace.owner_of(key).expect("every key has a slot") as usize;
                let held = self.shards[shard].databases[*database as usize]
                    .get(key)
                    .cloned();
                let possible = client.model.possible(*database, key);
                assert!(
                    possible.contains(&held),
                    "{key:?} holds {held:?}, possible were {possible:?}"
                );
            }
        }
        for shard in &self.shards {
            let twice = shard.executed.iter().find(|(_, count)| **count > 1);
            assert!(twice.is_none(), "executed more than once: {twice:?}");
        }
        for client in self.clients.iter().chain(&self.past) {
            for token in &client.acknowledged {
                let executed =
                    |shard: &&crate::shard::ShardServer| shard.executed.contains_key(token);
                assert_eq!(
                    self.shards.iter().filter(executed).count(),
                    1,
                    "acknowledged, not executed"
                );
            }
        }
    }

    /// Everybody leaves, one way or another; nothing stays behind.
    fn close_all(&mut self) {
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            match self.chance.below(3) {
                0 => client.leave(&mut self.chance, self.now_us),
                1 => client.has_ended = true,
                _ => client.is_gone = true,
            }
            let peer = Peer::Client(client.engine, client.slot.expect("it is connected"));
            self.announce(peer);
        }
        self.until("every client is closed", |world| world.clients.is_empty());
        self.until("nothing is in flight", |world| {
            let idle = |engine: &shoal_core::session::engine::Engine| {
                engine
                    .audit()
                    .is_ok_and(|totals| totals.in_flight == 0 && totals.exclusive_links == 0)
            };
            world.engines.iter().all(idle)
        });
        for (index, engine) in self.engines.iter_mut().enumerate() {
            let totals = engine.audit().expect("sound books");
            assert_eq!(
                (totals.clients, totals.stalled, totals.incoming_bytes),
                (0, 0, 0),
                "engine {index}"
            );
            assert_eq!(
                totals.links,
                self.wires
                    .keys()
                    .filter(|(engine, _)| *engine == index)
                    .count()
            );
            assert_eq!(self.stats[index].of_keyspace(0, PerKeyspace::Clients), 0);
            let connections = (0..self.shards.len())
                .map(|shard| self.stats[index].of_shard(shard, PerShard::Connections));
            assert_eq!(connections.sum::<u64>() as usize, totals.links);
            engine.stop();
            assert!(engine.stop_is_done());
        }
    }
}
