//! The reply to EXEC: the shard's array, with what we answer ourselves at its places.
//!
//! Owns: `ExecPlan` (what was sent, and what its reply needs), and the making of one reply of it.
//!
//! Must stay true: what we answer ourselves is done only when the shard has executed the rest; a shard that refused a command
//! while it was queued has executed nothing, and the client is told why; a watch's link is given back when its EXEC was answered.
//! Rejected: holding every EXEC's reply: where nothing is to be put into it, it passes through like any other.

use crate::error::ClientError;
use crate::protocol::encode;
use crate::routing::merge::{counted_header, element_len, unexpected};
use crate::session::backend::InFlight;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::gather::GatherKind;
use crate::session::stats::PerKeyspace;
use crate::session::transaction::{Deed, Transaction};

/// What a transaction's reply needs.
#[derive(Debug, Clone)]
pub struct ExecPlan {
    /// An array of the shard is the reply, as it is.
    pub(crate) passes_on: bool,
    /// The first error that the shard gave instead of QUEUED.
    pub(crate) queue_error: Option<Vec<u8>>,
    /// The reply to MULTI has come.
    pub(crate) is_begun: bool,
    /// It was an error.
    pub(crate) is_multi_refused: bool,
    /// The client's own link, if keys were watched.
    pub(crate) watch_link: Option<u32>,
    /// Numbered through the topology.
    pub(crate) shard: usize,
    pub(crate) transaction: Transaction,
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
        if let (GatherKind::Exec(plan), true) = (&mut gather.kind, is_first) {
            let is_multi = !std::mem::replace(&mut plan.is_begun, true);
            if matches!(bytes.first(), Some(b'-')) && plan.queue_error.is_none() {
                plan.queue_error = Some(bytes.trim_ascii_end().to_vec());
                plan.is_multi_refused |= is_multi;
            }
        }
    }

    /// Writes the reply to EXEC.
    pub(crate) fn compose_exec(
        &mut self,
        asker: &Asker,
        plan: &ExecPlan,
        reply: &[u8],
        out: &mut Vec<u8>,
    ) {
        if let Some(link) = plan.watch_link {
            self.give_back(link, true);
        }
        let is_array = reply.first() == Some(&b'*') && !reply.starts_with(b"*-1");
        if !is_array {
            self.stats()
                .keyspace(asker.keyspace, PerKeyspace::TransactionsAborted, 1);
            return self.compose_aborted(plan, reply, out);
        }
        let Some((_, mut at)) = counted_header(reply) else {
            return unexpected(out, "the answer to EXEC");
        };
        let transaction = &plan.transaction;
        let begin = out.len();
        encode::array(out, transaction.commands.len());
        for (index, queued) in transaction.commands.iter().enumerate() {
            if let Deed::Own(local) = queued.deed {
                self.own_reply(asker, local, transaction.request(index), out);
                continue;
            }
            let rest = reply.get(at..).unwrap_or_default();
            let Some(len) = element_len(rest) else {
                out.truncate(begin);
                return unexpected(out, "the answer to EXEC");
            };
            if rest.starts_with(b"-NOSCRIPT") {
                // It was not there after all: it is given again next time.
                self.backends[plan.shard].scripts.clear();
            }
            out.extend_from_slice(&rest[..len]);
            at += len;
        }
    }

    /// Nothing was executed: a broken watch, or the error for which.
    fn compose_aborted(&self, plan: &ExecPlan, reply: &[u8], out: &mut Vec<u8>) {
        let Some(error) = &plan.queue_error else {
            return out.extend_from_slice(reply);
        };
        let reason = crate::error::printable(error.get(1..).unwrap_or_default());
        let error = if plan.is_multi_refused {
            ClientError::MultiRefused {
                shard: self.shard_name(plan.shard),
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
