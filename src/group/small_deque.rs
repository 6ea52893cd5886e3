//! A deque that stores its first item inline. Most groups of a nested program never hold a second.

use std::collections::{VecDeque, vec_deque};
use std::iter::Chain;
use std::{mem, option};

/// The smallest capacity of which a part is released.
pub(crate) const MIN_SHRUNK: usize = 64;

/// Returns half of a collection's capacity if three quarters of it are unused, and it is not small.
/// A caller that shrinks the collection to that after each removal pays constant time for each, on
/// average.
#[inline]
pub(crate) fn smaller_capacity(len: usize, capacity: usize) -> Option<usize> {
    (capacity >= MIN_SHRUNK && len < capacity / 4).then_some(capacity / 2)
}

/// A deque that allocates only from its second item on.
pub(crate) struct SmallDeque<T> {
    /// Older than all of `rest`.
    first: Option<T>,
    /// Empty unless a second item was pushed.
    rest: VecDeque<T>,
    /// How many items there are in both, without gaps.
    len: usize,
}

impl<T> SmallDeque<T> {
    pub(crate) const fn new() -> Self {
        Self { first: None, rest: VecDeque::new(), len: 0 }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn push_back(&mut self, item: T) {
        if self.is_empty() {
            self.first = Some(item);
        } else {
            self.rest.push_back(item);
        }
        self.len += 1;
    }

    /// Puts an item before all others.
    #[cfg(feature = "retry")]
    pub(crate) fn push_front(&mut self, item: T) {
        if let Some(second) = self.first.replace(item) {
            self.rest.push_front(second);
        }
        self.len += 1;
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        self.len -= 1;
        if self.first.is_some() { self.first.take() } else { self.rest.pop_front() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.rest)
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.first.as_ref().or_else(|| self.rest.front())
    }

    pub(super) fn back(&self) -> Option<&T> {
        self.rest.back().or(self.first.as_ref())
    }

    /// Takes the item at this place, and leaves `gap` there. A gap does not count as an item; the
    /// caller ensures that none is popped.
    pub(super) fn take_leaving(&mut self, position: usize, gap: T) -> Option<T> {
        let place = match position.checked_sub(usize::from(self.first.is_some())) {
            Some(position) => self.rest.get_mut(position)?,
            None => self.first.as_mut()?,
        };
        self.len -= 1;
        Some(mem::replace(place, gap))
    }

    /// Returns the number of places: items and gaps.
    pub(super) fn places_len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    /// Removes the first place, which is a gap.
    pub(super) fn drop_front_gap(&mut self) {
        drop(self.first.take().or_else(|| self.rest.pop_front()));
    }

    /// Removes the last place, which is a gap.
    pub(super) fn drop_back_gap(&mut self) {
        drop(self.rest.pop_back().or_else(|| self.first.take()));
    }

    /// Returns the position of the item with this key. The items are sorted by their keys.
    pub(super) fn position_by_key<K: Ord>(&self, key: &K, key_of: impl Fn(&T) -> K) -> Option<usize> {
        if self.first.as_ref().is_some_and(|item| key_of(item) == *key) {
            return Some(0);
        }
        let position = self.rest.binary_search_by(|item| key_of(item).cmp(key)).ok()?;
        Some(position + usize::from(self.first.is_some()))
    }

    /// Removes the gaps, which are the places that do not pass the test.
    pub(super) fn close_gaps(&mut self, test: impl Fn(&T) -> bool) {
        self.first.take_if(|item| !test(item));
        self.rest.retain(test);
    }

    /// Releases memory that is not used, by [`smaller_capacity`].
    pub(crate) fn shrink(&mut self) {
        if let Some(capacity) = smaller_capacity(self.rest.len(), self.rest.capacity()) {
            self.rest.shrink_to(capacity);
        }
    }

    /// Takes all items, in constant time.
    pub(crate) fn take_all(&mut self) -> Self {
        mem::replace(self, Self::new())
    }
}

impl<T> From<T> for SmallDeque<T> {
    fn from(item: T) -> Self {
        Self { first: Some(item), rest: VecDeque::new(), len: 1 }
    }
}

impl<T> IntoIterator for SmallDeque<T> {
    type Item = T;
    type IntoIter = Chain<option::IntoIter<T>, vec_deque::IntoIter<T>>;

    /// Yields all items, oldest first.
    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.rest)
    }
}

impl<T: PartialEq> SmallDeque<T> {
    /// Removes an item, wherever it is. Searches from the back. No two items are equal.
    #[inline]
    pub(super) fn remove(&mut self, item: &T) {
        if self.first.as_ref() == Some(item) {
            self.first = None;
            self.len -= 1;
        } else if let Some(position) = self.rest.iter().rposition(|other| other == item) {
            self.rest.remove(position);
            self.len -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn items_are_popped_in_the_order_of_their_pushes() {
        for popped_between in 0..4 {
            let mut items = SmallDeque::new();
            let mut out = Vec::new();
            for item in 0..10 {
                items.push_back(item);
                if item % 4 < popped_between {
                    out.push(items.pop_front().expect("an item was just pushed"));
                }
                assert_eq!(items.len() + out.len(), item + 1);
                assert!(items.iter().copied().eq(out.len()..=item));
            }
            out.extend(items.take_all());
            assert!(out.into_iter().eq(0..10));
            assert!(items.is_empty());
            assert_eq!(items.pop_front(), None);
        }
    }

    #[test]
    fn items_are_found_by_their_keys_and_leave_gaps_that_do_not_count() {
        const GAP: usize = 99;
        for popped in 0..2 {
            let mut items = SmallDeque::new();
            (0..4).for_each(|item| items.push_back(item));
            (0..popped).for_each(|item| assert_eq!(items.pop_front(), Some(item)));
            for item in popped..4 {
                assert_eq!(items.position_by_key(&item, |item| *item), Some(item - popped));
            }
            assert_eq!((items.position_by_key(&4, |item| *item), items.take_leaving(4 - popped, GAP)), (None, None));
            assert_eq!((items.front(), items.back()), (Some(&popped), Some(&3)));
            for item in [popped, 2, 3] {
                assert_eq!(items.take_leaving(item - popped, GAP), Some(item));
            }
            assert_eq!((items.len(), items.places_len()), (1 - popped, 4 - popped));
            items.drop_front_gap();
            items.drop_back_gap();
            assert_eq!(items.places_len(), 2 - popped);
            items.close_gaps(|item| *item != GAP);
            assert_eq!((items.places_len(), items.len()), (1 - popped, 1 - popped));
            assert_eq!(items.pop_front(), (popped == 0).then_some(1));
        }
    }

    /// Fault 462.
    #[test]
    fn finding_an_item_takes_a_look_at_few_others() {
        let mut items = SmallDeque::new();
        (0..100_000).for_each(|item| items.push_back(item));
        let looks = Cell::new(0);
        let key = |item: &usize| {
            looks.set(looks.get() + 1);
            *item
        };
        for item in [0, 1, 50_000, 99_998, 99_999, 100_000] {
            looks.set(0);
            assert_eq!(items.position_by_key(&item, key), (item < 100_000).then_some(item));
            assert!(looks.get() <= 20, "{} looks", looks.get());
        }
    }

    #[test]
    fn an_item_is_removed_wherever_it_is() {
        for removed in 0..3 {
            let mut items = SmallDeque::new();
            (0..3).for_each(|item| items.push_back(item));
            items.remove(&removed);
            assert!(items.iter().copied().eq((0..3).filter(|item| *item != removed)));
            items.remove(&removed);
            assert_eq!(items.len(), 2);
            items.push_back(3);
            assert!(items.take_all().into_iter().eq((0..4).filter(|item| *item != removed)));
        }
    }

    #[test]
    fn memory_is_released_as_items_leave() {
        let mut items = SmallDeque::new();
        (0..10_000).for_each(|item| items.push_back(item));
        for left in (0..10_000).rev() {
            items.pop_front();
            items.shrink();
            assert_eq!(items.len(), left);
            assert!(items.rest.capacity() <= MIN_SHRUNK.max(4 * left + 4), "{left}: {}", items.rest.capacity());
        }
    }

    #[cfg(feature = "retry")]
    #[test]
    fn an_item_that_is_put_back_is_the_first() {
        for pushed in 0..3 {
            let mut items = SmallDeque::new();
            (1..=pushed).for_each(|item| items.push_back(item));
            items.push_front(0);
            assert_eq!(items.len(), pushed + 1);
            assert!(items.take_all().into_iter().eq(0..=pushed));
        }
    }
}
