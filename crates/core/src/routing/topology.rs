//! The topology: which keyspaces there are, their shards, and where those live.
//!
//! Owns: the immutable map that every worker routes by. It is built whole, checked whole, and swapped whole; its epoch
//! tells which of two is newer.
//!
//! Must stay true: a `Topology` that exists is valid (every slot has a shard, every rule compiles), so nothing on the
//! path of a request has to check it again.
//! Rejected: letting workers change parts of it in place; a reader could then see half a change.

use crate::limits::{
    BACKLOG, CLIENTS_DEFAULT, KEYSPACES_MAX, PROBE_MS, SHARDS_MAX, SLOWLOG_ENTRIES_DEFAULT,
    SLOWLOG_US_DEFAULT,
};
use crate::routing::acl::Acl;
use crate::routing::admission::Admission;
use crate::routing::affinity::{hashed_part, settled_part, Affinity};
use crate::routing::distribution::{cluster_slot, Distribution, Group};
use crate::routing::tag::Tag;
use crate::routing::tls::{ClientTls, ServerTls};

/// Name and password that we show to a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// None: the default user.
    pub username: Option<String>,
    /// Never printed.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("password", &"***")
            .finish()
    }
}

/// Owner of a disjoint part of a keyspace's keys.
#[derive(Debug, Clone)]
pub struct Shard {
    /// Unique in its keyspace.
    pub name: String,
    /// `host:port` of its primary, looked up at every connection, or the path of a socket, which begins with `/`.
    pub endpoint: String,
    /// What the server wants to be shown.
    pub credentials: Option<Credentials>,
}

/// Somebody who may use a keyspace.
#[derive(Debug, Clone)]
pub struct User {
    /// `default` is the user of a plain `AUTH <password>`.
    pub name: String,
    /// What the client must show.
    pub credentials: Credentials,
    /// What it may do.
    pub acl: Acl,
}

/// What clients and servers of a keyspace speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2 and RESP3.
    Redis,
    /// The memcached text protocol.
    Memcached,
}

/// What a keyspace promises of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A key always maps to the same shard, whether that shard can be reached or not.
    Store,
    /// A shard that fails is ejected, and others take its keys meanwhile.
    Cache(Ejection),
}

/// What goes into the slow log: Redis' slowlog-log-slower-than and slowlog-max-len.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowRules {
    /// Microseconds from which on a request is slow; 0: every one, negative: none.
    pub slower_than_us: i64,
    /// Entries kept; older ones are forgotten.
    pub length: usize,
}

impl Default for SlowRules {
    fn default() -> Self {
        Self {
            slower_than_us: SLOWLOG_US_DEFAULT as i64,
            length: SLOWLOG_ENTRIES_DEFAULT,
        }
    }
}

impl SlowRules {
    /// None: nothing is slow.
    pub fn threshold_us(self) -> Option<u32> {
        u64::try_from(self.slower_than_us)
            .ok()
            .map(|us| u32::try_from(us).unwrap_or(u32::MAX))
    }
}

/// When a shard of a cache is ejected, and when it is readmitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row.
    pub after: u32,
    /// It stays out for so long at least.
    pub retry_after_ms: u64,
    /// Replies that begin with -OOM, -BUSY or -LOADING are failures too.
    pub on_replies: bool,
    /// So many may be out at one time.
    pub shards_max: u32,
    /// Its keys come back to it over so long; 0: all at once.
    pub readmit_ms: u64,
}

/// A listener with its distribution and its shards.
#[derive(Debug, Clone)]
pub struct Keyspace {
    /// Unique in the topology.
    pub name: String,
    /// `host:port` to listen on, or the path of a socket, which begins with `/`.
    pub listen: String,
    /// Permissions of that socket; None: as the process makes files.
    pub listen_mode: Option<u32>,
    /// Connections that wait to be accepted.
    pub backlog: u32,
    /// Other processes may listen on the same address (SO_REUSEPORT).
    pub reuse_port: bool,
    /// What is spoken on both sides.
    pub protocol: Protocol,
    /// Store or cache.
    pub role: Role,
    /// Connections to each shard, for each worker, database and protocol; a client always uses the same one.
    pub connections: u16,
    /// Shards are connected at the start, not at the first request for them.
    pub preconnect: bool,
    /// TCP keep-alive on both sides.
    pub tcp_keepalive: bool,
    /// An idle connection is asked so often whether its shard lives; so is a shard that is ejected.
    pub probe_interval_ms: u64,
    /// The database in which a client begins.
    pub database: u8,
    /// Owners of the keys, in the order that the distribution counts them.
    pub shards: Vec<Shard>,
    /// Position of its first shard among all shards of the topology.
    pub first_shard: usize,
    /// Where scripts run that name no key: an index of `shards`.
    pub home_shard: u16,
    /// Hash to shard.
    pub distribution: Distribution,
    /// Which part of a key is hashed.
    pub affinity: Affinity,
    /// Which part is hashed where no affinity rule says it.
    pub tag: Tag,
    /// Empty: clients need not authenticate.
    pub users: Vec<User>,
    /// Route unknown commands by their first argument instead of refusing them.
    pub unknown_commands_first_key: bool,
    /// A transaction with keys on several shards is executed by each of them on its own, instead of being refused.
    pub transactions_per_shard: bool,
    /// What can be done as one operation over several shards is, instead of being refused.
    pub cross_shard: bool,
    /// Of those, also what could be split over the shards.
    pub multi_key_strict: bool,
    /// And functions with declared keys on several shards: on the word of who set this, they touch no others. (Scripts are held to theirs.)
    pub cross_shard_functions: bool,
    /// DEBUG is let through, in the forms that are known.
    pub debug_commands: bool,
    /// How long a shard may take to answer; 0: for ever.
    pub timeout_ms: u64,
    /// Clients at one time, over all workers.
    pub max_clients: u64,
    /// Which requests go into the slow log, and how many it holds.
    pub slowlog: SlowRules,
    /// TLS of its clients.
    pub tls: Option<ClientTls>,
    /// TLS of its connections to shards.
    pub server_tls: Option<ServerTls>,
}

impl Keyspace {
    /// Everything that decides which shard has a key, as text: the same for two keyspaces that place all keys alike.
    pub fn map_text(&self) -> String {
        let names: Vec<&str> = self
            .shards
            .iter()
            .map(|shard| shard.name.as_str())
            .collect();
        let (distribution, tag) = (&self.distribution, &self.tag);
        let rules = self.affinity.texts();
        format!("{names:?} {distribution:?} {tag:?} {rules:?}")
    }

    /// A store that speaks RESP, with nothing set that can be left alone.
    pub fn over(name: &str, shards: Vec<Shard>, distribution: Distribution) -> Self {
        Self {
            name: name.to_string(),
            listen: "127.0.0.1:6380".to_string(),
            listen_mode: None,
            backlog: BACKLOG as u32,
            reuse_port: false,
            protocol: Protocol::Redis,
            role: Role::Store,
            connections: 1,
            preconnect: true,
            tcp_keepalive: false,
            probe_interval_ms: PROBE_MS as u64,
            database: 0,
            shards,
            first_shard: 0,
            home_shard: 0,
            distribution,
            affinity: Affinity::default(),
            tag: Tag::BRACES,
            users: Vec::new(),
            unknown_commands_first_key: false,
            transactions_per_shard: false,
            cross_shard: false,
            multi_key_strict: false,
            cross_shard_functions: false,
            debug_commands: false,
            timeout_ms: 0,
            max_clients: CLIENTS_DEFAULT as u64,
            slowlog: SlowRules::default(),
            tls: None,
            server_tls: None,
        }
    }

    fn tls_complaint(&self) -> Option<String> {
        let of_clients = self
            .tls
            .as_ref()
            .and_then(|tls| tls.complaint(&self.listen));
        of_clients.or_else(|| {
            let endpoints = self.shards.iter().map(|shard| shard.endpoint.as_str());
            self.server_tls.as_ref()?.complaint(endpoints)
        })
    }

    /// Whether operations across shards can be had: it takes keys that stay where they are, and servers with scripts.
    pub fn can_cross_shards(&self) -> bool {
        self.role == Role::Store
            && self.protocol == Protocol::Redis
            && !matches!(self.distribution, Distribution::Random(_))
    }

    fn cross_shard_complaint(&self) -> Option<&'static str> {
        if self.cross_shard && !self.can_cross_shards() {
            return Some("operations across shards need a store that speaks RESP");
        }
        let has_more = self.multi_key_strict || self.cross_shard_functions;
        (has_more && !self.cross_shard)
            .then_some("strict splits and scripts across shards need operations across shards")
    }

    /// What people are told of a key's place before they are told its shard.
    pub fn group(&self, key: &[u8]) -> Group {
        self.distribution.group(self.part(key))
    }

    /// Redis Cluster's slot of a key, whatever the distribution.
    pub fn cluster_slot(&self, key: &[u8]) -> u16 {
        cluster_slot(self.part(key))
    }

    /// The index (in this keyspace) of the shard that holds a key. None: no range holds it.
    #[inline]
    pub fn shard_of(&self, key: &[u8], admission: &Admission) -> Option<u16> {
        let part = self.part(key);
        let owner = self.distribution.shard(key, part)?;
        Some(if admission.is_whole() {
            owner
        } else {
            self.distribution.shard_admitted(part, owner, admission)
        })
    }

    /// As `shard_of`, for every key that begins so: None where what follows may decide.
    pub fn shard_of_all(&self, prefix: &[u8], admission: &Admission) -> Option<u16> {
        match self.distribution {
            // A range looks at more of a key than its hashed part.
            Distribution::Random(_) | Distribution::Ranges(_) => return None,
            Distribution::Slots(_)
            | Distribution::Codis(_)
            | Distribution::Ring(_)
            | Distribution::Modula(_)
            | Distribution::Jump(_)
            | Distribution::Rendezvous(_) => {}
        }
        settled_part(&self.affinity, self.tag, prefix)?;
        self.shard_of(prefix, admission)
    }

    /// The index of the shard that a key belongs to while every shard takes its keys. None: no range holds it.
    pub fn owner_of(&self, key: &[u8]) -> Option<u16> {
        self.distribution.shard(key, self.part(key))
    }

    /// What is hashed of a key, or for it.
    #[inline]
    pub fn part<'k>(&'k self, key: &'k [u8]) -> &'k [u8] {
        hashed_part(&self.affinity, self.tag, key)
    }
}

/// All keyspaces, at one epoch.
#[derive(Debug, Clone)]
pub struct Topology {
    /// The larger one is the newer one.
    pub epoch: u64,
    /// In the order of the configuration.
    pub keyspaces: Vec<Keyspace>,
}

/// Why a topology was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyError(pub String);

impl Topology {
    /// Checks the whole and numbers the shards through.
    pub fn new(epoch: u64, mut keyspaces: Vec<Keyspace>) -> Result<Self, TopologyError> {
        if keyspaces.is_empty() || keyspaces.len() > KEYSPACES_MAX {
            return Err(TopologyError(format!(
                "a topology has 1 to {KEYSPACES_MAX} keyspaces, not {}",
                keyspaces.len()
            )));
        }
        let mut next = 0;
        for keyspace in &mut keyspaces {
            let count = keyspace.shards.len();
            if count == 0 || count > SHARDS_MAX {
                return Err(TopologyError(format!(
                    "keyspace '{}' has {count} shards; 1 to {SHARDS_MAX} are possible",
                    keyspace.name
                )));
            }
            if usize::from(keyspace.home_shard) >= count {
                return Err(TopologyError(format!(
                    "keyspace '{}' has no shard number {} to be the home of scripts without keys",
                    keyspace.name, keyspace.home_shard
                )));
            }
            if keyspace.protocol == Protocol::Memcached && !keyspace.users.is_empty() {
                return Err(TopologyError(format!(
                    "keyspace '{}' has users, but nobody can authenticate in the memcached text protocol",
                    keyspace.name
                )));
            }
            let across = keyspace.cross_shard_complaint().map(String::from);
            let complaint = across.or_else(|| keyspace.tls_complaint());
            if let Some(text) = complaint {
                return Err(TopologyError(format!(
                    "keyspace '{}': {text}",
                    keyspace.name
                )));
            }
            if count == 1 {
                // There is nothing to cross, so no shard needs to know who uses it.
                keyspace.cross_shard = false;
                keyspace.multi_key_strict = false;
                keyspace.cross_shard_functions = false;
            }
            keyspace.first_shard = next;
            next += count;
        }
        Ok(Self { epoch, keyspaces })
    }

    /// Every shard with its keyspace, numbered through.
    pub fn shards(&self) -> impl Iterator<Item = (&Keyspace, &Shard)> {
        self.keyspaces
            .iter()
            .flat_map(|keyspace| keyspace.shards.iter().map(move |shard| (keyspace, shard)))
    }
}
