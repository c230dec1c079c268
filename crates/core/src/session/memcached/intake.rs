//! Reading clients that speak memcached: as `session::intake`, for the other protocol.
//!
//! Owns: the loop from bytes to requests, and the end of clients that speak something else.
//!
//! Must stay true: bytes are taken once and in order; a large value that fills the buffer is moved, not copied.

use crate::protocol::memcached::request::{Fault, Scan};
use crate::session::client::Intake;
use crate::session::dispatch::Taken;
use crate::session::engine::Engine;
use crate::session::memcached::dispatch::TextRequest;
use crate::session::secure::is_client_hello;
use crate::session::stats::{CloseReason, PerKeyspace};

impl Engine {
    /// Takes requests until the bytes end or the client is not to be read; the bytes used.
    pub(crate) fn parse_text(&mut self, slot: u32, data: &[u8]) -> usize {
        let mut scanner = std::mem::take(&mut self.text_scanner);
        let mut at = 0;
        while let Some(client) = self.clients.get_mut(slot) {
            if client.intake != Intake::Open || at == data.len() {
                break;
            }
            if !client.is_trusted() {
                // Nothing lets a memcached client authenticate; a keyspace that wants it serves none.
                self.refuse_text(
                    slot,
                    b"CLIENT_ERROR unauthenticated\r\n",
                    CloseReason::ProtocolError,
                );
                at = data.len();
                break;
            }
            match scanner.scan(&data[at..]) {
                Scan::Whole {
                    len,
                    line,
                    block,
                    command,
                    is_mute,
                    is_rewritten,
                } => {
                    let request = TextRequest {
                        data: &data[at..at + len],
                        line,
                        block,
                        words: &scanner.words,
                        command,
                        is_mute,
                        is_rewritten,
                    };
                    match self.text_request(slot, &request) {
                        Taken::Yes => at += len,
                        Taken::NotYet => break,
                    }
                }
                Scan::Refused { .. } | Scan::Partial if is_client_hello(&data[at..]) => {
                    self.refuse_hello(slot);
                    at = data.len();
                }
                Scan::Refused { len, line, is_mute } => {
                    self.text_refused(slot, line, is_mute);
                    at += len;
                }
                Scan::Partial => break,
                Scan::Close(fault) => {
                    let reason = match fault {
                        Fault::Http => CloseReason::Http,
                        Fault::Binary | Fault::LineTooLong | Fault::ValueTooLarge => {
                            CloseReason::ProtocolError
                        }
                    };
                    self.refuse_text(slot, fault.line(), reason);
                    at = data.len();
                }
            }
        }
        self.text_scanner = scanner;
        at
    }

    /// A large request that fills the buffer is moved to its shard. Gives back what it did not take.
    pub(crate) fn take_giant_text(&mut self, slot: u32, buffer: Vec<u8>) -> Option<Vec<u8>> {
        let is_trusted = self
            .clients
            .get_mut(slot)
            .is_some_and(|client| client.is_trusted());
        let mut scanner = std::mem::take(&mut self.text_scanner);
        let rest = match scanner.scan(&buffer) {
            Scan::Whole {
                len,
                command,
                is_mute: false,
                is_rewritten: false,
                ..
            } if len == buffer.len() && is_trusted => {
                self.text_giant(slot, buffer, command, &scanner.words)
            }
            _ => Some(buffer),
        };
        self.text_scanner = scanner;
        rest
    }

    /// A line that is no request: a server's own answer to it.
    fn text_refused(&mut self, slot: u32, line: &[u8], is_mute: bool) {
        let Some(asker) = self.text_asker(slot, "unknown", is_mute) else {
            return;
        };
        self.stats()
            .keyspace(asker.keyspace, PerKeyspace::Requests, 1);
        self.stats()
            .keyspace(asker.keyspace, PerKeyspace::Refused, 1);
        self.answer(&asker, |out| out.extend_from_slice(line));
    }

    /// Says why and closes.
    fn refuse_text(&mut self, slot: u32, line: &[u8], reason: CloseReason) {
        if let Some(client) = self.clients.get_mut(slot) {
            client
                .replies
                .local(false, |out| out.extend_from_slice(line));
            client.intake = Intake::Closing;
            client.reason = Some(reason);
            self.touch_client(slot);
        }
    }
}
