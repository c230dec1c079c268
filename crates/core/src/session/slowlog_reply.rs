//! The slow log as clients are told it.
//!
//! Owns: a request's arguments cut as servers cut them, an entry's two forms, and the one list of all workers and shards.
//!
//! Must stay true: without SHARDS an entry has exactly the six elements of a server's, because client libraries read it by
//! position (one that reads six of eight takes the seventh for the next entry); any bytes of a shard give a well-formed reply.

use crate::limits::{SLOWLOG_ARGS_MAX, SLOWLOG_ARG_BYTES_MAX};
use crate::protocol::encode;
use crate::routing::merge::{counted_header, element_len, first_error, unexpected};
use crate::session::slowlog::Entry;

/// Elements of an entry as servers give it.
const PLAIN: usize = 6;
/// With the shard and its time.
const FULL: usize = 8;

/// How an entry is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As servers do.
    Plain,
    /// With the shard, and how long it took.
    WithShards,
}

/// An entry on its way between workers: when, its id, and its reply.
pub(crate) struct Record<'a> {
    unix_us: u64,
    id: u64,
    reply: &'a [u8],
}

/// Bytes before a record's reply: three numbers.
const RECORD_HEAD: usize = 24;

impl<'a> Record<'a> {
    /// Appends an entry.
    pub fn write(entry: &Entry, form: Form, out: &mut Vec<u8>) {
        let mut reply = Vec::new();
        let is_full = form == Form::WithShards;
        encode::array(&mut reply, if is_full { FULL } else { PLAIN });
        encode::integer(&mut reply, entry.id as i64);
        encode::integer(&mut reply, (entry.unix_us / 1_000_000) as i64);
        encode::integer(&mut reply, entry.took_us as i64);
        reply.extend_from_slice(&entry.args);
        encode::bulk(&mut reply, entry.peer.as_bytes());
        encode::bulk(&mut reply, &entry.name);
        if is_full {
            encode::bulk(&mut reply, entry.shard.as_bytes());
            encode::integer(&mut reply, entry.shard_us as i64);
        }
        for number in [entry.unix_us, entry.id, reply.len() as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&reply);
    }

    /// The first entry of those in `data`, and the rest.
    fn read(data: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = data.split_at_checked(RECORD_HEAD)?;
        let number = |at: usize| {
            let bytes = head.get(at..at + 8)?.try_into().ok()?;
            Some(u64::from_le_bytes(bytes))
        };
        let (reply, rest) = rest.split_at_checked(number(16)? as usize)?;
        let record = Self {
            unix_us: number(0)?,
            id: number(8)?,
            reply,
        };
        Some((record, rest))
    }
}

/// The newest `count` entries of all `parts`: the workers' records, then the replies of the shards of those names.
pub(crate) fn compose(
    parts: &[&[u8]],
    workers: usize,
    count: usize,
    shards: &[String],
    out: &mut Vec<u8>,
) {
    let (own, theirs) = parts.split_at(workers.min(parts.len()));
    if let Some(error) = first_error(theirs) {
        return out.extend_from_slice(error);
    }
    let mut entries: Vec<(u64, u64, Vec<u8>)> = Vec::new();
    for part in own {
        let mut rest = *part;
        while let Some((record, behind)) = Record::read(rest) {
            entries.push((record.unix_us, record.id, record.reply.to_vec()));
            rest = behind;
        }
    }
    for (part, shard) in theirs.iter().zip(shards) {
        if take_shard(part, shard, &mut entries).is_none() {
            return unexpected(out, "something else where a slow log belongs");
        }
    }
    // Newest first; of a shard's only the second is known.
    entries.sort_by_key(|entry| std::cmp::Reverse((entry.0, entry.1)));
    entries.truncate(count);
    encode::array(out, entries.len());
    for (_, _, reply) in &entries {
        out.extend_from_slice(reply);
    }
}

/// Entries of a shard's reply, in our longer form.
fn take_shard(part: &[u8], shard: &str, entries: &mut Vec<(u64, u64, Vec<u8>)>) -> Option<()> {
    if part.first() != Some(&b'*') {
        return None;
    }
    let (count, mut at) = counted_header(part)?;
    for _ in 0..count {
        let entry = part.get(at..)?;
        let entry = entry.get(..element_len(entry)?)?;
        at += entry.len();
        let elements = elements(entry)?;
        // Servers before 4.0 tell neither address nor name.
        let [id, time, took, args, more @ ..] = elements.as_slice() else {
            return None;
        };
        let mut reply = Vec::with_capacity(entry.len() + 32);
        encode::array(&mut reply, FULL);
        for element in [id, time, took, args] {
            reply.extend_from_slice(element);
        }
        for index in 0..PLAIN - 4 {
            match more.get(index) {
                Some(element) => reply.extend_from_slice(element),
                None => encode::bulk(&mut reply, b""),
            }
        }
        encode::bulk(&mut reply, shard.as_bytes());
        reply.extend_from_slice(took);
        let unix_us = integer(time)?.saturating_mul(1_000_000);
        entries.push((unix_us, integer(id)?, reply));
    }
    (at == part.len()).then_some(())
}

/// The elements of an array.
fn elements(array: &[u8]) -> Option<Vec<&[u8]>> {
    if array.first() != Some(&b'*') {
        return None;
    }
    let (count, mut at) = counted_header(array)?;
    let mut found = Vec::new();
    for _ in 0..count {
        let rest = array.get(at..)?;
        let element = rest.get(..element_len(rest)?)?;
        at += element.len();
        found.push(element);
    }
    Some(found)
}

fn integer(element: &[u8]) -> Option<u64> {
    let text = element.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The arguments of which a head holds at least the beginning, and how many there are in all.
fn words(head: &[u8]) -> Option<(usize, Vec<(&[u8], usize)>)> {
    let (total, mut at) = counted_header(head).filter(|_| head.first() == Some(&b'*'))?;
    let mut found = Vec::new();
    while found.len() < total {
        let rest = head.get(at..).unwrap_or_default();
        let Some((len, body)) = counted_header(rest) else {
            break;
        };
        let text = rest.get(body..).unwrap_or_default();
        found.push((&text[..len.min(text.len())], len));
        at += body + len + 2;
    }
    Some((total, found))
}

/// The command's name.
pub(crate) fn first_word(head: &[u8]) -> Option<&[u8]> {
    words(head)?.1.first().map(|(word, _)| *word)
}

/// The arguments as servers show them: so many, and of each so much, and how much more there was.
pub(crate) fn shown(head: &[u8]) -> Vec<u8> {
    let (total, found) = words(head).unwrap_or_default();
    let mut args: Vec<Vec<u8>> = Vec::new();
    for (text, len) in found {
        let is_last_shown = args.len() + 1 == SLOWLOG_ARGS_MAX;
        if is_last_shown && total > SLOWLOG_ARGS_MAX {
            break;
        }
        let text = &text[..text.len().min(SLOWLOG_ARG_BYTES_MAX)];
        let mut arg = text.to_vec();
        if text.len() < len {
            arg.extend_from_slice(format!("... ({} more bytes)", len - text.len()).as_bytes());
        }
        args.push(arg);
    }
    if args.is_empty() {
        args.push(b"(not known any more)".to_vec());
    } else if args.len() < total {
        args.push(format!("... ({} more arguments)", total - args.len()).into_bytes());
    }
    let mut out = Vec::new();
    let words: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
    encode::request(&mut out, &words);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        encode::request(&mut out, words);
        out
    }

    #[test]
    fn arguments_are_cut_as_servers_cut_them() {
        let few = request(&[b"SET", b"k", b"v"]);
        assert_eq!(shown(&few), few);
        let long = request(&[b"SET", b"k", &[b'v'; 200]]);
        let cut = [&[b'v'; 128][..], b"... (72 more bytes)"].concat();
        assert_eq!(shown(&long), request(&[b"SET", b"k", &cut]));
        for (count, is_cut) in [(32, false), (33, true), (40, true)] {
            let many = vec![&b"x"[..]; count];
            let told = shown(&request(&many));
            let (total, found) = words(&told).unwrap_or_default();
            assert_eq!(total, 32);
            let last = format!("... ({} more arguments)", count - 31);
            assert_eq!(found[31].0 == last.as_bytes(), is_cut, "{count}");
        }
    }

    #[test]
    fn a_head_that_ends_early_says_so() {
        let whole = request(&[b"MSET", b"key", b"0123456789", b"k2", b"v2"]);
        for end in 0..whole.len() {
            let told = shown(&whole[..end]);
            assert_eq!(element_len(&told), Some(told.len()), "of {end} bytes");
        }
        let cut = whole.windows(3).position(|at| at == b"345").unwrap_or(0);
        assert_eq!(
            shown(&whole[..cut]),
            request(&[
                b"MSET",
                b"key",
                b"012... (7 more bytes)",
                b"... (2 more arguments)"
            ])
        );
        assert_eq!(shown(b""), request(&[b"(not known any more)"]));
    }
}
