//! Writing RESP: one function per type of reply, and requests of our own.
//!
//! Owns: how a value looks in each protocol version. Everything appends to a `Vec<u8>`, which a session or a backend
//! sends as it is; nothing here reads, and nothing can fail.
//!
//! Must stay true: what one call appends is well-formed whatever text it is given (control bytes of one-line replies
//! become spaces, so a key inside an error text cannot forge a second reply), and no call allocates but by growth of
//! `out`. A type that RESP2 does not have is written in the form the servers themselves give to RESP2 clients.
//!
//! Rejected: a `Value` tree with an encoder. Local answers are few and flat, and merged replies are copied from the
//! shards' bytes; a tree would be built only to be thrown away.

use std::io::Write;

/// The protocol version that a client (and the backend connections it uses) speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proto {
    /// RESP2, the default until HELLO 3.
    Resp2,
    /// RESP3.
    Resp3,
}

/// "00", "01" ... "99": two digits per division halve the divisions of `decimal`.
const DIGIT_PAIRS: [u8; 200] = digit_pairs();

const fn digit_pairs() -> [u8; 200] {
    let mut pairs = [0; 200];
    let mut number = 0;
    while number < 100 {
        pairs[number * 2] = b'0' + (number / 10) as u8;
        pairs[number * 2 + 1] = b'0' + (number % 10) as u8;
        number += 1;
    }
    pairs
}

/// Appends a number in decimal digits.
#[inline]
pub fn decimal(out: &mut Vec<u8>, number: u64) {
    if number < 10 {
        out.push(b'0' + number as u8);
        return;
    }
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = number;
    while rest >= 10 {
        let pair = (rest % 100) as usize * 2;
        rest /= 100;
        start -= 2;
        digits[start] = DIGIT_PAIRS[pair];
        digits[start + 1] = DIGIT_PAIRS[pair + 1];
    }
    if rest > 0 {
        start -= 1;
        digits[start] = b'0' + rest as u8;
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends a type byte, a count or length, and the line's end.
#[inline]
fn header(out: &mut Vec<u8>, kind: u8, count: usize) {
    out.push(kind);
    decimal(out, count as u64);
    out.extend_from_slice(b"\r\n");
}

/// Appends text that must stay on its line: control bytes become spaces.
fn one_line(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.push(kind);
    out.extend(
        text.bytes()
            .map(|byte| if byte.is_ascii_control() { b' ' } else { byte }),
    );
    out.extend_from_slice(b"\r\n");
}

/// A status like `OK`. Control bytes in the text become spaces.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    one_line(out, b'+', text);
}

/// An error; the text begins with its code (`ERR unknown command`). Control bytes in the text become spaces.
pub fn error(out: &mut Vec<u8>, text: &str) {
    one_line(out, b'-', text);
}

/// An integer.
#[inline]
pub fn integer(out: &mut Vec<u8>, number: i64) {
    out.push(b':');
    if number < 0 {
        out.push(b'-');
    }
    decimal(out, number.unsigned_abs());
    out.extend_from_slice(b"\r\n");
}

/// A string of any bytes.
#[inline]
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Null where a string could stand.
pub fn null(out: &mut Vec<u8>, proto: Proto) {
    out.extend_from_slice(match proto {
        Proto::Resp2 => b"$-1\r\n",
        Proto::Resp3 => b"_\r\n",
    });
}

/// Null where an array could stand.
pub fn null_array(out: &mut Vec<u8>, proto: Proto) {
    out.extend_from_slice(match proto {
        Proto::Resp2 => b"*-1\r\n",
        Proto::Resp3 => b"_\r\n",
    });
}

/// Head of an array; the caller appends `count` elements.
#[inline]
pub fn array(out: &mut Vec<u8>, count: usize) {
    header(out, b'*', count);
}

/// Head of a map; the caller appends `pairs` times a key and a value. RESP2: a flat array.
pub fn map(out: &mut Vec<u8>, proto: Proto, pairs: usize) {
    match proto {
        Proto::Resp2 => header(out, b'*', pairs.saturating_mul(2)),
        Proto::Resp3 => header(out, b'%', pairs),
    }
}

/// A map; RESP2 clients get an array of so many elements, which are to be arrays of two.
pub fn map_or_array(out: &mut Vec<u8>, proto: Proto, pairs: usize) {
    let kind = if proto == Proto::Resp3 { b'%' } else { b'*' };
    header(out, kind, pairs);
}

/// Head of a set; the caller appends `count` elements. RESP2: an array.
pub fn set(out: &mut Vec<u8>, proto: Proto, count: usize) {
    match proto {
        Proto::Resp2 => header(out, b'*', count),
        Proto::Resp3 => header(out, b'~', count),
    }
}

/// Head of an out-of-band message; the caller appends `count` elements. RESP2: an array.
pub fn push(out: &mut Vec<u8>, proto: Proto, count: usize) {
    match proto {
        Proto::Resp2 => header(out, b'*', count),
        Proto::Resp3 => header(out, b'>', count),
    }
}

/// Text meant for people (INFO, CLIENT LIST). RESP2: a bulk string.
pub fn verbatim(out: &mut Vec<u8>, proto: Proto, text: &[u8]) {
    match proto {
        Proto::Resp2 => bulk(out, text),
        Proto::Resp3 => {
            header(out, b'=', text.len() + 4);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// True or false. RESP2: the integers 1 and 0.
pub fn boolean(out: &mut Vec<u8>, proto: Proto, value: bool) {
    out.extend_from_slice(match (proto, value) {
        (Proto::Resp2, true) => b":1\r\n",
        (Proto::Resp2, false) => b":0\r\n",
        (Proto::Resp3, true) => b"#t\r\n",
        (Proto::Resp3, false) => b"#f\r\n",
    });
}

/// A floating point number, in the fewest digits that read back as the same number. RESP2: a bulk string.
pub fn double(out: &mut Vec<u8>, proto: Proto, value: f64) {
    // The longest text is that of a subnormal number with 17 digits: "-2.2250738585072014e-308".
    let mut digits = [0; 32];
    let text = double_text(&mut digits, value);
    match proto {
        Proto::Resp2 => bulk(out, text),
        Proto::Resp3 => {
            out.push(b',');
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Spells like the servers: `inf`, `-inf`, `nan`, and an exponent only where plain digits would be long.
fn double_text(digits: &mut [u8; 32], value: f64) -> &[u8] {
    if value.is_nan() {
        return b"nan";
    }
    if value.is_infinite() {
        return if value > 0.0 { b"inf" } else { b"-inf" };
    }
    let mut rest = &mut digits[..];
    let size = value.abs();
    // Writing fails only when the text is longer than the buffer, which the bound above rules out; a cut number would
    // still be a number on a line of its own.
    let _ = if size != 0.0 && !(1e-5..1e17).contains(&size) {
        write!(rest, "{value:e}")
    } else {
        write!(rest, "{value}")
    };
    let left = rest.len();
    &digits[..digits.len() - left]
}

/// A request as an array of bulk strings, as clients send it.
pub fn request(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    array(out, arguments.len());
    for argument in arguments {
        bulk(out, argument);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn decimal_equals_the_standard_library() {
        let mut numbers = vec![
            0,
            1,
            9,
            10,
            11,
            99,
            100,
            101,
            999,
            1000,
            u64::MAX,
            u64::MAX - 1,
        ];
        let mut power = 1_u64;
        while let Some(next) = power.checked_mul(10) {
            power = next;
            numbers.extend([power - 1, power, power + 1]);
        }
        numbers.extend(0..2000);
        for number in numbers {
            assert_eq!(written(|out| decimal(out, number)), number.to_string());
        }
    }

    #[test]
    fn integers_have_signs() {
        for number in [0, 7, -7, 42, i64::MAX, i64::MIN] {
            assert_eq!(
                written(|out| integer(out, number)),
                format!(":{number}\r\n")
            );
        }
    }

    #[test]
    fn one_line_replies_stay_on_their_line() {
        assert_eq!(
            written(|out| error(out, "ERR no\r\n+OK\r\n\0")),
            "-ERR no  +OK   \r\n"
        );
        assert_eq!(written(|out| simple(out, "a\tb")), "+a b\r\n");
        assert_eq!(written(|out| error(out, "ERR é")), "-ERR é\r\n");
    }

    #[test]
    fn types_that_only_resp3_has() {
        use Proto::{Resp2, Resp3};
        type Writer = fn(&mut Vec<u8>, Proto);
        let cases: [(Writer, &str, &str); 14] = [
            (null, "$-1\r\n", "_\r\n"),
            (null_array, "*-1\r\n", "_\r\n"),
            (|out, proto| map(out, proto, 3), "*6\r\n", "%3\r\n"),
            (|out, proto| set(out, proto, 3), "*3\r\n", "~3\r\n"),
            (|out, proto| push(out, proto, 3), "*3\r\n", ">3\r\n"),
            (
                |out, proto| verbatim(out, proto, b"a\nb"),
                "$3\r\na\nb\r\n",
                "=7\r\ntxt:a\nb\r\n",
            ),
            (|out, proto| boolean(out, proto, true), ":1\r\n", "#t\r\n"),
            (|out, proto| boolean(out, proto, false), ":0\r\n", "#f\r\n"),
            (
                |out, proto| double(out, proto, 1.5),
                "$3\r\n1.5\r\n",
                ",1.5\r\n",
            ),
            (
                |out, proto| double(out, proto, -0.0),
                "$2\r\n-0\r\n",
                ",-0\r\n",
            ),
            (
                |out, proto| double(out, proto, 1e300),
                "$5\r\n1e300\r\n",
                ",1e300\r\n",
            ),
            (
                |out, proto| double(out, proto, f64::NAN),
                "$3\r\nnan\r\n",
                ",nan\r\n",
            ),
            (
                |out, proto| double(out, proto, f64::INFINITY),
                "$3\r\ninf\r\n",
                ",inf\r\n",
            ),
            (
                |out, proto| double(out, proto, f64::NEG_INFINITY),
                "$4\r\n-inf\r\n",
                ",-inf\r\n",
            ),
        ];
        for (write, in_resp2, in_resp3) in cases {
            assert_eq!(written(|out| write(out, Resp2)), in_resp2);
            assert_eq!(written(|out| write(out, Resp3)), in_resp3);
        }
    }

    #[test]
    fn the_longest_doubles_are_whole() {
        for value in [
            -f64::MIN_POSITIVE,
            f64::MAX,
            -f64::MAX,
            -1.2345678901234567e-5,
            -12345678901234567.0,
            -5e-324,
            0.1 + 0.2,
        ] {
            let mut digits = [0; 32];
            let text = String::from_utf8(double_text(&mut digits, value).to_vec()).unwrap();
            assert_eq!(text.parse::<f64>().unwrap(), value, "{text}");
        }
    }

    #[test]
    fn a_request_is_an_array_of_bulk_strings() {
        assert_eq!(
            written(|out| request(out, &[b"SET", b"", b"a\r\nb"])),
            "*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\na\r\nb\r\n"
        );
        assert_eq!(written(|out| array(out, 12)), "*12\r\n");
    }
}
