//! SUBSCRIBE and its kin: what a client says of its own subscriptions, and what it may do while it has some.
//!
//! Owns: the six commands, the rules of a RESP2 client that has subscribed, and the end of a client's subscriptions. Who
//! has subscribed to what is in `subscriptions`, how messages come in `feed`, PUBLISH and PUBSUB in `publish`.
//!
//! Flow: the names are taken for the client -> those that nobody had before are sent to every shard -> with something to
//! wait for, the request gets a place and the client's later requests wait; else it is answered at once.
//!
//! Must stay true: a client is told that it has subscribed only when every shard that can be reached has it so, and it gets no
//! message before; each of its names is confirmed in the order it gave them. As on one server, confirmations are given
//! whatever CLIENT REPLY says. A shard that is down does not matter: it is asked when it is back.
//! Rejected: to refuse while a shard is down. Subscribers live for weeks; they would all have to try again for ever.

use crate::error::ClientError;
use crate::protocol::command::{CommandSpec, Local, Policy};
use crate::protocol::encode::Proto;
use crate::protocol::subscription::{confirmation, Kind};
use crate::routing::route::Request;
use crate::session::client::care;
use crate::session::dispatch::{client_number, Asker};
use crate::session::engine::Engine;
use crate::session::stats::PerKeyspace;
use crate::session::subscriptions::{Pending, Subscribed};
use std::sync::Arc;

impl Engine {
    /// One of the commands about channels.
    pub(crate) fn pubsub(&mut self, asker: &Asker, local: Local, request: &Request<'_>) {
        match local {
            Local::Subscribe => self.subscribe(asker, Kind::Channel, request),
            Local::Psubscribe => self.subscribe(asker, Kind::Pattern, request),
            Local::Ssubscribe => self.subscribe(asker, Kind::Shard, request),
            Local::Unsubscribe => self.unsubscribe(asker, Kind::Channel, request),
            Local::Punsubscribe => self.unsubscribe(asker, Kind::Pattern, request),
            Local::Sunsubscribe => self.unsubscribe(asker, Kind::Shard, request),
            Local::Publish => self.publish(asker, Kind::Channel, request),
            Local::Spublish => self.publish(asker, Kind::Shard, request),
            other => self.pubsub_question(asker, other, request),
        }
    }

    fn subscribe(&mut self, asker: &Asker, kind: Kind, request: &Request<'_>) {
        let names: Vec<&[u8]> = (1..request.args.len()).map(|at| request.arg(at)).collect();
        if !self.subscriptions.has_room(&names) {
            return self.answer_error(asker, &ClientError::TooManySubscriptions);
        }
        let keyspace = asker.keyspace;
        let id = self.subscriptions.next_pending();
        let Some(client) = self.clients.get_mut(asker.slot) else {
            return;
        };
        let proto = client.proto;
        let subscribed = client.particulars().subscribed.get_or_insert_default();
        let was_empty = subscribed.is_empty();
        let (mut reply, mut added, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
        for name in names {
            if !subscribed.has(kind, name) {
                let (held, is_new) = self.subscriptions.take(keyspace, kind, name, id);
                subscribed.add(kind, Arc::clone(&held));
                if is_new {
                    fresh.push(Arc::clone(&held));
                }
                added.push(held);
            }
            let count = subscribed.told(kind);
            confirmation(&mut reply, proto, kind, true, Some(name), count);
        }
        if was_empty {
            client.take_care(care::SUBSCRIBED, true);
            self.stats().keyspace(keyspace, PerKeyspace::Subscribers, 1);
        }
        if !fresh.is_empty() {
            self.tell_feeds(keyspace, kind, true, &fresh);
        }
        let space = &self.subscriptions.spaces[keyspace];
        // Behind one that waits another waits too: the client is told in its order.
        let waits = self.pending_subscriptions(asker.slot) > 0
            || added.iter().any(|name| {
                space
                    .name(kind, name)
                    .is_some_and(|known| !known.is_settled())
            });
        self.confirm(asker, id, (kind, true), (added, Vec::new()), reply, waits);
    }

    /// Without names: ends all of the kind.
    fn unsubscribe(&mut self, asker: &Asker, kind: Kind, request: &Request<'_>) {
        let id = self.subscriptions.next_pending();
        let Some(client) = self.clients.get_mut(asker.slot) else {
            return;
        };
        let proto = client.proto;
        let mut none = Subscribed::default();
        let subscribed = match client.particulars.as_deref_mut() {
            Some(known) => known.subscribed.as_deref_mut().unwrap_or(&mut none),
            None => &mut none,
        };
        let had_some = !subscribed.is_empty();
        let names: Vec<Arc<[u8]>> = if request.args.len() == 1 {
            subscribed.of_kind(kind)
        } else {
            (1..request.args.len())
                .map(|at| request.arg(at).into())
                .collect()
        };
        let (mut reply, mut removed) = (Vec::new(), Vec::new());
        for name in &names {
            removed.extend(subscribed.remove(kind, name));
            let count = subscribed.told(kind);
            confirmation(&mut reply, proto, kind, false, Some(name), count);
        }
        if names.is_empty() {
            confirmation(&mut reply, proto, kind, false, None, subscribed.told(kind));
        }
        if had_some && subscribed.is_empty() {
            client.take_care(care::SUBSCRIBED, false);
            self.stats()
                .keyspace(asker.keyspace, PerKeyspace::Subscribers, -1);
        }
        let who = (asker.slot, asker.generation);
        let ended = self.give_up_names(asker.keyspace, kind, &removed, who);
        let waits = !ended.is_empty();
        self.confirm(asker, id, (kind, false), (Vec::new(), ended), reply, waits);
    }

    /// Answers at once, or when the shards have confirmed what they were asked.
    fn confirm(
        &mut self,
        asker: &Asker,
        id: u64,
        (kind, is_made): (Kind, bool),
        (added, ended): (Vec<Arc<[u8]>>, Vec<Arc<[u8]>>),
        reply: Vec<u8>,
        waits: bool,
    ) {
        let asker = &Asker {
            mute: false,
            ..*asker
        };
        let who = (asker.slot, asker.generation);
        let keyspace = asker.keyspace;
        let left = if waits {
            let shards = self.shards_of(keyspace);
            self.subscriptions.wait_for_all(shards, id)
        } else {
            0
        };
        if left == 0 {
            self.subscriptions
                .settle(id, keyspace, kind, &added, Some(who));
            return self.answer(asker, |out| out.extend_from_slice(&reply));
        }
        self.subscriptions.spaces[keyspace].leave_late(kind, &ended, id, who);
        let pending = Pending {
            who,
            number: client_number(self, asker),
            keyspace,
            kind,
            is_made,
            added,
            ended,
            reply,
            left,
        };
        self.subscriptions.pending.insert(id, pending);
        self.stats().keyspace(keyspace, PerKeyspace::Subscribing, 1);
        let Some(client) = self.clients.get_mut(asker.slot) else {
            return;
        };
        match client.particulars().subscribed.as_deref_mut() {
            Some(subscribed) if is_made => subscribed.pending += 1,
            _ => client.raise_barrier(),
        }
    }

    /// A client's requests to subscribe that wait for the shards.
    pub(crate) fn pending_subscriptions(&self, slot: u32) -> usize {
        self.clients
            .get(slot)
            .and_then(|client| client.particulars.as_deref()?.subscribed.as_deref())
            .map_or(0, |subscribed| subscribed.pending)
    }

    /// Whether a request waits for those before it: all but further ones to subscribe, which libraries send without reading.
    /// To something that it has asked for already it waits: that may yet be refused.
    pub(crate) fn waits_for_subscriptions(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
        request: &Request<'_>,
    ) -> bool {
        if self.pending_subscriptions(slot) == 0 {
            return false;
        }
        let Some(client) = self.clients.get_mut(slot) else {
            return false;
        };
        let kind = match spec.map(|spec| spec.policy) {
            Some(Policy::Local(local)) => kind_subscribed(local),
            _ => None,
        };
        let known = client.particulars().subscribed.get_or_insert_default();
        let is_new = |kind| (1..request.args.len()).all(|at| !known.has(kind, request.arg(at)));
        if kind.is_some_and(is_new) {
            return false;
        }
        client.raise_barrier();
        true
    }

    /// A request waits no longer.
    fn count_settled(&mut self, pending: &Pending) {
        self.stats()
            .keyspace(pending.keyspace, PerKeyspace::Subscribing, -1);
        let (slot, generation) = pending.who;
        let known = self
            .clients
            .get_same(slot, generation)
            .and_then(|client| client.particulars.as_deref_mut());
        if let Some(subscribed) = known.and_then(|known| known.subscribed.as_deref_mut()) {
            subscribed.pending -= usize::from(pending.is_made);
        }
    }

    /// Every shard has confirmed a request: its client is told, and listens.
    pub(crate) fn confirmed(&mut self, id: u64, pending: Pending) {
        self.count_settled(&pending);
        let (slot, generation) = pending.who;
        let is_there = self.clients.get_same(slot, generation).is_some();
        let listener = is_there.then_some(pending.who);
        self.subscriptions
            .settle(id, pending.keyspace, pending.kind, &pending.added, listener);
        self.subscriptions.spaces[pending.keyspace].left(pending.kind, &pending.ended, id);
        self.give_confirmation(pending.who, pending.number, pending.reply);
    }

    /// A shard refused: the client is told so, and has nothing of what it asked for.
    pub(crate) fn not_confirmed(&mut self, pending: Pending, error: &[u8]) {
        self.count_settled(&pending);
        let (slot, generation) = pending.who;
        let Some(client) = self.clients.get_same(slot, generation) else {
            return;
        };
        let subscribed = client.particulars().subscribed.get_or_insert_default();
        for name in &pending.added {
            subscribed.remove(pending.kind, name);
        }
        if subscribed.is_empty() && !pending.added.is_empty() {
            client.take_care(care::SUBSCRIBED, false);
            self.stats()
                .keyspace(pending.keyspace, PerKeyspace::Subscribers, -1);
        }
        self.give_up_names(pending.keyspace, pending.kind, &pending.added, pending.who);
        self.give_confirmation(pending.who, pending.number, error.to_vec());
    }

    fn give_confirmation(&mut self, who: (u32, u32), number: u32, reply: Vec<u8>) {
        let Some(client) = self.clients.get_same(who.0, who.1) else {
            return;
        };
        client.replies.complete(number, reply);
        self.touch_client(who.0);
        self.settle_client(who.0);
    }

    /// Names are no longer this client's. Those that nobody has any more, of which shards are told.
    fn give_up_names(
        &mut self,
        keyspace: usize,
        kind: Kind,
        names: &[Arc<[u8]>],
        who: (u32, u32),
    ) -> Vec<Arc<[u8]>> {
        let now_ms = self.now_ms;
        let ended = self
            .subscriptions
            .give_up(keyspace, kind, names, who, now_ms);
        if !ended.is_empty() {
            self.tell_feeds(keyspace, kind, false, &ended);
        }
        ended
    }

    /// RESET, or the client leaves: all of its subscriptions end, and nobody is told.
    pub(crate) fn forget_subscriptions(&mut self, slot: u32) {
        let generation = self.clients.generation(slot);
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        let keyspace = client.keyspace as usize;
        let Some(subscribed) = client
            .particulars
            .as_deref_mut()
            .and_then(|known| known.subscribed.take())
        else {
            return;
        };
        client.take_care(care::SUBSCRIBED, false);
        if subscribed.is_empty() {
            return;
        }
        self.stats()
            .keyspace(keyspace, PerKeyspace::Subscribers, -1);
        for kind in Kind::ALL {
            self.give_up_names(
                keyspace,
                kind,
                &subscribed.of_kind(kind),
                (slot, generation),
            );
        }
    }

    /// What a RESP2 client that has subscribed may not do.
    pub(crate) fn barred_while_subscribed(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
    ) -> Option<ClientError> {
        let spec = spec?;
        let is_resp2 = self.clients.get(slot)?.proto == Proto::Resp2;
        let is_allowed = matches!(
            spec.policy,
            Policy::Local(
                Local::Subscribe
                    | Local::Unsubscribe
                    | Local::Psubscribe
                    | Local::Punsubscribe
                    | Local::Ssubscribe
                    | Local::Sunsubscribe
                    | Local::Ping
                    | Local::Quit
                    | Local::Reset
            )
        );
        (is_resp2 && !is_allowed).then_some(ClientError::OnlySubscriptions(spec.full_name))
    }

    /// As CLIENT LIST shows them: channels, patterns, shard channels.
    pub(crate) fn subscription_counts(&self, slot: u32) -> [usize; 3] {
        self.clients
            .get(slot)
            .and_then(|client| client.particulars.as_deref()?.subscribed.as_deref())
            .map_or([0; 3], Subscribed::counts)
    }
}

/// To what a command subscribes, if it does.
pub(crate) fn kind_subscribed(local: Local) -> Option<Kind> {
    match local {
        Local::Subscribe => Some(Kind::Channel),
        Local::Psubscribe => Some(Kind::Pattern),
        Local::Ssubscribe => Some(Kind::Shard),
        _ => None,
    }
}
