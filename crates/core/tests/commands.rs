//! What the command table says, and whether keys are found as real servers find them.
//!
//! Three oracles: the servers' own `COMMAND GETKEYS` answers, recorded in `commands/getkeys.json` by `make commands`; a
//! slow twin of `keys` that follows the servers' definition of key specifications in plain signed arithmetic; and a
//! linear search as the twin of `lookup`.

use proptest::prelude::*;
use shoal_core::protocol::command::{
    arity_fits, flags, keys, lookup, single_key, subcommand, Access, Arg, Begin, Check,
    CommandSpec, Find, Grade, KeyError, Local, Policy,
};
use shoal_core::protocol::command_table::COMMANDS;

/// A request as the scanner leaves it: bytes, and ranges of them.
fn request<T: AsRef<[u8]>>(parts: &[T]) -> (Vec<u8>, Vec<Arg>) {
    let mut data = Vec::new();
    let mut args = Vec::new();
    for part in parts {
        let part = part.as_ref();
        args.push(Arg {
            start: data.len() as u32,
            len: part.len() as u32,
        });
        data.extend_from_slice(part);
        data.extend_from_slice(b"\r\n");
    }
    (data, args)
}

/// The spec that decides about a request: the subcommand's, where there is one.
fn spec_of<T: AsRef<[u8]>>(parts: &[T]) -> Option<&'static CommandSpec> {
    let spec = lookup(parts.first()?.as_ref())?;
    parts
        .get(1)
        .and_then(|name| subcommand(spec, name.as_ref()))
        .or(Some(spec))
}

fn keys_of<T: AsRef<[u8]>>(parts: &[T]) -> Result<Vec<u32>, KeyError> {
    let (data, args) = request(parts);
    let spec = spec_of(parts).expect("a known command");
    let mut out = vec![99];
    keys(spec, &args, &data, &mut out).map(|()| out)
}

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

/// Every command and subcommand.
fn all_specs() -> Vec<&'static CommandSpec> {
    COMMANDS
        .iter()
        .flat_map(|spec| std::iter::once(spec).chain(spec.subcommands))
        .collect()
}

// ------------------------------------------------------------------------------------------- the servers' own answers

/// One line of `getkeys.json`: the request, and what each server said of it under the server's name.
struct Recorded {
    request: Vec<String>,
    answers: Vec<(String, Answer)>,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Keys(Vec<String>),
    Text(String),
}

/// Reads just the JSON that `make commands` writes here: one object per line, of strings and arrays of strings.
fn recorded() -> Vec<Recorded> {
    let text = include_str!("../commands/getkeys.json");
    let mut all = Vec::new();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let mut rest = line.trim_start_matches('{');
        let mut request = Vec::new();
        let mut answers = Vec::new();
        while rest.starts_with('"') {
            let name = string(&mut rest);
            rest = rest.strip_prefix(": ").expect("a colon");
            let answer = if rest.starts_with('[') {
                Answer::Keys(strings(&mut rest))
            } else {
                Answer::Text(string(&mut rest))
            };
            rest = rest.strip_prefix(", ").unwrap_or(rest);
            match answer {
                Answer::Keys(parts) if name == "request" => request = parts,
                answer => answers.push((name, answer)),
            }
        }
        all.push(Recorded { request, answers });
    }
    all
}

fn string(rest: &mut &str) -> String {
    let body = rest.strip_prefix('"').expect("a string");
    let end = body.find('"').expect("the end of a string");
    assert!(
        !body[..end].contains('\\'),
        "escapes are not understood: {body}"
    );
    *rest = &body[end + 1..];
    body[..end].to_owned()
}

fn strings(rest: &mut &str) -> Vec<String> {
    let mut all = Vec::new();
    *rest = rest.strip_prefix('[').expect("an array");
    while rest.starts_with('"') {
        all.push(string(rest));
        *rest = rest.strip_prefix(", ").unwrap_or(rest);
    }
    *rest = rest.strip_prefix(']').expect("the end of an array");
    all
}

/// Where we know better than `COMMAND GETKEYS`, with the reason.
const KNOWN_DIFFERENCES: &[(&str, &str)] = &[
    (
        "PFMERGE d",
        "executes with its destination alone, though GETKEYS says that the arguments are invalid",
    ),
    (
        "GEORADIUS k 1 2 3 m STORE d1 STORE d2",
        "GETKEYS says d1, but the result is stored in d2",
    ),
    (
        "EVAL_RO script 01 k1",
        "GETKEYS reads any number, EVAL_RO refuses this one",
    ),
    (
        "EVALSHA sha 4294967297 k1",
        "GETKEYS cuts the number to 32 bits, EVALSHA refuses it",
    ),
    (
        "MIGRATE host 6379  0 1000 KEYS k1 k2 k3",
        "the empty key is taken for one; the command is refused anyway",
    ),
    (
        "MIGRATE host 6379  0 1000 REPLACE AUTH2 user pass KEYS k1",
        "as above",
    ),
];

#[test]
fn keys_are_those_that_servers_name() {
    let recorded = recorded();
    assert!(recorded.len() >= 250, "only {} requests", recorded.len());
    let mut compared = 0;
    let mut different = Vec::new();
    for Recorded { request, answers } in &recorded {
        let ours = keys_of(request);
        for (server, answer) in answers.iter().filter(|(name, _)| !name.ends_with("reply")) {
            let same = match (answer, &ours) {
                (Answer::Text(text), _) if text == "ERR Invalid command specified" => continue,
                (Answer::Text(text), _) if text.starts_with("ERR Invalid number of arguments") => {
                    !arity_fits(spec_of(request).expect("a known command"), request.len())
                }
                (Answer::Text(text), Ok(ours)) => {
                    text == "ERR The command has no key arguments" && ours.is_empty()
                }
                (Answer::Text(text), Err(_)) => {
                    text == "ERR Invalid arguments specified for command"
                }
                (Answer::Keys(theirs), Ok(ours)) => {
                    *theirs
                        == ours
                            .iter()
                            .map(|&at| request[at as usize].clone())
                            .collect::<Vec<_>>()
                }
                // For scripts, servers answer an impossible number of keys with an empty list.
                (Answer::Keys(theirs), Err(_)) => theirs.is_empty(),
            };
            compared += 1;
            if !same {
                different.push((request.join(" "), server, answer, ours.clone()));
            }
        }
    }
    assert!(compared >= 450, "only {compared} answers");
    let unexpected: Vec<_> = different
        .iter()
        .filter(|(request, ..)| KNOWN_DIFFERENCES.iter().all(|(known, _)| known != request))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    for (known, reason) in KNOWN_DIFFERENCES {
        assert!(
            different.iter().any(|(request, ..)| request == known),
            "no longer differs: {known} ({reason})"
        );
    }
}

#[test]
fn refusals_use_the_servers_words() {
    let mut compared = 0;
    for Recorded { request, answers } in recorded() {
        let replies: Vec<_> = answers
            .iter()
            .filter(|(name, _)| name.ends_with("reply"))
            .map(|(_, reply)| reply)
            .collect();
        if replies.is_empty() {
            continue;
        }
        let error = keys_of(&request).expect_err("the servers refuse it");
        let ours = Answer::Text(error.text(spec_of(&request).expect("a known command")));
        assert!(
            replies.contains(&&ours),
            "{request:?}: {ours:?}, servers {replies:?}"
        );
        compared += 1;
    }
    assert!(compared >= 25, "only {compared} refusals");
}

// -------------------------------------------------------------------------------------------------- twins and properties

/// The servers' definition of key specifications, followed step by step.
fn naive_keys(spec: &CommandSpec, parts: &[Vec<u8>]) -> Result<Vec<u32>, ()> {
    let optional = spec.flags & flags::NO_MANDATORY_KEYS != 0;
    let mut found = Vec::new();
    for key_spec in spec.keys {
        let Some(first) = naive_begin(&key_spec.begin, parts) else {
            continue;
        };
        let (mut at, last, step) = naive_find(&key_spec.find, first, parts, optional)?;
        while at <= last && at < parts.len() as i64 {
            found.push(at as u32);
            at += i64::from(step);
        }
    }
    if found.is_empty() && !optional && !spec.keys.is_empty() {
        return Err(());
    }
    Ok(found)
}

/// Where the keys of one specification begin.
fn naive_begin(begin: &Begin, parts: &[Vec<u8>]) -> Option<i64> {
    let argc = parts.len() as i64;
    let is = |at: i64, word: &[u8]| parts[at as usize].eq_ignore_ascii_case(word);
    match *begin {
        Begin::Index(at) => Some(i64::from(at)),
        Begin::Keyword { word, from } => {
            let from = i64::from(from);
            let places: Vec<i64> = if from > 0 {
                (from..argc - 1).collect()
            } else {
                (1..=argc + from)
                    .rev()
                    .filter(|&at| at < argc - 1)
                    .collect()
            };
            places.into_iter().find(|&at| is(at, word)).map(|at| at + 1)
        }
        Begin::Option { word, from, values } => {
            let mut skipped = 0;
            let mut last = None;
            for at in i64::from(from)..argc {
                if skipped > 0 {
                    skipped -= 1;
                } else if is(at, word) && at + 1 < argc {
                    last = Some(at + 1);
                    skipped = 1;
                } else if let Some((_, count)) = values.iter().find(|(other, _)| is(at, other)) {
                    skipped = *count;
                }
            }
            last
        }
    }
}

/// First key, last key (at most) and step of one specification.
fn naive_find(
    find: &Find,
    first: i64,
    parts: &[Vec<u8>],
    optional: bool,
) -> Result<(i64, i64, u8), ()> {
    let argc = parts.len() as i64;
    Ok(match *find {
        Find::Range { last, step, .. } if last >= 0 => (first, first + i64::from(last), step),
        Find::Range {
            last,
            step,
            limit: 0 | 1,
        } => (first, argc + i64::from(last), step),
        Find::Range { last, step, limit } => (
            first,
            first + (argc - first) / i64::from(limit) + i64::from(last),
            step,
        ),
        Find::Count {
            count,
            first: offset,
            step,
        } => {
            let text = parts.get((first + i64::from(count)) as usize).ok_or(())?;
            let text = std::str::from_utf8(text).map_err(|_| ())?;
            let number: i64 = text.parse().map_err(|_| ())?;
            let start = first + i64::from(offset);
            let room = (argc - start) / i64::from(step);
            if number.to_string() != text || number < i64::from(!optional) || number > room {
                return Err(());
            }
            (start, start + (number - 1) * i64::from(step), step)
        }
    })
}

/// Arguments that key extraction may stumble over, and some that it should not care about.
fn argument() -> impl Strategy<Value = Vec<u8>> {
    let telling: Vec<&'static [u8]> = vec![
        b"0",
        b"1",
        b"2",
        b"3",
        b"-1",
        b"-0",
        b"01",
        b"+1",
        b" 1",
        b"9223372036854775807",
        b"9223372036854775808",
        b"-9223372036854775808",
        b"4294967295",
        b"4294967296",
        b"",
        b"STREAMS",
        b"streams",
        b"STORE",
        b"StoreDist",
        b"KEYS",
        b"BY",
        b"GET",
        b"LIMIT",
        b"BLOCK",
        b"key",
    ];
    prop_oneof![
        8 => proptest::sample::select(telling).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
    ]
}

fn any_spec() -> impl Strategy<Value = &'static CommandSpec> {
    proptest::sample::select(all_specs())
}

/// Specs whose keys have no fixed place: where mistakes would be.
fn movable_spec() -> impl Strategy<Value = &'static CommandSpec> {
    let movable: Vec<_> = all_specs()
        .into_iter()
        .filter(|spec| !spec.keys.is_empty() && spec.fixed_key == 0)
        .collect();
    proptest::sample::select(movable)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn keys_agree_with_the_slow_twin(
        spec in prop_oneof![1 => any_spec(), 9 => movable_spec()],
        parts in proptest::collection::vec(argument(), 0..14),
    ) {
        let (data, args) = request(&parts);
        let mut out = Vec::new();
        let ours = keys(spec, &args, &data, &mut out).map(|()| out).map_err(drop);
        prop_assert_eq!(ours, naive_keys(spec, &parts), "{}", spec.full_name);
    }

    #[test]
    fn keys_are_total(
        spec in any_spec(),
        ranges in proptest::collection::vec((any::<u32>(), any::<u32>()), 0..40),
        data in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let args: Vec<Arg> = ranges.into_iter().map(|(start, len)| Arg { start, len }).collect();
        let mut out = Vec::new();
        if keys(spec, &args, &data, &mut out).is_ok() {
            prop_assert!(out.iter().all(|&at| (at as usize) < args.len()));
            prop_assert!(out.len() <= args.len() * spec.keys.len());
        }
    }

    #[test]
    fn a_fixed_key_is_what_extraction_finds(spec in any_spec(), more in 0usize..5) {
        if let Some(at) = single_key(spec) {
            let argc = spec.arity.unsigned_abs() as usize + if spec.arity < 0 { more } else { 0 };
            prop_assert!(arity_fits(spec, argc));
            let (data, args) = request(&vec![b"x"; argc]);
            let mut out = Vec::new();
            prop_assert_eq!(keys(spec, &args, &data, &mut out), Ok(()));
            prop_assert_eq!(out, vec![u32::from(at)]);
        }
    }

    #[test]
    fn lookup_agrees_with_a_linear_search(
        spec in proptest::sample::select(COMMANDS.iter().collect::<Vec<_>>()),
        case in any::<u32>(),
        // Single bits: bit 5 is the case of letters, and must not be ignored in anything else.
        change in proptest::option::of((any::<usize>(), 0u32..8)),
        cut in 0usize..3,
    ) {
        let mut name: Vec<u8> = spec.name.bytes().enumerate()
            .map(|(at, byte)| if case >> (at % 32) & 1 == 1 { byte.to_ascii_lowercase() } else { byte })
            .collect();
        if let Some((at, bit)) = change {
            let len = name.len();
            name[at % len] ^= 1 << bit;
        }
        name.truncate(name.len().saturating_sub(cut));
        let naive = COMMANDS.iter().find(|other| other.name.as_bytes().eq_ignore_ascii_case(&name));
        prop_assert_eq!(lookup(&name).map(|found| found.name), naive.map(|found| found.name));
    }
}

#[test]
fn lookup_of_nonsense_finds_nothing() {
    for name in [
        &b""[..],
        b"G",
        b"GETT",
        b"\0\0\0",
        b"get\0",
        &[0xff; 300],
        b"GET ",
        b"client|list",
    ] {
        assert_eq!(lookup(name).map(|spec| spec.name), None, "{name:?}");
    }
    for spec in COMMANDS.iter() {
        assert_eq!(
            lookup(spec.name.as_bytes()).map(|found| found.name),
            Some(spec.name)
        );
        assert_eq!(
            lookup(spec.full_name.as_bytes()).map(|found| found.name),
            Some(spec.name)
        );
        for inner in spec.subcommands {
            let found =
                subcommand(spec, inner.name.to_lowercase().as_bytes()).expect("its own subcommand");
            assert_eq!(found.full_name, inner.full_name);
        }
    }
}

// ------------------------------------------------------------------------------------------------- the table as a whole

#[test]
fn the_table_is_sorted_and_names_agree() {
    assert!(COMMANDS.windows(2).all(|pair| pair[0].name < pair[1].name));
    for spec in COMMANDS.iter() {
        assert_eq!(spec.full_name, spec.name.to_lowercase());
        assert!(
            spec.subcommands
                .windows(2)
                .all(|pair| pair[0].name < pair[1].name),
            "{}",
            spec.name
        );
        for inner in spec.subcommands {
            assert_eq!(
                inner.full_name,
                format!("{}|{}", spec.full_name, inner.name.to_lowercase())
            );
            assert!(inner.subcommands.is_empty());
            assert!(
                inner.arity.unsigned_abs() >= 2,
                "{} counts its container",
                inner.full_name
            );
        }
    }
}

#[test]
fn policies_fit_the_keys() {
    for spec in all_specs() {
        let name = spec.full_name;
        assert!(
            spec.flags & (flags::READONLY | flags::WRITE) != (flags::READONLY | flags::WRITE),
            "{name}"
        );
        match spec.policy {
            Policy::Keyed | Policy::Blocking(_) | Policy::Local(Local::Watch) => {
                assert!(!spec.keys.is_empty(), "{name} has no keys to go by");
            }
            Policy::Script { .. } => assert!(spec.flags & flags::NO_MANDATORY_KEYS != 0, "{name}"),
            Policy::Split { step, .. } => match spec.keys {
                [one] => assert_eq!(
                    one.find,
                    Find::Range {
                        last: -1,
                        step,
                        limit: 0
                    },
                    "{name}"
                ),
                _ => panic!("{name} cannot be split"),
            },
            Policy::Container => {
                assert!(
                    !spec.subcommands.is_empty() && spec.keys.is_empty(),
                    "{name}"
                );
                assert_eq!(spec.arity, -2, "{name}");
            }
            Policy::Refuse(text) => {
                assert!(
                    text.starts_with(|c: char| c.is_ascii_lowercase()),
                    "shown behind the name: {name} {text}"
                );
                assert!(
                    text.contains(';') || text.contains(':'),
                    "says no way out: {name} {text}"
                );
                assert!(
                    text.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                    "{name} {text}"
                );
            }
            Policy::AllShards(_)
            | Policy::AllKeys(_)
            | Policy::AnyShard
            | Policy::Scan
            | Policy::ScriptLoad
            | Policy::ScriptFlush
            | Policy::Settings
            | Policy::Debug
            | Policy::Aside(_)
            | Policy::Wait
            | Policy::Local(_) => assert!(spec.keys.is_empty(), "{name} has keys"),
        }
        if spec.check != Check::None {
            assert_eq!(spec.policy, Policy::Keyed, "{name}");
        }
    }
}

#[test]
fn nothing_that_waits_reaches_a_shared_connection() {
    for spec in all_specs()
        .into_iter()
        .filter(|spec| spec.flags & (flags::BLOCKING | flags::PUBSUB) != 0)
    {
        let safe = matches!(
            spec.policy,
            Policy::Refuse(_)
                | Policy::Wait
                | Policy::Blocking(_)
                | Policy::Local(_)
                | Policy::AnyShard
        ) || spec.check == Check::BlockOption;
        assert!(safe, "{}", spec.full_name);
    }
}

#[test]
fn grades_are_what_is_promised() {
    let grade = |name: &str| spec_of(&words(name)).expect("a known command").grade;
    for (name, expected) in [
        ("GET", Grade::Single),
        ("MGET", Grade::PerShard),
        ("DEL", Grade::PerShard),
        ("DBSIZE", Grade::PerShard),
        ("SCAN", Grade::PerShard),
        ("SCRIPT LOAD", Grade::PerShard),
        ("OBJECT ENCODING", Grade::Single),
        ("RENAME", Grade::Strict),
        ("MSETNX", Grade::Strict),
        ("SUNIONSTORE", Grade::Strict),
        ("SORT", Grade::Strict),
        ("SORT_RO", Grade::Single),
        ("JSON.MGET", Grade::Refused),
        ("BLMOVE", Grade::Strict),
        ("EVAL", Grade::Strict),
        ("FCALL", Grade::Refused),
        ("MULTI", Grade::Single),
        ("PING", Grade::Single),
    ] {
        assert_eq!(grade(name), expected, "{name}");
    }
}

#[test]
fn arity_counts_the_name() {
    let fits =
        |name: &str, argc| arity_fits(lookup(name.as_bytes()).expect("a known command"), argc);
    assert!(fits("GET", 2) && !fits("GET", 1) && !fits("GET", 3));
    assert!(fits("SET", 3) && fits("SET", 9) && !fits("SET", 2));
    assert!(!fits("GET", usize::MAX) && fits("SET", usize::MAX) && !fits("SET", 0));
}

/// Only what is said once by the servers, and once here: which commands can do without the old value, and which look at it.
#[test]
fn what_is_done_to_a_key_promises_no_more_than_is_kept() {
    let done = |name: &str| -> Vec<Access> {
        let spec = spec_of(&words(name)).expect("a known command");
        spec.keys.iter().map(|keys| keys.access).collect()
    };
    use Access::{Overwrite, Read, Remove, Write};
    let replacing = [
        "BITOP",
        "GEOSEARCHSTORE",
        "SDIFFSTORE",
        "SINTERSTORE",
        "SUNIONSTORE",
        "ZDIFFSTORE",
        "ZINTERSTORE",
        "ZRANGESTORE",
        "ZUNIONSTORE",
    ];
    for name in replacing {
        assert_eq!(done(name), [Overwrite, Read], "{name}");
    }
    for (name, expected) in [
        ("GET", &[Read][..]),
        ("SET", &[Write]),
        ("SETNX", &[Write]),
        ("SETEX", &[Overwrite]),
        ("RESTORE", &[Write]),
        ("DEL", &[Remove]),
        ("GETDEL", &[Write]),
        ("DELIFEQ", &[Write]),
        ("MSETEX", &[Write]),
        ("BITFIELD", &[Write]),
        ("PFCOUNT", &[Read]),
        ("PFMERGE", &[Write, Read]),
        ("SMOVE", &[Write, Write]),
        ("XREADGROUP", &[Write]),
        ("XREAD", &[Read]),
        ("FCALL", &[Write]),
        ("FCALL_RO", &[Read]),
        ("EVALSHA_RO", &[Read]),
        ("XGROUP CREATE", &[Write]),
    ] {
        assert_eq!(done(name), expected, "{name}");
    }
    for spec in all_specs() {
        for keys in spec.keys {
            let may_be_read = !keys.write || spec.name == "PFCOUNT";
            assert!(keys.access != Read || may_be_read, "{}", spec.full_name);
        }
        let only_reads = spec.keys.iter().all(|keys| keys.access == Read);
        let is_writer = spec.flags & flags::WRITE != 0;
        assert!(
            !is_writer || !only_reads || spec.keys.is_empty(),
            "{}",
            spec.full_name
        );
    }
}

#[test]
fn keys_that_may_be_written_are_marked() {
    let marks = |name: &str| -> Vec<bool> {
        lookup(name.as_bytes())
            .expect("a known command")
            .keys
            .iter()
            .map(|spec| spec.write)
            .collect()
    };
    assert_eq!(marks("GET"), [false]);
    assert_eq!(marks("SET"), [true]);
    assert_eq!(marks("SUNIONSTORE"), [true, false]);
    assert_eq!(marks("SORT"), [false, true]);
    assert_eq!(marks("COPY"), [false, true]);
}

#[test]
fn a_value_spelt_like_an_option_is_not_one() {
    assert_eq!(keys_of(&words("SORT k GET STORE STORE d")), Ok(vec![1, 5]));
    assert_eq!(
        keys_of(&words("SORT k BY STORE LIMIT 0 STORE")),
        Ok(vec![1])
    );
    assert_eq!(keys_of(&words("SORT k STORE a STORE b")), Ok(vec![1, 5]));
    assert_eq!(
        keys_of(&words("GEORADIUS k 1 2 3 m STORE STOREDIST STORE b")),
        Ok(vec![1, 9])
    );
    assert_eq!(
        keys_of(&words("XREADGROUP GROUP streams STREAMS STREAMS k >")),
        Ok(vec![5])
    );
}
