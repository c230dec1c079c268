//! Affinity rules: regular expressions that say what to hash instead of a key.
//!
//! Owns: the rules of one keyspace, compiled. Queue libraries need the keys of one queue on one shard and write no hash
//! tags (`bull:mail:wait`, `bull:mail:active`); a rule like `^bull:([^:]+):` makes `mail` the part that is hashed. Where
//! such keys have nothing in common (`unacked`, `_kombu.binding.celery`), a rule gives them a name: ` => celery` at its
//! end, and `celery` is hashed for every key that it matches.
//! The router asks `hashed_part`, which falls back to the hash-tag rule when no rule matches.
//!
//! Must stay true: the cost of a key is bounded whatever rules and keys users bring. The engine never backtracks; rules,
//! their number and their compiled size are bounded, and only the head of a key is looked at. A rule never yields an
//! empty part, which would silently put unrelated keys on one shard. The same key always gives the same part: rules
//! are tried in their order and the first match decides.
//!
//! Rejected: names as a field beside the pattern: every place that takes a rule takes a text (file, option, binding).
//! One combined `RegexSet`. It tells which rules match but not where, so the deciding rule would run again,
//! and most keyspaces have one to three rules.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};
use regex_automata::hybrid::dfa::DFA;
use regex_automata::hybrid::LazyStateID;
use regex_automata::nfa::thompson::{self, NFA};
use regex_automata::Input;
use regex_syntax::ParserBuilder;

use crate::limits::{
    AFFINITY_KEY_BYTES_MAX, AFFINITY_PATTERN_MAX, AFFINITY_PROGRAM_BYTES_MAX, AFFINITY_RULES_MAX,
};
use crate::routing::tag::Tag;

/// What rules that can match nothing at all are tried on: words, separators and line ends in both orders, so that
/// anchors and word boundaries find a place.
const EMPTY_MATCH_PROBES: [&[u8]; 5] = [b"", b"a", b" ", b"a:b", b"\na\r\n "];

/// Between a rule's expression and the name that it gives. An expression that means these bytes writes `=[>]`.
const NAMES: &str = " => ";

/// The affinity rules of one keyspace.
///
/// Searching needs scratch memory, which a `Regex` keeps in a pool that threads contend for. A clone has a pool of its
/// own: give each worker a clone.
#[derive(Clone, Debug, Default)]
pub struct Affinity {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    regex: Regex,
    gives: Gives,
    /// The same rule as a machine that is fed byte by byte, and so knows when nothing that follows can matter. None: it is
    /// too large to be one.
    machine: Option<DFA>,
}

/// What a rule has hashed for a key that it matches.
#[derive(Clone, Debug)]
enum Gives {
    /// What it matched. Looking for groups costs more than finding the match; most rules have none.
    Match,
    /// Its first group that took part.
    Group,
    /// Always this, so that all such keys are together. Never empty.
    Name(Box<[u8]>),
}

/// A rule that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// Position in the list of rules, from 0.
    pub index: usize,
    /// The rule's text (its beginning, when it is longer than a rule may be).
    pub pattern: String,
    /// One line, for people.
    pub reason: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RuleError {
            index,
            pattern,
            reason,
        } = self;
        write!(f, "affinity rule {index} ({pattern:?}): {reason}")
    }
}

impl std::error::Error for RuleError {}

impl Affinity {
    /// The rules as text, in their order.
    pub fn texts(&self) -> Vec<String> {
        let text = |rule: &Rule| format!("{} {:?}", rule.regex.as_str(), rule.gives);
        self.rules.iter().map(text).collect()
    }

    /// Compiles the rules, in their order; the first bad one is the error.
    pub fn new(rules: &[String]) -> Result<Affinity, RuleError> {
        let mut compiled = Vec::with_capacity(rules.len().min(AFFINITY_RULES_MAX));
        for (index, pattern) in rules.iter().enumerate() {
            let rule = if index < AFFINITY_RULES_MAX {
                Rule::new(pattern)
            } else {
                Err(format!("more than {AFFINITY_RULES_MAX} rules"))
            };
            compiled.push(rule.map_err(|reason| RuleError {
                index,
                pattern: pattern.chars().take(AFFINITY_PATTERN_MAX).collect(),
                reason,
            })?);
        }
        Ok(Affinity { rules: compiled })
    }

    /// Whether there are no rules, so that hash tags alone decide.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the first matching rule has hashed instead of the key, never empty; `None` when no rule matches.
    ///
    /// `$` in a rule means the end of what is looked at: for a key longer than `AFFINITY_KEY_BYTES_MAX` it matches there.
    pub fn part<'k>(&'k self, key: &'k [u8]) -> Option<&'k [u8]> {
        let head = &key[..key.len().min(AFFINITY_KEY_BYTES_MAX)];
        self.rules
            .iter()
            .find_map(|rule| rule.part(head).filter(|part| !part.is_empty()))
    }

    /// What `part` finds in every key that begins so; the outer `None` where that depends on what follows.
    pub fn settled<'k>(&'k self, prefix: &'k [u8]) -> Option<Option<&'k [u8]>> {
        let head = &prefix[..prefix.len().min(AFFINITY_KEY_BYTES_MAX)];
        for rule in &self.rules {
            if !rule.is_settled(prefix) {
                return None;
            }
            if let Some(part) = rule.part(head).filter(|part| !part.is_empty()) {
                return Some(Some(part));
            }
        }
        Some(None)
    }
}

impl Rule {
    fn new(pattern: &str) -> Result<Rule, String> {
        if pattern.len() > AFFINITY_PATTERN_MAX {
            return Err(format!("longer than {AFFINITY_PATTERN_MAX} bytes"));
        }
        let (expression, name) = split_name(pattern)?;
        let regex = RegexBuilder::new(expression)
            .unicode(false)
            .size_limit(AFFINITY_PROGRAM_BYTES_MAX)
            .dfa_size_limit(AFFINITY_PROGRAM_BYTES_MAX)
            .build()
            .map_err(|error| compile_reason(&error))?;
        if matches_empty(&regex) {
            return Err(
                "matches the empty string: it would put unrelated keys on one shard".into(),
            );
        }
        let gives = match name {
            Some(name) => Gives::Name(name.as_bytes().into()),
            None if regex.captures_len() > 1 => Gives::Group,
            None => Gives::Match,
        };
        let machine = machine_of(expression);
        Ok(Rule {
            regex,
            gives,
            machine,
        })
    }

    /// Whether the rule finds the same in every key that begins so: no thread of the search is left, or all that can follow
    /// (any byte, or the end) ends it in the same way.
    fn is_settled(&self, prefix: &[u8]) -> bool {
        prefix.len() >= AFFINITY_KEY_BYTES_MAX || self.settles(prefix).unwrap_or(false)
    }

    /// A match is known one byte late. `None`: the machine cannot tell.
    fn settles(&self, prefix: &[u8]) -> Option<bool> {
        let machine = self.machine.as_ref()?;
        let cache = &mut machine.create_cache();
        let mut state = machine
            .start_state_forward(cache, &Input::new(prefix))
            .ok()?;
        for &byte in prefix {
            state = machine.next_state(cache, state, byte).ok()?;
            if state.is_dead() || state.is_quit() {
                return Some(state.is_dead());
            }
        }
        let at_end = machine.next_eoi_state(cache, state).ok()?.is_match();
        let mut nexts: Vec<LazyStateID> = Vec::new();
        for byte in 0..=u8::MAX {
            let next = machine.next_state(cache, state, byte).ok()?;
            if next.is_match() != at_end {
                return Some(false);
            }
            if !next.is_dead() && !nexts.contains(&next) {
                nexts.push(next);
            }
        }
        for next in nexts {
            if machine.next_eoi_state(cache, next).ok()?.is_match() {
                return Some(false);
            }
            for byte in 0..=u8::MAX {
                if !machine.next_state(cache, next, byte).ok()?.is_dead() {
                    return Some(false);
                }
            }
        }
        // States lose their names when the machine's memory was full and is begun anew.
        Some(cache.clear_count() == 0)
    }

    fn part<'k>(&'k self, head: &'k [u8]) -> Option<&'k [u8]> {
        match &self.gives {
            Gives::Match => self.regex.find(head).map(|found| found.as_bytes()),
            Gives::Group => {
                let groups = self.regex.captures(head)?;
                let first = groups.iter().skip(1).flatten().next();
                first.or_else(|| groups.get(0)).map(|part| part.as_bytes())
            }
            Gives::Name(name) => self.regex.is_match(head).then_some(name),
        }
    }
}

/// The expression of a rule, and the name that it gives if it gives one.
fn split_name(rule: &str) -> Result<(&str, Option<&str>), String> {
    let trimmed = rule.trim_end();
    if trimmed.ends_with(NAMES.trim_end()) {
        return Err("there is no name after =>".into());
    }
    match rule.rsplit_once(NAMES) {
        None => Ok((rule, None)),
        Some((_, name)) if name.contains(char::is_whitespace) => {
            Err(format!("the name after => has a space in it: {name:?}"))
        }
        Some((expression, name)) => Ok((expression, Some(name))),
    }
}

/// A rule as the machine that `settles` feeds.
fn machine_of(pattern: &str) -> Option<DFA> {
    let mut parser = ParserBuilder::new().unicode(false).utf8(false).build();
    let bounds = thompson::Config::new()
        .utf8(false)
        .nfa_size_limit(Some(AFFINITY_PROGRAM_BYTES_MAX));
    let nfa = NFA::compiler()
        .configure(bounds)
        .build_from_hir(&parser.parse(pattern).ok()?);
    DFA::builder().build_from_nfa(nfa.ok()?).ok()
}

/// The regex library explains over several lines, the last of which is the reason.
fn compile_reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => {
            format!("too large once compiled (more than {AFFINITY_PROGRAM_BYTES_MAX} bytes)")
        }
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}

/// Whether the rule can match without taking a byte. Such a match is ignored at run time too; refusing it early tells
/// the user of a rule that does less than it seems to.
fn matches_empty(regex: &Regex) -> bool {
    EMPTY_MATCH_PROBES.iter().any(|probe| {
        (0..=probe.len()).any(|start| {
            regex
                .find_at(probe, start)
                .is_some_and(|found| found.is_empty())
        })
    })
}

/// What is hashed of a key: what an affinity rule says, else its hash tag, else the whole key.
#[inline]
pub fn hashed_part<'k>(affinity: &'k Affinity, tag: Tag, key: &'k [u8]) -> &'k [u8] {
    if affinity.is_empty() {
        return tag.part(key);
    }
    affinity.part(key).unwrap_or_else(|| tag.part(key))
}

/// As `hashed_part` of every key that begins so; `None` where what follows may decide.
pub fn settled_part<'k>(affinity: &'k Affinity, tag: Tag, prefix: &'k [u8]) -> Option<&'k [u8]> {
    affinity.settled(prefix)?.or_else(|| tag.settled(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affinity(rules: &[&str]) -> Affinity {
        let rules: Vec<String> = rules.iter().map(|rule| rule.to_string()).collect();
        Affinity::new(&rules).unwrap()
    }

    fn refusal(rule: &str) -> String {
        Affinity::new(&[rule.to_owned()]).unwrap_err().reason
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let affinity = affinity(&[
            "^bull:([^:]+):",
            "^rq:",
            "^lock(-signal)?:(.*)",
            "^(?:a|(b)c)x",
        ]);
        let cases: [(&str, Option<&str>); 12] = [
            ("bull:mail:wait", Some("mail")),
            ("bull:mail:", Some("mail")),
            ("bull:mail", None),
            ("bull::wait", None),
            ("rq:queue:default", Some("rq:")),
            ("x-rq:queue", None),
            ("lock-signal:name", Some("-signal")),
            ("lock:name", Some("name")),
            ("lock:", None), // its only group that takes part is empty
            ("ax", Some("ax")),
            ("bcx", Some("b")),
            ("", None),
        ];
        for (key, part) in cases {
            let found = affinity.part(key.as_bytes());
            assert_eq!(found, part.map(str::as_bytes), "{key}");
        }
    }

    #[test]
    fn an_empty_part_lets_the_next_rule_decide() {
        let affinity = affinity(&["^q:([^:]*):", "^q:"]);
        assert_eq!(affinity.part(b"q:a:1"), Some(&b"a"[..]));
        assert_eq!(affinity.part(b"q::1"), Some(&b"q:"[..]));
    }

    #[test]
    fn a_rule_may_give_its_keys_a_name() {
        let affinity = affinity(&[
            r"^(?:unacked|_kombu\.) => celery",
            "^(a) => b => c",
            "^=[>]",
            "^ x =>y",
        ]);
        let cases: [(&str, Option<&str>); 7] = [
            ("unacked_index", Some("celery")),
            ("_kombu.binding.celery", Some("celery")),
            ("kombu", None),
            ("a => b", Some("c")),
            ("a", None),
            ("=>", Some("=>")),
            (" x =>y", Some(" x =>y")),
        ];
        for (key, part) in cases {
            let found = affinity.part(key.as_bytes());
            assert_eq!(found, part.map(str::as_bytes), "{key}");
        }
        assert_eq!(
            hashed_part(&affinity, Tag::BRACES, b"unacked"),
            hashed_part(&affinity, Tag::BRACES, b"any:{celery}:key")
        );
    }

    #[test]
    fn hash_tags_hold_where_no_rule_matches() {
        let rules = affinity(&["^rq:"]);
        assert_eq!(hashed_part(&rules, Tag::BRACES, b"rq:{x}"), b"rq:");
        assert_eq!(hashed_part(&rules, Tag::BRACES, b"app:{x}:y"), b"x");
        assert_eq!(hashed_part(&rules, Tag::BRACES, b"app"), b"app");
        let none = Affinity::default();
        assert!(none.is_empty() && !rules.is_empty());
        assert_eq!(hashed_part(&none, Tag::BRACES, b"rq:{x}"), b"x");
    }

    #[test]
    fn what_follows_a_prefix_matters_only_where_a_rule_is_still_searching() {
        let rules = affinity(&["^bull:([^:]+):", "^rq:", "^lock(-signal)?:(.*)"]);
        let cases: [(&str, Option<Option<&str>>); 9] = [
            ("bull:mail:", Some(Some("mail"))),
            ("bull:mail:x", Some(Some("mail"))),
            ("bull:mail", None),
            ("bull", None),
            ("w_", Some(None)),
            ("", None),
            ("rq:", Some(Some("rq:"))),
            ("lock:a:", None),
            ("lock-signal:x", None),
        ];
        for (prefix, settled) in cases {
            let found = rules.settled(prefix.as_bytes());
            let settled = settled.map(|part| part.map(str::as_bytes));
            assert_eq!(found, settled, "{prefix}");
        }
        for (rule, prefix) in [
            ("end", "x"),
            ("^rq:+", "rq:"),
            ("^rq:$", "rq:"),
            (r"^rq:\b", "rq:"),
            ("^rq(:x)?", "rq"),
        ] {
            assert_eq!(affinity(&[rule]).settled(prefix.as_bytes()), None, "{rule}");
        }
        assert_eq!(Affinity::default().settled(b""), Some(None));
    }

    /// The twin: whatever is settled is found again in every longer key.
    #[test]
    fn a_settled_part_is_that_of_every_longer_key() {
        let rules = [
            "^a:([^:]+):",
            "^a:",
            "a+:",
            "^(a|ab)b?",
            "^a:$",
            r"^a\b",
            "^(?:a|(b):)a",
            "^a.?b?$",
            "^ab? => name",
            "b",
        ];
        let pieces = ["", "a", "b", ":", "a:", "ab", ":a:", "ba:b", "{a}"];
        let mut settled = 0;
        for one in rules {
            for two in rules {
                let rules = affinity(&[one, two]);
                for prefix in pieces
                    .iter()
                    .flat_map(|head| pieces.map(|tail| format!("{head}{tail}")))
                {
                    let Some(part) = rules.settled(prefix.as_bytes()) else {
                        continue;
                    };
                    settled += 1;
                    for rest in pieces
                        .iter()
                        .flat_map(|x| pieces.map(|y| format!("{x}{y}")))
                    {
                        let key = format!("{prefix}{rest}");
                        assert_eq!(rules.part(key.as_bytes()), part, "{one} {two} {key}");
                    }
                }
            }
        }
        assert!(settled > 300, "{settled}");
    }

    #[test]
    fn keys_are_bytes() {
        let affinity = affinity(&[r"^\xff(.)", "^é(.)"]);
        assert_eq!(affinity.part(b"\xff\xfe"), Some(&b"\xfe"[..]));
        assert_eq!(affinity.part("éa".as_bytes()), Some(&b"a"[..]));
    }

    #[test]
    fn only_the_head_of_a_key_is_looked_at() {
        let affinity = affinity(&["z+", "end"]);
        let mut key = vec![b'a'; AFFINITY_KEY_BYTES_MAX];
        key.extend_from_slice(b"end");
        assert_eq!(affinity.part(&key), None);
        key[AFFINITY_KEY_BYTES_MAX - 1] = b'z';
        key.extend_from_slice(b"z");
        assert_eq!(affinity.part(&key), Some(&b"z"[..]));
    }

    #[test]
    fn bad_rules_are_refused_with_a_reason() {
        for rule in [
            "", "a*", "x?", "^", "$", r"\b", r"\B", "(?m)^", "(?m)$", "a|", "(a)?$", r"\b|zz",
        ] {
            assert!(
                refusal(rule).starts_with("matches the empty string"),
                "{rule}"
            );
        }
        assert_eq!(refusal("(a"), "unclosed group");
        assert!(refusal(r"(a)\1").contains("backreferences are not supported"));
        assert!(refusal("(?=a)b").contains("look-around"));
        assert!(refusal("^a =>").starts_with("there is no name"));
        assert!(refusal("^a => ").starts_with("there is no name"));
        assert!(refusal("^a => b c").contains("a space"));
        assert!(refusal("^a* => b").starts_with("matches the empty string"));
        assert!(refusal(r"\p{Greek}").contains("Unicode"));
        assert!(refusal(&"a".repeat(AFFINITY_PATTERN_MAX + 1)).starts_with("longer than"));
        assert!(refusal("((a{1,1000}){1,1000}){1,1000}").starts_with("too large"));

        let mut rules = vec!["a".to_owned(); AFFINITY_RULES_MAX];
        assert!(Affinity::new(&rules).is_ok());
        rules.push("a".to_owned());
        let error = Affinity::new(&rules).unwrap_err();
        assert_eq!(error.index, AFFINITY_RULES_MAX);
        assert_eq!(
            error.to_string(),
            "affinity rule 64 (\"a\"): more than 64 rules"
        );
    }

    /// Rules that ruin a backtracking engine: tried on the longest head they must stay far from it. The bound is a
    /// thousand times what it takes, and some hundred orders of magnitude below what backtracking would.
    #[test]
    fn costly_rules_stay_linear() {
        let affinity = affinity(&["^(a+)+$", "^(a|aa)+x", "(.*)(.*)(.*)(.*)(.*)y"]);
        let key = [b'a'; AFFINITY_KEY_BYTES_MAX];
        let mut key = key.to_vec();
        key[AFFINITY_KEY_BYTES_MAX - 1] = b'!';
        let start = std::time::Instant::now();
        assert_eq!(affinity.part(&key), None);
        assert!(start.elapsed() < std::time::Duration::from_secs(10));
    }
}
