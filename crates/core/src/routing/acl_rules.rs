//! The language of ACL rules: from text to an `Acl`, and back.
//!
//! Owns: what each word of a user's rules means, and how servers describe the outcome.
//!
//! Flow: words are split at blanks, those within parentheses are put together again as one selector -> each word changes the
//! rules in its turn -> `describe_*` give what ACL LIST and GETUSER show.
//!
//! Must stay true: each word does what ACL SETUSER does with it on a server, in the same order, with the same words for what
//! is wrong; but users begin switched on, since one who is written into a configuration is meant to log in, and passwords
//! are given elsewhere. What is described and read again gives the same rules.

use crate::limits::{ACL_BYTES_MAX, ACL_RULES_MAX};
use crate::protocol::command::{lookup, subcommand, CommandSpec};
use crate::protocol::command_table::COMMANDS;
use crate::protocol::permission::{category_named, needs};
use crate::routing::acl::{Acl, CommandSet, KeyPattern, Selector};

/// A word of the rules that cannot be taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclError {
    /// As it was written.
    pub rule: String,
    /// In the servers' words, where they have any.
    pub reason: String,
}

const SYNTAX: &str = "Syntax error";
const UNKNOWN: &str = "Unknown command or category name in ACL";
const NEEDS_BOTH: u8 = needs::READ | needs::WRITE;

impl Acl {
    /// Reads rules. They begin with a user who is on and may do nothing.
    pub fn parse(text: &str) -> Result<Self, AclError> {
        let refused = |rule: &str, reason: &str| AclError {
            rule: rule.to_string(),
            reason: reason.to_string(),
        };
        if text.len() > ACL_BYTES_MAX {
            return Err(refused(
                &text[..0],
                &format!("at most {ACL_BYTES_MAX} bytes"),
            ));
        }
        let mut acl = Self {
            is_on: true,
            is_open: false,
            selectors: vec![Selector::allows_nothing()],
        };
        let rules = with_selectors(text).map_err(|open| {
            let reason = "Unmatched parenthesis in acl selector";
            refused(open, reason)
        })?;
        if rules.len() > ACL_RULES_MAX {
            return Err(refused("", &format!("at most {ACL_RULES_MAX} rules")));
        }
        for rule in &rules {
            acl.take(rule).map_err(|reason| refused(rule, &reason))?;
        }
        Ok(acl)
    }

    fn take(&mut self, rule: &str) -> Result<(), String> {
        match rule.to_ascii_lowercase().as_str() {
            "on" => self.is_on = true,
            "off" => self.is_on = false,
            "reset" => {
                self.is_on = false;
                self.is_open = false;
                self.selectors = vec![Selector::allows_nothing()];
            }
            "clearselectors" => self.selectors.truncate(1),
            // What RESTORE is given is checked by the servers, by their own setting.
            "sanitize-payload" => {}
            "nopass" => self.is_open = true,
            "resetpass" => self.is_open = false,
            _ if rule.starts_with(['>', '<', '#', '!']) => return Err(PASSWORDS.to_string()),
            _ if rule.starts_with('(') && rule.ends_with(')') && rule.len() > 1 => {
                let mut selector = Selector::allows_nothing();
                for inner in rule[1..rule.len() - 1].split_ascii_whitespace() {
                    selector.take(inner)?;
                }
                self.selectors.push(selector);
            }
            _ => self.selectors[0].take(rule)?,
        }
        Ok(())
    }

    /// As ACL LIST shows it behind the user's name, apart from passwords, which are shown to nobody.
    pub fn describe(&self) -> String {
        let mut text = String::from(if self.is_on { "on" } else { "off" });
        if self.is_open {
            text.push_str(" nopass");
        }
        for (index, selector) in self.selectors.iter().enumerate() {
            let channels = selector.describe_channels();
            let keys = selector.describe_keys();
            let gap = if keys.is_empty() { "" } else { " " };
            // Who may use no channel at first is told so.
            let reset = if selector.all_channels {
                ""
            } else {
                "resetchannels "
            };
            let behind = if channels.is_empty() { "" } else { " " };
            let commands = selector.describe_commands();
            let rules = format!("{keys}{gap}{reset}{channels}{behind}{commands}");
            text += &if index == 0 {
                format!(" {rules}")
            } else {
                format!(" ({rules})")
            };
        }
        text
    }

    /// (commands, keys, channels) of the rules outside of parentheses, then of each selector.
    pub fn describe_parts(&self) -> Vec<(String, String, String)> {
        let parts = |selector: &Selector| {
            (
                selector.describe_commands(),
                selector.describe_keys(),
                selector.describe_channels(),
            )
        };
        self.selectors.iter().map(parts).collect()
    }
}

const PASSWORDS: &str = "passwords are not among these rules: the user's password, password_file or password_env says it";

/// The words of a text; those from `(` to `)` are one. On an error: the word with which an open one begins.
fn with_selectors(text: &str) -> Result<Vec<String>, &str> {
    let mut rules: Vec<String> = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for word in text.split_ascii_whitespace() {
        match &mut open {
            None if word.starts_with('(') && !word.ends_with(')') => {
                open = Some((word, word.to_string()));
            }
            None => rules.push(word.to_string()),
            Some((_, gathered)) => {
                gathered.push(' ');
                gathered.push_str(word);
                if word.ends_with(')') {
                    rules.push(std::mem::take(gathered));
                    open = None;
                }
            }
        }
    }
    match open {
        Some((word, _)) => Err(word),
        None => Ok(rules),
    }
}

impl Selector {
    fn take(&mut self, rule: &str) -> Result<(), String> {
        match rule.to_ascii_lowercase().as_str() {
            "allkeys" | "~*" => {
                self.all_keys = true;
                self.keys.clear();
            }
            "resetkeys" => {
                self.all_keys = false;
                self.keys.clear();
            }
            "allchannels" | "&*" => {
                self.all_channels = true;
                self.channels.clear();
            }
            "resetchannels" => {
                self.all_channels = false;
                self.channels.clear();
            }
            "allcommands" | "+@all" => self.begin_commands(true),
            "nocommands" | "-@all" => self.begin_commands(false),
            _ => return self.take_more(rule),
        }
        Ok(())
    }

    fn take_more(&mut self, rule: &str) -> Result<(), String> {
        if let Some(pattern) = rule.strip_prefix('~') {
            return self.add_keys(pattern, NEEDS_BOTH);
        }
        if let Some(rest) = rule.strip_prefix('%') {
            if let Some(reason) = self.keys_closed() {
                return Err(reason);
            }
            // Without `~` it is the empty key's pattern: so servers have it.
            let (letters, pattern) = rest.split_once('~').unwrap_or((rest, ""));
            let permits = match letters.to_ascii_lowercase().as_str() {
                "r" => needs::READ,
                "w" => needs::WRITE,
                "rw" | "wr" => NEEDS_BOTH,
                _ => return Err(SYNTAX.to_string()),
            };
            return self.add_keys(pattern, permits);
        }
        if let Some(pattern) = rule.strip_prefix('&') {
            return self.add_channel(pattern);
        }
        let (allows, name) = match (rule.strip_prefix('+'), rule.strip_prefix('-')) {
            (Some(name), _) => (true, name),
            (_, Some(name)) => (false, name),
            _ => return Err(SYNTAX.to_string()),
        };
        match name.strip_prefix('@') {
            Some(category) => self.change_category(category, allows),
            None => self.change_command(name, allows),
        }
    }

    fn begin_commands(&mut self, with_all: bool) {
        self.all_commands = with_all;
        self.commands = CommandSet::of_all(with_all);
        self.first_arguments.clear();
        self.begins_with_all = with_all;
        self.changes.clear();
    }

    /// Why no more patterns of keys can be added, if so.
    fn keys_closed(&self) -> Option<String> {
        self.all_keys.then(|| {
            "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. \
             Try 'resetkeys' to start with an empty list of patterns"
                .to_string()
        })
    }

    fn add_keys(&mut self, pattern: &str, permits: u8) -> Result<(), String> {
        if let Some(reason) = self.keys_closed() {
            return Err(reason);
        }
        let known = self
            .keys
            .iter_mut()
            .find(|known| known.pattern == pattern.as_bytes());
        match known {
            Some(known) => known.permits |= permits,
            None => self.keys.push(KeyPattern {
                pattern: pattern.as_bytes().to_vec(),
                permits,
            }),
        }
        Ok(())
    }

    fn add_channel(&mut self, pattern: &str) -> Result<(), String> {
        if self.all_channels {
            return Err(
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any \
                 effect. Try 'resetchannels' to start with an empty list of channels"
                    .to_string(),
            );
        }
        let pattern = pattern.as_bytes().to_vec();
        if !self.channels.contains(&pattern) {
            self.channels.push(pattern);
        }
        Ok(())
    }

    fn change_category(&mut self, name: &str, allows: bool) -> Result<(), String> {
        let bit = category_named(name.as_bytes()).ok_or(UNKNOWN)?;
        for spec in &COMMANDS {
            if spec.categories & bit != 0 {
                self.set(spec, allows);
            }
            for inner in spec.subcommands {
                if inner.categories & bit != 0 {
                    self.set(inner, allows);
                }
            }
        }
        self.note(format!("@{}", name.to_ascii_lowercase()), allows);
        Ok(())
    }

    fn change_command(&mut self, name: &str, allows: bool) -> Result<(), String> {
        let (container, inner) = match name.split_once('|') {
            Some((container, inner)) => (container, Some(inner)),
            None => (name, None),
        };
        let spec = lookup(container.as_bytes()).ok_or(UNKNOWN)?;
        let Some(inner) = inner else {
            self.set(spec, allows);
            self.note(spec.full_name.to_string(), allows);
            return Ok(());
        };
        if let Some(known) = subcommand(spec, inner.as_bytes()) {
            self.set(known, allows);
            self.note(known.full_name.to_string(), allows);
            return Ok(());
        }
        match (inner.split_once('|'), allows) {
            // `-select|0`: a first argument can only be allowed.
            (_, false) => Err(UNKNOWN.to_string()),
            (Some((sub, _)), true) if subcommand(spec, sub.as_bytes()).is_some() => {
                Err("Allowing first-arg of a subcommand is not supported".to_string())
            }
            (_, true) if !spec.subcommands.is_empty() => Err(UNKNOWN.to_string()),
            (_, true) if inner.is_empty() => Err(SYNTAX.to_string()),
            (_, true) => {
                let word = inner.to_ascii_lowercase();
                self.first_arguments
                    .push((spec.number, word.clone().into_bytes()));
                self.note(format!("{}|{word}", spec.full_name), true);
                Ok(())
            }
        }
    }

    /// A command, with its subcommands if it has any.
    fn set(&mut self, spec: &CommandSpec, allows: bool) {
        self.all_commands &= allows;
        self.commands.set(spec.number, allows);
        self.first_arguments
            .retain(|(number, _)| *number != spec.number);
        for inner in spec.subcommands {
            self.commands.set(inner.number, allows);
        }
    }

    /// Remembers a change, and forgets those before it that it makes void.
    fn note(&mut self, what: String, allows: bool) {
        let within = format!("{what}|");
        self.changes
            .retain(|(_, earlier)| *earlier != what && !earlier.starts_with(&within));
        self.changes.push((allows, what));
    }

    fn describe_commands(&self) -> String {
        let mut text = String::from(if self.begins_with_all {
            "+@all"
        } else {
            "-@all"
        });
        for (allows, what) in &self.changes {
            text.push_str(if *allows { " +" } else { " -" });
            text.push_str(what);
        }
        text
    }

    fn describe_keys(&self) -> String {
        if self.all_keys {
            return "~*".to_string();
        }
        let shown = self.keys.iter().map(|key| {
            let mode = match key.permits {
                needs::READ => "%R",
                needs::WRITE => "%W",
                _ => "",
            };
            format!("{mode}~{}", String::from_utf8_lossy(&key.pattern))
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    fn describe_channels(&self) -> String {
        if self.all_channels {
            return "&*".to_string();
        }
        let shown = self
            .channels
            .iter()
            .map(|channel| format!("&{}", String::from_utf8_lossy(channel)));
        shown.collect::<Vec<_>>().join(" ")
    }
}
