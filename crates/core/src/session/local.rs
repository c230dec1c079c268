//! What shoal answers by itself: connecting, greeting, describing itself.
//!
//! Owns: one function for each `Local` of the command table, except those about other clients (`client_admin`).
//!
//! Must stay true: each answer is what one server would say, in the client's protocol, because client libraries decide
//! by them what they may do; passwords are compared in constant time and kept nowhere.

use crate::error::ClientError;
use crate::limits::{CLIENT_NAME_MAX, DATABASES};
use crate::protocol::command::Local;
use crate::protocol::encode::{self, Proto};
use crate::protocol::request::strict_integer;
use crate::routing::route::{specification, Request};
use crate::session::acl::{bits_of, newcomer, DEFAULT};
use crate::session::acl_log::Reason;
use crate::session::backend::Health;
use crate::session::client::{care, Intake, ReplyMode};
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;
use crate::session::explain::SHOAL_HELP;
use crate::session::headcount::Headcount;
use crate::session::info::Own;
use crate::session::stats::{CloseReason, PerKeyspace};

/// What clients are told as `redis_version` before any shard was seen.
const VERSION_UNSEEN: &str = "7.2.4";

impl Engine {
    /// Answers a command of our own.
    pub(crate) fn local(&mut self, asker: &Asker, local: Local, request: &Request<'_>) {
        match local {
            Local::Ping => self.ping(asker, request),
            Local::Echo => self.answer(asker, |out| encode::bulk(out, request.arg(1))),
            Local::Quit => self.quit(asker),
            Local::Reset => self.reset(asker),
            Local::Select => self.select(asker, request),
            Local::Hello => self.hello(asker, request),
            Local::Auth => self.auth(asker, request),
            Local::ClientReply => self.client_reply(asker, request),
            Local::ClusterKeyslot => {
                let space = &self.topology.keyspaces[asker.keyspace];
                let slot = space.cluster_slot(request.arg(2));
                self.answer(asker, |out| encode::integer(out, i64::from(slot)));
            }
            Local::Role => self.answer(asker, |out| {
                // A replication offset is of one server's stream; there is no such stream here.
                encode::array(out, 3);
                encode::bulk(out, b"master");
                encode::integer(out, 0);
                encode::array(out, 0);
            }),
            Local::ClusterDisabled => {
                self.answer_error(
                    asker,
                    &ClientError::Words("ERR This instance has cluster support disabled"),
                );
            }
            Local::ShoalExplain => self.explain(asker, request),
            Local::ShoalTopology => self.topology_text(asker),
            Local::ShoalHelp => self.lines(asker, SHOAL_HELP),
            other => self.local_of_a_feature(asker, other, request),
        }
    }

    /// Commands of features that have files of their own.
    fn local_of_a_feature(&mut self, asker: &Asker, local: Local, request: &Request<'_>) {
        match local {
            Local::Multi | Local::Exec | Local::Discard | Local::Watch | Local::Unwatch => {
                self.transaction(asker, local, request);
            }
            Local::Subscribe
            | Local::Unsubscribe
            | Local::Psubscribe
            | Local::Punsubscribe
            | Local::Ssubscribe
            | Local::Sunsubscribe
            | Local::Publish
            | Local::Spublish
            | Local::PubsubChannels
            | Local::PubsubNumsub
            | Local::PubsubNumpat
            | Local::PubsubShardchannels
            | Local::PubsubShardnumsub => self.pubsub(asker, local, request),
            Local::ClientTracking
            | Local::ClientCaching
            | Local::ClientTrackinginfo
            | Local::ClientGetredir => self.tracking(asker, local, request),
            Local::Monitor => self.monitor(asker),
            Local::ClientPause | Local::ClientUnpause => self.pause(asker, local, request),
            Local::ClientUnblock => self.unblock_client(asker, request),
            Local::SlowlogGet | Local::SlowlogLen | Local::SlowlogReset | Local::SlowlogHelp => {
                self.slowlog(asker, local, request);
            }
            Local::AclCat
            | Local::AclDeluser
            | Local::AclDryrun
            | Local::AclGetuser
            | Local::AclList
            | Local::AclLoad
            | Local::AclLog
            | Local::AclSave
            | Local::AclSetuser
            | Local::AclUsers
            | Local::AclWhoami => self.acl(asker, local, request),
            Local::ClientId
            | Local::ClientSetname
            | Local::ClientGetname
            | Local::ClientSetinfo
            | Local::ClientInfo
            | Local::ClientList
            | Local::ClientKill
            | Local::ClientNoEvict
            | Local::ClientNoTouch
            | Local::ClientHelp => self.client_command(asker, local, request),
            Local::Ping
            | Local::Echo
            | Local::Quit
            | Local::Reset
            | Local::Select
            | Local::Hello
            | Local::Auth
            | Local::ClientReply
            | Local::ClusterKeyslot
            | Local::Role
            | Local::ClusterDisabled
            | Local::ShoalExplain
            | Local::ShoalTopology
            | Local::ShoalHelp => unreachable!("answered by `local`"),
        }
    }

    /// Refuses a command that is ours to answer.
    pub(crate) fn refuse_own(
        &mut self,
        asker: &Asker,
        request: &Request<'_>,
        reason: &'static str,
    ) {
        let command = specification(request).map_or("unknown", |spec| spec.full_name);
        self.answer_error(asker, &ClientError::Refused { command, reason });
    }

    fn ping(&mut self, asker: &Asker, request: &Request<'_>) {
        // Where only messages are expected, RESP2 gives this the form of one.
        let is_message = self.clients.get(asker.slot).is_some_and(|client| {
            client.care & care::SUBSCRIBED != 0 && client.proto == Proto::Resp2
        });
        match request.args.len() {
            1 | 2 if is_message => self.answer(asker, |out| {
                encode::array(out, 2);
                encode::bulk(out, b"pong");
                encode::bulk(out, request.arg(1));
            }),
            1 => self.answer(asker, |out| encode::simple(out, "PONG")),
            2 => self.answer(asker, |out| encode::bulk(out, request.arg(1))),
            _ => self.answer_error(asker, &ClientError::WrongArity("ping")),
        }
    }

    fn quit(&mut self, asker: &Asker) {
        self.answer(asker, |out| encode::simple(out, "OK"));
        if let Some(client) = self.clients.get_mut(asker.slot) {
            client.intake = Intake::Closing;
            client.reason = Some(CloseReason::Quit);
        }
        // With CLIENT REPLY OFF there may be nothing to wait for.
        self.settle_client(asker.slot);
    }

    fn reset(&mut self, asker: &Asker) {
        self.forget_transaction(asker.slot);
        self.end_monitor(asker.slot);
        self.forget_subscriptions(asker.slot);
        self.forget_tracking(asker.slot);
        let space = &self.topology.keyspaces[asker.keyspace];
        if let Some(client) = self.clients.get_mut(asker.slot) {
            client.reset(newcomer(space), space.database);
        }
        self.answer(
            &Asker {
                mute: false,
                ..*asker
            },
            |out| encode::simple(out, "RESET"),
        );
    }

    fn select(&mut self, asker: &Asker, request: &Request<'_>) {
        let Some(number) = strict_integer(request.arg(1)) else {
            return self.answer_error(asker, &ClientError::NotAnInteger);
        };
        if !(0..DATABASES as i64).contains(&number) {
            return self.answer_error(asker, &ClientError::DatabaseRange);
        }
        if let Some(client) = self.clients.get_mut(asker.slot) {
            client.database = number as u8;
        }
        self.answer(asker, |out| encode::simple(out, "OK"));
    }

    fn client_reply(&mut self, asker: &Asker, request: &Request<'_>) {
        let word = request.arg(2);
        let Some(client) = self.clients.get_mut(asker.slot) else {
            return;
        };
        if word.eq_ignore_ascii_case(b"ON") {
            client.reply_mode = ReplyMode::On;
            self.answer(
                &Asker {
                    mute: false,
                    ..*asker
                },
                |out| encode::simple(out, "OK"),
            );
        } else if word.eq_ignore_ascii_case(b"OFF") {
            client.reply_mode = ReplyMode::Off;
        } else if word.eq_ignore_ascii_case(b"SKIP") {
            if client.reply_mode != ReplyMode::Off {
                client.reply_mode = ReplyMode::SkipNext;
            }
        } else {
            self.answer_error(asker, &ClientError::Syntax);
        }
    }

    /// The user of that name and password, if there is one.
    fn user(&self, keyspace: usize, name: &[u8], password: &[u8]) -> Option<u16> {
        let users = &self.topology.keyspaces[keyspace].users;
        let mut found = None;
        for (index, user) in users.iter().enumerate() {
            let secret = user.credentials.password.as_bytes();
            let is_right = (same(secret, password) && !secret.is_empty()) || user.acl.is_open;
            if user.name.as_bytes() == name && is_right && user.acl.is_on {
                found = Some(index as u16);
            }
        }
        found
    }

    fn let_in(&mut self, asker: &Asker, name: &[u8], password: &[u8]) -> bool {
        let users_exist = !self.topology.keyspaces[asker.keyspace].users.is_empty();
        let user = self.user(asker.keyspace, name, password);
        let users = &self.topology.keyspaces[asker.keyspace].users;
        let known = user.and_then(|index| users.get(index as usize));
        let bits = known.map_or(0, |known| bits_of(&known.acl));
        // As a server without passwords: its default user takes any.
        let is_open = !users_exist && name == DEFAULT.as_bytes();
        let Some(client) = self.clients.get_mut(asker.slot) else {
            return false;
        };
        if user.is_some() || is_open {
            client.user = user;
            client.take_care(care::STRANGER | care::RULED, false);
            client.take_care(bits, true);
            return true;
        }
        false
    }

    fn auth(&mut self, asker: &Asker, request: &Request<'_>) {
        let users = &self.topology.keyspaces[asker.keyspace].users;
        let default = users.iter().find(|user| user.name == DEFAULT);
        let is_open = users.is_empty() || default.is_some_and(|user| user.acl.is_open);
        let (name, password): (&[u8], &[u8]) = match request.args.len() {
            2 if is_open => return self.answer_error(asker, &ClientError::NoPasswordSet),
            2 => (DEFAULT.as_bytes(), request.arg(1)),
            3 => (request.arg(1), request.arg(2)),
            _ => return self.answer_error(asker, &ClientError::Syntax),
        };
        if self.let_in(asker, name, password) {
            self.answer(asker, |out| encode::simple(out, "OK"));
        } else {
            self.not_let_in(asker, request.arg(0), name);
        }
    }

    fn not_let_in(&mut self, asker: &Asker, command: &[u8], name: &[u8]) {
        let name = String::from_utf8_lossy(name);
        self.log_denial(asker.slot, Reason::Auth, command, &name);
        self.answer_error(asker, &ClientError::WrongPass);
    }

    fn hello(&mut self, asker: &Asker, request: &Request<'_>) {
        let mut proto = None;
        if request.args.len() > 1 {
            proto = match strict_integer(request.arg(1)) {
                Some(2) => Some(Proto::Resp2),
                Some(3) => Some(Proto::Resp3),
                Some(_) => return self.answer_error(asker, &ClientError::NoProto),
                None => {
                    let words = "ERR Protocol version is not an integer or out of range";
                    return self.answer_error(asker, &ClientError::Words(words));
                }
            };
        }
        let mut index = 2;
        let mut name = None;
        while index < request.args.len() {
            let word = request.arg(index);
            let more = request.args.len() - index - 1;
            if word.eq_ignore_ascii_case(b"AUTH") && more >= 2 {
                let name = request.arg(index + 1);
                if !self.let_in(asker, name, request.arg(index + 2)) {
                    return self.not_let_in(asker, request.arg(0), name);
                }
                index += 3;
            } else if word.eq_ignore_ascii_case(b"SETNAME") && more >= 1 {
                name = Some(request.arg(index + 1));
                index += 2;
            } else {
                let shown = crate::error::printable(word);
                return self.answer_error(
                    asker,
                    &ClientError::Text(format!("ERR Syntax error in HELLO option '{shown}'")),
                );
            }
        }
        self.greet(asker, proto, name);
    }

    fn greet(&mut self, asker: &Asker, proto: Option<Proto>, name: Option<&[u8]>) {
        let Some(client) = self.clients.get_mut(asker.slot) else {
            return;
        };
        if !client.is_trusted() {
            return self.answer_error(asker, &ClientError::NoAuthHello);
        }
        if let Some(name) = name {
            if !is_name(name) {
                return self.answer_error(asker, &ClientError::Words(BAD_NAME));
            }
            client.particulars().name = name.to_vec();
        }
        let before = client.proto;
        if let Some(proto) = proto {
            client.proto = proto;
        }
        let (id, proto) = (client.id, client.proto);
        let version = self.redis_version(asker.keyspace);
        self.answer(asker, |out| {
            encode::map(out, proto, 7);
            encode::bulk(out, b"server");
            encode::bulk(out, b"redis");
            encode::bulk(out, b"version");
            encode::bulk(out, version.as_bytes());
            encode::bulk(out, b"proto");
            encode::integer(out, if proto == Proto::Resp3 { 3 } else { 2 });
            encode::bulk(out, b"id");
            encode::integer(out, id as i64);
            encode::bulk(out, b"mode");
            encode::bulk(out, b"standalone");
            encode::bulk(out, b"role");
            encode::bulk(out, b"master");
            encode::bulk(out, b"modules");
            encode::array(out, 0);
        });
        if before != proto {
            self.tracking_speaks(asker);
        }
    }

    /// The version that clients are told: the first shard's that was seen.
    pub(crate) fn redis_version(&self, keyspace: usize) -> String {
        let space = &self.topology.keyspaces[keyspace];
        let backends = &self.backends[space.first_shard..space.first_shard + space.shards.len()];
        let seen = backends.iter().find(|backend| !backend.version.is_empty());
        seen.map_or_else(
            || VERSION_UNSEEN.to_string(),
            |backend| backend.version.clone(),
        )
    }

    /// What INFO says of ourselves.
    pub(crate) fn with_own<T>(
        &self,
        keyspace: usize,
        headcount: Headcount,
        then: impl FnOnce(&Own<'_>) -> T,
    ) -> T {
        let space = &self.topology.keyspaces[keyspace];
        let backends = &self.backends[space.first_shard..space.first_shard + space.shards.len()];
        let sum = |cell| {
            let workers = self.all_stats.iter();
            workers.map(|stats| stats.of_keyspace(keyspace, cell)).sum()
        };
        let denied = [
            PerKeyspace::LoginsFailed,
            PerKeyspace::DeniedCommands,
            PerKeyspace::DeniedKeys,
            PerKeyspace::DeniedChannels,
        ];
        let version = self.redis_version(keyspace);
        then(&Own {
            version: env!("CARGO_PKG_VERSION"),
            redis_version: &version,
            port: self.identity.ports.get(keyspace).copied().unwrap_or(0),
            run_id: &self.identity.run_id,
            uptime_s: self.now_ms / 1000,
            clients: sum(PerKeyspace::Clients),
            subscribers: sum(PerKeyspace::Subscribers),
            clients_tracking: sum(PerKeyspace::Tracking),
            clients_max: space.max_clients,
            denied: denied.map(sum),
            headcount,
            shards_up: backends
                .iter()
                .filter(|backend| backend.health == Health::Up)
                .count() as u64,
            shards_total: backends.len() as u64,
            keyspace: &space.name,
            workers: self.identity.workers as u32,
            process_id: self.identity.process_id,
            epoch: self.topology.epoch,
            database: space.database,
            records: 0,
        })
    }

    /// An array of status lines, as the HELP subcommands give.
    pub(crate) fn lines(&mut self, asker: &Asker, lines: &[&str]) {
        self.answer(asker, |out| {
            encode::array(out, lines.len());
            lines.iter().for_each(|line| encode::simple(out, line));
        });
    }
}

/// Redis' own words.
pub(crate) const BAD_NAME: &str =
    "ERR Client names cannot contain spaces, newlines or special characters.";

/// Printable ASCII without blanks, not too long.
pub(crate) fn is_name(name: &[u8]) -> bool {
    name.len() <= CLIENT_NAME_MAX && name.iter().all(u8::is_ascii_graphic)
}

/// Compares without telling by its duration where they differ.
fn same(secret: &[u8], shown: &[u8]) -> bool {
    let mut difference = u8::from(secret.len() != shown.len());
    for (index, byte) in shown.iter().enumerate() {
        difference |= byte ^ secret.get(index).copied().unwrap_or(0);
    }
    std::hint::black_box(difference) == 0
}
