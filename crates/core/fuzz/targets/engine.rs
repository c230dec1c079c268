//! A whole engine: any bytes from clients and from shards, in any order, with connections lost in between.
//!
//! The input is a list of steps (two bytes each: what, and how much), interleaved with the bytes that they use. After
//! each step the engine's books must agree (`audit`); at the end, when everybody has left, they must be empty.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_core::routing::distribution::{Distribution, Slots};
use shoal_core::routing::topology::{Keyspace, Shard, Topology};
use shoal_core::session::engine::{Action, Engine, Identity};
use shoal_core::session::stats::Stats;
use std::sync::Arc;

struct Scene {
    engine: Engine,
    clients: Vec<u32>,
    links: Vec<u32>,
    now_us: u64,
}

fn engine() -> Engine {
    let shard = |index: usize| Shard {
        name: format!("s{index}"),
        endpoint: format!("127.0.0.1:{}", 7000 + index),
        credentials: None,
    };
    let keyspace = Keyspace {
        unknown_commands_first_key: true,
        transactions_per_shard: true,
        timeout_ms: 1000,
        max_clients: 4,
        ..Keyspace::over(
            "fuzz",
            (0..2).map(shard).collect(),
            Distribution::Slots(Slots::even(2)),
        )
    };
    let topology = Arc::new(Topology::new(1, vec![keyspace]).expect("a good topology"));
    let stats = Arc::new(vec![Stats::new(&topology)]);
    let identity = Identity {
        worker: 0,
        workers: 1,
        run_id: String::new(),
        process_id: 1,
        ports: vec![1],
        seed: 1,
        trial: Default::default(),
    };
    Engine::new(identity, topology, stats, 0)
}

impl Scene {
    fn act(&mut self) {
        while !self.engine.actions.is_empty() {
            for action in std::mem::take(&mut self.engine.actions) {
                match action {
                    Action::Open(link) => {
                        assert!(!self.links.contains(&link), "opened twice");
                        self.links.push(link);
                    }
                    Action::CloseLink(link) => self.links.retain(|other| *other != link),
                    Action::CloseClient(slot) | Action::LetClientGo(slot) => {
                        self.clients.retain(|other| *other != slot);
                    }
                    Action::Mail(..) => panic!("there is nobody to write to"),
                    Action::ReadClient(_)
                    | Action::ReadLink(_)
                    | Action::Event(_)
                    | Action::Fault { .. } => {}
                }
            }
        }
    }

    /// Gives every client and every link what they have, up to a bound each.
    fn write(&mut self, most: usize) {
        for slot in self.clients.clone() {
            if let Some(output) = self.engine.client_output(slot) {
                let length = output.front().len().min(most);
                output.advance(length);
                self.engine.client_written(slot, length);
                self.engine.client_rests(slot);
            }
        }
        for link in self.links.clone() {
            if let Some(output) = self.engine.link_output(link) {
                let length = output.front().len().min(most);
                output.advance(length);
                self.engine.link_written(link, length);
            }
        }
    }

    fn step(&mut self, what: u8, bytes: &[u8]) {
        let which = usize::from(what >> 4);
        let client = self.clients.get(which % self.clients.len().max(1)).copied();
        let link = self.links.get(which % self.links.len().max(1)).copied();
        match (what & 15, client, link) {
            (0..=3, Some(client), _) if self.engine.reads_client(client) => {
                self.engine.client_received(client, bytes);
            }
            (4..=6, _, Some(link))
                if self.engine.reads_link(link) && self.engine.link_output(link).is_some() =>
            {
                self.engine.link_received(link, bytes);
            }
            (7, _, Some(link)) if self.engine.link_output(link).is_none() => {
                self.engine.link_connected(link)
            }
            (8, _, Some(link)) => self.engine.link_lost(link, "it was lost"),
            (9, Some(client), _) => self.engine.client_lost(client),
            (10, Some(client), _) if self.engine.reads_client(client) => {
                self.engine.client_ended(client)
            }
            (11, ..) if self.clients.len() < 5 => {
                let slot = self.engine.client_connected(0, "a:1".into(), "b:2".into());
                self.clients.push(slot);
            }
            (12 | 13, ..) => self.write(bytes.len() * 16),
            _ => {
                self.now_us += bytes.len() as u64 * 10_000;
                self.engine.set_now(self.now_us);
                self.engine.tick();
            }
        }
        self.act();
        self.engine.audit().unwrap_or_else(|why| panic!("{why}"));
    }
}

fuzz_target!(|input: &[u8]| {
    let mut scene = Scene {
        engine: engine(),
        clients: Vec::new(),
        links: Vec::new(),
        now_us: 0,
    };
    scene.act();
    scene.step(11, &[]);
    scene.step(7, &[]);
    scene.step(0x17, &[]);
    let mut rest = input;
    while let [what, length, more @ ..] = rest {
        let (bytes, after) = more.split_at(usize::from(*length).min(more.len()));
        scene.step(*what, bytes);
        rest = after;
    }
    for slot in scene.clients.clone() {
        scene.engine.client_lost(slot);
    }
    scene.act();
    let totals = scene.engine.audit().expect("sound books");
    assert_eq!(
        (totals.clients, totals.incoming_bytes, totals.stalled),
        (0, 0, 0)
    );
    assert_eq!(totals.links, scene.links.len());
});
