//! Sessions that speak the memcached protocol: taking requests, carrying them out, merging replies.

pub mod dispatch;
pub mod intake;
pub mod merge;
