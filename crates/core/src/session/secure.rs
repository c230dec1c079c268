//! TLS, as far as it concerns who is served: handshakes that are done or failed, and peers that took the wrong port.
//!
//! Owns: what the engine is told of handshakes, which are carried out in `net::tls_session`. A client is a client from the
//! moment it was accepted, so `max_clients` bounds those in a handshake too, and every end has its reason.
//!
//! Must stay true: nothing is asked of a shard, and nothing read of a client, before its handshake is done.
//! Rejected: answering a TLS handshake at a plain listener with an alert of TLS. Libraries show it as riddles; a line of
//! text they do not show either, but people who look at the bytes read it.

use crate::error::ClientError;
use crate::session::backend::LinkState;
use crate::session::client::Intake;
use crate::session::engine::Engine;
use crate::session::stats::{CloseReason, PerKeyspace};

/// How a TLS handshake begins: a record of type handshake, of version 3.x. No request begins so.
pub(crate) fn is_client_hello(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x16, 0x03])
}

impl Engine {
    /// A client's handshake is done.
    pub fn client_secured(&mut self, slot: u32) {
        if let Some(client) = self.clients.get(slot) {
            let keyspace = client.keyspace as usize;
            self.stats()
                .keyspace(keyspace, PerKeyspace::TlsHandshakes, 1);
        }
    }

    /// A client's handshake failed, or it left before.
    pub fn client_unsecured(&mut self, slot: u32, reason: CloseReason, detail: String) {
        if let Some(client) = self.clients.get_mut(slot) {
            // It may be sending still: closed at once, it would not read why.
            client.intake = Intake::Closing;
        }
        let detail = (!detail.is_empty()).then_some(detail);
        self.drop_client_for(slot, reason, detail);
    }

    /// A client of a listener for TLS speaks something else. The caller writes the answer without TLS.
    pub fn client_is_plain(&mut self, slot: u32) {
        self.refuse_client(slot, &ClientError::PlainOnTls, CloseReason::PlainOnTls);
    }

    /// A client of a plain listener began a handshake.
    pub(crate) fn refuse_hello(&mut self, slot: u32) {
        self.refuse_client(slot, &ClientError::TlsOnPlain, CloseReason::TlsOnPlain);
    }

    /// A link's socket is connected, and its handshake begins.
    pub fn link_reached(&mut self, id: u32) {
        let now_ms = self.now_ms;
        if let Some(link) = self.links.get_mut(id) {
            link.state = LinkState::Securing;
            link.progress_ms = now_ms;
        }
    }
}
