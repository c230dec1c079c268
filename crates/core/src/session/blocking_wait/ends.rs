//! How waits over several shards end: by their time, by CLIENT UNBLOCK, by a lost connection.
//!
//! Must stay true: a wait with a step on its way ends after that step, for it may take something; one that rests ends at once.

use crate::error::ClientError;
use crate::protocol::encode::{self, Proto};
use crate::session::backend::NONE;
use crate::session::blocking_wait::{Stage, Wait};
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;

impl Engine {
    /// After a step that gave nothing: true when a further one was sent.
    pub(super) fn wait_goes_on(
        &mut self,
        asker: &Asker,
        mut wait: Box<Wait>,
        next: Stage,
        (is_over, proto): (bool, Proto),
        out: &mut Vec<u8>,
    ) -> bool {
        if is_over {
            match wait.ending.flatten() {
                Some(error) => encode::error(out, error),
                None => encode::null_array(out, proto),
            }
            self.close_watches(&wait);
            return false;
        }
        wait.stage = next;
        self.go_on(asker, wait);
        true
    }

    /// Ends a wait when nothing of it is in flight: at once, or after the step.
    pub(crate) fn end_wait(&mut self, slot: u32, error: Option<&'static str>) {
        let Some(wait) = self.wait_of(slot) else {
            return;
        };
        if wait.stage != Stage::Resting {
            wait.ending = Some(error);
            return;
        }
        let (Some(wait), Some(client)) = (self.take_wait(slot), self.clients.get(slot)) else {
            return;
        };
        let mut line = Vec::new();
        match error {
            Some(error) => encode::error(&mut line, error),
            None => encode::null_array(&mut line, client.proto),
        }
        self.close_watches(&wait);
        self.finish_wait(slot, wait.number, line);
    }

    pub(super) fn finish_wait(&mut self, slot: u32, number: u32, line: Vec<u8>) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        client.replies.take_gather(number);
        client.replies.complete(number, line);
        self.touch_client(slot);
        self.settle_client(slot);
    }

    /// The connection on which a client waits is gone. What was in flight on it gets its error as everywhere.
    pub(crate) fn wait_lost(&mut self, slot: u32, shard: usize, id: u32) {
        let Some(wait) = self.wait_of(slot) else {
            return;
        };
        for watch in wait.watches.iter_mut().filter(|watch| watch.link == id) {
            watch.link = NONE;
            watch.is_stale = true;
        }
        if wait.stage != Stage::Resting {
            return;
        }
        let Some(wait) = self.take_wait(slot) else {
            return;
        };
        let error = ClientError::WaitLost {
            shard: self.shard_name(shard),
            endpoint: self.endpoint(shard).to_string(),
        };
        let mut line = Vec::new();
        self.write_error(self.backends[shard].keyspace, &error, &mut line);
        self.close_watches(&wait);
        self.finish_wait(slot, wait.number, line);
    }

    /// Waits whose time is over.
    pub(crate) fn look_at_waits(&mut self) {
        self.waiting.sort_unstable();
        self.waiting.dedup();
        for (slot, generation) in std::mem::take(&mut self.waiting) {
            if self.clients.get_same(slot, generation).is_none() {
                continue;
            }
            let now_ms = self.now_ms;
            let Some(wait) = self.wait_of(slot) else {
                continue;
            };
            let is_late = wait.deadline_ms.is_some_and(|deadline| deadline <= now_ms);
            if is_late && wait.stage == Stage::Resting {
                self.end_wait(slot, None);
            } else {
                self.waiting.push((slot, generation));
            }
        }
    }
}
