//! The memcached text protocol: its commands, where a request ends, where a reply ends, and the lines that we say ourselves.

pub mod command;
pub mod line;
mod number;
pub mod reply;
pub mod request;
mod usual;
