//! Replies in the order of their requests.
//!
//! Owns: one client's queue of requests that have no reply yet, whatever arrived too early, and the bytes to be written.
//!
//! Flow: `reserve` a place when a request is sent -> `chunk` / `complete` as its reply comes -> bytes in `out`, in request
//! order. The reply whose turn it is goes straight to `out`, piece by piece, so a large one is never held as a whole.
//!
//! Must stay true: a byte of a reply reaches `out` only when every earlier reply is whole there; a muted reply
//! (CLIENT REPLY OFF, SKIP) takes its place and leaves no byte; what nobody asked for never stands within a reply, and an
//! invalidation not before a reply that had come before it. A property test compares all of this with a naive twin.
//! Rejected: one list node per request (a message struct each, as Twemproxy has): allocation and pointer chasing per request.

use crate::limits::{CHUNK_MOVED_MIN, EARLY_SMALL_MAX, EARLY_SMALL_TOTAL_MAX};
use crate::session::gather::Gather;
use crate::session::output::Output;
use std::collections::VecDeque;

/// What a place in the queue holds.
#[derive(Debug)]
enum Held {
    /// Nothing yet; or, at the head, what has come is already in `out`.
    Nothing,
    /// The beginning of a reply that came early.
    Part(Vec<u8>),
    /// A whole reply that came early.
    Whole(Vec<u8>),
    /// The same, when it is small: a range of `early_small`.
    Small { start: u32, len: u32 },
    /// Fragments of a reply.
    Gather(Box<Gather>),
}

#[derive(Debug)]
struct Place {
    held: Held,
    mute: bool,
    /// Some of the reply is in `out` already.
    begun: bool,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Replies {
    places: VecDeque<Place>,
    /// Number of the first place; wraps.
    head: u32,
    /// Bytes in places and in `pushes`.
    early: usize,
    /// Small replies that came early, behind each other: pipelines over several shards make many, and one buffer for all
    /// of them costs no allocation each. Emptied when the last of them has been given.
    early_small: Vec<u8>,
    /// How many of them are in there.
    smalls: usize,
    /// What nobody asked for and may not be given yet: given when the reply of this number is whole. In that order.
    pushes: Vec<(u32, Vec<u8>)>,
    /// What can be written.
    pub out: Output,
}

impl Replies {
    /// Requests without a whole reply in `out`.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.places.len()
    }

    /// Bytes held for this client, in `out` and in places.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.out.len() + self.early
    }

    /// The number of the place that is taken next.
    #[inline]
    pub fn next_number(&self) -> u32 {
        self.head.wrapping_add(self.places.len() as u32)
    }

    /// Takes the next place; its number.
    #[inline]
    pub fn reserve(&mut self, mute: bool) -> u32 {
        let number = self.next_number();
        self.places.push_back(Place {
            held: Held::Nothing,
            mute,
            begun: false,
        });
        number
    }

    /// As `reserve`, for a request whose reply is put together.
    pub fn reserve_gather(&mut self, mute: bool, gather: Box<Gather>) -> u32 {
        let number = self.next_number();
        self.places.push_back(Place {
            held: Held::Gather(gather),
            mute,
            begun: false,
        });
        number
    }

    /// The fragments collected at a place.
    pub fn gather(&mut self, number: u32) -> Option<&mut Gather> {
        let index = number.wrapping_sub(self.head) as usize;
        match &mut self.places.get_mut(index)?.held {
            Held::Gather(gather) => Some(gather),
            Held::Nothing | Held::Part(_) | Held::Whole(_) | Held::Small { .. } => None,
        }
    }

    /// Bytes held in all of the client's gathers.
    pub fn gather_bytes(&self) -> usize {
        let held = self.places.iter().map(|place| match &place.held {
            Held::Gather(gather) => gather.bytes(),
            Held::Nothing | Held::Part(_) | Held::Whole(_) | Held::Small { .. } => 0,
        });
        held.sum()
    }

    /// Takes the collected fragments out; the place waits for a plain reply from then on.
    pub fn take_gather(&mut self, number: u32) -> Option<Box<Gather>> {
        let index = number.wrapping_sub(self.head) as usize;
        let place = self.places.get_mut(index)?;
        match std::mem::replace(&mut place.held, Held::Nothing) {
            Held::Gather(gather) => Some(gather),
            other => {
                place.held = other;
                None
            }
        }
    }

    /// A local reply to the request that is being read: written at once when nothing is before it.
    #[inline]
    pub fn local(&mut self, mute: bool, write: impl FnOnce(&mut Vec<u8>)) {
        if self.places.is_empty() {
            if !mute {
                write(self.out.tail());
            }
            return;
        }
        let mut bytes = Vec::new();
        write(&mut bytes);
        let number = self.reserve(mute);
        self.complete(number, bytes);
    }

    /// A piece of a reply; `done` with the last one.
    #[inline]
    pub fn chunk(&mut self, number: u32, bytes: &[u8], done: bool) {
        let index = number.wrapping_sub(self.head) as usize;
        if index == 0 {
            let Some(place) = self.places.front_mut() else {
                return;
            };
            if !place.mute {
                self.out.push(bytes);
            }
            if !done {
                place.begun = true;
            } else {
                self.pop();
                if !self.places.is_empty() {
                    self.release();
                }
            }
            return;
        }
        self.early_chunk(index, bytes, done);
    }

    fn early_chunk(&mut self, index: usize, bytes: &[u8], done: bool) {
        let Some(place) = self.places.get_mut(index) else {
            return;
        };
        if done
            && bytes.len() <= EARLY_SMALL_MAX
            && self.early_small.len() < EARLY_SMALL_TOTAL_MAX
            && matches!(place.held, Held::Nothing)
            && !place.mute
        {
            let start = self.early_small.len() as u32;
            self.early_small.extend_from_slice(bytes);
            place.held = Held::Small {
                start,
                len: bytes.len() as u32,
            };
            self.early += bytes.len();
            self.smalls += 1;
            return;
        }
        let mut held = match std::mem::replace(&mut place.held, Held::Nothing) {
            Held::Part(held) | Held::Whole(held) => held,
            Held::Nothing | Held::Gather(_) | Held::Small { .. } => Vec::new(),
        };
        if !place.mute {
            held.extend_from_slice(bytes);
            self.early += bytes.len();
        }
        place.held = if done {
            Held::Whole(held)
        } else {
            Held::Part(held)
        };
    }

    /// A whole reply at once.
    pub fn complete(&mut self, number: u32, bytes: Vec<u8>) {
        let index = number.wrapping_sub(self.head) as usize;
        if index == 0 && bytes.len() >= CHUNK_MOVED_MIN {
            if self.places.front().is_some_and(|place| !place.mute) {
                self.out.push_owned(bytes);
            }
            self.chunk(number, &[], true);
        } else if index > 0 && bytes.len() >= CHUNK_MOVED_MIN {
            if let Some(place) = self.places.get_mut(index) {
                self.early += if place.mute { 0 } else { bytes.len() };
                place.held = Held::Whole(if place.mute { Vec::new() } else { bytes });
            }
        } else {
            self.chunk(number, &bytes, true);
        }
    }

    /// A further step of a request whose parts were taken out (`take_gather`): its reply is put together of these.
    pub fn put_gather(&mut self, number: u32, gather: Box<Gather>) {
        let index = number.wrapping_sub(self.head) as usize;
        if let Some(place) = self.places.get_mut(index) {
            place.held = Held::Gather(gather);
        }
    }

    /// Something that nobody asked for (a message, an invalidation): between two replies, never within one.
    pub fn push(&mut self, bytes: &[u8]) {
        let is_within = self
            .places
            .front()
            .is_some_and(|place| place.begun && !place.mute);
        if !is_within {
            return self.out.push(bytes);
        }
        self.early += bytes.len();
        match self.pushes.first_mut() {
            Some((number, held)) if *number == self.head => held.extend_from_slice(bytes),
            _ => self.pushes.insert(0, (self.head, bytes.to_vec())),
        }
    }

    /// As `push`, and behind every reply of which something has come by now: a client must not be told that a value has
    /// changed before it has been given that value, which it would keep for ever.
    pub fn push_in_order(&mut self, bytes: &[u8]) {
        let is_begun = |place: &Place| match &place.held {
            Held::Nothing => place.begun,
            Held::Gather(gather) => gather.is_begun(),
            Held::Part(_) | Held::Whole(_) | Held::Small { .. } => true,
        };
        let Some(index) = self.places.iter().rposition(is_begun) else {
            return self.out.push(bytes);
        };
        let last = self.head.wrapping_add(index as u32);
        self.early += bytes.len();
        match self.pushes.last_mut() {
            Some((number, held)) if *number == last => held.extend_from_slice(bytes),
            _ => self.pushes.push((last, bytes.to_vec())),
        }
    }

    /// True when no request was taken after this one.
    pub fn is_last(&self, number: u32) -> bool {
        number.wrapping_sub(self.head) as usize + 1 == self.places.len()
    }

    /// An error instead of the reply that will not come, or not wholly. False when some of it is in `out` already: then
    /// nothing can be put in its place, and the connection must end.
    pub fn replace(&mut self, number: u32, error: Vec<u8>) -> bool {
        let index = number.wrapping_sub(self.head) as usize;
        let Some(place) = self.places.get_mut(index) else {
            return true;
        };
        if place.begun && !place.mute {
            return false;
        }
        if let Held::Part(bytes) = std::mem::replace(&mut place.held, Held::Nothing) {
            self.early -= bytes.len();
        }
        self.complete(number, error);
        true
    }

    #[inline]
    fn pop(&mut self) {
        self.places.pop_front();
        if !self.pushes.is_empty() {
            self.give_pushes();
        }
        self.head = self.head.wrapping_add(1);
    }

    /// What waited for the first reply to be whole.
    #[cold]
    fn give_pushes(&mut self) {
        if self
            .pushes
            .first()
            .is_some_and(|(number, _)| *number == self.head)
        {
            let (_, bytes) = self.pushes.remove(0);
            self.early -= bytes.len();
            self.out.push_owned(bytes);
        }
    }

    /// Moves what waited for its turn to `out`.
    fn release(&mut self) {
        while let Some(place) = self.places.front_mut() {
            match std::mem::replace(&mut place.held, Held::Nothing) {
                Held::Whole(bytes) => {
                    self.early -= bytes.len();
                    self.out.push_owned(bytes);
                    self.pop();
                }
                Held::Small { start, len } => {
                    let range = start as usize..(start + len) as usize;
                    self.out
                        .push(self.early_small.get(range).unwrap_or_default());
                    self.early -= len as usize;
                    self.smalls -= 1;
                    if self.smalls == 0 {
                        self.early_small.clear();
                    }
                    self.pop();
                }
                Held::Part(bytes) => {
                    self.early -= bytes.len();
                    self.out.push_owned(bytes);
                    place.begun = true;
                    return;
                }
                held @ (Held::Nothing | Held::Gather(_)) => {
                    place.held = held;
                    return;
                }
            }
        }
    }

    /// Gives back the queue's memory when it is empty.
    pub fn shrink(&mut self) {
        if self.places.is_empty() {
            self.places = VecDeque::new();
            self.early_small = Vec::new();
        }
    }
}
