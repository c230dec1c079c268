//! Slots against what Redis Cluster says, and against a twin that divides bit by bit.

use proptest::prelude::*;
use shoal_core::routing::distribution::{Distribution, Group, Slots};
use shoal_core::routing::hash::{crc16, hash_tag, key_slot, SLOTS};

/// The definition: polynomial division, one bit at a time.
fn crc16_bit_by_bit(bytes: &[u8]) -> u16 {
    let mut crc = 0_u16;
    for byte in bytes {
        for bit in (0..8).rev() {
            let feedback = (crc >> 15) ^ u16::from((byte >> bit) & 1);
            crc <<= 1;
            if feedback == 1 {
                crc ^= 0x1021;
            }
        }
    }
    crc
}

/// The rule of the Redis Cluster specification, in its own steps.
fn hash_tag_by_the_book(key: &[u8]) -> &[u8] {
    for open in 0..key.len() {
        if key[open] != b'{' {
            continue;
        }
        for close in open + 1..key.len() {
            if key[close] == b'}' {
                return if close == open + 1 {
                    key
                } else {
                    &key[open + 1..close]
                };
            }
        }
        return key;
    }
    key
}

#[test]
fn published_check_value() {
    assert_eq!(crc16(b"123456789"), 0x31c3);
    assert_eq!(crc16_bit_by_bit(b"123456789"), 0x31c3);
    assert_eq!(crc16(b""), 0);
}

/// Answers of CLUSTER KEYSLOT (Redis 7.0.15).
#[test]
fn slots_as_redis_cluster_gives_them() {
    let slots = [
        ("foo", 12182),
        ("bar", 5061),
        ("hello", 866),
        ("somekey", 11058),
        ("foo{hash_tag}", 2515),
        ("bar{hash_tag}", 2515),
        ("123456789", 12739),
        ("{user1000}.following", 3443),
        ("{user1000}.followers", 3443),
        ("foo{}{bar}", 8363),
        ("foo{{bar}}zap", 4015),
        ("foo{bar}{zap}", 5061),
        ("{}", 15257),
        ("{", 4092),
        ("}{", 12793),
        ("a{b", 13340),
        ("x}y{z}w", 8157),
        ("user:42", 15880),
        ("", 0),
        ("ключ", 10303),
        ("a-rather-long-key-name:with:many:parts:0123456789", 11565),
        ("{a}{b}{c}", 15495),
        ("bull:mail:wait", 14946),
    ];
    for (key, slot) in slots {
        assert_eq!(key_slot(key.as_bytes()), slot, "{key}");
        let distribution = Distribution::Slots(Slots::even(3));
        let part = hash_tag(key.as_bytes());
        assert_eq!(distribution.group(part), Group::Slot(slot), "{key}");
        let shard = match slot {
            0..=5460 => 0,
            5461..=10922 => 1,
            _ => 2,
        };
        assert_eq!(
            distribution.shard(key.as_bytes(), part),
            Some(shard),
            "{key}"
        );
    }
}

/// Every length passes through another mixture of steps.
#[test]
fn every_length_around_the_steps() {
    let bytes: Vec<u8> = (0..100_u8)
        .map(|number| number.wrapping_mul(167) ^ 0x5a)
        .collect();
    for start in 0..16 {
        for end in start..bytes.len() {
            let bytes = &bytes[start..end];
            assert_eq!(crc16(bytes), crc16_bit_by_bit(bytes), "{start}..{end}");
        }
    }
}

proptest! {
    #[test]
    fn crc_equals_its_twin(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(crc16(&bytes), crc16_bit_by_bit(&bytes));
    }

    #[test]
    fn tag_equals_its_twin(key in prop::collection::vec(prop::sample::select(&b"{}ab\xff"[..]), 0..40)) {
        prop_assert_eq!(hash_tag(&key), hash_tag_by_the_book(&key));
    }

    #[test]
    fn slot_is_the_tag_s_remainder(
        before in "[a-z}]{0,20}",
        tag in "[a-z{]{1,20}",
        after in "[a-z{}]{0,20}",
    ) {
        let key = format!("{before}{{{tag}}}{after}");
        let slot = key_slot(key.as_bytes());
        prop_assert!(usize::from(slot) < SLOTS);
        prop_assert_eq!(slot, crc16_bit_by_bit(tag.as_bytes()) % 16384);
    }
}
