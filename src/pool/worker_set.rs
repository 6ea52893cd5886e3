//! Who works here: how many workers there shall be, how many there are, and their threads.
//!
//! Rules:
//! 1. `alive` counts workers from before their thread is started until they have nothing more to do with the pool.
//! 2. A worker asks between two jobs whether it may depart; it may while more stay than shall. The question costs one
//!    load of a flag while nobody needs to.
//! 3. The record of a worker is handed on to a new one when the worker is gone, not when it departs: in between its
//!    stop hook runs, which may count.

use crate::observe::worker_counters::WorkerCounters;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, thread};
use crate::task::context::{self, Name};
use crate::time::deadline::Deadline;

/// The workers of one pool.
pub(crate) struct WorkerSet {
    pool: Name,
    /// Held while the number of workers changes, so that two changes do not mix, and an end waits for the change
    /// before it.
    changing: Mutex<()>,
    /// Held while threads are joined, so that all who end the pool return when the threads have ended. What a thread
    /// does at its end never takes it; see [`may_wait`](Self::may_wait).
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
    departed: usize,
    target: usize,
    /// The records of workers that left.
    vacant: Vec<Arc<WorkerCounters>>,
    /// Threads that no call has joined yet.
    threads: Vec<thread::JoinHandle<()>>,
    /// With so many of them, those that have ended are let go.
    sweep_at: usize,
    /// How many threads all sweeps have looked at.
    #[cfg(test)]
    looks: usize,
}

/// The fewest threads among which those that have ended are looked for.
const SWEPT: usize = 64;

impl WorkerSet {
    pub(crate) fn new(pool: Name) -> Self {
        Self {
            pool,
            changing: Mutex::default(),
            joining: Mutex::default(),
            inner: Mutex::default(),
            empty: Condvar::new(),
            target: AtomicUsize::new(0),
            surplus: AtomicBool::new(false),
        }
    }

    /// Keeps the number of workers from changing, until the guard is dropped.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    /// How many workers there shall be.
    pub(crate) fn target(&self) -> usize {
        self.target.load(Ordering::Relaxed)
    }

    /// Sets how many workers there shall be; returns how many are missing and how many are too many.
    pub(crate) fn set_target(&self, workers: usize) -> Change {
        let mut inner = self.inner.lock();
        inner.target = workers;
        self.target.store(workers, Ordering::Relaxed);
        let staying = inner.staying();
        self.surplus.store(staying > workers, Ordering::Release);
        Change { missing: workers.saturating_sub(staying), surplus: staying.saturating_sub(workers) }
    }

    /// Enters a worker, with the record of one that left or a new one.
    pub(crate) fn enlist(&self, open_record: impl FnOnce() -> Arc<WorkerCounters>) -> Arc<WorkerCounters> {
        let mut inner = self.inner.lock();
        inner.alive += 1;
        let vacant = inner.vacant.pop();
        drop(inner);
        vacant.unwrap_or_else(open_record)
    }

    /// Keeps the thread of a worker until it is joined. Now and then it lets go of those that have ended: of twice as
    /// many as there were after the time before, so that each thread is looked at about twice.
    pub(crate) fn keep(&self, thread: thread::JoinHandle<()>) {
        let mut inner = self.inner.lock();
        inner.threads.push(thread);
        if inner.threads.len() >= inner.sweep_at.max(SWEPT) {
            #[cfg(test)]
            {
                inner.looks += inner.threads.len();
            }
            inner.threads.retain(|thread| !thread.is_finished());
            inner.sweep_at = 2 * inner.threads.len();
        }
    }

    /// Whether the worker that asks shall depart, to meet a lowered target; if so, it has.
    pub(crate) fn may_depart(&self) -> bool {
        // ORDERING: Acquire pairs with the Release stores of the flag; the lock decides.
        if !self.surplus.load(Ordering::Acquire) {
            return false;
        }
        let mut inner = self.inner.lock();
        let depart = inner.staying() > inner.target;
        if depart {
            inner.departed += 1;
        }
        self.surplus.store(inner.staying() > inner.target, Ordering::Release);
        depart
    }

    /// Whether a worker shall depart; a hint.
    pub(crate) fn has_surplus(&self) -> bool {
        self.surplus.load(Ordering::Acquire)
    }

    /// Departs, because the pool is drained or the thread could not be started.
    pub(crate) fn depart(&self) {
        self.inner.lock().departed += 1;
    }

    /// Strikes a worker that has departed and will not touch its record again.
    pub(crate) fn gone(&self, record: Arc<WorkerCounters>) {
        let mut inner = self.inner.lock();
        inner.alive -= 1;
        inner.departed -= 1;
        inner.vacant.push(record);
        if inner.alive == 0 {
            self.empty.notify_all();
        }
    }

    /// Blocks until no worker is left, the deadline has passed, or `gives_up` says so. Returns whether no worker is left.
    /// What makes `gives_up` true is followed by [`give_up`](Self::give_up).
    pub(crate) fn wait_empty(&self, deadline: Deadline, gives_up: impl Fn() -> bool) -> bool {
        let mut inner = self.inner.lock();
        while inner.alive > 0 && !gives_up() && !deadline.is_past() {
            inner = self.empty.wait_until(inner, deadline.instant());
        }
        inner.alive == 0
    }

    /// Wakes the threads in [`wait_empty`](Self::wait_empty), and detaches the workers' threads: no call joins them.
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
            // A worker contains every panic; the destructor of a thread local that panics aborts the process by itself.
            let _ = thread.join();
        }
    }

    /// Whether the calling thread may wait for the workers. A worker that did would wait for itself, also in the
    /// destructors of its thread locals, when it is a worker no more.
    pub(crate) fn may_wait(&self) -> bool {
        !context::is_inside(self.pool) && !context::was_worker_of(self.pool)
    }
}

impl Inner {
    /// Workers that take jobs.
    fn staying(&self) -> usize {
        self.alive - self.departed
    }
}

/// What a new target asks for.
#[must_use]
pub(crate) struct Change {
    /// Workers to start.
    pub(crate) missing: usize,
    /// Workers to leave, once they are awake.
    pub(crate) surplus: usize,
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Fault 169.
    #[test]
    fn a_thread_that_is_kept_costs_nothing_for_those_kept_before() {
        const THREADS: usize = 500;
        let workers = WorkerSet::new(1);
        let (end, ending) = channel::<()>();
        let ending = Arc::new(Mutex::new(ending));
        for _ in 0..THREADS {
            let ending = Arc::clone(&ending);
            workers.keep(
                thread::Builder::new()
                    .spawn(move || {
                        let _ = ending.lock().recv();
                    })
                    .expect("a thread"),
            );
        }
        let looks = workers.inner.lock().looks;
        assert!(looks <= 3 * THREADS, "{looks} looks at {THREADS} threads");
        drop(end);
        workers.join_threads();
        // Those that have ended do not pile up.
        for _ in 0..4 * SWEPT {
            let thread = thread::Builder::new().spawn(|| ()).expect("a thread");
            while !thread.is_finished() {
                thread::yield_now();
            }
            workers.keep(thread);
        }
        assert!(workers.inner.lock().threads.len() <= SWEPT.max(2 * THREADS), "ended threads pile up");
    }
}
