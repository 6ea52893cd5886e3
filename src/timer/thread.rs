//! The thread that hands tasks over when they are due, and what it goes by.
//!
//! One thread for each pool, started when it is first needed, ended by the closing of the pool. It sleeps until the first
//! task is due, so tasks that wait cost no time, however many they are.
//!
//! | state of a task | meaning | next |
//! |---|---|---|
//! | *waiting* | in the agenda | handed over, by the thread; taken out, by whoever cancels it or closes the pool |
//! | *handed over* | in the side lane of the pool's queue, like any task there | the task's own business |
//! | *taken out* | whoever has taken it out cancels it | none |
//!
//! Rules:
//! 1. The thread runs nothing foreign, no destructor either: it moves tasks from the agenda to the queue. What comes of
//!    a task there is decided by workers.
//! 2. A task that is due goes into the side lane, which refuses nothing and waits for nothing. So a full queue holds up
//!    neither the thread nor other tasks: each waits for a worker. So that the lane is bounded as well, what lies in it
//!    counts when a place is asked for. A task that is handed over and has a share there already gets no other.
//! 3. Who may have to put a task down later, without being refused, *reserves* a place first.
//! 4. Closing takes the agenda whole; what comes later is refused. Whoever closes cancels what was in it.
//!
//! Meetings, each decided by the lock: *due and taken out*, *due and closed*: the task is handed over or taken out. *Put
//! down and closed*: refused, or among what the closing takes. *Put down and falling asleep*: the thread looks at the first task under the
//! lock it sleeps with, and is woken by a task that is due before it.
//!
//! The timekeeper knows no pool: it reaches the queue weakly, so that tasks in the queue may own it.

use std::io;
use std::time::Instant;

use super::heap::{Due, Place, TimerHeap};
use crate::queue::{FIFO_SHARD, Queue};
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, Ordering, Weak, thread};
use crate::task::job::{Job, Task};
use crate::time::clock::Watch;

/// The most tasks of one pool that may wait for their time, those included that have a place reserved, and those that were
/// handed over and wait for a worker.
pub(crate) const PLACES: usize = 1 << 20;
/// How many tasks the thread hands over at most before it lets others at the agenda.
const BATCH: usize = 64;

/// Hands tasks over when they are due.
pub(crate) struct TimerThread {
    watch: Watch,
    queue: Weak<Queue<Job>>,
    inner: Mutex<Inner>,
    /// Whether the thread was started; a copy for those who look without the lock.
    started: AtomicBool,
    /// Notified when the first task is due earlier than the thread knows, and on closing.
    changed: Condvar,
}

/// What the lock guards.
struct Inner {
    agenda: TimerHeap<Entry>,
    /// Places taken: by reservations, and by the entries that have none. At most [`PLACES`], with what lies in the side
    /// lane.
    taken: usize,
    closed: bool,
    /// The thread, until somebody joins it.
    thread: Option<thread::JoinHandle<()>>,
}

/// A task in the agenda.
struct Entry {
    task: Arc<dyn Task>,
    /// Whether its place is reserved, and stays so when the task leaves.
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

/// The right to have one task in the agenda at a time.
pub(crate) struct Reservation {
    timers: Arc<TimerThread>,
}

impl TimerThread {
    pub(crate) fn new(queue: &Arc<Queue<Job>>) -> Self {
        Self::by(Watch::System, queue)
    }

    /// One that goes by the given watch.
    pub(crate) fn by(watch: Watch, queue: &Arc<Queue<Job>>) -> Self {
        let inner = Inner { agenda: TimerHeap::new(), taken: 0, closed: false, thread: None };
        Self {
            watch,
            queue: Arc::downgrade(queue),
            inner: Mutex::new(inner),
            started: AtomicBool::new(false),
            changed: Condvar::new(),
        }
    }

    /// The time that it goes by.
    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Sees to it that the thread runs; `name` names it.
    pub(crate) fn start(self: &Arc<Self>, name: impl FnOnce() -> String) -> io::Result<()> {
        // ORDERING: Relaxed; what was started needs nothing of the starter but the lock.
        if self.started.load(Ordering::Relaxed) {
            return Ok(());
        }
        let name = name();
        let mut inner = self.inner.lock();
        if inner.thread.is_none() && !inner.closed {
            let keeper = Arc::clone(self);
            inner.thread = Some(thread::Builder::new().name(name).spawn(move || keeper.keep_time())?);
        }
        self.started.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Puts a task down, to be handed over when it is due.
    pub(crate) fn put(&self, due: Due, task: Arc<dyn Task>) -> Result<Place, TimerRefused> {
        let queue = self.queue.upgrade();
        let mut inner = self.inner.lock();
        inner.take_place(queue.as_deref())?;
        Ok(self.put_locked(&mut inner, due, Entry { task, is_reserved: false }))
    }

    /// Strikes a task out, if it has not been handed over. To be dropped under no lock.
    pub(crate) fn strike_out(&self, place: Place) -> Option<Arc<dyn Task>> {
        let mut inner = self.inner.lock();
        let entry = inner.agenda.strike_out(place)?;
        Some(inner.let_go(entry))
    }

    /// Reserves a place.
    pub(crate) fn reserve(self: &Arc<Self>) -> Result<Reservation, TimerRefused> {
        let queue = self.queue.upgrade();
        self.inner.lock().take_place(queue.as_deref())?;
        Ok(Reservation { timers: Arc::clone(self) })
    }

    /// Takes nothing in any more and tells the thread to end. Returns the tasks that were waiting, to be cancelled.
    #[must_use = "what waited is to be cancelled"]
    pub(crate) fn close(&self) -> Vec<Arc<dyn Task>> {
        let mut inner = self.inner.lock();
        inner.closed = true;
        let entries = inner.agenda.take_all();
        let waiting = entries.into_iter().map(|entry| inner.let_go(entry)).collect();
        drop(inner);
        self.changed.notify_all();
        waiting
    }

    /// Joins the thread, if there is one. Call it after closing; the thread itself never does.
    pub(crate) fn join(&self) {
        let thread = self.inner.lock().thread.take();
        if let Some(thread) = thread {
            let ended = thread.join();
            debug_assert!(ended.is_ok(), "the thread runs nothing that panics");
        }
    }

    /// How many tasks wait for their time.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().agenda.len()
    }

    /// Makes the thread look at its watch, after a test has moved it on.
    #[cfg(test)]
    pub(crate) fn look_again(&self) {
        drop(self.inner.lock());
        self.changed.notify_all();
    }

    fn put_locked(&self, inner: &mut Inner, due: Due, entry: Entry) -> Place {
        let is_first = inner.agenda.first_due().is_none_or(|first| due < first);
        let place = inner.agenda.put(due, entry);
        if is_first {
            self.changed.notify_all();
        }
        place
    }

    /// What the thread does.
    fn keep_time(&self) {
        let mut inner = self.inner.lock();
        while !inner.closed {
            let now = self.watch.now();
            let handed_over = (0..BATCH).take_while(|_| self.hand_over_due(&mut inner, now)).count();
            if handed_over > 0 {
                drop(inner);
                inner = self.inner.lock();
            } else {
                let first = inner.agenda.first_due().and_then(Due::instant);
                inner = self.changed.wait_until(inner, self.watch.alarm(first));
            }
        }
    }

    /// Hands over the first task, if it is due. Called under the lock, so that a closing finds each task here or there.
    fn hand_over_due(&self, inner: &mut Inner, now: Instant) -> bool {
        let Some(entry) = inner.agenda.take_due(now) else { return false };
        let task = inner.let_go(entry);
        if task.should_enqueue() {
            let queue = self.queue.upgrade().expect("a pool that is not closed has workers, who keep the queue");
            queue.push_unbounded(Job::Task(task), FIFO_SHARD, Job::is_stale);
        }
        true
    }
}

impl Inner {
    /// Takes one of the places; keeps rule 2. What was handed over is counted where it lies, since that happens under this
    /// lock as well. Whoever calls this drops his share in the queue after the lock.
    fn take_place(&mut self, queue: Option<&Queue<Job>>) -> Result<(), TimerRefused> {
        let handed_over = queue.map_or(0, Queue::side_len);
        if self.closed {
            Err(TimerRefused::Closed)
        } else if self.taken + handed_over >= PLACES {
            Err(TimerRefused::Full)
        } else {
            self.taken += 1;
            Ok(())
        }
    }

    /// Lets an entry go that has left the agenda.
    fn let_go(&mut self, entry: Entry) -> Arc<dyn Task> {
        self.taken -= usize::from(!entry.is_reserved);
        entry.task
    }
}

impl Reservation {
    /// Puts the task down that the place was reserved for; fails only when the pool is closed.
    pub(crate) fn put(&self, due: Due, task: Arc<dyn Task>) -> Result<Place, TimerRefused> {
        let mut inner = self.timers.inner.lock();
        if inner.closed {
            return Err(TimerRefused::Closed);
        }
        Ok(self.timers.put_locked(&mut inner, due, Entry { task, is_reserved: true }))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.timers.inner.lock().taken -= 1;
    }
}
