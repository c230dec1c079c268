//! The only sockets, the only clock, the worker threads.

mod fault;
pub mod listen;
pub mod poll;
pub mod proxy;
pub mod resolve;
pub mod stream;
pub mod tls;
pub mod tls_certificate;
pub mod tls_files;
pub mod tls_session;
pub mod tls_verify;
pub mod tls_worker;
pub mod worker;
