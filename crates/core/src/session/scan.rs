//! SCAN over many shards: one shard after the other, the shard in the cursor.
//!
//! Owns: the cursor. Ours is `theirs << 12 | shard`: a number below 2^64 that clients hand back unchanged. Small cursors
//! stay small, because some clients keep them in floating-point numbers.
//!
//! Must stay true: 0 begins, and 0 is given only when the last shard is through; each shard is scanned from its own 0 to
//! its own 0, so what is promised for one server holds for all: every key that exists throughout is returned.
//! Rejected: scanning all shards at once (COUNT would mean N times as much), remembering scans (state that clients
//! abandon).

use crate::protocol::encode;

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

/// A shard's whole reply with the cursor made ours; None when it is not a reply to SCAN.
pub fn rewrite(reply: &[u8], shard: u16, shards: u16, out: &mut Vec<u8>) -> Option<()> {
    let rest = reply.strip_prefix(b"*2\r\n$")?;
    let line = rest.iter().position(|&byte| byte == b'\r')?;
    let length: usize = std::str::from_utf8(&rest[..line]).ok()?.parse().ok()?;
    let start = line + 2;
    let theirs: u64 = std::str::from_utf8(rest.get(start..start.checked_add(length)?)?)
        .ok()?
        .parse()
        .ok()?;
    let keys = rest.get(start + length + 2..)?;
    let ours = encode_next(shard, shards, theirs)?;
    encode::array(out, 2);
    encode::bulk(out, ours.to_string().as_bytes());
    out.extend_from_slice(keys);
    Some(())
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
    fn only_the_cursor_of_a_reply_changes() {
        let mut out = Vec::new();
        rewrite(b"*2\r\n$2\r\n48\r\n*1\r\n$1\r\na\r\n", 5, 8, &mut out).expect("a reply to SCAN");
        let cursor = (48u64 << 12 | 5).to_string();
        assert_eq!(
            out,
            format!("*2\r\n${}\r\n{cursor}\r\n*1\r\n$1\r\na\r\n", cursor.len()).into_bytes()
        );
        for reply in [
            &b"*2\r\n$5\r\n1\r\n"[..],
            b"*2\r\n$x\r\n",
            b"+OK\r\n",
            b"",
            b"*2\r\n$18446744073709551615\r\n1",
        ] {
            assert_eq!(rewrite(reply, 0, 8, &mut Vec::new()), None);
        }
    }
}
