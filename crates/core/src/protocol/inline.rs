//! Inline commands: a line of words instead of RESP, as typed into telnet.
//!
//! Owns: how such a line falls into arguments. The scanner finds the line's end, `split` yields owned arguments (quotes
//! and escapes make them differ from the bytes that came), and from there the request is treated like any other.
//!
//! Must stay true: the same line gives the same arguments as on a Redis server, oddities included, because people try
//! on a server what they then send through us: a quote may open in the middle of a word, a closing quote must be
//! followed by white space or the end, vertical tab and form feed separate words only before a word begins, and a NUL
//! byte ends the line. One pass; every byte is looked at a bounded number of times.
//!
//! Rejected: a shell-like splitter from a crate. None has exactly these rules.

use std::fmt;

/// Quotes that do not close, or close in the middle of a word: `-ERR Protocol error: unbalanced quotes in request`.
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
    let end = line
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(line.len());
    let line = &line[..end];
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
