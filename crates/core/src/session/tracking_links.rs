//! Connections by which shards know what a client reads.
//!
//! Owns: which connection a tracked client's request travels on, what such a connection is told before its first
//! request, and what happens when one is lost.
//!
//! Flow: the first request to a shard opens a connection of the client's own (`Purpose::Track`); its greeting ends with
//! CLIENT TRACKING, so nothing is read on it before the shard tracks. RESP3: what the shard tells comes on it, between
//! the replies. RESP2 has no place for that: the shard tells another connection (`Purpose::Feed`, RESP3), and the
//! greeting waits for the number by which the shard knows that one.
//!
//! Must stay true: every request of a tracked client goes there, whether it reads or writes, so that its order is kept
//! and the shard knows whose write it is (NOLOOP); a connection that is lost takes with it what the shard remembered, so
//! the client is told to forget everything; one that was tracked never serves anybody else.
//! Rejected: SELECT on the one connection: a request that overtakes a refused SELECT would read in another database. So
//! each database has its own, and those of databases that were left go on telling.

use crate::error::ClientError;
use crate::limits::EXCLUSIVE_LINKS_MAX;
use crate::protocol::command::{flags, CommandSpec};
use crate::protocol::encode::{self, Proto};
use crate::protocol::errand;
use crate::routing::route::Request;
use crate::session::backend::{lane_parts, Health, InFlight, Link, LinkState, Waiter, LANES};
use crate::session::client::care;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::invalidation::ALL;
use crate::session::own_links::{Owner, Purpose};
use crate::session::stats::PerKeyspace;
use crate::session::tracking::Told;
use crate::session::tracking_options::{Mode, Options};
use std::collections::{HashMap, HashSet};

/// Whether a lane speaks RESP2.
fn is_resp2(lane: usize) -> bool {
    lane_parts(lane, 0).1 == Proto::Resp2
}

impl Engine {
    /// The link for a client's request to a shard: its lane's, or its own where the shard is to know what it reads.
    pub(crate) fn link_of(&mut self, asker: &Asker, shard: usize) -> Result<u32, ClientError> {
        match self.tracked_link(asker.slot, shard, asker.lane) {
            Some(own) => own,
            None => self.link_for(shard, asker.lane),
        }
    }

    /// As `link_of`, for keys that are to be watched: a link of the client's own anyhow.
    pub(crate) fn link_to_watch(
        &mut self,
        slot: u32,
        shard: usize,
        lane: usize,
    ) -> Result<u32, ClientError> {
        match self.tracked_link(slot, shard, lane) {
            Some(own) => own,
            None => self.open_own(slot, shard, lane, Purpose::Watch),
        }
    }

    /// None: what the client reads is not tracked, or nobody could be told of it.
    fn tracked_link(
        &mut self,
        slot: u32,
        shard: usize,
        lane: usize,
    ) -> Option<Result<u32, ClientError>> {
        let client = self.clients.get(slot)?;
        if client.care & care::TRACKED == 0 {
            return None;
        }
        let tracking = client.particulars.as_deref()?.tracking.as_deref()?;
        if client.proto == Proto::Resp2 && tracking.redirect.is_none() {
            return None;
        }
        let lane = lane % LANES;
        let known = tracking.links.get(&(shard, lane)).copied();
        // A shard that is down is refused as for everybody.
        if let Err(error) = self.link_for(shard, 0) {
            return Some(Err(error));
        }
        Some(known.map_or_else(|| self.open_tracked(slot, shard, lane), Ok))
    }

    fn open_tracked(&mut self, slot: u32, shard: usize, lane: usize) -> Result<u32, ClientError> {
        let has_feed = self
            .tracking_of(slot)
            .is_some_and(|tracking| tracking.feeds.contains_key(&shard));
        if is_resp2(lane) && !has_feed {
            let feed = self.open_own(slot, shard, lane | 1, Purpose::Feed)?;
            self.ahead(slot, feed, errand::WHO, Waiter::Identity);
            if let Some(tracking) = self.tracking_mut(slot) {
                tracking.feeds.insert(shard, feed);
            }
        }
        let link = self.open_own(slot, shard, lane, Purpose::Track)?;
        if let Some(tracking) = self.tracking_mut(slot) {
            tracking.links.insert((shard, lane), link);
        }
        Ok(link)
    }

    /// Sends something of ours on a link, ahead of what follows.
    fn ahead(&mut self, slot: u32, link_id: u32, bytes: &[u8], waiter: Waiter) {
        let (now_us, now_ms) = (self.now_us, self.now_ms);
        let generation = self.clients.generation(slot);
        if let Some(link) = self.links.get_mut(link_id) {
            link.outgoing().push(bytes);
            let entry = InFlight {
                client: slot,
                generation,
                number: 0,
                sent_us: now_us as u32,
                part: 0,
                waiter,
            };
            link.await_reply(entry, now_ms);
        }
        self.touch_link(link_id);
    }

    /// CLIENT CACHING was said: the shard is told right before the request that it means.
    #[inline]
    pub(crate) fn say_caching(&mut self, asker: &Asker, link: u32) {
        if let Some(said) = self.trackers.caching {
            self.ahead(asker.slot, link, said, Waiter::Prelude);
        }
    }

    pub(crate) fn is_up(&self, shard: usize) -> bool {
        self.backends[shard].health == Health::Up
    }

    /// The last words of a tracked link's greeting: how many answers they bring. They may come later.
    pub(crate) fn greet_tracked(&mut self, id: u32) -> u8 {
        let Some((slot, shard, lane)) = self.tracked_place(id) else {
            return 0;
        };
        let feed = self.feed_number(slot, shard);
        if is_resp2(lane) && feed.is_none() {
            return 1;
        }
        let feed = feed.filter(|_| is_resp2(lane));
        let words = self
            .tracking_of(slot)
            .map(|tracking| tracking.opening(feed));
        if let (Some(words), Some(link)) = (words, self.links.get_mut(id)) {
            link.out.push(&words);
        }
        1
    }

    /// Client, shard and lane of a tracked link.
    fn tracked_place(&self, id: u32) -> Option<(u32, usize, usize)> {
        let link = self.links.get(id)?;
        match link.owner {
            Owner::Client {
                slot,
                purpose: Purpose::Track,
                ..
            } => Some((slot, link.shard, link.exclusive_lane)),
            _ => None,
        }
    }

    /// The number by which a shard knows the connection that it tells.
    fn feed_number(&self, slot: u32, shard: usize) -> Option<u64> {
        let feed = self.tracking_of(slot)?.feeds.get(&shard)?;
        let number = self.links.get(*feed)?.server_id;
        (number != 0).then_some(number)
    }

    /// A shard has said by which number it knows a connection: greetings that waited for it go on.
    pub(crate) fn number_known(&mut self, id: u32) {
        let Some(link) = self.links.get(id) else {
            return;
        };
        let Owner::Client {
            slot,
            purpose: Purpose::Feed,
            ..
        } = link.owner
        else {
            return;
        };
        let shard = link.shard;
        if link.server_id == 0 {
            return self.link_lost(id, "it does not say by which number it knows a connection");
        }
        for pair in self.pairs(slot, shard) {
            let waits = self
                .links
                .get(pair)
                .is_some_and(|link| matches!(link.state, LinkState::Greeting(_)));
            if waits {
                self.greet_tracked(pair);
                self.touch_link(pair);
            }
        }
    }

    /// Tracked links of which a shard tells on another.
    fn pairs(&self, slot: u32, shard: usize) -> Vec<u32> {
        let links = self.tracking_of(slot).map(|tracking| &tracking.links);
        let all = links.into_iter().flatten();
        all.filter(|(place, _)| place.0 == shard && is_resp2(place.1))
            .map(|(_, &link)| link)
            .collect()
    }

    /// New options: what each link that is up is to be told. Others are given up; they have nothing in hand.
    pub(crate) fn links_to_tell(&mut self, slot: u32, options: &Options) -> Vec<Told> {
        let mut told = Vec::new();
        let links: Vec<_> = self.tracking_of(slot).map_or_else(Vec::new, |tracking| {
            tracking
                .links
                .iter()
                .map(|(&place, &link)| (place, link))
                .collect()
        });
        for ((shard, lane), link) in links {
            let is_up = self
                .links
                .get(link)
                .is_some_and(|link| link.state == LinkState::Up);
            let feed = self.feed_number(slot, shard).filter(|_| is_resp2(lane));
            if is_up && (feed.is_some() || !is_resp2(lane)) {
                let request = options.request(feed);
                told.push(Told {
                    shard,
                    link,
                    request,
                });
            } else {
                self.give_back(link, false);
                if let Some(tracking) = self.tracking_mut(slot) {
                    tracking.links.remove(&(shard, lane));
                }
            }
        }
        told
    }

    /// Where everything is to be told: a link to each shard that has none. A shard that is down gets its when it is back.
    pub(crate) fn open_broadcasts(
        &mut self,
        asker: &Asker,
        told: &mut Vec<Told>,
    ) -> Result<(), ClientError> {
        let is_told = self
            .tracking_of(asker.slot)
            .is_some_and(|tracking| tracking.redirect.is_some() || !is_resp2(asker.lane));
        if !is_told {
            return Ok(());
        }
        let known = self.shards_that_track(asker.slot);
        let space = &self.topology.keyspaces[asker.keyspace];
        let all = space.first_shard..space.first_shard + space.shards.len();
        let wanted: Vec<usize> = all.filter(|shard| !known.contains(shard)).collect();
        let each = if is_resp2(asker.lane) { 2 } else { 1 };
        if self.exclusive_links + wanted.len() * each > EXCLUSIVE_LINKS_MAX {
            return Err(ClientError::Exhausted);
        }
        for shard in wanted {
            match self.tracked_link(asker.slot, shard, asker.lane) {
                None => return Ok(()),
                Some(Ok(link)) => told.push(Told {
                    shard,
                    link,
                    request: errand::PROBE.to_vec(),
                }),
                Some(Err(error @ (ClientError::Exhausted | ClientError::Stopping))) => {
                    return Err(error)
                }
                Some(Err(_)) => self.has_missed(asker.slot, shard),
            }
        }
        Ok(())
    }

    fn shards_that_track(&self, slot: u32) -> HashSet<usize> {
        let links = self.tracking_of(slot).map(|tracking| &tracking.links);
        let places = links.into_iter().flat_map(HashMap::keys);
        places.map(|&(shard, _)| shard).collect()
    }

    /// A shard may have had something to tell and no link for it: it gets one as soon as it is up.
    fn has_missed(&mut self, slot: u32, shard: usize) {
        let generation = self.clients.generation(slot);
        if let Some(tracking) = self.tracking_mut(slot) {
            tracking.missed.insert(shard);
            self.trackers.wanting.push((slot, generation));
        }
    }

    /// Links that clients want who are to be told everything.
    pub(crate) fn look_at_trackers(&mut self) {
        self.trackers.wanting.sort_unstable();
        self.trackers.wanting.dedup();
        for (slot, generation) in std::mem::take(&mut self.trackers.wanting) {
            let Some(client) = self.clients.get_same(slot, generation) else {
                continue;
            };
            let lane = client.lane();
            let missed: Vec<usize> = match self.tracking_of(slot) {
                Some(tracking) => tracking.missed.iter().copied().collect(),
                None => continue,
            };
            let known = self.shards_that_track(slot);
            for shard in &missed {
                if !known.contains(shard) && self.is_up(*shard) {
                    // Refused for want of connections: tried again at the next tick.
                    let _ = self.tracked_link(slot, *shard, lane);
                }
            }
            if !missed.is_empty() {
                self.trackers.wanting.push((slot, generation));
            }
        }
    }

    /// A link of a client's own is up.
    pub(crate) fn tracked_is_up(&mut self, id: u32) {
        let Some((slot, shard, _)) = self.tracked_place(id) else {
            return;
        };
        let has_missed = self
            .tracking_mut(slot)
            .is_some_and(|tracking| tracking.missed.remove(&shard));
        if has_missed {
            self.invalidate_all(slot);
        }
    }

    /// A connection on which a client's reads were tracked, or on which it was told, is gone.
    pub(crate) fn tracking_lost(&mut self, slot: u32, id: u32, link: &Link, purpose: Purpose) {
        let shard = link.shard;
        self.watch_lost(slot, id);
        let Some(tracking) = self.tracking_mut(slot) else {
            return;
        };
        let mode = tracking.mode;
        tracking.links.retain(|_, link| *link != id);
        tracking.feeds.retain(|_, link| *link != id);
        if purpose == Purpose::Feed {
            for pair in self.pairs(slot, shard) {
                self.link_lost(pair, "the connection for its invalidations was lost");
            }
        }
        if mode == Mode::Broadcast {
            self.has_missed(slot, shard);
        }
        if link.was_ready() {
            self.invalidate_all(slot);
        }
    }

    /// CLIENT TRACKING OFF, RESET: the connections go.
    pub(crate) fn forget_tracking(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        client.take_care(care::TRACKED, false);
        let keyspace = client.keyspace as usize;
        let Some(tracking) = client
            .particulars
            .as_deref_mut()
            .and_then(|particulars| particulars.tracking.take())
        else {
            return;
        };
        self.stats().keyspace(keyspace, PerKeyspace::Tracking, -1);
        for &link in tracking.links.values().chain(tracking.feeds.values()) {
            self.watch_lost(slot, link);
            self.give_back(link, false);
        }
    }

    /// Keys are watched on another connection than the client will read on: EXEC would read there without being tracked.
    /// The watch counts as broken, so EXEC does nothing and the client tries again.
    pub(crate) fn end_untracked_watch(&mut self, slot: u32) {
        let own = self
            .clients
            .get(slot)
            .and_then(|client| client.particulars.as_deref())
            .map_or_else(Vec::new, |particulars| particulars.own_links.clone());
        for id in own {
            let is_watch = self.links.get(id).is_some_and(|link| {
                matches!(
                    link.owner,
                    Owner::Client {
                        purpose: Purpose::Watch,
                        ..
                    }
                )
            });
            if is_watch {
                self.watch_lost(slot, id);
                self.give_back(id, false);
            }
        }
    }

    /// A watch on a tracked link ends, the link stays. False: it is another link.
    pub(crate) fn unwatch_tracked(&mut self, slot: u32, id: u32) -> bool {
        let is_tracked = self.tracked_place(id).is_some();
        if is_tracked {
            self.ahead(slot, id, errand::UNWATCH, Waiter::Prelude);
        }
        is_tracked
    }

    /// The client speaks another protocol than before.
    pub(crate) fn tracking_speaks(&mut self, asker: &Asker) {
        let Some(client) = self.clients.get(asker.slot) else {
            return;
        };
        let is_told_now = client.proto == Proto::Resp3;
        let Some(tracking) = self.tracking_of(asker.slot) else {
            return;
        };
        if !is_told_now || tracking.redirect.is_some() {
            return;
        }
        if tracking.mode == Mode::Broadcast {
            let space = &self.topology.keyspaces[asker.keyspace];
            for shard in space.first_shard..space.first_shard + space.shards.len() {
                self.has_missed(asker.slot, shard);
            }
        }
        // What it read before was read where no shard remembers it.
        self.invalidate_all(asker.slot);
    }

    /// Keys of a cache go to other shards than before: what was read of them is remembered by shards that do not see their
    /// writes any more.
    pub(crate) fn keys_have_moved(&mut self, keyspace: usize) {
        let tracked: Vec<u32> = self
            .clients
            .iter()
            .filter(|(_, client)| {
                client.care & care::TRACKED != 0 && usize::from(client.keyspace) == keyspace
            })
            .map(|(slot, _)| slot)
            .collect();
        for slot in tracked {
            // Behind what is under way, which may have been read where the keys were.
            self.invalidate_behind(slot, ALL);
        }
    }

    /// Whether a client's tracking and the links agree.
    pub(crate) fn audit_tracking(&self, slot: u32) -> Result<(), &'static str> {
        let Some(tracking) = self.tracking_of(slot) else {
            return Ok(());
        };
        for (&(shard, lane), &link) in &tracking.links {
            let place = self.tracked_place(link);
            if place != Some((slot, shard, lane)) {
                return Err("its reads go to a link that does not track them");
            }
            if is_resp2(lane) && !tracking.feeds.contains_key(&shard) {
                return Err("what it reads in RESP2 is told to nobody");
            }
        }
        Ok(())
    }

    /// A read that waits is not tracked: whoever keeps what it gives is told to forget it right after.
    pub(crate) fn forget_after_wait(
        &mut self,
        asker: &Asker,
        spec: &CommandSpec,
        keys: &[u32],
        request: &Request<'_>,
    ) {
        let is_kept = spec.flags & flags::READONLY != 0
            && self
                .tracking_of(asker.slot)
                .is_some_and(|tracking| tracking.mode != Mode::Broadcast);
        if is_kept {
            let mut names = Vec::new();
            encode::array(&mut names, keys.len());
            for &key in keys {
                encode::bulk(&mut names, request.arg(key as usize));
            }
            self.invalidate_behind(asker.slot, &names);
        }
    }
}
