//! The ready queue: the keys that wait for their turn.
//!
//! A key that is taken out of turn, by a waiter that needs it, leaves a *gap*: its place stays, and
//! holds no key. Rules:
//!
//! 1. The first place is no gap.
//! 2. After a key was taken, at most half of the places are gaps. Beyond that all gaps are closed.
//!    On average, this takes constant time for each key that was taken.

use std::collections::VecDeque;

use super::name::KeyId;
use crate::group::small_deque::smaller_capacity;

/// The keys that are ready, in the order of their turns.
#[derive(Default)]
pub(super) struct ReadyQueue {
    /// The places with their numbers, in ascending order. A place without a key is a gap.
    places: VecDeque<(u64, Option<KeyId>)>,
    gaps: usize,
    /// The number of the next place.
    next: u64,
}

impl ReadyQueue {
    pub(super) const fn new() -> Self {
        Self { places: VecDeque::new(), gaps: 0, next: 0 }
    }

    /// Returns the number of keys.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.gaps
    }

    /// Adds a key at the back. Returns the number of its place.
    pub(super) fn push_back(&mut self, key: KeyId) -> u64 {
        let place = self.next;
        self.next += 1;
        self.places.push_back((place, Some(key)));
        place
    }

    /// Returns the first key.
    pub(super) fn first(&self) -> Option<KeyId> {
        self.places.front().and_then(|(_, key)| *key)
    }

    /// Removes the key at this place.
    pub(super) fn remove(&mut self, place: u64) {
        if self.places.front().is_some_and(|(first, _)| *first == place) {
            self.places.pop_front();
            while let Some((_, None)) = self.places.front() {
                self.places.pop_front();
                self.gaps -= 1;
            }
        } else if let Ok(position) = self.places.binary_search_by_key(&place, |(number, _)| *number)
            && self.places[position].1.take().is_some()
        {
            self.gaps += 1;
            if self.gaps > self.places.len() / 2 {
                self.places.retain(|(_, key)| key.is_some());
                self.gaps = 0;
            }
        }
        if let Some(capacity) = smaller_capacity(self.places.len(), self.places.capacity()) {
            self.places.shrink_to(capacity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::small_deque::MIN_SHRUNK;

    /// Fault 641.
    #[test]
    fn keys_leave_in_order_whichever_were_taken_out_of_turn_and_leave_no_memory() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut ready, mut model): (_, Vec<(u64, KeyId)>) = (ReadyQueue::new(), Vec::new());
        for step in 0..20_000_u64 {
            let grows = step / 4_000 % 2 == 0;
            if model.is_empty() || random.u8(..) < if grows { 170 } else { 90 } {
                let key = (step, 0);
                model.push((ready.push_back(key), key));
            } else {
                let out_of_turn = random.usize(..model.len());
                let (place, _) = model.remove(if random.bool() { 0 } else { out_of_turn });
                ready.remove(place);
                ready.remove(place); // it has left
            }
            assert_eq!((ready.len(), ready.first()), (model.len(), model.first().map(|(_, key)| *key)));
            assert!(ready.gaps <= ready.places.len() / 2);
        }
        model.iter().for_each(|(place, _)| ready.remove(*place));
        assert!(ready.first().is_none() && ready.places.capacity() <= MIN_SHRUNK);
    }
}
