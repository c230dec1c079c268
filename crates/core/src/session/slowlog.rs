//! SLOWLOG: requests to which a shard took long to answer.
//!
//! Owns: each keyspace's log in this worker, what counts as slow, and the three commands over all workers. How entries
//! become replies is in `slowlog_reply`.
//!
//! Flow: a reply begins -> `deliver` compares with `least_us`, the lowest threshold of all keyspaces -> `replied_late` -> for
//! a request to one shard an entry, for one to several a note in its `Gather`, which becomes an entry with the last part.
//!
//! Must stay true: the log is bounded; a request that waited because it was to wait is not slow; of what stood in line behind
//! a slow request little is logged: on a connection that all share, time counts from the reply before.
//! Rejected: the time from sending to the reply as the measure. One slow script would put every request behind it into the log,
//! and push itself out.

use crate::error::ClientError;
use crate::limits::{SLOWLOG_ENTRIES_MAX, SLOWLOG_RESCUE_PER_LINK};
use crate::protocol::command::{flags, lookup, Local};
use crate::protocol::encode;
use crate::protocol::errand;
use crate::protocol::request::strict_integer;
use crate::routing::route::Request;
use crate::routing::topology::{Keyspace, Protocol, SlowRules, Topology};
use crate::session::backend::{InFlight, Waiter};
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use crate::session::heads::{Heads, Place, NO_HEAD};
use crate::session::mail::{Mail, Ticket};
use crate::session::own_links::{Owner, Purpose};
use crate::session::slowlog_reply::{compose, first_word, shown, Form, Record};
use crate::session::stats::{PerKeyspace, PerShard};
use std::collections::VecDeque;

/// One slow request.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub id: u64,
    pub unix_us: u64,
    pub took_us: u64,
    pub args: Vec<u8>,
    pub peer: String,
    pub name: Vec<u8>,
    pub shard: String,
    pub shard_us: u64,
}

/// A keyspace's log in one worker.
#[derive(Debug)]
pub(crate) struct SlowLog {
    rules: SlowRules,
    /// Newest first.
    entries: VecDeque<Entry>,
    next: u64,
}

impl SlowLog {
    /// Nothing in it.
    pub fn new(space: &Keyspace) -> Self {
        Self {
            rules: match space.protocol {
                Protocol::Redis => space.slowlog,
                // Nobody could ask for it.
                Protocol::Memcached => SlowRules {
                    slower_than_us: -1,
                    length: 0,
                },
            },
            entries: VecDeque::new(),
            next: 0,
        }
    }
}

/// What a worker is asked about its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlowQuestion {
    /// Entries, newest first, so many at most.
    Get(usize, Form),
    /// How many there are.
    Len,
    /// To forget them.
    Reset,
    /// To go by other rules from now on.
    Rules(SlowRules),
}

/// All logs of this worker, and what they need.
#[derive(Debug)]
pub(crate) struct SlowLogs {
    /// Of each keyspace.
    logs: Vec<SlowLog>,
    /// The lowest threshold of them all, `u32::MAX` for none: a reply that comes so long after its request may be slow.
    pub least_us: u32,
    pub heads: Heads,
}

impl SlowLogs {
    /// Nothing in them.
    pub fn new(topology: &Topology) -> Self {
        let mut logs = Self {
            logs: topology.keyspaces.iter().map(SlowLog::new).collect(),
            least_us: u32::MAX,
            heads: Heads::default(),
        };
        logs.compare();
        logs
    }

    fn compare(&mut self) {
        let thresholds = self.logs.iter().filter_map(|log| log.rules.threshold_us());
        self.least_us = thresholds.min().unwrap_or(u32::MAX);
    }
}

impl Engine {
    /// SLOWLOG GET, LEN, RESET.
    pub(crate) fn slowlog(&mut self, asker: &Asker, local: Local, request: &Request<'_>) {
        match local {
            Local::SlowlogGet => self.slowlog_get(asker, request),
            Local::SlowlogLen => {
                let most = self.slow.logs[asker.keyspace].rules.length;
                self.ask_logs(asker, GatherKind::SlowLen { most }, SlowQuestion::Len);
            }
            Local::SlowlogReset => self.ask_logs(asker, GatherKind::AllTook, SlowQuestion::Reset),
            _ => self.lines(asker, SLOWLOG_HELP),
        }
    }

    fn ask_logs(&mut self, asker: &Asker, kind: GatherKind, question: SlowQuestion) {
        let keyspace = asker.keyspace as u16;
        self.ask_workers(asker, kind, |ticket| {
            Mail::Slowlog(ticket, keyspace, question)
        });
    }

    /// The rules of a keyspace's slow log, for CONFIG GET.
    pub(crate) fn slow_rules(&self, keyspace: usize) -> SlowRules {
        self.slow.logs[keyspace].rules
    }

    /// CONFIG SET of the slow log's rules, the request's last step: every worker takes them, then the client is told OK.
    pub(crate) fn set_slow_rules(&mut self, asker: &Asker, number: u32, rules: SlowRules) {
        let rules = SlowRules {
            length: rules.length.min(SLOWLOG_ENTRIES_MAX),
            ..rules
        };
        let Some(client) = self.clients.get_mut(asker.slot) else {
            return;
        };
        let gather = Gather::new(GatherKind::AllTook, self.identity.workers);
        client.replies.put_gather(number, gather);
        let keyspace = asker.keyspace as u16;
        self.ask_workers_for(asker, number, |ticket| {
            Mail::Slowlog(ticket, keyspace, SlowQuestion::Rules(rules))
        });
    }

    /// Mail: a question about this worker's log.
    pub(crate) fn answer_slowlog(&mut self, ticket: Ticket, keyspace: u16, asked: SlowQuestion) {
        let log = &mut self.slow.logs[usize::from(keyspace)];
        let mut answer = Vec::new();
        match asked {
            SlowQuestion::Get(count, form) => {
                for entry in log.entries.iter().take(count) {
                    Record::write(entry, form, &mut answer);
                }
            }
            SlowQuestion::Len => answer = log.entries.len().to_string().into_bytes(),
            SlowQuestion::Reset => log.entries = VecDeque::new(),
            SlowQuestion::Rules(rules) => {
                log.rules = rules;
                log.entries.truncate(rules.length);
                self.slow.compare();
            }
        }
        self.reply_to(ticket, answer);
    }

    fn slowlog_get(&mut self, asker: &Asker, request: &Request<'_>) {
        let mut count = 10;
        let mut form = Form::Plain;
        for index in 2..request.args.len() {
            let word = request.arg(index);
            let is_last = index + 1 == request.args.len();
            if is_last && word.eq_ignore_ascii_case(b"SHARDS") {
                form = Form::WithShards;
            } else if index > 2 {
                return self.answer_error(asker, &ClientError::Words(UNKNOWN_FORM));
            } else {
                let number = strict_integer(word).filter(|&number| number >= -1);
                let Some(number) = number else {
                    let words = "ERR count should be greater than or equal to -1";
                    return self.answer_error(asker, &ClientError::Words(words));
                };
                count = number;
            }
        }
        // -1: all.
        let most = self.slow.logs[asker.keyspace].rules.length;
        let own = usize::try_from(count).map_or(most, |count| count.min(most));
        let question = SlowQuestion::Get(own, form);
        if form == Form::Plain {
            let kind = GatherKind::SlowGet {
                count: own,
                shards: Vec::new(),
            };
            return self.ask_logs(asker, kind, question);
        }
        self.slowlog_over_shards(asker, count, question);
    }

    /// The workers' entries and those of the shards' own logs.
    fn slowlog_over_shards(&mut self, asker: &Asker, count: i64, question: SlowQuestion) {
        let workers = self.identity.workers;
        let mut links = Vec::new();
        let mut shards = Vec::new();
        for shard in self.shards_in(asker.keyspace) {
            let shard = self.shard_number(asker, shard);
            match self.link_for(shard, asker.lane) {
                Ok(link) => links.push(link),
                Err(error) => {
                    self.stats().shard(shard, PerShard::Failed, 1);
                    return self.answer_error(asker, &error);
                }
            }
            shards.push(self.shard_name(shard));
        }
        let count_all = usize::try_from(count).unwrap_or(usize::MAX);
        let kind = GatherKind::SlowGet {
            count: count_all,
            shards,
        };
        let number = self.reserve_gather(asker, Gather::new(kind, workers + links.len()));
        for (index, link) in links.into_iter().enumerate() {
            if let Some(link) = self.links.get_mut(link) {
                errand::slowlog(link.outgoing().tail(), count);
            }
            let part = (workers + index) as u16;
            self.sent(asker, link, number, part, Waiter::Part);
        }
        let keyspace = asker.keyspace as u16;
        self.ask_workers_for(asker, number, |ticket| {
            Mail::Slowlog(ticket, keyspace, question)
        });
    }

    /// The one reply to SLOWLOG GET: of every worker, then of every shard that was asked.
    pub(crate) fn compose_slowlog(
        &self,
        parts: &[&[u8]],
        count: usize,
        shards: &[String],
        out: &mut Vec<u8>,
    ) {
        compose(parts, self.identity.workers, count, shards, out);
    }

    /// A reply has begun later than the lowest threshold after its request was sent.
    #[cold]
    pub(crate) fn replied_late(&mut self, id: u32, shard: usize, entry: &InFlight, took: u32) {
        let keyspace = self.backends[shard].keyspace;
        let Some(threshold) = self.slow.logs[keyspace].rules.threshold_us() else {
            return;
        };
        let now_us = self.now_us;
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        match link.owner {
            Owner::Lane
            | Owner::Client {
                purpose: Purpose::Watch | Purpose::Track,
                ..
            } => {}
            // There it is the client that wants to wait.
            Owner::Client { .. }
            | Owner::Request
            | Owner::Ending
            | Owner::Operation { .. }
            | Owner::Control
            | Owner::Subscriptions
            | Owner::Idle => return,
        }
        let shard_us = u64::from(took).min(now_us.saturating_sub(link.quiet_since_us));
        let place = Place {
            client: entry.client,
            generation: entry.generation,
            number: entry.number,
        };
        let Some((parts, number)) =
            head_of(self.clients.get_same(place.client, place.generation), entry)
        else {
            return;
        };
        let head = self
            .slow
            .heads
            .find(number, place)
            .unwrap_or_default()
            .to_vec();
        // Of replies that came together the first may have been the slow one, and any that is not of constant time.
        let is_quick = first_word(&head)
            .and_then(lookup)
            .is_some_and(|spec| spec.flags & flags::FAST != 0);
        let is_first = link.late_us != now_us;
        link.late_us = now_us;
        let charged = if is_quick && !is_first { 0 } else { shard_us };
        if charged < u64::from(threshold) {
            return;
        }
        if parts == 1 {
            let took = u64::from(took);
            return self.log_slow(place, &head, took, shard, shard_us);
        }
        if let Some(client) = self.clients.get_same(place.client, place.generation) {
            if let Some(gather) = client.replies.gather(place.number) {
                let slowest = gather.slowest.map_or(0, |(_, us)| us);
                if shard_us >= slowest {
                    gather.slowest = Some((shard, shard_us));
                }
            }
        }
    }

    /// All parts of a request are there, and one was slow.
    #[cold]
    pub(crate) fn gathered_late(&mut self, place: Place, gather: &Gather) {
        if let Some((shard, shard_us)) = gather.slowest {
            let head = self.slow.heads.find(gather.head, place);
            let head = head.unwrap_or_default().to_vec();
            let took = (self.now_us as u32).wrapping_sub(gather.began_us);
            self.log_slow(place, &head, u64::from(took), shard, shard_us);
        }
    }

    fn log_slow(&mut self, place: Place, head: &[u8], took_us: u64, shard: usize, shard_us: u64) {
        let keyspace = self.backends[shard].keyspace;
        let client = self.clients.get_same(place.client, place.generation);
        let (peer, name) = client.map_or_else(Default::default, |client| {
            (client.peer.to_string(), client.name().to_vec())
        });
        let unix_us = self.unix_start_ms * 1000 + self.now_us;
        let shard = self.shard_name(shard);
        let (worker, workers) = (self.identity.worker as u64, self.identity.workers as u64);
        self.stats().keyspace(keyspace, PerKeyspace::Slow, 1);
        let log = &mut self.slow.logs[keyspace];
        let id = log.next * workers + worker;
        log.next += 1;
        log.entries.push_front(Entry {
            id,
            unix_us,
            took_us,
            args: shown(head),
            peer,
            name,
            shard,
            shard_us,
        });
        log.entries.truncate(log.rules.length);
    }

    /// Heads that are about to be written over while their requests wait: of each link the oldest, one of which keeps it.
    #[cold]
    pub(crate) fn rescue_heads(&mut self) {
        let mut waiting = Vec::new();
        for id in self.links.indexes() {
            let Some(link) = self.links.get(id) else {
                continue;
            };
            let oldest: Vec<InFlight> = link
                .queue
                .iter()
                .take(SLOWLOG_RESCUE_PER_LINK)
                .copied()
                .collect();
            for entry in oldest {
                let client = self.clients.get_same(entry.client, entry.generation);
                if let Some((_, number)) = head_of(client, &entry) {
                    let place = Place {
                        client: entry.client,
                        generation: entry.generation,
                        number: entry.number,
                    };
                    waiting.push((number, place));
                }
            }
        }
        self.slow.heads.rescue(waiting.into_iter());
    }
}

/// Of how many parts the request of an entry is, and its head's number. None: it is not looked at.
fn head_of(
    client: Option<&mut crate::session::client::Client>,
    entry: &InFlight,
) -> Option<(usize, u16)> {
    match entry.waiter {
        Waiter::Client | Waiter::Again => Some((1, entry.part)),
        Waiter::Part => {
            let gather = client?.replies.gather(entry.number)?;
            (gather.head != NO_HEAD || !matches!(gather.kind, GatherKind::Wait))
                .then_some((gather.parts.len(), gather.head))
        }
        _ => None,
    }
}

const UNKNOWN_FORM: &str = "ERR syntax error: SLOWLOG GET [count] [SHARDS]";

const SLOWLOG_HELP: &[&str] = &[
    "SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET [<count>] [SHARDS]",
    "    Return the newest <count> entries (default: 10, -1: all) of shoal's own slow log, each of:",
    "    id, unix time, microseconds, arguments, client's address, client's name.",
    "    With SHARDS the entries of the shards' own logs too, and of each the shard and its microseconds.",
    "LEN",
    "    Return the number of entries in shoal's own slow log.",
    "RESET",
    "    Forget them; the shards' own logs stay.",
    "HELP",
    "    Print this help.",
];

/// Encodes what is told of how many there are.
pub(crate) fn compose_len(parts: &[&[u8]], most: usize, out: &mut Vec<u8>) {
    let counted: i64 = parts.iter().filter_map(|part| strict_integer(part)).sum();
    encode::integer(out, counted.min(most as i64));
}
