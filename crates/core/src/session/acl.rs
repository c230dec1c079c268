//! ACL: what a user of the keyspace may do.
//!
//! Owns: the ACL subcommands that tell of the users in the configuration. Every user may do everything; the other
//! subcommands are refused.
//!
//! Must stay true: a user is never allowed more than its rules say.

use crate::error::ClientError;
use crate::protocol::command::{CommandSpec, Local};
use crate::protocol::encode;
use crate::routing::route::Request;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;

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
            Local::AclUsers => self.acl_users(asker),
            _ => self.not_yet(asker, request, NOT_HERE),
        }
    }

    /// The names of who may connect, sorted as servers do. Without any in the configuration there is the one of all.
    fn acl_users(&mut self, asker: &Asker) {
        let users = &self.topology.keyspaces[asker.keyspace].users;
        let mut names: Vec<String> = users.iter().map(|user| user.name.clone()).collect();
        if names.is_empty() {
            names.push("default".to_string());
        }
        names.sort_unstable();
        self.answer(asker, |out| {
            encode::array(out, names.len());
            names
                .iter()
                .for_each(|name| encode::bulk(out, name.as_bytes()));
        });
    }

    /// Why a client's user may not do this; None: it may.
    pub(crate) fn forbidden(
        &mut self,
        _slot: u32,
        _spec: Option<&'static CommandSpec>,
        _request: &Request<'_>,
    ) -> Option<ClientError> {
        None
    }
}

const NOT_HERE: &str = "is not supported yet (WHOAMI and USERS are): users of shoal are in its configuration, users of the servers on each server";
