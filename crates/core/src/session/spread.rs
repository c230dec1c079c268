//! Requests for more than one shard: split at their keys, or sent to every shard, or to any.
//!
//! Owns: the building of fragments, and the taking of one place for the reply that will be put together.
//!
//! Must stay true: either every part is sent or none (a shard that is down is found before anything is sent); a fragment is
//! made of the client's own bytes, argument by argument; the order of keys is kept for the merge.

use crate::error::ClientError;
use crate::limits::{EXCLUSIVE_LINKS_MAX, SHARDS_IN_ERROR_MAX};
use crate::protocol::command::{Arg, Merge};
use crate::protocol::encode;
use crate::routing::merge::merge;
use crate::routing::route::Request;
use crate::session::backend::Waiter;
use crate::session::cross_shard::all_keys::count_records;
use crate::session::dispatch::{client_number, Asker};
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use crate::session::stats::{PerKeyspace, PerShard};

/// How a request is split.
struct Fragments<'a> {
    /// Argument indexes of its keys.
    keys: &'a [u32],
    /// For each key the fragment it goes to.
    order: Vec<u16>,
    /// For each fragment its shard and how many keys it has.
    shards: &'a [(u16, u32)],
    /// For each fragment its link.
    links: &'a [u32],
}

impl Engine {
    pub(crate) fn split(&mut self, asker: &Asker, step: u8, merge: Merge, request: &Request<'_>) {
        self.stats().keyspace(asker.keyspace, PerKeyspace::Split, 1);
        let scratch = std::mem::take(&mut self.scratch);
        // Fragments in the order of their first keys; the shard's position among them is looked up per key.
        let mut shards: Vec<(u16, u32)> = Vec::with_capacity(8);
        let mut order: Vec<u16> = Vec::with_capacity(scratch.shards.len());
        for &shard in &scratch.shards {
            let fragment = shards
                .iter()
                .position(|&(known, _)| known == shard)
                .unwrap_or_else(|| {
                    shards.push((shard, 0));
                    shards.len() - 1
                });
            shards[fragment].1 += 1;
            order.push(fragment as u16);
        }
        let mut links = Vec::with_capacity(shards.len());
        let mut refused = None;
        for &(shard, _) in &shards {
            let number = self.shard_number(asker, shard);
            match self.link_of(asker, number) {
                Ok(link) => links.push(link),
                Err(error) => refused = Some((number, error)),
            }
        }
        if let Some((shard, error)) = refused {
            // Nothing was sent to anybody.
            self.stats().shard(shard, PerShard::Failed, 1);
            self.answer_error(asker, &error);
        } else {
            let fragments = Fragments {
                keys: &scratch.keys,
                order,
                shards: &shards,
                links: &links,
            };
            self.send_fragments(asker, step, merge, request, fragments);
        }
        self.scratch = scratch;
    }

    fn send_fragments(
        &mut self,
        asker: &Asker,
        step: u8,
        merge: Merge,
        request: &Request<'_>,
        fragments: Fragments<'_>,
    ) {
        let Fragments {
            keys,
            order,
            shards,
            links,
        } = fragments;
        let name = whole_argument(request, 0);
        for &link in links {
            self.say_caching(asker, link);
        }
        for (&(_, keys_here), &link) in shards.iter().zip(links) {
            if let Some(link) = self.links.get_mut(link) {
                let out = link.outgoing().tail();
                out.push(b'*');
                encode::decimal(out, 1 + u64::from(keys_here) * u64::from(step));
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(name);
            }
        }
        for (&key, &fragment) in keys.iter().zip(&order) {
            if let Some(link) = self.links.get_mut(links[fragment as usize]) {
                let first = &request.args[key as usize];
                let last = request
                    .args
                    .get(key as usize + step as usize - 1)
                    .unwrap_or(first);
                let from = argument_start(first);
                let bytes = request
                    .data
                    .get(from..(last.start + last.len + 2) as usize)
                    .unwrap_or_default();
                link.outgoing().push(bytes);
            }
        }
        let kept = if merge == Merge::KeyOrder {
            order
        } else {
            Vec::new()
        };
        self.stats()
            .keyspace(asker.keyspace, PerKeyspace::Fragments, links.len() as i64);
        let gather = Gather::new(GatherKind::Merge { merge, order: kept }, links.len());
        let number = self.reserve_gather(asker, gather);
        for (part, &link) in links.iter().enumerate() {
            self.sent(asker, link, number, part as u16, Waiter::Part);
        }
    }

    /// The same bytes to every shard of the keyspace that takes keys.
    pub(crate) fn send_all(&mut self, asker: &Asker, kind: GatherKind, data: &[u8]) {
        self.send_each(asker, kind, &[data]);
    }

    /// To every shard the client's request, or where shoal keeps records of its own what leaves them out.
    pub(crate) fn ask_all(&mut self, asker: &Asker, merge: Merge, data: &[u8]) {
        let shards = self.shards_in(asker.keyspace);
        let kind = GatherKind::Everywhere { merge, shards };
        self.send_all(asker, kind, data);
    }

    /// To every shard of the keyspace that takes keys the bytes at its place; the last ones to all that follow.
    pub(crate) fn send_each(&mut self, asker: &Asker, kind: GatherKind, requests: &[&[u8]]) {
        let shards = self.shards_in(asker.keyspace);
        let is_info = matches!(kind, GatherKind::Info { .. });
        // What the workers count comes before what the shards tell.
        let workers = if is_info { self.identity.workers } else { 0 };
        let may_lack = match &kind {
            GatherKind::Info { .. } => true,
            GatherKind::Everywhere { merge, .. } => is_same_everywhere(*merge),
            _ => false,
        };
        let space = &self.topology.keyspaces[asker.keyspace];
        // Of their keys some are our own: how many comes after what they tell.
        let records = (is_info && space.cross_shard).then(|| count_records(space.database));
        let mut links = Vec::with_capacity(shards.len());
        for &shard in &shards {
            let number = self.shard_number(asker, shard);
            match self.link_of(asker, number) {
                Ok(link) => links.push(Ok(link)),
                Err(error) if may_lack => links.push(Err(error)),
                Err(error) => {
                    self.stats().shard(number, PerShard::Failed, 1);
                    return self.answer_error(asker, &error);
                }
            }
        }
        let parts = workers + shards.len() * (1 + usize::from(records.is_some()));
        let number = self.reserve_gather(asker, Gather::new(kind, parts));
        for (index, link) in links.into_iter().enumerate() {
            let part = workers + index;
            match link {
                Ok(link) => {
                    let data = requests.get(index).or(requests.last());
                    self.send(link, data.copied().unwrap_or_default());
                    self.sent(asker, link, number, part as u16, Waiter::Part);
                    if let Some(records) = &records {
                        let part = (part + shards.len()) as u16;
                        self.send(link, records);
                        self.sent(asker, link, number, part, Waiter::Part);
                    }
                }
                Err(error) => {
                    self.part_failed(asker, number, part as u16, &error);
                    if records.is_some() {
                        let part = (part + shards.len()) as u16;
                        self.part_failed(asker, number, part, &error);
                    }
                }
            }
        }
        if is_info {
            self.ask_headcount(asker, number);
        }
    }

    /// One reply from those of all shards. Where only some failed, or not all in the same way, the first error is told with
    /// the names of the shards that failed and of those that have done it.
    pub(crate) fn compose_everywhere(
        &mut self,
        keyspace: usize,
        rule: Merge,
        shards: &[u16],
        parts: &[&[u8]],
        proto: encode::Proto,
        out: &mut Vec<u8>,
    ) {
        let is_error = |part: &&[u8]| part.first() == Some(&b'-');
        let good: Vec<&[u8]> = if is_same_everywhere(rule) {
            let parts = parts.iter().copied();
            parts.filter(|part| !is_error(part)).collect()
        } else {
            Vec::new()
        };
        let parts = if good.is_empty() { parts } else { &good };
        let first = parts.iter().copied().find(|part| is_error(part));
        let is_deed = matches!(rule, Merge::AllOk | Merge::First);
        let Some(error) = first.filter(|error| is_deed && parts.iter().any(|part| part != error))
        else {
            if rule == Merge::Config {
                return self.compose_config(keyspace, parts, proto, out);
            }
            self.rotate = self.rotate.wrapping_add(1);
            return merge(rule, parts, &[], proto, self.rotate, out);
        };
        let named = |wants_error: bool| {
            let of_kind = |(part, _): &(&&[u8], _)| is_error(part) == wants_error;
            let chosen: Vec<u16> = parts
                .iter()
                .zip(shards)
                .filter(of_kind)
                .map(|(_, &shard)| shard)
                .collect();
            self.names_of(keyspace, &chosen)
        };
        let (failed, done) = (named(true), named(false));
        let done = if done.is_empty() {
            "nowhere".to_string()
        } else {
            format!("on {done}")
        };
        let text = String::from_utf8_lossy(&error[1..]);
        let text = text.trim_end();
        encode::error(out, &format!("{text} (failed on {failed}; done {done})"));
    }

    /// Shards' names for an error: the first few.
    fn names_of(&self, keyspace: usize, shards: &[u16]) -> String {
        let space = &self.topology.keyspaces[keyspace];
        let mut names: Vec<String> = shards
            .iter()
            .take(SHARDS_IN_ERROR_MAX)
            .map(|&shard| format!("'{}'", space.shards[usize::from(shard)].name))
            .collect();
        if shards.len() > SHARDS_IN_ERROR_MAX {
            names.push(format!("{} more", shards.len() - SHARDS_IN_ERROR_MAX));
        }
        names.join(", ")
    }

    /// A shard that is up, in turn; one that is ejected may be up and not well.
    pub(crate) fn send_any(&mut self, asker: &Asker, data: &[u8]) {
        let shards = self.shards_in(asker.keyspace);
        self.rotate = self.rotate.wrapping_add(1);
        let mut refusal = None;
        for offset in 0..shards.len() {
            let shard = shards[(self.rotate + offset) % shards.len()];
            let shard = self.shard_number(asker, shard);
            match self.link_of(asker, shard) {
                Ok(link) => {
                    let number = client_number(self, asker);
                    self.send(link, data);
                    return self.sent(asker, link, number, 0, Waiter::Client);
                }
                Err(error) => refusal = Some(error),
            }
        }
        if let Some(error) = refusal {
            self.answer_error(asker, &error);
        }
    }

    /// What is asked about a running script. The shared connections may wait for that script, and shoal may have given them
    /// up and hold the shard for down; so each shard is asked on a connection that is made for it, whatever its health.
    pub(crate) fn send_aside(&mut self, asker: &Asker, merge: Merge, request: &Request<'_>) {
        let shards = self.shards_in(asker.keyspace);
        if self.is_stopping {
            return self.answer_error(asker, &ClientError::Stopping);
        }
        if self.exclusive_links + shards.len() > EXCLUSIVE_LINKS_MAX {
            return self.answer_error(asker, &ClientError::Exhausted);
        }
        let order = Vec::new();
        let gather = Gather::new(GatherKind::Merge { merge, order }, shards.len());
        let number = self.reserve_gather(asker, gather);
        for (part, shard) in shards.into_iter().enumerate() {
            let shard = self.shard_number(asker, shard);
            let id = self.open_exclusive(shard, asker.lane);
            if let Some(link) = self.links.get_mut(id) {
                link.is_aside = true;
            }
            self.send(id, request.data);
            self.sent(asker, id, number, part as u16, Waiter::Part);
        }
    }

    /// WAIT: every earlier write of this client has been executed (it was read behind a barrier), so on a connection of
    /// its own a PUBLISH puts a mark behind them in the replication stream, and WAIT waits for that mark.
    pub(crate) fn wait(&mut self, asker: &Asker, request: &Request<'_>) {
        let shards = self.topology.keyspaces[asker.keyspace].shards.len();
        if self.exclusive_links + shards > EXCLUSIVE_LINKS_MAX {
            return self.answer_error(asker, &ClientError::Exhausted);
        }
        for shard in 0..shards {
            let number = self.shard_number(asker, shard as u16);
            if let Err(error) = self.link_for(number, 0) {
                self.stats().shard(number, PerShard::Failed, 1);
                return self.answer_error(asker, &error);
            }
        }
        let kind = GatherKind::Merge {
            // One of them answers with a number, the other with an array of two.
            merge: if request.args.len() > 3 {
                Merge::MinEach
            } else {
                Merge::Min
            },
            order: Vec::new(),
        };
        let number = self.reserve_gather(asker, Gather::new(kind, shards));
        for part in 0..shards {
            let shard = self.shard_number(asker, part as u16);
            let link = self.open_exclusive(shard, asker.lane);
            self.send_mark(link);
            self.sent(asker, link, number, part as u16, Waiter::Prelude);
            self.send(link, request.data);
            self.sent(asker, link, number, part as u16, Waiter::Part);
        }
    }
}

/// Shards should all say the same, so that those which cannot be asked are not missed.
fn is_same_everywhere(rule: Merge) -> bool {
    matches!(rule, Merge::Libraries | Merge::Longest)
}

/// Where an argument's `$length` line begins.
pub(crate) fn argument_start(arg: &Arg) -> usize {
    // `$`, the digits of the length, CR LF. The scanner accepts no other spelling of a length.
    let digits = arg.len.checked_ilog10().map_or(1, |log| log as usize + 1);
    (arg.start as usize).saturating_sub(digits + 3)
}

/// An argument with its length line and its line end.
pub(crate) fn whole_argument<'a>(request: &Request<'a>, index: usize) -> &'a [u8] {
    let Some(arg) = request.args.get(index) else {
        return &[];
    };
    request
        .data
        .get(argument_start(arg)..(arg.start + arg.len + 2) as usize)
        .unwrap_or_default()
}
