//! The reply to EXEC: the shards' arrays, with what we answer ourselves at its places.
//!
//! Owns: `ExecPlan` (what was sent, and what its reply needs), and the making of one reply of it.
//!
//! Flow: one shard: its array is the reply, and passes through where nothing is to be put into it. Several: each command's
//! element comes from its shard's array, in the order of the commands; the commands of a shard that executed nothing get its
//! error. Under a watch the first reply decides whether the other shards are sent their parts.
//!
//! Must stay true: what we answer ourselves is done only when the shards have executed the rest; a shard that refused a command
//! while it was queued has executed nothing, and the client is told why; a watch's link is given back when its EXEC was answered.
//! Rejected: holding every EXEC's reply: where nothing is to be put into it, it passes through like any other.

use crate::error::ClientError;
use crate::protocol::encode;
use crate::routing::merge::{counted_header, element_len, merge, unexpected};
use crate::session::backend::InFlight;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::gather::GatherKind;
use crate::session::transaction::{Deed, Transaction};
use crate::session::transaction_split::Piece;

/// What one shard has said so far of its part.
#[derive(Debug, Clone)]
pub struct ExecPart {
    /// Numbered through the topology.
    pub(crate) shard: usize,
    /// The first error that it gave instead of QUEUED.
    queue_error: Option<Vec<u8>>,
    /// The reply to MULTI has come.
    is_begun: bool,
    /// It was an error.
    is_multi_refused: bool,
}

impl ExecPart {
    /// Nothing has come.
    pub(crate) fn new(shard: usize) -> Self {
        Self {
            shard,
            queue_error: None,
            is_begun: false,
            is_multi_refused: false,
        }
    }
}

/// What a transaction's reply needs.
#[derive(Debug, Clone)]
pub struct ExecPlan {
    /// An array of the shard is the reply, as it is.
    pub(crate) passes_on: bool,
    /// One for each shard.
    pub(crate) parts: Vec<ExecPart>,
    /// The part whose keys are watched, which is executed first, and the client's own link for it.
    pub(crate) watch: Option<(usize, u32)>,
    /// What shards are told ahead of their parts: whether what is read is tracked.
    pub(crate) caching: Option<&'static [u8]>,
    pub(crate) transaction: Transaction,
}

/// What is left of a shard's reply, or what each of its commands is answered.
enum Left<'r> {
    Elements(&'r [u8]),
    Error(Vec<u8>),
}

/// An error reply without its first letter.
fn readable(error: &[u8]) -> String {
    crate::error::printable(error.get(1..).unwrap_or_default())
}

fn is_executed(reply: &[u8]) -> bool {
    reply.first() == Some(&b'*') && !reply.starts_with(b"*-1")
}

impl Engine {
    /// The reply to MULTI, or to a command that was queued on a shard.
    pub(crate) fn note_queued(&mut self, entry: &InFlight, bytes: &[u8], is_first: bool) {
        let Some(client) = self.clients.get_same(entry.client, entry.generation) else {
            return;
        };
        let Some(gather) = client.replies.gather(entry.number) else {
            return;
        };
        let GatherKind::Exec(plan) = &mut gather.kind else {
            return;
        };
        if let (Some(part), true) = (plan.parts.get_mut(entry.part as usize), is_first) {
            let is_multi = !std::mem::replace(&mut part.is_begun, true);
            if matches!(bytes.first(), Some(b'-')) && part.queue_error.is_none() {
                part.queue_error = Some(bytes.trim_ascii_end().to_vec());
                part.is_multi_refused |= is_multi;
            }
        }
    }

    /// Writes the reply to EXEC; true when further shards were sent their parts first.
    pub(crate) fn compose_exec(
        &mut self,
        asker: &Asker,
        place: u32,
        mut plan: Box<ExecPlan>,
        replies: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> bool {
        if let Some((watched, link)) = plan.watch.take() {
            self.give_back(link, true);
            let reply = replies[watched];
            if !is_executed(reply) {
                self.exec_aborted(asker);
                self.compose_aborted(&plan.parts[watched], reply, out);
                return false;
            }
            if plan.parts.len() > 1 {
                self.exec_others(asker, place, plan, watched, reply);
                return true;
            }
        }
        let is_certain = |(reply, part): (&&[u8], &ExecPart)| {
            reply.starts_with(b"-EXECABORT") && !part.is_multi_refused
        };
        let is_nothing = match replies {
            [one] => !is_executed(one),
            _ => replies.iter().zip(&plan.parts).all(is_certain),
        };
        if is_nothing {
            self.exec_aborted(asker);
            self.compose_aborted(&plan.parts[0], replies[0], out);
        } else {
            self.compose_elements(asker, &plan, replies, out);
        }
        false
    }

    /// What the commands of one shard are answered.
    fn left<'r>(&self, part: &ExecPart, reply: &'r [u8]) -> Option<Left<'r>> {
        if is_executed(reply) {
            let (_, body) = counted_header(reply)?;
            return Some(Left::Elements(reply.get(body..)?));
        }
        let mut error = Vec::new();
        match &part.queue_error {
            Some(reason) if !part.is_multi_refused => ClientError::PartAborted {
                shard: self.shard_name(part.shard),
                reason: readable(reason),
            }
            .write(&mut error),
            _ => self.compose_aborted(part, reply, &mut error),
        }
        (error.first() == Some(&b'-')).then_some(Left::Error(error))
    }

    /// Each command's own reply, in their order.
    fn compose_elements(
        &mut self,
        asker: &Asker,
        plan: &ExecPlan,
        replies: &[&[u8]],
        out: &mut Vec<u8>,
    ) {
        let all = replies.iter().zip(&plan.parts);
        let all = all.map(|(reply, part)| self.left(part, reply));
        let Some(mut all) = all.collect::<Option<Vec<_>>>() else {
            return unexpected(out, "the answer to EXEC");
        };
        let transaction = &plan.transaction;
        let begin = out.len();
        encode::array(out, transaction.count());
        let proto = self.clients.get(asker.slot).map(|client| client.proto);
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        for (index, queued) in transaction.commands.iter().enumerate() {
            if let Deed::Own(local) = queued.deed {
                self.own_reply(asker, local, transaction.request(index), out);
                continue;
            }
            let part = queued.part as usize;
            let element = match all.get_mut(part) {
                Some(Left::Error(error)) => Some(error.as_slice()),
                Some(Left::Elements(rest)) => element_len(rest).map(|len| {
                    let (element, behind) = rest.split_at(len);
                    *rest = behind;
                    element
                }),
                None => None,
            };
            let Some(element) = element else {
                out.truncate(begin);
                return unexpected(out, "the answer to EXEC");
            };
            if element.starts_with(b"-NOSCRIPT") {
                // It was not there after all: it is given again next time.
                self.backends[plan.parts[part].shard].scripts.clear();
            }
            match &queued.piece {
                Piece::Whole => out.extend_from_slice(element),
                Piece::Part => pieces.push(element.to_vec()),
                Piece::Last(join) => {
                    let mut parts: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
                    parts.push(element);
                    let proto = proto.unwrap_or(encode::Proto::Resp2);
                    merge(join.merge, &parts, &join.order, proto, 0, out);
                    pieces.clear();
                }
            }
        }
    }

    /// A shard executed nothing: a broken watch, or the error for which.
    fn compose_aborted(&self, part: &ExecPart, reply: &[u8], out: &mut Vec<u8>) {
        let Some(error) = &part.queue_error else {
            return out.extend_from_slice(reply);
        };
        let reason = readable(error);
        let error = if part.is_multi_refused {
            ClientError::MultiRefused {
                shard: self.shard_name(part.shard),
                reason,
            }
        } else {
            ClientError::Text(format!(
                "EXECABORT Transaction discarded because of: {reason}"
            ))
        };
        error.write(out);
    }
}
