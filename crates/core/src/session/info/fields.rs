//! The fields of INFO and the parameters of CONFIG GET that need more than the first shard's value.
//!
//! Owns: `Rule`, and which field follows which, as data. `info.rs` applies the rules.
//!
//! Must stay true: a name in `FIELDS` wins over its section's rule, so the table holds exceptions only; an unknown
//! field of a known section is merged like its neighbours, which is right for nearly all that new servers add.

use super::Own;

/// How the shards' values of one field become one value.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// The first shard's.
    First,
    /// Added, with as many decimals as the values have.
    Sum,
    /// Added, and what we have ourselves.
    SumAnd(fn(&Own) -> u64),
    /// The largest number.
    Max,
    /// The smallest number.
    Min,
    /// Added, but 0 (no limit) if any has no limit.
    SumOfLimits,
    /// The first that is not `ok`, else `ok`.
    Worst,
    /// The lowest version, unless we have one to tell.
    Version,
    /// Left out.
    Drop,
    /// Always this.
    Fixed(&'static str),
    /// Our own value; empty means that we have none, and the smallest of the shards' is told.
    Own(fn(&Own) -> String),
    /// Readable form of the field whose name lacks `_human`.
    Human,
    /// Quotient of two merged fields.
    Ratio(&'static str, &'static str),
    /// Percentage of the first field in (second minus third); no third: an empty name.
    Percent(&'static str, &'static str, &'static str),
    /// A list `name=value,...`, merged by name.
    List,
    /// All distinct values, each as a line of its own.
    Lines,
}

/// Fields with a rule that is not their section's. `#` at the end of a name stands for digits, `*` for anything.
const FIELDS: &[(&str, Rule)] = &[
    // Server
    ("redis_version", Rule::Version),
    ("redis_mode", Rule::Fixed("standalone")),
    ("server_mode", Rule::Fixed("standalone")),
    ("process_id", Rule::Own(|own| own.process_id.to_string())),
    ("process_supervised", Rule::Fixed("no")),
    ("run_id", Rule::Own(|own| own.run_id.to_owned())),
    ("tcp_port", Rule::Own(|own| own.port.to_string())),
    ("server_time_usec", Rule::Max),
    (
        "uptime_in_seconds",
        Rule::Own(|own| own.uptime_s.to_string()),
    ),
    (
        "uptime_in_days",
        Rule::Own(|own| (own.uptime_s / 86_400).to_string()),
    ),
    ("io_threads_active", Rule::Max),
    ("listener#", Rule::Drop),
    // Clients
    (
        "connected_clients",
        Rule::Own(|own| own.clients.to_string()),
    ),
    (
        "pubsub_clients",
        Rule::Own(|own| own.subscribers.to_string()),
    ),
    ("maxclients", Rule::Own(clients_max)),
    (
        "tracking_clients",
        Rule::Own(|own| own.clients_tracking.to_string()),
    ),
    (
        "blocked_clients",
        Rule::Own(|own| own.headcount.blocked.to_string()),
    ),
    (
        "total_blocking_keys",
        Rule::SumAnd(|own| own.headcount.waited_keys),
    ),
    ("client_recent_max_*", Rule::Max),
    ("paused_timeout_milliseconds", Rule::Max),
    // Stats: the shards see our own user only.
    (
        "acl_access_denied_auth",
        Rule::Own(|own| own.denied[0].to_string()),
    ),
    (
        "acl_access_denied_cmd",
        Rule::Own(|own| own.denied[1].to_string()),
    ),
    (
        "acl_access_denied_key",
        Rule::Own(|own| own.denied[2].to_string()),
    ),
    (
        "acl_access_denied_channel",
        Rule::Own(|own| own.denied[3].to_string()),
    ),
    // Memory
    (
        "used_memory_peak_perc",
        Rule::Percent("used_memory", "used_memory_peak", ""),
    ),
    (
        "used_memory_dataset_perc",
        Rule::Percent("used_memory_dataset", "used_memory", "used_memory_startup"),
    ),
    // Several shards may run on one machine, and scripts and functions are loaded on all: adding would count twice.
    ("total_system_memory", Rule::Max),
    ("number_of_*", Rule::Max),
    ("used_memory_peak_time", Rule::Max),
    ("maxmemory", Rule::SumOfLimits),
    ("maxmemory_policy", Rule::First),
    (
        "allocator_frag_ratio",
        Rule::Ratio("allocator_active", "allocator_allocated"),
    ),
    (
        "allocator_rss_ratio",
        Rule::Ratio("allocator_resident", "allocator_active"),
    ),
    (
        "rss_overhead_ratio",
        Rule::Ratio("used_memory_rss", "allocator_resident"),
    ),
    (
        "mem_fragmentation_ratio",
        Rule::Ratio("used_memory_rss", "used_memory"),
    ),
    ("active_defrag_running", Rule::Max),
    // Persistence
    ("current_save_keys_*", Rule::Sum),
    ("rdb_changes_since_last_save", Rule::Sum),
    ("rdb_last_save_time", Rule::Min),
    ("rdb_last_bgsave_status", Rule::Worst),
    ("rdb_saves", Rule::Sum),
    ("rdb_last_load_keys_*", Rule::Sum),
    ("aof_enabled", Rule::Min),
    ("aof_last_bgrewrite_status", Rule::Worst),
    ("aof_last_write_status", Rule::Worst),
    ("aof_rewrites", Rule::Sum),
    ("aof_current_size", Rule::Sum),
    ("aof_base_size", Rule::Sum),
    ("aof_buffer_length", Rule::Sum),
    ("aof_pending_bio_fsync", Rule::Sum),
    ("aof_delayed_fsync", Rule::Sum),
    ("loading_start_time", Rule::Min),
    ("loading_total_bytes", Rule::Sum),
    ("loading_loaded_bytes", Rule::Sum),
    ("loading_rdb_used_mem", Rule::Sum),
    ("loading_loaded_perc", Rule::Min),
    // Stats. Subscriptions are made on every shard.
    ("pubsub_channels", Rule::Max),
    ("pubsub_patterns", Rule::Max),
    ("pubsubshard_channels", Rule::Max),
    ("expired_stale_perc", Rule::Max),
    ("expired_keys_with_volatile_items_stale_perc", Rule::Max),
    ("current_eviction_exceeded_time", Rule::Max),
    ("current_active_defrag_time", Rule::Max),
    ("latest_fork_usec", Rule::Max),
    ("instantaneous_eventloop_duration_usec", Rule::Max),
    // Replication. Replicas are the shards' affair: their number is told, their addresses are not.
    ("role", Rule::Fixed("master")),
    ("connected_slaves", Rule::Sum),
    ("slave#", Rule::Drop),
    ("replicas_waiting_psync", Rule::Sum),
    ("min_slaves_good_slaves", Rule::Min),
    ("master_host", Rule::Drop),
    ("master_port", Rule::Drop),
    ("master_link_*", Rule::Drop),
    ("master_last_io_*", Rule::Drop),
    ("master_sync_*", Rule::Drop),
    ("slave_read_*", Rule::Drop),
    ("slave_repl_offset", Rule::Drop),
    ("slave_priority", Rule::Drop),
    ("replica_announced", Rule::Drop),
    ("replicas_repl_*", Rule::Sum),
    ("repl_backlog_size", Rule::Sum),
    ("repl_backlog_histlen", Rule::Sum),
    // Cluster, Scripting Engines
    ("cluster_enabled", Rule::Fixed("0")),
    ("engines_total_*", Rule::Sum),
];

/// The rule of fields that `FIELDS` does not name, by section; `First` in all others.
const SECTIONS: &[(&str, Rule)] = &[
    ("Clients", Rule::Sum),
    ("Memory", Rule::Sum),
    ("Persistence", Rule::Max),
    ("Stats", Rule::Sum),
    ("CPU", Rule::Sum),
    ("Modules", Rule::Lines),
    ("Commandstats", Rule::List),
    ("Errorstats", Rule::List),
    // Percentiles of several servers cannot be merged into percentiles.
    ("Latencystats", Rule::Drop),
    ("Threads", Rule::List),
    ("Keyspace", Rule::List),
    ("Keysizes", Rule::List),
];

/// Parameters of CONFIG GET that are not the first shard's.
pub(super) const CONFIG: &[(&str, Rule)] =
    &[("maxmemory", Rule::SumOfLimits), ("databases", Rule::Min)];

fn clients_max(own: &Own) -> String {
    match own.clients_max {
        0 => String::new(),
        some => some.to_string(),
    }
}

/// The rule of a field in a section.
pub(super) fn rule_of(section: &[u8], field: &[u8]) -> Rule {
    if let Some((_, rule)) = FIELDS.iter().find(|(pattern, _)| fits(pattern, field)) {
        return *rule;
    }
    if field.ends_with(b"_human") {
        return Rule::Human;
    }
    let section = SECTIONS.iter().find(|(name, _)| name.as_bytes() == section);
    section.map_or(Rule::First, |(_, rule)| *rule)
}

/// Whether a name of `FIELDS` means this field.
fn fits(pattern: &str, field: &[u8]) -> bool {
    if let Some(prefix) = pattern.strip_suffix('*') {
        return field.starts_with(prefix.as_bytes());
    }
    match pattern.strip_suffix('#') {
        Some(prefix) => field
            .strip_prefix(prefix.as_bytes())
            .is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_digit)),
        None => field == pattern.as_bytes(),
    }
}
