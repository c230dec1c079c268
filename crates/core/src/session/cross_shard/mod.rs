//! Atomic operations across shards: gather, commit, scatter, under a fence. The protocol is in docs/design/0020-operations-across-shards.md.

pub mod call;
pub mod fences;
pub mod operation;
pub mod registrar;
pub mod steps;
