//! Functions (FCALL) on a shard that may have lost them.
//!
//! Owns: the look at a shard's libraries before the first call that goes there after it was connected, and the loading of
//! those that other shards have and it has not.
//!
//! Flow: `call_function` -> the shard is not known to have all libraries -> every shard is asked for its libraries, with
//! their code -> those that the call's shard lacks are loaded into it, on the link on which the call follows.
//!
//! Must stay true: a call is sent once, after the look and never because of an error: it may be the function's own. A library
//! that is there is left as it is, whatever other shards have under its name. Until the look is over the client's next
//! requests wait, so it cannot overtake itself.
//! Rejected: remembering what clients load, as with scripts: a proxy that was started anew would know nothing of the
//! functions, and what was deleted would have to be forgotten by every worker in the same instant.

use crate::limits::NAMED_COPY_MAX;
use crate::protocol::errand;
use crate::routing::merge::{counted_header, element_len, field_of};
use crate::routing::route::Request;
use crate::session::backend::Waiter;
use crate::session::dispatch::{client_number, Asker};
use crate::session::engine::Engine;
use crate::session::gather::{Gather, GatherKind};
use std::sync::Arc;

impl Engine {
    /// A function's call; `shard` is numbered through the topology, `link` the one that it is to travel on.
    pub(crate) fn call_function(
        &mut self,
        asker: &Asker,
        shard: usize,
        link: u32,
        request: &Request<'_>,
    ) {
        let is_alone = self.topology.keyspaces[asker.keyspace].shards.len() == 1;
        let is_long = request.data.len() > NAMED_COPY_MAX;
        // CLIENT CACHING holds for the next request on the link, which would be the look.
        let is_bound = self.trackers.caching.is_some();
        if self.backends[shard].has_functions || is_alone || is_long || is_bound {
            self.say_caching(asker, link);
            let place = client_number(self, asker);
            self.send(link, request.data);
            return self.sent(asker, link, place, 0, Waiter::Client);
        }
        let mut links = vec![(shard, link)];
        for other in self.shards_in(asker.keyspace) {
            let other = self.shard_number(asker, other);
            if other == shard {
                continue;
            }
            // One that cannot be reached is not asked: the others have the same.
            if let Ok(link) = self.link_of(asker, other) {
                links.push((other, link));
            }
        }
        let kind = GatherKind::Functions {
            request: request.data.into(),
            shard: shard as u32,
        };
        let number = self.reserve_gather(asker, Gather::new(kind, links.len()));
        for (part, (_, link)) in links.into_iter().enumerate() {
            self.send(link, errand::LIBRARIES);
            self.sent(asker, link, number, part as u16, Waiter::Part);
        }
        if let Some(client) = self.clients.get_mut(asker.slot) {
            client.raise_barrier();
        }
    }

    /// Every shard has said which libraries it has, the call's own first. True: the call was sent.
    pub(crate) fn give_functions(
        &mut self,
        asker: &Asker,
        number: u32,
        request: &Arc<[u8]>,
        shard: usize,
        parts: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> bool {
        if let Err(error) = self.link_of(asker, shard) {
            self.write_error(asker.keyspace, &error, out);
            return false;
        }
        let mut known: Vec<&[u8]> = Vec::new();
        let mut lacking: Vec<&[u8]> = Vec::new();
        for (part, reply) in parts.iter().enumerate() {
            for (name, code) in libraries(reply) {
                if !known.contains(&name) {
                    known.push(name);
                    if part > 0 {
                        lacking.push(code);
                    }
                }
            }
        }
        // One that does not know functions, or may not be asked, is not asked again. Others may be loading: the next call asks.
        let is_list = |reply: &&&[u8]| reply.first() == Some(&b'*');
        let own = parts.first().copied().unwrap_or_default();
        let is_settled = own.starts_with(b"-NOPERM") || own.starts_with(b"-ERR unknown");
        let has_told = is_list(&&own) && parts.iter().skip(1).any(|part| is_list(&part));
        self.backends[shard].has_functions = has_told || is_settled;
        let load = |code: &&[u8]| {
            let mut out = Vec::new();
            errand::load_function(&mut out, code);
            out
        };
        let ahead = lacking.iter().filter(|_| is_list(&&own)).map(load);
        let ahead = ahead.collect();
        self.call_late(asker, number, shard, ahead, request.clone());
        true
    }
}

/// Name and code of each library in a shard's list; none for anything else.
fn libraries(reply: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut found = Vec::new();
    let Some((count, mut at)) = counted_header(reply).filter(|_| reply[0] == b'*') else {
        return found;
    };
    for _ in 0..count {
        let rest = reply.get(at..).unwrap_or_default();
        let Some(length) = element_len(rest) else {
            break;
        };
        let library = &rest[..length];
        let name = field_of(library, b"library_name");
        if let (Some(name), Some(code)) = (name, field_of(library, b"library_code")) {
            found.push((name, code));
        }
        at += length;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_both_protocols_are_read() {
        let two =
            b"*1\r\n*4\r\n$12\r\nlibrary_name\r\n$1\r\na\r\n$12\r\nlibrary_code\r\n$4\r\ncode\r\n";
        let three = b"*1\r\n%2\r\n$12\r\nlibrary_name\r\n$1\r\na\r\n$12\r\nlibrary_code\r\n=8\r\ntxt:code\r\n";
        assert_eq!(libraries(two), [(&b"a"[..], &b"code"[..])]);
        assert_eq!(libraries(three), [(&b"a"[..], &b"txt:code"[..])]);
        for nothing in [
            &b""[..],
            b"*0\r\n",
            b"*1\r\n:1\r\n",
            b"-ERR unknown\r\n",
            b"*9\r\n",
        ] {
            assert_eq!(libraries(nothing), [], "{}", nothing.escape_ascii());
        }
    }
}
