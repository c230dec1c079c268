//! What a client is told of its operation, and what is begun again instead.
//!
//! Owns: the way from an operation's `Answer` to the bytes of a reply, and the second tries.
//!
//! Must stay true: a client gets one answer for each request; "not done" is said only of what was not done.
//! Rejected: to answer a conflict with another proxy's operation at once: it is over in a few milliseconds.

use crate::error::{ClientError, OperationError};
use crate::limits::CROSS_SHARD_TRIES;
use crate::protocol::encode;
use crate::session::cross_shard::jobs::{Job, ReplyKind};
use crate::session::cross_shard::notes::Note;
use crate::session::cross_shard::steps::{Again, Answer};
use crate::session::engine::Engine;
use crate::session::stats::PerKeyspace;

impl Engine {
    pub(crate) fn answer_operation(&mut self, index: u32, answer: Answer) {
        let Some(running) = self.cross_shards.running.get(index) else {
            return;
        };
        let job = running.job.clone();
        if let Answer::Again(Again::Stranger(part)) = answer {
            if job.tries < CROSS_SHARD_TRIES {
                self.keep_watches(index);
                return self.register_and_try_again(job, part);
            }
        }
        if answer == Answer::Conflict && job.tries < CROSS_SHARD_TRIES {
            self.keep_watches(index);
            return self.try_again(job);
        }
        self.count_answer(&job, &answer);
        let text = match answer {
            Answer::Done(replies) => Told::Replies(replies),
            Answer::Broken => Told::Broken,
            Answer::Refused(error) => Told::Refused(error),
            Answer::Conflict | Answer::Waited => {
                Told::Error(ClientError::Operation(OperationError::Busy))
            }
            Answer::TooLarge(bytes) => {
                Told::Error(ClientError::Operation(OperationError::TooLarge(bytes)))
            }
            Answer::Unknown => Told::Error(ClientError::Operation(OperationError::Unknown)),
            Answer::Again(why) => {
                let (Again::Lost(part) | Again::Late(part) | Again::Stranger(part)) = why else {
                    return self.answer_job(
                        &job,
                        &Told::Error(ClientError::Operation(OperationError::Again(
                            "another proxy took this one for dead".to_string(),
                        ))),
                    );
                };
                let shard = job.parts.get(part).map_or("", |part| &part.shard);
                let what = match why {
                    Again::Lost(_) => "was lost",
                    Again::Late(_) => "did not answer in time",
                    Again::Stranger(_) | Again::Resolved => "does not know this proxy yet",
                };
                let text = format!("shard '{shard}' {what}");
                Told::Error(ClientError::Operation(OperationError::Again(text)))
            }
        };
        self.answer_job(&job, &text);
    }

    /// Keys are watched on, for the next try.
    fn keep_watches(&mut self, index: u32) {
        if let Some(running) = self.cross_shards.running.get_mut(index) {
            running.job.watches.clear();
        }
    }

    /// The shard has lost its list of members: this proxy is entered again, and then it is tried again.
    fn register_and_try_again(&mut self, mut job: Job, part: usize) {
        job.tries += 1;
        if let Some(&shard) = job.shards.get(part) {
            let shard = self.shard_number(&job.asker, shard);
            self.post(0, Note::Register(shard));
        }
        self.cross_shards.postponed.push(job);
    }

    /// Others had keys of it. At first it is tried again at once (that takes some round trips), then at the next tick.
    fn try_again(&mut self, mut job: Job) {
        job.tries += 1;
        let cell = PerKeyspace::OperationsRepeated;
        self.stats().keyspace(job.asker.keyspace, cell, 1);
        if job.tries <= 3 {
            self.cross_shards
                .notes
                .push_back(Note::Begin(Box::new(job)));
        } else {
            self.cross_shards.postponed.push(job);
        }
    }

    fn count_answer(&self, job: &Job, answer: &Answer) {
        let cell = match answer {
            Answer::Done(_) => PerKeyspace::Operations,
            Answer::Unknown => PerKeyspace::OperationsUnknown,
            _ => PerKeyspace::OperationsUndone,
        };
        self.stats().keyspace(job.asker.keyspace, cell, 1);
    }

    /// Gives the client its answer.
    pub(crate) fn answer_job(&mut self, job: &Job, answer: &Told) {
        let asker = &job.asker;
        let mut out = Vec::new();
        let proto = self.clients.get(asker.slot).map(|client| client.proto);
        let proto = proto.unwrap_or(encode::Proto::Resp2);
        match answer {
            Told::Replies(replies) if job.reply == ReplyKind::Exec => {
                encode::array(&mut out, job.count);
                out.extend_from_slice(replies);
            }
            Told::Replies(replies) => out.extend_from_slice(replies),
            Told::Broken => encode::null_array(&mut out, proto),
            Told::Refused(error) => {
                out.extend_from_slice(error);
                out.extend_from_slice(b"\r\n");
            }
            Told::Error(error) => self.write_error(asker.keyspace, error, &mut out),
        }
        if job.waits && self.goes_on_waiting(job, answer, &mut out) {
            return;
        }
        self.part_arrived(asker.slot, asker.generation, job.place, 0, &out);
    }
}

/// What a client is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// Replies to its requests, behind each other.
    Replies(Vec<u8>),
    /// EXEC: a watched key has changed.
    Broken,
    /// An error of a shard, without the line end.
    Refused(Vec<u8>),
    /// Ours.
    Error(ClientError),
}
