//! Shutdowns that drain: accepted tasks run, later ones are refused, threads end.

use std::cell::RefCell;
use std::time::{Duration, Instant};
use std::{hint, thread};

use crate::common::{Counter, DropCounter, Gate, LIMIT, assert_counts_add_up, join_all, on_grid, pool, with_watchdog};
use workcrew::WorkerPool;

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
        let (inner, inside) = (pool.clone(), gate.clone());
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
                let (inner, inside) = (pool.clone(), gate.clone());
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
