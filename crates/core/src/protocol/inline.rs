//! Inline commands: a line of words instead of RESP, as typed into telnet.
//!
//! Owns: how such a line falls into arguments. The scanner finds the line's end, `split` yields owned arguments (quotes
//! and escapes make them differ from the bytes that came), and from there the request is treated like any other.
//!
//! Must stay true: the same line gives the same arguments as on a Redis server, oddities included, because people try
//! on a server what they then send through us: a quote may open in the middle of a word, a closing quote must be
//! followed by white space or the end, vertical tab and form feed separate words only before a word begins. One
//! exception: a NUL byte, at which some servers cut the line and others wait for ever, is refused, since half a key may
//! be another key. One pass; every byte is looked at a bounded number of times.
//!
//! Rejected: a shell-like splitter from a crate. None has exactly these rules.

use std::fmt;

/// Quotes that do not close, or close in the middle of a word: `-ERR Protocol error: unbalanced quotes in request`.
/// A NUL byte counts as one that never closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unbalanced;

impl fmt::Display for Unbalanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unbalanced quotes in request")
    }
}

impl std::error::Error for Unbalanced {}

/// Splits a line (with or without its line end) into arguments.
///
/// `out` is emptied first; an empty line gives no arguments. On failure `out` is left empty.
pub fn split(line: &[u8], out: &mut Vec<Vec<u8>>) -> Result<(), Unbalanced> {
    out.clear();
    if line.contains(&0) {
        return Err(Unbalanced);
    }
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(|&byte| is_space(byte)) {
            at += 1;
        }
        if at >= line.len() {
            return Ok(());
        }
        match word(line, at) {
            Ok((argument, after)) => {
                out.push(argument);
                at = after;
            }
            Err(unbalanced) => {
                out.clear();
                return Err(unbalanced);
            }
        }
    }
}

/// C's `isspace` in the C locale, which the servers use between words.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// Reads the word that begins at `at`; gives it and the position after it.
fn word(line: &[u8], mut at: usize) -> Result<(Vec<u8>, usize), Unbalanced> {
    let mut argument = Vec::new();
    loop {
        match line.get(at) {
            // Fewer kinds than `is_space`: so do the servers.
            None | Some(b' ' | b'\t' | b'\n' | b'\r') => return Ok((argument, at)),
            Some(b'"') => {
                let after = double_quoted(line, at + 1, &mut argument)?;
                return closed(line, after, argument);
            }
            Some(b'\'') => {
                let after = single_quoted(line, at + 1, &mut argument)?;
                return closed(line, after, argument);
            }
            Some(&byte) => {
                argument.push(byte);
                at += 1;
            }
        }
    }
}

/// Ends a quoted word: white space or the line's end must follow.
fn closed(line: &[u8], after: usize, argument: Vec<u8>) -> Result<(Vec<u8>, usize), Unbalanced> {
    match line.get(after) {
        Some(&byte) if !is_space(byte) => Err(Unbalanced),
        _ => Ok((argument, after)),
    }
}

/// Appends what stands between double quotes, escapes resolved; gives the position after the closing quote.
fn double_quoted(line: &[u8], mut at: usize, argument: &mut Vec<u8>) -> Result<usize, Unbalanced> {
    loop {
        match &line[at.min(line.len())..] {
            [] => return Err(Unbalanced),
            [b'"', ..] => return Ok(at + 1),
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                argument.push(hex_value(*high) << 4 | hex_value(*low));
                at += 4;
            }
            [b'\\', escaped, ..] => {
                argument.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    &other => other,
                });
                at += 2;
            }
            [byte, ..] => {
                argument.push(*byte);
                at += 1;
            }
        }
    }
}

/// Appends what stands between single quotes; gives the position after the closing quote.
fn single_quoted(line: &[u8], mut at: usize, argument: &mut Vec<u8>) -> Result<usize, Unbalanced> {
    loop {
        match &line[at.min(line.len())..] {
            [] => return Err(Unbalanced),
            [b'\'', ..] => return Ok(at + 1),
            [b'\\', b'\'', ..] => {
                argument.push(b'\'');
                at += 2;
            }
            [byte, ..] => {
                argument.push(*byte);
                at += 1;
            }
        }
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, Unbalanced> {
        let mut out = vec![b"left over".to_vec()];
        let result = split(line, &mut out);
        assert!(result.is_ok() || out.is_empty());
        result.map(|()| out)
    }

    /// What a Redis server made of these lines when asked (ECHO).
    #[test]
    fn same_as_a_server() {
        let cases: [(&[u8], Option<&[&[u8]]>); 22] = [
            (b"", Some(&[])),
            (b" \t\r\n", Some(&[])),
            (b"echo a", Some(&[b"echo", b"a"])),
            (b"  echo\ta \r\n", Some(&[b"echo", b"a"])),
            (b"echo \"a b\"", Some(&[b"echo", b"a b"])),
            (b"echo 'a b'", Some(&[b"echo", b"a b"])),
            (b"echo a\"b c\"", Some(&[b"echo", b"ab c"])),
            (b"echo \"a\"b", None),
            (b"echo \"a\"'b'", None),
            (
                br#"echo "\x41\n\r\t\b\a\q\\\"""#,
                Some(&[b"echo", b"A\n\r\t\x08\x07q\\\""]),
            ),
            (br"echo 'a\'b\n'", Some(&[b"echo", br"a'b\n"])),
            (b"echo a\x0bb", Some(&[b"echo", b"a\x0bb"])),
            (b"\x0becho a", Some(&[b"echo", b"a"])),
            (b"echo \"\"", Some(&[b"echo", b""])),
            (b"echo ''", Some(&[b"echo", b""])),
            (b"echo \"a", None),
            (b"echo 'a", None),
            (b"echo \"a\\", None),
            (b"echo \"a\"\x0bb", Some(&[b"echo", b"a", b"b"])),
            (br#"echo "\x4""#, Some(&[b"echo", b"x4"])),
            (br#"echo "\xzz""#, Some(&[b"echo", b"xzz"])),
            (br#"echo a\"b c""#, Some(&[b"echo", br"a\b c"])),
        ];
        for (line, expected) in cases {
            let found = words(line).ok();
            let expected = expected.map(|words| words.iter().map(|word| word.to_vec()).collect());
            assert_eq!(found, expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_nul_byte_is_refused() {
        assert_eq!(words(b"del a\0b"), Err(Unbalanced));
        assert_eq!(words(b"echo 'a\0b'"), Err(Unbalanced));
    }

    fn line() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            4 => prop::sample::select(&b" \"'\\xanrtb4F\t\x0b\x0c"[..]),
            1 => 1_u8..,
        ];
        prop::collection::vec(byte, 0..24)
    }

    proptest! {
        /// Any arguments, quoted, come back.
        #[test]
        fn quoting_is_undone(
            arguments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..6),
        ) {
            let mut line = Vec::new();
            for argument in &arguments {
                line.extend_from_slice(b" \"");
                for byte in argument {
                    line.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
                }
                line.push(b'"');
            }
            prop_assert_eq!(words(&line), Ok(arguments));
        }

        /// The same rules, written as one machine that is fed byte by byte.
        #[test]
        fn same_as_a_state_machine(line in line()) {
            prop_assert_eq!(words(&line).ok(), machine(&line));
        }
    }

    enum State {
        Between,
        Plain,
        Double,
        DoubleEscape,
        Hex(Vec<u8>),
        Single,
        SingleEscape,
        Closed,
    }

    fn machine(line: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut words: Vec<Vec<u8>> = Vec::new();
        let mut word = Vec::new();
        let mut state = State::Between;
        let mut todo: std::collections::VecDeque<u8> = line.iter().copied().collect();
        while let Some(byte) = todo.pop_front() {
            state = match (state, byte) {
                (State::Between | State::Closed, byte) if b" \t\n\r\x0b\x0c".contains(&byte) => {
                    State::Between
                }
                (State::Closed, _) => return None,
                (State::Plain, b' ' | b'\t' | b'\n' | b'\r') => {
                    words.push(std::mem::take(&mut word));
                    State::Between
                }
                (State::Between | State::Plain, b'"') => State::Double,
                (State::Between | State::Plain, b'\'') => State::Single,
                (State::Between | State::Plain, byte) => {
                    word.push(byte);
                    State::Plain
                }
                (State::Double, b'"') | (State::Single, b'\'') => {
                    words.push(std::mem::take(&mut word));
                    State::Closed
                }
                (State::Double, b'\\') => State::DoubleEscape,
                (State::Single, b'\\') => State::SingleEscape,
                (State::DoubleEscape, b'x') => State::Hex(Vec::new()),
                (State::DoubleEscape, byte) => {
                    let known = [(b'n', 10), (b'r', 13), (b't', 9), (b'b', 8), (b'a', 7)];
                    let found = known.iter().find(|(letter, _)| *letter == byte);
                    word.push(found.map_or(byte, |(_, meaning)| *meaning));
                    State::Double
                }
                (State::SingleEscape, b'\'') => {
                    word.push(b'\'');
                    State::Single
                }
                (State::SingleEscape, byte) => {
                    word.push(b'\\');
                    todo.push_front(byte);
                    State::Single
                }
                (State::Hex(mut digits), byte) => {
                    digits.push(byte);
                    if !byte.is_ascii_hexdigit() {
                        word.push(b'x');
                        digits
                            .iter()
                            .rev()
                            .for_each(|&digit| todo.push_front(digit));
                        State::Double
                    } else if digits.len() == 2 {
                        let text = String::from_utf8(digits).unwrap();
                        word.push(u8::from_str_radix(&text, 16).unwrap());
                        State::Double
                    } else {
                        State::Hex(digits)
                    }
                }
                (State::Double, byte) => {
                    word.push(byte);
                    State::Double
                }
                (State::Single, byte) => {
                    word.push(byte);
                    State::Single
                }
            };
        }
        match state {
            State::Between | State::Closed => Some(words),
            State::Plain => {
                words.push(word);
                Some(words)
            }
            _ => None,
        }
    }
}
