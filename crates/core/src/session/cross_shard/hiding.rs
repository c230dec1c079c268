//! What shoal keeps on its shards is hidden from commands that go over all keys.
//!
//! Owns: which questions to all shards are put in another way (`instead`), and what is taken out of lists of keys.
//!
//! Flow: a question to all shards that the servers would answer with our records as well is replaced by a script that leaves
//! them out; lists of keys come as they are, and lose ours when they are put together. Keys that a client names never begin as
//! ours do: they are refused when they are routed.
//!
//! Must stay true: a list is given on with all keys of clients, or as it came when it is no list of keys; what is counted and
//! what is listed agree.
//! Rejected: keeping the records in a database of their own (a script acts on one database only: claims and values would not
//! change together); asking for lists by a script as well (KEYS would pass through Lua's memory).

use crate::protocol::command::Merge;
use crate::routing::merge::counted_header;
use crate::session::cross_shard::elements::{text, Elements};
use crate::session::cross_shard::wire::{self, PREFIX};

/// The request that is sent to each shard in place of the client's own, for a question whose answers are merged so.
pub fn instead(merge: Merge) -> Option<&'static [u8]> {
    match merge {
        Merge::KeyCount => Some(wire::count_keys()),
        Merge::AnyNonNull => Some(wire::random_key()),
        _ => None,
    }
}

/// A shard's whole list of keys without ours. None: there are none of ours, or it is no list of keys.
pub fn without_own(reply: &[u8]) -> Option<Vec<u8>> {
    let (count, body) = counted_header(reply)?;
    let (keys, left) = keys_without_own(reply.get(body..)?, count)?;
    let mut list = reply.get(..1)?.to_vec();
    list.extend_from_slice(left.to_string().as_bytes());
    list.extend_from_slice(b"\r\n");
    list.extend_from_slice(&keys);
    Some(list)
}

/// The same of `count` keys behind each other; and how many are left.
pub fn keys_without_own(keys: &[u8], count: usize) -> Option<(Vec<u8>, usize)> {
    // Most lists have none of ours.
    if !keys.windows(PREFIX.len()).any(|bytes| bytes == PREFIX) {
        return None;
    }
    let (mut kept, mut left) = (Vec::with_capacity(keys.len()), 0);
    let mut elements = Elements::new(keys);
    for _ in 0..count {
        let key = elements.next()?;
        if !text(key)?.starts_with(PREFIX) {
            kept.extend_from_slice(key);
            left += 1;
        }
    }
    elements.is_at_end().then_some((kept, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_taken_out_and_nothing_else() {
        let ours = b"*3\r\n$1\r\na\r\n$9\r\n__shoal:m\r\n$10\r\nx__shoal:m\r\n";
        let left = b"*2\r\n$1\r\na\r\n$10\r\nx__shoal:m\r\n";
        assert_eq!(without_own(ours), Some(left.to_vec()));
        assert_eq!(
            without_own(b"~1\r\n$9\r\n__shoal:m\r\n"),
            Some(b"~0\r\n".to_vec())
        );
        assert_eq!(without_own(b"*1\r\n$1\r\na\r\n"), None);
    }

    #[test]
    fn what_is_no_list_of_keys_stays_as_it_is() {
        for reply in [
            &b"-ERR __shoal:m\r\n"[..],
            b"*2\r\n$9\r\n__shoal:m\r\n",
            b"*1\r\n$9\r\n__shoal:m\r\n+more\r\n",
            b"*1\r\n*1\r\n$9\r\n__shoal:m\r\n",
            b"*1\r\n$99\r\n__shoal:m\r\n",
            b"",
        ] {
            assert_eq!(without_own(reply), None, "{reply:?}");
        }
    }

    #[test]
    fn what_is_counted_and_drawn_is_asked_for_by_a_script() {
        assert!(instead(Merge::KeyCount).is_some_and(|request| request.starts_with(b"*3\r\n")));
        assert!(instead(Merge::AnyNonNull).is_some_and(|request| request.starts_with(b"*3\r\n")));
        assert_eq!(instead(Merge::Concat), None);
        assert_eq!(instead(Merge::Sum), None);
    }
}
