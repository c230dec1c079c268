//! Python's specs to the core's topology.
//!
//! Owns: the reading of the specs of `_core.pyi`, attribute by attribute, and the building of a `Topology` from them.
//! Must stay true: whatever the core would not serve is refused here with a ValueError that names the keyspace.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use shoal_core::routing::affinity::Affinity;
use shoal_core::routing::distribution::{Distribution, Slots};
use shoal_core::routing::tag::Tag;
use shoal_core::routing::topology::{
    Credentials, Ejection, Keyspace, Protocol, Role, Shard, Topology, User,
};

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
pub struct DistributionSpec {
    kind: String,
    slots: Vec<SlotRangeSpec>,
}

#[derive(FromPyObject)]
pub struct EjectionSpec {
    after: u32,
    retry_after_ms: u64,
    on_replies: bool,
    shards_max: u32,
    readmit_ms: u64,
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
    listen_mode: Option<u32>,
    backlog: u32,
    reuse_port: bool,
    protocol: String,
    ejection: Option<EjectionSpec>,
    connections: u16,
    preconnect: bool,
    tcp_keepalive: bool,
    probe_interval_ms: u64,
    database: u8,
    shards: Vec<ShardSpec>,
    distribution: DistributionSpec,
    hash_tag: String,
    affinity: Vec<String>,
    users: Vec<UserSpec>,
    unknown_commands_first_key: bool,
    timeout_ms: u64,
    max_clients: u64,
}

/// IPv6 addresses need brackets before a port; the path of a socket has no port.
fn endpoint(host: &str, port: u16) -> String {
    if host.starts_with('/') {
        host.to_string()
    } else if host.contains(':') {
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

fn distribution(spec: &DistributionSpec, shards: &[ShardSpec]) -> Result<Distribution, String> {
    let ranges: Vec<(u16, u16, u16)> = spec
        .slots
        .iter()
        .map(|range| (range.first, range.last, range.shard))
        .collect();
    match spec.kind.as_str() {
        "slots" => Slots::from_ranges(&ranges, shards.len())
            .map(Distribution::Slots)
            .map_err(|error| error.to_string()),
        other => Err(format!("no such distribution: {other}")),
    }
}

fn tag(text: &str) -> Result<Tag, String> {
    match (text, text.as_bytes()) {
        ("none", _) => Ok(Tag::None),
        ("codis", _) => Ok(Tag::MayBeEmpty),
        ("redis-rb", _) => Ok(Tag::LineStart),
        (_, &[open, close]) => Ok(Tag::Pair { open, close }),
        _ => Err(format!("a hash tag is two characters, not \"{text}\"")),
    }
}

fn keyspace(spec: KeyspaceSpec) -> PyResult<Keyspace> {
    let refused = |text: String| PyValueError::new_err(format!("keyspace '{}': {text}", spec.name));
    let distribution = distribution(&spec.distribution, &spec.shards).map_err(&refused)?;
    let tag = tag(&spec.hash_tag).map_err(&refused)?;
    let protocol = match spec.protocol.as_str() {
        "redis" => Protocol::Redis,
        "memcached" => Protocol::Memcached,
        other => return Err(refused(format!("no such protocol: {other}"))),
    };
    let role = spec.ejection.map_or(Role::Store, |rules| {
        Role::Cache(Ejection {
            after: rules.after,
            retry_after_ms: rules.retry_after_ms,
            on_replies: rules.on_replies,
            shards_max: rules.shards_max,
            readmit_ms: rules.readmit_ms,
        })
    });
    let affinity = Affinity::new(&spec.affinity).map_err(|error| refused(error.to_string()))?;
    Ok(Keyspace {
        listen: endpoint(&spec.listen_host, spec.listen_port),
        listen_mode: spec.listen_mode,
        backlog: spec.backlog,
        reuse_port: spec.reuse_port,
        protocol,
        role,
        connections: spec.connections,
        preconnect: spec.preconnect,
        tcp_keepalive: spec.tcp_keepalive,
        probe_interval_ms: spec.probe_interval_ms,
        database: spec.database,
        name: spec.name,
        shards: spec.shards.into_iter().map(shard).collect(),
        first_shard: 0,
        distribution,
        affinity,
        tag,
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
