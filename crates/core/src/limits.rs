//! Every bound of the data plane, with its unit and its reason.
//!
//! Owns: the numbers. Nothing else in the core may invent one. `LIMITS` lists them for `docs/reference.md` (a test keeps
//! that complete); the assertions at the end say how they depend on each other.
//!
//! Rejected: making each of them a setting. A bound that nobody has needed to move is not worth a line of configuration;
//! those that depend on a deployment (clients, time-outs, workers) are settings, and their ceilings are here.

/// One bound, as it is shown to people.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// The constant's name.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// What it counts.
    pub unit: &'static str,
    /// Why it is what it is.
    pub reason: &'static str,
}

macro_rules! limits {
    ($($name:ident = $value:expr, $unit:literal, $reason:literal;)*) => {
        $(#[doc = concat!($reason, " (", $unit, ")")] pub const $name: usize = $value;)*
        /// All bounds, in the order of this file.
        pub const LIMITS: &[Limit] = &[$(Limit { name: stringify!($name), value: $name as u64, unit: $unit, reason: $reason },)*];
    };
}

limits! {
    // Requests.
    REQUEST_ARGS_MAX = 1024 * 1024, "arguments", "One request's arguments; an index of 8 bytes is kept for each while it is scanned.";
    REQUEST_ARGS_UNAUTHENTICATED_MAX = 10, "arguments", "As Redis: who has not shown a password gets no memory.";
    BULK_UNAUTHENTICATED_MAX = 16 * 1024, "bytes", "As Redis: one argument of a client that has not shown a password.";
    BULK_MAX = 512 * 1024 * 1024, "bytes", "One argument, as Redis' proto-max-bulk-len.";
    REQUEST_BYTES_MAX = 1024 * 1024 * 1024, "bytes", "One request as a whole, as Redis' client-query-buffer-limit.";
    REQUEST_BYTES_TOTAL_MAX = 2 * 1024 * 1024 * 1024, "bytes", "Incomplete requests of all clients of one worker together; past it the client whose request grows is closed.";
    INLINE_MAX = 64 * 1024, "bytes", "One inline request or one length line, as Redis.";
    REQUEST_IDLE_MS_MAX = 300_000, "milliseconds", "A request of which no further byte arrives for so long will not be finished: its client is closed.";
    KEYS_IN_ERROR_MAX = 3, "keys", "An error names so many keys and their slots; more would not help anybody.";
    SETTINGS_MAX = 512, "settings", "One CONFIG SET; servers have some two hundred, and take each once.";
    SORT_PATTERNS_MAX = 32, "patterns", "BY and GET patterns of one SORT over several shards; affinity rules are tried on each.";
    SHARDS_IN_ERROR_MAX = 8, "shards", "An error about a request to every shard names so many of those that failed, and of those that did it.";
    TEXT_IN_ERROR_MAX = 128, "bytes", "So much of a client's own text is repeated in an error.";
    // Reading and writing.
    READ_BYTES = 64 * 1024, "bytes", "One read; one such buffer a worker. Larger ones were not faster, and cost cache.";
    BUFFER_KEPT_MAX = 64 * 1024, "bytes", "A buffer that grew past this in a burst is given back instead of kept.";
    LINK_BUFFER_KEPT_MAX = 1024 * 1024, "bytes", "As BUFFER_KEPT_MAX, for what a connection to a shard writes in one turn; given back when the connection rests.";
    LINK_READS_PER_TURN = 8, "reads", "A shard that fills the read buffer is read again at once, so that a reply is not written in two pieces; this often at most.";
    BUFFERS_KEPT_MAX = 64, "buffers", "Spare buffers of one worker; more are given back.";
    CHUNK_MOVED_MIN = 64 * 1024, "bytes", "A request or reply from this size on is moved from buffer to buffer, not copied.";
    // Replies.
    WINDOW_MIN = 16, "requests", "So many requests of a new client may be in flight; doubled, up to IN_FLIGHT_MAX, whenever it has taken the replies to half of them.";
    IN_FLIGHT_MAX = 1024, "requests", "Requests of one client without a reply; further ones are not read until half of them are answered. How many a client may have depends on how it reads.";
    OUTPUT_HIGH = 1024 * 1024, "bytes", "With so much reply waiting for a client it is not read, until half of it has been written.";
    OUTPUT_HARD = 32 * 1024 * 1024, "bytes", "With so much reply waiting for one client the connection that brings more of it is not read, until the client reads on.";
    OUTPUT_STALL_MS = 1_000, "milliseconds", "So long in all may clients that do not take their replies hold up others on one connection; then the one that does is closed.";
    OUTPUT_IDLE_MS = 60_000, "milliseconds", "A client with more than OUTPUT_HIGH waiting that takes not one byte for so long is closed.";
    SUBSCRIBER_OUTPUT_HARD = 32 * 1024 * 1024, "bytes", "With so much waiting for a client that has subscribed, a further message closes it: Redis' client-output-buffer-limit for pubsub.";
    SUBSCRIBER_OUTPUT_SOFT = 8 * 1024 * 1024, "bytes", "So much may wait for such a client for SUBSCRIBER_SLOW_MS, as there.";
    SUBSCRIBER_SLOW_MS = 60_000, "milliseconds", "A client that has subscribed and has more than SUBSCRIBER_OUTPUT_SOFT waiting for so long is closed.";
    SUBSCRIPTIONS_MAX = 1024 * 1024, "subscriptions", "Channels and patterns of all clients of one worker, each counted for each client.";
    SUBSCRIPTION_BYTES_MAX = 64 * 1024 * 1024, "bytes", "The names of all different channels and patterns of one worker.";
    SUBSCRIPTIONS_PER_REQUEST = 512, "names", "A shard is asked for so many at a time.";
    FEED_RETRY_MS_MAX = 2_000, "milliseconds", "The longest wait before a connection for published messages is made again to a shard that is up; the first is RECONNECT_MS_MIN.";
    OUTPUT_TOTAL_MAX = 1024 * 1024 * 1024, "bytes", "Replies waiting for clients with more than OUTPUT_HIGH, in one worker; past it the one with the most is closed.";
    MONITOR_BYTES_MAX = 32 * 1024 * 1024, "bytes", "What one monitor is shown and has not taken, on its way between workers too; past it the monitor is closed.";
    TEXT_LINE_MAX = 2_046, "bytes", "One line of a memcached client, but for get and gets: servers close a connection with more than 2048 bytes and no line end.";
    TEXT_KEYS_LINE_MAX = 1024 * 1024, "bytes", "One line of a memcached client that asks for keys (get, gets).";
    TEXT_KEY_MAX = 250, "bytes", "One key of memcached, as servers bound it.";
    TEXT_VALUE_MAX = 512 * 1024 * 1024, "bytes", "One value of memcached; servers' own bound (`-I`, 1 MiB unless set) is lower.";
    REPLY_LINE_MAX = 64 * 1024, "bytes", "One line of a shard's reply (status, error, length); longer ones are not RESP.";
    EARLY_SMALL_MAX = 1024, "bytes", "A reply up to this size that came before its turn is kept in a buffer with others.";
    EARLY_SMALL_TOTAL_MAX = 64 * 1024, "bytes", "That buffer, for one client; it is emptied before it is filled again.";
    HEADS_KEPT = 4_096, "requests", "The beginnings of so many requests are kept by each worker, for its slow log: 1 MiB.";
    HEAD_BYTES = 240, "bytes", "One of them.";
    HEADS_RESCUED_MAX = 1_024, "requests", "Those that still wait when their place is needed are kept apart, so many at most.";
    SLOWLOG_RESCUE_PER_LINK = 16, "requests", "Of each connection the oldest so many are: the slow one is among the first.";
    SLOWLOG_ENTRIES_MAX = 10_000, "entries", "slowlog_max_len of a keyspace; each worker has as many.";
    SLOWLOG_ENTRIES_DEFAULT = 128, "entries", "slowlog_max_len unless it is set: Redis' default.";
    SLOWLOG_US_DEFAULT = 10_000, "microseconds", "slowlog_log_slower_than unless it is set: Redis' default.";
    SLOWLOG_ARGS_MAX = 32, "arguments", "As Redis: arguments of an entry of the slow log.";
    SLOWLOG_ARG_BYTES_MAX = 128, "bytes", "As Redis: of one of them.";
    LATENCY_SAMPLES_MAX = 160, "samples", "As Redis: of LATENCY HISTORY.";
    GATHER_BYTES_MAX = 512 * 1024 * 1024, "bytes", "Replies of several shards held for one request, until they are merged.";
    SCAN_SHARDS_PER_CALL = 64, "shards", "So many shards are asked one after the other for one reply to SCAN, while it has fewer keys than COUNT.";
    SCAN_BYTES_MAX = 64 * 1024, "bytes", "With so many bytes of keys a reply to SCAN is given, however few keys they are.";
    GATHER_TOTAL_MAX = 1024 * 1024 * 1024, "bytes", "The same for all requests of one worker; the one that goes past it gets an error.";
    NAMED_COPY_MAX = 16 * 1024, "bytes", "A script call up to this size is kept until its reply, so that NOSCRIPT can be mended.";
    TRANSACTION_COMMANDS_MAX = 1024 * 1024, "commands", "Commands between MULTI and EXEC.";
    TRANSACTION_BYTES_MAX = 512 * 1024 * 1024, "bytes", "The same; all transactions of one worker together count against REQUEST_BYTES_TOTAL_MAX.";
    // Connections to shards.
    SHARDS_MAX = 4096, "shards", "Shards of one keyspace; a SCAN cursor keeps 12 bits for them.";
    KEYSPACES_MAX = 256, "keyspaces", "Listeners of one process.";
    DATABASES = 16, "databases", "Databases that SELECT accepts: the servers' default.";
    DATABASE_MAX = 255, "number", "The database in which the clients of a keyspace may begin; those past DATABASES cannot be selected.";
    LINK_OUT_HIGH = 4 * 1024 * 1024, "bytes", "With so much waiting for a shard, clients that add to it are not read until half of it has been written.";
    LINK_QUEUE_HIGH = 65_536, "requests", "With so many requests unanswered on one connection, clients that add to it are not read.";
    CONNECTIONS_MAX = 64, "connections", "Connections of one worker to each shard, for each database and protocol, that a keyspace may ask for.";
    EXCLUSIVE_LINKS_MAX = 10_000, "connections", "Connections of one worker that serve one request or one client alone (WAIT, WATCH, blocking commands, tracking).";
    BLOCKED_INCOMING_HIGH = 1024 * 1024, "bytes", "A client that waits is read so far, so that its end is noticed at once.";
    PUT_BACK_BYTES_MAX = 64 * 1024 * 1024, "bytes", "What was taken for a client that has left is put back up to this size; it has to be held for that.";
    OWN_LINKS_IDLE_MAX = 16, "connections", "Such connections to one shard that are kept for the next client that needs one.";
    TRACKING_PREFIXES_MAX = 1_024, "prefixes", "Prefixes of one client that is told of all keys (CLIENT TRACKING BCAST); each shard is told them on every connection.";
    TRACKING_PREFIX_BYTES_MAX = 64 * 1024, "bytes", "The same together.";
    PUSH_BYTES_MAX = 513 * 1024 * 1024, "bytes", "One message that a shard sends unasked: a published value may be as long as any other, and has a channel.";
    CONNECT_MS_MAX = 2_000, "milliseconds", "A shard that does not accept a connection for so long is down.";
    RECONNECT_MS_MIN = 50, "milliseconds", "The first wait before a shard is tried again; doubled each time, in a cache once eject_after failures are seen.";
    RECONNECT_MS_MAX = 2_000, "milliseconds", "The longest wait before a shard is tried again; each wait is shortened by up to half, at random.";
    GREETING_BYTES_MAX = 8 * 1024 * 1024, "bytes", "A shard's answer to what a new connection is told first; it tells all keys that operations across shards have at the moment.";
    GREETING_MS_MAX = 5_000, "milliseconds", "A shard that has not answered that for so long is down, whatever it sends; so is one that has not finished a TLS handshake.";
    RETRY_AFTER_MS_MAX = 3_600_000, "milliseconds", "A shard that fails while its keys come back stays out twice as long each time, up to this.";
    READMIT_STEPS = 16, "steps", "The keys of a readmitted shard come back in so many steps.";
    PROBE_MS = 1_000, "milliseconds", "An idle connection to a shard is sent a PING so often, unless probe_interval_ms says otherwise.";
    PROBE_TIMEOUT_MS = 5_000, "milliseconds", "A shard that does not answer a PING for so long is down.";
    LINK_IDLE_MS_MAX = 60_000, "milliseconds", "A connection for another database or protocol that nobody used for so long is closed.";
    // Scripts, rules, names.
    SCRIPTS_MAX = 4_096, "scripts", "Scripts remembered in order to mend NOSCRIPT; the oldest is forgotten.";
    SCRIPT_BYTES_MAX = 256 * 1024, "bytes", "A longer script is not remembered.";
    SCRIPT_BYTES_TOTAL_MAX = 32 * 1024 * 1024, "bytes", "All remembered scripts of one worker.";
    AFFINITY_RULES_MAX = 64, "rules", "Affinity rules of one keyspace; each costs time on every key.";
    AFFINITY_PATTERN_MAX = 512, "bytes", "One affinity rule.";
    AFFINITY_KEY_BYTES_MAX = 1_024, "bytes", "So much of a key is shown to affinity rules.";
    AFFINITY_PROGRAM_BYTES_MAX = 1024 * 1024, "bytes", "One compiled affinity rule, and its cache in each worker.";
    ACL_BYTES_MAX = 64 * 1024, "bytes", "The rules of one user.";
    ACL_RULES_MAX = 4_096, "rules", "The same, in words; a selector in parentheses counts as one.";
    ACL_LOG_ENTRIES_MAX = 128, "entries", "ACL LOG of one keyspace, in each worker: the servers' acllog-max-len.";
    ACL_LOG_TEXT_MAX = 512, "bytes", "A key, channel or user's name in ACL LOG; the rest is cut off.";
    ACL_LOG_GROUP_MS = 60_000, "milliseconds", "The same refusal within so long is one entry of ACL LOG that counts.";
    CLIENT_NAME_MAX = 1_024, "bytes", "A client's name, library name or library version.";
    // The process.
    CLIENTS_DEFAULT = 10_000, "clients", "Clients of one keyspace unless its max_clients says otherwise: Redis' default.";
    WORKERS_MAX = 64, "threads", "Workers of one process.";
    BACKLOG = 1_024, "connections", "Connections that wait to be accepted; the kernel lowers it to its own bound.";
    KEEPALIVE_IDLE_S = 300, "seconds", "With tcp_keepalive, a peer that was silent for so long is asked whether it is there: Redis' tcp-keepalive.";
    KEEPALIVE_INTERVAL_S = 100, "seconds", "It is asked again so often: a third of that, as Redis does.";
    KEEPALIVE_WAITING_IDLE_S = 15, "seconds", "The same on a connection to a shard on which a client may wait for ever: nothing else would find out that the shard's host is gone.";
    KEEPALIVE_WAITING_INTERVAL_S = 5, "seconds", "And how often it is asked again.";
    KEEPALIVE_PROBES = 3, "questions", "So many without an answer, and the kernel gives the connection up.";
    ACCEPTS_PER_TURN = 64, "connections", "Accepted at one go, so that a storm of connections does not stop requests.";
    LEAVING_MS = 1_000, "milliseconds", "A client that we have finished with may go on sending for so long before its connection is closed.";
    LEAVING_MAX = 1_024, "clients", "Such clients of one worker; further ones are closed at once.";
    TLS_HANDSHAKE_MS_MAX = 10_000, "milliseconds", "A TLS handshake with a client; then the connection is closed. A slow line needs two or three round trips, and a busy client its time between them.";
    TLS_HANDSHAKES_MAX = 1_024, "connections", "TLS handshakes with clients that are not finished, in the whole process; further connections wait to be accepted.";
    TLS_ACCEPTS_PER_TURN = 16, "connections", "As ACCEPTS_PER_TURN where clients speak TLS: a handshake costs up to a millisecond.";
    TLS_RECORD_MAX = 18 * 1024, "bytes", "One encrypted record with its head; room for what one may hold is kept while reading.";
    TLS_WRITE_BYTES = 64 * 1024, "bytes", "Encrypted at one go; what the kernel does not take of it is kept until it does.";
    TLS_FILE_BYTES_MAX = 4 * 1024 * 1024, "bytes", "A file with certificates or a key. The authorities of a whole system take a quarter of a megabyte.";
    ACCEPT_RETRY_MS = 100, "milliseconds", "Accepting rests so long when the process is out of file descriptors.";
    ACCEPT_REPORT_MS = 10_000, "milliseconds", "That is logged so often.";
    EVENTS_KEPT_MAX = 4_096, "events", "Events (log lines) not yet fetched; further ones are counted and dropped.";
    PAUSE_MS_MAX = 604_800_000, "milliseconds", "CLIENT PAUSE: a week; a pause of everything also holds what would end it.";
    // Operations across shards. The times only keep things moving; nothing that is promised rests on them.
    CROSS_SHARD_RUNNING_MAX = 64, "operations", "Operations across shards of one process and keyspace that run at once; further ones wait their turn.";
    CROSS_SHARD_WAITING_MAX = 4_096, "operations", "Such operations that wait; further ones are refused.";
    CROSS_SHARD_SHARDS_MAX = 64, "shards", "One operation across shards; each costs a connection while it runs.";
    CROSS_SHARD_KEYS_MAX = 10_000, "keys", "One operation across shards; each shard holds a record of its keys.";
    CROSS_SHARD_GATHER_BYTES_MAX = 8 * 1024 * 1024, "bytes", "Values of one shard that an operation may bring to another; to dump and restore so much holds up both for some 200 ms.";
    CROSS_SHARD_ACK_MS = 1_000, "milliseconds", "Another proxy that listens has so long to hold back what an operation claims; then the shard takes it off its list and ends its connections.";
    CROSS_SHARD_PREPARE_MS = 1_000, "milliseconds", "A shard has so long for a step before COMMIT; then the operation is given up.";
    CROSS_SHARD_APPLY_RETRY_MS = 50, "milliseconds", "A shard that could not take its new values is given them again after so long, then after twice that, up to sixteen times.";
    CROSS_SHARD_PARK_MS_MAX = 3_000, "milliseconds", "A request for a key that an operation has waits so long at most.";
    CROSS_SHARD_RECOVER_MS = 2_000, "milliseconds", "So old is a record of somebody else's operation before it is looked after.";
    CROSS_SHARD_SCAN_MS = 1_000, "milliseconds", "Each shard's records are looked at so often.";
    CROSS_SHARD_POLL_MS = 100, "milliseconds", "The same while something is held back for a record there: what ended meanwhile is noticed.";
    CROSS_SHARD_CONTROL_MS = 100, "milliseconds", "A control connection that was lost is made again after so long at the soonest.";
    CROSS_SHARD_LOCK_MS = 5_000, "milliseconds", "An operation waits so long at most for its keys, and for what was sent before to be answered; then it is not done.";
    CROSS_SHARD_DOUBT_TICKS = 30, "ticks", "A worker that holds keys back for so long asks whether their operation is still about.";
    CROSS_SHARD_TRIES = 20, "tries", "An operation that meets those of other proxies is begun again so often.";
    PUBLISH_HOLD_MS_MAX = 100, "milliseconds", "A PUBLISH waits so long at most for subscriptions that were asked for before it.";
    TICK_MS = 100, "milliseconds", "Time-outs are looked at so often.";
}

const _: () = {
    assert!(BULK_MAX <= REQUEST_BYTES_MAX && REQUEST_BYTES_MAX <= REQUEST_BYTES_TOTAL_MAX);
    assert!(
        REQUEST_BYTES_MAX < u32::MAX as usize,
        "argument positions are 32 bits"
    );
    assert!(OUTPUT_HIGH < OUTPUT_HARD && OUTPUT_HARD < OUTPUT_TOTAL_MAX);
    assert!(
        0 < WINDOW_MIN && WINDOW_MIN <= IN_FLIGHT_MAX && IN_FLIGHT_MAX <= u16::MAX as usize / 2
    );
    assert!(
        IN_FLIGHT_MAX * EARLY_SMALL_MAX < u32::MAX as usize,
        "positions of early replies are 32 bits"
    );
    assert!(OUTPUT_HIGH < SUBSCRIBER_OUTPUT_SOFT);
    assert!(SUBSCRIBER_OUTPUT_SOFT < SUBSCRIBER_OUTPUT_HARD);
    assert!(BULK_UNAUTHENTICATED_MAX <= BULK_MAX);
    assert!(SHARDS_MAX <= 1 << 12, "twelve bits of a SCAN cursor");
    assert!(RECONNECT_MS_MIN <= RECONNECT_MS_MAX);
    assert!(INLINE_MAX <= READ_BYTES);
    assert!(TLS_RECORD_MAX * 2 <= READ_BYTES);
    assert!(TEXT_LINE_MAX + TEXT_VALUE_MAX < REQUEST_BYTES_MAX);
    assert!(TICK_MS <= OUTPUT_STALL_MS && TICK_MS <= CONNECT_MS_MAX);
    assert!(
        0 < READMIT_STEPS && READMIT_STEPS <= 16,
        "steps are told by four bits of a hash"
    );
    assert!(HEADS_KEPT < u16::MAX as usize && HEAD_BYTES <= u8::MAX as usize);
    assert!(DATABASES <= 256, "a database number is 8 bits");
};
