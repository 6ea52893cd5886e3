//! The failures, panics and cancellations of a group. Allocated on first use.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;
use std::mem;
use std::ops::Range;

use crate::error::{CancelReason, TaskError};
use crate::unwind;

/// Why tasks have no value, by the index of the task.
pub(super) struct Failures<E>(Option<Box<Lists<E>>>);

/// The failures of a group that has some.
struct Lists<E> {
    /// Tasks that failed or panicked.
    failed: BTreeMap<usize, TaskError<E>>,
    /// The ranges of cancelled tasks: first index to end and reason. One range may hold thousands.
    cancelled: BTreeMap<usize, (usize, CancelReason)>,
}

impl<E> Failures<E> {
    pub(super) fn new() -> Self {
        Self(None)
    }

    /// Records the failure or panic of a task.
    pub(super) fn record(&mut self, index: usize, failure: TaskError<E>) {
        self.lists().failed.insert(index, failure);
    }

    /// Records the same cancellation for a range of tasks.
    pub(super) fn record_cancelled(&mut self, tasks: Range<usize>, reason: CancelReason) {
        let Lists { cancelled, .. } = self.lists();
        match cancelled.last_entry().as_mut().map(OccupiedEntry::get_mut) {
            Some((end, same)) if (*end, *same) == (tasks.start, reason) => *end = tasks.end,
            _ => drop(cancelled.insert(tasks.start, (tasks.end, reason))),
        }
    }

    /// Takes the failure, panic or cancellation of a task.
    pub(super) fn take(&mut self, index: usize) -> Option<TaskError<E>> {
        let lists = self.0.as_mut()?;
        lists.failed.remove(&index).or_else(|| lists.take_cancelled(index))
    }

    /// Takes the failure or panic of the task `first`, if there is one; otherwise the first by
    /// index; otherwise the first cancellation by index.
    pub(super) fn take_first(&mut self, first: Option<usize>) -> Option<TaskError<E>> {
        let lists = self.0.as_mut()?;
        let first = first.filter(|index| lists.failed.contains_key(index));
        match first.or_else(|| lists.failed.keys().next().copied()) {
            Some(index) => lists.failed.remove(&index),
            None => lists.cancelled.keys().next().copied().and_then(|index| lists.take_cancelled(index)),
        }
    }

    /// Returns `true` if there is no failure, panic or cancellation.
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|lists| lists.failed.is_empty() && lists.cancelled.is_empty())
    }

    /// Returns the lists, which it allocates on first use.
    fn lists(&mut self) -> &mut Lists<E> {
        self.0.get_or_insert_with(|| Box::new(Lists { failed: BTreeMap::new(), cancelled: BTreeMap::new() }))
    }
}

impl<E> Lists<E> {
    /// Takes the cancellation of a task out of its range, which is split.
    fn take_cancelled(&mut self, index: usize) -> Option<TaskError<E>> {
        let (&start, &(end, reason)) = self.cancelled.range(..=index).next_back()?;
        if end <= index {
            return None;
        }
        self.cancelled.remove(&start);
        if start < index {
            self.cancelled.insert(start, (index, reason));
        }
        if index + 1 < end {
            self.cancelled.insert(index + 1, (end, reason));
        }
        Some(TaskError::Cancelled(reason))
    }
}

impl<E> Drop for Lists<E> {
    /// Drops errors one by one, so that a panic in one destructor is contained before the next is
    /// called.
    fn drop(&mut self) {
        for failure in mem::take(&mut self.failed).into_values() {
            unwind::discard(failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelled_ranges_are_split_by_index() {
        let mut failures = Failures::<()>::new();
        failures.record_cancelled(1..4, CancelReason::GroupEnded);
        failures.record_cancelled(4..6, CancelReason::GroupEnded);
        failures.record_cancelled(6..8, CancelReason::ShutDown);
        assert_eq!(failures.lists().cancelled.len(), 2);
        for index in [3, 1, 5, 7, 2, 4, 6] {
            let reason = if index < 6 { CancelReason::GroupEnded } else { CancelReason::ShutDown };
            assert!(matches!(failures.take(index), Some(TaskError::Cancelled(found)) if found == reason));
            assert!(failures.take(index).is_none());
        }
        assert!(failures.take(0).is_none() && failures.take(8).is_none());
        assert!(failures.is_empty());
    }

    #[test]
    fn the_first_by_time_comes_before_the_first_by_index_and_cancellations_come_last() {
        let mut failures = Failures::new();
        assert!(failures.take_first(None).is_none());
        failures.record_cancelled(0..1, CancelReason::Requested);
        for index in [2, 3, 4] {
            failures.record(index, TaskError::Failed(index));
        }
        assert!(matches!(failures.take_first(Some(3)), Some(TaskError::Failed(3))));
        assert!(matches!(failures.take_first(Some(3)), Some(TaskError::Failed(2))));
        assert!(matches!(failures.take_first(None), Some(TaskError::Failed(4))));
        assert!(matches!(failures.take_first(None), Some(TaskError::Cancelled(_))));
        assert!(failures.take_first(None).is_none() && failures.is_empty());
    }
}
