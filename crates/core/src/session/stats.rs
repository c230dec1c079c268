//! Counters.
//!
//! Owns: every metric of the data plane, declared once (name, kind, help, labels), and the cells that one worker counts
//! in. Prometheus, INFO and `docs/reference.md` derive from `METRICS`.
//!
//! Must stay true: a cell is written by its own worker only, so counting is a plain load and store; readers of other
//! threads see each value whole, if not all at the same instant.
//! Rejected: shared counters with locked adds (some 20 cycles each, and cache lines that wander between cores).

use crate::routing::topology::Topology;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Kind of a metric, as Prometheus has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations of time.
    Histogram,
}

/// What a metric's values are kept by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One value a keyspace.
    Keyspace,
    /// One value a shard.
    Shard,
    /// One value a reason of closing a client.
    CloseReason,
}

/// A metric's declaration.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// As Prometheus shows it.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// What it is kept by.
    pub scope: Scope,
    /// What it means.
    pub help: &'static str,
}

impl Scope {
    /// Names of its labels.
    pub fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Keyspace => &["keyspace"],
            Self::Shard => &["keyspace", "shard"],
            Self::CloseReason => &["reason"],
        }
    }
}

macro_rules! metrics {
    ($($group:ident($scope:ident) { $($variant:ident $kind:ident $name:literal $help:literal;)* })*) => {
        $(
            #[doc = concat!("Cells kept per ", stringify!($scope), ".")]
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum $group { $(#[doc = $help] $variant,)* }
            impl $group {
                /// Every cell, in order.
                pub const ALL: &'static [$group] = &[$($group::$variant,)*];
            }
        )*
        /// Every metric but the histogram, group by group in the order of the cells.
        pub const METRICS: &[Metric] = &[$($(Metric { name: $name, kind: Kind::$kind, scope: Scope::$scope, help: $help },)*)*
            Metric { name: "shoal_clients_closed_total", kind: Kind::Counter, scope: Scope::CloseReason, help: "Clients whose connection ended, by reason." },
            Metric { name: "shoal_shard_latency_seconds", kind: Kind::Histogram, scope: Scope::Shard, help: "Time from sending a request to a shard until its reply had come; without requests that wait." },
        ];
    };
}

metrics! {
    PerKeyspace(Keyspace) {
        Clients Gauge "shoal_clients_connected" "Clients connected.";
        Accepted Counter "shoal_clients_accepted_total" "Clients accepted.";
        Requests Counter "shoal_requests_total" "Requests read from clients.";
        Refused Counter "shoal_refused_total" "Requests answered with an error of shoal's own.";
        Split Counter "shoal_split_total" "Requests split over several shards.";
        Local Counter "shoal_local_total" "Requests answered by shoal itself.";
        BytesIn Counter "shoal_client_received_bytes_total" "Bytes read from clients.";
        BytesOut Counter "shoal_client_sent_bytes_total" "Bytes written to clients.";
        Fragments Counter "shoal_fragments_total" "Fragments that split requests were sent as.";
        Ended Counter "shoal_clients_ended_total" "Clients that closed their connection.";
        Broken Counter "shoal_clients_broken_total" "Clients whose connection broke.";
        EjectionsRefused Counter "shoal_ejections_refused_total" "Times that a shard failed and stayed in, since ejected_max shards were out.";
        Transactions Counter "shoal_transactions_total" "EXECs of transactions.";
        TransactionsAborted Counter "shoal_transactions_aborted_total" "EXECs that executed nothing: an error while queueing, a changed key, keys on several shards, a shard that is down.";
        TransactionsSplit Counter "shoal_transactions_split_total" "EXECs whose keys were on several shards, and which each of them executed its part of (transactions = \"per-shard\").";
        PutBack Counter "shoal_elements_put_back_total" "Elements of lists and sorted sets that were taken for a client which had left by then, and were put back.";
        LoginsFailed Counter "shoal_logins_failed_total" "AUTH and HELLO with an unknown user, a wrong password, or a user who is switched off.";
        DeniedCommands Counter "shoal_denied_commands_total" "Requests refused because their user may not use the command.";
        DeniedKeys Counter "shoal_denied_keys_total" "Requests refused because their user may not use one of the keys so.";
        DeniedChannels Counter "shoal_denied_channels_total" "Requests refused because their user may not use one of the channels.";
        TlsHandshakes Counter "shoal_tls_handshakes_total" "TLS handshakes with clients that were finished.";
        Slow Counter "shoal_slow_requests_total" "Requests that went into the slow log.";
        Subscribers Gauge "shoal_subscribers" "Clients that have subscribed to something.";
        Subscribing Gauge "shoal_subscribing" "Requests to subscribe, or to end that, which wait for the shards.";
        Messages Counter "shoal_messages_total" "Published messages given to clients, each counted for each of them.";
        ScriptsMended Counter "shoal_scripts_mended_total" "Times a script or a library of functions was loaded into a shard that had not seen it.";
        Operations Counter "shoal_cross_shard_operations_total" "Operations across shards that were done.";
        OperationsUndone Counter "shoal_cross_shard_undone_total" "Operations across shards that were not done, and whose client was told so.";
        OperationsUnknown Counter "shoal_cross_shard_unknown_total" "Operations across shards whose client was told that the outcome is not known.";
        OperationsRepeated Counter "shoal_cross_shard_repeated_total" "Times an operation across shards was begun again, because others had its keys.";
        OperationsRecovered Counter "shoal_cross_shard_recovered_total" "Operations across shards that were finished or undone from their records.";
        Held Counter "shoal_cross_shard_held_total" "Requests that waited because an operation across shards had a key of theirs.";
        Tracking Gauge "shoal_clients_tracking" "Clients that have asked to be told when what they read changes (CLIENT TRACKING).";
    }
    PerShard(Shard) {
        Sent Counter "shoal_shard_requests_total" "Requests sent to the shard.";
        Errors Counter "shoal_shard_errors_total" "Error replies of the shard.";
        Failed Counter "shoal_shard_failed_total" "Requests that failed because the shard could not be reached or its connection was lost.";
        ShardBytesOut Counter "shoal_shard_sent_bytes_total" "Bytes written to the shard.";
        ShardBytesIn Counter "shoal_shard_received_bytes_total" "Bytes read from the shard.";
        Connections Gauge "shoal_shard_connections" "Connections to the shard.";
        Connects Counter "shoal_shard_connects_total" "Connections to the shard that were begun.";
        Losses Counter "shoal_shard_losses_total" "Connections to the shard that were lost or could not be made.";
        Timeouts Counter "shoal_shard_timeouts_total" "Connections to the shard that were given up because an answer did not come in time.";
        Eofs Counter "shoal_shard_eofs_total" "Connections that the shard closed.";
        TlsFailures Counter "shoal_shard_tls_failures_total" "TLS handshakes with the shard that failed.";
        Ejections Counter "shoal_shard_ejections_total" "Times that the shard was ejected.";
        Readmissions Counter "shoal_shard_readmissions_total" "Times that the shard had all of its keys back.";
        Ejected Gauge "shoal_shard_ejected" "1 while the shard is ejected.";
        Share Gauge "shoal_shard_share_sixteenths" "How many sixteenths of its keys the shard takes: 16 unless it is ejected or coming back.";
        EjectedAt Gauge "shoal_shard_ejected_at_ms" "When the shard was last ejected, in milliseconds since 1970; 0: never.";
        InFlight Gauge "shoal_shard_in_flight" "Requests sent to the shard that have no reply yet.";
        Unheard Gauge "shoal_shard_unheard" "Workers with subscribers that do not hear what is published on the shard.";
        Evicting Gauge "shoal_shard_evicting" "1 if the shard evicts keys of any kind when its memory is full.";
        Up Gauge "shoal_shard_up" "Workers that have the shard up.";
    }
}

/// Why a client's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// It closed the connection.
    ClientClosed,
    /// The connection broke.
    ClientError,
    /// It said QUIT.
    Quit,
    /// It sent something that is not RESP.
    ProtocolError,
    /// It spoke HTTP: a browser that was made to.
    Http,
    /// CLIENT KILL.
    Killed,
    /// It did not read its replies: for a minute, or while others waited behind them.
    OutputStalled,
    /// It took published messages more slowly than they came.
    SubscriberTooSlow,
    /// A shard does not let shoal listen any more to a channel that it had subscribed to.
    SubscriptionForbidden,
    /// Replies waiting for clients took too much memory, and it had the most.
    OutputMemory,
    /// A monitor took what it is shown more slowly than it came.
    MonitorTooSlow,
    /// Incomplete requests took too much memory.
    RequestMemory,
    /// No further byte of an incomplete request came.
    RequestIdle,
    /// The keyspace had `max_clients` clients.
    MaxClients,
    /// A shard was lost in the middle of a reply that had been passed on in part.
    ReplyCut,
    /// It sent something that is not TLS to a listener for TLS.
    PlainOnTls,
    /// It began a TLS handshake at a listener that speaks none.
    TlsOnPlain,
    /// Its TLS handshake took too long.
    TlsTimeout,
    /// It showed no certificate where one is wanted, or one that is not good.
    TlsCertificate,
    /// Its TLS handshake failed for another reason: it does not trust our certificate, or speaks no version that we do.
    TlsFailed,
    /// shoal stopped.
    Stopping,
}

impl CloseReason {
    /// All, in the order of the cells.
    pub const ALL: &'static [CloseReason] = &[
        Self::ClientClosed,
        Self::ClientError,
        Self::Quit,
        Self::ProtocolError,
        Self::Http,
        Self::Killed,
        Self::OutputStalled,
        Self::SubscriberTooSlow,
        Self::SubscriptionForbidden,
        Self::OutputMemory,
        Self::MonitorTooSlow,
        Self::RequestMemory,
        Self::RequestIdle,
        Self::MaxClients,
        Self::ReplyCut,
        Self::PlainOnTls,
        Self::TlsOnPlain,
        Self::TlsTimeout,
        Self::TlsCertificate,
        Self::TlsFailed,
        Self::Stopping,
    ];

    /// As logs and metrics show it.
    pub fn text(self) -> &'static str {
        match self {
            Self::ClientClosed => "client-closed",
            Self::ClientError => "client-error",
            Self::Quit => "quit",
            Self::ProtocolError => "protocol-error",
            Self::Http => "http",
            Self::Killed => "killed",
            Self::OutputStalled => "output-stalled",
            Self::SubscriberTooSlow => "subscriber-too-slow",
            Self::SubscriptionForbidden => "subscription-forbidden",
            Self::OutputMemory => "output-memory",
            Self::MonitorTooSlow => "monitor-too-slow",
            Self::RequestMemory => "request-memory",
            Self::RequestIdle => "request-idle",
            Self::MaxClients => "max-clients",
            Self::ReplyCut => "reply-cut",
            Self::PlainOnTls => "plain-on-tls",
            Self::TlsOnPlain => "tls-on-plain",
            Self::TlsTimeout => "tls-timeout",
            Self::TlsCertificate => "tls-certificate",
            Self::TlsFailed => "tls-failed",
            Self::Stopping => "stopping",
        }
    }

    /// Whether the one who connected ended it in the usual way.
    pub fn is_ordinary(self) -> bool {
        matches!(self, Self::ClientClosed | Self::Quit | Self::Stopping)
    }
}

/// Buckets of a histogram, the last one unbounded.
pub const BUCKETS: usize = 21;

/// Upper bounds of the buckets but the last, in microseconds: powers of two from 32 us to 16.8 s.
pub const BOUNDS_US: [u64; BUCKETS - 1] = {
    let mut bounds = [0; BUCKETS - 1];
    let mut index = 0;
    while index < BUCKETS - 1 {
        bounds[index] = 32 << index;
        index += 1;
    }
    bounds
};

/// Bucket of an observation.
#[inline]
pub fn bucket(us: u64) -> usize {
    // ceil(log2(us / 32)): an observation equal to a bound belongs to that bound's bucket.
    let above = us.saturating_sub(1) >> 5;
    ((u64::BITS - above.leading_zeros()) as usize).min(BUCKETS - 1)
}

/// Cells of one shard in one worker.
#[derive(Debug, Default)]
pub struct ShardCells {
    cells: [AtomicU64; PerShard::ALL.len()],
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
    /// Why it is down. Written when a connection is lost, read when somebody asks: never on the path of a request.
    reason: Mutex<String>,
}

/// Cells of one worker.
#[derive(Debug)]
pub struct Stats {
    keyspaces: Vec<[AtomicU64; PerKeyspace::ALL.len()]>,
    /// Numbered through the topology.
    pub shards: Vec<ShardCells>,
    closed: [AtomicU64; CloseReason::ALL.len()],
    /// Milliseconds of the worker's clock at its last turn; tells the living from the stuck.
    pub turn_ms: AtomicU64,
}

#[inline]
fn add(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
}

impl Stats {
    /// All zero.
    pub fn new(topology: &Topology) -> Self {
        Self {
            keyspaces: topology
                .keyspaces
                .iter()
                .map(|_| std::array::from_fn(|_| AtomicU64::new(0)))
                .collect(),
            shards: topology.shards().map(|_| ShardCells::default()).collect(),
            closed: Default::default(),
            turn_ms: AtomicU64::new(0),
        }
    }

    /// Adds to a keyspace's cell; `by` may be negative for a gauge.
    #[inline]
    pub fn keyspace(&self, keyspace: usize, cell: PerKeyspace, by: i64) {
        add(&self.keyspaces[keyspace][cell as usize], by as u64);
    }

    /// Adds to a shard's cell; `by` may be negative for a gauge.
    #[inline]
    pub fn shard(&self, shard: usize, cell: PerShard, by: i64) {
        add(&self.shards[shard].cells[cell as usize], by as u64);
    }

    /// Sets a gauge of a shard.
    pub fn set_shard(&self, shard: usize, cell: PerShard, value: u64) {
        self.shards[shard].cells[cell as usize].store(value, Relaxed);
    }

    /// Says why a shard is down; empty: it is not.
    pub fn set_reason(&self, shard: usize, reason: &str) {
        let mut held = self.shards[shard]
            .reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        reason.clone_into(&mut held);
    }

    /// Why a shard is down.
    pub fn reason(&self, shard: usize) -> String {
        self.shards[shard]
            .reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// One reply after so many microseconds.
    #[inline]
    pub fn latency(&self, shard: usize, us: u64) {
        let cells = &self.shards[shard];
        add(&cells.buckets[bucket(us)], 1);
        add(&cells.sum_us, us);
    }

    /// One client less.
    pub fn closed(&self, reason: CloseReason) {
        add(&self.closed[reason as usize], 1);
    }

    /// A keyspace's cell.
    pub fn of_keyspace(&self, keyspace: usize, cell: PerKeyspace) -> u64 {
        self.keyspaces[keyspace][cell as usize].load(Relaxed)
    }

    /// A shard's cell.
    pub fn of_shard(&self, shard: usize, cell: PerShard) -> u64 {
        self.shards[shard].cells[cell as usize].load(Relaxed)
    }

    /// Clients closed for a reason.
    pub fn of_closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize].load(Relaxed)
    }

    /// A shard's latencies: counts per bucket (not cumulative) and their sum in microseconds.
    pub fn of_latency(&self, shard: usize) -> ([u64; BUCKETS], u64) {
        let cells = &self.shards[shard];
        (
            std::array::from_fn(|index| cells.buckets[index].load(Relaxed)),
            cells.sum_us.load(Relaxed),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_lies_within_its_bucket() {
        for us in (0..2000).chain([16_777_215, 16_777_216, 16_777_217, u64::MAX]) {
            let at = bucket(us);
            assert!(
                at == BUCKETS - 1 || us <= BOUNDS_US[at],
                "{us} is above the bound of bucket {at}"
            );
            assert!(
                at == 0 || us > BOUNDS_US[at - 1],
                "{us} belongs to a lower bucket than {at}"
            );
        }
    }
}
