//! Doing what the router decided: requests go to links, fragments are built, places for replies are taken.
//!
//! Owns: the way from a whole request to bytes in the right links' `out`.
//!
//! Flow: `request` -> who may -> `decide` -> one arm for each `Route`.
//!
//! Must stay true: each request takes exactly one place in the client's `Replies`, or is answered at once; bytes for a
//! shard and the entry in its link's queue are added together, or neither is; a request that changes how the connection
//! is used (database, protocol) is taken only when every earlier one has its reply, because later ones travel on another link.

use crate::error::ClientError;
use crate::limits::{LINK_OUT_HIGH, LINK_QUEUE_HIGH, OUTPUT_HIGH};
use crate::protocol::command::{flags, AllKeys, Arg, CommandSpec, Local, Merge, Policy};
use crate::routing::route::{decide, Request, Route};
use crate::session::backend::{InFlight, Waiter, NONE};
use crate::session::client::{care, Client, Intake};
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use crate::session::heads::{Place, NO_HEAD};
use crate::session::pubsub::kind_subscribed;
use crate::session::stats::{CloseReason, PerKeyspace, PerShard};
use std::sync::Arc;

/// Whether a request was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was.
    Yes,
    /// It is to be shown again later; the client's intake says when.
    NotYet,
}

/// A client and the request of it that is being done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    pub slot: u32,
    pub generation: u32,
    pub keyspace: usize,
    pub lane: usize,
    pub mute: bool,
}

impl Asker {
    /// Who asks on shoal's own account: no reply reaches anybody.
    pub(crate) const NOBODY: Self = Self {
        slot: u32::MAX,
        generation: 0,
        keyspace: 0,
        lane: 0,
        mute: true,
    };

    /// Whose reply it is.
    #[inline]
    pub(crate) fn place(&self, number: u32) -> Place {
        Place {
            client: self.slot,
            generation: self.generation,
            number,
        }
    }
}

impl Engine {
    /// Does a whole request of a client.
    #[inline]
    pub(crate) fn request(&mut self, slot: u32, request: &Request<'_>) -> Taken {
        let Some(client) = self.clients.get(slot) else {
            return Taken::Yes;
        };
        if client.care | self.care != 0 {
            if let Some(taken) = self.gate(slot, request) {
                return taken;
            }
        }
        self.proceed(slot, request)
    }

    /// A request that nothing keeps from being carried out.
    #[inline]
    pub(crate) fn proceed(&mut self, slot: u32, request: &Request<'_>) -> Taken {
        let now_ms = self.now_ms;
        let generation = self.clients.generation(slot);
        let Some(client) = self.clients.get_mut(slot) else {
            return Taken::Yes;
        };
        let keyspace = client.keyspace as usize;
        let space = &self.topology.keyspaces[keyspace];
        let (spec, route) = decide(
            space,
            &self.admissions[keyspace],
            request,
            &mut self.scratch,
        );
        let Route::Shard(shard) = route else {
            return self.perform(slot, spec, route, request);
        };
        let shard = space.first_shard + shard as usize;
        let lane = client.lane();
        let link = self.link_for(shard, lane);
        if let Some(full) = link.as_ref().ok().filter(|link| self.is_full(**link)) {
            return self.hold_back(slot, *full);
        }
        let Some(client) = self.clients.get_mut(slot) else {
            return Taken::Yes;
        };
        let asker = admitted(client, slot, generation, spec, now_ms);
        self.stats().keyspace(keyspace, PerKeyspace::Requests, 1);
        match link {
            Ok(link) => self.send_plain(&asker, link, request.data),
            Err(error) => self.shard_refused(&asker, shard, &error),
        }
        Taken::Yes
    }

    /// So much waits for the shard that nothing more is added.
    #[inline]
    pub(crate) fn is_full(&self, link: u32) -> bool {
        self.links.get(link).is_some_and(|link| {
            link.waiting() > LINK_OUT_HIGH || link.queue.len() > LINK_QUEUE_HIGH
        })
    }

    /// The client is not read until the link has written half of what waits there; its request is shown again then.
    #[cold]
    pub(crate) fn hold_back(&mut self, slot: u32, link_id: u32) -> Taken {
        let generation = self.clients.generation(slot);
        if let (Some(client), Some(link)) =
            (self.clients.get_mut(slot), self.links.get_mut(link_id))
        {
            client.intake = Intake::Link(link_id);
            link.blocked.push((slot, generation));
        }
        Taken::NotYet
    }

    /// A shard's link, if it is full.
    pub(crate) fn full_link_of(&self, shard: usize, lane: usize) -> Option<u32> {
        let link = self.backends[shard].links[lane];
        (link != NONE && self.is_full(link)).then_some(link)
    }

    /// A link that a route would add to and that is full.
    fn full_link(&self, keyspace: usize, lane: usize, route: &Route) -> Option<u32> {
        let space = &self.topology.keyspaces[keyspace];
        let full = |shard: u16| self.full_link_of(space.first_shard + shard as usize, lane);
        match route {
            Route::Split { .. } => self.scratch.shards.iter().find_map(|&shard| full(shard)),
            Route::Script { shard, .. } | Route::Shard(shard) => full(*shard),
            Route::AllShards(_)
            | Route::AllKeys(_)
            | Route::Settings
            | Route::ScriptLoad
            | Route::ScriptFlush => (0..space.shards.len() as u16).find_map(full),
            Route::AnyShard
            | Route::Scan
            | Route::Aside(_)
            | Route::Wait
            | Route::Blocking
            | Route::Streams
            | Route::CrossShard
            | Route::Local(_)
            | Route::Refuse(_) => None,
        }
    }

    /// A request that owns its buffer: moved to its shard, if one shard is where it goes. Else the buffer is given back.
    pub(crate) fn request_giant(
        &mut self,
        slot: u32,
        buffer: Vec<u8>,
        args: &[Arg],
    ) -> Option<Vec<u8>> {
        let generation = self.clients.generation(slot);
        let client = self.clients.get_mut(slot)?;
        let keyspace = client.keyspace as usize;
        let request = Request {
            data: &buffer,
            args,
        };
        let (spec, route) = decide(
            &self.topology.keyspaces[keyspace],
            &self.admissions[keyspace],
            &request,
            &mut self.scratch,
        );
        let Route::Shard(shard) = route else {
            return Some(buffer);
        };
        let lane = client.lane();
        if self.full_link(keyspace, lane, &route).is_some() {
            return Some(buffer);
        }
        let client = self.clients.get_mut(slot)?;
        let asker = admitted(client, slot, generation, spec, self.now_ms);
        self.stats().keyspace(keyspace, PerKeyspace::Requests, 1);
        self.keep_early(&asker, &buffer);
        let shard = self.shard_number(&asker, shard);
        match self.link_for(shard, asker.lane) {
            Ok(link) => {
                let number = client_number(self, &asker);
                if let Some(link) = self.links.get_mut(link) {
                    link.outgoing().push_owned(buffer);
                }
                self.sent(&asker, link, number, 0, Waiter::Client);
            }
            Err(error) => self.answer_error(&asker, &error),
        }
        None
    }

    /// Every route but the plain one, and that one for clients with connections of their own.
    pub(crate) fn perform(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
        route: Route,
        request: &Request<'_>,
    ) -> Taken {
        let now_ms = self.now_ms;
        let generation = self.clients.generation(slot);
        let is_last_in = matches!(route, Route::Local(Local::Exec)) && self.exec_waits(slot);
        let passes = match route {
            Route::Local(local) if kind_subscribed(local).is_some() => {
                self.pending_subscriptions(slot)
            }
            _ => 0,
        };
        let Some(client) = self.clients.get_mut(slot) else {
            return Taken::Yes;
        };
        if (is_last_in || needs_barrier(&route)) && client.replies.waiting() > passes {
            client.intake = Intake::Barrier;
            return Taken::NotYet;
        }
        if matches!(route, Route::Local(Local::Publish | Local::Spublish))
            && self.holds_publication(slot)
        {
            return Taken::NotYet;
        }
        let Some(client) = self.clients.get_mut(slot) else {
            return Taken::Yes;
        };
        let (keyspace, lane) = (client.keyspace as usize, client.lane());
        let shares = client.care & care::TRACKED == 0;
        if let Some(full) = self.full_link(keyspace, lane, &route).filter(|_| shares) {
            return self.hold_back(slot, full);
        }
        let Some(client) = self.clients.get_mut(slot) else {
            return Taken::Yes;
        };
        let asker = &admitted(client, slot, generation, spec, now_ms);
        self.stats()
            .keyspace(asker.keyspace, PerKeyspace::Requests, 1);
        self.keep_early(
            asker,
            match route {
                // What follows the name may be a password.
                Route::Local(Local::Auth | Local::Hello | Local::AclSetuser) | Route::Refuse(_) => {
                    name_alone(request)
                }
                _ => request.data,
            },
        );
        let is_write = spec
            .is_some_and(|spec| spec.flags & flags::WRITE != 0 || spec.policy == Policy::Settings);
        if let (Route::AllShards(_) | Route::AllKeys(_) | Route::Settings, true, Some(out)) =
            (&route, is_write, self.ejected_shard(keyspace))
        {
            let shard = self.shard_name(out);
            self.answer_error(asker, &ClientError::ShardEjected { shard });
            return Taken::Yes;
        }
        self.carry_out(asker, spec, route, request);
        Taken::Yes
    }

    /// One arm for each kind of route.
    fn carry_out(
        &mut self,
        asker: &Asker,
        spec: Option<&'static CommandSpec>,
        route: Route,
        request: &Request<'_>,
    ) {
        match route {
            Route::Shard(shard) => {
                let shard = self.shard_number(asker, shard);
                match self.link_of(asker, shard) {
                    Ok(link) => {
                        self.say_caching(asker, link);
                        self.send_plain(asker, link, request.data);
                    }
                    Err(error) => self.shard_refused(asker, shard, &error),
                }
            }
            Route::Script { shard, body, sha } => {
                self.send_script(asker, shard, body, sha, request)
            }
            Route::Split { step, merge } => self.split(asker, step, merge, request),
            Route::AllShards(Merge::Info) => {
                let sections = (1..request.args.len())
                    .map(|index| request.arg(index).to_vec())
                    .collect();
                self.send_all(asker, GatherKind::Info { sections }, request.data);
            }
            Route::AllShards(Merge::Texts) => {
                let shards = self.shards_in(asker.keyspace).into_iter();
                let shards = shards.map(|shard| self.shard_name(self.shard_number(asker, shard)));
                let shards = shards.collect();
                self.send_all(asker, GatherKind::Texts { shards }, request.data);
            }
            Route::AllShards(Merge::And) => {
                let known = self.known_scripts(request);
                self.send_all(asker, GatherKind::Known(known), request.data);
            }
            Route::AllShards(merge) => self.ask_all(asker, merge, request.data),
            Route::AllKeys(what) => self.all_keys(asker, what, request),
            Route::AnyShard => self.send_any(asker, request.data),
            Route::Scan => self.scan(asker, request),
            Route::Settings => self.set_settings(asker, request),
            Route::ScriptLoad | Route::ScriptFlush => self.send_scripts(asker, &route, request),
            Route::Aside(merge) => self.send_aside(asker, merge, request),
            Route::Wait => self.wait(asker, request),
            Route::Blocking => self.block(asker, request),
            Route::Streams => self.read_streams(asker, request),
            Route::CrossShard => {
                if let Some(spec) = spec {
                    self.cross_shard(asker, spec, request);
                }
            }
            Route::Local(local) => {
                self.stats().keyspace(asker.keyspace, PerKeyspace::Local, 1);
                self.local(asker, local, request);
            }
            Route::Refuse(error) => self.answer_error(asker, &error),
        }
    }

    /// SCRIPT LOAD and FLUSH.
    fn send_scripts(&mut self, asker: &Asker, route: &Route, request: &Request<'_>) {
        let shards = self.shards_in(asker.keyspace);
        let kind = if *route == Route::ScriptLoad {
            let body: Arc<[u8]> = request.arg(2).into();
            GatherKind::Load { body, shards }
        } else {
            self.forget_scripts();
            let merge = Merge::AllOk;
            GatherKind::Everywhere { merge, shards }
        };
        self.send_all(asker, kind, request.data);
    }

    /// Answers at once (in its turn) with what `write` writes.
    pub(crate) fn answer(&mut self, asker: &Asker, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(captured) = &mut self.captured {
            return write(captured);
        }
        self.touch_client(asker.slot);
        if let Some(client) = self.clients.get_mut(asker.slot) {
            client.replies.local(asker.mute, write);
        }
        self.after_request(asker.slot);
    }

    /// Answers with an error of ours.
    pub(crate) fn answer_error(&mut self, asker: &Asker, error: &ClientError) {
        if *error == ClientError::Http {
            return self.refuse_client(asker.slot, error, CloseReason::Http);
        }
        self.stats()
            .keyspace(asker.keyspace, PerKeyspace::Refused, 1);
        let mut line = Vec::new();
        self.write_error(asker.keyspace, error, &mut line);
        self.answer(asker, |out| out.extend_from_slice(&line));
    }

    #[inline]
    pub(crate) fn shard_number(&self, asker: &Asker, shard: u16) -> usize {
        self.topology.keyspaces[asker.keyspace].first_shard + shard as usize
    }

    /// The path of nearly all requests: one place taken, bytes to one link, one entry in its queue.
    #[inline]
    fn send_plain(&mut self, asker: &Asker, link: u32, data: &[u8]) {
        let number = client_number(self, asker);
        let head = self.keep_head(asker.place(number), data);
        self.send(link, data);
        self.await_reply(asker, link, number, head, Waiter::Client);
    }

    #[cold]
    fn shard_refused(&mut self, asker: &Asker, shard: usize, error: &ClientError) {
        self.stats().shard(shard, PerShard::Failed, 1);
        self.answer_error(asker, error);
    }

    /// Keeps the beginning of a request that takes this place, in case its reply is late. The head's number.
    #[inline]
    fn keep_head(&mut self, place: Place, data: &[u8]) -> u16 {
        if self.slow.least_us == u32::MAX {
            return NO_HEAD;
        }
        if self.slow.heads.comes_round() {
            self.rescue_heads();
        }
        self.slow.heads.keep(place, data)
    }

    /// The same before the request has taken a place: its `sign` comes later, if it takes one.
    fn keep_early(&mut self, asker: &Asker, data: &[u8]) {
        self.keep_head(asker.place(0), data);
        self.slow.heads.wait_for_place();
    }

    /// Copies bytes to what a link has to write.
    #[inline]
    pub(crate) fn send(&mut self, link: u32, data: &[u8]) {
        if let Some(link) = self.links.get_mut(link) {
            link.outgoing().push(data);
        }
    }

    /// Notes who waits for the reply to what was just sent, and looks at the bounds.
    pub(crate) fn sent(
        &mut self,
        asker: &Asker,
        link_id: u32,
        number: u32,
        part: u16,
        waiter: Waiter,
    ) {
        let part = match waiter {
            Waiter::Client | Waiter::Again => self.slow.heads.sign(asker.place(number)),
            _ => part,
        };
        self.await_reply(asker, link_id, number, part, waiter);
    }

    /// As `sent`, where the head of a client's request is known.
    #[inline]
    fn await_reply(&mut self, asker: &Asker, link_id: u32, number: u32, part: u16, waiter: Waiter) {
        let (now_us, now_ms) = (self.now_us, self.now_ms);
        let Some(link) = self.links.get_mut(link_id) else {
            return;
        };
        let entry = InFlight {
            client: asker.slot,
            generation: asker.generation,
            number,
            sent_us: now_us as u32,
            part,
            waiter,
        };
        link.await_reply(entry, now_ms);
        let shard = link.shard;
        let is_full = link.waiting() > LINK_OUT_HIGH || link.queue.len() > LINK_QUEUE_HIGH;
        if !link.dirty {
            link.dirty = true;
            self.dirty_links.push(link_id);
        }
        self.stats().shard(shard, PerShard::Sent, 1);
        let Some(client) = self.clients.get_mut(asker.slot) else {
            return;
        };
        if client.intake != Intake::Open {
            return;
        }
        if is_full {
            client.intake = Intake::Link(link_id);
            if let Some(link) = self.links.get_mut(link_id) {
                link.blocked.push((asker.slot, asker.generation));
            }
        } else if client.replies.waiting() >= client.window as usize {
            client.intake = Intake::InFlight;
        }
    }

    /// After an answer of our own: the same bounds.
    fn after_request(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        if client.intake != Intake::Open {
            return;
        }
        if client.replies.waiting() >= client.window as usize {
            client.intake = Intake::InFlight;
        } else if client.replies.bytes() > OUTPUT_HIGH {
            self.piled_up(slot);
        }
    }

    /// Takes a place for a reply that is put together; None when the client is gone.
    pub(crate) fn reserve_gather(&mut self, asker: &Asker, mut gather: Box<Gather>) -> u32 {
        gather.began_us = self.now_us as u32;
        let Some(client) = self.clients.get_mut(asker.slot) else {
            return 0;
        };
        let number = client.replies.next_number();
        gather.head = self.slow.heads.sign(asker.place(number));
        client.replies.reserve_gather(asker.mute, gather)
    }
}

/// Notes that a client's request is being done.
#[inline]
fn admitted(
    client: &mut Client,
    slot: u32,
    generation: u32,
    spec: Option<&'static CommandSpec>,
    now_ms: u64,
) -> Asker {
    client.request_ms = now_ms;
    client.last_command = spec.map_or("unknown", |spec| spec.full_name);
    Asker {
        slot,
        generation,
        keyspace: client.keyspace as usize,
        lane: client.lane(),
        mute: client.is_muted(),
    }
}

/// A request up to the end of its first argument.
fn name_alone<'a>(request: &Request<'a>) -> &'a [u8] {
    let end = request.args.first().map_or(0, |arg| arg.start + arg.len);
    request.data.get(..end as usize).unwrap_or_default()
}

/// Takes the client's next place.
#[inline]
pub(crate) fn client_number(engine: &mut Engine, asker: &Asker) -> u32 {
    engine
        .clients
        .get_mut(asker.slot)
        .map_or(0, |client| client.replies.reserve(asker.mute))
}

/// The request changes how the connection is used, or needs everything before it to be done.
fn needs_barrier(route: &Route) -> bool {
    match route {
        Route::Wait => true,
        Route::Local(local) => matches!(
            local,
            Local::Select
                | Local::Hello
                | Local::Reset
                | Local::Auth
                | Local::Watch
                | Local::Unwatch
                | Local::Subscribe
                | Local::Unsubscribe
                | Local::Psubscribe
                | Local::Punsubscribe
                | Local::Ssubscribe
                | Local::Sunsubscribe
                | Local::ClientTracking
                | Local::Monitor
        ),
        Route::AllKeys(AllKeys::Flush | AllKeys::FlushAll) => true,
        Route::Blocking | Route::CrossShard => true,
        Route::Shard(_)
        | Route::Script { .. }
        | Route::Split { .. }
        | Route::AllShards(_)
        | Route::AllKeys(_)
        | Route::Settings
        | Route::AnyShard
        | Route::Aside(_)
        | Route::Scan
        | Route::Streams
        | Route::ScriptLoad
        | Route::ScriptFlush
        | Route::Refuse(_) => false,
    }
}
