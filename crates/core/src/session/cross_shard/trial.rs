//! What only tests switch on: to end or stop the process at a named step, and to let requests pass fences.
//!
//! Owns: `Trial`, which the process reads from its environment at its start, and the names of the steps.
//!
//! Flow: an operation or a recovery comes to a step -> `at_point` counts it -> at the chosen one the worker is asked to end the
//! process, before it writes what the step has made ready, or after.
//!
//! Must stay true: without the environment variables nothing here does anything.
//! Rejected: a build with other features: what is tested would not be what runs.

use crate::session::cross_shard::call::Call;
use crate::session::cross_shard::steps::{Phase, Step};
use crate::session::engine::{Action, Engine};

/// See the head of this file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trial {
    /// The step, and which time it is reached.
    pub fault: Option<(String, u32)>,
    /// The process stops there instead of ending; it may be continued.
    pub stops: bool,
    /// Requests pass fences: what is promised does not hold then.
    pub lets_pass: bool,
}

impl Trial {
    /// From the values of `SHOAL_TEST_FAULT` (`point:nth` or `point:nth:stop`) and `SHOAL_TEST_NO_FENCES`.
    pub fn new(fault: Option<&str>, lets_pass: bool) -> Self {
        let mut words = fault.unwrap_or_default().split(':');
        let point = words.next().unwrap_or_default().to_string();
        let nth = words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
        Self {
            fault: (!point.is_empty()).then_some((point, nth)),
            stops: words.next() == Some("stop"),
            lets_pass,
        }
    }
}

impl Engine {
    /// A step is reached. `is_written`: what it has made ready goes out first.
    pub(crate) fn at_point(&mut self, point: &'static str, is_written: bool) {
        let Some((wanted, nth)) = &self.identity.trial.fault else {
            return;
        };
        if wanted != point {
            return;
        }
        self.cross_shards.points += 1;
        if self.cross_shards.points == *nth {
            let stops = self.identity.trial.stops;
            self.actions.push(Action::Fault { is_written, stops });
        }
    }

    /// The steps that an operation has come to.
    pub(crate) fn pass_points(&mut self, before: Phase, after: Phase, steps: &[Step]) {
        if self.identity.trial.fault.is_none() {
            return;
        }
        let rank = |phase: Phase| match phase {
            Phase::Locking => 0,
            Phase::Preparing => 1,
            Phase::Fencing => 2,
            Phase::Gathering => 3,
            Phase::Committing => 4,
            Phase::Applying => 5,
            Phase::Finishing => 6,
            Phase::Over => 7,
            Phase::Releasing | Phase::HandedOver => 0,
        };
        let points = [
            "before-prepare",
            "prepared",
            "fenced",
            "gathered",
            "committed",
            "applied",
            "cleaned",
        ];
        let passed = points.iter().take(rank(after)).skip(rank(before));
        for point in passed {
            self.at_point(point, false);
        }
        let is = |wanted: fn(&Call) -> bool| {
            steps.iter().any(|step| {
                matches!(step, Step::Call(_, call) | Step::CallAnew(_, call) if wanted(call))
            })
        };
        if is(|call| matches!(call, Call::Prepare(_))) {
            self.at_point("prepare-sent", true);
        }
        if is(|call| matches!(call, Call::Commit(_))) {
            self.at_point("commit-sent", true);
        }
        if is(|call| matches!(call, Call::Apply { .. })) {
            self.at_point("apply-sent", true);
        }
    }
}
