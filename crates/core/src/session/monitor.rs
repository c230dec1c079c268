//! MONITOR: clients that are shown every request.
//!
//! Owns: nothing yet but the refusal.
//!
//! Must stay true: who watches is not told that it sees everything where it would see one worker.

use crate::routing::route::Request;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;

impl Engine {
    /// MONITOR.
    pub(crate) fn monitor(&mut self, asker: &Asker, request: &Request<'_>) {
        self.not_yet(asker, request, "is not supported yet: it would show only one of the servers; run it on a shard's server directly");
    }

    /// A request that is about to be executed.
    pub(crate) fn show_to_monitors(&mut self, _slot: u32, _request: &Request<'_>) {}
}
