//! Where a request's keys are, and what the command does to each.
//!
//! Owns: key specifications (`KeySpec`, as the servers define them: begin search plus find keys), their interpreter `keys`,
//! and `Access`.
//!
//! Flow: `CommandSpec::keys` (from the generated table) + a request's argument ranges -> positions of its keys.
//!
//! Must stay true: `keys` never names fewer keys than the servers find; where it cannot tell, it fails as they do. An access
//! never promises more than the command keeps: whoever is in doubt takes `Write`, which promises nothing.
//! Rejected: to derive `Access` from `needs`, which is about what a user may learn: COPY tells nothing of the key that it
//! writes, and yet looks whether it is there.

use crate::protocol::command::{flags, Arg, CommandSpec, KeyError};

/// What a command does to a key, as far as it decides what must be brought to the command, and what must be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It is looked at, and stays as it is.
    Read,
    /// It is looked at and may be changed.
    Write,
    /// A command that succeeds replaces it, or takes it away, whatever it was; one that fails leaves it as it is.
    Overwrite,
    /// The key is taken away, whatever it was; all that is told of it is whether it was there.
    Remove,
}

impl Access {
    /// What a request does that does both to one key.
    pub fn with(self, other: Self) -> Self {
        if self == other {
            self
        } else {
            Self::Write
        }
    }

    /// Whether nothing is changed.
    pub fn is_read(self) -> bool {
        self == Self::Read
    }
}

/// One key specification, as the servers define them (begin search plus find keys).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySpec {
    /// Where the first key of this specification is looked for.
    pub begin: Begin,
    /// How the keys follow from there.
    pub find: Find,
    /// Whether these keys may be changed by the command, as the servers count it (RW, OW, RM).
    pub write: bool,
    /// What an operation that moves keys between shards has to know of that.
    pub access: Access,
    /// What a user must be allowed of them: bits of `permission::needs`.
    pub needs: u8,
}

/// Start of a key specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At this argument (0 is the command name).
    Index(u16),
    /// One past the argument that equals the keyword, ignoring case. `from` > 0 searches forward from that argument;
    /// `from` < 0 searches backward from that argument counted from the end (-1 is the last).
    Keyword {
        /// Upper case.
        word: &'static [u8],
        /// Where the search starts.
        from: i16,
    },
    /// One past the last option `word` (ignoring case) of those after argument `from`. An option listed in `values` is
    /// skipped with as many values as it takes, so that a value spelt like the option is not mistaken for it. The
    /// servers have no such specification; they search SORT's and GEORADIUS' arguments in code.
    Option {
        /// Upper case.
        word: &'static [u8],
        /// Where the options start.
        from: u16,
        /// Other options, upper case, and how many values each has.
        values: &'static [(&'static [u8], u8)],
    },
}

/// How keys follow from the beginning of a specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Find {
    /// Every `step`-th argument up to `last`, an offset from the begin; negative counts from the end (-1: the last
    /// argument). `limit` 2 means: stop at half of what remains, 3 at a third ... (only with `last` == -1).
    Range {
        /// Offset of the last key.
        last: i16,
        /// Distance of neighbouring keys.
        step: u8,
        /// Fraction of the remaining arguments, 0 and 1 mean all.
        limit: u8,
    },
    /// An argument holds the number of keys.
    Count {
        /// Offset of that argument from the begin.
        count: u8,
        /// Offset of the first key from the begin.
        first: u8,
        /// Distance of neighbouring keys.
        step: u8,
    },
}

/// Puts the positions of the request's keys into `out` (which is emptied first), in the order of the specifications.
///
/// `args` is the whole request, its name included, and are ranges of `data`. Any input is fine: at most one position per
/// specification and argument comes out, each within `args`. On an error `out` holds nothing of use.
pub fn keys(
    spec: &CommandSpec,
    args: &[Arg],
    data: &[u8],
    out: &mut Vec<u32>,
) -> Result<(), KeyError> {
    out.clear();
    let mandatory = spec.flags & flags::NO_MANDATORY_KEYS == 0;
    for key_spec in spec.keys {
        keys_of(spec, key_spec, args, data, out)?;
    }
    if out.is_empty() && mandatory && !spec.keys.is_empty() {
        return Err(KeyError::Missing);
    }
    Ok(())
}

/// Appends the keys of one specification.
pub fn keys_of(
    spec: &CommandSpec,
    key_spec: &KeySpec,
    args: &[Arg],
    data: &[u8],
    out: &mut Vec<u32>,
) -> Result<(), KeyError> {
    let mandatory = spec.flags & flags::NO_MANDATORY_KEYS == 0;
    begin(&key_spec.begin, args, data).map_or(Ok(()), |first| {
        find(&key_spec.find, first, args, data, mandatory, out)
    })
}

/// Where a specification's keys begin; may lie behind the last argument.
fn begin(begin: &Begin, args: &[Arg], data: &[u8]) -> Option<usize> {
    let is = |at: usize, word: &[u8]| args[at].of(data).eq_ignore_ascii_case(word);
    // The last argument is never a keyword: nothing would follow it. Nor is the command's name.
    let last = args.len().saturating_sub(1);
    match *begin {
        Begin::Index(at) => Some(at as usize),
        Begin::Keyword { word, from } if from >= 0 => (from as usize..last)
            .find(|&at| is(at, word))
            .map(|at| at + 1),
        Begin::Keyword { word, from } => {
            let end = args.len().checked_sub(from.unsigned_abs() as usize)?;
            (1..=end).rev().find(|&at| is(at, word)).map(|at| at + 1)
        }
        Begin::Option { word, from, values } => {
            let mut found = None;
            let mut at = from as usize;
            while at < last {
                if is(at, word) {
                    found = Some(at + 1);
                    at += 1;
                } else if let Some((_, count)) = values.iter().find(|(other, _)| is(at, other)) {
                    at += *count as usize;
                }
                at += 1;
            }
            found
        }
    }
}

/// Appends the keys that follow from `first`.
fn find(
    find: &Find,
    first: usize,
    args: &[Arg],
    data: &[u8],
    mandatory: bool,
    out: &mut Vec<u32>,
) -> Result<(), KeyError> {
    let argc = args.len();
    match *find {
        Find::Range { last, step, limit } => {
            let end = if last >= 0 {
                first + last as usize + 1
            } else if limit <= 1 {
                (argc + 1).saturating_sub(last.unsigned_abs() as usize)
            } else {
                (first + argc.saturating_sub(first) / limit as usize + 1)
                    .saturating_sub(last.unsigned_abs() as usize)
            };
            out.extend(
                (first..end.min(argc))
                    .step_by(step.max(1) as usize)
                    .map(|at| at as u32),
            );
        }
        Find::Count {
            count,
            first: offset,
            step,
        } => {
            let announced = args.get(first + count as usize).ok_or(KeyError::Missing)?;
            let number = integer(announced.of(data)).ok_or(KeyError::CountNotANumber)?;
            let least = if mandatory { 1 } else { 0 };
            let number = usize::try_from(number)
                .ok()
                .filter(|&number| number >= least)
                .ok_or(KeyError::TooFew)?;
            let start = first + offset as usize;
            let step = step.max(1) as usize;
            // Compared by division, because the number may be anything.
            if number > argc.saturating_sub(start) / step {
                return Err(KeyError::TooMany);
            }
            out.extend((start..argc).step_by(step).take(number).map(|at| at as u32));
        }
    }
    Ok(())
}

/// A number as the servers accept it: decimal, no sign but a minus, no leading zeros, 64 bits.
fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [b'0'] if digits.len() == text.len() => return Some(0),
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => {}
        _ => return None,
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}
