//! Patterns, against a table of verdicts that real servers give and a naive twin.
//!
//! The twin takes a pattern apart first (a list of stars and of sets of bytes) and then tries every way in which the
//! stars can swallow the text.

use proptest::prelude::*;
use shoal_core::protocol::glob::matches;
use std::collections::HashSet;

enum Piece {
    Star,
    OneOf(HashSet<u8>),
}

/// The pattern taken apart.
fn pieces(pattern: &[u8]) -> Vec<Piece> {
    let mut rest = pattern
        .iter()
        .copied()
        .collect::<std::collections::VecDeque<u8>>();
    let mut pieces = Vec::new();
    while let Some(first) = rest.pop_front() {
        pieces.push(match first {
            b'*' => Piece::Star,
            b'?' => Piece::OneOf((0..=255).collect()),
            b'\\' => Piece::OneOf(HashSet::from([rest.pop_front().unwrap_or(b'\\')])),
            b'[' => {
                let is_negated = rest.front() == Some(&b'^');
                if is_negated {
                    rest.pop_front();
                }
                let members = members(&mut rest);
                Piece::OneOf(
                    (0..=255)
                        .filter(|byte| members.contains(byte) != is_negated)
                        .collect(),
                )
            }
            literal => Piece::OneOf(HashSet::from([literal])),
        });
    }
    pieces
}

fn members(rest: &mut std::collections::VecDeque<u8>) -> HashSet<u8> {
    let mut members = HashSet::new();
    while let Some(first) = rest.pop_front() {
        if first == b'\\' && !rest.is_empty() {
            members.extend(rest.pop_front());
        } else if first == b']' {
            break;
        } else if rest.len() >= 2 && rest[0] == b'-' {
            rest.pop_front();
            let last = rest.pop_front().expect("two were there");
            members.extend(first.min(last)..=first.max(last));
        } else {
            members.insert(first);
        }
    }
    members
}

fn fits(pieces: &[Piece], text: &[u8]) -> bool {
    match pieces.split_first() {
        None => text.is_empty(),
        Some((Piece::Star, rest)) => (0..=text.len()).any(|eaten| fits(rest, &text[eaten..])),
        Some((Piece::OneOf(set), rest)) => text
            .split_first()
            .is_some_and(|(byte, others)| set.contains(byte) && fits(rest, others)),
    }
}

fn naive(pattern: &[u8], text: &[u8]) -> bool {
    // Servers look at no pattern when there is no text, so not even a star matches that.
    if text.is_empty() {
        return pattern.is_empty();
    }
    fits(&pieces(pattern), text)
}

#[test]
fn what_servers_say() {
    for (pattern, text, expected) in [
        ("*", "anything", true),
        ("**", "a", true),
        ("news.*", "news.art", true),
        ("news.*", "news", false),
        ("news.*", "news.", true),
        ("h?llo", "hello", true),
        ("h?llo", "hllo", false),
        ("h[ae]llo", "hallo", true),
        ("h[ae]llo", "hillo", false),
        ("h[^e]llo", "hallo", true),
        ("h[^e]llo", "hello", false),
        ("h[a-c]llo", "hbllo", true),
        ("h[c-a]llo", "hbllo", true),
        ("h\\*llo", "h*llo", true),
        ("h\\*llo", "hello", false),
        ("[\\]]", "]", true),
        ("[]", "a", false),
        ("[^]", "a", true),
        ("[abc", "b", true),
        ("[abc", "d", false),
        ("a\\", "a\\", true),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-c-b", false),
        ("*a", "baa", true),
        ("", "", true),
        ("", "a", false),
        ("a", "", false),
    ] {
        assert_eq!(
            matches(pattern.as_bytes(), text.as_bytes()),
            expected,
            "{pattern} {text}"
        );
        assert_eq!(
            naive(pattern.as_bytes(), text.as_bytes()),
            expected,
            "{pattern} {text}, naively"
        );
    }
}

/// A pattern for which the obvious recursion would run until the sun is cold.
#[test]
fn many_stars_cost_no_more_than_the_product_of_the_lengths() {
    let pattern = "a*".repeat(500) + "b";
    let text = "a".repeat(5000);
    assert!(!matches(pattern.as_bytes(), text.as_bytes()));
    assert!(matches(pattern.as_bytes(), (text + "b").as_bytes()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn as_the_twin_says(pattern in "[ab*?\\[\\]^\\\\-]{0,10}", text in "[ab\\]^*\\\\-]{0,8}") {
        prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), naive(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn no_bytes_make_it_panic(
        pattern in prop::collection::vec(any::<u8>(), 0..12),
        text in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        prop_assert_eq!(matches(&pattern, &text), naive(&pattern, &text));
    }
}
