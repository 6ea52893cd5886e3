//! Waiting until the pool is idle.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    self, BlockedWorkers, Gate, LIMIT, assert_counts_add_up, join_all, on_grid, pool, spawn_parked, with_watchdog,
};
use workcrew::{JoinError, WorkerPoolBuilder};

#[test]
fn waiting_for_idle_inside_the_pool_is_answered_at_once() {
    common::quiet_panics();
    on_grid(|pool| {
        let inner = pool.clone();
        assert!(!pool.spawn(move || inner.wait_idle_timeout(Duration::MAX)).unwrap().join().unwrap());
        let inner = pool.clone();
        assert!(matches!(pool.spawn(move || inner.wait_idle()).unwrap().join(), Err(JoinError::Panicked(_))));
        assert!(pool.wait_idle_timeout(LIMIT));
    });
}

/// Fault 97.
#[test]
fn a_timed_wait_for_idle_is_not_early() {
    let pool = pool(1, 1);
    let wedge = BlockedWorkers::new(&pool);
    for timeout in [Duration::ZERO, Duration::from_millis(10)] {
        let since = Instant::now();
        assert!(!pool.wait_idle_timeout(timeout));
        assert!(since.elapsed() >= timeout);
    }
    wedge.open();
    assert!(pool.wait_idle_timeout(LIMIT));
}

#[test]
fn every_waiter_sees_idle_however_the_last_task_ends() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        for _ in 0..3_000 {
            let handle = pool.spawn(|| ()).unwrap();
            pool.execute(|| ()).unwrap();
            thread::scope(|threads| {
                let canceller = threads.spawn(|| {
                    handle.cancel();
                });
                let waiter = threads.spawn(|| pool.wait_idle());
                pool.wait_idle();
                join_all([canceller, waiter]);
            });
            assert_counts_add_up(&pool);
        }
    });
}

#[test]
fn idle_is_seen_while_a_worker_that_leaves_is_in_its_stop_hook() {
    with_watchdog(|| {
        let (starting, stopping, task) = (Gate::new(), Gate::new(), Gate::new());
        let (start, stop) = (starting.clone(), stopping.clone());
        let pool = WorkerPoolBuilder::default()
            .workers(1)
            .on_thread_start(move |worker| {
                if worker == 1 {
                    start.pass();
                }
            })
            .on_thread_stop(move |worker| {
                if worker == 0 {
                    stop.pass();
                }
            })
            .build()
            .map(Arc::new)
            .unwrap();
        let inside = task.clone();
        pool.execute(move || inside.pass()).unwrap();
        task.wait_started(1);
        pool.resize(2).unwrap(); // the new worker is slow to start,
        pool.resize(1).unwrap(); // and the first one leaves
        let waited_for = pool.clone();
        let waiting = spawn_parked(move || waited_for.wait_idle());
        task.open();
        stopping.wait_started(1);
        waiting.join().unwrap();
        starting.open();
        stopping.open();
    });
}
