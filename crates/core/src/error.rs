//! Everything that a client can be told by shoal itself, with its exact wire text.
//!
//! Owns: `ClientError`, whose variants hold the evidence, and `ERRORS`, the list that `docs/reference.md` must show.
//!
//! Must stay true: the text says who is at fault (the client's request, a shard, us) and what to do; what came from a
//! client is shortened and made printable before it is repeated; nothing secret is ever in it. Texts that Redis has for
//! the same case are Redis' own, because clients compare them.

use crate::limits::{
    CROSS_SHARD_GATHER_BYTES_MAX, CROSS_SHARD_KEYS_MAX, CROSS_SHARD_SHARDS_MAX,
    CROSS_SHARD_WAITING_MAX, DATABASES, KEYS_IN_ERROR_MAX, TEXT_IN_ERROR_MAX,
};
use crate::protocol::encode;
use crate::protocol::request::ProtocolError;

/// A key that made a request impossible: its text, its group ("in slot 5"; may be empty), its shard's name.
pub type KeyPlace = (Vec<u8>, String, String);

/// An answer of ours that begins with `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientError {
    /// Not RESP; the connection is closed after it.
    Protocol(ProtocolError),
    /// No such command in the table.
    UnknownCommand {
        /// As the client wrote it.
        name: Vec<u8>,
        /// The first arguments.
        args: Vec<Vec<u8>>,
    },
    /// A line of HTTP; the connection is closed after it.
    Http,
    /// Something else than TLS at a listener for TLS; the connection is closed after it.
    PlainOnTls,
    /// A TLS handshake at a listener that speaks none; the connection is closed after it.
    TlsOnPlain,
    /// No such subcommand.
    UnknownSubcommand {
        /// As the client wrote it.
        name: Vec<u8>,
        /// The container.
        command: &'static str,
    },
    /// Too few or too many arguments for the command.
    WrongArity(&'static str),
    /// Arguments that contradict each other; Redis' text.
    Syntax,
    /// A number was expected; Redis' text.
    NotAnInteger,
    /// Redis' own words for something wrong in the arguments (with their code).
    Words(&'static str),
    /// As `Words`, put together.
    Text(String),
    /// Authentication is needed first.
    NoAuth,
    /// HELLO before authentication.
    NoAuthHello,
    /// Unknown user or wrong password.
    WrongPass,
    /// The user may not use the command; Redis' text.
    Forbidden {
        /// The user.
        user: String,
        /// The command.
        command: String,
    },
    /// The user may not use one of the keys so; Redis' text.
    ForbiddenKey,
    /// The user may not use one of the channels; Redis' text.
    ForbiddenChannel,
    /// AUTH with a password where none is set.
    NoPasswordSet,
    /// HELLO with another protocol than 2 or 3.
    NoProto,
    /// SELECT outside the databases.
    DatabaseRange,
    /// A command that cannot be done through shoal; the table says why.
    Refused {
        /// The command.
        command: &'static str,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// A setting that cannot be set through shoal.
    RefusedSetting {
        /// The command.
        command: &'static str,
        /// As the client wrote it.
        setting: Vec<u8>,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// Too much between MULTI and EXEC.
    TransactionTooLarge,
    /// The client has changed its database or protocol under a watch.
    WatchMoved,
    /// A shard refused MULTI itself.
    MultiRefused {
        /// The shard's name.
        shard: String,
        /// Its words.
        reason: String,
    },
    /// Of a transaction on several shards, what one of them says.
    PartAborted {
        /// The shard's name.
        shard: String,
        /// The error of the command that it did not queue.
        reason: String,
    },
    /// Keys on several shards.
    CrossShard {
        /// The command.
        command: &'static str,
        /// Some of its keys.
        keys: Vec<KeyPlace>,
    },
    /// The same, of a command that could be done as one operation across shards.
    CrossShardOff {
        /// The command.
        command: &'static str,
        /// Some of its keys.
        keys: Vec<KeyPlace>,
        /// What to set.
        setting: &'static str,
    },
    /// An operation across shards that was not done, or of which nobody knows.
    Operation(OperationError),
    /// A key that begins as our own do.
    ReservedKey,
    /// A key that no range of the keyspace holds.
    NoRange(Vec<u8>),
    /// A command that touches keys which its arguments do not name.
    HiddenKeys {
        /// The command.
        command: &'static str,
        /// The option that does.
        option: &'static str,
        /// Its pattern.
        pattern: Vec<u8>,
    },
    /// A command with no key to route by.
    NoKeys(&'static str),
    /// The keyspace's client limit is reached; the connection is closed after it.
    MaxClients,
    /// The shard cannot be reached; the request was not sent.
    ShardDown {
        /// The shard's name.
        shard: String,
        /// Its endpoint.
        endpoint: String,
        /// What happened to the last connection.
        reason: String,
    },
    /// A write for every shard of a cache, one of which is ejected; nothing was sent.
    ShardEjected {
        /// The shard's name.
        shard: String,
    },
    /// The connection was lost after the request had been sent.
    ShardLost {
        /// The shard's name.
        shard: String,
        /// Its endpoint.
        endpoint: String,
        /// What happened to the connection.
        reason: String,
    },
    /// Somebody waited for keys of a shard whose connection was lost; nothing was taken.
    WaitLost {
        /// The shard's name.
        shard: String,
        /// Its endpoint.
        endpoint: String,
    },
    /// A RESP2 client that has subscribed wants something else.
    OnlySubscriptions(&'static str),
    /// Clients of the worker have subscribed to too much.
    TooManySubscriptions,
    /// A shard does not take the connection on which messages would come.
    SubscriptionRefused {
        /// The shard's name.
        shard: String,
        /// Its endpoint.
        endpoint: String,
        /// What it said.
        reason: String,
    },
    /// Too many connections for single requests are in use.
    Exhausted,
    /// The replies of several shards are too large to be held together.
    GatherTooLarge,
    /// A SCAN cursor that shoal did not give.
    InvalidCursor,
    /// An incomplete request that did not go on; the connection is closed after it.
    RequestIdle,
    /// shoal is stopping; the request was not sent.
    Stopping,
}

/// Why an operation across shards was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationError {
    /// Not done: something did not answer, or was lost, before it was decided.
    Again(String),
    /// Not done: others had its keys whenever it was tried.
    Busy,
    /// A request for a key that an operation has had for too long.
    Held,
    /// Too many wait already.
    TooMany,
    /// It names too many keys or shards.
    TooWide,
    /// So many bytes would have to be brought to another shard.
    TooLarge(u64),
    /// It was sent to be done, and whether it was is not known.
    Unknown,
    /// The keyspace's database, which is the only one for such operations.
    Database(u8),
    /// A shard may evict the records that keep such operations whole.
    Evicts(String),
    /// One server does not take the values of another: their versions.
    Versions(String),
    /// A function, whose keys nobody can check.
    Function,
}

impl OperationError {
    fn text(&self) -> String {
        match self {
            Self::Again(why) => format!("TRYAGAIN the operation across shards was not done: {why}"),
            Self::Busy => "TRYAGAIN the operation across shards was not done: others had its keys".into(),
            Self::Held => "TRYAGAIN cross-shard operation in progress on a key of this request; it was not executed".into(),
            Self::TooMany => format!("TRYAGAIN {CROSS_SHARD_WAITING_MAX} operations across shards wait already; this one was not done"),
            Self::TooWide => format!("ERR an operation across shards may have {CROSS_SHARD_KEYS_MAX} keys on {CROSS_SHARD_SHARDS_MAX} shards; do it in smaller ones"),
            Self::TooLarge(bytes) => format!("ERR cross-shard operation needs {bytes} bytes of one shard to be moved, limit {CROSS_SHARD_GATHER_BYTES_MAX}; give its keys a common {{hash tag}}"),
            Self::Unknown => "ERR outcome unknown: the connection to a shard was lost while the operation across shards was being decided; it is done wholly or not at all".into(),
            Self::Database(own) => format!("ERR operations across shards are possible in the keyspace's own database only, which is {own}"),
            Self::Function => "ERR nothing can hold a function to its keys, so it is no part of an operation across shards; use EVAL, give all keys a common {hash tag}, or set cross_shard_functions = true if it touches only the keys that it is given".into(),
            Self::Evicts(shard) => format!("ERR shard '{shard}' may evict any key when its memory is full, and with them what keeps operations across shards whole; set its maxmemory-policy to noeviction or a volatile one, or give the keys a common {{hash tag}}"),
            Self::Versions(which) => format!("ERR values cannot be moved between these shards: {which}; run servers of one version, or give the keys a common {{hash tag}}"),
        }
    }
}

impl ClientError {
    /// The text after `-`, without line end.
    pub fn text(&self) -> String {
        match self {
            Self::Protocol(error) => error.text(),
            Self::UnknownCommand { name, args } => unknown_command(name, args),
            Self::Http => "ERR this is not an HTTP port; closing, as a browser may have been made to send this".into(),
            Self::PlainOnTls => "ERR this port speaks TLS only; connect with it (redis-cli --tls, rediss://)".into(),
            Self::TlsOnPlain => "ERR this port does not speak TLS; connect without it, or to the port that does".into(),
            Self::UnknownSubcommand { name, command } => {
                format!("ERR unknown subcommand '{}'. Try {} HELP.", printable(name), command.to_uppercase())
            }
            Self::WrongArity(command) => format!("ERR wrong number of arguments for '{command}' command"),
            Self::Syntax => "ERR syntax error".into(),
            Self::NotAnInteger => "ERR value is not an integer or out of range".into(),
            Self::Words(words) => (*words).into(),
            Self::Text(text) => text.clone(),
            Self::NoAuth => "NOAUTH Authentication required.".into(),
            Self::NoAuthHello => "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time".into(),
            Self::WrongPass => "WRONGPASS invalid username-password pair or user is disabled.".into(),
            Self::Forbidden { user, command } => forbidden(user, command),
            Self::ForbiddenKey => "NOPERM No permissions to access a key".into(),
            Self::ForbiddenChannel => "NOPERM No permissions to access a channel".into(),
            Self::NoPasswordSet => "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?".into(),
            Self::NoProto => "NOPROTO unsupported protocol version".into(),
            Self::DatabaseRange => format!("ERR DB index is out of range (shoal has databases 0 to {})", DATABASES - 1),
            Self::Refused { command, reason } => format!("ERR '{command}' {reason}"),
            Self::RefusedSetting { command, setting, reason } => {
                format!("ERR '{command}' of '{}' {reason}", printable(setting))
            }
            Self::TransactionTooLarge => "ERR the transaction is too large; execute it in smaller ones".into(),
            Self::WatchMoved => "ERR the watch was begun in another database or protocol, or its connection was lost; UNWATCH, and SELECT or HELLO before WATCH".into(),
            Self::MultiRefused { shard, reason } => format!("ERR shard '{shard}' refused MULTI ({reason}); the commands may have been executed one by one"),
            Self::PartAborted { shard, reason } => format!("EXECABORT shard '{shard}' executed none of its commands because of: {reason}"),
            Self::Operation(error) => error.text(),
            Self::CrossShard { command, keys } => cross_shard(command, keys, ""),
            Self::CrossShardOff { command, keys, setting } => cross_shard(command, keys, setting),
            Self::ReservedKey => "ERR keys that begin with '__shoal:' are shoal's own; choose another name".into(),
            Self::HiddenKeys { command, option, pattern } => format!(
                "ERR '{command}' with {option} '{}' reaches keys that it does not name, which may be on other shards; give the pattern a {{hash tag}} before its '*' that puts them beside the key, or read those keys yourself",
                printable(pattern)
            ),
            Self::NoRange(key) => format!(
                "ERR no range of this keyspace holds '{}'; add a range for it, or a fallback, to the configuration",
                printable(key)
            ),
            Self::NoKeys(command) => format!("ERR '{command}' names no key, so no shard can be chosen for it; name the keys that it touches"),
            Self::MaxClients => "ERR max number of clients reached".into(),
            Self::ShardDown { shard, endpoint, reason } => {
                format!("ERR shard '{shard}' at {endpoint} is down ({reason}); the request was not sent")
            }
            Self::ShardEjected { shard } => format!("ERR shard '{shard}' is ejected and would come back with what it has now; nothing was sent, try again when it is back"),
            Self::ShardLost { shard, endpoint, reason } => format!(
                "ERR connection to shard '{shard}' at {endpoint} was lost ({reason}); whether the request was executed is unknown"
            ),
            Self::WaitLost { shard, endpoint } => format!(
                "ERR connection to shard '{shard}' at {endpoint} was lost while waiting for its keys; nothing was taken, ask again"
            ),
            Self::OnlySubscriptions(command) => format!(
                "ERR Can't execute '{command}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
            ),
            Self::TooManySubscriptions => "ERR clients have subscribed to too many channels; subscribe to fewer, or use patterns or more workers".into(),
            Self::SubscriptionRefused { shard, endpoint, reason } => format!(
                "ERR shard '{shard}' at {endpoint} takes no connection for subscriptions ({reason}); nothing was subscribed to"
            ),
            Self::Exhausted => "ERR too many requests that need a connection of their own are waiting; try again later".into(),
            Self::GatherTooLarge => "ERR the shards' replies to this request are too large to be put together; ask for less at a time".into(),
            Self::InvalidCursor => "ERR invalid cursor".into(),
            Self::RequestIdle => "ERR the rest of the request did not come; closing".into(),
            Self::Stopping => "ERR shoal is stopping; the request was not sent".into(),
        }
    }

    /// Appends the error as a reply.
    pub fn write(&self, out: &mut Vec<u8>) {
        encode::error(out, &self.text());
    }
}

fn forbidden(user: &str, command: &str) -> String {
    let user = printable(user.as_bytes());
    format!("NOPERM User {user} has no permissions to run the '{command}' command")
}

/// Redis' own text; the arguments are cut as Redis cuts them.
fn unknown_command(name: &[u8], args: &[Vec<u8>]) -> String {
    let mut text = format!(
        "ERR unknown command '{}', with args beginning with: ",
        printable(name)
    );
    for arg in args {
        if text.len() > 2 * TEXT_IN_ERROR_MAX {
            break;
        }
        text.push_str(&format!("'{}' ", printable(arg)));
    }
    text
}

fn cross_shard(command: &str, keys: &[KeyPlace], setting: &str) -> String {
    let mut text = format!("CROSSSLOT '{command}' has keys on different shards: ");
    for (at, (key, group, shard)) in keys.iter().take(KEYS_IN_ERROR_MAX).enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let blank = if group.is_empty() { "" } else { " " };
        text.push_str(&format!(
            "{comma}'{}'{blank}{group} on '{shard}'",
            printable(key)
        ));
    }
    if keys.len() > KEYS_IN_ERROR_MAX {
        text.push_str(", ...");
    }
    if command == "exec" {
        let other = if setting.is_empty() { "" } else { " or " };
        text.push_str(&format!(
            "; leave MULTI out, set {setting}{other}transactions = \"per-shard\", or"
        ));
    } else if setting.is_empty() {
        text.push(';');
    } else {
        text.push_str(&format!("; set {setting}, or"));
    }
    text.push_str(
        " give them a common {hash tag} or an affinity rule, so that they are on one shard",
    );
    text
}

/// A client's own text for an error: bounded, on one line.
pub fn printable(text: &[u8]) -> String {
    let mut shown: String = String::from_utf8_lossy(&text[..text.len().min(TEXT_IN_ERROR_MAX)])
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.len() > TEXT_IN_ERROR_MAX {
        shown.push_str("...");
    }
    shown
}

/// Every error of ours: pattern of its text, and when it is given.
pub const ERRORS: &[(&str, &str)] = &[
    ("ERR the transaction is too large; execute it in smaller ones", "More commands or bytes between MULTI and EXEC than the limits allow; EXEC then answers EXECABORT."),
    ("ERR the watch was begun in another database or protocol, or its connection was lost; ...", "SELECT or HELLO between WATCH and EXEC, or between two WATCHes."),
    ("ERR a script with keys on several shards must be given every key: <key>", "A script that runs for keys of several shards touched one that is not among its `KEYS`: name it there. What the script did before stays done, as with any error."),
    ("ERR a script with keys on several shards cannot do this: <command>", "Such a script used a command whose keys cannot be told (`SCAN`, `DBSIZE`, `SORT` with `BY` or `GET`, another database): do it outside of the script, or give all keys a common {hash tag}."),
    ("ERR nothing can hold a function to its keys, so it is no part of an operation across shards; ...", "`FCALL` in a transaction over several shards. Use EVAL, or set `cross_shard_functions = true` if the function touches only the keys that it is given."),
    ("ERR shard '<name>' refused MULTI (<reason>); the commands may have been executed one by one", "The user that shoal has on the shard may not use MULTI: allow it."),
    ("EXECABORT Transaction discarded because of: <error>", "A shard refused a command of the transaction before executing any."),
    ("EXECABORT shard '<name>' executed none of its commands because of: <error>", "The same, of a transaction on several shards (`transactions = \"per-shard\"`), in place of the replies to that shard's commands; the other shards have executed theirs."),
    (
        "ERR this is not an HTTP port; closing, as a browser may have been made to send this",
        "A request named `POST` or `Host:`: a web page tries to reach shoal through somebody's browser. The connection is closed after it.",
    ),
    ("ERR this port speaks TLS only; connect with it (redis-cli --tls, rediss://)", "A client without TLS at a listener for TLS. The connection is closed after it."),
    ("ERR this port does not speak TLS; connect without it, or to the port that does", "A client that begins a TLS handshake at a plain listener. The connection is closed after it; the client's library most likely says something of a wrong version."),
    ("ERR Protocol error: <what>", "The client's bytes are not RESP, or announce more than the limits allow. The connection is closed after it."),
    ("ERR unknown command '<name>', with args beginning with: <args>", "The command is in no server's table; `unknown_commands = \"first-key\"` routes it by its first argument."),
    ("ERR no range of this keyspace holds '<key>'; add a range for it, or a fallback, to the configuration", "The keyspace is distributed by ranges, and none of them holds the key."),
    ("ERR shard '<name>' is ejected and would come back with what it has now; nothing was sent, try again when it is back", "FLUSHALL and other writes to every shard of a cache, while one is ejected."),
    ("ERR unknown subcommand '<name>'. Try <COMMAND> HELP.", "The container has no such subcommand."),
    ("ERR wrong number of arguments for '<command>' command", "Too few or too many arguments."),
    ("ERR syntax error", "Arguments that do not fit together."),
    ("ERR value is not an integer or out of range", "A number was expected."),
    ("NOAUTH Authentication required.", "The keyspace has users and this client has not authenticated."),
    ("NOAUTH HELLO must be called with the client already authenticated, ...", "HELLO without AUTH where the keyspace has users."),
    ("WRONGPASS invalid username-password pair or user is disabled.", "Unknown user or wrong password."),
    ("NOPERM User <user> has no permissions to run the '<command>' command", "The rules of the user (`acl`) do not allow the command."),
    ("NOPERM No permissions to access a key", "The rules of the user allow the command, but not with one of its keys, or not to read it, or not to write it."),
    ("NOPERM No permissions to access a channel", "The rules of the user do not allow one of the channels."),
    ("ERR BY option of SORT denied due to insufficient ACL permissions.", "SORT with BY or GET patterns by a user who may not read every key."),
    ("ERR AUTH <password> called without any password configured for the default user. ...", "AUTH where the keyspace has no users."),
    ("NOPROTO unsupported protocol version", "HELLO with another protocol than 2 or 3."),
    ("ERR DB index is out of range (shoal has databases 0 to 15)", "SELECT of another database."),
    ("ERR '<command>' <reason>", "The command cannot be done through shoal; the reason says what to do instead."),
    ("ERR '<command>' of '<setting>' <reason>", "CONFIG SET of a setting that cannot be set for all shards; the reason says what to do instead. None of the settings beside it was set."),
    ("ERR too many settings at once; set them in several requests", "CONFIG SET of more than `SETTINGS_MAX` settings."),
    ("ERR too many patterns for several shards; ask for fewer at a time", "SORT with more than `SORT_PATTERNS_MAX` patterns."),
    ("CROSSSLOT '<command>' has keys on different shards: <keys>; ...", "A command whose keys must be on one shard; the keys' slots and shards are named, and the setting that lets the command through, if there is one."),
    ("TRYAGAIN cross-shard operation in progress on a key of this request; it was not executed", "An operation across shards has had the key for longer than `CROSS_SHARD_PARK_MS_MAX`, mostly because a shard that it needs is away. Try again."),
    ("TRYAGAIN the operation across shards was not done: <why>", "A shard was lost or late before it was decided, or others had its keys whenever it was tried. Nothing of it was done."),
    ("TRYAGAIN <n> operations across shards wait already; this one was not done", "More than `CROSS_SHARD_WAITING_MAX`."),
    ("ERR outcome unknown: ...", "The connection to the deciding shard was lost between COMMIT and its answer. The operation is done wholly or not at all."),
    ("ERR cross-shard operation needs <n> bytes of one shard to be moved, limit <m>; ...", "Values that have to be brought to another shard take more memory than `CROSS_SHARD_GATHER_BYTES_MAX`."),
    ("ERR an operation across shards may have <n> keys on <m> shards; ...", "More than `CROSS_SHARD_KEYS_MAX` or `CROSS_SHARD_SHARDS_MAX`."),
    ("ERR operations across shards are possible in the keyspace's own database only, which is <n>", "After SELECT of another one."),
    ("ERR shard '<name>' may evict any key when its memory is full, ...", "A `maxmemory-policy` of `allkeys-*`, where `maxmemory` is set."),
    ("ERR values cannot be moved between these shards: ...", "Their servers' versions dump values in formats that one does not take from the other."),
    ("ERR another shoal uses these servers and places keys differently; ...", "Operations across shards are refused while a shoal with other shards, slots or affinity rules uses the same servers."),
    ("ERR channels that begin with '__shoal:' are shoal's own; choose another name", "A channel on which shoals speak to each other. Only with `cross_shard = \"strict\"`."),
    ("ERR keys that begin with '__shoal:' are shoal's own; choose another name", "A key by which shoal keeps what it knows of operations across shards, in a keyspace that has them (`cross_shard`)."),
    ("ERR '<command>' with <option> '<pattern>' reaches keys that it does not name, ...", "SORT with a BY or GET pattern whose keys are not all on one shard for certain."),
    ("ERR '<command>' names no key, so no shard can be chosen for it; ...", "A request without keys, of a command that goes to the shard of its keys. (Scripts may do without.)"),
    ("ERR max number of clients reached", "The keyspace has `max_clients` clients. The connection is closed after it."),
    ("UNBLOCKED client unblocked via CLIENT UNBLOCK", "A blocking command ended by `CLIENT UNBLOCK <id> ERROR`; and one that waited for keys of one shard when shoal stopped."),
    ("UNBLOCKED shoal is stopping; ask again when it is back", "A blocking command that waited for keys of several shards when shoal stopped."),
    ("ERR shard '<name>' at <endpoint> is down (<reason>); the request was not sent", "The shard cannot be reached at the moment; it is tried again with growing waits."),
    ("ERR connection to shard '<name>' at <endpoint> was lost (<reason>); whether the request was executed is unknown", "The connection broke, or the shard did not answer within `timeout_ms`, after the request had been sent. It is never sent again."),
    ("ERR connection to shard '<name>' at <endpoint> was lost while waiting for its keys; nothing was taken, ask again", "A blocking command with keys on several shards waited, and one of them was lost."),
    ("ERR Can't execute '<command>': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context", "A RESP2 client that has subscribed wants something else: it has to end its subscriptions first, or speak RESP3 (`HELLO 3`)."),
    ("ERR clients have subscribed to too many channels; subscribe to fewer, or use patterns or more workers", "`SUBSCRIPTIONS_MAX` or `SUBSCRIPTION_BYTES_MAX` of the client's worker is reached."),
    ("ERR shard '<name>' at <endpoint> takes no connection for subscriptions (<reason>); nothing was subscribed to", "The shard refused the connection on which messages would come: it does not speak RESP3 (Redis 6 does), has clients enough, or its user may not."),
    ("ERR too many requests that need a connection of their own are waiting; try again later", "Too many clients wait in blocking commands and WAIT at one time (`EXCLUSIVE_LINKS_MAX` for each worker): use more workers, or fewer waiting consumers."),
    ("ERR the shards' replies to this request are too large to be put together; ask for less at a time", "The parts of a split or merged reply exceed the bound together."),
    ("<a shard's error> (failed on <shards>; done on <shards>)", "A command for every shard that not all of them carried out, or that failed in different ways. Where all gave the same error, it stands alone."),
    ("ERR invalid cursor", "SCAN with a cursor that shoal did not give."),
    ("ERR shards answered in unexpected ways to one request (<what>)", "The shards' replies to the parts of one request do not fit together; for example they run different versions."),
    ("ERR This instance has cluster support disabled", "CLUSTER (but KEYSLOT), READONLY, READWRITE and ASKING: shoal answers as one server without cluster mode."),
    ("ERR the rest of the request did not come; closing", "No byte of an incomplete request came for `REQUEST_IDLE_MS_MAX`. The connection is closed after it."),
    ("ERR shoal is stopping; the request was not sent", "The process is about to stop."),
];

/// Why a command is refused between MULTI and EXEC, and what to do.
pub const NOT_IN_TRANSACTION: &str =
    "is not possible within a transaction; send it before MULTI or after EXEC";
