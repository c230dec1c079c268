//! Ejection over several engines: shards that end, freeze and come back at random, seeded.
//!
//! The world delivers everything in order and at once: bytes, mail, connections. After every step each engine is audited
//! (never more shards out than may be, none in a store), and what the clients got is judged: a reply, or an error that
//! names a shard which was not well.

use shoal_core::routing::admission::SHARE_WHOLE;
use shoal_core::routing::distribution::{Distribution, Ring, RingMember};
use shoal_core::routing::key_hash::KeyHash;
use shoal_core::routing::topology::{Ejection, Keyspace, Role, Shard, Topology};
use shoal_core::session::engine::{Action, Engine, Identity};
use shoal_core::session::stats::{PerKeyspace, PerShard, Stats};
use std::collections::BTreeMap;
use std::sync::Arc;

const RULES: Ejection = Ejection {
    after: 2,
    retry_after_ms: 1000,
    on_replies: false,
    shards_max: 2,
    readmit_ms: 1600,
};

/// How a shard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Well,
    /// Nobody listens.
    Ended,
    /// It accepts, and says nothing.
    Frozen,
    /// It answers everything with -LOADING.
    Loading,
}

struct World {
    engines: Vec<Engine>,
    stats: Arc<Vec<Stats>>,
    conditions: Vec<Condition>,
    /// For each engine its links, with their shards and what they have sent but not been answered.
    links: Vec<BTreeMap<u32, (usize, Vec<u8>)>>,
    clients: Vec<u32>,
    events: Vec<(String, String)>,
    now_us: u64,
}

fn topology(role: Role, shards: usize) -> Topology {
    let members: Vec<RingMember> = (0..shards)
        .map(|index| RingMember {
            name: format!("s{index}"),
            weight: 1,
        })
        .collect();
    let shard = |index: usize| Shard {
        name: format!("s{index}"),
        endpoint: format!("127.0.0.1:{}", 7000 + index),
        credentials: None,
    };
    let ring = Distribution::Ring(Ring::ketama(&members, KeyHash::Murmur, true));
    let keyspace = Keyspace {
        role,
        timeout_ms: 500,
        probe_interval_ms: 200,
        ..Keyspace::over("test", (0..shards).map(shard).collect(), ring)
    };
    Topology::new(1, vec![keyspace]).expect("a good topology")
}

impl World {
    fn new(role: Role, shards: usize, workers: usize) -> Self {
        let topology = Arc::new(topology(role, shards));
        let stats: Arc<Vec<Stats>> =
            Arc::new((0..workers).map(|_| Stats::new(&topology)).collect());
        let engine = |worker| {
            let identity = Identity {
                worker,
                workers,
                run_id: String::new(),
                process_id: 1,
                ports: vec![6380],
                seed: 7 + worker as u64,
                trial: Default::default(),
            };
            Engine::new(identity, Arc::clone(&topology), Arc::clone(&stats), 0)
        };
        let mut world = Self {
            engines: (0..workers).map(engine).collect(),
            stats,
            conditions: vec![Condition::Well; shards],
            links: vec![BTreeMap::new(); workers],
            clients: Vec::new(),
            events: Vec::new(),
            now_us: 0,
        };
        world.settle();
        for engine in &mut world.engines {
            world
                .clients
                .push(engine.client_connected(0, "c".into(), "l".into()));
        }
        world
    }

    /// Until nothing more is to be done.
    fn settle(&mut self) {
        loop {
            let mut is_busy = false;
            for worker in 0..self.engines.len() {
                let actions = std::mem::take(&mut self.engines[worker].actions);
                is_busy |= !actions.is_empty();
                for action in actions {
                    self.act(worker, action);
                }
                is_busy |= self.carry(worker);
            }
            if !is_busy {
                break;
            }
        }
        for engine in &self.engines {
            engine.audit().expect("the books agree");
        }
    }

    fn act(&mut self, worker: usize, action: Action) {
        match action {
            Action::Open(link) => {
                let engine = &mut self.engines[worker];
                let endpoint = engine.link_endpoint(link).expect("an open link");
                let shard = endpoint
                    .rsplit(':')
                    .next()
                    .and_then(|port| port.parse::<usize>().ok());
                let shard = shard.expect("a port") - 7000;
                if self.conditions[shard] == Condition::Ended {
                    engine.link_lost(link, "connection refused");
                } else {
                    self.links[worker].insert(link, (shard, Vec::new()));
                    engine.link_connected(link);
                }
            }
            Action::CloseLink(link) => {
                self.links[worker].remove(&link);
            }
            Action::Mail(to, mail) => self.engines[to].mail(mail),
            Action::Fault { .. } => {}
            Action::Event(event) => {
                let field = |name| event.fields.iter().find(|field| field.0 == name);
                let shard = field("shard").map_or(String::new(), |field| field.1.clone());
                self.events.push((event.name.to_string(), shard));
            }
            Action::CloseClient(_)
            | Action::LetClientGo(_)
            | Action::ReadClient(_)
            | Action::ReadLink(_) => {}
        }
    }

    /// Bytes from an engine's links to their shards, and the answers back.
    fn carry(&mut self, worker: usize) -> bool {
        let mut is_busy = false;
        for link in self.links[worker].keys().copied().collect::<Vec<_>>() {
            let engine = &mut self.engines[worker];
            while let Some(output) = engine.link_output(link).filter(|output| !output.is_empty()) {
                let piece = output.front().to_vec();
                output.advance(piece.len());
                if let Some((_, sent)) = self.links[worker].get_mut(&link) {
                    sent.extend_from_slice(&piece);
                }
                engine.link_written(link, piece.len());
            }
            let Some((shard, sent)) = self.links[worker].get_mut(&link) else {
                continue;
            };
            let reply = |command: &str| match (self.conditions[*shard], command) {
                (Condition::Loading, "PING" | "GET") => {
                    "-LOADING Redis is loading the dataset in memory\r\n"
                }
                (_, "PING") => "+PONG\r\n",
                (_, "GET") => "$5\r\nvalue\r\n",
                _ => "+fine\r\n",
            };
            if self.conditions[*shard] == Condition::Frozen || sent.is_empty() {
                continue;
            }
            let text = String::from_utf8_lossy(&std::mem::take(sent)).into_owned();
            let commands = text
                .split("\r\n")
                .filter(|word| ["PING", "GET", "INFO", "HELLO", "SELECT"].contains(word));
            let replies: String = commands.map(reply).collect();
            is_busy = true;
            self.engines[worker].link_received(link, replies.as_bytes());
        }
        is_busy
    }

    fn set(&mut self, shard: usize, condition: Condition) {
        self.conditions[shard] = condition;
        if condition == Condition::Ended {
            for worker in 0..self.engines.len() {
                let gone: Vec<u32> = self.links[worker]
                    .iter()
                    .filter(|(_, (of, _))| *of == shard)
                    .map(|(link, _)| *link)
                    .collect();
                for link in gone {
                    self.engines[worker].link_ended(link);
                }
            }
        }
        self.settle();
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now_us + ms * 1000;
        while self.now_us < end {
            self.now_us = end.min(self.now_us + 100_000);
            for worker in 0..self.engines.len() {
                self.engines[worker].set_now(self.now_us);
                self.engines[worker].tick();
            }
            self.settle();
        }
    }

    /// Asks for a key through a worker; the reply, empty when there is none yet.
    fn get(&mut self, worker: usize, key: &str) -> String {
        let slot = self.clients[worker];
        let request = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
        self.engines[worker].client_received(slot, request.as_bytes());
        self.settle();
        let mut all = Vec::new();
        while let Some(output) = self.engines[worker]
            .client_output(slot)
            .filter(|output| !output.is_empty())
        {
            let piece = output.front().to_vec();
            output.advance(piece.len());
            self.engines[worker].client_written(slot, piece.len());
            all.extend_from_slice(&piece);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    /// `SHOAL TOPOLOGY` as a worker tells it.
    fn topology(&mut self, worker: usize) -> String {
        let slot = self.clients[worker];
        self.engines[worker].client_received(slot, b"*2\r\n$5\r\nSHOAL\r\n$8\r\nTOPOLOGY\r\n");
        let mut all = Vec::new();
        while let Some(output) = self.engines[worker]
            .client_output(slot)
            .filter(|output| !output.is_empty())
        {
            let piece = output.front().to_vec();
            output.advance(piece.len());
            all.extend_from_slice(&piece);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    fn count(&self, cell: PerShard, shard: usize) -> u64 {
        self.stats
            .iter()
            .map(|stats| stats.of_shard(shard, cell))
            .sum()
    }

    fn said(&self, name: &str) -> usize {
        self.events.iter().filter(|event| event.0 == name).count()
    }
}

/// A key of each shard.
fn keys(shards: usize) -> Vec<String> {
    let topology = topology(Role::Store, shards);
    let mut found = vec![String::new(); shards];
    for number in 0.. {
        let key = format!("key:{number}");
        let owner = topology.keyspaces[0]
            .owner_of(key.as_bytes())
            .expect("a ring");
        if found[owner as usize].is_empty() {
            found[owner as usize] = key;
        }
        if found.iter().all(|key| !key.is_empty()) {
            break;
        }
    }
    found
}

#[test]
fn a_cache_goes_on_without_a_shard_that_ended_and_takes_it_back_gently() {
    let keys = keys(5);
    let mut world = World::new(Role::Cache(RULES), 5, 3);
    world.set(2, Condition::Ended);
    world.pass(600);
    assert_eq!(world.said("shard-ejected"), 1, "{:?}", world.events);
    for worker in 0..3 {
        for key in &keys {
            assert_eq!(
                world.get(worker, key),
                "$5\r\nvalue\r\n",
                "worker {worker} {key}"
            );
        }
        assert!(
            world
                .topology(worker)
                .contains("shard s2 127.0.0.1:7002 down ejected"),
            "{}",
            world.topology(worker)
        );
    }
    // It is tried for as long as it is dead, and not let in.
    world.pass(20_000);
    assert_eq!(world.count(PerShard::Ejections, 2), 1, "no flapping");
    assert_eq!(world.count(PerShard::Ejected, 2), 1);
    world.set(2, Condition::Loading);
    world.pass(5_000);
    assert_eq!(
        world.count(PerShard::Ejected, 2),
        1,
        "it answers, but not as one that is well"
    );
    world.set(2, Condition::Well);
    world.pass(500);
    assert_eq!(world.said("shard-returning"), 1, "{:?}", world.events);
    let share = world.count(PerShard::Share, 2);
    assert!((1..16).contains(&share), "{share}");
    assert!(
        world
            .topology(1)
            .contains(&format!("up returning {share}/16")),
        "{}",
        world.topology(1)
    );
    world.pass(2_000);
    assert_eq!(world.said("shard-readmitted"), 1);
    assert_eq!(world.count(PerShard::Share, 2), u64::from(SHARE_WHOLE));
    assert_eq!(world.count(PerShard::Readmissions, 2), 1);
}

#[test]
fn a_shard_that_does_not_answer_is_ejected_by_its_time_outs() {
    let keys = keys(4);
    let mut world = World::new(Role::Cache(RULES), 4, 2);
    world.set(1, Condition::Frozen);
    world.get(1, &keys[1]);
    world.pass(3_000);
    assert_eq!(world.count(PerShard::Ejections, 1), 1);
    assert!(world.count(PerShard::Timeouts, 1) >= 2);
    // The reply to what was asked came as an error; what is asked now is answered elsewhere.
    assert!(world.get(1, &keys[1]).ends_with("$5\r\nvalue\r\n"));
}

#[test]
fn what_fails_while_it_comes_back_is_out_at_once_and_longer() {
    let mut world = World::new(Role::Cache(RULES), 4, 2);
    world.set(0, Condition::Ended);
    world.pass(600);
    world.set(0, Condition::Well);
    world.pass(1_800);
    assert_eq!(world.said("shard-returning"), 1, "{:?}", world.events);
    world.set(0, Condition::Ended);
    assert_eq!(
        world.count(PerShard::Ejections, 0),
        2,
        "one failure was enough"
    );
    world.set(0, Condition::Well);
    world.pass(1_500);
    assert_eq!(
        world.count(PerShard::Ejected, 0),
        1,
        "twice the time has not passed"
    );
    world.pass(1_500);
    assert_eq!(world.count(PerShard::Ejected, 0), 0);
}

#[test]
fn no_more_than_the_bound_are_out_and_the_others_give_errors() {
    let keys = keys(4);
    let mut world = World::new(
        Role::Cache(Ejection {
            shards_max: 1,
            ..RULES
        }),
        4,
        2,
    );
    world.set(0, Condition::Ended);
    world.pass(600);
    world.set(1, Condition::Ended);
    world.pass(2_000);
    assert_eq!(world.said("shard-ejected"), 1);
    assert!(world.said("ejection-refused") >= 1);
    assert!(
        world
            .stats
            .iter()
            .map(|stats| stats.of_keyspace(0, PerKeyspace::EjectionsRefused))
            .sum::<u64>()
            >= 1
    );
    assert!(world
        .get(1, &keys[1])
        .starts_with("-ERR shard 's1' at 127.0.0.1:7001 is down"));
    assert_eq!(world.get(1, &keys[2]), "$5\r\nvalue\r\n");
}

#[test]
fn a_store_never_ejects() {
    let keys = keys(4);
    let mut world = World::new(Role::Store, 4, 2);
    world.set(3, Condition::Ended);
    world.pass(10_000);
    for worker in 0..2 {
        assert!(world
            .get(worker, &keys[3])
            .starts_with("-ERR shard 's3' at 127.0.0.1:7003 is down"));
        for key in &keys[..3] {
            assert_eq!(world.get(worker, key), "$5\r\nvalue\r\n");
        }
    }
    world.set(3, Condition::Well);
    world.pass(5_000);
    assert_eq!(world.get(0, &keys[3]), "$5\r\nvalue\r\n");
    assert_eq!(world.said("shard-ejected"), 0);
}

#[test]
fn replies_count_only_where_that_is_asked_for() {
    for on_replies in [false, true] {
        let keys = keys(3);
        let mut world = World::new(
            Role::Cache(Ejection {
                on_replies,
                ..RULES
            }),
            3,
            1,
        );
        world.set(1, Condition::Loading);
        for _ in 0..3 {
            world.get(0, &keys[1]);
            world.pass(100);
        }
        assert_eq!(world.count(PerShard::Ejections, 1), u64::from(on_replies));
    }
}

#[test]
fn whatever_happens_all_are_in_again_when_all_is_well() {
    for seed in 1..40u64 {
        let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |below: u64| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            chance % below
        };
        let shards = 2 + draw(5) as usize;
        let workers = 1 + draw(3) as usize;
        let rules = Ejection {
            after: 1 + draw(3) as u32,
            retry_after_ms: draw(1500),
            on_replies: draw(2) == 1,
            shards_max: draw(shards as u64) as u32,
            readmit_ms: draw(2000),
        };
        let keys = keys(shards);
        let mut world = World::new(Role::Cache(rules), shards, workers);
        for _ in 0..60 {
            let conditions = [
                Condition::Well,
                Condition::Well,
                Condition::Ended,
                Condition::Frozen,
                Condition::Loading,
            ];
            let shard = draw(shards as u64) as usize;
            world.set(shard, conditions[draw(5) as usize]);
            let worker = draw(workers as u64) as usize;
            world.get(worker, &keys[draw(shards as u64) as usize]);
            world.pass(draw(900));
        }
        for shard in 0..shards {
            world.set(shard, Condition::Well);
        }
        // The longest wait of one that relapsed all the time.
        world.pass(400_000);
        for shard in 0..shards {
            assert_eq!(
                world.count(PerShard::Share, shard),
                u64::from(SHARE_WHOLE),
                "seed {seed} shard {shard} {rules:?}"
            );
        }
        for worker in 0..workers {
            for key in &keys {
                assert!(
                    world.get(worker, key).ends_with("$5\r\nvalue\r\n"),
                    "seed {seed}"
                );
            }
        }
    }
}
