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
/// A server does not know the command.
pub const ERROR: &[u8] = b"ERROR\r\n";
/// Statistics were reset.
pub const RESET: &[u8] = b"RESET\r\n";

/// The first version whose `ms` has the length of its data where we look for it.
const META_SINCE: [u32; 3] = [1, 6, 10];

/// The answer to `version` is that of a memcached which does not know the meta commands, or has others. A server that numbers
/// its versions otherwise is believed to know them.
pub fn lacks_meta(answer: &[u8]) -> bool {
    let Some(text) = answer
        .strip_prefix(VERSION_ANSWER)
        .and_then(|text| std::str::from_utf8(text).ok())
    else {
        return false;
    };
    let mut parts = text.trim_end().split('.').map(|part| {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        part[..digits].parse::<u32>().ok()
    });
    let mut next = || parts.next().flatten();
    match (next(), next(), next()) {
        (Some(major), Some(minor), Some(patch)) => [major, minor, patch] < META_SINCE,
        _ => false,
    }
}

/// A meta command for a server that does not know it.
pub fn too_old(out: &mut Vec<u8>, shard: &str, version: &str) {
    let line = format!(
        "SERVER_ERROR shoal: shard '{shard}' is memcached {version}, too old for the meta commands\r\n"
    );
    out.extend_from_slice(line.as_bytes());
}

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
        ClientError::Protocol(_)
            | ClientError::Http
            | ClientError::RequestIdle
            | ClientError::PlainOnTls
            | ClientError::TlsOnPlain
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
