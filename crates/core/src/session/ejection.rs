//! Ejection: a cache does without a shard that fails, and takes it back when it is well.
//!
//! Owns: `Membership`, where a shard is, moved only by `after`, and who decides. Failures are counted by every worker for
//! itself; the one that has seen enough of them tells worker 0, which alone ejects, probes and readmits, and tells all
//! workers the share of its keys that the shard takes (`Admission`).
//!
//! Flow: a connection is lost -> `note_failure` -> `shard_failed` (worker 0) -> `Membership` -> `take_share` everywhere.
//! Time (worker 0): a probe was answered after the shard's time was up -> it returns, a sixteenth of its keys at a time.
//!
//! Must stay true: a store never gets here; at most `shards_max` shards of a keyspace are out; a shard comes back only
//! after it has answered; what fails while coming back is out at once, and for longer.
//! Rejected: each worker on its own (two workers would look for one key in two places for ever); readmission on trial
//! with clients' requests, as Twemproxy does it (a dead shard then costs some of them at every try).

use crate::limits::RETRY_AFTER_MS_MAX;
use crate::routing::admission::SHARE_WHOLE;
use crate::routing::topology::{Ejection, Role};
use crate::session::backend::Health;
use crate::session::engine::{Action, Engine, Level};
use crate::session::mail::Mail;
use crate::session::stats::{PerKeyspace, PerShard};

/// Where a shard of a cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// It takes all of its keys.
    In,
    /// It takes none, at least until `until_ms`.
    Ejected {
        /// On the engine's clock.
        until_ms: u64,
        /// How often it failed while coming back.
        relapses: u32,
    },
    /// It takes a growing share of them.
    Returning {
        /// On the engine's clock.
        since_ms: u64,
        /// As in `Ejected`.
        relapses: u32,
    },
}

/// What happens to a shard of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembershipEvent {
    /// It failed as often as it may.
    Failed,
    /// Time went by; it last answered a probe at this time.
    Looked {
        /// On the engine's clock.
        well_ms: u64,
    },
}

impl Membership {
    /// The only way in which it moves.
    pub fn after(self, event: MembershipEvent, rules: &Ejection, now_ms: u64) -> Self {
        let out = |relapses: u32| Self::Ejected {
            until_ms: now_ms + wait_ms(rules, relapses),
            relapses,
        };
        match (self, event) {
            (Self::In, MembershipEvent::Failed) => out(0),
            (Self::Returning { relapses, .. }, MembershipEvent::Failed) => {
                out(relapses.saturating_add(1))
            }
            (Self::Ejected { until_ms, relapses }, MembershipEvent::Looked { well_ms })
                if now_ms >= until_ms && well_ms >= until_ms =>
            {
                let returning = Self::Returning {
                    since_ms: now_ms,
                    relapses,
                };
                returning.after(MembershipEvent::Looked { well_ms }, rules, now_ms)
            }
            (Self::Returning { since_ms, .. }, MembershipEvent::Looked { .. })
                if now_ms - since_ms >= rules.readmit_ms =>
            {
                Self::In
            }
            (Self::In | Self::Returning { .. }, MembershipEvent::Looked { .. })
            | (Self::Ejected { .. }, MembershipEvent::Failed | MembershipEvent::Looked { .. }) => {
                self
            }
        }
    }

    /// How many sixteenths of its keys the shard takes.
    pub fn share(self, rules: &Ejection, now_ms: u64) -> u8 {
        match self {
            Self::In => SHARE_WHOLE,
            Self::Ejected { .. } => 0,
            Self::Returning { since_ms, .. } => {
                let steps = u64::from(SHARE_WHOLE);
                let gone = (now_ms - since_ms) * steps / rules.readmit_ms.max(1);
                (1 + gone).min(steps) as u8
            }
        }
    }
}

/// How long a shard stays out: twice as long for each relapse.
fn wait_ms(rules: &Ejection, relapses: u32) -> u64 {
    let doubled = rules.retry_after_ms.saturating_mul(1 << relapses.min(20));
    doubled.min((RETRY_AFTER_MS_MAX as u64).max(rules.retry_after_ms))
}

impl Engine {
    /// The rules of a shard's keyspace; None in a store.
    pub(crate) fn ejection_rules(&self, shard: usize) -> Option<Ejection> {
        match self.topology.keyspaces[self.backends[shard].keyspace].role {
            Role::Store => None,
            Role::Cache(rules) => Some(rules),
        }
    }

    /// The keyspace of a shard, and its index there.
    fn place(&self, shard: usize) -> (usize, u16) {
        let keyspace = self.backends[shard].keyspace;
        let first = self.topology.keyspaces[keyspace].first_shard;
        (keyspace, (shard - first) as u16)
    }

    /// A connection to a shard was lost, or it answered that it cannot. Several connections that are lost at one time are
    /// one failure: a server that ends takes all of them along.
    pub(crate) fn note_failure(&mut self, shard: usize) {
        let Some(rules) = self.ejection_rules(shard) else {
            return;
        };
        let (keyspace, index) = self.place(shard);
        let share = self.admissions[keyspace].share(index);
        let now_ms = self.now_ms;
        let backend = &mut self.backends[shard];
        if share == 0 || (backend.failures > 0 && backend.failed_ms == now_ms) {
            return;
        }
        self.failing += usize::from(backend.failures == 0);
        backend.failures += 1;
        backend.failed_ms = now_ms;
        let bound = if share == SHARE_WHOLE { rules.after } else { 1 };
        if backend.failures < bound {
            return;
        }
        self.note_success(shard);
        if self.identity.worker == 0 {
            self.shard_failed(shard);
        } else {
            self.actions.push(Action::Mail(0, Mail::ShardFailed(shard)));
        }
    }

    /// A shard answered as one that is well: its failures are in a row no more.
    #[cold]
    pub(crate) fn note_success(&mut self, shard: usize) {
        if std::mem::take(&mut self.backends[shard].failures) > 0 {
            self.failing -= 1;
        }
    }

    /// A reply while some shard has failures in a row, or an error reply.
    #[cold]
    pub(crate) fn note_reply(&mut self, shard: usize, reply: &[u8], is_first: bool) {
        let is_unwell = is_first
            && [&b"-OOM"[..], b"-BUSY", b"-LOADING"]
                .iter()
                .any(|error| reply.starts_with(error));
        if !is_unwell {
            self.note_success(shard);
        } else if self
            .ejection_rules(shard)
            .is_some_and(|rules| rules.on_replies)
        {
            self.note_failure(shard);
        }
    }

    /// Worker 0: somebody has seen a shard fail too often.
    pub(crate) fn shard_failed(&mut self, shard: usize) {
        let Some(rules) = self.ejection_rules(shard) else {
            return;
        };
        let (keyspace, _) = self.place(shard);
        let was = self.memberships[shard];
        let space = &self.topology.keyspaces[keyspace];
        let all = &self.memberships[space.first_shard..space.first_shard + space.shards.len()];
        let others_out = all
            .iter()
            .filter(|one| matches!(one, Membership::Ejected { .. }))
            .count();
        if !matches!(was, Membership::Ejected { .. }) && others_out >= rules.shards_max as usize {
            self.stats()
                .keyspace(keyspace, PerKeyspace::EjectionsRefused, 1);
            let mut fields = self.shard_fields(shard);
            fields.push(("ejected", others_out.to_string()));
            return self.event(Level::Warning, "ejection-refused", fields);
        }
        self.move_membership(shard, MembershipEvent::Failed, &rules);
    }

    /// Worker 0: what time brings for shards that are out or coming back.
    pub(crate) fn look_at_ejected(&mut self) {
        if self.identity.worker != 0 {
            return;
        }
        for shard in 0..self.memberships.len() {
            if self.memberships[shard] == Membership::In {
                continue;
            }
            if self.backends[shard].health == Health::Idle {
                // Another worker uses it, this one never did: it cannot be probed without a connection.
                self.open_main(shard);
            }
            if let Some(rules) = self.ejection_rules(shard) {
                let well_ms = self.backends[shard].well_ms;
                self.move_membership(shard, MembershipEvent::Looked { well_ms }, &rules);
            }
        }
    }

    fn move_membership(&mut self, shard: usize, event: MembershipEvent, rules: &Ejection) {
        let was = self.memberships[shard];
        let is = was.after(event, rules, self.now_ms);
        self.memberships[shard] = is;
        let (keyspace, index) = self.place(shard);
        let share = is.share(rules, self.now_ms);
        if share != self.admissions[keyspace].share(index) {
            for worker in 1..self.identity.workers {
                self.actions
                    .push(Action::Mail(worker, Mail::Share(shard, share)));
            }
            self.take_share(shard, share);
            self.stats()
                .set_shard(shard, PerShard::Ejected, u64::from(share == 0));
        }
        let name = match (was, is) {
            (Membership::Ejected { .. }, Membership::Ejected { .. })
            | (Membership::Returning { .. }, Membership::Returning { .. })
            | (Membership::In, Membership::In | Membership::Returning { .. }) => return,
            (_, Membership::Ejected { until_ms, .. }) => {
                self.stats().shard(shard, PerShard::Ejections, 1);
                let unix_ms = self.unix_start_ms + self.now_ms;
                self.stats().set_shard(shard, PerShard::EjectedAt, unix_ms);
                let mut fields = self.shard_fields(shard);
                fields.push(("reason", self.backends[shard].reason.clone()));
                fields.push(("retry_after_ms", (until_ms - self.now_ms).to_string()));
                return self.event(Level::Warning, "shard-ejected", fields);
            }
            (_, Membership::Returning { .. }) => "shard-returning",
            (_, Membership::In) => {
                self.stats().shard(shard, PerShard::Readmissions, 1);
                "shard-readmitted"
            }
        };
        let fields = self.shard_fields(shard);
        self.event(Level::Info, name, fields);
    }

    /// From now on a shard takes so many sixteenths of its keys.
    pub(crate) fn take_share(&mut self, shard: usize, share: u8) {
        let (keyspace, index) = self.place(shard);
        self.admissions[keyspace].set_share(index, share);
        self.keys_have_moved(keyspace);
        // What was counted belongs to the time before.
        self.note_success(shard);
        if self.identity.worker == 0 {
            self.stats().set_shard(shard, PerShard::Share, share.into());
        }
    }

    /// A shard of the keyspace that is ejected, if there is one.
    pub(crate) fn ejected_shard(&self, keyspace: usize) -> Option<usize> {
        let admission = &self.admissions[keyspace];
        if admission.is_whole() {
            return None;
        }
        let first = self.topology.keyspaces[keyspace].first_shard;
        (0..admission.shards())
            .find(|&shard| admission.share(shard) == 0)
            .map(|shard| first + shard as usize)
    }

    /// The shards of a keyspace that are asked what every shard is asked: ejected ones are not, unless all are.
    pub(crate) fn shards_in(&self, keyspace: usize) -> Vec<u16> {
        let admission = &self.admissions[keyspace];
        let all = 0..admission.shards();
        let shards: Vec<u16> = all
            .clone()
            .filter(|&shard| admission.share(shard) > 0)
            .collect();
        if shards.is_empty() {
            all.collect()
        } else {
            shards
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Ejection = Ejection {
        after: 2,
        retry_after_ms: 1000,
        on_replies: false,
        shards_max: 1,
        readmit_ms: 1600,
    };

    fn looked(well_ms: u64) -> MembershipEvent {
        MembershipEvent::Looked { well_ms }
    }

    #[test]
    fn a_shard_stays_out_until_it_has_answered_after_its_time() {
        let out = Membership::In.after(MembershipEvent::Failed, &RULES, 100);
        assert_eq!(out.share(&RULES, 100), 0);
        assert_eq!(out.after(looked(1099), &RULES, 1099), out, "too early");
        assert_eq!(
            out.after(looked(1000), &RULES, 5000),
            out,
            "it answered, but before its time was up"
        );
        let back = out.after(looked(1100), &RULES, 1150);
        assert_eq!(
            back,
            Membership::Returning {
                since_ms: 1150,
                relapses: 0
            }
        );
    }

    #[test]
    fn keys_come_back_step_by_step() {
        let back = Membership::Returning {
            since_ms: 0,
            relapses: 0,
        };
        let shares: Vec<u8> = [0, 99, 100, 800, 1500, 1599]
            .map(|now| back.share(&RULES, now))
            .into();
        assert_eq!(shares, [1, 1, 2, 9, 16, 16]);
        assert_eq!(back.after(looked(0), &RULES, 1599), back);
        assert_eq!(back.after(looked(0), &RULES, 1600), Membership::In);
        let at_once = Ejection {
            readmit_ms: 0,
            ..RULES
        };
        let out = Membership::Ejected {
            until_ms: 50,
            relapses: 3,
        };
        assert_eq!(out.after(looked(60), &at_once, 60), Membership::In);
    }

    #[test]
    fn each_relapse_doubles_the_wait_up_to_a_bound() {
        let mut now = 0;
        let mut state = Membership::In;
        for wait in [1000, 2000, 4000, 8000] {
            state = state.after(MembershipEvent::Failed, &RULES, now);
            let Membership::Ejected { until_ms, .. } = state else {
                panic!("not out: {state:?}")
            };
            assert_eq!(until_ms - now, wait);
            now = until_ms;
            state = state.after(looked(now), &RULES, now);
        }
        assert_eq!(wait_ms(&RULES, 40), RETRY_AFTER_MS_MAX as u64);
        let patient = Ejection {
            retry_after_ms: 7_200_000,
            ..RULES
        };
        assert_eq!(
            wait_ms(&patient, 5),
            7_200_000,
            "never shorter than asked for"
        );
    }
}
