//! INFO and CONFIG GET of several shards. The fixtures are what Redis 7.0.15 and Valkey 9.1.2 said, shortened.

use std::collections::HashMap;

use proptest::prelude::*;
use shoal_core::protocol::encode::{self, Proto};
use shoal_core::session::headcount::Headcount;
use shoal_core::session::info::{merge_config, merge_info, Own};

const OWN: Own = Own {
    version: "0.1.0",
    redis_version: "",
    port: 6380,
    run_id: "0123456789abcdef0123456789abcdef01234567",
    uptime_s: 200_000,
    clients: 17,
    subscribers: 5,
    clients_tracking: 3,
    clients_max: 0,
    denied: [0; 4],
    headcount: Headcount {
        blocked: 5,
        waited_keys: 3,
    },
    shards_up: 2,
    shards_total: 3,
    keyspace: "main",
    workers: 4,
    process_id: 4711,
    epoch: 9,
    database: 0,
    records: 0,
};

const OURS: &str = "# Shoal\nshoal_version:0.1.0\nshards:3\nshards_up:2\nshards_down:1\nepoch:9\nworkers:4\nkeyspace:main\n";

#[test]
fn our_own_keys_are_not_counted() {
    let parts = [
        reply("# Keyspace\ndb0:keys=5,expires=1,avg_ttl=20\ndb1:keys=3,expires=0,avg_ttl=0\n"),
        reply("# Keyspace\ndb0:keys=1,expires=0,avg_ttl=0\n"),
    ];
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let keyspace = |records, database, parts: &[&[u8]]| {
        let own = Own {
            records,
            database,
            ..OWN
        };
        String::from_utf8(merge_info(parts, &own, &[b"keyspace"]))
            .expect("text")
            .replace("\r\n", "\n")
    };
    let all = "# Keyspace\ndb0:keys=6,expires=1,avg_ttl=20\ndb1:keys=3,expires=0,avg_ttl=0\n";
    assert_eq!(keyspace(0, 0, &parts), all);
    assert_eq!(keyspace(2, 0, &parts), all.replace("keys=6", "keys=4"));
    assert_eq!(keyspace(2, 1, &parts), all.replace("keys=3", "keys=1"));
    assert_eq!(keyspace(2, 5, &parts), all);
    let none = "# Keyspace\n";
    assert_eq!(keyspace(1, 0, &parts[1..]), none, "no line for no keys");
    assert_eq!(keyspace(2, 0, &parts[1..]), none);
}

const REDIS: &str = "\
# Server
redis_version:7.0.15
redis_mode:standalone
os:Linux 6.18.44 x86_64
process_id:5480
process_supervised:no
run_id:c51e2b0d4b1cdf9a8ee62f8dc555997844bf1a6a
tcp_port:28411
server_time_usec:1795366672588598
uptime_in_seconds:5
uptime_in_days:0
hz:10
executable:/usr/bin/redis-server
config_file:

# Clients
connected_clients:1
maxclients:10000
client_recent_max_input_buffer:20480
blocked_clients:1
tracking_clients:1

# Memory
used_memory:941624
used_memory_human:919.55K
used_memory_rss:6701056
used_memory_peak:941624
used_memory_peak_human:919.55K
used_memory_peak_perc:100.20%
used_memory_startup:876304
used_memory_dataset:64872
used_memory_dataset_perc:99.31%
allocator_allocated:1690848
allocator_active:1826816
total_system_memory:25276510208
total_system_memory_human:23.54G
number_of_cached_scripts:3
maxmemory:0
maxmemory_human:0B
maxmemory_policy:noeviction
allocator_frag_ratio:1.08
mem_fragmentation_ratio:7.65
mem_allocator:jemalloc-5.3.0

# Persistence
loading:0
current_fork_perc:0.00
rdb_changes_since_last_save:4
rdb_bgsave_in_progress:0
rdb_last_save_time:1795366672
rdb_last_bgsave_status:ok
rdb_last_bgsave_time_sec:-1
aof_enabled:0
aof_last_write_status:ok

# Stats
total_connections_received:6
total_commands_processed:4
instantaneous_ops_per_sec:5
instantaneous_input_kbps:0.10
expired_stale_perc:0.00
expired_keys:7
keyspace_hits:10
keyspace_misses:3
pubsub_channels:2
latest_fork_usec:0
slave_expires_tracked_keys:0
total_error_replies:1

# Replication
role:master
connected_slaves:0
master_failover_state:no-failover
master_replid:e0b73a677dc7240a60c4ce67c91967b3e9d0e560
second_repl_offset:-1

# CPU
used_cpu_sys:0.100001
used_cpu_user:0.004706

# Modules

# Commandstats
cmdstat_set:calls=4,usec=39,usec_per_call=9.75,rejected_calls=1,failed_calls=0

# Errorstats
errorstat_ERR:count=1

# Latencystats

# Cluster
cluster_enabled:0

# Keyspace
db0:keys=4,expires=1,avg_ttl=1000
db3:keys=1,expires=0,avg_ttl=0
";

/// Of this one the parts that differ in form or matter for the sums.
const VALKEY: &str = "\
# Server
redis_version:7.2.4
server_name:valkey
valkey_version:9.1.2
server_mode:cluster
uptime_in_seconds:1
listener0:name=tcp,bind=127.0.0.1,port=28412

# TLS
tls_server_cert_serial:none

# Clients
connected_clients:100
maxclients:4000
client_recent_max_input_buffer:30000
blocked_clients:2
tracking_clients:7
total_blocking_keys:4

# Memory
used_memory:1043688
used_memory_human:1019.23K
used_memory_rss:6008832
used_memory_peak:2000000
used_memory_peak_human:1.91M
used_memory_peak_perc:52.18%
used_memory_startup:998736
used_memory_dataset:44024
used_memory_dataset_perc:97.94%
allocator_allocated:1041240
allocator_active:5939200
total_system_memory:25276510208
total_system_memory_human:23.54G
number_of_cached_scripts:2
maxmemory:1000
maxmemory_human:1000B
maxmemory_policy:allkeys-lru
mem_fragmentation_ratio:5.77

# Persistence
loading:1
rdb_changes_since_last_save:5
rdb_last_save_time:1795367056
rdb_last_bgsave_status:err
rdb_last_bgsave_time_sec:3
aof_enabled:1
aof_last_write_status:ok

# Stats
instantaneous_ops_per_sec:6
instantaneous_input_kbps:0.25
expired_keys:1
expired_fields:2
keyspace_hits:1
pubsub_channels:1
latest_fork_usec:250

# Replication
role:slave
master_host:127.0.0.1
master_port:7000
master_link_status:up
slave_read_only:1
connected_slaves:2
slave0:ip=127.0.0.1,port=7001,state=online,offset=14,lag=0
slave1:ip=127.0.0.1,port=7002,state=online,offset=14,lag=0

# CPU
used_cpu_sys:0.200000

# Modules
module:name=lua,ver=1
module:name=json,ver=2

# Commandstats
cmdstat_set:calls=1,usec=11,usec_per_call=11.00,rejected_calls=1,failed_calls=3
cmdstat_config|get:calls=2,usec=24,usec_per_call=12.00,rejected_calls=0,failed_calls=0

# Errorstats
errorstat_ERR:count=2
errorstat_OOM:count=1

# Latencystats
latency_percentiles_usec_set:p50=10.047,p99=13.055,p99.9=13.055

# Cluster
cluster_enabled:1

# Keyspace
db0:keys=6,expires=3,avg_ttl=2000,keys_with_volatile_items=1
db1:keys=2,expires=0,avg_ttl=0
";

fn reply(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode::bulk(&mut out, text.replace('\n', "\r\n").as_bytes());
    out
}

fn info_of(parts: &[&[u8]], own: &Own, sections: &[&str]) -> String {
    let sections: Vec<&[u8]> = sections.iter().map(|section| section.as_bytes()).collect();
    let text = String::from_utf8(merge_info(parts, own, &sections)).expect("text");
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
    text.replace("\r\n", "\n")
}

fn info(texts: &[&str]) -> String {
    let parts: Vec<Vec<u8>> = texts.iter().map(|text| reply(text)).collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    info_of(&parts, &OWN, &[])
}

/// A client's reading of INFO: the value of each field.
fn fields(text: &str) -> HashMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .collect()
}

/// Of one shard nothing changes but what describes the process.
#[test]
fn one_shard_s_text_stays() {
    let expected = REDIS
        .replace("process_id:5480", "process_id:4711")
        .replace(
            "run_id:c51e2b0d4b1cdf9a8ee62f8dc555997844bf1a6a",
            &format!("run_id:{}", OWN.run_id),
        )
        .replace("tcp_port:28411", "tcp_port:6380")
        .replace("uptime_in_seconds:5", "uptime_in_seconds:200000")
        .replace("uptime_in_days:0", "uptime_in_days:2")
        .replace("connected_clients:1", "connected_clients:17")
        .replace("blocked_clients:1", "blocked_clients:5")
        .replace("tracking_clients:1", "tracking_clients:3");
    assert_eq!(info(&[REDIS]), format!("{expected}\n{OURS}"));
}

#[test]
fn two_servers_look_like_one() {
    let text = info(&[REDIS, VALKEY]);
    let fields = fields(&text);
    let expected = [
        // Ours, or what is always so.
        ("redis_version", "7.0.15"),
        ("valkey_version", "9.1.2"),
        ("redis_mode", "standalone"),
        ("server_mode", "standalone"),
        ("cluster_enabled", "0"),
        ("role", "master"),
        ("tcp_port", "6380"),
        ("process_id", "4711"),
        ("run_id", OWN.run_id),
        ("uptime_in_seconds", "200000"),
        ("uptime_in_days", "2"),
        ("connected_clients", "17"),
        // Sums.
        ("used_memory", "1985312"),
        ("used_memory_peak", "2941624"),
        // Our own, whatever the shards have.
        ("blocked_clients", "5"),
        ("tracking_clients", "3"),
        // Theirs and ours.
        ("total_blocking_keys", "7"),
        ("rdb_changes_since_last_save", "9"),
        ("instantaneous_ops_per_sec", "11"),
        ("instantaneous_input_kbps", "0.35"),
        ("expired_keys", "8"),
        ("expired_fields", "2"),
        ("keyspace_hits", "11"),
        ("keyspace_misses", "3"),
        ("connected_slaves", "2"),
        ("used_cpu_sys", "0.300001"),
        // Computed of the sums.
        ("used_memory_human", "1.89M"),
        ("used_memory_peak_human", "2.81M"),
        ("used_memory_peak_perc", "67.49%"),
        ("used_memory_dataset_perc", "98.75%"),
        ("allocator_frag_ratio", "2.84"),
        ("mem_fragmentation_ratio", "6.40"),
        // The worst, the largest, the smallest.
        ("loading", "1"),
        ("rdb_last_bgsave_status", "err"),
        ("aof_last_write_status", "ok"),
        ("rdb_last_bgsave_time_sec", "3"),
        ("rdb_last_save_time", "1795366672"),
        ("aof_enabled", "0"),
        ("latest_fork_usec", "250"),
        ("client_recent_max_input_buffer", "30000"),
        ("maxclients", "4000"),
        ("pubsub_channels", "2"),
        ("number_of_cached_scripts", "3"),
        ("total_system_memory", "25276510208"),
        ("total_system_memory_human", "23.54G"),
        // One shard without limit: no limit.
        ("maxmemory", "0"),
        ("maxmemory_human", "0B"),
        ("maxmemory_policy", "noeviction"),
        // Lists.
        (
            "cmdstat_set",
            "calls=5,usec=50,usec_per_call=10.00,rejected_calls=2,failed_calls=3",
        ),
        (
            "cmdstat_config|get",
            "calls=2,usec=24,usec_per_call=12.00,rejected_calls=0,failed_calls=0",
        ),
        ("errorstat_ERR", "count=3"),
        ("errorstat_OOM", "count=1"),
        (
            "db0",
            "keys=10,expires=4,avg_ttl=1750,keys_with_volatile_items=1",
        ),
        ("db1", "keys=2,expires=0,avg_ttl=0"),
        ("db3", "keys=1,expires=0,avg_ttl=0"),
    ];
    for (name, value) in expected {
        assert_eq!(fields.get(name), Some(&value), "{name}");
    }
    for gone in [
        "slave0",
        "slave1",
        "listener0",
        "master_host",
        "master_port",
        "master_link_status",
        "slave_read_only",
        "latency_percentiles_usec_set",
    ] {
        assert!(!fields.contains_key(gone), "{gone}");
    }
}

#[test]
fn order_is_the_first_shard_s() {
    let text = info(&[REDIS, VALKEY]);
    let headers: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .collect();
    let expected = "Server Clients Memory Persistence Stats Replication CPU Modules Commandstats Errorstats Latencystats Cluster Keyspace TLS Shoal";
    assert_eq!(headers.join(" "), expected);
    assert!(text.ends_with(OURS));
    let keyspace: Vec<&str> = text.lines().filter(|line| line.starts_with("db")).collect();
    assert!(
        keyspace
            .iter()
            .map(|line| &line[..4])
            .eq(["db0:", "db1:", "db3:"]),
        "{keyspace:?}"
    );
    // Sections are apart by one blank line, and each module has its line.
    assert!(text.contains(
        "\n\n# Modules\nmodule:name=lua,ver=1\nmodule:name=json,ver=2\n\n# Commandstats\n"
    ));
    let both = info(&[VALKEY, VALKEY]);
    assert_eq!(both.matches("module:name=lua").count(), 1);
}

#[test]
fn limits_add_up_when_all_have_one() {
    let text = info(&[
        "# Memory\nmaxmemory:1048576\nmaxmemory_human:1.00M\n",
        "# Memory\nmaxmemory:524288\nmaxmemory_human:512.00K\n",
    ]);
    let fields = fields(&text);
    assert_eq!(
        (fields["maxmemory"], fields["maxmemory_human"]),
        ("1572864", "1.50M")
    );
}

#[test]
fn readable_sizes() {
    for (bytes, text) in [
        (0_u64, "0B"),
        (1023, "1023B"),
        (1024, "1.00K"),
        (941_624, "919.55K"),
        (1 << 40, "1.00T"),
        (5 << 50, "5.00P"),
        (u64::MAX, "16384.00P"),
    ] {
        let part = format!("# Memory\nused_memory:{bytes}\nused_memory_human:x\n");
        let merged = info(&[&part, "# Memory\nused_memory:0\nused_memory_human:x\n"]);
        assert_eq!(fields(&merged)["used_memory_human"], text);
    }
}

#[test]
fn our_section_comes_when_asked_for() {
    let shard = reply("# Server\nredis_version:7.0.15\n");
    let parts: [&[u8]; 1] = [&shard];
    let server = "# Server\nredis_version:7.0.15\n";
    let cases: [(&[&str], String); 8] = [
        (&[], format!("{server}\n{OURS}")),
        (&["default"], format!("{server}\n{OURS}")),
        (&["ALL"], format!("{server}\n{OURS}")),
        (&["everything"], format!("{server}\n{OURS}")),
        (&["server"], server.to_owned()),
        (&["shoal"], OURS.to_owned()),
        (&["Shoal", "SHOAL"], OURS.to_owned()),
        (&["server", "shoal"], format!("{server}\n{OURS}")),
    ];
    for (sections, expected) in cases {
        assert_eq!(info_of(&parts, &OWN, sections), expected, "{sections:?}");
    }
}

#[test]
fn verbatim_is_read_and_everything_else_skipped() {
    let mut verbatim = Vec::new();
    encode::verbatim(
        &mut verbatim,
        Proto::Resp3,
        b"# Stats\r\nexpired_keys:1\r\n",
    );
    let bulk = reply("# Stats\nexpired_keys:2\n");
    let parts: [&[u8]; 7] = [
        b"-LOADING wait\r\n",
        &verbatim,
        b"",
        b":1\r\n",
        b"$-1\r\n",
        &bulk,
        b"$5\r\nabc\r\n",
    ];
    assert_eq!(
        info_of(&parts, &OWN, &["stats"]),
        "# Stats\nexpired_keys:3\n"
    );
    assert_eq!(info_of(&[b"-ERR no\r\n"], &OWN, &["stats"]), "");
}

#[test]
fn own_values_may_override() {
    let own = Own {
        redis_version: "7.2.0",
        clients_max: 500,
        denied: [0; 4],
        keyspace: "a\r\nb",
        shards_up: 9,
        ..OWN
    };
    let part = reply(REDIS);
    let text = info_of(&[&part], &own, &[]);
    let fields = fields(&text);
    assert_eq!(fields["redis_version"], "7.2.0");
    assert_eq!(fields["maxclients"], "500");
    assert_eq!(fields["keyspace"], "a  b");
    assert_eq!(fields["shards_down"], "0");
}

#[test]
fn clients_that_are_tracked_are_ours_and_not_our_connections() {
    let part = reply("# Clients\ntracking_clients:40\n");
    assert_eq!(
        info_of(&[&part, &part], &OWN, &["clients"]),
        "# Clients\ntracking_clients:3\n"
    );
}

#[test]
fn lowest_version_is_told() {
    let part = |version: &str| format!("# Server\nredis_version:{version}\n");
    for (versions, lowest) in [
        (["7.10.0", "7.9.1"], "7.9.1"),
        (["8.0", "8.0.1"], "8.0"),
        (["10.0.0", "9.9.9"], "9.9.9"),
    ] {
        let text = info(&[&part(versions[0]), &part(versions[1])]);
        assert_eq!(fields(&text)["redis_version"], lowest);
    }
}

fn config(parts: &[&str], proto: Proto) -> String {
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    let mut out = Vec::new();
    merge_config(&parts, proto, &mut out);
    String::from_utf8(out).expect("text")
}

/// Pairs as a shard would send them.
fn pairs(proto: Proto, pairs: &[(&str, &str)]) -> String {
    let mut out = Vec::new();
    encode::map(&mut out, proto, pairs.len());
    for (name, value) in pairs {
        encode::bulk(&mut out, name.as_bytes());
        encode::bulk(&mut out, value.as_bytes());
    }
    String::from_utf8(out).expect("text")
}

#[test]
fn config_of_two_shards() {
    for proto in [Proto::Resp2, Proto::Resp3] {
        let first = pairs(
            proto,
            &[
                ("maxmemory", "100"),
                ("databases", "32"),
                ("port", "7001"),
                ("save", ""),
            ],
        );
        let second = pairs(
            proto,
            &[
                ("port", "7002"),
                ("maxmemory", "50"),
                ("databases", "16"),
                ("rdma", "no"),
            ],
        );
        let expected = [
            ("maxmemory", "150"),
            ("databases", "16"),
            ("port", "7001"),
            ("save", ""),
            ("rdma", "no"),
        ];
        assert_eq!(config(&[&first, &second], proto), pairs(proto, &expected));
        let unlimited = pairs(proto, &[("maxmemory", "0")]);
        assert_eq!(
            config(&[&pairs(proto, &[("maxmemory", "9")]), &unlimited], proto),
            unlimited
        );
        let nothing = pairs(proto, &[]);
        assert_eq!(config(&[&nothing, &nothing], proto), nothing);
        assert_eq!(config(&[&first, "-NOPERM no\r\n"], proto), "-NOPERM no\r\n");
    }
}

#[test]
fn config_that_does_not_fit() {
    for part in [
        "",
        "+OK\r\n",
        "*1\r\n$1\r\na\r\n",
        "*2\r\n$1\r\na\r\n:1\r\n",
        "*2\r\n$1\r\na\r\n",
        "*2\r\n$-1\r\n$-1\r\n",
        "*0\r\nx",
        "*-1\r\n",
        "-ERR cut",
        "*18446744073709551614\r\n",
    ] {
        let merged = config(&["*0\r\n", part], Proto::Resp2);
        let expected = "-ERR shards answered in unexpected ways to one request (something else where parameters belong)\r\n";
        assert_eq!(merged, expected, "{part:?}");
    }
}

/// Texts that are nearly INFO, with numbers at and beyond the edges.
fn nearly_info() -> impl Strategy<Value = String> {
    let name = prop::sample::select(
        &[
            "used_memory",
            "used_memory_human",
            "used_memory_peak_perc",
            "maxmemory",
            "redis_version",
            "mem_fragmentation_ratio",
            "db0",
            "cmdstat_x",
            "slave0",
            "loading",
            "x",
            "",
        ][..],
    );
    let value = prop_oneof![
        "[-0-9.]{0,30}",
        "(calls|usec|usec_per_call|expires|avg_ttl|x)=[-0-9.a-z]{0,30}(,(expires|avg_ttl|=|,)=[-0-9.]{0,30}){0,3}",
        "[ -~é]{0,10}",
    ];
    let line = prop_oneof![
        prop::sample::select(
            &[
                "# Memory",
                "# Keyspace",
                "# Commandstats",
                "# Modules",
                "# ",
                "#",
                ""
            ][..]
        )
        .prop_map(str::to_owned),
        (name, value).prop_map(|(name, value)| format!("{name}:{value}")),
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn info_is_total(texts in prop::collection::vec(nearly_info(), 0..4)) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let text = info(&texts);
        prop_assert!(text.ends_with(OURS));
        prop_assert!(!text.contains("NaN") && !text.contains("=inf"), "{}", text);
    }

    #[test]
    fn any_bytes_at_all(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4)) {
        let raw: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        merge_info(&raw, &OWN, &[]);
        let wrapped: Vec<Vec<u8>> = parts.iter().map(|part| { let mut out = Vec::new(); encode::bulk(&mut out, part); out }).collect();
        let wrapped: Vec<&[u8]> = wrapped.iter().map(Vec::as_slice).collect();
        prop_assert!(merge_info(&wrapped, &OWN, &[]).ends_with(b"keyspace:main\r\n"));
        let mut out = b"before".to_vec();
        merge_config(&raw, Proto::Resp3, &mut out);
        prop_assert!(out.starts_with(b"before"));
        prop_assert_eq!(shoal_core::routing::merge::element_len(&out[6..]), Some(out.len() - 6));
    }

    /// Sums of decimals, against integers of their smallest unit.
    #[test]
    fn sums_are_exact(numbers in prop::collection::vec(0..u64::from(u32::MAX), 1..6)) {
        let texts: Vec<String> = numbers.iter().map(|number| format!("# CPU\nused_cpu_sys:{}.{:06}\n", number / 1_000_000, number % 1_000_000)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let sum: u64 = numbers.iter().sum();
        let text = info(&texts);
        prop_assert_eq!(fields(&text)["used_cpu_sys"], format!("{}.{:06}", sum / 1_000_000, sum % 1_000_000));
    }
}
