//! The short way for the lines that nearly all traffic of memcached is made of.
//!
//! Owns: `TextScanner::usual`, which reads such a line once where the general scanner reads it four times.
//!
//! Must stay true: what it finds is what the general scanner finds, which is its slow twin; wherever there is anything to
//! refuse, to rewrite or to wait for, it leaves the decision to that one.

use crate::limits::{TEXT_KEY_MAX, TEXT_VALUE_MAX};
use crate::protocol::memcached::command::{find, Shape};
use crate::protocol::memcached::number::{signed, size, unsigned};
use crate::protocol::memcached::request::{bytes, Scan, TextScanner, Word};

/// No usual line is longer: a name, a key and three numbers.
const USUAL_LINE_MAX: usize = 2 * TEXT_KEY_MAX;

impl TextScanner {
    /// The lines that nearly all traffic is made of, `name key` and `name key flags exptime bytes`, in one pass. None: it takes a
    /// closer look, which then decides everything anew.
    #[inline]
    pub(super) fn usual(&mut self, data: &[u8]) -> Option<Scan> {
        let mut words = [Word { start: 0, len: 0 }; 5];
        let mut count = 0;
        let mut start = 0;
        let mut at = 0;
        loop {
            let byte = *data.get(at)?;
            if byte > b' ' && byte != 0x7f {
                at += 1;
                continue;
            }
            let word = words.get_mut(count)?;
            *word = Word {
                start: start as u32,
                len: (at - start) as u32,
            };
            count += 1;
            at += 1;
            if byte != b' ' || at == start + 1 {
                break;
            }
            start = at;
        }
        let line = at - 1;
        if data[line] != b'\r' || *data.get(at)? != b'\n' || line == start || line > USUAL_LINE_MAX
        {
            return None;
        }
        let words = &words[..count];
        let word = |index: usize| bytes(data, words[index]);
        let command = find(word(0))?;
        let block = at + 1;
        let mut len = block;
        match (command.shape, count) {
            (Shape::Keys, 2) => {}
            (Shape::Store, 5) => {
                len += size(word(4)).filter(|&size| size <= TEXT_VALUE_MAX)? + 2;
                let is_good = unsigned(word(2)).is_some_and(|flags| flags <= u64::from(u32::MAX))
                    && signed(word(3)).is_some()
                    && data.get(len - 2..len)? == b"\r\n";
                if !is_good {
                    return None;
                }
            }
            _ => return None,
        }
        if words[1].len as usize > TEXT_KEY_MAX {
            return None;
        }
        self.words.clear();
        self.words.extend_from_slice(words);
        Some(Scan::Whole {
            len,
            line,
            block,
            command,
            is_mute: false,
            is_rewritten: false,
        })
    }
}
