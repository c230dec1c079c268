//! Python's specs to the core's topology.
//!
//! Owns: the reading of the specs of `_core.pyi`, attribute by attribute, and the building of a `Topology` from them.
//! Must stay true: whatever the core would not serve is refused here with a ValueError that names the keyspace.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use shoal_core::routing::affinity::Affinity;
use shoal_core::routing::distribution::{Distribution, Slots};
use shoal_core::routing::topology::{Credentials, Keyspace, Shard, Topology, User};

#[derive(FromPyObject)]
pub struct ShardSpec {
    name: String,
    host: String,
    port: u16,
    username: Option<String>,
    password: Option<String>,
}

#[derive(FromPyObject)]
pub struct SlotRangeSpec {
    first: u16,
    last: u16,
    shard: u16,
}

#[derive(FromPyObject)]
pub struct UserSpec {
    name: String,
    password: String,
}

#[derive(FromPyObject)]
pub struct KeyspaceSpec {
    name: String,
    listen_host: String,
    listen_port: u16,
    shards: Vec<ShardSpec>,
    slots: Vec<SlotRangeSpec>,
    affinity: Vec<String>,
    users: Vec<UserSpec>,
    unknown_commands_first_key: bool,
    timeout_ms: u64,
    max_clients: u64,
}

/// IPv6 addresses need brackets before a port.
fn endpoint(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn shard(spec: ShardSpec) -> Shard {
    Shard {
        endpoint: endpoint(&spec.host, spec.port),
        name: spec.name,
        credentials: spec.password.map(|password| Credentials {
            username: spec.username,
            password,
        }),
    }
}

fn user(spec: UserSpec) -> User {
    User {
        credentials: Credentials {
            username: Some(spec.name.clone()),
            password: spec.password,
        },
        name: spec.name,
    }
}

fn keyspace(spec: KeyspaceSpec) -> PyResult<Keyspace> {
    let refused = |text: String| PyValueError::new_err(format!("keyspace '{}': {text}", spec.name));
    let ranges: Vec<(u16, u16, u16)> = spec
        .slots
        .iter()
        .map(|range| (range.first, range.last, range.shard))
        .collect();
    let slots = Slots::from_ranges(&ranges, spec.shards.len())
        .map_err(|error| refused(error.to_string()))?;
    let affinity = Affinity::new(&spec.affinity).map_err(|error| refused(error.to_string()))?;
    Ok(Keyspace {
        listen: endpoint(&spec.listen_host, spec.listen_port),
        name: spec.name,
        shards: spec.shards.into_iter().map(shard).collect(),
        first_shard: 0,
        distribution: Distribution::Slots(slots),
        affinity,
        users: spec.users.into_iter().map(user).collect(),
        unknown_commands_first_key: spec.unknown_commands_first_key,
        timeout_ms: spec.timeout_ms,
        max_clients: spec.max_clients,
    })
}

/// A valid topology, or ValueError.
pub fn topology(specs: Vec<KeyspaceSpec>) -> PyResult<Topology> {
    let keyspaces = specs
        .into_iter()
        .map(keyspace)
        .collect::<PyResult<Vec<_>>>()?;
    Topology::new(1, keyspaces).map_err(|error| PyValueError::new_err(error.0))
}
