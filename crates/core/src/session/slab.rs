//! Numbered places that are used again.
//!
//! Owns: values behind small indexes, each with a generation that changes when the place is given up. A queue entry that
//! outlives its client names place and generation, and finds nobody instead of somebody else.
//!
//! Rejected: the slab crate, which has no generations; a map by identity, which costs a hash on every reply.

/// Values at stable indexes.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<(u32, Option<Box<T>>)>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Slab<T> {
    /// Puts a value somewhere; the index and its generation.
    pub fn insert(&mut self, value: T) -> (u32, u32) {
        self.len += 1;
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.1 = Some(Box::new(value));
            return (index, place.0);
        }
        self.places.push((0, Some(Box::new(value))));
        ((self.places.len() - 1) as u32, 0)
    }

    /// Gives the place up; its generation is over.
    pub fn remove(&mut self, index: u32) -> Option<Box<T>> {
        let place = self.places.get_mut(index as usize)?;
        let value = place.1.take()?;
        place.0 = place.0.wrapping_add(1);
        self.free.push(index);
        self.len -= 1;
        Some(value)
    }

    /// The value at an index.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        self.places.get(index as usize)?.1.as_deref()
    }

    /// The value at an index.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.places.get_mut(index as usize)?.1.as_deref_mut()
    }

    /// The value at an index, if it is still the one of that generation.
    #[inline]
    pub fn get_same(&mut self, index: u32, generation: u32) -> Option<&mut T> {
        let place = self.places.get_mut(index as usize)?;
        if place.0 == generation {
            place.1.as_deref_mut()
        } else {
            None
        }
    }

    /// The generation of a place.
    pub fn generation(&self, index: u32) -> u32 {
        self.places.get(index as usize).map_or(0, |place| place.0)
    }

    /// Values held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without any value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All values with their indexes.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.places
            .iter()
            .enumerate()
            .filter_map(|(index, place)| Some((index as u32, place.1.as_deref()?)))
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        self.places
            .iter_mut()
            .enumerate()
            .filter_map(|(index, place)| Some((index as u32, place.1.as_deref_mut()?)))
    }

    /// The indexes in use.
    pub fn indexes(&self) -> Vec<u32> {
        self.iter().map(|(index, _)| index).collect()
    }
}
