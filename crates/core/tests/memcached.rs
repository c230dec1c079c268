//! Scanning memcached's requests and replies against naive twins, over all splits; and which requests servers never see.
//!
//! The twins read whole texts with `split` and know nothing of pieces. What is expected of a malformed request is what
//! memcached 1.6 answers to it, asked by hand.

use proptest::prelude::*;
use shoal_core::limits::{TEXT_KEYS_LINE_MAX, TEXT_LINE_MAX};
use shoal_core::protocol::memcached::line::lacks_meta;
use shoal_core::protocol::memcached::reply::TextReplyScanner;
use shoal_core::protocol::memcached::request::{bytes, meta_key, Fault, Scan, TextScanner};

/// Length of each whole reply, and whether the stream ended in something else.
fn scan_replies<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<usize>, bool) {
    let mut scanner = TextReplyScanner::default();
    let (mut tail, mut replies, mut current) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        tail.extend_from_slice(piece);
        let mut at = 0;
        while at < tail.len() {
            let Ok(progress) = scanner.scan(&tail[at..]) else {
                return (replies, true);
            };
            at += progress.used;
            current += progress.used;
            if progress.done {
                replies.push(current);
                current = 0;
            } else if progress.used == 0 {
                break;
            }
        }
        tail.drain(..at);
    }
    (replies, false)
}

/// One request from the beginning: its words and whether it is mute, or the answer; with its length.
type Found = (usize, Result<(Vec<Vec<u8>>, bool), Vec<u8>>);

fn scan_requests<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Found>, Option<Fault>) {
    let mut scanner = TextScanner::default();
    let (mut waiting, mut found) = (Vec::new(), Vec::new());
    for piece in pieces {
        waiting.extend_from_slice(piece);
        while !waiting.is_empty() {
            let used = match scanner.scan(&waiting) {
                Scan::Partial => break,
                Scan::Whole { len, is_mute, .. } => {
                    let words = scanner
                        .words
                        .iter()
                        .map(|word| bytes(&waiting, *word).to_vec());
                    found.push((len, Ok((words.collect(), is_mute))));
                    len
                }
                Scan::Refused { len, line, .. } => {
                    found.push((len, Err(line.to_vec())));
                    len
                }
                Scan::Close(fault) => return (found, Some(fault)),
            };
            waiting.drain(..used);
        }
    }
    (found, None)
}

fn any_reply() -> impl Strategy<Value = Vec<u8>> {
    let data = prop::collection::vec(any::<u8>(), 0..40);
    let value = (data.clone(), any::<bool>()).prop_map(|(data, unique)| {
        let unique = if unique { " 77" } else { "" };
        let line = format!("VALUE some:key 5 {}{unique}\r\n", data.len());
        [line.as_bytes(), &data, b"\r\n"].concat()
    });
    prop_oneof![
        Just(b"STORED\r\n".to_vec()),
        Just(b"END\r\n".to_vec()),
        Just(b"17\r\n".to_vec()),
        Just(b"HD kab O12\r\n".to_vec()),
        Just(b"STAT pid 1\r\nSTAT empty \r\nEND\r\n".to_vec()),
        Just(b"SERVER_ERROR out of memory\r\n".to_vec()),
        data.prop_map(|data| {
            [
                format!("VA {} s1 t-1\r\n", data.len()).as_bytes(),
                &data,
                b"\r\n",
            ]
            .concat()
        }),
        (prop::collection::vec(value, 1..4), any::<bool>()).prop_map(|(values, ends_well)| {
            let end: &[u8] = if ends_well {
                b"END\r\n"
            } else {
                b"SERVER_ERROR gone\r\n"
            };
            [values.concat().as_slice(), end].concat()
        }),
    ]
}

fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        "[a-z]{1,6}",
        "(get|gets|gat|set|cas|delete|incr|touch|mg|ms|ma|mn|flush_all|verbosity|stats|version)",
        "[0-9]{1,3}",
        "(noreply|-1|q|v|b|k|O9|MS|T0|YWI=|0)",
    ];
    let line = prop::collection::vec(word, 0..8).prop_map(|words| words.join(" ").into_bytes());
    let store = (
        "(set|add|ms)",
        prop::collection::vec(any::<u8>(), 0..30),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(name, data, is_long, is_quiet)| {
            let size = data.len();
            let line = match (name.as_str(), is_quiet) {
                ("ms", false) => format!("ms key {size}\r\n"),
                ("ms", true) => format!("ms key {size} q\r\n"),
                (name, false) => format!("{name} key 0 0 {size}\r\n"),
                (name, true) => format!("{name} key 0 0 {size} noreply\r\n"),
            };
            let more: &[u8] = if is_long { b"x\r\n" } else { b"\r\n" };
            [line.as_bytes(), &data, more].concat()
        });
    prop_oneof![
        line.prop_map(|line| [line.as_slice(), b"\r\n"].concat()),
        store
    ]
}

proptest! {
    #[test]
    fn replies_end_where_they_end_however_they_are_cut(
        replies in prop::collection::vec(any_reply(), 1..6), cut in any::<prop::sample::Index>(),
    ) {
        let stream = replies.concat();
        let lengths: Vec<usize> = replies.iter().map(Vec::len).collect();
        prop_assert_eq!(scan_replies([&stream[..]]), (lengths.clone(), false));
        prop_assert_eq!(scan_replies(stream.chunks(1)), (lengths.clone(), false));
        let (one, two) = stream.split_at(cut.index(stream.len()));
        prop_assert_eq!(scan_replies([one, two]), (lengths, false));
    }

    #[test]
    fn damaged_replies_are_found_out_alike_however_they_are_cut(
        stream in prop::collection::vec(prop_oneof![any_reply(), prop::collection::vec(any::<u8>(), 1..9)], 1..5),
    ) {
        let stream = stream.concat();
        prop_assert_eq!(scan_replies(stream.chunks(1)), scan_replies([&stream[..]]));
    }

    #[test]
    fn requests_are_the_same_however_they_are_cut(
        requests in prop::collection::vec(any_request(), 1..6), cut in any::<prop::sample::Index>(),
    ) {
        let stream = requests.concat();
        let whole = scan_requests([&stream[..]]);
        prop_assert_eq!(&scan_requests(stream.chunks(1)), &whole);
        let (one, two) = stream.split_at(cut.index(stream.len()));
        prop_assert_eq!(&scan_requests([one, two]), &whole);
    }

    /// What is let through is read by the obvious reader as one request too: a line, and as much data as it says.
    #[test]
    fn what_is_let_through_is_one_request(requests in prop::collection::vec(any_request(), 1..6)) {
        let stream = requests.concat();
        let mut at = 0;
        for (len, found) in scan_requests([&stream[..]]).0 {
            let request = String::from_utf8_lossy(&stream[at..at + len]).into_owned();
            at += len;
            let Ok((words, _)) = found else { continue };
            let words: Vec<String> = words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            let size: Option<usize> = match words[0].as_str() {
                "set" | "add" | "cas" => Some(words[4].parse().expect("a size")),
                "ms" => Some(words[2].parse().expect("a size")),
                _ => None,
            };
            let line = request.split("\r\n").next().map_or(0, str::len) + 2;
            prop_assert_eq!(len, line + size.map_or(0, |size| size + 2));
            prop_assert!(words[0].starts_with('m') || words[0].starts_with("get") || words[0] == "delete"
                || words[0].starts_with("gat") || words.last().map(String::as_str) != Some("noreply")
                || words.len() <= 2, "{:?} could be answered with silence", words);
        }
    }
}

/// Answers of memcached 1.6.18 to the same bytes.
#[test]
fn malformed_requests_are_answered_as_by_a_server() {
    let long = "k".repeat(251);
    let cases: &[(String, &[&str])] = &[
        ("\r\n".into(), &["ERROR"]),
        ("GET a\r\n".into(), &["ERROR"]),
        ("get\r\n".into(), &["ERROR"]),
        (
            format!("get a {long}\r\n"),
            &["CLIENT_ERROR bad command line format"],
        ),
        (
            "gat x a\r\n".into(),
            &["CLIENT_ERROR invalid exptime argument"],
        ),
        (
            "set a 0 0 1\r\nxyz\r\n".into(),
            &["CLIENT_ERROR bad data chunk", "ERROR"],
        ),
        (
            "set a 0 0 -1\r\n".into(),
            &["CLIENT_ERROR bad command line format"],
        ),
        (
            "set a 0 0 x\r\nfoo\r\n".into(),
            &["CLIENT_ERROR bad command line format", "ERROR"],
        ),
        ("set a 0 0\r\n".into(), &["ERROR"]),
        (
            format!("set {long} 0 0 1\r\nx\r\n"),
            &["CLIENT_ERROR bad command line format", "ERROR"],
        ),
        (
            "delete a 1\r\n".into(),
            &["CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]"],
        ),
        (
            "incr a x\r\n".into(),
            &["CLIENT_ERROR invalid numeric delta argument"],
        ),
        (
            "incr a -1\r\n".into(),
            &["CLIENT_ERROR invalid numeric delta argument"],
        ),
        (
            "touch a x\r\n".into(),
            &["CLIENT_ERROR invalid exptime argument"],
        ),
        (
            "flush_all x\r\n".into(),
            &["CLIENT_ERROR invalid exptime argument"],
        ),
        ("verbosity\r\n".into(), &["ERROR"]),
        ("mg\r\n".into(), &["ERROR"]),
        ("mg a v v\r\n".into(), &["CLIENT_ERROR duplicate flag"]),
        (
            "mg Y%== b v\r\n".into(),
            &["CLIENT_ERROR error decoding key"],
        ),
        (
            "ms a -1\r\n".into(),
            &["CLIENT_ERROR bad command line format"],
        ),
        ("ms a 1 W\r\nx\r\n".into(), &["CLIENT_ERROR invalid flag"]),
        // Servers take some of these lines: their data must not become requests because we do not.
        (
            "set a\tb 0 0 9\r\nflush_all\r\n".into(),
            &["CLIENT_ERROR bad command line format"],
        ),
        (
            "set a 4294967296 0 9\r\nflush_all\r\n".into(),
            &["CLIENT_ERROR bad command line format"],
        ),
        (
            "set a 0 99999999999 9\r\nflush_all\r\n".into(),
            &["CLIENT_ERROR bad command line format"],
        ),
        (
            "set a 0 0 +9\r\nflush_all\r\n".into(),
            &["CLIENT_ERROR bad command line format"],
        ),
        (
            "cas a\0 0 0 9 1\r\nflush_all\r\n".into(),
            &["CLIENT_ERROR bad command line format"],
        ),
        (
            "ms a\tb 9\r\nflush_all\r\n".into(),
            &["CLIENT_ERROR bad command line format"],
        ),
        (
            "ms a +9\r\nflush_all\r\n".into(),
            &["CLIENT_ERROR bad command line format"],
        ),
        (
            "ms a 1 MX\r\nx\r\n".into(),
            &["CLIENT_ERROR invalid mode for ms M token"],
        ),
        (
            "ms a 1 Tx\r\nx\r\n".into(),
            &["CLIENT_ERROR bad token in command line format"],
        ),
        ("*1\r\n$4\r\nPING\r\n".into(), &["ERROR", "ERROR", "ERROR"]),
    ];
    for (stream, expected) in cases {
        let (found, fault) = scan_requests([stream.as_bytes()]);
        assert_eq!(fault, None, "{stream}");
        let lines: Vec<String> = found
            .into_iter()
            .map(|(_, answer)| String::from_utf8(answer.expect_err(stream)).expect("text"))
            .collect();
        let expected: Vec<String> = expected.iter().map(|line| format!("{line}\r\n")).collect();
        assert_eq!(lines, expected, "{stream}");
    }
}

#[test]
fn who_speaks_something_else_is_sent_away() {
    let faults = [
        (b"\x80\x01\x00".to_vec(), Fault::Binary),
        (b"POST / HTTP/1.1\r\nHost: x\r\n".to_vec(), Fault::Http),
        (vec![b'x'; TEXT_LINE_MAX + 2], Fault::LineTooLong),
        (
            [b"get ".as_slice(), &vec![b'x'; TEXT_KEYS_LINE_MAX]].concat(),
            Fault::LineTooLong,
        ),
        // A server closes a connection with so much in one line, and other clients use it too.
        (
            [b"gat 0 ".as_slice(), &b"k ".repeat(TEXT_LINE_MAX)].concat(),
            Fault::LineTooLong,
        ),
        (b"set a 0 0 600000000\r\n".to_vec(), Fault::ValueTooLarge),
        (b"ms a 600000000 W\r\n".to_vec(), Fault::ValueTooLarge),
        (b"set a\tb 0 0 600000000\r\n".to_vec(), Fault::ValueTooLarge),
    ];
    for (stream, fault) in faults {
        assert_eq!(scan_requests([&stream[..]]).1, Some(fault));
        assert_eq!(scan_requests(stream.chunks(999)).1, Some(fault));
    }
}

/// A server would take the last word of some of these for `noreply` and stay silent.
#[test]
fn a_server_never_sees_noreply() {
    let cases: &[(&str, &[&str], bool)] = &[
        (
            "set a 0 0 1 noreply\r\nx\r\n",
            &["set", "a", "0", "0", "1"],
            true,
        ),
        (
            "set a 0 0 1 other\r\nx\r\n",
            &["set", "a", "0", "0", "1"],
            false,
        ),
        ("delete noreply\r\n", &["delete", "noreply"], false),
        ("delete a 0 noreply\r\n", &["delete", "a"], true),
        ("incr a 1 noreply\r\n", &["incr", "a", "1"], true),
        ("touch a 1 x\r\n", &["touch", "a", "1"], false),
        ("flush_all noreply\r\n", &["flush_all"], true),
        ("flush_all 5 noreply\r\n", &["flush_all", "5"], true),
        ("verbosity 1 noreply\r\n", &["verbosity", "1"], true),
    ];
    for (stream, words, is_mute) in cases {
        let (found, _) = scan_requests([stream.as_bytes()]);
        let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        assert_eq!(found, [(stream.len(), Ok((words, *is_mute)))], "{stream}");
    }
}

#[test]
fn the_key_of_a_meta_command_is_what_it_stands_for() {
    for (line, key) in [("mg Zm9v v b", "foo"), ("mg Zm9v v", "Zm9v"), ("mn", "")] {
        let mut scanner = TextScanner::default();
        let line = format!("{line}\r\n");
        assert!(matches!(scanner.scan(line.as_bytes()), Scan::Whole { .. }));
        assert_eq!(*meta_key(line.as_bytes(), &scanner.words), *key.as_bytes());
    }
}

#[test]
fn servers_that_have_no_meta_commands_are_known_by_their_version() {
    for old in ["1.4.15", "1.5.22-rc1", "1.6.9", "0.9.0"] {
        assert!(lacks_meta(format!("VERSION {old}\r\n").as_bytes()), "{old}");
    }
    for other in [
        "1.6.10",
        "1.6.18",
        "1.7.0",
        "2.0.1",
        "37.0.0 mcrouter",
        "unknown",
        "",
    ] {
        assert!(
            !lacks_meta(format!("VERSION {other}\r\n").as_bytes()),
            "{other}"
        );
    }
}
