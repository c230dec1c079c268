//! Scripts that clients have shown us, so that a shard which has not seen one can be given it.
//!
//! Owns: `Scripts`, a bounded memory of script texts by their SHA-1.
//!
//! Must stay true: its bytes and entries are bounded; the oldest goes first, whether used or not (an application has few
//! scripts; the bound is for those that build a script text per call).

use crate::limits::{SCRIPTS_MAX, SCRIPT_BYTES_MAX, SCRIPT_BYTES_TOTAL_MAX};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// A script's name.
pub type Sha = [u8; 20];

/// The SHA-1 that servers name a script by.
pub fn sha_of(body: &[u8]) -> Sha {
    let mut sha = sha1_smol::Sha1::new();
    sha.update(body);
    sha.digest().bytes()
}

/// A name as clients write it: 40 hexadecimal digits of either case.
pub fn sha_from_hex(text: &[u8]) -> Option<Sha> {
    if text.len() != 40 {
        return None;
    }
    let mut sha = [0; 20];
    for (byte, pair) in sha.iter_mut().zip(text.chunks_exact(2)) {
        let high = (pair[0] as char).to_digit(16)?;
        let low = (pair[1] as char).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(sha)
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Scripts {
    bodies: HashMap<Sha, Arc<[u8]>>,
    order: VecDeque<Sha>,
    bytes: usize,
}

impl Scripts {
    /// The text of a script.
    pub fn get(&self, sha: &Sha) -> Option<&Arc<[u8]>> {
        self.bodies.get(sha)
    }

    /// Remembers a script. False when it is known already, or too long to be remembered.
    pub fn learn(&mut self, sha: Sha, body: &Arc<[u8]>) -> bool {
        if body.len() > SCRIPT_BYTES_MAX || self.bodies.contains_key(&sha) {
            return false;
        }
        self.bytes += body.len();
        self.bodies.insert(sha, Arc::clone(body));
        self.order.push_back(sha);
        while self.order.len() > SCRIPTS_MAX || self.bytes > SCRIPT_BYTES_TOTAL_MAX {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(body) = self.bodies.remove(&oldest) {
                self.bytes -= body.len();
            }
        }
        true
    }

    /// Forgets all of them (SCRIPT FLUSH).
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_servers() {
        // `SCRIPT LOAD "return 1"` on any server.
        let sha = sha_of(b"return 1");
        assert_eq!(
            sha_from_hex(b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db"),
            Some(sha)
        );
        assert_eq!(
            sha_from_hex(b"E0E1F9FABFC9D4800C877A703B823AC0578FF8DB"),
            Some(sha)
        );
        assert_eq!(sha_from_hex(b"e0e1"), None);
        assert_eq!(sha_from_hex(&[b'g'; 40]), None);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let mut scripts = Scripts::default();
        for number in 0..SCRIPTS_MAX + 10 {
            let body: Arc<[u8]> = number.to_string().into_bytes().into();
            assert!(scripts.learn(sha_of(&body), &body));
        }
        assert!(scripts.get(&sha_of(b"9")).is_none());
        assert!(scripts.get(&sha_of(b"10")).is_some());
        let long: Arc<[u8]> = vec![b' '; SCRIPT_BYTES_MAX + 1].into();
        assert!(!scripts.learn(sha_of(&long), &long));
    }
}
