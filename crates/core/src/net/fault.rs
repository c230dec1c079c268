//! The end of the process at a step that a test has named.
//!
//! Owns: how it ends: at once, as if killed; or stopped, to be continued from outside.
//!
//! Must stay true: only an `Action::Fault` leads here, which needs `SHOAL_TEST_FAULT` in the environment.

use crate::net::worker::Worker;
use crate::session::cross_shard::trial::Trial;
use std::process::{abort, id, Command};

/// What the environment switches on.
pub(crate) fn trial() -> Trial {
    let fault = std::env::var("SHOAL_TEST_FAULT").ok();
    let lets_pass = std::env::var_os("SHOAL_TEST_NO_FENCES").is_some();
    Trial::new(fault.as_deref(), lets_pass)
}

impl Worker {
    /// Ends or stops the process.
    pub(crate) fn strike(&mut self, is_written: bool, stops: bool) {
        if is_written {
            self.write_all();
        }
        if !stops {
            abort();
        }
        // The shell's own way: this file needs no more rights than others.
        let stopped = Command::new("kill")
            .args(["-STOP", &id().to_string()])
            .status();
        if stopped.is_err() {
            abort();
        }
    }
}
