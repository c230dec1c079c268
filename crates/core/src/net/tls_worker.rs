//! What a worker does about TLS: it carries handshakes on, ends those that take too long, and accepts no faster than they go.
//!
//! Owns: the steps between a `Session`'s progress and the engine. A connection that is open is read and written by
//! `worker.rs` like any other, and nothing there asks which kind it has.
//!
//! Must stay true: the engine hears of a link as connected, and gives a client's bytes out, only after the handshake.

use crate::limits::{
    ACCEPTS_PER_TURN, TLS_ACCEPTS_PER_TURN, TLS_HANDSHAKES_MAX, TLS_HANDSHAKE_MS_MAX,
};
use crate::net::poll::Peer;
use crate::net::tls_session::{Failure, Session, Step};
use crate::net::worker::Worker;
use crate::session::stats::CloseReason;
use std::io;
use std::time::Instant;

impl Worker {
    pub(crate) fn shake(&mut self, peer: Peer) {
        loop {
            match (self.sockets.shake(peer), peer) {
                (Step::Waiting, _) => return,
                (Step::Reached, Peer::Link(link)) => self.engine.link_reached(link),
                (Step::Reached | Step::Done, Peer::Client(slot)) => {
                    self.engine.client_secured(slot);
                    break;
                }
                (Step::Done, Peer::Link(link)) => {
                    self.dialled.remove(&link);
                    self.engine.link_connected(link);
                    break;
                }
                (Step::Plain, Peer::Client(slot)) => {
                    self.engine.client_is_plain(slot);
                    break;
                }
                (Step::Failed(failure), Peer::Client(slot)) => {
                    let Failure { reason, detail } = failure;
                    self.engine.client_unsecured(slot, reason, detail);
                    break;
                }
                (Step::Failed(failure), Peer::Link(link)) => {
                    let reason = format!("TLS: {}", failure.detail);
                    self.engine.link_lost(link, &reason);
                    break;
                }
                (Step::Plain, Peer::Link(_)) => return,
            }
        }
        self.act();
        self.write(peer);
        self.read(peer);
    }

    pub(crate) fn end_late_handshakes(&mut self, now: Instant) {
        for slot in self.sockets.late_handshakes(now) {
            let detail = format!("not done within {TLS_HANDSHAKE_MS_MAX} ms");
            self.engine
                .client_unsecured(slot, CloseReason::TlsTimeout, detail);
            self.act();
        }
    }

    /// What a link whose shard has TLS begins with.
    pub(crate) fn session(&self, link: u32) -> Option<Result<Session, String>> {
        let (number, endpoint) = self.engine.link_place(link)?;
        let keyspace = self.topology.keyspaces.get(number)?;
        self.tls.begun(number, keyspace, &endpoint)
    }

    /// How many may be accepted at a door now.
    pub(crate) fn accepts(&mut self, door: u16, now: Instant) -> usize {
        if !self.is_tls(door) {
            return ACCEPTS_PER_TURN;
        }
        if self.tls.is_busy() {
            let reason = format!("{TLS_HANDSHAKES_MAX} TLS handshakes are not finished");
            self.report_accept(&io::Error::other(reason), now);
            return 0;
        }
        TLS_ACCEPTS_PER_TURN
    }

    /// Whether the next turn can accept without waiting for anything.
    pub(crate) fn accepts_on(&self, now: Instant) -> bool {
        let waits = |&door: &u16| self.is_tls(door) && self.tls.is_busy();
        now >= self.accept_after && self.crowded.iter().any(|door| !waits(door))
    }

    fn is_tls(&self, door: u16) -> bool {
        (self.doors.get(door as usize)).is_some_and(|door| door.is_tls)
    }
}
