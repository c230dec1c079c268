//! The calls of the protocol across shards as bytes, and their replies as outcomes.
//!
//! Owns: what `Call` looks like to a server, the scripts (`lua/`), and how replies are read. No state.
//!
//! Flow: `encode` appends a burst of requests and says how many replies will come; `decode` is given these replies, behind
//! each other, and makes one `Outcome` of them. A script is sent whole each time, so that nothing depends on what a server
//! remembers (SCRIPT FLUSH, restart, failover); its lines of comment stay here. It names no keys: shards are no cluster.
//! * Prepare is one script: nothing is claimed unless everything is. At home WATCH follows, then a look whether the record is
//!   there: recovery may have taken it away between the two.
//! * What is done to a shard as a whole takes our records with everything else, and puts back those that are needed yet: who is a
//!   member, and at home, until the last script of the commit, the operation's own. At Prepare it is tried with a word that no server
//!   takes: one that refuses the command for another reason than this word has nothing claimed on it.
//! * Commit is one MULTI ... EXEC: keys of other shards are put in place (what may lie there is garbage of an older layout),
//!   the client's requests, then a script that notes the written values and takes the foreign keys and the claims away.
//!
//! Must stay true: nothing panics on what a server says; what does not fit is `Failed`. Within EXEC only the client's own
//! requests may fail, for an error there does not undo the rest:
//! * memory: EXEC is refused as a whole when there is none and anything queued could take some (Redis 7.0 lets nothing be
//!   queued then); `drop`, the first step of the last script, is a write that servers always let pass, and after one such write
//!   a script is not held up for memory. Join, Deregister and Apply make use of the same: a proxy may come to a full shard or
//!   be evicted from it, and what is committed is applied to it. Prepare does not: a full shard is refused before anything has
//!   happened, which bounds what Apply can bring to it.
//! * RESTORE: always with REPLACE, and the caller has compared the versions of dumps. An instant that has passed meanwhile is
//!   no error: the key is then gone, as it should be. Should it fail nevertheless (a type of a module that home lacks), the
//!   reply is `Failed`, which the operation takes for an unknown outcome.
//! * refused writes (MISCONF, NOREPLICAS, READONLY): the plain write that ends the queue is refused like any, and EXEC with it.
//!
//! What the servers' user needs: all keys and channels (`~* &*`), the commands of the clients, and `+eval +multi +exec +watch
//! +unwatch +unlink +del +exists +dump +restore +pexpiretime +pttl +memory|usage +hset +hget +hgetall +hdel +hexists +hkeys +hvals
//! +hlen +sadd +srem +smembers +set +get +type +time +info +publish +pubsub|numsub +subscribe +client|setname +client|list
//! +client|kill`.
//! Rejected: EVALSHA (saves 1 KiB a call, and costs a second way through every state); Lua that runs the client's requests (their
//! replies would pass through Lua's types).

use crate::protocol::errand;
use crate::routing::merge::unexpected;
use crate::session::cross_shard::call::{
    Call, Commit, Foreign, Held, KeyClaim, Kind, Outcome, Pid, Prepare, Record, Redo, Scope, Tx,
    Value, Written,
};
use crate::session::cross_shard::elements::{self, Elements};
use crate::session::cross_shard::message::{self, Message};
use std::sync::{Arc, LazyLock};

/// Keys of ours on a shard begin with it.
pub const PREFIX: &[u8] = b"__shoal:";

/// Said of a key that does not expire, as servers say it.
const FOR_EVER: &str = "-1";

/// What members of a shard must agree on.
pub const VERSION: &str = "1";

/// A connection that runs requests of clients is named so, before its member registers.
pub fn name(pid: &Pid) -> String {
    format!("shoal:{}", pid.0)
}

/// The request that names a connection; one reply.
pub fn greeting(pid: &Pid, out: &mut Vec<u8>) {
    errand::name_connection(out, &name(pid));
}

macro_rules! script {
    ($name:ident, $($part:literal),+) => {
        static $name: LazyLock<String> = LazyLock::new(|| {
            crate::session::cross_shard::wire::bare(concat!($(include_str!(concat!("lua/", $part, ".lua"))),+))
        });
    };
}
pub(crate) use script;

script!(JOIN, "join");
script!(PREPARE, "value", "wanted", "prepare");
script!(GATHER, "value", "wanted", "gather");
script!(FINISH, "value", "drop", "finish");
script!(APPLY, "drop", "empty", "apply");
script!(RELEASE, "drop", "release");
script!(EMPTY, "empty", "redo");
script!(RESOLVE, "drop", "resolve");
script!(CLEAN, "clean");
script!(MARK, "mark");
script!(UNLIST, "unlist");

/// A script without indentation and lines of comment.
pub(crate) fn bare(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.starts_with("--"))
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Appends a call's requests; how many replies will come.
pub fn encode(call: &Call, out: &mut Vec<u8>) -> usize {
    match call {
        Call::Join { pid, terms } => run(out, &JOIN, &[pid.0.as_bytes(), terms.as_bytes()]),
        Call::Prepare(prepare) => encode_prepare(prepare, out),
        Call::Gather {
            tx,
            keys,
            gather_max,
        } => {
            let most = gather_max.to_string();
            let mut words: Vec<&[u8]> = vec![tx.0.as_bytes(), most.as_bytes()];
            add_claims(&mut words, keys);
            run(out, &GATHER, &words)
        }
        Call::Commit(commit) => encode_commit(commit, out),
        Call::Apply { tx, values } => encode_apply(tx, values, out),
        Call::Release { tx } => run(out, &RELEASE, &[tx.0.as_bytes(), &released(tx)]),
        Call::Clean { tx } => run(out, &CLEAN, &[tx.0.as_bytes()]),
        Call::Resolve { tx } => run(out, &RESOLVE, &[tx.0.as_bytes(), &released(tx)]),
        Call::Deregister { pid } => {
            run(out, &MARK, &[pid.0.as_bytes()]);
            out.extend_from_slice(errand::CONNECTIONS);
            2
        }
        Call::Kill { pid, ids } => {
            ids.iter().for_each(|id| errand::end_connection(out, *id));
            ids.len() + run(out, &UNLIST, &[pid.0.as_bytes()])
        }
    }
}

fn run(out: &mut Vec<u8>, script: &str, words: &[&[u8]]) -> usize {
    errand::run_script(out, script, words);
    1
}

fn released(tx: &Tx) -> Vec<u8> {
    Message::Released { tx: tx.clone() }.encode()
}

/// What is put in place of a key that is replaced or left as it is: what it holds afterwards tells which.
fn untouched(tx: &Tx) -> Vec<u8> {
    [b"__shoal:untouched:", tx.0.as_bytes()].concat()
}

fn redo_words(redo: Option<&Redo>) -> &[u8] {
    redo.map_or(b"", |redo| redo.0.as_bytes())
}

fn record_key(tx: &Tx) -> Vec<u8> {
    [b"__shoal:f:", tx.0.as_bytes()].concat()
}

/// For each key its mode (a second letter: it is wanted), and itself.
fn add_claims<'w>(words: &mut Vec<&'w [u8]>, keys: &'w [KeyClaim]) {
    for claim in keys {
        let letters: &[u8] = match (message::letter(claim.mode), claim.is_wanted) {
            (b"S", true) => b"Sw",
            (_, true) => b"Xw",
            (letter, false) => letter,
        };
        words.extend([letters, &claim.key]);
    }
}

fn encode_prepare(prepare: &Prepare, out: &mut Vec<u8>) -> usize {
    let fence = Message::Fence {
        tx: prepare.tx.clone(),
        coordinator: prepare.coordinator.clone(),
        home: Arc::clone(&prepare.home),
        participants: prepare.participants.clone(),
        scope: prepare.scope,
        keys: (prepare.keys.iter())
            .map(|claim| (Arc::clone(&claim.key), claim.mode))
            .collect(),
    };
    let fence = fence.encode();
    let most = prepare.gather_max.to_string();
    let count = prepare.participants.len().to_string();
    let mut words: Vec<&[u8]> = vec![
        prepare.tx.0.as_bytes(),
        prepare.coordinator.0.as_bytes(),
        prepare.home.as_bytes(),
        message::word(prepare.scope),
        most.as_bytes(),
        &fence,
        redo_words(prepare.redo.as_ref()),
        count.as_bytes(),
    ];
    words.extend(prepare.participants.iter().map(|name| name.as_bytes()));
    add_claims(&mut words, &prepare.keys);
    let replies = run(out, &PREPARE, &words);
    if !prepare.is_home {
        return replies;
    }
    let record = record_key(&prepare.tx);
    // An operation that was given up has left its watch here, and its record is gone: that would break this one's EXEC.
    out.extend_from_slice(errand::UNWATCH);
    errand::watch_for_exec(out, &record);
    out.extend_from_slice(&errand::watch(&[&record]));
    replies + 3
}

/// By which it is seen that a key is as it was: its dump's SHA-1 (none: it was not there) and when it expires.
fn before_of(foreign: &Foreign) -> (String, String) {
    let Some(value) = foreign.value.as_ref().filter(|_| foreign.is_written) else {
        return (String::new(), FOR_EVER.into());
    };
    let digest = sha1_smol::Sha1::from(&value.dump).digest().to_string();
    let expires = value.expires_ms.map(|at| at.to_string());
    (digest, expires.unwrap_or_else(|| FOR_EVER.into()))
}

/// Keys whose values are put in place before the client's requests.
fn brought(commit: &Commit) -> impl Iterator<Item = (&Foreign, &Value)> {
    let keys = commit.foreign.iter();
    keys.filter_map(|foreign| Some((foreign, foreign.value.as_ref()?)))
}

fn encode_commit(commit: &Commit, out: &mut Vec<u8>) -> usize {
    let mut replies = 4 + commit.count;
    out.extend_from_slice(errand::MULTI);
    if !commit.foreign.is_empty() {
        let keys: Vec<&[u8]> = commit.foreign.iter().map(|key| &*key.key).collect();
        errand::remove(out, &keys);
        replies += 1;
    }
    for (foreign, value) in brought(commit) {
        errand::restore(
            out,
            &foreign.key,
            value.expires_ms.unwrap_or(0),
            &value.dump,
        );
        replies += 1;
    }
    let mark = untouched(&commit.tx);
    for foreign in commit.foreign.iter().filter(|foreign| foreign.is_blind) {
        errand::put(out, &foreign.key, &mark);
        replies += 1;
    }
    match &commit.redo {
        Some(redo) => {
            run(out, &EMPTY, &[commit.tx.0.as_bytes(), redo.0.as_bytes()]);
        }
        None => out.extend_from_slice(&commit.requests),
    }
    let message = released(&commit.tx);
    let mut words: Vec<&[u8]> = vec![
        commit.tx.0.as_bytes(),
        commit.coordinator.0.as_bytes(),
        &message,
    ];
    let marks: Vec<(String, String)> = commit.foreign.iter().map(before_of).collect();
    for (foreign, (digest, expires)) in commit.foreign.iter().zip(&marks) {
        let (letter, before): (&[u8], &[u8]) = match (foreign.is_written, foreign.is_blind) {
            (false, _) => (b"-", b""),
            (true, true) => (b"b", &mark),
            (true, false) => (b"w", digest.as_bytes()),
        };
        let shard = foreign.shard.as_bytes();
        words.extend([letter, shard, &foreign.key, before, expires.as_bytes()]);
    }
    run(out, &FINISH, &words);
    errand::remove(out, &[&record_key(&commit.tx)]);
    out.extend_from_slice(errand::EXEC);
    replies
}

fn encode_apply(tx: &Tx, values: &[Held], out: &mut Vec<u8>) -> usize {
    let message = released(tx);
    let times: Vec<String> = (values.iter())
        .map(|(_, value)| match value {
            Some(value) => value.expires_ms.unwrap_or(0).to_string(),
            None => String::new(),
        })
        .collect();
    let mut words: Vec<&[u8]> = vec![tx.0.as_bytes(), &message];
    for ((key, value), time) in values.iter().zip(&times) {
        let dump: &[u8] = value.as_ref().map_or(b"", |value| &value.dump);
        words.extend([key, time.as_bytes(), dump]);
    }
    run(out, &APPLY, &words)
}

/// All replies of a call, behind each other: what they mean.
pub fn decode(call: &Call, replies: &[u8]) -> Outcome {
    let mut replies = Elements::new(replies);
    let outcome = match call {
        Call::Commit(commit) => commit_outcome(commit, &mut replies),
        Call::Kill { ids, .. } => killed(ids.len(), &mut replies),
        _ => script_outcome(call, &mut replies),
    };
    outcome.unwrap_or_else(misfit)
}

fn misfit() -> Outcome {
    let mut text = Vec::new();
    unexpected(&mut text, "a step of an operation across shards");
    text.truncate(text.len() - 2);
    Outcome::Failed(text)
}

/// Of calls whose first reply tells whether anything was done.
fn script_outcome(call: &Call, replies: &mut Elements) -> Option<Outcome> {
    let reply = replies.next_reply()?;
    if let Some(error) = elements::error(reply) {
        return Some(Outcome::Failed(error.to_vec()));
    }
    match call {
        Call::Apply { .. } | Call::Release { .. } => {
            Some(Outcome::Done(elements::integer(reply)? == 1))
        }
        Call::Clean { .. } => Some(Outcome::Done(true)),
        Call::Deregister { pid } => connections(pid, replies.next_reply()?),
        _ => {
            let (_, mut words) = Elements::within(reply)?;
            match (words.text()?, call) {
                (b"other", Call::Join { .. }) => Some(Outcome::Incompatible(
                    String::from_utf8_lossy(words.text()?).into_owned(),
                )),
                (b"joined", Call::Join { .. }) => joined(&mut words),
                (b"stranger", Call::Prepare(_)) => Some(Outcome::Stranger),
                (b"conflict", Call::Prepare(_)) => {
                    Some(Outcome::Conflict(Tx(message::name(&mut words)?)))
                }
                (b"large", Call::Prepare(_) | Call::Gather { .. }) => {
                    Some(Outcome::TooLarge(words.integer()?.try_into().ok()?))
                }
                (b"prepared", Call::Prepare(prepare)) => prepared(prepare, &mut words, replies),
                (b"gone", Call::Gather { .. }) => Some(Outcome::Gone),
                (b"values", Call::Gather { keys, .. }) => {
                    Some(Outcome::Gathered(values(keys.len(), &mut words)?))
                }
                (b"undone", Call::Resolve { .. }) => Some(Outcome::Resolved(None)),
                (b"committed", Call::Resolve { .. }) => resolved(&mut words),
                _ => None,
            }
        }
    }
}

fn names(words: &mut Elements) -> Option<Vec<Arc<str>>> {
    let (count, mut names) = words.array()?;
    (0..count).map(|_| message::name(&mut names)).collect()
}

fn pids(words: &mut Elements) -> Option<Vec<Pid>> {
    Some(names(words)?.into_iter().map(Pid).collect())
}

/// One value, or that there is none.
fn value(words: &mut Elements) -> Option<Option<Value>> {
    let element = words.next()?;
    if elements::is_null(element) {
        return Some(None);
    }
    let (_, mut parts) = Elements::within(element)?;
    let expires = parts.integer()?;
    Some(Some(Value {
        expires_ms: if expires == -1 {
            None
        } else {
            Some(expires.try_into().ok()?)
        },
        dump: Arc::from(parts.text()?),
    }))
}

/// So many of them.
fn values(count: usize, words: &mut Elements) -> Option<Vec<Option<Value>>> {
    let (given, mut values) = words.array()?;
    if given != count {
        return None;
    }
    (0..count).map(|_| value(&mut values)).collect()
}

fn joined(words: &mut Elements) -> Option<Outcome> {
    let dump_version = words.integer()?.try_into().ok()?;
    let evicts = words.integer()? == 1;
    let members = pids(words)?;
    let (count, mut told) = words.array()?;
    let mut records = Vec::new();
    for _ in 0..count {
        records.push(record(&mut told.array()?.1)?);
    }
    Some(Outcome::Joined {
        dump_version,
        evicts,
        members,
        records,
    })
}

fn record(words: &mut Elements) -> Option<Record> {
    let tx = Tx(message::name(words)?);
    let kind = match words.text()? {
        b"f" => Kind::Fence,
        b"d" => Kind::Decided,
        _ => return None,
    };
    let (_, mut fields) = words.array()?;
    let mut record = Record {
        tx,
        kind,
        coordinator: Pid(Arc::from("")),
        home: Arc::from(""),
        participants: Vec::new(),
        scope: Scope::Keys,
        keys: Vec::new(),
    };
    while !fields.is_at_end() {
        match fields.text()? {
            b"c" => record.coordinator = Pid(message::name(&mut fields)?),
            b"h" => record.home = message::name(&mut fields)?,
            [b'p', ..] => record.participants.push(message::name(&mut fields)?),
            [b'k', key @ ..] => {
                let mode = message::mode(fields.text()?)?;
                record.keys.push((Arc::from(key), mode));
            }
            b"a" => {
                fields.text()?;
                record.scope = Scope::All;
            }
            // The shard itself does it.
            b"r" => {
                fields.text()?;
            }
            _ => return None,
        }
    }
    Some(record)
}

fn prepared(prepare: &Prepare, words: &mut Elements, replies: &mut Elements) -> Option<Outcome> {
    let members = pids(words)?;
    let silent = pids(words)?;
    let values = values(prepare.keys.len(), words)?;
    if prepare.is_home {
        replies.next_reply()?;
        let is_watched = replies.next_reply()? == b"+OK\r\n";
        let is_there = elements::integer(replies.next_reply()?) == Some(1);
        if !is_watched || !is_there {
            return Some(Outcome::Gone);
        }
    }
    Some(Outcome::Prepared {
        members,
        silent,
        values,
    })
}

fn resolved(words: &mut Elements) -> Option<Outcome> {
    let (count, mut told) = words.array()?;
    let mut values = Vec::new();
    for _ in 0..count {
        let (_, mut parts) = told.array()?;
        let shard = message::name(&mut parts)?;
        let key = Arc::from(parts.text()?);
        values.push((shard, (key, value(&mut parts)?)));
    }
    Some(Outcome::Resolved(Some(values)))
}

/// Of CLIENT LIST those of a member: a line each, of fields with a name before `=`.
fn connections(pid: &Pid, reply: &[u8]) -> Option<Outcome> {
    if let Some(error) = elements::error(reply) {
        return Some(Outcome::Failed(error.to_vec()));
    }
    let named = format!("name={}", name(pid));
    let mut ids = Vec::new();
    for line in elements::text(reply)?.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        if fields.clone().any(|field| field == named.as_bytes()) {
            let id = fields.find_map(|field| field.strip_prefix(b"id="))?;
            ids.push(std::str::from_utf8(id).ok()?.parse().ok()?);
        }
    }
    Some(Outcome::Connections(ids))
}

/// A connection that is gone already is as good as killed.
fn killed(count: usize, replies: &mut Elements) -> Option<Outcome> {
    for _ in 0..count {
        let reply = replies.next_reply()?;
        if let Some(error) = elements::error(reply) {
            if !error.starts_with(b"-ERR No such client") {
                return Some(Outcome::Failed(error.to_vec()));
            }
        }
    }
    match elements::error(replies.next_reply()?) {
        Some(error) => Some(Outcome::Failed(error.to_vec())),
        None => Some(Outcome::Killed),
    }
}

/// What was queued is answered in EXEC's array, in the same order; what was not, at once.
fn commit_outcome(commit: &Commit, replies: &mut Elements) -> Option<Outcome> {
    let begun = replies.next_reply()?;
    let blind = commit.foreign.iter().filter(|foreign| foreign.is_blind);
    let before = usize::from(!commit.foreign.is_empty()) + brought(commit).count() + blind.count();
    let mut queued = Vec::new();
    for _ in 0..before + commit.count + 2 {
        queued.push(replies.next_reply()?);
    }
    let executed = replies.next_reply()?;
    if elements::is_null(executed) {
        return Some(Outcome::NotCommitted);
    }
    let first_error = std::iter::once(begun)
        .chain(queued.iter().copied())
        .chain(std::iter::once(executed))
        .find_map(elements::error);
    if elements::error(begun).is_some() || elements::error(executed).is_some() {
        return Some(Outcome::Refused(first_error?.to_vec()));
    }
    committed(commit, before, &queued, executed)
}

fn committed(commit: &Commit, before: usize, queued: &[&[u8]], executed: &[u8]) -> Option<Outcome> {
    let (_, mut elements) = Elements::within(executed)?;
    let mut answers = Vec::new();
    for reply in queued {
        answers.push(match elements::error(reply) {
            Some(_) => reply,
            None => elements.next()?,
        });
    }
    let (brought, rest) = answers.split_at_checked(before)?;
    let (asked, last) = rest.split_at_checked(commit.count)?;
    let failed = (brought.iter().chain(last)).find_map(|answer| elements::error(answer));
    if let Some(error) = failed {
        return Some(Outcome::Failed(error.to_vec()));
    }
    let count = (commit.foreign.iter())
        .filter(|foreign| foreign.is_written)
        .count();
    Some(Outcome::Committed {
        replies: asked.concat(),
        written: written(count, &mut Elements::new(last.first()?))?,
    })
}

/// What became of so many keys: 0 stands for what is as it was.
fn written(count: usize, words: &mut Elements) -> Option<Vec<Written>> {
    let (given, mut list) = words.array()?;
    if given != count {
        return None;
    }
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let mut one = list;
        if one.integer() == Some(0) {
            all.push(Written::Same);
            list = one;
        } else {
            all.push(Written::Now(value(&mut list)?));
        }
    }
    Some(all)
}
