//! Client-side caching: CLIENT TRACKING, CACHING, TRACKINGINFO and GETREDIR.
//!
//! Owns: `Tracking`, what one client has asked for, and its change by these commands. The options are read in
//! `tracking_options`. The connections by which the shards
//! know what the client reads are in `tracking_links`, the way of what they tell in `invalidation`.
//!
//! Flow: CLIENT TRACKING ON is checked as a server checks it -> a client to redirect to is looked for in every worker ->
//! connections that are there are told the new options, and where everything is to be told one is opened to each shard
//! -> OK. From then on the gate gives every request of the client to `tracked`.
//!
//! Must stay true: a client is told OK only when every shard that is up does what was asked; what is tracked is read on
//! a connection that the shard knows to be tracked, and on no other.
//! Rejected: one tracking connection for all clients of a worker, in BCAST mode over everything: each write of anybody
//! would come to every worker, and a shard could not tell who had read what.

use crate::error::ClientError;
use crate::protocol::command::{CommandSpec, Local, Policy};
use crate::protocol::encode::{self, Proto};
use crate::protocol::errand;
use crate::protocol::request::strict_integer;
use crate::routing::route::{decide, Request};
use crate::session::backend::Waiter;
use crate::session::client::care;
use crate::session::dispatch::{Asker, Taken};
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use crate::session::mail::{Mail, Ticket};
use crate::session::stats::PerKeyspace;
use crate::session::tracking_options::{
    fits_bounds, overlap, overlapping, read_options, Mode, Options, NO_REDIRECT,
};
use std::collections::{BTreeSet, HashMap, HashSet};

/// The client that is told instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// CLIENT ID.
    pub id: u64,
    /// The worker that has it.
    pub worker: usize,
    /// Its place there.
    pub slot: u32,
    /// See `slot`.
    pub generation: u32,
    /// It was gone when there was something to tell.
    pub is_broken: bool,
}

/// See the head of this file.
#[derive(Debug, Clone)]
pub struct Tracking {
    pub(crate) mode: Mode,
    no_loop: bool,
    pub(crate) redirect: Option<Redirect>,
    prefixes: BTreeSet<Vec<u8>>,
    /// CLIENT CACHING was said, for the next request.
    is_caching_said: bool,
    /// The tracked connections, by shard and lane.
    pub(crate) links: HashMap<(usize, usize), u32>,
    /// Where a shard tells what was read in RESP2, by shard.
    pub(crate) feeds: HashMap<usize, u32>,
    /// Where everything is to be told: shards that may have had something to tell and no connection for it.
    pub(crate) missed: HashSet<usize>,
}

/// What a worker has in hand for its tracked clients.
#[derive(Debug, Default)]
pub(crate) struct Trackers {
    /// (client, generation): those that want a connection to a shard on which they are told of everything.
    pub wanting: Vec<(u32, u32)>,
    /// What shards are told ahead of the request that is being done: whether its keys are tracked.
    pub caching: Option<&'static [u8]>,
}

impl Tracking {
    /// The request that makes a new connection do all of it.
    pub(crate) fn opening(&self, feed: Option<u64>) -> Vec<u8> {
        // The empty prefix is the one of all keys; beside it a server would take no other.
        let is_all = self.prefixes.contains([].as_slice());
        let prefixes = self.prefixes.iter().filter(|_| !is_all).cloned().collect();
        let options = Options {
            mode: self.mode,
            no_loop: self.no_loop,
            prefixes,
        };
        options.request(feed)
    }
}

impl Engine {
    /// CLIENT TRACKING, CACHING, TRACKINGINFO, GETREDIR.
    pub(crate) fn tracking(&mut self, asker: &Asker, local: Local, request: &Request<'_>) {
        match local {
            Local::ClientTracking => self.set_tracking(asker, request),
            Local::ClientCaching => self.set_caching(asker, request),
            Local::ClientGetredir => {
                let id = self.redirect_id(asker.slot);
                self.answer(asker, |out| encode::integer(out, id));
            }
            _ => self.tracking_info(asker),
        }
    }

    /// What a client has asked for, if its reads are tracked.
    pub(crate) fn tracking_of(&self, slot: u32) -> Option<&Tracking> {
        let particulars = self.clients.get(slot)?.particulars.as_deref()?;
        particulars.tracking.as_deref()
    }

    pub(crate) fn tracking_mut(&mut self, slot: u32) -> Option<&mut Tracking> {
        let particulars = self.clients.get_mut(slot)?.particulars.as_deref_mut()?;
        particulars.tracking.as_deref_mut()
    }

    /// As servers tell it: 0 is nobody else, -1 is not tracked.
    pub(crate) fn redirect_id(&self, slot: u32) -> i64 {
        self.tracking_of(slot).map_or(-1, |tracking| {
            tracking.redirect.map_or(0, |redirect| redirect.id as i64)
        })
    }

    /// The letters of CLIENT LIST.
    pub(crate) fn tracking_letters(&self, slot: u32) -> String {
        let Some(tracking) = self.tracking_of(slot) else {
            return String::new();
        };
        let mut letters = String::from("t");
        if tracking.redirect.is_some_and(|redirect| redirect.is_broken) {
            letters.push('R');
        }
        if tracking.mode == Mode::Broadcast {
            letters.push('B');
        }
        letters
    }

    fn set_tracking(&mut self, asker: &Asker, request: &Request<'_>) {
        let read = match read_options(request) {
            Ok(read) => read,
            Err(error) => return self.answer_error(asker, &error),
        };
        let Some((options, redirect)) = read else {
            self.forget_tracking(asker.slot);
            return self.answer(asker, |out| encode::simple(out, "OK"));
        };
        if let Err(error) = self.fits_tracking(asker.slot, &options) {
            return self.answer_error(asker, &error);
        }
        if redirect != 0 {
            let keyspace = asker.keyspace as u16;
            let kind = GatherKind::Tracking(TrackingStep::Redirect(options, redirect));
            self.ask_workers(asker, kind, |ticket| Mail::FindClient {
                ticket,
                keyspace,
                id: redirect,
            });
            return self.hold_requests(asker.slot);
        }
        match self.take_options(asker, &options, None) {
            Err(error) => self.answer_error(asker, &error),
            Ok(parts) if parts.is_empty() => self.answer(asker, |out| encode::simple(out, "OK")),
            Ok(parts) => {
                let number = self.reserve_gather(asker, awaiting(&parts));
                self.tell_links(asker, number, &parts);
                self.hold_requests(asker.slot);
            }
        }
    }

    /// Later requests travel on other connections than those before, or not before it is known that they may.
    fn hold_requests(&mut self, slot: u32) {
        if let Some(client) = self.clients.get_mut(slot) {
            if client.replies.waiting() > 0 {
                client.raise_barrier();
            }
        }
    }

    /// Whether options fit what the client has asked for before, in a server's words if not.
    fn fits_tracking(&self, slot: u32, options: &Options) -> Result<(), ClientError> {
        let Some(tracking) = self.tracking_of(slot) else {
            return fits_bounds(options, 0, 0);
        };
        let is_broadcast = |mode| mode == Mode::Broadcast;
        if is_broadcast(tracking.mode) != is_broadcast(options.mode) {
            return Err(ClientError::Words(OTHER_BCAST));
        }
        if matches!(
            (tracking.mode, options.mode),
            (Mode::OptIn, Mode::OptOut) | (Mode::OptOut, Mode::OptIn)
        ) {
            return Err(ClientError::Words(OTHER_OPT));
        }
        for prefix in &options.prefixes {
            let clash = tracking.prefixes.iter().find(|old| overlap(old, prefix));
            if let Some(old) = clash {
                return Err(overlapping(prefix, "an existing", old));
            }
        }
        let bytes = tracking.prefixes.iter().map(Vec::len).sum();
        fits_bounds(options, tracking.prefixes.len(), bytes)
    }

    /// Takes the options. Gives what must be answered before the client may be told OK; with an error nothing is tracked.
    pub(crate) fn take_options(
        &mut self,
        asker: &Asker,
        options: &Options,
        redirect: Option<Redirect>,
    ) -> Result<Vec<Told>, ClientError> {
        self.end_untracked_watch(asker.slot);
        let Some(client) = self.clients.get_mut(asker.slot) else {
            return Ok(Vec::new());
        };
        let was_blind = client.proto == Proto::Resp2;
        let particulars = client.particulars();
        let is_new = particulars.tracking.is_none();
        let tracking = particulars.tracking.get_or_insert_with(|| {
            Box::new(Tracking {
                mode: options.mode,
                no_loop: options.no_loop,
                redirect,
                prefixes: BTreeSet::new(),
                is_caching_said: false,
                links: HashMap::new(),
                feeds: HashMap::new(),
                missed: HashSet::new(),
            })
        });
        let was_blind = was_blind && !is_new && tracking.redirect.is_none();
        tracking.mode = options.mode;
        tracking.no_loop = options.no_loop;
        tracking.redirect = redirect;
        tracking.prefixes.extend(options.prefixes.iter().cloned());
        if options.mode == Mode::Broadcast && options.prefixes.is_empty() {
            tracking.prefixes.insert(Vec::new());
        }
        client.take_care(care::TRACKED, true);
        if is_new {
            self.stats()
                .keyspace(asker.keyspace, PerKeyspace::Tracking, 1);
        }
        let mut told = self.links_to_tell(asker.slot, options);
        if options.mode == Mode::Broadcast {
            if let Err(error) = self.open_broadcasts(asker, &mut told) {
                self.forget_tracking(asker.slot);
                return Err(error);
            }
        }
        if was_blind {
            // What it read before was read where no shard remembers it.
            self.invalidate_all(asker.slot);
        }
        Ok(told)
    }

    /// Those who had to answer have. True when there are more of them.
    pub(crate) fn go_on_tracking(
        &mut self,
        asker: &Asker,
        number: u32,
        step: &TrackingStep,
        parts: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> bool {
        match step {
            TrackingStep::Redirect(options, id) => {
                self.redirect_found(asker, number, (options, *id), parts, out)
            }
            TrackingStep::Told(shards) => {
                self.compose_tracking(asker, shards, parts, out);
                false
            }
        }
    }

    /// Every worker has said whether it has the client to redirect to. True when shards have to answer first.
    fn redirect_found(
        &mut self,
        asker: &Asker,
        number: u32,
        (options, id): (&Options, u64),
        parts: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> bool {
        let found = parts.iter().enumerate().find_map(|(worker, part)| {
            let mut words = part.split(|&byte| byte == b' ').map(strict_integer);
            let (slot, generation) = (words.next()??, words.next()??);
            Some(Redirect {
                id,
                worker,
                slot: slot as u32,
                generation: generation as u32,
                is_broken: false,
            })
        });
        if found.is_none() {
            ClientError::Words(NO_REDIRECT).write(out);
            return false;
        }
        match self.take_options(asker, options, found) {
            Err(error) => error.write(out),
            Ok(told) if told.is_empty() => encode::simple(out, "OK"),
            Ok(told) => {
                if let Some(client) = self.clients.get_mut(asker.slot) {
                    client.replies.put_gather(number, awaiting(&told));
                }
                self.tell_links(asker, number, &told);
                return true;
            }
        }
        false
    }

    /// A worker is asked for a client: its place, if it is here.
    pub(crate) fn find_client(&mut self, ticket: Ticket, keyspace: u16, id: u64) {
        let found = self
            .clients
            .iter()
            .find(|(_, client)| client.id == id && client.keyspace == keyspace);
        let place = found.map(|(slot, _)| (slot, self.clients.generation(slot)));
        let text = place.map_or_else(String::new, |(slot, generation)| {
            format!("{slot} {generation}")
        });
        self.reply_to(ticket, text.into_bytes());
    }

    fn tell_links(&mut self, asker: &Asker, number: u32, parts: &[Told]) {
        for (index, part) in parts.iter().enumerate() {
            self.send(part.link, &part.request);
            self.sent(asker, part.link, number, index as u16, Waiter::Part);
        }
    }

    /// The shards have answered. A refusal ends the tracking; a shard that went away does not: what is read there is
    /// read on a new connection, which is told again.
    fn compose_tracking(
        &mut self,
        asker: &Asker,
        shards: &[usize],
        parts: &[&[u8]],
        out: &mut Vec<u8>,
    ) {
        let refusal = shards
            .iter()
            .zip(parts)
            .find(|(&shard, part)| part.starts_with(b"-") && self.is_up(shard));
        match refusal {
            Some((_, error)) => {
                self.forget_tracking(asker.slot);
                out.extend_from_slice(error);
            }
            None => encode::simple(out, "OK"),
        }
    }

    fn set_caching(&mut self, asker: &Asker, request: &Request<'_>) {
        let Some(tracking) = self.tracking_mut(asker.slot) else {
            return self.answer_error(asker, &ClientError::Words(CACHING_OFF));
        };
        let word = request.arg(2);
        let (is_yes, is_no) = (
            word.eq_ignore_ascii_case(b"YES"),
            word.eq_ignore_ascii_case(b"NO"),
        );
        let error = match tracking.mode {
            _ if !is_yes && !is_no => Some(ClientError::Syntax),
            Mode::OptIn if is_yes => None,
            Mode::OptOut if is_no => None,
            _ if is_yes => Some(ClientError::Words(CACHING_YES)),
            _ => Some(ClientError::Words(CACHING_NO)),
        };
        match error {
            Some(error) => self.answer_error(asker, &error),
            None => {
                tracking.is_caching_said = true;
                self.answer(asker, |out| encode::simple(out, "OK"));
            }
        }
    }

    fn tracking_info(&mut self, asker: &Asker) {
        let Some(client) = self.clients.get(asker.slot) else {
            return;
        };
        let proto = client.proto;
        let mut words: Vec<&[u8]> = Vec::new();
        let mut prefixes = Vec::new();
        match self.tracking_of(asker.slot) {
            None => words.push(b"off"),
            Some(tracking) => {
                words.push(b"on");
                let said = tracking.is_caching_said;
                match tracking.mode {
                    Mode::Read => {}
                    Mode::Broadcast => words.push(b"bcast"),
                    Mode::OptIn if said => words.extend([b"optin".as_slice(), b"caching-yes"]),
                    Mode::OptIn => words.push(b"optin"),
                    Mode::OptOut if said => words.extend([b"optout".as_slice(), b"caching-no"]),
                    Mode::OptOut => words.push(b"optout"),
                }
                if tracking.no_loop {
                    words.push(b"noloop");
                }
                if tracking.redirect.is_some_and(|redirect| redirect.is_broken) {
                    words.push(b"broken_redirect");
                }
                prefixes = tracking.prefixes.iter().cloned().collect();
            }
        }
        let redirect = self.redirect_id(asker.slot);
        self.answer(asker, |out| {
            encode::map(out, proto, 3);
            encode::bulk(out, b"flags");
            encode::set(out, proto, words.len());
            words.iter().for_each(|word| encode::bulk(out, word));
            encode::bulk(out, b"redirect");
            encode::integer(out, redirect);
            encode::bulk(out, b"prefixes");
            encode::array(out, prefixes.len());
            prefixes.iter().for_each(|prefix| encode::bulk(out, prefix));
        });
    }

    /// A request of a client whose reads are tracked: done as any other, but on the client's own connections.
    pub(crate) fn tracked(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
        request: &Request<'_>,
    ) -> Option<Taken> {
        let keyspace = self.clients.get(slot)?.keyspace as usize;
        let said = self
            .tracking_of(slot)
            .and_then(|tracking| match tracking.mode {
                Mode::OptIn if tracking.is_caching_said => Some(errand::CACHING_YES),
                Mode::OptOut if tracking.is_caching_said => Some(errand::CACHING_NO),
                _ => None,
            });
        let (_, route) = decide(
            &self.topology.keyspaces[keyspace],
            &self.admissions[keyspace],
            request,
            &mut self.scratch,
        );
        self.trackers.caching = said;
        let taken = self.perform(slot, spec, route, request);
        self.trackers.caching = None;
        let is_used = said.is_some() && taken == Taken::Yes && !is_about_clients(spec);
        let is_queueing = |care: u8| care & care::QUEUES != 0;
        // A transaction is one request.
        if is_used
            && !self
                .clients
                .get(slot)
                .is_some_and(|it| is_queueing(it.care))
        {
            if let Some(tracking) = self.tracking_mut(slot) {
                tracking.is_caching_said = false;
            }
        }
        Some(taken)
    }
}

/// What CLIENT TRACKING waits for.
#[derive(Debug, Clone)]
pub enum TrackingStep {
    /// Every worker, for whether it has the client of this number to redirect to.
    Redirect(Options, u64),
    /// These shards (numbered through the topology), for whether they do it.
    Told(Vec<usize>),
}

fn awaiting(told: &[Told]) -> Box<Gather> {
    let shards = told.iter().map(|part| part.shard).collect();
    Gather::new(GatherKind::Tracking(TrackingStep::Told(shards)), told.len())
}

/// What a connection is to be told.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub shard: usize,
    pub link: u32,
    pub request: Vec<u8>,
}

/// What stands between CLIENT CACHING and the request that it means, and is not that request.
fn is_about_clients(spec: Option<&'static CommandSpec>) -> bool {
    matches!(
        spec.map(|spec| spec.policy),
        Some(Policy::Local(
            Local::ClientId
                | Local::ClientSetname
                | Local::ClientGetname
                | Local::ClientSetinfo
                | Local::ClientInfo
                | Local::ClientList
                | Local::ClientKill
                | Local::ClientNoEvict
                | Local::ClientNoTouch
                | Local::ClientReply
                | Local::ClientGetredir
                | Local::ClientHelp
                | Local::ClientTracking
                | Local::ClientCaching
                | Local::ClientTrackinginfo
                | Local::ClientPause
                | Local::ClientUnpause
                | Local::ClientUnblock
        ))
    )
}

// Redis' own words.
const OTHER_BCAST: &str = "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.";
const OTHER_OPT: &str = "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.";
const CACHING_OFF: &str = "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled";
const CACHING_YES: &str =
    "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.";
const CACHING_NO: &str =
    "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.";
