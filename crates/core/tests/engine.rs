//! Single situations of an engine, step by step: bounds, time-outs, slow readers, endings.
//!
//! The simulation shows that nothing goes wrong by chance; these cases show that each rule does what it is there for,
//! at the moment when it should. The shards here are the test itself: it reads what links send and answers by hand.

mod scene;

use scene::{request, Scene};
use shoal_core::limits::{
    IN_FLIGHT_MAX, OUTPUT_HARD, OUTPUT_HIGH, OUTPUT_STALL_MS, PROBE_MS, PROBE_TIMEOUT_MS,
    REQUEST_IDLE_MS_MAX,
};
use shoal_core::routing::hash::key_slot;
use shoal_core::session::client::Client;
use shoal_core::session::engine::Engine;

const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";

// ------------------------------------------------------------------------------------------------------- bounds

#[test]
fn a_pipeline_is_taken_as_far_as_its_replies_are() {
    let mut scene = Scene::new(1, 0);
    let slot = scene.client();
    scene.ask(slot, &GET.repeat(3000));
    let totals = scene.engine.audit().expect("sound books");
    assert!(totals.in_flight <= IN_FLIGHT_MAX);
    assert!(
        totals.incoming_bytes >= GET.len() * (3000 - IN_FLIGHT_MAX),
        "the rest waits"
    );
    assert!(!scene.engine.reads_client(slot));
    let mut replies = 0;
    for _ in 0..3000 {
        let sent = scene.sent(0).matches("GET").count();
        scene.answer(0, &b"$1\r\nv\r\n".repeat(sent));
        replies += scene.given(slot, usize::MAX).len() / 7;
        if replies == 3000 {
            break;
        }
    }
    assert_eq!(replies, 3000);
    assert!(scene.engine.reads_client(slot));
}

/// What shoal answers by itself waits behind what a shard has not answered, and is as bounded as everything else.
#[test]
fn own_answers_that_wait_for_their_turn_are_bounded() {
    let mut scene = Scene::new(1, 0);
    let slot = scene.client();
    scene.ask(slot, GET);
    let echo = request(&["ECHO", &"x".repeat(60_000)]);
    let mut taken = 0;
    while scene.engine.reads_client(slot) && taken < 1000 {
        scene.ask(slot, &echo);
        taken += 1;
    }
    assert!(
        taken * 60_000 <= OUTPUT_HIGH + 2 * 60_000,
        "{taken} answers are held"
    );
    scene.answer(0, b"$1\r\nv\r\n");
    assert!(scene.given(slot, usize::MAX).len() >= taken * 60_000);
    assert!(
        scene.engine.reads_client(slot),
        "all was taken, so it may go on"
    );
}

#[test]
fn one_client_too_many_is_told_so_and_closed() {
    let mut scene = Scene::new(1, 0);
    let slots: Vec<u32> = (0..4).map(|_| scene.client()).collect();
    assert_eq!(
        scene.text(slots[3]),
        "-ERR max number of clients reached\r\n"
    );
    assert_eq!(scene.closed, [slots[3]]);
    scene.engine.client_lost(slots[0]);
    scene.act();
    let next = scene.client();
    scene.ask(next, b"PING\r\n");
    assert_eq!(scene.text(next), "+PONG\r\n", "a place is free again");
}

#[test]
fn an_idle_client_is_small() {
    assert!(std::mem::size_of::<Client>() <= 512);
}

#[test]
fn half_a_request_is_not_waited_for_for_ever() {
    let mut scene = Scene::new(1, 0);
    let slot = scene.client();
    let idle = scene.client();
    scene.ask(slot, &GET[..9]);
    scene.pass(REQUEST_IDLE_MS_MAX - 2000);
    assert!(scene.closed.is_empty());
    scene.pass(5000);
    assert_eq!(
        scene.text(slot),
        "-ERR the rest of the request did not come; closing\r\n"
    );
    assert_eq!(scene.closed, [slot]);
    scene.ask(idle, b"PING\r\n");
    assert_eq!(scene.text(idle), "+PONG\r\n", "who asks nothing may stay");
}

// -------------------------------------------------------------------------------------------------- slow readers

#[test]
fn a_slow_reader_holds_up_nobody_for_long() {
    let mut scene = Scene::new(1, 0);
    let (slow, quick) = (scene.client(), scene.client());
    scene.ask(slow, GET);
    scene.ask(quick, GET);
    let first = scene.open_links()[0];
    let size = OUTPUT_HARD + 1000;
    scene.answer(first, format!("${size}\r\n").as_bytes());
    scene.answer(first, &vec![b'v'; size]);
    assert!(
        !scene.engine.reads_link(first),
        "its reply waits, and what comes behind it too"
    );
    assert!(scene.has_event("link-stalled", ""));
    // A third client is not behind it: its request travels on another connection.
    let other = scene.client();
    scene.greet();
    scene.ask(other, GET);
    let second = *scene.open_links().last().expect("another link");
    assert_ne!(second, first);
    assert_eq!(scene.sent(second).matches("GET").count(), 1);
    scene.answer(second, b"$1\r\nv\r\n");
    assert_eq!(scene.text(other), "$1\r\nv\r\n");
    scene.pass(OUTPUT_STALL_MS / 2);
    assert!(scene.closed.is_empty());
    scene.pass(OUTPUT_STALL_MS);
    assert_eq!(scene.closed, [slow], "others wait behind it");
    assert!(scene.engine.reads_link(first));
    scene.answer(first, b"\r\n$1\r\nv\r\n");
    assert_eq!(
        scene.text(quick),
        "$1\r\nv\r\n",
        "the right reply for who came behind"
    );
    assert!(
        !scene.links.contains_key(&first),
        "a retired link is closed when it owes nothing"
    );
    assert_eq!(scene.engine.audit().map(|totals| totals.stalled), Ok(0));
}

#[test]
fn a_slow_reader_alone_gets_its_reply_whole() {
    let mut scene = Scene::new(1, 0);
    let slow = scene.client();
    scene.ask(slow, GET);
    let link = scene.open_links()[0];
    let size = OUTPUT_HARD * 2;
    scene.answer(link, format!("${size}\r\n").as_bytes());
    let piece = vec![b'v'; 1 << 20];
    let (mut came, mut given) = (0, 0);
    while came < size {
        while scene.engine.reads_link(link) && came < size {
            scene.answer(link, &piece);
            came += piece.len();
        }
        assert!(
            came - given <= OUTPUT_HARD + 2 * piece.len(),
            "no more is held than the bound"
        );
        scene.pass(2 * OUTPUT_STALL_MS);
        given += scene.given(slow, 3 << 20).len();
    }
    scene.answer(link, b"\r\n");
    given += scene.given(slow, usize::MAX).len();
    assert_eq!(given, size + format!("${size}\r\n\r\n").len());
    assert!(scene.closed.is_empty());
}

// ----------------------------------------------------------------------------------------------- shards that fail

#[test]
fn a_reply_that_nobody_asked_for_ends_the_connection() {
    for bytes in [
        &b"+OK\r\n"[..],
        b"$3\r\nabc\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
    ] {
        let mut scene = Scene::new(1, 0);
        let link = scene.open_links()[0];
        scene.answer(link, bytes);
        assert!(!scene.links.contains_key(&link));
        assert!(scene.has_event("shard-down", "it sent"));
    }
}

#[test]
fn bytes_that_are_not_resp_fail_the_requests_that_wait() {
    let mut scene = Scene::new(1, 0);
    let slot = scene.client();
    scene.ask(slot, &GET.repeat(2));
    let link = scene.open_links()[0];
    scene.sent(link);
    scene.answer(link, b"$1\r\nv\r\n<html>\r\n");
    let given = scene.text(slot);
    assert!(
        given.starts_with("$1\r\nv\r\n-ERR connection to shard 's0' at 127.0.0.1:7000 was lost"),
        "{given}"
    );
    assert_eq!(given.matches("-ERR").count(), 1);
}

#[test]
fn a_request_without_an_answer_fails_when_its_time_is_over() {
    let mut scene = Scene::new(1, 700);
    let slot = scene.client();
    scene.ask(slot, GET);
    scene.sent(0);
    scene.pass(600);
    assert_eq!(scene.text(slot), "");
    scene.pass(300);
    assert!(scene.text(slot).contains("no answer within 700 ms"));
    scene.ask(slot, GET);
    assert!(
        scene.text(slot).contains("is down"),
        "and the next one fails at once"
    );
}

#[test]
fn a_shard_that_goes_silent_is_noticed_though_nobody_asks() {
    let mut scene = Scene::new(1, 0);
    scene.pass(PROBE_MS + 200);
    assert!(scene.sent(0).contains("PING"));
    scene.pass(PROBE_TIMEOUT_MS - 500);
    assert!(!scene.has_event("shard-down", ""));
    scene.pass(1000);
    assert!(scene.has_event("shard-down", "no answer within"));
}

/// A script's reply passes through as it comes; cut before anything was given, its request gets an error instead.
#[test]
fn a_script_whose_reply_is_cut_gets_an_error() {
    let mut scene = Scene::new(1, 0);
    let slot = scene.client();
    let sha = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    scene.ask(slot, &[GET, &request(&["EVALSHA", sha, "1", "k"])].concat());
    let link = scene.open_links()[0];
    scene.answer(link, b"$1\r\nv\r\n*2\r\n:1\r\n");
    scene.engine.link_lost(link, "it closed the connection");
    scene.act();
    // The beginning was given already: nothing can stand in its place.
    assert!(scene.has_event("client-closed", "reply-cut"));

    let mut scene = Scene::new(2, 0);
    let slot = scene.client();
    // Slots 0 to 8191 are the first shard's.
    let is_first = |key: &&str| key_slot(key.as_bytes()) < 8192;
    let elsewhere = |key: &&str| is_first(key) != is_first(&"k");
    let key = ["a", "b", "c", "d"]
        .into_iter()
        .find(elsewhere)
        .expect("keys on two shards");
    let (first, second) = if is_first(&"k") { (0, 1) } else { (1, 0) };
    scene.ask(slot, &[GET, &request(&["EVALSHA", sha, "1", key])].concat());
    assert!(scene.sent(first).contains("GET") && scene.sent(second).contains("EVALSHA"));
    scene.answer(second, b"*2\r\n:1\r\n");
    scene.engine.link_lost(second, "it closed the connection");
    scene.answer(first, b"$1\r\nv\r\n");
    let given = scene.text(slot);
    assert!(
        given.starts_with("$1\r\nv\r\n-ERR connection to shard"),
        "{given}"
    );
    assert_eq!(scene.closed, [] as [u32; 0]);
}

// ---------------------------------------------------------------------------------------------------- endings

#[test]
fn quit_ends_the_connection_also_when_replies_are_off() {
    let mut scene = Scene::new(1, 0);
    let slot = scene.client();
    scene.ask(
        slot,
        &[request(&["CLIENT", "REPLY", "OFF"]), request(&["QUIT"])].concat(),
    );
    assert_eq!(scene.closed, [slot]);
}

/// WAIT has a connection of its own, which may wait for ever; not for a client that has left.
#[test]
fn connections_of_wait_are_given_back_when_its_client_leaves() {
    for leaves in [Engine::client_lost, Engine::client_ended] {
        let mut scene = Scene::new(2, 0);
        let slot = scene.client();
        scene.ask(slot, &request(&["WAIT", "1", "0"]));
        scene.greet();
        assert_eq!(
            scene.engine.audit().map(|totals| totals.exclusive_links),
            Ok(2)
        );
        scene.pass(60_000);
        assert_eq!(
            scene.engine.audit().map(|totals| totals.exclusive_links),
            Ok(2),
            "it waits"
        );
        leaves(&mut scene.engine, slot);
        scene.act();
        scene.pass(2 * PROBE_TIMEOUT_MS);
        scene.given(slot, usize::MAX);
        let totals = scene.engine.audit().expect("sound books");
        assert_eq!((totals.exclusive_links, totals.clients), (0, 0));
        assert_eq!(scene.closed, [slot]);
    }
}

#[test]
fn stopping_answers_what_is_in_flight_and_takes_nothing_more() {
    let mut scene = Scene::new(1, 0);
    let (busy, idle) = (scene.client(), scene.client());
    scene.ask(busy, GET);
    scene.engine.stop();
    scene.act();
    assert_eq!(scene.closed, [idle]);
    assert!(!scene.engine.reads_client(busy) && !scene.engine.stop_is_done());
    scene.answer(0, b"$1\r\nv\r\n");
    assert_eq!(scene.text(busy), "$1\r\nv\r\n");
    assert_eq!(scene.closed, [idle, busy]);
    assert!(scene.engine.stop_is_done());
}

// -------------------------------------------------------------------------------------------------------- pauses

#[test]
fn a_pause_holds_requests_in_order_until_its_time_has_come() {
    let mut scene = Scene::new(1, 0);
    let (pauser, held) = (scene.client(), scene.client());
    scene.ask(pauser, &request(&["CLIENT", "PAUSE", "1000"]));
    assert_eq!(scene.text(pauser), "+OK\r\n");
    scene.ask(
        held,
        &[request(&["SET", "k", "v"]), request(&["GET", "k"])].concat(),
    );
    scene.pass(900);
    scene.engine.audit().expect("sound books");
    assert_eq!(scene.sent(0), "");
    assert!(!scene.engine.reads_client(held));
    scene.pass(200);
    let sent = scene.sent(0);
    assert!(sent.find("SET") < sent.find("GET") && sent.contains("SET"));
    assert!(scene.engine.reads_client(held));
    scene.engine.audit().expect("sound books");
}

#[test]
fn a_client_that_leaves_while_it_is_paused_and_a_stop_need_no_end_of_the_pause() {
    let mut scene = Scene::new(1, 0);
    let (pauser, leaver, stayer) = (scene.client(), scene.client(), scene.client());
    scene.ask(pauser, &request(&["CLIENT", "PAUSE", "100000"]));
    assert_eq!(scene.text(pauser), "+OK\r\n");
    scene.ask(leaver, GET);
    scene.ask(stayer, GET);
    scene.engine.client_lost(leaver);
    scene.engine.audit().expect("sound books");
    scene.engine.stop();
    scene.act();
    assert!(scene.engine.stop_is_done());
    assert_eq!(scene.sent(0), "");
}
