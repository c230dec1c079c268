//! Requests that wait: lists, sorted sets and streams until there is something.
//!
//! Owns: nothing yet but the refusal.
//!
//! Must stay true: nothing waits on a connection that others use.

use crate::routing::route::Request;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;

impl Engine {
    /// A request that may wait.
    pub(crate) fn block(&mut self, asker: &Asker, request: &Request<'_>) {
        self.not_yet(
            asker,
            request,
            "is not supported yet: it may block; use the command's form without B and ask again when it finds nothing",
        );
    }

    /// CLIENT UNBLOCK.
    pub(crate) fn unblock_client(&mut self, asker: &Asker, request: &Request<'_>) {
        self.not_yet(
            asker,
            request,
            "is not supported yet: nobody waits; close the client's connection instead",
        );
    }

    /// The connection on which a client waits is gone.
    pub(crate) fn wait_lost(&mut self, _slot: u32, _shard: usize) {}
}
