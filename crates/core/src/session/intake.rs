//! Reading clients: their bytes become requests, as fast as the client's intake allows.
//!
//! Owns: the loop from bytes to requests, what is kept of bytes that were not taken, and the reasons for which a client
//! is not read for a while.
//!
//! Must stay true: bytes are taken once and in order; a client that is not read costs what it had sent in one read, and
//! the request it has begun.

use crate::error::ClientError;
use crate::limits::{BLOCKED_INCOMING_HIGH, CHUNK_MOVED_MIN, OUTPUT_HIGH, REQUEST_BYTES_TOTAL_MAX};
use crate::protocol::encode;
use crate::protocol::inline;
use crate::protocol::request::{ProtocolError, RequestScanner, Scan};
use crate::routing::route::Request;
use crate::session::client::Intake;
use crate::session::dispatch::Taken;
use crate::session::engine::{Action, Engine};
use crate::session::secure::is_client_hello;
use crate::session::stats::{CloseReason, PerKeyspace};

impl Engine {
    /// Bytes came from a client.
    pub fn client_received(&mut self, slot: u32, data: &[u8]) {
        let now_ms = self.now_ms;
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        client.received_ms = now_ms;
        let keyspace = client.keyspace as usize;
        let is_fresh = client.incoming.is_empty() && client.intake == Intake::Open;
        self.stats()
            .keyspace(keyspace, PerKeyspace::BytesIn, data.len() as i64);
        if is_fresh {
            let used = self.parse(slot, data);
            self.keep(slot, &data[used..]);
        } else {
            self.keep(slot, data);
            self.take_incoming(slot);
        }
    }

    /// Keeps bytes that were not taken.
    fn keep(&mut self, slot: u32, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        if client.intake == Intake::Closing {
            return;
        }
        client.incoming.extend_from_slice(rest);
        self.incoming_bytes += rest.len();
        if self.incoming_bytes > REQUEST_BYTES_TOTAL_MAX {
            let error = ClientError::Protocol(ProtocolError::RequestTooLarge);
            self.refuse_client(slot, &error, CloseReason::RequestMemory);
        }
    }

    /// Goes on with what a client had sent before.
    pub(crate) fn take_incoming(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        if client.incoming.is_empty() || client.intake != Intake::Open {
            return;
        }
        let mut buffer = std::mem::take(&mut client.incoming);
        self.incoming_bytes -= buffer.len();
        let keyspace = client.keyspace as usize;
        if buffer.len() >= CHUNK_MOVED_MIN {
            let rest = if self.speaks_text(keyspace) {
                self.take_giant_text(slot, buffer)
            } else {
                self.take_giant(slot, buffer)
            };
            match rest {
                Some(rest) => buffer = rest,
                None => return,
            }
        }
        let used = self.parse(slot, &buffer);
        if used == buffer.len() {
            return;
        }
        buffer.drain(..used);
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        if client.intake != Intake::Closing {
            self.incoming_bytes += buffer.len();
            client.incoming = buffer;
        }
    }

    /// A large request that fills the buffer is moved to its shard instead of copied. Gives back what it did not take.
    fn take_giant(&mut self, slot: u32, buffer: Vec<u8>) -> Option<Vec<u8>> {
        let Some(client) = self.clients.get_mut(slot) else {
            return Some(buffer);
        };
        let mut scanner = client
            .scanner
            .take()
            .map_or_else(RequestScanner::default, |saved| *saved);
        let scan = scanner.scan(&buffer, client.is_trusted());
        let is_alone =
            matches!(scan, Scan::Whole(len) if len == buffer.len()) && !scanner.args.is_empty();
        // Who may not do everything now is judged where every other request is.
        if is_alone && client.care | self.care == 0 {
            return self.request_giant(slot, buffer, &scanner.args);
        }
        if scan == Scan::Partial && scanner.is_midway() {
            // Not copied again below: the scan goes on from here when more has come.
            client.scanner = Some(Box::new(scanner));
        }
        Some(buffer)
    }

    /// Takes requests until the bytes end or the client is not to be read; the bytes used.
    fn parse(&mut self, slot: u32, data: &[u8]) -> usize {
        let speaks_text = self
            .clients
            .get(slot)
            .is_some_and(|client| self.speaks_text(client.keyspace as usize));
        if speaks_text {
            return self.parse_text(slot, data);
        }
        let mut scanner = std::mem::take(&mut self.scanner);
        if let Some(saved) = self
            .clients
            .get_mut(slot)
            .and_then(|client| client.scanner.take())
        {
            scanner = *saved;
        }
        let mut at = 0;
        while let Some(client) = self.clients.get_mut(slot) {
            if client.intake != Intake::Open || at == data.len() {
                break;
            }
            let rest = &data[at..];
            match scanner.scan(rest, client.is_trusted()) {
                Scan::Whole(len) => {
                    let taken = if scanner.args.is_empty() {
                        Taken::Yes
                    } else {
                        self.request(
                            slot,
                            &Request {
                                data: &rest[..len],
                                args: &scanner.args,
                            },
                        )
                    };
                    scanner.reset();
                    match taken {
                        Taken::Yes => at += len,
                        Taken::NotYet => break,
                    }
                }
                Scan::Inline { .. } | Scan::Partial | Scan::Invalid(_) if is_client_hello(rest) => {
                    self.refuse_hello(slot);
                    at = data.len();
                }
                Scan::Inline { line, len } => match self.inline(slot, &rest[..line]) {
                    Taken::Yes => at += len,
                    Taken::NotYet => break,
                },
                Scan::Partial => {
                    if scanner.is_midway() {
                        client.scanner = Some(Box::new(std::mem::take(&mut scanner)));
                    }
                    break;
                }
                Scan::Invalid(error) => {
                    self.refuse_client(
                        slot,
                        &ClientError::Protocol(error),
                        CloseReason::ProtocolError,
                    );
                    scanner.reset();
                    at = data.len();
                }
            }
        }
        scanner.reset();
        self.scanner = scanner;
        at
    }

    fn inline(&mut self, slot: u32, line: &[u8]) -> Taken {
        let mut words = Vec::new();
        if inline::split(line, &mut words).is_err() {
            let error = ClientError::Protocol(ProtocolError::UnbalancedQuotes);
            self.refuse_client(slot, &error, CloseReason::ProtocolError);
            return Taken::Yes;
        }
        if words.is_empty() {
            return Taken::Yes;
        }
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let mut data = Vec::new();
        encode::request(&mut data, &words);
        let mut scanner = RequestScanner::default();
        scanner.scan(&data, true);
        self.request(
            slot,
            &Request {
                data: &data,
                args: &scanner.args,
            },
        )
    }

    /// Nothing more comes from a client; what it asked is still answered.
    pub fn client_ended(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        client.ended = true;
        if client.intake == Intake::Blocked {
            // As a server: what waits for somebody who has ended is forgotten, and nothing is taken for it.
            return self.drop_client(slot, CloseReason::ClientClosed);
        }
        if client.intake == Intake::Open {
            client.intake = Intake::Closing;
        }
        self.settle_client(slot);
    }

    /// A client that is not read has said that it will send no more. As a server, which would have read to that end, nothing is
    /// taken for it any more while it waits or is paused; in every other state what it sent before is still done.
    pub fn client_hung_up(&mut self, slot: u32) {
        let intake = self.clients.get(slot).map(|client| client.intake);
        if matches!(
            intake,
            Some(Intake::Blocked | Intake::Paused | Intake::Fenced)
        ) {
            self.drop_client(slot, CloseReason::ClientClosed);
        }
    }

    /// A client's connection broke.
    pub fn client_lost(&mut self, slot: u32) {
        self.drop_client(slot, CloseReason::ClientError);
    }

    /// Some of a client's output was written.
    #[inline]
    pub fn client_written(&mut self, slot: u32, bytes: usize) {
        let now_ms = self.now_ms;
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        client.written_ms = now_ms;
        client.taken += bytes as u64;
        let keyspace = client.keyspace as usize;
        self.all_stats[self.identity.worker].keyspace(
            keyspace,
            PerKeyspace::BytesOut,
            bytes as i64,
        );
        if client.intake != Intake::Open || client.stalls {
            self.settle_client(slot);
        }
    }

    /// Opens a client's intake again where its reason is gone, and ends it where nothing is left to do.
    pub(crate) fn settle_client(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        let waiting = client.replies.waiting();
        let out = client.replies.out.len();
        if client.stalls && client.replies.bytes() <= OUTPUT_HIGH {
            self.release_stalls(slot);
        }
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        let is_open = match client.intake {
            Intake::Open
            | Intake::Link(_)
            | Intake::Paused
            | Intake::Fenced
            | Intake::Subscriptions => false,
            Intake::InFlight => waiting <= client.window as usize / 2,
            Intake::Output => out <= OUTPUT_HIGH / 2,
            Intake::Barrier | Intake::Blocked => waiting == 0,
            Intake::Closing => {
                if waiting == 0 && out == 0 {
                    let reason = if client.ended {
                        CloseReason::ClientClosed
                    } else {
                        CloseReason::Quit
                    };
                    self.drop_client(slot, reason);
                }
                return;
            }
        };
        if is_open {
            if client.intake == Intake::InFlight {
                self.widen(slot);
            }
            self.open_intake(slot);
        }
    }

    /// Takes requests again.
    pub(crate) fn open_intake(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        client.intake = Intake::Open;
        self.take_incoming(slot);
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        if client.intake == Intake::Open {
            if client.ended {
                client.intake = Intake::Closing;
                self.settle_client(slot);
            } else {
                self.actions.push(Action::ReadClient(slot));
            }
        }
    }

    /// True when the caller may read from the client.
    #[inline]
    pub fn reads_client(&self, slot: u32) -> bool {
        self.clients
            .get(slot)
            .is_some_and(|client| match client.intake {
                Intake::Open => !client.ended,
                Intake::Blocked => client.incoming.len() < BLOCKED_INCOMING_HIGH,
                _ => false,
            })
    }
}
