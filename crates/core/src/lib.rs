//! The data plane of shoal: bytes in, bytes out.
//!
//! Layers, each importing only from those before it:
//!
//! - `limits`, `error`: every bound, every error text.
//! - `protocol`: bytes to requests and replies, and back; what is known of each command.
//! - `routing`: pure decisions: key to shard, request to route, several replies to one.
//! - `session`: state machines: clients, links to shards, replies in order. No socket, clock, thread or random number.
//! - `net`: the only sockets, the only clock, the worker threads.
//!
//! One request, in one worker: `net::worker` reads a client -> `session::intake` scans -> `session::dispatch` asks
//! `routing::route` and puts the bytes into a link's output -> `net::worker` writes each link once per turn -> a reply is
//! read -> `session::deliver` puts it into the client's output -> written once per turn.

pub mod error;
pub mod limits;
pub mod net;
pub mod protocol;
pub mod routing;
pub mod session;
