//! One worker: a thread, its sockets, its engine, and the loop between them.
//!
//! Owns: the turn. Flow of one turn: wait -> read each ready socket once into one buffer -> the engine puts bytes into
//! outputs -> every link, then every client, with output is written once.
//!
//! Must stay true: no call in the loop waits for anything but `wait`; whatever the engine asks for is done before its next
//! input is given to it, so that both always mean the same connection by the same number.
//! Rejected: writing as soon as there is something to write: one call per request instead of one per turn.

use crate::limits::{
    ACCEPT_REPORT_MS, ACCEPT_RETRY_MS, LEAVING_MS, LINK_READS_PER_TURN, READ_BYTES, TICK_MS,
};
use crate::net::listen::{doors, Door, Listener};
use crate::net::poll::{End, Got, Peer, Ready, Sockets};
use crate::net::resolve::Resolver;
use crate::net::stream::{is_path, Stream};
use crate::net::tls::Tls;
use crate::routing::topology::Topology;
use crate::session::engine::{Action, Engine, Event, Level};
use crate::session::mail::Mail;
use mio::Waker;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a thread leaves for a worker.
#[derive(Debug)]
pub enum Letter {
    /// A client that was accepted for it at the door of that number, with the text that names its far end.
    Client(u16, Stream, String),
    /// From another worker's engine.
    Mail(Mail),
    /// The address of a shard's endpoint, for a link of that generation.
    Address(u32, u32, String, Result<SocketAddr, String>),
    /// Finish what is in flight, but not longer than this.
    Stop(Duration),
}

/// Where a worker's letters are left.
#[derive(Debug, Clone)]
pub struct Postbox {
    /// The letters.
    pub letters: Sender<Letter>,
    /// Makes it look.
    pub waker: Arc<Waker>,
}

impl Postbox {
    /// Leaves a letter. A worker that has ended needs none.
    pub fn leave(&self, letter: Letter) {
        if self.letters.send(letter).is_ok() {
            // A waker fails only when its counter is full, and then the worker is awake.
            let _ = self.waker.wake();
        }
    }
}

/// An event with its time.
#[derive(Debug, Clone)]
pub struct Report {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// What happened.
    pub event: Event,
}

/// Where events go.
#[derive(Debug, Clone)]
pub struct Reporter {
    /// Bounded; full when nobody fetches.
    pub reports: SyncSender<Report>,
    /// How many found it full.
    pub dropped: Arc<AtomicU64>,
}

impl Reporter {
    /// Never waits.
    pub fn report(&self, event: Event) {
        let unix_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        if self.reports.try_send(Report { unix_ms, event }).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// See the head of this file.
pub struct Worker {
    /// Everything but the sockets.
    pub engine: Engine,
    /// Its sockets.
    pub sockets: Sockets,
    /// Letters left for it.
    pub received: Receiver<Letter>,
    /// Every worker's, its own too.
    pub postboxes: Vec<Postbox>,
    /// Its number.
    pub number: usize,
    /// Looks names up.
    pub resolver: Resolver,
    /// Where events go.
    pub reporter: Reporter,
    /// When the process's clock began.
    pub start: Instant,
    pub(crate) topology: Arc<Topology>,
    pub(crate) tls: Arc<Tls>,
    /// Every listener, whoever accepts there.
    pub(crate) doors: Vec<Door>,
    /// Endpoints to which TCP keep-alive is wanted: by any keyspace, it harms no other.
    kept_alive: HashSet<String>,
    /// Links to an address of a name that are not connected yet: the name's endpoint and the address.
    pub(crate) dialled: HashMap<u32, (String, SocketAddr)>,
    buffer: Vec<u8>,
    /// Sockets that have more to read than one turn allows.
    again: VecDeque<Peer>,
    next_worker: usize,
    /// Doors with connections that were not accepted yet.
    pub(crate) crowded: Vec<u16>,
    pub(crate) accept_after: Instant,
    report_accept_after: Instant,
    next_tick: Instant,
    stop_by: Option<Instant>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// What a worker is made of.
#[derive(Debug)]
pub struct Parts {
    /// See `Worker`.
    pub engine: Engine,
    /// The same that the engine routes by.
    pub topology: Arc<Topology>,
    /// See `Worker`.
    pub sockets: Sockets,
    /// See `Worker`.
    pub received: Receiver<Letter>,
    /// See `Worker`.
    pub postboxes: Vec<Postbox>,
    /// See `Worker`.
    pub number: usize,
    /// See `Worker`.
    pub resolver: Resolver,
    /// See `Worker`.
    pub reporter: Reporter,
    /// See `Worker`.
    pub start: Instant,
    /// What connections with TLS are made with.
    pub tls: Arc<Tls>,
}

impl Worker {
    /// A worker that has not begun yet.
    pub fn new(parts: Parts) -> Self {
        let now = Instant::now();
        let kept_alive = parts
            .topology
            .shards()
            .filter(|(keyspace, _)| keyspace.tcp_keepalive)
            .map(|(_, shard)| shard.endpoint.clone())
            .collect();
        Self {
            doors: doors(&parts.topology),
            topology: parts.topology,
            tls: parts.tls,
            kept_alive,
            dialled: HashMap::new(),
            engine: parts.engine,
            sockets: parts.sockets,
            received: parts.received,
            postboxes: parts.postboxes,
            number: parts.number,
            resolver: parts.resolver,
            reporter: parts.reporter,
            start: parts.start,
            buffer: vec![0; READ_BYTES],
            again: VecDeque::new(),
            next_worker: 0,
            crowded: Vec::new(),
            accept_after: now,
            report_accept_after: now,
            next_tick: now,
            stop_by: None,
        }
    }

    /// Listens for all keyspaces; only the first worker does, and deals the clients out.
    pub fn listen(&mut self, listeners: Vec<Listener>) -> io::Result<()> {
        listeners
            .into_iter()
            .try_for_each(|listener| self.sockets.listen(listener))
    }

    /// Turns until it is told to stop. True when everything in flight was finished in time.
    pub fn run(&mut self) -> io::Result<bool> {
        let mut ready = Vec::with_capacity(1024);
        self.act();
        let mut now = Instant::now();
        loop {
            let timeout = if self.again.is_empty() && !self.accepts_on(now) {
                Duration::from_millis(TICK_MS as u64)
            } else {
                Duration::ZERO
            };
            self.sockets.wait(timeout, &mut ready)?;
            now = Instant::now();
            self.engine
                .set_now(now.duration_since(self.start).as_micros() as u64);
            self.turn(&ready, now);
            if let Some(stop_by) = self.stop_by {
                let is_done = self.engine.stop_is_done() && self.sockets.leaving() == 0;
                if is_done || now >= stop_by {
                    return Ok(self.engine.stop_is_done());
                }
            }
        }
    }

    fn turn(&mut self, ready: &[Ready], now: Instant) {
        for _ in 0..self.again.len() {
            if let Some(peer) = self.again.pop_front() {
                self.read(peer);
            }
        }
        for &ready in ready {
            match ready {
                Ready::Socket {
                    peer,
                    readable,
                    writable,
                } => {
                    if writable {
                        self.writable(peer);
                    }
                    if readable {
                        self.read(peer);
                    }
                }
                Ready::Listener(door) => self.crowded.push(door),
                Ready::Handshake(peer) => self.shake(peer),
                Ready::Mail => self.open_letters(),
            }
        }
        if !self.crowded.is_empty() && now >= self.accept_after {
            self.accept(now);
        }
        if now >= self.next_tick {
            self.next_tick = now + Duration::from_millis(TICK_MS as u64);
            self.engine.tick();
            self.act();
            self.end_late_handshakes(now);
            self.sockets.discard(now, &mut self.buffer);
        }
        self.write_all();
    }

    fn writable(&mut self, peer: Peer) {
        if let Peer::Link(link) = peer {
            match self.sockets.connected(peer) {
                Some(Ok(())) => {
                    self.dialled.remove(&link);
                    self.engine.link_connected(link);
                }
                Some(Err(error)) => self.engine.link_lost(link, &error.to_string()),
                None => {}
            }
            self.act();
        }
        self.write(peer);
    }

    pub(crate) fn read(&mut self, peer: Peer) {
        let may = match peer {
            Peer::Client(slot) => self.engine.reads_client(slot),
            Peer::Link(link) => self.engine.reads_link(link),
        };
        // What is not read now is read when the engine asks for it (`Action::ReadClient`, `ReadLink`).
        if !may {
            return self.look_for_end(peer);
        }
        if !self.sockets.is_readable(peer) {
            return;
        }
        let reads = if matches!(peer, Peer::Link(_)) {
            LINK_READS_PER_TURN
        } else {
            1
        };
        for _ in 0..reads {
            if self.read_once(peer) < self.buffer.len() {
                break;
            }
        }
        if self.sockets.is_readable(peer) {
            self.again.push_back(peer);
        }
        self.act();
    }

    /// Of a peer that is not read its end is noticed all the same: else what waits for a client that has left would be taken for
    /// it, and its place be kept.
    #[cold]
    fn look_for_end(&mut self, peer: Peer) {
        let Peer::Client(slot) = peer else {
            return;
        };
        match self.sockets.end_of(peer) {
            End::Unknown => return,
            End::Announced => self.engine.client_hung_up(slot),
            End::Broken => self.engine.client_lost(slot),
        }
        self.act();
    }

    /// One read, and what the engine makes of it; the bytes, or 0 when the peer must not be read again now.
    fn read_once(&mut self, peer: Peer) -> usize {
        let got = self.sockets.read(peer, &mut self.buffer);
        match (peer, got) {
            (_, Ok(Got::Nothing)) => {}
            (Peer::Client(slot), Ok(Got::Bytes(count))) => {
                self.engine.client_received(slot, &self.buffer[..count])
            }
            (Peer::Link(link), Ok(Got::Bytes(count))) => {
                self.engine.link_received(link, &self.buffer[..count]);
                if self.engine.reads_link(link) && self.engine.actions.is_empty() {
                    return count;
                }
            }
            (Peer::Client(slot), Ok(Got::End)) => self.engine.client_ended(slot),
            (Peer::Client(slot), Err(_)) => self.engine.client_lost(slot),
            (Peer::Link(link), Ok(Got::End)) => self.engine.link_ended(link),
            (Peer::Link(link), Err(error)) => self.engine.link_lost(link, &error.to_string()),
        }
        0
    }

    /// Does what the engine asked for.
    pub(crate) fn act(&mut self) {
        while !self.engine.actions.is_empty() {
            for action in std::mem::take(&mut self.engine.actions) {
                match action {
                    Action::Open(link) => self.connect(link),
                    Action::CloseLink(link) => self.close_link(link),
                    Action::CloseClient(slot) => self.sockets.remove(Peer::Client(slot)),
                    Action::LetClientGo(slot) => {
                        let until = Instant::now() + Duration::from_millis(LEAVING_MS as u64);
                        self.sockets.let_go(slot, until);
                    }
                    Action::ReadClient(slot) => self.read_again(Peer::Client(slot)),
                    Action::ReadLink(link) => self.read_again(Peer::Link(link)),
                    Action::Mail(worker, mail) => {
                        if let Some(postbox) = self.postboxes.get(worker) {
                            postbox.leave(Letter::Mail(mail));
                        }
                    }
                    Action::Event(event) => self.reporter.report(event),
                    Action::Fault { is_written, stops } => self.strike(is_written, stops),
                }
            }
        }
    }

    fn read_again(&mut self, peer: Peer) {
        if self.sockets.is_readable(peer) && !self.again.contains(&peer) {
            self.again.push_back(peer);
        }
    }

    fn connect(&mut self, link: u32) {
        let Some(endpoint) = self.engine.link_endpoint(link) else {
            return;
        };
        if is_path(&endpoint) {
            return self.begin(link, Stream::to_path(&endpoint));
        }
        if let Ok(address) = endpoint.parse() {
            return self.connect_to(link, &endpoint, address);
        }
        let generation = self.engine.link_generation(link);
        let Some(postbox) = self.postboxes.get(self.number).cloned() else {
            return;
        };
        let asked = endpoint.clone();
        let done = Box::new(move |address| {
            postbox.leave(Letter::Address(link, generation, asked, address))
        });
        self.resolver.ask(&endpoint, done);
    }

    fn connect_to_name(&mut self, link: u32, endpoint: String, address: SocketAddr) {
        // Before it is begun: what fails at once has to be told to the resolver too.
        self.dialled.insert(link, (endpoint.clone(), address));
        self.connect_to(link, &endpoint, address);
    }

    fn connect_to(&mut self, link: u32, endpoint: &str, address: SocketAddr) {
        let begun = Stream::to_address(address);
        // A socket without this option works; what is gone is then found by our own probes alone.
        match &begun {
            Ok(stream) if self.engine.is_own_link(link) => drop(stream.keep_alive_closely()),
            Ok(stream) if self.kept_alive.contains(endpoint) => drop(stream.keep_alive()),
            Ok(_) | Err(_) => {}
        }
        self.begin(link, begun);
    }

    fn begin(&mut self, link: u32, begun: io::Result<Stream>) {
        let added = begun.and_then(|stream| match self.session(link) {
            None => self.sockets.add(Peer::Link(link), stream, true),
            Some(session) => {
                let session = session.map_err(io::Error::other)?;
                self.sockets
                    .add_tls(Peer::Link(link), stream, session, Instant::now())
            }
        });
        if let Err(error) = added {
            self.engine.link_lost(link, &error.to_string());
        }
    }

    fn close_link(&mut self, link: u32) {
        self.sockets.remove(Peer::Link(link));
        if let Some((endpoint, address)) = self.dialled.remove(&link) {
            self.resolver.failed(endpoint, address);
        }
    }

    fn open_letters(&mut self) {
        while let Ok(letter) = self.received.try_recv() {
            match letter {
                Letter::Client(door, stream, peer) => self.admit(door, stream, peer),
                Letter::Mail(mail) => self.engine.mail(mail),
                Letter::Address(link, generation, endpoint, address) => {
                    if self.engine.link_generation(link) == generation {
                        match address {
                            Ok(address) => self.connect_to_name(link, endpoint, address),
                            Err(reason) => self.engine.link_lost(link, &reason),
                        }
                    }
                }
                Letter::Stop(within) => {
                    self.sockets.stop_listening();
                    self.crowded.clear();
                    self.stop_by = Some(Instant::now() + within);
                    self.engine.stop();
                }
            }
            self.act();
        }
    }

    fn accept(&mut self, now: Instant) {
        for door in std::mem::take(&mut self.crowded) {
            let mut is_crowded = true;
            for _ in 0..self.accepts(door, now) {
                match self.sockets.accept(door) {
                    Ok((stream, peer)) => self.deal(door, stream, peer),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        is_crowded = false;
                        break;
                    }
                    // The client gave up before it was its turn.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        self.accept_after = now + Duration::from_millis(ACCEPT_RETRY_MS as u64);
                        self.report_accept(&error, now);
                        break;
                    }
                }
            }
            if is_crowded && !self.crowded.contains(&door) {
                self.crowded.push(door);
            }
        }
    }

    /// Once a while is enough: it is tried again ten times a second.
    pub(crate) fn report_accept(&mut self, error: &io::Error, now: Instant) {
        if now < self.report_accept_after {
            return;
        }
        self.report_accept_after = now + Duration::from_millis(ACCEPT_REPORT_MS as u64);
        let fields = vec![
            ("reason", error.to_string()),
            ("retry_ms", ACCEPT_RETRY_MS.to_string()),
        ];
        self.reporter.report(Event {
            level: Level::Warning,
            name: "accept-failed",
            fields,
        });
    }

    /// Clients are dealt round: few long-lived ones are spread as evenly as many.
    fn deal(&mut self, door: u16, stream: Stream, peer: String) {
        let worker = self.next_worker % self.postboxes.len();
        self.next_worker = self.next_worker.wrapping_add(1);
        if worker == self.number {
            self.admit(door, stream, peer);
        } else {
            self.postboxes[worker].leave(Letter::Client(door, stream, peer));
        }
    }

    fn admit(&mut self, door: u16, stream: Stream, peer: String) {
        let Door {
            keyspace, is_tls, ..
        } = self.doors[door as usize];
        // A socket without this option works, only more slowly.
        let _ = stream.set_nodelay();
        if self.topology.keyspaces[keyspace as usize].tcp_keepalive {
            // As above.
            let _ = stream.keep_alive();
        }
        let local = stream.local_end();
        let slot = self.engine.client_connected(keyspace, peer, local);
        let session = is_tls.then(|| self.tls.accepted(keyspace as usize));
        let added = match session.flatten() {
            None => self.sockets.add(Peer::Client(slot), stream, false),
            Some(Ok(session)) => {
                self.sockets
                    .add_tls(Peer::Client(slot), stream, session, Instant::now())
            }
            Some(Err(error)) => Err(io::Error::other(error)),
        };
        if added.is_err() {
            self.engine.client_lost(slot);
        }
        self.act();
    }

    /// Writes what there is, links first. Writing may let clients go on, whose requests are written too.
    pub(crate) fn write_all(&mut self) {
        loop {
            if self.engine.tell_monitors() {
                self.act();
            }
            for link in std::mem::take(&mut self.engine.dirty_links) {
                self.write(Peer::Link(link));
            }
            for slot in std::mem::take(&mut self.engine.dirty_clients) {
                self.write(Peer::Client(slot));
            }
            if self.engine.dirty_links.is_empty() && self.engine.dirty_clients.is_empty() {
                return;
            }
        }
    }

    pub(crate) fn write(&mut self, peer: Peer) {
        loop {
            let output = match peer {
                Peer::Client(slot) => self.engine.client_output(slot),
                Peer::Link(link) => self.engine.link_output(link),
            };
            let Some(output) = output else { return };
            if output.is_empty() {
                break;
            }
            match self.sockets.write(peer, output.front()) {
                Ok(0) => return,
                Ok(count) => {
                    output.advance(count);
                    match peer {
                        Peer::Client(slot) => self.engine.client_written(slot, count),
                        Peer::Link(link) => self.engine.link_written(link, count),
                    }
                }
                Err(error) => {
                    match peer {
                        Peer::Client(slot) => self.engine.client_lost(slot),
                        Peer::Link(link) => self.engine.link_lost(link, &error.to_string()),
                    }
                    self.act();
                    return;
                }
            }
            if !self.engine.actions.is_empty() {
                self.act();
            }
        }
        if let Peer::Client(slot) = peer {
            self.engine.client_rests(slot);
        }
    }
}
