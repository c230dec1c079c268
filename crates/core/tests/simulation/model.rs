//! What a client knows of its own keys, and what it may therefore be told.
//!
//! Only this client writes its keys, so it knows their values, or, after a write whose fate is unknown, a few values
//! that are possible. A reply must fit one of them, and afterwards only those that fit are left. A write done twice, lost,
//! or taken for another one leaves nothing that fits.

use crate::resp;
use std::collections::HashMap;

type Value = Option<Vec<u8>>;

/// A request, as far as its reply and its effect are concerned.
#[derive(Debug, Clone)]
pub enum Kind {
    /// The reply is known to the last byte.
    Exact(Vec<u8>),
    /// Its beginning is.
    Prefix(Vec<u8>),
    /// Nothing is replied, whatever happens (CLIENT REPLY OFF).
    Silent,
    Get(Vec<u8>),
    Mget(Vec<Vec<u8>>),
    /// Keys, and their new values.
    Set(Vec<(Vec<u8>, Vec<u8>)>),
    Append(Vec<u8>, Vec<u8>),
    Increment(Vec<u8>),
    /// How many of these exist; they do not afterwards, if so.
    Count(Vec<Vec<u8>>, bool),
    /// The script's SHA-1, its counter, its token.
    Script(Vec<u8>, Vec<u8>, Vec<u8>),
    /// EXEC of these; whether keys were watched.
    Exec(Vec<Kind>, bool),
    /// All keys with this prefix.
    Keys(Vec<u8>),
    Scan,
    /// The reply says goodbye; the connection is closed after it.
    Last(Vec<u8>),
}

/// See the head of this file. Keys are those of one database.
#[derive(Debug, Clone, Default)]
pub struct Model {
    values: HashMap<(u8, Vec<u8>), Vec<Value>>,
}

/// Counts are compared one by one with all possible values up to so many.
const COMBINATIONS_MAX: usize = 256;

impl Model {
    /// Every value that the key may have.
    pub fn possible(&self, database: u8, key: &[u8]) -> Vec<Value> {
        let known = self.values.get(&(database, key.to_vec()));
        known.cloned().unwrap_or_else(|| vec![None])
    }

    fn settle(&mut self, database: u8, key: &[u8], mut values: Vec<Value>) {
        values.sort();
        values.dedup();
        assert!(!values.is_empty(), "no value fits");
        self.values.insert((database, key.to_vec()), values);
    }

    /// Keys that surely exist, and keys that may.
    pub fn existing(&self, database: u8, prefix: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let of = |(space, key): &(u8, Vec<u8>)| *space == database && key.starts_with(prefix);
        let some = |test: fn(&[Value]) -> bool| -> Vec<Vec<u8>> {
            let fits = self
                .values
                .iter()
                .filter(|(key, values)| of(key) && test(values));
            fits.map(|((_, key), _)| key.clone()).collect()
        };
        (
            some(|values| values.iter().all(Option::is_some)),
            some(|values| values.iter().any(Option::is_some)),
        )
    }

    /// Every key that was ever written.
    pub fn keys(&self) -> impl Iterator<Item = &(u8, Vec<u8>)> {
        self.values.keys()
    }

    /// The effect of a request that was executed; `told` is the reply, if there was one.
    pub fn done(&mut self, kind: &Kind, database: u8, told: Option<&[u8]>) -> Result<(), String> {
        let misfit = || {
            Err(format!(
                "{kind:?} was answered {}",
                told.map_or_else(String::new, resp::shown)
            ))
        };
        let is = |fits: bool| if fits { Ok(()) } else { misfit() };
        match kind {
            Kind::Exact(expected) | Kind::Last(expected) => {
                is(told.is_none_or(|reply| reply == expected))
            }
            Kind::Prefix(expected) => is(told.is_none_or(|reply| reply.starts_with(expected))),
            Kind::Silent => is(told.is_none()),
            Kind::Scan => Ok(()),
            Kind::Get(key) => match told.map(resp::bulk_value) {
                None => Ok(()),
                Some(Some(value)) => self.told_value(database, key, value).or_else(|()| misfit()),
                Some(None) => misfit(),
            },
            Kind::Mget(keys) => {
                let Some(reply) = told else { return Ok(()) };
                let values: Option<Vec<Value>> = resp::elements(reply)
                    .and_then(|all| all.into_iter().map(resp::bulk_value).collect());
                let Some(values) = values.filter(|values| values.len() == keys.len()) else {
                    return misfit();
                };
                let mut fits = keys.iter().zip(values);
                is(fits.all(|(key, value)| self.told_value(database, key, value).is_ok()))
            }
            Kind::Set(pairs) => {
                for (key, value) in pairs {
                    self.settle(database, key, vec![Some(value.clone())]);
                }
                is(told.is_none_or(|reply| reply == b"+OK\r\n"))
            }
            Kind::Append(key, more) => {
                let grown: Vec<Value> = appended(&self.possible(database, key), more);
                let length = told.map(|reply| resp::integer_value(reply).unwrap_or(-1));
                let fits = |value: &Value| {
                    let len = value.as_ref().map_or(0, Vec::len) as i64;
                    length.is_none_or(|length| length == len)
                };
                self.keep(database, key, grown, fits).or_else(|()| misfit())
            }
            Kind::Increment(key) => {
                let number = told.map(|reply| resp::integer_value(reply).unwrap_or(-1));
                self.counted(database, key, number).or_else(|()| misfit())
            }
            Kind::Script(sha, key, token) => {
                let Some(reply) = told else {
                    return self.counted(database, key, None).or_else(|()| misfit());
                };
                match resp::elements(reply).as_deref() {
                    Some([name, echo, number])
                        if *name == resp::bulk(sha) && *echo == resp::bulk(token) =>
                    {
                        let number = resp::integer_value(number);
                        self.counted(database, key, number).or_else(|()| misfit())
                    }
                    _ => misfit(),
                }
            }
            Kind::Count(keys, deletes) => {
                let count = told.map(|reply| resp::integer_value(reply).unwrap_or(-1));
                let possible = self.counts(database, keys, *deletes);
                if *deletes {
                    keys.iter()
                        .for_each(|key| self.settle(database, key, vec![None]));
                }
                is(count.is_none_or(|count| possible.is_none_or(|counts| counts.contains(&count))))
            }
            Kind::Exec(kinds, _) => {
                let Some(reply) = told else {
                    return kinds
                        .iter()
                        .try_for_each(|kind| self.done(kind, database, None));
                };
                let Some(parts) = resp::elements(reply).filter(|all| all.len() == kinds.len())
                else {
                    return misfit();
                };
                let mut all = kinds.iter().zip(parts);
                all.try_for_each(|(kind, part)| self.done(kind, database, Some(part)))
            }
            Kind::Keys(prefix) => {
                let Some(reply) = told else { return Ok(()) };
                let (surely, maybe) = self.existing(database, prefix);
                let found: Option<Vec<Vec<u8>>> = resp::elements(reply).and_then(|all| {
                    all.into_iter()
                        .map(|key| resp::bulk_value(key).flatten())
                        .collect()
                });
                let Some(found) = found else { return misfit() };
                let all_there = surely.iter().all(|key| found.contains(key));
                is(all_there && found.iter().all(|key| maybe.contains(key)) && !has_double(&found))
            }
        }
    }

    /// The effect of a request that was perhaps executed, wholly or in part.
    pub fn maybe_done(&mut self, kind: &Kind, database: u8) {
        let mut or = |key: &Vec<u8>, more: Vec<Value>| {
            let all = [self.possible(database, key), more].concat();
            self.settle(database, key, all);
        };
        match kind {
            Kind::Set(pairs) => pairs
                .iter()
                .for_each(|(key, value)| or(key, vec![Some(value.clone())])),
            Kind::Count(keys, true) => keys.iter().for_each(|key| or(key, vec![None])),
            Kind::Append(key, more) => {
                let grown = appended(&self.possible(database, key), more);
                let all = [self.possible(database, key), grown].concat();
                self.settle(database, key, all);
            }
            Kind::Increment(key) | Kind::Script(_, key, _) => {
                let grown = incremented(&self.possible(database, key));
                let all = [self.possible(database, key), grown].concat();
                self.settle(database, key, all);
            }
            Kind::Exec(kinds, _) => {
                kinds
                    .iter()
                    .for_each(|kind| self.maybe_done(kind, database));
            }
            Kind::Exact(_)
            | Kind::Prefix(_)
            | Kind::Silent
            | Kind::Get(_)
            | Kind::Mget(_)
            | Kind::Count(_, false)
            | Kind::Keys(_)
            | Kind::Scan
            | Kind::Last(_) => {}
        }
    }

    fn told_value(&mut self, database: u8, key: &[u8], told: Value) -> Result<(), ()> {
        if !self.possible(database, key).contains(&told) {
            return Err(());
        }
        self.settle(database, key, vec![told]);
        Ok(())
    }

    fn keep(
        &mut self,
        database: u8,
        key: &[u8],
        values: Vec<Value>,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<(), ()> {
        let left: Vec<Value> = values.into_iter().filter(|value| fits(value)).collect();
        if left.is_empty() {
            return Err(());
        }
        self.settle(database, key, left);
        Ok(())
    }

    fn counted(&mut self, database: u8, key: &[u8], number: Option<i64>) -> Result<(), ()> {
        let grown = incremented(&self.possible(database, key));
        let text = number.map(|number| number.to_string().into_bytes());
        self.keep(database, key, grown, |value| {
            text.is_none() || *value == text
        })
    }

    /// Every count that is possible; None when there are too many.
    fn counts(&self, database: u8, keys: &[Vec<u8>], deletes: bool) -> Option<Vec<i64>> {
        let mut names: Vec<&Vec<u8>> = keys.iter().collect();
        names.sort();
        names.dedup();
        let mut sums = vec![0i64];
        for name in names {
            let times = if deletes {
                1
            } else {
                keys.iter().filter(|key| *key == name).count() as i64
            };
            let possible = self.possible(database, name);
            let mut more = Vec::new();
            for sum in &sums {
                more.extend(
                    possible
                        .iter()
                        .map(|value| sum + if value.is_some() { times } else { 0 }),
                );
            }
            more.sort_unstable();
            more.dedup();
            sums = more;
            if sums.len() > COMBINATIONS_MAX {
                return None;
            }
        }
        Some(sums)
    }
}

fn appended(values: &[Value], more: &[u8]) -> Vec<Value> {
    let grow = |value: &Value| Some([value.as_deref().unwrap_or_default(), more].concat());
    values.iter().map(grow).collect()
}

fn incremented(values: &[Value]) -> Vec<Value> {
    let next = |value: &Value| {
        let text = String::from_utf8_lossy(value.as_deref().unwrap_or(b"0")).into_owned();
        let number: i64 = text.parse().expect("a counter");
        Some((number + 1).to_string().into_bytes())
    };
    values.iter().map(next).collect()
}

fn has_double(found: &[Vec<u8>]) -> bool {
    let mut sorted = found.to_vec();
    sorted.sort();
    sorted.windows(2).any(|pair| pair[0] == pair[1])
}
