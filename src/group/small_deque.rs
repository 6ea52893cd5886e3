//! A deque that stores its first item inline. Most groups of a nested program never hold a second.

use std::collections::{VecDeque, vec_deque};
use std::iter::Chain;
use std::{mem, option};

/// The smallest capacity of which [`shrink`](SmallDeque::shrink) releases a part.
const MIN_SHRUNK: usize = 64;

/// A deque that allocates only from its second item on.
pub(crate) struct SmallDeque<T> {
    /// Older than all of `rest`.
    first: Option<T>,
    /// Empty unless a second item was pushed.
    rest: VecDeque<T>,
    /// How many items there are in both.
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

    /// Takes the first item that passes the test. Takes linear time.
    pub(super) fn take_first(&mut self, test: impl Fn(&T) -> bool) -> Option<T> {
        let taken = match self.first.take_if(|item| test(item)) {
            Some(item) => Some(item),
            None => self.rest.iter().position(test).and_then(|position| self.rest.remove(position)),
        };
        self.len -= usize::from(taken.is_some());
        taken
    }

    /// Releases half of the memory if three quarters of it are unused. A caller that does so after
    /// each removal pays constant time for each, on average.
    pub(crate) fn shrink(&mut self) {
        let capacity = self.rest.capacity();
        if capacity >= MIN_SHRUNK && self.rest.len() < capacity / 4 {
            self.rest.shrink_to(capacity / 2);
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
    fn an_item_is_taken_out_of_turn_once() {
        for taken in 0..3 {
            let mut items = SmallDeque::new();
            (0..3).for_each(|item| items.push_back(item));
            assert_eq!(items.take_first(|item| *item == taken), Some(taken));
            assert_eq!(items.take_first(|item| *item == taken), None);
            items.push_back(3);
            assert_eq!(items.len(), 3);
            assert!(items.take_all().into_iter().eq((0..4).filter(|item| *item != taken)));
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
