//! What is published waits for the subscriptions that were asked for before it.
//!
//! Owns: the clients whose PUBLISH is held, and their going on.
//!
//! Flow: PUBLISH comes while requests to subscribe wait for the shards -> the client's intake is held -> those requests are
//! confirmed, here and (by mail) in the other workers, or `PUBLISH_HOLD_MS_MAX` is over -> the request is shown again.
//!
//! Must stay true: nobody is held twice for one request, nor longer than the bound, whoever subscribes meanwhile; nothing of
//! a held request was sent. On one server a SUBSCRIBE that came first is done first, so libraries publish without reading
//! its reply; here a shard would get the message on another connection, before the subscription.
//! Rejected: publishing on the connection that subscribes: it would order one worker's, and messages only on one shard.

use crate::limits::PUBLISH_HOLD_MS_MAX;
use crate::session::client::Intake;
use crate::session::engine::{Action, Engine};
use crate::session::mail::Mail;
use crate::session::stats::PerKeyspace;
use crate::session::subscriptions::Who;

/// A client whose PUBLISH is held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publisher {
    who: Who,
    keyspace: usize,
    /// The last request to subscribe that this worker had then.
    awaits: u64,
    since_ms: u64,
    is_free: bool,
}

impl Engine {
    /// Whether a PUBLISH is not to be taken yet; its client's intake then says so.
    pub(crate) fn holds_publication(&mut self, slot: u32) -> bool {
        let who = (slot, self.clients.generation(slot));
        let held = &mut self.subscriptions.publishers;
        if let Some(at) = held.iter().position(|one| one.who == who && one.is_free) {
            held.swap_remove(at);
            return false;
        }
        let Some(keyspace) = self
            .clients
            .get(slot)
            .map(|client| client.keyspace as usize)
        else {
            return false;
        };
        if self.subscriptions.pending.is_empty() && !self.subscribes_elsewhere(keyspace) {
            return false;
        }
        let publisher = Publisher {
            who,
            keyspace,
            awaits: self.subscriptions.last_pending(),
            since_ms: self.now_ms,
            is_free: false,
        };
        self.subscriptions.publishers.push(publisher);
        if let Some(client) = self.clients.get_mut(slot) {
            client.intake = Intake::Subscriptions;
        }
        true
    }

    /// Whether requests to subscribe wait in another worker.
    fn subscribes_elsewhere(&self, keyspace: usize) -> bool {
        let own = self.identity.worker;
        self.all_stats.iter().enumerate().any(|(worker, stats)| {
            worker != own && stats.of_keyspace(keyspace, PerKeyspace::Subscribing) > 0
        })
    }

    /// Lets go on who has waited for all of them, or for long enough.
    pub(crate) fn release_publishers(&mut self) {
        if self.subscriptions.publishers.is_empty() {
            return;
        }
        let now_ms = self.now_ms;
        let first = self.subscriptions.pending.keys().next().copied();
        let mut held = std::mem::take(&mut self.subscriptions.publishers);
        held.retain(|one| self.clients.get_same(one.who.0, one.who.1).is_some());
        let mut free = Vec::new();
        for one in held.iter_mut().filter(|one| !one.is_free) {
            let is_done = first.is_none_or(|first| first > one.awaits)
                && !self.subscribes_elsewhere(one.keyspace);
            if is_done || now_ms.saturating_sub(one.since_ms) > PUBLISH_HOLD_MS_MAX as u64 {
                one.is_free = true;
                free.push(one.who.0);
            }
        }
        self.subscriptions.publishers = held;
        for slot in free {
            let is_held = |intake| intake == Intake::Subscriptions;
            if self
                .clients
                .get(slot)
                .is_some_and(|client| is_held(client.intake))
            {
                self.open_intake(slot);
            }
        }
    }

    /// Requests to subscribe wait no longer.
    pub(crate) fn subscriptions_settled(&mut self) {
        self.release_publishers();
        if self.subscriptions.pending.is_empty() {
            for worker in 0..self.identity.workers {
                if worker != self.identity.worker {
                    self.actions.push(Action::Mail(worker, Mail::Subscribed));
                }
            }
        }
    }

    /// For the audit: who is held is let go on.
    pub(crate) fn is_held_publisher(&self, who: Who) -> bool {
        let mut held = self.subscriptions.publishers.iter();
        held.any(|one| one.who == who && !one.is_free)
    }
}
