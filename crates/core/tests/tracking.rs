//! Tracked clients, step by step: what shards are told and when, and that nothing is told too early.
//!
//! Slots are dealt over two shards: `a` is on the second, `b` and `c` are on the first. The shards are the test itself.

use shoal_core::limits::{EXCLUSIVE_LINKS_MAX, OUTPUT_HARD};
use shoal_core::routing::distribution::{Distribution, Slots};
use shoal_core::routing::topology::{Keyspace, Shard, Topology};
use shoal_core::session::engine::{Action, Engine, Identity};
use shoal_core::session::stats::Stats;
use std::collections::BTreeMap;
use std::sync::Arc;

const ON: &[&str] = &["CLIENT", "TRACKING", "ON"];

/// An engine with its surroundings: links that were opened, in order, with their shard.
struct Scene {
    engine: Engine,
    links: BTreeMap<u32, usize>,
    /// Clients that were closed.
    closed: Vec<u32>,
}

fn requests(all: &[&[&str]]) -> Vec<u8> {
    let mut out = String::new();
    for words in all {
        out += &format!("*{}\r\n", words.len());
        for word in *words {
            out += &format!("${}\r\n{word}\r\n", word.len());
        }
    }
    out.into_bytes()
}

fn text_of(words: &[&[&str]]) -> String {
    String::from_utf8(requests(words)).expect("words")
}

fn told(key: &str) -> String {
    format!(
        ">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n",
        key.len()
    )
}

impl Scene {
    fn new(shards: usize) -> Self {
        let shard = |index: usize| Shard {
            name: format!("s{index}"),
            endpoint: format!("127.0.0.1:{}", 7000 + index),
            credentials: None,
        };
        let keyspace = Keyspace::over(
            "test",
            (0..shards).map(shard).collect(),
            Distribution::Slots(Slots::even(shards)),
        );
        let topology = Arc::new(Topology::new(1, vec![keyspace]).expect("a good topology"));
        let stats = Arc::new(vec![Stats::new(&topology)]);
        let identity = Identity {
            worker: 0,
            workers: 1,
            run_id: String::new(),
            process_id: 1,
            ports: vec![6380],
            seed: 7,
            trial: Default::default(),
        };
        let mut scene = Self {
            engine: Engine::new(identity, topology, stats, 0),
            links: BTreeMap::new(),
            closed: Vec::new(),
        };
        scene.act();
        for link in scene.links.keys().copied().collect::<Vec<_>>() {
            scene.engine.link_connected(link);
            assert!(scene.sent(link).contains("INFO"));
            scene.answer(link, "$0\r\n\r\n");
        }
        scene
    }

    fn act(&mut self) {
        for action in std::mem::take(&mut self.engine.actions) {
            match action {
                Action::Open(link) => {
                    let (_, endpoint) = self.engine.link_place(link).expect("an open link");
                    let port: usize = endpoint[10..].parse().expect("a port");
                    self.links.insert(link, port - 7000);
                }
                Action::CloseLink(link) => {
                    self.links.remove(&link);
                }
                Action::CloseClient(slot) | Action::LetClientGo(slot) => self.closed.push(slot),
                _ => {}
            }
        }
        self.engine.audit().expect("sound books");
    }

    /// A client of RESP3 with these options.
    fn tracked(&mut self, options: &[&str]) -> u32 {
        let slot = self.client();
        let words: Vec<&str> = ON.iter().chain(options).copied().collect();
        self.ask(slot, &[&["HELLO", "3"], &words]);
        assert!(self.text(slot).ends_with("*0\r\n+OK\r\n"));
        slot
    }

    fn client(&mut self) -> u32 {
        let slot = self
            .engine
            .client_connected(0, "10.0.0.1:1".into(), "10.0.0.2:6380".into());
        self.act();
        slot
    }

    fn ask(&mut self, slot: u32, all: &[&[&str]]) {
        self.engine.client_received(slot, &requests(all));
        self.act();
    }

    fn answer(&mut self, link: u32, bytes: &str) {
        self.engine.link_received(link, bytes.as_bytes());
        self.act();
    }

    fn sent(&mut self, link: u32) -> String {
        let mut all = Vec::new();
        while let Some(output) = self.engine.link_output(link).filter(|it| !it.is_empty()) {
            let piece = output.front().to_vec();
            output.advance(piece.len());
            all.extend_from_slice(&piece);
            self.engine.link_written(link, piece.len());
        }
        self.act();
        String::from_utf8(all).expect("words")
    }

    fn text(&mut self, slot: u32) -> String {
        let mut all = Vec::new();
        while let Some(output) = self.engine.client_output(slot).filter(|it| !it.is_empty()) {
            let piece = output.front().to_vec();
            output.advance(piece.len());
            all.extend_from_slice(&piece);
            self.engine.client_written(slot, piece.len());
            self.act();
        }
        String::from_utf8(all).expect("words")
    }

    /// The youngest link to a shard.
    fn link_to(&self, shard: usize) -> u32 {
        let mut links = self.links.iter().filter(|(_, to)| **to == shard);
        *links.next_back().expect("a link to the shard").0
    }

    /// A link of RESP3 is connected, and every answer to its greeting given.
    fn greet(&mut self, link: u32, tracking: &[&str]) {
        self.engine.link_connected(link);
        let greeting = text_of(&[&["HELLO", "3"], &["PING"], tracking]);
        assert_eq!(self.sent(link), greeting, "and nothing of the client yet");
        self.answer(link, "%0\r\n+PONG\r\n");
        assert_eq!(self.sent(link), "", "it is not known yet to track");
        self.answer(link, "+OK\r\n");
    }

    /// A tracked client that has a link to each shard: `b` was read from the first, `a` from the second.
    fn with_links(&mut self) -> (u32, u32, u32) {
        let slot = self.tracked(&[]);
        self.ask(slot, &[&["GET", "b"], &["GET", "a"]]);
        let (first, second) = (self.link_to(0), self.link_to(1));
        for link in [first, second] {
            self.greet(link, ON);
            assert!(self.sent(link).contains("GET"));
            self.answer(link, "$1\r\n1\r\n");
        }
        assert_eq!(self.text(slot), "$1\r\n1\r\n$1\r\n1\r\n");
        (slot, first, second)
    }
}

#[test]
fn what_is_told_at_rest_is_passed_on_at_once() {
    let mut scene = Scene::new(2);
    let (slot, first, _) = scene.with_links();
    scene.answer(first, &told("b"));
    assert_eq!(scene.text(slot), told("b"));
    // In pieces too, and between replies that are still to come.
    scene.ask(slot, &[&["GET", "a"], &["GET", "b"]]);
    let push = told("c");
    scene.answer(first, &push[..9]);
    assert_eq!(scene.text(slot), "");
    scene.answer(first, &push[9..]);
    assert_eq!(scene.text(slot), push, "no reply has come before it");
}

#[test]
fn an_invalidation_waits_for_the_reply_before_it() {
    let mut scene = Scene::new(2);
    let (slot, first, second) = scene.with_links();
    // The second shard is quicker: its reply waits for its turn, and with it what came behind it.
    scene.ask(slot, &[&["GET", "b"], &["GET", "a"], &["GET", "c"]]);
    scene.answer(second, &format!("$3\r\nold\r\n{}", told("a")));
    assert_eq!(scene.text(slot), "");
    scene.answer(first, "$1\r\n1\r\n");
    let expected = format!("$1\r\n1\r\n$3\r\nold\r\n{}", told("a"));
    assert_eq!(scene.text(slot), expected);
    scene.answer(first, "$1\r\n2\r\n");
    assert_eq!(scene.text(slot), "$1\r\n2\r\n");
}

#[test]
fn an_invalidation_waits_for_the_rest_of_a_reply_over_shards() {
    let mut scene = Scene::new(2);
    let (slot, first, second) = scene.with_links();
    scene.ask(slot, &[&["MGET", "a", "b"]]);
    scene.answer(second, &format!("*1\r\n$3\r\nold\r\n{}", told("a")));
    assert_eq!(scene.text(slot), "");
    scene.answer(first, "*1\r\n$1\r\n1\r\n");
    let expected = format!("*2\r\n$3\r\nold\r\n$1\r\n1\r\n{}", told("a"));
    assert_eq!(scene.text(slot), expected);
}

#[test]
fn an_invalidation_never_stands_within_a_reply() {
    let mut scene = Scene::new(2);
    let (slot, first, second) = scene.with_links();
    scene.ask(slot, &[&["GET", "b"]]);
    scene.answer(first, "$9\r\nfour");
    scene.answer(second, &told("a"));
    assert_eq!(scene.text(slot), "$9\r\nfour");
    scene.answer(first, "-nine\r\n");
    assert_eq!(scene.text(slot), format!("-nine\r\n{}", told("a")));
}

#[test]
fn a_lost_link_takes_everything_with_it_and_its_requests_get_their_errors() {
    let mut scene = Scene::new(2);
    let (slot, first, second) = scene.with_links();
    scene.ask(slot, &[&["GET", "b"], &["GET", "a"]]);
    scene.answer(second, "$1\r\n2\r\n");
    scene.engine.link_ended(first);
    scene.act();
    let text = scene.text(slot);
    assert!(
        text.starts_with("-ERR connection to shard 's0' at 127.0.0.1:7000 was lost"),
        "{text}"
    );
    assert!(
        text.ends_with("$1\r\n2\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n"),
        "{text}"
    );
    // The next request opens another.
    scene.ask(slot, &[&["GET", "b"]]);
    let next = scene.link_to(0);
    scene.greet(next, ON);
    assert_eq!(scene.sent(next), text_of(&[&["GET", "b"]]));
}

#[test]
fn a_shard_that_refuses_to_track_is_not_read_from() {
    let mut scene = Scene::new(2);
    let slot = scene.tracked(&[]);
    scene.ask(slot, &[&["GET", "b"]]);
    let link = scene.link_to(0);
    scene.engine.link_connected(link);
    scene.sent(link);
    scene.answer(link, "%0\r\n+PONG\r\n-ERR unknown subcommand\r\n");
    let text = scene.text(slot);
    assert!(
        text.contains("greeting refused: ERR unknown subcommand"),
        "{text}"
    );
    assert!(text.contains("the request was not sent"), "{text}");
    assert!(!scene.links.contains_key(&link));
}

#[test]
fn caching_is_said_right_before_the_request_that_it_means() {
    let mut scene = Scene::new(2);
    let slot = scene.tracked(&["OPTIN"]);
    let yes: &[&str] = &["CLIENT", "CACHING", "YES"];
    scene.ask(slot, &[yes, &["MGET", "a", "b"], &["GET", "c"]]);
    let (first, second) = (scene.link_to(0), scene.link_to(1));
    for link in [first, second] {
        scene.greet(link, &[ON, &["OPTIN"]].concat());
    }
    assert_eq!(
        scene.sent(first),
        text_of(&[yes, &["MGET", "b"], &["GET", "c"]])
    );
    assert_eq!(scene.sent(second), text_of(&[yes, &["MGET", "a"]]));
    scene.answer(first, "+OK\r\n*1\r\n_\r\n_\r\n");
    scene.answer(second, "+OK\r\n*1\r\n_\r\n");
    assert_eq!(scene.text(slot), "+OK\r\n*2\r\n_\r\n_\r\n_\r\n");
    // A whole transaction is one request.
    let transaction: &[&[&str]] = &[&["MULTI"], &["GET", "b"], &["GET", "c"], &["EXEC"]];
    scene.ask(slot, &[&[yes], transaction, &[&["GET", "b"]]].concat());
    let expected = [&[yes], transaction, &[&["GET", "b"]]].concat();
    assert_eq!(scene.sent(first), text_of(&expected));
}

#[test]
fn in_resp2_a_shard_is_told_first_whom_to_tell() {
    let mut scene = Scene::new(2);
    let target = scene.client();
    scene.ask(target, &[&["HELLO", "3"], &["CLIENT", "ID"]]);
    let id = scene.text(target);
    let id = id.rsplit(':').next().expect("a number").trim();
    let slot = scene.client();
    scene.ask(slot, &[&[ON, &["REDIRECT", id]].concat(), &["GET", "b"]]);
    assert_eq!(scene.text(slot), "+OK\r\n");
    let mut own = scene.links.keys().copied().skip(2);
    let (Some(feed), Some(link), None) = (own.next(), own.next(), own.next()) else {
        panic!("one link to read on and one to be told on");
    };
    scene.engine.link_connected(link);
    assert_eq!(scene.sent(link), text_of(&[&["PING"]]));
    scene.answer(link, "+PONG\r\n");
    scene.engine.link_connected(feed);
    let greeting = text_of(&[&["HELLO", "3"], &["PING"]]);
    assert_eq!(scene.sent(feed), greeting);
    scene.answer(feed, "%0\r\n+PONG\r\n");
    assert_eq!(scene.sent(feed), text_of(&[&["CLIENT", "ID"]]));
    assert_eq!(scene.sent(link), "", "it is not known yet whom");
    scene.answer(feed, ":77\r\n");
    let tracking = [ON, &["REDIRECT", "77"]].concat();
    assert_eq!(scene.sent(link), text_of(&[&tracking]));
    scene.answer(link, "+OK\r\n");
    assert_eq!(scene.sent(link), text_of(&[&["GET", "b"]]));
    scene.answer(link, "$1\r\n1\r\n");
    assert_eq!(scene.text(slot), "$1\r\n1\r\n");
    scene.answer(feed, &told("b"));
    assert_eq!(scene.text(target), told("b"));
    // Without the one the other is worth nothing.
    scene.engine.link_ended(feed);
    scene.act();
    assert!(!scene.links.contains_key(&link));
    let all = ">2\r\n$10\r\ninvalidate\r\n_\r\n";
    assert_eq!(scene.text(target), all.repeat(2));
    scene.engine.client_lost(target);
    scene.ask(slot, &[&["CLIENT", "TRACKING", "OFF"]]);
    assert_eq!(scene.links.len(), 2);
}

#[test]
fn bcast_is_ok_when_every_shard_does_it() {
    let mut scene = Scene::new(2);
    let slot = scene.client();
    let words = [ON, &["BCAST", "NOLOOP", "PREFIX", "x", "PREFIX", "y"]].concat();
    scene.ask(slot, &[&["HELLO", "3"], &words, &["GET", "b"]]);
    scene.text(slot);
    let wanted = [ON, &["BCAST", "NOLOOP", "PREFIX", "x", "PREFIX", "y"]].concat();
    let (first, second) = (scene.link_to(0), scene.link_to(1));
    for link in [first, second] {
        assert_eq!(scene.text(slot), "");
        scene.greet(link, &wanted);
        assert_eq!(scene.sent(link), text_of(&[&["PING"]]));
        scene.answer(link, "+PONG\r\n");
    }
    assert_eq!(scene.text(slot), "+OK\r\n");
    assert_eq!(scene.sent(first), text_of(&[&["GET", "b"]]));
    scene.answer(second, &told("x1"));
    scene.answer(first, &format!("{}_\r\n", told("y1")));
    assert_eq!(
        scene.text(slot),
        format!("{}{}_\r\n", told("x1"), told("y1"))
    );
}

#[test]
fn who_does_not_take_its_invalidations_is_not_sent_more() {
    let mut scene = Scene::new(2);
    let (slot, first, second) = scene.with_links();
    let key = "k".repeat(1024 * 1024);
    let mut count = 0;
    while scene.engine.reads_link(first) {
        scene.answer(first, &told(&key));
        count += 1;
    }
    assert!(count * key.len() <= OUTPUT_HARD + 2 * key.len());
    assert!(scene.engine.reads_link(second), "only what brings more");
    assert_eq!(scene.text(slot), told(&key).repeat(count), "none is lost");
    assert!(
        scene.engine.reads_link(first),
        "it takes them, so it goes on"
    );
}

#[test]
fn who_does_not_take_those_of_others_is_closed() {
    let mut scene = Scene::new(2);
    let target = scene.client();
    scene.ask(target, &[&["HELLO", "3"], &["CLIENT", "ID"]]);
    let id = scene.text(target);
    let id = id.rsplit(':').next().expect("a number").trim();
    let slot = scene.tracked(&["REDIRECT", id]);
    scene.ask(slot, &[&["GET", "b"]]);
    let link = scene.link_to(0);
    scene.greet(link, ON);
    scene.sent(link);
    scene.answer(link, "$1\r\n1\r\n");
    assert_eq!(scene.text(slot), "$1\r\n1\r\n");
    let key = "k".repeat(1024 * 1024);
    for _ in 0..OUTPUT_HARD / key.len() {
        assert!(scene.closed.is_empty());
        scene.answer(link, &told(&key));
    }
    assert_eq!(scene.closed, [target]);
    scene.answer(link, &told("b"));
    let broken = format!(">2\r\n$21\r\ntracking-redir-broken\r\n:{id}\r\n");
    assert_eq!(scene.text(slot), broken);
    assert!(scene.engine.reads_link(link), "its own replies go on");
}

#[test]
fn connections_for_tracking_are_bounded() {
    let shards = 4096;
    let mut scene = Scene::new(shards);
    let bcast = [ON, &["BCAST"]].concat();
    for number in 0..3 {
        let slot = scene.client();
        let before = scene.links.len();
        scene.ask(slot, &[&["HELLO", "3"], &bcast, &["CLIENT", "GETREDIR"]]);
        let text = scene.text(slot);
        if number < 2 {
            assert_eq!(scene.links.len(), before + shards);
        } else {
            assert!(text.contains("-ERR too many"), "{text}");
            assert!(text.ends_with(":-1\r\n"), "{text}");
            assert_eq!(scene.links.len(), before, "nothing of it stays");
        }
    }
    assert!(scene.links.len() - shards <= EXCLUSIVE_LINKS_MAX);
}
