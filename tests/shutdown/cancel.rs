//! Shutdowns that cancel, at once or after a timeout, and their reports.

use std::cell::RefCell;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    BlockedWorkers, Counter, DropCounter, Gate, LIMIT, assert_counts_add_up, fill, on_grid, pool, spawn_parked,
    with_watchdog,
};
use workcrew::{CancelReason, GroupError, JoinError};

/// Fault 95.
#[test]
fn shutdown_now_cancels_queued_tasks_and_counts_them() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let (ran, dropped) = (Counter::new(), Counter::new());
        let held = DropCounter(dropped.clone());
        let handle = pool.spawn(move || drop(held)).unwrap();
        let queued = fill(&pool, &ran) + 1;
        let group = pool.group().capacity(10);
        for _ in 0..10 {
            let ran = ran.clone();
            group.spawn(move || ran.add());
        }
        let report = pool.shutdown_now();
        assert_eq!(
            (report.drained, report.tasks_cancelled, report.tasks_running),
            (false, queued + 10, pool.workers())
        );
        assert_eq!((dropped.get(), pool.queue_len()), (1, 0));
        assert!(matches!(handle.join(), Err(JoinError::Cancelled(CancelReason::ShutDown))));
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::ShutDown))));
        wedge.open();
        assert_eq!(pool.shutdown_timeout(LIMIT).tasks_running, 0);
        assert_eq!(ran.get(), 0);
        assert!(pool.shutdown_now().drained);
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_worker_that_comes_free_during_shutdown_now_starts_nothing() {
    /// When the shutdown drops it, the worker comes free, and must meet the next task before the shutdown does.
    struct LetsGo(Gate, Counter);
    impl Drop for LetsGo {
        fn drop(&mut self) {
            self.0.open();
            while self.1.get() == 0 {
                thread::yield_now();
            }
        }
    }
    with_watchdog(|| {
        let pool = pool(1, 64);
        let wedge = BlockedWorkers::new(&pool);
        let (ran, dropped) = (Counter::new(), Counter::new());
        let (lets_go, next, counted) = (LetsGo(wedge.gate.clone(), dropped.clone()), DropCounter(dropped), ran.clone());
        pool.execute(move || drop(lets_go)).unwrap();
        pool.execute(move || {
            counted.add();
            drop(next);
        })
        .unwrap();
        let report = pool.shutdown_now();
        assert_eq!((ran.get(), report.tasks_cancelled), (0, 2));
    });
}

/// Fault 95.
#[test]
fn shutdown_now_cancels_running_groups() {
    on_grid(|pool| {
        let (group, gate) = (pool.group(), Gate::new());
        let (token, inside) = (group.token().clone(), gate.clone());
        group.spawn(move || {
            inside.pass();
            token.wait_timeout(LIMIT).then_some(()).ok_or("was not told")
        });
        gate.open();
        gate.wait_started(1);
        pool.shutdown_now();
        group.wait().unwrap();
    });
}

/// Fault 97.
#[test]
fn shutdown_timeout_returns_in_time_and_reports() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let ran = Counter::new();
        let queued = fill(&pool, &ran);
        let timeout = Duration::from_millis(20);
        let since = Instant::now();
        let report = pool.shutdown_timeout(timeout);
        assert!(since.elapsed() >= timeout && !report.drained);
        assert_eq!((report.tasks_running, report.tasks_cancelled), (pool.workers(), queued));
        for timeout in [Duration::ZERO, Duration::MAX] {
            let report = pool.shutdown_timeout(timeout);
            assert_eq!((report.drained, report.tasks_running, report.tasks_cancelled), (false, pool.workers(), 0));
        }
        wedge.open();
        assert!(pool.wait_idle_timeout(LIMIT));
        let report = pool.shutdown_timeout(Duration::MAX);
        assert!(report.drained && report.tasks_running == 0, "{report}");
        assert_eq!(ran.get(), 0);
    });
}

/// Fault 108.
#[test]
fn shutdown_now_wakes_blocked_submitters_and_waiters() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let (handle, timed) = (pool.spawn(|| ()), pool.try_spawn(|| ()));
        let (group, any) = (pool.group(), pool.group());
        group.spawn(|| ());
        any.spawn(|| Ok::<_, ()>(()));
        let mut waiting = vec![
            spawn_parked(|| assert!(handle.unwrap().join().is_err())),
            spawn_parked(|| assert!(group.wait().is_err())),
            spawn_parked(|| assert!(any.wait_any().is_err())),
        ];
        // A queue of one has no room for a second task.
        assert_eq!(timed.is_ok(), pool.queue_capacity() > 1);
        waiting.extend(timed.ok().map(|timed| spawn_parked(move || assert!(timed.wait_timeout(Duration::MAX)))));
        assert!(waiting.iter().all(|waiter| !waiter.is_finished()));
        pool.shutdown_now();
        waiting.into_iter().for_each(|waiter| waiter.join().unwrap());
        wedge.open();
    });
}

#[test]
fn the_report_counts_tasks_cancelled_by_workers() {
    with_watchdog(|| {
        for _ in 0..300 {
            let pool = pool(2, 256);
            let group = pool.group();
            let gate = Gate::new();
            for _ in 0..2 {
                let (token, inside) = (group.token().clone(), gate.clone());
                group.spawn(move || {
                    inside.pass();
                    let _ = token.wait_timeout(LIMIT);
                });
            }
            gate.open();
            gate.wait_started(2);
            (0..200).for_each(|_| pool.execute(|| ()).unwrap());
            assert_eq!(pool.shutdown_now().tasks_cancelled, 200);
        }
    });
}

#[test]
fn a_timed_shutdown_inside_the_pool_cancels_nothing() {
    on_grid(|pool| {
        let (inner, ran) = (pool.clone(), Counter::new());
        let counted = ran.clone();
        let gate = Gate::new();
        let inside = gate.clone();
        let task = pool.spawn(move || {
            inside.pass();
            inner.shutdown_timeout(Duration::ZERO).tasks_cancelled
        });
        gate.wait_started(1);
        let queued = pool.spawn(move || counted.add()).unwrap();
        gate.open();
        assert_eq!(task.unwrap().join().unwrap(), 0);
        queued.join().unwrap();
        assert_eq!(ran.get(), 1);
    });
}

#[test]
fn a_timed_shutdown_does_not_wait_for_destructors_of_thread_locals() {
    struct Slow(Gate);
    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.pass();
        }
    }
    thread_local! { static SLOW: RefCell<Option<Slow>> = const { RefCell::new(None) } }
    with_watchdog(|| {
        let pool = pool(1, 4);
        let gate = Gate::new();
        let held = gate.clone();
        pool.spawn(move || SLOW.set(Some(Slow(held)))).unwrap().join().unwrap();
        assert_eq!(pool.shutdown_timeout(LIMIT).tasks_running, 0);
        gate.wait_started(1); // still in the destructor
        gate.open();
    });
}
