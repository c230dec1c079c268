//! What a request must pass that may not go the short way.
//!
//! Owns: the order in which the reasons of `care` are looked at: the order in which one server looks at them.
//!
//! Flow: `dispatch` asks here only where a bit of `care` is set, of the client or of the worker; what passes goes on to the
//! router like any other request.
//!
//! Must stay true: a request that does not pass is answered exactly once, or is shown again later; nothing of it is sent.
//! Rejected: a check for each reason on the way of every request: nearly all clients have none of them.

use crate::error::ClientError;
use crate::protocol::command::{flags, CommandSpec, Local, Policy};
use crate::routing::route::{specification, Request};
use crate::session::client::{care, Client};
use crate::session::dispatch::{Asker, Taken};
use crate::session::engine::Engine;

impl Engine {
    /// None: the request may go on.
    #[cold]
    pub(crate) fn gate(&mut self, slot: u32, request: &Request<'_>) -> Option<Taken> {
        let client = self.clients.get(slot)?;
        let cares = client.care | self.care;
        let known = specification(request);
        if let (Ok(spec), true) = (&known, cares & care::STRANGER != 0) {
            if !is_for_strangers(spec) {
                return Some(self.turn_away(slot, &ClientError::NoAuth));
            }
        }
        let spec = match known {
            Ok(spec) => Some(spec),
            // The router knows what an unknown command is; for a stranger and within MULTI it is an error.
            Err(error)
                if cares & care::STRANGER != 0
                    || (cares & care::QUEUES != 0 && !self.is_routed_anyway(slot, &error)) =>
            {
                return Some(self.no_such_request(slot, &error));
            }
            Err(_) => None,
        };
        if cares & care::RULED != 0 {
            if let Some(error) = self.forbidden(slot, spec, request) {
                return Some(self.forbid(slot, spec, &error));
            }
        }
        if cares & care::SUBSCRIBED != 0 {
            if self.waits_for_subscriptions(slot, spec, request) {
                return Some(Taken::NotYet);
            }
            if let Some(error) = self.barred_while_subscribed(slot, spec) {
                return Some(self.turn_away(slot, &error));
            }
        }
        if cares & care::MONITORED != 0 {
            if let Some(error) = self.barred_as_monitor(slot, spec) {
                return Some(self.turn_away(slot, &error));
            }
        }
        if cares & care::PAUSED != 0 && self.is_held_by_pause(slot, spec, request) {
            return Some(Taken::NotYet);
        }
        if cares & care::QUEUES != 0 {
            if let Some(taken) = self.queued(slot, spec, request) {
                return Some(taken);
            }
        }
        if cares & care::FENCED != 0 {
            if let Some(taken) = self.held_by_fence(slot, spec, request) {
                return Some(taken);
            }
        }
        if cares & care::MONITORED != 0 {
            let is_tracked = cares & care::TRACKED != 0;
            return Some(self.watched(slot, spec, request, is_tracked));
        }
        if cares & care::TRACKED != 0 {
            return self.tracked(slot, spec, request);
        }
        None
    }

    /// Answers a request that is none. An EXEC that cannot be executed ends its transaction, as on a server.
    fn no_such_request(&mut self, slot: u32, error: &ClientError) -> Taken {
        if *error != ClientError::WrongArity("exec") {
            return self.turn_away(slot, error);
        }
        self.forget_transaction(slot);
        let text = error.text();
        let reason = text.trim_start_matches("ERR ");
        let words = format!("EXECABORT Transaction discarded because of: {reason}");
        self.turn_away(slot, &ClientError::Text(words))
    }

    /// An unknown command that goes by its first argument.
    fn is_routed_anyway(&self, slot: u32, error: &ClientError) -> bool {
        matches!(error, ClientError::UnknownCommand { .. })
            && self.clients.get(slot).is_some_and(|client| {
                self.topology.keyspaces[client.keyspace as usize].unknown_commands_first_key
            })
    }

    /// Answers with an error; a transaction that is being queued will not be executed then.
    pub(crate) fn turn_away(&mut self, slot: u32, error: &ClientError) -> Taken {
        self.spoil_transaction(slot);
        if let Some(asker) = self.asker_at_gate(slot) {
            self.answer_error(&asker, error);
        }
        Taken::Yes
    }

    /// A client as one who asks, before its request is admitted. CLIENT REPLY SKIP is used up.
    pub(crate) fn asker_at_gate(&mut self, slot: u32) -> Option<Asker> {
        let generation = self.clients.generation(slot);
        let client = self.clients.get_mut(slot)?;
        Some(Asker {
            slot,
            generation,
            keyspace: client.keyspace as usize,
            lane: Client::lane(client),
            mute: client.is_muted(),
        })
    }
}

/// What somebody may do who has not authenticated.
fn is_for_strangers(spec: &CommandSpec) -> bool {
    match spec.policy {
        Policy::Local(Local::Quit | Local::Reset | Local::Auth | Local::Hello) => true,
        Policy::Local(_) => spec.flags & flags::NO_AUTH != 0,
        _ => false,
    }
}
