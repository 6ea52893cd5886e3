//! The outcomes of the tasks of one group, by the order of spawning.
//!
//! Failures are rare and are kept apart from the values. Outcomes that were yielded one by one take
//! no memory any more. This module knows nothing of threads.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;

use super::failures::Failures;
use super::values::Values;
use crate::error::{CancelReason, TaskError};

/// The outcomes of the tasks that have ended.
pub(super) struct Outcomes<T, E> {
    /// The values of the tasks that succeeded.
    values: Values<T>,
    /// Why the other tasks have no value.
    failures: Failures<E>,
    /// The task that succeeded first, even if its outcome was taken.
    first_success: Option<usize>,
    /// The task that failed or panicked first, even if its outcome was taken.
    first_failure: Option<usize>,
    /// The task whose outcome closes the group, until that outcome is recorded.
    deciding_task: Option<usize>,
    /// Kept once a caller wants the outcomes one by one.
    completion_order: Option<Box<CompletionOrder>>,
}

/// The order in which tasks end.
struct CompletionOrder {
    /// The tasks that have ended and were not yielded, oldest first.
    ended: VecDeque<usize>,
}

impl<T, E> Outcomes<T, E> {
    pub(super) fn new() -> Self {
        Self {
            values: Values::new(),
            failures: Failures::new(),
            first_success: None,
            first_failure: None,
            deciding_task: None,
            completion_order: None,
        }
    }

    /// Notes that an outcome closes the group, before it is recorded. An earlier success or failure
    /// stays the first.
    pub(super) fn note_decision(&mut self, index: usize, outcome: &Result<T, TaskError<E>>) {
        self.deciding_task = Some(index);
        match outcome {
            Ok(_) => self.note_success(index),
            Err(_) => self.note_failure(index),
        }
    }

    /// Records the outcome of a task that has ended.
    pub(super) fn record(&mut self, index: usize, outcome: Result<T, TaskError<E>>) {
        if self.deciding_task == Some(index) {
            self.deciding_task = None;
        }
        match outcome {
            Ok(value) => {
                self.note_success(index);
                self.values.record(index, value);
            }
            Err(TaskError::Cancelled(reason)) => return self.record_cancelled(index..index + 1, reason),
            Err(failure) => {
                self.note_failure(index);
                self.values.record_none(index);
                self.failures.record(index, failure);
            }
        }
        if let Some(order) = &mut self.completion_order {
            order.ended.push_back(index);
        }
    }

    /// Records the same cancellation for a range of tasks, none of which closes the group.
    pub(super) fn record_cancelled(&mut self, tasks: Range<usize>, reason: CancelReason) {
        tasks.clone().for_each(|index| self.values.record_none(index));
        if let Some(order) = &mut self.completion_order {
            order.ended.extend(tasks.clone());
        }
        self.failures.record_cancelled(tasks, reason);
    }

    fn note_success(&mut self, index: usize) {
        self.first_success.get_or_insert(index);
    }

    fn note_failure(&mut self, index: usize) {
        self.first_failure.get_or_insert(index);
    }

    /// Returns `true` if there is a value, and the outcome that closes the group is not still to be
    /// recorded.
    pub(super) fn has_success(&self) -> bool {
        !self.values.is_empty() && self.deciding_task.is_none()
    }

    /// Takes the value of the task that succeeded first. If that one was taken before, takes the
    /// first value by spawn order.
    pub(super) fn take_success(&mut self) -> Option<T> {
        let first = self.first_success.and_then(|index| self.values.take(index));
        first.or_else(|| self.values.take_first())
    }

    /// Takes the first failure or panic by time. If that one was taken before, takes the first by
    /// spawn order. If there is none, takes the first cancellation by spawn order.
    pub(super) fn take_failure(&mut self) -> Option<TaskError<E>> {
        self.failures.take_first(self.first_failure)
    }

    /// Takes the outcome of a task that has ended, unless it was yielded. Each task is asked once.
    pub(super) fn take(&mut self, index: usize) -> Option<Result<T, TaskError<E>>> {
        match self.failures.take(index) {
            Some(failure) => Some(Err(failure)),
            None => self.values.take(index).map(Ok),
        }
    }

    /// Takes all values in spawn order.
    pub(super) fn take_values(&mut self) -> Vec<T> {
        self.values.take_all()
    }

    /// Takes everything, to be dropped outside of locks, or `None` if there is no outcome.
    pub(super) fn take_unclaimed(&mut self) -> Option<Self> {
        (!self.is_empty()).then(|| mem::replace(self, Self::new()))
    }

    /// Returns `true` if there is no outcome, except those that were taken.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty() && self.failures.is_empty()
    }

    /// Returns `true` if the order in which tasks end is kept.
    pub(super) fn tracks_completions(&self) -> bool {
        self.completion_order.is_some()
    }

    /// Keeps the order in which tasks end from now on. `ended` are the tasks that have ended
    /// before.
    pub(super) fn track_completions(&mut self, ended: impl Iterator<Item = usize>) {
        self.completion_order = Some(Box::new(CompletionOrder { ended: ended.collect() }));
    }

    /// Returns `true` if a task has ended that was not yielded.
    pub(super) fn has_completion(&self) -> bool {
        self.completion_order.as_ref().is_some_and(|order| !order.ended.is_empty())
    }

    /// Yields the outcome of the task that ended first of those that were not yielded.
    pub(super) fn next_completion(&mut self) -> Option<(usize, Result<T, TaskError<E>>)> {
        let index = self.completion_order.as_mut()?.ended.pop_front()?;
        let outcome = self.take(index);
        self.values.release(index);
        outcome.map(|outcome| (index, outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Arc, AtomicUsize, Ordering};
    use std::iter;

    type Kept<T> = Outcomes<T, &'static str>;

    #[test]
    fn yielded_outcomes_take_no_memory() {
        let mut outcomes = Kept::new();
        outcomes.track_completions(0..0);
        for index in 0..10_000 {
            let outcome = match index % 3 {
                0 => Err(TaskError::Failed("third")),
                1 => Err(TaskError::Cancelled(CancelReason::Requested)),
                _ => Ok(index),
            };
            outcomes.record(index, outcome);
            assert!(matches!(outcomes.next_completion(), Some((found, _)) if found == index));
            assert!(outcomes.take_unclaimed().is_none());
            assert_eq!(outcomes.values.places(), 0);
        }
    }

    #[test]
    fn the_first_by_time_comes_first_and_taken_outcomes_are_skipped() {
        let mut outcomes = Kept::new();
        outcomes.track_completions(0..0);
        outcomes.record(0, Err(TaskError::Cancelled(CancelReason::Requested)));
        outcomes.record(2, Err(TaskError::Failed("early")));
        outcomes.record(1, Err(TaskError::Failed("late")));
        outcomes.record(5, Ok(5));
        outcomes.record(4, Ok(4));
        assert!(matches!(outcomes.take(2), Some(Err(TaskError::Failed("early")))));
        assert!(matches!(outcomes.take_failure(), Some(TaskError::Failed("late"))));
        assert!(matches!(outcomes.take_failure(), Some(TaskError::Cancelled(_))));
        assert!(outcomes.take_failure().is_none());
        assert_eq!((outcomes.take_success(), outcomes.has_success()), (Some(5), true));
        assert_eq!((outcomes.take_success(), outcomes.has_success()), (Some(4), false));
        assert_eq!(outcomes.take_success(), None);
    }

    #[test]
    fn units_are_counted_and_never_confused_with_failures() {
        let mut outcomes = Outcomes::<(), &str>::new();
        for index in 0..10 {
            outcomes.record(index, if index == 4 { Err(TaskError::Failed("fourth")) } else { Ok(()) });
        }
        outcomes.record_cancelled(10..20, CancelReason::Requested);
        assert!(matches!(outcomes.take_failure(), Some(TaskError::Failed("fourth"))));
        assert_eq!(iter::from_fn(|| outcomes.take_failure()).count(), 10);
        assert_eq!(outcomes.take_values().len(), 9);
    }

    #[test]
    fn yielded_units_leave_the_others_in_order() {
        let mut outcomes = Outcomes::<(), &str>::new();
        outcomes.track_completions(0..0);
        for index in [0, 2, 1] {
            outcomes.record(index, if index == 1 { Err(TaskError::Failed("first")) } else { Ok(()) });
        }
        assert!(matches!(outcomes.next_completion(), Some((0, Ok(())))));
        let rest: Vec<_> = (0..3).filter_map(|index| outcomes.take(index)).collect();
        assert!(matches!(rest[..], [Err(TaskError::Failed("first")), Ok(())]));
    }

    #[test]
    fn a_unit_that_was_taken_no_longer_counts_as_a_success() {
        let mut outcomes = Outcomes::<(), &str>::new();
        outcomes.record(0, Ok(()));
        assert!(outcomes.has_success());
        assert_eq!((outcomes.take_success(), outcomes.has_success()), (Some(()), false));
        assert_eq!(outcomes.take_success(), None);
    }

    #[test]
    fn a_panic_in_a_destructor_does_not_prevent_the_other_drops() {
        struct Bomb(Arc<AtomicUsize>);
        impl Drop for Bomb {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
                std::panic::resume_unwind(Box::new("bomb"));
            }
        }
        let dropped = Arc::new(AtomicUsize::new(0));
        let mut outcomes = Outcomes::<Bomb, Bomb>::new();
        for index in 0..6 {
            let bomb = Bomb(Arc::clone(&dropped));
            outcomes.record(index, if index % 2 == 0 { Ok(bomb) } else { Err(TaskError::Failed(bomb)) });
        }
        drop(outcomes);
        assert_eq!(dropped.load(Ordering::SeqCst), 6);
    }

    #[test]
    fn a_deciding_success_comes_before_one_that_is_recorded_earlier() {
        let mut outcomes = Kept::new();
        outcomes.note_decision(1, &Ok(1));
        outcomes.record(0, Ok(0));
        assert!(!outcomes.has_success());
        outcomes.record(1, Ok(1));
        assert!(outcomes.has_success());
        assert_eq!(outcomes.take_success(), Some(1));
    }
}
