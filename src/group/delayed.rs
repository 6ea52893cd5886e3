//! Tasks of a group that wait for their next attempt.
//!
//! | a task is | meaning | next |
//! |---|---|---|
//! | *running* | makes an attempt | *delayed*, by a failure that is retried; done |
//! | *delayed* | in `State::delayed`, with a timer | *unstarted*, when it is due; done, by a cancellation |
//! | *unstarted* | in the queue of the group, like a new task | *running*; done, by a cancellation |
//!
//! Rules:
//! 1. A delayed task holds no worker. It counts neither against the limit nor against the capacity
//!    of its group. A place for its timer is reserved from its first to its last attempt, so
//!    [`MAX_TIMERS`](crate::timer::thread::MAX_TIMERS) bounds the number of such tasks.
//! 2. A task and its timer are added together and removed together, under the group's lock.
//! 3. The first thread that looks at a due task moves it to the queue of the group: the worker to
//!    which the timer thread hands the timer, or a worker that waits for the group. The latter
//!    keeps time itself, because there may be no other worker.
//! 4. A cancellation of the group takes the delayed tasks with the unstarted ones.
//!
//! Races:
//! - *Close and delay*: the later one under the group's lock drops the task.
//! - *Due and due* (timer and waiter): the first under the lock moves the task; the other finds
//!   nothing.
//! - *End of the pool and delay*: the timer thread refuses the timer, and the task is cancelled
//!   here; or the end finds the timer, and cancels the delayed tasks through it.

use std::time::Instant;

use super::any_end::WaitFor;
use super::body::{Body, RepeatedBody, Step};
use super::result::TaskResult;
use super::small_deque::SmallDeque;
use super::state::{GroupInner, State};
use super::task_queue::PendingTask;
use crate::error::{CancelReason, GroupError};
use crate::observe::task_origin::TaskOrigin;
use crate::observe::worker_counters::WorkerCounters;
use crate::priority::Priority;
use crate::snapshot::{TimerKind, TimerSnapshot};
use crate::sync::{Arc, MutexGuard, Weak};
use crate::task::executor::{Executor, TaskMeta};
use crate::task::job::Task;
use crate::task::waits::{self, Kind, Needs};
use crate::time::deadline::Deadline;
use crate::timer::thread::TimerThread;
use crate::unwind;

impl<R: TaskResult> GroupInner<R> {
    /// Returns the timers of the pool.
    pub(crate) fn timers(&self) -> &Arc<TimerThread> {
        &self.pool.timers
    }

    /// Blocks until fewer than `bound` tasks are not done, those that are delayed included. The
    /// caller adds the tasks one by one, and so waits for the end of any one of them.
    pub(crate) fn wait_for_fewer(self: &Arc<Self>, bound: usize) -> Result<(), GroupError<R::Error>> {
        let is_below = |state: &State<R>| state.total - state.done < bound;
        drop(self.wait_until(Deadline::NEVER, (WaitFor::Next, Kind::Certain), is_below)?);
        Ok(())
    }

    /// Makes an attempt of a task that this runner has taken, and completes or delays the task.
    /// Returns the lock.
    #[cold]
    pub(super) fn make_attempt<'a>(
        self: &'a Arc<Self>,
        counters: &WorkerCounters,
        mut task: PendingTask<R>,
    ) -> MutexGuard<'a, State<R>> {
        let Body::Repeated(RepeatedBody { attempts, .. }) = &mut task.body else {
            unreachable!("the caller has checked the body")
        };
        // Only the first attempt records how long the task was queued.
        let queued_at = task.queued_at.take();
        let meta = TaskMeta { origin: self.origin(task.id, task.location), queued_at };
        match attempts.make(&self.pool.executor, counters, &meta, self.token()) {
            Step::Again(due) => self.delay(counters, task, due),
            Step::Ended(result) => {
                let (index, origin) = (task.index, meta.origin);
                unwind::discard(task);
                self.close_if_cancelled();
                let outcome = result.into_result().map_err(|error| Self::failed(&origin, index, error));
                let state = self.complete(counters, index, outcome);
                self.pool.executor.task_done(counters, 1);
                state
            }
        }
    }

    /// Sets the timer of a task for its next attempt, or drops the task if the group or the pool is
    /// closed.
    fn delay<'a>(
        self: &'a Arc<Self>,
        counters: &WorkerCounters,
        task: PendingTask<R>,
        due: Deadline,
    ) -> MutexGuard<'a, State<R>> {
        self.close_if_cancelled();
        let mut state = self.state.lock();
        state.running.remove(&task.index);
        let refused = match state.closed {
            Some(reason) => Some((reason, task)),
            None => self.insert_delayed(&mut state, task, due).map(|task| (CancelReason::ShutDown, task)),
        };
        let helpers = state.helpers > 0;
        state.pausing += 1;
        drop(state);
        match refused {
            // The frame below is that of the task, which is not done yet.
            Some((reason, task)) => self.drop_unstarted(counters, SmallDeque::from(task), reason),
            None => {
                if helpers {
                    self.changed.notify_all(); // to sleep until the task is due
                }
                waits::notify_change([self.id().into()], self.pool.id());
            }
        }
        let mut state = self.state.lock();
        state.pausing -= 1;
        state
    }

    /// Adds a task and its timer. Returns the task if the timer is refused.
    fn insert_delayed(
        self: &Arc<Self>,
        state: &mut State<R>,
        task: PendingTask<R>,
        due: Deadline,
    ) -> Option<PendingTask<R>> {
        let Body::Repeated(RepeatedBody { reservation: Some(reservation), .. }) = &task.body else {
            unreachable!("only a body that makes attempts and has a place for a timer is delayed")
        };
        let TaskOrigin { id, location, label } = self.origin(task.id, task.location);
        let shown = TimerSnapshot::of_task(TimerKind::Retry, id, label, location);
        let timer = Arc::new(GroupTimer { group: Arc::downgrade(self), class: self.settings.priority, shown });
        match reservation.insert(due, timer) {
            Ok(key) => {
                state.delayed.get_or_insert_default().insert((due, task.index), (task, key));
                None
            }
            Err(_) => Some(task),
        }
    }

    /// Moves the delayed tasks that are due to the queue of the group.
    #[cold]
    fn start_due(&self, state: &mut State<R>) {
        let now = self.pool.timers.clock().now();
        let State { delayed, unstarted, .. } = state;
        while let Some(entry) = delayed.as_mut().and_then(|tasks| tasks.first_entry())
            && entry.key().0 <= Deadline::at(now)
        {
            let (task, key) = entry.remove();
            drop(self.pool.timers.remove(key)); // only a weak reference to this group
            unstarted.places().push_back(task);
        }
        delayed.take_if(|tasks| tasks.is_empty());
    }

    /// Takes the delayed tasks and their timers.
    #[cold]
    pub(super) fn take_delayed(&self, state: &mut State<R>, tasks: &mut SmallDeque<PendingTask<R>>) {
        for (task, key) in state.delayed.take().into_iter().flat_map(|tasks| tasks.into_values()) {
            drop(self.pool.timers.remove(key)); // only a weak reference to this group
            tasks.push_back(task);
        }
    }

    /// Reports when a worker can help with the delayed tasks.
    pub(super) fn report_delayed(&self, state: &State<R>, needs: &mut Needs) {
        if state.tickets.runners() < self.settings.limit
            && let Some(due) = state.next_due()
        {
            if due <= self.pool.timers.clock().now() {
                needs.worker = true;
            } else {
                needs.worker_at = Some(due);
            }
        }
    }

    /// Moves the delayed tasks that are due to the queue of the group, and sends tickets for them.
    /// Their timers are gone, so no other thread would.
    pub(super) fn start_timed(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let before = state.unstarted.len();
        self.start_due(&mut state);
        if state.unstarted.len() == before {
            return;
        }
        let mut tickets = 0;
        while self.count_ticket_if_needed(&mut state) {
            tickets += 1;
        }
        let helpers = state.helpers > 0;
        drop(state);
        (0..tickets).for_each(|_| self.send_ticket());
        if helpers {
            self.changed.notify_all();
        }
    }

    /// Cancels the delayed tasks, because the pool has ended.
    fn cancel_delayed(&self, reason: CancelReason) -> bool {
        let mut tasks = SmallDeque::new();
        let mut state = self.state.lock();
        self.take_delayed(&mut state, &mut tasks);
        drop(state);
        let any = !tasks.is_empty();
        self.as_closer(tasks.len(), |counters| self.drop_unstarted(counters, tasks, reason));
        any
    }
}

impl<R: TaskResult> State<R> {
    /// Returns when the next delayed task is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.delayed.as_ref()?.first_key_value().and_then(|((due, _), _)| due.instant())
    }
}

/// The timer of a delayed task.
struct GroupTimer<R: TaskResult> {
    group: Weak<GroupInner<R>>,
    /// The class of the group.
    class: Priority,
    /// What snapshots show of it.
    shown: TimerSnapshot,
}

impl<R: TaskResult> Task for GroupTimer<R> {
    fn run(&self, _: &Executor) {
        if let Some(group) = self.group.upgrade() {
            group.start_timed();
        }
    }

    fn cancel(&self, reason: CancelReason, _: &Executor) -> bool {
        self.group.upgrade().is_some_and(|group| group.cancel_delayed(reason))
    }

    fn is_finished(&self) -> bool {
        self.group.strong_count() == 0
    }

    fn class(&self) -> Priority {
        self.class
    }

    fn describe_timer(&self) -> TimerSnapshot {
        self.shown.clone()
    }
}
