//! What was sent before a fence was installed, and when it cannot touch the fenced keys any more.
//!
//! Owns: `Drain`, a fence that is installed here and not drained yet; `Waits`, what is known of a request that waits on a connection
//! of its own; the questions to a shard whether it has begun to wait.
//!
//! Flow: `begin_drain` notes the connections that owe replies, and how many they will have brought by then -> whenever replies have
//! come `look_at_drains` strikes out what is done -> nothing is left, and no lost connection may still run something: `Drained`. A
//! request that waits may never be answered. It is done when the shard says that it has it waiting (CLIENT LIST, flag `b`): what it
//! takes from then on is what the operation itself has put there, after it. What such a request writes elsewhere (BLMOVE) may come
//! at any time; if that is fenced the shard is told to end the wait, and it begins again behind the fence (`late`).
//!
//! Must stay true: what waits in a connection that is not up yet counts too, for it will be sent; a connection that was itself told
//! of the fence sends nothing before it is lifted, and does not count; what is known to wait does so until it is answered.
//! Rejected: ending every wait whose key is fenced: its place in the shard's line would be lost.

use crate::protocol::errand;
use crate::session::backend::{InFlight, Link, LinkState, Waiter};
use crate::session::cross_shard::call::Tx;
use crate::session::cross_shard::notes::Note;
use crate::session::cross_shard::registrar::Claims;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::own_links::{Owner, Purpose};

/// After so many questions in a row the next is asked in a while.
const ASKED_AT_ONCE_MAX: u8 = 3;

/// A request that waits on a link which it has to itself.
#[derive(Debug)]
pub struct Waits {
    /// Its keys; first those for which it waits.
    keys: Vec<Box<[u8]>>,
    /// So many of them it waits for; it writes the others when it has something.
    waited: usize,
    /// The request, if it may have to be sent again.
    pub(crate) again: Option<Again>,
    /// The shard has it waiting.
    is_blocked: bool,
    /// The number of the question to the shard that is not answered; 0: none.
    asked: u32,
    asked_count: u8,
    /// The shard was told to end it, so that it begins again later.
    pub(crate) is_recalled: bool,
    /// Its client is to have its end, too: with an error or as at its time-out.
    pub(crate) ends: Option<Option<&'static str>>,
}

/// What is needed to send a request that waits again.
#[derive(Debug, Clone)]
pub(crate) struct Again {
    pub request: Vec<u8>,
    pub deadline_ms: Option<u64>,
}

impl Waits {
    /// Nothing is known of it but what it says.
    pub(crate) fn new(keys: Vec<Box<[u8]>>, waited: usize, again: Option<Again>) -> Self {
        Self {
            keys,
            waited,
            again,
            is_blocked: false,
            asked: 0,
            asked_count: 0,
            is_recalled: false,
            ends: None,
        }
    }
}

/// A connection that owes something.
#[derive(Debug)]
struct Owing {
    link: u32,
    generation: u32,
    /// It owes nothing when it has brought so many replies.
    until: u64,
    /// That it waits is not enough: it writes a fenced key when it has something.
    must_end: bool,
}

/// A fence that is installed, and what is to be answered before it is drained.
#[derive(Debug)]
pub(crate) struct Drain {
    pub(crate) tx: Tx,
    worker: usize,
    /// Shards, numbered through the topology.
    shards: Vec<usize>,
    links: Vec<Owing>,
}

impl Engine {
    /// A fence was installed: that worker is told when all that was sent before is done.
    pub(crate) fn begin_drain(&mut self, tx: Tx, keyspace: usize, claims: &Claims, worker: usize) {
        let first = self.topology.keyspaces[keyspace].first_shard;
        let shard = |of: u16| first + usize::from(of);
        let shards: Vec<usize> = claims.iter().map(|claim| shard(claim.shard)).collect();
        let mut links = Vec::new();
        let fences = &self.cross_shards.fences[keyspace];
        for (id, link) in self.links.iter() {
            if !shards.contains(&link.shard) {
                continue;
            }
            let within = (link.shard - first) as u16;
            let touches = |key: &[u8]| fences.has(&tx, within, key);
            if owes(link, &tx, touches) {
                links.push(Owing {
                    link: id,
                    generation: self.links.generation(id),
                    until: link.answered.wrapping_add(link.queue.len() as u64),
                    must_end: writes_elsewhere(link, touches),
                });
            }
        }
        self.cross_shards.drains.push(Drain {
            tx,
            worker,
            shards,
            links,
        });
        self.look_at_drains();
    }

    /// Tells who waits for it which fences are drained now.
    pub(crate) fn look_at_drains(&mut self) {
        let drains = std::mem::take(&mut self.cross_shards.drains);
        for mut drain in drains {
            drain.links.retain(|owing| {
                let link = self.links.get_same(owing.link, owing.generation);
                link.is_some_and(|link| {
                    let left = owing.until.wrapping_sub(link.answered) as i64;
                    left > 0 && (owing.must_end || !is_blocked(link))
                })
            });
            let has_ghosts = |&shard: &usize| !self.backends[shard].ghosts.is_empty();
            if drain.links.is_empty() && !drain.shards.iter().any(has_ghosts) {
                self.post(drain.worker, Note::Drained(drain.tx));
            } else {
                self.press(&drain);
                self.cross_shards.drains.push(drain);
            }
        }
    }

    /// Asks or tells shards what brings waiting requests nearer to their end.
    fn press(&mut self, drain: &Drain) {
        let mut asked: Vec<(usize, u64)> = Vec::new();
        let mut recalled: Vec<(usize, u64)> = Vec::new();
        for owing in &drain.links {
            let Some(link) = self.links.get_mut(owing.link) else {
                continue;
            };
            let (place, is_up) = ((link.shard, link.server_id), link.was_ready());
            let Some(waits) = link.waits.as_deref_mut() else {
                continue;
            };
            if !is_up || place.1 == 0 {
                continue;
            }
            if !waits.is_blocked {
                if waits.asked == 0 && waits.asked_count < ASKED_AT_ONCE_MAX {
                    asked.push(place);
                }
            } else if owing.must_end && !std::mem::replace(&mut waits.is_recalled, true) {
                recalled.push(place);
            }
        }
        for (shard, number) in recalled {
            self.tell_to_unblock(shard, number, true);
        }
        asked.sort_unstable();
        for of_shard in asked.chunk_by(|one, other| one.0 == other.0) {
            self.ask_whether_blocked(of_shard[0].0, of_shard);
        }
    }

    fn ask_whether_blocked(&mut self, shard: usize, links: &[(usize, u64)]) {
        let Ok(main) = self.link_for(shard, 0) else {
            return;
        };
        let numbers: Vec<u64> = links.iter().map(|&(_, number)| number).collect();
        self.cross_shards.listings = self.cross_shards.listings.wrapping_add(1).max(1);
        let question = self.cross_shards.listings;
        for (_, link) in self.links.iter_mut() {
            let is_meant = link.shard == shard && numbers.binary_search(&link.server_id).is_ok();
            if let Some(waits) = link.waits.as_deref_mut().filter(|_| is_meant) {
                waits.asked = question;
                waits.asked_count += 1;
            }
        }
        if let Some(link) = self.links.get_mut(main) {
            errand::connections(link.outgoing().tail(), &numbers);
        }
        self.sent(&Asker::NOBODY, main, question, 0, Waiter::Listing);
    }

    /// A piece of a shard's list of connections, which answers that question.
    pub(crate) fn listed(&mut self, shard: usize, question: u32, bytes: &[u8], done: bool) {
        let listing = &mut self.backends[shard].listing;
        listing.extend_from_slice(bytes);
        if !done {
            return;
        }
        let listing = std::mem::take(listing);
        let blocked = blocked_in(&listing);
        for (_, link) in self.links.iter_mut() {
            let number = link.server_id;
            let waits = link.waits.as_deref_mut();
            if let Some(waits) = waits.filter(|waits| waits.asked == question) {
                waits.asked = 0;
                waits.is_blocked = blocked.binary_search(&number).is_ok();
            }
        }
        self.look_at_drains();
        self.settle_notes();
    }

    /// Time has passed, or the connection on which a shard was asked is gone: it is asked again.
    pub(crate) fn ask_again(&mut self, lost: Option<usize>) {
        if self.cross_shards.drains.is_empty() {
            return;
        }
        for (_, link) in self.links.iter_mut() {
            let is_lost = lost == Some(link.shard);
            if let Some(waits) = link.waits.as_deref_mut() {
                waits.asked_count = 0;
                waits.asked = if is_lost { 0 } else { waits.asked };
            }
        }
        if let Some(shard) = lost {
            self.backends[shard].listing.clear();
        } else {
            self.look_at_drains();
        }
    }
}

/// Whether a link has to bring something before a fence is drained.
fn owes(link: &Link, tx: &Tx, touches: impl Fn(&[u8]) -> bool) -> bool {
    let is_work = |entry: &InFlight| entry.waiter != Waiter::Probe;
    if link.behind.contains(tx) || !link.queue.iter().any(is_work) {
        return false;
    }
    match link.owner {
        Owner::Lane
        | Owner::Client {
            purpose: Purpose::Watch | Purpose::Track | Purpose::Wake,
            ..
        } => true,
        Owner::Ending
        | Owner::Client {
            purpose: Purpose::Block,
            ..
        } => {
            let is_put_back = |entry: &InFlight| entry.waiter == Waiter::PutBack;
            let waits = link.waits.as_deref();
            let is_meant = waits.is_some_and(|waits| waits.keys.iter().any(|key| touches(key)));
            is_meant || waits.is_none() || link.queue.iter().any(is_put_back)
        }
        // Not of clients, without keys, or an operation's own.
        Owner::Client {
            purpose: Purpose::Feed,
            ..
        }
        | Owner::Operation { .. }
        | Owner::Control
        | Owner::Subscriptions
        | Owner::Request
        | Owner::Idle => false,
    }
}

/// The shard has its request waiting.
fn is_blocked(link: &Link) -> bool {
    let is_up = link.state == LinkState::Up;
    let waits = link.waits.as_deref();
    is_up && link.queue.len() == 1 && waits.is_some_and(|waits| waits.is_blocked)
}

/// Its request writes a fenced key when it gets something, whenever that is.
fn writes_elsewhere(link: &Link, touches: impl Fn(&[u8]) -> bool) -> bool {
    link.waits.as_deref().is_some_and(|waits| {
        let written = waits.keys.iter().skip(waits.waited);
        written.into_iter().any(|key| touches(key))
    })
}

/// The numbers of those connections in a list that wait.
fn blocked_in(listing: &[u8]) -> Vec<u64> {
    let lines = listing.split(|&byte| byte == b'\n');
    let blocked = lines.filter_map(|line| {
        let text = std::str::from_utf8(line).ok()?;
        let field = |name: &str| text.split(' ').find_map(|field| field.strip_prefix(name));
        let is_blocked = field("flags=")?.contains('b');
        field("id=")?.parse().ok().filter(|_| is_blocked)
    });
    let mut blocked: Vec<u64> = blocked.collect();
    blocked.sort_unstable();
    blocked
}

#[cfg(test)]
mod tests {
    use super::blocked_in;

    #[test]
    fn who_waits_is_found_in_a_list() {
        let listing = b"$99\r\nid=7 addr=1:2 name=b flags=b db=0 cmd=blpop\nid=8 flags=N db=0\nid=9 flags=xb\n\r\n";
        assert_eq!(blocked_in(listing), [7, 9]);
        assert_eq!(blocked_in(b"-ERR syntax error\r\n"), [0; 0]);
        assert_eq!(blocked_in(b"$4\r\nid=\xff\r\n"), [0; 0]);
    }
}
