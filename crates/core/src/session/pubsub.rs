//! Publish and subscribe.
//!
//! Owns: nothing yet but the refusal.
//!
//! Must stay true: a client is not told that it has subscribed where messages would not come.

use crate::error::ClientError;
use crate::protocol::command::{CommandSpec, Local};
use crate::routing::route::Request;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;

impl Engine {
    /// One of the commands about channels.
    pub(crate) fn pubsub(&mut self, asker: &Asker, _local: Local, request: &Request<'_>) {
        self.not_yet(asker, request, "is not supported yet: publish and subscribe are refused; connect to one of the shards' servers directly for channels");
    }

    /// What a RESP2 client that has subscribed may not do.
    pub(crate) fn barred_while_subscribed(
        &mut self,
        _slot: u32,
        _spec: Option<&'static CommandSpec>,
    ) -> Option<ClientError> {
        None
    }

    /// A message, or the answer to a subscription, from a shard.
    pub(crate) fn published(&mut self, _link: u32, _push: &[u8]) {}

    /// The connection on which a shard's messages came is gone.
    pub(crate) fn subscriptions_lost(&mut self, _shard: usize) {}
}
