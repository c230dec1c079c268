//! Requests: however the bytes are cut, the same requests come out, and what was announced takes no memory.
//!
//! The first byte says whether the client is trusted, the next four where the cuts are. `tests/request.rs` compares with a
//! naive twin as well; here the scanner is its own twin, at another cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_core::protocol::request::{ProtocolError, RequestScanner, Scan};

/// Length and arguments of each request, and the error that ended them.
#[derive(Debug, Default, PartialEq)]
struct Found {
    requests: Vec<(usize, Vec<Vec<u8>>)>,
    error: Option<ProtocolError>,
}

fn scan(pieces: &[&[u8]], trusted: bool) -> Found {
    let mut scanner = RequestScanner::default();
    let mut buffer = Vec::new();
    let mut found = Found::default();
    let mut came = 0;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let (used, args) = match scanner.scan(&buffer, trusted) {
                Scan::Whole(len) => {
                    let args = scanner.args.iter().map(|arg| arg.of(&buffer).to_vec());
                    (len, args.collect())
                }
                Scan::Inline { line, len } => {
                    assert!(line < len && len <= buffer.len());
                    (len, vec![buffer[..line].to_vec()])
                }
                Scan::Partial => break,
                Scan::Invalid(error) => {
                    found.error = Some(error);
                    return found;
                }
            };
            assert!(used > 0 && used <= buffer.len());
            found.requests.push((used, args));
            scanner.reset();
            buffer.drain(..used);
        }
        came += piece.len();
        assert!(
            scanner.args.capacity() <= 4 + 2 * came,
            "memory for what did not come"
        );
    }
    found
}

fuzz_target!(|input: &[u8]| {
    let [trusted, a, b, c, d, data @ ..] = input else {
        return;
    };
    let trusted = trusted % 2 == 1;
    let whole = scan(&[data], trusted);
    let mut cuts = [a, b, c, d].map(|cut| usize::from(*cut) * data.len() / 256);
    cuts.sort_unstable();
    let [a, b, c, d] = cuts;
    let pieces = [
        &data[..a],
        &data[a..b],
        &data[b..c],
        &data[c..d],
        &data[d..],
    ];
    assert_eq!(scan(&pieces, trusted), whole);
    let bytes: Vec<&[u8]> = data.chunks(1).collect();
    assert_eq!(scan(&bytes, trusted), whole);
});
