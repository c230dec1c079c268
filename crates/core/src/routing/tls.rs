//! What a keyspace wants of TLS, on the side of its clients and on that of its shards.
//!
//! Owns: the wishes, as plain values: names of files, never what is in them. `net::tls` reads the files and makes of them
//! what a connection needs; so a private key is in one place only, and can be read again without a new topology.
//!
//! Must stay true: a wish that the core cannot fulfil is refused when the topology is built (`complaint`), not when the
//! first client comes.
//! Rejected: certificates in the topology. Every worker has a copy of it, and a change would need a new epoch.

/// Which clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// None is asked for one.
    Nobody,
    /// One that is shown must be good; none need be shown.
    WhoWants,
    /// Everybody.
    Everybody,
}

/// The oldest version of the protocol that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// What must be true of a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// It comes from one of the authorities, and names the server.
    Full,
    /// It comes from one of the authorities.
    Authority,
    /// Nothing.
    Nothing,
}

/// TLS of a keyspace's clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// `host:port` of a listener of its own; None: the keyspace's only listener speaks TLS.
    pub listen: Option<String>,
    /// File with our certificate and those between it and the authority.
    pub cert: String,
    /// File with its private key.
    pub key: String,
    /// File with the authorities that clients' certificates come from.
    pub client_ca: Option<String>,
    /// Who must show a certificate.
    pub client_auth: ClientAuth,
    /// Not older than this.
    pub min_version: MinVersion,
}

/// TLS of a keyspace's connections to its shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// File with the authorities that the servers' certificates come from. Needed unless nothing is verified.
    pub ca: Option<String>,
    /// Files with our certificate and its private key, for servers that want one.
    pub identity: Option<(String, String)>,
    /// The name that every server's certificate must have; None: the host in its endpoint.
    pub server_name: Option<String>,
    /// What is verified.
    pub verify: Verify,
    /// Not older than this.
    pub min_version: MinVersion,
}

impl ClientTls {
    /// What is wrong with it, if anything is. `listen` is where the keyspace listens.
    pub fn complaint(&self, listen: &str) -> Option<String> {
        if self.client_auth != ClientAuth::Nobody && self.client_ca.is_none() {
            return Some("clients' certificates cannot be verified without a client_ca".into());
        }
        let place = self.listen.as_deref().unwrap_or(listen);
        place
            .starts_with('/')
            .then(|| format!("TLS is for host:port, not for the socket {place}"))
    }
}

impl ServerTls {
    /// What is wrong with it, if anything is. `endpoints` are those of the keyspace's shards.
    pub fn complaint<'e>(&self, mut endpoints: impl Iterator<Item = &'e str>) -> Option<String> {
        if self.verify != Verify::Nothing && self.ca.is_none() {
            return Some("servers' certificates cannot be verified without a ca".into());
        }
        endpoints
            .find(|endpoint| endpoint.starts_with('/'))
            .map(|path| format!("TLS is for host:port, not for the socket {path}"))
    }
}
