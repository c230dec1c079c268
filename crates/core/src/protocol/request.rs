//! Scanning requests: where one begins and ends, and where its arguments are.
//!
//! Owns: `RequestScanner`, which walks over multibulk requests in place and remembers where it stopped, so that a
//! request that arrives in a thousand pieces is walked over once, not a thousand times.
//!
//! Flow: bytes that begin at a request -> `scan` -> `Whole` (length, arguments) | `Partial` | `Inline` (the line's
//! length; `inline.rs` splits it) | `Invalid` (Redis' own words, then the connection is closed).
//!
//! Must stay true: the result does not depend on how the bytes were cut (a property test compares all cuts with a naive
//! twin); nothing is allocated for what was only announced; nothing is copied.
//! Rejected: copying arguments into owned strings (a proxy passes the bytes on as they came).

use crate::limits::{
    BULK_MAX, BULK_UNAUTHENTICATED_MAX, INLINE_MAX, REQUEST_ARGS_MAX,
    REQUEST_ARGS_UNAUTHENTICATED_MAX, REQUEST_BYTES_MAX,
};
use crate::protocol::command::Arg;

/// What is wrong with a client's bytes; the texts are Redis' own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    /// The number after `*` is not one, or too large.
    MultibulkLength,
    /// More than ten arguments before authentication.
    UnauthenticatedMultibulk,
    /// The number after `$` is not one, or too large.
    BulkLength,
    /// A large argument before authentication.
    UnauthenticatedBulk,
    /// Something else than `$` where an argument must begin.
    ExpectedDollar(u8),
    /// No line end within 64 KiB after `*`.
    CountTooLong,
    /// No line end within 64 KiB after `$`.
    BulkCountTooLong,
    /// An inline request without a line end within 64 KiB.
    InlineTooLong,
    /// An inline request whose quotes do not close.
    UnbalancedQuotes,
    /// The request as a whole is larger than we hold.
    RequestTooLarge,
}

impl ProtocolError {
    /// The reply's text, without `-` and line end.
    pub fn text(self) -> String {
        let what = match self {
            Self::MultibulkLength => "invalid multibulk length",
            Self::UnauthenticatedMultibulk => "unauthenticated multibulk length",
            Self::BulkLength => "invalid bulk length",
            Self::UnauthenticatedBulk => "unauthenticated bulk length",
            Self::ExpectedDollar(byte) => {
                let shown = match byte {
                    b'\r' | b'\n' => ' ',
                    byte if byte.is_ascii_graphic() || byte == b' ' => byte as char,
                    _ => '?',
                };
                return format!("ERR Protocol error: expected '$', got '{shown}'");
            }
            Self::CountTooLong => "too big mbulk count string",
            Self::BulkCountTooLong => "too big bulk count string",
            Self::InlineTooLong => "too big inline request",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
            Self::RequestTooLarge => "request larger than 1 GiB",
        };
        format!("ERR Protocol error: {what}")
    }
}

/// The first word of a line of HTTP: a browser was made to talk to us by a page that knows our port. Servers close such a
/// connection before the body, which may be made of commands, is reached; so do we.
pub fn is_http(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"POST") || word.eq_ignore_ascii_case(b"Host:")
}

/// Outcome of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// A whole multibulk request of so many bytes; its arguments are in `args` (none: an empty request, to be skipped).
    Whole(usize),
    /// A whole inline request: so many bytes with the line end, of which so many are the line.
    Inline {
        /// Bytes up to the line end.
        line: usize,
        /// Bytes with the line end.
        len: usize,
    },
    /// More bytes are needed.
    Partial,
    /// Not RESP.
    Invalid(ProtocolError),
}

/// Walks over one request at a time. Positions are relative to the request's first byte, which must stay the first byte
/// of what later calls are given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestScanner {
    /// Arguments found so far; whole after `Scan::Whole`.
    pub args: Vec<Arg>,
    left: usize,
    position: usize,
}

impl RequestScanner {
    /// Forgets what it has seen, keeps its memory (but not that of a giant).
    pub fn reset(&mut self) {
        self.args.clear();
        if self.args.capacity() > 4096 {
            self.args = Vec::new();
        }
        self.left = 0;
        self.position = 0;
    }

    /// True between `Partial` and `Whole`, once anything was understood.
    pub fn is_midway(&self) -> bool {
        self.position > 0
    }

    /// Goes on from where it stopped. `data` begins at the request; `trusted` is false before authentication.
    #[inline]
    pub fn scan(&mut self, data: &[u8], trusted: bool) -> Scan {
        if self.position == 0 {
            match data.first() {
                None => return Scan::Partial,
                Some(b'*') => match self.begin(data, trusted) {
                    Ok(true) => {}
                    Ok(false) => return Scan::Partial,
                    Err(error) => return Scan::Invalid(error),
                },
                Some(_) => return scan_inline(data),
            }
        }
        while self.left > 0 {
            match self.argument(data, trusted) {
                Ok(true) => self.left -= 1,
                Ok(false) => return Scan::Partial,
                Err(error) => return Scan::Invalid(error),
            }
        }
        Scan::Whole(self.position)
    }

    /// The `*count` line. False: not whole yet.
    fn begin(&mut self, data: &[u8], trusted: bool) -> Result<bool, ProtocolError> {
        let (count, next) = match length_line(data, 1) {
            Line::Number(count, next) => (count, next),
            Line::Partial => return Ok(false),
            Line::TooLong => return Err(ProtocolError::CountTooLong),
            Line::Malformed => return Err(ProtocolError::MultibulkLength),
        };
        if count > REQUEST_ARGS_MAX as i64 {
            return Err(ProtocolError::MultibulkLength);
        }
        if !trusted && count > REQUEST_ARGS_UNAUTHENTICATED_MAX as i64 {
            return Err(ProtocolError::UnauthenticatedMultibulk);
        }
        self.left = count.max(0) as usize;
        self.position = next;
        Ok(true)
    }

    /// One `$length` line and its bytes. False: not whole yet, nothing moved.
    #[inline(always)]
    fn argument(&mut self, data: &[u8], trusted: bool) -> Result<bool, ProtocolError> {
        let at = self.position;
        match data.get(at) {
            Some(b'$') => {}
            Some(&other) => return Err(ProtocolError::ExpectedDollar(other)),
            None => return Ok(false),
        }
        let (length, start) = match length_line(data, at + 1) {
            Line::Number(length, start) => (length, start),
            Line::Partial => return Ok(false),
            Line::TooLong => return Err(ProtocolError::BulkCountTooLong),
            Line::Malformed => return Err(ProtocolError::BulkLength),
        };
        if !(0..=BULK_MAX as i64).contains(&length) {
            return Err(ProtocolError::BulkLength);
        }
        if !trusted && length > BULK_UNAUTHENTICATED_MAX as i64 {
            return Err(ProtocolError::UnauthenticatedBulk);
        }
        let length = length as usize;
        if start + length + 2 > REQUEST_BYTES_MAX {
            return Err(ProtocolError::RequestTooLarge);
        }
        if data.len() < start + length + 2 {
            return Ok(false);
        }
        // As Redis, the two bytes after an argument are passed over without a look.
        self.args.push(Arg {
            start: start as u32,
            len: length as u32,
        });
        self.position = start + length + 2;
        Ok(true)
    }
}

enum Line {
    Number(i64, usize),
    Partial,
    TooLong,
    Malformed,
}

/// A decimal number from `from` to a CR, and the position after the LF. One to three digits, the usual case, are told
/// apart by where the CR is; everything else (and everything wrong) takes the strict path.
#[inline(always)]
fn length_line(data: &[u8], from: usize) -> Line {
    const DIGIT: fn(u8) -> u8 = |byte| byte.wrapping_sub(b'0');
    if let Some(&[a, b, c, d, _]) = data.get(from..).and_then(|rest| rest.first_chunk::<5>()) {
        let (a, tens, ones) = (DIGIT(a), DIGIT(b), DIGIT(c));
        if a <= 9 {
            if b == b'\r' {
                return Line::Number(i64::from(a), from + 3);
            }
            // A leading zero (`$03`) is left to the strict path, which refuses it as Redis does.
            if a > 0 && tens <= 9 {
                let two = i64::from(a) * 10 + i64::from(tens);
                if c == b'\r' {
                    return Line::Number(two, from + 4);
                }
                if ones <= 9 && d == b'\r' {
                    return Line::Number(two * 10 + i64::from(ones), from + 5);
                }
            }
        }
    }
    length_line_slow(data, from)
}

#[cold]
fn length_line_slow(data: &[u8], from: usize) -> Line {
    let rest = data.get(from..).unwrap_or_default();
    let Some(end) = rest.iter().take(INLINE_MAX).position(|&byte| byte == b'\r') else {
        return if rest.len() >= INLINE_MAX {
            Line::TooLong
        } else {
            Line::Partial
        };
    };
    if rest.len() < end + 2 {
        return Line::Partial;
    }
    match strict_integer(&rest[..end]) {
        Some(value) => Line::Number(value, from + end + 2),
        None => Line::Malformed,
    }
}

/// A signed decimal as Redis' own string-to-number accepts it: no plus sign, no leading zeros, no blanks.
pub fn strict_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [] => false,
        [b'0'] => text.len() == 1,
        [first, ..] => *first != b'0',
    };
    if !canonical || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn scan_inline(data: &[u8]) -> Scan {
    match data.iter().take(INLINE_MAX).position(|&byte| byte == b'\n') {
        Some(end) => {
            let line = if end > 0 && data[end - 1] == b'\r' {
                end - 1
            } else {
                end
            };
            Scan::Inline { line, len: end + 1 }
        }
        None if data.len() >= INLINE_MAX => Scan::Invalid(ProtocolError::InlineTooLong),
        None => Scan::Partial,
    }
}
