//! Keys whose oldest task waits for its next attempt.
//!
//! Rules:
//! 1. A delayed task holds its key and no worker. It does not count as queued. When it is due it is
//!    the oldest task of its key again, beyond the bounds if these are reached.
//! 2. A task and its timer are added together and removed together, under the lock of the executor.
//! 3. The first thread that finds an attempt due makes the key ready. It is the worker that gets
//!    the timer from the timer thread, or a worker that helps. A helper keeps time itself, because
//!    there may be no other worker.
//!
//! Races:
//! - *Close and delay*: the later one under the lock cancels the task.
//! - *Due and due* (timer and helper): the first under the lock makes the key ready. The other
//!   finds it in another state, or delayed to a later time.
//! - *Cancel of a handle and delay*: the thread that delays checks under the lock whether the task
//!   has ended. The handle first ends the task, and then looks for a delayed key under the lock.
//! - *End of the pool and delay*: the timer thread refuses the timer, and the task is cancelled
//!   here. Or the end finds the timer, and cancels the task through it.

use std::mem;

use super::body::Later;
use super::name::{KeyId, KeyName};
use super::pending::{PendingTask, Ran};
use super::state::{Busy, KeyDelay, KeyedInner, State, Turn};
use crate::error::CancelReason;
use crate::observe::task_info::TaskId;
use crate::observe::worker_counters::WorkerCounters;
use crate::priority::Priority;
use crate::snapshot::{TimerKind, TimerSnapshot};
use crate::sync::{Arc, AtomicBool, Ordering, Weak};
use crate::task::executor::Executor;
use crate::task::job::Task;
use crate::task::waits::Needs;
use crate::time::deadline::Deadline;
use crate::timer::end_timer::EndTimer;

impl<K: Send + Sync + 'static> KeyedInner<K> {
    /// Delays a key whose turn makes another attempt later. If that is not possible, cancels the
    /// task and returns how many tasks have ended by that.
    pub(super) fn delay(
        self: &Arc<Self>,
        name: &Arc<KeyName<K>>,
        task: PendingTask,
        Later { due, reservation }: &Later,
        counters: &WorkerCounters,
    ) -> Option<usize> {
        let key = name.id();
        let (inner, is_over) = (Arc::downgrade(self), AtomicBool::new(false));
        let (class, name_of_key) = (self.settings.priority, Arc::downgrade(name));
        let timer = Arc::new(KeyTimer { inner, key, class, name: name_of_key, is_over });
        let mut state = self.state.lock();
        let inserted = if state.closed || task.has_ended() {
            None
        } else {
            reservation.insert(*due, Arc::clone(&timer) as _).ok()
        };
        if let Some(timer_key) = inserted {
            state.delay(key, *due, KeyDelay { task, timer, timer_key });
            let awaited = state.turns.get_mut(key).is_some_and(|queue| mem::take(&mut queue.state.is_awaited));
            let any = mem::take(&mut state.is_awaited);
            drop(state);
            self.notify_waits(awaited.then(|| name.group()), any); // they keep time from now on
            return None;
        }
        drop(state);
        let label = self.label(name);
        Some(usize::from(task.cancel(label, CancelReason::ShutDown, counters, &self.pool.executor)))
    }

    /// Makes the keys ready whose next attempt is due.
    pub(super) fn start_due(self: &Arc<Self>) {
        let mut state = self.state.lock();
        while let Some((due, key)) = state.delayed.first().copied()
            && due <= self.now()
        {
            let delayed = state.take_delayed(key);
            let task = self.without_timer(delayed);
            state.make_due(key, task);
            let notifications = self.notifications(&mut state, key);
            drop(state);
            self.send(notifications);
            state = self.state.lock();
        }
    }

    /// Ends the delay of a key whose delayed task its handle has cancelled.
    pub(super) fn release_delayed(self: &Arc<Self>, key: KeyId, task: TaskId) {
        self.end_delay(key, |delayed| delayed.task.id == task, |_, _| Ran::Cancelled);
    }

    /// Takes the delayed task of a key, if it passes the test, and ends it by `work`.
    fn end_delay(
        self: &Arc<Self>,
        key: KeyId,
        test: impl FnOnce(&KeyDelay) -> bool,
        work: impl FnOnce(PendingTask, &WorkerCounters) -> Ran<PendingTask>,
    ) -> bool {
        let mut state = self.state.lock();
        let Some(queue) = state.turns.get(key).filter(|queue| queue.state.delayed.as_deref().is_some_and(test)) else {
            return false;
        };
        let name = Arc::clone(&queue.name);
        let delayed = state.take_delayed(key);
        let task = self.without_timer(delayed);
        state.run_delayed(key, task.id);
        drop(state);
        let none = self.take_turn(Turn { name, task, futures: None }, work, |_| None);
        debug_assert!(none.is_none(), "no other turn was taken");
        true
    }
}

impl<K> KeyedInner<K> {
    /// Removes the timer of a task that is no longer delayed.
    pub(super) fn without_timer(&self, delayed: KeyDelay) -> PendingTask {
        delayed.timer.end();
        drop(self.pool.timers.remove(delayed.timer_key)); // only a weak reference to this executor
        delayed.task
    }

    /// Reports when a worker can help with a delayed key.
    pub(super) fn report_due(&self, due: Deadline, needs: &mut Needs) {
        if due <= self.now() {
            needs.worker = true;
        } else {
            needs.worker_at = needs.worker_at.into_iter().chain(due.instant()).min();
        }
    }

    fn now(&self) -> Deadline {
        Deadline::at(self.pool.timers.clock().now())
    }
}

impl<K> State<K> {
    /// Delays a running key.
    fn delay(&mut self, key: KeyId, due: Deadline, delayed: KeyDelay) {
        self.running.retain(|running| *running != key);
        self.delayed.insert((due, key));
        let queue = self.turns.get_mut(key).expect("a running key has an entry");
        queue.state.busy = Some(Busy::Delayed(due));
        queue.state.delayed = Some(Box::new(delayed));
    }

    /// Takes the delayed task of a key, which the caller makes ready or running.
    fn take_delayed(&mut self, key: KeyId) -> KeyDelay {
        let queue = self.turns.get_mut(key).expect("a delayed key has an entry");
        if let Some(Busy::Delayed(due)) = queue.state.busy {
            self.delayed.remove(&(due, key));
        }
        *queue.state.delayed.take().expect("a delayed key has a delayed task")
    }

    /// Makes a key ready with a task that is due.
    fn make_due(&mut self, key: KeyId, task: PendingTask) {
        self.turns.get_mut(key).expect("a delayed key has an entry").state.busy = None;
        let pushed = self.turns.push_front(key, task);
        debug_assert!(pushed.is_ok(), "a delayed key has an entry");
        self.moves += 1;
    }

    /// Makes a key running, to end its delayed task.
    fn run_delayed(&mut self, key: KeyId, task: TaskId) {
        self.running.push(key);
        self.turns.get_mut(key).expect("a delayed key has an entry").state.busy = Some(Busy::Running(task));
    }
}

/// The timer of a delayed key.
struct KeyTimer<K> {
    inner: Weak<KeyedInner<K>>,
    key: KeyId,
    /// The class of the executor.
    class: Priority,
    /// The name of the key, for its label.
    name: Weak<KeyName<K>>,
    /// Whether the key is no longer delayed by this timer. Changed under the lock of the executor;
    /// a hint elsewhere.
    is_over: AtomicBool,
}

impl<K: Send + Sync + 'static> EndTimer for KeyTimer<K> {
    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl<K: Send + Sync + 'static> Task for KeyTimer<K> {
    fn run(&self, _: &Executor) {
        if let Some(inner) = self.inner.upgrade() {
            inner.start_due();
        }
    }

    /// The pool has ended, or cancels what is queued.
    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool {
        let Some(inner) = self.inner.upgrade() else { return false };
        let is_own = |_: &KeyDelay| !self.is_over.load(Ordering::Relaxed);
        let label = self.name.upgrade().and_then(|name| inner.label(&name).cloned());
        inner.end_delay(self.key, is_own, |task, counters| {
            match task.cancel(label.as_ref(), reason, counters, executor) {
                true => Ran::Ended,
                false => Ran::Cancelled,
            }
        })
    }

    fn is_finished(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn class(&self) -> Priority {
        self.class
    }

    fn describe_timer(&self) -> TimerSnapshot {
        TimerSnapshot::of_kind(TimerKind::Retry)
    }
}
