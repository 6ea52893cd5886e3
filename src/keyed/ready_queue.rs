//! The order in which ready keys take turns.
//!
//! A key that leaves from the middle leaves its place behind. Such a *gap* is removed when it
//! reaches the front, or when most places are gaps. So each operation takes constant time, on
//! average.

use std::collections::VecDeque;

use super::name::KeyId;

/// How many gaps there may be in any case, and the smallest capacity of which a part is released.
const MIN_GAPS: usize = 64;

/// A place in the ready queue. No two keys ever get the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadyPlace(u64);

/// The ready keys, and the gaps between them.
pub(super) struct ReadyQueue {
    places: VecDeque<(ReadyPlace, KeyId)>,
    next: ReadyPlace,
    /// How many keys are ready.
    len: usize,
}

impl ReadyQueue {
    pub(super) const fn new() -> Self {
        Self { places: VecDeque::new(), next: ReadyPlace(0), len: 0 }
    }

    /// Returns the number of ready keys.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the place that the next key gets.
    #[inline]
    pub(super) fn next(&self) -> ReadyPlace {
        self.next
    }

    /// Adds a key, at the place that [`next`](Self::next) returned. `is_at` tells whether a key is
    /// at a place.
    #[inline]
    pub(super) fn push(&mut self, key: KeyId, is_at: impl Fn(KeyId, ReadyPlace) -> bool) {
        if self.places.len() >= 2 * self.len + MIN_GAPS {
            self.places.retain(|(place, key)| is_at(*key, *place));
            self.shrink();
        }
        self.places.push_back((self.next, key));
        self.next.0 += 1;
        self.len += 1;
    }

    /// Returns the first key. Removes the gaps before it.
    #[inline]
    pub(super) fn first(&mut self, is_at: impl Fn(KeyId, ReadyPlace) -> bool) -> Option<KeyId> {
        while let Some((place, key)) = self.places.front() {
            if is_at(*key, *place) {
                return Some(*key);
            }
            self.places.pop_front();
        }
        None
    }

    /// Notes that a key leaves its place.
    #[inline]
    pub(super) fn leave(&mut self, place: ReadyPlace) {
        self.len -= 1;
        if self.places.front().is_some_and(|(first, _)| *first == place) {
            self.places.pop_front();
            self.shrink();
        }
    }

    /// Removes all keys.
    pub(super) fn clear(&mut self) {
        *self = Self { next: self.next, ..Self::new() };
    }

    /// Releases half of the memory if three quarters of it are unused.
    #[inline]
    fn shrink(&mut self) {
        let capacity = self.places.capacity();
        if capacity > MIN_GAPS && self.places.len() < capacity / 4 {
            self.places.shrink_to(capacity / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The queue and a map of places, with keys that leave from the front and from the middle.
    #[test]
    fn keys_come_in_the_order_in_which_they_became_ready() {
        let mut queue = ReadyQueue::new();
        let mut places: BTreeMap<u64, KeyId> = BTreeMap::new();
        let mut random = fastrand::Rng::with_seed(2);
        for number in 0..20_000_u64 {
            // Grows and shrinks in turn.
            if random.u64(..10) < 3 + 4 * (number / 2_000 % 2) {
                let place = queue.next();
                queue.push((number, 0), |key, place| places.get(&place.0) == Some(&key));
                places.insert(place.0, (number, 0));
                assert!(queue.places.len() <= 2 * places.len() + MIN_GAPS, "gaps are removed");
            } else if let Some(place) = match random.u64(..3) {
                0 => places.keys().next().copied(),
                _ => places.keys().nth(random.usize(..places.len().max(1))).copied(),
            } {
                places.remove(&place);
                queue.leave(ReadyPlace(place));
            }
            assert_eq!(queue.len(), places.len());
            let first = queue.first(|key, place| places.get(&place.0) == Some(&key));
            assert_eq!(first, places.values().next().copied());
        }
    }

    #[test]
    fn a_key_that_leaves_from_the_middle_again_and_again_takes_no_memory() {
        let mut queue = ReadyQueue::new();
        queue.push((0, 0), |_, _| true);
        for _ in 0..100_000 {
            let place = queue.next();
            queue.push((1, 0), |key, _| key.0 == 0);
            queue.leave(place);
        }
        assert!(queue.places.capacity() <= 4 * MIN_GAPS);
    }
}
