//! What is said to and by those who wait: time-outs, what a step has taken, what a shard tells.
//!
//! Owns: the reading of these texts, and the one reply that the waiting command gives for what a step took.
//!
//! Must stay true: every form in which an element is taken is known here, so that it can be given, and be put back.

use crate::error::ClientError;
use crate::protocol::encode;
use crate::routing::merge::{counted_header, element_len, unexpected};

/// Whether a key of a read is among those that have changed; all have when none is named. The connection may have been
/// somebody else's, whose keys are told too.
pub(crate) fn is_about(push: &[u8], read: &[u8]) -> bool {
    let Some(keys) = elements(push).nth(1).filter(|keys| keys.starts_with(b"*")) else {
        return true;
    };
    let asked: Vec<&[u8]> = elements(read).skip(1).collect();
    elements(keys).any(|key| asked.contains(&key))
}

/// The elements of an array, as they stand there.
fn elements(array: &[u8]) -> impl Iterator<Item = &[u8]> {
    let header = array.iter().position(|&byte| byte == b'\n');
    let mut rest = array
        .get(header.map_or(array.len(), |end| end + 1)..)
        .unwrap_or_default();
    std::iter::from_fn(move || {
        let (element, behind) = rest.split_at_checked(element_len(rest)?)?;
        rest = behind;
        Some(element)
    })
}

/// What one key gave, as the waiting command says it; false for nothing.
pub(crate) fn write_taken(key: &[u8], reply: &[u8], out: &mut Vec<u8>) -> bool {
    if matches!(reply, b"$-1\r\n" | b"*-1\r\n" | b"_\r\n" | b"*0\r\n") {
        return false;
    }
    match (reply.first(), counted_header(reply)) {
        (Some(b'$'), _) => {
            encode::array(out, 2);
            encode::bulk(out, key);
            out.extend_from_slice(reply);
        }
        // The key, and whatever it gave.
        (Some(b'*'), Some((2, _))) if names(reply, key) => out.extend_from_slice(reply),
        (Some(b'*'), Some((count, body))) => {
            encode::array(out, count + 1);
            encode::bulk(out, key);
            out.extend_from_slice(&reply[body..]);
        }
        _ => unexpected(out, "something else where an element belongs"),
    }
    true
}

/// An array of the key and an array: of the forms that can take several, each reply names its key.
fn names(reply: &[u8], key: &[u8]) -> bool {
    let mut head = Vec::new();
    encode::array(&mut head, 2);
    encode::bulk(&mut head, key);
    head.push(b'*');
    reply.starts_with(&head)
}

/// Strings and numbers of a reply, out of whatever arrays they are in. None when there is something else.
pub(crate) fn scalars(reply: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    let mut rest = reply;
    while let Some(kind) = rest.first() {
        let line = rest.iter().position(|&byte| byte == b'\n')?;
        let used = match kind {
            b'*' => line + 1,
            b'$' => {
                let (length, body) = counted_header(rest)?;
                found.push(rest.get(body..body + length)?);
                body + length + 2
            }
            b',' | b':' => {
                found.push(rest.get(1..line)?.trim_ascii_end());
                line + 1
            }
            _ => return None,
        };
        rest = rest.get(used..)?;
    }
    Some(found)
}

/// Seconds, as servers read them.
pub(crate) fn timeout_ms(text: &[u8]) -> Result<u64, ClientError> {
    let not_a_float = ClientError::Words("ERR timeout is not a float or out of range");
    let seconds = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<f64>().ok())
        .filter(|seconds| !seconds.is_nan());
    let Some(seconds) = seconds else {
        return Err(not_a_float);
    };
    if seconds < 0.0 {
        return Err(ClientError::Words("ERR timeout is negative"));
    }
    let ms = (seconds * 1000.0).ceil();
    if ms >= i64::MAX as f64 {
        return Err(ClientError::Words("ERR timeout is out of range"));
    }
    Ok(ms as u64)
}

#[cfg(test)]
mod tests {
    use super::{is_about, scalars};

    #[test]
    fn what_was_taken_is_found_in_every_form() {
        let all = |reply: &'static [u8]| scalars(reply);
        assert_eq!(
            all(b"*2\r\n$1\r\nk\r\n$3\r\na\nb\r\n"),
            Some(vec![&b"k"[..], b"a\nb"])
        );
        assert_eq!(
            all(b"*2\r\n$1\r\nk\r\n*2\r\n$1\r\na\r\n$0\r\n\r\n"),
            Some(vec![&b"k"[..], b"a", b""])
        );
        assert_eq!(
            all(b"*3\r\n$1\r\nk\r\n$1\r\nm\r\n,1.5\r\n"),
            Some(vec![&b"k"[..], b"m", b"1.5"])
        );
        assert_eq!(all(b"*-1\r\n"), Some(vec![]));
        for nothing in [&b"_\r\n"[..], b"$-1\r\n", b"-ERR no\r\n"] {
            assert_eq!(scalars(nothing), None);
        }
    }

    #[test]
    fn what_has_changed_is_compared_with_what_was_read() {
        let read = b"*3\r\n$6\r\nEXISTS\r\n$1\r\na\r\n$2\r\nbc\r\n";
        let told = |keys: &str| format!(">2\r\n$10\r\ninvalidate\r\n{keys}");
        for (keys, expected) in [
            ("*1\r\n$1\r\na\r\n", true),
            ("*2\r\n$1\r\nx\r\n$2\r\nbc\r\n", true),
            ("*1\r\n$1\r\nb\r\n", false),
            ("*1\r\n$6\r\nEXISTS\r\n", false),
            ("_\r\n", true),
            ("$-1\r\n", true),
        ] {
            assert_eq!(is_about(told(keys).as_bytes(), read), expected, "{keys}");
        }
    }
}
