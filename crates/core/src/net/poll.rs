//! Sockets and their readiness: the one place that knows how bytes get in and out of the kernel.
//!
//! Owns: the epoll instance and every socket of one worker, by the engine's numbers. The worker sees `Ready` values,
//! `read`, `write`, and nothing of epoll; another way of doing I/O (io_uring) would stand beside this file and offer the same.
//!
//! Flow: `wait` -> `Ready` -> `read` / `write`, which remember whether the kernel has more, so that edge-triggered readiness
//! is never lost and no call is made only to hear "would block". A socket with TLS has its `Session` beside it, in a box: one
//! that has none pays for that with a comparison. It is `connecting` until its handshake is done (`Ready::Handshake` ->
//! `shake`), so nobody reads or writes it before.
//!
//! Must stay true: a registration is never changed after it was made (no epoll_ctl per request); a read that gave less
//! than was asked for has emptied the socket, unless the peer is known to have closed.
//! Rejected: level-triggered readiness with interest switched on and off, which costs Twemproxy 2.4 calls per request.

use crate::limits::{LEAVING_MAX, READ_BYTES, TLS_HANDSHAKE_MS_MAX};
use crate::net::listen::Listener;
use crate::net::stream::Stream;
use crate::net::tls_session::{Session, Step, Taken};
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
    /// Connections wait at the listener of this number.
    Listener(u16),
    /// Another thread has left something.
    Mail,
    /// A handshake may go on.
    Handshake(Peer),
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

/// What is known of a peer's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing.
    Unknown,
    /// It has said that it will send no more; what it sent before may not have been read.
    Announced,
    /// The connection is gone.
    Broken,
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
    /// It takes nothing any more either: the connection is gone.
    broken: bool,
    /// A connection that was begun, or whose handshake is not done.
    connecting: bool,
    /// Its TLS, where it has any.
    tls: Option<Box<Session>>,
}

/// A client in a handshake.
#[derive(Debug)]
struct Shaking {
    slot: u32,
    /// Which of those that had this slot.
    number: u64,
    until: Instant,
}

impl Socket {
    /// Notes what a read of TLS said of readiness.
    fn got(&mut self, taken: Taken) -> Got {
        self.readable = !taken.is_end && (taken.has_more || self.closing && !taken.is_dry);
        match taken.bytes {
            0 if taken.is_end => Got::End,
            0 => Got::Nothing,
            count => Got::Bytes(count),
        }
    }

    #[cold]
    fn write_tls(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) if !self.connecting => {
                let (count, is_full) = tls.write(&mut self.stream, bytes)?;
                self.writable = !is_full;
                Ok(count)
            }
            _ => Ok(0),
        }
    }

    fn farewell(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.farewell(&mut self.stream);
        }
    }
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
    /// Clients in a handshake, and some that have finished it since the last look.
    shaking: Vec<Shaking>,
    /// What the kernel has for a socket with TLS; empty before the first one.
    cipher: Vec<u8>,
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
            shaking: Vec::new(),
            cipher: Vec::new(),
        })
    }

    /// What other threads wake `wait` with.
    pub fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), token(MAIL, 0))
    }

    /// Takes a listener in, under the next number.
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

    /// The next connection that waits at a listener, and the text that names its far end.
    pub fn accept(&self, listener: u16) -> io::Result<(Stream, String)> {
        match self.listeners.get(listener as usize) {
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
            socket.broken |= event.is_write_closed() || event.is_error();
            socket.readable |= event.is_readable() || socket.closing;
            if let Some(tls) = &mut socket.tls {
                if socket.connecting {
                    socket.writable |= event.is_writable();
                    ready.push(Ready::Handshake(peer));
                    continue;
                }
                if event.is_writable() {
                    // What is encrypted goes first, also when there is nothing more to encrypt. An error is met again.
                    let _ = tls.flush(&mut socket.stream);
                }
            }
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
    pub fn add(&mut self, peer: Peer, stream: Stream, connecting: bool) -> io::Result<()> {
        self.add_with(peer, stream, connecting, None)
    }

    /// As `add`, for a connection that begins with a handshake, which a client must finish in time.
    pub fn add_tls(
        &mut self,
        peer: Peer,
        stream: Stream,
        session: Session,
        now: Instant,
    ) -> io::Result<()> {
        self.cipher.resize(READ_BYTES, 0);
        if let Peer::Client(slot) = peer {
            let until = now + Duration::from_millis(TLS_HANDSHAKE_MS_MAX as u64);
            let number = session.number();
            self.shaking.push(Shaking {
                slot,
                number,
                until,
            });
        }
        self.add_with(peer, stream, true, Some(Box::new(session)))
    }

    fn add_with(
        &mut self,
        peer: Peer,
        mut stream: Stream,
        connecting: bool,
        tls: Option<Box<Session>>,
    ) -> io::Result<()> {
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
            broken: false,
            connecting,
            tls,
        });
        Ok(())
    }

    /// Closes a connection.
    pub fn remove(&mut self, peer: Peer) {
        let (table, number, _) = self.table(peer);
        if let Some(place) = table.get_mut(number as usize) {
            if let Some(mut socket) = place.take() {
                socket.farewell();
            }
        }
    }

    /// Goes on with a handshake.
    pub fn shake(&mut self, peer: Peer) -> Step {
        let Some(socket) = self.socket(peer) else {
            return Step::Waiting;
        };
        let Some(tls) = &mut socket.tls else {
            return Step::Waiting;
        };
        let step = tls.shake(&mut socket.stream);
        match step {
            Step::Done => {
                socket.connecting = false;
                // What came after the handshake may be with us already.
                socket.readable = true;
                socket.writable = true;
            }
            Step::Plain => {
                socket.tls = None;
                socket.connecting = false;
                socket.writable = true;
            }
            Step::Waiting | Step::Reached | Step::Failed(_) => {}
        }
        step
    }

    /// Clients whose handshake takes too long. They are still there.
    pub fn late_handshakes(&mut self, now: Instant) -> Vec<u32> {
        let mut late = Vec::new();
        let clients = &self.clients;
        self.shaking.retain(|one| {
            let socket = clients.get(one.slot as usize).and_then(Option::as_ref);
            let session = socket.and_then(|socket| socket.tls.as_deref());
            let is_same = session.is_some_and(|tls| !tls.is_open() && tls.number() == one.number);
            if is_same && now >= one.until {
                late.push(one.slot);
            }
            is_same && now < one.until
        });
        late
    }

    /// Ends a client's connection without cutting off what was written: our side is shut, and what the client still sends
    /// is read and thrown away (`discard`) until it ends too. Closing at once would make the kernel answer with a reset,
    /// which destroys replies that the client has not read yet.
    pub fn let_go(&mut self, slot: u32, until: Instant) {
        let Some(Some(mut socket)) = self.clients.get_mut(slot as usize).map(Option::take) else {
            return;
        };
        socket.farewell();
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
        match socket.stream.is_connected() {
            Ok(false) => None,
            Ok(true) => {
                socket.connecting = false;
                Some(Ok(()))
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// True when a read may give something.
    pub fn is_readable(&mut self, peer: Peer) -> bool {
        self.socket(peer)
            .is_some_and(|socket| socket.readable && !socket.connecting)
    }

    /// What is known of a peer's end without reading up to it.
    pub fn end_of(&mut self, peer: Peer) -> End {
        match self.socket(peer) {
            Some(socket) if socket.broken && !socket.connecting => End::Broken,
            Some(socket) if socket.closing && !socket.connecting => End::Announced,
            Some(_) | None => End::Unknown,
        }
    }

    /// Reads once.
    #[inline]
    pub fn read(&mut self, peer: Peer, buffer: &mut [u8]) -> io::Result<Got> {
        let Some(socket) = self.socket(peer) else {
            return Ok(Got::Nothing);
        };
        if socket.tls.is_some() {
            return self.read_tls(peer, buffer);
        }
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

    #[cold]
    fn read_tls(&mut self, peer: Peer, buffer: &mut [u8]) -> io::Result<Got> {
        let mut cipher = std::mem::take(&mut self.cipher);
        let mut got = Ok(Got::Nothing);
        if let Some(socket) = self.socket(peer) {
            if let Some(tls) = &mut socket.tls {
                let taken = tls.read(&mut socket.stream, &mut cipher, buffer);
                got = taken.map(|taken| socket.got(taken));
            }
        }
        self.cipher = cipher;
        got
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
        if socket.tls.is_some() {
            return socket.write_tls(bytes);
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
