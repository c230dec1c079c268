//! The running data plane: every worker, from start to stop.
//!
//! Owns: the threads. `Proxy::start` binds every listener before it starts any of them, so that a port that is taken is
//! found while nothing runs yet.
//!
//! Must stay true: a worker that panics is reported and takes down neither the process nor the other workers unheard.

use crate::limits::{EVENTS_KEPT_MAX, WORKERS_MAX};
use crate::net::fault::trial;
use crate::net::listen::{doors, Listener};
use crate::net::poll::Sockets;
use crate::net::resolve::Resolver;
use crate::net::tls::{Side, Status, Tls};
use crate::net::tls_files::FileError;
use crate::net::worker::{Letter, Parts, Postbox, Report, Reporter, Worker};
use crate::routing::topology::Topology;
use crate::session::backend::Health;
use crate::session::engine::{Engine, Event, Identity, Level};
use crate::session::stats::{PerShard, Stats};
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{channel, sync_channel, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Why it did not start. Nothing runs then.
#[derive(Debug)]
pub enum StartError {
    /// A listener could not be bound.
    Listen {
        /// `host:port` or path.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// Threads or the poll could not be made.
    Io(io::Error),
    /// A file of TLS cannot be used: of this keyspace, on this side.
    Tls(String, Side, FileError),
    /// The number of workers is not 1 to `WORKERS_MAX`.
    Workers(usize),
}

/// A shard, as the workers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStatus {
    /// Name of its keyspace.
    pub keyspace: String,
    /// Its name.
    pub shard: String,
    /// Where it lives.
    pub endpoint: String,
    /// The worst state that any worker has it in.
    pub state: &'static str,
    /// Why it is down.
    pub reason: String,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Proxy {
    topology: Arc<Topology>,
    stats: Arc<Vec<Stats>>,
    addresses: Vec<(String, String)>,
    postboxes: Vec<Postbox>,
    threads: Mutex<Vec<JoinHandle<bool>>>,
    reports: Mutex<Receiver<Report>>,
    dropped: Arc<AtomicU64>,
    tls: Arc<Tls>,
}

impl Proxy {
    /// Binds, connects, serves.
    pub fn start(topology: Topology, workers: usize) -> Result<Self, StartError> {
        if workers == 0 || workers > WORKERS_MAX {
            return Err(StartError::Workers(workers));
        }
        let topology = Arc::new(topology);
        let tls = Tls::load(&topology)
            .map_err(|(keyspace, side, error)| StartError::Tls(keyspace, side, error))?;
        let tls = Arc::new(tls);
        let (listeners, addresses, ports) = bind_all(&topology)?;
        let cells = (0..workers).map(|_| Stats::new(&topology));
        let stats = Arc::new(cells.collect::<Vec<_>>());
        let (reports, received_reports) = sync_channel(EVENTS_KEPT_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let reporter = Reporter {
            reports,
            dropped: Arc::clone(&dropped),
        };
        let resolver = Resolver::start().map_err(StartError::Io)?;
        let start = Instant::now();
        let unix_ms = unix_ms();
        let seed = seed();
        let run_id = run_id(seed);
        let trial = trial();
        let (postboxes, rooms) = rooms(workers).map_err(StartError::Io)?;
        let mut threads = Vec::with_capacity(workers);
        let mut listeners = Some(listeners);
        for (number, (sockets, received)) in rooms.into_iter().enumerate() {
            let identity = Identity {
                worker: number,
                workers,
                run_id: run_id.clone(),
                process_id: std::process::id(),
                ports: ports.clone(),
                seed: seed.wrapping_add(number as u64),
                trial: trial.clone(),
            };
            // A copy each: the rules of a topology have scratch memory that threads would have to take turns with.
            let own = Arc::new(Topology::clone(&topology));
            let mut engine = Engine::new(identity, Arc::clone(&own), Arc::clone(&stats), 0);
            engine.started_at(unix_ms);
            let mut worker = Worker::new(Parts {
                engine,
                topology: own,
                sockets,
                received,
                postboxes: postboxes.clone(),
                number,
                resolver: resolver.clone(),
                reporter: reporter.clone(),
                start,
                tls: Arc::clone(&tls),
            });
            worker
                .listen(listeners.take().unwrap_or_default())
                .map_err(StartError::Io)?;
            threads.push(spawn(worker, reporter.clone()).map_err(StartError::Io)?);
        }
        Ok(Self {
            topology,
            stats,
            addresses,
            postboxes,
            threads: Mutex::new(threads),
            reports: Mutex::new(received_reports),
            dropped,
            tls,
        })
    }

    /// What each keyspace and side with TLS uses.
    pub fn tls(&self) -> Vec<Status> {
        self.tls.status(&self.topology)
    }

    /// Reads the files of TLS again, for new connections. What cannot be read stays as it is, and has its problem.
    pub fn reload_tls(&self) -> Vec<Status> {
        self.tls.reload(&self.topology)
    }

    /// (keyspace, `host:port` or path) as bound: one of each keyspace, then the listeners for TLS beside those.
    pub fn addresses(&self) -> &[(String, String)] {
        &self.addresses
    }

    /// Cells of every worker.
    pub fn stats(&self) -> &[Stats] {
        &self.stats
    }

    /// What is served.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Every shard, as the workers see it.
    pub fn shards(&self) -> Vec<ShardStatus> {
        let mut statuses = Vec::new();
        for (number, (keyspace, shard)) in self.topology.shards().enumerate() {
            let up = self
                .stats
                .iter()
                .filter(|stats| stats.of_shard(number, PerShard::Up) > 0)
                .count();
            let losses: u64 = self
                .stats
                .iter()
                .map(|stats| stats.of_shard(number, PerShard::Losses))
                .sum();
            let is_ejected =
                (self.stats.iter()).any(|stats| stats.of_shard(number, PerShard::Ejected) > 0);
            let reason = self.reason(number);
            let (state, reason) = match (up == self.stats.len(), losses) {
                _ if is_ejected => ("ejected", reason),
                (true, _) => (Health::Up.text(), String::new()),
                // Workers that had no request for it yet are not connected, and nothing is wrong with that.
                (false, _) if !keyspace.preconnect && reason.is_empty() => {
                    let state = if up > 0 { Health::Up } else { Health::Idle };
                    (state.text(), reason)
                }
                (false, 0) => (Health::Opening.text(), String::new()),
                (false, _) => ("down", reason),
            };
            statuses.push(ShardStatus {
                keyspace: keyspace.name.clone(),
                shard: shard.name.clone(),
                endpoint: shard.endpoint.clone(),
                state,
                reason,
            });
        }
        statuses
    }

    fn reason(&self, shard: usize) -> String {
        self.stats
            .iter()
            .map(|stats| stats.reason(shard))
            .find(|reason| !reason.is_empty())
            .unwrap_or_default()
    }

    /// Waits for events, at most so long.
    pub fn next_events(&self, timeout: Duration) -> Vec<Report> {
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(first) = reports.recv_timeout(timeout) else {
            return Vec::new();
        };
        std::iter::once(first)
            .chain(reports.try_iter().take(EVENTS_KEPT_MAX))
            .collect()
    }

    /// Events that found the queue full.
    pub fn events_dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Stops accepting, waits for what is in flight, ends the threads. True when all was answered in time.
    pub fn stop(&self, within: Duration) -> bool {
        for postbox in &self.postboxes {
            postbox.leave(Letter::Stop(within));
        }
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // Every thread is waited for, whatever the others said.
        let mut is_done = true;
        for thread in threads {
            is_done &= thread.join().unwrap_or(false);
        }
        is_done
    }
}

type Bound = (Vec<Listener>, Vec<(String, String)>, Vec<u16>);

fn bind_all(topology: &Topology) -> Result<Bound, StartError> {
    let mut bound = (Vec::new(), Vec::new(), Vec::new());
    for door in doors(topology) {
        let keyspace = &topology.keyspaces[door.keyspace as usize];
        let failed = |error| StartError::Listen {
            address: door.address.clone(),
            error,
        };
        let listener = Listener::bind_at(keyspace, &door.address).map_err(failed)?;
        let (address, port) = listener.address().map_err(failed)?;
        bound.0.push(listener);
        bound.1.push((keyspace.name.clone(), address));
        bound.2.push(port);
    }
    Ok(bound)
}

fn spawn(mut worker: Worker, reporter: Reporter) -> io::Result<JoinHandle<bool>> {
    let name = format!("shoal-worker-{}", worker.number);
    thread::Builder::new().name(name).spawn(move || {
        let number = worker.number;
        let reason = match catch_unwind(AssertUnwindSafe(|| worker.run())) {
            Ok(Ok(is_done)) => return is_done,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => match panic.downcast_ref::<String>() {
                Some(text) => text.clone(),
                None => panic
                    .downcast_ref::<&str>()
                    .map_or("it panicked", |text| *text)
                    .to_string(),
            },
        };
        let fields = vec![("reason", reason), ("worker", number.to_string())];
        reporter.report(Event {
            level: Level::Error,
            name: "worker-died",
            fields,
        });
        false
    })
}

/// What workers have before they begin: their sockets, and letters from each other.
type Rooms = (Vec<Postbox>, Vec<(Sockets, Receiver<Letter>)>);

fn rooms(workers: usize) -> io::Result<Rooms> {
    let mut rooms: Rooms = (Vec::with_capacity(workers), Vec::with_capacity(workers));
    for _ in 0..workers {
        let sockets = Sockets::new()?;
        let waker = Arc::new(sockets.waker()?);
        let (letters, received) = channel();
        rooms.0.push(Postbox { letters, waker });
        rooms.1.push((sockets, received));
    }
    Ok(rooms)
}

/// Now, in milliseconds since 1970.
fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Any number; different in every process.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

/// 40 hexadecimal digits, as servers have them.
fn run_id(seed: u64) -> String {
    let mut id = String::new();
    let mut value = seed | 1;
    while id.len() < 40 {
        value = value
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        id.push_str(&format!("{:08x}", value >> 32));
    }
    id
}
