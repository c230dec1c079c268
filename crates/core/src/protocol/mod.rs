//! Bytes in, bytes out: RESP and memcached, requests and replies, inline requests, what is known of each command, and patterns.

pub mod command;
pub mod command_table;
pub mod encode;
pub mod errand;
pub mod glob;
pub mod inline;
pub mod key_spec;
pub mod memcached;
pub mod own_command;
pub mod permission;
pub mod reply;
pub mod request;
pub mod setting;
pub mod subscription;
