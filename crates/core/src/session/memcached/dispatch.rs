//! Doing what the router decided for a memcached request: as `session::dispatch`, for the other protocol.
//!
//! Owns: the way from a whole request to bytes in the right links' `out`.
//!
//! Flow: `text_request` -> `decide` -> one arm for each `TextRoute`. One shard: the client's bytes as they are. Several: a line
//! for each, of the client's own words, and one `Gather`.
//!
//! Must stay true: each request takes exactly one place in the client's `Replies`; each request in a link's output has
//! exactly one reply. A quiet request may have none, so `mn` goes behind it and its answer ends the wait: what the server
//! hides is then hidden as that server does it, whatever its version.

use crate::error::ClientError;
use crate::protocol::memcached::command::{Shape, TextCommand};
use crate::protocol::memcached::line;
use crate::protocol::memcached::request::{bytes, Word};
use crate::routing::memcached::{decide, TextRoute};
use crate::routing::placement::Map;
use crate::session::backend::Waiter;
use crate::session::client::Intake;
use crate::session::dispatch::{client_number, Asker, Taken};
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use crate::session::memcached::merge::TextMerge;
use crate::session::stats::{CloseReason, PerKeyspace, PerShard};

/// A shard that none of a request's keys is on.
const NO_PART: u16 = u16::MAX;

/// A whole request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TextRequest<'a> {
    pub data: &'a [u8],
    /// Length of its line, without line end.
    pub line: usize,
    /// Where its data begins.
    pub block: usize,
    /// Words of the line that a shard is sent.
    pub words: &'a [Word],
    pub command: &'static TextCommand,
    /// The client wants no reply, or (meta commands) not every one.
    pub is_mute: bool,
    /// The line is not sent as it is.
    pub is_rewritten: bool,
}

impl TextRequest<'_> {
    /// The server says itself which replies are not given.
    fn is_quiet(&self) -> bool {
        self.is_mute && matches!(self.command.shape, Shape::Meta | Shape::MetaStore)
    }
}

impl Engine {
    /// Who asks, noted as such; None when the client is gone.
    pub(crate) fn text_asker(
        &mut self,
        slot: u32,
        name: &'static str,
        mute: bool,
    ) -> Option<Asker> {
        let generation = self.clients.generation(slot);
        let now_ms = self.now_ms;
        let client = self.clients.get_mut(slot)?;
        client.request_ms = now_ms;
        client.last_command = name;
        Some(Asker {
            slot,
            generation,
            keyspace: client.keyspace as usize,
            lane: client.lane(),
            mute,
        })
    }

    /// Does a whole request of a client.
    #[inline]
    pub(crate) fn text_request(&mut self, slot: u32, request: &TextRequest<'_>) -> Taken {
        let Some(client) = self.clients.get_mut(slot) else {
            return Taken::Yes;
        };
        let keyspace = client.keyspace as usize;
        let lane = client.lane();
        let map = Map {
            keyspace: &self.topology.keyspaces[keyspace],
            admission: &self.admissions[keyspace],
        };
        let route = decide(
            &map,
            request.command,
            request.data,
            request.words,
            &mut self.scratch,
        );
        if let TextRoute::Shard(shard) = route {
            return self.text_to_shard(slot, keyspace, lane, shard, request);
        }
        if let Some(full) = self.full_text_link(keyspace, lane, route) {
            return self.hold_back(slot, full);
        }
        let is_muted = request.is_mute && !request.is_quiet();
        let Some(asker) = self.text_asker(slot, request.command.name, is_muted) else {
            return Taken::Yes;
        };
        self.stats().keyspace(keyspace, PerKeyspace::Requests, 1);
        match route {
            TextRoute::Shard(_) => {}
            TextRoute::Split(first) => self.split_text(&asker, first, request),
            TextRoute::AllShards => self.text_to_all(&asker, request),
            TextRoute::AnyShard => self.send_any(&asker, line::VERSION),
            TextRoute::Nothing => self.text_answer(&asker, line::NOTHING_ANSWER),
            TextRoute::NoKeys => self.text_answer(&asker, line::END),
            TextRoute::Quit => self.text_quit(slot),
            TextRoute::NoRange(index) => {
                let key = request
                    .words
                    .get(index)
                    .map_or(&b""[..], |word| bytes(request.data, *word));
                self.answer_error(&asker, &ClientError::NoRange(key.to_vec()));
            }
            TextRoute::Refuse => {
                self.stats().keyspace(keyspace, PerKeyspace::Refused, 1);
                let words = &request.data[..request.line];
                self.answer(&asker, |out| line::refused(out, words));
            }
        }
        Taken::Yes
    }

    fn full_text_link(&self, keyspace: usize, lane: usize, route: TextRoute) -> Option<u32> {
        let space = &self.topology.keyspaces[keyspace];
        let full = |shard: u16| self.full_link_of(space.first_shard + shard as usize, lane);
        match route {
            TextRoute::Shard(shard) => full(shard),
            TextRoute::Split(_) => self.scratch.shards.iter().find_map(|&shard| full(shard)),
            TextRoute::AllShards => (0..space.shards.len() as u16).find_map(full),
            TextRoute::AnyShard
            | TextRoute::Nothing
            | TextRoute::NoKeys
            | TextRoute::Quit
            | TextRoute::NoRange(_)
            | TextRoute::Refuse => None,
        }
    }

    fn text_answer(&mut self, asker: &Asker, line: &[u8]) {
        self.stats().keyspace(asker.keyspace, PerKeyspace::Local, 1);
        self.answer(asker, |out| out.extend_from_slice(line));
    }

    fn text_quit(&mut self, slot: u32) {
        if let Some(client) = self.clients.get_mut(slot) {
            client.intake = Intake::Closing;
            client.reason = Some(CloseReason::Quit);
            // The caller writes what there is, then it is closed.
            self.touch_client(slot);
            self.settle_client(slot);
        }
    }

    /// The path of nearly all requests.
    #[inline]
    fn text_to_shard(
        &mut self,
        slot: u32,
        keyspace: usize,
        lane: usize,
        shard: u16,
        request: &TextRequest<'_>,
    ) -> Taken {
        let shard = self.topology.keyspaces[keyspace].first_shard + shard as usize;
        let link = self.link_for(shard, lane);
        if let Some(full) = link.as_ref().ok().filter(|link| self.is_full(**link)) {
            return self.hold_back(slot, *full);
        }
        let is_muted = request.is_mute && !request.is_quiet();
        let Some(asker) = self.text_asker(slot, request.command.name, is_muted) else {
            return Taken::Yes;
        };
        self.stats().keyspace(keyspace, PerKeyspace::Requests, 1);
        match link {
            Ok(link) => self.send_text(&asker, shard, link, request),
            Err(error) => {
                self.stats().shard(shard, PerShard::Failed, 1);
                self.answer_error(&asker, &error);
            }
        }
        Taken::Yes
    }

    #[inline]
    fn send_text(&mut self, asker: &Asker, shard: usize, link: u32, request: &TextRequest<'_>) {
        if request.command.is_meta() && self.is_unfit_for_meta(asker, shard, link) {
            return;
        }
        let number = client_number(self, asker);
        if request.is_rewritten {
            self.send_rewritten(link, request);
        } else {
            self.send(link, request.data);
        }
        let waiter = if request.is_quiet() {
            self.send(link, line::NOTHING);
            Waiter::Quiet
        } else {
            Waiter::Client
        };
        self.sent(asker, link, number, 0, waiter);
    }

    /// A server that does not know the command would take its data for requests. Refuses it; or notes it, when it is not
    /// known yet what server this is.
    fn is_unfit_for_meta(&mut self, asker: &Asker, shard: usize, link: u32) -> bool {
        if self.backends[shard].lacks_meta {
            let (name, version) = (self.shard_name(shard), self.backends[shard].version.clone());
            self.answer(asker, |out| line::too_old(out, &name, &version));
            return true;
        }
        if let Some(link) = self.links.get_mut(link) {
            link.holds_meta |= !link.was_ready();
        }
        false
    }

    /// The words that are to be sent, and the data.
    fn send_rewritten(&mut self, link: u32, request: &TextRequest<'_>) {
        let Some(link) = self.links.get_mut(link) else {
            return;
        };
        let out = link.outgoing();
        push_words(out.tail(), request, request.words);
        out.push(&request.data[request.block..]);
    }

    /// A request that owns its buffer: moved to its shard. Else the buffer is given back.
    pub(crate) fn text_giant(
        &mut self,
        slot: u32,
        buffer: Vec<u8>,
        command: &'static TextCommand,
        words: &[Word],
    ) -> Option<Vec<u8>> {
        let client = self.clients.get_mut(slot)?;
        let (keyspace, lane) = (client.keyspace as usize, client.lane());
        let map = Map {
            keyspace: &self.topology.keyspaces[keyspace],
            admission: &self.admissions[keyspace],
        };
        let route = decide(&map, command, &buffer, words, &mut self.scratch);
        let TextRoute::Shard(shard) = route else {
            return Some(buffer);
        };
        if self.full_text_link(keyspace, lane, route).is_some() {
            return Some(buffer);
        }
        let asker = self.text_asker(slot, command.name, false)?;
        self.stats().keyspace(keyspace, PerKeyspace::Requests, 1);
        let shard = self.shard_number(&asker, shard);
        match self.link_for(shard, asker.lane) {
            Ok(link) => {
                if command.is_meta() && self.is_unfit_for_meta(&asker, shard, link) {
                    return None;
                }
                let number = client_number(self, &asker);
                if let Some(link) = self.links.get_mut(link) {
                    link.outgoing().push_owned(buffer);
                }
                self.sent(&asker, link, number, 0, Waiter::Client);
            }
            Err(error) => {
                self.stats().shard(shard, PerShard::Failed, 1);
                self.answer_error(&asker, &error);
            }
        }
        None
    }

    /// A line for each shard, with its keys in the client's order.
    fn split_text(&mut self, asker: &Asker, first: usize, request: &TextRequest<'_>) {
        self.stats().keyspace(asker.keyspace, PerKeyspace::Split, 1);
        let places = std::mem::take(&mut self.scratch.shards);
        // One pass over the keys, however many shards there are: a line may have 500,000 of them.
        let count = self.topology.keyspaces[asker.keyspace].shards.len();
        let mut part_of = vec![NO_PART; count];
        let mut shards: Vec<u16> = Vec::with_capacity(8);
        let mut order: Vec<u16> = Vec::with_capacity(places.len());
        for &shard in &places {
            let part = &mut part_of[shard as usize];
            if *part == NO_PART {
                *part = shards.len() as u16;
                shards.push(shard);
            }
            order.push(*part);
        }
        self.scratch.shards = places;
        let Some(links) = self.text_links(asker, shards.into_iter()) else {
            return;
        };
        self.stats()
            .keyspace(asker.keyspace, PerKeyspace::Fragments, links.len() as i64);
        let keys = &request.words[first..];
        for &link in &links {
            if let Some(link) = self.links.get_mut(link) {
                let out = link.outgoing().tail();
                out.extend_from_slice(request.command.name.as_bytes());
                for word in &request.words[1..first] {
                    out.push(b' ');
                    out.extend_from_slice(bytes(request.data, *word));
                }
            }
        }
        for (word, &part) in keys.iter().zip(&order) {
            if let Some(link) = self.links.get_mut(links[part as usize]) {
                let out = link.outgoing().tail();
                out.push(b' ');
                out.extend_from_slice(bytes(request.data, *word));
            }
        }
        for &link in &links {
            if let Some(link) = self.links.get_mut(link) {
                link.outgoing().tail().extend_from_slice(b"\r\n");
            }
        }
        let keys = keys
            .iter()
            .zip(order)
            .map(|(word, part)| (bytes(request.data, *word).into(), part));
        let merge = TextMerge::Values(keys.collect());
        self.await_text(asker, merge, &links);
    }

    /// The same line to every shard.
    fn text_to_all(&mut self, asker: &Asker, request: &TextRequest<'_>) {
        let word = request.words.get(1).map(|word| bytes(request.data, *word));
        let merge = match (request.command.shape, word) {
            (Shape::Stats, None) => TextMerge::Counters,
            (Shape::Stats, Some(b"settings")) => TextMerge::Settings,
            _ => TextMerge::Same,
        };
        if request.command.shape == Shape::Flush {
            if let Some(out) = self.ejected_shard(asker.keyspace) {
                let shard = self.shard_name(out);
                return self.answer_error(asker, &ClientError::ShardEjected { shard });
            }
        }
        let shards = self.shards_in(asker.keyspace);
        let Some(links) = self.text_links(asker, shards.into_iter()) else {
            return;
        };
        for &link in &links {
            if let Some(link) = self.links.get_mut(link) {
                push_words(link.outgoing().tail(), request, request.words);
            }
        }
        self.await_text(asker, merge, &links);
    }

    /// Links to all of the shards, or the answer that one is down: then nothing is sent to anybody.
    fn text_links(&mut self, asker: &Asker, shards: impl Iterator<Item = u16>) -> Option<Vec<u32>> {
        let mut links = Vec::new();
        for shard in shards {
            let shard = self.shard_number(asker, shard);
            match self.link_for(shard, asker.lane) {
                Ok(link) => links.push(link),
                Err(error) => {
                    self.stats().shard(shard, PerShard::Failed, 1);
                    self.answer_error(asker, &error);
                    return None;
                }
            }
        }
        Some(links)
    }

    fn await_text(&mut self, asker: &Asker, merge: TextMerge, links: &[u32]) {
        let number = self.reserve_gather(asker, Gather::new(GatherKind::Text(merge), links.len()));
        for (part, &link) in links.iter().enumerate() {
            self.sent(asker, link, number, part as u16, Waiter::Part);
        }
    }
}

fn push_words(out: &mut Vec<u8>, request: &TextRequest<'_>, words: &[Word]) {
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(bytes(request.data, *word));
    }
    out.extend_from_slice(b"\r\n");
}
