//! The thread that hands tasks over when they are deadline, and what it goes by.
//!
//! One thread for each pool, started when it is first needed, ended by the closing of the pool. It sleeps until the first
//! task is deadline, so tasks that wait cost no time, however many they are.
//!
//! | state of a task | meaning | next |
//! |---|---|---|
//! | *waiting* | in the heap | handed over, by the thread; reserved out, by whoever cancels it or closes the pool |
//! | *handed over* | in the side lane of the pool's queue, like any task there | the task's own business |
//! | *reserved out* | whoever has reserved it out cancels it | none |
//!
//! Rules:
//! 1. The thread runs nothing foreign, no destructor either: it moves tasks from the heap to the queue. What comes of
//!    a task there is decided by workers.
//! 2. A task that is due goes into the side lane, which refuses nothing and waits for nothing. So a full queue holds up
//!    neither the thread nor other tasks: each waits for a worker. So that the lane is bounded as well, what lies in it
//!    counts when a key is asked for. A task that is handed over and has a share there already gets no other.
//! 3. Who may have to put a task down later, without being refused, *reserves* a key first.
//! 4. Closing takes the heap whole; what comes later is refused. Whoever closes cancels what was in it.
//!
//! Meetings, each decided by the lock: *due and reserved out*, *due and closed*: the task is handed over or reserved out. *Put
//! down and closed*: refused, or among what the closing takes. *Put down and falling asleep*: the thread looks at the first task under the
//! lock it sleeps with, and is woken by a task that is due before it.
//!
//! The timekeeper knows no pool: it reaches the queue weakly, so that tasks in the queue may own it.

use std::io;
use std::time::Instant;

use super::heap::{TimerHeap, TimerKey};
use crate::queue::{FIFO_SHARD, Queue};
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, Ordering, Weak, thread};
use crate::task::job::{Job, Task};
use crate::time::clock::Clock;
use crate::time::deadline::Deadline;

/// The most tasks of one pool that may wait for their time, those included that have a key reserved, and those that were
/// handed over and wait for a worker.
pub(crate) const MAX_TIMERS: usize = 1 << 20;
/// How many tasks the thread hands over at most before it lets others at the heap.
const BATCH: usize = 64;

/// Hands tasks over when they are due.
pub(crate) struct TimerThread {
    clock: Clock,
    queue: Weak<Queue<Job>>,
    state: Mutex<State>,
    /// Whether the thread was started; a copy for those who look without the lock.
    started: AtomicBool,
    /// Notified when the first task is due earlier than the thread knows, and on closing.
    changed: Condvar,
}

/// What the lock guards.
struct State {
    heap: TimerHeap<Entry>,
    /// Places reserved: by reservations, and by the entries that have none. At most [`MAX_TIMERS`], with what lies in the side
    /// lane.
    reserved: usize,
    closed: bool,
    /// The thread, until somebody joins it.
    thread: Option<thread::JoinHandle<()>>,
}

/// A task in the heap.
struct Entry {
    task: Arc<dyn Task>,
    /// Whether its key is reserved, and stays so when the task leaves.
    is_reserved: bool,
}

/// Why a task was not put down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerRefused {
    /// As many tasks wait as may.
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

    /// One that goes by the given clock.
    pub(crate) fn with_clock(clock: Clock, queue: &Arc<Queue<Job>>) -> Self {
        let state = State { heap: TimerHeap::new(), reserved: 0, closed: false, thread: None };
        Self {
            clock,
            queue: Arc::downgrade(queue),
            state: Mutex::new(state),
            started: AtomicBool::new(false),
            changed: Condvar::new(),
        }
    }

    /// The time that it goes by.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Sees to it that the thread runs; `name` names it.
    pub(crate) fn start(self: &Arc<Self>, name: impl FnOnce() -> String) -> io::Result<()> {
        // ORDERING: Relaxed; what was started needs nothing of the starter but the lock.
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

    /// Puts a task down, to be handed over when it is due.
    pub(crate) fn insert(&self, deadline: Deadline, task: Arc<dyn Task>) -> Result<TimerKey, TimerRefused> {
        let queue = self.queue.upgrade();
        let mut state = self.state.lock();
        state.reserve_slot(queue.as_deref())?;
        Ok(self.insert_locked(&mut state, deadline, Entry { task, is_reserved: false }))
    }

    /// Strikes a task out, if it has not been handed over. To be dropped under no lock.
    pub(crate) fn remove(&self, key: TimerKey) -> Option<Arc<dyn Task>> {
        let mut state = self.state.lock();
        let entry = state.heap.remove(key)?;
        Some(state.release(entry))
    }

    /// Reserves a key.
    pub(crate) fn reserve(self: &Arc<Self>) -> Result<Reservation, TimerRefused> {
        let queue = self.queue.upgrade();
        self.state.lock().reserve_slot(queue.as_deref())?;
        Ok(Reservation { timers: Arc::clone(self) })
    }

    /// Takes nothing in any more and tells the thread to end. Returns the tasks that were waiting, to be cancelled.
    #[must_use = "what waited is to be cancelled"]
    pub(crate) fn close(&self) -> Vec<Arc<dyn Task>> {
        let mut state = self.state.lock();
        state.closed = true;
        let entries = state.heap.take_all();
        let waiting = entries.into_iter().map(|entry| state.release(entry)).collect();
        drop(state);
        self.changed.notify_all();
        waiting
    }

    /// Joins the thread, if there is one. Call it after closing; the thread itself never does.
    pub(crate) fn join(&self) {
        let thread = self.state.lock().thread.take();
        if let Some(thread) = thread {
            let ended = thread.join();
            debug_assert!(ended.is_ok(), "the thread runs nothing that panics");
        }
    }

    /// How many tasks wait for their time.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().heap.len()
    }

    /// Makes the thread look at its clock, after a test has moved it on.
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

    /// What the thread does.
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

    /// Hands over the first task, if it is due. Called under the lock, so that a closing finds each task here or there.
    fn fire_due(&self, state: &mut State, now: Instant) -> bool {
        let Some(entry) = state.heap.pop_due(now) else { return false };
        let task = state.release(entry);
        if task.wants_share() {
            let queue = self.queue.upgrade().expect("a pool that is not closed has workers, who keep the queue");
            queue.push_unbounded(Job::Task(task), FIFO_SHARD, Job::is_dead);
        }
        true
    }
}

impl State {
    /// Takes one of the places; keeps rule 2. What was handed over is counted where it lies, since that happens under this
    /// lock as well. Whoever calls this drops his share in the queue after the lock.
    fn reserve_slot(&mut self, queue: Option<&Queue<Job>>) -> Result<(), TimerRefused> {
        let fired = queue.map_or(0, Queue::unbounded_len);
        if self.closed {
            Err(TimerRefused::Closed)
        } else if self.reserved + fired >= MAX_TIMERS {
            Err(TimerRefused::Full)
        } else {
            self.reserved += 1;
            Ok(())
        }
    }

    /// Lets an entry go that has left the heap.
    fn release(&mut self, entry: Entry) -> Arc<dyn Task> {
        self.reserved -= usize::from(!entry.is_reserved);
        entry.task
    }
}

impl Reservation {
    /// Puts the task down that the key was reserved for; fails only when the pool is closed.
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
        self.timers.state.lock().reserved -= 1;
    }
}
