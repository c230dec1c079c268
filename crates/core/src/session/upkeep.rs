//! Time: what is due, what took too long, who holds up others, and the end.
//!
//! Owns: every reaction to the clock. `tick` is called at least every `TICK_MS` while anything is going on.
//!
//! Must stay true: no reaction depends on how exactly the tick comes.

use crate::error::ClientError;
use crate::limits::{
    CONNECT_MS_MAX, CROSS_SHARD_PARK_MS_MAX, GREETING_MS_MAX, LINK_IDLE_MS_MAX, LINK_OUT_HIGH,
    LINK_QUEUE_HIGH, PROBE_TIMEOUT_MS, REQUEST_IDLE_MS_MAX,
};
use crate::protocol::errand;
use crate::protocol::memcached::line;
use crate::session::backend::{Health, InFlight, Link, LinkState, Waiter};
use crate::session::client::Intake;
use crate::session::engine::Engine;
use crate::session::own_links::{Owner, Purpose};
use crate::session::stats::{CloseReason, PerShard};
use std::sync::atomic::Ordering::Relaxed;

impl Engine {
    /// Looks at everything that time can bring about.
    pub fn tick(&mut self) {
        self.stats().turn_ms.store(self.now_ms, Relaxed);
        self.retry_shards();
        self.look_at_links();
        self.look_at_stalls();
        self.look_at_heavy();
        self.look_at_requests();
        self.look_at_ejected();
        self.look_at_pauses();
        self.look_at_waits();
        self.look_at_feeds();
        self.release_publishers();
        self.look_at_trackers();
        self.look_at_operations();
    }

    fn retry_shards(&mut self) {
        if self.is_stopping {
            return;
        }
        for shard in 0..self.backends.len() {
            if let Health::Down { retry_ms, .. } = self.backends[shard].health {
                if retry_ms <= self.now_ms {
                    self.open_main(shard);
                }
            }
        }
    }

    fn look_at_links(&mut self) {
        let mut in_flight = vec![0u64; self.backends.len()];
        for id in self.links.indexes() {
            if let Some(link) = self.links.get(id) {
                in_flight[link.shard] += link.queue.len() as u64;
            }
            if let Some((is_late, reason)) = self.overdue(id) {
                if is_late {
                    self.link_overdue(id, &reason);
                } else {
                    self.link_lost(id, &reason);
                }
            } else {
                self.probe_or_rest(id);
            }
        }
        for (shard, count) in in_flight.into_iter().enumerate() {
            self.stats().set_shard(shard, PerShard::InFlight, count);
        }
    }

    /// Why a link has to be given up, if it has, and whether that is for want of an answer.
    fn overdue(&self, id: u32) -> Option<(bool, String)> {
        let link = self.links.get(id)?;
        let idle = self.now_ms.saturating_sub(link.progress_ms);
        let timeout = self.topology.keyspaces[self.backends[link.shard].keyspace].timeout_ms;
        // A time-out of the keyspace's bounds everything that is waited for; without one our own bounds hold.
        let within = |bound: usize| {
            if timeout == 0 {
                bound as u64
            } else {
                timeout.min(bound as u64)
            }
        };
        match link.state {
            LinkState::Connecting => {
                let limit = within(CONNECT_MS_MAX);
                (idle > limit).then(|| (true, format!("no connection within {limit} ms")))
            }
            LinkState::Securing => {
                let limit = within(GREETING_MS_MAX);
                let reason = || format!("no TLS handshake within {limit} ms; does it speak TLS?");
                (idle > limit).then(|| (true, reason()))
            }
            LinkState::Greeting(_) => {
                let limit = within(GREETING_MS_MAX);
                let waited = self.now_ms.saturating_sub(link.greeted_ms);
                (waited > limit)
                    .then(|| (true, format!("no answer to the greeting within {limit} ms")))
            }
            LinkState::Up if !link.behind.is_empty() => self.behind_for_long(link),
            LinkState::Up | LinkState::Retired => {
                let head = link.queue.front()?;
                if link.stalled {
                    return None;
                }
                if let Owner::Client {
                    purpose: Purpose::Block,
                    ..
                } = link.owner
                {
                    // It waits for ever if it must; when its client leaves it is closed at once.
                    return None;
                }
                if link.owner == Owner::Ending {
                    return (idle > PROBE_TIMEOUT_MS as u64).then(|| {
                        (
                            true,
                            "it does not end a wait whose client has left".to_string(),
                        )
                    });
                }
                if link.owner == Owner::Request {
                    // Made for a request that waits, for ever if it must: but not for a client that has left.
                    return (self.has_left(head) && idle > PROBE_TIMEOUT_MS as u64)
                        .then(|| (false, "its client has left".to_string()));
                }
                let is_ours = matches!(
                    head.waiter,
                    Waiter::Probe | Waiter::Subscription | Waiter::Control
                );
                let limit = if is_ours {
                    within(PROBE_TIMEOUT_MS)
                } else {
                    timeout
                };
                (limit > 0 && idle > limit).then(|| (true, format!("no answer within {limit} ms")))
            }
        }
    }

    /// A connection whose requests wait for the end of an operation across shards.
    fn behind_for_long(&self, link: &Link) -> Option<(bool, String)> {
        let waited = self.now_ms.saturating_sub(link.greeted_ms);
        let reason = "an operation across shards has had its keys for too long";
        (waited > CROSS_SHARD_PARK_MS_MAX as u64).then(|| (false, reason.to_string()))
    }

    /// Whether the client of a request in flight is gone, or will ask nothing more.
    fn has_left(&self, entry: &InFlight) -> bool {
        self.clients.generation(entry.client) != entry.generation
            || self
                .clients
                .get(entry.client)
                .is_none_or(|client| client.ended)
    }

    /// An idle link is asked whether its shard lives; one that nobody uses is closed.
    fn probe_or_rest(&mut self, id: u32) {
        let (now_ms, now_us) = (self.now_ms, self.now_us);
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let is_probed = match link.owner {
            Owner::Lane | Owner::Subscriptions | Owner::Control => true,
            // Something is always under way on it, or about to be.
            Owner::Operation { .. } => false,
            Owner::Client { purpose, .. } => purpose != Purpose::Block,
            Owner::Request | Owner::Ending => false,
            Owner::Idle => {
                if now_ms.saturating_sub(link.used_ms) > LINK_IDLE_MS_MAX as u64 {
                    self.close_link(id);
                }
                return;
            }
        };
        if link.state != LinkState::Up || !is_probed {
            return;
        }
        let is_idle = link.queue.iter().all(|entry| entry.waiter == Waiter::Probe);
        if is_idle
            && link.lane.is_some_and(|lane| lane != 0)
            && now_ms.saturating_sub(link.used_ms) > LINK_IDLE_MS_MAX as u64
        {
            self.close_link(id);
            return;
        }
        let interval =
            self.topology.keyspaces[self.backends[link.shard].keyspace].probe_interval_ms;
        if link.queue.is_empty() && now_ms.saturating_sub(link.progress_ms) >= interval {
            link.out.shrink();
            let used_ms = link.used_ms;
            link.out.push(if link.text_scanner.is_some() {
                line::VERSION
            } else {
                errand::PROBE
            });
            let probe = InFlight::of_nobody(Waiter::Probe, now_us);
            link.await_reply(probe, now_ms);
            link.used_ms = used_ms;
            self.touch_link(id);
        }
    }

    /// A link has written, or has been answered: those who waited for that are read again.
    pub(crate) fn unblock(&mut self, id: u32) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        if link.waiting() > LINK_OUT_HIGH / 2 || link.queue.len() > LINK_QUEUE_HIGH / 2 {
            return;
        }
        for (slot, generation) in std::mem::take(&mut link.blocked) {
            let Some(client) = self.clients.get_same(slot, generation) else {
                continue;
            };
            if client.intake == Intake::Link(id) {
                self.open_intake(slot);
            }
        }
    }

    /// Requests that were begun long ago and do not go on.
    fn look_at_requests(&mut self) {
        // Once a second is often enough for a bound of minutes, and this looks at every client.
        if self.now_ms / 1000 == self.looked_s {
            return;
        }
        self.looked_s = self.now_ms / 1000;
        for slot in self.clients.indexes() {
            let now_ms = self.now_ms;
            let Some(client) = self.clients.get_mut(slot) else {
                continue;
            };
            client.replies.shrink();
            let is_midway = !client.incoming.is_empty() && client.intake == Intake::Open;
            if is_midway && now_ms.saturating_sub(client.received_ms) > REQUEST_IDLE_MS_MAX as u64 {
                let error = ClientError::RequestIdle;
                self.refuse_client(slot, &error, CloseReason::RequestIdle);
            }
        }
    }

    /// No further request is taken; what is in flight is answered. `stop_is_done` tells when.
    pub fn stop(&mut self) {
        self.is_stopping = true;
        for slot in self.clients.indexes() {
            self.stop_blocked(slot);
            if let Some(client) = self.clients.get_mut(slot) {
                if client.intake != Intake::Closing {
                    client.reason = Some(CloseReason::Stopping);
                }
                client.intake = Intake::Closing;
            }
            self.settle_client(slot);
        }
    }

    /// Every request has been answered and written, and nothing has to be put back.
    pub fn stop_is_done(&self) -> bool {
        self.clients.is_empty()
            && !self.keeps_elements()
            && !self.links.iter().any(|(_, link)| link.owes_elements())
    }
}
