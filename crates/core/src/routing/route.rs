//! What to do with a request.
//!
//! Owns: `Request` (a scanned request, in place), `Route` (the decision) and `decide`, which makes it from the request,
//! the command table and the keyspace. Nothing is sent or changed here.
//!
//! Flow: command name -> specification -> arity -> policy -> keys -> shards -> `Route`.
//!
//! Must stay true: every later stage matches `Route` exhaustively, without a catch-all arm, so a new kind of route does
//! not compile until everybody has an answer for it. A command with keys is never sent to a shard that was not computed
//! from *all* of its keys.
//! Rejected: routing by the first key alone, as other proxies do: it answers wrongly and nobody notices.

use crate::error::{ClientError, KeyPlace};
use crate::limits::{KEYS_IN_ERROR_MAX, TEXT_IN_ERROR_MAX};
use crate::protocol::command::{
    arity_fits, keys, lookup, subcommand, AllKeys, Arg, Check, CommandSpec, Grade, Local, Merge,
    Policy,
};
use crate::protocol::request::is_http;
use crate::routing::administration::{debug, settings, swap};
use crate::routing::admission::Admission;
use crate::routing::claims::beyond_keys;
use crate::routing::placement::Map;
use crate::routing::sort_patterns::patterns_on;
use crate::routing::topology::Keyspace;

/// A whole request: its bytes and where its arguments are in them.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The request, from `*` to the last line end.
    pub data: &'a [u8],
    /// The name first.
    pub args: &'a [Arg],
}

impl<'a> Request<'a> {
    /// The argument's bytes; empty past the end.
    #[inline]
    pub fn arg(&self, index: usize) -> &'a [u8] {
        match self.args.get(index) {
            Some(arg) => self
                .data
                .get(arg.start as usize..(arg.start + arg.len) as usize)
                .unwrap_or_default(),
            None => &[],
        }
    }
}

/// Memory that decisions reuse; after `Route::Split`, `Streams` and `CrossShard`, `keys` and `shards` describe all keys.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Where chance comes from, for a distribution that is random.
    pub chance: u64,
    /// Argument indexes of the keys.
    pub keys: Vec<u32>,
    /// For each key the index of its shard.
    pub shards: Vec<u16>,
}

/// The decision. Shards are indexes within the keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The request goes unchanged to one shard.
    Shard(u16),
    /// As `Shard`; the request is a script's text (`body`) or names one by its SHA-1 (`sha`).
    Script {
        /// The shard of all its keys.
        shard: u16,
        /// Argument 1 is a script.
        body: bool,
        /// Argument 1 is a script's SHA-1.
        sha: bool,
    },
    /// Fragments go to several shards; see `Scratch`.
    Split {
        /// Arguments per key.
        step: u8,
        /// How the replies become one.
        merge: Merge,
    },
    /// The request goes unchanged to every shard.
    AllShards(Merge),
    /// Every shard is asked about all of its keys.
    AllKeys(AllKeys),
    /// Whichever shard is up.
    AnyShard,
    /// The cursor names the shard.
    Scan,
    /// All shards, each with its part of what is set.
    Settings,
    /// All shards, and remembered.
    ScriptLoad,
    /// All shards, and forgotten.
    ScriptFlush,
    /// All shards, on connections that a running script does not hold up.
    Aside(Merge),
    /// All shards, on connections of their own.
    Wait,
    /// The shards of its keys, on connections of the client's own.
    Blocking,
    /// Streams of several shards; see `Scratch`.
    Streams,
    /// One operation over several shards; see `Scratch`.
    CrossShard,
    /// We answer.
    Local(Local),
    /// We refuse.
    Refuse(Box<ClientError>),
}

/// The specification that a request falls under, its container's subcommand if it has one.
#[inline]
pub fn specification(request: &Request<'_>) -> Result<&'static CommandSpec, Box<ClientError>> {
    let Some(spec) = lookup(request.arg(0)) else {
        let is_http = is_http(request.arg(0));
        return Err(Box::new(if is_http {
            ClientError::Http
        } else {
            unknown(request)
        }));
    };
    let is_container = matches!(spec.policy, Policy::Container);
    if !is_container && arity_fits(spec, request.args.len()) {
        return Ok(spec);
    }
    in_container(spec, is_container, request).map_err(Box::new)
}

fn in_container(
    spec: &'static CommandSpec,
    is_container: bool,
    request: &Request<'_>,
) -> Result<&'static CommandSpec, ClientError> {
    if !is_container || request.args.len() < 2 {
        return Err(ClientError::WrongArity(spec.full_name));
    }
    let sub = subcommand(spec, request.arg(1)).ok_or_else(|| ClientError::UnknownSubcommand {
        name: shortened(request.arg(1)),
        command: spec.full_name,
    })?;
    if arity_fits(sub, request.args.len()) {
        Ok(sub)
    } else {
        Err(ClientError::WrongArity(sub.full_name))
    }
}

pub(crate) fn shortened(text: &[u8]) -> Vec<u8> {
    text[..text.len().min(TEXT_IN_ERROR_MAX + 1)].to_vec()
}

fn unknown(request: &Request<'_>) -> ClientError {
    ClientError::UnknownCommand {
        name: shortened(request.arg(0)),
        args: (1..request.args.len().min(21))
            .map(|index| shortened(request.arg(index)))
            .collect(),
    }
}

/// Boxed, because a decision is moved about for every request and an error is large and rare.
#[cold]
pub(crate) fn refuse(error: ClientError) -> Route {
    Route::Refuse(Box::new(error))
}

/// Decides. The specification is given back too, for counters and for `SHOAL EXPLAIN`; None for an unknown command.
#[inline]
pub fn decide(
    keyspace: &Keyspace,
    admission: &Admission,
    request: &Request<'_>,
    scratch: &mut Scratch,
) -> (Option<&'static CommandSpec>, Route) {
    let map = &Map {
        keyspace,
        admission,
    };
    match specification(request) {
        Ok(spec) => (Some(spec), by_policy(map, spec, request, scratch)),
        Err(error) => match *error {
            ClientError::UnknownCommand { .. } if keyspace.unknown_commands_first_key => {
                (None, by_first_argument(map, request, scratch))
            }
            _ => (None, Route::Refuse(error)),
        },
    }
}

impl Map<'_> {
    /// The route of a request with one key.
    #[inline]
    fn route(&self, key: &[u8], scratch: &mut Scratch) -> Route {
        if self.is_reserved(key) {
            return refuse(ClientError::ReservedKey);
        }
        match self.shard(key, &mut scratch.chance) {
            Some(shard) => Route::Shard(shard),
            None => refuse(no_range(key)),
        }
    }
}

#[cold]
pub(crate) fn no_range(key: &[u8]) -> ClientError {
    ClientError::NoRange(shortened(key))
}

fn by_first_argument(map: &Map<'_>, request: &Request<'_>, scratch: &mut Scratch) -> Route {
    if request.args.len() < 2 {
        return refuse(unknown(request));
    }
    map.route(request.arg(1), scratch)
}

#[inline]
fn by_policy(
    map: &Map<'_>,
    spec: &'static CommandSpec,
    request: &Request<'_>,
    scratch: &mut Scratch,
) -> Route {
    match spec.policy {
        Policy::Keyed if spec.fixed_key != 0 && spec.check == Check::None => {
            map.route(request.arg(spec.fixed_key as usize), scratch)
        }
        Policy::Keyed if spec.check == Check::BlockOption => streams(map, spec, request, scratch),
        Policy::Keyed => match place_keys(map, spec, request, scratch) {
            Ok(()) => keyed(map, spec, request, scratch),
            Err(error) => refuse(error),
        },
        Policy::Script { body, sha } => match place_keys(map, spec, request, scratch) {
            Ok(()) => match common_shard(scratch) {
                Some(shard) => Route::Script { shard, body, sha },
                None => across(map, spec, request, scratch),
            },
            Err(ClientError::NoKeys(_)) => home_shard(map, request.arg(3), scratch)
                .map_or_else(refuse, |shard| Route::Script { shard, body, sha }),
            Err(error) => refuse(error),
        },
        Policy::Split { step, merge } => split(map, spec, request, scratch, step, merge),
        Policy::AllShards(merge) => Route::AllShards(merge),
        Policy::AllKeys(AllKeys::Swap) => swap(map, spec, request),
        Policy::AllKeys(what) => Route::AllKeys(what),
        Policy::AnyShard => Route::AnyShard,
        Policy::Scan => Route::Scan,
        Policy::Settings => settings(map, spec, request),
        Policy::Debug => debug(map, spec, request, &mut scratch.chance),
        Policy::ScriptLoad => Route::ScriptLoad,
        Policy::ScriptFlush => Route::ScriptFlush,
        Policy::Aside(merge) => Route::Aside(merge),
        Policy::Wait => Route::Wait,
        Policy::Blocking(_) => Route::Blocking,
        // What is said there ends other shoals' fences.
        Policy::Local(Local::Publish | Local::Spublish) if map.is_reserved(request.arg(1)) => {
            refuse(ClientError::Words(
                "ERR channels that begin with '__shoal:' are shoal's own; choose another name",
            ))
        }
        Policy::Local(local) => Route::Local(local),
        Policy::Container => refuse(ClientError::WrongArity(spec.full_name)),
        Policy::Refuse(reason) => refuse(ClientError::Refused {
            command: spec.full_name,
            reason,
        }),
    }
}

/// The route of a request whose keys are placed.
fn keyed(
    map: &Map<'_>,
    spec: &'static CommandSpec,
    request: &Request<'_>,
    scratch: &Scratch,
) -> Route {
    let Some(shard) = common_shard(scratch) else {
        return across(map, spec, request, scratch);
    };
    let shard = match spec.check {
        Check::SortPatterns => patterns_on(map, spec, request, shard),
        Check::None | Check::BlockOption | Check::OtherDatabase => Ok(shard),
    };
    shard.map_or_else(refuse, Route::Shard)
}

/// Keys on several shards: one operation over these, where the command and the keyspace have that; else why not.
#[cold]
fn across(
    map: &Map<'_>,
    spec: &'static CommandSpec,
    request: &Request<'_>,
    scratch: &Scratch,
) -> Route {
    let space = map.keyspace;
    let is_script = matches!(spec.policy, Policy::Script { .. });
    let beyond = beyond_keys(spec, request);
    let can_be = is_script || spec.grade == Grade::Strict;
    if !can_be || (beyond.is_some() && !space.cross_shard) || !space.can_cross_shards() {
        return refuse(cross_shard(space, spec, request, scratch));
    }
    if let Some(error) = beyond {
        return refuse(error);
    }
    // A script is held to its keys; nothing can hold a function to them.
    let is_function = matches!(
        spec.policy,
        Policy::Script {
            body: false,
            sha: false
        }
    );
    let setting = match (space.cross_shard, is_function && !space.cross_shard_functions) {
        (true, false) => return Route::CrossShard,
        (false, false) => "cross_shard = \"strict\"",
        (true, true) => "cross_shard_functions = true if functions touch only the keys that they are given",
        (false, true) => "cross_shard = \"strict\", and cross_shard_functions = true if functions touch only the keys that they are given",
    };
    refuse(ClientError::CrossShardOff {
        command: spec.full_name,
        keys: places(space, request, scratch),
        setting,
    })
}

/// The refusal of what would be one operation across shards, if the keyspace had these. A keyspace that cannot is not told to.
pub fn cross_shard_off(
    space: &Keyspace,
    command: &'static str,
    keys: Vec<KeyPlace>,
) -> ClientError {
    if space.can_cross_shards() {
        let setting = "cross_shard = \"strict\"";
        ClientError::CrossShardOff {
            command,
            keys,
            setting,
        }
    } else {
        ClientError::CrossShard { command, keys }
    }
}

/// The one shard of all placed keys. None: they are on several.
#[inline]
fn common_shard(scratch: &Scratch) -> Option<u16> {
    let (&first, others) = scratch.shards.split_first()?;
    let is_common = others.iter().all(|&shard| shard == first);
    is_common.then_some(first)
}

/// Fills `scratch` with the request's keys and their shards.
pub(crate) fn place_keys(
    map: &Map<'_>,
    spec: &'static CommandSpec,
    request: &Request<'_>,
    scratch: &mut Scratch,
) -> Result<(), ClientError> {
    scratch.keys.clear();
    scratch.shards.clear();
    keys(spec, request.args, request.data, &mut scratch.keys)
        .map_err(|error| ClientError::Text(error.text(spec)))?;
    if scratch.keys.is_empty() {
        return Err(ClientError::NoKeys(spec.full_name));
    }
    if let Some(shard) = map.any_shard(&mut scratch.chance) {
        // The whole request goes to one shard: any is as good as any other.
        scratch.shards.resize(scratch.keys.len(), shard);
        return Ok(());
    }
    for &index in &scratch.keys {
        let key = request.arg(index as usize);
        if map.is_reserved(key) {
            return Err(ClientError::ReservedKey);
        }
        let shard = map.keyspace.shard_of(key, map.admission);
        scratch.shards.push(shard.ok_or_else(|| no_range(key))?);
    }
    Ok(())
}

/// The one shard of all keys that a request names, whatever its policy.
pub fn shard_of_keys(
    keyspace: &Keyspace,
    admission: &Admission,
    spec: &'static CommandSpec,
    request: &Request<'_>,
    scratch: &mut Scratch,
) -> Result<u16, ClientError> {
    let map = &Map {
        keyspace,
        admission,
    };
    one_shard(map, spec, request, scratch)
}

/// The one shard of all keys.
fn one_shard(
    map: &Map<'_>,
    spec: &'static CommandSpec,
    request: &Request<'_>,
    scratch: &mut Scratch,
) -> Result<u16, ClientError> {
    place_keys(map, spec, request, scratch)?;
    common_shard(scratch).ok_or_else(|| cross_shard(map.keyspace, spec, request, scratch))
}

/// Where a script without keys runs: with what its first argument belongs to, if an affinity rule says so (queue libraries
/// pass a queue's name so); else always on the same shard, the keyspace's home. In a cache that may be out: then on the next.
#[cold]
fn home_shard(map: &Map<'_>, argument: &[u8], scratch: &mut Scratch) -> Result<u16, ClientError> {
    if let Some(shard) = map.any_shard(&mut scratch.chance) {
        return Ok(shard);
    }
    if map.keyspace.affinity.part(argument).is_some() {
        let shard = map.keyspace.shard_of(argument, map.admission);
        return shard.ok_or_else(|| no_range(argument));
    }
    let (home, count) = (map.keyspace.home_shard, map.admission.shards().max(1));
    let mut in_turn = (0..count).map(|offset| (home + offset) % count);
    Ok(in_turn
        .find(|&shard| map.admission.share(shard) > 0)
        .unwrap_or(home))
}

/// Some keys for an error: the first of each shard, so that the difference is seen.
fn places(keyspace: &Keyspace, request: &Request<'_>, scratch: &Scratch) -> Vec<KeyPlace> {
    let mut seen: Vec<u16> = Vec::new();
    let mut places = Vec::new();
    for (&index, &shard) in scratch.keys.iter().zip(&scratch.shards) {
        if places.len() > KEYS_IN_ERROR_MAX {
            break;
        }
        if !seen.contains(&shard) {
            seen.push(shard);
            let key = request.arg(index as usize);
            places.push((
                shortened(key),
                keyspace.group(key).phrase(),
                keyspace.shards[shard as usize].name.clone(),
            ));
        }
    }
    places
}

fn split(
    map: &Map<'_>,
    spec: &'static CommandSpec,
    request: &Request<'_>,
    scratch: &mut Scratch,
    step: u8,
    merge: Merge,
) -> Route {
    // A fragment must be cut at whole keys: `MSET a 1 b` is refused here, in Redis' own words.
    if step > 1 && !(request.args.len() - 1).is_multiple_of(step as usize) {
        return refuse(ClientError::WrongArity(spec.full_name));
    }
    if let Err(error) = place_keys(map, spec, request, scratch) {
        return refuse(error);
    }
    match common_shard(scratch) {
        Some(shard) => Route::Shard(shard),
        None if map.keyspace.multi_key_strict => Route::CrossShard,
        None => Route::Split { step, merge },
    }
}

/// Streams: with BLOCK the request may wait; else each shard has its own.
fn streams(
    map: &Map<'_>,
    spec: &'static CommandSpec,
    request: &Request<'_>,
    scratch: &mut Scratch,
) -> Route {
    if let Err(error) = place_keys(map, spec, request, scratch) {
        return refuse(error);
    }
    if block_value(request).is_some() {
        return Route::Blocking;
    }
    if let Some(shard) = common_shard(scratch) {
        return Route::Shard(shard);
    }
    if has_id_for_each(request, scratch) {
        return Route::Streams;
    }
    refuse(cross_shard(map.keyspace, spec, request, scratch))
}

/// Behind the keys of a read of streams there are as many IDs.
fn has_id_for_each(request: &Request<'_>, scratch: &Scratch) -> bool {
    scratch
        .keys
        .first()
        .is_some_and(|&first| request.args.len() - first as usize == 2 * scratch.keys.len())
}

/// Fills `scratch` with a request's keys and their shards.
pub fn key_shards(
    keyspace: &Keyspace,
    admission: &Admission,
    spec: &'static CommandSpec,
    request: &Request<'_>,
    scratch: &mut Scratch,
) -> Result<(), ClientError> {
    let map = &Map {
        keyspace,
        admission,
    };
    place_keys(map, spec, request, scratch)?;
    let is_one = common_shard(scratch).is_some();
    if spec.check == Check::BlockOption && !is_one && !has_id_for_each(request, scratch) {
        return Err(cross_shard(keyspace, spec, request, scratch));
    }
    Ok(())
}

/// The refusal of a request whose keys are on several shards.
pub fn cross_shard(
    keyspace: &Keyspace,
    spec: &'static CommandSpec,
    request: &Request<'_>,
    scratch: &Scratch,
) -> ClientError {
    ClientError::CrossShard {
        command: spec.full_name,
        keys: places(keyspace, request, scratch),
    }
}

/// The argument that says how long a read of streams waits. Follows the options as the servers do: a group may be called
/// STREAMS, its consumer BLOCK.
pub fn block_value(request: &Request<'_>) -> Option<usize> {
    let mut found = None;
    let mut index = 1;
    while index < request.args.len() {
        let word = request.arg(index);
        if word.eq_ignore_ascii_case(b"STREAMS") {
            break;
        }
        let is_block = word.eq_ignore_ascii_case(b"BLOCK");
        if is_block {
            found = Some(index + 1);
        }
        index += if word.eq_ignore_ascii_case(b"GROUP") {
            3
        } else if is_block
            || word.eq_ignore_ascii_case(b"COUNT")
            || word.eq_ignore_ascii_case(b"CLAIM")
        {
            2
        } else {
            1
        };
    }
    found
}
