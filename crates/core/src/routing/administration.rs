//! Where commands go that concern servers rather than keys, and whose arguments decide: CONFIG SET, DEBUG, SWAPDB.
//!
//! Must stay true: nothing is sent of a CONFIG SET of which one setting is refused; DEBUG reaches a server only where the
//! keyspace says so, and only in the forms that are named here.

use crate::error::ClientError;
use crate::limits::SETTINGS_MAX;
use crate::protocol::command::{AllKeys, CommandSpec, Merge};
use crate::protocol::request::strict_integer;
use crate::protocol::setting::{meaning, memory, Meaning};
use crate::routing::placement::Map;
use crate::routing::route::{no_range, refuse, shortened, Request, Route};

/// More settings than there are.
const TOO_MANY: &str = "ERR too many settings at once; set them in several requests";
/// Why DEBUG is refused where it is off.
const DEBUG_OFF: &str =
    "is off: it is for tests; debug_commands = true in the keyspace's configuration turns it on";
/// Why another form is refused where it is on.
const DEBUG_OTHER: &str =
    "is done in the forms OBJECT, SLEEP and ERROR only; send others to a shard's server directly";

/// Why a database that has records of ours stays where it is.
const HAS_RECORDS: &str =
    "of the keyspace's own database is not possible with cross_shard = \"strict\": shoal keeps records there; move keys with COPY and DEL, or swap other databases";

/// SWAPDB.
#[cold]
pub(crate) fn swap(map: &Map<'_>, spec: &'static CommandSpec, request: &Request<'_>) -> Route {
    let own = i64::from(map.keyspace.database);
    let names_own = (1..request.args.len())
        .any(|index| strict_integer(request.arg(index)).is_none_or(|named| named == own));
    if map.keyspace.cross_shard && names_own {
        return refuse(ClientError::Refused {
            command: spec.full_name,
            reason: HAS_RECORDS,
        });
    }
    Route::AllKeys(AllKeys::Swap)
}

/// CONFIG SET.
#[cold]
pub(crate) fn settings(map: &Map<'_>, spec: &'static CommandSpec, request: &Request<'_>) -> Route {
    let count = request.args.len();
    if !count.is_multiple_of(2) {
        // A name without a value.
        return refuse(ClientError::Syntax);
    }
    if count > 2 + 2 * SETTINGS_MAX {
        return refuse(ClientError::Words(TOO_MANY));
    }
    let mut is_special = false;
    for index in (2..count).step_by(2) {
        let name = request.arg(index);
        match meaning(name) {
            Meaning::Each => {}
            Meaning::SlowThreshold | Meaning::SlowLength => is_special = true,
            Meaning::Divided => {
                is_special = true;
                let least = map.admission.shards().into();
                if memory(request.arg(index + 1)).is_some_and(|all| 0 < all && all < least) {
                    return refuse(ClientError::RefusedSetting {
                        command: spec.full_name,
                        setting: shortened(name),
                        reason: "is divided among the shards, and that is less than a byte for each: set more",
                    });
                }
            }
            Meaning::Refused(reason) => {
                return refuse(ClientError::RefusedSetting {
                    command: spec.full_name,
                    setting: shortened(name),
                    reason,
                });
            }
        }
    }
    if is_special {
        Route::Settings
    } else {
        Route::AllShards(Merge::AllOk)
    }
}

/// DEBUG.
#[cold]
pub(crate) fn debug(
    map: &Map<'_>,
    spec: &'static CommandSpec,
    request: &Request<'_>,
    chance: &mut u64,
) -> Route {
    let command = spec.full_name;
    let form = request.arg(1);
    if !map.keyspace.debug_commands {
        let reason = DEBUG_OFF;
        return refuse(ClientError::Refused { command, reason });
    }
    if form.eq_ignore_ascii_case(b"OBJECT") && request.args.len() > 2 {
        let key = request.arg(2);
        if map.is_reserved(key) {
            return refuse(ClientError::ReservedKey);
        }
        let shard = map.shard(key, chance);
        return shard.map_or_else(|| refuse(no_range(key)), Route::Shard);
    }
    if form.eq_ignore_ascii_case(b"OBJECT") || form.eq_ignore_ascii_case(b"ERROR") {
        // An error that is wanted. Without a key: whichever server is asked says what is wrong.
        return Route::AnyShard;
    }
    if form.eq_ignore_ascii_case(b"SLEEP") {
        return Route::AllShards(Merge::AllOk);
    }
    let reason = DEBUG_OTHER;
    refuse(ClientError::Refused { command, reason })
}
