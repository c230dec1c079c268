//! A shard that lives in memory: as much of a server as the simulation needs, and a record of what was executed.
//!
//! Must stay true: a write that carries a token is recorded each time that it is executed, so that doing a request twice
//! cannot go unseen; what is answered to a request without effect depends on its arguments alone (`pure_reply`), so that
//! a client knows every byte of it in advance.

use crate::chance::Chance;
use crate::resp;
use shoal_core::session::scripts::sha_of;
use std::collections::{BTreeMap, HashMap};

/// One server process.
#[derive(Debug, Default)]
pub struct ShardServer {
    pub databases: Vec<BTreeMap<Vec<u8>, Vec<u8>>>,
    scripts: HashMap<Vec<u8>, Vec<u8>>,
    /// Token -> how often the write that carries it was executed.
    pub executed: HashMap<Vec<u8>, u32>,
    pub password: Option<String>,
    pub is_up: bool,
    /// RESP3 connections are sent pushes now and then.
    pub pushes: bool,
}

/// One connection, as the server sees it.
#[derive(Debug, Default)]
pub struct Connection {
    pub inbox: Vec<u8>,
    database: usize,
    is_resp3: bool,
    is_known: bool,
    /// What came since MULTI.
    queued: Option<Vec<Vec<Vec<u8>>>>,
    /// Database, key and what it was when it was watched.
    watched: Vec<(usize, Vec<u8>, Option<Vec<u8>>)>,
}

/// 40 hexadecimal digits.
pub fn sha_hex(body: &[u8]) -> Vec<u8> {
    let digits = sha_of(body);
    let text: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    text.into_bytes()
}

/// What servers say to reads that touch nothing: different for every token, of every shape.
pub fn pure_reply(args: &[Vec<u8>], is_resp3: bool) -> Vec<u8> {
    let token = &args[1];
    let size = args.len();
    let many = |count: usize| -> Vec<Vec<u8>> {
        (0..count)
            .map(|index| {
                resp::bulk(&[token, b":".as_slice(), index.to_string().as_bytes()].concat())
            })
            .collect()
    };
    match args[0].as_slice() {
        b"LRANGE" => {
            let count: usize = String::from_utf8_lossy(&args[3]).parse().expect("a count");
            resp::array(&many(count))
        }
        b"HGETALL" => resp::map(&many(6), is_resp3),
        b"SMEMBERS" if is_resp3 => [b"~3\r\n".to_vec(), many(3).concat()].concat(),
        b"SMEMBERS" => resp::array(&many(3)),
        b"XRANGE" => {
            let inner = resp::array(&[resp::bulk(token), resp::array(&many(size))]);
            let nested = resp::array(&[
                inner.clone(),
                b"*0\r\n".to_vec(),
                b"*-1\r\n".to_vec(),
                inner,
            ]);
            if is_resp3 {
                [b"|1\r\n+ttl\r\n:3600\r\n".to_vec(), nested].concat()
            } else {
                nested
            }
        }
        b"LINDEX" => [b"-ERR of ", token.as_slice(), b"\r\n"].concat(),
        b"ZSCORE" if is_resp3 => b",1.5\r\n".to_vec(),
        b"GETRANGE" => {
            let size: usize = String::from_utf8_lossy(&args[3]).parse().expect("a size");
            let mut value = token.clone();
            value.resize(token.len() + size, b'v');
            resp::bulk(&value)
        }
        b"TYPE" => [b"+", token.as_slice(), b"\r\n"].concat(),
        _ => resp::bulk(token),
    }
}

fn is_pure(name: &[u8]) -> bool {
    [
        &b"LRANGE"[..],
        b"HGETALL",
        b"SMEMBERS",
        b"XRANGE",
        b"LINDEX",
        b"ZSCORE",
        b"TYPE",
        b"GETRANGE",
    ]
    .contains(&name)
}

/// Keys in an order that adding and removing others does not change.
fn place(key: &[u8]) -> u64 {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 33) + 1
}

impl ShardServer {
    pub fn new(password: Option<String>, pushes: bool) -> Self {
        Self {
            databases: vec![BTreeMap::new(); 16],
            password,
            pushes,
            is_up: true,
            ..Self::default()
        }
    }

    /// Forgets what a server forgets when it is started again.
    pub fn restart(&mut self) {
        self.scripts.clear();
    }

    /// Executes the next request of a connection; None when there is no whole one.
    pub fn turn(&mut self, connection: &mut Connection, chance: &mut Chance) -> Option<Vec<u8>> {
        let (args, used) = resp::take_request(&connection.inbox)?;
        connection.inbox.drain(..used);
        resp::trace(|| format!("  executed: {}", resp::shown(&resp::request(&args))));
        let mut out = Vec::new();
        if self.pushes && connection.is_resp3 && chance.one_in(4) {
            out.extend_from_slice(b">2\r\n+message\r\n*2\r\n$3\r\nabc\r\n_\r\n");
        }
        out.extend(self.execute(connection, &args));
        Some(out)
    }

    fn execute(&mut self, connection: &mut Connection, args: &[Vec<u8>]) -> Vec<u8> {
        let name = args[0].to_ascii_uppercase();
        if name == b"AUTH" {
            let shown = args.last().map(Vec::as_slice);
            connection.is_known = shown == self.password.as_ref().map(String::as_bytes);
            let words: &[u8] = if connection.is_known {
                b"+OK\r\n"
            } else {
                b"-WRONGPASS\r\n"
            };
            return words.to_vec();
        }
        if self.password.is_some() && !connection.is_known {
            return b"-NOAUTH Authentication required.\r\n".to_vec();
        }
        if let Some(reply) = self.transaction(connection, &name, args) {
            return reply;
        }
        let is_resp3 = connection.is_resp3;
        let database = connection.database;
        match (name.as_slice(), args) {
            (b"HELLO", [_, version]) => {
                connection.is_resp3 = version == b"3";
                resp::map(&[resp::bulk(b"proto"), resp::integer(3)], true)
            }
            (b"SELECT", [_, number]) => {
                connection.database = String::from_utf8_lossy(number).parse().expect("a database");
                b"+OK\r\n".to_vec()
            }
            (b"PING", [_]) => b"+PONG\r\n".to_vec(),
            (b"PUBLISH", _) => resp::integer(0),
            (b"WAIT", _) => resp::integer(0),
            (b"INFO", _) => resp::bulk(b"# Server\r\nredis_version:7.2.99\r\n# Keyspace\r\n"),
            (b"TIME", _) => resp::array(&[resp::bulk(b"1"), resp::bulk(b"2")]),
            (b"SCRIPT" | b"EVAL" | b"EVALSHA", _) => self.script(&name, database, args),
            (b"SCAN" | b"KEYS" | b"DBSIZE", _) => self.keys(&name, database, args),
            (other, _) if is_pure(other) => pure_reply(args, is_resp3),
            _ => self.data(&name, database, is_resp3, args),
        }
    }

    /// What MULTI, WATCH and their like do; None for whatever is executed now.
    fn transaction(
        &mut self,
        connection: &mut Connection,
        name: &[u8],
        args: &[Vec<u8>],
    ) -> Option<Vec<u8>> {
        let ok = || Some(b"+OK\r\n".to_vec());
        match (name, &mut connection.queued) {
            (b"EXEC", queued) => {
                let all = queued.take().expect("EXEC after MULTI");
                let watched = std::mem::take(&mut connection.watched);
                let is_changed = watched
                    .iter()
                    .any(|(database, key, was)| self.databases[*database].get(key) != was.as_ref());
                if is_changed {
                    return Some(if connection.is_resp3 {
                        b"_\r\n".to_vec()
                    } else {
                        b"*-1\r\n".to_vec()
                    });
                }
                let replies: Vec<Vec<u8>> = all
                    .iter()
                    .map(|args| self.execute(connection, args))
                    .collect();
                Some(resp::array(&replies))
            }
            (_, Some(queued)) => {
                queued.push(args.to_vec());
                Some(b"+QUEUED\r\n".to_vec())
            }
            (b"MULTI", none) => {
                *none = Some(Vec::new());
                ok()
            }
            (b"WATCH", None) => {
                for key in &args[1..] {
                    let was = self.databases[connection.database].get(key).cloned();
                    connection
                        .watched
                        .push((connection.database, key.clone(), was));
                }
                ok()
            }
            (b"UNWATCH", None) => {
                connection.watched.clear();
                ok()
            }
            _ => None,
        }
    }

    fn record(&mut self, token: &[u8]) {
        *self.executed.entry(token.to_vec()).or_default() += 1;
    }

    fn increment(&mut self, database: usize, key: &[u8]) -> i64 {
        let value = self.databases[database]
            .entry(key.to_vec())
            .or_insert(b"0".to_vec());
        let number: i64 = String::from_utf8_lossy(value).parse().expect("a counter");
        *value = (number + 1).to_string().into_bytes();
        number + 1
    }

    fn data(&mut self, name: &[u8], database: usize, is_resp3: bool, args: &[Vec<u8>]) -> Vec<u8> {
        let value = |all: &BTreeMap<Vec<u8>, Vec<u8>>, key: &Vec<u8>| {
            resp::bulk_or_null(all.get(key).map(Vec::as_slice), is_resp3)
        };
        match (name, args) {
            (b"GET", [_, key]) => value(&self.databases[database], key),
            (b"MGET", [_, keys @ ..]) => {
                let all: Vec<_> = keys
                    .iter()
                    .map(|key| value(&self.databases[database], key))
                    .collect();
                resp::array(&all)
            }
            (b"SET" | b"MSET", [_, pairs @ ..]) => {
                for pair in pairs.chunks(2) {
                    self.record(&pair[1]);
                    self.databases[database].insert(pair[0].clone(), pair[1].clone());
                }
                b"+OK\r\n".to_vec()
            }
            (b"APPEND", [_, key, more]) => {
                self.record(more);
                let value = self.databases[database].entry(key.clone()).or_default();
                value.extend_from_slice(more);
                resp::integer(value.len() as i64)
            }
            (b"INCR", [_, key]) => resp::integer(self.increment(database, key)),
            (b"DEL" | b"UNLINK", [_, keys @ ..]) => {
                let gone = |key: &&Vec<u8>| self.databases[database].remove(*key).is_some();
                resp::integer(keys.iter().filter(gone).count() as i64)
            }
            (b"EXISTS" | b"TOUCH", [_, keys @ ..]) => {
                let there = |key: &&Vec<u8>| self.databases[database].contains_key(*key);
                resp::integer(keys.iter().filter(there).count() as i64)
            }
            _ => panic!("a shard was sent {}", resp::shown(&resp::request(args))),
        }
    }

    /// A script here is a counter: it says its own name, its token, and how far it has counted.
    fn script(&mut self, name: &[u8], database: usize, args: &[Vec<u8>]) -> Vec<u8> {
        match (name, args) {
            (b"SCRIPT", [_, verb, body]) if verb == b"LOAD" => {
                self.scripts.insert(sha_hex(body), body.clone());
                resp::bulk(&sha_hex(body))
            }
            (b"SCRIPT", [_, verb, names @ ..]) if verb == b"EXISTS" => {
                let known = |name| resp::integer(i64::from(self.scripts.contains_key(name)));
                resp::array(&names.iter().map(known).collect::<Vec<_>>())
            }
            (b"SCRIPT", _) => {
                self.scripts.clear();
                b"+OK\r\n".to_vec()
            }
            (_, [_, script, count, key, token]) if count == b"1" => {
                let sha = if name == b"EVAL" {
                    self.scripts.insert(sha_hex(script), script.clone());
                    sha_hex(script)
                } else if self.scripts.contains_key(script) {
                    script.clone()
                } else {
                    return b"-NOSCRIPT No matching script. Please use EVAL.\r\n".to_vec();
                };
                self.record(token);
                let number = self.increment(database, key);
                resp::array(&[resp::bulk(&sha), resp::bulk(token), resp::integer(number)])
            }
            _ => panic!("a shard was sent {}", resp::shown(&resp::request(args))),
        }
    }

    fn keys(&self, name: &[u8], database: usize, args: &[Vec<u8>]) -> Vec<u8> {
        let all = &self.databases[database];
        let matching = |pattern: &[u8]| -> Vec<&Vec<u8>> {
            let prefix = pattern.strip_suffix(b"*").expect("a prefix");
            all.keys().filter(|key| key.starts_with(prefix)).collect()
        };
        match (name, args) {
            (b"DBSIZE", _) => resp::integer(all.len() as i64),
            (b"KEYS", [_, pattern]) => resp::array(
                &matching(pattern)
                    .into_iter()
                    .map(|key| resp::bulk(key))
                    .collect::<Vec<_>>(),
            ),
            (b"SCAN", [_, cursor, _, pattern, _, count]) => {
                let from: u64 = String::from_utf8_lossy(cursor).parse().expect("a cursor");
                let count: usize = String::from_utf8_lossy(count).parse().expect("a count");
                let mut left: Vec<&Vec<u8>> = all.keys().filter(|key| place(key) >= from).collect();
                left.sort_by_key(|key| place(key));
                let next = left.get(count).map_or(0, |key| place(key));
                // Keys that share a place are given together, or one of them would be passed over.
                left.retain(|key| next == 0 || place(key) < next);
                let wanted = matching(pattern);
                let found: Vec<_> = left
                    .iter()
                    .filter(|key| wanted.contains(key))
                    .map(|key| resp::bulk(key))
                    .collect();
                resp::array(&[resp::bulk(next.to_string().as_bytes()), resp::array(&found)])
            }
            _ => panic!("a shard was sent {}", resp::shown(&resp::request(args))),
        }
    }
}
