//! Whether an engine's books agree with each other.
//!
//! Owns: the check that the simulation makes after every step. What it finds could also be found by looking at replies,
//! but later, and far from its cause.
//!
//! Rejected: debug assertions all over the engine. They would see one place at a time; a client that waits for something
//! that nobody will bring is seen only by looking at both.

use crate::routing::topology::Role;
use crate::session::backend::{LinkState, Waiter, NONE};
use crate::session::client::Intake;
use crate::session::engine::Engine;
use crate::session::stats::PerKeyspace;

/// What an engine has in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Clients.
    pub clients: usize,
    /// Links.
    pub links: usize,
    /// Entries in all links' queues.
    pub in_flight: usize,
    /// Links that are not read because of a client.
    pub stalled: usize,
    /// Links that serve one request alone.
    pub exclusive_links: usize,
    /// Bytes of requests that were not taken yet.
    pub incoming_bytes: usize,
}

impl Engine {
    /// The totals, or what does not fit together.
    pub fn audit(&self) -> Result<Totals, String> {
        for (slot, client) in self.clients.iter() {
            self.audit_client(slot).map_err(|why| {
                format!(
                    "client {slot} ({:?}, ended {}): {why}",
                    client.intake, client.ended
                )
            })?;
        }
        let incoming: usize = self
            .clients
            .iter()
            .map(|(_, client)| client.incoming.len())
            .sum();
        if incoming != self.incoming_bytes {
            return Err(format!(
                "{incoming} bytes came in, {} are counted",
                self.incoming_bytes
            ));
        }
        let queued: usize = self
            .clients
            .iter()
            .filter_map(|(_, client)| client.particulars.as_deref()?.transaction.as_deref())
            .map(|transaction| transaction.bytes.len())
            .sum();
        if queued != self.queued_bytes {
            return Err(format!(
                "{queued} bytes wait for EXEC, {} are counted",
                self.queued_bytes
            ));
        }
        let exclusive = self
            .links
            .iter()
            .filter(|(_, link)| link.lane.is_none())
            .count();
        if exclusive != self.exclusive_links {
            return Err(format!(
                "{exclusive} exclusive links, {} are counted",
                self.exclusive_links
            ));
        }
        for &(link, slot, _) in &self.stalled {
            if !self.links.get(link).is_some_and(|link| link.stalled) {
                return Err(format!(
                    "link {link} is said to be stalled by client {slot} and is not"
                ));
            }
        }
        self.audit_links()?;
        self.subscriptions.audit()?;
        self.audit_feeds()?;
        self.audit_lines()?;
        self.audit_ejection()?;
        Ok(Totals {
            clients: self.clients.len(),
            links: self.links.len(),
            in_flight: self.links.iter().map(|(_, link)| link.queue.len()).sum(),
            stalled: self.stalled.len(),
            exclusive_links: exclusive,
            incoming_bytes: incoming,
        })
    }

    /// A client that is not read has somebody who will let it go on.
    fn audit_client(&self, slot: u32) -> Result<(), &'static str> {
        let Some(client) = self.clients.get(slot) else {
            return Ok(());
        };
        let generation = self.clients.generation(slot);
        let waiting = client.replies.waiting();
        let is_sound = match client.intake {
            Intake::Open => !client.ended,
            Intake::InFlight => waiting > 0,
            Intake::Output => client.replies.bytes() > 0,
            Intake::Barrier | Intake::Blocked => waiting > 0,
            Intake::Paused => self.pauses[client.keyspace as usize].is_some(),
            Intake::Fenced => self.cross_shards.waits(client.keyspace, slot, generation),
            Intake::Subscriptions => self.is_held_publisher((slot, generation)),
            Intake::Closing => waiting > 0 || !client.replies.out.is_empty(),
            Intake::Link(id) => self
                .links
                .get(id)
                .is_some_and(|link| link.blocked.contains(&(slot, generation))),
        };
        if !is_sound {
            return Err("nobody will let it go on");
        }
        self.audit_tracking(slot)
    }

    /// A store does without no shard, a cache without no more than it may.
    fn audit_ejection(&self) -> Result<(), String> {
        let failing = self
            .backends
            .iter()
            .filter(|backend| backend.failures > 0)
            .count();
        if failing != self.failing {
            return Err(format!(
                "{failing} shards have failed, {} are counted",
                self.failing
            ));
        }
        for (space, admission) in self.topology.keyspaces.iter().zip(&self.admissions) {
            let out = (0..admission.shards())
                .filter(|&shard| admission.share(shard) == 0)
                .count();
            let most = match space.role {
                Role::Store => 0,
                Role::Cache(rules) => rules.shards_max as usize,
            };
            if out > most || (most == 0 && !admission.is_whole()) {
                return Err(format!("{out} shards are ejected, {most} may be"));
            }
        }
        Ok(())
    }

    /// Who stands in a line waits for its key.
    fn audit_lines(&self) -> Result<(), String> {
        for (key, (slot, generation)) in self.lines.everybody() {
            let client = self.clients.get(slot);
            let wait = client
                .filter(|_| self.clients.generation(slot) == generation)
                .and_then(|client| client.particulars.as_deref())
                .and_then(|particulars| particulars.wait.as_deref());
            if !wait.is_some_and(|wait| wait.keys_in_line().any(|own| own == key)) {
                return Err(format!("client {slot} stands in a line and does not wait"));
            }
        }
        Ok(())
    }

    /// Each request for names has its entry in the queue of the connection that it went to, and who has names is counted.
    fn audit_feeds(&self) -> Result<(), String> {
        for (shard, feed) in self.subscriptions.feeds.iter().enumerate() {
            let queue = self.links.get(feed.link).map(|link| &link.queue);
            let entries = queue.map_or(0, |queue| {
                let due = queue.iter();
                due.filter(|entry| entry.waiter == Waiter::Subscription)
                    .count()
            });
            if entries != feed.batches.len() || (feed.link == NONE) != queue.is_none() {
                return Err(format!(
                    "{} batches of shard {shard} are not confirmed, {entries} are waited for",
                    feed.batches.len()
                ));
            }
        }
        for keyspace in 0..self.topology.keyspaces.len() {
            let clients = self.clients.iter().filter(|(slot, client)| {
                client.keyspace as usize == keyspace && self.subscription_counts(*slot) != [0; 3]
            });
            let (found, counted) = (
                clients.count() as u64,
                self.stats().of_keyspace(keyspace, PerKeyspace::Subscribers),
            );
            if found != counted {
                return Err(format!("{found} have subscribed, {counted} are counted"));
            }
        }
        Ok(())
    }

    fn audit_links(&self) -> Result<(), String> {
        for (id, link) in self.links.iter() {
            let is_known = match link.lane {
                Some(lane) => self.backends[link.shard].links[lane] == id,
                None => true,
            };
            if !is_known && link.state != LinkState::Retired {
                return Err(format!("link {id} is nobody's"));
            }
            if link.state == LinkState::Retired && link.queue.is_empty() {
                return Err(format!("link {id} is retired, owes nothing and is there"));
            }
            if link.stalled && !self.stalled.iter().any(|&(stalled, ..)| stalled == id) {
                return Err(format!("link {id} is not read and nobody will change that"));
            }
        }
        Ok(())
    }
}
