//! What a request costs inside the core, without sockets: nanoseconds of one core, by case.
//!
//! `cargo bench -p shoal-core` runs all cases, `cargo bench -p shoal-core -- mget` those whose names contain the word. Each
//! case is run for several rounds of a fixed number of requests; the fastest round and the median are printed. On a noisy
//! machine count instructions instead, which do not move; one round of one case, under callgrind:
//!
//! ```text
//! cargo bench -p shoal-core --no-run     # prints the path of the binary
//! valgrind --tool=callgrind <binary> --rounds 1 --exact 'engine GET, 4 shards, pipeline 16'
//! callgrind_annotate callgrind.out.*
//! ```
//!
//! Rejected: criterion. It brings sixty crates for figures that are compared in one run only; throughput and CPU per
//! request of the whole proxy, beside its peers, are measured by `make bench`.

use shoal_core::protocol::command::Merge;
use shoal_core::protocol::encode::{self, Proto};
use shoal_core::protocol::reply::ReplyScanner;
use shoal_core::protocol::request::{RequestScanner, Scan};
use shoal_core::routing::admission::Admission;
use shoal_core::routing::distribution::{Distribution, Slots};
use shoal_core::routing::merge::merge;
use shoal_core::routing::route::{decide, Request, Scratch};
use shoal_core::routing::topology::{Keyspace, Shard, Topology};
use shoal_core::session::engine::{Action, Engine, Identity};
use shoal_core::session::stats::Stats;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const KEYS: usize = 1000;
const SHARDS: [usize; 3] = [4, 64, 1000];

/// What was asked for on the command line.
struct Wanted {
    rounds: usize,
    word: String,
    is_exact: bool,
}

impl Wanted {
    fn from_arguments() -> Self {
        let mut wanted = Self {
            rounds: 7,
            word: String::new(),
            is_exact: false,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                // Cargo's own.
                "--bench" | "--test" => {}
                "--exact" => wanted.is_exact = true,
                "--rounds" => {
                    let count = arguments.next().and_then(|count| count.parse().ok());
                    wanted.rounds = count.unwrap_or(wanted.rounds).max(1);
                }
                word => wanted.word = word.to_string(),
            }
        }
        wanted
    }

    /// Runs `round` (which does so many requests) and prints what one request took.
    fn measure(&self, name: &str, requests: usize, mut round: impl FnMut()) {
        let is_wanted = if self.is_exact {
            name == self.word
        } else {
            name.contains(&self.word)
        };
        if !is_wanted {
            return;
        }
        if self.rounds > 1 {
            round();
        }
        let mut took: Vec<f64> = (0..self.rounds)
            .map(|_| {
                let begin = Instant::now();
                round();
                begin.elapsed().as_nanos() as f64 / requests as f64
            })
            .collect();
        took.sort_by(f64::total_cmp);
        println!(
            "{name:<44} {:>9.1} ns {:>9.1} ns",
            took[0],
            took[took.len() / 2]
        );
    }
}

fn main() {
    let wanted = Wanted::from_arguments();
    println!("{:<44} {:>12} {:>12}", "per request", "fastest", "median");
    scanning(&wanted);
    routing(&wanted);
    merging(&wanted);
    for shards in SHARDS {
        for (name, pipeline) in [("pipeline 1", 1), ("pipeline 16", 16)] {
            let gets = (0..pipeline).flat_map(|number| get(number * 61)).collect();
            let case = format!("engine GET, {shards} shards, {name}");
            engine_turns(&wanted, &case, shards, gets, pipeline, b"$5\r\nvalue\r\n");
        }
        let keys: Vec<String> = (0..10).map(|number| key(number * 61)).collect();
        let mget = request_of("MGET", &keys);
        engine_mget(
            &wanted,
            &format!("engine MGET of 10, {shards} shards"),
            shards,
            mget,
        );
    }
}

fn key(number: usize) -> String {
    format!("key:{:012}", number % KEYS)
}

fn request_of(name: &str, keys: &[String]) -> Vec<u8> {
    let mut words: Vec<&[u8]> = vec![name.as_bytes()];
    words.extend(keys.iter().map(String::as_bytes));
    let mut out = Vec::new();
    encode::request(&mut out, &words);
    out
}

fn get(number: usize) -> Vec<u8> {
    request_of("GET", &[key(number)])
}

fn keyspace(shards: usize) -> Keyspace {
    let shard = |index: usize| Shard {
        name: format!("s{index}"),
        endpoint: format!("127.0.0.1:{}", 7000 + index),
        credentials: None,
    };
    let distribution = Distribution::Slots(Slots::even(shards));
    Keyspace::over("bench", (0..shards).map(shard).collect(), distribution)
}

fn scanning(wanted: &Wanted) {
    let mut set = Vec::new();
    encode::request(&mut set, &[b"SET", b"key:000000000001", &[b'v'; 64]]);
    for (name, one) in [("scan GET", get(1)), ("scan SET of 64 bytes", set)] {
        let stream = one.repeat(1000);
        let mut scanner = RequestScanner::default();
        wanted.measure(name, 100_000, || {
            for _ in 0..100 {
                let mut at = 0;
                while let Scan::Whole(length) = scanner.scan(&stream[at..], true) {
                    at += length;
                    black_box(scanner.args.len());
                    scanner.reset();
                }
                assert_eq!(at, stream.len());
            }
        });
    }
    let stream = [b"$64\r\n".as_slice(), &[b'v'; 64], b"\r\n"]
        .concat()
        .repeat(1000);
    wanted.measure("scan a reply of 64 bytes", 100_000, || {
        for _ in 0..100 {
            let mut scanner = ReplyScanner::default();
            let mut at = 0;
            while at < stream.len() {
                at += scanner
                    .scan(&stream[at..])
                    .map_or(stream.len(), |progress| progress.used);
            }
        }
    });
}

fn routing(wanted: &Wanted) {
    let requests: Vec<Vec<u8>> = (0..KEYS).map(get).collect();
    let ten = |first: usize| {
        (0..10)
            .map(|number| key(first * 7 + number * 61))
            .collect::<Vec<_>>()
    };
    let mgets: Vec<Vec<u8>> = (0..KEYS)
        .map(|first| request_of("MGET", &ten(first)))
        .collect();
    for shards in SHARDS {
        let space = keyspace(shards);
        let admission = Admission::whole(shards);
        for (name, requests) in [("GET", &requests), ("MGET of 10", &mgets)] {
            let scanned: Vec<_> = requests
                .iter()
                .map(|data| {
                    let mut scanner = RequestScanner::default();
                    scanner.scan(data, true);
                    (data, scanner.args)
                })
                .collect();
            let mut scratch = Scratch::default();
            wanted.measure(
                &format!("route {name}, {shards} shards"),
                100 * KEYS,
                || {
                    for _ in 0..100 {
                        for (data, args) in &scanned {
                            black_box(decide(
                                &space,
                                &admission,
                                &Request { data, args },
                                &mut scratch,
                            ));
                        }
                    }
                },
            );
        }
    }
}

fn merging(wanted: &Wanted) {
    let value = b"$64\r\nvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv\r\n";
    for fragments in [2usize, 4, 10] {
        let order: Vec<u16> = (0..10).map(|key| (key * 3 % fragments) as u16).collect();
        let parts: Vec<Vec<u8>> = (0..fragments as u16)
            .map(|part| {
                let count = order.iter().filter(|&&fragment| fragment == part).count();
                [format!("*{count}\r\n").into_bytes(), value.repeat(count)].concat()
            })
            .collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let mut out = Vec::new();
        wanted.measure(
            &format!("merge MGET of 10 from {fragments}"),
            100_000,
            || {
                for _ in 0..100_000 {
                    out.clear();
                    merge(Merge::KeyOrder, &parts, &order, Proto::Resp2, 0, &mut out);
                    black_box(out.len());
                }
            },
        );
    }
}

// -------------------------------------------------------------------------------------------------- whole engines

/// An engine whose links are all up.
fn engine(shards: usize) -> Engine {
    let topology = Arc::new(Topology::new(1, vec![keyspace(shards)]).expect("a good topology"));
    let stats = Arc::new(vec![Stats::new(&topology)]);
    let identity = Identity {
        worker: 0,
        workers: 1,
        run_id: String::new(),
        process_id: 1,
        ports: vec![6380],
        seed: 1,
        trial: Default::default(),
    };
    let mut engine = Engine::new(identity, topology, stats, 0);
    for action in std::mem::take(&mut engine.actions) {
        if let Action::Open(link) = action {
            engine.link_connected(link);
            engine.link_received(link, b"+fine\r\n");
        }
    }
    for link in std::mem::take(&mut engine.dirty_links) {
        take(&mut engine, link);
    }
    engine.actions.clear();
    engine
}

/// Takes what a link has to write, as a socket would; the number of arguments' marks in it.
fn take(engine: &mut Engine, link: u32) -> usize {
    let Some(output) = engine.link_output(link) else {
        return 0;
    };
    let length = output.len();
    let stars = output.front().iter().filter(|&&byte| byte == b'*').count();
    output.advance(length);
    engine.link_written(link, length);
    stars
}

fn give(engine: &mut Engine) {
    for slot in std::mem::take(&mut engine.dirty_clients) {
        let Some(output) = engine.client_output(slot) else {
            continue;
        };
        let length = output.len();
        output.advance(length);
        engine.client_written(slot, length);
        engine.client_rests(slot);
    }
}

/// Rounds of: a client's pipeline comes in, links are written, replies come, the client is written.
fn engine_turns(
    wanted: &Wanted,
    name: &str,
    shards: usize,
    pipeline: Vec<u8>,
    requests: usize,
    reply: &[u8],
) {
    let mut engine = engine(shards);
    let client = engine.client_connected(0, "a:1".into(), "b:2".into());
    let replies = reply.repeat(requests);
    let turns = 20_000 / requests;
    wanted.measure(name, turns * requests, || {
        for _ in 0..turns {
            engine.client_received(client, &pipeline);
            for link in std::mem::take(&mut engine.dirty_links) {
                let count = take(&mut engine, link);
                engine.link_received(link, &replies[..count * reply.len()]);
            }
            give(&mut engine);
        }
        assert_eq!(engine.audit().map(|totals| totals.in_flight), Ok(0));
    });
}

/// As `engine_turns`; each fragment is answered with as many values as it asks for.
fn engine_mget(wanted: &Wanted, name: &str, shards: usize, mget: Vec<u8>) {
    let mut engine = engine(shards);
    let client = engine.client_connected(0, "a:1".into(), "b:2".into());
    let replies: Vec<Vec<u8>> = (0..=10)
        .map(|count: usize| {
            [
                format!("*{count}\r\n").into_bytes(),
                b"$5\r\nvalue\r\n".repeat(count),
            ]
            .concat()
        })
        .collect();
    wanted.measure(name, 10_000, || {
        for _ in 0..10_000 {
            engine.client_received(client, &mget);
            for link in std::mem::take(&mut engine.dirty_links) {
                let keys = engine.link_output(link).map_or(0, |output| {
                    let dollars = output.front().iter().filter(|&&byte| byte == b'$').count();
                    dollars.saturating_sub(1)
                });
                take(&mut engine, link);
                engine.link_received(link, &replies[keys]);
            }
            give(&mut engine);
        }
        assert_eq!(engine.audit().map(|totals| totals.in_flight), Ok(0));
    });
}
