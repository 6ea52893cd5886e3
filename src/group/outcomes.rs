//! What the tasks of one group left behind, by the order of their spawning.
//!
//! Values lie in one dense queue, except values without a size, of which a count would do and which take no memory
//! however many there are; trouble, which is rare, lies elsewhere. What was handed out one by one takes no room any
//! more. Knows nothing of threads.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::ops::Range;

use super::failures::Failures;
use crate::error::{CancelReason, TaskError};
use crate::unwind;

/// The outcomes of the tasks that have ended.
pub(super) struct Outcomes<T, E> {
    /// The values, if `T` has a size; the first is that of the task `base`.
    values: VecDeque<Slot<T>>,
    /// Tasks below this have ended and left nothing in `values`, or, if `T` has no size, were handed out.
    base: usize,
    /// The values, if `T` has no size: one is as good as another.
    sizeless: Vec<T>,
    /// How many values there are.
    successes: usize,
    /// What other tasks left.
    failures: Failures<E>,
    /// The task that failed or panicked first, even if its outcome was handed out.
    first_trouble: Option<usize>,
    /// Whether a task failed or panicked before the first one succeeded.
    trouble_came_first: bool,
    /// The task that succeeded first, even if its outcome was handed out.
    first_success: Option<usize>,
    /// The task whose outcome decides the group, until it has landed.
    deciding: Option<usize>,
    /// Kept once somebody wants the outcomes one by one.
    order: Option<Box<Order>>,
}

/// The order in which tasks end.
struct Order {
    /// The tasks that have ended and were not handed out, oldest first.
    ended: VecDeque<usize>,
    /// Of tasks whose values have no size, those at and above `base` that were handed out.
    handed_out: BTreeSet<usize>,
}

/// The place of a value.
enum Slot<T> {
    /// The task has not ended.
    Empty,
    Value(T),
    /// The value was handed out, or there is none.
    Gone,
}

impl<T, E> Outcomes<T, E> {
    pub(super) fn new() -> Self {
        Self {
            values: VecDeque::new(),
            base: 0,
            sizeless: Vec::new(),
            successes: 0,
            failures: Failures::new(),
            first_trouble: None,
            trouble_came_first: false,
            first_success: None,
            deciding: None,
            order: None,
        }
    }

    /// Notes an outcome that decides the group and will land later; the first of its kind stays first.
    pub(super) fn note_decision(&mut self, index: usize, outcome: &Result<T, TaskError<E>>) {
        self.deciding = Some(index);
        match outcome {
            Ok(_) => {
                self.first_success.get_or_insert(index);
            }
            Err(_) => self.note_trouble(index),
        }
    }

    fn note_trouble(&mut self, index: usize) {
        self.first_trouble.get_or_insert(index);
        self.trouble_came_first |= self.first_success.is_none();
    }

    /// Lets the outcome of a task land.
    pub(super) fn put(&mut self, index: usize, outcome: Result<T, TaskError<E>>) {
        self.deciding = self.deciding.filter(|deciding| *deciding != index);
        match outcome {
            Ok(value) => {
                self.first_success.get_or_insert(index);
                self.successes += 1;
                if size_of::<T>() == 0 {
                    self.sizeless.push(value);
                } else {
                    *self.slot(index) = Slot::Value(value);
                }
            }
            Err(TaskError::Cancelled(reason)) => return self.put_cancelled(index..index + 1, reason),
            Err(trouble) => {
                self.note_trouble(index);
                self.failures.put(index, trouble);
                if size_of::<T>() > 0 {
                    *self.slot(index) = Slot::Gone;
                }
            }
        }
        if let Some(order) = &mut self.order {
            order.ended.push_back(index);
        }
    }

    /// Lets the same cancellation land for a run of tasks, none of which decides the group.
    pub(super) fn put_cancelled(&mut self, run: Range<usize>, reason: CancelReason) {
        if size_of::<T>() > 0 {
            for index in run.clone() {
                *self.slot(index) = Slot::Gone;
            }
        }
        if let Some(order) = &mut self.order {
            order.ended.extend(run.clone());
        }
        self.failures.put_cancelled(run, reason);
    }

    /// Whether there is a value, and none that came before it is about to land.
    pub(super) fn has_success(&self) -> bool {
        self.successes > 0 && self.deciding.is_none()
    }

    /// Whether a task failed or panicked before the first one succeeded, and that has landed.
    pub(super) fn trouble_came_first(&self) -> bool {
        self.trouble_came_first && self.deciding.is_none()
    }

    /// Takes the value that came first of those that are there; by spawn order, if the very first was handed out.
    pub(super) fn take_success(&mut self) -> Option<T> {
        if size_of::<T>() == 0 {
            return self.take_sizeless();
        }
        let first = self.first_success.and_then(|index| self.take_value(index));
        first.or_else(|| (self.base..self.base + self.values.len()).find_map(|index| self.take_value(index)))
    }

    /// Takes the failure or panic that came first of those that are there; by spawn order, if the very first was handed
    /// out; else the first cancellation by spawn order.
    pub(super) fn take_trouble(&mut self) -> Option<TaskError<E>> {
        self.failures.take_first(self.first_trouble)
    }

    /// Takes the outcome of a task, if it has ended and was not taken before.
    pub(super) fn take(&mut self, index: usize) -> Option<Result<T, TaskError<E>>> {
        match self.failures.take(index) {
            Some(trouble) => Some(Err(trouble)),
            None => self.take_value(index).map(Ok),
        }
    }

    /// Takes the values that are there, in spawn order.
    pub(super) fn take_values(&mut self) -> Vec<T> {
        self.successes = 0;
        if size_of::<T>() == 0 {
            return mem::take(&mut self.sizeless);
        }
        let values = mem::take(&mut self.values).into_iter();
        values.filter_map(|slot| if let Slot::Value(value) = slot { Some(value) } else { None }).collect()
    }

    /// Takes everything, to be dropped outside of locks.
    pub(super) fn take_all(&mut self) -> Self {
        mem::replace(self, Self::new())
    }

    /// Takes what is left, to be dropped outside of locks; `None` if nothing is.
    pub(super) fn take_unclaimed(&mut self) -> Option<Self> {
        (self.successes > 0 || !self.failures.is_empty()).then(|| self.take_all())
    }

    /// Whether the order in which tasks end is kept.
    pub(super) fn keeps_order(&self) -> bool {
        self.order.is_some()
    }

    /// From now on keeps the order in which tasks end; `have_ended` are those that have ended before.
    pub(super) fn keep_order(&mut self, have_ended: impl Iterator<Item = usize>) {
        self.order = Some(Box::new(Order { ended: have_ended.collect(), handed_out: BTreeSet::new() }));
    }

    /// Whether a task has ended that was not handed out.
    pub(super) fn has_completion(&self) -> bool {
        self.order.as_ref().is_some_and(|order| !order.ended.is_empty())
    }

    /// Hands out the task that ended first of those not handed out.
    pub(super) fn next_completion(&mut self) -> Option<(usize, Result<T, TaskError<E>>)> {
        let index = self.order.as_mut()?.ended.pop_front()?;
        let outcome = self.take(index);
        if size_of::<T>() == 0
            && let Some(order) = &mut self.order
        {
            order.handed_out.insert(index);
            while order.handed_out.remove(&self.base) {
                self.base += 1;
            }
        }
        while matches!(self.values.front(), Some(Slot::Gone)) {
            self.values.pop_front();
            self.base += 1;
        }
        outcome.map(|outcome| (index, outcome))
    }

    fn take_value(&mut self, index: usize) -> Option<T> {
        if size_of::<T>() == 0 {
            let is_among = |order: &Order| order.handed_out.contains(&index);
            let was_handed_out = index < self.base || self.order.as_deref().is_some_and(is_among);
            return if was_handed_out { None } else { self.take_sizeless() };
        }
        let slot = self.values.get_mut(index.checked_sub(self.base)?)?;
        match mem::replace(slot, Slot::Gone) {
            Slot::Value(value) => {
                self.successes -= 1;
                Some(value)
            }
            other => {
                *slot = other;
                None
            }
        }
    }

    fn take_sizeless(&mut self) -> Option<T> {
        let value = self.sizeless.pop();
        self.successes -= usize::from(value.is_some());
        value
    }

    /// The place of a task's value, which has not been trimmed away because the task had not ended.
    fn slot(&mut self, index: usize) -> &mut Slot<T> {
        let place = index - self.base;
        if self.values.len() <= place {
            self.values.resize_with(place + 1, || Slot::Empty);
        }
        &mut self.values[place]
    }
}

impl<T, E> Drop for Outcomes<T, E> {
    /// Drops values one by one, so that a panic of one destructor is contained before the next is called.
    fn drop(&mut self) {
        for value in self.values.drain(..) {
            unwind::discard(value);
        }
        for value in self.sizeless.drain(..) {
            unwind::discard(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Arc, AtomicUsize, Ordering};
    use std::iter;

    type Kept<T> = Outcomes<T, &'static str>;

    #[test]
    fn what_was_handed_out_takes_no_room() {
        let mut outcomes = Kept::new();
        outcomes.keep_order(0..0);
        for index in 0..10_000 {
            let outcome = match index % 3 {
                0 => Err(TaskError::Failed("third")),
                1 => Err(TaskError::Cancelled(CancelReason::Requested)),
                _ => Ok(index),
            };
            outcomes.put(index, outcome);
            assert!(matches!(outcomes.next_completion(), Some((found, _)) if found == index));
            assert!(outcomes.values.is_empty() && outcomes.failures.is_empty());
        }
    }

    #[test]
    fn the_first_by_time_comes_first_and_what_was_handed_out_is_passed_over() {
        let mut outcomes = Kept::new();
        outcomes.keep_order(0..0);
        outcomes.put(0, Err(TaskError::Cancelled(CancelReason::Requested)));
        outcomes.put(2, Err(TaskError::Failed("early")));
        outcomes.put(1, Err(TaskError::Failed("late")));
        outcomes.put(5, Ok(5));
        outcomes.put(4, Ok(4));
        assert!(matches!(outcomes.take(2), Some(Err(TaskError::Failed("early")))));
        assert!(matches!(outcomes.take_trouble(), Some(TaskError::Failed("late"))));
        assert!(matches!(outcomes.take_trouble(), Some(TaskError::Cancelled(_))));
        assert!(outcomes.take_trouble().is_none());
        assert_eq!((outcomes.take_success(), outcomes.has_success()), (Some(5), true));
        assert_eq!((outcomes.take_success(), outcomes.has_success()), (Some(4), false));
        assert_eq!(outcomes.take_success(), None);
    }

    #[test]
    fn units_are_counted_and_never_mixed_up_with_trouble() {
        let mut outcomes = Outcomes::<(), &str>::new();
        for index in 0..10 {
            outcomes.put(index, if index == 4 { Err(TaskError::Failed("fourth")) } else { Ok(()) });
        }
        outcomes.put_cancelled(10..20, CancelReason::Requested);
        assert!(outcomes.values.is_empty(), "units take no places, nor does trouble among them");
        assert!(matches!(outcomes.take_trouble(), Some(TaskError::Failed("fourth"))));
        assert_eq!(iter::from_fn(|| outcomes.take_trouble()).count(), 10);
        assert_eq!(outcomes.take_values().len(), 9);
    }

    #[test]
    fn units_that_were_handed_out_leave_the_others_in_order() {
        let mut outcomes = Outcomes::<(), &str>::new();
        outcomes.keep_order(0..0);
        for index in [0, 2, 1] {
            outcomes.put(index, if index == 1 { Err(TaskError::Failed("first")) } else { Ok(()) });
        }
        assert!(matches!(outcomes.next_completion(), Some((0, Ok(())))));
        let rest: Vec<_> = (0..3).filter_map(|index| outcomes.take(index)).collect();
        assert!(matches!(rest[..], [Err(TaskError::Failed("first")), Ok(())]));
    }

    #[test]
    fn a_unit_that_was_taken_as_a_success_is_no_success_any_more() {
        let mut outcomes = Outcomes::<(), &str>::new();
        outcomes.put(0, Ok(()));
        assert!(outcomes.has_success());
        assert_eq!((outcomes.take_success(), outcomes.has_success()), (Some(()), false));
        assert_eq!(outcomes.take_success(), None);
    }

    #[test]
    fn destructors_that_panic_do_not_keep_others_from_being_called() {
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
            outcomes.put(index, if index % 2 == 0 { Ok(bomb) } else { Err(TaskError::Failed(bomb)) });
        }
        drop(outcomes);
        assert_eq!(dropped.load(Ordering::SeqCst), 6);
    }

    #[test]
    fn a_success_that_decides_comes_before_one_that_lands_earlier() {
        let mut outcomes = Kept::new();
        outcomes.note_decision(1, &Ok(1));
        outcomes.put(0, Ok(0));
        assert!(!outcomes.has_success());
        outcomes.put(1, Ok(1));
        assert!(outcomes.has_success());
        assert_eq!(outcomes.take_success(), Some(1));
    }
}
