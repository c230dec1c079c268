//! CONFIG SET and CONFIG GET over all shards, and of shoal's own slow log.
//!
//! Owns: what each shard is told of a CONFIG SET, and what is read back of settings that are shoal's too.
//!
//! Flow: the router has refused what may not be set -> each shard gets its request (an amount for all is divided) -> when all
//! have said OK, every worker takes the rules of the slow log, if they were among the settings -> OK.
//!
//! Must stay true: what was set is what CONFIG GET gives: amounts are added up again, and rules of the slow log are shoal's.

use crate::protocol::command::Merge;
use crate::protocol::encode::{self, Proto};
use crate::protocol::request::strict_integer;
use crate::protocol::setting::{meaning, memory, Meaning, SLOW_LENGTH, SLOW_THRESHOLD};
use crate::routing::route::Request;
use crate::routing::topology::SlowRules;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::gather::GatherKind;
use crate::session::info::merge_config_with;
use std::borrow::Cow;

impl Engine {
    /// CONFIG SET with settings that not every shard is told as they are, or that are shoal's too.
    pub(crate) fn set_settings(&mut self, asker: &Asker, request: &Request<'_>) {
        let shards = self.shards_in(asker.keyspace);
        let count = shards.len() as u64;
        let requests = (0..count).map(|position| part_of(request, position, count));
        let requests: Vec<Vec<u8>> = requests.collect();
        let requests: Vec<&[u8]> = requests.iter().map(Vec::as_slice).collect();
        let slow = self.slow_rules_of(asker.keyspace, request);
        self.send_each(asker, GatherKind::Settings { shards, slow }, &requests);
    }

    /// The rules of the slow log after a CONFIG SET; None: it leaves them alone.
    fn slow_rules_of(&self, keyspace: usize, request: &Request<'_>) -> Option<SlowRules> {
        let before = self.slow_rules(keyspace);
        let mut rules = before;
        for index in (2..request.args.len()).step_by(2) {
            let Some(number) = strict_integer(request.arg(index + 1)) else {
                continue;
            };
            match meaning(request.arg(index)) {
                Meaning::SlowThreshold => rules.slower_than_us = number,
                Meaning::SlowLength => rules.length = usize::try_from(number).unwrap_or(0),
                Meaning::Each | Meaning::Divided | Meaning::Refused(_) => {}
            }
        }
        (rules != before).then_some(rules)
    }

    /// Every shard has answered a CONFIG SET. True: the workers are asked to take their part of it, and the reply is to come.
    pub(crate) fn compose_settings(
        &mut self,
        asker: &Asker,
        number: u32,
        how: (&[u16], Option<SlowRules>),
        parts: &[&[u8]],
        proto: Proto,
        out: &mut Vec<u8>,
    ) -> bool {
        let (shards, slow) = how;
        self.compose_everywhere(asker.keyspace, Merge::AllOk, shards, parts, proto, out);
        match slow {
            Some(rules) if out.first() == Some(&b'+') => {
                self.set_slow_rules(asker, number, rules);
                true
            }
            _ => false,
        }
    }

    /// CONFIG GET.
    pub(crate) fn compose_config(
        &self,
        keyspace: usize,
        parts: &[&[u8]],
        proto: Proto,
        out: &mut Vec<u8>,
    ) {
        let rules = self.slow_rules(keyspace);
        let own = [
            (SLOW_THRESHOLD, rules.slower_than_us.to_string()),
            (SLOW_LENGTH, rules.length.to_string()),
        ];
        merge_config_with(parts, proto, &own, out);
    }
}

/// What the shard of that position among so many is told: of an amount for all its part, the first ones the odd bytes.
fn part_of(request: &Request<'_>, position: u64, count: u64) -> Vec<u8> {
    let mut words: Vec<Cow<'_, [u8]>> = (0..request.args.len())
        .map(|index| Cow::Borrowed(request.arg(index)))
        .collect();
    for index in (2..words.len().saturating_sub(1)).step_by(2) {
        let amount = memory(&words[index + 1]);
        if let (Meaning::Divided, Some(all)) = (meaning(&words[index]), amount) {
            let part = all / count + u64::from(position < all % count);
            words[index + 1] = Cow::Owned(part.to_string().into_bytes());
        }
    }
    let words: Vec<&[u8]> = words.iter().map(AsRef::as_ref).collect();
    let mut bytes = Vec::new();
    encode::request(&mut bytes, &words);
    bytes
}
