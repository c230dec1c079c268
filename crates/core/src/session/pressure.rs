//! Back-pressure: clients that take their replies more slowly than shards give them.
//!
//! Owns: how much a client may have in flight and waiting, and what happens to one that asks for more than it reads.
//!
//! Flow, for a client whose replies pile up: past `OUTPUT_HIGH` it is not read any more, and its window (requests in
//! flight) shrinks to `WINDOW_MIN`, so that what is already under way is bounded. Past `OUTPUT_HARD` the link that brings
//! more is not read either; it is retired at that moment, so new requests of everybody travel on another. Who holds up
//! others behind such a link for `OUTPUT_STALL_MS` in all, or takes not one byte for `OUTPUT_IDLE_MS`, is closed.
//!
//! Must stay true: a slow reader alone is never cut off (only its own replies wait); nobody waits for somebody else's
//! reading longer than `OUTPUT_STALL_MS` and a few ticks; the sum of all output is bounded (`OUTPUT_TOTAL_MAX`).
//! Rejected: closing at a fixed size of output (it would cut one large value short); a link per client; no window (three
//! hundred requests for large values would be under way before the first reply told their size).

use crate::limits::{
    IN_FLIGHT_MAX, OUTPUT_HARD, OUTPUT_HIGH, OUTPUT_IDLE_MS, OUTPUT_STALL_MS, OUTPUT_TOTAL_MAX,
    WINDOW_MIN,
};
use crate::session::client::Intake;
use crate::session::engine::{Action, Engine, Level};
use crate::session::stats::CloseReason;

impl Engine {
    /// A client has more than `OUTPUT_HIGH` waiting.
    pub(crate) fn piled_up(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        client.window = WINDOW_MIN as u16;
        if client.intake == Intake::Open {
            client.intake = Intake::Output;
        }
        if !client.is_heavy {
            client.is_heavy = true;
            client.written_ms = self.now_ms;
            let generation = self.clients.generation(slot);
            self.heavy.push((slot, generation));
        }
    }

    /// A client that was not read because of its window is again: it takes its replies, so it may have more in flight, as
    /// long as that many replies of the size of its last ones would not be too much.
    pub(crate) fn widen(&mut self, slot: u32) {
        if let Some(client) = self.clients.get_mut(slot) {
            let answered = u64::from(client.window / 2).max(1);
            let wider = (client.window * 2).min(IN_FLIGHT_MAX as u16);
            let expected = client.taken / answered * u64::from(wider);
            client.taken = 0;
            if client.replies.bytes() <= OUTPUT_HIGH && expected <= OUTPUT_HARD as u64 / 2 {
                client.window = wider;
            }
        }
    }

    /// A client has more than `OUTPUT_HARD` waiting, and this link brings more: the link is not read for a while, and
    /// others get a new one.
    pub(crate) fn stall(&mut self, link_id: u32, slot: u32) {
        let generation = self.clients.generation(slot);
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        let Some(link) = self.links.get_mut(link_id) else {
            return;
        };
        if link.stalled {
            return;
        }
        link.stalled = true;
        link.stalled_since_ms = self.now_ms;
        client.stalls = true;
        let fields = vec![
            ("client", client.id.to_string()),
            ("waiting", client.replies.bytes().to_string()),
        ];
        self.stalled.push((link_id, slot, generation));
        self.event(Level::Debug, "link-stalled", fields);
        self.retire(link_id);
    }

    /// A client has taken enough, or is gone: its links are read again.
    pub(crate) fn release_stalls(&mut self, slot: u32) {
        if let Some(client) = self.clients.get_mut(slot) {
            client.stalls = false;
        }
        let generation = self.clients.generation(slot);
        let stalled = std::mem::take(&mut self.stalled);
        for (link_id, client, client_generation) in stalled {
            if client != slot || client_generation != generation {
                self.stalled.push((link_id, client, client_generation));
            } else if let Some(link) = self.links.get_mut(link_id) {
                link.stalled = false;
                link.stalled_ms += self.now_ms.saturating_sub(link.stalled_since_ms);
                link.progress_ms = self.now_ms;
                self.actions.push(Action::ReadLink(link_id));
            }
        }
    }

    /// Who holds up others for too long.
    pub(crate) fn look_at_stalls(&mut self) {
        for (link_id, slot, generation) in self.stalled.clone() {
            let now_ms = self.now_ms;
            let Some(link) = self.links.get(link_id) else {
                continue;
            };
            // The link's patience, not each client's: of many that do not read, each would take its second.
            let spent = link.stalled_ms + now_ms.saturating_sub(link.stalled_since_ms);
            let others_wait = link
                .queue
                .iter()
                .any(|entry| (entry.client, entry.generation) != (slot, generation));
            let Some(client) = self.clients.get_same(slot, generation) else {
                continue;
            };
            if client.replies.bytes() <= OUTPUT_HARD / 2 {
                self.release_stalls(slot);
            } else if others_wait && spent > OUTPUT_STALL_MS as u64 {
                self.drop_client(slot, CloseReason::OutputStalled);
            }
        }
    }

    /// Clients with much output: who reads on, who has stopped reading, and whether all of them together are too much.
    pub(crate) fn look_at_heavy(&mut self) {
        let mut total = 0;
        let mut largest = (0, 0);
        for (slot, generation) in std::mem::take(&mut self.heavy) {
            let now_ms = self.now_ms;
            let Some(client) = self.clients.get_same(slot, generation) else {
                continue;
            };
            let bytes = client.replies.bytes();
            let idle_ms = now_ms.saturating_sub(client.written_ms);
            let is_little = bytes <= OUTPUT_HIGH / 2;
            client.is_heavy = !is_little;
            if self.is_slow_subscriber(slot, bytes) {
                self.drop_client(slot, CloseReason::SubscriberTooSlow);
            } else if is_little {
                continue;
            } else if idle_ms > OUTPUT_IDLE_MS as u64 {
                self.drop_client(slot, CloseReason::OutputStalled);
            } else {
                total += bytes;
                largest = largest.max((bytes, slot));
                self.heavy.push((slot, generation));
            }
        }
        if total > OUTPUT_TOTAL_MAX {
            self.drop_client(largest.1, CloseReason::OutputMemory);
        }
    }
}
