//! Numbers in the lines of memcached's clients.
//!
//! Owns: which texts are numbers for us. Must stay true: each of these is the same number for every server.
//!
//! Rejected: reading as servers do, with `strtol` (a sign, blanks, overflow: what they make of it differs by version).

/// Digits alone.
#[inline]
pub(super) fn unsigned(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0u64, |number, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A time: 32 bits with a sign.
#[inline]
pub(super) fn signed(text: &[u8]) -> Option<i64> {
    let (digits, sign) = match text.strip_prefix(b"-") {
        Some(digits) => (digits, -1),
        None => (text, 1),
    };
    let number = i64::try_from(unsigned(digits)?).ok()? * sign;
    i32::try_from(number).ok().map(i64::from)
}

/// The length of a data block that a server would read.
#[inline]
pub(super) fn size(text: &[u8]) -> Option<usize> {
    let size = unsigned(text)?;
    (size <= i32::MAX as u64 - 2).then_some(size as usize)
}

/// A server may read a number here where we do not: with a sign, or one that is too large.
pub(super) fn is_number_for_a_server(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"+").or(text.strip_prefix(b"-"));
    let digits = digits.unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}
