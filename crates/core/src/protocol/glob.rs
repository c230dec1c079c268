//! Patterns as the servers match channels, keys and ACL rules with them: `*`, `?`, `[a-z]`, `[^x]`, `\` before anything.
//!
//! Owns: one function. A pattern is not compiled: each is matched against one text, and read where it stands.
//!
//! Must stay true: the verdict is a server's for any bytes, also where patterns are odd: a class without its end goes on to
//! the pattern's, `[]` matches nothing, `[^]` anything, ranges may be written backwards, and an empty text is matched by
//! the empty pattern alone. Time is at most the product of both lengths, without a stack: a star that is met makes every
//! earlier one final, because what the earlier could still reach the later reaches too.
//! Rejected: the regex library (a pattern would have to be translated, byte for byte, and compiled for one use); the
//! servers' own recursion, which was exponential for years.

/// Whether a pattern matches the whole of a text.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut at, mut read) = (0, 0);
    // Behind the last star, and the first byte that it has not swallowed.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(read) {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                star = Some((at, read));
                continue;
            }
            Some(_) => {
                let (is_hit, next) = one(pattern, at, byte);
                if is_hit {
                    at = next;
                    read += 1;
                    continue;
                }
            }
            None => {}
        }
        let Some((behind, swallowed)) = star else {
            return false;
        };
        if behind == pattern.len() {
            return true;
        }
        star = Some((behind, swallowed + 1));
        (at, read) = (behind, swallowed + 1);
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

/// Whether what stands at a place of the pattern matches one byte, and where the pattern goes on.
fn one(pattern: &[u8], at: usize, byte: u8) -> (bool, usize) {
    match pattern[at..] {
        [b'?', ..] => (true, at + 1),
        [b'[', ..] => class(pattern, at + 1, byte),
        [b'\\', escaped, ..] => (escaped == byte, at + 2),
        [literal, ..] => (literal == byte, at + 1),
        [] => (false, at),
    }
}

/// The same for a class, from behind its bracket.
fn class(pattern: &[u8], mut at: usize, byte: u8) -> (bool, usize) {
    let is_negated = pattern.get(at) == Some(&b'^');
    at += usize::from(is_negated);
    let mut is_in = false;
    loop {
        match pattern[at..] {
            [b'\\', escaped, ..] => {
                is_in |= escaped == byte;
                at += 2;
            }
            [b']', ..] => return (is_in != is_negated, at + 1),
            [] => return (is_in != is_negated, at),
            [first, b'-', last, ..] => {
                is_in |= (first.min(last)..=first.max(last)).contains(&byte);
                at += 3;
            }
            [member, ..] => {
                is_in |= member == byte;
                at += 1;
            }
        }
    }
}
