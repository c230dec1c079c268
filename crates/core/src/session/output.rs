//! Bytes that wait to be written to one peer.
//!
//! Owns: one growing buffer for small things and, before it, a queue of large ones that were moved here instead of
//! copied (a 512 MB value is held once).
//!
//! Must stay true: bytes leave in the order in which they were pushed; memory that a burst needed is given back as soon
//! as the burst is written.

use crate::limits::{BUFFERS_KEPT_MAX, BUFFER_KEPT_MAX, CHUNK_MOVED_MIN, LINK_BUFFER_KEPT_MAX};
use std::collections::VecDeque;

/// A first-in first-out queue of bytes.
#[derive(Debug, Default)]
pub struct Output {
    chunks: VecDeque<Vec<u8>>,
    chunk_bytes: usize,
    tail: Vec<u8>,
    /// How much of the first chunk (or of the tail, without chunks) is gone.
    gone: usize,
    /// A tail that has grown past this is given back when it is written.
    keeps: Keeps,
}

/// How much buffer an output keeps while it is in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keeps {
    /// As much as any of thousands may.
    #[default]
    Little,
    /// As much as a turn's requests for one shard need, until `shrink`.
    Much,
}

impl Keeps {
    fn bytes(self) -> usize {
        match self {
            Self::Little => BUFFER_KEPT_MAX,
            Self::Much => LINK_BUFFER_KEPT_MAX,
        }
    }
}

impl Output {
    /// One that keeps more.
    pub fn keeping_much() -> Self {
        Self {
            keeps: Keeps::Much,
            ..Self::default()
        }
    }

    /// Gives its buffer back, if nothing waits in it.
    pub fn shrink(&mut self) {
        if self.is_empty() && self.tail.capacity() > BUFFER_KEPT_MAX {
            self.tail = Vec::new();
        }
    }

    /// Bytes waiting.
    #[inline]
    pub fn len(&self) -> usize {
        self.chunk_bytes + self.tail.len() - self.gone
    }

    /// True when nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a copy.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Appends by moving, when it is worth it.
    pub fn push_owned(&mut self, bytes: Vec<u8>) {
        if bytes.len() < CHUNK_MOVED_MIN {
            self.push(&bytes);
            return;
        }
        if self.chunks.is_empty() && self.gone > 0 {
            self.tail.drain(..self.gone);
            self.gone = 0;
        }
        if !self.tail.is_empty() {
            self.chunk_bytes += self.tail.len();
            self.chunks.push_back(std::mem::take(&mut self.tail));
        }
        self.chunk_bytes += bytes.len();
        self.chunks.push_back(bytes);
    }

    /// Appends all of another, which is empty afterwards.
    pub fn append(&mut self, other: &mut Output) {
        if self.is_empty() {
            std::mem::swap(self, other);
            std::mem::swap(&mut self.keeps, &mut other.keeps);
            return;
        }
        while let Some(mut chunk) = other.chunks.pop_front() {
            if other.gone > 0 {
                chunk.drain(..other.gone);
                other.gone = 0;
            }
            self.push_owned(chunk);
        }
        self.push(&other.tail[other.gone..]);
        *other = Output::default();
    }

    /// The buffer that small things are written into.
    #[inline]
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// The bytes to write next.
    #[inline]
    pub fn front(&self) -> &[u8] {
        match self.chunks.front() {
            Some(chunk) => &chunk[self.gone..],
            None => &self.tail[self.gone..],
        }
    }

    /// So many bytes of `front` were written.
    #[inline]
    pub fn advance(&mut self, written: usize) {
        self.gone += written;
        match self.chunks.front() {
            Some(chunk) if self.gone >= chunk.len() => {
                self.chunk_bytes -= chunk.len();
                self.gone = 0;
                self.chunks.pop_front();
            }
            Some(_) => {}
            None if self.gone >= self.tail.len() => self.clear_tail(),
            None if self.gone >= BUFFER_KEPT_MAX && self.gone * 2 >= self.tail.len() => {
                // A slow reader of much: what is gone is given back by halves, which costs one copy of each byte at most.
                self.tail = self.tail.split_off(self.gone);
                self.gone = 0;
            }
            None => {}
        }
    }

    #[inline]
    fn clear_tail(&mut self) {
        self.gone = 0;
        if self.tail.capacity() > self.keeps.bytes() {
            self.tail = Vec::new();
        } else {
            self.tail.clear();
        }
    }

    /// Takes a spare buffer when it has none.
    #[inline]
    pub fn take_spare(&mut self, spares: &mut Vec<Vec<u8>>) {
        if self.tail.capacity() == 0 {
            if let Some(spare) = spares.pop() {
                self.tail = spare;
            }
        }
    }

    /// Gives its buffer back once nothing waits, so that idle peers own none.
    #[inline]
    pub fn give_spare(&mut self, spares: &mut Vec<Vec<u8>>) {
        if self.is_empty() && self.tail.capacity() > 0 {
            let spare = std::mem::take(&mut self.tail);
            self.gone = 0;
            if spares.len() < BUFFERS_KEPT_MAX {
                spares.push(spare);
            }
        }
        if self.chunks.is_empty() && self.chunks.capacity() > 0 {
            self.chunks = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(output: &mut Output, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !output.is_empty() {
            let n = output.front().len().min(step);
            assert!(n > 0, "bytes are promised but none shown");
            all.extend_from_slice(&output.front()[..n]);
            output.advance(n);
        }
        all
    }

    #[test]
    fn keeps_order_over_copies_and_moves() {
        for step in [1usize, 7, 1000, 70_000, 1 << 20] {
            let mut output = Output::default();
            let mut expected = Vec::new();
            let mut written = Vec::new();
            for round in 0..12u8 {
                let size = if round % 3 == 0 {
                    CHUNK_MOVED_MIN + round as usize
                } else {
                    10 * round as usize
                };
                let bytes = vec![round; size];
                expected.extend_from_slice(&bytes);
                if round % 2 == 0 {
                    output.push_owned(bytes);
                } else {
                    output.push(&bytes);
                }
                let n = output.front().len().min(step);
                written.extend_from_slice(&output.front()[..n]);
                output.advance(n);
            }
            written.extend(drain(&mut output, step));
            assert!(written == expected, "step {step}");
        }
    }

    #[test]
    fn append_keeps_order() {
        let mut first = Output::default();
        first.push(b"abc");
        first.advance(1);
        let mut second = Output::default();
        second.push_owned(vec![b'x'; CHUNK_MOVED_MIN]);
        second.push(b"end");
        first.append(&mut second);
        assert!(second.is_empty());
        let all = drain(&mut first, 100);
        assert_eq!(all.len(), 2 + CHUNK_MOVED_MIN + 3);
        assert!(all.starts_with(b"bcx") && all.ends_with(b"xend"));
    }

    #[test]
    fn gives_memory_back_after_a_burst() {
        let mut output = Output::default();
        output.push(&vec![0; BUFFER_KEPT_MAX * 4]);
        drain(&mut output, 1 << 20);
        let mut spares = Vec::new();
        output.give_spare(&mut spares);
        assert!(spares
            .iter()
            .all(|spare| spare.capacity() <= BUFFER_KEPT_MAX));
        assert_eq!(output.tail.capacity(), 0);
    }
}
