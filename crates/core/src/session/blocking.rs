//! Requests that wait: lists, sorted sets and streams until there is something.
//!
//! Owns: the way of a request that may wait, CLIENT UNBLOCK, and what ends a wait early.
//!
//! Flow: keys on one shard: the request goes unchanged on a connection of the client's own, its reply passes through, and
//! the connection is given back. Keys on several: `blocking_wait`.
//!
//! Must stay true: nothing waits on a connection that others use; a client that waits is read only so far that its end is
//! noticed, and its wait is ended at once then; neither that nor CLIENT UNBLOCK takes a client away from an element that is on
//! its way: the shard itself ends the wait, and says whether there was one (`put_back`).
//! Rejected: closing the connection to end a wait. What the shard delivers at that moment would be lost.

use crate::error::{ClientError, OperationError};
use crate::protocol::command::{lookup, Check, CommandSpec, Grade, Undo};
use crate::protocol::encode;
use crate::protocol::errand;
use crate::protocol::request::{strict_integer, RequestScanner};
use crate::routing::route::{cross_shard, cross_shard_off, key_shards, Request, Scratch};
use crate::session::backend::{InFlight, Waiter};
use crate::session::client::Intake;
use crate::session::cross_shard::drains::{Again, Waits};
use crate::session::cross_shard::late::Late;
use crate::session::dispatch::{client_number, Asker};
use crate::session::engine::Engine;
use crate::session::gather::GatherKind;
use crate::session::mail::Mail;
use crate::session::own_links::{Owner, Purpose};
use crate::session::put_back::undo_of;
use crate::session::stats::PerShard;
use crate::session::wait_words::timeout_ms;

/// Redis' own words.
pub(crate) const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";

impl Engine {
    /// A request that may wait.
    pub(crate) fn block(&mut self, asker: &Asker, request: &Request<'_>) {
        let Some(spec) = lookup(request.arg(0)) else {
            return;
        };
        if self.clients.get(asker.slot).is_some_and(|it| it.ended) {
            // As a server, which forgets a client that has ended instead of waiting for it.
            if let Some(client) = self.clients.get_mut(asker.slot) {
                client.intake = Intake::Closing;
            }
            return self.settle_client(asker.slot);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let space = &self.topology.keyspaces[asker.keyspace];
        let placed = key_shards(
            space,
            &self.admissions[asker.keyspace],
            spec,
            request,
            &mut scratch,
        );
        let first = scratch.shards.first().copied().unwrap_or(0);
        let is_one = scratch.shards.iter().all(|&shard| shard == first);
        match placed {
            Err(error) => self.answer_error(asker, &error),
            Ok(()) if is_one => {
                let undo = undo_of(spec, request, &scratch);
                let shard = self.shard_number(asker, first);
                let waits = self.waits_of(asker, spec, request, &scratch);
                self.block_on(asker, shard, request, (undo, waits));
            }
            Ok(()) if spec.check == Check::BlockOption => {
                self.wait_for_streams(asker, &scratch, request)
            }
            Ok(()) if spec.keys.len() > 1 && (spec.arity < 0 || !self.takes_together(asker)) => {
                let error = match cross_shard(space, spec, request, &scratch) {
                    _ if spec.grade == Grade::Strict && space.cross_shard => {
                        ClientError::Operation(OperationError::Database(space.database))
                    }
                    ClientError::CrossShard { command, keys } if spec.grade == Grade::Strict => {
                        cross_shard_off(space, command, keys)
                    }
                    error => error,
                };
                self.answer_error(asker, &error);
            }
            Ok(()) => self.wait_for_elements(asker, spec, &scratch, request),
        }
        self.forget_after_wait(asker, spec, &scratch.keys, request);
        self.scratch = scratch;
    }

    /// The request as it is, on a connection of the client's own.
    fn block_on(
        &mut self,
        asker: &Asker,
        shard: usize,
        request: &Request<'_>,
        (undo, waits): (Undo, Option<Box<Waits>>),
    ) {
        let link = match self.open_own(asker.slot, shard, asker.lane, Purpose::Block) {
            Ok(link) => link,
            Err(error) => {
                self.stats().shard(shard, PerShard::Failed, 1);
                return self.answer_error(asker, &error);
            }
        };
        self.begin_block(asker.slot);
        let number = client_number(self, asker);
        self.send_block(asker, link, number, request.data, (undo, waits));
    }

    fn send_block(
        &mut self,
        asker: &Asker,
        link: u32,
        number: u32,
        request: &[u8],
        (undo, waits): (Undo, Option<Box<Waits>>),
    ) {
        let is_again = waits.as_ref().is_some_and(|waits| waits.again.is_some());
        let mut is_known = true;
        if let Some(link) = self.links.get_mut(link) {
            link.undo = undo;
            link.waits = waits;
            is_known = link.server_id != 0;
        }
        if !is_known {
            self.send(link, errand::WHO);
            self.sent(asker, link, number, 0, Waiter::Identity);
        }
        self.send(link, request);
        let waiter = if is_again {
            Waiter::Again
        } else {
            Waiter::Client
        };
        self.sent(asker, link, number, 0, waiter);
    }

    /// What operations across shards have to know of a request that waits; nothing where there are none.
    fn waits_of(
        &self,
        asker: &Asker,
        spec: &CommandSpec,
        request: &Request<'_>,
        scratch: &Scratch,
    ) -> Option<Box<Waits>> {
        if !self.topology.keyspaces[asker.keyspace].cross_shard {
            return None;
        }
        let key = |&index: &u32| request.arg(index as usize).into();
        let keys: Vec<Box<[u8]>> = scratch.keys.iter().map(key).collect();
        // What moves something waits for its first key. Its time-out is its last argument, where nothing may follow.
        let moves = spec.keys.len() > 1;
        let waited = if moves { 1 } else { keys.len() };
        let again = moves.then(|| {
            let timeout = request.arg(request.args.len() - 1);
            let ms = timeout_ms(timeout).ok();
            let ms = ms.filter(|&ms| ms > 0 && spec.arity > 0);
            Again {
                request: request.data.to_vec(),
                deadline_ms: ms.map(|ms| self.now_ms.saturating_add(ms)),
            }
        });
        Some(Box::new(Waits::new(keys, waited, again)))
    }

    /// A request that waited and was told to end waits again, for the rest of its time, as soon as nobody has its keys.
    pub(crate) fn block_again(
        &mut self,
        asker: &Asker,
        number: u32,
        shard: usize,
        request: &[u8],
        deadline_ms: Option<u64>,
    ) {
        if !self.is_there(asker) {
            return;
        }
        if let Some(tx) = self.held_late(asker.keyspace, request) {
            let late = Late::Block {
                asker: *asker,
                number,
                shard,
                request: request.to_vec(),
                deadline_ms,
            };
            return self.keep_late(tx, late);
        }
        let link = match self.open_own(asker.slot, shard, asker.lane, Purpose::Block) {
            Ok(link) => link,
            Err(error) => {
                let mut line = Vec::new();
                self.write_error(asker.keyspace, &error, &mut line);
                return self.answer_late(asker, number, line);
            }
        };
        let mut scanner = RequestScanner::default();
        scanner.scan(request, true);
        let asked = Request {
            data: request,
            args: &scanner.args,
        };
        let mut bytes = Vec::new();
        if let Some(deadline) = deadline_ms {
            // Time that is over ends by the shard's word, which has another for each command.
            let left_ms = deadline.saturating_sub(self.now_ms).max(1);
            let left = (left_ms as f64 / 1000.0).to_string();
            let last = asked.args.len().saturating_sub(1);
            let mut words: Vec<&[u8]> = (0..last).map(|index| asked.arg(index)).collect();
            words.push(left.as_bytes());
            encode::request(&mut bytes, &words);
        } else {
            bytes.extend_from_slice(request);
        }
        let keys: Vec<Box<[u8]>> = vec![asked.arg(1).into(), asked.arg(2).into()];
        let again = Again {
            request: request.to_vec(),
            deadline_ms,
        };
        let waits = Some(Box::new(Waits::new(keys, 1, Some(again))));
        self.send_block(asker, link, number, &bytes, (Undo::Nothing, waits));
    }

    /// From now on a client's requests are kept, not taken.
    pub(crate) fn begin_block(&mut self, slot: u32) {
        if let Some(client) = self.clients.get_mut(slot) {
            if client.intake == Intake::Open {
                client.intake = Intake::Blocked;
            }
        }
    }

    /// A connection on which a client waited has brought its reply.
    pub(crate) fn block_is_over(&mut self, id: u32) {
        let is_over = self.links.get(id).is_some_and(|link| {
            let is_block = matches!(
                link.owner,
                Owner::Ending
                    | Owner::Client {
                        purpose: Purpose::Block,
                        ..
                    }
            );
            is_block && link.queue.is_empty() && link.was_ready()
        });
        if is_over {
            self.give_back(id, true);
        }
    }

    /// CLIENT UNBLOCK.
    pub(crate) fn unblock_client(&mut self, asker: &Asker, request: &Request<'_>) {
        let Some(id) = strict_integer(request.arg(2)) else {
            return self.answer_error(asker, &ClientError::NotAnInteger);
        };
        let reason = request.arg(3);
        let is_error = reason.eq_ignore_ascii_case(b"ERROR");
        let is_known = is_error || reason.eq_ignore_ascii_case(b"TIMEOUT");
        if request.args.len() > 4 || (request.args.len() == 4 && !is_known) {
            let words = "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR";
            return self.answer_error(asker, &ClientError::Words(words));
        }
        let keyspace = asker.keyspace as u16;
        let kind = GatherKind::ClientKill { old_form: false };
        self.ask_workers(asker, kind, |ticket| Mail::Unblock {
            ticket,
            keyspace,
            id: id as u64,
            is_error,
        });
    }

    /// Ends the wait of a client of this worker; whether it waited.
    pub(crate) fn unblock_here(&mut self, keyspace: u16, id: u64, is_error: bool) -> bool {
        let found = self.clients.iter().find(|(_, client)| {
            client.id == id && client.keyspace == keyspace && client.intake == Intake::Blocked
        });
        let Some((slot, _)) = found else {
            return false;
        };
        self.end_block(slot, is_error.then_some(UNBLOCKED));
        true
    }

    /// Ends a wait with an error or, without, as its time-out would.
    pub(crate) fn end_block(&mut self, slot: u32, error: Option<&'static str>) {
        if self.is_waiting_for_several(slot) {
            return self.end_wait(slot, error);
        }
        if self.end_late_block(slot, error) {
            return;
        }
        let own = self
            .clients
            .get(slot)
            .and_then(|client| client.particulars.as_deref())
            .map_or_else(Vec::new, |particulars| particulars.own_links.clone());
        let waiting = own.into_iter().find(|&id| {
            self.links.get(id).is_some_and(|link| {
                matches!(
                    link.owner,
                    Owner::Client {
                        purpose: Purpose::Block,
                        ..
                    }
                )
            })
        });
        let Some((id, link)) = waiting.and_then(|id| Some((id, self.links.get_mut(id)?))) else {
            return;
        };
        if let Some(waits) = link.waits.as_deref_mut() {
            waits.ends = Some(error);
        }
        let is_asked = |entry: &InFlight| entry.waiter == Waiter::Identity;
        if link.was_ready() && link.queue.iter().any(is_asked) {
            // The number by which the shard knows the connection is about to come.
            link.ends = Some(error.is_some());
            return;
        }
        let (shard, server_id) = (link.shard, link.server_id);
        if !self.tell_to_unblock(shard, server_id, error.is_some()) {
            // It has not begun to wait there, or the shard is gone.
            self.cut_block(slot, id, error);
        }
    }

    /// A shard is told to end the wait of the connection that it knows by this number; false when that is not possible.
    pub(crate) fn tell_to_unblock(&mut self, shard: usize, server_id: u64, is_error: bool) -> bool {
        if server_id == 0 {
            return false;
        }
        let Ok(main) = self.link_for(shard, 0) else {
            return false;
        };
        if let Some(link) = self.links.get_mut(main) {
            errand::unblock(link.outgoing().tail(), server_id, is_error);
        }
        self.sent(&Asker::NOBODY, main, 0, 0, Waiter::Prelude);
        true
    }

    /// A shard says by which number it knows a connection.
    pub(crate) fn identified(&mut self, id: u32, reply: &[u8]) {
        let text = reply.get(1..).map(<[u8]>::trim_ascii_end);
        let number = text.and_then(strict_integer).unwrap_or(0);
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        link.server_id = u64::try_from(number).unwrap_or(0);
        let (shard, server_id, owner) = (link.shard, link.server_id, link.owner);
        let Some(is_error) = link.ends.take() else {
            return;
        };
        if self.tell_to_unblock(shard, server_id, is_error) {
            return;
        }
        match owner {
            Owner::Client { slot, .. } => {
                self.cut_block(slot, id, is_error.then_some(UNBLOCKED));
            }
            _ => self.close_link(id),
        }
    }

    /// Ends a wait on our side alone.
    fn cut_block(&mut self, slot: u32, id: u32, error: Option<&'static str>) {
        let waiting = self
            .links
            .get(id)
            .and_then(|link| link.queue.back())
            .copied();
        self.give_back(id, false);
        let (Some(entry), Some(client)) = (waiting, self.clients.get_mut(slot)) else {
            return;
        };
        let mut line = Vec::new();
        match error {
            Some(error) => crate::protocol::encode::error(&mut line, error),
            None => crate::protocol::encode::null_array(&mut line, client.proto),
        }
        client.replies.replace(entry.number, line);
        self.touch_client(slot);
        self.settle_client(slot);
    }

    /// shoal stops: nobody waits any longer.
    pub(crate) fn stop_blocked(&mut self, slot: u32) {
        let is_blocked = self
            .clients
            .get(slot)
            .is_some_and(|client| client.intake == Intake::Blocked);
        if is_blocked {
            self.end_block(
                slot,
                Some("UNBLOCKED shoal is stopping; ask again when it is back"),
            );
        }
    }
}
