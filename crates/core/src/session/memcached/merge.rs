//! Several shards' memcached replies put together to one.
//!
//! Owns: `TextMerge`, and the table that says what becomes of each statistic.
//!
//! Must stay true: values come in the order in which the client named their keys; a part that is an error makes the whole an
//! error, because what is missing would look like a miss; a number that is shown as a sum is one.

use crate::protocol::memcached::line;

/// What is made of the parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextMerge {
    /// Values: for each key of the client, in order, the part that has it.
    Values(Vec<(Box<[u8]>, u16)>),
    /// All say the same, or what the first says that does not.
    Same,
    /// `stats`
    Counters,
    /// `stats settings`
    Settings,
}

/// What becomes of a statistic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Sum,
    Least,
    Most,
    First,
    /// All different values, side by side.
    Each,
}

/// Statistics that are not added. Everything else is, as far as it is a number.
const RULES: &[(&str, Rule)] = &[
    ("pid", Rule::First),
    ("uptime", Rule::Least),
    ("time", Rule::Most),
    ("version", Rule::Each),
    ("libevent", Rule::Each),
    ("pointer_size", Rule::First),
    ("hash_power_level", Rule::Most),
    ("hash_is_expanding", Rule::Most),
    ("accepting_conns", Rule::Least),
    ("slab_reassign_running", Rule::Most),
    ("lru_crawler_running", Rule::Most),
];

/// Appends the one reply.
pub(crate) fn merge(how: &TextMerge, parts: &[&[u8]], out: &mut Vec<u8>) {
    if let Some(error) = parts.iter().find_map(|part| error_in(part)) {
        out.extend_from_slice(error);
        return;
    }
    match how {
        TextMerge::Values(keys) => values(keys, parts, out),
        TextMerge::Same => out.extend_from_slice(parts.first().copied().unwrap_or(line::OK)),
        TextMerge::Counters => statistics(parts, out, rule_of),
        TextMerge::Settings => statistics(parts, out, |_| Rule::Each),
    }
}

/// The error that a part is, or ends with.
fn error_in(part: &[u8]) -> Option<&[u8]> {
    if part.ends_with(line::END) || part.ends_with(line::OK) || part.ends_with(line::RESET) {
        return None;
    }
    let body = part.strip_suffix(b"\r\n").unwrap_or(part);
    let start = body
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    Some(&part[start..])
}

/// One `VALUE` of a part: its key, and all of its bytes.
fn value(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = part.iter().position(|&byte| byte == b'\n')?;
    let mut words = part[..end]
        .strip_prefix(b"VALUE ")?
        .strip_suffix(b"\r")?
        .split(|&byte| byte == b' ');
    let key = words.next()?;
    let size: usize = std::str::from_utf8(words.nth(1)?).ok()?.parse().ok()?;
    Some((key, part.get(..end + 1 + size + 2)?))
}

fn values(keys: &[(Box<[u8]>, u16)], parts: &[&[u8]], out: &mut Vec<u8>) {
    let mut rests = parts.to_vec();
    out.reserve(parts.iter().map(|part| part.len()).sum());
    for (key, part) in keys {
        let Some(rest) = rests.get_mut(*part as usize) else {
            continue;
        };
        // A server gives its values in the order in which it was asked, and leaves out what it has not.
        if let Some((found, bytes)) = value(rest) {
            if found == &**key {
                out.extend_from_slice(bytes);
                *rest = &rest[bytes.len()..];
            }
        }
    }
    out.extend_from_slice(line::END);
}

fn rule_of(name: &str) -> Rule {
    RULES
        .iter()
        .find(|(known, _)| *known == name)
        .map_or(Rule::Sum, |(_, rule)| *rule)
}

fn statistics(parts: &[&[u8]], out: &mut Vec<u8>, rule: impl Fn(&str) -> Rule) {
    let texts: Vec<_> = parts
        .iter()
        .map(|part| String::from_utf8_lossy(part))
        .collect();
    // In the order of the first part; what only others have comes behind.
    let mut rows: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in texts.iter().flat_map(|text| text.split("\r\n")) {
        let Some((name, value)) = line
            .strip_prefix("STAT ")
            .map(|line| line.split_once(' ').unwrap_or((line, "")))
        else {
            continue;
        };
        match rows.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => rows.push((name, vec![value])),
        }
    }
    for (name, values) in rows {
        let value = combine(rule(name), &values);
        out.extend_from_slice(format!("STAT {name} {value}\r\n").as_bytes());
    }
    out.extend_from_slice(line::END);
}

fn combine(rule: Rule, values: &[&str]) -> String {
    let first = || values.first().copied().unwrap_or("").to_string();
    let whole: Option<Vec<i128>> = values.iter().map(|value| value.parse().ok()).collect();
    match (rule, whole) {
        (Rule::Sum, Some(numbers)) => numbers.iter().sum::<i128>().to_string(),
        (Rule::Least, Some(numbers)) => numbers.iter().min().map_or_else(first, i128::to_string),
        (Rule::Most, Some(numbers)) => numbers.iter().max().map_or_else(first, i128::to_string),
        (Rule::First, _) => first(),
        (Rule::Sum, None) => {
            let numbers: Option<Vec<f64>> = values.iter().map(|value| value.parse().ok()).collect();
            numbers.map_or_else(
                || each(values),
                |numbers| format!("{:.6}", numbers.iter().sum::<f64>()),
            )
        }
        (Rule::Least | Rule::Most, None) | (Rule::Each, _) => each(values),
    }
}

fn each(values: &[&str]) -> String {
    let mut different: Vec<&str> = Vec::new();
    for value in values {
        if !different.contains(value) {
            different.push(value);
        }
    }
    different.join(",")
}
