//! The ends of the pool and of the executor.

use std::time::Duration;

use workcrew::{CancelReason, JoinError, JoinHandle, KeyedExecutor, OnDrop, WorkerPool};

use crate::common::{BlockedWorkers, Counter, DropCounter, Gate, assert_counts_add_up, on_grid, pool, with_watchdog};

/// Queues twelve tasks of three keys behind busy workers.
fn queued(pool: &WorkerPool) -> (KeyedExecutor<u32>, BlockedWorkers, Counter, Vec<JoinHandle<()>>) {
    let executor = KeyedExecutor::builder(pool).capacity(100).build();
    let (wedge, ran) = (BlockedWorkers::new(pool), Counter::new());
    let handles = (0..12).map(|number| {
        let ran = ran.clone();
        executor.spawn(number % 3, move || ran.add()).unwrap()
    });
    let handles = handles.collect();
    (executor, wedge, ran, handles)
}

/// Fault 414.
#[test]
fn a_shutdown_runs_what_is_queued_and_refuses_what_comes() {
    on_grid(|pool| {
        let (executor, wedge, ran, handles) = queued(&pool);
        pool.close();
        let refused = executor.execute(1, || ()).unwrap_err();
        assert_eq!((refused.is_shut_down(), refused.to_string()), (true, "the pool is shut down".into()));
        assert!(executor.try_spawn(9, || ()).unwrap_err().is_shut_down());
        wedge.open();
        pool.shutdown();
        assert_eq!((ran.get(), executor.len(), executor.keys_active()), (12, 0, 0));
        handles.into_iter().for_each(|handle| handle.join().unwrap());
        assert_counts_add_up(&pool);
    });
}

/// Fault 414.
#[test]
fn a_shutdown_now_cancels_what_has_not_started() {
    on_grid(|pool| {
        let (executor, wedge, ran, handles) = queued(&pool);
        let report = pool.shutdown_now();
        assert_eq!((report.tasks_cancelled, report.tasks_running), (12, pool.workers()));
        for handle in handles {
            assert!(matches!(handle.join(), Err(JoinError::Cancelled(CancelReason::ShutDown))));
        }
        executor.wait_idle();
        assert_eq!((ran.get(), executor.len(), executor.keys_active()), (0, 0, 0));
        wedge.open();
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 414.
#[test]
fn a_timed_shutdown_cancels_what_is_behind_a_task_that_never_ends() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        let executor = pool.keyed();
        let gate = Gate::new();
        let inside = gate.clone();
        let stuck = executor.spawn('a', move || inside.pass()).unwrap();
        gate.wait_started(1);
        let behind = executor.spawn('a', || ()).unwrap();
        let other = executor.spawn('b', || ()).unwrap();
        other.join().unwrap();
        let report = pool.shutdown_timeout(Duration::from_millis(1));
        assert_eq!((report.drained, report.tasks_cancelled, report.tasks_running), (false, 1, 1));
        assert!(matches!(behind.join(), Err(JoinError::Cancelled(CancelReason::ShutDown))));
        assert!(!executor.wait_idle_timeout(Duration::ZERO));
        gate.open();
        stuck.join().unwrap();
        executor.wait_idle();
        assert_eq!((executor.keys_active(), executor.len()), (0, 0));
    });
}

/// Fault 414.
#[test]
fn the_drop_of_the_pool_ends_the_tasks_as_its_policy_says() {
    with_watchdog(|| {
        for (policy, expected) in [(OnDrop::Drain, 12), (OnDrop::Cancel, 0), (OnDrop::Detach, 12)] {
            let pool = WorkerPool::builder().workers(1).on_drop(policy).build().unwrap();
            let (executor, wedge, ran, handles) = queued(&pool);
            let gate = wedge.gate.clone();
            let opens = std::thread::spawn(move || {
                // The drop has closed the pool.
                while !executor.try_execute(0, || ()).is_err_and(|error| error.is_shut_down()) {
                    std::thread::yield_now();
                }
                gate.open();
                executor
            });
            let extra = {
                drop(pool);
                let executor = opens.join().unwrap();
                executor.wait_idle();
                executor.keys_active()
            };
            let succeeded = handles.into_iter().filter(|handle| handle.wait_timeout(Duration::MAX)).count();
            assert_eq!((ran.get(), succeeded, extra), (expected, 12, 0), "{policy:?}");
        }
    });
}

/// Fault 415.
#[test]
fn tasks_of_a_dropped_executor_still_run() {
    on_grid(|pool| {
        let executor = KeyedExecutor::builder(&pool).capacity(100).build();
        let (wedge, ran, dropped) = (BlockedWorkers::new(&pool), Counter::new(), Counter::new());
        for number in 0..20 {
            let (ran, kept) = (ran.clone(), DropCounter(dropped.clone()));
            let task = move || {
                let _kept = kept;
                ran.add();
            };
            executor.execute(number % 3, task).unwrap();
        }
        drop(executor);
        wedge.open();
        pool.wait_idle();
        assert_eq!((ran.get(), dropped.get()), (20, 20));
    });
}

/// Fault 415.
#[test]
fn tasks_of_a_dropped_executor_are_cancelled_with_the_pool() {
    on_grid(|pool| {
        let (executor, wedge, ran, handles) = queued(&pool);
        drop(executor);
        assert_eq!(pool.shutdown_now().tasks_cancelled, 12);
        wedge.open();
        pool.shutdown();
        assert!(handles.into_iter().all(|handle| handle.join().is_err()));
        assert_eq!(ran.get(), 0);
    });
}
