//! What INFO tells of our clients beyond their number: how many wait, and for how many keys.
//!
//! Owns: the count, which every worker makes of its clients when it is asked, and its way between workers.
//!
//! Must stay true: these are clients of the keyspace, each counted once; the shards' own counts are of shoal's connections, of
//! which a client that waits for keys on several shards has one to each.
//! Rejected: gauges that follow every change: the changes are many and INFO is rare.

use crate::session::client::Intake;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::mail::{Mail, Ticket};
use std::collections::HashSet;

/// Clients of a keyspace by what they do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Headcount {
    /// They wait (BLPOP and its like).
    pub blocked: u64,
    /// Keys on several shards for which they do; those on one shard are counted there.
    pub waited_keys: u64,
}

impl Headcount {
    fn write(self) -> Vec<u8> {
        let numbers = [self.blocked, self.waited_keys];
        numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect()
    }

    /// The sum of what the workers have counted.
    pub(crate) fn of(answers: &[&[u8]]) -> Self {
        let sum = |at: usize| {
            let numbers = answers.iter().filter_map(|answer| {
                let bytes = answer.get(at * 8..at * 8 + 8)?.try_into().ok()?;
                Some(u64::from_le_bytes(bytes))
            });
            numbers.sum()
        };
        Self {
            blocked: sum(0),
            waited_keys: sum(1),
        }
    }
}

impl Engine {
    /// Every worker counts, for INFO.
    pub(crate) fn ask_headcount(&mut self, asker: &Asker, number: u32) {
        let keyspace = asker.keyspace as u16;
        self.ask_workers_for(asker, number, |ticket| Mail::Headcount(ticket, keyspace));
    }

    /// Mail: the count of this worker's clients.
    pub(crate) fn answer_headcount(&mut self, ticket: Ticket, keyspace: u16) {
        let mut headcount = Headcount::default();
        let mut keys = HashSet::new();
        for (_, client) in self.clients.iter() {
            if client.keyspace != keyspace {
                continue;
            }
            headcount.blocked += u64::from(client.intake == Intake::Blocked);
            let wait = client.particulars.as_deref();
            if let Some(wait) = wait.and_then(|particulars| particulars.wait.as_deref()) {
                keys.extend(wait.keys());
            }
        }
        headcount.waited_keys = keys.len() as u64;
        let answer = headcount.write();
        self.reply_to(ticket, answer);
    }
}
