//! A seeded simulation of operations across shards: the state machines of the core between model shards, and all that can happen
//! between them.
//!
//! Each world is made from one number: shards (`shard`, a model that does every call as it is described), connections
//! (`wires`: queues that may be slow, be cut on either side, and go on after that), proxies (`proxy`: what the engine does around
//! `Operation`, `Recovery` and `Member`), clients with single-key commands and operations, and what goes wrong (`world`: proxies and
//! shards stop and go on, die and come back; connections and messages are lost; there is no memory). Then all is healed. What must
//! hold in every world: clients' histories are strictly serializable (`history`), where "not done" means not done; no command gets
//! through a complete fence; no participant of a committed operation is released; everything comes to rest and no record is left.
//!
//! The simulation has a switch for each rule of the protocol (`rules`), and a test finds for each what its absence breaks (`cases`).
//!
//! A run that fails says its number: `SHOAL_SIMULATION_SEED=<number> cargo test -p shoal-core --test cross_shard <test>`
//! does it again. `SHOAL_SIMULATION_RUNS=<count>` does more of them, and lets the test of the rules count all that breaks;
//! `SHOAL_SIMULATION_RULE=R7` counts for those only whose names contain it.

// A panic in a helper is how these tests fail.
#![allow(clippy::panic)]

mod cases;
// The other simulation uses more of it.
#[allow(dead_code)]
#[path = "../simulation/chance.rs"]
mod chance;
mod history;
mod holds;
mod language;
mod proxy;
mod rules;
mod shard;
mod wires;
mod world;

use cases::CASES;
use chance::Chance;
use history::{History, Seen};
use language::{Op, Reply};
use rules::Rules;
use std::ops::Range;
use world::{Conditions, Verdict, World};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds(runs: u64) -> Range<u64> {
    match number("SHOAL_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SHOAL_SIMULATION_RUNS").unwrap_or(runs),
    }
}

fn assert_well(verdict: &Verdict, what: &str) {
    if let Some(why) = &verdict.stuck {
        panic!("{what} does not come to rest: {why}");
    }
    assert_eq!(verdict.broken, Vec::<String>::new(), "{what}");
    assert!(
        verdict.is_serializable,
        "{what} is not serializable: {:#?}",
        verdict.history
    );
}

/// With all rules nothing breaks, whatever happens.
#[test]
fn all_rules() {
    let (mut done, mut faults, mut recovered, mut evicted) = (0, 0, 0, 0);
    let seeds = seeds(1500);
    for seed in seeds.clone() {
        let conditions = Conditions::by(&mut Chance::new(!seed));
        let verdict = World::new(conditions, Rules::ALL, seed).run();
        assert_well(&verdict, &format!("SHOAL_SIMULATION_SEED={seed}"));
        done += verdict.done;
        faults += verdict.faults;
        recovered += verdict.recovered;
        evicted += verdict.evicted;
    }
    eprintln!("{done} done, {faults} faults, {recovered} recoveries, {evicted} evictions");
    if seeds.end - seeds.start > 100 {
        let least = (seeds.end - seeds.start) as usize;
        assert!(done > 3 * least, "hardly anything was done");
        assert!(recovered > least / 10 && evicted > least / 10);
    }
}

/// The same in the worlds that are hard on one rule.
#[test]
fn all_rules_in_the_hardest_worlds() {
    for case in CASES {
        for seed in seeds(60) {
            let verdict = World::new(case.conditions(seed), Rules::ALL, seed).run();
            let what = format!("SHOAL_SIMULATION_SEED={seed}, {}", case.name);
            assert_well(&verdict, &what);
        }
    }
}

/// Without any one rule something breaks: so it is needed, and this simulation would see it missing.
#[test]
fn each_rule_is_needed() {
    const RUNS_MAX: u64 = 6_000;
    let counted = number("SHOAL_SIMULATION_RUNS");
    let mut needless = Vec::new();
    let rule = std::env::var("SHOAL_SIMULATION_RULE").unwrap_or_default();
    for case in CASES.iter().filter(|case| case.name.contains(&rule)) {
        let first = if counted.is_some() { 0 } else { case.from };
        let (mut bad, mut broken, mut stuck) = (0, 0, 0);
        let mut found = None;
        for seed in first..first + counted.unwrap_or(RUNS_MAX) {
            let verdict = World::new(case.conditions(seed), case.rules(), seed).run();
            bad += usize::from(!verdict.is_serializable);
            broken += usize::from(!verdict.broken.is_empty());
            stuck += usize::from(verdict.stuck.is_some());
            if !verdict.is_serializable || !verdict.broken.is_empty() {
                found.get_or_insert(seed);
                if counted.is_none() {
                    break;
                }
            }
        }
        eprintln!(
            "without \"{}\": {bad} not serializable, {broken} with a broken invariant, {stuck} stuck, first seed {found:?}",
            case.name
        );
        if found.is_none() {
            needless.push(case.name);
        }
    }
    assert_eq!(needless, Vec::<&str>::new(), "nothing breaks without");
}

// ------------------------------------------------------------------------------------------------- the judge

fn is_fine(seen: &[(Op, u64, Option<(u64, Reply)>)]) -> bool {
    let seen = seen.iter().cloned().map(|(op, called, returned)| Seen {
        op,
        called,
        returned,
    });
    History {
        seen: seen.collect(),
    }
    .is_strictly_serializable()
}

fn get(key: u8, called: u64, token: Option<u32>) -> (Op, u64, Option<(u64, Reply)>) {
    let reply = vec![token.map(|token| vec![token])];
    (Op::Get(vec![key]), called, Some((called + 1, reply)))
}

#[test]
fn the_judge_knows_what_can_be() {
    let set = (Op::Set(vec![0, 1], 7), 1, Some((10, vec![])));
    // While it runs it may be seen or not, but not first seen and then not.
    assert!(is_fine(&[set.clone(), get(0, 2, None), get(1, 4, Some(7))]));
    assert!(!is_fine(&[
        set.clone(),
        get(0, 2, Some(7)),
        get(1, 4, None)
    ]));
    // When it has returned it is seen.
    assert!(!is_fine(&[set.clone(), get(0, 11, None)]));
    // Nobody knows whether it was done: either, and at any time later.
    let lost = (set.0.clone(), 1, None);
    assert!(is_fine(&[lost.clone(), get(0, 20, None), get(1, 22, None)]));
    assert!(is_fine(&[
        lost.clone(),
        get(0, 20, None),
        get(1, 22, Some(7))
    ]));
    // But not one half of it.
    assert!(!is_fine(&[
        lost.clone(),
        get(0, 20, Some(7)),
        get(1, 22, None)
    ]));
    // And not before it was called.
    assert!(!is_fine(&[
        (Op::Set(vec![0], 7), 5, None),
        get(0, 1, Some(7))
    ]));
}

#[test]
fn the_judge_knows_a_half_rename() {
    let set = (Op::Set(vec![0], 7), 1, Some((2, vec![])));
    let renamed = (Op::Rename(0, 1), 3, Some((4, vec![Some(vec![])])));
    assert!(is_fine(&[
        set.clone(),
        renamed.clone(),
        get(0, 5, None),
        get(1, 7, Some(7))
    ]));
    assert!(!is_fine(&[
        set.clone(),
        renamed.clone(),
        get(0, 5, Some(7))
    ]));
    assert!(!is_fine(&[set.clone(), renamed.clone(), get(1, 5, None)]));
    let push = |called| {
        (
            Op::Push(vec![0], 9),
            called,
            Some((called + 9, vec![Some(vec![1])])),
        )
    };
    assert!(!is_fine(&[push(1), push(2)]), "an update is lost");
}
