//! A seeded simulation of whole engines: clients, shards and wires that do what they like, byte by byte.
//!
//! Each run is made from one number: how many shards and engines there are, what clients ask and how their requests are
//! cut, how much each peer takes at a time, which connection breaks at which byte. What must hold in every one of them:
//! each reply belongs to its request (by tokens, by values that only this client writes), comes once and in order; an
//! error is given only where something happened that explains it, and says the truth about whether the request was sent;
//! nothing is executed twice; a healed world comes to rest with every request answered and nothing left in the books.
//!
//! A run that fails says its number: `SHOAL_SIMULATION_SEED=<number> cargo test -p shoal-core --test simulation <test>`
//! does it again. `SHOAL_SIMULATION_RUNS=<count>` does more of them.

// A panic in a helper is how these tests fail.
#![allow(clippy::panic)]

#[path = "simulation/chance.rs"]
mod chance;
#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/model.rs"]
mod model;
#[path = "simulation/resp.rs"]
mod resp;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/shard.rs"]
mod shard;
#[path = "simulation/transaction.rs"]
mod transaction;
#[path = "simulation/wires.rs"]
mod wires;
#[path = "simulation/world.rs"]
mod world;

use chance::Chance;
use client::Habits;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use world::{Conditions, World};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs many worlds; the first that fails says how to see it again. How often a link was stalled.
fn simulate(runs: u64, conditions: fn(&mut Chance) -> Conditions) -> usize {
    let seeds = match number("SHOAL_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SHOAL_SIMULATION_RUNS").unwrap_or(runs),
    };
    let (mut judged, mut stalls) = (0, 0);
    for seed in seeds.clone() {
        let world = catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::new(conditions(&mut Chance::new(seed)), seed);
            world.run();
            (world.judged, world.stalls)
        }));
        match world {
            Ok((replies, stalled)) => {
                judged += replies;
                stalls += stalled;
            }
            Err(panic) => {
                eprintln!("this was SHOAL_SIMULATION_SEED={seed}");
                resume_unwind(panic);
            }
        }
    }
    assert!(
        judged as u64 > (seeds.end - seeds.start) * 10,
        "hardly anything was asked"
    );
    eprintln!("{judged} replies, {stalls} stalls");
    stalls
}

fn common(chance: &mut Chance) -> Conditions {
    let shards = chance.between(1, 5);
    Conditions {
        shards,
        engines: if chance.one_in(4) { 2 } else { 1 },
        clients: chance.between(1, 6),
        steps: chance.between(300, 3000),
        habits: Habits {
            shards: shards as u16,
            asked_max: 3000,
            password: chance.one_in(5).then(|| "secret".to_string()),
            ..Habits::default()
        },
        shard_password: chance.one_in(4).then(|| "shown".to_string()),
        pushes: chance.one_in(3),
        ..Conditions::default()
    }
}

/// Nothing goes wrong: no error is ever explained, every value is known exactly.
#[test]
fn calm_worlds() {
    simulate(500, common);
}

#[test]
fn odd_clients() {
    simulate(500, |chance| {
        let mut conditions = common(chance);
        conditions.habits.oddities = true;
        conditions.slow_clients = chance.one_in(2);
        conditions
    });
}

#[test]
fn broken_worlds() {
    simulate(1000, |chance| {
        let mut conditions = common(chance);
        conditions.faults = true;
        conditions.habits.oddities = chance.one_in(2);
        conditions.slow_clients = chance.one_in(3);
        conditions
    });
}

/// Pipelines longer than what may be in flight, values larger than what may wait.
#[test]
fn large_worlds() {
    simulate(40, |chance| {
        let mut conditions = common(chance);
        conditions.steps = chance.between(300, 1000);
        conditions.habits.bursts = chance.one_in(2);
        conditions.habits.large_bytes = *chance.pick(&[0, 2_000, 100_000]);
        conditions.habits.oddities = chance.one_in(4);
        conditions.slow_clients = chance.one_in(2);
        conditions.faults = chance.one_in(2);
        conditions
    });
}

/// Replies so large that clients which do not read them hold up connections, are closed, or read on just in time.
#[test]
fn heavy_worlds() {
    let stalls = simulate(6, |chance| {
        let mut conditions = common(chance);
        conditions.shards = chance.between(1, 3);
        conditions.habits.shards = conditions.shards as u16;
        conditions.clients = chance.between(2, 4);
        conditions.steps = 2000;
        conditions.habits.asked_max = 50;
        conditions.habits.large_reply_bytes = 12_000_000;
        conditions.slow_clients = true;
        conditions.faults = chance.one_in(2);
        conditions
    });
    assert!(stalls > 0 || number("SHOAL_SIMULATION_SEED").is_some());
}
