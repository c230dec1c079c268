//! Lines of the memcached protocol that shoal says by itself, to clients and to servers.
//!
//! Owns: their text. What a server would say in the same case is said in a server's words, because clients compare them.
//!
//! Must stay true: each is one line with its line end; nothing in it comes from a client unfiltered.

use crate::error::{printable, ClientError};

/// What a new connection is told, and an idle one: the answer proves that a memcached is there.
pub const VERSION: &[u8] = b"version\r\n";
/// How the answer begins.
pub const VERSION_ANSWER: &[u8] = b"VERSION ";
/// Sent behind a quiet request, which may have no reply: everything before its answer belongs to that request.
pub const NOTHING: &[u8] = b"mn\r\n";
/// The answer to it.
pub const NOTHING_ANSWER: &[u8] = b"MN\r\n";
/// Done.
pub const OK: &[u8] = b"OK\r\n";
/// The end of values or statistics.
pub const END: &[u8] = b"END\r\n";
/// Statistics were reset.
pub const RESET: &[u8] = b"RESET\r\n";

/// The reply says that something went wrong.
pub fn is_error(reply: &[u8]) -> bool {
    [&b"ERROR"[..], b"CLIENT_ERROR", b"SERVER_ERROR"]
        .iter()
        .any(|word| reply.starts_with(word))
}

/// An error of ours: one line, with whose fault it is.
pub fn error(out: &mut Vec<u8>, error: &ClientError) {
    let text = error.text();
    let text = text.strip_prefix("ERR ").unwrap_or(&text);
    let is_clients = matches!(
        error,
        ClientError::Protocol(_) | ClientError::Http | ClientError::RequestIdle
    );
    out.extend_from_slice(if is_clients {
        b"CLIENT_ERROR shoal: "
    } else {
        b"SERVER_ERROR shoal: "
    });
    out.extend(
        text.bytes()
            .map(|byte| if byte.is_ascii_control() { b' ' } else { byte }),
    );
    out.extend_from_slice(b"\r\n");
}

/// A command that is not done through shoal.
pub fn refused(out: &mut Vec<u8>, words: &[u8]) {
    let text = printable(words);
    let line =
        format!("CLIENT_ERROR shoal: '{text}' is about one server; ask that server itself\r\n");
    out.extend_from_slice(line.as_bytes());
}
