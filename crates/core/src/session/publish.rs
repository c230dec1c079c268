//! PUBLISH, and the questions about subscriptions.
//!
//! Owns: the choice of the shard on which something is published, and the counting over workers for PUBLISH and PUBSUB.
//!
//! Flow: a message goes to one shard, chosen by its channel; every worker listens on all of them, so each subscriber gets
//! it once. The shard's count is of connections, of which ours are one for each worker: so every worker is asked for the
//! clients it has for the channel and for its own connections in that count, and the reply is put together.
//!
//! Must stay true: one publication, one shard; a worker without subscribers is not asked; where nobody has subscribed
//! through shoal the shard's reply passes through as it is. What is published on a shard by others, to whom shoal is one
//! connection, counts connections.
//! Rejected: to publish on every shard and drop the doubles; to hand messages from worker to worker past the servers (those
//! who subscribe at a server directly, replicas among them, would not get them).

use crate::error::ClientError;
use crate::protocol::command::Local;
use crate::protocol::encode;
use crate::protocol::glob;
use crate::protocol::request::strict_integer;
use crate::protocol::subscription::Kind;
use crate::routing::merge::counted_header;
use crate::routing::route::Request;
use crate::session::backend::{Health, Waiter};
use crate::session::dispatch::{client_number, Asker};
use crate::session::engine::{Action, Engine};
use crate::session::gather::{Gather, GatherKind};
use crate::session::mail::{Mail, Ticket};
use crate::session::stats::{PerKeyspace, PerShard};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a worker is asked about its subscriptions.
#[derive(Debug, Clone)]
pub enum Census {
    /// Who would get a message: clients, and connections of ours that a shard counts for them.
    Receivers {
        /// Index of the keyspace.
        keyspace: usize,
        /// Of the message.
        kind: Kind,
        /// Where it is published.
        channel: Arc<[u8]>,
        /// On which shard, numbered through the topology.
        shard: usize,
    },
    /// The names that clients have.
    Names {
        /// Index of the keyspace.
        keyspace: usize,
        /// Of the names.
        kind: Kind,
        /// Only those that match.
        pattern: Option<Arc<[u8]>>,
    },
    /// How many clients have each of these.
    Counts {
        /// Index of the keyspace.
        keyspace: usize,
        /// Of the names.
        kind: Kind,
        /// In the order of the answer.
        names: Arc<[Arc<[u8]>]>,
    },
}

/// What is made of the workers' answers.
#[derive(Debug, Clone)]
pub enum Tally {
    /// The reply to PUBLISH; the last part is the shard's.
    Receivers,
    /// All different names.
    Names,
    /// How many different names.
    NameCount,
    /// Each name with the sum of its counts.
    Counts(Arc<[Arc<[u8]>]>),
}

impl Engine {
    /// PUBLISH and SPUBLISH.
    pub(crate) fn publish(&mut self, asker: &Asker, kind: Kind, request: &Request<'_>) {
        let keyspace = asker.keyspace;
        let shard = self.shard_to_publish(keyspace, request.arg(1));
        let link = match self.link_of(asker, shard) {
            Ok(link) => link,
            Err(error) => {
                self.stats().shard(shard, PerShard::Failed, 1);
                return self.answer_error(asker, &error);
            }
        };
        let has_some = |worker: usize| {
            self.all_stats[worker].of_keyspace(keyspace, PerKeyspace::Subscribers) > 0
        };
        let workers = self.identity.workers;
        let asked: Vec<usize> = (0..workers).filter(|&worker| has_some(worker)).collect();
        if asked.is_empty() {
            let number = client_number(self, asker);
            self.send(link, request.data);
            return self.sent(asker, link, number, 0, Waiter::Client);
        }
        let census = Census::Receivers {
            keyspace,
            kind,
            channel: request.arg(1).into(),
            shard,
        };
        let tally = GatherKind::Census(Tally::Receivers);
        let number = self.reserve_gather(asker, Gather::new(tally, asked.len() + 1));
        let ticket = Ticket {
            worker: self.identity.worker,
            client: asker.slot,
            generation: asker.generation,
            number,
        };
        for (part, &worker) in asked.iter().enumerate() {
            if worker == ticket.worker {
                let answer = self.census(&census);
                self.part_arrived(asker.slot, asker.generation, number, part as u16, &answer);
            } else {
                let question = Mail::Census(ticket, Some(part as u16), census.clone());
                self.actions.push(Action::Mail(worker, question));
            }
        }
        self.send(link, request.data);
        self.sent(asker, link, number, asked.len() as u16, Waiter::Part);
    }

    /// The shard of a channel's slot, or the next one that is well: not one on which some worker would not hear it.
    fn shard_to_publish(&self, keyspace: usize, channel: &[u8]) -> usize {
        let space = &self.topology.keyspaces[keyspace];
        let count = space.shards.len();
        let first = usize::from(space.cluster_slot(channel)) % count;
        let is_up = |index: &usize| {
            let health = self.backends[space.first_shard + index].health;
            self.admissions[keyspace].share(*index as u16) > 0
                && !matches!(health, Health::Down { .. } | Health::Retrying { .. })
        };
        let is_heard = |index: &usize| {
            let mut workers = self.all_stats.iter();
            workers.all(|stats| stats.of_shard(space.first_shard + index, PerShard::Unheard) == 0)
        };
        let order = || (first..first + count).map(|index| index % count);
        let chosen = order().find(|index| is_up(index) && is_heard(index));
        space.first_shard + chosen.or_else(|| order().find(is_up)).unwrap_or(first)
    }

    /// PUBSUB's subcommands.
    pub(crate) fn pubsub_question(&mut self, asker: &Asker, local: Local, request: &Request<'_>) {
        let keyspace = asker.keyspace;
        let kind = match local {
            Local::PubsubNumpat => Kind::Pattern,
            Local::PubsubShardchannels | Local::PubsubShardnumsub => Kind::Shard,
            _ => Kind::Channel,
        };
        let (tally, census) = match local {
            Local::PubsubChannels | Local::PubsubShardchannels => {
                if request.args.len() > 3 {
                    return self.answer_error(asker, &wrong_form(request));
                }
                let pattern = (request.args.len() == 3).then(|| request.arg(2).into());
                let census = Census::Names {
                    keyspace,
                    kind,
                    pattern,
                };
                (Tally::Names, census)
            }
            Local::PubsubNumpat => {
                let census = Census::Names {
                    keyspace,
                    kind,
                    pattern: None,
                };
                (Tally::NameCount, census)
            }
            _ => {
                let names: Arc<[Arc<[u8]>]> = (2..request.args.len())
                    .map(|at| Arc::from(request.arg(at)))
                    .collect();
                let census = Census::Counts {
                    keyspace,
                    kind,
                    names: Arc::clone(&names),
                };
                (Tally::Counts(names), census)
            }
        };
        self.ask_workers(asker, GatherKind::Census(tally), |ticket| {
            Mail::Census(ticket, None, census.clone())
        });
    }

    /// This worker's answer.
    pub(crate) fn census(&self, census: &Census) -> Vec<u8> {
        let mut out = Vec::new();
        match census {
            Census::Receivers {
                keyspace,
                kind,
                channel,
                shard,
            } => {
                let (clients, connections) = self.receivers(*keyspace, *kind, channel, *shard);
                encode::integer(&mut out, clients as i64);
                encode::integer(&mut out, connections as i64);
            }
            Census::Names {
                keyspace,
                kind,
                pattern,
            } => {
                for (name, known) in self.subscriptions.spaces[*keyspace].of_kind(*kind) {
                    let is_meant = pattern
                        .as_ref()
                        .is_none_or(|pattern| glob::matches(pattern, name));
                    if is_meant && !known.listeners.is_empty() {
                        encode::bulk(&mut out, name);
                    }
                }
            }
            Census::Counts {
                keyspace,
                kind,
                names,
            } => {
                let space = &self.subscriptions.spaces[*keyspace];
                for name in names.iter() {
                    let known = space.name(*kind, name);
                    let count = known.map_or(0, |known| known.listeners.len());
                    encode::integer(&mut out, count as i64);
                }
            }
        }
        out
    }

    fn receivers(
        &self,
        keyspace: usize,
        kind: Kind,
        channel: &[u8],
        shard: usize,
    ) -> (usize, usize) {
        let space = &self.subscriptions.spaces[keyspace];
        let own = space.name(kind, channel).into_iter();
        let patterns = space
            .of_kind(Kind::Pattern)
            .filter(|(pattern, _)| kind == Kind::Channel && glob::matches(pattern, channel));
        let names = own.chain(patterns.map(|(_, known)| known));
        let (clients, known) = names.fold((0, 0), |(clients, known), name| {
            (clients + name.listeners.len(), known + 1)
        });
        (clients, if self.is_fed(shard) { known } else { 0 })
    }

    /// One reply from the answers of the workers.
    pub(crate) fn compose_census(tally: &Tally, parts: &[&[u8]], out: &mut Vec<u8>) {
        match tally {
            Tally::Receivers => {
                let Some((reply, answers)) = parts.split_last() else {
                    return;
                };
                let Some(count) = reply.strip_prefix(b":").map(<[u8]>::trim_ascii_end) else {
                    return out.extend_from_slice(reply);
                };
                let [clients, connections] = sums::<2>(answers);
                let others = strict_integer(count).unwrap_or(0) - connections;
                encode::integer(out, clients + others.max(0));
            }
            Tally::Names | Tally::NameCount => {
                let mut names = BTreeSet::new();
                for part in parts {
                    names_of(part, &mut names);
                }
                if matches!(tally, Tally::NameCount) {
                    return encode::integer(out, names.len() as i64);
                }
                encode::array(out, names.len());
                names.iter().for_each(|name| encode::bulk(out, name));
            }
            Tally::Counts(names) => {
                let mut sums = vec![0; names.len()];
                for part in parts {
                    integers(part)
                        .zip(&mut sums)
                        .for_each(|(count, sum)| *sum += count);
                }
                encode::array(out, 2 * names.len());
                for (name, &count) in names.iter().zip(&sums) {
                    encode::bulk(out, name);
                    encode::integer(out, count);
                }
            }
        }
    }
}

/// The integers of a worker's answer.
fn integers(part: &[u8]) -> impl Iterator<Item = i64> + '_ {
    part.split(|&byte| byte == b':')
        .filter_map(|text| strict_integer(text.trim_ascii_end()))
}

/// The answers added up, place by place.
fn sums<const N: usize>(parts: &[&[u8]]) -> [i64; N] {
    let mut sums = [0; N];
    for part in parts {
        integers(part)
            .zip(&mut sums)
            .for_each(|(count, sum)| *sum += count);
    }
    sums
}

fn names_of<'p>(mut part: &'p [u8], names: &mut BTreeSet<&'p [u8]>) {
    while let Some((length, body)) = counted_header(part) {
        let (Some(name), Some(rest)) =
            (part.get(body..body + length), part.get(body + length + 2..))
        else {
            return;
        };
        names.insert(name);
        part = rest;
    }
}

/// A servers' own words for a number of arguments that a subcommand does not take.
fn wrong_form(request: &Request<'_>) -> ClientError {
    let name = crate::error::printable(request.arg(1));
    ClientError::Text(format!(
        "ERR unknown subcommand or wrong number of arguments for '{name}'. Try PUBSUB HELP."
    ))
}
