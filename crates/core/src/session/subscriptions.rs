//! Who has subscribed to what, in one worker.
//!
//! Owns: the names (channels, patterns, shard channels) of each keyspace with their listeners, what each shard was asked
//! and has not confirmed, and the clients' requests that wait for that. Only tables: `feed` has the connections, `pubsub`
//! the clients' commands, `publish` the questions about both.
//!
//! Flow: a client takes a name -> the first one makes it known, and it is sent to every shard as part of a `Batch` -> the
//! request is `Pending` until the batches of all shards are confirmed -> the client is a listener. The last client that
//! gives a name up ends it, by a batch again.
//!
//! Must stay true: each client that has a name counts once in it; a name without clients is not there; a shard confirms its
//! batches in order, so who waits for the last one waits for all before it; names and subscriptions are bounded.
//! Rejected: a connection to each shard for each client: ten thousand clients of one channel would be sent each message
//! ten thousand times, by every server.

use crate::limits::{SUBSCRIPTIONS_MAX, SUBSCRIPTION_BYTES_MAX};
use crate::protocol::subscription::Kind;
use crate::session::backend::NONE;
use crate::session::publish_order::Publisher;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// A client's place and generation.
pub(crate) type Who = (u32, u32);

/// What clients have subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Name {
    /// Those that have it, also while it is not confirmed to them.
    clients: usize,
    /// Those that are given its messages.
    pub listeners: BTreeSet<Who>,
    /// The request that made it known, until every shard has confirmed that.
    unsettled: Option<u64>,
}

/// The names of one keyspace.
#[derive(Debug, Default)]
pub(crate) struct Space {
    names: [HashMap<Arc<[u8]>, Name>; 3],
    /// Who was the last to give a name up, and the request that did, until every shard has confirmed that: what was published
    /// before comes before.
    leaving: [HashMap<Arc<[u8]>, Vec<(u64, Who)>>; 3],
    /// Since when there are none (ms).
    pub empty_since_ms: u64,
}

/// Names that a shard was asked to subscribe us to, or not any more.
#[derive(Debug)]
pub(crate) struct Batch {
    pub kind: Kind,
    pub is_made: bool,
    pub names: Vec<Arc<[u8]>>,
    /// Confirmations that have not come.
    pub left: usize,
    /// Requests that wait for the last of them.
    pub waiters: Vec<u64>,
}

/// One shard's messages.
#[derive(Debug)]
pub(crate) struct Feed {
    /// The connection on which they come, or `NONE`.
    pub link: u32,
    /// What it was asked and has not confirmed, in order.
    pub batches: VecDeque<Batch>,
    /// Of these, the ones that made the connection what the others were already.
    pub catching_up: usize,
    /// Not opened again before this (ms).
    pub retry_ms: u64,
    /// Connections in a row that were lost before they had caught up.
    pub failures: u32,
}

/// A request that waits for the shards.
#[derive(Debug)]
pub(crate) struct Pending {
    pub who: Who,
    /// Its place in the client's replies.
    pub number: u32,
    pub keyspace: usize,
    pub kind: Kind,
    /// It is to subscribe, not to end that.
    pub is_made: bool,
    /// The names that the client did not have before.
    pub added: Vec<Arc<[u8]>>,
    /// The names that nobody has any more.
    pub ended: Vec<Arc<[u8]>>,
    /// What it is told in the end.
    pub reply: Vec<u8>,
    /// Shards that have not confirmed.
    pub left: usize,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Subscriptions {
    pub(crate) spaces: Vec<Space>,
    /// Numbered through the topology.
    pub(crate) feeds: Vec<Feed>,
    pub(crate) pending: BTreeMap<u64, Pending>,
    next_pending: u64,
    /// Whose PUBLISH waits for some of these.
    pub(crate) publishers: Vec<Publisher>,
    /// Names that clients have, each counted for each of them.
    count: usize,
    /// Bytes of all different names.
    bytes: usize,
}

/// What one client has subscribed to.
#[derive(Debug, Default, Clone)]
pub struct Subscribed {
    names: [BTreeSet<Arc<[u8]>>; 3],
    /// Its requests to subscribe that wait for the shards.
    pub(crate) pending: usize,
    /// Since when too much of its messages waits (ms).
    pub(crate) slow_since_ms: Option<u64>,
}

/// A name that was ended and made known again is another one: shards are asked for it in another batch.
fn identity(name: &Arc<[u8]>) -> *const u8 {
    Arc::as_ptr(name).cast()
}

impl Subscribed {
    pub(crate) fn has(&self, kind: Kind, name: &[u8]) -> bool {
        self.names[kind as usize].contains(name)
    }

    pub(crate) fn add(&mut self, kind: Kind, name: Arc<[u8]>) {
        self.names[kind as usize].insert(name);
    }

    /// The name as it was held; None: it was not.
    pub(crate) fn remove(&mut self, kind: Kind, name: &[u8]) -> Option<Arc<[u8]>> {
        self.names[kind as usize].take(name)
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> Vec<Arc<[u8]>> {
        self.names[kind as usize].iter().cloned().collect()
    }

    /// How many it has, as it is told when one is added or ended: channels and patterns together.
    pub(crate) fn told(&self, kind: Kind) -> usize {
        let [channels, patterns, shard] = self.counts();
        match kind {
            Kind::Channel | Kind::Pattern => channels + patterns,
            Kind::Shard => shard,
        }
    }

    /// Of each kind.
    pub(crate) fn counts(&self) -> [usize; 3] {
        Kind::ALL.map(|kind| self.names[kind as usize].len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts() == [0; 3]
    }
}

impl Space {
    pub(crate) fn name(&self, kind: Kind, name: &[u8]) -> Option<&Name> {
        self.names[kind as usize].get(name)
    }

    pub(crate) fn name_mut(&mut self, kind: Kind, name: &[u8]) -> Option<&mut Name> {
        self.names[kind as usize].get_mut(name)
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Arc<[u8]>, &Name)> {
        self.names[kind as usize].iter()
    }

    /// The last who had a name is given its messages until the shards have confirmed its end.
    pub(crate) fn leave_late(&mut self, kind: Kind, names: &[Arc<[u8]>], id: u64, who: Who) {
        let leaving = &mut self.leaving[kind as usize];
        for name in names {
            leaving.entry(Arc::clone(name)).or_default().push((id, who));
        }
    }

    /// The shards have confirmed the end of these names to a request.
    pub(crate) fn left(&mut self, kind: Kind, names: &[Arc<[u8]>], id: u64) {
        let leaving = &mut self.leaving[kind as usize];
        for name in names {
            if let Some(late) = leaving.get_mut(name) {
                late.retain(|&(known, _)| known != id);
                if late.is_empty() {
                    leaving.remove(name);
                }
            }
        }
        if leaving.is_empty() {
            *leaving = HashMap::new();
        }
    }

    /// Who is given a name's messages though it has given the name up.
    pub(crate) fn late(&self, kind: Kind, name: &[u8]) -> Vec<Who> {
        let late = self.leaving[kind as usize].get(name);
        late.map_or_else(Vec::new, |late| late.iter().map(|&(_, who)| who).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.iter().all(HashMap::is_empty)
    }
}

impl Name {
    /// Whether shards may not have been asked for it yet, or have not confirmed it.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.is_none()
    }
}

impl Subscriptions {
    /// None.
    pub fn new(keyspaces: usize, shards: usize) -> Self {
        let feed = || Feed {
            link: NONE,
            batches: VecDeque::new(),
            catching_up: 0,
            retry_ms: 0,
            failures: 0,
        };
        Self {
            spaces: (0..keyspaces).map(|_| Space::default()).collect(),
            feeds: (0..shards).map(|_| feed()).collect(),
            pending: BTreeMap::new(),
            next_pending: 0,
            publishers: Vec::new(),
            count: 0,
            bytes: 0,
        }
    }

    /// Whether so many names more may be held.
    pub(crate) fn has_room(&self, names: &[&[u8]]) -> bool {
        let bytes: usize = names.iter().map(|name| name.len()).sum();
        self.count + names.len() <= SUBSCRIPTIONS_MAX
            && self.bytes + bytes <= SUBSCRIPTION_BYTES_MAX
    }

    /// The last number that `next_pending` gave.
    pub(crate) fn last_pending(&self) -> u64 {
        self.next_pending
    }

    pub(crate) fn next_pending(&mut self) -> u64 {
        self.next_pending += 1;
        self.next_pending
    }

    /// A client has a name from now on. The name as it is held, and whether it was not known before: then `pending` is the
    /// request that makes it known.
    pub(crate) fn take(
        &mut self,
        keyspace: usize,
        kind: Kind,
        name: &[u8],
        pending: u64,
    ) -> (Arc<[u8]>, bool) {
        self.count += 1;
        let names = &mut self.spaces[keyspace].names[kind as usize];
        if let Some((held, _)) = names.get_key_value(name) {
            let held = Arc::clone(held);
            if let Some(known) = names.get_mut(name) {
                known.clients += 1;
            }
            return (held, false);
        }
        let held: Arc<[u8]> = name.into();
        self.bytes += name.len();
        names.insert(
            Arc::clone(&held),
            Name {
                clients: 1,
                listeners: BTreeSet::new(),
                unsettled: Some(pending),
            },
        );
        (held, true)
    }

    /// A client gives names up. Those that nobody has any more.
    pub(crate) fn give_up(
        &mut self,
        keyspace: usize,
        kind: Kind,
        names: &[Arc<[u8]>],
        who: Who,
        now_ms: u64,
    ) -> Vec<Arc<[u8]>> {
        let space = &mut self.spaces[keyspace];
        let mut ended = Vec::new();
        for name in names {
            let Some(known) = space.names[kind as usize].get_mut(name) else {
                continue;
            };
            self.count -= 1;
            known.clients -= 1;
            known.listeners.remove(&who);
            if known.clients == 0 {
                space.names[kind as usize].remove(name);
                self.bytes -= name.len();
                ended.push(Arc::clone(name));
            }
        }
        if !ended.is_empty() && space.is_empty() {
            space.empty_since_ms = now_ms;
            // Of a million names nothing shall be left but the tables' memory.
            space.names = Default::default();
        }
        ended
    }

    /// A request waits for everything that the shards of a keyspace were asked and have not confirmed; how many shards
    /// that are.
    pub(crate) fn wait_for_all(&mut self, shards: std::ops::Range<usize>, pending: u64) -> usize {
        let mut waits = 0;
        for feed in &mut self.feeds[shards] {
            if let Some(last) = feed.batches.back_mut() {
                last.waiters.push(pending);
                waits += 1;
            }
        }
        waits
    }

    /// One shard less for each of these; the requests that wait for no further one, off the table.
    pub(crate) fn one_less(&mut self, waiters: &[u64]) -> Vec<(u64, Pending)> {
        let mut done = Vec::new();
        for &id in waiters {
            let Some(pending) = self.pending.get_mut(&id) else {
                continue;
            };
            pending.left -= 1;
            if pending.left == 0 {
                done.extend(self.pending.remove(&id).map(|pending| (id, pending)));
            }
        }
        done
    }

    /// The requests that wait for one of a batch's names, off the table.
    pub(crate) fn take_concerned(&mut self, keyspace: usize, batch: &Batch) -> Vec<Pending> {
        let of_batch: BTreeSet<*const u8> = batch.names.iter().map(identity).collect();
        let concerned: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| {
                pending.keyspace == keyspace
                    && pending.kind == batch.kind
                    && pending
                        .added
                        .iter()
                        .any(|name| of_batch.contains(&identity(name)))
            })
            .map(|(&id, _)| id)
            .collect();
        concerned
            .iter()
            .filter_map(|id| self.pending.remove(id))
            .collect()
    }

    /// The names of a batch that clients have, still: what was ended and asked for anew meanwhile is in a batch of its own.
    pub(crate) fn still_held(&self, keyspace: usize, batch: &Batch) -> Vec<Arc<[u8]>> {
        let names = &self.spaces[keyspace].names[batch.kind as usize];
        let is_held = |name: &&Arc<[u8]>| {
            let held = names.get_key_value(*name);
            held.is_some_and(|(held, _)| Arc::ptr_eq(held, name))
        };
        batch.names.iter().filter(is_held).cloned().collect()
    }

    /// Every shard has confirmed a request: its client listens.
    pub(crate) fn settle(
        &mut self,
        id: u64,
        keyspace: usize,
        kind: Kind,
        added: &[Arc<[u8]>],
        listener: Option<Who>,
    ) {
        for name in added {
            if let Some(known) = self.spaces[keyspace].name_mut(kind, name) {
                if known.unsettled == Some(id) {
                    known.unsettled = None;
                }
                known.listeners.extend(listener);
            }
        }
    }

    /// What does not fit together, if anything does not.
    pub(crate) fn audit(&self) -> Result<(), String> {
        let names = || self.spaces.iter().flat_map(|space| space.names.iter());
        let count: usize = names()
            .flat_map(HashMap::values)
            .map(|name| name.clients)
            .sum();
        let bytes: usize = names().flat_map(HashMap::keys).map(|name| name.len()).sum();
        if (count, bytes) != (self.count, self.bytes) {
            return Err(format!(
                "{count} subscriptions of {bytes} bytes, {} of {} are counted",
                self.count, self.bytes
            ));
        }
        for (id, pending) in &self.pending {
            let waits = self.feeds.iter().flat_map(|feed| &feed.batches);
            let waits = waits.filter(|batch| batch.waiters.contains(id)).count();
            if waits != pending.left || waits == 0 {
                return Err(format!(
                    "request {id} waits for {} shards, {waits} know of it",
                    pending.left
                ));
            }
        }
        Ok(())
    }
}
