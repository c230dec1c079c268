//! The running data plane, for Python.
//!
//! Owns: the classes of `_core.pyi` around `net::proxy::Proxy`. Must stay true: every call that may wait gives the
//! interpreter's lock away first; the sum over workers is made here, the meaning of each value is the core's.

use crate::convert::{topology, KeyspaceSpec};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use shoal_core::net::proxy::{Proxy as CoreProxy, StartError};
use shoal_core::net::tls::Status;
use shoal_core::session::engine::Level;
use shoal_core::session::stats::{CloseReason, PerKeyspace, PerShard, BUCKETS, METRICS};
use std::time::Duration;

/// See `_core.pyi`.
#[pyclass(frozen, get_all, module = "shoal._core")]
pub struct Event {
    unix_ms: u64,
    level: &'static str,
    name: &'static str,
    fields: Vec<(&'static str, String)>,
}

/// See `_core.pyi`.
#[pyclass(frozen, get_all, module = "shoal._core")]
pub struct Sample {
    metric: usize,
    labels: Vec<String>,
    value: u64,
    sum_us: u64,
    buckets: Vec<u64>,
}

/// See `_core.pyi`.
#[pyclass(frozen, get_all, module = "shoal._core")]
pub struct ShardStatus {
    keyspace: String,
    shard: String,
    endpoint: String,
    state: &'static str,
    reason: String,
}

/// See `_core.pyi`.
#[pyclass(frozen, get_all, module = "shoal._core")]
pub struct TlsStatus {
    keyspace: String,
    side: &'static str,
    cert: String,
    expires: Option<u64>,
    problem: String,
}

/// See `_core.pyi`.
#[pyclass(frozen, module = "shoal._core")]
pub struct Proxy {
    core: CoreProxy,
}

#[pymethods]
impl Proxy {
    #[new]
    fn new(py: Python<'_>, keyspaces: Vec<KeyspaceSpec>, workers: usize) -> PyResult<Self> {
        let topology = topology(keyspaces)?;
        match py.detach(|| CoreProxy::start(topology, workers)) {
            Ok(core) => Ok(Self { core }),
            Err(StartError::Listen { address, error }) => {
                let text = format!("cannot listen on {address}: {error}");
                Err(PyOSError::new_err((
                    error.raw_os_error().unwrap_or(0),
                    text,
                )))
            }
            Err(StartError::Io(error)) => Err(PyOSError::new_err((
                error.raw_os_error().unwrap_or(0),
                error.to_string(),
            ))),
            Err(StartError::Tls(keyspace, side, error)) => Err(PyValueError::new_err(format!(
                "keyspace '{keyspace}', TLS of {}: {}",
                side.text(),
                error.text
            ))),
            Err(StartError::Workers(count)) => Err(PyValueError::new_err(format!(
                "{count} workers are not possible"
            ))),
        }
    }

    fn addresses(&self) -> Vec<(String, String)> {
        self.core.addresses().to_vec()
    }

    fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        let keyspaces = &self.core.topology().keyspaces;
        let stats = self.core.stats();
        for (number, keyspace) in keyspaces.iter().enumerate() {
            for (metric, &cell) in PerKeyspace::ALL.iter().enumerate() {
                let value = stats.iter().fold(0u64, |sum, one| {
                    sum.wrapping_add(one.of_keyspace(number, cell))
                });
                samples.push(plain(metric, vec![keyspace.name.clone()], value));
            }
        }
        let first_of_shards = PerKeyspace::ALL.len();
        for (number, (keyspace, shard)) in self.core.topology().shards().enumerate() {
            let labels = vec![keyspace.name.clone(), shard.name.clone()];
            for (metric, &cell) in PerShard::ALL.iter().enumerate() {
                let value = stats.iter().fold(0u64, |sum, one| {
                    sum.wrapping_add(one.of_shard(number, cell))
                });
                samples.push(plain(first_of_shards + metric, labels.clone(), value));
            }
            samples.push(self.latency(number, labels));
        }
        for &reason in CloseReason::ALL {
            let value = stats.iter().map(|one| one.of_closed(reason)).sum();
            samples.push(plain(
                METRICS.len() - 2,
                vec![reason.text().to_string()],
                value,
            ));
        }
        samples
    }

    fn shards(&self) -> Vec<ShardStatus> {
        let statuses = self.core.shards().into_iter();
        statuses
            .map(|status| ShardStatus {
                keyspace: status.keyspace,
                shard: status.shard,
                endpoint: status.endpoint,
                state: status.state,
                reason: status.reason,
            })
            .collect()
    }

    fn tls(&self) -> Vec<TlsStatus> {
        self.core.tls().into_iter().map(told).collect()
    }

    fn reload_tls(&self, py: Python<'_>) -> Vec<TlsStatus> {
        let statuses = py.detach(|| self.core.reload_tls());
        statuses.into_iter().map(told).collect()
    }

    fn next_events(&self, py: Python<'_>, timeout_ms: u64) -> Vec<Event> {
        let reports = py.detach(|| self.core.next_events(Duration::from_millis(timeout_ms)));
        let events = reports.into_iter();
        events
            .map(|report| Event {
                unix_ms: report.unix_ms,
                level: match report.event.level {
                    Level::Debug => "debug",
                    Level::Info => "info",
                    Level::Warning => "warning",
                    Level::Error => "error",
                },
                name: report.event.name,
                fields: report.event.fields,
            })
            .collect()
    }

    fn events_dropped(&self) -> u64 {
        self.core.events_dropped()
    }

    fn stop(&self, py: Python<'_>, drain_ms: u64) -> bool {
        py.detach(|| self.core.stop(Duration::from_millis(drain_ms)))
    }
}

impl Proxy {
    fn latency(&self, shard: usize, labels: Vec<String>) -> Sample {
        let mut counts = [0u64; BUCKETS];
        let mut sum_us = 0;
        for one in self.core.stats() {
            let (buckets, sum) = one.of_latency(shard);
            counts
                .iter_mut()
                .zip(buckets)
                .for_each(|(count, more)| *count += more);
            sum_us += sum;
        }
        let mut total = 0;
        let cumulative: Vec<u64> = counts
            .iter()
            .map(|count| {
                total += count;
                total
            })
            .collect();
        let buckets = cumulative[..BUCKETS - 1].to_vec();
        Sample {
            metric: METRICS.len() - 1,
            labels,
            value: total,
            sum_us,
            buckets,
        }
    }
}

fn told(status: Status) -> TlsStatus {
    TlsStatus {
        keyspace: status.keyspace,
        side: status.side.text(),
        cert: status.cert,
        expires: status.expires,
        problem: status.problem.map_or_else(String::new, |error| error.text),
    }
}

fn plain(metric: usize, labels: Vec<String>, value: u64) -> Sample {
    Sample {
        metric,
        labels,
        value,
        sum_us: 0,
        buckets: Vec::new(),
    }
}
