//! Scanning memcached's replies: where one ends, however it was cut.
//!
//! Owns: `TextReplyScanner`. A reply says itself where it ends: `VALUE` and `STAT` lines go on until any other line (END, or an
//! error in the middle), `VA` has its length, everything else is one line.
//!
//! Flow: as `protocol::reply`: bytes -> `scan` -> how many can be passed on at once, and whether the reply is whole. A line
//! that is cut is left to the caller, who shows it again with more behind it.
//!
//! Must stay true: a reply's bytes are counted exactly, or every later reply would go to the wrong request.
//! Rejected: telling the scanner which command was asked (a second queue that could get out of step with the first).

use crate::limits::REPLY_LINE_MAX;
use crate::protocol::reply::{InvalidReply, Progress};

/// What comes after the bytes seen so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Next {
    /// The first line of a reply.
    #[default]
    First,
    /// A further line of values or statistics.
    Further,
    /// So many bytes of data and its line end; then the reply is whole, or goes on.
    Data { left: u64, is_last: bool },
}

/// State within one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TextReplyScanner {
    next: Next,
}

impl TextReplyScanner {
    /// True between two replies.
    #[inline]
    pub fn is_between(&self) -> bool {
        self.next == Next::First
    }

    /// Walks over as much of one reply as `data` holds. `data` begins where the last call's `used` ended.
    #[inline]
    pub fn scan(&mut self, data: &[u8]) -> Result<Progress, InvalidReply> {
        let mut used = 0;
        loop {
            let rest = &data[used..];
            if let Next::Data { left, is_last } = self.next {
                used += self.data(rest, left, is_last)?;
                match self.next {
                    Next::First => return Ok(Progress { used, done: true }),
                    Next::Data { .. } => return Ok(Progress { used, done: false }),
                    Next::Further => continue,
                }
            }
            let Some(line) = line_length(rest)? else {
                return Ok(Progress { used, done: false });
            };
            self.next = after_line(&rest[..line - 2])?;
            used += line;
            if self.next == Next::First {
                return Ok(Progress { used, done: true });
            }
        }
    }

    /// Passes over what there is of a value and its line end; the bytes.
    fn data(&mut self, rest: &[u8], left: u64, is_last: bool) -> Result<usize, InvalidReply> {
        let taken = left.min(rest.len() as u64) as usize;
        // The last two of them are the line end.
        for (behind, expected) in [(2, b'\r'), (1, b'\n')] {
            let is_bad = left
                .checked_sub(behind)
                .filter(|at| *at < taken as u64)
                .is_some_and(|at| rest[at as usize] != expected);
            if is_bad {
                return Err(InvalidReply);
            }
        }
        let left = left - taken as u64;
        self.next = match (left, is_last) {
            (0, true) => Next::First,
            (0, false) => Next::Further,
            _ => Next::Data { left, is_last },
        };
        Ok(taken)
    }
}

/// What a line (without its end) announces.
fn after_line(line: &[u8]) -> Result<Next, InvalidReply> {
    if let Some(rest) = line.strip_prefix(b"VALUE ") {
        let size = rest
            .split(|&byte| byte == b' ')
            .nth(2)
            .ok_or(InvalidReply)?;
        return Ok(Next::Data {
            left: size_of(size)? + 2,
            is_last: false,
        });
    }
    if let Some(rest) = line.strip_prefix(b"VA ") {
        let size = rest
            .split(|&byte| byte == b' ')
            .next()
            .ok_or(InvalidReply)?;
        return Ok(Next::Data {
            left: size_of(size)? + 2,
            is_last: true,
        });
    }
    Ok(if line.starts_with(b"STAT ") {
        Next::Further
    } else {
        Next::First
    })
}

fn size_of(text: &[u8]) -> Result<u64, InvalidReply> {
    if text.is_empty() || text.len() > 10 {
        return Err(InvalidReply);
    }
    text.iter().try_fold(0u64, |size, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(InvalidReply);
        }
        Ok(size * 10 + u64::from(digit))
    })
}

/// Length of the first line with its line end; None when it is not whole yet.
#[inline]
fn line_length(data: &[u8]) -> Result<Option<usize>, InvalidReply> {
    // What no server says at the beginning of a line is told by its first byte.
    if data
        .first()
        .is_some_and(|first| !first.is_ascii_alphanumeric())
    {
        return Err(InvalidReply);
    }
    match memchr::memchr(b'\n', &data[..data.len().min(REPLY_LINE_MAX)]) {
        Some(end) if end >= 2 && data[end - 1] == b'\r' => Ok(Some(end + 1)),
        Some(_) => Err(InvalidReply),
        None if data.len() >= REPLY_LINE_MAX => Err(InvalidReply),
        None => Ok(None),
    }
}
