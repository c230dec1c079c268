//! SCAN: a cursor that a shard gives comes back to that shard unchanged, and a reply's keys are taken as they are.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_core::session::scan::{decode, encode_next, parts};

fuzz_target!(|input: &[u8]| {
    let [low, high, data @ ..] = input else {
        return;
    };
    let shards = u16::from_le_bytes([*low, *high]) % 4096 + 1;
    if let Some((shard, theirs)) = decode(data, shards) {
        assert!(shard < shards);
        if theirs > 0 {
            let ours = encode_next(shard, shards, theirs).expect("it came from a cursor");
            assert_eq!(
                decode(ours.to_string().as_bytes(), shards),
                Some((shard, theirs))
            );
        }
    }
    if let Some((_, _, keys)) = parts(data) {
        assert!(data.ends_with(keys), "the keys changed");
    }
});
