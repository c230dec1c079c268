//! Mail: what one worker's engine has for another's.
//!
//! Owns: the messages, who may ask all workers one question (`ask_workers`), and where an answer goes (`Ticket`).
//!
//! Flow: a command asks all workers, itself among them -> each does its share in `mail` and answers the ticket -> the answers are
//! gathered like the parts of a split request. Some mail only tells, and is answered by nobody.
//!
//! Must stay true: every worker answers every question exactly once, also when it has nobody; an answer whose client has left
//! finds nobody and is dropped.

use crate::session::client_admin::Filter;
use crate::session::cross_shard::notes::Note;
use crate::session::dispatch::Asker;
use crate::session::engine::{Action, Engine};
use crate::session::gather::{Gather, GatherKind};
use crate::session::pause::Pause;
use crate::session::publish::Census;
use crate::session::scripts::Sha;
use crate::session::slowlog::SlowQuestion;
use crate::session::tracking::Redirect;
use std::sync::atomic::AtomicUsize;
use std::sync::Arc;

/// Where an answer to a worker's question goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The worker that asked.
    pub worker: usize,
    /// Its client.
    pub client: u32,
    /// See `client`.
    pub generation: u32,
    /// The request's place.
    pub number: u32,
}

/// From one worker to another.
#[derive(Debug, Clone)]
pub enum Mail {
    /// A script that a client has shown.
    Script(Sha, Arc<[u8]>),
    /// SCRIPT FLUSH.
    ForgetScripts,
    /// CLIENT LIST: lines of the clients that pass the filter.
    List(Ticket, Filter),
    /// CLIENT KILL: how many clients were closed.
    Kill(Ticket, Filter),
    /// CLIENT PAUSE of a keyspace (by index), or its end; answered with nothing.
    Pause(Ticket, usize, Option<Pause>),
    /// MONITOR in a keyspace (by index); with the count of bytes on their way to the monitor. Answered with nothing.
    Monitor(Ticket, u16, Arc<AtomicUsize>),
    /// The monitor of that request watches no longer.
    MonitorEnds(Ticket),
    /// What the monitor of that request is shown; None: lines of it are lost.
    Lines(Ticket, Option<Vec<u8>>),
    /// INFO: how many clients of a keyspace (by index) do what.
    Headcount(Ticket, u16),
    /// About the slow log of a keyspace (by index).
    Slowlog(Ticket, u16, SlowQuestion),
    /// ACL LOG of a keyspace (by index): entries, as `acl_log` writes them.
    AclLog(Ticket, usize),
    /// ACL LOG RESET of a keyspace; answered with nothing.
    ForgetAclLog(Ticket, usize),
    /// CLIENT UNBLOCK: whether the client waited here.
    Unblock {
        /// Where the answer goes.
        ticket: Ticket,
        /// Of whoever asks.
        keyspace: u16,
        /// CLIENT ID.
        id: u64,
        /// With an error, not as at its time-out.
        is_error: bool,
    },
    /// What a worker knows of subscriptions; the answer is this part of the gather, or else the worker's own.
    Census(Ticket, Option<u16>, Census),
    /// A worker's requests to subscribe wait no longer.
    Subscribed,
    /// CLIENT TRACKING: whether the client to redirect to is here, and where.
    FindClient {
        /// Where the answer goes.
        ticket: Ticket,
        /// Of whoever asks.
        keyspace: u16,
        /// CLIENT ID.
        id: u64,
    },
    /// An invalidation for a client of the worker.
    Invalidate {
        /// The client.
        to: Redirect,
        /// As the shard wrote them.
        keys: Vec<u8>,
        /// Worker, place and generation of the client that read them.
        from: (usize, u32, u32),
    },
    /// The client that one of the worker redirects to is gone.
    RedirectBroken {
        /// Place of the client that redirects.
        slot: u32,
        /// See `slot`.
        generation: u32,
    },
    /// To worker 0: a shard of a cache (numbered through the topology) has failed as often as it may.
    ShardFailed(usize),
    /// From worker 0: such a shard takes so many sixteenths of its keys from now on.
    Share(usize, u8),
    /// About operations across shards.
    CrossShard(Box<Note>),
    /// A part of what was asked: mostly the worker's number, and its answer.
    Answer(Ticket, u16, Vec<u8>),
}

impl Engine {
    /// Puts a question to every worker, this one among them; the answers are gathered.
    pub(crate) fn ask_workers(
        &mut self,
        asker: &Asker,
        kind: GatherKind,
        question: impl Fn(Ticket) -> Mail,
    ) {
        let number = self.reserve_gather(asker, Gather::new(kind, self.identity.workers));
        self.ask_workers_for(asker, number, question);
    }

    /// The same, for a place that was taken: the workers' answers are its first parts.
    pub(crate) fn ask_workers_for(
        &mut self,
        asker: &Asker,
        number: u32,
        question: impl Fn(Ticket) -> Mail,
    ) {
        let ticket = Ticket {
            worker: self.identity.worker,
            client: asker.slot,
            generation: asker.generation,
            number,
        };
        for worker in (0..self.identity.workers).filter(|&worker| worker != ticket.worker) {
            self.actions.push(Action::Mail(worker, question(ticket)));
        }
        self.mail(question(ticket));
    }

    /// Mail from a worker.
    pub fn mail(&mut self, mail: Mail) {
        match mail {
            Mail::Script(sha, body) => {
                self.scripts.learn(sha, &body);
            }
            Mail::ForgetScripts => self.forget_scripts_here(),
            Mail::List(ticket, filter) => self.list_here(ticket, &filter),
            Mail::Kill(ticket, filter) => self.kill_here(ticket, &filter),
            Mail::Pause(ticket, keyspace, pause) => {
                self.take_pause(keyspace, pause);
                self.reply_to(ticket, Vec::new());
            }
            Mail::Monitor(ticket, keyspace, way) => {
                self.take_seat(ticket, keyspace, way);
                self.reply_to(ticket, Vec::new());
            }
            Mail::Headcount(ticket, keyspace) => self.answer_headcount(ticket, keyspace),
            Mail::Slowlog(ticket, keyspace, asked) => self.answer_slowlog(ticket, keyspace, asked),
            Mail::MonitorEnds(ticket) => self.give_seat_up(ticket),
            Mail::Lines(ticket, lines) => self.lines_arrived(ticket, lines),
            Mail::AclLog(ticket, keyspace) => {
                let entries = self.acl_log_here(keyspace);
                self.reply_to(ticket, entries);
            }
            Mail::ForgetAclLog(ticket, keyspace) => {
                self.forget_acl_log(keyspace);
                self.reply_to(ticket, Vec::new());
            }
            Mail::Unblock {
                ticket,
                keyspace,
                id,
                is_error,
            } => {
                let count = u8::from(self.unblock_here(keyspace, id, is_error));
                self.reply_to(ticket, count.to_string().into_bytes());
            }
            Mail::Subscribed => self.release_publishers(),
            Mail::Census(ticket, part, census) => {
                let part = part.unwrap_or(self.identity.worker as u16);
                let bytes = self.census(&census);
                self.reply_as(ticket, part, bytes);
            }
            Mail::FindClient {
                ticket,
                keyspace,
                id,
            } => self.find_client(ticket, keyspace, id),
            Mail::Invalidate { to, keys, from } => self.redirected(to, &keys, from),
            Mail::RedirectBroken { slot, generation } => self.redirect_broken(slot, generation),
            Mail::CrossShard(note) => {
                self.cross_shards.notes.push_back(*note);
                self.settle_notes();
            }
            Mail::ShardFailed(shard) => self.shard_failed(shard),
            Mail::Share(shard, share) => self.take_share(shard, share),
            Mail::Answer(ticket, worker, bytes) => {
                self.part_arrived(
                    ticket.client,
                    ticket.generation,
                    ticket.number,
                    worker,
                    &bytes,
                );
            }
        }
    }

    /// An answer to whoever asked, as this worker's part.
    pub(crate) fn reply_to(&mut self, ticket: Ticket, bytes: Vec<u8>) {
        self.reply_as(ticket, self.identity.worker as u16, bytes);
    }

    /// As `reply_to`, for another part than the worker's own.
    pub(crate) fn reply_as(&mut self, ticket: Ticket, part: u16, bytes: Vec<u8>) {
        if ticket.worker == self.identity.worker {
            self.part_arrived(
                ticket.client,
                ticket.generation,
                ticket.number,
                part,
                &bytes,
            );
        } else {
            self.actions.push(Action::Mail(
                ticket.worker,
                Mail::Answer(ticket, part, bytes),
            ));
        }
    }
}
