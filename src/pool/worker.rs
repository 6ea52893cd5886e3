//! The worker threads, from start to end.
//!
//! A worker runs jobs until it must retire or the pool is drained. No job can end it, nor can a
//! panic of the crate itself between two jobs.

use std::io;

use super::inbox::Mail;
use super::inner::PoolInner;
use super::worker_context::{self, ThisWorker};
use super::worker_set::WorkerParts;
use super::worker_start::{self, StartHook, StartReport, Starting, WorkerHook};
use super::worker_values;
use crate::error::{BuildError, CancelReason};
use crate::failpoint::{self, Failpoint};
use crate::queue::PopCursor;
use crate::sync::thread_name::thread_name;
use crate::sync::{Arc, thread};
use crate::task::context;
use crate::task::job::Job;
use crate::task::waits;
use crate::unwind;

/// The settings of worker threads.
#[derive(Clone, Default)]
pub(crate) struct WorkerSettings {
    /// The first part of the threads' names; the second is their index.
    pub(crate) thread_name: String,
    /// In bytes; `None` means the default of the standard library.
    pub(crate) stack_size: Option<usize>,
    /// Called when a worker's thread starts.
    pub(crate) on_start: Option<StartHook>,
    /// Called when a worker's thread ends.
    pub(crate) on_stop: Option<WorkerHook>,
}

/// Starts `workers` workers. Stops at the first that cannot be started; the earlier ones keep running.
/// Workers whose start hook may fail report to `report`.
pub(crate) fn start(
    pool: &Arc<PoolInner>,
    settings: &WorkerSettings,
    workers: usize,
    report: &Arc<StartReport>,
) -> Result<(), NotStarted> {
    let may_fail = settings.on_start.as_ref().is_some_and(StartHook::may_fail);
    let new_counters = || pool.executor.tracker.register_worker();
    // All workers are added before the first starts, so that none gets the index of a worker whose
    // hook has failed.
    let mut missing: Vec<_> = (0..workers).map(|_| pool.workers.add(may_fail, new_counters)).collect();
    missing.reverse();
    while let Some(worker) = missing.pop() {
        let starting = may_fail.then(|| StartReport::expect(report, worker.inbox.thread));
        match start_one(pool, settings, worker.clone(), starting) {
            Ok(thread) => {
                pool.workers.push_thread(thread);
                if !may_fail {
                    worker.inbox.open();
                }
            }
            Err(source) => {
                let index = worker.counters.worker();
                missing.push(worker);
                missing.iter().for_each(|_| if may_fail { pool.workers.start_failed() } else { pool.workers.retire() });
                return Err(NotStarted { workers: missing, error: BuildError::Spawn { worker: index, source } });
            }
        }
    }
    Ok(())
}

/// Workers that have retired because a thread could not be started.
#[must_use = "workers that are not removed keep the pool from ending"]
pub(crate) struct NotStarted {
    workers: Vec<WorkerParts>,
    error: BuildError,
}

impl NotStarted {
    /// Removes the workers, and returns the error. Called with no lock held: they may be the last
    /// of a pool that was shut down meanwhile, and then the wakers of its waiters are called.
    pub(crate) fn remove(self, pool: &PoolInner) -> BuildError {
        self.workers.into_iter().for_each(|worker| pool.workers.remove(worker.counters));
        self.error
    }
}

/// Starts the thread of one worker.
fn start_one(
    pool: &Arc<PoolInner>,
    settings: &WorkerSettings,
    worker: WorkerParts,
    starting: Option<Starting>,
) -> io::Result<thread::JoinHandle<()>> {
    if failpoint::should_fail(Failpoint::ThreadStart) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let name = thread_name(&settings.thread_name, &worker.counters.worker().to_string());
    let mut builder = thread::Builder::new().name(name);
    if let Some(stack_size) = settings.stack_size {
        builder = builder.stack_size(stack_size);
    }
    let (pool, settings) = (Arc::clone(pool), settings.clone());
    builder.spawn(move || run_worker(&pool, &settings, worker, starting))
}

/// The main function of a worker thread.
fn run_worker(pool: &Arc<PoolInner>, settings: &WorkerSettings, worker: WorkerParts, starting: Option<Starting>) {
    let (index, inbox) = (worker.counters.worker(), Arc::clone(&worker.inbox));
    context::set_worker(pool.id(), Arc::clone(&worker.counters), inbox.thread);
    worker_context::set(ThisWorker { index, inbox, pool: Arc::downgrade(pool) });
    waits::add_worker(pool.id(), &settings.thread_name);
    if worker_start::run_hook(pool, settings.on_start.as_ref(), &worker, starting) {
        run_until_end(pool, settings, &worker);
    } else {
        empty_inbox(pool, &worker, &mut None);
    }
    worker_values::drop_all(pool);
    // A hook or a destructor may have completed a task itself.
    pool.executor.tracker.check_idle();
    waits::remove_worker(pool.id());
    worker_context::clear();
    context::clear_worker();
    pool.workers.remove(worker.counters);
}

/// Runs jobs until the worker retires, and then calls its stop hook.
fn run_until_end(pool: &PoolInner, settings: &WorkerSettings, worker: &WorkerParts) {
    let (mut current, mut cursor) = (None, PopCursor::default());
    while let Err(payload) = unwind::catch(|| run_jobs(pool, worker, &mut cursor, &mut current)) {
        // Every panic of user code is caught where the code is called, so this is a bug of the
        // crate. The worker continues, and its current job is cancelled if it was not started.
        unwind::discard(payload);
        pool.cancel_current(&mut current, CancelReason::Discarded);
    }
    empty_inbox(pool, worker, &mut current);
    // Before the hook, which may take long: the last task of this worker may have been the last of
    // the pool, and the other workers may be asleep.
    pool.executor.tracker.check_idle();
    if let Some(hook) = &settings.on_stop {
        pool.executor.call_hook(|| hook(worker.counters.worker()));
    }
}

/// Closes the inbox, and handles what is left in it.
fn empty_inbox(pool: &PoolInner, worker: &WorkerParts, current: &mut Option<Job>) {
    worker.inbox.close();
    while let Err(payload) = unwind::catch(|| handle_mail(pool, worker, current)) {
        unwind::discard(payload);
        pool.cancel_current(current, CancelReason::Discarded);
    }
}

/// Runs jobs until the worker retires. `current` holds the job that is run.
fn run_jobs(pool: &PoolInner, worker: &WorkerParts, cursor: &mut PopCursor, current: &mut Option<Job>) {
    while !(pool.workers.has_notice() && retires_on_notice(pool, worker, cursor, current)) {
        *current = pool.next_job(cursor, worker);
        if current.is_some() {
            failpoint::hit(Failpoint::Taken);
            pool.run(current);
            *current = None;
        } else if pool.executor.tracker.is_drained() {
            pool.workers.retire();
            break;
        }
    }
}

/// Handles the notices of the pool. Returns `true` if the worker has retired by one of them.
///
/// Handles the mail of the worker. If the pool has seen several classes, runs jobs of all of them
/// until the worker retires: a loop of its own, so that a pool of one class pays nothing for the
/// others.
#[cold]
#[inline(never)]
fn retires_on_notice(
    pool: &PoolInner,
    worker: &WorkerParts,
    cursor: &mut PopCursor,
    current: &mut Option<Job>,
) -> bool {
    loop {
        if worker.inbox.has_mail() {
            pool.put_permit_back(cursor);
            handle_mail(pool, worker, current);
        }
        if pool.workers.should_retire() {
            pool.put_permit_back(cursor);
            return true;
        }
        if !pool.workers.uses_classes() {
            return false;
        }
        *current = pool.next_job_by_class(cursor, worker);
        if current.is_some() {
            failpoint::hit(Failpoint::Taken);
            run_current(pool, current);
        } else if pool.executor.tracker.is_drained() {
            pool.workers.retire();
            return true;
        }
    }
}

#[inline(never)]
fn run_current(pool: &PoolInner, current: &mut Option<Job>) {
    pool.run(current);
    *current = None;
}

/// Handles the mail that is there now. Shares may post more, which must not delay the queued jobs.
fn handle_mail(pool: &PoolInner, worker: &WorkerParts, current: &mut Option<Job>) {
    for _ in 0..worker.inbox.len() {
        match pool.workers.pop_mail(&worker.inbox) {
            Some(Mail::Share(job)) => {
                *current = Some(job);
                run_current(pool, current);
            }
            Some(Mail::Drop(id)) => worker_values::drop_one(pool, id),
            None => break,
        }
    }
}
