//! The tasks of a group that have not started, oldest first.
//!
//! The handle of a task takes it out of turn. Closing the gap would take linear time, so the place
//! stays. Its task is replaced by a closure that captures nothing, and its index is noted.
//!
//! Rules:
//! 1. The last place holds a task, unless there is no place.
//! 2. After a task was taken, at most half of the places are gaps. Beyond that all gaps are closed.
//!    On average, this takes constant time for each task that was taken.
//! 3. Tasks are found by binary search. So [`contains`](TaskQueue::contains) and
//!    [`take`](TaskQueue::take) need tasks in the order of their indices. Only tasks of scopes have
//!    handles. Those are queued once, in that order; retried tasks are not.

use std::collections::BTreeSet;
use std::mem;
use std::panic::Location;

use super::body::Body;
use super::small_deque::SmallDeque;
use crate::observe::task_info::TaskId;
use crate::task::closure::Closure;
use crate::time::clock::Timestamp;

/// A task in the group's queue.
pub(super) struct PendingTask<R: 'static> {
    /// The task's position in spawn order.
    pub(super) index: usize,
    /// Called or dropped once.
    pub(super) body: Body<R>,
    /// The identity that observers see.
    pub(super) id: TaskId,
    /// Where the task was spawned.
    pub(super) location: &'static Location<'static>,
    /// When the task was spawned, if the pool takes times.
    pub(super) queued_at: Option<Timestamp>,
}

/// The queue of a group.
pub(super) struct TaskQueue<R: 'static> {
    places: SmallDeque<PendingTask<R>>,
    /// The indices of the tasks that were taken out of turn, and whose places are gaps.
    gaps: BTreeSet<usize>,
}

impl<R> TaskQueue<R> {
    pub(super) const fn new() -> Self {
        Self { places: SmallDeque::new(), gaps: BTreeSet::new() }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Returns the places, to push a task to them. A push through this type would move the task
    /// once more.
    #[inline]
    pub(super) fn places(&mut self) -> &mut SmallDeque<PendingTask<R>> {
        &mut self.places
    }

    /// Returns the places, to pop the first task from them: the first place is no gap.
    #[inline]
    pub(super) fn places_without_gap_in_front(&mut self) -> &mut SmallDeque<PendingTask<R>> {
        if !self.gaps.is_empty() {
            self.trim();
        }
        &mut self.places
    }

    /// Returns the oldest task.
    pub(super) fn oldest(&self) -> Option<&PendingTask<R>> {
        self.places.iter().find(|task| !self.is_gap(task.index))
    }

    /// Returns the indices of the tasks.
    pub(super) fn indices(&self) -> impl Iterator<Item = usize> {
        self.places.iter().map(|task| task.index).filter(|index| !self.is_gap(*index))
    }

    /// Returns `true` if this task has not started; see rule 3. Takes logarithmic time.
    pub(super) fn contains(&self, index: usize) -> bool {
        !self.is_gap(index) && self.places.position_by_key(&index, |task| task.index).is_some()
    }

    /// Takes this task out of turn, if it has not started; see rule 3. Takes logarithmic time.
    pub(super) fn take(&mut self, index: usize) -> Option<PendingTask<R>> {
        if self.is_gap(index) {
            return None;
        }
        let position = self.places.position_by_key(&index, |task| task.index)?;
        let location = Location::caller();
        let body = Body::Once(Closure::new(|| unreachable!("a gap is not called")));
        let gap = PendingTask { index, body, id: TaskId(0), location, queued_at: None };
        let task = self.places.take_leaving(position, gap);
        self.gaps.insert(index);
        self.trim();
        task
    }

    /// Takes all tasks. Takes constant time if there are no gaps.
    pub(super) fn take_all(&mut self) -> SmallDeque<PendingTask<R>> {
        if !self.gaps.is_empty() {
            self.close_gaps();
        }
        self.places.take_all()
    }

    /// Keeps rules 1 and 2, and makes the first place hold a task.
    #[cold]
    fn trim(&mut self) {
        let gaps = &mut self.gaps;
        while self.places.front().is_some_and(|place| gaps.remove(&place.index)) {
            self.places.drop_front_gap();
        }
        while self.places.back().is_some_and(|place| gaps.remove(&place.index)) {
            self.places.drop_back_gap();
        }
        if gaps.len() > self.places.places_len() / 2 {
            self.close_gaps();
        }
    }

    fn close_gaps(&mut self) {
        let gaps = mem::take(&mut self.gaps);
        self.places.close_gaps(|place| !gaps.contains(&place.index));
    }

    fn is_gap(&self, index: usize) -> bool {
        self.gaps.contains(&index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue_of(tasks: usize) -> TaskQueue<()> {
        let mut queue = TaskQueue::new();
        for index in (0..tasks).map(|index| 2 * index) {
            let (body, location) = (Body::once(|| ()), Location::caller());
            queue.places().push_back(PendingTask { index, body, id: TaskId(index as u64), location, queued_at: None });
        }
        queue
    }

    /// Takes every task in the order of `keys`, and checks the queue after each.
    fn take_by(key: impl Fn(usize) -> usize) {
        const TASKS: usize = 100;
        let mut queue = queue_of(TASKS);
        let mut left: BTreeSet<usize> = queue.indices().collect();
        let mut order: Vec<usize> = left.iter().copied().collect();
        order.sort_by_key(|index| key(*index));
        for index in order {
            assert!(queue.contains(index) && !queue.contains(index + 1));
            assert_eq!(queue.take(index).map(|task| task.index), Some(index));
            left.remove(&index);
            assert!(queue.take(index).is_none() && !queue.contains(index));
            assert_eq!((queue.len(), queue.is_empty()), (left.len(), left.is_empty()));
            assert!(queue.indices().eq(left.iter().copied()));
            assert!(queue.places.places_len() <= 2 * queue.len(), "{} places", queue.places.places_len());
        }
    }

    /// Fault 462.
    #[test]
    fn tasks_are_taken_in_any_order_and_leave_at_most_as_many_gaps_as_tasks() {
        take_by(|index| index);
        take_by(|index| usize::MAX - index);
        take_by(|index| index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    }

    #[test]
    fn gaps_are_never_popped_and_never_among_all_tasks() {
        let mut queue = queue_of(8); // 0, 2, .. 14
        for index in [2, 4, 10] {
            assert!(queue.take(index).is_some());
        }
        assert_eq!(queue.places_without_gap_in_front().pop_front().map(|task| task.index), Some(0));
        assert_eq!(queue.places_without_gap_in_front().pop_front().map(|task| task.index), Some(6));
        assert!(queue.take_all().into_iter().map(|task| task.index).eq([8, 12, 14]));
        assert!(queue.is_empty() && queue.places_without_gap_in_front().pop_front().is_none() && queue.gaps.is_empty());
    }
}
