//! An engine with its surroundings, for tests that go step by step.
//!
//! The shards here are the test itself: it reads what links send and answers by hand.

#![allow(dead_code)] // each test program uses what it needs of it

use shoal_core::routing::distribution::{Distribution, Slots};
use shoal_core::routing::topology::{Keyspace, Shard, Topology};
use shoal_core::session::engine::{Action, Engine, Identity};
use shoal_core::session::stats::Stats;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An engine with its surroundings.
pub struct Scene {
    pub engine: Engine,
    pub stats: Arc<Vec<Stats>>,
    pub now_us: u64,
    /// Open links and the port of their shard.
    pub links: BTreeMap<u32, String>,
    pub closed: Vec<u32>,
    /// What shards tell of others' operations to who registers.
    pub records: String,
    /// Reasons and names of events, in order.
    pub events: Vec<(String, String)>,
}

/// A request as a client writes it.
pub fn request(args: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len());
    for arg in args {
        out.push_str(&format!("${}\r\n{arg}\r\n", arg.len()));
    }
    out.into_bytes()
}

/// By which number a shard knows a link, where it is told.
pub fn number_of(link: u32) -> u32 {
    link + 500
}

impl Scene {
    /// The same, with operations across shards.
    pub fn across(shards: usize) -> Self {
        Self::over(Keyspace {
            cross_shard: true,
            ..Self::keyspace(shards)
        })
    }

    /// A store whose slots are dealt evenly, for three clients.
    pub fn new(shards: usize, timeout_ms: u64) -> Self {
        Self::over(Keyspace {
            timeout_ms,
            max_clients: 3,
            ..Self::keyspace(shards)
        })
    }

    /// Slots dealt evenly over so many shards.
    pub fn keyspace(shards: usize) -> Keyspace {
        let shard = |index: usize| Shard {
            name: format!("s{index}"),
            endpoint: format!("127.0.0.1:{}", 7000 + index),
            credentials: None,
        };
        Keyspace::over(
            "test",
            (0..shards).map(shard).collect(),
            Distribution::Slots(Slots::even(shards)),
        )
    }

    /// All links connected and greeted.
    pub fn over(keyspace: Keyspace) -> Self {
        let topology = Arc::new(Topology::new(1, vec![keyspace]).expect("a good topology"));
        let stats = Arc::new(vec![Stats::new(&topology)]);
        let identity = Identity {
            worker: 0,
            workers: 1,
            run_id: String::new(),
            process_id: 1,
            ports: vec![6380],
            seed: 7,
            trial: Default::default(),
        };
        let mut scene = Self {
            engine: Engine::new(identity, topology, Arc::clone(&stats), 0),
            stats,
            now_us: 0,
            links: BTreeMap::new(),
            closed: Vec::new(),
            records: "*0\r\n".to_string(),
            events: Vec::new(),
        };
        scene.greet();
        scene
    }

    pub fn act(&mut self) {
        for action in std::mem::take(&mut self.engine.actions) {
            match action {
                Action::Open(link) => {
                    let endpoint = self.engine.link_endpoint(link).expect("an open link");
                    self.links.insert(link, endpoint);
                }
                Action::CloseLink(link) => {
                    self.links.remove(&link);
                }
                Action::CloseClient(slot) | Action::LetClientGo(slot) => self.closed.push(slot),
                Action::Fault { .. } => {}
                Action::Event(event) => {
                    let reason = event.fields.iter().find(|(name, _)| *name == "reason");
                    let reason = reason.map_or(String::new(), |(_, reason)| reason.clone());
                    self.events.push((event.name.to_string(), reason));
                }
                Action::ReadClient(_) | Action::ReadLink(_) | Action::Mail(..) => {}
            }
        }
    }

    /// Connects what wants to be connected and answers greetings, as often as there are any.
    pub fn greet(&mut self) {
        self.act();
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            if self.engine.link_output(link).is_none() {
                self.engine.link_connected(link);
                let greeting = self.sent(link);
                if greeting.contains("\r\nHELLO\r\n") {
                    self.engine.link_received(link, b"+fine\r\n");
                }
                if greeting.contains("SETNAME") {
                    let joined = "*5\r\n$6\r\njoined\r\n:10\r\n:0\r\n*1\r\n$1\r\np\r\n";
                    let answers =
                        format!("+OK\r\n:{}\r\n{joined}{}", number_of(link), self.records);
                    self.engine.link_received(link, answers.as_bytes());
                }
                for word in ["SELECT", "PING", "\r\nINFO\r\n"] {
                    if greeting.contains(word) {
                        self.engine.link_received(link, b"+fine\r\n");
                    }
                }
            }
        }
        self.act();
    }

    /// What a link has sent since the last look.
    pub fn sent(&mut self, link: u32) -> String {
        let mut all = Vec::new();
        while let Some(output) = self
            .engine
            .link_output(link)
            .filter(|output| !output.is_empty())
        {
            let piece = output.front().to_vec();
            output.advance(piece.len());
            all.extend_from_slice(&piece);
            self.engine.link_written(link, piece.len());
        }
        self.act();
        String::from_utf8_lossy(&all).into_owned()
    }

    /// What a client is given, up to so many bytes.
    pub fn given(&mut self, slot: u32, mut most: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(output) = self
            .engine
            .client_output(slot)
            .filter(|output| !output.is_empty())
        {
            let length = output.front().len().min(most);
            if length == 0 {
                break;
            }
            all.extend_from_slice(&output.front()[..length]);
            output.advance(length);
            most -= length;
            self.engine.client_written(slot, length);
            self.act();
        }
        all
    }

    pub fn text(&mut self, slot: u32) -> String {
        String::from_utf8_lossy(&self.given(slot, usize::MAX)).into_owned()
    }

    pub fn client(&mut self) -> u32 {
        let slot = self
            .engine
            .client_connected(0, "10.0.0.1:1".into(), "10.0.0.2:6380".into());
        self.act();
        slot
    }

    pub fn ask(&mut self, slot: u32, bytes: &[u8]) {
        self.engine.client_received(slot, bytes);
        self.act();
    }

    pub fn answer(&mut self, link: u32, bytes: &[u8]) {
        self.engine.link_received(link, bytes);
        self.act();
    }

    pub fn pass(&mut self, ms: usize) {
        let end = self.now_us + ms as u64 * 1000;
        while self.now_us < end {
            self.now_us = end.min(self.now_us + 100_000);
            self.engine.set_now(self.now_us);
            self.engine.tick();
            self.act();
        }
    }

    /// The links that are open, youngest last.
    pub fn open_links(&self) -> Vec<u32> {
        self.links.keys().copied().collect()
    }

    /// The youngest open link to a shard.
    pub fn link_to(&self, shard: usize) -> u32 {
        let endpoint = format!("127.0.0.1:{}", 7000 + shard);
        let mut of_shard = self.links.iter().filter(|(_, place)| **place == endpoint);
        *of_shard.next_back().expect("a link to the shard").0
    }

    pub fn has_event(&self, name: &str, reason: &str) -> bool {
        (self.events.iter()).any(|(event, why)| event == name && why.contains(reason))
    }
}
