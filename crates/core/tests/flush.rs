//! What empties every shard, as one operation: its way through the state machines, and what it looks like on the wire.

#![allow(clippy::panic)] // clippy.toml allows it in test functions only, not in what those call

use shoal_core::session::cross_shard::call::{
    Call, Outcome, Pid, Record, Redo, Scope, Tx, Value, Written,
};
use shoal_core::session::cross_shard::operation::Operation;
use shoal_core::session::cross_shard::recovery::{self, Recovery, Subject};
use shoal_core::session::cross_shard::steps::Phase;
use shoal_core::session::cross_shard::steps::{Answer, Event, Part, Plan, Step};
use shoal_core::session::cross_shard::wire::encode;
use std::sync::Arc;

const REQUEST: &[u8] = b"*1\r\n$8\r\nFLUSHALL\r\n";

fn tx() -> Tx {
    Tx(Arc::from("p-0-1"))
}

fn plan(shards: &[&str]) -> Plan {
    let part = |shard: &&str| Part {
        shard: Arc::from(*shard),
        scope: Scope::All,
        keys: Vec::new(),
    };
    Plan {
        tx: tx(),
        pid: Pid(Arc::from("p")),
        parts: shards.iter().map(part).collect(),
        home: 0,
        requests: Arc::from(REQUEST),
        count: 1,
        redo: Some(Redo(Arc::from("FLUSHALL ASYNC"))),
        watches: false,
        is_careful: false,
    }
}

fn after(operation: &mut Operation, event: Event) -> Vec<Step> {
    let mut steps = Vec::new();
    operation.after(event, 5, &mut steps);
    steps
}

fn calls(steps: &[Step]) -> Vec<(usize, &Call)> {
    let call = |step| match step {
        &Step::Call(part, ref call) | &Step::CallAnew(part, ref call) => Some((part, call)),
        _ => None,
    };
    steps.iter().filter_map(call).collect()
}

fn prepared() -> Outcome {
    Outcome::Prepared {
        members: vec![Pid(Arc::from("p"))],
        silent: Vec::new(),
        values: Vec::new(),
    }
}

fn committed() -> Outcome {
    Outcome::Committed {
        replies: b"+OK\r\n".to_vec(),
        written: Vec::<Written>::new(),
    }
}

/// Prepared on three shards and committed; the steps behind that.
fn until_committed(operation: &mut Operation) -> Vec<Step> {
    let steps = after(operation, Event::Begin);
    for (part, call) in calls(&steps) {
        let Call::Prepare(prepare) = call else {
            panic!("{call:?}");
        };
        assert_eq!((prepare.scope, prepare.is_home), (Scope::All, part == 0));
        assert_eq!(prepare.redo, Some(Redo(Arc::from("FLUSHALL ASYNC"))));
    }
    for part in [0, 1] {
        assert!(after(operation, Event::Outcome(part, prepared())).is_empty());
    }
    let steps = after(operation, Event::Outcome(2, prepared()));
    let [(0, Call::Commit(commit))] = calls(&steps)[..] else {
        panic!("{steps:?}");
    };
    assert!(commit.redo.is_some() && commit.foreign.is_empty() && commit.count == 1);
    after(operation, Event::Outcome(0, committed()))
}

#[test]
fn every_shard_is_emptied_before_the_client_hears_of_it() {
    let mut operation = Operation::new(plan(&["a", "b", "c"]));
    let steps = until_committed(&mut operation);
    let apply = |part| {
        let values = Vec::new();
        (part, Call::Apply { tx: tx(), values })
    };
    let expected = [apply(1), apply(2)];
    let sent: Vec<(usize, Call)> = calls(&steps)
        .into_iter()
        .map(|(part, call)| (part, call.clone()))
        .collect();
    assert_eq!(sent, expected);
    assert_eq!(operation.phase(), Phase::Applying);
    assert!(after(&mut operation, Event::Outcome(2, Outcome::Done(true))).is_empty());
    // It is decided: a connection that is lost only delays it.
    assert!(after(&mut operation, Event::Lost(1)).is_empty());
    let mut steps = Vec::new();
    operation.after(Event::Tick, 5_000, &mut steps);
    assert_eq!(steps, [Step::CallAnew(1, apply(1).1)]);
    let steps = after(&mut operation, Event::Outcome(1, Outcome::Done(true)));
    let told = [
        Step::Lift,
        Step::Answer(Answer::Done(b"+OK\r\n".to_vec())),
        Step::Call(0, Call::Clean { tx: tx() }),
    ];
    assert_eq!(steps, told);
    let steps = after(&mut operation, Event::Outcome(0, Outcome::Done(true)));
    assert_eq!(steps, [Step::Unlock]);
}

#[test]
fn who_finishes_it_lets_every_participant_do_what_its_record_says() {
    let record = Record {
        tx: tx(),
        kind: shoal_core::session::cross_shard::call::Kind::Fence,
        coordinator: Pid(Arc::from("p")),
        home: Arc::from("a"),
        participants: vec![Arc::from("b")],
        scope: Scope::All,
        keys: Vec::new(),
    };
    for (decision, expected) in [
        (
            Some(Vec::new()),
            Call::Apply {
                tx: tx(),
                values: Vec::<(Arc<[u8]>, Option<Value>)>::new(),
            },
        ),
        (None, Call::Release { tx: tx() }),
    ] {
        let mut recovery = Recovery::new(Subject::from(&record), true);
        let mut steps = Vec::new();
        recovery.after(recovery::Event::Begin, 0, &mut steps);
        steps.clear();
        let outcome = Outcome::Resolved(decision);
        recovery.after(recovery::Event::Outcome(0, outcome), 0, &mut steps);
        assert_eq!(steps, [recovery::Step::Call(1, expected)]);
    }
}

#[test]
fn its_words_are_in_the_record_and_in_place_of_the_request() {
    let mut operation = Operation::new(plan(&["a", "b"]));
    let steps = after(&mut operation, Event::Begin);
    for (_, call) in calls(&steps) {
        let mut out = Vec::new();
        encode(call, &mut out);
        let text = String::from_utf8_lossy(&out);
        assert!(text.contains("$14\r\nFLUSHALL ASYNC\r\n$1\r\n1\r\n$1\r\nb\r\n"));
    }
    after(&mut operation, Event::Outcome(0, prepared()));
    let steps = after(&mut operation, Event::Outcome(1, prepared()));
    let mut out = Vec::new();
    assert_eq!(encode(calls(&steps)[0].1, &mut out), 5);
    let text = String::from_utf8_lossy(&out);
    assert!(text.contains("$14\r\nFLUSHALL ASYNC\r\n"));
    assert!(
        !text.contains(&*String::from_utf8_lossy(REQUEST)),
        "a server would lose its records"
    );
}
