//! What users may do. System tests compare verdicts with real servers; here is what those cannot show: the table's numbers
//! and bits, and that rules survive being described.

use proptest::prelude::*;
use shoal_core::protocol::command::{lookup, subcommand, Arg, CommandSpec};
use shoal_core::protocol::command_table::{COMMANDS, NUMBERS};
use shoal_core::protocol::permission::{category, category_named, needed_keys, needs, CATEGORIES};
use shoal_core::routing::acl::{Acl, Denied};
use shoal_core::routing::route::Request;
use std::collections::HashSet;

fn request(text: &str) -> (Vec<u8>, Vec<Arg>) {
    let mut data = Vec::new();
    let mut args = Vec::new();
    for word in text.split(' ') {
        args.push(Arg {
            start: data.len() as u32,
            len: word.len() as u32,
        });
        data.extend_from_slice(word.as_bytes());
        data.push(b' ');
    }
    (data, args)
}

fn spec_of(text: &str) -> &'static CommandSpec {
    let mut words = text.split(' ');
    let spec = lookup(words.next().unwrap_or_default().as_bytes()).expect("a command");
    let inner = words
        .next()
        .and_then(|word| subcommand(spec, word.as_bytes()));
    inner.unwrap_or(spec)
}

fn verdict(rules: &str, text: &str) -> Result<(), Denied> {
    let (data, args) = request(text);
    let request = Request {
        data: &data,
        args: &args,
    };
    let acl = Acl::parse(rules).expect("rules");
    acl.judge(spec_of(text), &request)
}

#[test]
fn every_command_has_a_number_of_its_own() {
    let all: Vec<&CommandSpec> = COMMANDS
        .iter()
        .flat_map(|spec| std::iter::once(spec).chain(spec.subcommands))
        .collect();
    let numbers: HashSet<u16> = all.iter().map(|spec| spec.number).collect();
    assert_eq!((numbers.len(), all.len()), (NUMBERS, NUMBERS));
    assert!(numbers.iter().all(|&number| (number as usize) < NUMBERS));
    for spec in all {
        let (fast, slow) = (category::FAST, category::SLOW);
        let speed = spec.categories & (fast | slow);
        assert!(
            speed == fast || speed == slow,
            "{} is one of both",
            spec.full_name
        );
    }
}

#[test]
fn categories_are_named_by_their_bits() {
    assert_eq!(category_named(b"keyspace"), Some(category::KEYSPACE));
    assert_eq!(category_named(b"Scripting"), Some(category::SCRIPTING));
    assert_eq!(category_named(b"json"), Some(category::JSON));
    assert_eq!(category_named(b"all"), None);
    assert_eq!(category::JSON, 1 << (CATEGORIES.len() - 1));
    for (command, name) in [
        ("GET k", "string"),
        ("ZADD k 1 m", "sortedset"),
        ("EVAL x 0", "scripting"),
        ("CONFIG GET x", "dangerous"),
        ("BF.ADD k x", "bloom"),
        ("JSON.GET k", "json"),
    ] {
        let bit = category_named(name.as_bytes()).expect("a category");
        assert_ne!(
            spec_of(command).categories & bit,
            0,
            "{command} is in @{name}"
        );
    }
}

#[test]
fn keys_are_read_or_written_as_the_arguments_say() {
    let (r, w) = (needs::READ, needs::WRITE);
    let cases: &[(&str, &[u8])] = &[
        ("GET k", &[r]),
        ("SET k v", &[w]),
        ("SET k get", &[w]),
        ("SET k v EX 5 get", &[r | w]),
        ("SET k v IFEQ x", &[r | w]),
        ("EXISTS a b", &[0, 0]),
        ("BITFIELD k", &[r]),
        ("BITFIELD k GET u8 0 OVERFLOW FAIL", &[r]),
        ("BITFIELD k GET u8 0 SET u8 0 1", &[r | w]),
        ("BITFIELD k GET u8", &[r | w]),
        ("BITFIELD k NOPE", &[r | w]),
        ("COPY a b", &[r, w]),
        ("SORT a STORE b", &[r, w]),
        ("EVAL x 2 a b", &[r | w, r | w]),
    ];
    for (text, expected) in cases {
        let (data, args) = request(text);
        let mut found = Vec::new();
        needed_keys(spec_of(text), &args, &data, &mut found).expect("keys");
        let found: Vec<u8> = found.into_iter().map(|(_, needed)| needed).collect();
        assert_eq!(&found, expected, "{text}");
    }
}

#[test]
fn the_reason_is_that_of_the_selector_that_came_furthest() {
    let rules = "+get ~a (+mget ~a ~b) (+publish &c)";
    assert_eq!(verdict(rules, "GET a"), Ok(()));
    assert_eq!(verdict(rules, "GET b"), Err(Denied::Key(1)));
    assert_eq!(verdict(rules, "MGET a b c"), Err(Denied::Key(3)));
    assert_eq!(verdict(rules, "PUBLISH c m"), Ok(()));
    assert_eq!(verdict(rules, "PUBLISH d m"), Err(Denied::Channel(1)));
    assert_eq!(verdict(rules, "SET a 1"), Err(Denied::Command));
    assert_eq!(
        verdict("", "AUTH x y"),
        Ok(()),
        "a stranger may become known"
    );
    assert_eq!(verdict("", "PING"), Err(Denied::Command));
}

#[test]
fn a_first_argument_is_allowed_until_its_command_is_changed() {
    assert_eq!(verdict("+select|1", "SELECT 1"), Ok(()));
    assert_eq!(verdict("+select|1", "SELECT 2"), Err(Denied::Command));
    assert_eq!(
        verdict("+select|1 -select", "SELECT 1"),
        Err(Denied::Command)
    );
    assert_eq!(
        verdict("+select|1 -@connection", "SELECT 1"),
        Err(Denied::Command)
    );
    assert_eq!(
        verdict("+@all -client +client|id", "CLIENT LIST"),
        Err(Denied::Command)
    );
    assert_eq!(verdict("+@all -client +client|id", "CLIENT ID"), Ok(()));
}

#[test]
fn everything_is_allowed_only_by_one_selector() {
    assert!(Acl::everything().allows_everything());
    assert!(Acl::parse("+@all ~* &*")
        .expect("rules")
        .allows_everything());
    for rules in [
        "+@all ~* (+@all &*)",
        "+@all ~* &* -get +get",
        "+@all %RW~* &*",
        "",
    ] {
        assert!(
            !Acl::parse(rules).expect("rules").allows_everything(),
            "{rules}"
        );
    }
    assert!(Acl::parse("+@all ~*").expect("rules").allows_unknown());
    assert!(!Acl::parse("+@all ~a").expect("rules").allows_unknown());
}

const WORDS: [&str; 19] = [
    "+get",
    "-get",
    "+set",
    "+config",
    "-config|get",
    "+config|set",
    "+select|1",
    "-select",
    "+@read",
    "-@write",
    "+@all",
    "-@all",
    "-@dangerous",
    "~a*",
    "%R~b",
    "%W~b",
    "&c",
    "resetkeys",
    "off",
];

proptest! {
    /// Whatever the rules are, what they are described as means the same: for every command, and when described again.
    #[test]
    fn rules_survive_being_described(picks in prop::collection::vec(0..WORDS.len(), 0..12)) {
        let rules = picks.iter().map(|&pick| WORDS[pick]).collect::<Vec<_>>().join(" ");
        let acl = Acl::parse(&rules).expect("rules");
        let again = Acl::parse(&acl.describe()).expect("what was described");
        prop_assert_eq!(acl.describe(), again.describe());
        for text in ["GET a1", "GET b", "SET b 1", "CONFIG GET x", "CONFIG SET x y", "SELECT 1", "SELECT 2", "PUBLISH c m", "DEL a"] {
            let (data, args) = request(text);
            let request = Request { data: &data, args: &args };
            prop_assert_eq!(acl.judge(spec_of(text), &request), again.judge(spec_of(text), &request), "{} {}", rules, text);
        }
    }
}
