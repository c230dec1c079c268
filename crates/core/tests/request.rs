//! Scanning requests against a naive twin: whatever comes, in whatever pieces, the same requests at the same places.
//!
//! The twin (`naive`) reads one request from the beginning of the bytes, every time anew, with owned values and the
//! standard library's number parser. The scanner is driven the way `session/intake.rs` drives it: it keeps its place
//! while the bytes of one request grow. Streams are compared whole, at each possible cut, byte by byte, and in random
//! pieces. Separate cases hold the bounds: what is announced costs nothing, what is large costs linear time.

use proptest::prelude::*;
use shoal_core::limits::{
    BULK_MAX, BULK_UNAUTHENTICATED_MAX, INLINE_MAX, REQUEST_ARGS_MAX,
    REQUEST_ARGS_UNAUTHENTICATED_MAX,
};
use shoal_core::protocol::inline;
use shoal_core::protocol::request::{strict_integer, ProtocolError, RequestScanner, Scan};
use std::time::{Duration, Instant};

/// What a stream of bytes amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Found {
    requests: Vec<Vec<Vec<u8>>>,
    error: Option<ProtocolError>,
    /// Bytes of whole requests.
    used: usize,
}

/// One step of the twin: the arguments and the bytes of a request, or none yet.
type Step = Result<Option<(Vec<Vec<u8>>, usize)>, ProtocolError>;

fn naive(data: &[u8], trusted: bool) -> Step {
    match data.first() {
        None => Ok(None),
        Some(b'*') => naive_multibulk(data, trusted),
        Some(_) => naive_inline(data),
    }
}

fn naive_inline(data: &[u8]) -> Step {
    let looked_at: Vec<u8> = data.iter().copied().take(INLINE_MAX).collect();
    let Some(end) = looked_at.iter().position(|&byte| byte == b'\n') else {
        return if looked_at.len() == INLINE_MAX {
            Err(ProtocolError::InlineTooLong)
        } else {
            Ok(None)
        };
    };
    let mut words = Vec::new();
    inline::split(&looked_at[..end], &mut words).map_err(|_| ProtocolError::UnbalancedQuotes)?;
    Ok(Some((words, end + 1)))
}

fn naive_multibulk(data: &[u8], trusted: bool) -> Step {
    let Some((text, mut at)) = naive_line(data, 1).ok_or(ProtocolError::CountTooLong)? else {
        return Ok(None);
    };
    let count = naive_number(&text).ok_or(ProtocolError::MultibulkLength)?;
    if count > REQUEST_ARGS_MAX as i64 {
        return Err(ProtocolError::MultibulkLength);
    }
    if !trusted && count > REQUEST_ARGS_UNAUTHENTICATED_MAX as i64 {
        return Err(ProtocolError::UnauthenticatedMultibulk);
    }
    let mut args = Vec::new();
    for _ in 0..count {
        match data.get(at) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(&other) => return Err(ProtocolError::ExpectedDollar(other)),
        }
        let line = naive_line(data, at + 1).ok_or(ProtocolError::BulkCountTooLong)?;
        let Some((text, start)) = line else {
            return Ok(None);
        };
        let length = naive_number(&text).ok_or(ProtocolError::BulkLength)?;
        if length < 0 || length > BULK_MAX as i64 {
            return Err(ProtocolError::BulkLength);
        }
        if !trusted && length > BULK_UNAUTHENTICATED_MAX as i64 {
            return Err(ProtocolError::UnauthenticatedBulk);
        }
        let end = start + length as usize;
        if data.len() < end + 2 {
            return Ok(None);
        }
        args.push(data[start..end].to_vec());
        at = end + 2;
    }
    Ok(Some((args, at)))
}

/// The text from `from` to a CR and the position after the byte that follows it; inside: None when it is not whole.
/// Outside: None when it is too long.
fn naive_line(data: &[u8], from: usize) -> Option<Option<(Vec<u8>, usize)>> {
    let mut text = Vec::new();
    for (index, &byte) in data.iter().enumerate().skip(from) {
        if byte == b'\r' {
            return Some((index + 1 < data.len()).then_some((text, index + 2)));
        }
        text.push(byte);
        if text.len() == INLINE_MAX {
            return None;
        }
    }
    Some(None)
}

/// A number that is written exactly as a machine would write it.
fn naive_number(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn naive_stream(data: &[u8], trusted: bool) -> Found {
    let mut found = Found::default();
    loop {
        match naive(&data[found.used..], trusted) {
            Ok(None) => return found,
            Ok(Some((args, used))) => {
                if !args.is_empty() {
                    found.requests.push(args);
                }
                found.used += used;
            }
            Err(error) => {
                found.error = Some(error);
                return found;
            }
        }
    }
}

/// The scanner as intake uses it: one buffer that begins at the current request, one scanner that keeps its place.
#[derive(Default)]
struct Driver {
    scanner: RequestScanner,
    buffer: Vec<u8>,
    found: Found,
}

impl Driver {
    fn feed(&mut self, piece: &[u8], trusted: bool) {
        if self.found.error.is_some() {
            return;
        }
        self.buffer.extend_from_slice(piece);
        loop {
            let used = match self.scanner.scan(&self.buffer, trusted) {
                Scan::Whole(len) => {
                    let args: Vec<Vec<u8>> = (self.scanner.args.iter())
                        .map(|arg| arg.of(&self.buffer).to_vec())
                        .collect();
                    if !args.is_empty() {
                        self.found.requests.push(args);
                    }
                    len
                }
                Scan::Inline { line, len } => {
                    let mut words = Vec::new();
                    if inline::split(&self.buffer[..line], &mut words).is_err() {
                        self.found.error = Some(ProtocolError::UnbalancedQuotes);
                        return;
                    }
                    if !words.is_empty() {
                        self.found.requests.push(words);
                    }
                    len
                }
                Scan::Partial => return,
                Scan::Invalid(error) => {
                    self.found.error = Some(error);
                    return;
                }
            };
            self.scanner.reset();
            self.buffer.drain(..used);
            self.found.used += used;
        }
    }
}

fn scanned<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, trusted: bool) -> Found {
    let mut driver = Driver::default();
    for piece in pieces {
        driver.feed(piece, trusted);
    }
    driver.found
}

fn compare_all_cuts(data: &[u8], trusted: bool) {
    let expected = naive_stream(data, trusted);
    let shown = String::from_utf8_lossy(data);
    assert_eq!(scanned([data], trusted), expected, "whole: {shown:?}");
    for cut in 1..data.len() {
        let (first, second) = data.split_at(cut);
        let found = scanned([first, second], trusted);
        assert_eq!(found, expected, "cut at {cut}: {shown:?}");
    }
    let found = scanned(data.chunks(1), trusted);
    assert_eq!(found, expected, "byte by byte: {shown:?}");
}

fn compare_cuts(data: &[u8], trusted: bool, cuts: &[usize]) {
    let expected = naive_stream(data, trusted);
    let mut pieces = Vec::new();
    let mut rest = data;
    for cut in cuts {
        let (piece, more) = rest.split_at((*cut).min(rest.len()));
        pieces.push(piece);
        rest = more;
    }
    pieces.push(rest);
    assert_eq!(scanned(pieces, trusted), expected);
}

// ------------------------------------------------------------------------------------------------------ inputs

fn encoded(args: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn argument() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..12),
        2 => prop::collection::vec(prop::sample::select(b"\r\n$*019 \"'\\x".to_vec()), 0..12),
        1 => prop::collection::vec(any::<u8>(), 90..130),
    ]
}

fn valid_request() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::collection::vec(argument(), 0..6).prop_map(|args| encoded(&args)),
        1 => prop::collection::vec(argument(), 9..13).prop_map(|args| encoded(&args)),
        2 => "[ a-zA-Z0-9]{0,12}\r?\n".prop_map(String::into_bytes),
    ]
}

fn valid_stream() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(valid_request(), 0..5).prop_map(|requests| requests.concat())
}

/// One small damage: a byte changed, added, taken away, or the end cut off.
fn damaged_stream() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => any::<u8>(),
        4 => prop::sample::select(b"\r\n$*-+0123456789 \"'".to_vec()),
    ];
    (valid_stream(), any::<prop::sample::Index>(), byte, 0..4u8).prop_map(
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

/// Pieces of protocol in any order.
fn hostile_stream() -> impl Strategy<Value = Vec<u8>> {
    let tokens: Vec<&[u8]> = vec![
        b"*",
        b"$",
        b"*1\r\n",
        b"*2\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"$0\r\n\r\n",
        b"$1\r\na\r\n",
        b"$3\r\nGET\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b"0",
        b"1",
        b"9",
        b"-1",
        b"-",
        b"+1",
        b"00",
        b"01",
        b" ",
        b"a",
        b"\"",
        b"'",
        b"\\",
        b"\0",
        b"99999999",
        b"123456789",
        b"536870912\r\n",
        b"536870913\r\n",
        b"1048576\r\n",
        b"1048577\r\n",
        b"16384\r\n",
        b"16385\r\n",
        b"10\r\n",
        b"11\r\n",
        b"2147483648\r\n",
        b"9223372036854775807\r\n",
        b"9223372036854775808\r\n",
        b"-9223372036854775808\r\n",
        b"18446744073709551616\r\n",
        b"ping\r\n",
        b"\xff",
        b"\x80",
    ];
    prop::collection::vec(prop::sample::select(tokens), 0..14).prop_map(|tokens| tokens.concat())
}

fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![valid_stream(), damaged_stream(), hostile_stream()]
}

// --------------------------------------------------------------------------------------------------- properties

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn every_cut_gives_what_the_twin_gives(stream in any_stream(), trusted in any::<bool>()) {
        compare_all_cuts(&stream, trusted);
    }

    #[test]
    fn random_pieces_give_what_the_twin_gives(
        streams in prop::collection::vec(any_stream(), 1..8),
        cuts in prop::collection::vec(0usize..40, 0..30),
        trusted in any::<bool>(),
    ) {
        compare_cuts(&streams.concat(), trusted, &cuts);
    }

    #[test]
    fn numbers_are_read_as_the_twin_reads_them(
        number in any::<i64>(),
        text in prop_oneof!["[-+0-9]{0,22}", "-?[1-9][0-9]{17,19}"],
    ) {
        prop_assert_eq!(strict_integer(number.to_string().as_bytes()), Some(number));
        prop_assert_eq!(strict_integer(text.as_bytes()), naive_number(text.as_bytes()));
    }
}

// ------------------------------------------------------------------------------------------------------- bounds

/// Redis' own words, as people grep for them.
#[test]
fn errors_say_what_redis_says() {
    let cases: [(&[u8], bool, &str); 12] = [
        (b"*1048577\r\n", true, "invalid multibulk length"),
        (b"*x\r\n", true, "invalid multibulk length"),
        (b"*11\r\n", false, "unauthenticated multibulk length"),
        (b"*1\r\n$-1\r\n", true, "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", true, "invalid bulk length"),
        (b"*1\r\n$03\r\n", true, "invalid bulk length"),
        (b"*1\r\n$16385\r\n", false, "unauthenticated bulk length"),
        (b"*1\r\n:1\r\n", true, "expected '$', got ':'"),
        (b"*1\r\n\x01", true, "expected '$', got '?'"),
        (b"get \"a\r\n", true, "unbalanced quotes in request"),
        (
            b"*99999999999999999999\r\n",
            true,
            "invalid multibulk length",
        ),
        (b"*+1\r\n", true, "invalid multibulk length"),
    ];
    for (data, trusted, words) in cases {
        compare_all_cuts(data, trusted);
        let error = scanned([data], trusted).error;
        let text = error.map(ProtocolError::text);
        assert_eq!(
            text,
            Some(format!("ERR Protocol error: {words}")),
            "{data:?}"
        );
    }
}

#[test]
fn lines_without_an_end_are_refused_at_the_bound_and_not_before() {
    for (head, error) in [
        (&b"*"[..], ProtocolError::CountTooLong),
        (b"*1\r\n$", ProtocolError::BulkCountTooLong),
        (b"", ProtocolError::InlineTooLong),
    ] {
        for filler in [b'1', b' ', b'x'] {
            for extra in [-1i32, 0, 1] {
                let size = (INLINE_MAX as i32 + extra) as usize;
                let mut data = head.to_vec();
                data.resize(head.len() + size, filler);
                let expected = (extra >= 0).then_some(error);
                assert_eq!(
                    naive_stream(&data, true).error,
                    expected,
                    "{head:?} {extra}"
                );
                for cuts in [
                    vec![],
                    vec![1; 9],
                    vec![INLINE_MAX / 2],
                    vec![size - 2, 1, 1],
                ] {
                    compare_cuts(&data, true, &cuts);
                }
                for end in [&b"\n"[..], b"\r\n", b"\r"] {
                    let ended = [data.as_slice(), end].concat();
                    compare_cuts(&ended, true, &[]);
                    compare_cuts(&ended, true, &[data.len() - 1, 1, 1]);
                }
            }
        }
    }
}

#[test]
fn announcements_allocate_nothing() {
    let mut scanner = RequestScanner::default();
    assert_eq!(scanner.scan(b"*1048576\r\n", true), Scan::Partial);
    assert!(scanner.is_midway());
    assert_eq!(
        scanner.args.capacity(),
        0,
        "a million arguments were announced, none came"
    );
    let mut data = b"*1048576\r\n".to_vec();
    for _ in 0..100 {
        data.extend_from_slice(b"$536870912\r\n");
        assert_eq!(scanner.scan(&data, true), Scan::Partial);
        assert_eq!(scanner.args.capacity(), 0);
        data.truncate(10);
    }
    for _ in 0..100 {
        data.extend_from_slice(b"$1\r\nx\r\n");
    }
    assert_eq!(scanner.scan(&data, true), Scan::Partial);
    assert_eq!(scanner.args.len(), 100);
    assert!(
        scanner.args.capacity() <= 256,
        "memory follows what came, not what was announced"
    );
}

#[test]
fn a_million_arguments_are_taken_and_their_memory_is_given_back() {
    let mut data = format!("*{REQUEST_ARGS_MAX}\r\n").into_bytes();
    for _ in 0..REQUEST_ARGS_MAX {
        data.extend_from_slice(b"$1\r\nx\r\n");
    }
    let mut scanner = RequestScanner::default();
    for end in (0..data.len()).step_by(64 * 1024) {
        assert_eq!(scanner.scan(&data[..end], true), Scan::Partial);
    }
    assert_eq!(scanner.scan(&data, true), Scan::Whole(data.len()));
    assert_eq!(scanner.args.len(), REQUEST_ARGS_MAX);
    scanner.reset();
    assert_eq!(scanner.args.capacity(), 0, "a giant's memory is not kept");
}

/// The buffer is as large as the request, but nobody writes to it and the scanner does not look inside.
#[test]
fn the_largest_argument_is_taken_and_one_beyond_the_whole_is_not() {
    let head = format!("*3\r\n${BULK_MAX}\r\n").into_bytes();
    let second = head.len() + BULK_MAX + 2;
    let mut data = vec![0; second + 64];
    data[..head.len()].copy_from_slice(&head);
    let mut scanner = RequestScanner::default();
    assert_eq!(scanner.scan(&data[..head.len()], true), Scan::Partial);
    assert_eq!(scanner.scan(&data[..second - 1], true), Scan::Partial);
    assert_eq!(scanner.scan(&data[..second], true), Scan::Partial);
    assert_eq!(scanner.args.len(), 1);
    assert_eq!(scanner.args[0].len as usize, BULK_MAX);
    let announced = format!("${BULK_MAX}\r\n").into_bytes();
    data[second..second + announced.len()].copy_from_slice(&announced);
    let expected = Scan::Invalid(ProtocolError::RequestTooLarge);
    assert_eq!(scanner.scan(&data, true), expected);
    assert_eq!(
        RequestScanner::default().scan(&data, true),
        expected,
        "the same in one piece"
    );
}

/// A scan that began anew with each piece would take the square of this: some ten minutes.
#[test]
fn a_large_request_in_tiny_pieces_costs_linear_time() {
    const ARGS: usize = 200_000;
    let mut data = format!("*{ARGS}\r\n").into_bytes();
    for _ in 0..ARGS {
        data.extend_from_slice(b"$1\r\nx\r\n");
    }
    let begin = Instant::now();
    let mut scanner = RequestScanner::default();
    for end in (1..data.len()).step_by(3) {
        assert_eq!(scanner.scan(&data[..end], true), Scan::Partial);
        if begin.elapsed() > Duration::from_secs(20) {
            panic!("still at {end} of {} bytes", data.len());
        }
    }
    assert_eq!(scanner.scan(&data, true), Scan::Whole(data.len()));
}
