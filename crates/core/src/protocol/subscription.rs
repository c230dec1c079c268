//! What servers tell a connection that has subscribed, and what clients are told of their subscriptions.
//!
//! Owns: the kinds of subscriptions, the reading of a server's pushes, and the form of a confirmation.
//!
//! Must stay true: a push is read without allocating, whatever its bytes; a confirmation is a server's, byte for byte, in
//! both protocols. A message is not written here: RESP2 clients get a server's bytes with another first one.

use crate::protocol::encode::{self, Proto};

/// What is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One channel.
    Channel,
    /// Every channel whose name matches.
    Pattern,
    /// One channel of those that a Redis Cluster has for each shard.
    Shard,
}

impl Kind {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Channel, Self::Pattern, Self::Shard];

    /// What stands before the words of this kind.
    fn letter(self) -> &'static [u8] {
        match self {
            Self::Channel => b"",
            Self::Pattern => b"p",
            Self::Shard => b"s",
        }
    }
}

/// A server's push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push<'p> {
    /// Something was published.
    Message {
        /// By which kind of subscription it comes.
        kind: Kind,
        /// What was subscribed to.
        name: &'p [u8],
        /// Where it was published: for a pattern another text than `name`.
        channel: &'p [u8],
        /// What was published.
        text: &'p [u8],
    },
    /// A subscription was made or ended.
    Confirmed,
}

/// Reads a whole push; None: it is of something else.
pub fn read(push: &[u8]) -> Option<Push<'_>> {
    let mut rest = push;
    line(&mut rest, b'>')?;
    let kind = match bulk(&mut rest)? {
        b"message" => Kind::Channel,
        b"pmessage" => Kind::Pattern,
        b"smessage" => Kind::Shard,
        b"subscribe" | b"psubscribe" | b"ssubscribe" | b"unsubscribe" | b"punsubscribe"
        | b"sunsubscribe" => return Some(Push::Confirmed),
        _ => return None,
    };
    let name = bulk(&mut rest)?;
    let channel = if kind == Kind::Pattern {
        bulk(&mut rest)?
    } else {
        name
    };
    Some(Push::Message {
        kind,
        name,
        channel,
        text: bulk(&mut rest)?,
    })
}

/// The number in a header line of that kind.
fn line(rest: &mut &[u8], kind: u8) -> Option<usize> {
    let (&first, body) = rest.split_first()?;
    let end = body.iter().take(24).position(|&byte| byte == b'\r')?;
    let number = std::str::from_utf8(&body[..end]).ok()?.parse().ok()?;
    *rest = body.get(end + 2..)?;
    (first == kind).then_some(number)
}

/// The next string.
fn bulk<'p>(rest: &mut &'p [u8]) -> Option<&'p [u8]> {
    let length = line(rest, b'$')?;
    let text = rest.get(..length)?;
    *rest = rest.get(length.checked_add(2)?..)?;
    Some(text)
}

/// Tells a client that a subscription was made or ended, and how many it has now. No name: it had none to end.
pub fn confirmation(
    out: &mut Vec<u8>,
    proto: Proto,
    kind: Kind,
    is_made: bool,
    name: Option<&[u8]>,
    count: usize,
) {
    let verb: &[u8] = if is_made {
        b"subscribe"
    } else {
        b"unsubscribe"
    };
    encode::push(out, proto, 3);
    encode::bulk(out, &[kind.letter(), verb].concat());
    match name {
        Some(name) => encode::bulk(out, name),
        None => encode::null(out, proto),
    }
    encode::integer(out, count as i64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushes_are_told_apart() {
        let message = |kind, name, channel| {
            Some(Push::Message {
                kind,
                name,
                channel,
                text: b"x",
            })
        };
        for (push, expected) in [
            (
                &b">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$1\r\nx\r\n"[..],
                message(Kind::Channel, &b"ch"[..], &b"ch"[..]),
            ),
            (
                b">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$0\r\n\r\n$1\r\nx\r\n",
                message(Kind::Pattern, b"*", b""),
            ),
            (
                b">3\r\n$8\r\nsmessage\r\n$4\r\na\r\nb\r\n$1\r\nx\r\n",
                message(Kind::Shard, b"a\r\nb", b"a\r\nb"),
            ),
            (b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", None),
            (b">3\r\n$7\r\nmessage\r\n$9\r\nch\r\n", None),
            (b">3\r\n", None),
        ] {
            assert_eq!(read(push), expected);
        }
    }

    #[test]
    fn every_confirmation_is_read_as_one() {
        for kind in Kind::ALL {
            for is_made in [true, false] {
                for name in [Some(&b"name"[..]), None] {
                    let mut out = Vec::new();
                    confirmation(&mut out, Proto::Resp3, kind, is_made, name, 3);
                    assert_eq!(read(&out), Some(Push::Confirmed), "{kind:?} {is_made}");
                }
            }
        }
    }
}
