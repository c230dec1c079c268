//! The only sockets, the only clock, the worker threads.

pub mod listen;
pub mod poll;
pub mod proxy;
pub mod resolve;
pub mod stream;
pub mod worker;
