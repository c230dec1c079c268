//! ACL: what a user of the keyspace may do.
//!
//! Owns: the check of each request of a user who may not do everything, and the ACL subcommands that tell of users and their
//! rules; what was refused is in `acl_log`.
//!
//! Flow: AUTH finds the user and sets `care::RULED` where there are rules -> the gate asks `forbidden` for every request,
//! also for one that is only queued (users do not change while shoal runs, so EXEC need not ask again).
//!
//! Must stay true: a user is never allowed more than its rules say; no password is shown, not even as a hash: shoal keeps
//! users in its configuration, and nobody needs to read a password back from there.

use crate::error::{printable, ClientError};
use crate::protocol::command::{arity_fits, lookup, CommandSpec, Local, Policy};
use crate::protocol::command_table::COMMANDS;
use crate::protocol::encode::{self, Proto};
use crate::protocol::permission::{category_named, needed_keys, CATEGORIES};
use crate::protocol::request::strict_integer;
use crate::routing::acl::{exact, Acl, Denied};
use crate::routing::route::{specification, Request};
use crate::routing::topology::{Keyspace, User};
use crate::session::acl_log::Reason;
use crate::session::client::care;
use crate::session::dispatch::{Asker, Taken};
use crate::session::engine::Engine;
use crate::session::gather::GatherKind;
use crate::session::mail::Mail;

impl Engine {
    /// ACL's subcommands.
    pub(crate) fn acl(&mut self, asker: &Asker, local: Local, request: &Request<'_>) {
        match local {
            Local::AclWhoami => {
                let name = self
                    .clients
                    .get(asker.slot)
                    .map_or_else(String::new, |client| self.user_name(client));
                self.answer(asker, |out| encode::bulk(out, name.as_bytes()));
            }
            Local::AclUsers => {
                let names: Vec<String> = self.users_of(asker).into_iter().map(|u| u.name).collect();
                self.answer_texts(asker, &names);
            }
            Local::AclList => {
                let lines: Vec<String> = self.users_of(asker).iter().map(Shown::line).collect();
                self.answer_texts(asker, &lines);
            }
            Local::AclGetuser => self.acl_getuser(asker, request),
            Local::AclCat => self.acl_cat(asker, request),
            Local::AclDryrun => self.acl_dryrun(asker, request),
            Local::AclLog => self.acl_log(asker, request),
            _ => self.refuse_own(asker, request, USERS_ARE_CONFIGURED),
        }
    }

    /// Who may connect, sorted as servers do. Without any in the configuration there is the one of all.
    fn users_of(&self, asker: &Asker) -> Vec<Shown> {
        let users = &self.topology.keyspaces[asker.keyspace].users;
        let mut shown: Vec<Shown> = users
            .iter()
            .map(|user| Shown {
                name: user.name.clone(),
                acl: user.acl.clone(),
            })
            .collect();
        if shown.is_empty() {
            shown.push(Shown {
                name: DEFAULT.to_string(),
                acl: Acl {
                    is_open: true,
                    ..Acl::everything()
                },
            });
        }
        shown.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        shown
    }

    fn user_named(&self, asker: &Asker, name: &[u8]) -> Option<Shown> {
        let mut users = self.users_of(asker).into_iter();
        users.find(|user| user.name.as_bytes() == name)
    }

    fn answer_texts(&mut self, asker: &Asker, texts: &[String]) {
        self.answer(asker, |out| {
            encode::array(out, texts.len());
            texts
                .iter()
                .for_each(|text| encode::bulk(out, text.as_bytes()));
        });
    }

    fn proto_of(&self, asker: &Asker) -> Proto {
        let client = self.clients.get(asker.slot);
        client.map_or(Proto::Resp2, |client| client.proto)
    }

    fn acl_getuser(&mut self, asker: &Asker, request: &Request<'_>) {
        let user = self.user_named(asker, request.arg(2));
        let proto = self.proto_of(asker);
        self.answer(asker, |out| match user {
            Some(user) => user.write(proto, out),
            None => encode::null(out, proto),
        });
    }

    fn acl_cat(&mut self, asker: &Asker, request: &Request<'_>) {
        let names = match request.args.len() {
            2 => CATEGORIES.iter().map(ToString::to_string).collect(),
            3 => match category_named(request.arg(2)) {
                Some(bit) => commands_in(bit),
                None => {
                    let name = printable(request.arg(2));
                    let text = format!("ERR Unknown category '{name}'");
                    return self.answer_error(asker, &ClientError::Text(text));
                }
            },
            _ => return self.answer_error(asker, &ClientError::Words(CAT_WORDS)),
        };
        self.answer_texts(asker, &names);
    }

    /// Whether a user might do something, in the servers' words.
    fn acl_dryrun(&mut self, asker: &Asker, request: &Request<'_>) {
        let Some(user) = self.user_named(asker, request.arg(2)) else {
            let text = format!("ERR User '{}' not found", printable(request.arg(2)));
            return self.answer_error(asker, &ClientError::Text(text));
        };
        let meant = Request {
            data: request.data,
            args: &request.args[3..],
        };
        let spec = match meant_command(&meant) {
            Ok(spec) => spec,
            Err(error) => return self.answer_error(asker, &error),
        };
        let access = |what: &str, at: u32| {
            let value = printable(meant.arg(at as usize));
            let name = printable(user.name.as_bytes());
            format!("User {name} has no permissions to access the '{value}' {what}")
        };
        let refusal = match user.acl.judge(spec, &meant) {
            Ok(()) => return self.answer(asker, |out| encode::simple(out, "OK")),
            Err(Denied::Command) => {
                let name = printable(user.name.as_bytes());
                format!(
                    "User {name} has no permissions to run the '{}' command",
                    spec.full_name
                )
            }
            Err(Denied::Key(at)) => access("key", at),
            Err(Denied::Channel(at)) => access("channel", at),
        };
        self.answer(asker, |out| encode::bulk(out, refusal.as_bytes()));
    }

    /// LOG of all workers: the newest entries, or none from now on.
    fn acl_log(&mut self, asker: &Asker, request: &Request<'_>) {
        let keyspace = asker.keyspace;
        let limit = match request.args.len() {
            2 => LOG_SHOWN,
            3 if request.arg(2).eq_ignore_ascii_case(b"RESET") => {
                return self.ask_workers(asker, GatherKind::AllTook, |ticket| {
                    Mail::ForgetAclLog(ticket, keyspace)
                });
            }
            3 => match strict_integer(request.arg(2)) {
                Some(number) => usize::try_from(number).unwrap_or(0),
                None => return self.answer_error(asker, &ClientError::NotAnInteger),
            },
            _ => return self.answer_error(asker, &ClientError::Words(LOG_WORDS)),
        };
        self.ask_workers(asker, GatherKind::AclLog { limit }, |ticket| {
            Mail::AclLog(ticket, keyspace)
        });
    }

    /// Why a client's user may not do this; None: it may.
    pub(crate) fn forbidden(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
        request: &Request<'_>,
    ) -> Option<ClientError> {
        let client = self.clients.get(slot)?;
        let space = &self.topology.keyspaces[client.keyspace as usize];
        let user = space.users.get(client.user? as usize)?;
        let Some(spec) = spec else {
            // What is routed by its first argument; all else that nobody knows is refused by the router.
            let is_routed = space.unknown_commands_first_key
                && request.args.len() > 1
                && lookup(request.arg(0)).is_none();
            if !is_routed || user.acl.allows_unknown() {
                return None;
            }
            let command = printable(request.arg(0));
            let name = user.name.clone();
            self.log_denial(slot, Reason::Command, command.as_bytes(), &name);
            return Some(ClientError::Forbidden {
                user: name,
                command,
            });
        };
        let spec = exact(spec, request);
        let verdict = user.acl.judge(spec, request);
        let name = user.name.clone();
        let (reason, error) = match verdict {
            Ok(()) => return self.also_forbidden(&user.acl, spec, request),
            Err(Denied::Command) => {
                let command = spec.full_name.to_string();
                let error = ClientError::Forbidden {
                    user: name.clone(),
                    command,
                };
                (Reason::Command, error)
            }
            Err(Denied::Key(at)) => (Reason::Key(at), ClientError::ForbiddenKey),
            Err(Denied::Channel(at)) => (Reason::Channel(at), ClientError::ForbiddenChannel),
        };
        let object = match reason {
            Reason::Key(at) | Reason::Channel(at) => request.arg(at as usize),
            Reason::Command | Reason::Auth => spec.full_name.as_bytes(),
        };
        self.log_denial(slot, reason, object, &name);
        Some(error)
    }

    /// Answers with why. An EXEC that is forbidden ends its transaction, as on a server.
    pub(crate) fn forbid(
        &mut self,
        slot: u32,
        spec: Option<&'static CommandSpec>,
        error: &ClientError,
    ) -> Taken {
        if spec.is_none_or(|spec| spec.policy != Policy::Local(Local::Exec)) {
            return self.turn_away(slot, error);
        }
        self.forget_transaction(slot);
        let text = format!(
            "EXECABORT Transaction discarded because of: {}",
            error.text()
        );
        self.turn_away(slot, &ClientError::Text(text))
    }

    /// What the rules allow, but not with these arguments.
    fn also_forbidden(
        &self,
        acl: &Acl,
        spec: &'static CommandSpec,
        request: &Request<'_>,
    ) -> Option<ClientError> {
        if let Some(error) = acl.sort_denied(spec, request) {
            return Some(error);
        }
        // Nobody knows which keys were judged; what refuses in its own words may do so.
        let refuses = matches!(spec.policy, Policy::Refuse(_));
        let mut keys = Vec::new();
        match needed_keys(spec, request.args, request.data, &mut keys) {
            Err(error) if !refuses => Some(ClientError::Text(error.text(spec))),
            _ => None,
        }
    }
}

/// Who a client is that has said nothing: its user, and the bits of `care` that follow from that.
pub(crate) fn newcomer(space: &Keyspace) -> (Option<u16>, u8) {
    if space.users.is_empty() {
        return (None, 0);
    }
    let is_default = |user: &User| user.name == DEFAULT && user.acl.is_on && user.acl.is_open;
    match space.users.iter().position(is_default) {
        Some(index) => (Some(index as u16), bits_of(&space.users[index].acl)),
        None => (None, care::STRANGER),
    }
}

/// The bits of `care` of a client with these rules.
pub(crate) fn bits_of(acl: &Acl) -> u8 {
    if acl.allows_everything() {
        0
    } else {
        care::RULED
    }
}

/// A user as it is shown.
struct Shown {
    name: String,
    acl: Acl,
}

impl Shown {
    /// As in ACL LIST.
    fn line(&self) -> String {
        format!("user {} {}", self.name, self.acl.describe())
    }

    /// As ACL GETUSER answers.
    fn write(&self, proto: Proto, out: &mut Vec<u8>) {
        let mut flags = vec![if self.acl.is_on { "on" } else { "off" }];
        if self.acl.is_open {
            flags.push("nopass");
        }
        let parts = self.acl.describe_parts();
        encode::map(out, proto, 6);
        encode::bulk(out, b"flags");
        encode::set(out, proto, flags.len());
        flags
            .iter()
            .for_each(|flag| encode::bulk(out, flag.as_bytes()));
        encode::bulk(out, b"passwords");
        encode::array(out, 0);
        for (index, (commands, keys, channels)) in parts.iter().enumerate() {
            if index > 0 {
                encode::map(out, proto, 3);
            }
            let fields: [(&[u8], &String); 3] = [
                (b"commands", commands),
                (b"keys", keys),
                (b"channels", channels),
            ];
            for (name, text) in fields {
                encode::bulk(out, name);
                encode::bulk(out, text.as_bytes());
            }
            if index == 0 {
                encode::bulk(out, b"selectors");
                encode::array(out, parts.len() - 1);
            }
        }
    }
}

/// The command that DRYRUN is asked about, or what servers say when there is none.
fn meant_command(request: &Request<'_>) -> Result<&'static CommandSpec, ClientError> {
    let not_found = || {
        let name = printable(request.arg(0));
        ClientError::Text(format!("ERR Command '{name}' not found"))
    };
    let found = specification(request).map_err(|error| match *error {
        ClientError::WrongArity(_) => *error,
        _ => not_found(),
    })?;
    let spec = exact(found, request);
    if !found.subcommands.is_empty() && spec == found && request.args.len() > 1 {
        return Err(not_found());
    }
    if !arity_fits(spec, request.args.len()) {
        return Err(ClientError::WrongArity(spec.full_name));
    }
    Ok(spec)
}

/// Names of the commands and subcommands of a category.
fn commands_in(bit: u32) -> Vec<String> {
    COMMANDS
        .iter()
        .flat_map(|spec| std::iter::once(spec).chain(spec.subcommands))
        .filter(|spec| spec.categories & bit != 0)
        .map(|spec| spec.full_name.to_string())
        .collect()
}

/// The user of who gives no name.
pub(crate) const DEFAULT: &str = "default";

/// How many entries LOG shows unless it is told.
const LOG_SHOWN: usize = 10;

const CAT_WORDS: &str =
    "ERR unknown subcommand or wrong number of arguments for 'CAT'. Try ACL HELP.";
const LOG_WORDS: &str =
    "ERR unknown subcommand or wrong number of arguments for 'LOG'. Try ACL HELP.";
/// Why users cannot be changed by commands.
pub(crate) const USERS_ARE_CONFIGURED: &str =
    "is not supported: users of shoal are in its configuration; change them there and start it again";
