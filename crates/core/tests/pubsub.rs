//! Subscriptions of one engine, step by step: the shards are models of servers that answer when they are told to.
//!
//! The system tests show messages with real servers; these show what happens between a request and its confirmations, when
//! shards are lost or refuse, and when the clock moves. A property test does all of it at random, and at the end compares
//! what each shard believes with what the clients have.

use proptest::prelude::*;
use shoal_core::limits::{
    LINK_IDLE_MS_MAX, OUTPUT_HIGH, PROBE_TIMEOUT_MS, PUBLISH_HOLD_MS_MAX, SUBSCRIBER_OUTPUT_HARD,
    SUBSCRIBER_OUTPUT_SOFT, SUBSCRIBER_SLOW_MS,
};
use shoal_core::routing::distribution::{Distribution, Slots};
use shoal_core::routing::hash::key_slot;
use shoal_core::routing::topology::{Keyspace, Shard, Topology};
use shoal_core::session::engine::{Action, Engine, Identity};
use shoal_core::session::stats::Stats;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// One connection to a model of a server.
#[derive(Default)]
struct Peer {
    endpoint: String,
    is_connected: bool,
    /// It speaks RESP3: messages come on it.
    is_feed: bool,
    /// Requests that have no answer.
    asked: VecDeque<Vec<String>>,
    unread: Vec<u8>,
    /// Kinds and names.
    names: BTreeSet<(String, String)>,
}

struct Scene {
    engine: Engine,
    now_us: u64,
    peers: BTreeMap<u32, Peer>,
    /// Endpoints that accept no connection.
    down: BTreeSet<String>,
    closed: Vec<u32>,
    reasons: Vec<String>,
    speaks_resp3: bool,
    /// A name to which nobody may subscribe.
    forbidden: Option<String>,
}

fn request(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    out.into_bytes()
}

/// The next whole request of some bytes, and how long it is.
fn parse(bytes: &[u8]) -> Option<(Vec<String>, usize)> {
    let mut at = 0;
    let mut number = |kind: u8| {
        let end = at + bytes[at..].iter().position(|&byte| byte == b'\r')?;
        assert_eq!(bytes[at], kind);
        let number: usize = std::str::from_utf8(&bytes[at + 1..end])
            .ok()?
            .parse()
            .ok()?;
        at = end + 2;
        let text_at = at;
        if kind == b'$' {
            at += number + 2;
        }
        Some((number, text_at))
    };
    if bytes.is_empty() {
        return None;
    }
    let (count, _) = number(b'*')?;
    let mut words = Vec::new();
    for _ in 0..count {
        let (length, text) = number(b'$')?;
        words.push(String::from_utf8_lossy(&bytes[text..text + length]).into_owned());
    }
    Some((words, at))
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
            now_us: 0,
            peers: BTreeMap::new(),
            down: BTreeSet::new(),
            closed: Vec::new(),
            reasons: Vec::new(),
            speaks_resp3: true,
            forbidden: None,
        };
        scene.settle();
        scene
    }

    /// Does what the engine wants done.
    fn act(&mut self) {
        for action in std::mem::take(&mut self.engine.actions) {
            match action {
                Action::Open(link) => {
                    let endpoint = self.engine.link_endpoint(link).expect("an open link");
                    let peer = Peer {
                        endpoint,
                        ..Peer::default()
                    };
                    self.peers.insert(link, peer);
                }
                Action::CloseLink(link) => {
                    self.peers.remove(&link);
                }
                Action::CloseClient(slot) | Action::LetClientGo(slot) => self.closed.push(slot),
                Action::Fault { .. } => {}
                Action::Event(event) => {
                    let found = event.fields.iter().find(|(name, _)| *name == "reason");
                    self.reasons.extend(found.map(|(_, reason)| reason.clone()));
                }
                Action::ReadClient(_) | Action::ReadLink(_) | Action::Mail(..) => {}
            }
        }
        self.engine.audit().expect("sound books");
    }

    /// Connects what wants to be connected, and reads what was sent.
    fn look(&mut self) {
        self.act();
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            if !peer.is_connected {
                if self.down.contains(&peer.endpoint) {
                    self.engine.link_lost(id, "connection refused");
                    self.act();
                    continue;
                }
                peer.is_connected = true;
                self.engine.link_connected(id);
            }
            while let Some(output) = self.engine.link_output(id).filter(|out| !out.is_empty()) {
                let piece = output.front().to_vec();
                output.advance(piece.len());
                self.engine.link_written(id, piece.len());
                self.act();
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.unread.extend(piece);
                }
            }
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            while let Some((words, used)) = parse(&peer.unread) {
                peer.unread.drain(..used);
                peer.is_feed |= words[0] == "HELLO";
                peer.asked.push_back(words);
            }
        }
    }

    /// Answers the oldest request of a connection as a server would.
    fn answer(&mut self, id: u32) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else {
            return false;
        };
        let Some(words) = peer.asked.pop_front() else {
            return false;
        };
        let verb = words[0].to_lowercase();
        let mut out = Vec::new();
        match verb.trim_start_matches(['p', 's', 'u', 'n']) {
            _ if verb == "hello" && !self.speaks_resp3 => {
                out.extend(b"-ERR unknown command 'HELLO'\r\n")
            }
            _ if self.forbidden.is_some()
                && !verb.contains("unsub")
                && words
                    .iter()
                    .any(|word| Some(word) == self.forbidden.as_ref()) =>
            {
                out.extend(b"-NOPERM not this one\r\n");
            }
            _ if verb == "publish" => out.extend(b":1\r\n"),
            _ if verb.ends_with("subscribe") => {
                let kind = verb
                    .trim_end_matches("unsubscribe")
                    .trim_end_matches("subscribe");
                for name in &words[1..] {
                    let known = (kind.to_string(), name.clone());
                    if verb.ends_with("unsubscribe") {
                        peer.names.remove(&known);
                    } else {
                        peer.names.insert(known);
                    }
                    let count = peer.names.len();
                    out.extend(format!(">3\r\n${}\r\n{verb}\r\n", verb.len()).bytes());
                    out.extend(format!("${}\r\n{name}\r\n:{count}\r\n", name.len()).bytes());
                }
            }
            _ => out.extend(b"+fine\r\n"),
        }
        self.receive(id, &out);
        true
    }

    fn receive(&mut self, id: u32, bytes: &[u8]) {
        self.engine.link_received(id, bytes);
        self.look();
    }

    /// Everybody answers everything, until nothing is left.
    fn settle(&mut self) {
        self.settle_but(u32::MAX);
    }

    fn settle_but(&mut self, silent: u32) {
        loop {
            self.look();
            let ids = self.peers.keys().copied();
            let ids: Vec<u32> = ids.filter(|id| *id != silent).collect();
            if ids.into_iter().filter(|&id| self.answer(id)).count() == 0 {
                return;
            }
        }
    }

    fn client(&mut self) -> u32 {
        self.engine
            .client_connected(0, "10.0.0.1:1".into(), "10.0.0.2:6380".into())
    }

    fn ask(&mut self, slot: u32, words: &[&str]) {
        self.engine.client_received(slot, &request(words));
        self.look();
    }

    /// What a client was given, up to so many bytes.
    fn taken(&mut self, slot: u32, mut most: usize) -> String {
        let mut all = Vec::new();
        while let Some(output) = self
            .engine
            .client_output(slot)
            .filter(|out| !out.is_empty())
        {
            let length = output.front().len().min(most);
            if length == 0 {
                break;
            }
            all.extend_from_slice(&output.front()[..length]);
            output.advance(length);
            most -= length;
            self.engine.client_written(slot, length);
            self.act();
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    fn given(&mut self, slot: u32) -> String {
        self.taken(slot, usize::MAX).replace("\r\n", " ")
    }

    fn feeds(&self) -> Vec<u32> {
        let feeds = self.peers.iter().filter(|(_, peer)| peer.is_feed);
        feeds.map(|(&id, _)| id).collect()
    }

    fn message(&mut self, id: u32, channel: &str, text: &str) {
        let bytes = format!(
            ">3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n${}\r\n{text}\r\n",
            channel.len(),
            text.len()
        );
        self.receive(id, bytes.as_bytes());
    }

    fn pass(&mut self, ms: usize) {
        self.pass_but(ms, u32::MAX);
    }

    /// Time passes, and everybody answers but one connection.
    fn pass_but(&mut self, ms: usize, silent: u32) {
        let end = self.now_us + ms as u64 * 1000;
        while self.now_us < end {
            self.now_us = end.min(self.now_us + 100_000);
            self.engine.set_now(self.now_us);
            self.engine.tick();
            self.settle_but(silent);
        }
    }

    /// A shard's connections break, and no new one is made.
    fn lose(&mut self, endpoint: &str) {
        self.down.insert(endpoint.to_string());
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            if self
                .peers
                .get(&id)
                .is_some_and(|peer| peer.endpoint == endpoint)
            {
                self.engine.link_ended(id);
                self.look();
            }
        }
    }

    /// Up to the greeting of the feeds.
    fn greet(&mut self) {
        for _ in 0..2 {
            self.look();
            for id in self.peers.keys().copied().collect::<Vec<_>>() {
                let next = self.peers[&id].asked.front().cloned().unwrap_or_default();
                if ["HELLO", "PING", "INFO"].contains(&next.first().map_or("", String::as_str)) {
                    self.answer(id);
                }
            }
        }
    }
}

const CONFIRMED: &str = "*3 $9 subscribe $1 a :1 ";

#[test]
fn a_client_is_told_when_the_last_shard_has_confirmed_and_hears_nothing_before() {
    let mut scene = Scene::new(3);
    let slot = scene.client();
    scene.ask(slot, &["SUBSCRIBE", "a"]);
    scene.ask(slot, &["PING"]);
    scene.greet();
    let feeds = scene.feeds();
    assert_eq!(feeds.len(), 3);
    assert!(scene.answer(feeds[2]) && scene.answer(feeds[0]));
    scene.message(feeds[0], "a", "early");
    assert_eq!(scene.given(slot), "");
    assert!(scene.answer(feeds[1]));
    assert_eq!(
        scene.given(slot),
        format!("{CONFIRMED}*2 $4 pong $0  "),
        "what it asked meanwhile is done after that"
    );
    scene.message(feeds[1], "a", "hello");
    scene.message(feeds[1], "b", "of another name");
    assert_eq!(scene.given(slot), "*3 $7 message $1 a $5 hello ");
}

#[test]
fn further_subscriptions_are_asked_for_at_once_and_confirmed_in_their_order() {
    let mut scene = Scene::new(2);
    let slot = scene.client();
    for words in [
        ["SUBSCRIBE", "a"],
        ["PSUBSCRIBE", "b"],
        ["SUBSCRIBE", "a"],
        ["PING", "c"],
        ["SUBSCRIBE", "d"],
    ] {
        scene.ask(slot, &words);
    }
    scene.greet();
    let feeds = scene.feeds();
    for id in &feeds {
        let asked = &scene.peers[id].asked;
        assert!(
            asked.contains(&vec!["SUBSCRIBE".into(), "a".into()])
                && asked.contains(&vec!["PSUBSCRIBE".into(), "b".into()])
                && asked.len() == 2,
            "both, once, and nothing behind PING: {asked:?}"
        );
    }
    assert_eq!(scene.given(slot), "");
    assert!(feeds.iter().all(|&id| scene.answer(id)));
    assert_eq!(scene.given(slot), CONFIRMED);
    assert!(feeds.iter().all(|&id| scene.answer(id)));
    assert_eq!(
        scene.given(slot),
        "*3 $10 psubscribe $1 b :2 *3 $9 subscribe $1 a :2 *2 $4 pong $1 c "
    );
    scene.settle();
    assert_eq!(scene.given(slot), "*3 $9 subscribe $1 d :3 ");
}

#[test]
fn what_is_published_waits_for_subscriptions_that_came_before_and_not_for_ever() {
    let mut scene = Scene::new(2);
    let (reader, writer, late) = (scene.client(), scene.client(), scene.client());
    scene.ask(reader, &["SUBSCRIBE", "a"]);
    scene.greet();
    scene.ask(writer, &["PUBLISH", "a", "x"]);
    let is_published = |scene: &Scene| {
        let mut asked = scene.peers.values().flat_map(|peer| &peer.asked);
        asked.any(|words| words[0] == "PUBLISH")
    };
    let feeds = scene.feeds();
    assert!(scene.answer(feeds[0]));
    assert!(!is_published(&scene));
    scene.ask(late, &["SUBSCRIBE", "b"]);
    assert!(scene.answer(feeds[1]));
    assert!(
        is_published(&scene),
        "a subscription that came later is not waited for"
    );
    scene.settle();
    assert_eq!(scene.given(reader), CONFIRMED);
    assert!(scene.given(writer).starts_with(':'));

    scene.ask(late, &["SUBSCRIBE", "c"]);
    scene.ask(writer, &["PUBLISH", "a", "y"]);
    assert!(!is_published(&scene));
    scene.pass_but(2 * PUBLISH_HOLD_MS_MAX, feeds[1]);
    assert!(scene.given(writer).starts_with(':'));
    // One who is held and leaves is forgotten.
    scene.ask(late, &["SUBSCRIBE", "d"]);
    scene.ask(writer, &["PUBLISH", "a", "z"]);
    scene.engine.client_lost(writer);
    scene.settle();
    assert!(!is_published(&scene));
}

#[test]
fn a_name_that_is_known_is_confirmed_at_once_and_one_on_its_way_with_it() {
    let mut scene = Scene::new(2);
    let (first, second, third) = (scene.client(), scene.client(), scene.client());
    scene.ask(first, &["SUBSCRIBE", "a"]);
    scene.greet();
    scene.ask(second, &["SUBSCRIBE", "a"]);
    assert_eq!(scene.given(second), "", "no shard has confirmed it");
    let feeds = scene.feeds();
    for &id in &feeds {
        assert_eq!(scene.peers[&id].asked.len(), 1, "it was sent once");
        assert!(scene.answer(id));
    }
    assert_eq!(scene.given(first), CONFIRMED);
    assert_eq!(scene.given(second), CONFIRMED);
    scene.ask(third, &["SUBSCRIBE", "a"]);
    assert_eq!(scene.given(third), CONFIRMED);
    scene.message(feeds[0], "a", "x");
    for slot in [first, second, third] {
        assert_eq!(scene.given(slot), "*3 $7 message $1 a $1 x ");
    }
    scene.ask(first, &["UNSUBSCRIBE", "a"]);
    assert_eq!(scene.given(first), "*3 $11 unsubscribe $1 a :0 ");
    scene.engine.client_lost(second);
    scene.look();
    assert!(feeds.iter().all(|id| scene.peers[id].asked.is_empty()));
    scene.engine.client_lost(third);
    scene.look();
    for id in feeds {
        assert_eq!(
            scene.peers[&id].asked,
            [["UNSUBSCRIBE", "a"]],
            "the last has left"
        );
    }
}

#[test]
fn a_lost_shard_is_not_waited_for_and_asked_again_when_it_is_back() {
    let mut scene = Scene::new(2);
    let slot = scene.client();
    scene.ask(slot, &["SUBSCRIBE", "a"]);
    scene.greet();
    let feeds = scene.feeds();
    assert!(scene.answer(feeds[1]));
    scene.lose("127.0.0.1:7000");
    assert_eq!(scene.given(slot), CONFIRMED);
    scene.ask(slot, &["PSUBSCRIBE", "b"]);
    assert!(scene.answer(feeds[1]));
    assert_eq!(scene.given(slot), "*3 $10 psubscribe $1 b :2 ");
    scene.down.clear();
    scene.pass(5_000);
    for id in scene.feeds() {
        let names: Vec<_> = scene.peers[&id].names.iter().collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
    assert_eq!(scene.feeds().len(), 2);
}

#[test]
fn a_shard_that_does_not_answer_is_not_waited_for_long() {
    let mut scene = Scene::new(2);
    let slot = scene.client();
    scene.ask(slot, &["SUBSCRIBE", "a"]);
    scene.greet();
    let feeds = scene.feeds();
    assert!(scene.answer(feeds[0]));
    for _ in 0..PROBE_TIMEOUT_MS / 1000 {
        assert_eq!(scene.given(slot), "");
        scene.pass_but(1000, feeds[1]);
    }
    scene.pass_but(1000, feeds[1]);
    assert_eq!(scene.given(slot), CONFIRMED);
    assert!((scene.reasons.iter()).any(|reason| reason.contains("no answer within")));
    scene.pass(1000);
    assert_eq!(scene.feeds().len(), 2);
}

#[test]
fn subscribers_do_not_keep_shoal_from_stopping() {
    let mut scene = Scene::new(2);
    let (slot, waits) = (scene.client(), scene.client());
    scene.ask(slot, &["SUBSCRIBE", "a"]);
    scene.settle();
    scene.given(slot);
    scene.ask(waits, &["PSUBSCRIBE", "b"]);
    scene.engine.stop();
    scene.look();
    assert_eq!(scene.closed, [slot]);
    scene.settle();
    assert_eq!(scene.given(waits), "*3 $10 psubscribe $1 b :1 ");
    assert!(scene.engine.stop_is_done());
}

#[test]
fn what_a_shard_refuses_is_subscribed_to_nowhere() {
    let mut scene = Scene::new(2);
    let (slot, other) = (scene.client(), scene.client());
    scene.ask(slot, &["SUBSCRIBE", "a", "b"]);
    scene.ask(other, &["PSUBSCRIBE", "c"]);
    scene.greet();
    let feeds = scene.feeds();
    assert!(scene.answer(feeds[0]));
    scene
        .peers
        .get_mut(&feeds[1])
        .expect("it is open")
        .asked
        .pop_front();
    scene.receive(feeds[1], b"-NOPERM no such luck\r\n");
    assert_eq!(scene.given(slot), "-NOPERM no such luck ");
    assert_eq!(scene.given(other), "");
    scene.settle();
    assert_eq!(scene.given(other), "*3 $10 psubscribe $1 c :1 ");
    for &id in &feeds {
        let expected = ("p".to_string(), "c".to_string());
        assert_eq!(scene.peers[&id].names, BTreeSet::from([expected]));
    }
    scene.ask(slot, &["GET", "x"]);
    let others: Vec<u32> = scene
        .peers
        .keys()
        .copied()
        .filter(|id| !feeds.contains(id))
        .collect();
    assert!(
        others.iter().any(|id| !scene.peers[id].asked.is_empty()),
        "it may do all again"
    );
}

#[test]
fn a_late_refusal_is_not_of_what_was_asked_for_anew() {
    let mut scene = Scene::new(2);
    let slot = scene.client();
    scene.ask(slot, &["SUBSCRIBE", "a", "b"]);
    scene.greet();
    let feeds = scene.feeds();
    let refuse = |scene: &mut Scene, id: u32| {
        let peer = scene.peers.get_mut(&id).expect("it is open");
        assert_eq!(
            peer.asked.pop_front(),
            Some(vec!["SUBSCRIBE".into(), "a".into(), "b".into()])
        );
        scene.receive(id, b"-NOPERM b\r\n");
    };
    refuse(&mut scene, feeds[0]);
    assert_eq!(scene.given(slot), "-NOPERM b ");
    scene.ask(slot, &["SUBSCRIBE", "a"]);
    refuse(&mut scene, feeds[1]);
    assert_eq!(scene.given(slot), "");
    scene.settle();
    assert_eq!(scene.given(slot), CONFIRMED);
    assert_eq!(scene.feeds(), feeds, "no connection was given up");
    assert!(feeds.iter().all(|id| scene.peers[id].names.len() == 1));
}

#[test]
fn who_listens_to_what_a_shard_forbids_from_now_on_is_closed_and_nobody_else() {
    let mut scene = Scene::new(2);
    let (slot, other) = (scene.client(), scene.client());
    scene.ask(slot, &["SUBSCRIBE", "shut"]);
    scene.ask(other, &["SUBSCRIBE", "open"]);
    scene.settle();
    scene.given(slot);
    scene.given(other);
    let lost = scene.feeds()[0];
    scene.engine.link_ended(lost);
    scene.forbidden = Some("shut".into());
    scene.pass(1000);
    assert_eq!(scene.closed, [slot]);
    assert!(scene
        .reasons
        .contains(&"subscription-forbidden".to_string()));
    let feeds = scene.feeds();
    assert_eq!(feeds.len(), 2);
    for id in feeds {
        let names: Vec<_> = scene.peers[&id]
            .names
            .iter()
            .map(|(_, name)| name)
            .collect();
        assert_eq!(names, ["open"]);
    }
}

#[test]
fn a_server_without_resp3_is_an_error_and_no_silence() {
    let mut scene = Scene::new(2);
    scene.speaks_resp3 = false;
    let slot = scene.client();
    scene.ask(slot, &["SUBSCRIBE", "a"]);
    scene.settle();
    let told = scene.given(slot);
    assert!(told.starts_with("-ERR shard 's"), "{told}");
    assert!(told.contains("greeting refused"), "{told}");
    scene.ask(slot, &["PING"]);
    assert_eq!(scene.given(slot), "+PONG ");
}

#[test]
fn a_shard_that_says_what_it_was_not_asked_is_connected_to_anew() {
    let mut scene = Scene::new(1);
    let slot = scene.client();
    scene.ask(slot, &["SUBSCRIBE", "a"]);
    scene.settle();
    let before = scene.feeds();
    scene.receive(before[0], b">3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n");
    assert!(scene
        .reasons
        .iter()
        .any(|reason| reason.contains("not asked to change")));
    assert!(scene.feeds().is_empty());
    scene.pass(200);
    let after = scene.feeds();
    assert_eq!(scene.peers[&after[0]].names.len(), 1);
    // A push of a kind that nobody knows is nobody's.
    scene.receive(after[0], b">2\r\n$3\r\nnew\r\n$1\r\na\r\n");
    assert_eq!(scene.feeds(), after);
}

#[test]
fn who_does_not_read_is_closed_at_once_when_it_is_much_and_later_when_it_is_less() {
    let mut scene = Scene::new(1);
    let (quick, slow, slower) = (scene.client(), scene.client(), scene.client());
    for slot in [quick, slow, slower] {
        scene.ask(slot, &["SUBSCRIBE", "a"]);
        scene.settle();
        scene.given(slot);
    }
    let feed = scene.feeds()[0];
    let text = "x".repeat(OUTPUT_HIGH);
    let soft = SUBSCRIBER_OUTPUT_SOFT / OUTPUT_HIGH + 1;
    for _ in 0..soft {
        scene.message(feed, "a", &text);
        scene.given(quick);
        scene.given(slow);
    }
    // One takes a byte now and then, so it is not idle; it is slow all the same.
    for _ in 0..SUBSCRIBER_SLOW_MS / 1000 {
        scene.taken(slower, 1);
        scene.pass(1000);
        assert!(scene.closed.is_empty());
    }
    scene.pass(2000);
    assert_eq!(scene.closed, [slower]);
    let mut sent = 0;
    while scene.closed.len() < 2 {
        scene.message(feed, "a", &text);
        sent += text.len();
        scene.given(quick);
    }
    assert_eq!(scene.closed, [slower, slow]);
    assert!(sent <= SUBSCRIBER_OUTPUT_HARD + text.len());
    assert_eq!(
        scene
            .reasons
            .iter()
            .filter(|reason| *reason == "subscriber-too-slow")
            .count(),
        2
    );
    scene.message(feed, "a", "on");
    assert_eq!(scene.given(quick), "*3 $7 message $1 a $2 on ");
}

#[test]
fn a_connection_that_nobody_needs_is_closed_after_a_while() {
    let mut scene = Scene::new(2);
    let slot = scene.client();
    scene.ask(slot, &["SUBSCRIBE", "a"]);
    scene.settle();
    scene.pass(LINK_IDLE_MS_MAX * 2);
    assert_eq!(scene.feeds().len(), 2, "somebody listens");
    scene.ask(slot, &["UNSUBSCRIBE"]);
    scene.settle();
    scene.pass(LINK_IDLE_MS_MAX / 2);
    assert_eq!(scene.feeds().len(), 2);
    scene.pass(LINK_IDLE_MS_MAX);
    assert_eq!(scene.feeds().len(), 0);
    scene.ask(slot, &["SUBSCRIBE", "a"]);
    scene.settle();
    assert_eq!(scene.feeds().len(), 2);
}

#[test]
fn what_is_published_goes_to_one_shard_and_not_to_one_that_would_not_tell() {
    let mut scene = Scene::new(2);
    let (slot, publisher) = (scene.client(), scene.client());
    scene.ask(slot, &["SUBSCRIBE", "a"]);
    scene.settle();
    scene.given(slot);
    let home = format!("127.0.0.1:{}", 7000 + key_slot(b"a") as usize % 2);
    let publish = |scene: &mut Scene| {
        scene.ask(publisher, &["PUBLISH", "a", "x"]);
        let asked = scene.peers.values().filter(|peer| !peer.asked.is_empty());
        let endpoints: Vec<String> = asked.map(|peer| peer.endpoint.clone()).collect();
        scene.settle();
        assert_eq!(
            scene.given(publisher),
            ":1 ",
            "the subscriber, not our connection to the shard"
        );
        endpoints.concat()
    };
    assert_eq!(publish(&mut scene), home);
    let feed = |scene: &Scene| {
        let own = |id: &u32| scene.peers[id].endpoint == home;
        scene.feeds().into_iter().find(own)
    };
    let lost = feed(&scene).expect("it is open");
    scene.engine.link_ended(lost);
    scene.look();
    assert_ne!(publish(&mut scene), home);
    scene.pass(1000);
    assert!(feed(&scene).is_some());
    assert_eq!(publish(&mut scene), home);
}

/// What can happen.
#[derive(Debug, Clone)]
enum Step {
    Ask {
        client: usize,
        verb: usize,
        names: Vec<usize>,
    },
    Leave {
        client: usize,
    },
    Answer {
        link: usize,
    },
    Refuse {
        link: usize,
    },
    Break {
        link: usize,
    },
    Tick,
}

const VERBS: [&str; 8] = [
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "PSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SSUBSCRIBE",
    "SUNSUBSCRIBE",
    "RESET",
    "PING",
];
const NAMES: [&str; 4] = ["a", "b", "c", "dd"];
const CLIENTS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    let names = prop::collection::vec(0..NAMES.len(), 1..3);
    prop_oneof![
        6 => (0..CLIENTS, 0..VERBS.len(), names).prop_map(|(client, verb, names)| Step::Ask { client, verb, names }),
        1 => (0..CLIENTS).prop_map(|client| Step::Leave { client }),
        12 => (0usize..16).prop_map(|link| Step::Answer { link }),
        1 => (0usize..16).prop_map(|link| Step::Refuse { link }),
        1 => (0usize..16).prop_map(|link| Step::Break { link }),
        2 => Just(Step::Tick),
    ]
}

/// What a client has by the confirmations it was given.
fn note(bytes: &str, has: &mut BTreeSet<(String, String)>) {
    let words: Vec<&str> = bytes.split(' ').collect();
    for (at, word) in words.iter().enumerate() {
        let name = || {
            words
                .get(at + 2)
                .map_or(String::new(), |name| (*name).to_string())
        };
        if *word == "+RESET" {
            has.clear();
        } else if let Some(kind) = word.strip_suffix("unsubscribe") {
            has.remove(&(kind.to_string(), name()));
        } else if let Some(kind) = word.strip_suffix("subscribe") {
            has.insert((kind.to_string(), name()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn in_the_end_every_shard_knows_what_the_clients_have(steps in prop::collection::vec(step(), 1..80)) {
        let mut scene = Scene::new(2);
        let mut clients: Vec<u32> = (0..CLIENTS).map(|_| scene.client()).collect();
        let mut has = vec![BTreeSet::new(); CLIENTS];
        for step in steps {
            let links: Vec<u32> = scene.peers.keys().copied().collect();
            let chosen = |link: usize| links.get(link % links.len().max(1)).copied();
            match step {
                Step::Ask { client, verb, names } => {
                    let mut words = vec![VERBS[verb]];
                    if !["RESET", "PING"].contains(&words[0]) {
                        words.extend(names.iter().map(|&name| NAMES[name]));
                    }
                    scene.ask(clients[client], &words);
                }
                Step::Leave { client } => {
                    scene.engine.client_lost(clients[client]);
                    clients[client] = scene.client();
                    has[client].clear();
                }
                Step::Answer { link } => {
                    chosen(link).map(|link| scene.answer(link));
                }
                Step::Refuse { link } => {
                    let feed = chosen(link).and_then(|id| Some((id, scene.peers.get_mut(&id)?)));
                    if let Some((id, peer)) = feed {
                        if peer.asked.front().is_some_and(|words| words[0].ends_with("SUBSCRIBE")) {
                            peer.asked.pop_front();
                            scene.receive(id, b"-BUSY for a while\r\n");
                        }
                    }
                }
                Step::Break { link } => {
                    if let Some(link) = chosen(link) {
                        scene.engine.link_ended(link);
                    }
                }
                Step::Tick => {
                    scene.now_us += 100_000;
                    scene.engine.set_now(scene.now_us);
                    scene.engine.tick();
                }
            }
            scene.look();
            for (slot, has) in clients.iter().zip(&mut has) {
                note(&scene.given(*slot), has);
            }
        }
        scene.pass(10_000);
        let mut all = BTreeSet::new();
        for (slot, has) in clients.iter().zip(&mut has) {
            note(&scene.given(*slot), has);
            all.extend(has.iter().cloned());
        }
        let feeds = scene.feeds();
        prop_assert!(feeds.len() == 2 || all.is_empty());
        for id in feeds {
            prop_assert_eq!(&scene.peers[&id].names, &all);
        }
    }
}
