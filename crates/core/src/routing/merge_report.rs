//! What servers tell of themselves in numbers (LATENCY LATEST, HISTORY, HISTOGRAM; MEMORY STATS), of all shards as of one.
//!
//! Owns: how each of these replies is read, merged and written. `merge.rs` hands them over; texts for people are laid behind
//! each other by the session layer.
//!
//! Flow: each part is read into values -> one value of them all -> written in the client's protocol.
//!
//! Must stay true: for any bytes exactly one well-formed element is appended, or the caller is told that the parts do not fit;
//! nesting is bounded; a figure that is a share or a ratio is the mean of the shards' weighted by what it is a share of, so
//! it is what one server with all of the data would tell.
//! Rejected: to compute ratios anew from the merged figures: servers have changed how they compute them.

use crate::limits::LATENCY_SAMPLES_MAX;
use crate::protocol::encode::{self, Proto};
use crate::routing::merge::{counted_header, element_len};
use std::collections::BTreeMap;

/// How deep these replies nest at most; real ones do to 3.
const DEPTH_MAX: usize = 6;

/// A value of such a reply.
#[derive(Debug, Clone, PartialEq)]
enum Value<'a> {
    Integer(i64),
    /// A RESP3 double; or RESP2's text that is one.
    Double(f64),
    Text(&'a [u8]),
    /// An array, or a map with names and values in turn.
    List(Vec<Value<'a>>),
}

impl<'a> Value<'a> {
    fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    fn text(&self) -> Option<&'a [u8]> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn list(&self) -> Option<&[Value<'a>]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// As a number, also where RESP2 has only texts for it.
    fn number(&self) -> Option<f64> {
        let number = match self {
            Self::Integer(number) => *number as f64,
            Self::Double(number) => *number,
            Self::Text(text) => std::str::from_utf8(text).ok()?.parse().ok()?,
            Self::List(_) => return None,
        };
        number.is_finite().then_some(number)
    }
}

/// The element at the beginning of `data`, and the bytes that it takes.
fn read(data: &[u8], depth: usize) -> Option<(Value<'_>, usize)> {
    let kind = *data.first()?;
    if let b'*' | b'%' = kind {
        let (count, mut at) = counted_header(data)?;
        let count = count.checked_mul(if kind == b'%' { 2 } else { 1 })?;
        if depth == 0 {
            return None;
        }
        // Grows with what is there, not with what was announced.
        let mut list = Vec::new();
        for _ in 0..count {
            let (value, len) = read(data.get(at..)?, depth - 1)?;
            list.push(value);
            at += len;
        }
        return Some((Value::List(list), at));
    }
    let len = element_len(data)?;
    let line = std::str::from_utf8(data.get(1..len - 2)?).ok();
    let value = match kind {
        b':' => Value::Integer(line?.parse().ok()?),
        b',' => Value::Double(line?.parse().ok()?),
        b'+' => Value::Text(line?.as_bytes()),
        b'$' => {
            let (len, body) = counted_header(data)?;
            Value::Text(data.get(body..body + len)?)
        }
        _ => return None,
    };
    Some((value, len))
}

/// Whole parts, each a list.
fn read_all<'a>(parts: &[&'a [u8]]) -> Option<Vec<Vec<Value<'a>>>> {
    let lists = parts.iter().map(|part| match read(part, DEPTH_MAX)? {
        (Value::List(list), len) if len == part.len() => Some(list),
        _ => None,
    });
    lists.collect()
}

/// Rows by name, in the order in which the names came.
fn rows<'a, T: Default>(table: &mut Vec<(&'a [u8], T)>, name: &'a [u8]) -> usize {
    let known = table.iter().position(|(known, _)| *known == name);
    known.unwrap_or_else(|| {
        table.push((name, T::default()));
        table.len() - 1
    })
}

/// Names and values in turn.
fn pairs<'v, 'a>(list: &'v [Value<'a>]) -> Option<Vec<(&'a [u8], &'v Value<'a>)>> {
    if !list.len().is_multiple_of(2) {
        return None;
    }
    let pairs = list.chunks_exact(2);
    pairs
        .map(|pair| Some((pair[0].text()?, &pair[1])))
        .collect()
}

/// LATENCY LATEST: of each event when it was last, how long it took then, the longest, and whatever newer servers count.
pub(super) fn latest(parts: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let lists = read_all(parts)?;
    let mut table: Vec<(&[u8], Vec<i64>)> = Vec::new();
    for event in lists.iter().flatten() {
        let [name, numbers @ ..] = event.list()? else {
            return None;
        };
        let told: Vec<i64> = numbers.iter().map(Value::integer).collect::<Option<_>>()?;
        let [when, took, most, counts @ ..] = told.as_slice() else {
            return None;
        };
        let row = rows(&mut table, name.text()?);
        let known = &mut table[row].1;
        let [known_when, known_took, known_most, known_counts @ ..] = known.as_mut_slice() else {
            *known = told;
            continue;
        };
        (*known_when, *known_took) = (*known_when, *known_took).max((*when, *took));
        *known_most = (*known_most).max(*most);
        for (sum, count) in known_counts.iter_mut().zip(counts) {
            *sum = sum.saturating_add(*count);
        }
    }
    encode::array(out, table.len());
    for (name, numbers) in table {
        encode::array(out, 1 + numbers.len());
        encode::bulk(out, name);
        numbers
            .iter()
            .for_each(|&number| encode::integer(out, number));
    }
    Some(())
}

/// LATENCY HISTORY: of each second the worst, as one server would have kept it, and as many of them.
pub(super) fn history(parts: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let lists = read_all(parts)?;
    let mut samples: BTreeMap<i64, i64> = BTreeMap::new();
    for sample in lists.iter().flatten() {
        let [when, took] = sample.list()? else {
            return None;
        };
        let worst = samples.entry(when.integer()?).or_default();
        *worst = (*worst).max(took.integer()?);
    }
    let older = samples.len().saturating_sub(LATENCY_SAMPLES_MAX);
    encode::array(out, samples.len() - older);
    for (when, took) in samples.into_iter().skip(older) {
        encode::array(out, 2);
        encode::integer(out, when);
        encode::integer(out, took);
    }
    Some(())
}

/// LATENCY HISTOGRAM: of each command its calls, and how many of them took no longer than each bound. A shard tells a bound
/// only where the count grows, so at the bounds between its own it counts what it did at the one before.
pub(super) fn histogram(parts: &[&[u8]], proto: Proto, out: &mut Vec<u8>) -> Option<()> {
    type Row = (i64, BTreeMap<i64, i64>);
    let lists = read_all(parts)?;
    let mut table: Vec<(&[u8], Row)> = Vec::new();
    for list in &lists {
        for (command, told) in pairs(list)? {
            let [(b"calls", calls), (b"histogram_usec", counts)] = pairs(told.list()?)?[..] else {
                return None;
            };
            let row = rows(&mut table, command);
            let (sum, growth) = &mut table[row].1;
            *sum = sum.saturating_add(calls.integer()?);
            let mut before = 0;
            for pair in counts.list()?.chunks(2) {
                let [bound, count] = pair else {
                    return None;
                };
                let count = count.integer()?;
                let grown = growth.entry(bound.integer()?).or_insert(0);
                *grown = grown.saturating_add(count.saturating_sub(before));
                before = count;
            }
        }
    }
    encode::map(out, proto, table.len());
    for (command, (calls, growth)) in table {
        encode::bulk(out, command);
        encode::map(out, proto, 2);
        encode::bulk(out, b"calls");
        encode::integer(out, calls);
        encode::bulk(out, b"histogram_usec");
        encode::map(out, proto, growth.len());
        let mut count = 0_i64;
        for (bound, grown) in growth {
            count = count.saturating_add(grown);
            encode::integer(out, bound);
            encode::integer(out, count);
        }
    }
    Some(())
}

/// Figures of MEMORY STATS that are shares of others, and of which: the first less the second. All whole numbers else are added,
/// all broken ones are the plain mean.
const SHARES: &[(&[u8], &[u8], &[u8])] = &[
    (b"keys.bytes-per-key", b"keys.count", b""),
    (
        b"dataset.percentage",
        b"total.allocated",
        b"startup.allocated",
    ),
    (b"peak.percentage", b"peak.allocated", b""),
    (
        b"allocator-fragmentation.ratio",
        b"allocator.allocated",
        b"",
    ),
    (b"allocator-rss.ratio", b"allocator.active", b""),
    (b"rss-overhead.ratio", b"allocator.resident", b""),
    (b"fragmentation", b"total.allocated", b""),
];

/// MEMORY STATS.
pub(super) fn memory(parts: &[&[u8]], proto: Proto, out: &mut Vec<u8>) -> Option<()> {
    let lists = read_all(parts)?;
    let lists: Vec<&[Value]> = lists.iter().map(Vec::as_slice).collect();
    figures(&lists, proto, DEPTH_MAX, out)
}

fn figures(lists: &[&[Value]], proto: Proto, depth: usize, out: &mut Vec<u8>) -> Option<()> {
    let reports: Vec<Vec<(&[u8], &Value)>> = lists
        .iter()
        .map(|list| pairs(list))
        .collect::<Option<_>>()?;
    // Of each figure its values, with the report that each is of.
    let mut table: Vec<(&[u8], Vec<(usize, &Value)>)> = Vec::new();
    for (index, report) in reports.iter().enumerate() {
        for (name, value) in report {
            let row = rows(&mut table, name);
            table[row].1.push((index, value));
        }
    }
    encode::map(out, proto, table.len());
    for (name, values) in &table {
        encode::bulk(out, name);
        if let Some((_, Value::List(_))) = values.first() {
            let inner: Vec<&[Value]> = values
                .iter()
                .map(|(_, value)| value.list())
                .collect::<Option<_>>()?;
            figures(&inner, proto, depth.checked_sub(1)?, out)?;
            continue;
        }
        let share = SHARES.iter().find(|(share, ..)| share == name);
        let whole: Option<Vec<i64>> = values.iter().map(|(_, value)| value.integer()).collect();
        match (share, whole) {
            (None, Some(numbers)) => {
                let sum = numbers
                    .iter()
                    .fold(0_i64, |sum, &number| sum.saturating_add(number));
                encode::integer(out, sum);
            }
            (share, whole) => {
                let weight = |index: usize| -> f64 {
                    let of = |wanted: &[u8]| {
                        let mut figures = reports[index].iter();
                        let found = figures.find(|(name, _)| *name == wanted);
                        found.and_then(|(_, value)| value.number()).unwrap_or(0.0)
                    };
                    share.map_or(1.0, |(_, more, less)| (of(more) - of(less)).max(0.0))
                };
                match mean(values, weight) {
                    Some(mean) if whole.is_some() => encode::integer(out, mean as i64),
                    Some(mean) => double(out, proto, mean),
                    // Not a number at all: the first shard's.
                    None => encode::bulk(out, values.first()?.1.text()?),
                }
            }
        }
    }
    Some(())
}

/// The mean; where nothing has weight, as of a server without keys, the plain one.
fn mean(values: &[(usize, &Value)], weight: impl Fn(usize) -> f64) -> Option<f64> {
    let mut weighted = (0.0, 0.0);
    let mut plain = (0.0, 0.0);
    for (index, value) in values {
        let (number, weight) = (value.number()?, weight(*index));
        weighted = (weighted.0 + number * weight, weighted.1 + weight);
        plain = (plain.0 + number, plain.1 + 1.0);
    }
    let (sum, count) = if weighted.1 > 0.0 { weighted } else { plain };
    Some(sum / count)
}

/// A broken number as servers write it in each protocol.
fn double(out: &mut Vec<u8>, proto: Proto, number: f64) {
    let text = number.to_string();
    match proto {
        Proto::Resp2 => encode::bulk(out, text.as_bytes()),
        Proto::Resp3 => {
            out.push(b',');
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(
        merge: impl Fn(&[&[u8]], &mut Vec<u8>) -> Option<()>,
        one: &str,
        other: &str,
    ) -> Option<String> {
        let parts = [one, other].map(|part| part.replace(' ', "\r\n"));
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        let mut out = Vec::new();
        merge(&parts, &mut out)?;
        assert_eq!(element_len(&out), Some(out.len()));
        Some(String::from_utf8_lossy(&out).replace("\r\n", " "))
    }

    #[test]
    fn of_each_event_the_last_time_and_the_worst() {
        let merged = two(
            latest,
            "*2 *4 $4 fork :100 :7 :9 *4 $7 command :50 :3 :30 ",
            "*1 *4 $7 command :60 :2 :20 ",
        );
        let expected = "*2 *4 $4 fork :100 :7 :9 *4 $7 command :60 :2 :30 ";
        assert_eq!(merged.as_deref(), Some(expected));
        let counted = two(
            latest,
            "*1 *6 $1 e :1 :2 :3 :10 :4 ",
            "*1 *6 $1 e :1 :3 :2 :20 :5 ",
        );
        assert_eq!(counted.as_deref(), Some("*1 *6 $1 e :1 :3 :3 :30 :9 "));
        assert_eq!(two(latest, "*0 ", "*0 ").as_deref(), Some("*0 "));
        assert_eq!(two(latest, "*1 *2 $1 e :1 ", "*0 "), None);
    }

    #[test]
    fn of_each_second_the_worst() {
        let merged = two(history, "*2 *2 :5 :1 *2 :7 :2 ", "*2 *2 :5 :4 *2 :6 :3 ");
        assert_eq!(merged.as_deref(), Some("*3 *2 :5 :4 *2 :6 :3 *2 :7 :2 "));
        let many = |from: i64| {
            let samples = (from..from + 160).map(|when| format!("*2 :{when} :1 "));
            format!("*160 {}", samples.collect::<String>())
        };
        let merged = two(history, &many(0), &many(100)).unwrap_or_default();
        assert!(merged.starts_with("*160 *2 :100 :1 ") && merged.ends_with("*2 :259 :1 "));
    }

    #[test]
    fn histograms_are_added_bound_by_bound() {
        let merged = two(
            |parts, out| histogram(parts, Proto::Resp3, out),
            "%2 $3 set %2 $5 calls :3 $14 histogram_usec %2 :1 :2 :8 :3 $3 del %2 $5 calls :1 $14 histogram_usec %1 :4 :1 ",
            "%1 $3 set %2 $5 calls :5 $14 histogram_usec %2 :2 :1 :16 :5 ",
        );
        assert_eq!(
            merged.as_deref(),
            Some(
                "%2 $3 set %2 $5 calls :8 $14 histogram_usec %4 :1 :2 :2 :3 :8 :4 :16 :8 \
                 $3 del %2 $5 calls :1 $14 histogram_usec %1 :4 :1 "
            )
        );
        let resp2 = two(
            |parts, out| histogram(parts, Proto::Resp2, out),
            "*2 $1 a *4 $5 calls :1 $14 histogram_usec *2 :1 :1 ",
            "*0 ",
        );
        let expected = "*2 $1 a *4 $5 calls :1 $14 histogram_usec *2 :1 :1 ";
        assert_eq!(resp2.as_deref(), Some(expected));
    }

    #[test]
    fn memory_is_added_and_shares_are_means_by_weight() {
        let report = |keys: i64, peak: i64, total: i64, percentage: &str| {
            format!(
                "%5 $14 peak.allocated :{peak} $15 total.allocated :{total} $4 db.0 %1 $1 x :{keys} $10 keys.count :{keys} \
                 $15 peak.percentage ,{percentage} "
            )
        };
        let merged = two(
            |parts, out| memory(parts, Proto::Resp3, out),
            &report(1, 100, 50, "50"),
            &report(2, 300, 300, "100"),
        );
        let expected = report(3, 400, 350, "87.5");
        assert_eq!(merged, Some(expected));
    }

    #[test]
    fn anything_else_is_told_to_be_so() {
        for bad in [
            "+OK ",
            "*1 ",
            "$-1 ",
            "*1 *1 *1 *1 *1 *1 *1 *1 *0 ",
            "*2 $1 a ",
            ":1 ",
            "*1 $3 abc ",
            "*9999999999 ",
        ] {
            for merge in [latest, history] {
                assert_eq!(two(merge, bad, bad), None, "{bad}");
            }
            for merge in [histogram, memory] {
                assert_eq!(
                    two(|parts, out| merge(parts, Proto::Resp3, out), bad, bad),
                    None,
                    "{bad}"
                );
            }
        }
    }
}
