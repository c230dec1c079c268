//! ACL: what a user of the keyspace may do.
//!
//! Owns: nothing yet but the refusal.
//!
//! Must stay true: a user is never allowed more than its rules say.

use crate::error::ClientError;
use crate::protocol::command::{CommandSpec, Local};
use crate::routing::route::Request;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;

impl Engine {
    /// ACL's subcommands.
    pub(crate) fn acl(&mut self, asker: &Asker, _local: Local, request: &Request<'_>) {
        self.not_yet(asker, request, "is not supported yet: users of shoal are in its configuration, users of the servers on each server");
    }

    /// Why a client's user may not do this; None: it may.
    pub(crate) fn forbidden(
        &mut self,
        _slot: u32,
        _spec: Option<&'static CommandSpec>,
        _request: &Request<'_>,
    ) -> Option<ClientError> {
        None
    }
}
