//! One connection's TLS: the state machine between the socket's bytes and the engine's.
//!
//! Owns: the stages of a handshake, partial reads and writes, and the farewell. The socket's `Stream` is lent to every
//! call; readiness stays the business of `poll`, which is told by each call whether there may be more.
//!
//! Flow: `shake` until it says `Done` or fails -> `read` (kernel -> rustls -> the caller's buffer) and `write` (the caller's
//! bytes -> rustls -> kernel; what the kernel does not take waits in `pending`) -> `farewell`.
//!
//! Must stay true: a read leaves nothing decrypted behind without saying that there is more, because the kernel will not
//! say it again; bytes count as written only when the kernel has all that they became, so that the engine's account of a
//! slow reader, and its waiting for the last byte before a close, hold for TLS too.
//! Rejected: rustls' own buffer for what the kernel did not take: how much that is cannot be asked of it.

use crate::limits::{TLS_RECORD_MAX, TLS_WRITE_BYTES};
use crate::net::stream::Stream;
use crate::net::tls::Unfinished;
use crate::session::stats::CloseReason;
use rustls::{Connection, Error};
use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Ours to a shard; the socket is not connected yet.
    Dialling,
    /// A client's; nothing has come yet.
    Expecting,
    /// In the handshake.
    Shaking,
    /// In use.
    Open,
}

/// What a step of a handshake led to.
#[derive(Debug)]
pub enum Step {
    /// Nothing can be done before the socket is ready again.
    Waiting,
    /// The socket of a connection to a shard is connected; to be called again.
    Reached,
    /// The connection can be used, and may have been sent something already.
    Done,
    /// It has failed, and is to be closed.
    Failed(Failure),
    /// A client speaks something else than TLS.
    Plain,
}

/// Why a handshake failed.
#[derive(Debug)]
pub struct Failure {
    /// The kind, for a client.
    pub reason: CloseReason,
    /// What there is to know beyond that; may be empty.
    pub detail: String,
}

/// What a read gave: bytes, whether the peer has ended, whether the kernel or we may have more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Decrypted bytes.
    pub bytes: usize,
    /// The peer will send no more. Never together with bytes.
    pub is_end: bool,
    /// It is worth another read.
    pub has_more: bool,
    /// The kernel has nothing at all, not even an end.
    pub is_dry: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    stage: Stage,
    /// Encrypted, and not taken by the kernel yet.
    pending: Vec<u8>,
    /// So many of the caller's bytes are in `pending`, at least in part.
    owed: usize,
    unfinished: Option<Unfinished>,
    /// Its number among all of the process.
    number: u64,
}

/// The type of the first record of a handshake.
const HANDSHAKE: u8 = 0x16;

impl Session {
    /// One that has not begun.
    pub fn new(connection: Connection, stage: Stage, unfinished: Option<Unfinished>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            connection,
            stage,
            pending: Vec::new(),
            owed: 0,
            unfinished,
        }
    }

    /// Different from every other's, so that a time-out does not hit the next one in the same place.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// True once it is in use.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// The only way in which the stage changes.
    fn move_to(&mut self, stage: Stage) {
        self.stage = stage;
        if stage == Stage::Open {
            self.unfinished = None;
        }
    }

    /// Goes on with the handshake as far as the socket allows.
    pub fn shake(&mut self, stream: &mut Stream) -> Step {
        loop {
            match self.stage {
                Stage::Dialling => {
                    return match stream.is_connected() {
                        Ok(true) => {
                            self.move_to(Stage::Shaking);
                            Step::Reached
                        }
                        Ok(false) => Step::Waiting,
                        Err(error) => failed(CloseReason::TlsFailed, error.to_string()),
                    };
                }
                Stage::Expecting => match stream.peek() {
                    Ok(Some(HANDSHAKE)) => self.move_to(Stage::Shaking),
                    Ok(Some(_)) => return Step::Plain,
                    // Somebody looked whether the port is open.
                    Ok(None) => return failed(CloseReason::ClientClosed, String::new()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Waiting,
                    Err(error) => return failed(CloseReason::ClientError, error.to_string()),
                },
                Stage::Shaking => match self.shake_on(stream) {
                    Ok(true) => self.move_to(Stage::Open),
                    Ok(false) => return Step::Waiting,
                    Err(failure) => return Step::Failed(failure),
                },
                Stage::Open => return Step::Done,
            }
        }
    }

    /// Writes and reads until the handshake is done (true) or the socket has no more.
    fn shake_on(&mut self, stream: &mut Stream) -> Result<bool, Failure> {
        let broken = |error: io::Error| Failure {
            reason: CloseReason::TlsFailed,
            detail: error.to_string(),
        };
        loop {
            self.flush(stream).map_err(broken)?;
            if !self.connection.is_handshaking() {
                return Ok(true);
            }
            match self.connection.read_tls(stream) {
                Ok(0) => {
                    return Err(Failure {
                        reason: CloseReason::TlsFailed,
                        detail: "it left in the middle of the handshake".into(),
                    })
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(error)),
            }
            if let Err(error) = self.connection.process_new_packets() {
                // The alert tells the peer why; one that cannot be written has nobody to read it.
                let _ = self.flush(stream);
                return Err(Failure {
                    reason: reason_of(&error),
                    detail: words_of(&error),
                });
            }
        }
    }

    /// Reads from the kernel once, and decrypts all of it into `buffer`. `cipher` is room for what the kernel has.
    pub fn read(
        &mut self,
        stream: &mut Stream,
        cipher: &mut [u8],
        buffer: &mut [u8],
    ) -> io::Result<Taken> {
        let mut taken = self.drain(buffer)?;
        // An incomplete record that came before may give as much as a whole one.
        let room = buffer.len().saturating_sub(taken.bytes + TLS_RECORD_MAX);
        let room = room.min(cipher.len());
        if taken.is_end || room < TLS_RECORD_MAX {
            taken.has_more = true;
            return Ok(ended_later(taken));
        }
        let count = loop {
            match stream.read(&mut cipher[..room]) {
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    taken.is_dry = true;
                    return Ok(taken);
                }
                Err(error) => return Err(error),
            }
        };
        if count == 0 {
            // Many clients of Redis end without a word. What that could cut off is an incomplete request or reply, and
            // those are noticed as such.
            taken.is_end = true;
            return Ok(ended_later(taken));
        }
        let mut rest = &cipher[..count];
        while !rest.is_empty() && !taken.is_end {
            if self.connection.read_tls(&mut rest)? == 0 {
                break;
            }
            if let Err(error) = self.connection.process_new_packets() {
                let _ = self.flush(stream);
                let text = format!("TLS: {}", words_of(&error));
                return Err(io::Error::new(ErrorKind::InvalidData, text));
            }
            let more = self.drain(&mut buffer[taken.bytes..])?;
            taken.bytes += more.bytes;
            taken.is_end |= more.is_end;
        }
        if self.connection.wants_write() {
            // A new key was agreed on. An error will be met again by whoever writes.
            let _ = self.flush(stream);
        }
        taken.has_more = count == room;
        Ok(ended_later(taken))
    }

    /// Takes what is decrypted already.
    fn drain(&mut self, buffer: &mut [u8]) -> io::Result<Taken> {
        let mut taken = Taken {
            bytes: 0,
            is_end: false,
            has_more: false,
            is_dry: false,
        };
        while taken.bytes < buffer.len() {
            match self.connection.reader().read(&mut buffer[taken.bytes..]) {
                Ok(0) => {
                    taken.is_end = true;
                    break;
                }
                Ok(count) => taken.bytes += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    taken.is_end = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Encrypts and writes. So many of the bytes are with the kernel now; the others must be given again, first. The
    /// second value is true when the kernel takes no more at the moment.
    pub fn write(&mut self, stream: &mut Stream, bytes: &[u8]) -> io::Result<(usize, bool)> {
        if self.owed == 0 {
            let count = bytes.len().min(TLS_WRITE_BYTES);
            self.owed = self.connection.writer().write(&bytes[..count])?;
        }
        let left = self.flush(stream)?;
        // Encrypted they are longer, never shorter.
        let done = self.owed.saturating_sub(left);
        self.owed -= done;
        Ok((done, left > 0))
    }

    /// Writes what is encrypted; the bytes that the kernel did not take.
    pub fn flush(&mut self, stream: &mut Stream) -> io::Result<usize> {
        if !self.pending.is_empty() {
            let mut gone = 0;
            let outcome = loop {
                match stream.write(&self.pending[gone..]) {
                    Ok(count) => gone += count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => break Err(error),
                }
                if gone == self.pending.len() {
                    break Ok(());
                }
            };
            if gone == self.pending.len() {
                self.pending = Vec::new();
            } else {
                self.pending.drain(..gone);
            }
            match outcome {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Err(_) => return self.put_by(),
                Ok(()) => {}
            }
        }
        while self.connection.wants_write() {
            match self.connection.write_tls(stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.put_by(),
                Err(error) => return Err(error),
            }
        }
        Ok(0)
    }

    /// Takes what rustls has encrypted into `pending`, where it can be counted.
    fn put_by(&mut self) -> io::Result<usize> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.pending)?;
        }
        Ok(self.pending.len())
    }

    /// Tells the peer that nothing more will come, as far as the kernel takes it.
    pub fn farewell(&mut self, stream: &mut Stream) {
        if self.is_open() {
            self.connection.send_close_notify();
            // Nobody is left to be told of an error.
            let _ = self.flush(stream);
        }
    }
}

/// An end that came together with bytes is told by the next read.
fn ended_later(mut taken: Taken) -> Taken {
    if taken.bytes > 0 && taken.is_end {
        taken.is_end = false;
        taken.has_more = true;
    }
    taken
}

fn failed(reason: CloseReason, detail: String) -> Step {
    Step::Failed(Failure { reason, detail })
}

fn reason_of(error: &Error) -> CloseReason {
    match error {
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => {
            CloseReason::TlsCertificate
        }
        _ => CloseReason::TlsFailed,
    }
}

fn words_of(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => format!("the peer refuses: {alert:?}"),
        Error::NoCertificatesPresented => "it showed no certificate".into(),
        Error::InvalidMessage(_) => "what came is not TLS".into(),
        other => other.to_string(),
    }
}
