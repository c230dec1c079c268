//! What an operation over several shards has to hold while it runs: its keys, where they are, and what is done to each.
//!
//! Owns: `Claim` and `claims_of`, which works the claims of a request out of its key specifications; and `beyond_keys`, which
//! says what cannot be known of a request so. (Scripts are held to their keys where they run: `session/cross_shard/guard.rs`.)
//!
//! Flow: `Route::CrossShard`, or each command between MULTI and EXEC -> `claims_of` -> locks, what is gathered, what is written
//! back.
//!
//! Must stay true: the claims name exactly the keys that the router placed, each once however often the request names it. The
//! access of a claim keeps no less than that of any specification that names the key: with two different ones it is `Write`. (SET
//! without conditions is known better than its specification; see `Varies`.)
//! Rejected: claims by hash slot, of which there are fewer: a hot slot would make operations wait that have no key in common.

use crate::error::ClientError;
use crate::protocol::command::{keys_of, Access, Check, CommandSpec};
use crate::routing::admission::Admission;
use crate::routing::placement::Map;
use crate::routing::route::{place_keys, Request, Scratch};
use crate::routing::sort_patterns::has_star;
use crate::routing::topology::Keyspace;
use std::collections::btree_map::{BTreeMap, Entry};

/// Why a request with patterns cannot leave its keys' shard.
pub const HAS_PATTERNS: &str = "with a BY or GET pattern reaches keys that it does not name, so all of them must be on one shard; give its keys and the patterns a common {hash tag}, or read those keys yourself";
/// Why a request that names a database cannot.
pub const NAMES_DATABASE: &str =
    "with DB is possible on one shard only; give both keys a common {hash tag}, or leave DB out";

/// A key of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The argument that names it; where several do, the first in the order of the specifications.
    pub arg: u32,
    /// Where it is: an index within the keyspace.
    pub shard: u16,
    /// What is done to it.
    pub access: Access,
}

/// The claims of a request, in the order in which its specifications name the keys; none where it has no keys. The keys may all be
/// on one shard.
pub fn claims_of(
    space: &Keyspace,
    admission: &Admission,
    spec: &'static CommandSpec,
    request: &Request<'_>,
    scratch: &mut Scratch,
) -> Result<Vec<Claim>, ClientError> {
    let map = &Map {
        keyspace: space,
        admission,
    };
    match place_keys(map, spec, request, scratch) {
        Ok(()) => {}
        Err(ClientError::NoKeys(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let overwrites = spec.varies.overwrites(request.args, request.data);
    let mut claims: Vec<Claim> = Vec::with_capacity(scratch.keys.len());
    let mut known: BTreeMap<&[u8], usize> = BTreeMap::new();
    let mut found = Vec::new();
    // `place_keys` has followed the same specifications in the same order.
    let mut shards = scratch.shards.iter();
    for key_spec in spec.keys {
        found.clear();
        keys_of(spec, key_spec, request.args, request.data, &mut found)
            .map_err(|error| ClientError::Text(error.text(spec)))?;
        let access = match key_spec.access {
            Access::Write if overwrites => Access::Overwrite,
            access => access,
        };
        for (&arg, &shard) in found.iter().zip(shards.by_ref()) {
            match known.entry(request.arg(arg as usize)) {
                Entry::Vacant(place) => {
                    place.insert(claims.len());
                    claims.push(Claim { arg, shard, access });
                }
                Entry::Occupied(place) => {
                    if let Some(claim) = claims.get_mut(*place.get()) {
                        claim.access = claim.access.with(access);
                    }
                }
            }
        }
    }
    Ok(claims)
}

/// Why a request cannot be carried out anywhere but on the shard of its keys, though it names them: what else it reaches. Within
/// an operation over several shards that holds for requests whose own keys are on one of them, too.
pub fn beyond_keys(spec: &'static CommandSpec, request: &Request<'_>) -> Option<ClientError> {
    let reason = match spec.check {
        Check::SortPatterns if has_star(request) => HAS_PATTERNS,
        Check::OtherDatabase if names_database(request) => NAMES_DATABASE,
        Check::SortPatterns | Check::OtherDatabase | Check::BlockOption | Check::None => {
            return None
        }
    };
    Some(ClientError::Refused {
        command: spec.full_name,
        reason,
    })
}

/// Whether an option behind the two keys does. It might be the current one, which the router does not know.
fn names_database(request: &Request<'_>) -> bool {
    (3..request.args.len()).any(|index| request.arg(index).eq_ignore_ascii_case(b"DB"))
}
