//! What the tasks of a group left that brought no value. Most groups have nothing of it, and pay nothing for it.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;
use std::mem;
use std::ops::Range;

use crate::error::{CancelReason, TaskError};
use crate::unwind;

/// Failures, panics and cancellations, by the index of the task.
pub(super) struct Failures<E>(Option<Box<Lists<E>>>);

struct Lists<E> {
    /// Tasks that failed or panicked.
    failed: BTreeMap<usize, TaskError<E>>,
    /// Cancelled tasks, thousands at once: by the index of the first of a run, where the run ends, and why.
    cancelled: BTreeMap<usize, (usize, CancelReason)>,
}

impl<E> Failures<E> {
    pub(super) fn new() -> Self {
        Self(None)
    }

    /// Keeps a failure or panic.
    pub(super) fn put(&mut self, index: usize, trouble: TaskError<E>) {
        self.lists().failed.insert(index, trouble);
    }

    /// Keeps the same cancellation for a run of tasks.
    pub(super) fn put_cancelled(&mut self, run: Range<usize>, reason: CancelReason) {
        let Lists { cancelled, .. } = self.lists();
        match cancelled.last_entry().as_mut().map(OccupiedEntry::get_mut) {
            Some((end, same)) if (*end, *same) == (run.start, reason) => *end = run.end,
            _ => drop(cancelled.insert(run.start, (run.end, reason))),
        }
    }

    /// Takes that of a task.
    pub(super) fn take(&mut self, index: usize) -> Option<TaskError<E>> {
        let lists = self.0.as_mut()?;
        lists.failed.remove(&index).or_else(|| lists.take_cancelled(index))
    }

    /// Takes the failure or panic of the task `first`, if it is there; else the first by index; else the first
    /// cancellation by index.
    pub(super) fn take_first(&mut self, first: Option<usize>) -> Option<TaskError<E>> {
        let lists = self.0.as_mut()?;
        let first = first.filter(|index| lists.failed.contains_key(index));
        match first.or_else(|| lists.failed.keys().next().copied()) {
            Some(index) => lists.failed.remove(&index),
            None => lists.cancelled.keys().next().copied().and_then(|index| lists.take_cancelled(index)),
        }
    }

    /// Whether no error, panic or cancellation is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|lists| lists.failed.is_empty() && lists.cancelled.is_empty())
    }

    fn lists(&mut self) -> &mut Lists<E> {
        self.0.get_or_insert_with(|| Box::new(Lists { failed: BTreeMap::new(), cancelled: BTreeMap::new() }))
    }
}

impl<E> Lists<E> {
    /// Takes the cancellation of a task out of the run that it lies in.
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
    /// Drops errors one by one, so that a panic of one destructor is contained before the next is called.
    fn drop(&mut self) {
        for trouble in mem::take(&mut self.failed).into_values() {
            unwind::discard(trouble);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelled_runs_are_taken_apart_by_index() {
        let mut failures = Failures::<()>::new();
        failures.put_cancelled(1..4, CancelReason::GroupEnded);
        failures.put_cancelled(4..6, CancelReason::GroupEnded);
        failures.put_cancelled(6..8, CancelReason::ShutDown);
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
        failures.put_cancelled(0..1, CancelReason::Requested);
        for index in [2, 3, 4] {
            failures.put(index, TaskError::Failed(index));
        }
        assert!(matches!(failures.take_first(Some(3)), Some(TaskError::Failed(3))));
        assert!(matches!(failures.take_first(Some(3)), Some(TaskError::Failed(2))));
        assert!(matches!(failures.take_first(None), Some(TaskError::Failed(4))));
        assert!(matches!(failures.take_first(None), Some(TaskError::Cancelled(_))));
        assert!(failures.take_first(None).is_none() && failures.is_empty());
    }
}
