//! The worker threads of a pool: their target number, current number and join handles.
//!
//! Rules:
//! 1. `alive` counts a worker from before its thread is started until the worker no longer touches
//!    the pool.
//! 2. A worker checks between two jobs whether it must retire, which it must while more workers are
//!    active than the target. The check costs one load of a flag while none must.
//! 3. The counters of a worker are reused after the worker was removed, not after it has retired.
//!    Its stop hook runs in between, and may count.
//! 4. A worker whose start hook may fail is *starting* until the hook has returned. It counts as
//!    present, so that no resize starts another one in its place. It does not count as active, so
//!    that no active worker retires for it. So an active worker is left if the hook fails. A failed
//!    worker lowers the target by one, unless the target is lower already.

use std::task::Waker;

use super::inbox::{Inbox, Mail, Notices};
use crate::error::{CycleKind, CycleTarget};
use crate::observe::worker_counters::WorkerCounters;
use crate::sync::{Arc, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, thread};
use crate::task::context::{self, PoolId, ThreadId};
use crate::task::job::Job;
use crate::task::sleepers;
use crate::task::waits;
use crate::task::wakers::{WakerKey, Wakers};
use crate::time::deadline::Deadline;
use crate::unwind;

/// The workers of one pool.
pub(crate) struct WorkerSet {
    pool: PoolId,
    /// Held while the number of workers is changed, so that two resizes do not overlap, and a
    /// shutdown waits for a resize before it.
    resizing: Mutex<()>,
    /// Held while threads are joined, so that every thread that ends the pool returns only when the
    /// workers' threads have ended. A worker that ends never takes it; see
    /// [`may_wait`](Self::may_wait).
    joining: Mutex<()>,
    state: Mutex<State>,
    /// Notified when the last worker is removed, and when the workers are given up.
    empty: Condvar,
    /// The target number of workers, for readers without the lock.
    target: AtomicUsize,
    /// Whether a worker must retire or has mail, or the pool has seen several classes.
    notices: Notices,
}

/// What the lock guards.
#[derive(Default)]
struct State {
    /// Workers that have not been removed.
    alive: usize,
    /// Those of them that have retired: they take no more jobs.
    retired: usize,
    /// Those of them that are starting; see rule 4.
    starting: usize,
    /// The target number of workers.
    target: usize,
    /// The number of times that the target was set.
    resizes: u64,
    /// The counters of workers that were removed.
    unused_counters: Vec<Arc<WorkerCounters>>,
    /// The inbox of each worker, by its index. It is closed if there is no such worker.
    inboxes: Vec<Arc<Inbox>>,
    /// The futures that wait until every worker was removed, or the workers are given up.
    wakers: Wakers,
    /// Threads that have not been joined.
    threads: Vec<thread::JoinHandle<()>>,
    /// The number of threads at which those that have ended are dropped.
    sweep_at: usize,
    /// The number of threads that all sweeps have looked at.
    #[cfg(test)]
    looks: usize,
}

/// The smallest number of threads that are searched for those that have ended.
const MIN_SWEEP: usize = 64;

impl WorkerSet {
    pub(crate) fn new(pool: PoolId) -> Self {
        Self {
            pool,
            resizing: Mutex::default(),
            joining: Mutex::default(),
            state: Mutex::default(),
            empty: Condvar::new(),
            target: AtomicUsize::new(0),
            notices: Notices::new(),
        }
    }

    /// Blocks other resizes until the guard is dropped.
    pub(crate) fn lock_resize(&self) -> MutexGuard<'_, ()> {
        self.resizing.lock()
    }

    /// Returns the target number of workers.
    pub(crate) fn target(&self) -> usize {
        self.target.load(Ordering::Relaxed)
    }

    /// Sets the target number of workers. Returns how many workers are missing or surplus.
    pub(crate) fn set_target(&self, workers: usize) -> Resize {
        let mut state = self.state.lock();
        self.set_target_locked(&mut state, workers)
    }

    /// Sets the target back to `before`, or to the number of workers that are left if there are
    /// fewer. Returns how many workers are surplus then. Does nothing if the target was set again
    /// after the call that returned `resize`.
    pub(crate) fn undo_resize(&self, resize: &Resize, before: usize) -> usize {
        let mut state = self.state.lock();
        if state.resizes != resize.number {
            return 0;
        }
        let workers = before.min(state.present()).max(1);
        self.set_target_locked(&mut state, workers).surplus
    }

    fn set_target_locked(&self, state: &mut State, workers: usize) -> Resize {
        state.target = workers;
        state.resizes += 1;
        self.target.store(workers, Ordering::Relaxed);
        let (present, active) = (state.present(), state.active());
        self.notices.set_surplus(active > workers);
        Resize {
            missing: workers.saturating_sub(present),
            surplus: active.saturating_sub(workers),
            number: state.resizes,
        }
    }

    /// Adds a worker, which is starting if its start hook may fail. Its counters are those of a
    /// removed worker, or new ones. Its inbox is not open yet.
    pub(crate) fn add(&self, may_fail: bool, new_counters: impl FnOnce() -> Arc<WorkerCounters>) -> WorkerParts {
        let mut state = self.state.lock();
        state.alive += 1;
        state.starting += usize::from(may_fail);
        let counters = state.unused_counters.pop();
        drop(state);
        let counters = counters.unwrap_or_else(new_counters);
        let inbox = Arc::new(Inbox::new());
        let mut state = self.state.lock();
        // Indices are given in order, but two threads may add workers at the same time.
        while state.inboxes.len() <= counters.worker() {
            state.inboxes.push(Arc::new(Inbox::new()));
        }
        state.inboxes[counters.worker()] = Arc::clone(&inbox);
        drop(state);
        WorkerParts { counters, inbox }
    }

    /// Stores the thread of a worker to be joined. Drops those that have ended when their number
    /// has doubled since the last time, so each thread is looked at about twice.
    pub(crate) fn push_thread(&self, thread: thread::JoinHandle<()>) {
        let mut state = self.state.lock();
        state.threads.push(thread);
        if state.threads.len() >= state.sweep_at.max(MIN_SWEEP) {
            #[cfg(test)]
            {
                state.looks += state.threads.len();
            }
            state.threads.retain(|thread| !thread.is_finished());
            state.sweep_at = 2 * state.threads.len();
        }
    }

    /// Returns `true` if the calling worker must retire because of a lowered target. It has retired
    /// then.
    pub(crate) fn should_retire(&self) -> bool {
        if !self.notices.has_surplus() {
            return false;
        }
        let mut state = self.state.lock();
        let retires = state.active() > state.target;
        if retires {
            state.retired += 1;
        }
        self.notices.set_surplus(state.active() > state.target);
        retires
    }

    /// Returns `true` if a worker must retire or has mail, or must look for tasks of all classes. A
    /// worker asks between two jobs.
    #[inline]
    pub(crate) fn has_notice(&self) -> bool {
        self.notices.any()
    }

    /// Returns `true` if a worker must retire. A hint: the lock decides in
    /// [`should_retire`](Self::should_retire).
    pub(crate) fn has_surplus(&self) -> bool {
        self.notices.has_surplus()
    }

    /// Has the workers look for tasks of all classes from now on.
    pub(crate) fn use_classes(&self) {
        self.notices.use_classes();
    }

    /// Returns `true` if the workers must look for tasks of all classes; `true` is final.
    pub(crate) fn uses_classes(&self) -> bool {
        self.notices.has_classes()
    }

    /// Makes a starting worker active.
    pub(crate) fn start_succeeded(&self) {
        let mut state = self.state.lock();
        state.starting -= 1;
        self.notices.set_surplus(state.active() > state.target);
    }

    /// Retires a starting worker whose start hook has failed, or whose thread could not be started.
    pub(crate) fn start_failed(&self) {
        let mut state = self.state.lock();
        // In a pool that has ended, all others may have left.
        if state.present() <= state.target && state.target > 1 {
            state.target -= 1;
            self.target.store(state.target, Ordering::Relaxed);
        }
        state.starting -= 1;
        state.retired += 1;
    }

    /// Retires a worker because the pool is drained or its thread could not be started.
    pub(crate) fn retire(&self) {
        self.state.lock().retired += 1;
    }

    /// Removes a worker that has retired and no longer uses its counters.
    pub(crate) fn remove(&self, counters: Arc<WorkerCounters>) {
        let mut state = self.state.lock();
        state.alive -= 1;
        state.retired -= 1;
        state.unused_counters.push(counters);
        if state.alive == 0 {
            self.empty.notify_all();
            let wakers = state.wakers.take();
            drop(state);
            wakers.wake();
        }
    }

    /// Blocks until every worker was removed, the deadline has passed, or `gives_up` returns
    /// `true`. Does not block where waits are nested too deep. Returns `true` if every worker was
    /// removed.
    ///
    /// Call [`give_up`](Self::give_up) after a change that makes `gives_up` return `true`.
    pub(crate) fn wait_empty(&self, deadline: Deadline, gives_up: impl Fn() -> bool) -> bool {
        let may_sleep = waits::prepare(deadline).is_ok();
        let is_waiting = |state: &State| may_sleep && state.alive > 0 && !gives_up();
        let sleeps = is_waiting(&self.state.lock());
        let _listed = sleeps.then(|| sleepers::list(CycleTarget::new(CycleKind::Pool), self.pool, deadline));
        self.empty.wait_while(self.state.lock(), deadline, is_waiting).alive == 0
    }

    /// Sleeps until every worker was removed, the deadline has passed, or `gives_up` returns
    /// `true`, for a wait that is registered. Returns `true` if every worker was removed.
    pub(crate) fn sleep_until_empty(&self, deadline: Deadline, gives_up: impl Fn() -> bool) -> bool {
        let is_waiting = |state: &State| state.alive > 0 && !gives_up();
        self.empty.wait_while(self.state.lock(), deadline, is_waiting).alive == 0
    }

    /// Returns `true` if every worker was removed.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().alive == 0
    }

    /// Wakes the threads in [`wait_empty`](Self::wait_empty), so that they check again.
    pub(crate) fn wake_waiters(&self) {
        // A waiter has checked before this and sleeps, or checks after it.
        drop(self.state.lock());
        self.empty.notify_all();
    }

    /// Returns `true` if every worker was removed. Otherwise stores the waker, to be woken when
    /// that is the case, and by [`give_up`](Self::give_up).
    pub(crate) fn poll_empty(&self, key: WakerKey, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut state = self.state.lock();
        let unused = if state.alive == 0 { Some(waker) } else { state.wakers.set(key, waker) };
        let is_empty = state.alive == 0;
        drop(state);
        unwind::discard(unused);
        is_empty
    }

    /// Removes the waker of a future that no longer waits.
    pub(crate) fn stop_polling(&self, key: WakerKey) {
        let waker = self.state.lock().wakers.remove(key);
        unwind::discard(waker);
    }

    /// Wakes the threads in [`wait_empty`](Self::wait_empty) and the futures, and detaches the
    /// workers' threads: no call joins them.
    pub(crate) fn give_up(&self) {
        let mut state = self.state.lock();
        let threads = std::mem::take(&mut state.threads);
        let wakers = state.wakers.take();
        drop(state);
        self.empty.notify_all();
        drop(threads);
        wakers.wake();
    }

    /// Joins the threads of workers that have ended. Call it when every worker was removed.
    pub(crate) fn join_threads(&self) {
        let _one_at_a_time = self.joining.lock();
        let threads = std::mem::take(&mut self.state.lock().threads);
        for thread in threads {
            // A worker contains every panic, and a panic in a destructor of a thread local aborts
            // the process.
            let _ = thread.join();
        }
    }

    /// Returns `true` if the calling thread may wait for the workers. A worker would wait for
    /// itself, also in the destructors of its thread locals, when it is no longer a worker.
    pub(crate) fn may_wait(&self) -> bool {
        !context::is_inside(self.pool) && !context::was_worker_of(self.pool)
    }
}

/// # Inboxes
impl WorkerSet {
    /// Returns the threads of the workers that have not left, each with the index of its worker.
    pub(crate) fn threads(&self) -> Vec<(usize, ThreadId)> {
        let inboxes = self.inboxes().into_iter().enumerate();
        inboxes.filter(|(_, inbox)| !inbox.is_closed()).map(|(index, inbox)| (index, inbox.thread)).collect()
    }

    /// Returns the inboxes that take mail, each with the index of its worker, in order.
    pub(crate) fn open_inboxes(&self) -> Vec<(usize, Arc<Inbox>)> {
        let inboxes = self.state.lock().inboxes.clone();
        inboxes.into_iter().enumerate().filter(|(_, inbox)| inbox.is_open()).collect()
    }

    /// Returns all inboxes. Those of workers that have left are closed.
    pub(crate) fn inboxes(&self) -> Vec<Arc<Inbox>> {
        self.state.lock().inboxes.clone()
    }

    /// Adds mail to an inbox of this pool, or returns it if the inbox does not take it. The caller
    /// then wakes the workers.
    pub(crate) fn post(&self, inbox: &Inbox, mail: Mail) -> Result<(), Mail> {
        inbox.post(mail, &self.notices)
    }

    /// Removes the oldest mail of an inbox of this pool.
    pub(crate) fn pop_mail(&self, inbox: &Inbox) -> Option<Mail> {
        inbox.pop(&self.notices)
    }

    /// Removes all shares of broadcasts.
    pub(crate) fn take_shares(&self) -> Vec<Job> {
        self.inboxes().iter().flat_map(|inbox| inbox.take_shares(&self.notices)).collect()
    }
}

impl State {
    /// Returns the number of workers that take jobs, or will if their start hook succeeds.
    fn present(&self) -> usize {
        self.alive - self.retired
    }

    /// Returns the number of workers that take jobs.
    fn active(&self) -> usize {
        self.present() - self.starting
    }
}

/// What belongs to one worker.
#[derive(Clone)]
pub(crate) struct WorkerParts {
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) inbox: Arc<Inbox>,
}

/// What a new target requires.
#[must_use]
pub(crate) struct Resize {
    /// The number of workers to start.
    pub(crate) missing: usize,
    /// The number of workers that must retire.
    pub(crate) surplus: usize,
    /// The number of this change of the target.
    number: u64,
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Fault 169.
    #[test]
    fn a_thread_that_is_kept_costs_nothing_for_those_kept_before() {
        const THREADS: usize = 500;
        let workers = WorkerSet::new(PoolId::new());
        let (end, ending) = channel::<()>();
        let ending = Arc::new(Mutex::new(ending));
        for _ in 0..THREADS {
            let ending = Arc::clone(&ending);
            workers.push_thread(
                thread::Builder::new()
                    .spawn(move || {
                        let _ = ending.lock().recv();
                    })
                    .expect("a thread"),
            );
        }
        let looks = workers.state.lock().looks;
        assert!(looks <= 3 * THREADS, "{looks} looks at {THREADS} threads");
        drop(end);
        workers.join_threads();
        // Those that have ended do not pile up.
        for _ in 0..4 * MIN_SWEEP {
            let thread = thread::Builder::new().spawn(|| ()).expect("a thread");
            while !thread.is_finished() {
                thread::yield_now();
            }
            workers.push_thread(thread);
        }
        assert!(workers.state.lock().threads.len() <= MIN_SWEEP.max(2 * THREADS), "ended threads pile up");
    }
}
