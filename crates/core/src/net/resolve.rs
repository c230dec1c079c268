//! Looking up names of shards without making a worker wait.
//!
//! Owns: one thread that asks the system's resolver. A name is looked up again for every connection, so that an address
//! that changes (Kubernetes) is followed.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{channel, Sender};
use std::thread;

/// Called with the outcome.
pub type Done = Box<dyn FnOnce(Result<SocketAddr, String>) + Send>;

/// A handle on the resolver; the thread ends with the last of them.
#[derive(Clone)]
pub struct Resolver {
    questions: Sender<(String, Done)>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Self> {
        let (questions, received) = channel::<(String, Done)>();
        thread::Builder::new()
            .name("shoal-resolve".into())
            .spawn(move || {
                for (endpoint, done) in received {
                    let first = endpoint
                        .to_socket_addrs()
                        .map(|mut addresses| addresses.next());
                    done(match first {
                        Ok(Some(address)) => Ok(address),
                        Ok(None) => Err(format!("{endpoint} has no address")),
                        Err(error) => Err(format!("{endpoint} cannot be looked up: {error}")),
                    });
                }
            })?;
        Ok(Self { questions })
    }

    /// Looks an endpoint up; an address needs no look-up and is given at once.
    pub fn ask(&self, endpoint: &str, done: Done) {
        match endpoint.parse() {
            Ok(address) => done(Ok(address)),
            Err(_) => {
                if let Err(failed) = self.questions.send((endpoint.to_string(), done)) {
                    let (_, done) = failed.0;
                    done(Err("the resolver has ended".into()));
                }
            }
        }
    }
}
