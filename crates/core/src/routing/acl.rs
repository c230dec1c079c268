//! What a user of a keyspace may do: commands, keys, channels.
//!
//! Owns: `Acl`, a user's rules as they are asked of every request, and the verdict. How they are written and shown is in
//! `acl_rules`.
//!
//! Flow: one selector must allow all of a request: its command, each of its keys for what is done to it, each of its
//! channels. Where none does, the verdict is the reason of the one that came furthest, as servers choose it.
//!
//! Must stay true: nothing is allowed that no rule allows, apart from the commands that make a stranger known; what is
//! unknown to the command table is allowed to those only who may do everything with every key. Commands within scripts
//! are not seen here.
//! Rejected: compiling rules to one set for each user: selectors allow together what none of them allows alone.

use crate::error::ClientError;
use crate::protocol::command::{flags, subcommand, Check, CommandSpec, Local, Policy};
use crate::protocol::command_table::{COMMANDS, NUMBERS};
use crate::protocol::glob;
use crate::protocol::permission::{needed_keys, needs};
use crate::routing::route::Request;

/// A bit for each command and subcommand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandSet([u64; NUMBERS.div_ceil(64)]);

impl CommandSet {
    pub(crate) fn of_all(is_in: bool) -> Self {
        Self([if is_in { u64::MAX } else { 0 }; NUMBERS.div_ceil(64)])
    }

    pub(crate) fn set(&mut self, number: u16, is_in: bool) {
        if let Some(word) = self.0.get_mut(number as usize / 64) {
            let bit = 1 << (number % 64);
            *word = if is_in { *word | bit } else { *word & !bit };
        }
    }

    fn has(&self, number: u16) -> bool {
        let word = self.0.get(number as usize / 64);
        word.is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}

/// Keys that a selector allows, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPattern {
    pub(crate) pattern: Vec<u8>,
    /// Bits of `needs`.
    pub(crate) permits: u8,
}

/// Rules that must allow a request by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector {
    /// Also those that the table does not know.
    pub(crate) all_commands: bool,
    pub(crate) all_keys: bool,
    pub(crate) all_channels: bool,
    pub(crate) commands: CommandSet,
    /// Commands (by number) that are allowed with this first argument; lower case.
    pub(crate) first_arguments: Vec<(u16, Vec<u8>)>,
    pub(crate) keys: Vec<KeyPattern>,
    pub(crate) channels: Vec<Vec<u8>>,
    /// How the rules of commands began: from all of them, or from none.
    pub(crate) begins_with_all: bool,
    /// What changed that since: whether it allows, and what; lower case.
    pub(crate) changes: Vec<(bool, String)>,
}

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    /// Whether the user may log in.
    pub is_on: bool,
    /// Any password is right.
    pub is_open: bool,
    /// The first holds the rules that stand outside of parentheses.
    pub(crate) selectors: Vec<Selector>,
}

/// Why a request is not allowed. Positions are of arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// No selector allows the command.
    Command,
    /// One does, but not with this key.
    Key(u32),
    /// One does, but not with this channel.
    Channel(u32),
}

/// What a request would use.
struct Wants<'r> {
    spec: &'static CommandSpec,
    request: &'r Request<'r>,
    keys: &'r [(u32, u8)],
}

impl Selector {
    pub(crate) fn allows_nothing() -> Self {
        Self {
            all_commands: false,
            all_keys: false,
            all_channels: false,
            commands: CommandSet::of_all(false),
            first_arguments: Vec::new(),
            keys: Vec::new(),
            channels: Vec::new(),
            begins_with_all: false,
            changes: Vec::new(),
        }
    }

    fn allows_command(&self, spec: &CommandSpec, request: &Request<'_>) -> bool {
        if self.all_commands || spec.flags & flags::NO_AUTH != 0 || self.commands.has(spec.number) {
            return true;
        }
        // Of commands without subcommands only.
        let first = request.arg(1);
        request.args.len() > 1
            && self
                .first_arguments
                .iter()
                .any(|(number, word)| *number == spec.number && first.eq_ignore_ascii_case(word))
    }

    fn allows_key(&self, key: &[u8], wanted: u8) -> bool {
        let permits = |pattern: &KeyPattern| {
            pattern.permits & wanted == wanted && glob::matches(&pattern.pattern, key)
        };
        self.all_keys || self.keys.iter().any(permits)
    }

    fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        let permits = |allowed: &Vec<u8>| {
            if is_pattern {
                allowed == channel
            } else {
                glob::matches(allowed, channel)
            }
        };
        self.all_channels || self.channels.iter().any(permits)
    }

    fn judge(&self, wants: &Wants<'_>) -> Result<(), Denied> {
        if !self.allows_command(wants.spec, wants.request) {
            return Err(Denied::Command);
        }
        for &(at, wanted) in wants.keys {
            if !self.allows_key(wants.request.arg(at as usize), wanted) {
                return Err(Denied::Key(at));
            }
        }
        let (channels, is_pattern) = channels_of(wants.spec, wants.request);
        for at in channels {
            if !self.allows_channel(wants.request.arg(at), is_pattern) {
                return Err(Denied::Channel(at as u32));
            }
        }
        Ok(())
    }
}

/// What a request is judged by: the subcommand, also of a command that the router does not look into (COMMAND).
pub fn exact(spec: &'static CommandSpec, request: &Request<'_>) -> &'static CommandSpec {
    if spec.subcommands.is_empty() {
        return spec;
    }
    subcommand(spec, request.arg(1)).unwrap_or(spec)
}

/// Where a request has channels that it publishes to or subscribes to, and whether those are patterns.
fn channels_of(spec: &CommandSpec, request: &Request<'_>) -> (std::ops::Range<usize>, bool) {
    let count = request.args.len();
    match spec.policy {
        Policy::Local(Local::Subscribe | Local::Ssubscribe) => (1..count, false),
        Policy::Local(Local::Psubscribe) => (1..count, true),
        Policy::Local(Local::Publish | Local::Spublish) => (1..count.min(2), false),
        _ => (0..0, false),
    }
}

impl Acl {
    /// Of a user without rules: everything.
    pub fn everything() -> Self {
        Self {
            is_on: true,
            is_open: false,
            selectors: vec![Selector {
                all_commands: true,
                all_keys: true,
                all_channels: true,
                commands: CommandSet::of_all(true),
                begins_with_all: true,
                ..Selector::allows_nothing()
            }],
        }
    }

    /// Nothing has to be asked: any request is allowed.
    pub fn allows_everything(&self) -> bool {
        self.selectors
            .iter()
            .any(|rules| rules.all_commands && rules.all_keys && rules.all_channels)
    }

    /// Whether a request is allowed. Where its keys cannot be told it is judged without keys, as servers do: they refuse it
    /// before they touch any, and so does the router.
    pub fn judge(&self, spec: &'static CommandSpec, request: &Request<'_>) -> Result<(), Denied> {
        let spec = exact(spec, request);
        let mut keys = Vec::new();
        let asks_keys = self.selectors.iter().any(|rules| !rules.all_keys);
        if asks_keys && needed_keys(spec, request.args, request.data, &mut keys).is_err() {
            keys.clear();
        }
        let wants = Wants {
            spec,
            request,
            keys: &keys,
        };
        let mut reason = Denied::Command;
        for selector in &self.selectors {
            match selector.judge(&wants) {
                Ok(()) => return Ok(()),
                Err(other) => reason = reason.max(other),
            }
        }
        Err(reason)
    }

    /// Whether a command that the table does not know is allowed: nobody knows its keys.
    pub fn allows_unknown(&self) -> bool {
        self.selectors
            .iter()
            .any(|rules| rules.all_commands && rules.all_keys)
    }

    /// SORT's patterns reach keys that it does not name: only who may read every key may give them. (One that has no `*` is
    /// no pattern; servers let pass such a BY, but no GET at all.)
    pub fn sort_denied(&self, spec: &CommandSpec, request: &Request<'_>) -> Option<ClientError> {
        if spec.check != Check::SortPatterns {
            return None;
        }
        let is_any = |key: &KeyPattern| key.pattern == b"*" && key.permits & needs::READ != 0;
        let reads_all = |rules: &Selector| {
            rules.allows_command(spec, request) && (rules.all_keys || rules.keys.iter().any(is_any))
        };
        if self.selectors.iter().any(reads_all) {
            return None;
        }
        let mut index = 2;
        while index < request.args.len() {
            let word = request.arg(index);
            let has_more = index + 1 < request.args.len();
            if word.eq_ignore_ascii_case(b"BY") && has_more {
                if request.arg(index + 1).contains(&b'*') {
                    return Some(ClientError::Words(BY_DENIED));
                }
                index += 1;
            } else if word.eq_ignore_ascii_case(b"GET") && has_more {
                return Some(ClientError::Words(GET_DENIED));
            } else if word.eq_ignore_ascii_case(b"LIMIT") {
                index += 2;
            } else if word.eq_ignore_ascii_case(b"STORE") {
                index += 1;
            }
            index += 1;
        }
        None
    }

    /// Whether the user may run scripts, whose commands nobody judges, though not everything is allowed to it.
    pub fn scripts_escape(&self) -> bool {
        let runs_scripts = |rules: &Selector| {
            COMMANDS.iter().any(|spec| {
                matches!(spec.policy, Policy::Script { .. }) && rules.commands.has(spec.number)
            })
        };
        !self.allows_everything() && self.selectors.iter().any(runs_scripts)
    }
}

const BY_DENIED: &str = "ERR BY option of SORT denied due to insufficient ACL permissions.";
const GET_DENIED: &str = "ERR GET option of SORT denied due to insufficient ACL permissions.";
