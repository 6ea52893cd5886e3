//! The values of a group's tasks, by the index of the task.
//!
//! Values are kept in a dense deque of slots, one for each task. Zero-sized values are all alike:
//! they are kept in a vector, which takes no memory, and need no slots. Released tasks take no
//! memory in either case.

use std::collections::VecDeque;
use std::mem;

use crate::unwind;

/// The values of tasks that have ended. Dropping it drops the values one by one, so that a panic in
/// one destructor is contained before the next is called.
pub(super) struct Values<T> {
    /// How many values there are.
    len: usize,
    /// Every task below this has ended and left no value in `slots`.
    base: usize,
    /// The tasks from `base` on, as far as one of them has ended. If `T` is zero-sized, only
    /// released tasks have slots, and those are taken.
    slots: VecDeque<Slot<T>>,
    /// The values, if `T` is zero-sized. Which task a value comes from makes no difference.
    zero_sized: Vec<T>,
}

/// The place of a task's value.
enum Slot<T> {
    /// The task has not ended.
    Empty,
    Value(T),
    /// The value was taken, or the task had none.
    Taken,
}

impl<T> Values<T> {
    const IS_ZERO_SIZED: bool = size_of::<T>() == 0;

    pub(super) const fn new() -> Self {
        Self { len: 0, base: 0, slots: VecDeque::new(), zero_sized: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds the value of a task that has ended.
    #[inline]
    pub(super) fn record(&mut self, index: usize, value: T) {
        self.len += 1;
        if Self::IS_ZERO_SIZED {
            self.zero_sized.push(value);
        } else {
            *self.slot(index) = Slot::Value(value);
        }
    }

    /// Notes that a task has ended without a value.
    #[inline]
    pub(super) fn record_none(&mut self, index: usize) {
        if !Self::IS_ZERO_SIZED {
            *self.slot(index) = Slot::Taken;
        }
    }

    /// Takes the value of a task that has ended with one, unless the task was released. Each task
    /// is asked once: zero-sized values are not told apart.
    pub(super) fn take(&mut self, index: usize) -> Option<T> {
        let place = index.checked_sub(self.base)?;
        if Self::IS_ZERO_SIZED {
            let is_released = matches!(self.slots.get(place), Some(Slot::Taken));
            return if is_released { None } else { self.take_zero_sized() };
        }
        let slot = self.slots.get_mut(place)?;
        match mem::replace(slot, Slot::Taken) {
            Slot::Value(value) => {
                self.len -= 1;
                Some(value)
            }
            other => {
                *slot = other;
                None
            }
        }
    }

    /// Takes the first value by the index of the task.
    pub(super) fn take_first(&mut self) -> Option<T> {
        if Self::IS_ZERO_SIZED {
            return self.take_zero_sized();
        }
        (self.base..self.base + self.slots.len()).find_map(|index| self.take(index))
    }

    /// Takes all values, ordered by the index of the task.
    pub(super) fn take_all(&mut self) -> Vec<T> {
        self.len = 0;
        if Self::IS_ZERO_SIZED {
            return mem::take(&mut self.zero_sized);
        }
        let slots = mem::take(&mut self.slots).into_iter();
        slots.filter_map(|slot| if let Slot::Value(value) = slot { Some(value) } else { None }).collect()
    }

    /// Frees the place of a task that has ended and whose value, if any, was taken. Must be called
    /// once for each task.
    pub(super) fn release(&mut self, index: usize) {
        if Self::IS_ZERO_SIZED {
            *self.slot(index) = Slot::Taken;
        }
        while matches!(self.slots.front(), Some(Slot::Taken)) {
            self.slots.pop_front();
            self.base += 1;
        }
    }

    /// Returns how many places are kept for tasks that have ended or are about to.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.slots.len()
    }

    fn take_zero_sized(&mut self) -> Option<T> {
        let value = self.zero_sized.pop();
        self.len -= usize::from(value.is_some());
        value
    }

    /// Returns the slot of a task that had not ended, and so was not released.
    fn slot(&mut self, index: usize) -> &mut Slot<T> {
        let place = index - self.base;
        if self.slots.len() <= place {
            self.slots.resize_with(place + 1, || Slot::Empty);
        }
        &mut self.slots[place]
    }
}

impl<T> Drop for Values<T> {
    fn drop(&mut self) {
        for slot in self.slots.drain(..) {
            unwind::discard(slot);
        }
        for value in self.zero_sized.drain(..) {
            unwind::discard(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_by_task_once_whatever_their_order() {
        let mut values = Values::new();
        for index in [3, 0, 2] {
            values.record(index, index);
        }
        values.record_none(1);
        assert_eq!([2, 1, 4, 2].map(|index| values.take(index)), [Some(2), None, None, None]);
        assert_eq!((values.take_first(), values.take_all(), values.is_empty()), (Some(0), vec![3], true));
    }

    #[test]
    fn released_tasks_take_no_memory() {
        let mut values = Values::new();
        let mut units = Values::new();
        for index in 0..10_000 {
            values.record(index, index);
            units.record(index, ());
            assert_eq!((values.take(index), units.take(index)), (Some(index), Some(())));
            values.release(index);
            units.release(index);
            assert!(values.slots.is_empty() && units.slots.is_empty());
        }
        assert!(values.is_empty() && units.is_empty());
    }

    #[test]
    fn zero_sized_values_take_no_slots_until_a_task_is_released() {
        let mut units = Values::new();
        for index in 0..4 {
            units.record(index, ());
        }
        units.record_none(4);
        assert!(units.slots.is_empty());
        // Tasks are released in the order in which they end, here the third first.
        assert_eq!(units.take(2), Some(()));
        units.release(2);
        assert_eq!((units.slots.len(), units.take(2)), (3, None));
        units.release(4);
        for index in [0, 1] {
            assert_eq!(units.take(index), Some(()));
            units.release(index);
        }
        assert_eq!((units.base, units.slots.len(), units.take(0)), (3, 2, None));
        assert_eq!((units.take(3), units.take_first(), units.is_empty()), (Some(()), None, true));
    }
}
