//! What shoal says of its own decisions: SHOAL EXPLAIN and SHOAL TOPOLOGY.
//!
//! Owns: the texts. The decision that is explained is made by the router itself, for the very request, so that the two can
//! never differ.
//!
//! Must stay true: nothing is executed; no password is shown.

use crate::error::ClientError;
use crate::limits::CROSS_SHARD_SHARDS_MAX;
use crate::protocol::command::{AllKeys, Check, CommandSpec, Grade, Local, Policy};
use crate::routing::admission::{Admission, SHARE_WHOLE};
use crate::routing::claims::beyond_keys;
use crate::routing::distribution::Distribution;
use crate::routing::route::{decide, key_shards, shard_of_keys, Request, Route, Scratch};
use crate::routing::topology::{Keyspace, Role};
use crate::session::acl::USERS_ARE_CONFIGURED;
use crate::session::dispatch::Asker;
use crate::session::engine::Engine;

pub(crate) const SHOAL_HELP: &[&str] = &[
    "SHOAL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "EXPLAIN <command> [<arg> ...]",
    "    Say what would be done with a command: its keys, their slots and shards, its atomicity. Nothing is executed.",
    "TOPOLOGY",
    "    Show the shards of this keyspace, their slots and their state.",
    "HELP",
    "    Print this help.",
];

impl Engine {
    pub(crate) fn explain(&mut self, asker: &Asker, request: &Request<'_>) {
        let inner = Request {
            data: request.data,
            args: request.args.get(2..).unwrap_or_default(),
        };
        let topology = std::sync::Arc::clone(&self.topology);
        let admission = &self.admissions[asker.keyspace];
        let text = explanation(&topology.keyspaces[asker.keyspace], admission, &inner);
        self.lines(asker, &text.lines().collect::<Vec<_>>());
    }

    pub(crate) fn topology_text(&mut self, asker: &Asker) {
        let space = &self.topology.keyspaces[asker.keyspace];
        let admission = &self.admissions[asker.keyspace];
        let mut text = format!(
            "keyspace {} epoch {} distribution {} role {} cross-shard {}\r\n",
            space.name,
            self.topology.epoch,
            space.distribution.name(),
            role(space.role),
            if space.cross_shard { "strict" } else { "off" }
        );
        for (index, shard) in space.shards.iter().enumerate() {
            let backend = &self.backends[space.first_shard + index];
            text.push_str(&format!(
                "shard {} {}{} {}",
                shard.name,
                shard.endpoint,
                slots_of(&space.distribution, index),
                backend.health.text()
            ));
            match admission.share(index as u16) {
                SHARE_WHOLE => {}
                0 => text.push_str(" ejected"),
                share => text.push_str(&format!(" returning {share}/{SHARE_WHOLE}")),
            }
            if !backend.reason.is_empty() {
                text.push_str(&format!(" ({})", backend.reason));
            }
            text.push_str("\r\n");
        }
        self.lines(asker, &text.lines().collect::<Vec<_>>());
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Store => "store",
        Role::Cache(_) => "cache",
    }
}

/// ` slots 0-99,200`, where there are slots.
fn slots_of(distribution: &Distribution, shard: usize) -> String {
    let ranges = match distribution {
        Distribution::Slots(slots) => slots.ranges(),
        Distribution::Codis(slots) => slots.ranges(),
        Distribution::Ring(_)
        | Distribution::Modula(_)
        | Distribution::Random(_)
        | Distribution::Ranges(_)
        | Distribution::Jump(_)
        | Distribution::Rendezvous(_) => return String::new(),
    };
    let own = ranges.iter().filter(|range| range.2 as usize == shard);
    let texts: Vec<String> = own
        .map(|&(first, last, _)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    format!(" slots {}", texts.join(","))
}

/// The lines about a request's keys.
fn key_lines(keyspace: &Keyspace, admission: &Admission, key: &[u8]) -> String {
    let shown = crate::error::printable(key);
    if matches!(keyspace.distribution, Distribution::Random(_)) {
        return format!("'{shown}' on any shard");
    }
    let group = keyspace.group(key).label();
    match keyspace.shard_of(key, admission) {
        Some(shard) => {
            let shard = &keyspace.shards[shard as usize];
            format!(
                "'{shown}' {group}shard {} at {}",
                shard.name, shard.endpoint
            )
        }
        None => format!("'{shown}' in no range"),
    }
}

/// What would be done with a request, in lines of `name: value`.
fn explanation(keyspace: &Keyspace, admission: &Admission, request: &Request<'_>) -> String {
    let mut scratch = Scratch::default();
    let (spec, route) = decide(keyspace, admission, request, &mut scratch);
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name}: {value}\r\n"));
    let known = spec.or_else(|| crate::protocol::command::lookup(request.arg(0)));
    line(
        "command",
        known.map_or("unknown", |spec| spec.full_name).to_string(),
    );
    if let Some(spec) = spec {
        scratch.keys.clear();
        if crate::protocol::command::keys(spec, request.args, request.data, &mut scratch.keys)
            .is_ok()
        {
            for &index in &scratch.keys {
                let key = request.arg(index as usize);
                line("key", key_lines(keyspace, admission, key));
            }
        }
    }
    if let (Route::Script { .. }, true) = (&route, scratch.keys.is_empty()) {
        line("no key", home_reason(keyspace, request.arg(3)));
    }
    let route = match known {
        Some(spec) => refused_later(keyspace, admission, spec, request, route),
        None => route,
    };
    let is_spread = is_spread(keyspace, admission, request, &scratch);
    let (what, atomicity) = match &route {
        Route::Blocking if is_spread && keyspace.cross_shard => takes(spec),
        route => deed(keyspace, route),
    };
    line("route", what);
    line("atomicity", atomicity.to_string());
    if matches!(route, Route::Local(Local::Exec)) {
        let value = match (keyspace.transactions_per_shard, keyspace.cross_shard) {
            (true, _) => "executed by each shard on its own, atomic on each",
            (false, true) => "strict",
            (false, false) if keyspace.can_cross_shards() => {
                "refused; set cross_shard = \"strict\""
            }
            (false, false) => "refused",
        };
        line("with keys on several shards", value.to_string());
    }
    if let (Some(spec), "single") = (known, atomicity) {
        if let Some(value) = if_spread(keyspace, spec, request) {
            line("with keys on several shards", value.to_string());
        }
    }
    text
}

/// What would become of a request with keys on one shard if they were on several. None: its keys cannot be.
fn if_spread(
    keyspace: &Keyspace,
    spec: &'static CommandSpec,
    request: &Request<'_>,
) -> Option<&'static str> {
    let can_be = keyspace.can_cross_shards() && beyond_keys(spec, request).is_none();
    match (spec.policy, spec.grade) {
        (Policy::Keyed, Grade::Strict) if can_be && keyspace.cross_shard => Some("strict"),
        (Policy::Keyed, Grade::Strict) if can_be => Some("refused; set cross_shard = \"strict\""),
        (Policy::Keyed, Grade::Strict | Grade::Refused) => Some("refused"),
        _ => None,
    }
}

/// The route, or the refusal that is found only where the request is done.
fn refused_later(
    keyspace: &Keyspace,
    admission: &Admission,
    spec: &'static CommandSpec,
    request: &Request<'_>,
    route: Route,
) -> Route {
    let must_be_one = match route {
        Route::Blocking => {
            spec.grade == Grade::Refused || (spec.grade == Grade::Strict && !keyspace.cross_shard)
        }
        Route::Local(Local::Watch) => !keyspace.cross_shard || keyspace.transactions_per_shard,
        Route::Local(Local::AclSetuser | Local::AclDeluser | Local::AclLoad | Local::AclSave) => {
            return Route::Refuse(Box::new(ClientError::Refused {
                command: spec.full_name,
                reason: USERS_ARE_CONFIGURED,
            }))
        }
        _ => return route,
    };
    let scratch = &mut Scratch::default();
    let placed = if must_be_one {
        shard_of_keys(keyspace, admission, spec, request, scratch).map(|_| ())
    } else {
        key_shards(keyspace, admission, spec, request, scratch)
    };
    match placed {
        Ok(()) => route,
        Err(error) => Route::Refuse(Box::new(error)),
    }
}

/// Whether its keys, which are in `scratch`, are on several shards.
fn is_spread(
    keyspace: &Keyspace,
    admission: &Admission,
    request: &Request<'_>,
    scratch: &Scratch,
) -> bool {
    let shard = |&key: &u32| keyspace.shard_of(request.arg(key as usize), admission);
    let mut shards = scratch.keys.iter().map(shard);
    let first = shards.next();
    shards.any(|shard| Some(shard) != first)
}

/// A request that waits for keys on several shards, where operations across shards are possible.
fn takes(spec: Option<&'static CommandSpec>) -> (String, &'static str) {
    if spec.is_some_and(|spec| spec.check == Check::BlockOption) {
        return (
            "waits for its keys on connections of the client's own, each shard's read by itself"
                .into(),
            "per-shard",
        );
    }
    (
        "waits for its keys on connections of the client's own; takes as one operation over the keys' shards"
            .into(),
        "strict",
    )
}

/// Why a script that names no key runs where it does.
fn home_reason(keyspace: &Keyspace, argument: &[u8]) -> String {
    if matches!(keyspace.distribution, Distribution::Random(_)) {
        return "any shard will do".into();
    }
    match keyspace.affinity.part(argument) {
        Some(part) => format!(
            "its first argument belongs to '{}' by an affinity rule",
            crate::error::printable(part)
        ),
        None => "the home shard".into(),
    }
}

/// What a route does, and how atomic that is.
fn deed(keyspace: &Keyspace, route: &Route) -> (String, &'static str) {
    let name = |shard: u16| keyspace.shards[shard as usize].name.clone();
    match route {
        Route::Shard(_) | Route::Script { .. }
            if matches!(keyspace.distribution, Distribution::Random(_)) =>
        {
            ("sent unchanged to any shard".into(), "single")
        }
        Route::Shard(shard) | Route::Script { shard, .. } => (
            format!("sent unchanged to shard {}", name(*shard)),
            "single",
        ),
        Route::Split { .. } => (
            "split over the keys' shards, the replies put together".into(),
            "per-shard",
        ),
        Route::Settings => (
            "sent to every shard, to each its part of what is set for all".into(),
            "per-shard",
        ),
        Route::AllKeys(AllKeys::Flush | AllKeys::FlushAll)
            if keyspace.cross_shard
                && (2..=CROSS_SHARD_SHARDS_MAX).contains(&keyspace.shards.len()) =>
        {
            ("done as one operation over all shards".into(), "strict")
        }
        Route::AllShards(_) | Route::AllKeys(_) | Route::ScriptLoad | Route::ScriptFlush => (
            "sent to every shard, the replies put together".into(),
            "per-shard",
        ),
        Route::Aside(_) => (
            "sent to every shard on connections that a running script does not hold up".into(),
            "per-shard",
        ),
        Route::Wait => (
            "sent to every shard on connections of its own; the smallest reply".into(),
            "per-shard",
        ),
        Route::Blocking => (
            "waits for its keys on connections of the client's own; one shard gives".into(),
            "single",
        ),
        Route::Streams => (
            "split over the streams' shards, the replies put together".into(),
            "per-shard",
        ),
        Route::CrossShard => (
            "done as one operation over the keys' shards".into(),
            "strict",
        ),
        Route::AnyShard => ("sent to any shard that is up".into(), "single"),
        Route::Scan => ("sent to the shard that the cursor names".into(), "single"),
        Route::Local(Local::Publish | Local::Spublish) => (
            "published on one shard, chosen by the channel; subscribers hear all shards".into(),
            "single",
        ),
        Route::Local(Local::Subscribe | Local::Psubscribe | Local::Ssubscribe) => (
            "answered by shoal, which subscribes on every shard".into(),
            "single",
        ),
        Route::Local(_) => ("answered by shoal".into(), "single"),
        Route::Refuse(error) => (format!("refused: {}", error.text()), "refused"),
    }
}
