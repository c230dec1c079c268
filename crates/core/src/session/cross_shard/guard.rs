//! Scripts of clients that run at home for keys of several shards: held to the keys that they are given.
//!
//! Owns: `guarded`, the text that is sent instead of the client's, and `hold`, which puts it into an operation's requests.
//!
//! Flow: a client's script -> a line of ours before it, which puts its own `redis` (and `server`) in place of the server's ->
//! every `call` and `pcall` asks the server first which keys the command has (COMMAND GETKEYS), and is refused if one of them
//! was not given to the script. What is refused is an error as of any command: the script ends, or sees it from `pcall`.
//! EVALSHA is sent as EVAL: no server knows the guarded text by the client's name for its own.
//!
//! Must stay true: a key that was not declared is on another shard, or may be: at home it would be read as missing and written as
//! garbage. So what cannot be judged is refused: commands without keys that look at the whole shard (SCAN, DBSIZE), patterns of
//! SORT, other databases. This holds for a script of a transaction, too, whose own keys are on one shard: it may run on another.
//! (Servers cannot tell the key of a command with one argument that mostly has more, PFMERGE: the argument is taken for it.)
//! The lines of the client's script keep their numbers. This is against mistakes, not against malice: who wants can reach the
//! server's functions by `_G`.
//! Rejected: an ACL user limited to the keys, for one EXEC (servers do hold scripts to it; but the proxy would need the right to
//! make users, which is every right, and a pattern cannot hold a blank or a zero byte). Functions cannot be guarded so: they run
//! where the setting says that scripts touch only what they declare.

use crate::error::{ClientError, OperationError};
use crate::limits::SCRIPT_BYTES_MAX;
use crate::protocol::command::{flags, Policy};
use crate::protocol::errand;
use crate::protocol::request::{RequestScanner, Scan};
use crate::routing::route::{specification, Request};
use crate::session::engine::Engine;
use crate::session::scripts::{sha_from_hex, sha_of, Sha};
use std::sync::{Arc, LazyLock};

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

/// The requests of an operation with every script guarded; None: there is none among them.
///
/// * `known`: the text of a script that is named by its SHA-1.
/// * `show`: is shown the text of every script that is there.
/// * `may_call`: functions may be called unguarded.
pub fn hold(
    requests: &[u8],
    known: impl Fn(&Sha) -> Option<Arc<[u8]>>,
    mut show: impl FnMut(Arc<[u8]>),
    may_call: bool,
) -> Result<Option<Vec<u8>>, ClientError> {
    let mut held: Option<Vec<u8>> = None;
    let mut scanner = RequestScanner::default();
    let mut at = 0;
    while let Some(rest) = requests.get(at..) {
        scanner.reset();
        let Scan::Whole(length) = scanner.scan(rest, true) else {
            break;
        };
        let request = Request {
            data: rest.get(..length).unwrap_or(rest),
            args: &scanner.args,
        };
        match script_of(&request, &known, may_call)? {
            Some((script, is_read_only)) => {
                let out = held.get_or_insert_with(|| requests[..at].to_vec());
                let given: Vec<&[u8]> = (2..request.args.len()).map(|i| request.arg(i)).collect();
                errand::run_given(out, is_read_only, &guarded(&script), &given);
                show(script);
            }
            None => {
                if let Some(out) = &mut held {
                    out.extend_from_slice(request.data);
                }
            }
        }
        at += length;
    }
    Ok(held)
}

/// The text of the script that a request runs, and whether it may only read.
fn script_of(
    request: &Request<'_>,
    known: impl Fn(&Sha) -> Option<Arc<[u8]>>,
    may_call: bool,
) -> Result<Option<(Arc<[u8]>, bool)>, ClientError> {
    let Ok(spec) = specification(request) else {
        return Ok(None);
    };
    let Policy::Script { body, sha } = spec.policy else {
        return Ok(None);
    };
    let script = match (body, sha) {
        (true, _) => Arc::from(request.arg(1)),
        (false, true) => sha_from_hex(request.arg(1))
            .and_then(|sha| known(&sha))
            .ok_or(ClientError::Words(
                "NOSCRIPT No matching script. Please use EVAL.",
            ))?,
        (false, false) if may_call => return Ok(None),
        (false, false) => return Err(ClientError::Operation(OperationError::Function)),
    };
    Ok(Some((script, spec.flags & flags::READONLY != 0)))
}

impl Engine {
    /// An operation's requests as they are sent. Their scripts are remembered, so that EVALSHA finds them later.
    pub(crate) fn held_to_keys(
        &mut self,
        keyspace: usize,
        requests: Arc<[u8]>,
    ) -> Result<Arc<[u8]>, ClientError> {
        let may_call = self.topology.keyspaces[keyspace].cross_shard_functions;
        let mut shown = Vec::new();
        let known = |sha: &Sha| self.scripts.get(sha).cloned();
        let held = hold(&requests, known, |script| shown.push(script), may_call)?;
        for script in shown {
            if script.len() <= SCRIPT_BYTES_MAX && self.scripts.get(&sha_of(&script)).is_none() {
                self.remember_script(&script);
            }
        }
        Ok(held.map_or(requests, Arc::from))
    }
}
