//! Hooks of workers that submit and resize, and timers that set themselves again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crate::common::{Counter, assert_counts_add_up};
use crate::{Reach, in_processes, on_small_stacks};
use workcrew::{WeakWorkerPool, WorkerPool};

/// Fault 175.
#[test]
fn hooks_of_workers_and_closures_of_timers_may_submit_resize_and_rearm() {
    in_processes(&[
        "workers::child_submits_and_resizes_in_worker_hooks",
        "workers::child_rearms_a_timer_without_delay",
    ]);
}

#[test]
#[ignore = "run in a process of its own"]
fn child_submits_and_resizes_in_worker_hooks() {
    on_small_stacks(|builder| {
        let (slot, calls): Reach = (Arc::default(), Counter::new());
        let (reach, counted): Reach = (Arc::clone(&slot), calls.clone());
        let stop_reach: Arc<OnceLock<WeakWorkerPool>> = Arc::clone(&slot);
        let ran = Counter::new();
        let run = ran.clone();
        let submitted = Arc::new(AtomicUsize::new(0));
        let accepted = Arc::clone(&submitted);
        let builder = builder
            .on_thread_start(move |_| {
                counted.add();
                // The workers of the beginning start before the pool can be reached.
                if let Some(pool) = reach.get().and_then(WeakWorkerPool::upgrade) {
                    pool.resize(4).unwrap();
                    let run = run.clone();
                    accepted.fetch_add(usize::from(pool.execute(move || run.add()).is_ok()), Ordering::SeqCst);
                }
            })
            .on_thread_stop(move |_| {
                if let Some(pool) = stop_reach.get().and_then(WeakWorkerPool::upgrade) {
                    let _ = pool.execute(|| ());
                    pool.close();
                }
            });
        let pool = builder.build().unwrap();
        let first = pool.workers();
        while calls.get() < first {
            thread::yield_now();
        }
        slot.set(pool.downgrade()).unwrap();
        pool.resize(first + 3).unwrap();
        while calls.get() < first + 3 {
            thread::yield_now();
        }
        pool.wait_idle();
        pool.shutdown();
        assert_eq!(ran.get(), submitted.load(Ordering::SeqCst), "what was accepted has run");
        assert_counts_add_up(&pool);
    });
}

fn rearm(pool: &WorkerPool, left: usize, ran: &Counter) {
    let (inner, again) = (pool.downgrade(), ran.clone());
    let next = move || {
        again.add();
        if left > 1 {
            rearm(&inner.upgrade().unwrap(), left - 1, &again);
        }
    };
    pool.execute_after(Duration::ZERO, next).unwrap();
}

#[test]
#[ignore = "run in a process of its own"]
fn child_rearms_a_timer_without_delay() {
    on_small_stacks(|builder| {
        let (pool, ran) = (builder.build().unwrap(), Counter::new());
        rearm(&pool, 2_000, &ran);
        while ran.get() < 2_000 {
            thread::yield_now();
        }
        pool.wait_idle();
    });
}
