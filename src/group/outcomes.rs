//! What the tasks of one group left behind, by the order of their spawning.
//!
//! Values lie in one dense vector, except values without a size, of which a count would do and which take no memory however many there
//! are; trouble, which is rare, lies in a map. Knows nothing of threads.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use crate::error::TaskError;
use crate::unwind;

/// The outcomes of the tasks that have ended.
pub(super) struct Outcomes<T, E> {
    /// By index; `None` where there is no value (yet, or any more). Unused if `T` has no size.
    values: Vec<Option<T>>,
    /// The values if `T` has no size: one is as good as another.
    sizeless: Vec<T>,
    /// By index: tasks that failed, panicked or were cancelled.
    troubles: BTreeMap<usize, TaskError<E>>,
    /// The task that failed or panicked first.
    first_trouble: Option<usize>,
    /// The task that succeeded first.
    first_success: Option<usize>,
    /// The tasks that have ended and were not handed out, oldest first; kept once somebody wants them one by one.
    ended: Option<VecDeque<usize>>,
}

impl<T, E> Outcomes<T, E> {
    pub(super) fn new() -> Self {
        Self {
            values: Vec::new(),
            sizeless: Vec::new(),
            troubles: BTreeMap::new(),
            first_trouble: None,
            first_success: None,
            ended: None,
        }
    }

    /// Notes that a task failed or panicked whose outcome will land later; the first stays first.
    pub(super) fn note_trouble(&mut self, index: usize) {
        self.first_trouble.get_or_insert(index);
    }

    /// Lets the outcome of a task land.
    pub(super) fn put(&mut self, index: usize, outcome: Result<T, TaskError<E>>) {
        match outcome {
            Ok(value) => {
                self.first_success.get_or_insert(index);
                if size_of::<T>() == 0 {
                    self.sizeless.push(value);
                } else {
                    if self.values.len() <= index {
                        self.values.resize_with(index + 1, || None);
                    }
                    self.values[index] = Some(value);
                }
            }
            Err(trouble) => {
                if !matches!(trouble, TaskError::Cancelled(_)) {
                    self.note_trouble(index);
                }
                self.troubles.insert(index, trouble);
            }
        }
        if let Some(ended) = &mut self.ended {
            ended.push_back(index);
        }
    }

    /// The task that failed or panicked first.
    pub(super) fn first_trouble(&self) -> Option<usize> {
        self.first_trouble
    }

    /// The task that succeeded first.
    pub(super) fn first_success(&self) -> Option<usize> {
        self.first_success
    }

    /// The first task, by spawn order, that left no value: failed, panicked or cancelled.
    pub(super) fn lowest_trouble(&self) -> Option<usize> {
        self.troubles.keys().next().copied()
    }

    /// Takes the outcome of a task that has ended and was not taken before.
    pub(super) fn take(&mut self, index: usize) -> Option<Result<T, TaskError<E>>> {
        if let Some(trouble) = self.troubles.remove(&index) {
            return Some(Err(trouble));
        }
        let value = if size_of::<T>() == 0 { self.sizeless.pop() } else { self.values.get_mut(index)?.take() };
        value.map(Ok)
    }

    /// Takes the values that are there, in spawn order.
    pub(super) fn take_values(&mut self) -> Vec<T> {
        if size_of::<T>() == 0 {
            mem::take(&mut self.sizeless)
        } else {
            mem::take(&mut self.values).into_iter().flatten().collect()
        }
    }

    /// From now on keeps the order in which tasks end; `have_ended` are those that have ended before.
    pub(super) fn keep_order(&mut self, have_ended: impl Iterator<Item = usize>) {
        if self.ended.is_none() {
            self.ended = Some(have_ended.collect());
        }
    }

    /// Whether a task has ended that was not handed out.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.as_ref().is_some_and(|ended| !ended.is_empty())
    }

    /// Hands out the task that ended first of those not handed out.
    pub(super) fn next_ended(&mut self) -> Option<(usize, Result<T, TaskError<E>>)> {
        let index = self.ended.as_mut()?.pop_front()?;
        self.take(index).map(|outcome| (index, outcome))
    }
}

impl<T, E> Drop for Outcomes<T, E> {
    /// Drops values and errors one by one, so that a panic of one destructor is contained before the next is called.
    fn drop(&mut self) {
        for value in mem::take(&mut self.values).into_iter().flatten() {
            unwind::discard(value);
        }
        for value in mem::take(&mut self.sizeless) {
            unwind::discard(value);
        }
        for trouble in mem::take(&mut self.troubles).into_values() {
            unwind::discard(trouble);
        }
    }
}
