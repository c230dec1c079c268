//! Requests that wait, step by step: what is told to shards, and what becomes of an element whose client has left.
//!
//! Slots are dealt over two shards: `a` is on the second, `b` and `c` are on the first.

mod scene;

use scene::{request, Scene};
use shoal_core::limits::PROBE_TIMEOUT_MS;
use shoal_core::session::engine::Engine;
use shoal_core::session::stats::PerKeyspace;

const TAKEN: &[u8] = b"*2\r\n$1\r\nb\r\n$1\r\nv\r\n";

/// A client that waits on one shard, and its link there; the shard has said by which number it knows it.
fn waiting(scene: &mut Scene, words: &[&str]) -> (u32, u32) {
    let slot = scene.client();
    scene.ask(slot, &request(words));
    scene.greet();
    let own = scene.link_to(0);
    let sent = scene.sent(own);
    assert!(sent.contains("CLIENT") && sent.contains(words[0]), "{sent}");
    scene.answer(own, b":77\r\n");
    (slot, own)
}

fn put_back(scene: &Scene) -> u64 {
    scene.stats[0].of_keyspace(0, PerKeyspace::PutBack)
}

fn own_links(scene: &Scene) -> usize {
    scene.engine.audit().expect("sound books").exclusive_links
}

#[test]
fn an_element_that_comes_for_a_client_which_has_left_is_put_back() {
    for leave in [Engine::client_ended, Engine::client_lost] {
        for (words, reply, back) in [
            (
                vec!["BLPOP", "b", "0"],
                TAKEN,
                request(&["LPUSH", "b", "v"]),
            ),
            (
                vec!["BRPOP", "b", "c", "0"],
                TAKEN,
                request(&["RPUSH", "b", "v"]),
            ),
            (
                vec!["BLMPOP", "0", "1", "b", "RIGHT", "COUNT", "2"],
                b"*2\r\n$1\r\nb\r\n*2\r\n$1\r\ny\r\n$1\r\nx\r\n",
                request(&["RPUSH", "b", "x", "y"]),
            ),
            (
                vec!["BZPOPMIN", "b", "0"],
                b"*3\r\n$1\r\nb\r\n$1\r\nm\r\n$3\r\n1.5\r\n",
                request(&["ZADD", "b", "NX", "1.5", "m"]),
            ),
            (
                vec!["BZMPOP", "0", "1", "b", "MIN"],
                b"*2\r\n$1\r\nb\r\n*1\r\n*2\r\n$1\r\nm\r\n$4\r\n-inf\r\n",
                request(&["ZADD", "b", "NX", "-inf", "m"]),
            ),
        ] {
            let mut scene = Scene::new(2, 0);
            let (slot, own) = waiting(&mut scene, &words);
            leave(&mut scene.engine, slot);
            scene.act();
            assert_eq!(scene.closed, [slot]);
            let told = scene.sent(0);
            assert!(
                told.contains("UNBLOCK\r\n$2\r\n77\r\n$7\r\nTIMEOUT"),
                "{told}"
            );
            // However the reply is cut.
            let (head, rest) = reply.split_at(reply.len() / 2);
            scene.answer(own, head);
            assert_eq!(scene.sent(own), "");
            scene.answer(own, rest);
            assert_eq!(scene.sent(own).into_bytes(), back);
            scene.answer(own, b":1\r\n");
            scene.answer(0, b":0\r\n");
            assert!(put_back(&scene) >= 1);
            assert_eq!(own_links(&scene), 1, "the connection is kept for the next");
            // Who comes next has it, and the shard's number for it is known.
            let next = scene.client();
            scene.ask(next, &request(&["BLPOP", "b", "0"]));
            assert_eq!(scene.sent(own).into_bytes(), request(&["BLPOP", "b", "0"]));
            scene.answer(own, TAKEN);
            assert_eq!(scene.given(next, usize::MAX), TAKEN);
        }
    }
}

#[test]
fn a_wait_that_ends_with_nothing_leaves_nothing_to_do() {
    for nothing in [&b"*-1\r\n"[..], b"_\r\n", b"-WRONGTYPE no list\r\n"] {
        let mut scene = Scene::new(2, 0);
        let (slot, own) = waiting(&mut scene, &["BLPOP", "b", "0"]);
        scene.engine.client_lost(slot);
        scene.act();
        scene.answer(own, nothing);
        assert_eq!(scene.sent(own), "");
        assert_eq!((put_back(&scene), own_links(&scene)), (0, 1));
    }
}

#[test]
fn a_client_that_leaves_before_the_shard_has_named_its_connection() {
    let mut scene = Scene::new(2, 0);
    let slot = scene.client();
    scene.ask(slot, &request(&["BLPOP", "b", "0"]));
    scene.greet();
    let own = scene.link_to(0);
    scene.sent(own);
    scene.engine.client_lost(slot);
    scene.act();
    assert_eq!(scene.sent(0), "", "nobody knows yet whom to name");
    scene.answer(own, b":78\r\n");
    assert!(scene.sent(0).contains("78"));
    scene.answer(own, TAKEN);
    assert_eq!(scene.sent(own).into_bytes(), request(&["LPUSH", "b", "v"]));
}

#[test]
fn a_connection_is_closed_at_once_where_nothing_could_be_put_back() {
    // It was not even connected.
    let mut scene = Scene::new(2, 0);
    let slot = scene.client();
    scene.ask(slot, &request(&["BLPOP", "b", "0"]));
    scene.engine.client_lost(slot);
    scene.act();
    assert_eq!(own_links(&scene), 0);
    // What is moved lies where it was moved to.
    let (slot, _) = waiting(&mut scene, &["BLMOVE", "b", "c", "LEFT", "LEFT", "0"]);
    scene.engine.client_lost(slot);
    scene.act();
    assert_eq!(own_links(&scene), 0);
    // The client has the beginning of it already.
    let (slot, own) = waiting(&mut scene, &["BLPOP", "b", "0"]);
    scene.answer(own, b"*2\r\n$1\r\nb\r\n$5\r\nvv");
    assert_eq!(scene.given(slot, usize::MAX), b"*2\r\n$1\r\nb\r\n$5\r\nvv");
    scene.engine.client_lost(slot);
    scene.act();
    assert_eq!((own_links(&scene), put_back(&scene)), (0, 0));
    assert_eq!(scene.sent(0), "");
}

#[test]
fn a_shard_that_does_not_end_the_wait_loses_the_connection() {
    let mut scene = Scene::new(2, 0);
    let (slot, _) = waiting(&mut scene, &["BLPOP", "b", "0"]);
    // A client that is there may wait for as long as it likes.
    for _ in 0..20 {
        scene.pass(1000);
        for link in [0, 1] {
            let probes = scene.sent(link).matches("PING").count();
            scene.answer(link, &b"+PONG\r\n".repeat(probes));
        }
    }
    assert_eq!(own_links(&scene), 1);
    scene.engine.client_lost(slot);
    scene.act();
    scene.pass(PROBE_TIMEOUT_MS - 200);
    assert_eq!(own_links(&scene), 1);
    scene.pass(500);
    assert_eq!(own_links(&scene), 0);
    assert!(scene.has_event("element-lost", "does not end a wait"));
}

#[test]
fn what_a_shard_does_not_take_back_is_told() {
    let mut scene = Scene::new(2, 0);
    let (slot, own) = waiting(&mut scene, &["BLPOP", "b", "0"]);
    scene.engine.client_lost(slot);
    scene.answer(own, TAKEN);
    scene.sent(own);
    scene.answer(own, b"-OOM command not allowed\r\n");
    assert!(scene.has_event("element-lost", "OOM command not allowed"));
}

#[test]
fn a_step_on_one_of_several_shards_is_put_back_too() {
    for (words, form, reply, back) in [
        (
            vec!["BRPOP", "b", "a", "0"],
            vec!["RPOP", "b"],
            &b"$1\r\nv\r\n"[..],
            vec!["RPUSH", "b", "v"],
        ),
        (
            vec!["BZPOPMAX", "b", "a", "0"],
            vec!["ZPOPMAX", "b"],
            b"*2\r\n$1\r\nm\r\n$1\r\n2\r\n",
            vec!["ZADD", "b", "NX", "2", "m"],
        ),
        (
            vec!["BLMPOP", "0", "2", "b", "a", "LEFT", "COUNT", "2"],
            vec!["LMPOP", "1", "b", "LEFT", "COUNT", "2"],
            b"*2\r\n$1\r\nb\r\n*2\r\n$1\r\nx\r\n$1\r\ny\r\n",
            vec!["LPUSH", "b", "y", "x"],
        ),
    ] {
        let mut scene = Scene::new(2, 0);
        let (slot, other) = (scene.client(), scene.client());
        scene.ask(slot, &request(&words));
        scene.ask(other, &request(&["GET", "b"]));
        let link = scene.link_to(0);
        let sent = [request(&form), request(&["GET", "b"])].concat();
        assert_eq!(scene.sent(link).into_bytes(), sent);
        // The beginning came while the client was there.
        scene.answer(link, &reply[..4]);
        scene.engine.client_lost(slot);
        scene.act();
        scene.answer(link, &reply[4..]);
        scene.answer(link, b"$1\r\ng\r\n");
        assert_eq!(
            scene.text(other),
            "$1\r\ng\r\n",
            "others get what is theirs"
        );
        assert_eq!(scene.sent(link).into_bytes(), request(&back));
        scene.answer(link, b":1\r\n");
        assert!(put_back(&scene) >= 1);
        assert!(scene.engine.audit().is_ok());
    }
}

#[test]
fn an_unblock_that_comes_before_the_shard_has_named_the_connection() {
    let mut scene = Scene::new(2, 0);
    let (slot, other) = (scene.client(), scene.client());
    scene.ask(slot, &request(&["BLPOP", "b", "0"]));
    scene.greet();
    let own = scene.link_to(0);
    scene.sent(own);
    scene.ask(other, &request(&["CLIENT", "UNBLOCK", "1", "ERROR"]));
    assert_eq!(scene.text(other), ":1\r\n");
    assert_eq!(scene.text(slot), "", "the shard says how it ends");
    scene.answer(own, b":79\r\n");
    assert!(scene.sent(0).contains("UNBLOCK\r\n$2\r\n79\r\n$5\r\nERROR"));
    scene.answer(own, TAKEN);
    assert_eq!(
        scene.given(slot, usize::MAX),
        TAKEN,
        "the element was first"
    );
    // A shard that does not say the number cannot be told: the wait is ended here.
    let mut scene = Scene::new(2, 0);
    let (slot, other) = (scene.client(), scene.client());
    scene.ask(slot, &request(&["BLPOP", "b", "0"]));
    scene.greet();
    let own = scene.link_to(0);
    scene.sent(own);
    scene.ask(other, &request(&["CLIENT", "UNBLOCK", "1"]));
    scene.answer(own, b"-NOPERM no\r\n");
    assert_eq!(scene.text(slot), "*-1\r\n");
    assert_eq!(own_links(&scene), 0);
}

#[test]
fn a_stop_waits_for_what_is_to_be_put_back() {
    let mut scene = Scene::new(2, 0);
    let (slot, own) = waiting(&mut scene, &["BLPOP", "b", "0"]);
    scene.engine.client_lost(slot);
    scene.engine.stop();
    scene.act();
    assert!(!scene.engine.stop_is_done());
    scene.answer(own, TAKEN);
    assert_eq!(scene.sent(own).into_bytes(), request(&["LPUSH", "b", "v"]));
    assert!(!scene.engine.stop_is_done());
    scene.answer(own, b":1\r\n");
    assert!(scene.engine.stop_is_done());
}

#[test]
fn how_long_a_client_waited_says_nothing_about_the_shard() {
    let mut scene = Scene::new(2, 0);
    let before: u64 = scene.stats[0].of_latency(0).0.iter().sum();
    let (slot, own) = waiting(&mut scene, &["BLPOP", "b", "0"]);
    scene.engine.set_now(30_000_000);
    scene.answer(own, TAKEN);
    assert_eq!(scene.given(slot, usize::MAX), TAKEN);
    let (buckets, sum_us) = scene.stats[0].of_latency(0);
    assert_eq!(buckets.iter().sum::<u64>(), before);
    assert!(sum_us < 1_000_000);
}
