//! Replies: however the bytes are cut, the same replies are counted; and what the scanner takes for one whole reply is one
//! for the merger too, which reads more strictly but never further.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_core::protocol::reply::ReplyScanner;
use shoal_core::protocol::subscription;
use shoal_core::routing::merge::element_len;

/// Length of each reply, and whether the stream ended in something else.
fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<usize>, bool) {
    let mut scanner = ReplyScanner::default();
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
                assert!(scanner.is_between());
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

fuzz_target!(|input: &[u8]| {
    let [a, b, data @ ..] = input else { return };
    let whole = scan([data]);
    let mut cuts = [a, b].map(|cut| usize::from(*cut) * data.len() / 256);
    cuts.sort_unstable();
    let [a, b] = cuts;
    assert_eq!(scan([&data[..a], &data[a..b], &data[b..]]), whole);
    assert_eq!(scan(data.chunks(1)), whole);
    let mut at = 0;
    for length in whole.0 {
        // Whatever is pushed, what is read of it lies within it.
        if let Some(subscription::Push::Message { name, channel, text, .. }) =
            subscription::read(&data[at..at + length])
        {
            assert!(name.len() < length && channel.len() < length && text.len() < length);
        }
        if let Some(strict) = element_len(&data[at..]) {
            assert_eq!(
                strict, length,
                "two readers of one reply disagree about its end"
            );
        }
        at += length;
    }
});
