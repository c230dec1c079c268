//! State machines: clients, connections to shards, replies in order. No socket, no clock; bytes and `now` come in.

pub mod audit;
pub mod backend;
pub mod client;
pub mod client_admin;
pub mod deliver;
pub mod dispatch;
pub mod ejection;
pub mod engine;
pub mod explain;
pub mod gather;
pub mod info;
pub mod intake;
pub mod links;
pub mod local;
pub mod memcached;
pub mod named;
pub mod output;
pub mod pressure;
pub mod replies;
pub mod scan;
pub mod scripts;
pub mod secure;
pub mod slab;
pub mod spread;
pub mod stats;
pub mod upkeep;
