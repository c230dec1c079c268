//! WATCH: keys that are watched until EXEC, on connections of the client's own.
//!
//! Owns: the client's `Watch`, and how it begins, is lost and ends.
//!
//! Must stay true: a watch that was lost on any shard stays lost until it is ended, because nobody knows whether its keys changed;
//! its connections go when the watch goes; keys on several shards are watched only where EXEC can be one operation over them
//! (which asks each connection whether its keys are as they were, when all of them are fenced).
//! Rejected: keys on several shards without that: no order of their EXECs keeps what WATCH promises.

use crate::error::{ClientError, KeyPlace};
use crate::protocol::command::Merge;
use crate::protocol::encode;
use crate::protocol::errand;
use crate::routing::route::{key_shards, Request};
use crate::session::backend::{Waiter, LANES};
use crate::session::dispatch::{client_number, Asker};
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use crate::session::transaction::key_place;
use std::sync::Arc;

/// Keys of a client that are watched on one shard.
#[derive(Debug, Clone)]
pub struct WatchPlace {
    /// An index within the keyspace.
    pub(crate) shard: u16,
    /// None: it was lost, and nobody knows whether the keys changed.
    pub(crate) link: Option<u32>,
    pub(crate) keys: Vec<Arc<[u8]>>,
}

/// Keys of a client that are watched.
#[derive(Debug, Clone)]
pub struct Watch {
    pub(crate) places: Vec<WatchPlace>,
    pub(crate) lane: usize,
    /// The first of them, for an error.
    pub(crate) key: KeyPlace,
}

impl Watch {
    /// Where keys of a shard are watched.
    pub(crate) fn on(&self, shard: u16) -> Option<&WatchPlace> {
        self.places.iter().find(|place| place.shard == shard)
    }

    /// How many keys.
    pub(crate) fn count(&self) -> usize {
        self.places.iter().map(|place| place.keys.len()).sum()
    }
}

/// Keys of one request, on their shard.
type Group = (u16, Vec<Arc<[u8]>>);

impl Engine {
    pub(crate) fn take_watch(&mut self, slot: u32) -> Option<Box<Watch>> {
        let client = self.clients.get_mut(slot)?;
        client.particulars.as_deref_mut()?.watch.take()
    }

    /// The watch's links go, and the watch with them.
    pub(crate) fn end_watch(&mut self, slot: u32, watch: Option<Box<Watch>>) {
        let places = watch.into_iter().flat_map(|watch| watch.places);
        for link in places.filter_map(|place| place.link) {
            if !self.unwatch_tracked(slot, link) {
                self.give_back(link, false);
            }
        }
    }

    pub(crate) fn watch(&mut self, asker: &Asker, request: &Request<'_>) {
        let links = self
            .watched_keys(asker, request)
            .and_then(|groups| self.links_to_watch(asker, request, &groups));
        let links = match links {
            Ok(links) => links,
            Err(error) => return self.answer_error(asker, &error),
        };
        if let [(link, _)] = links.as_slice() {
            let place = client_number(self, asker);
            self.send(*link, request.data);
            self.sent(asker, *link, place, 0, Waiter::Client);
        } else {
            let (merge, order) = (Merge::AllOk, Vec::new());
            let gather = Gather::new(GatherKind::Merge { merge, order }, links.len());
            let place = self.reserve_gather(asker, gather);
            for (part, (link, keys)) in links.into_iter().enumerate() {
                let keys: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
                let mut words = vec![request.arg(0)];
                words.extend(keys);
                let mut bytes = Vec::new();
                encode::request(&mut bytes, &words);
                self.send(link, &bytes);
                self.sent(asker, link, place, part as u16, Waiter::Part);
            }
        }
        if let Some(client) = self.clients.get_mut(asker.slot) {
            client.raise_barrier();
        }
    }

    /// The keys of a WATCH, shard by shard.
    fn watched_keys(
        &mut self,
        asker: &Asker,
        request: &Request<'_>,
    ) -> Result<Vec<Group>, ClientError> {
        let space = &self.topology.keyspaces[asker.keyspace];
        let Ok(spec) = crate::routing::route::specification(request) else {
            return Err(ClientError::Syntax);
        };
        let admission = &self.admissions[asker.keyspace];
        key_shards(space, admission, spec, request, &mut self.scratch)?;
        let mut groups: Vec<Group> = Vec::new();
        for (&key, &shard) in self.scratch.keys.iter().zip(&self.scratch.shards) {
            let key: Arc<[u8]> = request.arg(key as usize).into();
            match groups.iter_mut().find(|(known, _)| *known == shard) {
                Some((_, keys)) => keys.push(key),
                None => groups.push((shard, vec![key])),
            }
        }
        Ok(groups)
    }

    /// The links on which keys of a WATCH are to be watched, with the keys.
    fn links_to_watch(
        &mut self,
        asker: &Asker,
        request: &Request<'_>,
        groups: &[Group],
    ) -> Result<Vec<(u32, Vec<Arc<[u8]>>)>, ClientError> {
        let lane = asker.lane % LANES;
        let known = self
            .clients
            .get(asker.slot)
            .and_then(|client| client.particulars.as_deref())
            .and_then(|known| known.watch.as_deref());
        // A watch that is lost already stays so; one in another database cannot be joined.
        let is_lost = |watch: &Watch| watch.places.iter().any(|place| place.link.is_none());
        if known.is_some_and(|watch| watch.lane != lane || is_lost(watch)) {
            return Err(ClientError::WatchMoved);
        }
        let mut watch = known
            .cloned()
            .map_or_else(|| self.new_watch(asker, request, groups, lane), Ok)?;
        self.may_watch(asker, request, &watch, groups)?;
        let mut links = Vec::with_capacity(groups.len());
        for (shard, keys) in groups {
            let number = self.shard_number(asker, *shard);
            let place = watch.places.iter_mut().find(|place| place.shard == *shard);
            let link = match place {
                Some(place) => {
                    place.keys.extend(keys.iter().cloned());
                    place.link.ok_or(ClientError::WatchMoved)?
                }
                None => {
                    let link = self.link_to_watch(asker.slot, number, lane)?;
                    watch.places.push(WatchPlace {
                        shard: *shard,
                        link: Some(link),
                        keys: keys.clone(),
                    });
                    link
                }
            };
            links.push((link, keys.clone()));
        }
        if let Some(client) = self.clients.get_mut(asker.slot) {
            client.particulars().watch = Some(Box::new(watch));
        }
        Ok(links)
    }

    fn new_watch(
        &self,
        asker: &Asker,
        request: &Request<'_>,
        groups: &[Group],
        lane: usize,
    ) -> Result<Watch, ClientError> {
        let space = &self.topology.keyspaces[asker.keyspace];
        let spec = crate::routing::route::specification(request).ok();
        let (shard, _) = groups.first().ok_or(ClientError::Syntax)?;
        Ok(Watch {
            places: Vec::new(),
            lane,
            key: key_place(space, *shard, spec, request),
        })
    }

    /// Refuses keys on several shards where EXEC could not answer for them, before anything is watched.
    fn may_watch(
        &self,
        asker: &Asker,
        request: &Request<'_>,
        watch: &Watch,
        groups: &[Group],
    ) -> Result<(), ClientError> {
        let space = &self.topology.keyspaces[asker.keyspace];
        let first = watch.places.first().map(|place| place.shard);
        let mut shards = first
            .into_iter()
            .chain(groups.iter().map(|&(shard, _)| shard));
        let one = shards.next();
        let Some(other) = shards.find(|&shard| Some(shard) != one) else {
            return Ok(());
        };
        if space.cross_shard && !space.transactions_per_shard {
            return Ok(());
        }
        let key = groups.iter().find(|&&(shard, _)| shard == other);
        let index = (1..request.args.len())
            .find(|&index| key.is_some_and(|(_, keys)| *keys[0] == *request.arg(index)));
        let place = crate::session::transaction::place_of_key(
            space,
            other,
            request.arg(index.unwrap_or(1)),
        );
        Err(ClientError::CrossShard {
            command: "watch",
            keys: vec![watch.key.clone(), place],
        })
    }

    /// DISCARD and UNWATCH: the links are given back when the shards have forgotten the watch.
    pub(crate) fn unwatch(&mut self, asker: &Asker) {
        let places = self.take_watch(asker.slot).map(|watch| watch.places);
        let links: Vec<u32> = places
            .into_iter()
            .flatten()
            .filter_map(|place| place.link)
            .collect();
        if links.is_empty() {
            return self.answer(asker, |out| encode::simple(out, "OK"));
        }
        let kind = GatherKind::Unwatch {
            links: links.clone(),
        };
        let place = self.reserve_gather(asker, Gather::new(kind, links.len()));
        for (part, link) in links.into_iter().enumerate() {
            self.send(link, errand::UNWATCH);
            self.sent(asker, link, place, part as u16, Waiter::Part);
        }
    }

    /// The connection on which keys were watched is gone: nobody knows whether they changed.
    pub(crate) fn watch_lost(&mut self, slot: u32, id: u32) {
        let watch = self
            .clients
            .get_mut(slot)
            .and_then(|client| client.particulars.as_deref_mut())
            .and_then(|known| known.watch.as_deref_mut());
        for place in watch.into_iter().flat_map(|watch| &mut watch.places) {
            if place.link == Some(id) {
                place.link = None;
            }
        }
    }
}
