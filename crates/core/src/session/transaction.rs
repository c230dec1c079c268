//! What stands between MULTI and EXEC of one client.
//!
//! Owns: the queueing, within its bounds, and what becomes of it when the client leaves or something cannot be queued. EXEC is
//! in `transaction_exec`, its reply in `transaction_reply`, WATCH in `transaction_watch`.
//!
//! Flow: MULTI sets `care::QUEUES` -> the gate gives every request to `queued`, which keeps its bytes and notes the shard of its
//! keys -> EXEC sends MULTI, all of them and EXEC in one piece on the shard's shared link. WATCH opens a link of the client's
//! own; EXEC then goes there.
//!
//! Must stay true: what was queued is executed as it was written; a command that cannot be queued makes EXEC execute nothing.
//! Rejected: all requests of a watching client on its own link: a barrier costs one round trip and nobody else anything.

use crate::error::{ClientError, KeyPlace, NOT_IN_TRANSACTION};
use crate::limits::{REQUEST_BYTES_TOTAL_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_COMMANDS_MAX};
use crate::protocol::command::{flags, keys, CommandSpec, Local, Merge, Policy};
use crate::protocol::encode;
use crate::routing::distribution::Distribution;
use crate::routing::route::{decide, shard_of_keys, Request, Route};
use crate::routing::topology::Keyspace;
use crate::session::client::care;
use crate::session::dispatch::{Asker, Taken};
use crate::session::engine::Engine;
use crate::session::scripts::{sha_from_hex, Sha};
use crate::session::stats::PerKeyspace;
use crate::session::transaction_split::{Piece, Pieces};

/// Where a queued command is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// By the transaction's shard.
    Sent,
    /// By the shard that holds its keys.
    At(u16),
    /// By us, when the shard has executed the rest.
    Own(Local),
}

/// One queued command, or a piece of one: its bytes end here.
#[derive(Debug, Clone)]
pub(crate) struct Queued {
    pub end: usize,
    pub deed: Deed,
    /// Which of the transaction's shards executes it: a position in `places`.
    pub part: u16,
    pub sha: Option<Sha>,
    pub piece: Piece,
}

/// Where a command would be executed.
enum Placed {
    /// In one place.
    Whole(Deed),
    /// By one operation over the shards of its keys; the scratch says which.
    Across,
    /// By each shard that has some of its keys; the scratch says which.
    Split { step: u8, merge: Merge },
}

/// What stands between MULTI and EXEC.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub(crate) bytes: Vec<u8>,
    pub(crate) commands: Vec<Queued>,
    /// A key for each shard that has one, in the order in which they were named.
    pub(crate) places: Vec<(u16, KeyPlace)>,
    pub(crate) is_spoiled: bool,
    /// Commands that were told QUEUED or an error.
    told: usize,
}

impl Transaction {
    /// The bytes of one queued request.
    pub(crate) fn request(&self, index: usize) -> &[u8] {
        let start = index
            .checked_sub(1)
            .map_or(0, |before| self.commands[before].end);
        &self.bytes[start..self.commands[index].end]
    }

    /// The position of a shard among those that have keys of it; `place`: its first key, if it is new.
    fn part_at(&mut self, shard: u16, place: impl FnOnce() -> KeyPlace) -> u16 {
        let known = self.places.iter().position(|&(known, _)| known == shard);
        known.unwrap_or_else(|| {
            self.places.push((shard, place()));
            self.places.len() - 1
        }) as u16
    }

    fn keep(&mut self, bytes: &[u8], deed: Deed, part: u16, sha: Option<Sha>, piece: Piece) {
        self.bytes.extend_from_slice(bytes);
        self.commands.push(Queued {
            end: self.bytes.len(),
            deed,
            part,
            sha,
            piece,
        });
    }

    /// As the client counts them.
    pub(crate) fn count(&self) -> usize {
        let whole = |queued: &&Queued| !matches!(queued.piece, Piece::Part);
        self.commands.iter().filter(whole).count()
    }
}

impl Engine {
    /// One of the five commands.
    pub(crate) fn transaction(&mut self, asker: &Asker, local: Local, request: &Request<'_>) {
        let is_within = self
            .clients
            .get(asker.slot)
            .is_some_and(|client| client.care & care::QUEUES != 0);
        match (local, is_within) {
            (Local::Multi, true) => self.words(asker, "ERR MULTI calls can not be nested"),
            (Local::Watch, true) => self.words(asker, "ERR WATCH inside MULTI is not allowed"),
            (Local::Exec, false) => self.words(asker, "ERR EXEC without MULTI"),
            (Local::Discard, false) => self.words(asker, "ERR DISCARD without MULTI"),
            (Local::Multi, false) => {
                if let Some(client) = self.clients.get_mut(asker.slot) {
                    client.take_care(care::QUEUES, true);
                    client.particulars().transaction = Some(Box::default());
                }
                self.answer(asker, |out| encode::simple(out, "OK"));
            }
            (Local::Exec, true) => self.exec(asker),
            (Local::Watch, false) => self.watch(asker, request),
            (Local::Discard, true) => {
                self.take_transaction(asker.slot);
                self.unwatch(asker);
            }
            _ => self.unwatch(asker),
        }
    }

    fn words(&mut self, asker: &Asker, words: &'static str) {
        self.answer_error(asker, &ClientError::Words(words));
    }

    /// A request of a client that is within MULTI. None: it goes on as if it were not.
    pub(crate) fn queued(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
        request: &Request<'_>,
    ) -> Option<Taken> {
        if let Some(spec) = spec {
            if let Policy::Local(
                Local::Quit
                | Local::Reset
                | Local::Multi
                | Local::Exec
                | Local::Discard
                | Local::Watch,
            ) = spec.policy
            {
                return None;
            }
            if spec.flags & flags::NO_MULTI != 0 {
                let words = "ERR Command not allowed inside a transaction";
                return Some(self.turn_away(slot, &ClientError::Words(words)));
            }
        }
        let placed = match self.place_of(slot, spec, request) {
            Ok(placed) => placed,
            Err(error) => return Some(self.turn_away(slot, &error)),
        };
        if let Err(error) = self.keep_queued(slot, spec, placed, request) {
            return Some(self.turn_away(slot, &error));
        }
        let now_ms = self.now_ms;
        if let Some(client) = self.clients.get_mut(slot) {
            client.request_ms = now_ms;
            client.last_command = spec.map_or("unknown", |spec| spec.full_name);
        }
        if let Some(asker) = self.asker_at_gate(slot) {
            self.stats()
                .keyspace(asker.keyspace, PerKeyspace::Requests, 1);
            self.answer(&asker, |out| encode::simple(out, "QUEUED"));
        }
        Some(Taken::Yes)
    }

    /// Where a command would be executed, or why it cannot be within a transaction.
    fn place_of(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
        request: &Request<'_>,
    ) -> Result<Placed, ClientError> {
        let index = self
            .clients
            .get(slot)
            .map_or(0, |client| client.keyspace as usize);
        let space = &self.topology.keyspaces[index];
        let admission = &self.admissions[index];
        let is_random = matches!(space.distribution, Distribution::Random(_));
        let at = |shard| {
            Placed::Whole(if is_random {
                Deed::Sent
            } else {
                Deed::At(shard)
            })
        };
        let sent = Ok(Placed::Whole(Deed::Sent));
        let refused = |spec: Option<&'static CommandSpec>| ClientError::Refused {
            command: spec.map_or("unknown", |spec| spec.full_name),
            reason: NOT_IN_TRANSACTION,
        };
        let is_one_operation = space.cross_shard && !space.transactions_per_shard;
        let mut route = decide(space, admission, request, &mut self.scratch).1;
        if let (Route::CrossShard, Some(Policy::Split { step, merge })) =
            (&route, spec.map(|spec| spec.policy))
        {
            // What is split at all is split here too: the whole transaction is one operation over its shards, or none is.
            route = Route::Split { step, merge };
        }
        match route {
            Route::Split { .. } | Route::CrossShard if is_one_operation => Ok(Placed::Across),
            Route::Shard(shard) | Route::Script { shard, .. } => Ok(at(shard)),
            Route::Split { step, merge } if space.transactions_per_shard && !is_random => {
                Ok(Placed::Split { step, merge })
            }
            Route::Blocking | Route::Streams | Route::Split { .. } | Route::CrossShard => {
                let spec = spec.ok_or_else(|| refused(None))?;
                shard_of_keys(space, admission, spec, request, &mut self.scratch).map(at)
            }
            // What is published on any shard comes to every subscriber.
            Route::AnyShard | Route::Local(Local::Publish | Local::Spublish) => sent,
            Route::AllShards(merge)
                if space.shards.len() == 1 && !matches!(merge, Merge::Info | Merge::Config) =>
            {
                sent
            }
            // With one shard there are no operations across shards, and no records of them.
            Route::AllKeys(_) if space.shards.len() == 1 => sent,
            Route::Local(local) if is_own(local) => Ok(Placed::Whole(Deed::Own(local))),
            Route::Refuse(error) => Err(*error),
            Route::AllShards(_)
            | Route::AllKeys(_)
            | Route::Aside(_)
            | Route::Settings
            | Route::Scan
            | Route::ScriptLoad
            | Route::ScriptFlush
            | Route::Wait
            | Route::Local(_) => Err(refused(spec)),
        }
    }

    /// Keeps a request until EXEC, within the bounds.
    fn keep_queued(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
        placed: Placed,
        request: &Request<'_>,
    ) -> Result<(), ClientError> {
        let pieces = match placed {
            Placed::Whole(_) | Placed::Across => None,
            Placed::Split { step, merge } => Some(Pieces::cut(request, &self.scratch, step, merge)),
        };
        let held = self.queued_bytes + self.incoming_bytes;
        let Some(client) = self.clients.get_mut(slot) else {
            return Ok(());
        };
        let space = &self.topology.keyspaces[client.keyspace as usize];
        let Some(transaction) = client.particulars().transaction.as_deref_mut() else {
            return Ok(());
        };
        transaction.told += 1;
        if transaction.is_spoiled {
            return Ok(());
        }
        let len = pieces.as_ref().map_or(request.data.len(), Pieces::len);
        let count = pieces.as_ref().map_or(1, |pieces| pieces.list.len());
        if transaction.commands.len() + count > TRANSACTION_COMMANDS_MAX
            || transaction.bytes.len() + len > TRANSACTION_BYTES_MAX
            || held + len > REQUEST_BYTES_TOTAL_MAX
        {
            return Err(ClientError::TransactionTooLarge);
        }
        self.queued_bytes += len;
        if let Some(Pieces { list, join }) = pieces {
            let last = list.len() - 1;
            let mut join = Some(Box::new(join));
            for (index, (shard, key, bytes)) in list.into_iter().enumerate() {
                let place = || place_of_key(space, shard, request.arg(key as usize));
                let part = transaction.part_at(shard, place);
                let piece = join
                    .take_if(|_| index == last)
                    .map_or(Piece::Part, Piece::Last);
                transaction.keep(&bytes, Deed::At(shard), part, None, piece);
            }
        } else {
            let deed = match placed {
                Placed::Whole(deed) => deed,
                _ => {
                    for (&key, &shard) in self.scratch.keys.iter().zip(&self.scratch.shards) {
                        let place = || place_of_key(space, shard, request.arg(key as usize));
                        transaction.part_at(shard, place);
                    }
                    Deed::Sent
                }
            };
            let part = match deed {
                Deed::At(shard) => {
                    transaction.part_at(shard, || key_place(space, shard, spec, request))
                }
                Deed::Sent | Deed::Own(_) => 0,
            };
            let sha = match spec.map(|spec| spec.policy) {
                Some(Policy::Script { sha: true, .. }) => sha_from_hex(request.arg(1)),
                _ => None,
            };
            transaction.keep(request.data, deed, part, sha, Piece::Whole);
        }
        Ok(())
    }

    /// Something could not be queued: EXEC will refuse. What was queued is forgotten at once.
    pub(crate) fn spoil_transaction(&mut self, slot: u32) {
        let Some(transaction) = self
            .clients
            .get_mut(slot)
            .and_then(|client| client.particulars.as_deref_mut())
            .and_then(|particulars| particulars.transaction.as_deref_mut())
        else {
            return;
        };
        self.queued_bytes -= transaction.bytes.len();
        let told = transaction.told;
        *transaction = Transaction {
            is_spoiled: true,
            told,
            ..Transaction::default()
        };
    }

    /// Ends the queueing.
    pub(crate) fn take_transaction(&mut self, slot: u32) -> Option<Box<Transaction>> {
        let client = self.clients.get_mut(slot)?;
        client.take_care(care::QUEUES, false);
        let transaction = client.particulars.as_deref_mut()?.transaction.take()?;
        self.queued_bytes -= transaction.bytes.len();
        Some(transaction)
    }

    /// RESET, or the client leaves: nothing is queued and nothing watched.
    pub(crate) fn forget_transaction(&mut self, slot: u32) {
        self.take_transaction(slot);
        let watch = self.take_watch(slot);
        self.end_watch(slot, watch);
    }

    /// As CLIENT LIST shows them: commands queued (-1: not within MULTI) and keys watched.
    pub(crate) fn transaction_counts(&self, slot: u32) -> (i64, usize) {
        let particulars = self
            .clients
            .get(slot)
            .and_then(|client| client.particulars.as_deref());
        let queued = particulars.and_then(|known| known.transaction.as_ref());
        let watch = particulars.and_then(|known| known.watch.as_ref());
        (
            queued.map_or(-1, |transaction| transaction.count() as i64),
            watch.map_or(0, |watch| watch.count()),
        )
    }
}

/// What we answer at once, from what we know of the client.
fn is_own(local: Local) -> bool {
    matches!(
        local,
        Local::Ping
            | Local::Echo
            | Local::Unwatch
            | Local::ClientId
            | Local::ClientSetname
            | Local::ClientGetname
            | Local::ClientSetinfo
            | Local::ClientInfo
            | Local::ClientNoEvict
            | Local::ClientNoTouch
            | Local::ClientGetredir
            | Local::ClientTrackinginfo
            | Local::ClientHelp
            | Local::ClusterKeyslot
            | Local::Role
            | Local::ClusterDisabled
    )
}

/// The first key of a request, for an error.
pub(crate) fn key_place(
    space: &Keyspace,
    shard: u16,
    spec: Option<&'static CommandSpec>,
    request: &Request<'_>,
) -> KeyPlace {
    let mut found = Vec::new();
    let is_told =
        spec.is_some_and(|spec| keys(spec, request.args, request.data, &mut found).is_ok());
    let index = if is_told {
        found.first().copied()
    } else {
        None
    };
    let is_script = spec.is_some_and(|spec| matches!(spec.policy, Policy::Script { .. }));
    if is_script && index.is_none() {
        // Its first argument is its text.
        let name = space.shards[shard as usize].name.clone();
        return (b"a script without keys".to_vec(), Default::default(), name);
    }
    place_of_key(space, shard, request.arg(index.unwrap_or(1) as usize))
}

pub(crate) fn place_of_key(space: &Keyspace, shard: u16, key: &[u8]) -> KeyPlace {
    let shown = &key[..key.len().min(crate::limits::TEXT_IN_ERROR_MAX + 1)];
    (
        shown.to_vec(),
        space.group(key).phrase(),
        space.shards[shard as usize].name.clone(),
    )
}
