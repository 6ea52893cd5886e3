//! The thread that fires timers.
//!
//! Each pool has at most one timer thread. It starts with the first timer and ends when the pool is
//! closed. It sleeps until the first task is due, so waiting tasks take no CPU time, however many
//! they are.
//!
//! | state of a task | meaning | next |
//! |---|---|---|
//! | *waiting* | in the heap | fired, by the thread; removed, by a cancellation or by closing |
//! | *fired* | in the unbounded lane of the pool's queue, like any task there | decided by the task |
//! | *removed* | the thread that removed it cancels it | none |
//!
//! Rules:
//! 1. The timer thread runs no user code and no destructor of a task. It moves tasks from the heap
//!    to the queue, where workers run them.
//! 2. A task that is due goes into the unbounded lane, where a push neither fails nor blocks. So a
//!    full queue delays neither the timer thread nor other timers. To keep that lane bounded too,
//!    the tasks in it count against [`MAX_TIMERS`]. A task that is already in the lane is not
//!    pushed again.
//! 3. A task that will be rescheduled later *reserves* its slot first, so that rescheduling cannot
//!    fail for lack of room.
//! 4. Closing removes all tasks, and later insertions are refused. The thread that closes cancels
//!    the removed tasks.
//!
//! Races, each decided by the lock:
//! - *Due and removed*, *due and closed*: the task is either fired or removed.
//! - *Inserted and closed*: the task is either refused or among those that closing removes.
//! - *Inserted and falling asleep*: the thread checks the first deadline under the lock that it
//!   sleeps with. A task with an earlier deadline wakes it.
//!
//! `TimerThread` knows no pool. It holds the queue weakly, so that tasks in the queue may own the
//! `TimerThread`.

use std::io;
use std::time::Instant;

use super::heap::{TimerHeap, TimerKey};
use crate::queue::{FIFO_SHARD, Queue};
use crate::snapshot::{PAGE, Page, TimerSnapshot};
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, OnceLock, Ordering, Weak, thread};
use crate::task::job::{Job, Task};
use crate::time::clock::Clock;
use crate::time::deadline::Deadline;

/// The limit of pending timers of one pool. It includes reserved slots, and tasks that were fired
/// and wait for a worker.
pub(crate) const MAX_TIMERS: usize = 1 << 20;
/// The limit of tasks that the thread fires before it releases the lock for other threads.
const BATCH: usize = 64;

/// The timers of a pool, and the thread that fires them.
pub(crate) struct TimerThread {
    clock: Clock,
    queue: Weak<Queue<Job>>,
    state: Mutex<State>,
    /// Whether the thread was started; can be read without the lock.
    started: AtomicBool,
    /// Notified when the earliest deadline has changed, and on closing.
    changed: Condvar,
    /// The name of the thread. Set once, when the pool is created.
    name: OnceLock<String>,
}

/// What the lock guards.
struct State {
    heap: TimerHeap<Entry>,
    /// Slots in use: by reservations, and by entries without one. Together with the tasks in the
    /// unbounded lane at most [`MAX_TIMERS`].
    used: usize,
    closed: bool,
    /// The thread, until it is joined.
    thread: Option<thread::JoinHandle<()>>,
}

/// A task in the heap.
struct Entry {
    task: Arc<dyn Task>,
    /// Whether its slot belongs to a [`Reservation`], which keeps it when the task leaves the heap.
    is_reserved: bool,
}

/// Why a timer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerRefused {
    /// There are [`MAX_TIMERS`] pending timers.
    Full,
    /// The pool is closed.
    Closed,
}

/// The right to have one task in the heap at a time.
pub(crate) struct Reservation {
    timers: Arc<TimerThread>,
}

impl TimerThread {
    pub(crate) fn new(queue: &Arc<Queue<Job>>) -> Self {
        Self::with_clock(Clock::System, queue)
    }

    /// Creates the timers with the given clock.
    pub(crate) fn with_clock(clock: Clock, queue: &Arc<Queue<Job>>) -> Self {
        let state = State { heap: TimerHeap::new(), used: 0, closed: false, thread: None };
        Self {
            clock,
            queue: Arc::downgrade(queue),
            state: Mutex::new(state),
            started: AtomicBool::new(false),
            changed: Condvar::new(),
            name: OnceLock::new(),
        }
    }

    /// Returns the clock.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Sets the name of the thread.
    pub(crate) fn set_name(&self, name: String) {
        let first = self.name.set(name).is_ok();
        assert!(first, "a pool is created once");
    }

    /// Starts the thread with the name that was set, unless it was started or the pool is closed.
    pub(crate) fn start_named(self: &Arc<Self>) -> io::Result<()> {
        self.start(|| self.name.get().cloned().unwrap_or_default())
    }

    /// Starts the thread, named by `name`, unless it was started or the pool is closed.
    pub(crate) fn start(self: &Arc<Self>, name: impl FnOnce() -> String) -> io::Result<()> {
        // ORDERING: Relaxed; all that the new thread needs from its starter is behind the lock.
        if self.started.load(Ordering::Relaxed) {
            return Ok(());
        }
        let name = name();
        let mut state = self.state.lock();
        if state.thread.is_none() && !state.closed {
            let timers = Arc::clone(self);
            state.thread = Some(thread::Builder::new().name(name).spawn(move || timers.run())?);
        }
        self.started.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Inserts a task, to be fired at its deadline.
    pub(crate) fn insert(&self, deadline: Deadline, task: Arc<dyn Task>) -> Result<TimerKey, TimerRefused> {
        let queue = self.queue.upgrade();
        let mut state = self.state.lock();
        state.take_slot(queue.as_deref())?;
        Ok(self.insert_locked(&mut state, deadline, Entry { task, is_reserved: false }))
    }

    /// Copies the tasks that are due first.
    pub(crate) fn snapshot(&self) -> Page<TimerSnapshot> {
        let state = self.state.lock();
        let first = state.heap.first(PAGE);
        let timers = first.into_iter().map(|(due, entry)| (due, entry.task.describe_timer()));
        let (timers, total): (Vec<_>, usize) = (timers.collect(), state.heap.len());
        drop(state);
        let now = self.clock.now();
        let due_in = |due: Deadline| due.instant().map(|due| due.saturating_duration_since(now));
        let entries = timers.into_iter().map(|(due, timer)| TimerSnapshot { due_in: due_in(due), ..timer });
        Page { total, entries: entries.collect() }
    }

    /// Removes a task, if it has not been fired. The caller drops it with no lock held.
    pub(crate) fn remove(&self, key: TimerKey) -> Option<Arc<dyn Task>> {
        let mut state = self.state.lock();
        let entry = state.heap.remove(key)?;
        Some(state.release(entry))
    }

    /// Reserves a slot for one task at a time.
    pub(crate) fn reserve(self: &Arc<Self>) -> Result<Reservation, TimerRefused> {
        let queue = self.queue.upgrade();
        self.state.lock().take_slot(queue.as_deref())?;
        Ok(Reservation { timers: Arc::clone(self) })
    }

    /// Refuses later tasks and ends the thread. Returns the tasks that were waiting, which the
    /// caller cancels.
    #[must_use = "the returned tasks must be cancelled"]
    pub(crate) fn close(&self) -> Vec<Arc<dyn Task>> {
        let mut state = self.state.lock();
        state.closed = true;
        let entries = state.heap.take_all();
        let waiting = entries.into_iter().map(|entry| state.release(entry)).collect();
        drop(state);
        self.changed.notify_all();
        waiting
    }

    /// Joins the thread, if there is one. Called after [`close`](Self::close), and never by the
    /// thread itself.
    pub(crate) fn join(&self) {
        let thread = self.state.lock().thread.take();
        if let Some(thread) = thread {
            let ended = thread.join();
            debug_assert!(ended.is_ok(), "the timer thread never panics");
        }
    }

    /// Returns the number of waiting tasks; may be stale when it returns.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().heap.len()
    }

    /// Makes the thread read its clock again, after a test has advanced it.
    #[cfg(test)]
    pub(crate) fn wake(&self) {
        drop(self.state.lock());
        self.changed.notify_all();
    }

    fn insert_locked(&self, state: &mut State, deadline: Deadline, entry: Entry) -> TimerKey {
        let is_first = state.heap.next_deadline().is_none_or(|first| deadline < first);
        let key = state.heap.insert(deadline, entry);
        if is_first {
            self.changed.notify_all();
        }
        key
    }

    /// Fires tasks until the pool is closed. The body of the thread.
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.closed {
            let now = self.clock.now();
            let fired = (0..BATCH).take_while(|_| self.fire_due(&mut state, now)).count();
            if fired > 0 {
                drop(state);
                state = self.state.lock();
            } else {
                let first = state.heap.next_deadline().and_then(Deadline::instant);
                state = self.changed.wait_until(state, self.clock.sleep_until(first));
            }
        }
    }

    /// Fires the first task, if it is due. Called with the lock held, so that closing finds each
    /// task either in the heap or in the queue.
    fn fire_due(&self, state: &mut State, now: Instant) -> bool {
        let Some(entry) = state.heap.pop_due(now) else { return false };
        let task = state.release(entry);
        if task.should_enqueue() {
            let queue = self.queue.upgrade().expect("the workers of a pool that is not closed keep the queue");
            let class = task.class();
            queue.push_unbounded(Job::Task(task), class, FIFO_SHARD, Job::is_stale);
        }
        true
    }
}

impl State {
    /// Takes one slot; keeps rule 2. Fired tasks are counted in the queue; none is missed, because
    /// tasks are fired under this lock. The caller drops its reference to the queue after the lock.
    fn take_slot(&mut self, queue: Option<&Queue<Job>>) -> Result<(), TimerRefused> {
        let fired = queue.map_or(0, Queue::unbounded_len);
        if self.closed {
            Err(TimerRefused::Closed)
        } else if self.used + fired >= MAX_TIMERS {
            Err(TimerRefused::Full)
        } else {
            self.used += 1;
            Ok(())
        }
    }

    /// Frees the slot of an entry that has left the heap, unless it is reserved.
    fn release(&mut self, entry: Entry) -> Arc<dyn Task> {
        self.used -= usize::from(!entry.is_reserved);
        entry.task
    }
}

impl Reservation {
    /// Inserts the task that the slot was reserved for. Fails only if the pool is closed.
    pub(crate) fn insert(&self, deadline: Deadline, task: Arc<dyn Task>) -> Result<TimerKey, TimerRefused> {
        let mut state = self.timers.state.lock();
        if state.closed {
            return Err(TimerRefused::Closed);
        }
        Ok(self.timers.insert_locked(&mut state, deadline, Entry { task, is_reserved: true }))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.timers.state.lock().used -= 1;
    }
}
