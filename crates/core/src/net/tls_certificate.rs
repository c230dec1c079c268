//! When a certificate expires: the one thing that people want to know of it before a handshake fails.
//!
//! Owns: the walk through a certificate's DER to the end of its validity. Nothing else is read, and nothing is decided by
//! it: whether a certificate is good is rustls' business.
//!
//! Must stay true: bytes that are not a certificate give None, never a panic.
//! Rejected: a library for X.509, with a dozen dependencies, for one date.

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Seconds since 1970 at which a certificate (DER) ceases to be valid.
pub fn expiry(certificate: &[u8]) -> Option<u64> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut signed, _) = element(certificate)?;
    if signed.first() == Some(&VERSION) {
        signed = element(signed)?.2;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        signed = element(signed)?.2;
    }
    let (kind, validity, _) = element(signed)?;
    if kind != SEQUENCE {
        return None;
    }
    let (_, _, after_begin) = element(validity)?;
    let (kind, end, _) = element(after_begin)?;
    time(kind, end)
}

/// Tag, content and what comes after it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (digits, after) = rest.split_at_checked(count)?;
        rest = after;
        digits
            .iter()
            .fold(0, |length, &digit| length << 8 | usize::from(digit))
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

/// `YYMMDDhhmmssZ`, or with four digits of the year; certificates have no other forms (RFC 5280).
fn time(kind: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    let mut pairs = Vec::with_capacity(7);
    for pair in digits.chunks(2) {
        let text = std::str::from_utf8(pair).ok()?;
        pairs.push(text.parse::<u64>().ok()?);
    }
    let (year, rest) = match (kind, pairs.as_slice()) {
        (UTC_TIME, [short, rest @ ..]) => (if *short < 50 { 2000 } else { 1900 } + short, rest),
        (GENERALIZED_TIME, [century, short, rest @ ..]) => (century * 100 + short, rest),
        _ => return None,
    };
    let &[month, day, hour, minute, second] = rest else {
        return None;
    };
    if year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let seconds = (days_before(year, month) + day - 1) * 86_400;
    Some(seconds + hour * 3_600 + minute * 60 + second)
}

/// Days from 1970 to the first of a month.
fn days_before(year: u64, month: u64) -> u64 {
    // Years that begin in March, so that a leap day is their last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    let in_year = (153 * month + 2) / 5;
    // 719,468 days from 1 March of the year 0 to 1970.
    (year * 365 + leap_days + in_year).saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_certificates() {
        // From `date -u -d ... +%s`.
        for (kind, text, seconds) in [
            (UTC_TIME, "700101000000Z", 0),
            (UTC_TIME, "000229235959Z", 951_868_799),
            (UTC_TIME, "260301000000Z", 1_772_323_200),
            (UTC_TIME, "491231235959Z", 2_524_607_999),
            (GENERALIZED_TIME, "20500101000000Z", 2_524_608_000),
            (GENERALIZED_TIME, "21000301000000Z", 4_107_542_400),
            (GENERALIZED_TIME, "99991231235959Z", 253_402_300_799),
        ] {
            assert_eq!(time(kind, text.as_bytes()), Some(seconds), "{text}");
        }
        for text in [
            "",
            "Z",
            "2603Z",
            "260301000000",
            "26030100000xZ",
            "261301000000Z",
        ] {
            assert_eq!(time(UTC_TIME, text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_expiry() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 0x84, 255, 255, 255, 255],
            &[0x30, 2, 0x30, 0],
        ] {
            assert_eq!(expiry(bytes), None);
        }
    }
}
