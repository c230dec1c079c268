//! Nanoseconds to find the shard of a key, for each distribution at 4, 64 and 1000 shards.
//!
//! Flow: each distribution as a keyspace of so many shards -> `Keyspace::shard_of`, the call that routing makes for every
//! key, hash tag and admission included -> the fastest of several rounds, since a noisy machine can only add time.
//! Prints a table; runs under `cargo bench -p shoal-core --bench routing`.
//!
//! Must stay true: each row is flat, or grows as a logarithm. Keys are 16 bytes, as `user:00000012345`.
//! Rejected: keys in the order of their numbers. Hashes that keep neighbours together would then be flattered by the cache.

use std::hint::black_box;
use std::time::Instant;

use shoal_core::routing::admission::Admission;
use shoal_core::routing::distribution::{
    CodisSlots, Distribution, Modula, PartGiven, Ranges, Rendezvous, Ring, RingMember, Slots,
    TableGiven,
};
use shoal_core::routing::key_hash::KeyHash;
use shoal_core::routing::topology::{Keyspace, Shard};

const SHARDS: [u16; 3] = [4, 64, 1000];
const KEYS: usize = 10_000;
const ROUNDS: usize = 15;

fn endpoint(shard: u16) -> String {
    format!("10.0.{}.{}:6379", shard / 250, shard % 250)
}

/// Every distribution over so many shards, with what its row is called.
fn every(shards: u16) -> Vec<(String, Distribution)> {
    let members: Vec<RingMember> = (0..shards)
        .map(|shard| RingMember {
            name: endpoint(shard),
            weight: 1,
        })
        .collect();
    let count = usize::from(shards);
    let mut named = vec![
        ("slots", Distribution::Slots(Slots::even(count))),
        ("codis", Distribution::Codis(CodisSlots::even(count))),
        ("range", Distribution::Ranges(ranges(shards))),
        ("jump", Distribution::Jump(shards)),
        (
            "rendezvous",
            Distribution::Rendezvous(Rendezvous::new(&members)),
        ),
        (
            "redis-rb 4",
            Distribution::Ring(Ring::redis_rb(&members, false)),
        ),
        (
            "redis-rb 5",
            Distribution::Ring(Ring::redis_rb(&members, true)),
        ),
        ("predis", Distribution::Ring(Ring::predis(&members))),
        (
            "predis-ketama",
            Distribution::Ring(Ring::predis_ketama(&members)),
        ),
    ]
    .into_iter()
    .map(|(name, made)| (name.to_string(), made))
    .collect::<Vec<_>>();
    for &hash in KeyHash::ALL {
        let ring = Ring::ketama(&members, hash, true);
        named.push((format!("ketama {}", hash.name()), Distribution::Ring(ring)));
        let modula = Modula::new(&members, hash, true);
        named.push((
            format!("modula {}", hash.name()),
            Distribution::Modula(modula),
        ));
    }
    named
}

/// One table with a range for each shard.
fn ranges(shards: u16) -> Ranges {
    let last = |shard: u16| (usize::from(shard) + 1) * KEYS / usize::from(shards);
    let parts = (0..shards).map(|shard| PartGiven {
        first: None,
        last: (shard + 1 < shards).then(|| last(shard).to_string()),
        shard,
    });
    let table = TableGiven {
        prefix: "user:".to_string(),
        numeric: true,
        parts: parts.collect(),
    };
    Ranges::new(&[table], None, shards.into()).expect("the parts ascend and leave no gap")
}

fn keyspace(shards: u16, distribution: Distribution) -> Keyspace {
    let shards = (0..shards).map(|shard| Shard {
        name: format!("s{shard}"),
        endpoint: endpoint(shard),
        credentials: None,
    });
    Keyspace::over("main", shards.collect(), distribution)
}

fn nanoseconds(keyspace: &Keyspace, keys: &[Vec<u8>]) -> f64 {
    let admission = Admission::whole(keyspace.shards.len());
    let round = |_| {
        let start = Instant::now();
        for key in keys {
            black_box(keyspace.shard_of(black_box(key), &admission));
        }
        start.elapsed().as_nanos() as f64 / keys.len() as f64
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

fn main() {
    let keys: Vec<Vec<u8>> = (0..KEYS)
        .map(|number| format!("user:{:011}", number * 7919 % KEYS).into_bytes())
        .collect();
    let [few, more, many] = SHARDS;
    println!("| ns for a key, shards | {few:>7} | {more:>7} | {many:>7} |");
    println!("|:---------------------|--------:|--------:|--------:|");
    let mut columns = SHARDS.map(|shards| {
        every(shards)
            .into_iter()
            .map(move |(name, made)| (name, keyspace(shards, made)))
    });
    while let [Some((name, few)), Some((_, more)), Some((_, many))] =
        columns.each_mut().map(Iterator::next)
    {
        let [few, more, many] = [few, more, many].map(|of| nanoseconds(&of, &keys));
        println!("| {name:<20} | {few:>7.1} | {more:>7.1} | {many:>7.1} |");
    }
}
