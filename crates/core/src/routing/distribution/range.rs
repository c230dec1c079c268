//! Ranges: tables of ids, one for each kind of object, as the partitioning guide describes them.
//!
//! Owns: `Ranges`: tables by the prefix of a key, each a sorted list of parts with a shard, and the distribution for keys
//! that no part holds, if there is one.
//!
//! Flow: the longest prefix that a key begins with -> its table -> the id after the prefix -> binary search.
//! Numeric ids are runs of decimal digits of any length, compared as numbers; what follows them in the key does not count
//! (`user:42:cart` is of user 42), unless it is a letter, since `42a` is not a number. Text ids are the whole rest of the
//! key, compared as bytes.
//!
//! Must stay true: a key has one shard or none, never a guess; parts of a table are in order and do not overlap, and
//! without a fallback there is no gap between them.

use std::cmp::Ordering;

use crate::routing::distribution::Distribution;

/// Some ids of a table and their shard, as the configuration gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartGiven {
    /// None: right after the part before it; for the first part, open below.
    pub first: Option<String>,
    /// Inclusive. None: open above.
    pub last: Option<String>,
    /// Index of the shard.
    pub shard: u16,
}

/// A table, as the configuration gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableGiven {
    /// Keys that begin with this.
    pub prefix: String,
    /// Ids are numbers, not text.
    pub numeric: bool,
    /// Ascending.
    pub parts: Vec<PartGiven>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// None: open below.
    first: Option<Vec<u8>>,
    /// None: open above.
    last: Option<Vec<u8>>,
    shard: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Table {
    prefix: Vec<u8>,
    numeric: bool,
    parts: Vec<Part>,
}

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges {
    /// Sorted by prefix.
    tables: Vec<Table>,
    /// Lengths of prefixes, the longest first.
    lengths: Vec<usize>,
    fallback: Option<Box<Distribution>>,
}

impl Ranges {
    /// Checks and sorts; the error names the table and what is wrong in it.
    pub fn new(
        tables: &[TableGiven],
        fallback: Option<Distribution>,
        shards: usize,
    ) -> Result<Self, String> {
        if tables.is_empty() {
            return Err("a distribution by range needs a table".into());
        }
        let has_fallback = fallback.is_some();
        let mut sorted = tables
            .iter()
            .map(|given| {
                table(given, has_fallback, shards)
                    .map_err(|text| format!("table \"{}\": {text}", given.prefix))
            })
            .collect::<Result<Vec<Table>, String>>()?;
        sorted.sort_by(|one, other| one.prefix.cmp(&other.prefix));
        if let Some(pair) = sorted
            .windows(2)
            .find(|pair| pair[0].prefix == pair[1].prefix)
        {
            let prefix = String::from_utf8_lossy(&pair[0].prefix);
            return Err(format!("table \"{prefix}\" is given twice"));
        }
        let mut lengths: Vec<usize> = sorted.iter().map(|table| table.prefix.len()).collect();
        lengths.sort_unstable_by(|one, other| other.cmp(one));
        lengths.dedup();
        Ok(Self {
            tables: sorted,
            lengths,
            fallback: fallback.map(Box::new),
        })
    }

    /// The shard of a key; `part` is what the fallback hashes. None: no part holds it, and there is no fallback.
    pub fn shard(&self, key: &[u8], part: &[u8]) -> Option<u16> {
        self.in_table(key)
            .or_else(|| self.fallback.as_ref()?.shard(key, part))
    }

    /// For keys that no table holds.
    pub fn fallback(&self) -> Option<&Distribution> {
        self.fallback.as_deref()
    }

    fn in_table(&self, key: &[u8]) -> Option<u16> {
        let table = self.lengths.iter().find_map(|&length| {
            let prefix = key.get(..length)?;
            let at = self
                .tables
                .binary_search_by(|table| table.prefix.as_slice().cmp(prefix))
                .ok()?;
            Some(&self.tables[at])
        })?;
        table.shard(&key[table.prefix.len()..])
    }
}

impl Table {
    fn shard(&self, rest: &[u8]) -> Option<u16> {
        let id = if self.numeric { number(rest)? } else { rest };
        let order = |one: &[u8], other: &[u8]| compare(self.numeric, one, other);
        let at = self.parts.partition_point(|part| {
            let last = part.last.as_deref();
            last.is_some_and(|last| order(last, id) == Ordering::Less)
        });
        let part = self.parts.get(at)?;
        let begins = part.first.as_deref();
        begins
            .is_none_or(|first| order(first, id) != Ordering::Greater)
            .then_some(part.shard)
    }
}

/// The number that a key goes on with, without leading zeros. None when it goes on with anything else.
fn number(rest: &[u8]) -> Option<&[u8]> {
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let is_number = length > 0 && rest.get(length).is_none_or(|byte| !is_letter(*byte));
    is_number.then(|| stripped(&rest[..length]))
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte >= 0x80
}

/// Decimal digits without leading zeros; 0 is empty.
fn stripped(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    &digits[zeros..]
}

/// Numbers without leading zeros are ordered by length first.
fn compare(numeric: bool, one: &[u8], other: &[u8]) -> Ordering {
    if numeric {
        one.len().cmp(&other.len()).then_with(|| one.cmp(other))
    } else {
        one.cmp(other)
    }
}

/// One more than a number without leading zeros.
fn successor(number: &[u8]) -> Vec<u8> {
    let mut digits = number.to_vec();
    for digit in digits.iter_mut().rev() {
        if *digit != b'9' {
            *digit += 1;
            return digits;
        }
        *digit = b'0';
    }
    digits.insert(0, b'1');
    digits
}

fn bound(text: &str, numeric: bool) -> Result<Vec<u8>, String> {
    if !numeric {
        return Ok(text.as_bytes().to_vec());
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("not a number of decimal digits: \"{text}\""));
    }
    Ok(stripped(text.as_bytes()).to_vec())
}

fn shown(id: &[u8]) -> String {
    if id.is_empty() {
        "0".into()
    } else {
        String::from_utf8_lossy(id).into_owned()
    }
}

fn table(given: &TableGiven, has_fallback: bool, shards: usize) -> Result<Table, String> {
    let numeric = given.numeric;
    if given.parts.is_empty() {
        return Err("has no ranges".into());
    }
    let mut parts: Vec<Part> = Vec::with_capacity(given.parts.len());
    for (index, part) in given.parts.iter().enumerate() {
        if part.shard as usize >= shards {
            return Err(format!("there is no shard number {}", part.shard));
        }
        let last = part
            .last
            .as_deref()
            .map(|text| bound(text, numeric))
            .transpose()?;
        if last.is_none() && index + 1 < given.parts.len() {
            return Err("only the last range may be open above".into());
        }
        let before = parts.last().and_then(|part| part.last.clone());
        let wanted = part
            .first
            .as_deref()
            .map(|text| bound(text, numeric))
            .transpose()?;
        let first = begin(numeric, wanted, before, has_fallback)?;
        if let (Some(first), Some(last)) = (&first, &last) {
            if compare(numeric, first, last) == Ordering::Greater {
                return Err(format!(
                    "ranges must ascend: one begins with {} and ends with {}",
                    shown(first),
                    shown(last)
                ));
            }
        }
        parts.push(Part {
            first,
            last,
            shard: part.shard,
        });
    }
    Ok(Table {
        prefix: given.prefix.as_bytes().to_vec(),
        numeric,
        parts,
    })
}

/// Where a part begins, given where the one before it ends.
fn begin(
    numeric: bool,
    wanted: Option<Vec<u8>>,
    before: Option<Vec<u8>>,
    has_fallback: bool,
) -> Result<Option<Vec<u8>>, String> {
    // The first id after another: the next number; for text, the same with a byte 0 behind it.
    let next = before.map(|last| {
        if numeric {
            successor(&last)
        } else {
            let mut longer = last;
            longer.push(0);
            longer
        }
    });
    let (Some(first), Some(next)) = (&wanted, &next) else {
        return Ok(wanted.or(next));
    };
    match compare(numeric, first, next) {
        Ordering::Less => Err(format!("ranges overlap at {}", shown(first))),
        Ordering::Greater if !has_fallback => Err(format!(
            "ids between two ranges, before {}, belong to none: close the gap or give a fallback",
            shown(first)
        )),
        Ordering::Equal | Ordering::Greater => Ok(wanted),
    }
}
