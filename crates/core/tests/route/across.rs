//! Operations over several shards: their claims against a naive twin, and what is said of some requests in plain words.

use super::{encode, find, request, space, Across, Known, Space};
use proptest::prelude::*;
use shoal_core::protocol::command::{keys, keys_of, Access, AllKeys, CommandSpec};
use shoal_core::routing::admission::Admission;
use shoal_core::routing::claims::{claims_of, Claim};
use shoal_core::routing::route::{decide, specification, Request, Route, Scratch};
use shoal_core::routing::topology::{Ejection, Keyspace, Protocol, Role, Topology};

/// What two uses of one key come to. Written out, so that it is not the same code twice.
fn both(one: Access, other: Access) -> Access {
    match (one, other) {
        (Access::Read, Access::Read) => Access::Read,
        (Access::Overwrite, Access::Overwrite) => Access::Overwrite,
        (Access::Remove, Access::Remove) => Access::Remove,
        _ => Access::Write,
    }
}

/// The specification's word, but for SET with nothing said of the old value.
fn access_of(spec: &CommandSpec, access: Access, parts: &[Vec<u8>]) -> Access {
    let plain = |pair: &[Vec<u8>]| {
        let word = pair[0].to_ascii_uppercase();
        pair.len() == 2 && matches!(word.as_slice(), b"EX" | b"PX" | b"EXAT" | b"PXAT")
    };
    if spec.name == "SET" && parts[3..].chunks(2).all(plain) {
        Access::Overwrite
    } else {
        access
    }
}

/// How much of a key is kept by who holds it so: of its value, and of others' sight.
fn strength(access: Access) -> u8 {
    match access {
        Access::Read => 0,
        Access::Overwrite | Access::Remove => 1,
        Access::Write => 2,
    }
}

/// Every key with its uses, by comparing each with each.
fn naive_claims(space: &Space, spec: &CommandSpec, parts: &[Vec<u8>]) -> Option<Vec<Claim>> {
    let (data, args) = encode(parts);
    let mut claims: Vec<Claim> = Vec::new();
    for key_spec in spec.keys {
        let mut found = Vec::new();
        keys_of(spec, key_spec, &args, &data, &mut found).ok()?;
        for arg in found {
            let key = &parts[arg as usize];
            let access = access_of(spec, key_spec.access, parts);
            let known = |claim: &&mut Claim| parts[claim.arg as usize] == *key;
            match claims.iter_mut().find(known) {
                Some(claim) => claim.access = both(claim.access, access),
                None => claims.push(Claim {
                    arg,
                    shard: space.shard_of(key),
                    access,
                }),
            }
        }
    }
    Some(claims)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn claims_are_those_of_the_twin(space in space(), parts in request()) {
        let Known::Spec(spec) = find(&parts) else {
            return Ok(());
        };
        let space = Space { across: Across::default(), ..space };
        let keyspace = space.keyspace();
        let (data, args) = encode(&parts);
        let request = Request { data: &data, args: &args };
        let admission = Admission::whole(keyspace.shards.len());
        let mut scratch = Scratch::default();
        let claims = claims_of(&keyspace, &admission, spec, &request, &mut scratch);
        let mut named = Vec::new();
        let is_told = keys(spec, &args, &data, &mut named).is_ok();
        let Ok(claims) = claims else {
            prop_assert!(!is_told, "{:?}: {:?}", parts, claims);
            return Ok(());
        };
        prop_assert!(is_told);
        prop_assert_eq!(&Some(claims.clone()), &naive_claims(&space, spec, &parts), "{:?}", parts);
        // Once more in plain words: no key is left out, none is named twice, none is held more weakly than it is used.
        for &at in &named {
            let holds = |claim: &&Claim| parts[claim.arg as usize] == parts[at as usize];
            prop_assert_eq!(claims.iter().filter(holds).count(), 1);
        }
        prop_assert!(claims.iter().all(|claim| named.contains(&claim.arg)));
        for key_spec in spec.keys {
            let mut found = Vec::new();
            keys_of(spec, key_spec, &args, &data, &mut found).expect("found before");
            for at in found {
                let held = claims.iter().find(|claim| parts[claim.arg as usize] == parts[at as usize]);
                let held = held.expect("claimed").access;
                prop_assert!(strength(held) >= strength(access_of(spec, key_spec.access, &parts)));
            }
        }
    }
}

fn words(text: &str) -> Vec<Vec<u8>> {
    text.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

/// Two shards; `{a}` is on one, `{b}` on the other.
fn halves(across: Across) -> Space {
    let space = Space {
        ranges: vec![(0, 8191, 0), (8192, 16383, 1)],
        shards: 2,
        has_rules: false,
        first_key: false,
        home: 0,
        across,
    };
    assert_ne!(space.shard_of(b"{a}"), space.shard_of(b"{b}"));
    space
}

fn accesses(text: &str) -> Vec<(u32, Access)> {
    let keyspace = halves(Across::default()).keyspace();
    let (data, args) = encode(&words(text));
    let request = Request {
        data: &data,
        args: &args,
    };
    let spec = specification(&request).expect("a known command");
    let admission = Admission::whole(2);
    let claims = claims_of(
        &keyspace,
        &admission,
        spec,
        &request,
        &mut Scratch::default(),
    );
    let claims = claims.expect("keys that can be told").into_iter();
    claims.map(|claim| (claim.arg, claim.access)).collect()
}

#[test]
fn a_key_is_held_as_its_strongest_use_wants_it() {
    use Access::{Overwrite, Read, Remove, Write};
    let cases: [(&str, &[(u32, Access)]); 27] = [
        ("SUNION {a}s {b}s", &[(1, Read), (2, Read)]),
        ("SUNIONSTORE {a}d {b}s", &[(1, Overwrite), (2, Read)]),
        ("SUNIONSTORE {a}d {b}s {a}d", &[(1, Write), (2, Read)]),
        ("SET {a}k v", &[(1, Overwrite)]),
        ("SET {a}k v px 5", &[(1, Overwrite)]),
        ("SET {a}k v PX", &[(1, Write)]),
        ("SET {a}k v GET", &[(1, Write)]),
        ("SET {a}k v NX EX 1", &[(1, Write)]),
        ("SET {a}k v EX 1 KEEPTTL", &[(1, Write)]),
        ("RENAME {a}k {b}k", &[(1, Write), (2, Overwrite)]),
        ("RENAME {a}k {a}k", &[(1, Write)]),
        ("RENAMENX {a}k {b}k", &[(1, Write), (2, Write)]),
        ("COPY {a}k {b}k", &[(1, Read), (2, Write)]),
        ("LMOVE {a}k {b}k LEFT LEFT", &[(1, Write), (2, Write)]),
        (
            "MSET {a}k 1 {b}k 2 {a}k 3",
            &[(1, Overwrite), (3, Overwrite)],
        ),
        ("MSETNX {a}k 1 {b}k 2", &[(1, Write), (3, Write)]),
        ("DEL {a}k {b}k {a}k", &[(1, Remove), (2, Remove)]),
        ("EXISTS {a}k {a}k", &[(1, Read)]),
        ("PFCOUNT {a}k {b}k", &[(1, Read), (2, Read)]),
        ("SORT {a}k STORE {b}k", &[(1, Read), (3, Overwrite)]),
        ("SORT {a}k STORE {a}k", &[(1, Write)]),
        (
            "GEORADIUS {a}k 1 2 3 m STORE {b}k",
            &[(1, Read), (7, Write)],
        ),
        ("EVAL s 2 {a}k {b}k {a}x", &[(3, Write), (4, Write)]),
        ("EVAL_RO s 2 {a}k {b}k", &[(3, Read), (4, Read)]),
        ("EVAL s 0 {a}k", &[]),
        (
            "XREADGROUP GROUP g c STREAMS {a}k {b}k > >",
            &[(5, Write), (6, Write)],
        ),
        ("PING", &[]),
    ];
    for (text, expected) in cases {
        assert_eq!(accesses(text), expected, "{text}");
    }
}

#[test]
fn what_is_done_across_shards_is_what_the_keyspace_says() {
    let all = Across {
        is_on: true,
        splits: true,
        functions: true,
    };
    let on = Across {
        is_on: true,
        ..Across::default()
    };
    let crossed = Ok(Route::CrossShard);
    let refused = |text: &str| Err(text.to_string());
    let cases = [
        ("SUNION {a}s {b}s", on, crossed.clone()),
        (
            "SUNION {a}s {b}s",
            Across::default(),
            refused("; set cross_shard = \"strict\", or give them"),
        ),
        ("BITOP AND {a}d {b}s", on, crossed.clone()),
        ("SORT {a}k BY nosort GET # STORE {b}d", on, crossed.clone()),
        (
            "SORT {a}k BY {a}w* STORE {b}d",
            on,
            refused("ERR 'sort' with a BY or GET pattern"),
        ),
        (
            "SORT {a}k BY {a}w* STORE {b}d",
            Across::default(),
            refused("on 's0'; give them"),
        ),
        ("COPY {a}k {b}k REPLACE", on, crossed.clone()),
        (
            "COPY {a}k {b}k REPLACE db 1",
            on,
            refused("ERR 'copy' with DB is possible on one shard"),
        ),
        ("COPY {a}k {a}j DB 1", on, Ok(Route::Shard(1))),
        ("JSON.MGET {a}k {b}k $", on, refused("on 's0'; give them")),
        (
            "FCALL f 2 {a}k {b}k",
            on,
            refused("; set cross_shard_functions = true if functions touch only"),
        ),
        ("EVAL s 2 {a}k {b}k", on, crossed.clone()),
        ("FCALL_RO f 2 {a}k {b}k", all, crossed.clone()),
        ("DEL {a}k {b}k", all, crossed.clone()),
        (
            "MSET {a}k 1 {b}k",
            all,
            refused("ERR wrong number of arguments for 'mset'"),
        ),
        (
            "PUBLISH __shoal:ctl m",
            on,
            refused("ERR channels that begin with '__shoal:' are shoal's own"),
        ),
        (
            "GET __shoal:f:1",
            on,
            refused("ERR keys that begin with '__shoal:' are shoal's own"),
        ),
        (
            "MGET {a}k __shoal:f:1",
            on,
            refused("ERR keys that begin with '__shoal:' are shoal's own"),
        ),
        (
            "EVAL s 1 __shoal:f:1",
            on,
            refused("ERR keys that begin with '__shoal:' are shoal's own"),
        ),
        ("GET __shoal", on, Ok(Route::Shard(0))),
    ];
    check_cases(&cases);
    let mget = |across: Across| {
        let (data, args) = encode(&words("MGET {a}k {b}k"));
        let request = Request {
            data: &data,
            args: &args,
        };
        let keyspace = halves(across).keyspace();
        decide(
            &keyspace,
            &Admission::whole(2),
            &request,
            &mut Scratch::default(),
        )
        .1
    };
    assert!(matches!(mget(on), Route::Split { .. }));
    assert_eq!(mget(all), Route::CrossShard);
}

/// What cannot be is not a topology, so nobody has to look whether the flags fit each other.
#[test]
fn only_a_store_that_speaks_resp_has_operations_across_shards() {
    let good = || {
        halves(Across {
            is_on: true,
            splits: true,
            functions: true,
        })
        .keyspace()
    };
    let rules = Ejection {
        after: 1,
        retry_after_ms: 1,
        on_replies: false,
        shards_max: 1,
        readmit_ms: 0,
    };
    let bad = [
        Keyspace {
            role: Role::Cache(rules),
            ..good()
        },
        Keyspace {
            protocol: Protocol::Memcached,
            ..good()
        },
        Keyspace {
            cross_shard: false,
            ..good()
        },
        Keyspace {
            cross_shard: false,
            multi_key_strict: false,
            ..good()
        },
    ];
    assert!(Topology::new(1, vec![good()]).is_ok());
    for keyspace in bad {
        let refused = Topology::new(1, vec![keyspace]).expect_err("flags that do not fit");
        assert!(refused.0.contains("across shards"), "{refused:?}");
    }
}

type Case<'c> = (&'c str, Across, Result<Route, String>);

fn check_cases(cases: &[Case<'_>]) {
    for (text, across, expected) in cases {
        let keyspace = halves(*across).keyspace();
        let (data, args) = encode(&words(text));
        let request = Request {
            data: &data,
            args: &args,
        };
        let admission = Admission::whole(2);
        match (
            decide(&keyspace, &admission, &request, &mut Scratch::default()).1,
            expected,
        ) {
            (Route::Refuse(error), Err(part)) => {
                let shown = error.text();
                assert!(shown.contains(part), "{text}: {shown}");
            }
            (route, expected) => assert_eq!(&Ok(route), expected, "{text}"),
        }
    }
}

#[test]
fn our_own_keys_are_nobodys() {
    let on = Across {
        is_on: true,
        ..Across::default()
    };
    let refused = |text: &str| Err(text.to_string());
    check_cases(&[
        (
            "SORT {a}k GET __shoal:f:*",
            on,
            refused("ERR keys that begin with '__shoal:' are shoal's own"),
        ),
        (
            "XREAD BLOCK 0 STREAMS __shoal:m 0",
            on,
            refused("ERR keys that begin with '__shoal:' are shoal's own"),
        ),
        (
            "SWAPDB 0 1",
            on,
            refused("ERR 'swapdb' of the keyspace's own database is not possible"),
        ),
        ("SWAPDB 2 1", on, Ok(Route::AllKeys(AllKeys::Swap))),
        (
            "SWAPDB 0 1",
            Across::default(),
            Ok(Route::AllKeys(AllKeys::Swap)),
        ),
    ]);
}
