//! Looking up names of shards without making a worker wait.
//!
//! Owns: one thread that asks the system's resolver, and which address of each name failed last. A name is looked up
//! again for every connection, so that an address that changes (Kubernetes) is followed. Of several addresses the next
//! connection takes the one after that which failed last, so that all are tried in turn, and none is left that works.
//!
//! Rejected: counting attempts to choose the address. Several connections that are begun at once would be spread over
//! addresses that may not be the same server; and two that count in step may each get the dead one every time.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::thread;

/// Called with the outcome.
pub type Done = Box<dyn FnOnce(Result<SocketAddr, String>) + Send>;

enum Note {
    /// Where is this endpoint?
    Question(String, Done),
    /// This address of an endpoint could not be connected.
    Failed(String, SocketAddr),
}

/// A handle on the resolver; the thread ends with the last of them.
#[derive(Clone)]
pub struct Resolver {
    notes: Sender<Note>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Self> {
        Self::over(|endpoint| endpoint.to_socket_addrs().map(Iterator::collect))
    }

    /// The same over another source of answers.
    fn over(
        look_up: impl Fn(&str) -> std::io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (notes, received) = channel();
        thread::Builder::new()
            .name("shoal-resolve".into())
            .spawn(move || answer(received, look_up))?;
        Ok(Self { notes })
    }

    /// Looks an endpoint up; an address needs no look-up and is given at once.
    pub fn ask(&self, endpoint: &str, done: Done) {
        if let Ok(address) = endpoint.parse() {
            return done(Ok(address));
        }
        let question = Note::Question(endpoint.to_string(), done);
        if let Err(unsent) = self.notes.send(question) {
            if let Note::Question(_, done) = unsent.0 {
                done(Err("the resolver has ended".into()));
            }
        }
    }

    /// The next connection to this endpoint takes the address after this one.
    pub fn failed(&self, endpoint: String, address: SocketAddr) {
        // One that has ended answers no more questions either.
        let _ = self.notes.send(Note::Failed(endpoint, address));
    }
}

fn answer(
    received: Receiver<Note>,
    look_up: impl Fn(&str) -> std::io::Result<Vec<SocketAddr>> + Send,
) {
    // One entry for each name in the topology at most.
    let mut failed = HashMap::new();
    for note in received {
        match note {
            Note::Question(endpoint, done) => done(match look_up(&endpoint) {
                Ok(addresses) => choose(&addresses, failed.get(&endpoint))
                    .ok_or_else(|| format!("{endpoint} has no address")),
                Err(error) => Err(format!("{endpoint} cannot be looked up: {error}")),
            }),
            Note::Failed(endpoint, address) => {
                failed.insert(endpoint, address);
            }
        }
    }
}

/// The address after the one that failed last; the first when that is not among them.
fn choose(addresses: &[SocketAddr], failed: Option<&SocketAddr>) -> Option<SocketAddr> {
    let next = failed
        .and_then(|failed| addresses.iter().position(|address| address == failed))
        .map_or(0, |place| (place + 1) % addresses.len());
    addresses.get(next).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn ask(resolver: &Resolver, endpoint: &str) -> Result<SocketAddr, String> {
        let (answer, answered) = channel();
        resolver.ask(
            endpoint,
            Box::new(move |outcome| answer.send(outcome).unwrap()),
        );
        answered.recv().unwrap()
    }

    #[test]
    fn every_address_of_a_name_has_its_turn_when_those_before_it_fail() {
        let all = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(address);
        let resolver = Resolver::over(move |_| Ok(all.to_vec())).unwrap();
        assert_eq!(ask(&resolver, "db:1"), Ok(all[0]));
        assert_eq!(ask(&resolver, "db:1"), Ok(all[0]), "nothing has failed");
        for (failed, next) in [(0, 1), (1, 2), (2, 0)] {
            resolver.failed("db:1".into(), all[failed]);
            // Several connections may report the same failure.
            resolver.failed("db:1".into(), all[failed]);
            assert_eq!(ask(&resolver, "db:1"), Ok(all[next]));
            assert_eq!(ask(&resolver, "db:1"), Ok(all[next]), "it has not failed");
        }
        resolver.failed("db:1".into(), address("10.0.0.9:1"));
        assert_eq!(ask(&resolver, "db:1"), Ok(all[0]), "that one is gone");
        assert_eq!(ask(&resolver, "other:1"), Ok(all[0]));
    }

    #[test]
    fn an_address_needs_no_look_up_and_a_name_without_one_is_told() {
        let resolver = Resolver::over(|_| Ok(Vec::new())).unwrap();
        assert_eq!(ask(&resolver, "[::1]:7"), Ok(address("[::1]:7")));
        assert_eq!(
            ask(&resolver, "db:1"),
            Err("db:1 has no address".to_string())
        );
    }
}
