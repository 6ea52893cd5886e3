//! `broadcast`: each worker runs its share once, and each share has one outcome.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use crate::common::{
    BlockedWorkers, Counter, DropCounter, Gate, Mutex, assert_counts_add_up, fill, in_threads, on_grid, pool,
    quiet_panics, with_watchdog,
};
use workcrew::{CancelReason, JoinError, JoinHandle, WorkerPool, current_worker};

/// The index of the calling worker, after a check of the one that the closure got.
fn index(worker: usize) -> usize {
    assert_eq!(current_worker().unwrap().index(), worker);
    worker
}

fn join_all(shares: Vec<JoinHandle<usize>>) -> Result<Vec<usize>, JoinError> {
    shares.into_iter().map(JoinHandle::join).collect()
}

/// Fault 431.
#[test]
fn each_worker_runs_its_share_once_in_the_order_of_the_workers() {
    on_grid(|pool| {
        for round in 1..=3 {
            let shares = pool.broadcast(index).unwrap();
            assert_eq!(join_all(shares).unwrap(), (0..pool.workers()).collect::<Vec<_>>());
            let metrics = pool.metrics();
            assert_eq!(metrics.tasks_succeeded, round * pool.workers() as u64);
        }
        let ran = Counter::new();
        let run = ran.clone();
        drop(pool.broadcast(move |_| run.add()).unwrap());
        pool.wait_idle();
        assert_eq!(ran.get(), pool.workers(), "dropped handles cancel nothing");
        assert_counts_add_up(&pool);
    });
}

/// Fault 431.
#[test]
fn a_broadcast_neither_waits_for_room_nor_for_busy_workers_and_comes_before_queued_jobs() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let filled = Counter::new();
        let jobs = fill(&pool, &filled);
        let before = filled.clone();
        let shares = pool.broadcast(move |worker| (index(worker), before.get())).unwrap();
        assert_eq!(pool.queue_len(), jobs);
        assert!(shares.iter().all(|share| !share.is_finished()));
        wedge.open();
        let shares: Vec<_> = shares.into_iter().map(|share| share.join().unwrap()).collect();
        if pool.workers() == 1 {
            assert_eq!(shares, [(0, 0)]);
        }
        pool.wait_idle();
        assert_eq!(filled.get(), jobs);
    });
}

/// Fault 431.
#[test]
fn a_busy_worker_delays_only_its_own_share() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        let gate = Gate::new();
        let inside = gate.clone();
        let busy = pool.spawn(move || {
            let worker = current_worker().unwrap().index();
            inside.pass();
            worker
        });
        gate.wait_started(1);
        let mut shares = pool.broadcast(index).unwrap();
        let busy_index = pool.running()[0].worker();
        let late = shares.remove(busy_index);
        assert_eq!(shares.remove(0).join().unwrap(), 1 - busy_index);
        assert!(!late.wait_timeout(Duration::ZERO));
        gate.open();
        assert_eq!(late.join().unwrap(), busy.unwrap().join().unwrap());
    });
}

/// Fault 432.
#[test]
fn a_task_may_broadcast_and_wait_and_runs_its_own_share_in_place() {
    on_grid(|pool| {
        let own = pool.clone();
        let all = pool.spawn(move || {
            let mut shares = own.broadcast(index).unwrap();
            let first = shares.remove(current_worker().unwrap().index()).join().unwrap();
            assert_eq!(first, current_worker().unwrap().index());
            join_all(shares).unwrap().len() + 1
        });
        assert_eq!(all.unwrap().join().unwrap(), pool.workers());
    });
}

/// Fault 432.
#[test]
fn tasks_that_broadcast_and_wait_for_each_other_are_refused_a_join_and_never_hang() {
    with_watchdog(|| {
        for workers in [2, 8] {
            let pool = pool(workers, 8);
            let all_run = Arc::new(Barrier::new(workers));
            let tasks: Vec<_> = (0..workers)
                .map(|_| {
                    let (own, all_run) = (pool.clone(), Arc::clone(&all_run));
                    pool.spawn(move || {
                        all_run.wait();
                        join_all(own.broadcast(index).unwrap())
                    })
                    .unwrap()
                })
                .collect();
            let results: Vec<_> = tasks.into_iter().map(|task| task.join().unwrap()).collect();
            assert!(results.iter().any(|result| matches!(result, Err(JoinError::WouldDeadlock(_)))));
            pool.wait_idle();
            assert_eq!(pool.metrics().tasks_succeeded as usize, workers + workers * workers);
        }
    });
}

/// Fault 597.
#[test]
#[cfg(feature = "driver")]
fn a_worker_that_waits_through_a_future_for_its_own_share_runs_it() {
    use workcrew::driver::Driver;
    with_watchdog(|| {
        for workers in [1, 2, 8] {
            let (home, abroad) = (pool(workers, 64), pool(workers, 64));
            let driver = Arc::new(Driver::new(&home, workers).unwrap());
            let all_run = Arc::new(Barrier::new(workers));
            let tasks: Vec<_> = (0..workers)
                .map(|_| {
                    let (home, far, driver) = (home.clone(), abroad.clone(), Arc::clone(&driver));
                    let (own, all_run) = (home.clone(), Arc::clone(&all_run));
                    let task = move || {
                        all_run.wait();
                        let shares = move || join_all(home.broadcast(index).unwrap()).unwrap();
                        let future = async move { far.spawn_async(shares).await.unwrap().await.unwrap() };
                        driver.spawn(future).unwrap().join().unwrap()
                    };
                    own.spawn(task).unwrap()
                })
                .collect();
            for task in tasks {
                assert_eq!(task.join().unwrap(), (0..workers).collect::<Vec<_>>());
            }
        }
    });
}

/// Fault 431.
#[test]
fn the_panic_of_a_share_is_in_its_handle_only() {
    quiet_panics();
    on_grid(|pool| {
        let dropped = Counter::new();
        let captured = DropCounter(dropped.clone());
        let shares = pool.broadcast(move |worker| {
            let _captured = &captured;
            assert_ne!(worker, 0, "the first worker fails");
            worker
        });
        for (worker, share) in shares.unwrap().into_iter().enumerate() {
            match share.join() {
                Ok(index) => assert!(index == worker && worker > 0),
                Err(error) => assert!(worker == 0 && error.to_string().contains("the first worker fails"), "{error}"),
            }
        }
        pool.wait_idle();
        assert_eq!((dropped.get(), pool.metrics().tasks_panicked), (1, 1));
    });
}

/// Fault 433.
#[test]
fn a_worker_that_must_leave_runs_its_share_first_and_a_new_one_has_none() {
    with_watchdog(|| {
        for workers in [2, 8] {
            let pool = pool(workers, 8);
            let wedge = BlockedWorkers::new(&pool);
            let shares = pool.broadcast(index).unwrap();
            pool.resize(1).unwrap();
            pool.resize(workers + 1).unwrap();
            wedge.open();
            assert_eq!(join_all(shares).unwrap(), (0..workers).collect::<Vec<_>>());
            while pool.broadcast(index).unwrap().len() != workers + 1 {
                thread::yield_now(); // surplus workers are still leaving
            }
        }
    });
}

/// Fault 434.
#[test]
fn a_drain_runs_the_shares_and_a_cancelling_shutdown_cancels_those_that_have_not_started() {
    on_grid(|pool| {
        let workers = pool.workers();
        let wedge = BlockedWorkers::new(&pool);
        let cancelled = pool.broadcast(index).unwrap();
        let report = pool.shutdown_now();
        assert_eq!((report.tasks_cancelled, report.tasks_running), (workers, workers));
        for share in cancelled {
            assert!(matches!(share.join(), Err(JoinError::Cancelled(CancelReason::ShutDown))));
        }
        let refused = pool.broadcast(|worker| worker + 1).unwrap_err();
        assert!(refused.is_shut_down());
        assert_eq!(refused.into_inner()(1), 2);
        wedge.open();
    });
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let shares = pool.broadcast(index).unwrap();
        pool.close();
        assert!(pool.broadcast(index).is_err());
        wedge.open();
        pool.shutdown();
        assert_eq!(join_all(shares).unwrap().len(), pool.workers());
        assert!(pool.broadcast(index).is_err(), "no worker is left");
        assert_counts_add_up(&pool);
    });
}

/// Fault 434.
#[test]
fn broadcasts_meet_resizes_and_a_shutdown_and_each_share_has_one_outcome() {
    with_watchdog(|| {
        for cancels in [false, true] {
            let (pool, ran, over) = (pool(3, 8), Counter::new(), AtomicBool::new(false));
            let shares = Mutex::<Vec<JoinHandle<()>>>::default();
            in_threads(|threads| {
                for _ in 0..2 {
                    threads.spawn(|| {
                        while !over.load(Ordering::SeqCst) {
                            let run = ran.clone();
                            let Ok(more) = pool.broadcast(move |_| run.add()) else { return };
                            shares.lock().unwrap().extend(more);
                        }
                    });
                }
                threads.spawn(|| {
                    for round in 0..40 {
                        pool.resize(1 + round % 5).unwrap();
                        thread::yield_now();
                    }
                    if cancels {
                        pool.shutdown_now();
                    } else {
                        pool.close();
                    }
                    over.store(true, Ordering::SeqCst);
                });
            });
            pool.shutdown();
            let (mut succeeded, mut cancelled) = (0, 0);
            for share in shares.into_inner().unwrap() {
                match share.join() {
                    Ok(()) => succeeded += 1,
                    Err(JoinError::Cancelled(CancelReason::ShutDown)) if cancels => cancelled += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(ran.get(), succeeded);
            assert_counts_add_up(&pool);
            let metrics = pool.metrics();
            assert_eq!((metrics.tasks_succeeded, metrics.tasks_cancelled), (succeeded as u64, cancelled));
        }
    });
}

/// Fault 433.
#[test]
fn cancelled_shares_of_a_busy_worker_leave_nothing_and_are_not_run() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let wedge = BlockedWorkers::new(&pool);
        let (ran, dropped) = (Counter::new(), Counter::new());
        for _ in 0..10_000 {
            let (run, captured) = (ran.clone(), DropCounter(dropped.clone()));
            let shares = pool.broadcast(move |_| {
                let _captured = &captured;
                run.add();
            });
            assert!(shares.unwrap().iter().all(JoinHandle::cancel));
        }
        assert_eq!(dropped.get(), 10_000);
        wedge.open();
        pool.wait_idle();
        assert_eq!(ran.get(), 0);
    });
}

/// Fault 433.
#[test]
fn a_share_that_broadcasts_again_does_not_keep_queued_jobs_from_running() {
    fn again(pool: &WorkerPool, is_over: &Arc<AtomicBool>) {
        if !is_over.load(Ordering::SeqCst) {
            let (own, over) = (pool.downgrade(), Arc::clone(is_over));
            let shares = pool.broadcast(move |worker| {
                if worker == 0
                    && let Some(pool) = own.upgrade()
                {
                    again(&pool, &over);
                }
            });
            drop(shares);
        }
    }
    on_grid(|pool| {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        again(&pool, &is_over);
        pool.spawn(move || over.store(true, Ordering::SeqCst)).unwrap().join().unwrap();
    });
}
