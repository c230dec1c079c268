//! CLIENT: what a client says of itself, and what it may ask and do about the others of its keyspace.
//!
//! Owns: the CLIENT subcommands, and the filters of LIST and KILL. A client lives in one worker; the question goes to all,
//! by mail.
//!
//! Must stay true: a client sees and kills only clients of its own keyspace.

use crate::error::ClientError;
use crate::limits::CLIENT_NAME_MAX;
use crate::protocol::command::Local;
use crate::protocol::encode::{self, Proto};
use crate::protocol::request::strict_integer;
use crate::routing::route::Request;
use crate::session::client::{care, Client, Intake, Particulars};
use crate::session::client_help::CLIENT_HELP;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::gather::GatherKind;
use crate::session::local::{is_name, BAD_NAME};
use crate::session::mail::{Mail, Ticket};
use crate::session::stats::CloseReason;
use std::collections::HashSet;

/// Which clients are meant. What is not given does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    keyspace: u16,
    /// Looked up for every client, and as many as a request has arguments.
    ids: HashSet<u64>,
    address: Option<String>,
    local_address: Option<String>,
    user: Option<String>,
    /// TYPE.
    kind: Option<ClientKind>,
    older_than_s: u64,
    /// CLIENT ID to be left out.
    skip: Option<u64>,
}

impl Filter {
    fn passes(&self, client: &Client, user: &str, now_ms: u64) -> bool {
        client.keyspace == self.keyspace
            && self.kind.is_none_or(|kind| kind == ClientKind::of(client))
            && (self.ids.is_empty() || self.ids.contains(&client.id))
            && self
                .address
                .as_ref()
                .is_none_or(|address| **address == *client.peer)
            && self
                .local_address
                .as_ref()
                .is_none_or(|address| **address == *client.local)
            && self.user.as_ref().is_none_or(|name| name == user)
            && (now_ms.saturating_sub(client.since_ms)) / 1000 >= self.older_than_s
            && self.skip != Some(client.id)
    }
}

impl Engine {
    /// A CLIENT subcommand.
    pub(crate) fn client_command(&mut self, asker: &Asker, local: Local, request: &Request<'_>) {
        let Some(client) = self.clients.get_mut(asker.slot) else {
            return;
        };
        let proto = client.proto;
        match local {
            Local::ClientId => {
                let id = client.id as i64;
                self.answer(asker, |out| encode::integer(out, id));
            }
            Local::ClientSetname => {
                if !is_name(request.arg(2)) {
                    return self.answer_error(asker, &ClientError::Words(BAD_NAME));
                }
                client.particulars().name = request.arg(2).to_vec();
                self.ok(asker);
            }
            Local::ClientGetname => {
                let name = client.name().to_vec();
                self.answer(asker, |out| {
                    if name.is_empty() {
                        encode::null(out, proto)
                    } else {
                        encode::bulk(out, &name)
                    }
                });
            }
            Local::ClientSetinfo => self.set_info(asker, request),
            Local::ClientInfo => {
                let line = self.client_line(asker.slot);
                self.answer(asker, |out| encode::verbatim(out, proto, line.as_bytes()));
            }
            Local::ClientList => match list_filter(asker, request) {
                Ok(filter) => self.ask_workers(asker, GatherKind::ClientList, |ticket| {
                    Mail::List(ticket, filter.clone())
                }),
                Err(error) => self.answer_error(asker, &error),
            },
            Local::ClientKill => self.kill(asker, request),
            Local::ClientNoEvict => self.switch(asker, request, |client, on| {
                client.particulars().no_evict = on
            }),
            Local::ClientNoTouch => self.switch(asker, request, |client, on| {
                client.particulars().no_touch = on
            }),
            _ => self.lines(asker, CLIENT_HELP),
        }
    }

    fn ok(&mut self, asker: &Asker) {
        self.answer(asker, |out| encode::simple(out, "OK"));
    }

    fn switch(
        &mut self,
        asker: &Asker,
        request: &Request<'_>,
        set: impl FnOnce(&mut Client, bool),
    ) {
        let word = request.arg(2);
        let on = word.eq_ignore_ascii_case(b"ON");
        if !on && !word.eq_ignore_ascii_case(b"OFF") {
            return self.answer_error(asker, &ClientError::Syntax);
        }
        if let Some(client) = self.clients.get_mut(asker.slot) {
            set(client, on);
        }
        self.ok(asker);
    }

    fn set_info(&mut self, asker: &Asker, request: &Request<'_>) {
        let (attribute, value) = (request.arg(2), request.arg(3));
        if value.len() > CLIENT_NAME_MAX || !is_name(value) {
            let shown = crate::error::printable(attribute);
            let text =
                format!("ERR {shown} cannot contain spaces, newlines or special characters.");
            return self.answer_error(asker, &ClientError::Text(text));
        }
        let Some(client) = self.clients.get_mut(asker.slot) else {
            return;
        };
        if attribute.eq_ignore_ascii_case(b"LIB-NAME") {
            client.particulars().library = value.to_vec();
        } else if attribute.eq_ignore_ascii_case(b"LIB-VER") {
            client.particulars().library_version = value.to_vec();
        } else {
            let shown = crate::error::printable(attribute);
            return self.answer_error(
                asker,
                &ClientError::Text(format!("ERR Unrecognized option '{shown}'")),
            );
        }
        self.ok(asker);
    }

    pub(crate) fn user_name(&self, client: &Client) -> String {
        let users = &self.topology.keyspaces[client.keyspace as usize].users;
        match client.user {
            Some(index) => users
                .get(index as usize)
                .map_or_else(String::new, |user| user.name.clone()),
            None => "default".to_string(),
        }
    }

    /// One line of CLIENT LIST, as servers write it.
    pub(crate) fn client_line(&self, slot: u32) -> String {
        let Some(client) = self.clients.get(slot) else {
            return String::new();
        };
        let seconds = |since: u64| self.now_ms.saturating_sub(since) / 1000;
        let none = Particulars::default();
        let particulars = client.particulars.as_deref().unwrap_or(&none);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (queued, watched) = self.transaction_counts(slot);
        let [channels, patterns, shard_channels] = self.subscription_counts(slot);
        let mut flags = String::new();
        if client.care & care::SUBSCRIBED != 0 {
            flags.push('P');
        }
        if queued >= 0 {
            flags.push('x');
        }
        if particulars.monitor.is_some() {
            flags.push('O');
        }
        if client.intake == Intake::Blocked {
            flags.push('b');
        }
        flags.push_str(&self.tracking_letters(slot));
        if particulars.no_evict {
            flags.push('e');
        }
        if particulars.no_touch {
            flags.push('T');
        }
        if flags.is_empty() {
            flags.push('N');
        }
        format!(
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db={} sub={channels} psub={patterns} ssub={shard_channels} multi={} watch={} \
             qbuf={} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={} oll=0 omem=0 tot-mem={} events=r cmd={} \
             user={} redir={} resp={} lib-name={} lib-ver={}\n",
            client.id,
            client.peer,
            client.local,
            slot,
            text(&particulars.name),
            seconds(client.since_ms),
            seconds(client.request_ms),
            client.database,
            queued,
            watched,
            client.incoming.len(),
            client.replies.bytes(),
            std::mem::size_of::<Client>() + client.incoming.len() + client.replies.bytes(),
            client.last_command,
            self.user_name(client),
            self.redirect_id(slot),
            if client.proto == Proto::Resp3 { 3 } else { 2 },
            text(&particulars.library),
            text(&particulars.library_version),
        )
    }

    fn chosen(&self, filter: &Filter) -> Vec<u32> {
        let mut chosen: Vec<(u64, u32)> = self
            .clients
            .iter()
            .filter(|(_, client)| filter.passes(client, &self.user_name(client), self.now_ms))
            .map(|(slot, client)| (client.id, slot))
            .collect();
        chosen.sort_unstable();
        chosen.into_iter().map(|(_, slot)| slot).collect()
    }

    fn close_killed(&mut self, ticket: &Ticket, slot: u32) {
        let is_asker = ticket.worker == self.identity.worker
            && ticket.client == slot
            && ticket.generation == self.clients.generation(slot);
        if !is_asker {
            return self.drop_client(slot, CloseReason::Killed);
        }
        // Who kills itself is told how many it killed first.
        if let Some(client) = self.clients.get_mut(slot) {
            client.intake = Intake::Closing;
            client.reason = Some(CloseReason::Killed);
        }
    }

    /// CLIENT LIST: this worker's lines.
    pub(crate) fn list_here(&mut self, ticket: Ticket, filter: &Filter) {
        let slots = self.chosen(filter).into_iter();
        let lines: String = slots.map(|slot| self.client_line(slot)).collect();
        self.reply_to(ticket, lines.into_bytes());
    }

    /// CLIENT KILL: how many of this worker's clients were closed.
    pub(crate) fn kill_here(&mut self, ticket: Ticket, filter: &Filter) {
        let chosen = self.chosen(filter);
        let count = chosen.len().to_string().into_bytes();
        for slot in chosen {
            self.close_killed(&ticket, slot);
        }
        self.reply_to(ticket, count);
    }

    fn kill(&mut self, asker: &Asker, request: &Request<'_>) {
        let own_id = self.clients.get(asker.slot).map_or(0, |client| client.id);
        let old_form = request.args.len() == 3;
        let filter = if old_form {
            let address = String::from_utf8_lossy(request.arg(2)).into_owned();
            Ok(Filter {
                keyspace: asker.keyspace as u16,
                address: Some(address),
                ..Filter::default()
            })
        } else {
            kill_filter(asker, request, own_id)
        };
        match filter {
            Ok(filter) => {
                self.ask_workers(asker, GatherKind::ClientKill { old_form }, |ticket| {
                    Mail::Kill(ticket, filter.clone())
                });
            }
            Err(error) => self.answer_error(asker, &error),
        }
    }

    /// The one answer to CLIENT KILL from those of all workers.
    pub(crate) fn compose_kill(parts: &[&[u8]], old_form: bool, out: &mut Vec<u8>) {
        let killed: i64 = parts.iter().filter_map(|part| strict_integer(part)).sum();
        match (old_form, killed) {
            (true, 0) => ClientError::Words("ERR No such client").write(out),
            (true, _) => encode::simple(out, "OK"),
            (false, _) => encode::integer(out, killed),
        }
    }
}

/// Kinds of clients, as servers tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientKind {
    Normal,
    /// It has subscribed.
    Subscriber,
    /// A server: none of our clients is.
    Server,
}

impl ClientKind {
    fn of(client: &Client) -> Self {
        if client.care & care::SUBSCRIBED != 0 {
            Self::Subscriber
        } else {
            Self::Normal
        }
    }

    fn named(name: &[u8]) -> Result<Self, ClientError> {
        let known: [(&[u8], Self); 6] = [
            (b"normal", Self::Normal),
            (b"pubsub", Self::Subscriber),
            (b"master", Self::Server),
            (b"primary", Self::Server),
            (b"replica", Self::Server),
            (b"slave", Self::Server),
        ];
        let found = known
            .iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known));
        found.map(|(_, kind)| *kind).ok_or_else(|| {
            let shown = crate::error::printable(name);
            ClientError::Text(format!("ERR Unknown client type '{shown}'"))
        })
    }
}

fn client_id(text: &[u8]) -> Result<u64, ClientError> {
    strict_integer(text)
        .and_then(|id| u64::try_from(id).ok())
        .filter(|&id| id > 0)
        .ok_or(ClientError::Words("ERR client-id should be greater than 0"))
}

fn list_filter(asker: &Asker, request: &Request<'_>) -> Result<Filter, ClientError> {
    let mut filter = Filter {
        keyspace: asker.keyspace as u16,
        ..Filter::default()
    };
    let count = request.args.len();
    match count {
        2 => Ok(filter),
        4 if request.arg(2).eq_ignore_ascii_case(b"TYPE") => {
            filter.kind = Some(ClientKind::named(request.arg(3))?);
            Ok(filter)
        }
        4.. if request.arg(2).eq_ignore_ascii_case(b"ID") => {
            filter.ids = (3..count)
                .map(|index| {
                    client_id(request.arg(index))
                        .map_err(|_| ClientError::Words("ERR Invalid client ID"))
                })
                .collect::<Result<_, _>>()?;
            Ok(filter)
        }
        _ => Err(ClientError::Syntax),
    }
}

fn kill_filter(asker: &Asker, request: &Request<'_>, own_id: u64) -> Result<Filter, ClientError> {
    let mut filter = Filter {
        keyspace: asker.keyspace as u16,
        skip: Some(own_id),
        ..Filter::default()
    };
    let text = |index: usize| String::from_utf8_lossy(request.arg(index)).into_owned();
    let mut index = 2;
    while index < request.args.len() {
        if index + 1 >= request.args.len() {
            return Err(ClientError::Syntax);
        }
        let word = request.arg(index).to_ascii_uppercase();
        match word.as_slice() {
            b"ID" => {
                filter.ids.insert(client_id(request.arg(index + 1))?);
            }
            b"ADDR" => filter.address = Some(text(index + 1)),
            b"LADDR" => filter.local_address = Some(text(index + 1)),
            b"USER" => filter.user = Some(text(index + 1)),
            b"TYPE" => filter.kind = Some(ClientKind::named(request.arg(index + 1))?),
            b"MAXAGE" => {
                filter.older_than_s =
                    client_id(request.arg(index + 1)).map_err(|_| ClientError::Syntax)?
            }
            b"SKIPME" if request.arg(index + 1).eq_ignore_ascii_case(b"yes") => {
                filter.skip = Some(own_id)
            }
            b"SKIPME" if request.arg(index + 1).eq_ignore_ascii_case(b"no") => filter.skip = None,
            _ => return Err(ClientError::Syntax),
        }
        index += 2;
    }
    Ok(filter)
}
