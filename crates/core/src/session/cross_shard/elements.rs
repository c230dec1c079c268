//! RESP elements, taken one after the other out of what a shard or another proxy has written.
//!
//! Owns: `Elements`, a cursor over elements that stand behind each other; what it gives are slices of what it was given.
//!
//! Must stay true: nothing here panics, allocates or recurses, whatever the bytes are; what does not fit is `None`, and
//! the caller gives up. Rejected: a tree of values: a gathered value of some MiB would be copied into it first.

use crate::protocol::request::strict_integer;
use crate::routing::merge::{counted_header, element_len};

/// See the head of this file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Elements<'r> {
    rest: &'r [u8],
}

impl<'r> Elements<'r> {
    /// Over top-level elements.
    pub(crate) fn new(bytes: &'r [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Over the elements of an array or set; how many they are.
    pub(crate) fn within(element: &'r [u8]) -> Option<(usize, Self)> {
        let (count, body) =
            counted_header(element).filter(|_| matches!(element.first(), Some(b'*' | b'~')))?;
        Some((count, Self::new(element.get(body..)?)))
    }

    /// The next element, whole.
    pub(crate) fn next(&mut self) -> Option<&'r [u8]> {
        let (element, rest) = self.rest.split_at_checked(element_len(self.rest)?)?;
        self.rest = rest;
        Some(element)
    }

    /// The next reply: an element that is no message out of turn.
    pub(crate) fn next_reply(&mut self) -> Option<&'r [u8]> {
        loop {
            let element = self.next()?;
            if element.first() != Some(&b'>') {
                return Some(element);
            }
        }
    }

    /// The next element, as text.
    pub(crate) fn text(&mut self) -> Option<&'r [u8]> {
        text(self.next()?)
    }

    /// The next element, as an integer.
    pub(crate) fn integer(&mut self) -> Option<i64> {
        integer(self.next()?)
    }

    /// The next element, as an array.
    pub(crate) fn array(&mut self) -> Option<(usize, Self)> {
        Self::within(self.next()?)
    }

    /// Nothing is left.
    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Body of a string or status.
pub(crate) fn text(element: &[u8]) -> Option<&[u8]> {
    match element.first()? {
        b'+' => element.get(1..element.len().checked_sub(2)?),
        b'$' => {
            let (length, body) = counted_header(element)?;
            element.get(body..body.checked_add(length)?)
        }
        // Text for people has its kind before it: "txt:".
        b'=' => {
            let (length, body) = counted_header(element)?;
            element.get(body.checked_add(4)?..body.checked_add(length)?)
        }
        _ => None,
    }
}

/// Value of an integer.
pub(crate) fn integer(element: &[u8]) -> Option<i64> {
    let digits = element.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    strict_integer(digits)
}

/// Whether it is one of the nulls.
pub(crate) fn is_null(element: &[u8]) -> bool {
    matches!(element, b"$-1\r\n" | b"*-1\r\n" | b"_\r\n")
}

/// An error without its line end.
pub(crate) fn error(element: &[u8]) -> Option<&[u8]> {
    element
        .strip_suffix(b"\r\n")
        .filter(|_| element.first() == Some(&b'-'))
}
