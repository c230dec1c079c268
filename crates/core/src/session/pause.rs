//! CLIENT PAUSE: requests of all clients of a keyspace wait.
//!
//! Owns: whether a keyspace is paused, until when, and for which requests; the two commands; the end of a pause.
//!
//! Flow: PAUSE goes to every worker as mail and is answered when all have taken it -> the gate asks `is_held_by_pause`,
//! which puts the client's intake on `Paused` -> UNPAUSE or the clock ends the pause, and the next tick opens every such
//! intake, which shows the held request again.
//!
//! Must stay true: as on one server a second pause only adds to the first; what is held is taken later in the client's
//! order; nothing of a held request was sent. A request that might write is held though it may turn out not to.
//! Rejected: to open intakes within UNPAUSE itself: what clients had sent could end and begin further pauses, each within
//! the last, as deep as there are clients. To let UNPAUSE pass a pause of everything: servers hold it too.

use crate::error::ClientError;
use crate::limits::PAUSE_MS_MAX;
use crate::protocol::command::{flags, CommandSpec, Local, Policy};
use crate::protocol::request::strict_integer;
use crate::routing::route::Request;
use crate::session::client::{care, Intake};
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::gather::GatherKind;
use crate::session::mail::Mail;

/// A pause of a keyspace, as mail carries it and each worker keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// When it ends, on the workers' common clock (ms).
    pub until_ms: u64,
    /// Reading goes on.
    pub only_writes: bool,
}

impl Pause {
    /// This pause and one that was there: the later end, and everything if one of them says so.
    fn after(self, earlier: Option<Self>) -> Self {
        earlier.map_or(self, |earlier| Self {
            until_ms: self.until_ms.max(earlier.until_ms),
            only_writes: self.only_writes && earlier.only_writes,
        })
    }
}

impl Engine {
    /// CLIENT PAUSE and UNPAUSE.
    pub(crate) fn pause(&mut self, asker: &Asker, local: Local, request: &Request<'_>) {
        let pause = if local == Local::ClientUnpause {
            None
        } else {
            match pause_of(request, self.now_ms) {
                Ok(pause) => Some(pause),
                Err(error) => return self.answer_error(asker, &error),
            }
        };
        let keyspace = asker.keyspace;
        self.ask_workers(asker, GatherKind::AllTook, |ticket| {
            Mail::Pause(ticket, keyspace, pause)
        });
    }

    /// Mail: a keyspace is paused, or (None) is so no longer.
    pub(crate) fn take_pause(&mut self, keyspace: usize, pause: Option<Pause>) {
        match pause {
            Some(pause) => {
                let earlier = self.pause_in_force(keyspace);
                self.pauses[keyspace] = Some(pause.after(earlier));
                self.care |= care::PAUSED;
            }
            // It has ended by now; the tick sees that.
            None => {
                if let Some(pause) = &mut self.pauses[keyspace] {
                    pause.until_ms = 0;
                }
            }
        }
    }

    fn pause_in_force(&self, keyspace: usize) -> Option<Pause> {
        self.pauses[keyspace].filter(|pause| pause.until_ms > self.now_ms)
    }

    /// Whether a request waits for the end of a pause; its client's intake then says so.
    pub(crate) fn is_held_by_pause(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
        _request: &Request<'_>,
    ) -> bool {
        // What nobody knows is refused, paused or not.
        let (Some(client), Some(spec)) = (self.clients.get(slot), spec) else {
            return false;
        };
        let Some(pause) = self.pause_in_force(client.keyspace as usize) else {
            return false;
        };
        if pause.only_writes && !may_write(spec) {
            return false;
        }
        if let Some(client) = self.clients.get_mut(slot) {
            client.intake = Intake::Paused;
        }
        true
    }

    /// Ends the pauses whose time has come, and lets go on who waited for that.
    pub(crate) fn look_at_pauses(&mut self) {
        if self.care & care::PAUSED == 0 {
            return;
        }
        let now_ms = self.now_ms;
        for pause in &mut self.pauses {
            *pause = pause.filter(|pause| pause.until_ms > now_ms);
        }
        if self.pauses.iter().all(Option::is_none) {
            self.care &= !care::PAUSED;
        }
        for slot in self.clients.indexes() {
            let goes_on = self.clients.get(slot).is_some_and(|client| {
                client.intake == Intake::Paused && self.pauses[client.keyspace as usize].is_none()
            });
            if goes_on {
                self.open_intake(slot);
            }
        }
    }
}

/// What the servers count as writing here: also what may change a key on the side, what is published, scripts (but the
/// read-only forms), and the execution of a transaction.
fn may_write(spec: &CommandSpec) -> bool {
    let is_handed_on = matches!(
        spec.policy,
        Policy::Local(Local::Publish | Local::Spublish | Local::Exec)
    );
    is_handed_on || spec.flags & flags::WRITE != 0 || spec.keys.iter().any(|keys| keys.write)
}

/// The arguments of CLIENT PAUSE, judged in the servers' order.
fn pause_of(request: &Request<'_>, now_ms: u64) -> Result<Pause, ClientError> {
    let only_writes = match request.args.len() {
        3 => false,
        4 if request.arg(3).eq_ignore_ascii_case(b"WRITE") => true,
        4 if request.arg(3).eq_ignore_ascii_case(b"ALL") => false,
        4 => {
            return Err(ClientError::Words(
                "ERR CLIENT PAUSE mode must be WRITE or ALL",
            ))
        }
        _ => return Err(ClientError::Syntax),
    };
    let number = strict_integer(request.arg(2)).ok_or(ClientError::Words(
        "ERR timeout is not an integer or out of range",
    ))?;
    let span_ms =
        u64::try_from(number).map_err(|_| ClientError::Words("ERR timeout is negative"))?;
    if span_ms > PAUSE_MS_MAX as u64 {
        return Err(ClientError::Text(format!(
            "ERR timeout is out of range: shoal pauses clients for {PAUSE_MS_MAX} ms at most"
        )));
    }
    Ok(Pause {
        until_ms: now_ms + span_ms,
        only_writes,
    })
}
