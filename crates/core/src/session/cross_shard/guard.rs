//! Scripts of clients that run at home for keys of several shards: held to the keys that they are given.
//!
//! Owns: `guarded`, the text that is sent instead of the client's.
//!
//! Flow: a client's script -> a line of ours before it, which puts its own `redis` (and `server`) in place of the server's ->
//! every `call` and `pcall` asks the server first which keys the command has (COMMAND GETKEYS), and is refused if one of them
//! was not given to the script. What is refused is an error as of any command: the script ends, or sees it from `pcall`.
//!
//! Must stay true: a key that was not declared is on another shard, or may be: at home it would be read as missing and written as
//! garbage. So what cannot be judged is refused: commands without keys that look at the whole shard (SCAN, DBSIZE), patterns of
//! SORT, other databases. The lines of the client's script keep their numbers. This is against mistakes, not against malice: who
//! wants can reach the server's functions by `_G`.
//! Rejected: an ACL user limited to the keys, for one EXEC (servers do hold scripts to it; but the proxy would need the right to
//! make users, which is every right, and a pattern cannot hold a blank or a zero byte). Functions (FCALL) cannot be guarded so.

use std::sync::LazyLock;

static GUARD: LazyLock<String> = LazyLock::new(|| {
    let lines = include_str!("lua/guard.lua").lines().map(str::trim);
    lines.fold(String::new(), |text, line| text + line + " ")
});

/// A script's text with the guard before it, behind the line of flags if it begins with one.
pub fn guarded(script: &[u8]) -> Vec<u8> {
    let flags = if script.starts_with(b"#!") {
        script.split_inclusive(|byte| *byte == b'\n').next()
    } else {
        None
    };
    let flags = flags.unwrap_or_default();
    let body = script.get(flags.len()..).unwrap_or_default();
    [flags, GUARD.as_bytes(), body].concat()
}
