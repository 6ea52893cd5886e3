//! The workers: their threads from start to end.
//!
//! A worker takes jobs until it may leave or the pool is drained. Nothing that a job does ends it, nor does a panic of the
//! crate itself between two jobs.

use std::io;

use super::inner::PoolInner;
use crate::error::{BuildError, CancelReason};
use crate::failpoint::{self, Place};
use crate::observe::worker_counters::WorkerCounters;
use crate::queue::Turn;
use crate::sync::thread_name::thread_name;
use crate::sync::{Arc, thread};
use crate::task::context;
use crate::task::job::Job;
use crate::task::waits;
use crate::unwind;

/// A hook that a worker calls, with its index.
pub(crate) type WorkerHook = Arc<dyn Fn(usize) + Send + Sync>;

/// How workers are made.
#[derive(Clone, Default)]
pub(crate) struct WorkerSettings {
    /// Threads are named after this and their index.
    pub(crate) thread_name: String,
    /// In bytes; `None` leaves it to the standard library.
    pub(crate) stack_size: Option<usize>,
    /// Called first on each worker's thread.
    pub(crate) on_start: Option<WorkerHook>,
    /// Called last on each worker's thread.
    pub(crate) on_stop: Option<WorkerHook>,
}

/// Starts so many workers, or as many as it can.
pub(crate) fn start(pool: &Arc<PoolInner>, settings: &WorkerSettings, workers: usize) -> Result<(), BuildError> {
    for _ in 0..workers {
        let record = pool.workers.add(|| pool.executor.tracker.register_worker());
        match start_one(pool, settings, Arc::clone(&record)) {
            Ok(thread) => pool.workers.push_thread(thread),
            Err(source) => {
                let worker = record.worker();
                pool.workers.retire();
                pool.workers.remove(record);
                return Err(BuildError::Spawn { worker, source });
            }
        }
    }
    Ok(())
}

fn start_one(
    pool: &Arc<PoolInner>,
    settings: &WorkerSettings,
    record: Arc<WorkerCounters>,
) -> io::Result<thread::JoinHandle<()>> {
    if failpoint::fails(Place::ThreadStart) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let mut builder = thread::Builder::new().name(thread_name(&settings.thread_name, &record.worker().to_string()));
    if let Some(stack_size) = settings.stack_size {
        builder = builder.stack_size(stack_size);
    }
    let (pool, settings) = (Arc::clone(pool), settings.clone());
    builder.spawn(move || main(&pool, &settings, record))
}

fn main(pool: &Arc<PoolInner>, settings: &WorkerSettings, record: Arc<WorkerCounters>) {
    context::set_worker(pool.id(), Arc::clone(&record));
    waits::count_worker(pool.id());
    call_hook(pool, settings.on_start.as_ref(), &record);
    let mut hand = None;
    while let Err(payload) = unwind::catch(|| work(pool, &record, &mut hand)) {
        // Every panic of foreign code is caught where it is called, so this one is the crate's own. The worker lives on, and
        // what it had in its hand and had not started meets a fate.
        unwind::discard(payload);
        pool.cancel_current(&mut hand, CancelReason::Discarded);
    }
    // Before the hook, which may take its time: its last task may have been the last of all, and the others may sleep.
    pool.executor.tracker.check_idle();
    call_hook(pool, settings.on_stop.as_ref(), &record);
    // The hook may have settled a task in its turn.
    pool.executor.tracker.check_idle();
    waits::discount_worker(pool.id());
    context::clear_worker();
    pool.workers.remove(record);
}

/// Does what jobs ask for, until the worker may leave; the job at hand lies in `hand`.
fn work(pool: &PoolInner, record: &WorkerCounters, hand: &mut Option<Job>) {
    let mut turn = Turn::default();
    while !pool.workers.should_retire() {
        *hand = pool.next_job(&mut turn, record);
        if hand.is_some() {
            failpoint::at(Place::Taken);
            pool.run(hand);
            *hand = None;
        } else if pool.executor.tracker.is_drained() {
            pool.workers.retire();
            break;
        }
    }
}

fn call_hook(pool: &PoolInner, hook: Option<&WorkerHook>, record: &WorkerCounters) {
    if let Some(hook) = hook {
        pool.executor.call_hook(|| hook(record.worker()));
    }
}
