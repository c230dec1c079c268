//! Sockets and their readiness: the one place that knows how bytes get in and out of the kernel.
//!
//! Owns: the epoll instance and every socket of one worker, by the engine's numbers. The worker sees `Ready` values,
//! `read`, `write`, and nothing of epoll; another way of doing I/O (io_uring) would stand beside this file and offer the same.
//!
//! Flow: `wait` -> `Ready` -> `read` / `write`, which remember whether the kernel has more, so that edge-triggered readiness
//! is never lost and no call is made only to hear "would block".
//!
//! Must stay true: a registration is never changed after it was made (no epoll_ctl per request); a read that gave less
//! than was asked for has emptied the socket, unless the peer is known to have closed.
//! Rejected: level-triggered readiness with interest switched on and off, which costs Twemproxy 2.4 calls per request.

use crate::limits::LEAVING_MAX;
use crate::net::listen::Listener;
use crate::net::stream::Stream;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// A connection, by the engine's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Of a client.
    Client(u32),
    /// To a shard.
    Link(u32),
}

/// Something that can be done now.
#[derive(Debug, Clone, Copy)]
pub enum Ready {
    /// Connections wait at the listener of this keyspace.
    Listener(u16),
    /// Another thread has left something.
    Mail,
    /// A connection can be read, or written, or both.
    Socket {
        /// Which.
        peer: Peer,
        /// There may be something to read.
        readable: bool,
        /// There may be room to write.
        writable: bool,
    },
}

#[derive(Debug)]
struct Socket {
    stream: Stream,
    /// The kernel may have bytes (or an end, or an error) for us.
    readable: bool,
    /// The kernel may take bytes.
    writable: bool,
    /// The peer will send no more: reads go on until they say so.
    closing: bool,
    /// A connection that was begun.
    connecting: bool,
}

/// What a read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// So many bytes.
    Bytes(usize),
    /// Nothing at the moment.
    Nothing,
    /// The peer will send no more.
    End,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Sockets {
    poll: Poll,
    events: Events,
    listeners: Vec<Listener>,
    clients: Vec<Option<Socket>>,
    links: Vec<Option<Socket>>,
    /// Clients whose side we have shut, until when they may take their time.
    leaving: Vec<(Stream, Instant)>,
}

const KIND_SHIFT: u32 = 32;
const CLIENT: usize = 0;
const LINK: usize = 1;
const LISTENER: usize = 2;
const MAIL: usize = 3;

fn token(kind: usize, number: u32) -> Token {
    Token(kind << KIND_SHIFT | number as usize)
}

impl Sockets {
    /// No sockets yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            listeners: Vec::new(),
            clients: Vec::new(),
            links: Vec::new(),
            leaving: Vec::new(),
        })
    }

    /// What other threads wake `wait` with.
    pub fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), token(MAIL, 0))
    }

    /// Connections to this listener are reported for the next keyspace in turn.
    pub fn listen(&mut self, mut listener: Listener) -> io::Result<()> {
        let number = self.listeners.len() as u32;
        self.poll.registry().register(
            &mut listener,
            token(LISTENER, number),
            Interest::READABLE,
        )?;
        self.listeners.push(listener);
        Ok(())
    }

    /// Closes every listener.
    pub fn stop_listening(&mut self) {
        for mut listener in self.listeners.drain(..) {
            // It is closed by being dropped; that it could not be taken from the poll before does no harm.
            let _ = self.poll.registry().deregister(&mut listener);
        }
    }

    /// The next connection that waits at a keyspace's listener, and the text that names its far end.
    pub fn accept(&self, keyspace: u16) -> io::Result<(Stream, String)> {
        match self.listeners.get(keyspace as usize) {
            Some(listener) => listener.accept(),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Waits until something can be done, at most so long.
    pub fn wait(&mut self, timeout: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in &self.events {
            let Token(token) = event.token();
            let number = (token & (u32::MAX as usize)) as u32;
            let (peer, table) = match token >> KIND_SHIFT {
                CLIENT => (Peer::Client(number), &mut self.clients),
                LINK => (Peer::Link(number), &mut self.links),
                LISTENER => {
                    ready.push(Ready::Listener(number as u16));
                    continue;
                }
                _ => {
                    ready.push(Ready::Mail);
                    continue;
                }
            };
            let Some(Some(socket)) = table.get_mut(number as usize) else {
                continue;
            };
            socket.closing |= event.is_read_closed() || event.is_error();
            socket.readable |= event.is_readable() || socket.closing;
            let was_writable = socket.writable;
            socket.writable |= event.is_writable();
            let writable = socket.writable && (!was_writable || socket.connecting);
            ready.push(Ready::Socket {
                peer,
                readable: socket.readable,
                writable,
            });
        }
        Ok(())
    }

    fn table(&mut self, peer: Peer) -> (&mut Vec<Option<Socket>>, u32, usize) {
        match peer {
            Peer::Client(number) => (&mut self.clients, number, CLIENT),
            Peer::Link(number) => (&mut self.links, number, LINK),
        }
    }

    fn socket(&mut self, peer: Peer) -> Option<&mut Socket> {
        let (table, number, _) = self.table(peer);
        table.get_mut(number as usize)?.as_mut()
    }

    /// Takes a connection in; `connecting` when it is only begun.
    pub fn add(&mut self, peer: Peer, mut stream: Stream, connecting: bool) -> io::Result<()> {
        let (_, number, kind) = self.table(peer);
        self.poll.registry().register(
            &mut stream,
            token(kind, number),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let (table, number, _) = self.table(peer);
        let number = number as usize;
        if table.len() <= number {
            table.resize_with(number + 1, || None);
        }
        table[number] = Some(Socket {
            stream,
            readable: false,
            writable: !connecting,
            closing: false,
            connecting,
        });
        Ok(())
    }

    /// Closes a connection.
    pub fn remove(&mut self, peer: Peer) {
        let (table, number, _) = self.table(peer);
        if let Some(place) = table.get_mut(number as usize) {
            *place = None;
        }
    }

    /// Ends a client's connection without cutting off what was written: our side is shut, and what the client still sends
    /// is read and thrown away (`discard`) until it ends too. Closing at once would make the kernel answer with a reset,
    /// which destroys replies that the client has not read yet.
    pub fn let_go(&mut self, slot: u32, until: Instant) {
        let Some(Some(mut socket)) = self.clients.get_mut(slot as usize).map(Option::take) else {
            return;
        };
        let is_shut = socket.stream.shutdown(Shutdown::Write).is_ok();
        // It keeps its place in the poll until it is closed, under a number that may be another client's by then.
        if self.poll.registry().deregister(&mut socket.stream).is_ok()
            && is_shut
            && self.leaving.len() < LEAVING_MAX
        {
            self.leaving.push((socket.stream, until));
        }
    }

    /// Reads what leaving clients still send; closes those that have ended or had their time.
    pub fn discard(&mut self, now: Instant, buffer: &mut [u8]) {
        self.leaving.retain_mut(|(stream, until)| {
            // A few reads each time: one that sends without end shall not hold up the worker.
            for _ in 0..8 {
                match stream.read(buffer) {
                    Ok(0) => return false,
                    Ok(count) if count == buffer.len() => {}
                    Ok(_) => break,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return false,
                }
            }
            now < *until
        });
    }

    /// Clients that are leaving.
    pub fn leaving(&self) -> usize {
        self.leaving.len()
    }

    /// Whether a connection that was begun is there. None: not known yet.
    pub fn connected(&mut self, peer: Peer) -> Option<io::Result<()>> {
        let socket = self.socket(peer)?;
        if !socket.connecting {
            return None;
        }
        if let Ok(Some(error)) | Err(error) = socket.stream.take_error() {
            return Some(Err(error));
        }
        match socket.stream.check_peer() {
            Ok(()) => {
                socket.connecting = false;
                Some(socket.stream.set_nodelay())
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// True when a read may give something.
    pub fn is_readable(&mut self, peer: Peer) -> bool {
        self.socket(peer)
            .is_some_and(|socket| socket.readable && !socket.connecting)
    }

    /// Reads once.
    #[inline]
    pub fn read(&mut self, peer: Peer, buffer: &mut [u8]) -> io::Result<Got> {
        let Some(socket) = self.socket(peer) else {
            return Ok(Got::Nothing);
        };
        loop {
            return match socket.stream.read(buffer) {
                Ok(0) => {
                    socket.readable = false;
                    Ok(Got::End)
                }
                Ok(count) => {
                    socket.readable = count == buffer.len() || socket.closing;
                    Ok(Got::Bytes(count))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.readable = false;
                    Ok(Got::Nothing)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Writes once; 0 when the kernel takes nothing now (readiness is reported later).
    #[inline]
    pub fn write(&mut self, peer: Peer, bytes: &[u8]) -> io::Result<usize> {
        let Some(socket) = self.socket(peer) else {
            return Ok(0);
        };
        if !socket.writable {
            return Ok(0);
        }
        loop {
            return match socket.stream.write(bytes) {
                Ok(count) => {
                    socket.writable = count == bytes.len();
                    Ok(count)
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.writable = false;
                    Ok(0)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }
}
