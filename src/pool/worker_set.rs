//! Who works here: how many workers there shall be, how many there are, and their threads.
//!
//! Rules:
//! 1. `alive` counts workers from before their thread is started until they have nothing more to do
//!    with the pool.
//! 2. A worker asks between two jobs whether it may depart; it may while more stay than shall. The
//!    question costs one load of a flag while nobody needs to.
//! 3. The record of a worker is handed on to a new one when the worker is gone, not when it
//!    departs: in between its stop hook runs, which may count.

use crate::defect::defect;
use crate::observe::worker_counters::WorkerCounters;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, thread};
use crate::task::context::{self, PoolId};
use crate::time::deadline::Deadline;

/// The workers of one pool.
pub(crate) struct WorkerSet {
    pool: PoolId,
    /// Held while the number of workers changes, so that two changes do not mix, and an end waits
    /// for the change before it.
    resizing: Mutex<()>,
    /// Held while threads are joined, so that all who end the pool return when the threads have
    /// ended. What a thread does at its end never takes it; see [`may_wait`](Self::may_wait).
    joining: Mutex<()>,
    inner: Mutex<Inner>,
    /// Notified when the last worker has left, and when the workers are given up.
    empty: Condvar,
    /// How many workers there shall be; a copy for readers without the lock.
    target: AtomicUsize,
    /// Whether somebody needs to depart.
    surplus: AtomicBool,
}

/// What the lock guards.
#[derive(Default)]
struct Inner {
    /// Workers that are not gone.
    alive: usize,
    /// Those of them that have departed: they take no more jobs.
    retired: usize,
    target: usize,
    /// The records of workers that left.
    unused_counters: Vec<Arc<WorkerCounters>>,
    /// Threads that nobody has joined yet.
    threads: Vec<thread::JoinHandle<()>>,
}

impl WorkerSet {
    pub(crate) fn new(pool: PoolId) -> Self {
        Self {
            pool,
            resizing: Mutex::default(),
            joining: Mutex::default(),
            inner: Mutex::default(),
            empty: Condvar::new(),
            target: AtomicUsize::new(0),
            surplus: AtomicBool::new(false),
        }
    }

    /// Keeps the number of workers from resizing, until the guard is dropped.
    pub(crate) fn lock_resize(&self) -> MutexGuard<'_, ()> {
        self.resizing.lock()
    }

    /// How many workers there shall be.
    pub(crate) fn target(&self) -> usize {
        self.target.load(Ordering::Relaxed)
    }

    /// Sets how many workers there shall be; returns how many are missing and how many are too
    /// many.
    pub(crate) fn set_target(&self, workers: usize) -> Resize {
        let mut inner = self.inner.lock();
        inner.target = workers;
        self.target.store(workers, Ordering::Relaxed);
        let active = inner.active();
        self.surplus.store(active > workers, Ordering::Release);
        Resize { missing: workers.saturating_sub(active), surplus: active.saturating_sub(workers) }
    }

    /// Enters a worker, with the record of one that left or a new one.
    pub(crate) fn add(&self, open_record: impl FnOnce() -> Arc<WorkerCounters>) -> Arc<WorkerCounters> {
        let mut inner = self.inner.lock();
        inner.alive += 1;
        let unused_counters = inner.unused_counters.pop();
        drop(inner);
        unused_counters.unwrap_or_else(open_record)
    }

    /// Keeps the thread of a worker until it is joined; lets go of those that have ended.
    pub(crate) fn push_thread(&self, thread: thread::JoinHandle<()>) {
        let mut inner = self.inner.lock();
        inner.threads.retain(|thread| !thread.is_finished());
        inner.threads.push(thread);
    }

    /// Whether the worker that asks shall depart, to meet a lowered target; if so, it has.
    pub(crate) fn should_retire(&self) -> bool {
        // ORDERING: Acquire pairs with the Release stores of the flag; the lock decides.
        if !self.surplus.load(Ordering::Acquire) {
            return false;
        }
        let mut inner = self.inner.lock();
        let retires = inner.active() > inner.target || defect!("departure by the flag alone");
        if retires {
            inner.retired += 1;
        }
        self.surplus.store(inner.active() > inner.target, Ordering::Release);
        retires
    }

    /// Whether a worker shall depart; a hint.
    pub(crate) fn has_surplus(&self) -> bool {
        self.surplus.load(Ordering::Acquire)
    }

    /// Departs, because the pool is drained or the thread could not be started.
    pub(crate) fn retire(&self) {
        self.inner.lock().retired += 1;
    }

    /// Strikes a worker that has departed and will not touch its record again.
    pub(crate) fn remove(&self, record: Arc<WorkerCounters>) {
        let mut inner = self.inner.lock();
        inner.alive -= 1;
        inner.retired -= 1;
        inner.unused_counters.push(record);
        if inner.alive == 0 {
            self.empty.notify_all();
        }
    }

    /// Blocks until no worker is left, the deadline has passed, or `gives_up` says so. Returns
    /// whether no worker is left. What makes `gives_up` true is followed by
    /// [`give_up`](Self::give_up).
    pub(crate) fn wait_empty(&self, deadline: Deadline, gives_up: impl Fn() -> bool) -> bool {
        let mut inner = self.inner.lock();
        while inner.alive > 0 && !gives_up() && !deadline.is_past() {
            inner = self.empty.wait_until(inner, deadline.instant());
        }
        inner.alive == 0
    }

    /// Wakes the threads in [`wait_empty`](Self::wait_empty), and detaches the workers' threads: no
    /// call joins them.
    pub(crate) fn give_up(&self) {
        let threads = std::mem::take(&mut self.inner.lock().threads);
        self.empty.notify_all();
        drop(threads);
    }

    /// Joins the threads of workers that have left. Call it when none is left.
    pub(crate) fn join_threads(&self) {
        let _one_at_a_time = self.joining.lock();
        let threads = std::mem::take(&mut self.inner.lock().threads);
        for thread in threads {
            // A worker contains every panic; the destructor of a thread local that panics aborts
            // the process by itself.
            let _ = thread.join();
        }
    }

    /// Whether the calling thread may wait for the workers. A worker that did would wait for
    /// itself, also in the destructors of its thread locals, when it is a worker no more.
    pub(crate) fn may_wait(&self) -> bool {
        !context::is_inside(self.pool) && !context::was_worker_of(self.pool)
    }
}

impl Inner {
    /// Workers that take jobs.
    fn active(&self) -> usize {
        self.alive - self.retired
    }
}

/// What a new target asks for.
#[must_use]
pub(crate) struct Resize {
    /// Workers to start.
    pub(crate) missing: usize,
    /// Workers to leave, once they are awake.
    pub(crate) surplus: usize,
}
