//! Atomic operations across shards: gather, commit, scatter, under a fence. The protocol is in docs/design/0020-operations-across-shards.md.

pub mod all_keys;
pub mod answers;
pub mod call;
pub mod control;
pub mod drains;
pub mod elements;
pub mod executor;
pub mod fences;
pub mod guard;
pub mod jobs;
pub mod join;
pub mod late;
pub mod member;
pub mod message;
pub mod notes;
pub mod operation;
pub mod park;
pub mod recovery;
pub mod registrar;
pub mod remote;
pub mod steps;
pub mod trial;
pub mod wire;
