//! What shoal knows of memcached's commands, as data.
//!
//! Owns: `COMMANDS`. Scanner, router and reference read it; nowhere else has a command of memcached a name.
//!
//! Must stay true: a command that is not here is refused (`ERROR`, as a server says), because without knowing its shape
//! shoal could not tell where its request or its reply ends.

/// The shape of a request, which says where its keys and its data are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `name key...`
    Keys,
    /// `name exptime key...`
    TimeKeys,
    /// `name key flags exptime bytes [noreply]`, then data.
    Store,
    /// `name key flags exptime bytes unique [noreply]`, then data.
    Compare,
    /// `name key [0] [noreply]`
    Delete,
    /// `name key delta [noreply]`
    Delta,
    /// `name key exptime [noreply]`
    Touch,
    /// `name key flag...`
    Meta,
    /// `name key bytes flag...`, then data.
    MetaStore,
    /// The end of a batch of quiet requests; no key.
    MetaNothing,
    /// `name [delay] [noreply]`
    Flush,
    /// `name level [noreply]`
    Verbosity,
    /// `name [what]`
    Stats,
    /// No key, any shard can answer.
    Version,
    /// The client goes.
    Quit,
    /// Not done through a proxy.
    Refused,
}

/// One command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextCommand {
    /// As clients write it; case counts.
    pub name: &'static str,
    /// Where its keys and data are.
    pub shape: Shape,
    /// What shoal does with it, for people.
    pub note: &'static str,
}

impl TextCommand {
    /// Servers before 1.6 do not know it.
    #[inline]
    pub fn is_meta(&self) -> bool {
        matches!(self.shape, Shape::Meta | Shape::MetaStore)
    }
}

const fn command(name: &'static str, shape: Shape, note: &'static str) -> TextCommand {
    TextCommand { name, shape, note }
}

const BY_KEY: &str = "To the key's shard.";
const SPLIT: &str = "Split by shard; the values come in the order of the keys. If one of the shards fails, the whole reply is its error.";
const QUIET: &str = "To the key's shard; the key is decoded first with flag `b`. Flag `q` hides what the server hides.";
const NOT_HERE: &str = "Refused: it is about one server; ask that server itself.";

/// All of them, the most frequent first.
pub const COMMANDS: &[TextCommand] = &[
    command("get", Shape::Keys, SPLIT),
    command("set", Shape::Store, BY_KEY),
    command("gets", Shape::Keys, SPLIT),
    command("mg", Shape::Meta, QUIET),
    command("ms", Shape::MetaStore, QUIET),
    command("delete", Shape::Delete, BY_KEY),
    command("incr", Shape::Delta, BY_KEY),
    command("decr", Shape::Delta, BY_KEY),
    command("cas", Shape::Compare, BY_KEY),
    command("add", Shape::Store, BY_KEY),
    command("replace", Shape::Store, BY_KEY),
    command("append", Shape::Store, BY_KEY),
    command("prepend", Shape::Store, BY_KEY),
    command("touch", Shape::Touch, BY_KEY),
    command("gat", Shape::TimeKeys, SPLIT),
    command("gats", Shape::TimeKeys, SPLIT),
    command("md", Shape::Meta, QUIET),
    command("ma", Shape::Meta, QUIET),
    command("me", Shape::Meta, BY_KEY),
    command("mn", Shape::MetaNothing, "Answered by shoal, in its turn."),
    command("version", Shape::Version, "The answer of one shard that is up."),
    command("flush_all", Shape::Flush, "To every shard; OK when all of them said so."),
    command("verbosity", Shape::Verbosity, "To every shard; OK when all of them said so."),
    command("stats", Shape::Stats, "To every shard, merged: counters are added, `time` and what describes one server is not. Also `stats settings` (values that differ are shown side by side) and `stats reset`; other arguments are refused."),
    command("quit", Shape::Quit, "Closes the client's connection."),
    command("shutdown", Shape::Refused, NOT_HERE),
    command("watch", Shape::Refused, NOT_HERE),
    command("slabs", Shape::Refused, NOT_HERE),
    command("lru", Shape::Refused, NOT_HERE),
    command("lru_crawler", Shape::Refused, NOT_HERE),
    command("cache_memlimit", Shape::Refused, NOT_HERE),
    command("extstore", Shape::Refused, NOT_HERE),
    command("refresh_certs", Shape::Refused, NOT_HERE),
    command("debugtime", Shape::Refused, NOT_HERE),
    command("misbehave", Shape::Refused, NOT_HERE),
];

/// The command of this name; None for one that we do not know.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static TextCommand> {
    COMMANDS
        .iter()
        .find(|command| command.name.as_bytes() == name)
}
