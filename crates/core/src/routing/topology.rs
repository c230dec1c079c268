//! The topology: which keyspaces there are, their shards, and where those live.
//!
//! Owns: the immutable map that every worker routes by. It is built whole, checked whole, and swapped whole; its epoch
//! tells which of two is newer.
//!
//! Must stay true: a `Topology` that exists is valid (every slot has a shard, every rule compiles), so nothing on the
//! path of a request has to check it again.
//! Rejected: letting workers change parts of it in place; a reader could then see half a change.

use crate::limits::{KEYSPACES_MAX, SHARDS_MAX};
use crate::routing::affinity::{hashed_part, Affinity};
use crate::routing::distribution::Distribution;

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
    /// `host:port` of its primary, looked up at every connection.
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
}

/// A listener with its distribution and its shards.
#[derive(Debug, Clone)]
pub struct Keyspace {
    /// Unique in the topology.
    pub name: String,
    /// `host:port` to listen on.
    pub listen: String,
    /// Owners of the keys, in the order that the distribution counts them.
    pub shards: Vec<Shard>,
    /// Position of its first shard among all shards of the topology.
    pub first_shard: usize,
    /// Hash to shard.
    pub distribution: Distribution,
    /// Which part of a key is hashed.
    pub affinity: Affinity,
    /// Empty: clients need not authenticate.
    pub users: Vec<User>,
    /// Route unknown commands by their first argument instead of refusing them.
    pub unknown_commands_first_key: bool,
    /// How long a shard may take to answer; 0: for ever.
    pub timeout_ms: u64,
    /// Clients at one time, over all workers.
    pub max_clients: u64,
}

impl Keyspace {
    /// The slot of a key, as people are told it.
    pub fn slot(&self, key: &[u8]) -> u16 {
        self.distribution.slot(self.part(key))
    }

    /// The index (in this keyspace) of the shard that holds a key.
    #[inline]
    pub fn shard_of(&self, key: &[u8]) -> u16 {
        self.distribution.shard(self.part(key))
    }

    #[inline]
    fn part<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        if self.affinity.is_empty() {
            crate::routing::hash::hash_tag(key)
        } else {
            hashed_part(&self.affinity, key)
        }
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
