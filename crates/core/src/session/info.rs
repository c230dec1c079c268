//! INFO and CONFIG GET over many shards, told as one server would tell it.
//!
//! Owns: how each field of these texts is merged, as data (in `info/fields.rs`), and the merging itself.
//! Flow: every shard's text is cut into sections and fields, the values of one field are collected over the shards,
//! its rule makes one value of them, and fields that follow from others (`used_memory_human`, ratios) are computed
//! last. The order of sections and fields is the first shard's; what only later shards have comes after.
//!
//! Must stay true: clients parse these texts, so sections, names and number formats stay the servers' own, and nothing
//! says what is not so: `role:master`, `redis_mode:standalone` and `cluster_enabled:0` describe what a client of ours
//! sees. No input panics; time is linear in the texts.
//!
//! Rejected: passing one shard's INFO through. Monitoring would see a quarter of the memory and of the keys. Also
//! rejected: a list of fields that we know and a blank for the rest; new servers add fields with every version, so
//! unknown ones follow the rule of their section.

mod fields;
mod number;

use std::collections::{HashMap, HashSet};

use crate::protocol::encode::{self, Proto};
use crate::routing::merge::{counted_header, element_len, first_error, unexpected};

use crate::session::headcount::Headcount;
use fields::{rule_of, Rule, CONFIG};
use number::{human, number, sum, version, Number};

/// What shoal says of itself in INFO.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Shoal's version (`shoal_version`).
    pub version: &'a str,
    /// What clients are told as `redis_version`; empty: the lowest of the shards that answered.
    pub redis_version: &'a str,
    /// The listener's TCP port.
    pub port: u16,
    /// 40 hexadecimal digits, new with each start.
    pub run_id: &'a str,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Clients connected to us.
    pub clients: u64,
    /// Of these, who has subscribed to something.
    pub subscribers: u64,
    /// Those whose reads are tracked.
    pub clients_tracking: u64,
    /// How many may be; 0: the shards' smallest `maxclients`.
    pub clients_max: u64,
    /// What was refused to users: logins, commands, keys, channels.
    pub denied: [u64; 4],
    /// What they do.
    pub headcount: Headcount,
    /// Shards that can be used now.
    pub shards_up: u64,
    /// All shards of the keyspace.
    pub shards_total: u64,
    /// Name of the keyspace.
    pub keyspace: &'a str,
    /// Worker threads.
    pub workers: u32,
    /// Our process.
    pub process_id: u32,
    /// The topology's number.
    pub epoch: u64,
    /// The keyspace's own database.
    pub database: u8,
    /// Keys in it that are our own, of all shards that answered.
    pub records: i64,
}

/// Arguments of INFO that ask for our section among others; `shoal` asks for it alone.
const SECTIONS_WITH_OURS: [&[u8]; 4] = [b"shoal", b"default", b"all", b"everything"];

/// Merges INFO texts.
///
/// `parts` are the shards' raw replies, bulk or verbatim; errors and anything else are skipped. `sections` are the
/// arguments the client gave. The result is a plain text, to be sent by `encode::verbatim`.
pub fn merge_info(parts: &[&[u8]], own: &Own, sections: &[&[u8]]) -> Vec<u8> {
    let asks = |argument: &[u8], name: &[u8]| argument.eq_ignore_ascii_case(name);
    let only_ours = !sections.is_empty() && sections.iter().all(|name| asks(name, b"shoal"));
    let with_ours = sections.is_empty()
        || sections
            .iter()
            .any(|argument| SECTIONS_WITH_OURS.iter().any(|name| asks(argument, name)));

    let texts: Vec<&[u8]> = if only_ours {
        Vec::new()
    } else {
        parts.iter().filter_map(|part| text_of(part)).collect()
    };
    let mut table = Table::default();
    for text in &texts {
        collect(text, &mut table);
    }
    let mut out = Vec::with_capacity(texts.first().map_or(0, |text| text.len()) + 256);
    for (name, fields) in &table.rows {
        if !out.is_empty() {
            out.extend_from_slice(b"\r\n");
        }
        let section = Section {
            name,
            fields,
            shards: texts.len(),
        };
        write_section(&section, own, &mut out);
    }
    if with_ours {
        if !out.is_empty() {
            out.extend_from_slice(b"\r\n");
        }
        write_own_section(own, &mut out);
    }
    out
}

fn write_own_section(own: &Own, out: &mut Vec<u8>) {
    let keyspace = own
        .keyspace
        .replace(|letter: char| letter.is_control(), " ");
    let text = format!(
        "# Shoal\r\nshoal_version:{}\r\nshards:{}\r\nshards_up:{}\r\nshards_down:{}\r\n\
         epoch:{}\r\nworkers:{}\r\nkeyspace:{keyspace}\r\n",
        own.version,
        own.shards_total,
        own.shards_up,
        own.shards_total.saturating_sub(own.shards_up),
        own.epoch,
        own.workers,
    );
    out.extend_from_slice(text.as_bytes());
}

/// Rows by name, in the order in which the names came.
struct Table<'t, T> {
    rows: Vec<(&'t [u8], T)>,
    index: HashMap<&'t [u8], usize>,
}

impl<T> Default for Table<'_, T> {
    fn default() -> Self {
        Table {
            rows: Vec::new(),
            index: HashMap::new(),
        }
    }
}

impl<'t, T: Default> Table<'t, T> {
    fn row(&mut self, name: &'t [u8]) -> &mut T {
        let rows = &mut self.rows;
        let at = *self.index.entry(name).or_insert_with(|| {
            rows.push((name, T::default()));
            rows.len() - 1
        });
        &mut self.rows[at].1
    }

    fn get(&self, name: &[u8]) -> Option<&T> {
        self.index.get(name).map(|&at| &self.rows[at].1)
    }
}

/// All values of one field, one per shard that has it.
type Values<'t> = Vec<&'t [u8]>;

/// One section with the values of all shards.
struct Section<'s, 't> {
    name: &'t [u8],
    fields: &'s Table<'t, Values<'t>>,
    /// How many shards answered, whether they have this section or not.
    shards: usize,
}

/// The text inside a bulk or verbatim string.
fn text_of(part: &[u8]) -> Option<&[u8]> {
    let (&kind, _) = part.split_first()?;
    let body = string_body(part).filter(|_| element_len(part) == Some(part.len()))?;
    match kind {
        b'$' => Some(body),
        // "txt:" stands before the text.
        b'=' => body.get(4..),
        _ => None,
    }
}

/// What stands between the header and the line end of a whole string element.
fn string_body(element: &[u8]) -> Option<&[u8]> {
    let (length, body) = counted_header(element)?;
    element.get(body..body.checked_add(length)?)
}

/// Cuts one text into sections and fields.
fn collect<'t>(text: &'t [u8], table: &mut Table<'t, Table<'t, Values<'t>>>) {
    let mut section: &[u8] = b"";
    for line in text.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(name) = line.strip_prefix(b"# ") {
            section = name;
            table.row(section);
        } else if let Some((name, value)) = cut(line, b':') {
            table.row(section).row(name).push(value);
        }
    }
}

/// What stands before and after the first `separator`.
fn cut(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

fn write_section(section: &Section, own: &Own, out: &mut Vec<u8>) {
    if !section.name.is_empty() {
        out.extend_from_slice(b"# ");
        out.extend_from_slice(section.name);
        out.extend_from_slice(b"\r\n");
    }
    let mut rows: Vec<&(&[u8], Values)> = section.fields.rows.iter().collect();
    if section.name == b"Keyspace" {
        // A database that the first shard lacks still belongs between its neighbours.
        rows.sort_by_key(|(field, _)| field.strip_prefix(b"db").and_then(number));
    }
    for (field, values) in rows {
        match rule_of(section.name, field) {
            Rule::Drop => {}
            Rule::Lines => {
                let mut seen = HashSet::new();
                for value in values.iter().filter(|value| seen.insert(**value)) {
                    write_line(field, value, out);
                }
            }
            rule => {
                let value = merged(rule, field, values, section, own);
                if section.name != b"Keyspace" {
                    write_line(field, &value, out);
                } else if let Some(value) = without_records(field, value, own) {
                    write_line(field, &value, out);
                }
            }
        }
    }
}

/// A database's line without the keys that are our own; None: it has no others, so it has no line.
fn without_records(field: &[u8], value: Vec<u8>, own: &Own) -> Option<Vec<u8>> {
    let is_own = field.strip_prefix(b"db") == Some(own.database.to_string().as_bytes());
    if own.records == 0 || !is_own {
        return Some(value);
    }
    let (count, rest) = match value.iter().position(|&byte| byte == b',') {
        Some(at) => value.split_at(at),
        None => (value.as_slice(), &b""[..]),
    };
    let keys = count
        .strip_prefix(b"keys=")
        .and_then(crate::protocol::request::strict_integer);
    let Some(keys) = keys else {
        return Some(value);
    };
    let left = keys.saturating_sub(own.records);
    (left > 0).then(|| [format!("keys={left}").as_bytes(), rest].concat())
}

fn write_line(field: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(field);
    out.push(b':');
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The one value of a field, by a rule that may look at its neighbours in the section.
fn merged(rule: Rule, field: &[u8], values: &[&[u8]], section: &Section, own: &Own) -> Vec<u8> {
    let first = values.first().copied().unwrap_or_default();
    // Neighbours are numbers that are merged by simple rules: this goes one step deep.
    let neighbour = |name: &[u8]| -> Option<f64> {
        let value = simple(rule_of(section.name, name), section.fields.get(name)?)?;
        Some(number(&value)?.rounded())
    };
    let name = |name: &'static str| neighbour(name.as_bytes());
    let computed = match rule {
        Rule::Fixed(text) => Some(text.into()),
        Rule::Own(value) => match value(own) {
            none if none.is_empty() => simple(Rule::Min, values),
            some => Some(some.into_bytes()),
        },
        Rule::SumAnd(value) => {
            let all = sum(values.iter().filter_map(|value| number(value)));
            all.map(|all| all.rounded() as u64 + value(own))
                .map(|all| all.to_string().into_bytes())
        }
        // What one shard computed of itself is more exact than what we would compute of its rounded figures.
        Rule::Human | Rule::Ratio(..) | Rule::Percent(..) | Rule::List if section.shards == 1 => {
            None
        }
        Rule::Version if !own.redis_version.is_empty() => Some(own.redis_version.into()),
        Rule::Human => field
            .strip_suffix(b"_human")
            .and_then(neighbour)
            .map(|bytes| human(bytes).into_bytes()),
        Rule::Ratio(part, whole) => {
            quotient(name(part), name(whole)).map(|ratio| format!("{ratio:.2}").into_bytes())
        }
        Rule::Percent(part, whole, less) => {
            let less = name(less).unwrap_or_default();
            quotient(name(part), name(whole).map(|whole| whole - less))
                .map(|ratio| format!("{:.2}%", ratio * 100.0).into_bytes())
        }
        Rule::List => Some(merged_list(values)),
        other => simple(other, values),
    };
    computed.unwrap_or_else(|| first.to_vec())
}

fn quotient(part: Option<f64>, whole: Option<f64>) -> Option<f64> {
    let (part, whole) = (part?, whole?);
    Some(if whole > 0.0 { part / whole } else { 0.0 })
}

/// Rules that need nothing but the values; `None` when they are not numbers, or the rule is of another kind.
fn simple(rule: Rule, values: &[&[u8]]) -> Option<Vec<u8>> {
    let numbers = || {
        values
            .iter()
            .filter_map(|value| Some((number(value)?, *value)))
    };
    match rule {
        Rule::Sum => sum(numbers().map(|(number, _)| number)).map(Number::text),
        Rule::SumOfLimits if numbers().any(|(limit, _)| limit.billionths == 0) => Some(b"0".into()),
        Rule::SumOfLimits => simple(Rule::Sum, values),
        Rule::Max => numbers()
            .max_by_key(|found| found.0)
            .map(|found| found.1.into()),
        Rule::Min => numbers()
            .min_by_key(|found| found.0)
            .map(|found| found.1.into()),
        Rule::Worst => values
            .iter()
            .find(|value| **value != b"ok")
            .map(|value| value.to_vec()),
        Rule::Version => values
            .iter()
            .min_by_key(|value| version(value))
            .map(|value| value.to_vec()),
        _ => None,
    }
}

/// Merges `name=value,...` lists. Numbers are added, what cannot be added is computed anew, texts are the first's.
fn merged_list(lists: &[&[u8]]) -> Vec<u8> {
    let mut table: Table<Values> = Table::default();
    for list in lists {
        for (name, value) in list
            .split(|&byte| byte == b',')
            .filter_map(|pair| cut(pair, b'='))
        {
            table.row(name).push(value);
        }
    }
    let added = |name: &[u8]| -> Option<f64> {
        let value = simple(Rule::Sum, table.get(name)?)?;
        Some(number(&value)?.rounded())
    };
    let mut out = Vec::new();
    for (name, values) in &table.rows {
        let computed = match *name {
            b"usec_per_call" => quotient(added(b"usec"), added(b"calls"))
                .map(|quotient| format!("{quotient:.2}").into_bytes()),
            b"avg_ttl" => Some(average_ttl(lists)),
            _ => simple(Rule::Sum, values),
        };
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(name);
        out.push(b'=');
        match computed {
            Some(value) => out.extend_from_slice(&value),
            None => out.extend_from_slice(values.first().copied().unwrap_or_default()),
        }
    }
    out
}

/// The mean time to live over all keys that expire: each shard's counts as often as it has such keys.
fn average_ttl(lists: &[&[u8]]) -> Vec<u8> {
    let (mut weighted, mut keys) = (0.0, 0.0);
    for list in lists {
        let value = |wanted: &[u8]| -> f64 {
            list.split(|&byte| byte == b',')
                .filter_map(|pair| cut(pair, b'='))
                .find(|(name, _)| *name == wanted)
                .and_then(|(_, value)| number(value))
                .map_or(0.0, Number::rounded)
        };
        let expires = value(b"expires");
        weighted += value(b"avg_ttl") * expires;
        keys += expires;
    }
    format!(
        "{:.0}",
        quotient(Some(weighted), Some(keys)).unwrap_or_default()
    )
    .into_bytes()
}

/// Merges replies of CONFIG GET (RESP2 flat arrays or RESP3 maps) and appends the one reply.
///
/// If any part is an error, the first one is the answer; parts of any other form give an error.
pub fn merge_config(parts: &[&[u8]], proto: Proto, out: &mut Vec<u8>) {
    merge_config_with(parts, proto, &[], out);
}

/// As `merge_config`; some values are our own, whatever the shards say.
pub(crate) fn merge_config_with(
    parts: &[&[u8]],
    proto: Proto,
    own: &[(&str, String)],
    out: &mut Vec<u8>,
) {
    if let Some(error) = first_error(parts).filter(|error| element_len(error) == Some(error.len()))
    {
        out.extend_from_slice(error);
        return;
    }
    let mut table: Table<Values> = Table::default();
    for part in parts {
        if collect_pairs(part, &mut table).is_none() {
            unexpected(out, "something else where parameters belong");
            return;
        }
    }
    encode::map(out, proto, table.rows.len());
    for (name, values) in &table.rows {
        let rule = CONFIG.iter().find(|(known, _)| known.as_bytes() == *name);
        let computed = rule.and_then(|(_, rule)| simple(*rule, values));
        let own = own
            .iter()
            .find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name));
        let computed = own.map_or(computed, |(_, value)| Some(value.clone().into_bytes()));
        encode::bulk(out, name);
        match &computed {
            Some(value) => encode::bulk(out, value),
            None => encode::bulk(out, values.first().copied().unwrap_or_default()),
        }
    }
}

/// Texts for people: each under its shard's name; what one shard refuses is told in its place. An error when all refuse.
pub(crate) fn compose_texts(parts: &[&[u8]], shards: &[String], proto: Proto, out: &mut Vec<u8>) {
    if let (Some(error), true) = (first_error(parts), parts.iter().all(|part| is_error(part))) {
        return out.extend_from_slice(error);
    }
    let mut all = Vec::new();
    for (part, shard) in parts.iter().zip(shards) {
        let error = part.get(1..).filter(|_| is_error(part));
        let Some(text) = text_of(part).or(error.map(<[u8]>::trim_ascii_end)) else {
            return unexpected(out, "something else where a text belongs");
        };
        all.extend_from_slice(b"# ");
        all.extend_from_slice(shard.as_bytes());
        all.push(b'\n');
        all.extend_from_slice(text);
        if !text.ends_with(b"\n") {
            all.push(b'\n');
        }
    }
    encode::verbatim(out, proto, &all);
}

fn is_error(part: &[u8]) -> bool {
    matches!(part.first(), Some(b'-' | b'!'))
}

fn collect_pairs<'t>(part: &'t [u8], table: &mut Table<'t, Values<'t>>) -> Option<()> {
    let (count, mut at) = counted_header(part)?;
    let pairs = match part.first()? {
        b'%' => count,
        b'*' if count % 2 == 0 => count / 2,
        _ => return None,
    };
    let mut next = || -> Option<&'t [u8]> {
        let rest = part.get(at..)?;
        let length = element_len(rest).filter(|_| rest.first() == Some(&b'$'))?;
        at += length;
        string_body(rest)
    };
    for _ in 0..pairs {
        let (name, value) = (next()?, next()?);
        table.row(name).push(value);
    }
    (at == part.len()).then_some(())
}
