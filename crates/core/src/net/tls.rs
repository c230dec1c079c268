//! TLS of the whole process: what new connections are made with, and its renewal while it is in use.
//!
//! Owns: one table, shared by all workers, with a configuration for the clients and one for the servers of each keyspace
//! that wants them. Flow: `load` at the start -> a worker takes a `Session` for each new connection -> `reload` reads the
//! files again and swaps what could be read. Connections keep what they began with.
//!
//! Must stay true: a reload that fails changes nothing for its keyspace and side; handshakes with clients that are not
//! finished are counted over all workers, whatever way they end.
//! Rejected: watching the files. A certificate and its key are two files, and between the two changes they do not fit.

use crate::limits::TLS_HANDSHAKES_MAX;
use crate::net::tls_files::{of_clients, of_servers, server_name, FileError, Loaded};
use crate::net::tls_session::{Session, Stage};
use crate::routing::tls::ClientTls;
use crate::routing::topology::{Keyspace, Topology};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Which side of a keyspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Connections of clients.
    Clients,
    /// Connections to shards.
    Servers,
}

impl Side {
    /// As people are told it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Servers => "servers",
        }
    }
}

/// What one side of one keyspace uses.
#[derive(Debug, Clone)]
pub struct Status {
    /// Name of the keyspace.
    pub keyspace: String,
    /// Which side.
    pub side: Side,
    /// File of our certificate; empty: we show none.
    pub cert: String,
    /// When that expires, in seconds since 1970.
    pub expires: Option<u64>,
    /// Why it was not renewed, if it was not.
    pub problem: Option<FileError>,
}

#[derive(Debug)]
struct Slot<C>(RwLock<Loaded<C>>);

impl<C> Slot<C> {
    fn get(&self) -> Loaded<C> {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Loaded {
            config: Arc::clone(&held.config),
            expires: held.expires,
        }
    }

    /// Swaps it for what was read, if it could be.
    fn renew(&self, read: Result<Loaded<C>, FileError>) -> Option<FileError> {
        match read {
            Ok(fresh) => {
                *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                None
            }
            Err(error) => Some(error),
        }
    }
}

#[derive(Debug)]
struct Sides {
    clients: Option<Slot<ServerConfig>>,
    servers: Option<Slot<ClientConfig>>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Tls {
    /// In the topology's order.
    keyspaces: Vec<Sides>,
    unfinished: Arc<AtomicUsize>,
}

/// One handshake that is not finished; dropped when it is, or when its connection is closed.
#[derive(Debug)]
pub struct Unfinished(Arc<AtomicUsize>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tls {
    /// Reads everything that the topology names. The error names the keyspace.
    pub fn load(topology: &Topology) -> Result<Self, (String, Side, FileError)> {
        let mut keyspaces = Vec::with_capacity(topology.keyspaces.len());
        for keyspace in &topology.keyspaces {
            let failed = |side| move |error| (keyspace.name.clone(), side, error);
            let clients = keyspace.tls.as_ref().map(of_clients).transpose();
            let servers = keyspace.server_tls.as_ref().map(of_servers).transpose();
            keyspaces.push(Sides {
                clients: clients
                    .map_err(failed(Side::Clients))?
                    .map(|loaded| Slot(RwLock::new(loaded))),
                servers: servers
                    .map_err(failed(Side::Servers))?
                    .map(|loaded| Slot(RwLock::new(loaded))),
            });
        }
        Ok(Self {
            keyspaces,
            unfinished: Arc::default(),
        })
    }

    /// Reads every file again; what each side uses from now on, and why it was not renewed where that failed.
    pub fn reload(&self, topology: &Topology) -> Vec<Status> {
        self.statuses(topology, true)
    }

    /// What each side uses.
    pub fn status(&self, topology: &Topology) -> Vec<Status> {
        self.statuses(topology, false)
    }

    fn statuses(&self, topology: &Topology, renews: bool) -> Vec<Status> {
        let mut statuses = Vec::new();
        for (keyspace, sides) in topology.keyspaces.iter().zip(&self.keyspaces) {
            let mut status = |side, cert: &str, expires, problem| {
                statuses.push(Status {
                    keyspace: keyspace.name.clone(),
                    side,
                    cert: cert.to_string(),
                    expires,
                    problem,
                });
            };
            if let (Some(wish), Some(slot)) = (&keyspace.tls, &sides.clients) {
                let problem = renews.then(|| slot.renew(of_clients(wish))).flatten();
                status(Side::Clients, &wish.cert, slot.get().expires, problem);
            }
            if let (Some(wish), Some(slot)) = (&keyspace.server_tls, &sides.servers) {
                let problem = renews.then(|| slot.renew(of_servers(wish))).flatten();
                let cert = wish.identity.as_ref().map_or("", |(cert, _)| cert.as_str());
                status(Side::Servers, cert, slot.get().expires, problem);
            }
        }
        statuses
    }

    /// True when no further handshake with a client shall begin now.
    pub fn is_busy(&self) -> bool {
        self.unfinished.load(Ordering::Relaxed) >= TLS_HANDSHAKES_MAX
    }

    /// For a client that was accepted. None: this keyspace has no TLS.
    pub fn accepted(&self, keyspace: usize) -> Option<Result<Session, rustls::Error>> {
        let config = self.keyspaces.get(keyspace)?.clients.as_ref()?.get().config;
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        let unfinished = Unfinished(Arc::clone(&self.unfinished));
        let made = ServerConnection::new(config);
        Some(made.map(|made| Session::new(made.into(), Stage::Expecting, Some(unfinished))))
    }

    /// For a connection to a shard that is begun. None: this keyspace's shards have no TLS.
    pub fn begun(
        &self,
        number: usize,
        keyspace: &Keyspace,
        endpoint: &str,
    ) -> Option<Result<Session, String>> {
        let config = self.keyspaces.get(number)?.servers.as_ref()?.get().config;
        let wanted = keyspace.server_tls.as_ref()?.server_name.as_deref();
        let name = server_name(wanted.unwrap_or_else(|| host(endpoint)));
        Some(name.and_then(|name| {
            ClientConnection::new(config, name)
                .map(|made| Session::new(made.into(), Stage::Dialling, None))
                .map_err(|error| error.to_string())
        }))
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host(endpoint: &str) -> &str {
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Whether a keyspace's own listener speaks TLS, and not only one beside it.
pub fn is_whole(tls: Option<&ClientTls>) -> bool {
    tls.is_some_and(|wish| wish.listen.is_none())
}
