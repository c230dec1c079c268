//! The world around engines: clients, shards, wires, time, and what goes wrong.
//!
//! Owns: everything that `net::worker` does for real: reading when there is something to read and the engine wants it,
//! writing as much as the peer takes, doing the engine's actions. Like the worker it is told only once that a peer has
//! become readable; whoever is not read then must be asked for by the engine (`ReadClient`, `ReadLink`), or waits for ever,
//! which `finish` notices.
//!
//! Must stay true: every decision comes from the seed; what goes wrong is noted (`Trouble`) before it can be noticed, so
//! that an error that nothing explains is a failure.

use crate::chance::Chance;
use crate::client::{Asked, Habits, SimulatedClient};
use crate::resp;
use crate::shard::{Connection, ShardServer};
use shoal_core::routing::acl::Acl;
use shoal_core::routing::distribution::{Distribution, Slots};
use shoal_core::routing::topology::{Credentials, Keyspace, Shard, Topology, User};
use shoal_core::session::engine::{Action, Engine, Identity};
use shoal_core::session::mail::Mail;
use shoal_core::session::stats::{PerShard, Stats};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What kind of world it is.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    pub shards: usize,
    pub engines: usize,
    pub clients: usize,
    pub steps: usize,
    pub habits: Habits,
    /// Connections break, shards die, clients vanish.
    pub faults: bool,
    /// Some clients stop reading for a while.
    pub slow_clients: bool,
    pub pushes: bool,
    pub shard_password: Option<String>,
}

/// One end of a socket, by engine and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    Client(usize, u32),
    Link(usize, u32),
}

/// A connection to a shard, seen from both sides.
#[derive(Debug)]
pub struct Wire {
    pub shard: usize,
    pub is_connected: bool,
    pub connection: Connection,
    pub to_engine: VecDeque<u8>,
    /// It is broken; the engine learns of it after what is in `to_engine`.
    pub is_broken: bool,
}

/// A time in which something was wrong with a shard, as one engine sees it.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    pub engine: usize,
    pub shard: usize,
    pub until_us: Option<u64>,
}

/// See the head of this file.
pub struct World {
    pub conditions: Conditions,
    pub chance: Chance,
    pub now_us: u64,
    pub keyspace: Keyspace,
    pub engines: Vec<Engine>,
    pub stats: Arc<Vec<Stats>>,
    pub shards: Vec<ShardServer>,
    pub wires: BTreeMap<(usize, u32), Wire>,
    /// Those with a connection, and those whose connection has ended.
    pub clients: Vec<SimulatedClient>,
    pub past: Vec<SimulatedClient>,
    /// Peers that have something to read, as far as was announced.
    pub readable: Vec<Peer>,
    /// Peers that the engine has something for.
    pub dirty: Vec<Peer>,
    pub mail: VecDeque<(usize, Mail)>,
    pub troubles: Vec<Trouble>,
    numbers: usize,
    pub next_tick_us: u64,
    /// Why the last client was closed.
    last_reason: String,
    /// Links that were not read because of a client.
    pub stalls: usize,
    /// Replies judged.
    pub judged: usize,
}

fn topology(conditions: &Conditions) -> Topology {
    let shard = |index: usize| Shard {
        name: format!("s{index}"),
        endpoint: format!("127.0.0.1:{}", 7000 + index),
        credentials: conditions
            .shard_password
            .clone()
            .map(|password| Credentials {
                username: None,
                password,
            }),
    };
    let user = |password: &String| User {
        name: "default".into(),
        credentials: Credentials {
            username: None,
            password: password.clone(),
        },
        acl: Acl::everything(),
    };
    let keyspace = Keyspace {
        users: conditions.habits.password.iter().map(user).collect(),
        max_clients: 1000,
        ..Keyspace::over(
            "test",
            (0..conditions.shards).map(shard).collect(),
            Distribution::Slots(Slots::even(conditions.shards)),
        )
    };
    Topology::new(1, vec![keyspace]).expect("a good topology")
}

impl World {
    pub fn new(conditions: Conditions, seed: u64) -> Self {
        let topology = Arc::new(topology(&conditions));
        let stats: Arc<Vec<Stats>> = Arc::new(
            (0..conditions.engines)
                .map(|_| Stats::new(&topology))
                .collect(),
        );
        let identity = |worker| Identity {
            worker,
            workers: conditions.engines,
            run_id: "0".repeat(40),
            process_id: 1,
            ports: vec![6380],
            seed,
            trial: Default::default(),
        };
        let engines = (0..conditions.engines)
            .map(|worker| {
                Engine::new(
                    identity(worker),
                    Arc::clone(&topology),
                    Arc::clone(&stats),
                    1_000_000,
                )
            })
            .collect();
        let server = |_| ShardServer::new(conditions.shard_password.clone(), conditions.pushes);
        let mut world = Self {
            chance: Chance::new(seed),
            now_us: 1_000_000,
            keyspace: topology.keyspaces[0].clone(),
            engines,
            stats,
            shards: (0..conditions.shards).map(server).collect(),
            wires: BTreeMap::new(),
            clients: Vec::new(),
            past: Vec::new(),
            readable: Vec::new(),
            dirty: Vec::new(),
            mail: VecDeque::new(),
            troubles: Vec::new(),
            numbers: 0,
            next_tick_us: 0,
            last_reason: String::new(),
            stalls: 0,
            judged: 0,
            conditions,
        };
        for engine in 0..world.engines.len() {
            world.act(engine);
        }
        for _ in 0..world.conditions.clients {
            world.connect_client();
        }
        world
    }

    pub fn connect_client(&mut self) {
        let engine = self.chance.below(self.engines.len());
        self.numbers += 1;
        let peer = format!("10.0.0.1:{}", self.numbers);
        let slot = self.engines[engine].client_connected(0, peer, "10.0.0.2:6380".into());
        let client = SimulatedClient::new(self.numbers, engine, slot, &self.conditions.habits);
        self.clients.push(client);
        self.act(engine);
    }

    /// Does what the engine wants done, and takes over its lists of what is to be written.
    pub fn act(&mut self, engine: usize) {
        while !self.engines[engine].actions.is_empty() {
            for action in std::mem::take(&mut self.engines[engine].actions) {
                resp::trace(|| format!("{} engine {engine}: {action:?}", self.now_us));
                match action {
                    Action::Open(link) => self.open(engine, link),
                    Action::CloseLink(link) => self.close_wire(engine, link),
                    Action::CloseClient(slot) | Action::LetClientGo(slot) => {
                        self.client_closed(engine, slot)
                    }
                    Action::ReadClient(slot) => self.announce(Peer::Client(engine, slot)),
                    Action::ReadLink(link) => self.announce(Peer::Link(engine, link)),
                    Action::Mail(worker, mail) => {
                        assert_ne!(worker, engine, "nobody writes to itself");
                        self.mail.push_back((worker, mail));
                    }
                    Action::Fault { .. } => {}
                    Action::Event(event) => {
                        self.stalls += usize::from(event.name == "link-stalled");
                        if let Some((_, reason)) =
                            event.fields.iter().find(|(name, _)| *name == "reason")
                        {
                            self.last_reason.clone_from(reason);
                        }
                    }
                }
            }
        }
        for slot in std::mem::take(&mut self.engines[engine].dirty_clients) {
            self.want(Peer::Client(engine, slot));
        }
        for link in std::mem::take(&mut self.engines[engine].dirty_links) {
            self.want(Peer::Link(engine, link));
        }
    }

    pub fn want(&mut self, peer: Peer) {
        if !self.dirty.contains(&peer) {
            self.dirty.push(peer);
        }
    }

    /// Something has become readable, if it has.
    pub fn announce(&mut self, peer: Peer) {
        if self.has_input(peer) && !self.readable.contains(&peer) {
            self.readable.push(peer);
        }
    }

    fn has_input(&self, peer: Peer) -> bool {
        match peer {
            Peer::Client(engine, slot) => self.client(engine, slot).is_some_and(|client| {
                !client.to_send.is_empty()
                    || client.is_gone
                    || (client.has_ended && !client.is_end_seen)
            }),
            Peer::Link(engine, link) => self.wires.get(&(engine, link)).is_some_and(|wire| {
                wire.is_connected && (!wire.to_engine.is_empty() || wire.is_broken)
            }),
        }
    }

    pub fn client(&self, engine: usize, slot: u32) -> Option<&SimulatedClient> {
        self.clients
            .iter()
            .find(|client| client.engine == engine && client.slot == Some(slot))
    }

    /// Position of a connected client.
    pub fn place(&self, engine: usize, slot: u32) -> usize {
        let is = |client: &SimulatedClient| client.engine == engine && client.slot == Some(slot);
        let place = self.clients.iter().position(is);
        place.expect("a client that is connected")
    }

    fn open(&mut self, engine: usize, link: u32) {
        let endpoint = self.engines[engine]
            .link_endpoint(link)
            .expect("a link that is to be opened");
        let port: usize = endpoint
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .expect("a port");
        let wire = Wire {
            shard: port - 7000,
            is_connected: false,
            connection: Connection::default(),
            to_engine: VecDeque::new(),
            is_broken: false,
        };
        let before = self.wires.insert((engine, link), wire);
        assert!(before.is_none(), "link {link} is open already");
    }

    /// The engine gave a link up. What the shard has of it is executed in part, now or never.
    fn close_wire(&mut self, engine: usize, link: u32) {
        let mut wire = self.wires.remove(&(engine, link)).expect("an open link");
        self.readable
            .retain(|peer| *peer != Peer::Link(engine, link));
        self.dirty.retain(|peer| *peer != Peer::Link(engine, link));
        if !wire.is_broken {
            self.execute_some(wire.shard, &mut wire.connection);
        }
    }

    /// A shard reads some of what a connection that is about to end has brought.
    pub fn execute_some(&mut self, shard: usize, connection: &mut Connection) {
        let mut left = self.chance.below(20);
        while left > 0 && self.shards[shard].is_up {
            left -= 1;
            if self.shards[shard]
                .turn(connection, &mut self.chance)
                .is_none()
            {
                break;
            }
        }
        connection.inbox.clear();
    }

    fn client_closed(&mut self, engine: usize, slot: u32) {
        self.readable
            .retain(|peer| *peer != Peer::Client(engine, slot));
        self.dirty
            .retain(|peer| *peer != Peer::Client(engine, slot));
        let mut client = self.clients.remove(self.place(engine, slot));
        client.slot = None;
        let oldest = client
            .asked
            .front()
            .map_or(self.now_us, |asked| asked.asked_us);
        match self.last_reason.as_str() {
            "quit" | "protocol-error" => {
                assert!(
                    client.is_done,
                    "closed without having said goodbye: {client:?}"
                );
                let left = client.asked.iter().find(|asked| !asked.is_muted);
                assert!(left.is_none(), "closed with something unanswered: {left:?}");
            }
            "client-closed" => {
                assert!(client.has_ended && client.asked.iter().all(|asked| asked.is_muted))
            }
            "client-error" => assert!(client.is_gone),
            "reply-cut" => {
                let explained = self.troubles.iter().any(|trouble| {
                    trouble.engine == engine && trouble.until_us.is_none_or(|until| until >= oldest)
                });
                assert!(explained, "a reply was cut and nothing was wrong");
            }
            // It has held up others: reading slowly is enough for that, as it reads one byte at a time here.
            "output-stalled" => assert!(self.conditions.habits.large_reply_bytes > 0),
            other => panic!("closed for {other}: {client:?}"),
        }
        self.past.push(client);
    }

    /// Whether something was wrong with a shard since a request was asked.
    pub fn was_troubled(troubles: &[Trouble], engine: usize, asked: &Asked, shard: u16) -> bool {
        troubles.iter().any(|trouble| {
            trouble.engine == engine
                && trouble.shard == shard as usize
                && trouble.until_us.is_none_or(|until| until >= asked.asked_us)
        })
    }

    /// Notes that something goes wrong with a shard from now on.
    pub fn begin_trouble(&mut self, engine: usize, shard: usize) {
        let is_open = |trouble: &Trouble| {
            trouble.engine == engine && trouble.shard == shard && trouble.until_us.is_none()
        };
        if !self.troubles.iter().any(is_open) {
            self.troubles.push(Trouble {
                engine,
                shard,
                until_us: None,
            });
        }
    }

    /// Ends what is over: the shard lives, the engine is connected to it, and knows of every broken connection.
    pub fn end_troubles(&mut self) {
        for trouble in self
            .troubles
            .iter_mut()
            .filter(|trouble| trouble.until_us.is_none())
        {
            let is_up = self.stats[trouble.engine].of_shard(trouble.shard, PerShard::Up) == 1;
            let mut wires = self.wires.iter();
            let is_broken = wires.any(|((engine, _), wire)| {
                *engine == trouble.engine && wire.shard == trouble.shard && wire.is_broken
            });
            if is_up && self.shards[trouble.shard].is_up && !is_broken {
                trouble.until_us = Some(self.now_us);
            }
        }
    }
}
