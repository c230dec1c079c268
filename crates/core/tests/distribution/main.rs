//! Every distribution: the figures of those who had it first, and what all of them must keep.
//!
//! `vectors.rs` has the figures. The case table (`kinds`) runs over every implementation: a key has the same shard whenever
//! it is asked, shards that do not take keys get none, and keys of others stay. Each look-up is compared with a slow twin.

mod vectors;

use proptest::prelude::*;
use shoal_core::routing::admission::{Admission, SHARE_WHOLE};
use shoal_core::routing::distribution::{
    jump, CodisSlots, Distribution, Group, Modula, PartGiven, Ranges, Rendezvous, Ring, RingMember,
    Slots, TableGiven,
};
use shoal_core::routing::key_hash::{crc32, u32_at, xxh3, KeyHash};
use shoal_core::routing::tag::Tag;
use shoal_core::routing::topology::{Keyspace, Shard};
use std::collections::HashSet;
use vectors::{CODIS, HASHES, PREDIS, PREDIS_KETAMA, REDIS_RB, RINGS};

fn members(names: &[(&str, u32)]) -> Vec<RingMember> {
    let member = |&(name, weight): &(&str, u32)| RingMember {
        name: name.to_string(),
        weight,
    };
    names.iter().map(member).collect()
}

fn numbered(count: usize) -> Vec<RingMember> {
    (0..count)
        .map(|index| RingMember {
            name: format!("10.0.0.{}:{}", index % 250, 7000 + index),
            weight: 1,
        })
        .collect()
}

fn part(first: Option<&str>, last: Option<&str>, shard: u16) -> PartGiven {
    PartGiven {
        first: first.map(str::to_string),
        last: last.map(str::to_string),
        shard,
    }
}

fn table(prefix: &str, numeric: bool, parts: Vec<PartGiven>) -> TableGiven {
    TableGiven {
        prefix: prefix.to_string(),
        numeric,
        parts,
    }
}

/// One of each kind over so many shards.
fn kinds(shards: usize) -> Vec<(&'static str, Distribution)> {
    let nodes = numbered(shards);
    let heavy: Vec<RingMember> = nodes
        .iter()
        .enumerate()
        .map(|(index, node)| RingMember {
            name: node.name.clone(),
            weight: 1 + index as u32 % 3,
        })
        .collect();
    let part_of = |index: usize| {
        let last = (index + 1 < shards).then(|| format!("{}", 1000 * (index + 1)));
        part(None, last.as_deref(), index as u16)
    };
    let parts: Vec<PartGiven> = (0..shards).map(part_of).collect();
    let fallback = Some(Distribution::Jump(shards as u16));
    let ranges = Ranges::new(&[table("user:", true, parts)], fallback, shards).expect("good");
    let mut kinds = vec![
        ("slots", Distribution::Slots(Slots::even(shards))),
        ("codis", Distribution::Codis(CodisSlots::even(shards))),
        (
            "redis-rb-4",
            Distribution::Ring(Ring::redis_rb(&nodes, false)),
        ),
        (
            "redis-rb-5",
            Distribution::Ring(Ring::redis_rb(&nodes, true)),
        ),
        ("predis", Distribution::Ring(Ring::predis(&nodes))),
        (
            "predis-ketama",
            Distribution::Ring(Ring::predis_ketama(&nodes)),
        ),
        ("range", Distribution::Ranges(ranges)),
        ("jump", Distribution::Jump(shards as u16)),
        (
            "rendezvous",
            Distribution::Rendezvous(Rendezvous::new(&nodes)),
        ),
        (
            "weighted rendezvous",
            Distribution::Rendezvous(Rendezvous::new(&heavy)),
        ),
        ("random", Distribution::Random(shards as u16)),
    ];
    for &hash in KeyHash::ALL {
        kinds.push((
            hash.name(),
            Distribution::Ring(Ring::ketama(&nodes, hash, true)),
        ));
        kinds.push((
            hash.name(),
            Distribution::Modula(Modula::new(&heavy, hash, false)),
        ));
    }
    kinds
}

fn keys() -> impl Iterator<Item = Vec<u8>> {
    (0..400).map(|number| format!("user:{}", number * 37).into_bytes())
}

const UNEVEN: [&str; 6] = ["crc32", "crc16", "fnv1_64", "fnv1a_64", "fnv1_32", "range"];

fn owner(distribution: &Distribution, key: &[u8]) -> u16 {
    distribution.shard(key, key).expect("every key has a shard")
}

#[test]
fn every_kind_gives_each_key_one_shard_that_exists() {
    for shards in [1, 2, 3, 7, 64] {
        for ((name, one), (_, same)) in kinds(shards).into_iter().zip(kinds(shards)) {
            let mut seen = HashSet::new();
            for key in keys().chain([Vec::new(), vec![0xff; 300]]) {
                let shard = owner(&one, &key);
                assert!((shard as usize) < shards, "{name} {shards} {key:?}");
                assert_eq!(shard, owner(&same, &key), "{name}: made twice, the same");
                seen.insert(shard);
            }
            // CRC32 with 15 bits finds one point of a ring only, and others put runs of ids on one shard: faults of
            // Twemproxy's that must be kept. The ids of these keys end within the first ranges.
            let is_uneven = shards == 1 || UNEVEN.contains(&name);
            assert!(
                is_uneven || seen.len() > shards / 2,
                "{name} {shards}: {seen:?}"
            );
            if let Some(shares) = one.shares(shards) {
                assert_eq!(shares.len(), shards);
                assert!(
                    (shares.iter().sum::<f64>() - 1.0).abs() < 1e-9,
                    "{name} {shares:?}"
                );
            }
        }
    }
}

#[test]
fn an_ejected_shard_loses_its_keys_and_no_other_key_moves() {
    for (name, distribution) in kinds(5) {
        let mut admission = Admission::whole(5);
        admission.set_share(2, 0);
        let mut takers = HashSet::new();
        for key in keys() {
            let before = owner(&distribution, &key);
            let after = distribution.shard_admitted(&key, before, &admission);
            if before == 2 {
                assert_ne!(after, 2, "{name}");
                takers.insert(after);
            } else {
                assert_eq!(after, before, "{name}");
            }
        }
        // Everything goes to shard 3 and 4 as well once the others are out.
        for shard in [0, 1] {
            admission.set_share(shard, 0);
        }
        for key in keys() {
            let before = owner(&distribution, &key);
            assert!(
                distribution.shard_admitted(&key, before, &admission) >= 3,
                "{name}"
            );
        }
        for shard in [3, 4] {
            admission.set_share(shard, 0);
        }
        for key in keys() {
            let before = owner(&distribution, &key);
            let after = distribution.shard_admitted(&key, before, &admission);
            assert_eq!(after, before, "{name}: with nobody in, a key stays");
        }
    }
}

#[test]
fn keys_come_back_to_a_returning_shard_one_by_one() {
    for (name, distribution) in kinds(4) {
        let mut admission = Admission::whole(4);
        let mut home: HashSet<Vec<u8>> = HashSet::new();
        for share in 0..=SHARE_WHOLE {
            admission.set_share(1, share);
            for key in keys() {
                let before = owner(&distribution, &key);
                let after = distribution.shard_admitted(&key, before, &admission);
                if before == 1 && after == 1 {
                    home.insert(key);
                } else {
                    assert!(!home.contains(&key), "{name}: it went away again");
                }
            }
        }
        let all: HashSet<Vec<u8>> = keys()
            .filter(|key| owner(&distribution, key) == 1)
            .collect();
        assert_eq!(home, all, "{name}");
    }
}

#[test]
fn with_ketama_an_ejection_moves_the_share_of_one_shard() {
    let shards = 10;
    let ring = Distribution::Ring(Ring::ketama(&numbered(shards), KeyHash::Murmur, true));
    let keyspace = keyspace(ring, shards, Tag::None);
    let mut admission = Admission::whole(shards);
    let place = |admission: &Admission| -> Vec<Option<u16>> {
        (0..20_000)
            .map(|number| keyspace.shard_of(format!("k{number}").as_bytes(), admission))
            .collect()
    };
    let before = place(&admission);
    admission.set_share(3, 0);
    let during = place(&admission);
    let moved = before
        .iter()
        .zip(&during)
        .filter(|(one, other)| one != other)
        .count();
    let share = moved as f64 / before.len() as f64;
    assert!(
        (0.07..0.13).contains(&share),
        "about a tenth moves: {share}"
    );
    assert!(during.iter().all(|&shard| shard != Some(3)));
    admission.set_share(3, SHARE_WHOLE);
    assert_eq!(place(&admission), before);
}

fn keyspace(distribution: Distribution, shards: usize, tag: Tag) -> Keyspace {
    let shard = |index| Shard {
        name: format!("s{index}"),
        endpoint: format!("127.0.0.1:{}", 7000 + index),
        credentials: None,
    };
    Keyspace {
        tag,
        ..Keyspace::over("test", (0..shards).map(shard).collect(), distribution)
    }
}

#[test]
fn hashes_are_those_of_the_compiled_twemproxy() {
    for (key, values) in HASHES {
        for (&hash, &value) in KeyHash::ALL.iter().zip(values) {
            assert_eq!(hash.of(key, true), value, "{} {key:?}", hash.name());
            assert_eq!(KeyHash::named(hash.name()), Some(hash));
            if key.is_ascii() {
                assert_eq!(hash.of(key, false), value, "{} {key:?}", hash.name());
            }
        }
    }
    assert_eq!(KeyHash::named("sha1"), None);
}

#[test]
fn an_unsigned_char_changes_the_hashes_that_add_chars() {
    let key = b"\xff\xfe\x80";
    for &hash in KeyHash::ALL {
        let differs = hash.of(key, true) != hash.of(key, false);
        let adds_chars = matches!(
            hash,
            KeyHash::OneAtATime
                | KeyHash::Fnv1To64
                | KeyHash::Fnv1aTo64
                | KeyHash::Fnv1To32
                | KeyHash::Fnv1aTo32
                | KeyHash::Hsieh
        );
        assert_eq!(differs, adds_chars, "{}", hash.name());
    }
}

#[test]
fn ketama_and_modula_are_twemproxys() {
    for given in RINGS {
        let nodes = members(given.servers);
        let ring = Ring::ketama(&nodes, KeyHash::Md5, true);
        let points: Vec<(u32, u16)> = ring.points().collect();
        assert_eq!(points.len(), given.points);
        assert_eq!([points[0], points[1], points[points.len() - 1]], given.ends);
        for (server, &count) in given.counts.iter().enumerate() {
            let own = points.iter().filter(|point| point.1 as usize == server);
            assert_eq!(own.count(), count);
        }
        for (at, &hash) in KeyHash::ALL.iter().enumerate() {
            let ring = Distribution::Ring(Ring::ketama(&nodes, hash, true));
            let modula = Distribution::Modula(Modula::new(&nodes, hash, true));
            for number in 0..20 {
                let key = format!("key:{number}");
                let found = owner(&ring, key.as_bytes());
                assert_eq!(found, given.ketama[at][number], "{} {key}", hash.name());
                let found = owner(&modula, key.as_bytes());
                assert_eq!(found, given.modula[at][number], "{} {key}", hash.name());
            }
        }
    }
}

#[test]
fn twemproxy_orders_by_length_of_name_for_modula() {
    // Given as b, aa, a: in Twemproxy's order a, b, aa.
    let nodes = members(&[("b", 1), ("aa", 1), ("a", 1)]);
    let modula = Modula::new(&nodes, KeyHash::Crc32a, true);
    assert_eq!([0, 1, 2].map(|hash| modula.shard(hash)), [2, 0, 1]);
    assert_eq!(modula.hash(b""), 0, "an empty key is not hashed");
}

#[test]
fn redis_rb_is_found_in_every_era() {
    for (is_md5, ids, least, greatest, nodes) in REDIS_RB {
        let ring = Ring::redis_rb(&members(&ids.map(|id| (id, 1))), *is_md5);
        let points: Vec<(u32, u16)> = ring.points().collect();
        assert_eq!(
            (points[0].0, points[points.len() - 1].0),
            (*least, *greatest)
        );
        let ring = Distribution::Ring(ring);
        for (number, &node) in nodes.iter().enumerate() {
            assert_eq!(owner(&ring, format!("key:{number}").as_bytes()), node);
        }
    }
}

#[test]
fn predis_is_found_on_both_rings() {
    let nodes = members(&[
        ("127.0.0.1:7000", 100),
        ("127.0.0.1:7001", 100),
        ("127.0.0.1:7002", 100),
    ]);
    for (ring, figures) in [
        (Ring::predis(&nodes), PREDIS),
        (Ring::predis_ketama(&nodes), PREDIS_KETAMA),
    ] {
        for &(key, hash, point, node) in figures {
            assert_eq!(ring.hash(key.as_bytes()), hash, "{key}");
            assert_eq!(ring.shard(hash), node, "{key}");
            assert!(ring.points().any(|found| found == (point, node)), "{key}");
        }
    }
}

#[test]
fn codis_has_its_slots() {
    let keyspace = |tag| keyspace(Distribution::Codis(CodisSlots::even(2)), 2, tag);
    for &(key, slot) in CODIS {
        let space = keyspace(Tag::MayBeEmpty);
        assert_eq!(space.group(key.as_bytes()), Group::Slot(slot), "{key}");
        assert_eq!(space.owner_of(key.as_bytes()), Some(u16::from(slot >= 512)));
    }
}

#[test]
fn xxh3_is_the_published_one() {
    // The sanity checks that xxHash publishes, seed 0, over the buffer of its own generator.
    let mut state = 2_654_435_761_u64;
    let buffer: Vec<u8> = std::iter::repeat_with(|| {
        let byte = (state >> 56) as u8;
        state = state.wrapping_mul(11_400_714_785_074_694_797);
        byte
    })
    .take(200)
    .collect();
    for (length, wanted) in [
        (0, 0x2D06_8005_38D3_94C2),
        (1, 0xC44B_DFF4_074E_ECDB),
        (6, 0x27B5_6A84_CD2D_7325),
        (12, 0xA713_DAF0_DFBB_77E7),
        (24, 0xA3FE_70BF_9D35_10EB),
        (48, 0x397D_A259_ECBA_1F11),
        (80, 0xBCDE_FBBB_2C47_C90A),
        (195, 0xCD94_217E_E362_EC3A),
    ] {
        assert_eq!(xxh3(&buffer[..length]), wanted, "{length} bytes");
    }
}

#[test]
fn jump_moves_keys_to_the_new_shard_only() {
    for shards in 1..40u16 {
        let mut moved = 0;
        for number in 0..2000u64 {
            let hash = xxh3(&number.to_le_bytes());
            let (before, after) = (jump(hash, shards), jump(hash, shards + 1));
            assert!(after == before || after == shards);
            moved += usize::from(after != before);
        }
        let share = moved as f64 / 2000.0;
        let fair = 1.0 / f64::from(shards + 1);
        assert!((share - fair).abs() < 0.05, "{shards}: {share}");
    }
}

#[test]
fn rendezvous_moves_only_what_a_new_shard_wins_and_keeps_weights() {
    let nodes = numbered(9);
    let (fewer, more) = (Rendezvous::new(&nodes[..8]), Rendezvous::new(&nodes));
    let mut without_third = nodes.clone();
    without_third.remove(3);
    let third = Rendezvous::new(&without_third);
    for number in 0..5000u64 {
        let hash = xxh3(&number.to_le_bytes());
        let (before, after) = (fewer.shard(hash), more.shard(hash));
        assert!(after == before || after == 8);
        // Shard 3 leaves: the others keep what they had, under their new numbers.
        let named = if third.shard(hash) < 3 {
            third.shard(hash)
        } else {
            third.shard(hash) + 1
        };
        assert!(after == 3 || named == after);
    }
    for share in more.shares(9) {
        assert!((share * 9.0 - 1.0).abs() < 0.06, "{share}");
    }
    let weighted = Rendezvous::new(&members(&[("a", 1), ("b", 2), ("c", 5)]));
    for (share, wanted) in weighted.shares(3).into_iter().zip([0.125, 0.25, 0.625]) {
        assert!((share - wanted).abs() < 0.01, "{share} for {wanted}");
    }
    let same = Rendezvous::new(&members(&[("a", 3), ("b", 6), ("c", 15)]));
    assert!((0..4000u64)
        .all(|n| same.shard(xxh3(&n.to_le_bytes())) == weighted.shard(xxh3(&n.to_le_bytes()))));
}

fn guide() -> Ranges {
    let users = table(
        "user:",
        true,
        vec![
            part(Some("0"), Some("10000"), 0),
            part(None, Some("20000"), 1),
        ],
    );
    let names = table(
        "name:",
        false,
        vec![part(None, Some("m"), 0), part(None, None, 2)],
    );
    let vips = table("user:vip:", true, vec![part(None, None, 2)]);
    Ranges::new(&[users, names, vips], None, 3).expect("good")
}

#[test]
fn ranges_are_inclusive_and_compared_as_what_they_are() {
    let ranges = guide();
    let cases: &[(&str, Option<u16>)] = &[
        ("user:0", Some(0)),
        ("user:9", Some(0)),
        ("user:10000", Some(0)),
        ("user:10001", Some(1)),
        ("user:20000", Some(1)),
        ("user:20001", None),
        ("user:100000000000000000000000000000", None),
        ("user:007", Some(0)),
        ("user:00000000000000000000000010001", Some(1)),
        ("user:42:cart", Some(0)),
        ("user:{42}", None),
        ("user:42}", Some(0)),
        ("user:42a", None),
        ("user:", None),
        ("user:-1", None),
        ("user:vip:5", Some(2)),
        ("user:vip:x", None),
        ("use", None),
        ("", None),
        ("name:anna", Some(0)),
        ("name:m", Some(0)),
        ("name:maria", Some(2)),
        ("name:", Some(0)),
        ("name:\u{ff}", Some(2)),
        ("other", None),
    ];
    for &(key, shard) in cases {
        assert_eq!(ranges.shard(key.as_bytes(), key.as_bytes()), shard, "{key}");
    }
    let fallback = Some(Distribution::Slots(Slots::even(1)));
    let with = Ranges::new(
        &[table("user:", true, vec![part(None, Some("5"), 2)])],
        fallback,
        3,
    );
    let with = with.expect("good");
    for (key, shard) in [("user:5", 2), ("user:6", 0), ("user:x", 0), ("other", 0)] {
        assert_eq!(with.shard(key.as_bytes(), b""), Some(shard), "{key}");
    }
}

#[test]
fn bad_ranges_are_named() {
    let refused = |parts: Vec<PartGiven>, numeric: bool| {
        Ranges::new(&[table("u:", numeric, parts)], None, 2).unwrap_err()
    };
    let cases = [
        (refused(vec![], true), "has no ranges"),
        (
            refused(vec![part(None, Some("5"), 2)], true),
            "there is no shard number 2",
        ),
        (
            refused(vec![part(None, Some("five"), 0)], true),
            "not a number of decimal digits: \"five\"",
        ),
        (
            refused(vec![part(None, None, 0), part(None, Some("5"), 1)], true),
            "only the last range may be open",
        ),
        (
            refused(
                vec![part(None, Some("5"), 0), part(Some("5"), None, 1)],
                true,
            ),
            "ranges overlap at 5",
        ),
        (
            refused(
                vec![part(None, Some("99"), 0), part(Some("101"), None, 1)],
                true,
            ),
            "ids between two ranges, before 101",
        ),
        (
            refused(
                vec![part(None, Some("9"), 0), part(None, Some("3"), 1)],
                true,
            ),
            "ranges must ascend: one begins with 10 and ends with 3",
        ),
        (
            refused(
                vec![part(None, Some("m"), 0), part(Some("n"), None, 1)],
                false,
            ),
            "ids between two ranges, before n",
        ),
    ];
    for (found, wanted) in cases {
        assert!(
            found.starts_with("table \"u:\": ") && found.contains(wanted),
            "{found}"
        );
    }
    let twice = [
        table("u:", true, vec![part(None, None, 0)]),
        table("u:", false, vec![part(None, None, 0)]),
    ];
    assert!(Ranges::new(&twice, None, 1)
        .unwrap_err()
        .contains("given twice"));
    assert!(Ranges::new(&[], None, 1).is_err());
    // With a fallback a gap is somebody's.
    let gap = table(
        "u:",
        true,
        vec![part(None, Some("99"), 0), part(Some("101"), None, 0)],
    );
    let ranges = Ranges::new(&[gap], Some(Distribution::Jump(1)), 1).expect("good");
    assert_eq!(ranges.shard(b"u:100", b"u:100"), Some(0));
}

proptest! {
    #[test]
    fn a_ring_finds_what_a_walk_over_its_points_finds(
        count in 1usize..9, weights in prop::collection::vec(1u32..5, 9), hashes in prop::collection::vec(any::<u32>(), 1..40),
    ) {
        let nodes: Vec<RingMember> = numbered(count).into_iter().zip(weights).map(|(node, weight)| RingMember { weight, ..node }).collect();
        let rings = [
            (Ring::ketama(&nodes, KeyHash::Md5, true), true),
            (Ring::predis_ketama(&nodes), true),
            (Ring::predis(&nodes), false),
            (Ring::redis_rb(&nodes, true), false),
            (Ring::redis_rb(&nodes, false), false),
        ];
        for (ring, is_after) in rings {
            let points: Vec<(u32, u16)> = ring.points().collect();
            prop_assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0));
            let on_points = points.iter().flat_map(|&(point, _)| [point, point.wrapping_add(1), point.wrapping_sub(1)]);
            for hash in hashes.iter().copied().chain(on_points.take(60)).chain([0, u32::MAX]) {
                let wanted = if is_after {
                    points.iter().find(|point| point.0 >= hash).unwrap_or(&points[0])
                } else {
                    points.iter().rev().find(|point| point.0 <= hash).unwrap_or(&points[points.len() - 1])
                };
                prop_assert_eq!(ring.shard(hash), wanted.1);
                prop_assert_eq!(ring.owners_from(hash).next(), Some(wanted.1));
                prop_assert_eq!(ring.owners_from(hash).count(), points.len());
            }
        }
    }

    #[test]
    fn ranges_find_what_a_look_at_each_part_finds(mut bounds in prop::collection::vec(0u64..500, 1..12), id in 0u64..600, is_open in any::<bool>()) {
        bounds.sort_unstable();
        bounds.dedup();
        let mut parts: Vec<PartGiven> = bounds.iter().enumerate().map(|(shard, bound)| part(None, Some(&bound.to_string()), shard as u16)).collect();
        if is_open {
            parts.push(part(None, None, bounds.len() as u16));
        }
        let ranges = Ranges::new(&[table("k", true, parts)], None, bounds.len() + 1).expect("ascending");
        let wanted = bounds.iter().position(|&bound| id <= bound).or(is_open.then_some(bounds.len()));
        let key = format!("k{id}");
        prop_assert_eq!(ranges.shard(key.as_bytes(), b""), wanted.map(|shard| shard as u16));
    }

    #[test]
    fn modula_is_a_list_of_weights(weights in prop::collection::vec(1u32..6, 1..8), hash in any::<u32>()) {
        let nodes: Vec<RingMember> = (0..).zip(&weights).map(|(index, &weight)| RingMember { name: format!("s{index}"), weight }).collect();
        let list: Vec<usize> = weights.iter().enumerate().flat_map(|(shard, &weight)| vec![shard; weight as usize]).collect();
        let modula = Modula::new(&nodes, KeyHash::Crc32a, true);
        prop_assert_eq!(modula.shard(hash) as usize, list[hash as usize % list.len()]);
    }

    #[test]
    fn codis_slots_are_crc32_modulo_1024(key in prop::collection::vec(any::<u8>(), 0..40)) {
        let codis = Distribution::Codis(CodisSlots::even(4));
        prop_assert_eq!(codis.shard(&key, &key), Some((crc32(&key) % 1024 / 256) as u16));
        prop_assert_eq!(u32_at(&key, 0) & 0xff, u32::from(key.first().copied().unwrap_or(0)));
    }
}
