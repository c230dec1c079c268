//! Requests that wait, and others that are sent later than they were asked, beside operations across shards: step by step.
//!
//! Slots are dealt over two shards: `a` is on the second, `b` and `c` are on the first.

mod scene;

use scene::{number_of, request, Scene};

const TAKEN: &[u8] = b"*2\r\n$1\r\nb\r\n$1\r\nv\r\n";
const ENDED: &[u8] = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";

/// Links on which something was sent that contains this text, with all that was sent on them.
fn said(scene: &mut Scene, text: &str) -> Vec<(u32, String)> {
    scene.greet();
    let links = scene.open_links().into_iter();
    let all: Vec<(u32, String)> = links.map(|link| (link, scene.sent(link))).collect();
    all.into_iter()
        .filter(|(_, sent)| sent.contains(text))
        .collect()
}

/// What an operation claims keys with; nothing before it may begin.
fn claiming(scene: &mut Scene) -> Vec<(u32, String)> {
    said(scene, "prepared before")
}

/// A client that waits on the first shard, and its link.
fn waiting(scene: &mut Scene, words: &[&str]) -> (u32, u32) {
    let slot = scene.client();
    scene.ask(slot, &request(words));
    scene.greet();
    let own = scene.link_to(0);
    let asked = [request(&["CLIENT", "ID"]), request(words)].concat();
    assert_eq!(scene.sent(own).into_bytes(), asked);
    scene.answer(own, format!(":{}\r\n", number_of(own)).as_bytes());
    (slot, own)
}

/// What a shard says of one connection.
fn listing(link: u32, flags: &str) -> Vec<u8> {
    let line = format!(
        "id={} addr=1:2 flags={flags} db=0 cmd=blpop\n",
        number_of(link)
    );
    format!("${}\r\n{line}\r\n", line.len()).into_bytes()
}

fn question(link: u32) -> String {
    let words = request(&["CLIENT", "LIST", "ID", &number_of(link).to_string()]);
    String::from_utf8(words).expect("text")
}

/// The operation is refused where it claims keys, so that it ends.
fn refuse(scene: &mut Scene, claims: &[(u32, String)]) {
    assert_eq!(claims.len(), 2);
    for (link, sent) in claims {
        scene.answer(*link, b"-OOM no memory\r\n");
        if sent.contains("UNWATCH") {
            scene.answer(*link, b"+OK\r\n+OK\r\n:0\r\n");
        }
    }
}

#[test]
fn an_operation_begins_when_the_shard_has_the_request_waiting() {
    let mut scene = Scene::across(2);
    let (slot, own) = waiting(&mut scene, &["BLPOP", "b", "0"]);
    let other = scene.client();
    scene.ask(other, &request(&["LMOVE", "b", "a", "LEFT", "LEFT"]));
    assert_eq!(scene.sent(0), question(own));
    scene.answer(0, &listing(own, "N"));
    assert_eq!(scene.sent(0), question(own), "it was on its way");
    let reply = listing(own, "b");
    scene.answer(0, &reply[..20]);
    assert_eq!(claiming(&mut scene), []);
    scene.answer(0, &reply[20..]);
    let claims = claiming(&mut scene);
    assert_eq!(claims.len(), 2);
    refuse(&mut scene, &claims);
    assert_eq!(scene.text(other), "-OOM no memory\r\n");
    // What is known stays so until it is answered.
    scene.ask(other, &request(&["LMOVE", "b", "a", "LEFT", "LEFT"]));
    assert_eq!(scene.sent(0), "");
    assert_eq!(claiming(&mut scene).len(), 2);
    scene.answer(own, TAKEN);
    assert_eq!(scene.given(slot, usize::MAX), TAKEN);
}

#[test]
fn an_element_that_was_on_its_way_is_waited_for() {
    let mut scene = Scene::across(2);
    let (slot, own) = waiting(&mut scene, &["BLPOP", "c", "b", "0"]);
    let other = scene.client();
    scene.ask(other, &request(&["LMOVE", "b", "a", "LEFT", "LEFT"]));
    assert_eq!(scene.sent(0), question(own));
    scene.answer(own, TAKEN);
    assert_eq!(scene.given(slot, usize::MAX), TAKEN);
    assert_eq!(claiming(&mut scene).len(), 2);
    // The next on that connection is another, whatever is said of it now.
    scene.ask(slot, &request(&["BLPOP", "b", "0"]));
    assert_eq!(scene.sent(own), "", "it waits until the operation is over");
    scene.answer(0, &listing(own, "b"));
}

#[test]
fn who_waits_for_other_keys_is_not_asked_about() {
    let mut scene = Scene::across(2);
    waiting(&mut scene, &["BLPOP", "c", "0"]);
    let other = scene.client();
    scene.ask(other, &request(&["LMOVE", "b", "a", "LEFT", "LEFT"]));
    assert_eq!(scene.sent(0), "");
    assert_eq!(claiming(&mut scene).len(), 2);
}

#[test]
fn what_would_move_into_a_claimed_key_is_ended_and_begins_again() {
    for leaves in [false, true] {
        let mut scene = Scene::across(2);
        let words = ["BLMOVE", "c", "b", "LEFT", "LEFT", "30"];
        let (slot, own) = waiting(&mut scene, &words);
        let other = scene.client();
        scene.ask(other, &request(&["LMOVE", "b", "a", "LEFT", "LEFT"]));
        assert_eq!(scene.sent(0), question(own));
        scene.answer(0, &listing(own, "b"));
        let number = number_of(own).to_string();
        let ended = request(&["CLIENT", "UNBLOCK", &number, "ERROR"]);
        assert_eq!(scene.sent(0).into_bytes(), ended);
        assert_eq!(claiming(&mut scene), []);
        scene.now_us += 10_000_000;
        scene.engine.set_now(scene.now_us);
        scene.answer(own, ENDED);
        scene.answer(0, b":1\r\n");
        assert_eq!(scene.text(slot), "");
        let claims = claiming(&mut scene);
        assert_eq!(claims.len(), 2);
        if leaves {
            scene.engine.client_lost(slot);
            scene.act();
        }
        refuse(&mut scene, &claims);
        let again = request(&["BLMOVE", "c", "b", "LEFT", "LEFT", "20"]);
        let again = String::from_utf8(again).expect("text");
        let said = said(&mut scene, "BLMOVE");
        if leaves {
            assert_eq!(said, []);
            continue;
        }
        assert_eq!(said.len(), 1);
        assert_eq!(said[0].1, again, "for the rest of its time");
        scene.answer(said[0].0, b"$1\r\nv\r\n");
        assert_eq!(scene.text(slot), "$1\r\nv\r\n");
        assert!(scene.engine.audit().is_ok());
    }
}

#[test]
fn an_unblock_ends_a_wait_that_is_to_begin_again() {
    for (words, reply) in [
        (vec!["CLIENT", "UNBLOCK", "1"], &b"*-1\r\n"[..]),
        (vec!["CLIENT", "UNBLOCK", "1", "ERROR"], ENDED),
    ] {
        let mut scene = Scene::across(2);
        let (slot, own) = waiting(&mut scene, &["BLMOVE", "c", "b", "LEFT", "LEFT", "0"]);
        let (mover, other) = (scene.client(), scene.client());
        scene.ask(mover, &request(&["LMOVE", "b", "a", "LEFT", "LEFT"]));
        scene.sent(0);
        scene.answer(0, &listing(own, "b"));
        scene.answer(own, ENDED);
        scene.ask(other, &request(&words));
        assert_eq!(scene.text(other), ":1\r\n");
        assert_eq!(scene.given(slot, usize::MAX), reply);
        scene.ask(slot, &request(&["PING"]));
        assert_eq!(scene.text(slot), "+PONG\r\n");
    }
}

/// A client that waits for `b` and then `a`, and has looked at them.
fn looking(scene: &mut Scene, words: &[&str], held: [&str; 2]) -> u32 {
    let slot = scene.client();
    scene.ask(slot, &request(words));
    for (link, key) in [(0, "b"), (1, "a")] {
        assert_eq!(scene.sent(link).into_bytes(), request(&["LLEN", key]));
    }
    for (link, held) in [0, 1].into_iter().zip(held) {
        scene.answer(link, held.as_bytes());
    }
    slot
}

#[test]
fn a_step_over_several_shards_waits_until_its_key_is_free() {
    let mut scene = Scene::across(2);
    let (slot, other) = (scene.client(), scene.client());
    scene.ask(slot, &request(&["BLPOP", "b", "a", "0"]));
    scene.sent(0);
    scene.sent(1);
    scene.ask(other, &request(&["LMOVE", "b", "a", "LEFT", "LEFT"]));
    assert_eq!(claiming(&mut scene), []);
    scene.answer(0, b":1\r\n");
    scene.answer(1, b":0\r\n");
    assert_eq!(scene.sent(0), "", "somebody has the key");
    let claims = claiming(&mut scene);
    assert!(scene.engine.audit().is_ok());
    refuse(&mut scene, &claims);
    let watches = said(&mut scene, "TRACKING");
    assert_eq!(watches.len(), 2);
    for (link, sent) in watches {
        let is_b = sent.ends_with("\r\nb\r\n");
        scene.answer(
            link,
            if is_b {
                b"+OK\r\n:1\r\n"
            } else {
                b"+OK\r\n:0\r\n"
            },
        );
    }
    assert_eq!(scene.sent(0).into_bytes(), request(&["LPOP", "b"]));
    scene.answer(0, b"$1\r\nv\r\n");
    assert_eq!(scene.given(slot, usize::MAX), TAKEN);
}

#[test]
fn what_is_in_a_later_key_is_taken_by_an_operation_where_it_is() {
    let mut scene = Scene::across(2);
    let words = ["BLPOP", "b", "a", "c", "0"];
    let slot = scene.client();
    scene.ask(slot, &request(&words));
    scene.sent(0);
    scene.sent(1);
    scene.answer(0, b":0\r\n");
    scene.answer(1, b":3\r\n");
    assert_eq!(claiming(&mut scene), []);
    scene.answer(0, b":1\r\n");
    let claims = claiming(&mut scene);
    assert_eq!(claims.len(), 2);
    let home = claims.iter().find(|(_, sent)| sent.contains("UNWATCH"));
    let (home, sent) = home.expect("a home");
    assert_eq!(scene.links[home], "127.0.0.1:7001");
    assert!(
        !sent.contains("\r\nc\r\n"),
        "what comes behind is not claimed"
    );
    refuse(&mut scene, &claims);
    assert_eq!(scene.text(slot), "-OOM no memory\r\n");
}

#[test]
fn what_is_in_the_first_key_is_taken_there() {
    for (held, words) in [
        ([":2\r\n", ":0\r\n"], vec!["BLPOP", "b", "a", "0"]),
        (
            [":1\r\n", ":9\r\n"],
            vec!["BLMPOP", "0", "2", "b", "a", "LEFT"],
        ),
        // Of another kind: who begins to wait is told.
        (
            ["-WRONGTYPE no\r\n", ":9\r\n"],
            vec!["BLPOP", "b", "a", "0"],
        ),
    ] {
        let mut scene = Scene::across(2);
        let slot = looking(&mut scene, &words, held);
        assert!(scene.sent(0).contains("POP"));
        scene.answer(0, b"-WRONGTYPE no\r\n");
        assert_eq!(scene.text(slot), "-WRONGTYPE no\r\n");
        assert_eq!(claiming(&mut scene), []);
        assert!(scene.engine.audit().is_ok());
    }
}

#[test]
fn who_finds_nothing_rests_and_a_move_waits_for_its_source_alone() {
    let mut scene = Scene::across(2);
    let slot = scene.client();
    scene.ask(slot, &request(&["BLMOVE", "b", "a", "LEFT", "LEFT", "0"]));
    assert_eq!(scene.sent(0).into_bytes(), request(&["LLEN", "b"]));
    assert_eq!(scene.sent(1), "");
    scene.answer(0, b":0\r\n");
    let watches = said(&mut scene, "TRACKING");
    assert_eq!(watches.len(), 1);
    let own = watches[0].0;
    scene.answer(own, b"+OK\r\n:0\r\n");
    assert_eq!(claiming(&mut scene), []);
    let keys = String::from_utf8(request(&["b"])).expect("text");
    let told = format!(">2\r\n$10\r\ninvalidate\r\n{keys}");
    scene.answer(own, told.as_bytes());
    assert_eq!(scene.sent(own).into_bytes(), request(&["LLEN", "b"]));
    scene.answer(own, b":1\r\n");
    let claims = claiming(&mut scene);
    assert_eq!(claims.len(), 2);
    refuse(&mut scene, &claims);
    assert_eq!(scene.text(slot), "-OOM no memory\r\n");
    assert!(scene.engine.audit().is_ok());
}

#[test]
fn what_is_put_back_waits_until_its_key_is_free() {
    let mut scene = Scene::across(2);
    let (slot, own) = waiting(&mut scene, &["BLPOP", "b", "0"]);
    let other = scene.client();
    scene.ask(other, &request(&["LMOVE", "b", "a", "LEFT", "LEFT"]));
    scene.sent(0);
    scene.answer(0, &listing(own, "b"));
    let claims = claiming(&mut scene);
    scene.engine.client_lost(slot);
    scene.act();
    scene.answer(own, TAKEN);
    scene.engine.stop();
    assert_eq!(said(&mut scene, "PUSH"), []);
    assert!(!scene.engine.stop_is_done());
    refuse(&mut scene, &claims);
    let back = said(&mut scene, "PUSH");
    assert_eq!(back.len(), 1);
    let pushed = String::from_utf8(request(&["LPUSH", "b", "v"])).expect("text");
    assert!(back[0].1.ends_with(&pushed), "{back:?}");
}

#[test]
fn a_script_that_a_shard_lacked_waits_until_its_keys_are_free() {
    let mut scene = Scene::across(2);
    let (slot, other) = (scene.client(), scene.client());
    scene.ask(slot, &request(&["EVAL", "return 1", "1", "b"]));
    scene.answer(0, b":1\r\n");
    let sha = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    let call = request(&["EVALSHA", sha, "1", "b"]);
    scene.ask(slot, &call);
    scene.sent(0);
    scene.ask(other, &request(&["LMOVE", "b", "a", "LEFT", "LEFT"]));
    assert_eq!(claiming(&mut scene), []);
    scene.answer(0, b"-NOSCRIPT No matching script. Please use EVAL.\r\n");
    assert_eq!(scene.sent(0), "");
    let claims = claiming(&mut scene);
    refuse(&mut scene, &claims);
    let sent = scene.sent(0);
    assert!(sent.contains("LOAD") && sent.contains("EVALSHA"), "{sent}");
    scene.answer(0, b"+sha\r\n:7\r\n");
    assert!(scene.text(slot).ends_with(":7\r\n"));
}

#[test]
fn a_connection_that_goes_with_something_under_way_is_ended_by_the_shard_first() {
    let mut scene = Scene::across(2);
    let (slot, own) = waiting(&mut scene, &["BLMOVE", "b", "c", "LEFT", "LEFT", "0"]);
    scene.engine.client_lost(slot);
    scene.act();
    let number = number_of(own).to_string();
    let ended = request(&["CLIENT", "KILL", "ID", &number]);
    assert_eq!(scene.sent(0).into_bytes(), ended);
    let other = scene.client();
    scene.ask(other, &request(&["LMOVE", "b", "a", "LEFT", "LEFT"]));
    assert_eq!(claiming(&mut scene), []);
    scene.answer(0, b":1\r\n");
    assert_eq!(claiming(&mut scene).len(), 2);
}
