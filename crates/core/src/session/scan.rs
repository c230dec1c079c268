//! SCAN over many shards: one shard after the other, the shard in the cursor.
//!
//! Owns: the cursor, and what one request collects. Our cursor is `theirs << 12 | shard`: a number below 2^64 that clients
//! hand back unchanged. Small cursors stay small, because some clients keep them in floating-point numbers.
//!
//! Flow: `Engine::scan` asks the shard that the cursor names -> `scanned` adds its keys; when that shard is through and fewer
//! keys have come than COUNT asks for, the next shard is asked for the same reply; else the client gets keys and cursor.
//!
//! Must stay true: 0 begins, and 0 is given only when the last shard is through; each shard is scanned from its own 0 to
//! its own 0, so what is promised for one server holds for all: every key that exists throughout is returned. A shard that
//! cannot be asked ends a reply that has begun; who goes on with its cursor gets the error.
//! Rejected: scanning all shards at once (COUNT would mean N times as much), remembering scans (state that clients
//! abandon), one shard for each call (a small keyspace took as many calls as it has shards, and its first reply was short).

use crate::error::ClientError;
use crate::limits::{SCAN_BYTES_MAX, SCAN_SHARDS_PER_CALL};
use crate::protocol::encode;
use crate::protocol::errand;
use crate::routing::route::Request;
use crate::session::backend::Waiter;
use crate::session::cross_shard::all_keys::names_without_own;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use crate::session::stats::PerShard;

/// Bits of a cursor that hold the shard; `limits::SHARDS_MAX` fits.
const SHARD_BITS: u32 = 12;

/// The reply when nothing is left.
pub const END: &[u8] = b"*2\r\n$1\r\n0\r\n*0\r\n";

/// A client's cursor: the shard, and that shard's own cursor.
pub fn decode(cursor: &[u8], shards: u16) -> Option<(u16, u64)> {
    if cursor.is_empty() || cursor.len() > 20 || !cursor.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let cursor: u64 = std::str::from_utf8(cursor).ok()?.parse().ok()?;
    let shard = (cursor & ((1 << SHARD_BITS) - 1)) as u16;
    (shard < shards).then_some((shard, cursor >> SHARD_BITS))
}

/// The cursor to give to the client after a shard answered with `theirs`. None when it does not fit.
pub fn encode_next(shard: u16, shards: u16, theirs: u64) -> Option<u64> {
    if theirs == 0 {
        let next = shard + 1;
        return Some(if next == shards { 0 } else { u64::from(next) });
    }
    (theirs < 1 << (u64::BITS - SHARD_BITS)).then_some(theirs << SHARD_BITS | u64::from(shard))
}

/// Servers' own default.
const COUNT_DEFAULT: usize = 10;

/// One request's way over the shards.
#[derive(Debug, Clone)]
pub struct ScanStep {
    /// The shard that is asked, within the keyspace.
    shard: u16,
    /// How many there are.
    shards: u16,
    /// The client's words after the cursor.
    rest: Vec<Vec<u8>>,
    /// COUNT: with so many keys no further shard is asked.
    wanted: usize,
    /// Keys so far, as the shards wrote them.
    keys: Vec<u8>,
    /// How many.
    found: usize,
    /// Shards asked so far.
    asked: usize,
}

impl ScanStep {
    fn new(shard: u16, shards: u16, rest: Vec<Vec<u8>>) -> Self {
        let count = rest
            .chunks_exact(2)
            .find(|pair| pair[0].eq_ignore_ascii_case(b"COUNT"))
            .and_then(|pair| std::str::from_utf8(&pair[1]).ok()?.parse().ok());
        Self {
            shard,
            shards,
            rest,
            wanted: count.unwrap_or(COUNT_DEFAULT),
            keys: Vec::new(),
            found: 0,
            asked: 1,
        }
    }

    /// The reply: what was found, and where to go on.
    fn write(&self, cursor: u64, out: &mut Vec<u8>) {
        encode::array(out, 2);
        encode::bulk(out, cursor.to_string().as_bytes());
        encode::array(out, self.found);
        out.extend_from_slice(&self.keys);
    }

    /// Another shard may be asked for this reply.
    fn has_room(&self) -> bool {
        self.found < self.wanted
            && self.asked < SCAN_SHARDS_PER_CALL
            && self.keys.len() < SCAN_BYTES_MAX
    }
}

/// A shard's whole reply to SCAN: its cursor, how many keys, and the keys. None when it is something else.
pub fn parts(reply: &[u8]) -> Option<(u64, usize, &[u8])> {
    let (length, rest) = number_line(reply.strip_prefix(b"*2\r\n$")?)?;
    let cursor = std::str::from_utf8(rest.get(..length)?)
        .ok()?
        .parse()
        .ok()?;
    let (count, keys) = number_line(rest[length..].strip_prefix(b"\r\n*")?)?;
    Some((cursor, count, keys))
}

/// The number at the beginning, and what follows its line.
fn number_line(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\r')?;
    let number = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    Some((number, bytes.get(end + 2..)?))
}

impl Engine {
    /// SCAN: to the shard that the cursor names.
    pub(crate) fn scan(&mut self, asker: &Asker, request: &Request<'_>) {
        let shards = self.topology.keyspaces[asker.keyspace].shards.len() as u16;
        let Some((named, mut theirs)) = decode(request.arg(1), shards) else {
            return self.answer_error(asker, &ClientError::InvalidCursor);
        };
        let Some(shard) = self.next_to_scan(asker, named, shards) else {
            return self.answer(asker, |out| out.extend_from_slice(END));
        };
        if shard != named {
            theirs = 0;
        }
        let number = self.shard_number(asker, shard);
        match self.link_of(asker, number) {
            Ok(link) => {
                let rest = (2..request.args.len())
                    .map(|index| request.arg(index).to_vec())
                    .collect();
                let step = ScanStep::new(shard, shards, rest);
                self.ask_to_scan(link, theirs, &step);
                let gather = Gather::new(GatherKind::Scan(Box::new(step)), 1);
                let place = self.reserve_gather(asker, gather);
                self.sent(asker, link, place, 0, Waiter::Part);
            }
            Err(error) => {
                self.stats().shard(number, PerShard::Failed, 1);
                self.answer_error(asker, &error);
            }
        }
    }

    /// This shard, or the first after it that is not ejected; None: no more.
    fn next_to_scan(&self, asker: &Asker, from: u16, shards: u16) -> Option<u16> {
        (from..shards).find(|&shard| self.admissions[asker.keyspace].share(shard) > 0)
    }

    fn ask_to_scan(&mut self, link: u32, theirs: u64, step: &ScanStep) {
        let rest: Vec<&[u8]> = step.rest.iter().map(Vec::as_slice).collect();
        if let Some(link) = self.links.get_mut(link) {
            errand::scan(link.outgoing().tail(), theirs, &rest);
        }
    }

    /// A shard has answered. True: the next one is asked, and the reply is still to come.
    pub(crate) fn scanned(
        &mut self,
        asker: &Asker,
        number: u32,
        mut step: Box<ScanStep>,
        reply: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        let found = parts(reply).and_then(|(theirs, count, keys)| {
            Some((
                encode_next(step.shard, step.shards, theirs)?,
                theirs,
                count,
                keys,
            ))
        });
        let Some((cursor, theirs, count, keys)) = found else {
            match reply.first() {
                // What has come is given; who goes on meets the error.
                Some(b'-' | b'!') if step.asked > 1 => step.write(u64::from(step.shard), out),
                Some(b'-' | b'!') => out.extend_from_slice(reply),
                _ => crate::routing::merge::unexpected(out, "a cursor"),
            }
            return false;
        };
        let has_records = self.topology.keyspaces[asker.keyspace].cross_shard;
        let rewritten = has_records
            .then(|| names_without_own(count, keys))
            .flatten();
        let (count, keys) = match &rewritten {
            Some((count, keys)) => (*count, keys.as_slice()),
            None => (count, keys),
        };
        step.keys.extend_from_slice(keys);
        step.found += count;
        if theirs != 0 || !step.has_room() {
            step.write(cursor, out);
            return false;
        }
        let Some(next) = self.next_to_scan(asker, step.shard + 1, step.shards) else {
            step.write(0, out);
            return false;
        };
        let shard = self.shard_number(asker, next);
        let Ok(link) = self.link_of(asker, shard) else {
            step.write(u64::from(next), out);
            return false;
        };
        step.shard = next;
        step.asked += 1;
        self.ask_to_scan(link, 0, &step);
        if let Some(client) = self.clients.get_mut(asker.slot) {
            let gather = Gather::new(GatherKind::Scan(step), 1);
            client.replies.put_gather(number, gather);
        }
        self.sent(asker, link, number, 0, Waiter::Part);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_as_they_were() {
        for shards in [1u16, 2, 7, 4096] {
            for shard in [0, shards / 2, shards - 1] {
                for theirs in [1u64, 2, 77, 1 << 30, (1 << 52) - 1] {
                    let ours = encode_next(shard, shards, theirs).expect("it fits");
                    assert_ne!(ours, 0);
                    assert_eq!(
                        decode(ours.to_string().as_bytes(), shards),
                        Some((shard, theirs))
                    );
                }
                assert_eq!(
                    encode_next(shard, shards, 1 << 52),
                    None,
                    "a cursor that does not fit is not cut"
                );
            }
        }
    }

    #[test]
    fn a_shard_that_is_through_leads_to_the_next_and_the_last_to_the_end() {
        assert_eq!(encode_next(0, 3, 0), Some(1));
        assert_eq!(decode(b"1", 3), Some((1, 0)));
        assert_eq!(encode_next(2, 3, 0), Some(0));
        assert_eq!(encode_next(0, 1, 0), Some(0));
    }

    #[test]
    fn foreign_cursors_are_refused() {
        for cursor in [
            &b""[..],
            b"-1",
            b"x",
            b"3",
            b"18446744073709551616",
            b"+0",
            b" 1",
        ] {
            assert_eq!(decode(cursor, 3), None, "{cursor:?}");
        }
    }

    #[test]
    fn a_reply_is_taken_apart_or_is_none() {
        assert_eq!(
            parts(b"*2\r\n$2\r\n48\r\n*1\r\n$1\r\na\r\n"),
            Some((48, 1, &b"$1\r\na\r\n"[..]))
        );
        assert_eq!(parts(END), Some((0, 0, &b""[..])));
        for reply in [
            &b"*2\r\n$5\r\n1\r\n"[..],
            b"*2\r\n$x\r\n",
            b"+OK\r\n",
            b"",
            b"*2\r\n$18446744073709551615\r\n1",
            b"*2\r\n$1\r\n0\r\n*x\r\n",
            b"*2\r\n$1\r\n0\r\n+1\r\n",
        ] {
            assert_eq!(parts(reply), None, "{reply:?}");
        }
    }

    #[test]
    fn count_says_when_no_further_shard_is_asked() {
        let wanted = |words: &[&str]| {
            let rest = words.iter().map(|word| word.as_bytes().to_vec()).collect();
            ScanStep::new(0, 4, rest).wanted
        };
        assert_eq!(wanted(&[]), 10);
        assert_eq!(wanted(&["match", "count", "Count", "77"]), 77);
        assert_eq!(wanted(&["COUNT", "x"]), 10, "the shard will refuse it");
    }
}
