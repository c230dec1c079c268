//! Numbers as INFO writes them: exact decimals, readable sizes, versions.
//!
//! Owns: reading and writing of such numbers. Must stay true: adding is exact and saturates, so counters of any size
//! and fractions of seconds keep the digits that the servers gave. Rejected: `f64`, which would turn 0.1 + 0.2 into
//! 0.30000000000000004 and lose the low digits of large counters.

use super::cut;

/// A version's numbers, for comparing.
pub(super) fn version(text: &[u8]) -> [u64; 4] {
    let mut numbers = [0; 4];
    for (number, digits) in numbers.iter_mut().zip(text.split(|&byte| byte == b'.')) {
        *number = std::str::from_utf8(digits)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
    }
    numbers
}

/// A decimal number, exact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number {
    pub(super) billionths: i128,
    /// How many decimals it is written with.
    decimals: usize,
}

/// Decimals that `Number` can hold, and digits before them that leave room to add very many.
const DECIMALS_MAX: usize = 9;
const DIGITS_MAX: usize = 22;

/// Reads a number as the servers write them, without exponent; `None` for anything else.
pub(super) fn number(text: &[u8]) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, decimals) = cut(digits, b'.').unwrap_or((digits, b""));
    if whole.is_empty() || whole.len() > DIGITS_MAX || decimals.len() > DECIMALS_MAX {
        return None;
    }
    let padding = std::iter::repeat_n(&b'0', DECIMALS_MAX - decimals.len());
    let mut billionths = 0_i128;
    for &digit in whole.iter().chain(decimals).chain(padding) {
        if !digit.is_ascii_digit() {
            return None;
        }
        billionths = billionths * 10 + i128::from(digit - b'0');
    }
    Some(Number {
        billionths: if negative { -billionths } else { billionths },
        decimals: decimals.len(),
    })
}

/// Adds; `None` when there is nothing to add.
pub(super) fn sum(numbers: impl Iterator<Item = Number>) -> Option<Number> {
    numbers.reduce(|sum, number| Number {
        billionths: sum.billionths.saturating_add(number.billionths),
        decimals: sum.decimals.max(number.decimals),
    })
}

impl Number {
    /// As nearly as a float can hold it; never infinite.
    pub(super) fn rounded(self) -> f64 {
        self.billionths as f64 / 1e9
    }

    /// As the servers would write it.
    pub(super) fn text(self) -> Vec<u8> {
        let billion = 1_000_000_000;
        let sign = if self.billionths < 0 { "-" } else { "" };
        let size = self.billionths.unsigned_abs();
        let (whole, rest) = (size / billion, size % billion);
        let mut text = format!("{sign}{whole}");
        if self.decimals > 0 {
            let decimals = format!("{rest:09}");
            text.push('.');
            text.push_str(&decimals[..self.decimals.min(DECIMALS_MAX)]);
        }
        text.into_bytes()
    }
}

/// Bytes as the servers write them for people.
pub(super) fn human(bytes: f64) -> String {
    if bytes < 1024.0 {
        return format!("{bytes:.0}B");
    }
    let mut size = bytes;
    for unit in ["K", "M", "G", "T"] {
        size /= 1024.0;
        if size < 1024.0 {
            return format!("{size:.2}{unit}");
        }
    }
    format!("{:.2}P", size / 1024.0)
}
