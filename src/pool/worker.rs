//! The worker threads, from start to end.
//!
//! A worker runs jobs until it must retire or the pool is drained. No job can end it, nor can a
//! panic of the crate itself between two jobs.

use std::io;

use super::inner::PoolInner;
use crate::error::{BuildError, CancelReason};
use crate::failpoint::{self, Failpoint};
use crate::observe::worker_counters::WorkerCounters;
use crate::queue::PopCursor;
use crate::sync::thread_name::thread_name;
use crate::sync::{Arc, thread};
use crate::task::context;
use crate::task::job::Job;
use crate::task::waits;
use crate::unwind;

/// A hook that a worker calls with its index.
pub(crate) type WorkerHook = Arc<dyn Fn(usize) + Send + Sync>;

/// The settings of worker threads.
#[derive(Clone, Default)]
pub(crate) struct WorkerSettings {
    /// The first part of the threads' names; the second is their index.
    pub(crate) thread_name: String,
    /// In bytes; `None` means the default of the standard library.
    pub(crate) stack_size: Option<usize>,
    /// Called when a worker's thread starts.
    pub(crate) on_start: Option<WorkerHook>,
    /// Called when a worker's thread ends.
    pub(crate) on_stop: Option<WorkerHook>,
}

/// Starts `workers` workers. Stops at the first that cannot be started; the others keep running.
pub(crate) fn start(pool: &Arc<PoolInner>, settings: &WorkerSettings, workers: usize) -> Result<(), BuildError> {
    for _ in 0..workers {
        let counters = pool.workers.add(|| pool.executor.tracker.register_worker());
        match start_one(pool, settings, Arc::clone(&counters)) {
            Ok(thread) => pool.workers.push_thread(thread),
            Err(source) => {
                let worker = counters.worker();
                pool.workers.retire();
                pool.workers.remove(counters);
                return Err(BuildError::Spawn { worker, source });
            }
        }
    }
    Ok(())
}

/// Starts the thread of one worker.
fn start_one(
    pool: &Arc<PoolInner>,
    settings: &WorkerSettings,
    counters: Arc<WorkerCounters>,
) -> io::Result<thread::JoinHandle<()>> {
    if failpoint::should_fail(Failpoint::ThreadStart) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let mut builder = thread::Builder::new().name(thread_name(&settings.thread_name, &counters.worker().to_string()));
    if let Some(stack_size) = settings.stack_size {
        builder = builder.stack_size(stack_size);
    }
    let (pool, settings) = (Arc::clone(pool), settings.clone());
    builder.spawn(move || run_worker(&pool, &settings, counters))
}

/// The main function of a worker thread.
fn run_worker(pool: &Arc<PoolInner>, settings: &WorkerSettings, counters: Arc<WorkerCounters>) {
    context::set_worker(pool.id(), Arc::clone(&counters));
    waits::add_worker(pool.id());
    call_hook(pool, settings.on_start.as_ref(), &counters);
    let mut current = None;
    while let Err(payload) = unwind::catch(|| run_jobs(pool, &counters, &mut current)) {
        // Every panic of user code is caught where the code is called, so this is a bug of the
        // crate. The worker continues, and its current job is cancelled if it was not started.
        unwind::discard(payload);
        pool.cancel_current(&mut current, CancelReason::Discarded);
    }
    // Before the hook, which may take long: the last task of this worker may have been the last of
    // the pool, and the other workers may be asleep.
    pool.executor.tracker.check_idle();
    call_hook(pool, settings.on_stop.as_ref(), &counters);
    // The hook may have completed a task itself.
    pool.executor.tracker.check_idle();
    waits::remove_worker(pool.id());
    context::clear_worker();
    pool.workers.remove(counters);
}

/// Runs jobs until the worker must leave. `current` holds the job that is run.
fn run_jobs(pool: &PoolInner, counters: &WorkerCounters, current: &mut Option<Job>) {
    let mut cursor = PopCursor::default();
    while !pool.workers.should_retire() {
        *current = pool.next_job(&mut cursor, counters);
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

/// Calls a hook of the worker, if there is one.
fn call_hook(pool: &PoolInner, hook: Option<&WorkerHook>, counters: &WorkerCounters) {
    if let Some(hook) = hook {
        pool.executor.call_hook(|| hook(counters.worker()));
    }
}
