//! The beginnings of recent requests, for the slow log: when a reply is late, its request's bytes are gone.
//!
//! Owns: a ring of `HEADS_KEPT` beginnings, each with the place that its request took, and the few that were taken out of
//! the ring because their requests still waited when it came round.
//!
//! Flow: `keep` when a request takes its place among the client's replies (or before, and then `sign`); the number that this
//! gives travels in the link's queue -> `find` when its reply was late.
//!
//! Must stay true: `find` gives the beginning of exactly that request, or nothing; of a request that may hold a
//! password nothing but the name is kept.
//! Rejected: the arguments within the queue's entries: they would be several times as large, on every request's way. To keep
//! what a link has written: large values would push everything else out at once.

use crate::limits::{HEADS_KEPT, HEADS_RESCUED_MAX, HEAD_BYTES};

/// The number of a head that is not kept.
pub(crate) const NO_HEAD: u16 = u16::MAX;

/// Whose head it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// The client's place and generation.
    pub client: u32,
    /// See `client`.
    pub generation: u32,
    /// Number of the request in the client's `Replies`.
    pub number: u32,
}

#[derive(Debug, Clone)]
struct Head {
    place: Place,
    is_signed: bool,
    len: u8,
    bytes: [u8; HEAD_BYTES],
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Heads {
    ring: Box<[Head]>,
    /// The request that is being done.
    at: usize,
    rescued: Vec<(Place, Vec<u8>)>,
}

impl Default for Heads {
    fn default() -> Self {
        let nobody = Head {
            place: Place {
                client: u32::MAX,
                ..Place::default()
            },
            is_signed: true,
            len: 0,
            bytes: [0; HEAD_BYTES],
        };
        Self {
            ring: vec![nobody; HEADS_KEPT].into(),
            at: 0,
            rescued: Vec::new(),
        }
    }
}

impl Heads {
    /// The ring has come round: the next `keep` writes over the oldest, which may be wanted; `rescue` before.
    #[inline]
    pub fn comes_round(&self) -> bool {
        self.at == HEADS_KEPT - 1
    }

    /// A request takes a place. Its head's number.
    #[inline]
    pub fn keep(&mut self, place: Place, data: &[u8]) -> u16 {
        self.at = (self.at + 1) % HEADS_KEPT;
        let head = &mut self.ring[self.at];
        head.place = place;
        head.is_signed = true;
        let len = data.len().min(HEAD_BYTES);
        head.len = len as u8;
        head.bytes[..len].copy_from_slice(&data[..len]);
        self.at as u16
    }

    /// The request just kept has no place yet; `sign` says which it takes.
    pub fn wait_for_place(&mut self) {
        self.ring[self.at].is_signed = false;
    }

    /// The request that is being done has taken a place. Its head's number; `NO_HEAD` when it is another request's place.
    pub fn sign(&mut self, place: Place) -> u16 {
        let head = &mut self.ring[self.at];
        if !head.is_signed {
            head.place.number = place.number;
        }
        if head.place != place {
            return NO_HEAD;
        }
        head.is_signed = true;
        self.at as u16
    }

    /// The beginning of the request that took a place; of its head's number or, if that is used again, of those rescued.
    pub fn find(&self, number: u16, place: Place) -> Option<&[u8]> {
        let head = self.ring.get(usize::from(number))?;
        if head.is_signed && head.place == place {
            return head.bytes.get(..usize::from(head.len));
        }
        let mut rescued = self.rescued.iter();
        rescued
            .find(|(known, _)| *known == place)
            .map(|(_, bytes)| bytes.as_slice())
    }

    /// Takes out of the ring what still waits, of those rescued before too; all others of these are forgotten.
    pub fn rescue(&mut self, waiting: impl Iterator<Item = (u16, Place)>) {
        let mut rescued = Vec::new();
        for (number, place) in waiting.take(HEADS_RESCUED_MAX) {
            if let Some(bytes) = self.find(number, place) {
                rescued.push((place, bytes.to_vec()));
            }
        }
        self.rescued = rescued;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(client: u32, number: u32) -> Place {
        Place {
            client,
            generation: 7,
            number,
        }
    }

    #[test]
    fn a_head_is_found_by_its_own_place_alone() {
        let mut heads = Heads::default();
        assert_eq!(heads.sign(place(1, 1)), NO_HEAD, "nothing was kept yet");
        heads.keep(place(1, 0), b"first");
        heads.wait_for_place();
        let first = heads.sign(place(1, 5));
        assert_eq!(heads.sign(place(1, 5)), first, "a part more of it");
        assert_eq!(heads.sign(place(1, 6)), NO_HEAD, "another request");
        assert_eq!(heads.sign(place(2, 5)), NO_HEAD, "another client");
        let second = heads.keep(place(1, 6), &[b'x'; HEAD_BYTES * 2]);
        assert_eq!(heads.find(first, place(1, 5)), Some(&b"first"[..]));
        assert_eq!(heads.find(first, place(1, 6)), None);
        assert_eq!(heads.sign(place(1, 6)), second);
        assert_eq!(
            heads.find(second, place(1, 6)),
            Some(&[b'x'; HEAD_BYTES][..])
        );
    }

    #[test]
    fn what_waits_outlives_the_ring_and_what_does_not_is_forgotten() {
        let mut heads = Heads::default();
        let slow = heads.keep(place(1, 0), b"slow");
        let mut rescues = 0;
        for number in 0..3 * HEADS_KEPT as u32 {
            if heads.comes_round() {
                rescues += 1;
                heads.rescue([(slow, place(1, 0))].into_iter());
            }
            heads.keep(place(2, number), b"quick");
        }
        assert_eq!(rescues, 3);
        assert_eq!(heads.find(slow, place(1, 0)), Some(&b"slow"[..]));
        assert_eq!(heads.find(slow, place(2, 0)), None);
        heads.rescue(std::iter::empty());
        assert_eq!(heads.find(slow, place(1, 0)), None);
    }
}
