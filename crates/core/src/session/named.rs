//! Scripts that a shard may not have seen.
//!
//! Must stay true: a script is loaded on the same link ahead of the request that names it, so nothing of the client is
//! reordered; a request is sent again only after the servers' own words for a script they have not seen (so it was not
//! executed), and only when the client has sent nothing after it that could have overtaken it.

use crate::limits::NAMED_COPY_MAX;
use crate::protocol::command::Merge;
use crate::protocol::encode::{self, Proto};
use crate::protocol::errand;
use crate::routing::merge::merge;
use crate::routing::route::Request;
use crate::session::backend::{InFlight, Waiter};
use crate::session::dispatch::Asker;
use crate::session::engine::{Action, Engine};
use crate::session::gather::{Gather, GatherKind};
use crate::session::mail::Mail;
use crate::session::scripts::{sha_from_hex, sha_of, Sha};
use crate::session::stats::{PerKeyspace, PerShard};
use std::sync::Arc;

/// The servers' own words for a script that they have not seen. A script that has run can return an error that begins with
/// the same code; to run it again would be to execute it twice.
fn is_servers_own(reply: &[u8]) -> bool {
    let text = reply.trim_ascii_end();
    text == b"-NOSCRIPT No matching script. Please use EVAL."
        || text == b"-NOSCRIPT No matching script."
}

impl Engine {
    /// EVAL and its kin.
    pub(crate) fn send_script(
        &mut self,
        asker: &Asker,
        shard: u16,
        body: bool,
        sha: bool,
        request: &Request<'_>,
    ) {
        let number = self.shard_number(asker, shard);
        let link = match self.link_of(asker, number) {
            Ok(link) => link,
            Err(error) => {
                self.stats().shard(number, PerShard::Failed, 1);
                return self.answer_error(asker, &error);
            }
        };
        let named = if sha {
            sha_from_hex(request.arg(1))
        } else {
            None
        };
        if body {
            self.script_shown(number, request.arg(1));
        } else if !sha {
            return self.call_function(asker, number, link, request);
        }
        let Some(sha) = named else {
            self.say_caching(asker, link);
            let place = crate::session::dispatch::client_number(self, asker);
            self.send(link, request.data);
            return self.sent(asker, link, place, 0, Waiter::Client);
        };
        if !self.backends[number].scripts.contains(&sha) {
            self.load_ahead(asker, link, number, &sha);
        }
        let is_caching_said = self.trackers.caching.is_some();
        self.say_caching(asker, link);
        // CLIENT CACHING holds for one request, so the same one sent again would be another.
        if request.data.len() > NAMED_COPY_MAX
            || self.scripts.get(&sha).is_none()
            || is_caching_said
        {
            // It could not be mended, so nothing is kept for it.
            let place = crate::session::dispatch::client_number(self, asker);
            self.send(link, request.data);
            return self.sent(asker, link, place, 0, Waiter::Client);
        }
        let kind = GatherKind::Named {
            request: request.data.into(),
            sha,
            shard: number as u32,
        };
        let place = self.reserve_gather(asker, Gather::new(kind, 1));
        self.send(link, request.data);
        self.sent(asker, link, place, 0, Waiter::Part);
    }

    /// Of each script that SCRIPT EXISTS asks for whether it is known here: then a call of it works on every shard.
    pub(crate) fn known_scripts(&self, request: &Request<'_>) -> Vec<bool> {
        let is_known = |index| {
            let sha = sha_from_hex(request.arg(index));
            sha.is_some_and(|sha| self.scripts.get(&sha).is_some())
        };
        (2..request.args.len()).map(is_known).collect()
    }

    /// A client showed a script's text; the shard that runs it will have it.
    fn script_shown(&mut self, shard: usize, body: &[u8]) {
        if body.len() > crate::limits::SCRIPT_BYTES_MAX {
            return;
        }
        let sha = sha_of(body);
        if self.scripts.get(&sha).is_none() {
            self.remember_script(&body.into());
        }
        self.known_at(shard, sha);
    }

    fn known_at(&mut self, shard: usize, sha: Sha) {
        let scripts = &mut self.backends[shard].scripts;
        if scripts.len() >= crate::limits::SCRIPTS_MAX {
            scripts.clear();
        }
        scripts.insert(sha);
    }

    /// Remembers a script here and in every other worker.
    pub(crate) fn remember_script(&mut self, body: &Arc<[u8]>) {
        let sha = sha_of(body);
        if self.scripts.learn(sha, body) {
            self.mail_others(|| Mail::Script(sha, Arc::clone(body)));
        }
    }

    /// SCRIPT FLUSH: nobody knows any script.
    pub(crate) fn forget_scripts(&mut self) {
        self.forget_scripts_here();
        self.mail_others(|| Mail::ForgetScripts);
    }

    pub(crate) fn forget_scripts_here(&mut self) {
        self.scripts.clear();
        for backend in &mut self.backends {
            backend.scripts.clear();
        }
    }

    fn mail_others(&mut self, mail: impl Fn() -> Mail) {
        for worker in (0..self.identity.workers).filter(|&worker| worker != self.identity.worker) {
            self.actions.push(Action::Mail(worker, mail()));
        }
    }

    /// Gives the shard a script that we know and it may not, on the link that its request will follow on.
    pub(crate) fn load_ahead(&mut self, asker: &Asker, link_id: u32, shard: usize, sha: &Sha) {
        let Some(body) = self.scripts.get(sha).cloned() else {
            return;
        };
        if self.send_ahead(asker, link_id, |out| errand::load_script(out, &body)) {
            self.known_at(shard, *sha);
        }
    }

    /// What a shard lacks, on the link that the request which needs it will follow on. False when there is no such link.
    pub(crate) fn send_ahead(
        &mut self,
        asker: &Asker,
        link_id: u32,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let (now_us, now_ms) = (self.now_us, self.now_ms);
        let Some(link) = self.links.get_mut(link_id) else {
            return false;
        };
        write(link.outgoing().tail());
        let entry = InFlight {
            client: asker.slot,
            generation: asker.generation,
            number: 0,
            sent_us: now_us as u32,
            part: 0,
            waiter: Waiter::Prelude,
        };
        link.await_reply(entry, now_ms);
        self.touch_link(link_id);
        self.stats()
            .keyspace(asker.keyspace, PerKeyspace::ScriptsMended, 1);
        true
    }

    /// NOSCRIPT from a shard: true when the script was loaded and the request sent again.
    pub(crate) fn mend_script(
        &mut self,
        asker: &Asker,
        number: u32,
        call: (&Arc<[u8]>, &Sha, usize),
        reply: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        let (request, sha, shard) = call;
        self.backends[shard].scripts.remove(sha);
        let is_last = self
            .clients
            .get_mut(asker.slot)
            .is_some_and(|client| client.replies.is_last(number));
        let is_refused = !is_servers_own(reply) || !is_last || self.scripts.get(sha).is_none();
        let known = self.scripts.get(sha).filter(|_| !is_refused);
        let Some(body) = known
            .cloned()
            .filter(|_| self.link_of(asker, shard).is_ok())
        else {
            out.extend_from_slice(reply);
            return false;
        };
        let mut ahead = Vec::new();
        errand::load_script(&mut ahead, &body);
        self.known_at(shard, *sha);
        self.call_late(asker, number, shard, vec![ahead], request.clone());
        true
    }

    /// Sends the mark that WAIT waits for.
    pub(crate) fn send_mark(&mut self, link: u32) {
        self.send(link, errand::MARK);
    }
}

/// The reply to SCRIPT EXISTS: a script is there if every shard has it, or would be given it.
pub(crate) fn compose_known(parts: &[&[u8]], known: &[bool], proto: Proto, out: &mut Vec<u8>) {
    let start = out.len();
    merge(Merge::And, parts, &[], proto, 0, out);
    let mut head = Vec::new();
    encode::array(&mut head, known.len());
    let merged = out.split_off(start);
    // An error is passed on; else each element is `:0` or `:1` and a line end.
    let Some(elements) = merged.strip_prefix(head.as_slice()) else {
        return out.extend_from_slice(&merged);
    };
    out.extend_from_slice(&head);
    for (element, &is_known) in elements.chunks_exact(4).zip(known) {
        encode::integer(out, i64::from(is_known || element == b":1\r\n"));
    }
}
