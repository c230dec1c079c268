//! Messages from the shards: one connection of this worker to each, while anybody has subscribed to anything.
//!
//! Owns: these connections (opening, catching up, loss, end) and the way of a message to its listeners, slow ones included.
//!
//! Flow: the first name of a keyspace opens a connection to each of its shards -> names go to all of them in batches
//! (a message can be published on any shard: within a transaction, by a script, by the keyspace itself) -> a batch is popped
//! by the last of its confirmations, or by an error -> a message is looked up by the name it came for, and goes between two
//! replies of each listener.
//!
//! Must stay true: a connection is asked for exactly the names that are known, in the order in which that changed, or it is
//! closed and made again with all of them; no listener holds it up. A subscription that a shard refused is not confirmed.
//! Rejected: to close the clients of a shard that was lost, as one server's death would: the other shards go on telling, and
//! nobody who publishes through shoal chooses a shard whose connection is not there.

use crate::error::ClientError;
use crate::limits::{
    FEED_RETRY_MS_MAX, LINK_IDLE_MS_MAX, OUTPUT_HIGH, RECONNECT_MS_MIN, SUBSCRIBER_OUTPUT_HARD,
    SUBSCRIBER_OUTPUT_SOFT, SUBSCRIBER_SLOW_MS, SUBSCRIPTIONS_PER_REQUEST,
};
use crate::protocol::encode::Proto;
use crate::protocol::errand;
use crate::protocol::subscription::{read, Kind, Push};
use crate::routing::placement::RESERVED;
use crate::session::backend::{lane, Health, InFlight, LinkState, Waiter, NONE};
use crate::session::client::Intake;
use crate::session::engine::Engine;
use crate::session::own_links::Owner;
use crate::session::stats::{CloseReason, PerKeyspace, PerShard};
use crate::session::subscriptions::Batch;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Engine {
    /// The shards of a keyspace, numbered through the topology.
    pub(crate) fn shards_of(&self, keyspace: usize) -> std::ops::Range<usize> {
        let space = &self.topology.keyspaces[keyspace];
        space.first_shard..space.first_shard + space.shards.len()
    }

    /// Every shard that can be reached is asked for these names, or not to send them any more.
    pub(crate) fn tell_feeds(
        &mut self,
        keyspace: usize,
        kind: Kind,
        is_made: bool,
        names: &[Arc<[u8]>],
    ) {
        for shard in self.shards_of(keyspace) {
            if self.subscriptions.feeds[shard].link != NONE {
                self.ask_feed(shard, kind, is_made, names);
            } else if is_made {
                self.open_feed(shard);
            }
        }
    }

    /// A shard's connection for messages, with all names that are known by now.
    fn open_feed(&mut self, shard: usize) {
        if self.is_stopping {
            return;
        }
        match self.backends[shard].health {
            Health::Down { .. } | Health::Retrying { .. } => return,
            Health::Idle => self.open_main(shard),
            Health::Opening | Health::Up => {}
        }
        let id = self.open_exclusive(shard, lane(0, 0, Proto::Resp3));
        if let Some(link) = self.links.get_mut(id) {
            link.owner = Owner::Subscriptions;
        }
        self.subscriptions.feeds[shard].link = id;
        for kind in Kind::ALL {
            let space = &self.subscriptions.spaces[self.backends[shard].keyspace];
            let names = space.of_kind(kind).map(|(name, _)| Arc::clone(name));
            let mut names: Vec<Arc<[u8]>> = names.collect();
            // The same in every run.
            names.sort_unstable();
            self.ask_feed(shard, kind, true, &names);
        }
        let feed = &mut self.subscriptions.feeds[shard];
        feed.catching_up = feed.batches.len();
        self.note_feed(shard);
    }

    /// Whether what is published on a shard comes here.
    pub(crate) fn is_fed(&self, shard: usize) -> bool {
        let feed = &self.subscriptions.feeds[shard];
        let link = self.links.get(feed.link);
        feed.catching_up == 0 && link.is_some_and(|link| link.state == LinkState::Up)
    }

    /// Tells the other workers, which publish, whether it is of use to publish on a shard.
    fn note_feed(&self, shard: usize) {
        let space = &self.subscriptions.spaces[self.backends[shard].keyspace];
        let is_missed = !space.is_empty() && !self.is_fed(shard);
        self.stats()
            .set_shard(shard, PerShard::Unheard, u64::from(is_missed));
    }

    fn ask_feed(&mut self, shard: usize, kind: Kind, is_made: bool, names: &[Arc<[u8]>]) {
        let (now_ms, now_us) = (self.now_ms, self.now_us);
        let feed = &mut self.subscriptions.feeds[shard];
        let id = feed.link;
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        for names in names.chunks(SUBSCRIPTIONS_PER_REQUEST) {
            let mut request = Vec::new();
            errand::subscribe(&mut request, kind, is_made, names);
            link.outgoing().push(&request);
            let entry = InFlight::of_nobody(Waiter::Subscription, now_us);
            link.await_reply(entry, now_ms);
            feed.batches.push_back(Batch {
                kind,
                is_made,
                names: names.to_vec(),
                left: names.len(),
                waiters: Vec::new(),
            });
        }
        self.stats().shard(
            shard,
            PerShard::Sent,
            names.len().div_ceil(SUBSCRIPTIONS_PER_REQUEST) as i64,
        );
        self.touch_link(id);
    }

    /// A message, or the answer to a subscription, from a shard.
    pub(crate) fn published(&mut self, id: u32, push: &[u8]) {
        match read(push) {
            Some(Push::Confirmed) => self.feed_confirmed(id),
            Some(Push::Message { channel, .. }) if channel == errand::MARK_CHANNEL => {}
            Some(Push::Message { channel, text, .. })
                if is_of_own(channel, text) && self.has_records(id) => {}
            Some(Push::Message { kind, name, .. }) => self.give_message(id, kind, name, push),
            None => {}
        }
    }

    /// Of a link's keyspace some keys and channels are our own.
    fn has_records(&self, id: u32) -> bool {
        self.links.get(id).is_some_and(|link| {
            self.topology.keyspaces[self.backends[link.shard].keyspace].cross_shard
        })
    }

    /// One name of the oldest batch is confirmed.
    fn feed_confirmed(&mut self, id: u32) {
        let now_ms = self.now_ms;
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let feed = &mut self.subscriptions.feeds[link.shard];
        let is_due =
            matches!(link.queue.front(), Some(entry) if entry.waiter == Waiter::Subscription);
        let Some(batch) = feed.batches.front_mut().filter(|_| is_due) else {
            return self.link_lost(
                id,
                "it changed a subscription that it was not asked to change",
            );
        };
        link.progress_ms = now_ms;
        batch.left -= 1;
        if batch.left > 0 {
            return;
        }
        link.queue.pop_front();
        let waiters = feed.batches.pop_front().map(|batch| batch.waiters);
        feed.catching_up = feed.catching_up.saturating_sub(1);
        if feed.catching_up == 0 {
            feed.failures = 0;
        }
        let shard = link.shard;
        self.note_feed(shard);
        self.shard_confirmed(&waiters.unwrap_or_default());
    }

    /// One shard less to wait for.
    fn shard_confirmed(&mut self, waiters: &[u64]) {
        let done = self.subscriptions.one_less(waiters);
        let is_any = !done.is_empty();
        for (id, pending) in done {
            self.confirmed(id, pending);
        }
        if is_any {
            self.subscriptions_settled();
        }
    }

    /// A shard refused to listen for these requests.
    fn shard_refused_to_listen(&mut self, keyspace: usize, batch: &Batch, answer: &[u8]) {
        let concerned = self.subscriptions.take_concerned(keyspace, batch);
        let is_any = !concerned.is_empty();
        for pending in concerned {
            self.not_confirmed(pending, answer);
        }
        if is_any {
            self.subscriptions_settled();
        }
    }

    /// An answer that is no confirmation to the oldest batch, whose entry is off the queue already.
    pub(crate) fn feed_refused(&mut self, id: u32, answer: &[u8]) {
        let Some(shard) = self.links.get(id).map(|link| link.shard) else {
            return;
        };
        let feed = &mut self.subscriptions.feeds[shard];
        feed.catching_up = feed.catching_up.saturating_sub(1);
        let Some(batch) = feed.batches.pop_front() else {
            return;
        };
        let shown = crate::error::printable(answer.trim_ascii_end());
        let reason = format!("it answered to a subscription with: {shown}");
        if !batch.is_made || answer.first() != Some(&b'-') {
            self.link_lost(id, &reason);
            return self.shard_confirmed(&batch.waiters);
        }
        let keyspace = self.backends[shard].keyspace;
        self.shard_refused_to_listen(keyspace, &batch, answer);
        self.shard_confirmed(&batch.waiters);
        // What is left was promised on the connection before this one, and is not to be had on it now.
        let promised = self.subscriptions.still_held(keyspace, &batch);
        match promised.as_slice() {
            [] => {}
            _ if !answer.starts_with(b"-NOPERM") => self.link_lost(id, &reason),
            [name] if batch.names.len() == 1 => self.close_listeners(keyspace, batch.kind, name),
            several => {
                for name in several {
                    self.ask_feed(shard, batch.kind, true, std::slice::from_ref(name));
                }
                let feed = &mut self.subscriptions.feeds[shard];
                feed.catching_up = feed.batches.len();
                self.note_feed(shard);
            }
        }
    }

    /// A shard does not let us have a name any more: as a server would, this closes who listens to it.
    fn close_listeners(&mut self, keyspace: usize, kind: Kind, name: &[u8]) {
        let known = self.subscriptions.spaces[keyspace].name(kind, name);
        let listeners = known.map(|known| known.listeners.clone());
        for (slot, _) in listeners.unwrap_or_default() {
            let detail = crate::error::printable(name);
            self.drop_client_for(slot, CloseReason::SubscriptionForbidden, Some(detail));
        }
    }

    /// A shard's connection for messages is gone. Who waited for it waits no longer, unless the shard itself refused it.
    pub(crate) fn feed_lost(&mut self, shard: usize, state: LinkState, reason: &str) {
        let wait = RECONNECT_MS_MIN as u64;
        let feed = &mut self.subscriptions.feeds[shard];
        feed.link = NONE;
        feed.catching_up = 0;
        feed.retry_ms = self.now_ms + (wait << feed.failures.min(16)).min(FEED_RETRY_MS_MAX as u64);
        feed.failures = feed.failures.saturating_add(1);
        let batches = std::mem::take(&mut feed.batches);
        self.note_feed(shard);
        let is_refused =
            matches!(state, LinkState::Greeting(_)) && self.backends[shard].health == Health::Up;
        let mut error = Vec::new();
        let keyspace = self.backends[shard].keyspace;
        if is_refused {
            let refused = ClientError::SubscriptionRefused {
                shard: self.shard_name(shard),
                endpoint: self.endpoint(shard).to_string(),
                reason: reason.to_string(),
            };
            self.write_error(keyspace, &refused, &mut error);
        }
        for batch in batches {
            if is_refused && batch.is_made {
                self.shard_refused_to_listen(keyspace, &batch, &error);
            }
            self.shard_confirmed(&batch.waiters);
        }
    }

    /// A message to everybody who listens; whoever is too slow for it is closed.
    fn give_message(&mut self, id: u32, kind: Kind, name: &[u8], push: &[u8]) {
        let Some(shard) = self.links.get(id).map(|link| link.shard) else {
            return;
        };
        let keyspace = self.backends[shard].keyspace;
        let space = &mut self.subscriptions.spaces[keyspace];
        let late = space.late(kind, name);
        let known = space.name_mut(kind, name);
        let listeners =
            known.map_or_else(BTreeSet::new, |known| std::mem::take(&mut known.listeners));
        let mut array = Vec::new();
        let mut slow = Vec::new();
        let mut given = 0;
        for &(slot, generation) in listeners.iter().chain(&late) {
            let Some(client) = self.clients.get_same(slot, generation) else {
                continue;
            };
            if client.intake == Intake::Closing {
                continue;
            }
            let waiting = client.replies.bytes() + push.len();
            if waiting > SUBSCRIBER_OUTPUT_HARD {
                slow.push((slot, waiting));
                continue;
            }
            if client.proto == Proto::Resp3 {
                client.replies.push(push);
            } else {
                if array.is_empty() {
                    array.extend_from_slice(push);
                    array[0] = b'*';
                }
                client.replies.push(&array);
            }
            given += 1;
            self.touch_client(slot);
            if waiting > OUTPUT_HIGH {
                self.piled_up(slot);
            }
        }
        if let Some(known) = self.subscriptions.spaces[keyspace].name_mut(kind, name) {
            known.listeners = listeners;
        }
        self.stats()
            .keyspace(keyspace, PerKeyspace::Messages, given);
        for (slot, waiting) in slow {
            let detail = format!("{waiting} bytes would wait for it");
            self.drop_client_for(slot, CloseReason::SubscriberTooSlow, Some(detail));
        }
    }

    /// Whether a client with so much waiting has taken its messages too slowly for too long.
    pub(crate) fn is_slow_subscriber(&mut self, slot: u32, waiting: usize) -> bool {
        let now_ms = self.now_ms;
        let Some(subscribed) = self
            .clients
            .get_mut(slot)
            .and_then(|client| client.particulars.as_deref_mut()?.subscribed.as_deref_mut())
        else {
            return false;
        };
        if waiting <= SUBSCRIBER_OUTPUT_SOFT || subscribed.is_empty() {
            subscribed.slow_since_ms = None;
            return false;
        }
        let since = *subscribed.slow_since_ms.get_or_insert(now_ms);
        now_ms.saturating_sub(since) > SUBSCRIBER_SLOW_MS as u64
    }

    /// Opens what is missing, and closes what nobody needs.
    pub(crate) fn look_at_feeds(&mut self) {
        let now_ms = self.now_ms;
        for shard in 0..self.subscriptions.feeds.len() {
            let feed = &self.subscriptions.feeds[shard];
            let space = &self.subscriptions.spaces[self.backends[shard].keyspace];
            let (link, is_needed) = (feed.link, !space.is_empty());
            if link == NONE {
                let is_due = self.backends[shard].health == Health::Up && feed.retry_ms <= now_ms;
                if is_needed && is_due {
                    self.open_feed(shard);
                }
            } else if !is_needed
                && feed.batches.is_empty()
                && now_ms.saturating_sub(space.empty_since_ms) > LINK_IDLE_MS_MAX as u64
            {
                self.close_link(link);
                self.subscriptions.feeds[shard].link = NONE;
            }
            self.note_feed(shard);
        }
    }
}

/// Of our own: what proxies tell each other, and what a server tells of what it does to a key with our prefix.
fn is_of_own(channel: &[u8], text: &[u8]) -> bool {
    let is_own = |name: &[u8]| name.starts_with(RESERVED);
    let about = |kind: &[u8]| {
        let rest = channel.strip_prefix(kind)?;
        let at = rest.iter().position(|&byte| byte == b':')?;
        rest.get(at + 1..)
    };
    is_own(channel)
        || about(b"__keyspace@").is_some_and(is_own)
        || (is_own(text) && about(b"__keyevent@").is_some())
}

#[cfg(test)]
mod tests {
    use super::is_of_own;

    #[test]
    fn messages_about_our_own_keys_are_known() {
        for (channel, text) in [
            ("__shoal:ctl", "x"),
            ("__keyspace@0__:__shoal:m", "hset"),
            ("__keyevent@15__:hset", "__shoal:m"),
        ] {
            assert!(is_of_own(channel.as_bytes(), text.as_bytes()), "{channel}");
        }
        for (channel, text) in [
            ("_shoal:ctl", "__shoal:m"),
            ("news", "__shoal:m"),
            ("__keyspace@0__:a:__shoal:m", "hset"),
            ("__keyevent@0__:hset", "a"),
            ("__keyevent@0__", "__shoal:m"),
            ("", ""),
        ] {
            assert!(!is_of_own(channel.as_bytes(), text.as_bytes()), "{channel}");
        }
    }
}
