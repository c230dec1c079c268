//! CLIENT PAUSE: requests of all clients wait.
//!
//! Owns: nothing yet but the refusal.
//!
//! Must stay true: a paused request is taken later, in its order.

use crate::protocol::command::{CommandSpec, Local};
use crate::routing::route::Request;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;

impl Engine {
    /// CLIENT PAUSE and UNPAUSE.
    pub(crate) fn pause(&mut self, asker: &Asker, _local: Local, request: &Request<'_>) {
        self.not_yet(asker, request, "is not supported yet: clients of shoal are not clients of one server; pause the shards' servers directly");
    }

    /// Whether a request waits for the end of a pause; its client's intake then says so.
    pub(crate) fn is_held_by_pause(
        &mut self,
        _slot: u32,
        _spec: Option<&'static CommandSpec>,
        _request: &Request<'_>,
    ) -> bool {
        false
    }
}
