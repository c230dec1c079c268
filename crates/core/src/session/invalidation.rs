//! Invalidations: from the shard that tells to the client that has asked for it, or to the one that it named.
//!
//! Owns: the forms in which a client is told, and the way of an invalidation between workers.
//!
//! Flow: a push on a tracked link, or on the one that a shard tells -> the keys as they stand there -> the client itself
//! (RESP3), or the client it redirects to, by mail if that lives in another worker.
//!
//! Must stay true: an invalidation is given after every reply that came before it, else a client would keep a value that
//! has changed; it is given at once where no such reply waits, also within a request that waits for ever; it never
//! stands within a reply; none is dropped: who does not take them is closed.
//! Rejected: one message for several keys at the end of a turn: a server tells them one by one, and clients see them so.

use crate::limits::{OUTPUT_HARD, OUTPUT_HIGH};
use crate::protocol::encode::{self, Proto};
use crate::session::client::{care, Intake};
use crate::session::cross_shard::all_keys::without_own;
use crate::session::engine::{Action, Engine};
use crate::session::mail::Mail;
use crate::session::stats::CloseReason;
use crate::session::tracking::Redirect;

/// What stands before the keys in what a shard tells.
const HEAD: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";

/// Instead of keys: all of them.
pub(crate) const ALL: &[u8] = b"_\r\n";

/// No keys.
const NONE: &[u8] = b"*0\r\n";

/// Where a client of RESP2 is told.
const CHANNEL: &[u8] = b"__redis__:invalidate";

impl Engine {
    /// A push on a connection of a tracked client.
    pub(crate) fn invalidated(&mut self, link: u32, slot: u32, generation: u32, push: &[u8]) {
        let Some(client) = self.clients.get_same(slot, generation) else {
            return;
        };
        let has_records = self.topology.keyspaces[client.keyspace as usize].cross_shard;
        if let Some(keys) = push.strip_prefix(HEAD) {
            // Of our own keys nobody hears.
            let others = has_records.then(|| without_own(keys)).flatten();
            let keys = others.as_deref().unwrap_or(keys);
            if others.is_some() && keys == NONE {
                return;
            }
            let held = self.invalidate(slot, keys);
            if held > OUTPUT_HARD {
                // The link is the client's own: only its own replies wait with it.
                self.stall(link, slot);
            }
        }
    }

    /// A client may keep nothing of what it has read.
    pub(crate) fn invalidate_all(&mut self, slot: u32) {
        self.invalidate(slot, ALL);
    }

    /// Tells a tracked client, or whom it redirects to. Gives the bytes that wait for it, if it is told itself.
    fn invalidate(&mut self, slot: u32, keys: &[u8]) -> usize {
        let generation = self.clients.generation(slot);
        let Some(tracking) = self.tracking_of(slot) else {
            return 0;
        };
        match tracking.redirect {
            None => return self.tell(slot, keys, false),
            Some(redirect) if redirect.is_broken => self.tell_broken(slot),
            Some(redirect) if redirect.worker == self.identity.worker => {
                self.redirected(redirect, keys, (redirect.worker, slot, generation));
            }
            Some(redirect) => {
                let mail = Mail::Invalidate {
                    to: redirect,
                    keys: keys.into(),
                    from: (self.identity.worker, slot, generation),
                };
                self.actions.push(Action::Mail(redirect.worker, mail));
            }
        }
        0
    }

    /// As `invalidate`, behind the request that was just taken.
    pub(crate) fn invalidate_behind(&mut self, slot: u32, keys: &[u8]) {
        let is_told_itself = self
            .tracking_of(slot)
            .is_some_and(|tracking| tracking.redirect.is_none());
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        if !is_told_itself {
            self.invalidate(slot, keys);
        } else if client.proto == Proto::Resp3 {
            client
                .replies
                .local(false, |out| write(out, Proto::Resp3, keys));
            self.touch_client(slot);
        }
    }

    /// An invalidation for a client of this worker from another client, wherever that is.
    pub(crate) fn redirected(&mut self, to: Redirect, keys: &[u8], from: (usize, u32, u32)) {
        let (worker, slot, generation) = from;
        if self.clients.get_same(to.slot, to.generation).is_some() {
            if self.tell(to.slot, keys, true) > OUTPUT_HARD {
                self.drop_client(to.slot, CloseReason::OutputStalled);
            }
        } else if worker == self.identity.worker {
            self.redirect_broken(slot, generation);
        } else {
            let mail = Mail::RedirectBroken { slot, generation };
            self.actions.push(Action::Mail(worker, mail));
        }
    }

    /// The client that another one redirects to is gone.
    pub(crate) fn redirect_broken(&mut self, slot: u32, generation: u32) {
        if self.clients.get_same(slot, generation).is_none() {
            return;
        }
        let redirect = self
            .tracking_mut(slot)
            .and_then(|tracking| tracking.redirect.as_mut());
        if let Some(redirect) = redirect {
            redirect.is_broken = true;
            self.tell_broken(slot);
        }
    }

    /// A client of RESP3 is told that nobody gets its invalidations.
    fn tell_broken(&mut self, slot: u32) {
        let id = self.redirect_id(slot);
        let is_told = self
            .clients
            .get(slot)
            .is_some_and(|client| client.proto == Proto::Resp3);
        if is_told {
            let mut bytes = Vec::new();
            encode::push(&mut bytes, Proto::Resp3, 2);
            encode::bulk(&mut bytes, b"tracking-redir-broken");
            encode::integer(&mut bytes, id);
            self.push_in_order(slot, &bytes);
        }
    }

    /// Gives keys to a client in its protocol. RESP2: only to one that somebody redirects to and that has subscribed, as
    /// servers do; another would take it for a reply.
    fn tell(&mut self, slot: u32, keys: &[u8], is_redirected: bool) -> usize {
        let Some(client) = self.clients.get(slot) else {
            return 0;
        };
        let (proto, is_subscribed) = (client.proto, client.care & care::SUBSCRIBED != 0);
        if proto == Proto::Resp2 && !(is_redirected && is_subscribed) {
            return 0;
        }
        let mut bytes = Vec::new();
        write(&mut bytes, proto, keys);
        self.push_in_order(slot, &bytes)
    }

    fn push_in_order(&mut self, slot: u32, bytes: &[u8]) -> usize {
        self.touch_client(slot);
        let Some(client) = self.clients.get_mut(slot) else {
            return 0;
        };
        if client.intake == Intake::Closing {
            // It asks nothing more, and its end is not to be put off.
            return 0;
        }
        client.replies.push_in_order(bytes);
        let held = client.replies.bytes();
        if held > OUTPUT_HIGH {
            self.piled_up(slot);
        }
        held
    }
}

/// The message in a protocol. `keys` are as a shard wrote them.
fn write(out: &mut Vec<u8>, proto: Proto, keys: &[u8]) {
    match proto {
        Proto::Resp3 => {
            out.extend_from_slice(HEAD);
            out.extend_from_slice(keys);
        }
        Proto::Resp2 => {
            encode::array(out, 3);
            encode::bulk(out, b"message");
            encode::bulk(out, CHANNEL);
            if keys == ALL {
                encode::null(out, proto);
            } else {
                out.extend_from_slice(keys);
            }
        }
    }
}
