//! Replies in order, against a naive twin: every reply is kept for ever, and what a client sees is worked out anew.
//!
//! Random interleavings of everything that `Replies` offers, with sizes around the bounds at which it copies, moves or
//! gathers small ones. After each step: the bytes written so far and those still to be written are exactly the whole
//! replies in the order of their requests and the beginning of the next one, and the accounting agrees.

use proptest::prelude::*;
use shoal_core::limits::CHUNK_MOVED_MIN;
use shoal_core::protocol::command::Merge;
use shoal_core::session::gather::{Gather, GatherKind};
use shoal_core::session::replies::Replies;

/// What can be done; places are chosen among those that still wait, sizes are real bytes.
#[derive(Debug, Clone)]
enum Step {
    Reserve {
        mute: bool,
    },
    ReserveGather {
        mute: bool,
        parts: u16,
    },
    Local {
        mute: bool,
        size: usize,
    },
    Chunk {
        place: usize,
        size: usize,
        done: bool,
    },
    Complete {
        place: usize,
        size: usize,
    },
    Replace {
        place: usize,
        size: usize,
    },
    TakeGather {
        place: usize,
    },
    /// What nobody asked for; `in_order`: not before a reply that has begun to come.
    Push {
        size: usize,
        in_order: bool,
    },
    Write {
        size: usize,
    },
    Shrink,
}

/// One request's reply, for ever.
#[derive(Debug, Default, Clone)]
struct Place {
    mute: bool,
    bytes: Vec<u8>,
    done: bool,
    /// Parts still missing; Some while it is gathered.
    gather: Option<Vec<Vec<u8>>>,
    parts_done: usize,
}

#[derive(Debug, Default)]
struct Twin {
    places: Vec<Place>,
    /// What nobody asked for, and how many places must be whole before it.
    pushes: Vec<(usize, Vec<u8>)>,
    written: usize,
}

impl Twin {
    /// Everything a client may have seen by now.
    fn visible(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let after = |places: usize, out: &mut Vec<u8>| {
            for (_, bytes) in self.pushes.iter().filter(|(after, _)| *after == places) {
                out.extend_from_slice(bytes);
            }
        };
        after(0, &mut out);
        for (index, place) in self.places.iter().enumerate() {
            if !place.mute {
                out.extend_from_slice(&place.bytes);
            }
            if !place.done {
                break;
            }
            after(index + 1, &mut out);
        }
        out
    }

    /// How many places something must wait for that nobody asked for.
    fn places_before(&self, in_order: bool) -> usize {
        let first = self.first_waiting();
        if in_order {
            let begun = |place: &Place| {
                let parts = place.gather.iter().flatten().any(|part| !part.is_empty());
                place.done || !place.bytes.is_empty() || parts
            };
            let last = self.places[first..].iter().rposition(begun);
            return last.map_or(first, |last| first + last + 1);
        }
        let is_within = |place: &Place| !place.mute && !place.bytes.is_empty();
        first + usize::from(self.places.get(first).is_some_and(is_within))
    }

    fn first_waiting(&self) -> usize {
        let undone = self.places.iter().position(|place| !place.done);
        undone.unwrap_or(self.places.len())
    }

    /// Bytes held: visible but not written, or of replies whose turn has not come.
    fn bytes(&self) -> usize {
        let all: usize = self
            .places
            .iter()
            .filter(|place| !place.mute)
            .map(|place| place.bytes.len())
            .sum();
        let pushed: usize = self.pushes.iter().map(|(_, bytes)| bytes.len()).sum();
        all + pushed - self.written
    }

    /// The waiting places that have no whole reply.
    fn undone(&self) -> Vec<usize> {
        let undone = |&index: &usize| !self.places[index].done;
        (0..self.places.len()).filter(undone).collect()
    }
}

/// Both, side by side.
#[derive(Default)]
struct Pair {
    twin: Twin,
    replies: Replies,
    numbers: Vec<u32>,
    written: Vec<u8>,
    filler: u64,
}

impl Pair {
    /// Bytes that differ from all others given out, so that nothing can change places unseen.
    fn fill(&mut self, size: usize) -> Vec<u8> {
        self.filler += 1;
        let tag = format!("<{}>", self.filler).into_bytes();
        tag.into_iter().cycle().take(size).collect()
    }

    fn choose(&self, place: usize) -> Option<usize> {
        let undone = self.twin.undone();
        (!undone.is_empty()).then(|| undone[place % undone.len()])
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Reserve { mute } => {
                self.numbers.push(self.replies.reserve(mute));
                self.twin.places.push(Place {
                    mute,
                    ..Place::default()
                });
            }
            Step::ReserveGather { mute, parts } => {
                let kind = GatherKind::Merge {
                    merge: Merge::Sum,
                    order: Vec::new(),
                };
                let gather = Gather::new(kind, parts as usize);
                self.numbers.push(self.replies.reserve_gather(mute, gather));
                self.twin.places.push(Place {
                    mute,
                    gather: Some(vec![Vec::new(); parts as usize]),
                    ..Place::default()
                });
            }
            Step::Local { mute, size } => {
                let bytes = self.fill(size);
                self.replies
                    .local(mute, |out| out.extend_from_slice(&bytes));
                // It has a number only when something was before it; nobody asks for it again.
                self.numbers.push(u32::MAX);
                self.twin.places.push(Place {
                    mute,
                    bytes,
                    done: true,
                    ..Place::default()
                });
                // The numbers of later places go on from the places that were taken, not from the requests.
            }
            Step::Chunk { place, size, done } => self.chunk(place, size, done),
            Step::Complete { place, size } => self.complete(place, size),
            Step::Replace { place, size } => self.replace(place, size),
            Step::TakeGather { place } => {
                let Some(index) = self.choose(place) else {
                    return;
                };
                let taken = self.replies.take_gather(self.numbers[index]);
                let expected = self.twin.places[index].gather.take();
                assert_eq!(taken.map(|gather| gather.parts), expected);
            }
            Step::Push { size, in_order } => {
                let bytes = self.fill(size);
                if in_order {
                    self.replies.push_in_order(&bytes);
                } else {
                    self.replies.push(&bytes);
                }
                let after = self.twin.places_before(in_order);
                self.twin.pushes.push((after, bytes));
            }
            Step::Write { size } => self.write(size),
            Step::Shrink => self.replies.shrink(),
        }
    }

    fn chunk(&mut self, place: usize, size: usize, done: bool) {
        let Some(index) = self.choose(place) else {
            return;
        };
        let number = self.numbers[index];
        let bytes = self.fill(size);
        let twin = &mut self.twin.places[index];
        let Some(parts) = &mut twin.gather else {
            self.replies.chunk(number, &bytes, done);
            twin.bytes.extend_from_slice(&bytes);
            twin.done = done;
            return;
        };
        // One part after the other, the last one first.
        let part = parts.len() - 1 - twin.parts_done;
        parts[part].extend_from_slice(&bytes);
        twin.parts_done += usize::from(done);
        let is_whole = twin.parts_done == parts.len();
        let gather = self.replies.gather(number).expect("it is being gathered");
        assert_eq!(gather.chunk(part as u16, &bytes, done), is_whole);
        if is_whole {
            let parts = self.replies.take_gather(number).map(|gather| gather.parts);
            assert_eq!(parts, twin.gather);
            twin.gather = None;
            let merged = parts.expect("compared").concat();
            twin.bytes = merged.clone();
            twin.done = true;
            self.replies.complete(number, merged);
        }
    }

    fn complete(&mut self, place: usize, size: usize) {
        let Some(index) = self.choose(place) else {
            return;
        };
        if self.twin.places[index].gather.is_some() || !self.twin.places[index].bytes.is_empty() {
            return;
        }
        let bytes = self.fill(size);
        self.replies.complete(self.numbers[index], bytes.clone());
        self.twin.places[index].bytes = bytes;
        self.twin.places[index].done = true;
    }

    fn replace(&mut self, place: usize, size: usize) {
        let Some(index) = self.choose(place) else {
            return;
        };
        let bytes = self.fill(size);
        let is_cut = index == self.twin.first_waiting()
            && !self.twin.places[index].mute
            && !self.twin.places[index].bytes.is_empty();
        let replaced = self.replies.replace(self.numbers[index], bytes.clone());
        assert_eq!(
            replaced, !is_cut,
            "what a client has seen cannot be replaced"
        );
        if replaced {
            let twin = &mut self.twin.places[index];
            twin.gather = None;
            twin.bytes = bytes;
            twin.done = true;
        }
    }

    fn write(&mut self, size: usize) {
        let mut left = size;
        while left > 0 && !self.replies.out.is_empty() {
            let front = self.replies.out.front();
            let step = front.len().min(left);
            assert!(step > 0, "bytes are promised but none shown");
            self.written.extend_from_slice(&front[..step]);
            self.replies.out.advance(step);
            self.twin.written += step;
            left -= step;
        }
    }

    fn check(&self) {
        let visible = self.twin.visible();
        assert!(
            visible.starts_with(&self.written),
            "written in another order than asked"
        );
        assert_eq!(self.replies.out.len(), visible.len() - self.written.len());
        assert_eq!(self.replies.bytes(), self.twin.bytes());
        let waiting = self.twin.places.len() - self.twin.first_waiting();
        assert_eq!(self.replies.waiting(), waiting);
        for (index, &number) in self
            .numbers
            .iter()
            .enumerate()
            .skip(self.twin.first_waiting())
        {
            if number != u32::MAX {
                let is_last = index + 1 == self.twin.places.len();
                assert_eq!(self.replies.is_last(number), is_last);
            }
        }
    }
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        20 => 1usize..40,
        4 => 200usize..5000,
        1 => CHUNK_MOVED_MIN - 2..CHUNK_MOVED_MIN + 3,
        1 => CHUNK_MOVED_MIN * 2..CHUNK_MOVED_MIN * 3,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let mute = prop::bool::weighted(0.2);
    // Places near the front are the interesting ones, and those just behind it.
    let place = prop_oneof![3 => 0usize..2, 3 => 0usize..64];
    prop_oneof![
        8 => mute.prop_map(|mute| Step::Reserve { mute }),
        2 => (mute, 1u16..4).prop_map(|(mute, parts)| Step::ReserveGather { mute, parts }),
        2 => (mute, size()).prop_map(|(mute, size)| Step::Local { mute, size }),
        10 => (place.clone(), size(), any::<bool>())
            .prop_map(|(place, size, done)| Step::Chunk { place, size, done }),
        3 => (place.clone(), size()).prop_map(|(place, size)| Step::Complete { place, size }),
        2 => (place.clone(), size()).prop_map(|(place, size)| Step::Replace { place, size }),
        1 => place.prop_map(|place| Step::TakeGather { place }),
        4 => (size(), any::<bool>()).prop_map(|(size, in_order)| Step::Push { size, in_order }),
        3 => (0usize..200_000).prop_map(|size| Step::Write { size }),
        3 => (0usize..50).prop_map(|size| Step::Write { size }),
        1 => Just(Step::Shrink),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn replies_leave_whole_and_in_order(steps in prop::collection::vec(step(), 1..120)) {
        let mut pair = Pair::default();
        for step in &steps {
            pair.step(step);
            pair.check();
        }
        // Whatever still waits is answered from the back, then everything is written.
        while let Some(last) = pair.twin.undone().len().checked_sub(1) {
            pair.chunk(last, 7, true);
            pair.check();
        }
        pair.write(usize::MAX);
        pair.check();
        prop_assert_eq!(pair.written, pair.twin.visible());
        prop_assert_eq!(pair.replies.bytes(), 0);
        prop_assert_eq!(pair.replies.waiting(), 0);
    }
}

/// Small early replies share one buffer; its memory must not grow with their number over time.
#[test]
fn places_and_early_bytes_are_given_back() {
    let mut replies = Replies::default();
    for round in 0..3 {
        let numbers: Vec<u32> = (0..1000).map(|_| replies.reserve(false)).collect();
        for &number in numbers[1..].iter().rev() {
            replies.chunk(number, b"$5\r\nearly\r\n", true);
        }
        assert_eq!(replies.out.len(), 0, "round {round}");
        assert_eq!(replies.bytes(), 999 * 11);
        replies.chunk(numbers[0], b"+first\r\n", true);
        assert_eq!(replies.out.len(), 8 + 999 * 11);
        assert_eq!(replies.waiting(), 0);
        while !replies.out.is_empty() {
            let step = replies.out.front().len();
            replies.out.advance(step);
        }
        assert_eq!(replies.bytes(), 0);
    }
}
