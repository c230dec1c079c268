//! Requests that shoal sends on its own account: greetings, probes, scripts, marks.
//!
//! Owns: their bytes. Below the command table this is the only place where a command has a name.

use crate::protocol::encode::request;
use crate::protocol::subscription::Kind;
use std::sync::Arc;

/// An idle connection is asked whether its server lives.
pub const PROBE: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// Begins a transaction.
pub const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";

/// Executes it.
pub const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

/// A connection watches no key any more.
pub const UNWATCH: &[u8] = b"*1\r\n$7\r\nUNWATCH\r\n";

/// Something that replicas are told but that changes nothing: a mark in the replication stream, for WAIT to wait for.
pub const MARK: &[u8] = b"*3\r\n$7\r\nPUBLISH\r\n$12\r\n__shoal:mark\r\n$0\r\n\r\n";

/// Where that is published: nobody shall see it who has subscribed to everything.
pub const MARK_CHANNEL: &[u8] = b"__shoal:mark";

/// A server is asked by which number it knows a connection.
pub const WHO: &[u8] = b"*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n";

/// A server is to tell on this connection (RESP3) when what is read on it changes.
pub const TELL: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n";

/// What the next request reads is tracked.
pub const CACHING_YES: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$3\r\nYES\r\n";

/// What the next request reads is not tracked.
pub const CACHING_NO: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$2\r\nNO\r\n";

/// A server is to track for this connection, with these options; what it has to tell goes to the connection of that
/// number, or comes on this one.
pub fn tracking(feed: Option<u64>, options: &[&[u8]]) -> Vec<u8> {
    let feed = feed.map(|number| number.to_string());
    let mut words: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON"];
    if let Some(number) = &feed {
        words.extend([b"REDIRECT".as_slice(), number.as_bytes()]);
    }
    words.extend_from_slice(options);
    let mut out = Vec::new();
    request(&mut out, &words);
    out
}

/// A read of keys of any type, so that the server tells when they change; answered with how many there are.
pub fn watch(keys: &[&[u8]]) -> Vec<u8> {
    let mut words: Vec<&[u8]> = vec![b"EXISTS"];
    words.extend_from_slice(keys);
    let mut out = Vec::new();
    request(&mut out, &words);
    out
}

/// How much a list or a sorted set holds.
pub fn length(key: &[u8], is_sorted: bool) -> Vec<u8> {
    let name: &[u8] = if is_sorted { b"ZCARD" } else { b"LLEN" };
    let mut out = Vec::new();
    request(&mut out, &[name, key]);
    out
}

/// The last entry of a stream.
pub fn last_entry(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    request(&mut out, &[b"XREVRANGE", key, b"+", b"-", b"COUNT", b"1"]);
    out
}

/// Makes or ends subscriptions.
pub fn subscribe(out: &mut Vec<u8>, kind: Kind, is_made: bool, names: &[Arc<[u8]>]) {
    let command: &[u8] = match (kind, is_made) {
        (Kind::Channel, true) => b"SUBSCRIBE",
        (Kind::Channel, false) => b"UNSUBSCRIBE",
        (Kind::Pattern, true) => b"PSUBSCRIBE",
        (Kind::Pattern, false) => b"PUNSUBSCRIBE",
        (Kind::Shard, true) => b"SSUBSCRIBE",
        (Kind::Shard, false) => b"SUNSUBSCRIBE",
    };
    let mut words: Vec<&[u8]> = vec![command];
    words.extend(names.iter().map(|name| name.as_ref()));
    request(out, &words);
}

/// Ends the wait of another connection to the same server.
pub fn unblock(out: &mut Vec<u8>, id: u64, is_error: bool) {
    let id = id.to_string();
    let reason: &[u8] = if is_error { b"ERROR" } else { b"TIMEOUT" };
    request(out, &[b"CLIENT", b"UNBLOCK", id.as_bytes(), reason]);
}

/// Elements back into a list, so that the first of them is at that end again.
pub fn push_back(out: &mut Vec<u8>, key: &[u8], is_left: bool, elements: &[&[u8]]) {
    let name: &[u8] = if is_left { b"LPUSH" } else { b"RPUSH" };
    let mut words = vec![name, key];
    words.extend(elements.iter().rev());
    request(out, &words);
}

/// Members and scores, one after the other, back into a sorted set. A member that was added anew meanwhile keeps its new score.
pub fn add_back(out: &mut Vec<u8>, key: &[u8], pairs: &[&[u8]]) {
    let mut words: Vec<&[u8]> = vec![b"ZADD", key, b"NX"];
    for pair in pairs.chunks_exact(2) {
        words.extend([pair[1], pair[0]]);
    }
    request(out, &words);
}

/// What a connection is told before its first request: who we are, which protocol, which database. The last answer of a
/// main connection is the server's description. Gives the number of answers to expect, at least 1.
pub fn greeting(
    out: &mut Vec<u8>,
    credentials: Option<(Option<&str>, &str)>,
    is_resp3: bool,
    database: u8,
    membership: Option<(&[u8], u8, u8)>,
    is_main: bool,
) -> u8 {
    let mut answers = 0;
    if let Some((username, password)) = credentials {
        match username {
            Some(username) => request(out, &[b"AUTH", username.as_bytes(), password.as_bytes()]),
            None => request(out, &[b"AUTH", password.as_bytes()]),
        }
        answers += 1;
    }
    if is_resp3 {
        request(out, &[b"HELLO", b"3"]);
        answers += 1;
    }
    let mut selected = 0;
    if let Some((words, count, own)) = membership {
        answers += select(out, own, &mut selected);
        out.extend_from_slice(words);
        answers += count;
    }
    answers += select(out, database, &mut selected);
    if is_main {
        request(out, &[b"INFO", b"server"]);
    } else {
        out.extend_from_slice(PROBE);
    }
    answers + 1
}

/// Changes the database where that is needed; the number of answers.
fn select(out: &mut Vec<u8>, database: u8, selected: &mut u8) -> u8 {
    if database == *selected {
        return 0;
    }
    *selected = database;
    request(out, &[b"SELECT", database.to_string().as_bytes()]);
    1
}

/// A key is given a value.
pub fn put(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    request(out, &[b"SET", key, value]);
}

/// A server's own slow log; -1: all of it.
pub fn slowlog(out: &mut Vec<u8>, count: i64) {
    request(out, &[b"SLOWLOG", b"GET", count.to_string().as_bytes()]);
}

/// Gives a server a script ahead of its use.
pub fn load_script(out: &mut Vec<u8>, body: &[u8]) {
    request(out, &[b"SCRIPT", b"LOAD", body]);
}

/// A server is asked for its libraries of functions, with their code.
pub const LIBRARIES: &[u8] = b"*3\r\n$8\r\nFUNCTION\r\n$4\r\nLIST\r\n$8\r\nWITHCODE\r\n";

/// Gives a server a library of functions that it has not.
pub fn load_function(out: &mut Vec<u8>, code: &[u8]) {
    request(out, &[b"FUNCTION", b"LOAD", code]);
}

/// SCAN with another cursor; what follows the cursor stays as the client wrote it.
pub fn scan(out: &mut Vec<u8>, cursor: u64, rest: &[&[u8]]) {
    let cursor = cursor.to_string();
    let mut words: Vec<&[u8]> = vec![b"SCAN", cursor.as_bytes()];
    words.extend_from_slice(rest);
    request(out, &words);
}

/// Runs a script that names no keys.
pub fn run_script(out: &mut Vec<u8>, text: &str, arguments: &[&[u8]]) {
    let mut words: Vec<&[u8]> = vec![b"EVAL", text.as_bytes(), b"0"];
    words.extend_from_slice(arguments);
    request(out, &words);
}

/// Runs a script that a client gave, with the keys and arguments that it gave.
pub fn run_given(out: &mut Vec<u8>, is_read_only: bool, text: &[u8], given: &[&[u8]]) {
    let name: &[u8] = if is_read_only { b"EVAL_RO" } else { b"EVAL" };
    let mut words: Vec<&[u8]> = vec![name, text];
    words.extend_from_slice(given);
    request(out, &words);
}

/// The next transaction of this connection is executed only if the key is untouched until then.
pub fn watch_for_exec(out: &mut Vec<u8>, key: &[u8]) {
    request(out, &[b"WATCH", key]);
}

/// How a database is emptied, where that is said.
pub const EMPTYING: [&[u8]; 2] = [b"ASYNC", b"SYNC"];

/// Takes keys away.
pub fn remove(out: &mut Vec<u8>, keys: &[&[u8]]) {
    let mut words: Vec<&[u8]> = vec![b"UNLINK"];
    words.extend_from_slice(keys);
    request(out, &words);
}

/// Puts a value in a key's place, until an instant (ms since 1970); 0: it does not expire.
pub fn restore(out: &mut Vec<u8>, key: &[u8], expires_ms: u64, dump: &[u8]) {
    let at = expires_ms.to_string();
    let at = at.as_bytes();
    request(out, &[b"RESTORE", key, at, dump, b"REPLACE", b"ABSTTL"]);
}

/// Names a connection.
pub fn name_connection(out: &mut Vec<u8>, name: &str) {
    request(out, &[b"CLIENT", b"SETNAME", name.as_bytes()]);
}

/// A server is asked for all its connections.
pub const CONNECTIONS: &[u8] = b"*2\r\n$6\r\nCLIENT\r\n$4\r\nLIST\r\n";

/// A server is asked for some of its connections.
pub fn connections(out: &mut Vec<u8>, ids: &[u64]) {
    let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
    let mut words: Vec<&[u8]> = vec![b"CLIENT", b"LIST", b"ID"];
    words.extend(ids.iter().map(String::as_bytes));
    request(out, &words);
}

/// Ends a connection to the same server.
pub fn end_connection(out: &mut Vec<u8>, id: u64) {
    let id = id.to_string();
    request(out, &[b"CLIENT", b"KILL", b"ID", id.as_bytes()]);
}

/// Tells all who have subscribed to a channel.
pub fn publish(out: &mut Vec<u8>, channel: &[u8], message: &[u8]) {
    request(out, &[b"PUBLISH", channel, message]);
}
