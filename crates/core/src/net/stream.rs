//! A connection over TCP or over a socket in the file system: what the two have in common.
//!
//! Owns: which of the two it is, how one is begun, its options, and the text that names its ends (as Redis writes it:
//! `host:port`, or `/path:0` on both ends of a socket in the file system). Nothing above asks which kind it has.
//!
//! Must stay true: beginning a connection never waits.
//! Rejected: a boxed trait object; there are two kinds, and reads and writes are on the path of every request.

use crate::limits::{
    KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES, KEEPALIVE_WAITING_IDLE_S,
    KEEPALIVE_WAITING_INTERVAL_S,
};
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// See the head of this file.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a socket in the file system.
    Unix(UnixStream),
}

/// True for the path of a socket; every other endpoint is `host:port`.
pub fn is_path(endpoint: &str) -> bool {
    endpoint.starts_with('/')
}

/// How the end of a socket in the file system is written.
pub fn path_end(path: &Path) -> String {
    format!("{}:0", path.display())
}

impl Stream {
    /// Begins a connection to an address.
    pub fn to_address(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(address).map(Self::Tcp)
    }

    /// Connects to a path: the kernel does it at once or refuses.
    pub fn to_path(path: &str) -> io::Result<Self> {
        match UnixStream::connect(path) {
            Ok(stream) => Ok(Self::Unix(stream)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::Error::new(
                error.kind(),
                "its socket has too many connections waiting to be accepted",
            )),
            Err(error) => Err(error),
        }
    }

    /// Bytes are sent as they come. Nothing to do for a path, which never holds any back.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }

    /// The kernel asks a silent peer whether it is still there. Nothing to do for a path, whose ends share a kernel.
    pub fn keep_alive(&self) -> io::Result<()> {
        self.ask_after(KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S)
    }

    /// The same, for a connection on which a request may wait for ever.
    pub fn keep_alive_closely(&self) -> io::Result<()> {
        self.ask_after(KEEPALIVE_WAITING_IDLE_S, KEEPALIVE_WAITING_INTERVAL_S)
    }

    fn ask_after(&self, idle_s: usize, interval_s: usize) -> io::Result<()> {
        let Self::Tcp(stream) = self else {
            return Ok(());
        };
        let times = TcpKeepalive::new()
            .with_time(Duration::from_secs(idle_s as u64))
            .with_interval(Duration::from_secs(interval_s as u64))
            .with_retries(KEEPALIVE_PROBES as u32);
        SockRef::from(stream).set_tcp_keepalive(&times)
    }

    /// Our end, as text; empty when the kernel does not tell.
    pub fn local_end(&self) -> String {
        match self {
            Self::Tcp(stream) => stream.local_addr().map(|end| end.to_string()).ok(),
            Self::Unix(stream) => stream
                .local_addr()
                .ok()
                .and_then(|end| end.as_pathname().map(path_end)),
        }
        .unwrap_or_default()
    }

    /// Fails with `NotConnected` as long as it is only begun.
    pub fn check_peer(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map(drop),
            Self::Unix(stream) => stream.peer_addr().map(drop),
        }
    }

    /// What went wrong in the background.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        }
    }

    /// Whether a connection that was begun is there; fails when it will not be.
    pub fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.take_error()? {
            return Err(error);
        }
        match self.check_peer() {
            Ok(()) => self.set_nodelay().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next byte, which stays where it is; None: the peer has ended.
    pub fn peek(&self) -> io::Result<Option<u8>> {
        let mut first = [0];
        match self {
            Self::Tcp(stream) => stream
                .peek(&mut first)
                .map(|count| (count > 0).then_some(first[0])),
            Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Ends our side, or both.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        }
    }
}

impl Read for Stream {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(parts),
            Self::Unix(stream) => stream.write_vectored(parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, what: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.register(registry, token, what),
            Self::Unix(stream) => stream.register(registry, token, what),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, what: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.reregister(registry, token, what),
            Self::Unix(stream) => stream.reregister(registry, token, what),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }
}
