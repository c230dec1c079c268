//! Listening sockets, over TCP and in the file system.
//!
//! Owns: how a keyspace's address becomes a listener, and the file of a listener in the file system. Every error names
//! the address, because a taken port is the first thing that goes wrong for a new user.
//!
//! Must stay true: nobody can connect to a socket file before it has its permissions (they are set between bind and
//! listen; until then the kernel refuses everybody); a file that somebody serves, or that is no socket, is left alone;
//! the file is removed before its listener is closed: as long as that is open its inode is taken, so a file with
//! that inode is ours.
//! Rejected: SO_REUSEPORT with a listener a worker. The kernel then deals few clients unevenly; it is for those who run
//! several processes on one port, and set it, because a second process would go unnoticed otherwise. Changing the umask
//! around the bind: it belongs to the whole process, whose other threads make files too. A lock file beside the socket:
//! it would close the instant between "nobody serves it" and the removal of a stale file, and stay behind for ever.

use crate::net::stream::{is_path, path_end, Stream};
use crate::net::tls::is_whole;
use crate::routing::topology::{Keyspace, Topology};
use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// One listener of a topology: whose clients come there, and what they speak first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// The keyspace.
    pub keyspace: u16,
    /// They begin with a TLS handshake.
    pub is_tls: bool,
    /// Where it is.
    pub address: String,
}

/// Every listener: that of each keyspace in order, then those that keyspaces have for TLS beside their own.
pub fn doors(topology: &Topology) -> Vec<Door> {
    let of = |number: usize, is_tls, address: &str| Door {
        keyspace: number as u16,
        is_tls,
        address: address.to_string(),
    };
    let keyspaces = || topology.keyspaces.iter().enumerate();
    let own = keyspaces()
        .map(|(number, keyspace)| of(number, is_whole(keyspace.tls.as_ref()), &keyspace.listen));
    let beside = keyspaces().filter_map(|(number, keyspace)| {
        let listen = keyspace.tls.as_ref()?.listen.as_ref()?;
        Some(of(number, true, listen))
    });
    own.chain(beside).collect()
}

/// See the head of this file.
#[derive(Debug)]
pub enum Listener {
    /// At a port.
    Tcp(TcpListener),
    /// At a path.
    Unix {
        /// Before `socket`, because fields are dropped in their order.
        file: SocketFile,
        /// What accepts.
        socket: UnixListener,
    },
}

/// The file that a listener made; removed with it, unless somebody has put another in its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_path_buf(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // A file that cannot be removed is stale from now on, and replaced by whoever listens there next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Listener {
    /// Binds where a keyspace wants it and listens. The error names the address.
    pub fn bind(keyspace: &Keyspace) -> io::Result<Self> {
        Self::bind_at(keyspace, &keyspace.listen)
    }

    /// As `bind`, at another address with all else that the keyspace says of its listener.
    pub fn bind_at(keyspace: &Keyspace, place: &str) -> io::Result<Self> {
        let bound = if is_path(place) {
            at_path(keyspace, place)
        } else {
            at_port(keyspace, place).map(Self::Tcp)
        };
        bound.map_err(|error| match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), format!("{place}: {error}")),
        })
    }

    /// `host:port` as bound, or the path; and the port, 0 for a path.
    pub fn address(&self) -> io::Result<(String, u16)> {
        match self {
            Self::Tcp(socket) => socket
                .local_addr()
                .map(|address| (address.to_string(), address.port())),
            Self::Unix { file, .. } => Ok((file.path.display().to_string(), 0)),
        }
    }

    /// The next connection that waits, and the text that names its far end.
    pub fn accept(&self) -> io::Result<(Stream, String)> {
        match self {
            Self::Tcp(socket) => socket
                .accept()
                .map(|(stream, peer)| (Stream::Tcp(stream), peer.to_string())),
            // Clients have no name of their own there; as in Redis they are shown with that of the listener.
            Self::Unix { file, socket } => socket
                .accept()
                .map(|(stream, _)| (Stream::Unix(stream), path_end(&file.path))),
        }
    }
}

fn at_port(keyspace: &Keyspace, place: &str) -> io::Result<TcpListener> {
    let address = place.to_socket_addrs()?.next();
    let address: SocketAddr =
        address.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such host"))?;
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A port whose last connections are only being forgotten by the kernel is free.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(keyspace.reuse_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog(keyspace))?;
    Ok(TcpListener::from_std(socket.into()))
}

fn at_path(keyspace: &Keyspace, place: &str) -> io::Result<Listener> {
    let path = Path::new(place);
    let address = SockAddr::unix(path)?;
    clear_stale(path, &address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address)?;
    let file = SocketFile::of(path)?;
    if let Some(mode) = keyspace.listen_mode {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    socket.listen(backlog(keyspace))?;
    let socket = UnixListener::from_std(socket.into());
    Ok(Listener::Unix { file, socket })
}

/// Removes a socket file that nobody serves: a process that was killed leaves one. Any other stays, and bind refuses it.
fn clear_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is no socket",
        ));
    }
    let asked = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // One that is served, but has too many connections waiting, would make us wait.
    asked.set_nonblocking(true)?;
    match asked.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn backlog(keyspace: &Keyspace) -> i32 {
    i32::try_from(keyspace.backlog).unwrap_or(i32::MAX)
}

impl Source for Listener {
    fn register(&mut self, registry: &Registry, token: Token, what: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.register(registry, token, what),
            Self::Unix { socket, .. } => socket.register(registry, token, what),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, what: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.reregister(registry, token, what),
            Self::Unix { socket, .. } => socket.reregister(registry, token, what),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.deregister(registry),
            Self::Unix { socket, .. } => socket.deregister(registry),
        }
    }
}
