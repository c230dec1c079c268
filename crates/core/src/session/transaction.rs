//! Transactions: MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! Owns: what stands between MULTI and EXEC of one client.
//!
//! Must stay true: what stands between a refused MULTI and its EXEC is refused too: executed one by one it would not be what
//! was asked.

use crate::error::{ClientError, NO_TRANSACTIONS};
use crate::protocol::command::{CommandSpec, Local, Policy};
use crate::routing::route::Request;
use crate::session::client::care;
use crate::session::dispatch::{Asker, Taken};
use crate::session::engine::Engine;

impl Engine {
    /// One of the five commands.
    pub(crate) fn transaction(&mut self, asker: &Asker, local: Local, request: &Request<'_>) {
        if let Some(client) = self.clients.get_mut(asker.slot) {
            client.take_care(care::QUEUES, local == Local::Multi);
        }
        let command =
            crate::protocol::command::lookup(request.arg(0)).map_or("", |spec| spec.full_name);
        let reason = NO_TRANSACTIONS;
        self.answer_error(asker, &ClientError::Refused { command, reason });
    }

    /// A request of a client that is within MULTI. None: it goes on as if it were not.
    pub(crate) fn queued(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
        _request: &Request<'_>,
    ) -> Option<Taken> {
        let spec = spec?;
        let ends = matches!(
            spec.policy,
            Policy::Local(Local::Quit | Local::Reset | Local::Multi | Local::Exec | Local::Discard)
        );
        (!ends).then(|| self.turn_away(slot, &ClientError::NotExecuted(spec.full_name)))
    }

    /// Something could not be queued: EXEC will refuse.
    pub(crate) fn spoil_transaction(&mut self, _slot: u32) {}

    /// The connection on which keys were watched is gone: nobody knows whether they changed.
    pub(crate) fn watch_lost(&mut self, _slot: u32) {}
}
