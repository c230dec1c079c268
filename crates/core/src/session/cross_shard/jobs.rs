//! From a client's request to an operation: which keys on which shards, and what is executed where.
//!
//! Owns: `Job`, everything that is known of an operation before it begins, and the choice of its home.
//!
//! Flow: `cross_shard` (a request) or EXEC (all requests of a transaction) -> claims -> one part for each shard -> home: the shard
//! that holds most of what has to be read -> `begin_job`.
//!
//! Must stay true: a key is claimed exclusively unless no request of the operation may change it; a value is brought home unless
//! no request needs it; the bounds of limits.rs hold.
//! Rejected: asking the shards for sizes first: it costs a round trip for what the number of keys tells well enough.

use crate::error::{ClientError, OperationError};
use crate::limits::{CROSS_SHARD_KEYS_MAX, CROSS_SHARD_SHARDS_MAX};
use crate::protocol::command::{Access, CommandSpec, Undo};
use crate::protocol::encode;
use crate::routing::claims::claims_of;
use crate::routing::route::Request;
use crate::session::client::Intake;
use crate::session::cross_shard::answers::Told;
use crate::session::cross_shard::call::{KeyClaim, Mode, Redo, Scope};
use crate::session::cross_shard::steps::Part;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use std::collections::HashMap;
use std::sync::Arc;

/// How the replies to the requests become the client's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// The one reply as it is.
    Single,
    /// An array of them.
    Exec,
}

/// See the head of this file.
#[derive(Debug, Clone)]
pub struct Job {
    pub(crate) asker: Asker,
    /// The reply's place.
    pub(crate) place: u32,
    pub(crate) parts: Vec<Part>,
    /// For each part the shard, as an index within the keyspace.
    pub(crate) shards: Vec<u16>,
    pub(crate) home: usize,
    pub(crate) requests: Arc<[u8]>,
    pub(crate) count: usize,
    /// What is done to every shard, in place of the one request.
    pub(crate) redo: Option<Redo>,
    pub(crate) reply: ReplyKind,
    /// The client's own connections on which it watches keys, with their generations.
    pub(crate) watches: Vec<(u32, u32)>,
    /// It is a step of a request that waits, which goes on when there is nothing; how what it took is put back when its client has left.
    pub(crate) waits: bool,
    pub(crate) undo: Undo,
    /// How often it was begun again.
    pub(crate) tries: usize,
}

impl Job {
    /// One request; home is the first part's shard.
    pub(crate) fn new(
        asker: Asker,
        place: u32,
        shards: Vec<u16>,
        parts: Vec<Part>,
        requests: Arc<[u8]>,
    ) -> Self {
        Self {
            asker,
            place,
            parts,
            shards,
            home: 0,
            requests,
            count: 1,
            redo: None,
            reply: ReplyKind::Single,
            watches: Vec::new(),
            waits: false,
            undo: Undo::Nothing,
            tries: 0,
        }
    }
}

/// Keys of an operation: each with its shard and what is done with it.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    by_key: HashMap<Arc<[u8]>, (u16, Access)>,
    /// Keys that are only watched: nobody may write them, and nobody needs their values.
    watched: HashMap<Arc<[u8]>, u16>,
    order: Vec<Arc<[u8]>>,
    home: Option<u16>,
}

impl Keys {
    pub(crate) fn add(&mut self, key: &[u8], shard: u16, access: Access) {
        if let Some((_, known)) = self.by_key.get_mut(key) {
            *known = known.with(access);
            return;
        }
        let key: Arc<[u8]> = key.into();
        self.order.push(key.clone());
        self.by_key.insert(key, (shard, access));
    }

    /// That shard is to be home.
    pub(crate) fn prefer(&mut self, shard: u16) {
        self.home = Some(shard);
    }

    /// A key that is watched.
    pub(crate) fn watch(&mut self, key: &Arc<[u8]>, shard: u16) {
        if !self.by_key.contains_key(key) {
            self.watched.insert(key.clone(), shard);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len() + self.watched.len()
    }

    /// One part for each shard, in the order of the shards; and which is home.
    pub(crate) fn parts(&self, names: impl Fn(u16) -> Arc<str>) -> (Vec<u16>, Vec<Part>, usize) {
        let named = self.by_key.values().map(|&(shard, _)| shard);
        let mut shards: Vec<u16> = named.chain(self.watched.values().copied()).collect();
        shards.sort_unstable();
        shards.dedup();
        let home = self.home(&shards);
        let mut parts: Vec<Part> = shards
            .iter()
            .map(|&shard| Part {
                shard: names(shard),
                scope: Scope::Keys,
                keys: Vec::new(),
            })
            .collect();
        for key in &self.order {
            let Some(&(shard, access)) = self.by_key.get(key) else {
                continue;
            };
            let Ok(part) = shards.binary_search(&shard) else {
                continue;
            };
            parts[part].keys.push(KeyClaim {
                key: key.clone(),
                mode: if access == Access::Read {
                    Mode::Shared
                } else {
                    Mode::Exclusive
                },
                // What is overwritten need not be brought: a mark in its place tells whether it was.
                is_wanted: part != home && access != Access::Overwrite,
            });
        }
        for (key, shard) in &self.watched {
            if let Ok(part) = shards.binary_search(shard) {
                parts[part].keys.push(KeyClaim {
                    key: key.clone(),
                    mode: Mode::Shared,
                    is_wanted: false,
                });
            }
        }
        (shards, parts, home)
    }

    /// The shard from which most would have to be brought: what is both read and written counts twice, because it
    /// would have to go back as well.
    fn home(&self, shards: &[u16]) -> usize {
        let preferred = self.home.and_then(|home| shards.binary_search(&home).ok());
        if let Some(home) = preferred {
            return home;
        }
        let mut weights = vec![0usize; shards.len()];
        for (shard, access) in self.by_key.values() {
            let weight = match access {
                Access::Write | Access::Remove => 4,
                Access::Read => 3,
                Access::Overwrite => 2,
            };
            if let Ok(part) = shards.binary_search(shard) {
                weights[part] += weight;
            }
        }
        let most = weights.iter().copied().max().unwrap_or(0);
        weights
            .iter()
            .position(|&weight| weight == most)
            .unwrap_or(0)
    }
}

impl Engine {
    /// A request whose keys are on several shards, as one operation.
    pub(crate) fn cross_shard(
        &mut self,
        asker: &Asker,
        spec: &'static CommandSpec,
        request: &Request<'_>,
    ) {
        let mut keys = Keys::default();
        if let Err(error) = self.claim(asker.keyspace, spec, request, &mut keys) {
            return self.answer_error(asker, &error);
        }
        let place = self.reserve_gather(asker, Gather::new(GatherKind::Operation, 1));
        let job = self.job(
            asker,
            place,
            &keys,
            request.data.into(),
            1,
            ReplyKind::Single,
        );
        match job {
            Ok(job) => self.start_job(job),
            Err(error) => self.part_failed(asker, place, 0, &error),
        }
    }

    /// Nothing more of the client is taken until it has its answer.
    pub(crate) fn start_job(&mut self, job: Job) {
        if let Some(client) = self.clients.get_mut(job.asker.slot) {
            if client.intake != Intake::Closing {
                client.intake = Intake::Barrier;
            }
        }
        self.begin_job(job);
    }

    /// Adds what a request claims.
    pub(crate) fn claim(
        &mut self,
        keyspace: usize,
        spec: &'static CommandSpec,
        request: &Request<'_>,
        keys: &mut Keys,
    ) -> Result<(), ClientError> {
        let space = &self.topology.keyspaces[keyspace];
        let admission = &self.admissions[keyspace];
        for claim in claims_of(space, admission, spec, request, &mut self.scratch)? {
            keys.add(request.arg(claim.arg as usize), claim.shard, claim.access);
        }
        Ok(())
    }

    /// Everything that is to be known before an operation begins.
    pub(crate) fn job(
        &mut self,
        asker: &Asker,
        place: u32,
        keys: &Keys,
        requests: Arc<[u8]>,
        count: usize,
        reply: ReplyKind,
    ) -> Result<Job, ClientError> {
        let space = &self.topology.keyspaces[asker.keyspace];
        let name = |shard: u16| space.shards[usize::from(shard)].name.as_str().into();
        let (shards, parts, home) = keys.parts(name);
        if shards.len() > CROSS_SHARD_SHARDS_MAX || keys.len() > CROSS_SHARD_KEYS_MAX {
            return Err(ClientError::Operation(OperationError::TooWide));
        }
        let database = self.clients.get(asker.slot).map(|client| client.database);
        if database.is_some_and(|database| database != space.database) {
            return Err(ClientError::Operation(OperationError::Database(
                space.database,
            )));
        }
        let requests = self.held_to_keys(asker.keyspace, requests)?;
        Ok(Job {
            home,
            count,
            reply,
            ..Job::new(*asker, place, shards, parts, requests)
        })
    }

    /// A step of a request that waits is answered. True when nobody is to be given it: what was taken goes back.
    pub(crate) fn goes_on_waiting(&mut self, job: &Job, answer: &Told, out: &mut Vec<u8>) -> bool {
        match answer {
            Told::Replies(replies) if !self.is_there(&job.asker) => {
                self.put_back_taken(&job.asker, job.undo, replies);
                return true;
            }
            // A key grew after it was looked at: all are looked at again.
            Told::Error(ClientError::Operation(OperationError::TooLarge(_)))
                if job.undo != Undo::Nothing =>
            {
                out.clear();
                encode::null_array(out, encode::Proto::Resp2);
            }
            _ => {}
        }
        false
    }
}
