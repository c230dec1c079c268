//! Transactions over several shards, step by step: what is sent to whom and when, and what a fault leaves.
//!
//! Slots are dealt over two shards: `a` is on the second, `b` and `c` are on the first.

mod scene;

use scene::{request, Scene};
use shoal_core::routing::topology::Keyspace;
use shoal_core::session::stats::PerKeyspace;

const QUEUED: &[u8] = b"+OK\r\n+QUEUED\r\n";

fn scene() -> Scene {
    Scene::over(Keyspace {
        transactions_per_shard: true,
        ..Scene::keyspace(2)
    })
}

fn requests(all: &[&[&str]]) -> Vec<u8> {
    all.iter().flat_map(|words| request(words)).collect()
}

/// What a shard is sent for a part of one command.
fn part(words: &[&str]) -> Vec<u8> {
    requests(&[&["MULTI"], words, &["EXEC"]])
}

/// A client with a write for each of the two shards queued; what it was told of that is taken.
fn queued(scene: &mut Scene) -> u32 {
    let slot = scene.client();
    let asked = requests(&[&["MULTI"], &["SET", "a", "1"], &["SET", "b", "2"]]);
    scene.ask(slot, &asked);
    assert_eq!(scene.text(slot), "+OK\r\n+QUEUED\r\n+QUEUED\r\n");
    slot
}

#[test]
fn each_shard_is_sent_its_own_part_and_the_replies_come_in_the_order_of_the_commands() {
    let mut scene = scene();
    let slot = queued(&mut scene);
    let more = requests(&[&["PING"], &["INCR", "a"], &["EXEC"], &["GET", "b"]]);
    scene.ask(slot, &more);
    assert_eq!(scene.text(slot), "+QUEUED\r\n+QUEUED\r\n");
    assert_eq!(scene.sent(0).into_bytes(), part(&["SET", "b", "2"]));
    let second = requests(&[&["MULTI"], &["SET", "a", "1"], &["INCR", "a"], &["EXEC"]]);
    assert_eq!(scene.sent(1).into_bytes(), second);
    // The first shard answers first, byte by byte; nothing is given before all is there.
    for byte in [QUEUED, b"*1\r\n+OK\r\n"].concat() {
        scene.answer(0, &[byte]);
    }
    assert_eq!(scene.text(slot), "");
    scene.answer(1, b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n:2\r\n");
    assert_eq!(scene.text(slot), "*4\r\n+OK\r\n+OK\r\n+PONG\r\n:2\r\n");
    assert_eq!(scene.sent(0).into_bytes(), request(&["GET", "b"]));
    assert!(scene.has_event("transaction-split", ""));
    assert!(scene.engine.audit().is_ok());
}

#[test]
fn a_shard_that_is_lost_takes_only_its_own_replies_with_it() {
    let mut scene = scene();
    let slot = queued(&mut scene);
    scene.ask(slot, &request(&["EXEC"]));
    scene.sent(0);
    scene.sent(1);
    scene.answer(0, &[QUEUED, b"*1\r\n+OK\r\n"].concat());
    scene.answer(1, QUEUED);
    scene.engine.link_lost(1, "it closed the connection");
    scene.act();
    let text = scene.text(slot);
    assert!(
        text.starts_with("*2\r\n-ERR connection to shard 's1'"),
        "{text}"
    );
    assert!(
        text.contains("whether the request was executed is unknown"),
        "{text}"
    );
    assert!(text.ends_with("\r\n+OK\r\n"), "{text}");
}

#[test]
fn a_shard_that_refuses_a_command_has_executed_none_of_its_own() {
    let mut scene = scene();
    let slot = queued(&mut scene);
    scene.ask(slot, &request(&["EXEC"]));
    scene.sent(0);
    scene.sent(1);
    scene.answer(0, b"+OK\r\n-OOM full\r\n-EXECABORT because\r\n");
    scene.answer(1, &[QUEUED, b"*1\r\n+OK\r\n"].concat());
    assert_eq!(
        scene.text(slot),
        "*2\r\n+OK\r\n-EXECABORT shard 's0' executed none of its commands because of: OOM full\r\n"
    );
    // When none has executed anything, the whole is what failed.
    let slot = queued(&mut scene);
    scene.ask(slot, &request(&["EXEC"]));
    for link in [0, 1] {
        scene.sent(link);
        scene.answer(link, b"+OK\r\n-OOM full\r\n-EXECABORT because\r\n");
    }
    assert_eq!(
        scene.text(slot),
        "-EXECABORT Transaction discarded because of: OOM full\r\n"
    );
    let aborted = scene.stats[0].of_keyspace(0, PerKeyspace::TransactionsAborted);
    assert_eq!(aborted, 1);
}

/// A client that watches `b`, with a write for each shard queued, and its link.
fn watching(scene: &mut Scene) -> (u32, u32) {
    let slot = scene.client();
    scene.ask(slot, &request(&["WATCH", "b"]));
    scene.greet();
    let own = scene.link_to(0);
    assert_eq!(scene.sent(own).into_bytes(), request(&["WATCH", "b"]));
    scene.answer(own, b"+OK\r\n");
    let asked = requests(&[
        &["MULTI"],
        &["SET", "a", "1"],
        &["SET", "b", "2"],
        &["EXEC"],
    ]);
    scene.ask(slot, &[asked, request(&["GET", "a"])].concat());
    assert_eq!(scene.text(slot), "+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n");
    assert_eq!(scene.sent(own).into_bytes(), part(&["SET", "b", "2"]));
    assert_eq!(scene.sent(1), "", "the other waits");
    (slot, own)
}

#[test]
fn the_shard_that_watches_is_first() {
    let mut scene = scene();
    let (slot, own) = watching(&mut scene);
    scene.answer(own, &[QUEUED, b"*1\r\n+OK\r\n"].concat());
    assert_eq!(scene.text(slot), "");
    let sent = scene.sent(1).into_bytes();
    assert_eq!(
        sent,
        part(&["SET", "a", "1"]),
        "what comes after EXEC waits"
    );
    scene.answer(1, &[QUEUED, b"*1\r\n+OK\r\n"].concat());
    assert_eq!(scene.text(slot), "*2\r\n+OK\r\n+OK\r\n");
    assert_eq!(scene.sent(1).into_bytes(), request(&["GET", "a"]));
    let totals = scene.engine.audit().expect("sound books");
    assert_eq!(totals.exclusive_links, 1, "the watch's link is kept");
}

#[test]
fn a_changed_key_or_a_refusal_there_stops_the_others() {
    for (reply, told) in [
        (&b"*-1\r\n"[..], "*-1\r\n"),
        (b"_\r\n", "_\r\n"),
        (b"-EXECABORT no\r\n", "-EXECABORT no\r\n"),
    ] {
        let mut scene = scene();
        let (slot, own) = watching(&mut scene);
        scene.answer(own, &[QUEUED, reply].concat());
        assert_eq!(scene.text(slot), told);
        assert_eq!(
            scene.sent(1).into_bytes(),
            request(&["GET", "a"]),
            "only what follows"
        );
    }
}

#[test]
fn a_shard_that_is_lost_after_the_first_has_executed() {
    let mut scene = scene();
    let (slot, own) = watching(&mut scene);
    scene.engine.link_lost(1, "it closed the connection");
    scene.act();
    scene.answer(own, &[QUEUED, b"*1\r\n+OK\r\n"].concat());
    let text = scene.text(slot);
    assert!(text.starts_with("*2\r\n-ERR shard 's1'"), "{text}");
    assert!(
        text.contains("the request was not sent\r\n+OK\r\n"),
        "{text}"
    );
    // And the first itself: nothing of the others was sent.
    let mut scene = scene_with_watch_lost();
    assert_eq!(scene.sent(1).into_bytes(), request(&["GET", "a"]));
}

fn scene_with_watch_lost() -> Scene {
    let mut scene = scene();
    let (slot, own) = watching(&mut scene);
    scene.engine.link_lost(own, "it closed the connection");
    scene.act();
    let text = scene.text(slot);
    assert!(text.starts_with("-ERR connection to shard 's0'"), "{text}");
    scene
}

#[test]
fn a_client_that_leaves_between_the_steps_leaves_nothing_behind() {
    let mut scene = scene();
    let (slot, own) = watching(&mut scene);
    scene.engine.client_lost(slot);
    scene.act();
    assert!(!scene.links.contains_key(&own));
    assert_eq!(scene.sent(1), "");
    assert_eq!(
        scene.engine.audit().map(|totals| totals.exclusive_links),
        Ok(0)
    );
    // One that only ends its side is served to the end.
    let (slot, own) = watching(&mut scene);
    scene.engine.client_ended(slot);
    scene.answer(own, &[QUEUED, b"*1\r\n+OK\r\n"].concat());
    assert_eq!(scene.sent(1).into_bytes(), part(&["SET", "a", "1"]));
}

#[test]
fn replies_that_are_off_stay_off() {
    let mut scene = scene();
    let slot = scene.client();
    scene.ask(slot, &request(&["CLIENT", "REPLY", "OFF"]));
    let asked = requests(&[
        &["MULTI"],
        &["SET", "a", "1"],
        &["SET", "b", "2"],
        &["EXEC"],
    ]);
    scene.ask(slot, &asked);
    for link in [0, 1] {
        scene.sent(link);
        scene.answer(link, &[QUEUED, b"*1\r\n+OK\r\n"].concat());
    }
    scene.ask(slot, &requests(&[&["CLIENT", "REPLY", "ON"]]));
    assert_eq!(scene.text(slot), "+OK\r\n");
}

#[test]
fn without_the_setting_nothing_is_sent() {
    let mut scene = Scene::new(2, 0);
    let slot = queued(&mut scene);
    scene.ask(slot, &request(&["EXEC"]));
    let text = scene.text(slot);
    assert!(
        text.starts_with("-CROSSSLOT 'exec' has keys on different shards: 'a'"),
        "{text}"
    );
    assert_eq!(scene.sent(0) + &scene.sent(1), "");
}
