//! Merging: the replies of a request's fragments become the one reply its client waits for.
//!
//! Owns: the rule for each `Merge` kind, and just enough RESP reading to apply it on raw bytes. Fragments come in as
//! whole replies in the client's own protocol version, so their elements are copied and never converted. INFO and
//! CONFIG texts are merged by `session/info.rs`, which borrows the readers below.
//!
//! Flow: errors first (one fragment failed: its error is the answer) -> the rule of the kind, writing straight to the
//! session's output -> if the fragments do not fit the rule, what was written is taken back and an error stands there.
//!
//! Must stay true: for any bytes at all exactly one well-formed element is appended, or for data that is no such reply an
//! error that says so: never a wrong answer, never a panic. Time is linear in the fragments' length, nesting costs
//! no stack, and the MGET path allocates nothing for up to `CURSORS_INLINE` fragments.
//!
//! Rejected: parsing into values. It is what `tests/merge.rs` does to check this file; it would cost MGET an allocation
//! per element. Also rejected: asking shards again after a misfit, since a write may have happened.

use crate::protocol::command::Merge;
use crate::protocol::encode::{self, Proto};
use crate::routing::merge_report;

/// Fragments whose cursors live on the stack; requests over more shards take one allocation.
const CURSORS_INLINE: usize = 32;

/// Why fragments could not be merged; the text goes to the client.
struct Misfit(&'static str);

const NO_REPORT: Misfit = Misfit("something else where a report belongs");

/// Appends the one reply that stands for all `parts`.
///
/// * `parts`: whole raw replies, in the order of the shards, in the client's protocol `proto`.
/// * `order` (`KeyOrder` only): for each key of the request, the index in `parts` of the fragment that holds it.
/// * `rotate` (`AnyNonNull` only): which part to prefer, modulo their number.
///
/// Exactly one reply is appended whatever the parts contain; what `out` held before stays unchanged.
pub fn merge(
    kind: Merge,
    parts: &[&[u8]],
    order: &[u16],
    proto: Proto,
    rotate: usize,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    if let Err(misfit) = merge_or_misfit(kind, parts, order, proto, rotate, out) {
        out.truncate(start);
        unexpected(out, misfit.0);
    }
}

/// Appends the error for fragments that do not belong together.
pub(crate) fn unexpected(out: &mut Vec<u8>, what: &str) {
    out.extend_from_slice(b"-ERR shards answered in unexpected ways to one request (");
    out.extend_from_slice(what.as_bytes());
    out.extend_from_slice(b")\r\n");
}

fn merge_or_misfit(
    kind: Merge,
    parts: &[&[u8]],
    order: &[u16],
    proto: Proto,
    rotate: usize,
    out: &mut Vec<u8>,
) -> Result<(), Misfit> {
    if parts.is_empty() {
        return Err(Misfit("no shard answered"));
    }
    if kind == Merge::AnyGood {
        return copy_whole(any_good(parts), out);
    }
    if let (Merge::Running, Some(part)) = (kind, parts.iter().find(|part| is_running(part))) {
        return copy_whole(part, out);
    }
    if let Some(error) = first_error(parts) {
        return copy_whole(error, out);
    }
    match kind {
        Merge::KeyOrder => key_order(parts, order, out),
        Merge::AllOk => all_ok(parts, out),
        Merge::Libraries => libraries(parts, out),
        Merge::Longest => {
            for part in parts {
                whole(part)?;
            }
            let longest = parts.iter().rev().max_by_key(|part| part.len());
            copy_whole(longest.copied().unwrap_or_default(), out)
        }
        Merge::First | Merge::Running | Merge::AnyGood => {
            for part in parts {
                whole(part)?;
            }
            copy_whole(parts[0], out)
        }
        Merge::Sum => integers(parts, out, |sum, number| {
            sum.checked_add(number)
                .ok_or(Misfit("a sum beyond 64 bits"))
        }),
        Merge::MinEach => least_of_each(parts, out),
        Merge::Min => integers(parts, out, |least, number| Ok(least.min(number))),
        Merge::Max => integers(parts, out, |most, number| Ok(most.max(number))),
        Merge::Concat => concat(parts, out),
        Merge::And => all_ones(parts, out),
        Merge::AnyNonNull => any_non_null(parts, proto, rotate, out),
        Merge::LatencyLatest => merge_report::latest(parts, out).ok_or(NO_REPORT),
        Merge::LatencyHistory => merge_report::history(parts, out).ok_or(NO_REPORT),
        Merge::LatencyHistogram => merge_report::histogram(parts, proto, out).ok_or(NO_REPORT),
        Merge::MemoryStats => merge_report::memory(parts, proto, out).ok_or(NO_REPORT),
        Merge::Info | Merge::Config | Merge::Texts => {
            Err(Misfit("texts are merged by the session layer"))
        }
    }
}

/// The first part that is an error, in the order of the shards.
pub(crate) fn first_error<'p>(parts: &[&'p [u8]]) -> Option<&'p [u8]> {
    parts
        .iter()
        .copied()
        .find(|part| matches!(part.first(), Some(b'-' | b'!')))
}

/// The first part that is no error. Else, of the errors, one that is not only of a shard that has nothing to do with it.
fn any_good<'p>(parts: &[&'p [u8]]) -> &'p [u8] {
    let weight = |part: &[u8]| match part {
        [b'-', rest @ ..] if rest.starts_with(b"UNKILLABLE") => 1,
        [b'-', rest @ ..] if rest.starts_with(b"NOTBUSY") || rest.starts_with(b"NOSCRIPT") => 3,
        [b'-' | b'!', ..] => 2,
        _ => 0,
    };
    let parts = parts.iter().copied();
    parts.min_by_key(|part| weight(part)).unwrap_or_default()
}

/// Of FUNCTION STATS: the first field is what runs, or null.
fn is_running(part: &[u8]) -> bool {
    let value = || -> Option<&[u8]> {
        let (_, body) = counted_header(part).filter(|_| matches!(part[0], b'*' | b'%'))?;
        let name = part.get(body..)?;
        name.get(element_len(name)?..)
    };
    let is_one = |value: &[u8]| !matches!(value, [] | [b'_', ..]) && null_len(value).is_none();
    whole(part).is_ok() && value().is_some_and(is_one)
}

/// Each library of FUNCTION LIST once, by its name, in the order in which it was first seen.
fn libraries(parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Misfit> {
    let mut seen: Vec<(&[u8], &[u8])> = Vec::new();
    for part in parts {
        whole(part)?;
        let (count, mut at) = array_or_set_header(part)?;
        for _ in 0..count {
            let rest = part.get(at..).unwrap_or_default();
            let length = element_len(rest).ok_or(Misfit("a broken element"))?;
            let library = &rest[..length];
            let name =
                field_of(library, b"library_name").ok_or(Misfit("a library without a name"))?;
            if seen.iter().all(|(known, _)| *known != name) {
                seen.push((name, library));
            }
            at += length;
        }
    }
    match parts[0].first() {
        Some(b'~') => encode::set(out, Proto::Resp3, seen.len()),
        _ => encode::array(out, seen.len()),
    }
    seen.iter()
        .for_each(|(_, library)| out.extend_from_slice(library));
    Ok(())
}

/// The string beside a name in a map, which RESP2 writes as an array.
pub(crate) fn field_of<'p>(map: &'p [u8], wanted: &[u8]) -> Option<&'p [u8]> {
    let (count, mut at) = counted_header(map)?;
    let pairs = match map.first()? {
        b'%' => count,
        b'*' => count / 2,
        _ => return None,
    };
    let string = |element: &'p [u8]| -> Option<&'p [u8]> {
        let (length, body) = counted_header(element)?;
        let is_string = matches!(element.first(), Some(b'$' | b'='));
        is_string.then(|| element.get(body..body + length))?
    };
    for _ in 0..pairs {
        let name = map.get(at..)?;
        at += element_len(name)?;
        let value = map.get(at..)?;
        at += element_len(value)?;
        if string(name) == Some(wanted) {
            return string(value);
        }
    }
    None
}

/// Checks that a part is one whole element and nothing more.
fn whole(part: &[u8]) -> Result<(), Misfit> {
    match element_len(part) {
        Some(length) if length == part.len() => Ok(()),
        _ => Err(Misfit("not one whole reply")),
    }
}

fn copy_whole(part: &[u8], out: &mut Vec<u8>) -> Result<(), Misfit> {
    whole(part)?;
    out.extend_from_slice(part);
    Ok(())
}

/// Where the reading of one fragment stands.
#[derive(Clone, Copy, Default)]
struct Cursor {
    /// Offset of the next element.
    at: usize,
    /// Elements that are still to come.
    left: usize,
}

/// Calls `body` with one zeroed cursor per part: on the stack for as many fragments as requests usually have.
fn with_cursors<R>(count: usize, body: impl FnOnce(&mut [Cursor]) -> R) -> R {
    if count <= CURSORS_INLINE {
        let mut cursors = [Cursor::default(); CURSORS_INLINE];
        body(&mut cursors[..count])
    } else {
        body(&mut vec![Cursor::default(); count])
    }
}

/// MGET and its like: the hot path of this file. Each fragment is read once, by its own cursor, as the request's keys
/// ask for their elements.
fn key_order(parts: &[&[u8]], order: &[u16], out: &mut Vec<u8>) -> Result<(), Misfit> {
    with_cursors(parts.len(), |cursors| {
        let mut bytes = 0;
        for (cursor, part) in cursors.iter_mut().zip(parts) {
            let (count, body) = array_header(part)?;
            *cursor = Cursor {
                at: body,
                left: count,
            };
            bytes += part.len();
        }
        out.reserve(bytes + 16);
        encode::array(out, order.len());
        for &index in order {
            let (Some(cursor), Some(part)) =
                (cursors.get_mut(index as usize), parts.get(index as usize))
            else {
                return Err(Misfit("a key without a fragment"));
            };
            let rest = part.get(cursor.at..).unwrap_or_default();
            if cursor.left == 0 {
                return Err(Misfit("fewer elements than keys"));
            }
            let length = element_len(rest).ok_or(Misfit("a broken element"))?;
            out.extend_from_slice(&rest[..length]);
            cursor.at += length;
            cursor.left -= 1;
        }
        for (cursor, part) in cursors.iter().zip(parts) {
            if cursor.left != 0 || cursor.at != part.len() {
                return Err(Misfit("more elements than keys"));
            }
        }
        Ok(())
    })
}

fn all_ok(parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Misfit> {
    if parts.iter().any(|part| *part != b"+OK\r\n") {
        return Err(Misfit("not all said OK"));
    }
    out.extend_from_slice(b"+OK\r\n");
    Ok(())
}

fn integers(
    parts: &[&[u8]],
    out: &mut Vec<u8>,
    fold: impl Fn(i64, i64) -> Result<i64, Misfit>,
) -> Result<(), Misfit> {
    let mut result = None;
    for part in parts {
        let (number, length) = integer(part)?;
        if length != part.len() {
            return Err(Misfit("more than an integer"));
        }
        result = Some(match result {
            None => number,
            Some(so_far) => fold(so_far, number)?,
        });
    }
    encode::integer(out, result.unwrap_or_default());
    Ok(())
}

/// Arrays of integers of the same length: the smallest of each place.
fn least_of_each(parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Misfit> {
    let mut least: Vec<i64> = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let (count, mut at) = array_header(part)?;
        let mut numbers = Vec::new();
        for _ in 0..count {
            let (number, length) = integer(part.get(at..).unwrap_or_default())?;
            at += length;
            numbers.push(number);
        }
        if at != part.len() || (index > 0 && numbers.len() != least.len()) {
            return Err(Misfit("arrays of other lengths"));
        }
        if index == 0 {
            least = numbers;
        } else {
            let pairs = least.iter_mut().zip(numbers);
            pairs.for_each(|(least, number)| *least = number.min(*least));
        }
    }
    encode::array(out, least.len());
    least
        .iter()
        .for_each(|&number| encode::integer(out, number));
    Ok(())
}

fn concat(parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Misfit> {
    let mut elements = 0_usize;
    let mut bytes = 0;
    for part in parts {
        let (count, _) = array_or_set_header(part)?;
        whole(part)?;
        elements = elements.saturating_add(count);
        bytes += part.len();
    }
    out.reserve(bytes + 16);
    match parts[0].first() {
        Some(b'~') => encode::set(out, Proto::Resp3, elements),
        _ => encode::array(out, elements),
    }
    for part in parts {
        let (_, body) = array_or_set_header(part)?;
        out.extend_from_slice(&part[body..]);
    }
    Ok(())
}

/// SCRIPT EXISTS and its like: an element is 1 where every shard says 1.
fn all_ones(parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Misfit> {
    with_cursors(parts.len(), |cursors| {
        let (count, _) = array_header(parts[0])?;
        for (cursor, part) in cursors.iter_mut().zip(parts) {
            let (left, at) = array_header(part)?;
            *cursor = Cursor { at, left };
            if left != count {
                return Err(Misfit("arrays of different lengths"));
            }
        }
        encode::array(out, count);
        for _ in 0..count {
            let mut all = true;
            for (cursor, part) in cursors.iter_mut().zip(parts) {
                let (number, length) = integer(part.get(cursor.at..).unwrap_or_default())?;
                all &= number == 1;
                cursor.at += length;
            }
            encode::integer(out, i64::from(all));
        }
        for (cursor, part) in cursors.iter().zip(parts) {
            if cursor.at != part.len() {
                return Err(Misfit("more than an array"));
            }
        }
        Ok(())
    })
}

fn any_non_null(
    parts: &[&[u8]],
    proto: Proto,
    rotate: usize,
    out: &mut Vec<u8>,
) -> Result<(), Misfit> {
    let preferred = rotate % parts.len();
    let (before, from) = parts.split_at(preferred);
    let mut in_turn = from.iter().chain(before);
    match in_turn.find(|part| !is_null(part)) {
        Some(part) => copy_whole(part, out),
        None => {
            encode::null(out, proto);
            Ok(())
        }
    }
}

fn is_null(part: &[u8]) -> bool {
    matches!(part, b"_\r\n" | b"$-1\r\n" | b"*-1\r\n")
}

/// Reads `*count\r\n`; gives the count and where the elements begin. Null arrays do not fit.
fn array_header(part: &[u8]) -> Result<(usize, usize), Misfit> {
    match part.first() {
        Some(b'*') => counted_header(part).ok_or(Misfit("a broken array")),
        _ => Err(Misfit("something else where an array belongs")),
    }
}

fn array_or_set_header(part: &[u8]) -> Result<(usize, usize), Misfit> {
    match part.first() {
        Some(b'*' | b'~') => counted_header(part).ok_or(Misfit("a broken array")),
        _ => Err(Misfit("something else where an array belongs")),
    }
}

/// Reads `:number\r\n`; gives the number and the element's length.
fn integer(data: &[u8]) -> Result<(i64, usize), Misfit> {
    let Some(b':') = data.first() else {
        return Err(Misfit("something else where an integer belongs"));
    };
    let broken = Misfit("a broken integer");
    let end = line_end(data, 1).ok_or(Misfit("a broken integer"))?;
    let text = std::str::from_utf8(&data[1..end - 2]).map_err(|_| Misfit("a broken integer"))?;
    let number = text.parse().map_err(|_| broken)?;
    Ok((number, end))
}

/// Reads the type byte's count or length; gives it and where the line ends. `None` when it is negative, padded
/// with zeros, longer than any real one, or incomplete.
#[inline]
pub(crate) fn counted_header(data: &[u8]) -> Option<(usize, usize)> {
    let mut count = 0_usize;
    let mut at = 1;
    loop {
        let byte = *data.get(at)?;
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        count = count.checked_mul(10)?.checked_add(digit as usize)?;
        at += 1;
    }
    let padded = at > 2 && data[1] == b'0';
    if at == 1 || padded || data.get(at..at + 2)? != b"\r\n" {
        return None;
    }
    Some((count, at + 2))
}

/// Where the line that begins at `from` ends (one past its line feed). A carriage return alone is malformed.
fn line_end(data: &[u8], from: usize) -> Option<usize> {
    let length = data.get(from..)?.iter().position(|&byte| byte == b'\r')?;
    let feed = from + length + 1;
    (*data.get(feed)? == b'\n').then_some(feed + 1)
}

/// The length of the whole RESP element (RESP2 or RESP3, any nesting) at the beginning of `data`; `None` when it is
/// incomplete or malformed. Streamed types, which no server sends, count as malformed.
#[inline]
pub fn element_len(data: &[u8]) -> Option<usize> {
    // Elements of MGET are nearly always strings: tried before the general way.
    if let Some(b'$') = data.first() {
        return string_len(data);
    }
    nested_len(data)
}

/// The length of a `$`, `!` or `=` element, null included.
#[inline]
fn string_len(data: &[u8]) -> Option<usize> {
    match counted_header(data) {
        Some((length, body)) => {
            let end = body.checked_add(length)?;
            let next = end.checked_add(2)?;
            (data.get(end..next)? == b"\r\n").then_some(next)
        }
        None => null_len(data),
    }
}

/// The length of RESP2's nulls, `$-1` and `*-1`.
fn null_len(data: &[u8]) -> Option<usize> {
    let is_null = matches!(data, [b'$' | b'*', b'-', b'1', b'\r', b'\n', ..]);
    is_null.then_some(5)
}

/// The general case of `element_len`. Instead of a stack it counts the elements that must still follow: where an inner
/// array ends makes no difference to where the outer one does.
fn nested_len(data: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut wanted = 1_usize;
    while wanted > 0 {
        let rest = data.get(at..)?;
        // Every element takes three bytes at least: a count that cannot be true ends the search at once.
        if wanted > rest.len() {
            return None;
        }
        wanted -= 1;
        at += match rest.first()? {
            b'+' | b'-' | b':' | b'#' | b',' | b'(' => line_end(rest, 1)?,
            b'_' => rest.starts_with(b"_\r\n").then_some(3)?,
            b'$' | b'!' | b'=' => string_len(rest)?,
            kind @ (b'*' | b'~' | b'>' | b'%' | b'|') => match counted_header(rest) {
                Some((count, body)) => {
                    let elements = match kind {
                        b'%' => count.checked_mul(2)?,
                        // Attributes are pairs in front of the element that they describe.
                        b'|' => count.checked_mul(2)?.checked_add(1)?,
                        _ => count,
                    };
                    wanted = wanted.checked_add(elements)?;
                    body
                }
                None => null_len(rest)?,
            },
            _ => return None,
        };
    }
    Some(at)
}
