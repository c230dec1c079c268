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

/// A client that waits for `b` and `a` on their shards and rests; nobody was before it. Its links there.
fn resting(scene: &mut Scene) -> (u32, [u32; 2]) {
    let slot = scene.client();
    scene.ask(slot, &request(&["BLPOP", "b", "a", "0"]));
    for (link, key) in [(0, "b"), (1, "a")] {
        assert_eq!(scene.sent(link).into_bytes(), request(&["LPOP", key]));
        scene.answer(link, b"$-1\r\n");
    }
    scene.greet();
    let own = [scene.link_to(0), scene.link_to(1)];
    for (link, key) in own.into_iter().zip(["b", "a"]) {
        let asked = [
            request(&["CLIENT", "TRACKING", "ON"]),
            request(&["EXISTS", key]),
        ];
        assert_eq!(scene.sent(link).into_bytes(), asked.concat());
        scene.answer(link, b"+OK\r\n:0\r\n");
    }
    assert_eq!(scene.sent(0) + &scene.sent(1), "", "it rests");
    (slot, own)
}

fn told(key: &str) -> Vec<u8> {
    let keys = String::from_utf8(request(&[key])).expect("text");
    format!(">2\r\n$10\r\ninvalidate\r\n{keys}").into_bytes()
}

#[test]
fn of_those_who_wait_for_a_key_the_first_alone_looks_and_the_next_has_its_connections() {
    let mut scene = Scene::new(2, 0);
    let (first, own) = resting(&mut scene);
    let (second, third) = (scene.client(), scene.client());
    for slot in [second, third] {
        scene.ask(slot, &request(&["BLPOP", "b", "a", "0"]));
    }
    assert_eq!(scene.sent(0) + &scene.sent(1), "", "it is not their turn");
    assert_eq!(own_links(&scene), 2);
    scene.answer(own[0], &told("b"));
    assert_eq!(scene.sent(own[0]).into_bytes(), request(&["EXISTS", "b"]));
    scene.answer(own[0], b":1\r\n");
    assert_eq!(scene.sent(0).into_bytes(), request(&["LPOP", "b"]));
    scene.answer(0, b"$1\r\nv\r\n");
    assert_eq!(scene.given(first, usize::MAX), TAKEN);
    // The second knows nothing of what happened since: it looks at both.
    assert_eq!(scene.sent(own[0]).into_bytes(), request(&["EXISTS", "b"]));
    assert_eq!(scene.sent(own[1]).into_bytes(), request(&["EXISTS", "a"]));
    scene.answer(own[0], b":0\r\n");
    scene.answer(own[1], b":1\r\n");
    assert_eq!(scene.sent(0).into_bytes(), request(&["LPOP", "b"]));
    scene.answer(0, b"$-1\r\n");
    assert_eq!(scene.sent(1).into_bytes(), request(&["LPOP", "a"]));
    // It leaves at this moment: the element goes back, and it is the third's turn.
    scene.engine.client_lost(second);
    scene.act();
    for (link, key) in own.into_iter().zip(["b", "a"]) {
        assert_eq!(scene.sent(link).into_bytes(), request(&["EXISTS", key]));
        scene.answer(link, b":0\r\n");
    }
    scene.answer(1, b"$1\r\nw\r\n");
    assert_eq!(scene.sent(1).into_bytes(), request(&["LPUSH", "a", "w"]));
    scene.answer(1, b":1\r\n");
    scene.answer(own[1], &told("a"));
    scene.answer(own[1], b":1\r\n");
    scene.sent(0);
    scene.answer(0, b"$-1\r\n");
    scene.answer(1, b"$1\r\nw\r\n");
    assert_eq!(scene.text(third), "*2\r\n$1\r\na\r\n$1\r\nw\r\n");
    assert_eq!(own_links(&scene), 2);
}

#[test]
fn who_is_first_for_one_key_looks_at_that_one_only() {
    let mut scene = Scene::new(2, 0);
    let (first, _) = resting(&mut scene);
    let other = scene.client();
    scene.ask(other, &request(&["BLPOP", "a", "c", "b", "0"]));
    assert_eq!(scene.sent(0).into_bytes(), request(&["LPOP", "c"]));
    scene.answer(0, b"$-1\r\n");
    scene.greet();
    let own = scene.link_to(0);
    assert_eq!(own_links(&scene), 3, "one more, to the shard of that key");
    scene.sent(own);
    scene.answer(own, b"+OK\r\n:0\r\n");
    // The first leaves: now it is first for all.
    scene.engine.client_lost(first);
    scene.act();
    scene.greet();
    let asked = scene.sent(own);
    assert!(asked.contains("EXISTS"), "{asked}");
    assert!(scene.engine.audit().is_ok());
}

#[test]
fn a_key_that_becomes_one_of_another_type_does_not_end_the_wait() {
    let mut scene = Scene::new(2, 0);
    let (slot, own) = resting(&mut scene);
    scene.answer(own[0], &told("b"));
    scene.answer(own[0], b":1\r\n");
    scene.answer(0, b"-WRONGTYPE Operation against a key\r\n");
    scene.sent(1);
    scene.answer(1, b"$-1\r\n");
    assert_eq!(scene.text(slot), "");
    scene.sent(own[0]);
    scene.answer(own[0], &told("b"));
    assert_eq!(scene.sent(own[0]).into_bytes(), request(&["EXISTS", "b"]));
    scene.answer(own[0], b":1\r\n");
    scene.sent(0);
    scene.answer(0, b"$1\r\nv\r\n");
    assert_eq!(scene.given(slot, usize::MAX), TAKEN);
    // For who only begins to wait it is an error.
    scene.ask(slot, &request(&["BLPOP", "b", "a", "0"]));
    scene.answer(0, b"-WRONGTYPE Operation against a key\r\n");
    assert_eq!(scene.text(slot), "-WRONGTYPE Operation against a key\r\n");
}

#[test]
fn when_a_connection_of_the_first_is_lost_the_next_has_its_turn() {
    let mut scene = Scene::new(2, 0);
    let (first, own) = resting(&mut scene);
    let second = scene.client();
    scene.ask(second, &request(&["BLPOP", "b", "a", "0"]));
    scene.engine.link_lost(own[0], "it closed the connection");
    scene.act();
    assert!(scene.text(first).contains("was lost while waiting"));
    scene.greet();
    assert_eq!(scene.sent(own[1]).into_bytes(), request(&["EXISTS", "a"]));
    let fresh = scene.link_to(0);
    assert!(scene.sent(fresh).contains("TRACKING"));
    assert_eq!(scene.text(second), "");
    assert!(scene.engine.audit().is_ok());
}
