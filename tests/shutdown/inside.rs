//! Ending a pool inside one of its tasks, hooks or destructors.

use std::cell::RefCell;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::common::{
    BlockedWorkers, Counter, Gate, LIMIT, assert_counts_add_up, fill, grid, join_all, on_grid, pool, with_watchdog,
};
use workcrew::{OnDrop, WeakWorkerPool, WorkerPool};

/// Fault 101.
#[test]
fn a_task_may_shut_its_pool_down() {
    on_grid(|pool| {
        let inner = pool.clone();
        let report = pool
            .spawn(move || {
                inner.shutdown();
                inner.shutdown_timeout(LIMIT)
            })
            .unwrap()
            .join()
            .unwrap();
        assert!(!report.drained && report.tasks_running >= 1);
        pool.shutdown();
        assert!(pool.shutdown_now().drained);
    });
}

/// Fault 102.
#[test]
fn a_task_may_drop_the_last_reference_to_its_pool() {
    with_watchdog(|| {
        for policy in [OnDrop::Drain, OnDrop::Cancel, OnDrop::Detach] {
            grid(|builder| {
                let stopped = Counter::new();
                let (told, tell) = mpsc::channel();
                let stop = stopped.clone();
                let pool = builder.on_drop(policy).on_thread_stop(move |_| {
                    stop.add();
                    let _ = told.send(());
                });
                let pool = pool.build().unwrap();
                let (workers, gate) = (pool.workers(), Gate::new());
                let (inner, inside) = (pool.clone(), gate.clone());
                pool.execute(move || {
                    inside.pass();
                    drop(inner);
                })
                .unwrap();
                drop(pool);
                gate.open();
                (0..workers).for_each(|_| tell.recv_timeout(LIMIT).unwrap());
            });
        }
    });
}

#[test]
fn a_user_of_an_outside_thread_that_runs_a_job_does_not_wait_for_itself() {
    // With CallerRuns the submitting thread is inside the pool while it runs the job.
    with_watchdog(|| {
        let pool = WorkerPool::builder().workers(1).queue_capacity(1).overflow(workcrew::Overflow::CallerRuns);
        let pool = pool.build().unwrap();
        let wedge = BlockedWorkers::new(&pool);
        fill(&pool, &Counter::new());
        let inner = pool.clone();
        let gate = wedge.gate.clone();
        pool.execute(move || {
            assert!(!inner.wait_idle_timeout(LIMIT));
            inner.shutdown();
            gate.open();
        })
        .unwrap();
        assert_eq!(pool.metrics().tasks_panicked, 0);
        pool.shutdown();
    });
}

#[test]
fn a_cancelled_closure_may_hold_the_last_reference_to_its_pool() {
    with_watchdog(|| {
        for by_group in [false, true] {
            let pool = pool(1, 4);
            let wedge = BlockedWorkers::new(&pool);
            let last = pool.clone();
            let closure = move || drop(last);
            if by_group {
                let group = pool.group();
                group.spawn(closure);
                drop(pool);
                group.cancel();
            } else {
                let handle = pool.spawn(closure).unwrap();
                drop(pool);
                assert!(handle.cancel());
            }
            wedge.open();
        }
    });
}

#[test]
fn a_discarded_closure_may_end_its_pool_in_its_destructor() {
    struct Ends(WorkerPool, Counter);
    impl Drop for Ends {
        fn drop(&mut self) {
            assert!(!self.0.wait_idle_timeout(LIMIT));
            self.0.shutdown();
            self.1.add();
        }
    }
    with_watchdog(|| {
        let builder = WorkerPool::builder().workers(1).queue_capacity(1);
        let pool = builder.overflow(workcrew::Overflow::DiscardOldest).build().unwrap();
        let wedge = BlockedWorkers::new(&pool);
        let ended = Counter::new();
        let ends = Ends(pool.clone(), ended.clone());
        pool.execute(move || drop(ends)).unwrap();
        let _ = pool.execute(|| ());
        assert_eq!(ended.get(), 1);
        wedge.open();
    });
}

#[test]
fn a_thread_local_of_a_worker_may_hold_the_last_reference_to_its_pool() {
    thread_local! { static LAST: RefCell<Option<WorkerPool>> = const { RefCell::new(None) } }
    with_watchdog(|| {
        for _ in 0..50 {
            let pool = pool(1, 4);
            let (inner, weak) = (pool.clone(), pool.downgrade());
            pool.spawn(move || LAST.set(Some(inner))).unwrap().join().unwrap();
            pool.close();
            drop(pool);
            while weak.strong_count() > 0 {
                thread::yield_now();
            }
        }
    });
}

#[test]
fn a_value_of_a_group_may_resize_the_pool_in_its_destructor() {
    struct Resizes(WorkerPool);
    impl Drop for Resizes {
        fn drop(&mut self) {
            let _ = self.0.resize(2);
        }
    }
    with_watchdog(|| {
        let pool = pool(2, 64);
        thread::scope(|threads| {
            let resizer = threads.spawn(|| (0..300).for_each(|n| pool.resize(1 + n % 3).unwrap()));
            for _ in 0..2_000 {
                let group = pool.group();
                let inner = pool.clone();
                group.spawn(move || Ok::<_, ()>(Resizes(inner)));
            }
            join_all([resizer]);
        });
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Asks the pool for a scope when it is dropped, and says whether its body was called.
struct AsksForAScope(WeakWorkerPool, mpsc::Sender<(bool, bool)>);

impl Drop for AsksForAScope {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            let mut was_called = false;
            let _ = pool.scope::<(), _, _>(|_| was_called = true);
            self.1.send((pool.is_shut_down(), was_called)).unwrap();
        }
    }
}

#[test]
fn destructors_run_by_the_closing_find_the_pool_closed() {
    let pool = pool(1, 1);
    let (dropped, drops) = mpsc::channel();
    let asks = AsksForAScope(pool.downgrade(), dropped);
    pool.execute_after(Duration::from_secs(3_600), move || drop(asks)).unwrap();
    pool.close();
    assert_eq!(drops.recv().unwrap(), (true, false));
}
