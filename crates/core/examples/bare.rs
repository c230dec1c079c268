//! The data plane without Python, for measuring: `bare 127.0.0.1:6380 127.0.0.1:7001 127.0.0.1:7002 ...`.
//!
//! One keyspace, slots dealt evenly, one worker, until a line (or the end) of standard input. For callgrind and perf, where an
//! interpreter in the same process would only be in the way.

use shoal_core::net::proxy::Proxy;
use shoal_core::routing::distribution::{Distribution, Slots};
use shoal_core::routing::topology::{Keyspace, Shard, Topology};
use std::time::Duration;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(listen) = arguments.next() else {
        eprintln!("usage: bare LISTEN SHARD...");
        std::process::exit(2);
    };
    let shards: Vec<Shard> = arguments
        .enumerate()
        .map(|(index, endpoint)| Shard {
            name: format!("s{index}"),
            endpoint,
            credentials: None,
        })
        .collect();
    let distribution = Distribution::Slots(Slots::even(shards.len().max(1)));
    let keyspace = Keyspace {
        listen,
        max_clients: 20_000,
        ..Keyspace::over("main", shards, distribution)
    };
    let started = Topology::new(1, vec![keyspace])
        .map_err(|error| error.0)
        .and_then(|topology| Proxy::start(topology, 1).map_err(|error| format!("{error:?}")));
    match started {
        Ok(proxy) => {
            let mut line = String::new();
            // Whatever ends the input ends the measurement.
            let _ = std::io::stdin().read_line(&mut line);
            proxy.stop(Duration::from_secs(1));
        }
        Err(error) => {
            eprintln!("bare: {error}");
            std::process::exit(1);
        }
    }
}
