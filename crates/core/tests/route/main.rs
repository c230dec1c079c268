//! Routing against a naive twin: every command of the table with random arguments, on random keyspaces.
//!
//! The twin works out each key's slot bit by bit, finds its shard in a list of ranges, applies affinity rules written
//! out by hand, and knows nothing of fast paths. Where keys are is taken from `command::keys`, which `tests/commands.rs`
//! compares with real servers. What matters most is said once more in plain words at the end of `check`: a request with
//! keys goes to a shard only when that shard holds all of them.

// A panic in a helper is how these tests fail.
#![allow(clippy::panic)]

mod across;

use proptest::prelude::*;
use shoal_core::error::ClientError;
use shoal_core::limits::SORT_PATTERNS_MAX;
use shoal_core::protocol::command::{
    arity_fits, keys, AllKeys, Arg, Check, CommandSpec, Grade, Policy,
};
use shoal_core::protocol::command_table::COMMANDS;
use shoal_core::routing::admission::Admission;
use shoal_core::routing::affinity::Affinity;
use shoal_core::routing::distribution::{Distribution, Slots};
use shoal_core::routing::route::{decide, Request, Route, Scratch};
use shoal_core::routing::topology::{Keyspace, Shard};

const SLOTS: u32 = 16384;
const RULES: [&str; 4] = ["^bull:([^:]+):", "^rq:", "^q([0-9])?-", "^unacked => a"];

/// A keyspace as the twin sees it.
#[derive(Debug, Clone)]
struct Space {
    /// (first slot, last slot, shard), every slot once.
    ranges: Vec<(u16, u16, u16)>,
    shards: usize,
    has_rules: bool,
    first_key: bool,
    home: u16,
    across: Across,
}

/// What a keyspace does as one operation over several shards.
#[derive(Debug, Clone, Copy, Default)]
struct Across {
    is_on: bool,
    splits: bool,
    functions: bool,
}

impl Space {
    fn keyspace(&self) -> Keyspace {
        let slots = Slots::from_ranges(&self.ranges, self.shards).expect("complete ranges");
        let rules: Vec<String> = RULES.iter().map(ToString::to_string).collect();
        let shard = |index| Shard {
            name: format!("s{index}"),
            endpoint: format!("127.0.0.1:{}", 7000 + index),
            credentials: None,
        };
        Keyspace {
            affinity: Affinity::new(if self.has_rules { &rules } else { &[] }).expect("good rules"),
            unknown_commands_first_key: self.first_key,
            home_shard: self.home,
            cross_shard: self.across.is_on,
            multi_key_strict: self.across.splits,
            cross_shard_functions: self.across.functions,
            ..Keyspace::over(
                "test",
                (0..self.shards).map(shard).collect(),
                Distribution::Slots(slots),
            )
        }
    }

    /// Whether keys on several shards are no obstacle for a command of which all keys are known.
    fn goes_across(&self, spec: &CommandSpec, parts: &[Vec<u8>]) -> bool {
        match spec.policy {
            Policy::Split { .. } => self.across.splits,
            Policy::Script {
                body: false,
                sha: false,
            } => self.across.functions,
            Policy::Script { .. } => self.across.is_on,
            _ => self.across.is_on && spec.grade == Grade::Strict && !reaches_beyond(spec, parts),
        }
    }

    fn shard_of(&self, key: &[u8]) -> u16 {
        let part = match rule_part(key) {
            Some(part) if self.has_rules => part,
            _ => tag(key),
        };
        let slot = (crc16(part) % SLOTS) as u16;
        let owner = |&&(first, last, _): &&(u16, u16, u16)| (first..=last).contains(&slot);
        self.ranges.iter().find(owner).expect("every slot").2
    }
}

/// COPY into another database; SORT with a pattern, also where a server would not come to read it.
fn reaches_beyond(spec: &CommandSpec, parts: &[Vec<u8>]) -> bool {
    match spec.check {
        Check::OtherDatabase => parts[3..]
            .iter()
            .any(|word| word.eq_ignore_ascii_case(b"DB")),
        Check::SortPatterns => {
            let mut words = parts[2..].iter();
            while let Some(word) = words.next() {
                match word.to_ascii_uppercase().as_slice() {
                    b"BY" | b"GET" if words.next().is_some_and(|next| next.contains(&b'*')) => {
                        return true;
                    }
                    b"LIMIT" => drop(words.nth(1)),
                    b"STORE" => drop(words.next()),
                    _ => {}
                }
            }
            false
        }
        Check::None | Check::BlockOption => false,
    }
}

/// One bit at a time.
fn crc16(bytes: &[u8]) -> u32 {
    let mut crc = 0u32;
    for bit in bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1)))
    {
        let feedback = crc >> 15 ^ bit;
        crc = crc << 1 & 0xffff;
        if feedback == 1 {
            crc ^= 0x1021;
        }
    }
    crc
}

fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else {
        return key;
    };
    let inside = &key[open + 1..];
    match inside.iter().position(|&byte| byte == b'}') {
        Some(close) if close > 0 => &inside[..close],
        _ => key,
    }
}

/// `RULES`, by hand.
fn rule_part(key: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = key.strip_prefix(b"bull:") {
        if let Some(end @ 1..) = rest.iter().position(|&byte| byte == b':') {
            return Some(&rest[..end]);
        }
    }
    match key {
        [b'r', b'q', b':', ..] => Some(&key[..3]),
        [b'q', b'-', ..] => Some(&key[..2]),
        _ if key.starts_with(b"unacked") => Some(b"a"),
        [b'q', digit, b'-', ..] if digit.is_ascii_digit() => Some(&key[1..2]),
        _ => None,
    }
}

/// The specification, by looking through the whole table.
enum Known {
    Spec(&'static CommandSpec),
    WrongArity(&'static str),
    UnknownSubcommand,
    Unknown,
}

fn find(parts: &[Vec<u8>]) -> Known {
    let is = |spec: &&CommandSpec, word: &[u8]| {
        word.to_ascii_uppercase() == spec.name.as_bytes() && !spec.name.is_empty()
    };
    let Some(mut spec) = COMMANDS.iter().find(|spec| is(spec, &parts[0])) else {
        return Known::Unknown;
    };
    if spec.policy == Policy::Container {
        let Some(word) = parts.get(1) else {
            return Known::WrongArity(spec.full_name);
        };
        match spec.subcommands.iter().find(|spec| is(spec, word)) {
            Some(sub) => spec = sub,
            None => return Known::UnknownSubcommand,
        }
    }
    if arity_fits(spec, parts.len()) {
        Known::Spec(spec)
    } else {
        Known::WrongArity(spec.full_name)
    }
}

/// Whether a server would come to read a pattern that reaches keys elsewhere, or perhaps elsewhere; its own loop, which stops
/// at a syntax error. Where rules could match what an element makes of a key, the twin does not know (`None`).
fn sort_reaches_other_keys(space: &Space, parts: &[Vec<u8>]) -> Option<bool> {
    let mut at = 2;
    let mut reaches = Some(false);
    while at < parts.len() {
        let word = parts[at].to_ascii_uppercase();
        let more = parts.len() - at - 1;
        match word.as_slice() {
            b"ASC" | b"DESC" | b"ALPHA" => {}
            b"LIMIT" if more >= 2 => at += 2,
            b"STORE" if more >= 1 => at += 1,
            b"BY" | b"GET" if more >= 1 => {
                let mut around = parts[at + 1].splitn(2, |&byte| byte == b'*');
                let before = around.next().unwrap_or_default();
                if around.next().is_some() && space.shards > 1 {
                    let tag = tag(before);
                    let is_tagged = tag.len() < before.len();
                    if space.has_rules {
                        reaches = None;
                    } else if !is_tagged || space.shard_of(tag) != space.shard_of(&parts[1]) {
                        return Some(true);
                    }
                }
                at += 1;
            }
            _ => return reaches,
        }
        at += 1;
    }
    reaches
}

/// Whether a server would take the request for one that may wait; its own loop.
fn stream_read_blocks(parts: &[Vec<u8>]) -> bool {
    let is_group = parts[0].eq_ignore_ascii_case(b"XREADGROUP");
    let mut blocks = false;
    let mut at = 1;
    while at < parts.len() {
        let word = parts[at].to_ascii_uppercase();
        let more = parts.len() - at - 1;
        match word.as_slice() {
            b"BLOCK" if more >= 1 => {
                blocks = true;
                at += 1;
            }
            b"COUNT" if more >= 1 => at += 1,
            b"STREAMS" if more >= 1 => return blocks,
            b"GROUP" if more >= 2 && is_group => at += 2,
            b"NOACK" if is_group => {}
            b"CLAIM" if more >= 1 && is_group => at += 1,
            _ => return false,
        }
        at += 1;
    }
    false
}

fn encode(parts: &[Vec<u8>]) -> (Vec<u8>, Vec<Arg>) {
    let mut data = format!("*{}\r\n", parts.len()).into_bytes();
    let mut args = Vec::new();
    for part in parts {
        data.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        args.push(Arg {
            start: data.len() as u32,
            len: part.len() as u32,
        });
        data.extend_from_slice(part);
        data.extend_from_slice(b"\r\n");
    }
    (data, args)
}

fn text_of(route: &Route) -> Option<String> {
    match route {
        Route::Refuse(error) => Some(error.text()),
        _ => None,
    }
}

/// How often each kind of decision was seen; a test that never sees one proves nothing about it.
#[derive(Debug, Default)]
struct Seen {
    one_shard: usize,
    split: usize,
    cross_shard: usize,
    across: usize,
    reserved: usize,
    refused: usize,
    other: usize,
}

/// The specification; None where there is none, and the route then is as it should be.
fn check_name(space: &Space, parts: &[Vec<u8>], route: &Route) -> Option<&'static CommandSpec> {
    let words = match find(parts) {
        Known::Spec(spec) => return Some(spec),
        Known::WrongArity(name) => format!("ERR wrong number of arguments for '{name}' command"),
        Known::UnknownSubcommand => "ERR unknown subcommand '".to_string(),
        Known::Unknown if space.first_key && parts.len() > 1 => {
            if space.across.is_on && is_ours(&parts[1]) {
                "ERR keys that begin with '__shoal:' are shoal's own;".to_string()
            } else {
                assert_eq!(*route, Route::Shard(space.shard_of(&parts[1])));
                return None;
            }
        }
        Known::Unknown => "ERR unknown command '".to_string(),
    };
    let refusal = text_of(route).unwrap_or_default();
    assert!(
        refusal.starts_with(&words),
        "{parts:?}: {route:?}, not '{words}'"
    );
    None
}

fn check(space: &Space, parts: &[Vec<u8>], seen: &mut Seen) {
    let keyspace = space.keyspace();
    let (data, args) = encode(parts);
    let request = Request {
        data: &data,
        args: &args,
    };
    let mut scratch = Scratch::default();
    let admission = Admission::whole(keyspace.shards.len());
    let (spec, route) = decide(&keyspace, &admission, &request, &mut scratch);
    let Some(twin_spec) = check_name(space, parts, &route) else {
        return;
    };
    assert!(std::ptr::eq(spec.expect("known"), twin_spec));
    let mut positions = Vec::new();
    let found = keys(twin_spec, &args, &data, &mut positions);
    let placed: Vec<(u32, u16)> = positions
        .iter()
        .map(|&at| (at, space.shard_of(&parts[at as usize])))
        .collect();
    let is_together = placed.windows(2).all(|pair| pair[0].1 == pair[1].1);
    let is_dangerous = match twin_spec.check {
        Check::SortPatterns => sort_reaches_other_keys(space, parts),
        Check::None | Check::BlockOption | Check::OtherDatabase => Some(false),
    };
    let Some(is_dangerous) = is_dangerous else {
        return seen.other += 1;
    };
    match (&twin_spec.policy, &route) {
        (_, Route::Refuse(_)) if is_dangerous => seen.refused += 1,
        (_, other) if is_dangerous => panic!("{parts:?}: {other:?}"),
        (Policy::Keyed | Policy::Script { .. } | Policy::Split { .. }, Route::Refuse(error))
            if **error == ClientError::ReservedKey =>
        {
            let names_ours = positions.iter().any(|&at| is_ours(&parts[at as usize]));
            assert!(space.across.is_on && (names_ours || may_by_pattern(twin_spec, parts)));
            seen.reserved += 1;
        }
        (Policy::AllKeys(AllKeys::Swap), Route::Refuse(_)) => {
            assert!(space.across.is_on && !parts[1..].iter().all(is_other_database));
            seen.refused += 1;
        }
        (_, Route::CrossShard) => {
            assert!(space.goes_across(twin_spec, parts), "{parts:?}");
            assert!(!is_together && found.is_ok(), "{parts:?}");
            let ours = scratch
                .keys
                .iter()
                .copied()
                .zip(scratch.shards.iter().copied());
            assert_eq!(ours.collect::<Vec<_>>(), placed);
            seen.across += 1;
        }
        (Policy::Keyed | Policy::Script { .. } | Policy::Split { .. }, Route::Refuse(error)) => {
            let is_told = found.is_ok();
            check_refusal(twin_spec, error, is_together, placed.is_empty(), is_told);
            check_need(space, twin_spec, error, parts);
            seen.cross_shard += usize::from(matches!(
                **error,
                ClientError::CrossShard { .. } | ClientError::CrossShardOff { .. }
            ));
            seen.refused += 1;
        }
        (Policy::Keyed | Policy::Split { .. }, Route::Shard(_))
        | (Policy::Script { .. }, Route::Script { .. }) => seen.one_shard += 1,
        (
            &Policy::Split { step, merge },
            &Route::Split {
                step: ours,
                merge: rule,
            },
        ) => {
            assert_eq!((ours, rule), (step, merge));
            let ours: Vec<(u32, u16)> = scratch
                .keys
                .iter()
                .copied()
                .zip(scratch.shards.iter().copied())
                .collect();
            assert_eq!(ours, placed);
            assert!(!is_together);
            let whole: Vec<u32> = (1..parts.len() as u32).step_by(step as usize).collect();
            assert_eq!(scratch.keys, whole, "every argument goes with some key");
            seen.split += 1;
        }
        (Policy::Keyed, Route::Blocking) => {
            // More than needed is allowed: the servers refuse those requests, on whatever connection.
            assert_eq!(twin_spec.check, Check::BlockOption);
            seen.other += 1;
        }
        (Policy::Keyed, Route::Streams) => {
            assert_eq!(twin_spec.check, Check::BlockOption);
            assert!(!is_together);
            seen.split += 1;
        }
        // Judged by names that this twin does not know; see `tests/system/test_settings.py`.
        (Policy::Settings | Policy::Debug, Route::Refuse(_) | Route::AllShards(_)) => {
            seen.other += 1;
        }
        (policy, route) => {
            assert_eq!(*route, plain_route(policy, twin_spec), "{parts:?}");
            seen.other += 1;
        }
    }
    if twin_spec.check == Check::BlockOption && stream_read_blocks(parts) {
        assert!(
            matches!(route, Route::Blocking | Route::Refuse(_)),
            "{parts:?} would wait on a connection of others"
        );
    }
    if let Route::Shard(shard) | Route::Script { shard, .. } = route {
        assert!(found.is_ok(), "{parts:?}");
        let is_ours = placed.iter().any(|&(at, _)| is_ours(&parts[at as usize]));
        assert!(!(space.across.is_on && is_ours), "{parts:?}");
        let is_script = matches!(twin_spec.policy, Policy::Script { .. });
        check_owners(space, parts, is_script, shard, placed);
    }
}

/// A key of ours may be what a pattern reaches.
fn may_by_pattern(spec: &CommandSpec, parts: &[Vec<u8>]) -> bool {
    spec.check == Check::SortPatterns && parts.iter().any(|part| is_ours(part))
}

fn is_other_database(part: &Vec<u8>) -> bool {
    matches!(part.as_slice(), b"1" | b"2" | b"3")
}

fn is_ours(key: &[u8]) -> bool {
    key.starts_with(b"__shoal:")
}

/// What could be done as one operation is not refused for its keys' places; where a setting is named, it is what lacks.
fn check_need(space: &Space, spec: &CommandSpec, error: &ClientError, parts: &[Vec<u8>]) {
    match error {
        ClientError::CrossShard { .. } => assert!(!space.goes_across(spec, parts), "{parts:?}"),
        ClientError::CrossShardOff { setting, .. } => {
            assert!(!space.goes_across(spec, parts), "{parts:?}");
            let across = Across {
                is_on: true,
                splits: space.across.splits,
                functions: setting.contains("cross_shard_functions = true"),
            };
            let obeying = Space {
                across,
                ..space.clone()
            };
            assert!(obeying.goes_across(spec, parts), "{parts:?}: {setting}");
            assert_eq!(
                setting.contains("cross_shard = \"strict\""),
                !space.across.is_on
            );
        }
        _ => {}
    }
}

/// Whether a request with these keys may be refused so. `is_told`: its keys could be found.
fn check_refusal(
    spec: &CommandSpec,
    error: &ClientError,
    is_together: bool,
    is_keyless: bool,
    is_told: bool,
) {
    match *error {
        // A pattern behind a syntax error is looked at all the same.
        ClientError::CrossShard { .. } | ClientError::CrossShardOff { .. } => {
            assert!(!is_together || spec.check == Check::SortPatterns);
        }
        ClientError::NoKeys(_) => {
            assert!(is_keyless && !matches!(spec.policy, Policy::Script { .. }));
        }
        ClientError::Text(_) => assert!(!is_told),
        ClientError::WrongArity(_) => {
            assert!(matches!(spec.policy, Policy::Split { step: 2.., .. }));
        }
        // Refused more than needed is allowed here: the servers refuse these requests too.
        ClientError::HiddenKeys { .. } | ClientError::Refused { .. } => {
            assert_ne!(spec.check, Check::None);
        }
        ref error => panic!("{}: {error:?}", spec.full_name),
    }
}

/// The invariant itself: a request is sent to a shard only where all of its keys are there.
fn check_owners(
    space: &Space,
    parts: &[Vec<u8>],
    is_script: bool,
    shard: u16,
    placed: Vec<(u32, u16)>,
) {
    assert!(is_script || !placed.is_empty(), "{parts:?}");
    if placed.is_empty() {
        assert_eq!(shard, home_of(space, parts), "{parts:?}");
    }
    for (at, owner) in placed {
        assert_eq!(
            owner, shard,
            "key {at} of {parts:?} is not on the shard it is sent to"
        );
    }
}

/// Where a script without keys runs: by its first argument, if a rule names a part of it.
fn home_of(space: &Space, parts: &[Vec<u8>]) -> u16 {
    let argument = parts.get(3).cloned().unwrap_or_default();
    let has_rule = space.keyspace().affinity.part(&argument).is_some();
    if has_rule {
        space.shard_of(&argument)
    } else {
        space.home
    }
}

/// Policies that no argument changes.
fn plain_route(policy: &Policy, spec: &'static CommandSpec) -> Route {
    match *policy {
        Policy::AllShards(merge) => Route::AllShards(merge),
        Policy::AllKeys(what) => Route::AllKeys(what),
        Policy::AnyShard => Route::AnyShard,
        Policy::Scan => Route::Scan,
        Policy::ScriptLoad => Route::ScriptLoad,
        Policy::ScriptFlush => Route::ScriptFlush,
        Policy::Aside(merge) => Route::Aside(merge),
        Policy::Wait => Route::Wait,
        Policy::Blocking(_) => Route::Blocking,
        Policy::Local(local) => Route::Local(local),
        Policy::Refuse(reason) => Route::Refuse(Box::new(ClientError::Refused {
            command: spec.full_name,
            reason,
        })),
        Policy::Keyed
        | Policy::Script { .. }
        | Policy::Split { .. }
        | Policy::Settings
        | Policy::Debug
        | Policy::Container => {
            panic!("{} depends on its arguments", spec.full_name)
        }
    }
}

// ------------------------------------------------------------------------------------------------------ inputs

fn space() -> impl Strategy<Value = Space> {
    let cuts = prop::collection::btree_set(1u16..SLOTS as u16, 0..9);
    let across = (any::<bool>(), any::<bool>(), any::<bool>());
    let across = across.prop_map(|(is_on, splits, functions)| Across {
        is_on,
        splits: is_on && splits,
        functions: is_on && functions,
    });
    let flags = (any::<bool>(), any::<bool>());
    (cuts, 1usize..6, any::<u64>(), flags, across).prop_map(
        |(cuts, shards, seed, (has_rules, first_key), across)| {
            let mut ranges = Vec::new();
            let mut first = 0;
            for (index, next) in cuts.into_iter().chain([SLOTS as u16]).enumerate() {
                let shard = (seed >> (index * 6) & 63) as u16 % shards as u16;
                ranges.push((first, next - 1, shard));
                first = next;
            }
            Space {
                ranges,
                shards,
                has_rules,
                first_key,
                home: (seed % shards as u64) as u16,
                across,
            }
        },
    )
}

/// Keys that often, but not always, belong together.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let near = prop::sample::select(vec![
        "{a}1",
        "{a}2",
        "{a}3",
        "x{a}y",
        "bull:a:1",
        "bull:a:wait",
        "bull::x",
        "__shoal:f:1",
        "__shoal",
        "rq:1",
        "rq:job",
        "unacked",
        "unacked_index",
        "q1-a",
        "q1-b",
        "q-a",
        "a",
    ]);
    prop_oneof![
        6 => near.prop_map(|key| key.as_bytes().to_vec()),
        2 => "[{}a-c:]{0,6}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..30),
    ]
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&[u8]> = vec![
        b"0",
        b"1",
        b"2",
        b"3",
        b"-1",
        b"STORE",
        b"by",
        b"GET",
        b"LIMIT",
        b"streams",
        b"STREAMS",
        b"BLOCK",
        b"block",
        b"GROUP",
        b"COUNT",
        b"NOACK",
        b"KEYS",
        b"#",
        b"w_*",
        b"{a}w*",
        b"x{q}*->f",
        b"nosort",
        b"ASC",
        b"DB",
        b"$",
        b">",
        b"0-0",
    ];
    prop::sample::select(words).prop_map(<[u8]>::to_vec)
}

/// A command of the table: its name in some case, its subcommand if it has one.
fn command() -> impl Strategy<Value = (Vec<Vec<u8>>, i16)> {
    let all: Vec<(Vec<Vec<u8>>, i16)> = COMMANDS
        .iter()
        .flat_map(|spec| {
            let name = spec.name.as_bytes().to_vec();
            let subs = spec.subcommands.iter().map({
                let name = name.clone();
                move |sub| (vec![name.clone(), sub.name.as_bytes().to_vec()], sub.arity)
            });
            let own = (vec![name], spec.arity);
            subs.chain([own]).collect::<Vec<_>>()
        })
        .collect();
    (prop::sample::select(all), any::<bool>()).prop_map(|((mut name, arity), is_lower)| {
        if is_lower {
            name.iter_mut().for_each(|word| word.make_ascii_lowercase());
        }
        (name, arity)
    })
}

/// The commands whose routing has the most to decide.
fn interesting() -> impl Strategy<Value = (Vec<Vec<u8>>, i16)> {
    prop::sample::select(vec![
        ("MGET", -2),
        ("MSET", -3),
        ("MSETNX", -3),
        ("DEL", -2),
        ("UNLINK", -2),
        ("EXISTS", -2),
        ("TOUCH", -2),
        ("SUNIONSTORE", -3),
        ("RENAME", 3),
        ("EVAL", -3),
        ("EVALSHA", -3),
        ("FCALL", -3),
        ("ZUNION", -3),
        ("ZUNIONSTORE", -4),
        ("SORT", -2),
        ("SORT_RO", -2),
        ("XREAD", -4),
        ("XREADGROUP", -7),
        ("BITOP", -4),
        ("LMPOP", -4),
        ("GEORADIUS", -6),
        ("OBJECT", -2),
        ("NOSUCH", -1),
        ("MEMORY", -2),
        ("COPY", -3),
        ("PFMERGE", -2),
    ])
    .prop_map(|(name, arity)| (vec![name.as_bytes().to_vec()], arity))
}

fn request() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let argument = prop_oneof![5 => key(), 3 => word()];
    let keys_only = prop::collection::vec(key(), 0..8);
    let mixed = prop::collection::vec(argument, 0..10);
    let exact = any::<prop::sample::Index>();
    let name = prop_oneof![1 => command(), 1 => interesting()];
    (name, prop_oneof![2 => keys_only, 3 => mixed], exact).prop_map(
        |((mut parts, arity), arguments, exact)| {
            parts.extend(arguments);
            // Half of the time as many arguments as the command wants at least.
            let wanted = arity.unsigned_abs() as usize;
            if exact.index(2) == 0 {
                parts.resize_with(wanted.max(1), || b"{a}more".to_vec());
            }
            parts
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn decisions_are_those_of_the_twin(space in space(), request in request()) {
        check(&space, &request, &mut Seen::default());
    }

    /// Sorting and stream reading with options in any order.
    #[test]
    fn options_that_reach_further_are_found(
        space in space(),
        head in prop::sample::select(vec![
            &["SORT", "{a}k"][..], &["SORT_RO", "{a}k"], &["XREAD"], &["XREADGROUP", "GROUP", "g", "c"],
            &["XREADGROUP", "GROUP"], &["XREADGROUP"], &["XREADGROUP", "GROUP", "STREAMS", "BLOCK"],
            &["XREADGROUP", "GROUP", "BLOCK", "STREAMS"], &["XREAD", "COUNT", "1", "BLOCK", "5"],
        ]),
        words in prop::collection::vec(prop_oneof![5 => word(), 1 => key()], 0..7),
        tail in prop::sample::select(vec![&[][..], &["STREAMS", "{a}s", ">"], &["STREAMS", "s", "t", "0", "0"]]),
    ) {
        let mut parts: Vec<Vec<u8>> = head.iter().map(|word| word.as_bytes().to_vec()).collect();
        parts.extend(words);
        parts.extend(tail.iter().map(|word| word.as_bytes().to_vec()));
        check(&space, &parts, &mut Seen::default());
    }
}

/// Every kind of decision is reached by what the properties are fed with.
#[test]
fn the_inputs_reach_every_kind_of_decision() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = Seen::default();
    for _ in 0..6000 {
        let space = space().new_tree(&mut runner).expect("a space").current();
        let parts = request()
            .new_tree(&mut runner)
            .expect("a request")
            .current();
        check(&space, &parts, &mut seen);
    }
    let least = [
        seen.one_shard,
        seen.split,
        seen.cross_shard,
        seen.across,
        seen.reserved,
        seen.refused,
        seen.other,
    ];
    assert!(least.iter().all(|&count| count > 30), "{seen:?}");
}

/// Queue libraries' keys stay together under the rules that the documentation gives for them.
#[test]
fn affinity_rules_keep_queues_together() {
    let space = Space {
        ranges: vec![(0, 8191, 0), (8192, 16383, 1)],
        shards: 2,
        has_rules: true,
        first_key: false,
        home: 1,
        across: Across::default(),
    };
    let keyspace = space.keyspace();
    for queue in ["mail", "video", "{odd", "a}b", "x"] {
        let names = ["wait", "active", "id", "meta", "events:1"];
        let shards: Vec<Option<u16>> = names
            .iter()
            .map(|name| keyspace.owner_of(format!("bull:{queue}:{name}").as_bytes()))
            .collect();
        assert!(shards.windows(2).all(|pair| pair[0] == pair[1]), "{queue}");
        assert_eq!(
            shards[0],
            Some(space.shard_of(format!("bull:{queue}:x").as_bytes()))
        );
        let argument = format!("bull:{queue}:x").into_bytes();
        for words in [["EVAL", "return 1", "0"], ["FCALL", "f", "0"]] {
            let mut parts: Vec<Vec<u8>> = words.map(|word| word.as_bytes().to_vec()).into();
            parts.push(argument.clone());
            let mut seen = Seen::default();
            check(&space, &parts, &mut seen);
            assert_eq!(seen.one_shard, 1);
            assert_eq!(Some(home_of(&space, &parts)), shards[0]);
        }
    }
}

/// A pattern is let through where its tag, or a rule that is through with its search, puts all its keys beside the key.
#[test]
fn patterns_of_sort_are_judged_by_what_stands_before_their_star() {
    let space = Space {
        ranges: vec![(0, 8191, 0), (8192, 16383, 1)],
        shards: 2,
        has_rules: true,
        first_key: false,
        home: 0,
        across: Across::default(),
    };
    let far = ["b", "c", "d", "e"]
        .into_iter()
        .find(|tag| space.shard_of(tag.as_bytes()) != space.shard_of(b"a"))
        .expect("a tag of the other shard");
    let far = format!("w{{{far}}}*");
    let decided = |words: &[&str]| {
        let parts: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let (data, args) = encode(&parts);
        let request = Request {
            data: &data,
            args: &args,
        };
        decide(
            &space.keyspace(),
            &Admission::whole(2),
            &request,
            &mut Scratch::default(),
        )
        .1
    };
    let home = Route::Shard(space.shard_of(b"a"));
    let mail = Route::Shard(space.shard_of(b"mail"));
    let let_through = [
        (&["SORT", "{a}k", "BY", "{a}w_*", "GET", "#"][..], &home),
        (&["SORT_RO", "{a}k", "GET", "w{a}:*->f", "GET", "x"], &home),
        (&["SORT", "{a}k", "BY", "nosort", "STORE", "{a}d"], &home),
        (&["SORT", "bull:mail:ids", "BY", "bull:mail:*->at"], &mail),
        (&["SORT", "{mail}k", "GET", "bull:mail:*"], &mail),
    ];
    for (words, route) in let_through {
        assert_eq!(decided(words), *route, "{words:?}");
    }
    let refused = [
        (&["SORT", "{a}k", "BY", "w_*"][..], "BY 'w_*' reaches keys"),
        (&["SORT", "{a}k", "BY", "*{a}"], "BY '*{a}' reaches keys"),
        (
            &["SORT", "{a}k", "BY", "{}{a}*"],
            "BY '{}{a}*' reaches keys",
        ),
        (&["SORT", "{a}k", "GET", "{a*}"], "GET '{a*}' reaches keys"),
        (
            &["SORT", "{a}k", "GET", "#", "GET", "bull:*:x"],
            "GET 'bull:*:x' reaches keys",
        ),
        (
            &["SORT", "{a}k", "BY", &far],
            "CROSSSLOT 'sort' has keys on different shards: '{a}k'",
        ),
    ];
    let many = ["SORT", "{a}k"]
        .into_iter()
        .chain(["GET", "#"].repeat(SORT_PATTERNS_MAX));
    let mut many: Vec<&str> = many.collect();
    assert_eq!(decided(&many), home);
    many.extend(["GET", "#"]);
    let refused = refused
        .into_iter()
        .chain([(&many[..], "too many patterns")]);
    for (words, text) in refused {
        let refusal = text_of(&decided(words)).unwrap_or_default();
        assert!(refusal.contains(text), "{words:?}: {refusal}");
    }
}
