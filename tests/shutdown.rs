//! The end of a pool, from every side.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::cell::RefCell;
use std::hint;
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    BlockedWorkers, Counter, DropCounter, Gate, LIMIT, assert_counts_add_up, fill, grid, join_all, on_grid, pool,
    run_child, spawn_parked, with_watchdog,
};
use workcrew::{CancelReason, GroupError, JoinError, OnDrop, WorkerPool, WorkerPoolBuilder};

/// Fault 94.
#[test]
fn shutdown_drains_accepted_tasks() {
    on_grid(|pool| {
        let ran = Counter::new();
        for _ in 0..200 {
            let ran = ran.clone();
            pool.execute(move || ran.add()).unwrap();
        }
        let group = pool.group().capacity(100);
        for _ in 0..100 {
            let ran = ran.clone();
            group.spawn(move || ran.add());
        }
        assert!(!pool.is_shut_down());
        pool.shutdown();
        assert!(pool.is_shut_down());
        assert_eq!(ran.get(), 300);
        group.wait().unwrap();
        assert_counts_add_up(&pool);
    });
}

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

/// Fault 96.
#[test]
fn every_way_to_shut_down_may_be_called_by_many_threads() {
    on_grid(|pool| {
        let ran = Counter::new();
        let mut accepted = 0;
        for _ in 0..50 {
            let ran = ran.clone();
            accepted += usize::from(pool.execute(move || ran.add()).is_ok());
        }
        let reports: Vec<usize> = thread::scope(|threads| {
            let closers: Vec<_> = (0..6)
                .map(|closer| {
                    let pool = &pool;
                    threads.spawn(move || match closer % 3 {
                        0 => {
                            pool.shutdown();
                            0
                        }
                        1 => pool.shutdown_now().tasks_cancelled,
                        _ => pool.shutdown_timeout(LIMIT).tasks_cancelled,
                    })
                })
                .collect();
            closers.into_iter().map(|closer| closer.join().unwrap()).collect()
        });
        let metrics = pool.metrics();
        assert_eq!(metrics.tasks_succeeded + metrics.tasks_cancelled, accepted as u64);
        assert_eq!(ran.get() as u64, metrics.tasks_succeeded);
        assert!(reports.into_iter().all(|cancelled| cancelled as u64 <= metrics.tasks_cancelled));
    });
}

#[test]
fn submissions_racing_a_shutdown_are_either_refused_or_run() {
    with_watchdog(|| {
        for round in 0..300 {
            let pool = pool(1 + round % 2, 1 + round % 3);
            let ran = Counter::new();
            let accepted: usize = thread::scope(|threads| {
                let submitters: Vec<_> = (0..3)
                    .map(|_| {
                        threads.spawn(|| {
                            let mut accepted = 0;
                            loop {
                                let counted = ran.clone();
                                match pool.execute(move || counted.add()) {
                                    Ok(()) => accepted += 1,
                                    Err(error) => {
                                        drop(error.into_inner());
                                        return accepted;
                                    }
                                }
                            }
                        })
                    })
                    .collect();
                while pool.metrics().tasks_submitted < 5 {
                    thread::yield_now();
                }
                pool.shutdown();
                submitters.into_iter().map(|submitter| submitter.join().unwrap()).sum()
            });
            assert_eq!(ran.get(), accepted);
            assert_counts_add_up(&pool);
        }
    });
}

/// Fault 100.
#[test]
fn a_running_task_that_submits_during_a_shutdown_is_refused_and_goes_on() {
    on_grid(|pool| {
        let gate = Gate::new();
        let (inner, inside) = (Arc::clone(&pool), gate.clone());
        let handle = pool
            .spawn(move || {
                inside.pass();
                inner.execute(|| ()).unwrap_err().is_shut_down()
            })
            .unwrap();
        gate.wait_started(1);
        pool.close();
        gate.open();
        assert!(handle.join().unwrap());
    });
}

/// Fault 99.
#[test]
fn shutdown_while_workers_join_lets_them_finish() {
    on_grid(|pool| {
        let gate = Gate::new();
        let handles: Vec<_> = (0..pool.workers())
            .map(|_| {
                let (inner, inside) = (Arc::clone(&pool), gate.clone());
                pool.spawn(move || {
                    let child = inner.spawn(|| 1).unwrap();
                    inside.pass();
                    child.join().unwrap()
                })
                .unwrap()
            })
            .collect();
        gate.wait_started(pool.workers());
        pool.close();
        gate.open();
        pool.shutdown();
        assert!(handles.into_iter().all(|handle| handle.join().unwrap() == 1));
    });
}

/// Fault 101.
#[test]
fn a_task_may_shut_its_pool_down() {
    on_grid(|pool| {
        let inner = Arc::clone(&pool);
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
                let pool = Arc::new(pool.build().unwrap());
                let (workers, gate) = (pool.workers(), Gate::new());
                let (inner, inside) = (Arc::clone(&pool), gate.clone());
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
fn dropping_follows_the_policy() {
    for (policy, runs) in [(OnDrop::Drain, true), (OnDrop::Cancel, false), (OnDrop::Detach, true)] {
        grid(|builder| {
            let pool = builder.on_drop(policy).build().unwrap();
            let wedge = BlockedWorkers::new(&pool);
            let ran = Counter::new();
            let counted = ran.clone();
            let handle = pool.spawn(move || counted.add()).unwrap();
            let dropper = thread::spawn(move || drop(pool));
            if policy == OnDrop::Detach {
                dropper.join().unwrap(); // does not wait for the wedge
                wedge.open();
            } else {
                if policy == OnDrop::Cancel {
                    assert!(handle.wait_timeout(LIMIT)); // cancelled though every worker is busy
                }
                wedge.open();
                dropper.join().unwrap();
                assert!(handle.is_finished());
            }
            assert_eq!(handle.join().is_ok(), runs);
            assert_eq!(ran.get(), usize::from(runs));
        });
    }
}

/// Fault 107.
#[test]
fn handles_that_outlive_the_pool_all_resolve() {
    on_grid(|pool| {
        let handles: Vec<_> = (0..100).map(|n| pool.spawn(move || n).unwrap()).collect();
        drop(pool);
        for (n, handle) in handles.into_iter().enumerate() {
            assert!(!handle.cancel());
            assert_eq!(handle.join().unwrap(), n);
        }
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
fn waiting_for_idle_inside_the_pool_is_answered_at_once() {
    common::quiet_panics();
    on_grid(|pool| {
        let inner = Arc::clone(&pool);
        assert!(!pool.spawn(move || inner.wait_idle_timeout(Duration::MAX)).unwrap().join().unwrap());
        let inner = Arc::clone(&pool);
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

/// Fault 103.
#[test]
fn a_pool_dropped_while_unwinding_ends_in_peace() {
    common::quiet_panics();
    let unwound = thread::Builder::new().name("workcrew-test".into()).spawn(|| {
        let pool = pool(2, 4);
        pool.execute(|| panic!("task")).unwrap();
        panic!("user");
    });
    assert!(unwound.unwrap().join().unwrap_err().downcast_ref::<&str>() == Some(&"user"));
}

/// Fault 105.
#[test]
fn a_pool_in_a_thread_local_is_dropped_with_its_thread() {
    thread_local! { static POOL: RefCell<Option<Arc<WorkerPool>>> = const { RefCell::new(None) } }
    with_watchdog(|| {
        let ran = Counter::new();
        let counted = ran.clone();
        let user = thread::spawn(move || {
            POOL.set(Some(pool(2, 4)));
            POOL.with_borrow(|pool| pool.as_ref().unwrap().execute(move || counted.add()).unwrap());
        });
        user.join().unwrap();
        assert_eq!(ran.get(), 1);
    });
}

/// Fault 123.
#[test]
fn a_thread_local_of_a_worker_may_use_the_pool_in_its_destructor() {
    struct UsesPool(std::sync::Weak<WorkerPool>, Counter);
    impl Drop for UsesPool {
        fn drop(&mut self) {
            if let Some(pool) = self.0.upgrade() {
                let _ = pool.execute(|| ());
                let _ = pool.spawn(|| ()).map(|handle| handle.cancel());
                let _ = (pool.metrics(), pool.running());
            }
            self.1.add();
        }
    }
    thread_local! { static LOCAL: RefCell<Option<UsesPool>> = const { RefCell::new(None) } }
    with_watchdog(|| {
        for shrinks in [false, true] {
            let pool = pool(2, 4);
            let destroyed = Counter::new();
            for _ in 0..2 {
                let (weak, counted) = (Arc::downgrade(&pool), destroyed.clone());
                let gate = Gate::new();
                let inside = gate.clone();
                pool.execute(move || {
                    LOCAL.set(Some(UsesPool(weak, counted)));
                    inside.open();
                    inside.pass();
                })
                .unwrap();
                pool.wait_idle();
            }
            if shrinks {
                pool.resize(1).unwrap();
            }
            pool.wait_idle();
            pool.shutdown();
            assert_eq!(destroyed.get(), 2, "by the ends of two threads, or of one and by the second task");
            assert_counts_add_up(&pool);
        }
    });
}

/// Fault 104.
#[test]
fn a_process_may_end_while_a_static_pool_works() {
    let output = run_child("child_returns_while_a_static_pool_works", &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "it did not end by a return: {output:?}");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_returns_while_a_static_pool_works() {
    static POOL: OnceLock<Arc<WorkerPool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| pool(2, 4));
    let gate = Gate::new();
    let inside = gate.clone();
    pool.execute(move || inside.pass()).unwrap();
    gate.wait_started(1); // and is never opened: `main` returns while the task runs
}

#[test]
fn a_user_of_an_outside_thread_that_runs_a_job_does_not_wait_for_itself() {
    // With CallerRuns the submitting thread is inside the pool while it runs the job.
    with_watchdog(|| {
        let pool = WorkerPool::builder().workers(1).queue_capacity(1).overflow(workcrew::Overflow::CallerRuns);
        let pool = Arc::new(pool.build().unwrap());
        let wedge = BlockedWorkers::new(&pool);
        fill(&pool, &Counter::new());
        let inner = Arc::clone(&pool);
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
fn a_pool_that_shrinks_while_it_drains_still_ends() {
    with_watchdog(|| {
        for round in 0..2_000 {
            let pool = pool(2, 1);
            pool.execute(|| ()).unwrap();
            if round % 2 == 0 {
                pool.resize(1).unwrap();
                pool.shutdown_now();
            } else {
                let _ = pool.shutdown_timeout(Duration::ZERO);
                let _ = pool.resize(1);
            }
            pool.wait_idle();
            pool.shutdown();
        }
    });
}

#[test]
fn every_surplus_worker_leaves_an_idle_pool() {
    with_watchdog(|| {
        let left = Counter::new();
        let counted = left.clone();
        let pool = WorkerPool::builder().workers(8).queue_capacity(1).on_thread_stop(move |_| counted.add());
        let pool = pool.build().unwrap();
        pool.resize(1).unwrap();
        while left.get() < 7 {
            thread::yield_now();
        }
        assert_eq!(pool.queue_len(), 0);
        let gate = Gate::new();
        let inside = gate.clone();
        pool.execute(move || inside.pass()).unwrap();
        gate.wait_started(1);
        pool.execute(|| ()).unwrap();
        assert!(pool.try_execute(|| ()).unwrap_err().is_full(), "one worker only");
        gate.open();
    });
}

#[test]
fn a_cancelled_closure_may_hold_the_last_reference_to_its_pool() {
    with_watchdog(|| {
        for by_group in [false, true] {
            let pool = pool(1, 4);
            let wedge = BlockedWorkers::new(&pool);
            let last = Arc::clone(&pool);
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
    struct Ends(Arc<WorkerPool>, Counter);
    impl Drop for Ends {
        fn drop(&mut self) {
            assert!(!self.0.wait_idle_timeout(LIMIT));
            self.0.shutdown();
            self.1.add();
        }
    }
    with_watchdog(|| {
        let builder = WorkerPool::builder().workers(1).queue_capacity(1);
        let pool = Arc::new(builder.overflow(workcrew::Overflow::DiscardOldest).build().unwrap());
        let wedge = BlockedWorkers::new(&pool);
        let ended = Counter::new();
        let ends = Ends(Arc::clone(&pool), ended.clone());
        pool.execute(move || drop(ends)).unwrap();
        let _ = pool.execute(|| ());
        assert_eq!(ended.get(), 1);
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
        let (inner, ran) = (Arc::clone(&pool), Counter::new());
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
fn a_thread_local_of_a_worker_may_hold_the_last_reference_to_its_pool() {
    thread_local! { static LAST: RefCell<Option<Arc<WorkerPool>>> = const { RefCell::new(None) } }
    with_watchdog(|| {
        for _ in 0..50 {
            let pool = pool(1, 4);
            let (inner, weak) = (Arc::clone(&pool), Arc::downgrade(&pool));
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

#[test]
fn every_shutdown_returns_after_the_threads_have_ended() {
    struct Ends(Gate, Counter);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.pass();
            self.1.add();
        }
    }
    thread_local! { static ENDS: RefCell<Option<Ends>> = const { RefCell::new(None) } }
    with_watchdog(|| {
        let pool = pool(1, 4);
        let (gate, ended) = (Gate::new(), Counter::new());
        let ends = Ends(gate.clone(), ended.clone());
        pool.spawn(move || ENDS.set(Some(ends))).unwrap().join().unwrap();
        thread::scope(|threads| {
            let end = || {
                pool.shutdown();
                assert_eq!(ended.get(), 1);
            };
            let enders = [threads.spawn(end), threads.spawn(end), threads.spawn(end)];
            gate.wait_started(1); // in the destructor, after the worker has left the pool
            gate.open();
            join_all(enders);
        });
    });
}

#[test]
fn a_value_of_a_group_may_resize_the_pool_in_its_destructor() {
    struct Resizes(Arc<WorkerPool>);
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
                let inner = Arc::clone(&pool);
                group.spawn(move || Ok::<_, ()>(Resizes(inner)));
            }
            join_all([resizer]);
        });
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn periodic_timers_are_over_when_their_pool_is() {
    with_watchdog(|| {
        for round in 0..2_000 {
            let pool = pool(1, 4);
            let dropped = Counter::new();
            let timers: Vec<_> = (0..8)
                .map(|n| {
                    let probe = DropCounter(dropped.clone());
                    pool.execute_every(Duration::from_micros(31 + n), move || _ = &probe).unwrap()
                })
                .collect();
            let since = Instant::now();
            while since.elapsed() < Duration::from_micros(100 + round % 97) {
                hint::spin_loop();
            }
            pool.shutdown();
            assert!(timers.iter().all(workcrew::TimerHandle::is_finished), "round {round}");
            assert_eq!(dropped.get(), 8, "round {round}");
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
        let waited_for = Arc::clone(&pool);
        let waiting = spawn_parked(move || waited_for.wait_idle());
        task.open();
        stopping.wait_started(1);
        waiting.join().unwrap();
        starting.open();
        stopping.open();
    });
}

/// Asks the pool for a scope when it is dropped, and says whether its body was called.
struct AsksForAScope(Weak<WorkerPool>, mpsc::Sender<(bool, bool)>);

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
    let pool = Arc::new(pool(1, 1));
    let (dropped, drops) = mpsc::channel();
    let asks = AsksForAScope(Arc::downgrade(&pool), dropped);
    pool.execute_after(Duration::from_secs(3_600), move || drop(asks)).unwrap();
    pool.close();
    assert_eq!(drops.recv().unwrap(), (true, false));
}
