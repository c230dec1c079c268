//! What CLIENT TRACKING ON may say.
//!
//! Owns: `Options`, their reading, and a server's words for what does not fit together.
//!
//! Must stay true: what a server refuses is refused in its words and order; what is taken is told to shards unchanged.

use crate::error::{printable, ClientError};
use crate::limits::{TRACKING_PREFIXES_MAX, TRACKING_PREFIX_BYTES_MAX};
use crate::protocol::errand;
use crate::protocol::request::strict_integer;
use crate::routing::route::Request;

/// Of which keys a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Those that it reads.
    Read,
    /// Those that it reads with the request after CLIENT CACHING YES.
    OptIn,
    /// Those that it reads, but for the request after CLIENT CACHING NO.
    OptOut,
    /// All with one of its prefixes, whoever reads them.
    Broadcast,
}

/// What CLIENT TRACKING ON says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub(crate) mode: Mode,
    pub(crate) no_loop: bool,
    pub(crate) prefixes: Vec<Vec<u8>>,
}

impl Options {
    /// The request that tells a server.
    pub(crate) fn request(&self, feed: Option<u64>) -> Vec<u8> {
        let mut words: Vec<&[u8]> = Vec::new();
        match self.mode {
            Mode::Read => {}
            Mode::OptIn => words.push(b"OPTIN"),
            Mode::OptOut => words.push(b"OPTOUT"),
            Mode::Broadcast => words.push(b"BCAST"),
        }
        if self.no_loop {
            words.push(b"NOLOOP");
        }
        for prefix in &self.prefixes {
            words.extend([b"PREFIX", prefix.as_slice()]);
        }
        errand::tracking(feed, &words)
    }
}

/// None: OFF. Else the options and the client to redirect to (0: none).
pub(crate) fn read_options(request: &Request<'_>) -> Result<Option<(Options, u64)>, ClientError> {
    let mut redirect = 0;
    let [mut broadcast, mut opt_in, mut opt_out, mut no_loop] = [false; 4];
    let mut prefixes = Vec::new();
    let mut index = 3;
    while index < request.args.len() {
        let word = request.arg(index).to_ascii_uppercase();
        let has_more = index + 1 < request.args.len();
        match word.as_slice() {
            b"REDIRECT" if has_more => {
                if redirect != 0 {
                    return Err(ClientError::Words(ONE_REDIRECT));
                }
                index += 1;
                let id = strict_integer(request.arg(index)).ok_or(ClientError::NotAnInteger)?;
                redirect = u64::try_from(id).unwrap_or(0);
                if redirect == 0 {
                    return Err(ClientError::Words(NO_REDIRECT));
                }
            }
            b"PREFIX" if has_more => {
                index += 1;
                prefixes.push(request.arg(index).to_vec());
            }
            b"BCAST" => broadcast = true,
            b"OPTIN" => opt_in = true,
            b"OPTOUT" => opt_out = true,
            b"NOLOOP" => no_loop = true,
            _ => return Err(ClientError::Syntax),
        }
        index += 1;
    }
    let word = request.arg(2);
    if word.eq_ignore_ascii_case(b"OFF") {
        return Ok(None);
    }
    if !word.eq_ignore_ascii_case(b"ON") {
        return Err(ClientError::Syntax);
    }
    let mode = match (broadcast, opt_in, opt_out) {
        (false, ..) if !prefixes.is_empty() => return Err(ClientError::Words(PREFIX_ALONE)),
        (true, false, false) => Mode::Broadcast,
        (true, ..) => return Err(ClientError::Words(BCAST_AND_OPT)),
        (false, true, true) => return Err(ClientError::Words(BOTH_OPTS)),
        (false, true, false) => Mode::OptIn,
        (false, false, true) => Mode::OptOut,
        (false, false, false) => Mode::Read,
    };
    let options = Options {
        mode,
        no_loop,
        prefixes,
    };
    Ok(Some((options, redirect)))
}

/// No two prefixes of one request overlap, and all of a client's stay within bounds.
pub(crate) fn fits_bounds(
    options: &Options,
    count: usize,
    bytes: usize,
) -> Result<(), ClientError> {
    let prefixes = &options.prefixes;
    let sum: usize = prefixes.iter().map(Vec::len).sum();
    if count + prefixes.len() > TRACKING_PREFIXES_MAX || bytes + sum > TRACKING_PREFIX_BYTES_MAX {
        return Err(ClientError::Words(TOO_MANY_PREFIXES));
    }
    for (index, prefix) in prefixes.iter().enumerate() {
        if let Some(other) = prefixes[index + 1..].iter().find(|it| overlap(it, prefix)) {
            return Err(overlapping(prefix, "another provided", other));
        }
    }
    Ok(())
}

/// One begins with the other.
pub(crate) fn overlap(one: &[u8], other: &[u8]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

pub(crate) fn overlapping(prefix: &[u8], which: &str, other: &[u8]) -> ClientError {
    let (prefix, other) = (printable(prefix), printable(other));
    ClientError::Text(format!(
        "ERR Prefix '{prefix}' overlaps with {which} prefix '{other}'. Prefixes for a single client must not overlap."
    ))
}

// Redis' own words.
pub(crate) const NO_REDIRECT: &str = "ERR The client ID you want redirect to does not exist";
const ONE_REDIRECT: &str = "ERR A client can only redirect to a single other client";
const PREFIX_ALONE: &str = "ERR PREFIX option requires BCAST mode to be enabled";
const BCAST_AND_OPT: &str = "ERR OPTIN and OPTOUT are not compatible with BCAST";
const BOTH_OPTS: &str = "ERR You can't specify both OPTIN mode and OPTOUT mode";
/// Ours.
const TOO_MANY_PREFIXES: &str =
    "ERR too many prefixes for one client, or too long ones; track shorter ones, which hold for more keys";
