//! WATCH: keys that are watched until EXEC, on a connection of the client's own.
//!
//! Owns: the client's `Watch`, and how it begins, is lost and ends.
//!
//! Must stay true: all watched keys are on one shard; a watch that was lost stays lost until it is ended, because nobody knows
//! whether its keys changed; its connection goes when the watch goes.
//! Rejected: keys on several shards, each on a connection: no order of their EXECs keeps what WATCH promises.

use crate::error::{ClientError, KeyPlace};
use crate::protocol::encode;
use crate::protocol::errand;
use crate::routing::route::{shard_of_keys, Request};
use crate::session::backend::{Waiter, LANES};
use crate::session::dispatch::{client_number, Asker};
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use crate::session::transaction::key_place;

/// Keys of a client that are watched, all on one shard.
#[derive(Debug, Clone)]
pub struct Watch {
    pub(crate) shard: u16,
    /// None: it was lost, and nobody knows whether the keys changed.
    pub(crate) link: Option<u32>,
    pub(crate) lane: usize,
    pub(crate) key: KeyPlace,
    pub(crate) count: usize,
}

impl Engine {
    pub(crate) fn take_watch(&mut self, slot: u32) -> Option<Box<Watch>> {
        let client = self.clients.get_mut(slot)?;
        client.particulars.as_deref_mut()?.watch.take()
    }

    /// The watch's link goes, and the watch with it.
    pub(crate) fn end_watch(&mut self, slot: u32, watch: Option<Box<Watch>>) {
        if let Some(link) = watch.and_then(|watch| watch.link) {
            if !self.unwatch_tracked(slot, link) {
                self.give_back(link, false);
            }
        }
    }

    pub(crate) fn watch(&mut self, asker: &Asker, request: &Request<'_>) {
        match self.watch_link(asker, request) {
            Ok(link) => {
                let place = client_number(self, asker);
                self.send(link, request.data);
                self.sent(asker, link, place, 0, Waiter::Client);
                if let Some(client) = self.clients.get_mut(asker.slot) {
                    client.raise_barrier();
                }
            }
            Err(error) => self.answer_error(asker, &error),
        }
    }

    /// The link on which keys of a WATCH are to be watched.
    fn watch_link(&mut self, asker: &Asker, request: &Request<'_>) -> Result<u32, ClientError> {
        let space = &self.topology.keyspaces[asker.keyspace];
        let Ok(spec) = crate::routing::route::specification(request) else {
            return Err(ClientError::Syntax);
        };
        let admission = &self.admissions[asker.keyspace];
        let shard = shard_of_keys(space, admission, spec, request, &mut self.scratch)?;
        let key = key_place(space, shard, Some(spec), request);
        let count = request.args.len() - 1;
        let lane = asker.lane % LANES;
        let number = space.first_shard + shard as usize;
        if let Some(client) = self.clients.get_mut(asker.slot) {
            if let Some(watch) = client.particulars().watch.as_deref_mut() {
                if watch.shard != shard {
                    return Err(ClientError::CrossShard {
                        command: spec.full_name,
                        keys: vec![watch.key.clone(), key],
                    });
                }
                if let (Some(link), true) = (watch.link, watch.lane == lane) {
                    watch.count += count;
                    return Ok(link);
                }
                // A watch that is lost already stays so; one in another database cannot be joined.
                return Err(ClientError::WatchMoved);
            }
        }
        let link = self.link_to_watch(asker.slot, number, lane)?;
        if let Some(client) = self.clients.get_mut(asker.slot) {
            client.particulars().watch = Some(Box::new(Watch {
                shard,
                link: Some(link),
                lane,
                key,
                count,
            }));
        }
        Ok(link)
    }

    /// DISCARD and UNWATCH: the link is given back when the shard has forgotten the watch.
    pub(crate) fn unwatch(&mut self, asker: &Asker) {
        let watch = self.take_watch(asker.slot);
        let Some(link) = watch.and_then(|watch| watch.link) else {
            return self.answer(asker, |out| encode::simple(out, "OK"));
        };
        let place = self.reserve_gather(asker, Gather::new(GatherKind::Unwatch { link }, 1));
        self.send(link, errand::UNWATCH);
        self.sent(asker, link, place, 0, Waiter::Part);
    }

    /// The connection on which keys were watched is gone: nobody knows whether they changed.
    pub(crate) fn watch_lost(&mut self, slot: u32, id: u32) {
        let watch = self
            .clients
            .get_mut(slot)
            .and_then(|client| client.particulars.as_deref_mut())
            .and_then(|known| known.watch.as_deref_mut());
        if let Some(watch) = watch.filter(|watch| watch.link == Some(id)) {
            watch.link = None;
        }
    }
}
