//! MONITOR: clients that are shown every request.
//!
//! Owns: who watches (`Seat`, which every worker has of every monitor), the lines as servers write them, and their way to
//! the monitor's own worker.
//!
//! Flow: MONITOR goes to every worker as mail; when all have a seat for it the client is told OK -> the gate gives every
//! request of the worker to `watched`, which carries it out and puts its line on the seats of its keyspace -> at the end of
//! the turn the lines go to the monitor's worker as mail (`tell_monitors`), and there behind the reply that is being given.
//!
//! Must stay true: a request is shown when it is taken, so once, however often a barrier put it off; what servers do not show
//! (refused, administrative, a password) is not shown; a monitor that misses a line is closed, never left with a gap; what
//! waits for it is bounded, on the way between workers too.
//! Rejected: a line per letter: one wake-up of a thread for each request. To drop lines of a monitor that is slow: who looks
//! for one request among all would believe that it never came.

use crate::error::ClientError;
use crate::limits::{MONITOR_BYTES_MAX, OUTPUT_HIGH};
use crate::protocol::command::{flags, CommandSpec, Local, Policy};
use crate::protocol::request::RequestScanner;
use crate::routing::route::{decide, Request, Route};
use crate::session::client::{care, ReplyMode};
use crate::session::dispatch::{Asker, Taken};
use crate::session::engine::{Action, Engine};
use crate::session::gather::GatherKind;
use crate::session::mail::{Mail, Ticket};
use crate::session::stats::{CloseReason, PerKeyspace};
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

/// What stands in place of a password.
const REDACTED: &[u8] = b"(redacted)";

/// One monitor, as each worker knows it.
#[derive(Debug)]
pub(crate) struct Seat {
    /// The MONITOR request: its client, and the worker that has it.
    ticket: Ticket,
    keyspace: u16,
    /// Lines of this turn.
    lines: Vec<u8>,
    /// Bytes of lines that are on their way to the monitor's worker, from all workers.
    on_the_way: Arc<AtomicUsize>,
    state: SeatState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SeatState {
    /// Lines are put on it.
    Kept,
    /// One could not be: the monitor's worker is to be told.
    Missed,
    /// It has been told.
    Told,
}

/// A client that is a monitor, or is about to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watching {
    ticket: Ticket,
    /// It was told OK; what comes before that is not shown.
    is_on: bool,
}

/// What a request's line needs, from before it is carried out.
struct Shown {
    keyspace: u16,
    database: u8,
    peer: Box<str>,
    /// EXEC: the queued requests, which are shown before it.
    queued: Vec<Vec<u8>>,
}

impl Engine {
    /// MONITOR.
    pub(crate) fn monitor(&mut self, asker: &Asker) {
        if self.is_monitor(asker.slot) {
            // As a server, which says nothing.
            return self.answer(
                &Asker {
                    mute: true,
                    ..*asker
                },
                |_| {},
            );
        }
        let keyspace = asker.keyspace as u16;
        let on_the_way = Arc::new(AtomicUsize::new(0));
        self.ask_workers(asker, GatherKind::Monitor, |ticket| {
            Mail::Monitor(ticket, keyspace, Arc::clone(&on_the_way))
        });
    }

    /// Whether a client watches.
    pub(crate) fn is_monitor(&self, slot: u32) -> bool {
        self.watching(slot).is_some()
    }

    fn watching(&self, slot: u32) -> Option<Watching> {
        self.clients.get(slot)?.particulars.as_deref()?.monitor
    }

    /// Mail: somebody watches from now on.
    pub(crate) fn take_seat(&mut self, ticket: Ticket, keyspace: u16, way: Arc<AtomicUsize>) {
        if ticket.worker == self.identity.worker {
            let Some(client) = self.clients.get_same(ticket.client, ticket.generation) else {
                return;
            };
            client.particulars().monitor = Some(Watching {
                ticket,
                is_on: false,
            });
        }
        self.care |= care::MONITORED;
        self.seats.push(Seat {
            ticket,
            keyspace,
            lines: Vec::new(),
            on_the_way: way,
            state: SeatState::Kept,
        });
    }

    /// Every worker shows it requests: it is told so.
    pub(crate) fn monitor_begins(&mut self, slot: u32) {
        if let Some(client) = self.clients.get_mut(slot) {
            if let Some(watching) = &mut client.particulars().monitor {
                watching.is_on = true;
            }
        }
    }

    /// RESET, or the client leaves.
    pub(crate) fn end_monitor(&mut self, slot: u32) {
        let Some(Watching { ticket, .. }) = self.watching(slot) else {
            return;
        };
        if let Some(client) = self.clients.get_mut(slot) {
            client.particulars().monitor = None;
        }
        for worker in (0..self.identity.workers).filter(|&worker| worker != self.identity.worker) {
            self.actions
                .push(Action::Mail(worker, Mail::MonitorEnds(ticket)));
        }
        self.give_seat_up(ticket);
    }

    /// Mail: somebody watches no longer.
    pub(crate) fn give_seat_up(&mut self, ticket: Ticket) {
        self.seats.retain(|seat| seat.ticket != ticket);
        if self.seats.is_empty() {
            self.care &= !care::MONITORED;
        }
    }

    /// As a server, which counts a monitor among its replicas: it does not touch keys.
    pub(crate) fn barred_as_monitor(
        &self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
    ) -> Option<ClientError> {
        let spec = spec.filter(|_| self.is_monitor(slot))?;
        let is_handed_on = matches!(
            spec.policy,
            Policy::Script { .. } | Policy::Local(Local::Publish | Local::Spublish)
        );
        let touches = is_handed_on || spec.flags & (flags::WRITE | flags::READONLY) != 0;
        touches.then_some(ClientError::Words(
            "ERR Replica can't interact with the keyspace",
        ))
    }

    /// A request while somebody watches: carried out, and shown.
    pub(crate) fn watched(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
        request: &Request<'_>,
        is_tracked: bool,
    ) -> Taken {
        let shown = self.shown(slot, spec, request);
        let executed_nothing = |engine: &Self| match &shown {
            Some(shown) if !shown.queued.is_empty() => engine
                .stats()
                .of_keyspace(shown.keyspace as usize, PerKeyspace::TransactionsAborted),
            _ => 0,
        };
        let before = executed_nothing(self);
        let tracked = if is_tracked {
            self.tracked(slot, spec, request)
        } else {
            None
        };
        let taken = tracked.unwrap_or_else(|| self.proceed(slot, request));
        let is_aborted = executed_nothing(self) != before;
        if let (Taken::Yes, Some(mut shown)) = (taken, shown) {
            if is_aborted {
                shown.queued.clear();
            }
            // As a server, which writes the line when the request is done: SELECT's has the new database.
            if let Some(client) = self.clients.get(slot) {
                shown.database = client.database;
            }
            self.show(&shown, spec, request);
        }
        taken
    }

    /// None: servers would not show it.
    fn shown(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
        request: &Request<'_>,
    ) -> Option<Shown> {
        if spec.is_some_and(|spec| spec.flags & flags::ADMIN != 0) {
            return None;
        }
        let client = self.clients.get(slot)?;
        let keyspace = client.keyspace as usize;
        let space = &self.topology.keyspaces[keyspace];
        let admission = &self.admissions[keyspace];
        if let Route::Refuse(_) = decide(space, admission, request, &mut self.scratch).1 {
            return None;
        }
        let transaction = client
            .particulars
            .as_deref()
            .and_then(|known| known.transaction.as_deref())
            .filter(|_| spec.is_some_and(|spec| spec.policy == Policy::Local(Local::Exec)));
        Some(Shown {
            keyspace: client.keyspace,
            database: client.database,
            peer: client.peer.clone(),
            queued: transaction.map_or_else(Vec::new, |transaction| {
                (0..transaction.commands.len())
                    .map(|index| transaction.request(index).to_vec())
                    .collect()
            }),
        })
    }

    /// Puts the lines on the seats.
    fn show(&mut self, shown: &Shown, spec: Option<&'static CommandSpec>, request: &Request<'_>) {
        let mut lines = Vec::new();
        for data in &shown.queued {
            let mut scanner = RequestScanner::default();
            scanner.scan(data, true);
            let args = &scanner.args;
            self.write_line(&mut lines, shown, None, &Request { data, args });
        }
        self.write_line(&mut lines, shown, spec, request);
        for seat in &mut self.seats {
            if seat.keyspace != shown.keyspace || seat.state != SeatState::Kept {
                continue;
            }
            let waiting = seat.lines.len() + seat.on_the_way.load(Relaxed);
            if waiting + lines.len() > MONITOR_BYTES_MAX {
                seat.state = SeatState::Missed;
                seat.lines = Vec::new();
            } else {
                seat.lines.extend_from_slice(&lines);
            }
        }
    }

    fn write_line(
        &self,
        out: &mut Vec<u8>,
        shown: &Shown,
        spec: Option<&'static CommandSpec>,
        request: &Request<'_>,
    ) {
        let unix_us = self.unix_start_ms * 1000 + self.now_us;
        let (seconds, micros) = (unix_us / 1_000_000, unix_us % 1_000_000);
        let (database, peer) = (shown.database, &shown.peer);
        // Writing to memory does not fail.
        let _ = write!(out, "+{seconds}.{micros:06} [{database} {peer}]");
        let secrets = secrets(spec, request);
        for index in 0..request.args.len() {
            out.push(b' ');
            if secrets.contains(&index) {
                quote(out, REDACTED);
            } else {
                quote(out, request.arg(index));
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Sends this turn's lines on their way; true when there is something to be done outside for it.
    #[inline]
    pub fn tell_monitors(&mut self) -> bool {
        self.care & care::MONITORED != 0 && self.send_lines()
    }

    #[cold]
    fn send_lines(&mut self) -> bool {
        let mut here = Vec::new();
        for seat in &mut self.seats {
            let lines = match seat.state {
                SeatState::Kept if !seat.lines.is_empty() => Some(std::mem::take(&mut seat.lines)),
                SeatState::Missed => None,
                SeatState::Kept | SeatState::Told => continue,
            };
            match &lines {
                Some(lines) => {
                    seat.on_the_way.fetch_add(lines.len(), Relaxed);
                }
                None => seat.state = SeatState::Told,
            }
            if seat.ticket.worker == self.identity.worker {
                here.push((seat.ticket, lines));
            } else {
                let mail = Mail::Lines(seat.ticket, lines);
                self.actions.push(Action::Mail(seat.ticket.worker, mail));
            }
        }
        for (ticket, lines) in here {
            self.lines_arrived(ticket, lines);
        }
        !self.actions.is_empty()
    }

    /// Mail: lines for a monitor of this worker; None: some could not be kept for it.
    pub(crate) fn lines_arrived(&mut self, ticket: Ticket, lines: Option<Vec<u8>>) {
        let seat = self.seats.iter().find(|seat| seat.ticket == ticket);
        if let (Some(seat), Some(lines)) = (seat, &lines) {
            seat.on_the_way.fetch_sub(lines.len(), Relaxed);
        }
        let slot = ticket.client;
        let is_its = |watching: Watching| watching.ticket == ticket && watching.is_on;
        if !self.watching(slot).is_some_and(is_its) {
            return;
        }
        let Some(client) = self.clients.get_same(slot, ticket.generation) else {
            return;
        };
        let Some(lines) = lines else {
            return self.drop_client(slot, CloseReason::MonitorTooSlow);
        };
        if client.reply_mode == ReplyMode::Off {
            return;
        }
        client.replies.push(&lines);
        let held = client.replies.bytes();
        if held > MONITOR_BYTES_MAX {
            return self.drop_client(slot, CloseReason::MonitorTooSlow);
        }
        if held > OUTPUT_HIGH {
            self.piled_up(slot);
        }
        self.touch_client(slot);
    }
}

/// Arguments that are passwords, or go with one.
fn secrets(spec: Option<&'static CommandSpec>, request: &Request<'_>) -> std::ops::Range<usize> {
    match spec.map(|spec| spec.policy) {
        Some(Policy::Local(Local::Auth)) => 1..request.args.len(),
        Some(Policy::Local(Local::Hello)) => (2..request.args.len())
            .find(|&index| request.arg(index).eq_ignore_ascii_case(b"AUTH"))
            .map_or(0..0, |index| index + 1..index + 3),
        _ => 0..0,
    }
}

/// An argument as servers show it.
fn quote(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        let escaped = match byte {
            b'\\' => b"\\\\",
            b'"' => b"\\\"",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x07 => b"\\a",
            0x08 => b"\\b",
            b' '..=b'~' => {
                out.push(byte);
                continue;
            }
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
                continue;
            }
        };
        out.extend_from_slice(escaped);
    }
    out.push(b'"');
}
