//! Hash tags: the part of a key that alone is hashed, so that keys can be kept together.
//!
//! Owns: `Tag`, the rule of one keyspace. The rules differ between those who wrote the data: what they agree on is a part
//! between two characters, what they do not is where it may stand and whether it may be empty.
//!
//! Must stay true: the part is a slice of the key; a key without a tag is hashed whole; data that another client wrote is
//! found, so each rule is that client's to the letter.

use crate::routing::hash::hash_tag;

/// Which part of a key is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// The whole key.
    None,
    /// Between the first `open` and the first `close` after it, unless that is empty: Redis Cluster (`{}`), Twemproxy (any
    /// two characters), Predis.
    Pair {
        /// What a tag begins with.
        open: u8,
        /// What it ends with.
        close: u8,
    },
    /// As `Pair` with braces, but an empty tag counts: Codis.
    MayBeEmpty,
    /// Braces around at least one character, at the beginning of a line only: redis-rb.
    LineStart,
}

impl Tag {
    /// Redis Cluster's rule, which is also our default.
    pub const BRACES: Self = Self::Pair {
        open: b'{',
        close: b'}',
    };

    /// The part of the key that is hashed.
    #[inline]
    pub fn part(self, key: &[u8]) -> &[u8] {
        match self {
            Self::BRACES => hash_tag(key),
            Self::None | Self::Pair { .. } | Self::MayBeEmpty | Self::LineStart => self.rare(key),
        }
    }

    /// The part of every key that begins so, where a whole tag does; `None` where what follows may decide.
    pub fn settled(self, prefix: &[u8]) -> Option<&[u8]> {
        match self {
            Self::None => None,
            // Only the first tag counts; when that is empty, the whole key does.
            Self::Pair { open, close } => {
                between(prefix, open, close).filter(|part| !part.is_empty())
            }
            Self::MayBeEmpty => between(prefix, b'{', b'}'),
            Self::LineStart => line_start(prefix),
        }
    }

    fn rare(self, key: &[u8]) -> &[u8] {
        match self {
            Self::None => key,
            Self::Pair { open, close } => between(key, open, close)
                .filter(|part| !part.is_empty())
                .unwrap_or(key),
            Self::MayBeEmpty => between(key, b'{', b'}').unwrap_or(key),
            Self::LineStart => line_start(key).unwrap_or(key),
        }
    }
}

/// What stands between the first `open` and the first `close` after it.
fn between(key: &[u8], open: u8, close: u8) -> Option<&[u8]> {
    let inside = &key[key.iter().position(|&byte| byte == open)? + 1..];
    Some(&inside[..inside.iter().position(|&byte| byte == close)?])
}

/// What Ruby's `^\{(.+?)\}` captures: `^` is the beginning of any line, `.` anything but a line end.
fn line_start(key: &[u8]) -> Option<&[u8]> {
    key.split(|&byte| byte == b'\n').find_map(|line| {
        let inside = line.strip_prefix(b"{")?;
        let close = inside.iter().skip(1).position(|&byte| byte == b'}')? + 1;
        Some(&inside[..close])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(tag: Tag, cases: &[(&str, &str)]) {
        for (key, part) in cases {
            assert_eq!(tag.part(key.as_bytes()), part.as_bytes(), "{tag:?} {key}");
        }
    }

    #[test]
    fn each_rule_is_that_of_its_clients() {
        parts(Tag::None, &[("{a}b", "{a}b"), ("", "")]);
        parts(
            Tag::BRACES,
            &[
                ("x{a}b", "a"),
                ("x{}y{z}", "x{}y{z}"),
                ("{a", "{a"),
                ("a}b{c}", "c"),
            ],
        );
        let dollars = Tag::Pair {
            open: b'$',
            close: b'$',
        };
        parts(dollars, &[("x$a$b", "a"), ("x$$a$", "x$$a$"), ("$a", "$a")]);
        parts(
            Tag::MayBeEmpty,
            &[("x{}y", ""), ("{}", ""), ("{a", "{a"), ("a}b{c}", "c")],
        );
        parts(
            Tag::LineStart,
            &[
                ("{a}b", "a"),
                ("x{a}b", "x{a}b"),
                ("{}}b", "}"),
                ("{}b", "{}b"),
                ("x\n{a}b", "a"),
                ("{a\n}b", "{a\n}b"),
            ],
        );
    }

    /// Whatever is put behind a prefix that settles the part, the part is the same.
    #[test]
    fn a_settled_part_is_that_of_every_longer_key() {
        let tags = [
            Tag::None,
            Tag::BRACES,
            Tag::MayBeEmpty,
            Tag::LineStart,
            Tag::Pair {
                open: b'$',
                close: b'$',
            },
        ];
        let pieces = ["", "{", "}", "a", "{}", "{a}", "\n", "$", "$$"];
        let mut settled = 0;
        for tag in tags {
            for prefix in pieces
                .iter()
                .flat_map(|one| pieces.map(|two| format!("{one}x{two}{one}")))
                .chain(pieces.map(String::from))
            {
                let Some(part) = tag.settled(prefix.as_bytes()) else {
                    continue;
                };
                settled += 1;
                for rest in pieces {
                    let key = format!("{prefix}{rest}");
                    assert_eq!(tag.part(key.as_bytes()), part, "{tag:?} {key:?}");
                }
            }
        }
        assert!(settled > 20, "{settled}");
    }
}
