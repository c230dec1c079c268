//! SLOWLOG: requests that took long.
//!
//! Owns: nothing yet but the refusal.
//!
//! Must stay true: the log is bounded.

use crate::error::ClientError;
use crate::protocol::command::Local;
use crate::routing::route::Request;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;

impl Engine {
    /// SLOWLOG GET, LEN, RESET.
    pub(crate) fn slowlog(&mut self, asker: &Asker, _local: Local, _request: &Request<'_>) {
        self.answer_error(
            asker,
            &ClientError::Words(
                "ERR SLOWLOG is not supported yet; ask each shard's server directly",
            ),
        );
    }
}
