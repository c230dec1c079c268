//! SORT's patterns: `BY weight_*` and `GET {x}:*->field` reach keys that the request does not name.
//!
//! Owns: the judgement whether all of them are on the shard that the request goes to. A server puts each element in the place
//! of the pattern's first `*`, so what stands before it is all that is known of those keys: they have one place only if that
//! much decides it (a whole hash tag, an affinity rule that is through with its search).
//!
//! Must stay true: an element may be any bytes, braces among them; what an element could change is not taken for settled.
//! `GET #` is the element itself, and a pattern without `*` reaches no key at all.
//! Rejected: to look at the elements first. They change, and reading them is what SORT is for.

use crate::error::ClientError;
use crate::limits::SORT_PATTERNS_MAX;
use crate::protocol::command::CommandSpec;
use crate::routing::placement::Map;
use crate::routing::route::{shortened, Request};

const TOO_MANY: &str = "ERR too many patterns for several shards; ask for fewer at a time";
/// The options that have a pattern.
const PATTERNED: [&str; 2] = ["BY", "GET"];
/// Other options with values, and how many.
const VALUED: [(&[u8], usize); 2] = [(b"LIMIT", 2), (b"STORE", 1)];

/// The shard of the request's own keys, if its patterns reach no further.
#[cold]
pub fn patterns_on(
    map: &Map<'_>,
    spec: &'static CommandSpec,
    request: &Request<'_>,
    shard: u16,
) -> Result<u16, ClientError> {
    let mut patterns = Patterns { request, index: 2 };
    if patterns.any(|(_, at)| map.is_reserved(request.arg(at))) {
        return Err(ClientError::ReservedKey);
    }
    if map.keyspace.shards.len() == 1 {
        return Ok(shard);
    }
    let patterns = Patterns { request, index: 2 };
    for (count, at) in patterns.enumerate() {
        if count >= SORT_PATTERNS_MAX {
            return Err(ClientError::Words(TOO_MANY));
        }
        one_pattern(map, spec, request, at, shard)?;
    }
    Ok(shard)
}

/// Whether a request has a pattern that reaches other keys.
pub fn has_star(request: &Request<'_>) -> bool {
    Patterns { request, index: 2 }.any(|(_, at)| request.arg(at).contains(&b'*'))
}

/// The patterns of a request: the option of each, and where it stands.
struct Patterns<'a> {
    request: &'a Request<'a>,
    index: usize,
}

impl Iterator for Patterns<'_> {
    type Item = (&'static str, usize);

    fn next(&mut self) -> Option<Self::Item> {
        while self.index < self.request.args.len() {
            let at = self.index;
            let word = self.request.arg(at);
            let is_word = |option: &&&str| word.eq_ignore_ascii_case(option.as_bytes());
            let values = VALUED
                .iter()
                .find(|(option, _)| word.eq_ignore_ascii_case(option));
            if let Some(option) = PATTERNED.iter().find(is_word) {
                self.index = at + 2;
                return Some((option, at + 1));
            }
            self.index = at + 1 + values.map_or(0, |(_, count)| *count);
        }
        None
    }
}

/// `at`: an option, and where its pattern stands.
fn one_pattern(
    map: &Map<'_>,
    spec: &'static CommandSpec,
    request: &Request<'_>,
    at: (&'static str, usize),
    shard: u16,
) -> Result<(), ClientError> {
    let (option, index) = at;
    let pattern = request.arg(index);
    let Some(star) = pattern.iter().position(|&byte| byte == b'*') else {
        return Ok(());
    };
    let space = map.keyspace;
    let prefix = pattern.get(..star).unwrap_or_default();
    let Some(reached) = space.shard_of_all(prefix, map.admission) else {
        return Err(ClientError::HiddenKeys {
            command: spec.full_name,
            option,
            pattern: shortened(pattern),
        });
    };
    if reached == shard {
        return Ok(());
    }
    let place = |text: &[u8], group: &[u8], shard: u16| {
        let name = space.shards[usize::from(shard)].name.clone();
        (shortened(text), space.group(group).phrase(), name)
    };
    let key = request.arg(1);
    Err(ClientError::CrossShard {
        command: spec.full_name,
        keys: vec![place(key, key, shard), place(pattern, prefix, reached)],
    })
}
