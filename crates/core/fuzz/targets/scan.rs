//! SCAN: a cursor that a shard gives comes back to that shard unchanged, and only the cursor of a reply changes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_core::session::scan::{decode, encode_next, rewrite};

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
    let shard = u16::from(*low) % shards;
    let mut out = b"before".to_vec();
    match rewrite(data, shard, shards, &mut out) {
        None => assert_eq!(out, b"before", "a reply that is none leaves nothing"),
        Some(()) => {
            let keys = out.strip_prefix(b"before*2\r\n$").expect("an array of two");
            let line = keys.iter().position(|byte| *byte == b'\n').expect("a line");
            let length: usize = std::str::from_utf8(&keys[..line - 1])
                .expect("digits")
                .parse()
                .expect("digits");
            let rest = &keys[line + 1 + length + 2..];
            assert!(data.ends_with(rest), "the keys changed");
        }
    }
});
