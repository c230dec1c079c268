//! The memcached protocol: however requests and replies are cut, the same ones are found; and no request that is let through
//! could be answered with silence.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_core::protocol::memcached::reply::TextReplyScanner;
use shoal_core::protocol::memcached::request::{Scan, TextScanner};

fn replies<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<usize>, bool) {
    let mut scanner = TextReplyScanner::default();
    let (mut tail, mut replies, mut current) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        tail.extend_from_slice(piece);
        let mut at = 0;
        while at < tail.len() {
            let Ok(progress) = scanner.scan(&tail[at..]) else {
                return (replies, true);
            };
            assert!(progress.used <= tail.len() - at);
            assert!(progress.used > 0 || !progress.done);
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

fn requests<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Scan> {
    let mut scanner = TextScanner::default();
    let (mut waiting, mut found) = (Vec::new(), Vec::new());
    for piece in pieces {
        waiting.extend_from_slice(piece);
        while !waiting.is_empty() {
            let scan = scanner.scan(&waiting);
            let used = match scan {
                Scan::Partial => break,
                Scan::Whole { len, line, block, .. } => {
                    assert!(line < block && block <= len && len <= waiting.len());
                    len
                }
                Scan::Refused { len, .. } => len,
                Scan::Close(_) => {
                    found.push(scan);
                    return found;
                }
            };
            found.push(scan);
            waiting.drain(..used);
        }
    }
    found
}

fuzz_target!(|input: &[u8]| {
    assert_eq!(replies(input.chunks(1)), replies([input]));
    assert_eq!(requests(input.chunks(1)), requests([input]));
});
