//! Scanning replies of shards: where one ends, whatever its type and however it was cut.
//!
//! Owns: `ReplyScanner`, a counter of elements still to come. Nesting needs no stack: an array of n elements owes n more.
//!
//! Flow: bytes -> `scan` -> how many of them belong to the current reply and can be passed on at once, and whether the
//! reply is whole. A line that is cut (a length, a status) is left to the caller, who shows it again with more behind it.
//!
//! Must stay true: a reply's bytes are counted exactly, or every later reply would go to the wrong request; no
//! recursion (a reply may be nested as deep as a script likes); no allocation.
//! Rejected: parsing replies into values; only merged replies need that, and do it once they are whole.

use crate::limits::REPLY_LINE_MAX;

/// Not RESP: the connection cannot be trusted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidReply;

/// What a scan found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// So many bytes belong to the reply and need not be shown again.
    pub used: usize,
    /// The reply is whole; the next byte begins another.
    pub done: bool,
}

/// State within one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplyScanner {
    /// Elements that must still come; 0 between replies.
    owed: u64,
    /// Bytes of the current bulk that must still come.
    skip: u64,
    /// Bytes of its line end that must still come.
    end: u8,
}

impl ReplyScanner {
    /// True between two replies.
    pub fn is_between(&self) -> bool {
        self.owed == 0
    }

    /// Walks over as much of one reply as `data` holds. `data` begins where the last call's `used` ended.
    #[inline]
    pub fn scan(&mut self, data: &[u8]) -> Result<Progress, InvalidReply> {
        if !self.is_between() {
            return self.walk(data);
        }
        // The replies that make up nearly all traffic, whole in one piece.
        if let Some(used) = whole_plain(data) {
            return Ok(Progress { used, done: true });
        }
        self.owed = 1;
        let progress = self.walk(data)?;
        if progress.used == 0 {
            // Nothing was understood yet: the same bytes come again, and are again the beginning of a reply.
            self.owed = 0;
        }
        Ok(progress)
    }

    fn walk(&mut self, data: &[u8]) -> Result<Progress, InvalidReply> {
        let mut used = 0;
        loop {
            if self.end > 0 {
                used += self.bulk(&data[used..])?;
                if self.end > 0 {
                    return Ok(Progress { used, done: false });
                }
                self.owed -= 1;
            }
            if self.owed == 0 {
                return Ok(Progress { used, done: true });
            }
            let Some(line) = line_length(&data[used..])? else {
                return Ok(Progress { used, done: false });
            };
            self.element(&data[used..used + line])?;
            used += line;
        }
    }

    /// Passes over what there is of a bulk and of its line end; the bytes.
    fn bulk(&mut self, data: &[u8]) -> Result<usize, InvalidReply> {
        let body = self.skip.min(data.len() as u64);
        self.skip -= body;
        let mut used = body as usize;
        while self.skip == 0 && self.end > 0 && used < data.len() {
            if data[used] != b"\n\r"[self.end as usize - 1] {
                return Err(InvalidReply);
            }
            self.end -= 1;
            used += 1;
        }
        Ok(used)
    }

    /// Accounts for one element's first line (with its line end).
    fn element(&mut self, line: &[u8]) -> Result<(), InvalidReply> {
        let body = &line[1..line.len() - 2];
        match line[0] {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => self.owed -= 1,
            b'$' | b'=' | b'!' => match decimal(body)? {
                -1 => self.owed -= 1,
                length => {
                    self.skip = u64::try_from(length).map_err(|_| InvalidReply)?;
                    self.end = 2;
                }
            },
            b'*' | b'~' | b'>' => match decimal(body)? {
                -1 => self.owed -= 1,
                count => self.owe(count, 1)?,
            },
            b'%' => match decimal(body)? {
                -1 => self.owed -= 1,
                count => self.owe(count, 2)?,
            },
            // An attribute stands before the element it describes, which is still owed.
            b'|' => {
                self.owe(decimal(body)?, 2)?;
                self.owed += 1;
            }
            _ => return Err(InvalidReply),
        }
        Ok(())
    }

    fn owe(&mut self, count: i64, each: u64) -> Result<(), InvalidReply> {
        let count = u64::try_from(count).map_err(|_| InvalidReply)?;
        let more = count.checked_mul(each).ok_or(InvalidReply)?;
        self.owed = (self.owed - 1)
            .checked_add(more)
            .filter(|owed| *owed < u64::MAX / 2)
            .ok_or(InvalidReply)?;
        Ok(())
    }
}

/// Length of a whole status, integer, error or bulk reply at the beginning of `data`; None for anything else.
#[inline]
fn whole_plain(data: &[u8]) -> Option<usize> {
    if data.starts_with(b"+OK\r\n") {
        return Some(5);
    }
    match data.first()? {
        b'$' => {
            let mut length = 0usize;
            for (at, &byte) in data.iter().enumerate().take(11).skip(1) {
                let digit = byte.wrapping_sub(b'0');
                if digit <= 9 {
                    length = length * 10 + usize::from(digit);
                    continue;
                }
                if byte == b'\r' && at > 1 && data.len() >= at + 4 + length {
                    // A leading zero or a bare CR is left to the strict path: what comes in one piece is not judged
                    // more mildly than what comes in two.
                    let end = at + 4 + length;
                    let is_strict = data[at + 1] == b'\n'
                        && (data[1] != b'0' || at == 2)
                        && data[end - 2..end] == *b"\r\n";
                    return is_strict.then_some(end);
                }
                return None;
            }
            None
        }
        b'+' | b':' | b'-' => {
            // Short lines only; a long error takes the general path.
            let end = data.iter().take(256).position(|&byte| byte == b'\n')?;
            (end >= 2 && data[end - 1] == b'\r').then_some(end + 1)
        }
        _ => None,
    }
}

/// Length of the first line with its line end; None when it is not whole yet.
fn line_length(data: &[u8]) -> Result<Option<usize>, InvalidReply> {
    // Rubbish is told by its first byte, without waiting for a line of it.
    if data
        .first()
        .is_some_and(|first| !b"+-:$*_,#!=(%~>|".contains(first))
    {
        return Err(InvalidReply);
    }
    match data
        .iter()
        .take(REPLY_LINE_MAX)
        .position(|&byte| byte == b'\n')
    {
        Some(end) if end >= 2 && data[end - 1] == b'\r' => Ok(Some(end + 1)),
        Some(_) => Err(InvalidReply),
        None if data.len() >= REPLY_LINE_MAX => Err(InvalidReply),
        None => Ok(None),
    }
}

fn decimal(text: &[u8]) -> Result<i64, InvalidReply> {
    super::request::strict_integer(text).ok_or(InvalidReply)
}
