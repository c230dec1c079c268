//! Requests that wait because an operation across shards has their keys.
//!
//! Owns: what a request is asked at the gate while there are fences, and what time does to who waits.
//!
//! Flow: the gate (`care::FENCED`) -> `held_by_fence`: which keys, read or written -> nobody has them: it goes on; else its client is
//! not read until that operation's fence is lifted, and the request is shown again. Who has waited too long is told so.
//!
//! Must stay true: nothing of a request that waits was sent; EXEC waits for the keys of everything that was queued; a request of
//! which the keys cannot be told does not wait (it will be refused, or has none), unless it concerns all keys of a shard, or any: it
//! waits for who has a whole shard. What empties shards does not wait here: it is an operation, and waits its turn as such.
//! Rejected: to go by the slot of a key: neighbours of a busy key would wait for nothing.

use crate::error::{ClientError, OperationError};
use crate::limits::CROSS_SHARD_PARK_MS_MAX;
use crate::protocol::command::{flags, keys, AllKeys, Check, CommandSpec, Local, Policy};
use crate::protocol::request::RequestScanner;
use crate::routing::route::{specification, Request};
use crate::session::client::Intake;
use crate::session::cross_shard::call::Tx;
use crate::session::cross_shard::fences::Parked;
use crate::session::cross_shard::steps::Event;
use crate::session::dispatch::Taken;
use crate::session::engine::Engine;
use crate::session::stats::PerKeyspace;

impl Engine {
    /// None: nobody has a key of the request, so it goes on.
    pub(crate) fn held_by_fence(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
        request: &Request<'_>,
    ) -> Option<Taken> {
        let keyspace = self.clients.get(slot)?.keyspace as usize;
        if self.cross_shards.fences[keyspace].is_empty() || self.identity.trial.lets_pass {
            return None;
        }
        if spec.is_some_and(|spec| self.asks_later(keyspace, spec, request)) {
            return None;
        }
        let is_exec = spec.is_some_and(|spec| spec.policy == Policy::Local(Local::Exec));
        let holder = if is_exec {
            self.holder_of_queued(slot, keyspace)
        } else {
            self.holder_of(keyspace, spec, request)
        };
        let now_ms = self.now_ms;
        let generation = self.clients.generation(slot);
        let client = self.clients.get_mut(slot)?;
        let Some(tx) = holder else {
            if let Some(particulars) = client.particulars.as_deref_mut() {
                particulars.fenced_since_ms = None;
            }
            return None;
        };
        // A request that was taken meanwhile is not this one.
        let request_ms = client.request_ms;
        let known = client.particulars().fenced_since_ms;
        let since = known.filter(|&since| request_ms < since).unwrap_or(now_ms);
        client.particulars().fenced_since_ms = Some(since);
        if now_ms.saturating_sub(since) > CROSS_SHARD_PARK_MS_MAX as u64 {
            client.particulars().fenced_since_ms = None;
            if is_exec {
                // As on a server: whatever EXEC is answered, its transaction is over.
                self.forget_transaction(slot);
            }
            let error = ClientError::Operation(OperationError::Held);
            return Some(self.turn_away(slot, &error));
        }
        client.intake = Intake::Fenced;
        let is_first = since == now_ms;
        let parked = Parked { slot, generation };
        self.cross_shards.fences[keyspace].park(&tx, parked);
        let cell = PerKeyspace::Held;
        self.stats().keyspace(keyspace, cell, i64::from(is_first));
        Some(Taken::NotYet)
    }

    /// It waits for keys of several shards: each of its steps asks for itself, or is an operation that waits its turn.
    fn asks_later(&self, keyspace: usize, spec: &CommandSpec, request: &Request<'_>) -> bool {
        if !matches!(spec.policy, Policy::Blocking(_)) || spec.check == Check::BlockOption {
            return false;
        }
        let mut found = Vec::new();
        let space = &self.topology.keyspaces[keyspace];
        let shard = |index: &u32| {
            let key = request.arg(*index as usize);
            space.shard_of(key, &self.admissions[keyspace])
        };
        let is_read = keys(spec, request.args, request.data, &mut found).is_ok();
        let mut shards = found.iter().map(shard);
        let first = shards.next();
        is_read && shards.any(|other| Some(other) != first)
    }

    /// Who has a key of a request.
    pub(crate) fn holder_of(
        &self,
        keyspace: usize,
        spec: Option<&'static CommandSpec>,
        request: &Request<'_>,
    ) -> Option<Tx> {
        let fences = &self.cross_shards.fences[keyspace];
        let space = &self.topology.keyspaces[keyspace];
        let mut found = Vec::new();
        let is_written = match spec {
            Some(spec) if concerns_any(spec, request) => return fences.holder_of_all().cloned(),
            Some(spec) => {
                keys(spec, request.args, request.data, &mut found).ok()?;
                spec.flags & flags::WRITE != 0 || spec.keys.iter().any(|keys| keys.write)
            }
            // Unknown commands go by their first argument, where they go at all.
            None => {
                found.push(1);
                true
            }
        };
        found.iter().find_map(|&index| {
            let key = request.arg(index as usize);
            let shard = space.shard_of(key, &self.admissions[keyspace])?;
            fences.holder(shard, key, is_written).cloned()
        })
    }

    /// The same, of everything that waits for EXEC.
    fn holder_of_queued(&self, slot: u32, keyspace: usize) -> Option<Tx> {
        let particulars = self.clients.get(slot)?.particulars.as_deref()?;
        let transaction = particulars.transaction.as_deref()?;
        (0..transaction.commands.len()).find_map(|index| {
            let data = transaction.request(index);
            let mut scanner = RequestScanner::default();
            scanner.scan(data, true);
            let request = Request {
                data,
                args: &scanner.args,
            };
            let spec = specification(&request).ok();
            self.holder_of(keyspace, spec, &request)
        })
    }

    /// What time brings about: operations that wait for somebody, and clients that have waited too long.
    pub(crate) fn look_at_operations(&mut self) {
        for index in self.cross_shards.running.indexes() {
            self.advance(index, Event::Tick);
        }
        self.look_at_members();
        self.doubt_old_fences();
        self.ask_again(None);
        for job in std::mem::take(&mut self.cross_shards.postponed) {
            self.begin_job(job);
        }
        let now_ms = self.now_ms;
        let mut late = Vec::new();
        for parked in self
            .cross_shards
            .fences
            .iter()
            .flat_map(|fences| fences.parked())
        {
            let client = self.clients.get_same(parked.slot, parked.generation);
            let since = client
                .filter(|client| client.intake == Intake::Fenced)
                .and_then(|client| client.particulars().fenced_since_ms);
            if since
                .is_some_and(|since| now_ms.saturating_sub(since) > CROSS_SHARD_PARK_MS_MAX as u64)
            {
                late.push(parked);
            }
        }
        self.cross_shards.unparked.extend(late);
        self.settle_notes();
    }
}

/// What names no key, and may read or write any.
fn concerns_any(spec: &CommandSpec, request: &Request<'_>) -> bool {
    match spec.policy {
        Policy::Scan | Policy::AllKeys(AllKeys::Count | AllKeys::Names | AllKeys::Any) => true,
        Policy::Script { .. } => {
            let mut found = Vec::new();
            keys(spec, request.args, request.data, &mut found).is_ok() && found.is_empty()
        }
        _ => false,
    }
}
