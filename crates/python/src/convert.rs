//! Python's specs to the core's topology.
//!
//! Owns: the reading of the specs of `_core.pyi`, attribute by attribute, and the building of a `Topology` from them.
//! Must stay true: whatever the core would not serve is refused here with a ValueError that names the keyspace.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use shoal_core::routing::acl::Acl;
use shoal_core::routing::affinity::Affinity;
use shoal_core::routing::distribution::{
    CodisSlots, Distribution, Modula, PartGiven, Ranges, Rendezvous, Ring, RingMember, Slots,
    TableGiven,
};
use shoal_core::routing::key_hash::KeyHash;
use shoal_core::routing::tag::Tag;
use shoal_core::routing::tls::{ClientAuth, ClientTls, MinVersion, ServerTls, Verify};
use shoal_core::routing::topology::{
    Credentials, Ejection, Keyspace, Protocol, Role, Shard, SlowRules, Topology, User,
};

#[derive(FromPyObject)]
pub struct ShardSpec {
    name: String,
    host: String,
    port: u16,
    weight: u32,
    ring_name: String,
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
pub struct RangePartSpec {
    first: Option<String>,
    last: Option<String>,
    shard: u16,
}

#[derive(FromPyObject)]
pub struct RangeTableSpec {
    prefix: String,
    numeric: bool,
    parts: Vec<RangePartSpec>,
}

#[derive(FromPyObject)]
pub struct DistributionSpec {
    kind: String,
    hash: String,
    signed_char: bool,
    slots: Vec<SlotRangeSpec>,
    tables: Vec<RangeTableSpec>,
    fallback: Option<FallbackSpec>,
}

/// A distribution that has no fallback itself.
#[derive(FromPyObject)]
pub struct FallbackSpec {
    kind: String,
    hash: String,
    signed_char: bool,
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
    acl: Option<String>,
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
    home_shard: u16,
    shards: Vec<ShardSpec>,
    distribution: DistributionSpec,
    hash_tag: String,
    affinity: Vec<String>,
    users: Vec<UserSpec>,
    unknown_commands_first_key: bool,
    transactions_per_shard: bool,
    cross_shard: bool,
    multi_key_strict: bool,
    cross_shard_functions: bool,
    debug_commands: bool,
    timeout_ms: u64,
    max_clients: u64,
    slowlog_log_slower_than: i64,
    slowlog_max_len: usize,
    tls: Option<ClientTlsSpec>,
    server_tls: Option<ServerTlsSpec>,
}

#[derive(FromPyObject)]
pub struct ClientTlsSpec {
    listen_host: Option<String>,
    listen_port: u16,
    cert: String,
    key: String,
    client_ca: Option<String>,
    client_auth: String,
    min_version: String,
}

#[derive(FromPyObject)]
pub struct ServerTlsSpec {
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    server_name: Option<String>,
    verify: String,
    min_version: String,
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

fn user(spec: UserSpec) -> Result<User, String> {
    let acl = spec
        .acl
        .as_deref()
        .map_or(Ok(Acl::everything()), Acl::parse);
    Ok(User {
        acl: acl
            .map_err(|error| format!("user '{}': '{}': {}", spec.name, error.rule, error.reason))?,
        credentials: Credentials {
            username: Some(spec.name.clone()),
            password: spec.password,
        },
        name: spec.name,
    })
}

fn distribution(spec: &DistributionSpec, members: &[RingMember]) -> Result<Distribution, String> {
    let hash = (spec.hash.as_str(), spec.signed_char);
    if spec.kind != "range" {
        return simple(&spec.kind, hash, &spec.slots, members);
    }
    let fallback = spec.fallback.as_ref().map(|other| {
        let hash = (other.hash.as_str(), other.signed_char);
        simple(&other.kind, hash, &other.slots, members)
    });
    let tables: Vec<TableGiven> = spec.tables.iter().map(table).collect();
    let ranges = Ranges::new(&tables, fallback.transpose()?, members.len())?;
    Ok(Distribution::Ranges(ranges))
}

/// Every kind but ranges. `hash` is a name, and whether `char` is signed.
fn simple(
    kind: &str,
    hash: (&str, bool),
    slots: &[SlotRangeSpec],
    members: &[RingMember],
) -> Result<Distribution, String> {
    let ranges: Vec<(u16, u16, u16)> = slots
        .iter()
        .map(|range| (range.first, range.last, range.shard))
        .collect();
    let shards = members.len();
    let signed = hash.1;
    let named =
        || KeyHash::named(hash.0).ok_or_else(|| format!("no such hash function: {}", hash.0));
    Ok(match kind {
        "slots" => Distribution::Slots(
            Slots::from_ranges(&ranges, shards).map_err(|error| error.to_string())?,
        ),
        "codis" => Distribution::Codis(
            CodisSlots::from_ranges(&ranges, shards).map_err(|error| error.to_string())?,
        ),
        "ketama" => Distribution::Ring(Ring::ketama(members, named()?, signed)),
        "modula" => Distribution::Modula(Modula::new(members, named()?, signed)),
        "random" => Distribution::Random(shards as u16),
        "redis-rb-4" => Distribution::Ring(Ring::redis_rb(members, false)),
        "redis-rb-5-client-0.20" | "redis-rb-5-client-0.21" => {
            Distribution::Ring(Ring::redis_rb(members, true))
        }
        "predis" => Distribution::Ring(Ring::predis(members)),
        "predis-ketama" => Distribution::Ring(Ring::predis_ketama(members)),
        "jump" => Distribution::Jump(shards as u16),
        "rendezvous" => Distribution::Rendezvous(Rendezvous::new(members)),
        other => return Err(format!("no such distribution: {other}")),
    })
}

fn table(spec: &RangeTableSpec) -> TableGiven {
    let part = |part: &RangePartSpec| PartGiven {
        first: part.first.clone(),
        last: part.last.clone(),
        shard: part.shard,
    };
    TableGiven {
        prefix: spec.prefix.clone(),
        numeric: spec.numeric,
        parts: spec.parts.iter().map(part).collect(),
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

fn min_version(text: &str) -> Result<MinVersion, String> {
    match text {
        "1.2" => Ok(MinVersion::Tls12),
        "1.3" => Ok(MinVersion::Tls13),
        other => Err(format!("no such version of TLS: {other}")),
    }
}

/// What clients shall have, or why that is not possible.
pub fn client_tls(spec: ClientTlsSpec) -> Result<ClientTls, String> {
    Ok(ClientTls {
        listen: spec
            .listen_host
            .map(|host| endpoint(&host, spec.listen_port)),
        cert: spec.cert,
        key: spec.key,
        client_ca: spec.client_ca,
        client_auth: match spec.client_auth.as_str() {
            "none" => ClientAuth::Nobody,
            "optional" => ClientAuth::WhoWants,
            "required" => ClientAuth::Everybody,
            other => return Err(format!("no such client_auth: {other}")),
        },
        min_version: min_version(&spec.min_version)?,
    })
}

/// What connections to shards shall have, or why that is not possible.
pub fn server_tls(spec: ServerTlsSpec) -> Result<ServerTls, String> {
    Ok(ServerTls {
        ca: spec.ca,
        identity: spec.cert.zip(spec.key),
        server_name: spec.server_name,
        verify: match spec.verify.as_str() {
            "full" => Verify::Full,
            "ca" => Verify::Authority,
            "none" => Verify::Nothing,
            other => return Err(format!("no such way to verify: {other}")),
        },
        min_version: min_version(&spec.min_version)?,
    })
}

/// A valid keyspace, or ValueError.
pub fn keyspace(spec: KeyspaceSpec) -> PyResult<Keyspace> {
    let refused = |text: String| PyValueError::new_err(format!("keyspace '{}': {text}", spec.name));
    let member = |shard: &ShardSpec| RingMember {
        name: shard.ring_name.clone(),
        weight: shard.weight,
    };
    let members: Vec<RingMember> = spec.shards.iter().map(member).collect();
    let distribution = distribution(&spec.distribution, &members).map_err(&refused)?;
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
    let tls = spec.tls.map(client_tls).transpose().map_err(&refused)?;
    let server_tls = spec.server_tls.map(server_tls).transpose();
    let server_tls = server_tls.map_err(&refused)?;
    let users = spec.users.into_iter().map(user).collect::<Result<_, _>>();
    let users = users.map_err(&refused)?;
    Ok(Keyspace {
        tls,
        server_tls,
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
        home_shard: spec.home_shard,
        distribution,
        affinity,
        tag,
        users,
        unknown_commands_first_key: spec.unknown_commands_first_key,
        transactions_per_shard: spec.transactions_per_shard,
        cross_shard: spec.cross_shard,
        multi_key_strict: spec.multi_key_strict,
        cross_shard_functions: spec.cross_shard_functions,
        debug_commands: spec.debug_commands,
        timeout_ms: spec.timeout_ms,
        max_clients: spec.max_clients,
        slowlog: SlowRules {
            slower_than_us: spec.slowlog_log_slower_than,
            length: spec.slowlog_max_len,
        },
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
