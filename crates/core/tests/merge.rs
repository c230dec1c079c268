//! Merging against a naive twin: parse every fragment into a tree, merge trees, write the result.

use proptest::prelude::*;
use shoal_core::protocol::command::Merge;
use shoal_core::protocol::encode::Proto;
use shoal_core::routing::merge::{element_len, merge};

const MISFIT: &[u8] = b"-ERR shards answered in unexpected ways to one request (";

const KINDS: [Merge; 16] = [
    Merge::AllOk,
    Merge::First,
    Merge::Sum,
    Merge::Min,
    Merge::Max,
    Merge::MinEach,
    Merge::Concat,
    Merge::And,
    Merge::KeyOrder,
    Merge::Info,
    Merge::Config,
    Merge::AnyNonNull,
    Merge::AnyGood,
    Merge::Running,
    Merge::Libraries,
    Merge::Longest,
];

/// Any RESP element.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    /// `+ - : # , (`: a type byte and a line.
    Line(u8, Vec<u8>),
    /// `$ ! =`: a type byte and bytes.
    Text(u8, Vec<u8>),
    /// `_`, `$-1`, `*-1` and so on, as written.
    Null(&'static str),
    /// `* ~ > %` with all their elements (two per pair).
    Many(u8, Vec<Value>),
    /// Attributes (keys and values) and what they describe.
    Described(Vec<Value>, Box<Value>),
}

use Value::{Described, Line, Many, Null, Text};

impl Value {
    fn write(&self, out: &mut Vec<u8>) {
        let mut head = |kind: u8, count: usize| {
            out.extend_from_slice(format!("{}{count}\r\n", kind as char).as_bytes());
        };
        match self {
            Line(kind, text) => {
                out.push(*kind);
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            Text(kind, bytes) => {
                head(*kind, bytes.len());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Null(text) => out.extend_from_slice(text.as_bytes()),
            Many(kind, elements) => {
                head(
                    *kind,
                    if *kind == b'%' {
                        elements.len() / 2
                    } else {
                        elements.len()
                    },
                );
                elements.iter().for_each(|element| element.write(out));
            }
            Described(pairs, value) => {
                head(b'|', pairs.len() / 2);
                pairs.iter().for_each(|element| element.write(out));
                value.write(out);
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn integer(&self) -> Option<i64> {
        match self {
            Line(b':', text) => String::from_utf8(text.clone()).ok()?.parse().ok(),
            _ => None,
        }
    }

    fn array(&self) -> Option<&[Value]> {
        match self {
            Many(b'*', elements) => Some(elements),
            _ => None,
        }
    }
}

/// Recursive descent: the value and what is left.
fn parse(data: &[u8]) -> Option<(Value, &[u8])> {
    for null in ["_\r\n", "$-1\r\n", "*-1\r\n"] {
        if let Some(rest) = data.strip_prefix(null.as_bytes()) {
            return Some((Null(null), rest));
        }
    }
    let (&kind, rest) = data.split_first()?;
    let end = rest.iter().position(|&byte| byte == b'\r')?;
    let (line, rest) = rest.split_at(end);
    let rest = rest.strip_prefix(b"\r\n")?;
    if b"+-:#,(".contains(&kind) {
        return Some((Line(kind, line.to_vec()), rest));
    }
    if line.is_empty()
        || !line.iter().all(u8::is_ascii_digit)
        || (line[0] == b'0' && line.len() > 1)
    {
        return None;
    }
    let count: usize = std::str::from_utf8(line).ok()?.parse().ok()?;
    match kind {
        b'$' | b'!' | b'=' => {
            let text = rest.get(..count)?;
            let rest = rest[count..].strip_prefix(b"\r\n")?;
            Some((Text(kind, text.to_vec()), rest))
        }
        b'*' | b'~' | b'>' => {
            let (elements, rest) = parse_many(rest, count)?;
            Some((Many(kind, elements), rest))
        }
        b'%' => {
            let (elements, rest) = parse_many(rest, count.checked_mul(2)?)?;
            Some((Many(kind, elements), rest))
        }
        b'|' => {
            let (pairs, rest) = parse_many(rest, count.checked_mul(2)?)?;
            let (value, rest) = parse(rest)?;
            Some((Described(pairs, Box::new(value)), rest))
        }
        _ => None,
    }
}

fn parse_many(mut rest: &[u8], count: usize) -> Option<(Vec<Value>, &[u8])> {
    let mut elements = Vec::new();
    for _ in 0..count {
        let (element, after) = parse(rest)?;
        elements.push(element);
        rest = after;
    }
    Some((elements, rest))
}

/// Kinds for which one part may be the answer although another is an error.
fn whatever_others_say<'p>(kind: Merge, parts: &[&'p [u8]]) -> Option<&'p [u8]> {
    let begins = |with: &'static str| {
        let mut parts = parts.iter().copied();
        parts.find(|part| part.starts_with(with.as_bytes()))
    };
    match kind {
        Merge::AnyGood => {
            let mut good = parts.iter().filter(|part| !part.starts_with(b"-"));
            let good = good.find(|part| !part.starts_with(b"!"));
            let telling = parts.iter().find(|part| {
                let idle = ["-NOTBUSY", "-NOSCRIPT"];
                idle.iter().all(|idle| !part.starts_with(idle.as_bytes()))
            });
            let good = good.copied().or_else(|| begins("-UNKILLABLE"));
            good.or(telling.copied()).or(parts.first().copied())
        }
        Merge::Running => {
            let runs = |part: &&&[u8]| match parse(part) {
                Some((Many(b'*' | b'%', elements), [])) => {
                    elements.get(1).is_some_and(|it| !matches!(it, Null(_)))
                }
                _ => false,
            };
            parts.iter().find(runs).copied()
        }
        _ => None,
    }
}

fn naive_min_each(values: &[Value]) -> Option<Value> {
    let mut rows = Vec::new();
    for value in values {
        let elements = value.array()?;
        let row: Option<Vec<i64>> = elements.iter().map(Value::integer).collect();
        rows.push(row?);
    }
    let count = rows.first()?.len();
    if rows.iter().any(|row| row.len() != count) {
        return None;
    }
    let least = |index: usize| {
        let least = rows.iter().map(|row| row[index]).min();
        least.map(|number| Line(b':', number.to_string().into_bytes()))
    };
    Some(Many(b'*', (0..count).filter_map(least).collect()))
}

fn naive_libraries(values: &[Value]) -> Option<Value> {
    let mut seen: Vec<(Vec<u8>, Value)> = Vec::new();
    let mut first = None;
    for value in values {
        let Many(kind @ (b'*' | b'~'), libraries) = value else {
            return None;
        };
        first = first.or(Some(*kind));
        for library in libraries {
            let Many(b'*' | b'%', fields) = library else {
                return None;
            };
            let name = Text(b'$', b"library_name".to_vec());
            let verbatim = Text(b'=', b"library_name".to_vec());
            let pair = fields
                .chunks_exact(2)
                .find(|pair| [&name, &verbatim].contains(&&pair[0]))?;
            let Text(b'$' | b'=', name) = &pair[1] else {
                return None;
            };
            if !seen.iter().any(|(known, _)| known == name) {
                seen.push((name.clone(), library.clone()));
            }
        }
    }
    let libraries = seen.into_iter().map(|(_, library)| library);
    Some(Many(first?, libraries.collect()))
}

/// The twin. `None`: the parts do not fit together.
fn naive(
    kind: Merge,
    parts: &[&[u8]],
    order: &[u16],
    proto: Proto,
    rotate: usize,
) -> Option<Value> {
    let whole = |part: &&[u8]| match parse(part) {
        Some((value, [])) => Some(value),
        _ => None,
    };
    if let Some(found) = whatever_others_say(kind, parts) {
        return whole(&found);
    }
    if let Some(error) = parts
        .iter()
        .find(|part| matches!(part.first(), Some(b'-' | b'!')))
    {
        return whole(error);
    }
    if kind == Merge::AnyNonNull {
        // Others may be broken: they are not looked at.
        let count = parts.len();
        let mut in_turn = (0..count).map(|step| parts[(rotate % count + step) % count]);
        let found = in_turn.find(|part| ![&b"_\r\n"[..], b"$-1\r\n", b"*-1\r\n"].contains(part));
        return match found {
            Some(part) => whole(&part),
            None => (count > 0).then_some(Null(match proto {
                Proto::Resp2 => "$-1\r\n",
                Proto::Resp3 => "_\r\n",
            })),
        };
    }
    let values: Vec<Value> = parts.iter().map(whole).collect::<Option<_>>()?;
    let integers = || {
        values
            .iter()
            .map(Value::integer)
            .collect::<Option<Vec<i64>>>()
    };
    let number = |number: i64| Line(b':', number.to_string().into_bytes());
    match kind {
        Merge::AllOk => {
            let ok = Line(b'+', b"OK".to_vec());
            (!values.is_empty() && values.iter().all(|value| *value == ok)).then_some(ok)
        }
        Merge::First | Merge::Running => values.first().cloned(),
        Merge::Libraries => naive_libraries(&values),
        Merge::Longest => {
            let longest = parts.iter().map(|part| part.len()).max()?;
            let at = parts.iter().position(|part| part.len() == longest)?;
            values.get(at).cloned()
        }
        Merge::Sum => {
            let mut sum: Option<i64> = None;
            for value in integers()? {
                sum = Some(sum.unwrap_or(0).checked_add(value)?);
            }
            sum.map(number)
        }
        Merge::Min => integers()?.into_iter().min().map(number),
        Merge::Max => integers()?.into_iter().max().map(number),
        Merge::MinEach => naive_min_each(&values),
        Merge::Concat => {
            let mut all = Vec::new();
            for value in &values {
                match value {
                    Many(b'*' | b'~', elements) => all.extend(elements.clone()),
                    _ => return None,
                }
            }
            match values.first()? {
                Many(kind, _) => Some(Many(*kind, all)),
                _ => None,
            }
        }
        Merge::And => {
            let arrays: Vec<&[Value]> = values.iter().map(Value::array).collect::<Option<_>>()?;
            let count = arrays.first()?.len();
            if arrays.iter().any(|array| array.len() != count) {
                return None;
            }
            let mut all = Vec::new();
            for index in 0..count {
                let column = arrays.iter().map(|array| array[index].integer());
                let column: Vec<i64> = column.collect::<Option<_>>()?;
                all.push(number(i64::from(column.iter().all(|&value| value == 1))));
            }
            Some(Many(b'*', all))
        }
        Merge::KeyOrder => {
            let arrays: Vec<&[Value]> = values.iter().map(Value::array).collect::<Option<_>>()?;
            if arrays.is_empty() {
                return None;
            }
            let mut taken = vec![0; arrays.len()];
            let mut all = Vec::new();
            for &index in order {
                let index = usize::from(index);
                all.push(arrays.get(index)?.get(taken[index])?.clone());
                taken[index] += 1;
            }
            arrays
                .iter()
                .zip(taken)
                .all(|(array, taken)| array.len() == taken)
                .then_some(Many(b'*', all))
        }
        // Texts and reports have tests of their own.
        _ => None,
    }
}

/// Runs `merge` behind bytes that must stay, and compares with the twin.
fn compare(
    kind: Merge,
    parts: &[Vec<u8>],
    order: &[u16],
    proto: Proto,
    rotate: usize,
) -> Result<(), TestCaseError> {
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let mut out = b"before".to_vec();
    merge(kind, &parts, order, proto, rotate, &mut out);
    let merged = out
        .strip_prefix(b"before")
        .expect("what was there before stays");
    match naive(kind, &parts, order, proto, rotate) {
        Some(value) => prop_assert_eq!(
            merged.escape_ascii().to_string(),
            value.bytes().escape_ascii().to_string(),
            "{:?}",
            kind
        ),
        None => prop_assert!(
            merged.starts_with(MISFIT),
            "{:?} {}",
            kind,
            merged.escape_ascii()
        ),
    }
    // Whatever came in, exactly one reply goes out.
    prop_assert!(
        matches!(parse(merged), Some((_, []))),
        "{}",
        merged.escape_ascii()
    );
    Ok(())
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..12).prop_map(|bytes| Text(b'$', bytes)),
        any::<i64>().prop_map(|number| Line(b':', number.to_string().into_bytes())),
        (0..3_i64).prop_map(|number| Line(b':', number.to_string().into_bytes())),
        prop::sample::select(&[Null("_\r\n"), Null("$-1\r\n"), Null("*-1\r\n")][..]),
        (prop::sample::select(&b"+-#,("[..]), "[ -~]{0,8}")
            .prop_map(|(kind, text)| Line(kind, text.into_bytes())),
        (prop::sample::select(&b"!="[..]), "[ -~]{4,8}")
            .prop_map(|(kind, text)| Text(kind, text.into_bytes())),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 24, 4, |inner| {
        let elements = prop::collection::vec(inner.clone(), 0..4);
        let pairs = prop::collection::vec((inner.clone(), inner.clone()), 0..3).prop_map(|pairs| {
            pairs
                .into_iter()
                .flat_map(|(key, value)| [key, value])
                .collect::<Vec<_>>()
        });
        prop_oneof![
            (prop::sample::select(&b"*~>"[..]), elements)
                .prop_map(|(kind, elements)| Many(kind, elements)),
            pairs.clone().prop_map(|pairs| Many(b'%', pairs)),
            (pairs, inner).prop_map(|(pairs, value)| Described(pairs, Box::new(value))),
        ]
    })
}

/// What FUNCTION LIST looks like, with few names.
fn libraries() -> impl Strategy<Value = Value> {
    let text = |text: &str| Text(b'$', text.as_bytes().to_vec());
    let library = (prop::sample::select(&b"*%"[..]), "[ab]", value());
    let library = library.prop_map(move |(kind, name, value)| {
        let fields = vec![text("library_name"), text(&name), text("functions"), value];
        Many(kind, fields)
    });
    prop::collection::vec(library, 0..4).prop_map(|libraries| Many(b'*', libraries))
}

/// What SCRIPT KILL and FUNCTION STATS look like.
fn script_reply() -> impl Strategy<Value = Value> {
    let errors = [
        "NOTBUSY none",
        "UNKILLABLE wrote",
        "ERR down",
        "NOSCRIPT no",
    ];
    let error = prop::sample::select(errors.to_vec());
    let stats = (
        prop::sample::select(&b"*%"[..]),
        prop_oneof![Just(Null("*-1\r\n")), Just(Null("_\r\n")), value()],
    );
    let text = |text: &str| Text(b'$', text.as_bytes().to_vec());
    prop_oneof![
        1 => Just(Line(b'+', b"OK".to_vec())),
        3 => error.prop_map(|text| Line(b'-', text.as_bytes().to_vec())),
        3 => stats.prop_map(move |(kind, runs)| Many(kind, vec![text("running_script"), runs])),
    ]
}

/// Replies of the shapes that the kinds expect, so that the twins agree on more than misfits.
fn fitting_parts() -> impl Strategy<Value = Vec<Value>> {
    let small = (0..3_i64).prop_map(|number| Line(b':', number.to_string().into_bytes()));
    let count = 1..5_usize;
    let arrays = |kind: &'static [u8]| {
        let array = (
            prop::sample::select(kind),
            prop::collection::vec(value(), 0..4),
        );
        prop::collection::vec(
            array.prop_map(|(kind, elements)| Many(kind, elements)),
            1..5,
        )
    };
    prop_oneof![
        prop::collection::vec(prop_oneof![small.clone(), scalar()], count.clone()),
        prop::collection::vec(small.clone(), count.clone()),
        arrays(b"*"),
        arrays(b"*~"),
        (1..4_usize, 1..4_usize).prop_flat_map(move |(width, height)| {
            let row = prop::collection::vec(small.clone(), width).prop_map(|row| Many(b'*', row));
            prop::collection::vec(row, height)
        }),
        Just(vec![Line(b'+', b"OK".to_vec()); 3]),
        prop::collection::vec(libraries(), 1..5),
        prop::collection::vec(script_reply(), 1..5),
        prop::collection::vec(
            prop::sample::select(&[Null("_\r\n"), Null("$-1\r\n")][..]),
            count.clone()
        ),
        prop::collection::vec(value(), count),
    ]
}

fn proto() -> impl Strategy<Value = Proto> {
    prop::sample::select(&[Proto::Resp2, Proto::Resp3][..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn every_kind_equals_its_twin(
        parts in fitting_parts(),
        order in prop::collection::vec(0..5_u16, 0..8),
        proto in proto(),
        rotate in any::<usize>(),
    ) {
        let parts: Vec<Vec<u8>> = parts.iter().map(Value::bytes).collect();
        for kind in KINDS {
            compare(kind, &parts, &order, proto, rotate)?;
        }
    }

    /// What MGET is: values in the order of keys, dealt to shards by any assignment, come back in that order.
    #[test]
    fn key_order_undoes_the_split(
        values in prop::collection::vec((value(), 0..40_u16), 1..60),
        proto in proto(),
    ) {
        let mut fragments: Vec<(u16, Vec<Value>)> = Vec::new();
        let mut order = Vec::new();
        for (value, shard) in &values {
            let known = fragments.iter().position(|(known, _)| known == shard);
            let index = known.unwrap_or_else(|| {
                fragments.push((*shard, Vec::new()));
                fragments.len() - 1
            });
            fragments[index].1.push(value.clone());
            order.push(index as u16);
        }
        let parts: Vec<Vec<u8>> = fragments.into_iter().map(|(_, values)| Many(b'*', values).bytes()).collect();
        let expected = Many(b'*', values.into_iter().map(|(value, _)| value).collect()).bytes();
        let borrowed: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let mut out = Vec::new();
        merge(Merge::KeyOrder, &borrowed, &order, proto, 0, &mut out);
        prop_assert_eq!(out, expected);
        compare(Merge::KeyOrder, &parts, &order, proto, 0)?;
    }

    /// One byte changed, added or lost in otherwise good fragments.
    #[test]
    fn damaged_parts_give_the_twin_s_answer(
        parts in fitting_parts(),
        order in prop::collection::vec(0..4_u16, 0..6),
        damage in (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..3, prop::sample::select(&b"0123456789\r\n-$*:+_"[..])),
        proto in proto(),
    ) {
        let mut parts: Vec<Vec<u8>> = parts.iter().map(Value::bytes).collect();
        let (part, at, how, byte) = damage;
        let part = part.get_mut(&mut parts);
        let at = at.index(part.len());
        match how {
            0 => part[at] = byte,
            1 => part.insert(at, byte),
            _ => { part.remove(at); }
        }
        for kind in KINDS {
            compare(kind, &parts, &order, proto, 1)?;
        }
    }

    #[test]
    fn any_bytes_at_all(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..4),
        order in prop::collection::vec(any::<u16>(), 0..4),
        proto in proto(),
    ) {
        for kind in KINDS {
            compare(kind, &parts, &order, proto, 0)?;
        }
    }

    /// The skipper agrees with the parser on whole elements, on every cut, and with something behind.
    #[test]
    fn element_len_equals_its_twin(value in value(), behind in prop::collection::vec(any::<u8>(), 0..4)) {
        let mut bytes = value.bytes();
        let length = bytes.len();
        for cut in 0..length {
            prop_assert_eq!(element_len(&bytes[..cut]), None);
        }
        bytes.extend_from_slice(&behind);
        prop_assert_eq!(element_len(&bytes), Some(length));
    }

    #[test]
    fn element_len_of_any_bytes(
        bytes in prop::collection::vec(prop::sample::select(&b"*$%|~>:+_-012\r\n\r\na"[..]), 0..40),
    ) {
        let twin = parse(&bytes).map(|(_, rest)| bytes.len() - rest.len());
        prop_assert_eq!(element_len(&bytes), twin);
    }
}

fn merged(kind: Merge, parts: &[&str]) -> String {
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    let mut out = Vec::new();
    merge(kind, &parts, &[0, 1, 0], Proto::Resp2, 0, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn the_texts_clients_see() {
    let unexpected =
        |what: &str| format!("-ERR shards answered in unexpected ways to one request ({what})\r\n");
    let cases = [
        (
            Merge::KeyOrder,
            ["*2\r\n$1\r\na\r\n$-1\r\n", "*1\r\n$1\r\nb\r\n"],
            "*3\r\n$1\r\na\r\n$1\r\nb\r\n$-1\r\n".into(),
        ),
        (
            Merge::KeyOrder,
            ["*1\r\n$1\r\na\r\n", "*1\r\n$1\r\nb\r\n"],
            unexpected("fewer elements than keys"),
        ),
        (
            Merge::KeyOrder,
            ["*3\r\n:1\r\n:2\r\n:3\r\n", "*1\r\n:4\r\n"],
            unexpected("more elements than keys"),
        ),
        (
            Merge::KeyOrder,
            [":1\r\n", "*1\r\n:4\r\n"],
            unexpected("something else where an array belongs"),
        ),
        (
            Merge::KeyOrder,
            ["*2\r\n:1\r\n:2\r\n", "-LOADING wait\r\n"],
            "-LOADING wait\r\n".into(),
        ),
        (Merge::Sum, [":2\r\n", ":40\r\n"], ":42\r\n".into()),
        (
            Merge::Sum,
            [":9223372036854775807\r\n", ":1\r\n"],
            unexpected("a sum beyond 64 bits"),
        ),
        (
            Merge::Sum,
            ["-OOM full\r\n", "-ERR other\r\n"],
            "-OOM full\r\n".into(),
        ),
        (Merge::Min, [":2\r\n", ":-40\r\n"], ":-40\r\n".into()),
        (
            Merge::Max,
            [":2\r\n", "$1\r\n2\r\n"],
            unexpected("something else where an integer belongs"),
        ),
        (Merge::AllOk, ["+OK\r\n", "+OK\r\n"], "+OK\r\n".into()),
        (
            Merge::AllOk,
            ["+OK\r\n", "+QUEUED\r\n"],
            unexpected("not all said OK"),
        ),
        (Merge::First, ["+PONG\r\n", "+PONG\r\n"], "+PONG\r\n".into()),
        (
            Merge::First,
            ["+PONG\r\n", "-ERR no\r\n"],
            "-ERR no\r\n".into(),
        ),
        (
            Merge::Concat,
            ["*0\r\n", "*1\r\n$1\r\na\r\n"],
            "*1\r\n$1\r\na\r\n".into(),
        ),
        (
            Merge::Concat,
            ["~1\r\n:1\r\n", "~1\r\n:2\r\n"],
            "~2\r\n:1\r\n:2\r\n".into(),
        ),
        (
            Merge::And,
            ["*2\r\n:1\r\n:1\r\n", "*2\r\n:1\r\n:0\r\n"],
            "*2\r\n:1\r\n:0\r\n".into(),
        ),
        (
            Merge::And,
            ["*1\r\n:1\r\n", "*2\r\n:1\r\n:0\r\n"],
            unexpected("arrays of different lengths"),
        ),
        (
            Merge::AnyNonNull,
            ["$-1\r\n", "$1\r\na\r\n"],
            "$1\r\na\r\n".into(),
        ),
        (Merge::AnyNonNull, ["$-1\r\n", "$-1\r\n"], "$-1\r\n".into()),
        (
            Merge::AnyGood,
            ["-NOTBUSY no\r\n", "+OK\r\n"],
            "+OK\r\n".into(),
        ),
        (
            Merge::AnyGood,
            ["-NOTBUSY no\r\n", "-UNKILLABLE it wrote\r\n"],
            "-UNKILLABLE it wrote\r\n".into(),
        ),
        (
            Merge::AnyGood,
            ["-NOTBUSY no\r\n", "-ERR down\r\n"],
            "-ERR down\r\n".into(),
        ),
        (
            Merge::Info,
            ["$0\r\n\r\n", "$0\r\n\r\n"],
            unexpected("texts are merged by the session layer"),
        ),
    ];
    for (kind, parts, expected) in cases {
        assert_eq!(merged(kind, &parts), expected, "{kind:?}");
    }
    let none: [&str; 0] = [];
    assert_eq!(merged(Merge::Sum, &none), unexpected("no shard answered"));
}

#[test]
fn rotation_prefers_other_parts() {
    let parts: [&[u8]; 3] = [b"$1\r\na\r\n", b"$-1\r\n", b"$1\r\nc\r\n"];
    for (rotate, expected) in [(0, "a"), (1, "c"), (2, "c"), (3, "a"), (usize::MAX, "a")] {
        let mut out = Vec::new();
        merge(
            Merge::AnyNonNull,
            &parts,
            &[],
            Proto::Resp2,
            rotate,
            &mut out,
        );
        assert_eq!(
            out,
            format!("$1\r\n{expected}\r\n").into_bytes(),
            "{rotate}"
        );
    }
}

#[test]
fn nesting_costs_no_stack() {
    let depth = 1_000_000;
    let mut deep = b"*1\r\n".repeat(depth);
    assert_eq!(element_len(&deep), None);
    deep.extend_from_slice(b":1\r\n");
    assert_eq!(element_len(&deep), Some(deep.len()));
    let mut out = Vec::new();
    merge(
        Merge::Concat,
        &[&deep, &deep],
        &[],
        Proto::Resp2,
        0,
        &mut out,
    );
    assert_eq!(out.len(), 2 * deep.len() - 4);
}

#[test]
fn counts_beyond_all_reason() {
    for head in [
        "*18446744073709551615",
        "*9223372036854775807",
        "%9223372036854775808",
        "$18446744073709551615",
        "*99999999999999999999",
        "$00000000000000000000000000000000002",
    ] {
        let bytes = format!("{head}\r\n:1\r\n:2\r\n");
        assert_eq!(element_len(bytes.as_bytes()), None, "{head}");
        for kind in KINDS {
            assert!(
                merged(kind, &[&bytes, &bytes]).starts_with('-'),
                "{head} {kind:?}"
            );
        }
    }
}
