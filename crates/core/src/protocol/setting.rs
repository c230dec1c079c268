//! What servers' settings mean for a fleet: CONFIG SET through shoal.
//!
//! Owns: `SETTINGS`, what is done with each setting that is known, and the reasons why others cannot be set through shoal.
//!
//! Must stay true: what is set on every shard concerns how a server keeps its own keys; nothing that touches the connections
//! between shoal and its servers, who may use them, or what a server is called, is let through. What is not listed is refused.
//! Rejected: passing on whatever servers would take. `timeout` would close shoal's own connections, `requirepass` lock it out.

/// What is done with a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Each shard is told the same.
    Each,
    /// An amount for all: each shard is told its part.
    Divided,
    /// Each shard is told the same, and shoal's own slow log goes by it: from how many microseconds on a request is slow.
    SlowThreshold,
    /// The same: how many entries are kept.
    SlowLength,
    /// It cannot be set through shoal; the text says what to do instead.
    Refused(&'static str),
}

const CONNECTIONS: &str =
    "concerns a server's connections, which are shoal's: clients' are set in shoal's own configuration file";
const USERS: &str =
    "concerns who may use a server: users are set in shoal's own configuration file, and each \
     server's in its own";
const SIZE: &str = "is a bound of shoal's own too, which does not change: see BULK_MAX and its like in the reference";
const ONE_SERVER: &str =
    "concerns one server, not the keyspace: set it on that shard's server directly";
const OTHER: &str =
    "has no meaning for all shards that shoal knows of: set it on each shard's server directly";

/// From how many microseconds on a request is slow.
pub const SLOW_THRESHOLD: &str = "slowlog-log-slower-than";
/// How many slow requests are remembered.
pub const SLOW_LENGTH: &str = "slowlog-max-len";

/// Names in lower case; one that ends with `*` stands for all that begin so. The first that fits decides.
const SETTINGS: &[(&str, Meaning)] = &[
    ("maxmemory", Meaning::Divided),
    // Which keys go when memory is full, and how they go.
    ("maxmemory-policy", Meaning::Each),
    ("maxmemory-samples", Meaning::Each),
    ("maxmemory-eviction-tenacity", Meaning::Each),
    ("lfu-*", Meaning::Each),
    ("lazyfree-*", Meaning::Each),
    ("active-expire-effort", Meaning::Each),
    // How values are kept.
    ("hash-max-*", Meaning::Each),
    ("list-max-*", Meaning::Each),
    ("list-compress-depth", Meaning::Each),
    ("set-max-*", Meaning::Each),
    ("zset-max-*", Meaning::Each),
    ("stream-node-*", Meaning::Each),
    ("hll-sparse-max-bytes", Meaning::Each),
    ("activerehashing", Meaning::Each),
    ("activedefrag", Meaning::Each),
    ("active-defrag-*", Meaning::Each),
    ("jemalloc-bg-thread", Meaning::Each),
    // What is told of them.
    ("notify-keyspace-events", Meaning::Each),
    (SLOW_THRESHOLD, Meaning::SlowThreshold),
    (SLOW_LENGTH, Meaning::SlowLength),
    ("commandlog-*", Meaning::Each),
    ("latency-*", Meaning::Each),
    ("loglevel", Meaning::Each),
    ("tracking-table-max-keys", Meaning::Each),
    // How they are saved.
    ("save", Meaning::Each),
    ("stop-writes-on-bgsave-error", Meaning::Each),
    ("rdbcompression", Meaning::Each),
    ("rdb-save-incremental-fsync", Meaning::Each),
    ("appendonly", Meaning::Each),
    ("appendfsync", Meaning::Each),
    ("no-appendfsync-on-rewrite", Meaning::Each),
    ("auto-aof-rewrite-*", Meaning::Each),
    ("aof-*", Meaning::Each),
    // Its own time.
    ("hz", Meaning::Each),
    ("dynamic-hz", Meaning::Each),
    ("lua-time-limit", Meaning::Each),
    ("busy-reply-threshold", Meaning::Each),
    // Refused.
    ("timeout", Meaning::Refused(CONNECTIONS)),
    ("tcp-*", Meaning::Refused(CONNECTIONS)),
    ("maxclients", Meaning::Refused(CONNECTIONS)),
    ("maxmemory-clients", Meaning::Refused(CONNECTIONS)),
    ("client-*", Meaning::Refused(CONNECTIONS)),
    ("proto-max-bulk-len", Meaning::Refused(SIZE)),
    ("requirepass", Meaning::Refused(USERS)),
    ("acl*", Meaning::Refused(USERS)),
    ("user", Meaning::Refused(USERS)),
    ("bind*", Meaning::Refused(ONE_SERVER)),
    ("port", Meaning::Refused(ONE_SERVER)),
    ("unixsocket*", Meaning::Refused(ONE_SERVER)),
    ("tls-*", Meaning::Refused(ONE_SERVER)),
    ("dir", Meaning::Refused(ONE_SERVER)),
    ("dbfilename", Meaning::Refused(ONE_SERVER)),
    ("append*", Meaning::Refused(ONE_SERVER)),
    ("logfile", Meaning::Refused(ONE_SERVER)),
    ("pidfile", Meaning::Refused(ONE_SERVER)),
    ("repl*", Meaning::Refused(ONE_SERVER)),
    ("slave*", Meaning::Refused(ONE_SERVER)),
    ("master*", Meaning::Refused(ONE_SERVER)),
    ("primary*", Meaning::Refused(ONE_SERVER)),
    ("min-replicas-*", Meaning::Refused(ONE_SERVER)),
    ("min-slaves-*", Meaning::Refused(ONE_SERVER)),
    ("cluster-*", Meaning::Refused(ONE_SERVER)),
];

/// What is done with the setting of that name, ignoring case.
pub fn meaning(name: &[u8]) -> Meaning {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(begin) => name
            .get(..begin.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(begin.as_bytes())),
        None => name.eq_ignore_ascii_case(pattern.as_bytes()),
    };
    SETTINGS
        .iter()
        .find(|(pattern, _)| fits(pattern))
        .map_or(Meaning::Refused(OTHER), |(_, meaning)| *meaning)
}

/// An amount of memory as servers read it: digits and perhaps a unit. None: they would not take it.
pub fn memory(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1_000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    let number: u64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_by_name_or_beginning() {
        assert_eq!(meaning(b"MaxMemory"), Meaning::Divided);
        assert_eq!(meaning(b"maxmemory-policy"), Meaning::Each);
        assert_eq!(meaning(b"hash-max-anything"), Meaning::Each);
        assert_eq!(meaning(b"appendfsync"), Meaning::Each);
        assert_eq!(meaning(b"appendfilename"), Meaning::Refused(ONE_SERVER));
        assert_eq!(meaning(b"timeout"), Meaning::Refused(CONNECTIONS));
        assert_eq!(meaning(b"time"), Meaning::Refused(OTHER));
        assert_eq!(meaning(b""), Meaning::Refused(OTHER));
    }

    #[test]
    fn memory_is_read_as_servers_read_it() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("100", Some(100)),
            ("1k", Some(1000)),
            ("1KB", Some(1024)),
            ("3mb", Some(3 << 20)),
            ("2G", Some(2_000_000_000)),
            ("2gb", Some(2 << 30)),
            ("7b", Some(7)),
            ("", None),
            ("gb", None),
            ("-1", None),
            ("1.5gb", None),
            ("1tb", None),
            ("99999999999999999999", None),
            ("99999999999gb", None),
        ] {
            assert_eq!(memory(text.as_bytes()), bytes, "{text}");
        }
    }
}
