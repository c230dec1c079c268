//! Scanning replies against a naive twin: every RESP2 and RESP3 type, nested, described, damaged, in whatever pieces.
//!
//! The twin (`naive`) walks down recursively, one call per element, from the beginning of the bytes. The scanner is driven
//! the way `session/deliver.rs` drives it: what it did not use is shown again with more behind it. Where the twin's stack
//! would not do (deep nesting, counts beyond any memory), what is expected is known otherwise.

use proptest::prelude::*;
use shoal_core::limits::REPLY_LINE_MAX;
use shoal_core::protocol::reply::{InvalidReply, ReplyScanner};

/// What a stream of bytes amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Found {
    /// Length of each whole reply.
    replies: Vec<usize>,
    is_invalid: bool,
}

/// Where the element at `at` ends; None when it is not whole.
fn naive(data: &[u8], at: usize) -> Result<Option<usize>, InvalidReply> {
    if data
        .get(at)
        .is_some_and(|&first| !b"+-:_,#($=!*~>%|".contains(&first))
    {
        return Err(InvalidReply);
    }
    let Some((line, mut next)) = naive_line(data, at)? else {
        return Ok(None);
    };
    let number = || -> Result<i64, InvalidReply> {
        let text = std::str::from_utf8(&line[1..]).map_err(|_| InvalidReply)?;
        let number: i64 = text.parse().map_err(|_| InvalidReply)?;
        (number.to_string() == text && number >= -1)
            .then_some(number)
            .ok_or(InvalidReply)
    };
    let elements = match line[0] {
        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => 0,
        b'$' | b'=' | b'!' => match number()? {
            -1 => 0,
            length => {
                let body = next + length as usize;
                for (at, wanted) in [(body, b'\r'), (body + 1, b'\n')] {
                    if data.get(at).is_some_and(|&byte| byte != wanted) {
                        return Err(InvalidReply);
                    }
                }
                return Ok((data.len() >= body + 2).then_some(body + 2));
            }
        },
        b'*' | b'~' | b'>' => number()?.max(0),
        b'%' => number()?.max(0) * 2,
        b'|' => match number()? {
            -1 => return Err(InvalidReply),
            pairs => pairs * 2 + 1,
        },
        _ => return Err(InvalidReply),
    };
    for _ in 0..elements {
        match naive(data, next)? {
            Some(end) => next = end,
            None => return Ok(None),
        }
    }
    Ok(Some(next))
}

/// A line without its end, and where the next one begins.
fn naive_line(data: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, InvalidReply> {
    let rest = &data[at..data.len().min(at + REPLY_LINE_MAX)];
    let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
        return if rest.len() == REPLY_LINE_MAX {
            Err(InvalidReply)
        } else {
            Ok(None)
        };
    };
    match &rest[..end] {
        [line @ .., b'\r'] if !line.is_empty() => Ok(Some((line, at + end + 1))),
        _ => Err(InvalidReply),
    }
}

fn naive_stream(data: &[u8]) -> Found {
    let mut found = Found::default();
    let mut at = 0;
    loop {
        match naive(data, at) {
            Ok(Some(end)) => {
                found.replies.push(end - at);
                at = end;
            }
            Ok(None) => return found,
            Err(InvalidReply) => {
                found.is_invalid = true;
                return found;
            }
        }
    }
}

/// The scanner as a link uses it.
#[derive(Default)]
struct Driver {
    scanner: ReplyScanner,
    tail: Vec<u8>,
    current: usize,
    found: Found,
}

impl Driver {
    fn feed(&mut self, piece: &[u8]) {
        if self.found.is_invalid {
            return;
        }
        self.tail.extend_from_slice(piece);
        let mut at = 0;
        while at < self.tail.len() {
            let is_first = self.scanner.is_between();
            assert_eq!(
                is_first,
                self.current == 0,
                "it knows when it is between two replies"
            );
            let Ok(progress) = self.scanner.scan(&self.tail[at..]) else {
                self.found.is_invalid = true;
                return;
            };
            assert!(progress.used <= self.tail.len() - at);
            if progress.used == 0 {
                assert!(!progress.done);
                break;
            }
            at += progress.used;
            self.current += progress.used;
            if progress.done {
                self.found.replies.push(self.current);
                self.current = 0;
            }
        }
        self.tail.drain(..at);
        assert!(self.tail.len() < REPLY_LINE_MAX, "only a line is ever kept");
    }
}

fn scanned<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Found {
    let mut driver = Driver::default();
    for piece in pieces {
        driver.feed(piece);
    }
    driver.found
}

fn at_all_cuts(data: &[u8], expected: &Found) {
    let shown = String::from_utf8_lossy(data);
    assert_eq!(&scanned([data]), expected, "whole: {shown:?}");
    for cut in 1..data.len() {
        let (first, second) = data.split_at(cut);
        assert_eq!(
            &scanned([first, second]),
            expected,
            "cut at {cut}: {shown:?}"
        );
    }
    assert_eq!(
        &scanned(data.chunks(1)),
        expected,
        "byte by byte: {shown:?}"
    );
}

// ------------------------------------------------------------------------------------------------------ inputs

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..12),
        1 => prop::collection::vec(prop::sample::select(b"\r\n$*+-:019".to_vec()), 0..12),
        1 => prop::collection::vec(any::<u8>(), 100..130),
    ]
}

fn plain() -> impl Strategy<Value = Vec<u8>> {
    let line = (prop::sample::select(b"+-:,#(".to_vec()), "[ -~]{0,12}")
        .prop_map(|(kind, text)| [&[kind], text.as_bytes(), b"\r\n"].concat());
    let long = (prop::sample::select(b"+-".to_vec()), "[ -~]{250,260}")
        .prop_map(|(kind, text)| [&[kind], text.as_bytes(), b"\r\n"].concat());
    let bulk = (prop::sample::select(b"$$$=!".to_vec()), text()).prop_map(|(kind, text)| {
        let mut out = format!("{}{}\r\n", kind as char, text.len()).into_bytes();
        out.extend_from_slice(&text);
        out.extend_from_slice(b"\r\n");
        out
    });
    let nulls: Vec<&[u8]> = vec![
        b"_\r\n", b"$-1\r\n", b"*-1\r\n", b"%-1\r\n", b"~-1\r\n", b"=-1\r\n",
    ];
    prop_oneof![
        3 => line,
        1 => long,
        5 => bulk,
        1 => prop::sample::select(nulls).prop_map(<[u8]>::to_vec),
    ]
}

fn reply() -> impl Strategy<Value = Vec<u8>> {
    plain().prop_recursive(5, 40, 5, |inner| {
        let of = |kind: &'static [u8], each: usize| {
            let count = 0..if each == 2 { 3usize } else { 5 };
            (prop::sample::select(kind.to_vec()), prop::collection::vec(inner.clone(), count)).prop_map(
                move |(kind, mut elements)| {
                    elements.truncate(elements.len() / each * each);
                    let head = format!("{}{}\r\n", kind as char, elements.len() / each);
                    [head.into_bytes(), elements.concat()].concat()
                },
            )
        };
        prop_oneof![
            3 => of(b"*~>", 1),
            2 => of(b"%", 2),
            1 => (of(b"|", 2), inner.clone()).prop_map(|(attribute, value)| [attribute, value].concat()),
        ]
    })
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(reply(), 0..4).prop_map(|replies| replies.concat())
}

fn damaged_stream() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"\r\n$*%|>~0123-_".to_vec())
    ];
    (stream(), any::<prop::sample::Index>(), byte, 0..4u8).prop_map(
        |(mut stream, at, byte, kind)| {
            if stream.is_empty() {
                return stream;
            }
            let at = at.index(stream.len());
            match kind {
                0 => stream[at] = byte,
                1 => stream.insert(at, byte),
                2 => {
                    stream.remove(at);
                }
                _ => stream.truncate(at),
            }
            stream
        },
    )
}

/// Pieces of protocol in any order; counts small enough for the twin.
fn hostile_stream(tokens: Vec<&'static [u8]>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(tokens), 0..12).prop_map(|tokens| tokens.concat())
}

const TOKENS: [&[u8]; 26] = [
    b"*",
    b"$",
    b"%",
    b"|",
    b"+",
    b"-",
    b"0",
    b"1",
    b"2",
    b"03",
    b"\r\n",
    b"\r",
    b"\n",
    b"+OK\r\n",
    b"$0\r\n\r\n",
    b"$1\r\na\r\n",
    b"$-1\r\n",
    b"*-2\r\n",
    b"*1\r\n",
    b"*2\r\n",
    b"%1\r\n",
    b"|1\r\n",
    b"|0\r\n",
    b">2\r\n",
    b"_\r\n",
    b"?\r\n",
];

const LARGE: [&[u8]; 9] = [
    b"*9223372036854775807\r\n",
    b"%9223372036854775807\r\n",
    b"|9223372036854775807\r\n",
    b"$9223372036854775807\r\n",
    b"$9999999999\r\n",
    b"*4611686018427387904\r\n",
    b"*-9223372036854775808\r\n",
    b"*9223372036854775808\r\n",
    b"+x\r\n",
];

// --------------------------------------------------------------------------------------------------- properties

proptest! {
    #![proptest_config(ProptestConfig { cases: 1200, ..ProptestConfig::default() })]

    #[test]
    fn replies_are_counted_as_the_twin_counts_them(stream in stream()) {
        let expected = naive_stream(&stream);
        prop_assert!(!expected.is_invalid);
        prop_assert_eq!(expected.replies.iter().sum::<usize>(), stream.len());
        at_all_cuts(&stream, &expected);
    }

    #[test]
    fn damage_is_seen_as_the_twin_sees_it(
        stream in prop_oneof![damaged_stream(), hostile_stream(TOKENS.to_vec())],
    ) {
        at_all_cuts(&stream, &naive_stream(&stream));
    }

    /// No twin here: it would count for ever. The pieces do not matter, and nothing overflows.
    #[test]
    fn counts_beyond_any_memory_are_harmless(
        stream in hostile_stream([&TOKENS[..], &LARGE[..], &LARGE[..]].concat()),
    ) {
        at_all_cuts(&stream, &scanned([stream.as_slice()]));
    }

    #[test]
    fn any_bytes_at_all_are_harmless(stream in prop::collection::vec(any::<u8>(), 0..200)) {
        at_all_cuts(&stream, &scanned([stream.as_slice()]));
    }
}

// ------------------------------------------------------------------------------------------------------- bounds

#[test]
fn depth_costs_nothing() {
    const DEPTH: usize = 50_000;
    for (head, last) in [
        (&b"*1\r\n"[..], &b":1\r\n"[..]),
        (b"%1\r\n+k\r\n", b"_\r\n"),
        (b"|1\r\n+k\r\n+v\r\n", b"$1\r\nx\r\n"),
        (b">2\r\n+a\r\n", b"*0\r\n"),
    ] {
        let mut data = head.repeat(DEPTH);
        data.extend_from_slice(last);
        let expected = Found {
            replies: vec![data.len()],
            is_invalid: false,
        };
        assert_eq!(scanned([data.as_slice()]), expected);
        assert_eq!(scanned(data.chunks(7)), expected);
        data.pop();
        assert_eq!(
            scanned([data.as_slice()]).replies,
            [],
            "not whole without its last byte"
        );
    }
    assert_eq!(
        std::mem::size_of::<ReplyScanner>(),
        24,
        "three counters, whatever the depth"
    );
}

#[test]
fn a_large_value_is_passed_on_in_pieces() {
    let mut scanner = ReplyScanner::default();
    let progress = scanner.scan(b"$536870912\r\nabc").expect("RESP");
    assert_eq!(
        (progress.used, progress.done),
        (15, false),
        "what came can be passed on at once"
    );
    let mut piece = vec![0; 1 << 20];
    let mut left = (512 << 20) - 3 + 2;
    while left > piece.len() {
        let progress = scanner.scan(&piece).expect("RESP");
        assert_eq!((progress.used, progress.done), (piece.len(), false));
        left -= piece.len();
    }
    piece[left - 2..left].copy_from_slice(b"\r\n");
    let progress = scanner.scan(&piece).expect("RESP");
    assert_eq!((progress.used, progress.done), (left, true));
    assert!(scanner.is_between());
}

#[test]
fn a_line_without_an_end_is_refused_at_the_bound_and_not_before() {
    for head in [&b"+"[..], b"-ERR ", b"$", b"*"] {
        for (size, is_invalid) in [(REPLY_LINE_MAX - 1, false), (REPLY_LINE_MAX, true)] {
            let mut data = head.to_vec();
            data.resize(size, b'1');
            assert_eq!(naive_stream(&data).is_invalid, is_invalid);
            assert_eq!(scanned([data.as_slice()]).is_invalid, is_invalid);
            assert_eq!(scanned(data.chunks(4099)).is_invalid, is_invalid);
        }
    }
    let mut data = b"+".to_vec();
    data.resize(REPLY_LINE_MAX - 2, b'x');
    data.extend_from_slice(b"\r\n");
    let expected = naive_stream(&data);
    assert_eq!(expected.replies, [REPLY_LINE_MAX]);
    assert_eq!(scanned([data.as_slice()]), expected);
    assert_eq!(scanned(data.chunks(1000)), expected);
}
