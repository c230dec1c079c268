//! A simulated client: what it asks, what it has been told, whether that is what it had to be told.
//!
//! Owns: the making of requests (with the session state that they depend on: database, protocol, reply mode,
//! authentication), the queue of those without a reply, and the comparison of each reply with its request.
//!
//! Flow: `ask` appends bytes to `to_send` and an `Asked` to the queue -> the world carries bytes to the engine and back ->
//! `receive` cuts replies and judges each against the head of the queue.

use crate::chance::Chance;
use crate::model::{Kind, Model};
use crate::resp;
use crate::shard::{pure_reply, sha_hex};
use std::collections::VecDeque;

/// A request without a reply.
#[derive(Debug, Clone)]
pub struct Asked {
    pub kind: Kind,
    pub database: u8,
    pub is_muted: bool,
    pub asked_us: u64,
    /// Shards, numbered within the keyspace, that it needs.
    pub shards: Vec<u16>,
    /// It names a script by its SHA-1 alone.
    pub is_named: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplyMode {
    On,
    Off,
    SkipNext,
}

/// What clients of a world may do.
#[derive(Debug, Clone, Default)]
pub struct Habits {
    pub shards: u16,
    pub password: Option<String>,
    /// Bytes of a large value; 0: none are written.
    pub large_bytes: usize,
    /// Bytes of a large reply to a request that changes nothing; 0: there are none.
    pub large_reply_bytes: usize,
    /// Requests without a reply at which it stops asking.
    pub asked_max: usize,
    /// Some pipelines are longer than what may be in flight.
    pub bursts: bool,
    /// CLIENT REPLY, protocol errors, QUIT in the middle.
    pub oddities: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub struct SimulatedClient {
    pub number: usize,
    pub engine: usize,
    /// Its place in the engine while it is connected.
    pub slot: Option<u32>,
    pub to_send: VecDeque<u8>,
    pub asked: VecDeque<Asked>,
    pub received: Vec<u8>,
    pub model: Model,
    /// Acknowledged writes.
    pub acknowledged: Vec<Vec<u8>>,
    /// It will send nothing more.
    pub is_done: bool,
    /// It has closed its sending side; whether the engine has read that.
    pub has_ended: bool,
    pub is_end_seen: bool,
    /// Its connection is broken; the engine has not noticed yet.
    pub is_gone: bool,
    /// It takes no bytes at the moment.
    pub is_slow: bool,
    pub scan: Option<Scanning>,
    database: u8,
    is_resp3: bool,
    mode: ReplyMode,
    is_known: bool,
    tokens: usize,
    scripts: usize,
}

/// One walk over all keys.
#[derive(Debug, Default)]
pub struct Scanning {
    /// What existed when it began; known once everything asked before has been answered.
    before: Option<Vec<Vec<u8>>>,
    seen: Vec<Vec<u8>>,
}

/// What the world knows of the time since a request was asked.
pub struct Facts<'a> {
    /// Something was wrong with this shard.
    pub trouble: &'a dyn Fn(&Asked, u16) -> bool,
    /// Something was wrong with some shard at some time.
    pub any_trouble: bool,
}

/// What is needed of the world: the shard of a key.
pub type Placement<'a> = &'a dyn Fn(&[u8]) -> u16;

impl SimulatedClient {
    pub fn new(number: usize, engine: usize, slot: u32, habits: &Habits) -> Self {
        Self {
            number,
            engine,
            slot: Some(slot),
            to_send: VecDeque::new(),
            asked: VecDeque::new(),
            received: Vec::new(),
            model: Model::default(),
            acknowledged: Vec::new(),
            is_done: false,
            has_ended: false,
            is_end_seen: false,
            is_gone: false,
            is_slow: false,
            scan: None,
            database: 0,
            is_resp3: false,
            mode: ReplyMode::On,
            is_known: habits.password.is_none(),
            tokens: 0,
            scripts: 0,
        }
    }

    pub fn token(&mut self) -> Vec<u8> {
        self.tokens += 1;
        format!("t{}-{}-", self.number, self.tokens).into_bytes()
    }

    pub fn value(&mut self, habits: &Habits, chance: &mut Chance) -> Vec<u8> {
        let mut value = self.token();
        if habits.large_bytes > 0 && chance.one_in(3) {
            value.resize(
                chance.between(habits.large_bytes / 4, habits.large_bytes),
                b'v',
            );
        }
        value
    }

    pub fn key(&self, chance: &mut Chance) -> Vec<u8> {
        let tag = chance.pick(&["", "{a}", "{b}"]);
        format!("k{}:{}{tag}", self.number, chance.below(5)).into_bytes()
    }

    fn counter(&self, chance: &mut Chance) -> Vec<u8> {
        format!("n{}:{}", self.number, chance.below(3)).into_bytes()
    }

    pub fn push(&mut self, bytes: &[u8], kind: Kind, shards: Vec<u16>, now_us: u64) {
        let is_muted = match (&kind, self.mode) {
            (Kind::Silent, _) => true,
            (_, ReplyMode::On) => false,
            (_, ReplyMode::Off) => true,
            (_, ReplyMode::SkipNext) => {
                self.mode = ReplyMode::On;
                true
            }
        };
        self.to_send.extend(bytes);
        self.asked.push_back(Asked {
            kind,
            database: self.database,
            is_muted,
            asked_us: now_us,
            shards,
            is_named: false,
        });
    }

    /// Asks one more thing.
    pub fn ask(
        &mut self,
        habits: &Habits,
        chance: &mut Chance,
        placement: Placement<'_>,
        now_us: u64,
    ) {
        if !self.is_known {
            return self.authenticate(habits, chance, now_us);
        }
        if self.scan.is_some() {
            return self.ask_pure(habits, chance, placement, now_us);
        }
        match chance.below(if habits.oddities { 29 } else { 24 }) {
            0..=12 => self.ask_data(habits, chance, placement, now_us),
            13..=15 => self.ask_pure(habits, chance, placement, now_us),
            16 => self.ask_session(chance, now_us),
            17..=18 => self.ask_script(chance, placement, now_us),
            19 => self.ask_everywhere(habits, chance, now_us),
            20 => self.ask_local(chance, now_us),
            21 => self.ask_wrong(chance, now_us),
            22..=23 => self.ask_transaction(habits, chance, placement, now_us),
            _ => self.ask_oddity(chance, now_us),
        }
    }

    /// Whether it has shown its password.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    fn authenticate(&mut self, habits: &Habits, chance: &mut Chance, now_us: u64) {
        let password = habits.password.clone().unwrap_or_default();
        if chance.one_in(3) {
            let bytes = resp::request(&["GET", "x"]);
            let kind = Kind::Exact(b"-NOAUTH Authentication required.\r\n".to_vec());
            return self.push(&bytes, kind, Vec::new(), now_us);
        }
        self.is_known = true;
        if chance.one_in(2) {
            self.is_resp3 = true;
            let bytes = resp::request(&["HELLO", "3", "AUTH", "default", &password]);
            self.push(&bytes, Kind::Prefix(b"%7\r\n".to_vec()), Vec::new(), now_us);
        } else {
            let bytes = resp::request(&["AUTH", &password]);
            self.push(&bytes, Kind::Exact(b"+OK\r\n".to_vec()), Vec::new(), now_us);
        }
    }

    fn ask_data(
        &mut self,
        habits: &Habits,
        chance: &mut Chance,
        placement: Placement<'_>,
        now_us: u64,
    ) {
        let key = self.key(chance);
        let keys: Vec<Vec<u8>> = (0..chance.between(1, 6))
            .map(|_| self.key(chance))
            .collect();
        let (args, kind): (Vec<Vec<u8>>, Kind) = match chance.below(9) {
            0 | 1 => {
                let value = self.value(habits, chance);
                let pair = (key.clone(), value.clone());
                (
                    vec![b"SET".to_vec(), key.clone(), value],
                    Kind::Set(vec![pair]),
                )
            }
            2 | 3 => (vec![b"get".to_vec(), key.clone()], Kind::Get(key.clone())),
            4 => {
                let more = self.token();
                (
                    vec![b"APPEND".to_vec(), key.clone(), more.clone()],
                    Kind::Append(key.clone(), more),
                )
            }
            5 => {
                let counter = self.counter(chance);
                (
                    vec![b"INCR".to_vec(), counter.clone()],
                    Kind::Increment(counter),
                )
            }
            6 => (
                [vec![b"MGET".to_vec()], keys.clone()].concat(),
                Kind::Mget(keys.clone()),
            ),
            7 => {
                let pairs: Vec<_> = keys
                    .iter()
                    .map(|key| (key.clone(), self.value(habits, chance)))
                    .collect();
                let flat = pairs
                    .iter()
                    .flat_map(|(key, value)| [key.clone(), value.clone()]);
                (
                    [b"MSET".to_vec()].into_iter().chain(flat).collect(),
                    Kind::Set(pairs),
                )
            }
            _ => {
                let name = *chance.pick(&["DEL", "UNLINK", "EXISTS", "TOUCH"]);
                let deletes = matches!(name, "DEL" | "UNLINK");
                (
                    [vec![name.into()], keys.clone()].concat(),
                    Kind::Count(keys.clone(), deletes),
                )
            }
        };
        let mut shards: Vec<u16> = match &kind {
            Kind::Mget(keys) | Kind::Count(keys, _) => {
                keys.iter().map(|key| placement(key)).collect()
            }
            Kind::Set(pairs) => pairs.iter().map(|(key, _)| placement(key)).collect(),
            _ => vec![placement(&args[1])],
        };
        shards.sort_unstable();
        shards.dedup();
        self.push(&resp::request(&args), kind, shards, now_us);
    }

    fn ask_pure(
        &mut self,
        habits: &Habits,
        chance: &mut Chance,
        placement: Placement<'_>,
        now_us: u64,
    ) {
        let name = *chance.pick(&[
            "LRANGE", "HGETALL", "SMEMBERS", "XRANGE", "LINDEX", "ZSCORE", "TYPE", "GETRANGE",
        ]);
        let token = self.token();
        let is_large = habits.large_reply_bytes > 0 && !chance.one_in(4);
        let name = if is_large { "GETRANGE" } else { name };
        let count = chance.below(if is_large {
            habits.large_reply_bytes
        } else {
            5
        });
        let count = count.to_string().into_bytes();
        let mut args: Vec<Vec<u8>> = vec![name.into(), token.clone()];
        match name {
            "LRANGE" | "XRANGE" | "GETRANGE" => args.extend([b"0".to_vec(), count]),
            "LINDEX" | "ZSCORE" => args.push(b"0".to_vec()),
            _ => {}
        }
        let kind = Kind::Exact(pure_reply(&args, self.is_resp3));
        let words: Vec<String> = args
            .iter()
            .map(|arg| String::from_utf8_lossy(arg).into_owned())
            .collect();
        let bytes = if chance.one_in(8) {
            [words.join(" "), chance.pick(&["\n", "\r\n"]).to_string()]
                .concat()
                .into_bytes()
        } else {
            resp::request(&args)
        };
        self.push(&bytes, kind, vec![placement(&token)], now_us);
    }

    /// What changes how later requests are understood.
    fn ask_session(&mut self, chance: &mut Chance, now_us: u64) {
        match chance.below(4) {
            0 => {
                let resp3 = chance.one_in(2);
                let bytes = resp::request(&["HELLO", if resp3 { "3" } else { "2" }]);
                self.is_resp3 = resp3;
                let prefix: &[u8] = if resp3 { b"%7\r\n" } else { b"*14\r\n" };
                self.push(&bytes, Kind::Prefix(prefix.to_vec()), Vec::new(), now_us);
            }
            1 => {
                let bytes = resp::request(&["SELECT", "16"]);
                let words = b"-ERR DB index is out of range (shoal has databases 0 to 15)\r\n";
                self.push(&bytes, Kind::Exact(words.to_vec()), Vec::new(), now_us);
            }
            _ => {
                let database = chance.below(3) as u8;
                let bytes = resp::request(&["SELECT".to_string(), database.to_string()]);
                self.push(&bytes, Kind::Exact(b"+OK\r\n".to_vec()), Vec::new(), now_us);
                self.database = database;
            }
        }
    }

    fn ask_script(&mut self, chance: &mut Chance, placement: Placement<'_>, now_us: u64) {
        // The first use shows the script's text; from then on its name will do, on every shard.
        let is_new = self.scripts == 0 || chance.one_in(4);
        if is_new && self.scripts < 3 {
            self.scripts += 1;
        }
        let body = format!("script {} of {}", chance.below(self.scripts), self.number).into_bytes();
        let body = if is_new {
            format!("script {} of {}", self.scripts - 1, self.number).into_bytes()
        } else {
            body
        };
        let (key, token) = (self.counter(chance), self.token());
        let sha = sha_hex(&body);
        let script = if is_new {
            ("EVAL", body)
        } else {
            ("EVALSHA", sha.clone())
        };
        let args: [&[u8]; 5] = [script.0.as_bytes(), &script.1, b"1", &key, &token];
        let shard = placement(&key);
        self.push(
            &resp::request(&args),
            Kind::Script(sha, key, token),
            vec![shard],
            now_us,
        );
        if let Some(asked) = self.asked.back_mut() {
            asked.is_named = !is_new;
        }
    }

    /// Over all shards.
    fn ask_everywhere(&mut self, habits: &Habits, chance: &mut Chance, now_us: u64) {
        let own = format!("k{}:", self.number);
        let pattern = format!("{own}*");
        let all = || (0..habits.shards).collect::<Vec<u16>>();
        match chance.below(6) {
            0 => self.push(
                &resp::request(&["KEYS", &pattern]),
                Kind::Keys(own.into()),
                all(),
                now_us,
            ),
            1 => self.push(
                &resp::request(&["DBSIZE"]),
                Kind::Prefix(b":".to_vec()),
                all(),
                now_us,
            ),
            2 => {
                let prefix = if self.is_resp3 { b"=" } else { b"$" };
                self.push(
                    &resp::request(&["INFO"]),
                    Kind::Prefix(prefix.to_vec()),
                    all(),
                    now_us,
                );
            }
            3 => self.push(
                &resp::request(&["WAIT", "0", "0"]),
                Kind::Exact(b":0\r\n".to_vec()),
                all(),
                now_us,
            ),
            4 => self.push(
                &resp::request(&["TIME"]),
                Kind::Prefix(b"*2\r\n".to_vec()),
                all(),
                now_us,
            ),
            _ if self.mode == ReplyMode::On => {
                self.scan = Some(Scanning::default());
                self.ask_scan(b"0", habits, now_us);
            }
            _ => {}
        }
    }

    fn ask_scan(&mut self, cursor: &[u8], habits: &Habits, now_us: u64) {
        let pattern = format!("k{}:*", self.number);
        let args: [&[u8]; 6] = [
            b"SCAN",
            cursor,
            b"MATCH",
            pattern.as_bytes(),
            b"COUNT",
            b"3",
        ];
        self.push(
            &resp::request(&args),
            Kind::Scan,
            (0..habits.shards).collect(),
            now_us,
        );
    }

    /// What shoal answers by itself.
    fn ask_local(&mut self, chance: &mut Chance, now_us: u64) {
        let token = String::from_utf8_lossy(&self.token()).into_owned();
        let (args, kind): (Vec<&str>, Kind) = match chance.below(5) {
            0 => (vec!["PING"], Kind::Exact(b"+PONG\r\n".to_vec())),
            1 => (
                vec!["PING", &token],
                Kind::Exact(resp::bulk(token.as_bytes())),
            ),
            2 => (
                vec!["ECHO", &token],
                Kind::Exact(resp::bulk(token.as_bytes())),
            ),
            3 => (vec!["CLIENT", "ID"], Kind::Prefix(b":".to_vec())),
            _ => {
                let prefix: &[u8] = if self.is_resp3 { b"=" } else { b"$" };
                (vec!["CLIENT", "LIST"], Kind::Prefix(prefix.to_vec()))
            }
        };
        self.push(&resp::request(&args), kind, Vec::new(), now_us);
    }

    fn ask_wrong(&mut self, chance: &mut Chance, now_us: u64) {
        let cases: [(&[&str], &str); 4] = [
            (&["NOSUCH", "a"], "-ERR unknown command 'NOSUCH'"),
            (&["GET"], "-ERR wrong number of arguments for 'get' command"),
            (
                &["MSET", "a", "1", "b"],
                "-ERR wrong number of arguments for 'mset' command",
            ),
            (&["SCAN", "x"], "-ERR invalid cursor"),
        ];
        let (args, words) = chance.pick(&cases);
        self.push(
            &resp::request(args),
            Kind::Prefix(words.as_bytes().to_vec()),
            Vec::new(),
            now_us,
        );
    }

    fn ask_oddity(&mut self, chance: &mut Chance, now_us: u64) {
        match chance.below(12) {
            0..=2 => {
                self.push(
                    &resp::request(&["CLIENT", "REPLY", "OFF"]),
                    Kind::Silent,
                    Vec::new(),
                    now_us,
                );
                self.mode = ReplyMode::Off;
            }
            3..=6 => self.unmute(now_us),
            7..=9 => {
                let was = self.mode;
                self.push(
                    &resp::request(&["CLIENT", "REPLY", "SKIP"]),
                    Kind::Silent,
                    Vec::new(),
                    now_us,
                );
                self.mode = if was == ReplyMode::Off {
                    was
                } else {
                    ReplyMode::SkipNext
                };
            }
            10 => self.leave(chance, now_us),
            _ => {
                self.mode = ReplyMode::On;
                let (bytes, words): (&[u8], &str) = *chance.pick(&[
                    (&b"*1\r\n:1\r\n"[..], "expected '$', got ':'"),
                    (b"*x\r\n", "invalid multibulk length"),
                    (b"*1\r\n$-1\r\n", "invalid bulk length"),
                    (b"get \"a\r\n", "unbalanced quotes in request"),
                ]);
                let words = format!("-ERR Protocol error: {words}\r\n").into_bytes();
                self.push(bytes, Kind::Last(words), Vec::new(), now_us);
                self.is_done = true;
            }
        }
    }

    /// Replies are given again.
    pub fn unmute(&mut self, now_us: u64) {
        assert!(self.is_known);
        self.mode = ReplyMode::On;
        let bytes = resp::request(&["CLIENT", "REPLY", "ON"]);
        self.push(&bytes, Kind::Exact(b"+OK\r\n".to_vec()), Vec::new(), now_us);
    }

    /// QUIT: the last request.
    pub fn leave(&mut self, chance: &mut Chance, now_us: u64) {
        let bytes = resp::request(&["QUIT"]);
        self.push(&bytes, Kind::Last(b"+OK\r\n".to_vec()), Vec::new(), now_us);
        // What comes behind it is nobody's request.
        if chance.one_in(2) {
            self.to_send.extend(resp::request(&["PING"]));
        }
        self.is_done = true;
    }

    /// Takes bytes from the proxy, and judges every whole reply among them.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        habits: &Habits,
        facts: &Facts<'_>,
        now_us: u64,
    ) -> Result<(), String> {
        self.received.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(end) = resp::element_end(&self.received, at) {
            let reply = self.received[at..end].to_vec();
            at = end;
            self.judge(&reply, habits, facts, now_us)?;
        }
        self.received.drain(..at);
        Ok(())
    }

    fn judge(
        &mut self,
        reply: &[u8],
        habits: &Habits,
        facts: &Facts<'_>,
        now_us: u64,
    ) -> Result<(), String> {
        self.pass_muted(facts)?;
        resp::trace(|| {
            let head = self.asked.front();
            format!(
                "{now_us} client {}: {head:?} gets {}",
                self.number,
                resp::shown(reply)
            )
        });
        let Some(asked) = self.asked.pop_front() else {
            return Err(format!(
                "a reply that nobody waits for: {}",
                resp::shown(reply)
            ));
        };
        let is_expected = match &asked.kind {
            Kind::Exact(expected) | Kind::Prefix(expected) | Kind::Last(expected) => {
                reply.starts_with(expected)
            }
            _ => false,
        };
        let is_nil = matches!(reply, b"*-1\r\n" | b"_\r\n");
        if is_nil && matches!(asked.kind, Kind::Exec(_, true)) {
            // Nobody else writes its keys: only a lost connection breaks the watch. Nothing was executed.
            let mut shards = asked.shards.iter();
            let is_explained = shards.any(|&shard| (facts.trouble)(&asked, shard));
            return if is_explained {
                Ok(())
            } else {
                Err(format!("{asked:?}: the watch was broken"))
            };
        }
        if reply[0] == b'-' && !is_expected {
            return self.failed(&asked, reply, facts);
        }
        self.model.done(&asked.kind, asked.database, Some(reply))?;
        match asked.kind {
            Kind::Set(pairs) => self
                .acknowledged
                .extend(pairs.into_iter().map(|(_, value)| value)),
            Kind::Append(_, token) | Kind::Script(_, _, token) => self.acknowledged.push(token),
            Kind::Scan => self.scanned(asked.database, reply, habits, now_us)?,
            Kind::Exec(kinds, _) => self.acknowledged.extend(kinds.into_iter().flat_map(tokens)),
            _ => {}
        }
        Ok(())
    }

    /// Requests at the head of the queue that get no reply: everything before the next reply has been done.
    pub fn pass_muted(&mut self, facts: &Facts<'_>) -> Result<(), String> {
        while self.asked.front().is_some_and(|asked| asked.is_muted) {
            let Some(asked) = self.asked.pop_front() else {
                break;
            };
            resp::trace(|| format!("client {} passes {asked:?}", self.number));
            let may_lack_script = asked.is_named && facts.any_trouble;
            if may_lack_script
                || asked
                    .shards
                    .iter()
                    .any(|&shard| (facts.trouble)(&asked, shard))
            {
                self.model.maybe_done(&asked.kind, asked.database);
            } else {
                self.model.done(&asked.kind, asked.database, None)?;
            }
        }
        Ok(())
    }

    /// An error that has to be explained by something that happened.
    fn failed(&mut self, asked: &Asked, reply: &[u8], facts: &Facts<'_>) -> Result<(), String> {
        if matches!(asked.kind, Kind::Scan) {
            self.scan = None;
        }
        let text = String::from_utf8_lossy(reply).into_owned();
        let unexplained = || Err(format!("{asked:?} was answered {text:?}"));
        if text.starts_with("-NOSCRIPT") {
            return if asked.is_named && facts.any_trouble {
                Ok(())
            } else {
                unexplained()
            };
        }
        let was_sent = text.starts_with("-ERR connection to shard 's");
        let rest = text
            .strip_prefix("-ERR connection to shard 's")
            .or_else(|| text.strip_prefix("-ERR shard 's"));
        let shard = rest
            .and_then(|rest| rest.split('\'').next())
            .and_then(|number| number.parse::<u16>().ok());
        let Some(shard) = shard.filter(|shard| asked.shards.contains(shard)) else {
            return unexplained();
        };
        if !(facts.trouble)(asked, shard) {
            return unexplained();
        }
        // "The request was not sent" must be true, where it is the whole request.
        if was_sent || asked.shards.len() > 1 {
            self.model.maybe_done(&asked.kind, asked.database);
        }
        Ok(())
    }

    /// One step of a walk over all keys has been answered.
    fn scanned(
        &mut self,
        database: u8,
        reply: &[u8],
        habits: &Habits,
        now_us: u64,
    ) -> Result<(), String> {
        let parts = resp::elements(reply).ok_or("SCAN was answered with something else")?;
        let [cursor, keys] = parts[..] else {
            return Err("SCAN was answered with another number of elements".into());
        };
        let cursor = resp::bulk_value(cursor).flatten().ok_or("no cursor")?;
        let keys = resp::elements(keys).ok_or("no keys")?;
        let own = format!("k{}:", self.number);
        let Some(scan) = &mut self.scan else {
            return Err("nobody scans".into());
        };
        let existing = || self.model.existing(database, own.as_bytes()).0;
        let before = scan.before.get_or_insert_with(existing);
        scan.seen.extend(
            keys.into_iter()
                .filter_map(|key| resp::bulk_value(key).flatten()),
        );
        if cursor != b"0" {
            if self.has_ended || self.is_gone {
                self.scan = None;
            } else {
                self.ask_scan(&cursor, habits, now_us);
            }
            return Ok(());
        }
        let missing = before.iter().find(|key| !scan.seen.contains(key)).cloned();
        self.scan = None;
        missing.map_or(Ok(()), |key| {
            Err(format!("SCAN passed over {}", resp::shown(&key)))
        })
    }
}

/// What a write carries.
fn tokens(kind: Kind) -> Vec<Vec<u8>> {
    match kind {
        Kind::Set(pairs) => pairs.into_iter().map(|(_, value)| value).collect(),
        Kind::Append(_, token) => vec![token],
        _ => Vec::new(),
    }
}
