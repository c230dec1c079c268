//! Listening sockets.
//!
//! Owns: how an address becomes a listener. Every error names the address, because a taken port is the first thing that
//! goes wrong for a new user.
//! Rejected: SO_REUSEPORT with a listener a worker. The kernel then deals few clients unevenly, and a second process on the
//! same port would go unnoticed.

use crate::limits::BACKLOG;
use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// Binds `host:port` and listens. The error names the address.
pub fn listen(address: &str) -> io::Result<TcpListener> {
    let named = |error: io::Error| match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), format!("{address}: {error}")),
    };
    let resolved = address.to_socket_addrs().map_err(named)?.next();
    let resolved = resolved.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("{address}: no such host"))
    })?;
    bind(resolved).map_err(named)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A port whose last connections are only being forgotten by the kernel is free.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG as i32)?;
    Ok(TcpListener::from_std(socket.into()))
}
