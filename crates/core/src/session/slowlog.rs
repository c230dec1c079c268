//! SLOWLOG: requests that took long.
//!
//! Owns: nothing yet but the refusal.
//!
//! Must stay true: the log is bounded.

use crate::protocol::command::Local;
use crate::routing::route::Request;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;

impl Engine {
    /// SLOWLOG GET, LEN, RESET.
    pub(crate) fn slowlog(&mut self, asker: &Asker, _local: Local, request: &Request<'_>) {
        self.not_yet(
            asker,
            request,
            "is not supported yet: each shard's server has its own; ask that server directly",
        );
    }
}
