//! Client-side caching: what a client has read is remembered by the shards, and it is told when that changes.
//!
//! Owns: nothing yet but the refusal.
//!
//! Must stay true: a client is not told that its reads are tracked where invalidations would not come.

use crate::protocol::command::{CommandSpec, Local};
use crate::routing::route::Request;
use crate::session::dispatch::{Asker, Taken};
use crate::session::engine::Engine;

impl Engine {
    /// CLIENT TRACKING, CACHING, TRACKINGINFO.
    pub(crate) fn tracking(&mut self, asker: &Asker, _local: Local, request: &Request<'_>) {
        self.not_yet(asker, request, "is not supported yet: invalidation messages do not pass through shoal; turn off client-side caching in the client");
    }

    /// A request of a client whose reads are tracked. None: it goes on as if they were not.
    pub(crate) fn tracked(
        &mut self,
        _slot: u32,
        _spec: Option<&'static CommandSpec>,
        _request: &Request<'_>,
    ) -> Option<Taken> {
        None
    }

    /// A push on a connection of a tracked client.
    pub(crate) fn invalidated(&mut self, _link: u32, _slot: u32, _generation: u32, _push: &[u8]) {}

    /// A connection on which a client's reads were tracked is gone.
    pub(crate) fn tracking_lost(&mut self, _slot: u32, _shard: usize) {}
}
