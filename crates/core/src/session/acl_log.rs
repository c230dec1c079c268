//! ACL LOG: what was refused to whom.
//!
//! Owns: the log of each keyspace in one worker, how entries travel to the worker that is asked, and the one reply from those
//! of all workers.
//!
//! Must stay true: entries and their texts are bounded; the same refusal within a minute counts in one entry, as on a server;
//! an entry is of one keyspace and is shown there only. A password is never in it: of AUTH only the user's name is kept.
//! Rejected: one log for all workers behind a lock: who floods it would slow down everybody.

use crate::limits::{ACL_LOG_ENTRIES_MAX, ACL_LOG_GROUP_MS, ACL_LOG_TEXT_MAX};
use crate::protocol::encode::{self, Proto};
use crate::protocol::request::{strict_integer, RequestScanner, Scan};
use crate::routing::route::Request;
use crate::routing::topology::Topology;
use crate::session::client::care;
use crate::session::engine::Engine;
use crate::session::stats::PerKeyspace;
use std::collections::VecDeque;

/// Why something was refused; positions are of arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Command,
    Key(u32),
    Channel(u32),
    Auth,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Key(_) => "key",
            Self::Channel(_) => "channel",
            Self::Auth => "auth",
        }
    }

    fn counter(self) -> PerKeyspace {
        match self {
            Self::Command => PerKeyspace::DeniedCommands,
            Self::Key(_) => PerKeyspace::DeniedKeys,
            Self::Channel(_) => PerKeyspace::DeniedChannels,
            Self::Auth => PerKeyspace::LoginsFailed,
        }
    }
}

#[derive(Debug)]
struct Entry {
    id: u64,
    count: u64,
    reason: &'static str,
    context: &'static str,
    object: Vec<u8>,
    user: Vec<u8>,
    client: String,
    created_ms: u64,
    updated_ms: u64,
}

/// Of one keyspace, in one worker; the newest entry first.
#[derive(Debug, Default)]
pub(crate) struct AclLog {
    entries: VecDeque<Entry>,
    made: u64,
}

/// So many of the newest entries are looked through for one that a refusal counts in.
const GROUPED_AMONG: usize = 10;

impl AclLog {
    /// An empty one for each keyspace.
    pub(crate) fn of_each(topology: &Topology) -> Vec<Self> {
        let keyspaces = topology.keyspaces.iter();
        keyspaces.map(|_| Self::default()).collect()
    }

    fn add(&mut self, entry: Entry) {
        let is_same = |earlier: &Entry| {
            earlier.reason == entry.reason
                && earlier.context == entry.context
                && earlier.object == entry.object
                && earlier.user == entry.user
                && entry.updated_ms - earlier.updated_ms <= ACL_LOG_GROUP_MS as u64
        };
        let place = self.entries.iter().take(GROUPED_AMONG).position(is_same);
        if let Some(mut earlier) = place.and_then(|place| self.entries.remove(place)) {
            earlier.count += 1;
            earlier.updated_ms = entry.updated_ms;
            earlier.client = entry.client;
            return self.entries.push_front(earlier);
        }
        self.made += 1;
        self.entries.push_front(entry);
        self.entries.truncate(ACL_LOG_ENTRIES_MAX);
    }
}

impl Engine {
    /// Notes a refusal. For AUTH the user is the one that was asked for.
    pub(crate) fn log_denial(&mut self, slot: u32, reason: Reason, object: &[u8], user: &str) {
        let Some(client) = self.clients.get(slot) else {
            return;
        };
        let keyspace = client.keyspace as usize;
        let context = if client.care & care::QUEUES != 0 {
            "multi"
        } else {
            "toplevel"
        };
        let (worker, workers) = (self.identity.worker as u64, self.identity.workers as u64);
        let cut = |text: &[u8]| text[..text.len().min(ACL_LOG_TEXT_MAX)].to_vec();
        let mut line = self.client_line(slot);
        line.truncate(line.trim_end().len());
        let entry = Entry {
            id: self.acl_logs[keyspace].made * workers + worker,
            count: 1,
            reason: reason.text(),
            context,
            object: cut(object),
            user: cut(user.as_bytes()),
            client: line,
            created_ms: self.now_ms,
            updated_ms: self.now_ms,
        };
        self.acl_logs[keyspace].add(entry);
        self.stats().keyspace(keyspace, reason.counter(), 1);
    }

    /// Mail: the entries of a keyspace, each as a request would be written.
    pub(crate) fn acl_log_here(&self, keyspace: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for entry in &self.acl_logs[keyspace].entries {
            let numbers = [entry.updated_ms, entry.created_ms, entry.count, entry.id];
            let numbers = numbers.map(|number| number.to_string().into_bytes());
            let mut fields: Vec<&[u8]> = numbers.iter().map(Vec::as_slice).collect();
            fields.extend([
                entry.reason.as_bytes(),
                entry.context.as_bytes(),
                &entry.object,
                &entry.user,
                entry.client.as_bytes(),
            ]);
            encode::request(&mut out, &fields);
        }
        out
    }

    /// Mail: LOG RESET.
    pub(crate) fn forget_acl_log(&mut self, keyspace: usize) {
        self.acl_logs[keyspace].entries.clear();
    }

    /// The newest entries of all workers.
    pub(crate) fn compose_acl_log(
        &self,
        parts: &[&[u8]],
        limit: usize,
        proto: Proto,
        out: &mut Vec<u8>,
    ) {
        let mut found = Vec::new();
        let mut scanner = RequestScanner::default();
        for part in parts {
            let mut rest = *part;
            while let Scan::Whole(len) = scanner.scan(rest, true) {
                let entry = Request {
                    data: &rest[..len],
                    args: &scanner.args,
                };
                let fields: Vec<Vec<u8>> = (0..entry.args.len())
                    .map(|index| entry.arg(index).to_vec())
                    .collect();
                found.push((number(&entry, 0), fields));
                scanner.reset();
                rest = &rest[len..];
            }
            scanner.reset();
        }
        // Those of one instant stay in their worker's order.
        found.sort_by_key(|(updated_ms, _)| std::cmp::Reverse(*updated_ms));
        found.truncate(limit);
        encode::array(out, found.len());
        for (_, fields) in &found {
            self.write_acl_entry(fields, proto, out);
        }
    }

    fn write_acl_entry(&self, fields: &[Vec<u8>], proto: Proto, out: &mut Vec<u8>) {
        let number = |index: usize| {
            let text: &[u8] = fields.get(index).map_or(b"", Vec::as_slice);
            strict_integer(text).unwrap_or(0)
        };
        let text = |out: &mut Vec<u8>, name: &[u8], index: usize| {
            encode::bulk(out, name);
            encode::bulk(out, fields.get(index).map_or(b"", Vec::as_slice));
        };
        let unix = |ms: i64| self.unix_start_ms as i64 + ms;
        encode::map(out, proto, 10);
        encode::bulk(out, b"count");
        encode::integer(out, number(2));
        text(out, b"reason", 4);
        text(out, b"context", 5);
        text(out, b"object", 6);
        text(out, b"username", 7);
        encode::bulk(out, b"age-seconds");
        let age_ms = self.now_ms as i64 - number(1);
        encode::double(out, proto, age_ms.max(0) as f64 / 1000.0);
        text(out, b"client-info", 8);
        encode::bulk(out, b"entry-id");
        encode::integer(out, number(3));
        encode::bulk(out, b"timestamp-created");
        encode::integer(out, unix(number(1)));
        encode::bulk(out, b"timestamp-last-updated");
        encode::integer(out, unix(number(0)));
    }
}

fn number(entry: &Request<'_>, index: usize) -> i64 {
    strict_integer(entry.arg(index)).unwrap_or(0)
}
