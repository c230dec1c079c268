//! Merging: whatever shards say, exactly one well-formed reply comes out, behind what was there before.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_core::protocol::command::Merge;
use shoal_core::protocol::encode::Proto;
use shoal_core::routing::merge::{element_len, merge};
use shoal_core::session::headcount::Headcount;
use shoal_core::session::info::{merge_config, merge_info, Own};

const KINDS: [Merge; 12] = [
    Merge::AllOk,
    Merge::First,
    Merge::Sum,
    Merge::Min,
    Merge::Max,
    Merge::MinEach,
    Merge::Concat,
    Merge::And,
    Merge::KeyOrder,
    Merge::Info,
    Merge::Config,
    Merge::AnyNonNull,
];

fuzz_target!(|input: &[u8]| {
    let [kind, shape, data @ ..] = input else {
        return;
    };
    let proto = if shape % 2 == 0 {
        Proto::Resp2
    } else {
        Proto::Resp3
    };
    // Fragments are separated by a byte that RESP does not use.
    let parts: Vec<&[u8]> = data.split(|byte| *byte == 0xff).collect();
    let count = usize::from(shape / 2) % 9;
    let order: Vec<u16> = (0..count)
        .map(|key| (key * 7 % (parts.len() + 1)) as u16)
        .collect();
    let mut out = b"before".to_vec();
    match kind % 13 {
        11 => merge_config(&parts, proto, &mut out),
        12 => {
            let own = Own {
                version: "0",
                redis_version: "7.2.4",
                port: 1,
                run_id: "0",
                uptime_s: 1,
                clients: 1,
                subscribers: 0,
                clients_tracking: 0,
                clients_max: 1,
                denied: [0; 4],
                headcount: Headcount::default(),
                shards_up: 1,
                shards_total: 2,
                keyspace: "k",
                workers: 1,
                process_id: 1,
                epoch: 1,
                database: 0,
                records: 2,
            };
            let text = merge_info(&parts, &own, &[]);
            assert!(
                text.windows(7).any(|window| window == b"# Shoal"),
                "our own part is missing"
            );
            return;
        }
        kind => merge(
            KINDS[kind as usize],
            &parts,
            &order,
            proto,
            usize::from(*shape),
            &mut out,
        ),
    }
    assert!(out.starts_with(b"before"));
    assert_eq!(
        element_len(&out[6..]),
        Some(out.len() - 6),
        "not exactly one reply"
    );
});
