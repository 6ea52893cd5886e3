//! Waits for a turn at a driver, behind futures that need the very workers that wait: they end.
#![cfg(feature = "driver")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{Counter, Gate, assert_counts_add_up, pool, spawn_parked, with_watchdog};
use workcrew::driver::Driver;
use workcrew::{JoinHandle, WorkerPool};

const SIZES: [usize; 3] = [1, 2, 8];

/// Runs a task on each worker, all at once: none goes on before each has started.
fn on_each_worker(pool: &WorkerPool, task: impl Fn() + Clone + Send + 'static) {
    let gate = Gate::new();
    let start = |_| {
        let (inside, task) = (gate.clone(), task.clone());
        let body = move || {
            inside.pass();
            task();
        };
        pool.spawn(body).unwrap()
    };
    let handles: Vec<_> = (0..pool.workers()).map(start).collect();
    gate.wait_started(pool.workers());
    gate.open();
    handles.into_iter().for_each(|handle| handle.join().unwrap());
}

/// A driver with that limit, and futures that fill it. Each awaits a task of the pool, which all its workers are too
/// busy for, or yields an output for a worker.
fn filled(pool: &WorkerPool, limit: usize, then: bool) -> (Arc<Driver>, Vec<JoinHandle<u32>>) {
    let driver = Arc::new(Driver::new(pool, limit).unwrap());
    let spawn = |_| {
        let pool = pool.clone();
        if then {
            driver.spawn_then(async { 1 }, |one| one).unwrap()
        } else {
            driver.spawn(async move { pool.try_spawn(|| 1).unwrap().await.unwrap() }).unwrap()
        }
    };
    let filling = (0..limit).map(spawn).collect();
    (driver, filling)
}

/// Fault 280.
#[test]
fn a_worker_that_joins_a_future_behind_others_helps_with_what_those_await() {
    for workers in SIZES {
        for limit in [1, 2, 64] {
            with_watchdog(|| {
                let pool = pool(workers, 64);
                let driver = Arc::new(Driver::new(&pool, limit).unwrap());
                let home = pool.downgrade();
                on_each_worker(&pool, move || {
                    let front = |_| {
                        let pool = home.upgrade().unwrap();
                        driver.spawn(async move { pool.try_spawn(|| 1).unwrap().await.unwrap() }).unwrap()
                    };
                    let front: Vec<_> = (0..limit.min(4)).map(front).collect();
                    assert_eq!(driver.spawn(async { 2 }).unwrap().join().unwrap(), 2);
                    assert!(front.into_iter().all(|handle| handle.join().unwrap() == 1));
                });
                pool.wait_idle();
                assert_counts_add_up(&pool);
            });
        }
    }
}

/// Fault 280.
#[test]
fn a_task_of_another_pool_that_waits_for_its_turn_is_helped_by_a_worker_that_waits_for_it() {
    for workers in SIZES {
        for limit in [1, 3] {
            for then in [false, true] {
                for is_late in [false, true] {
                    with_watchdog(|| wait_for_a_turn_through_another_pool(workers, limit, then, is_late));
                }
            }
        }
    }
}

fn wait_for_a_turn_through_another_pool(workers: usize, limit: usize, then: bool, is_late: bool) {
    let (home, abroad) = (pool(workers, 64), pool(workers, 64));
    let busy = Gate::new();
    let waiting: Vec<_> = (0..workers)
        .map(|_| {
            let inside = busy.clone();
            home.spawn(move || inside.pass()).unwrap()
        })
        .collect();
    busy.wait_started(workers);
    let (driver, filling) = filled(&home, limit, then);
    if is_late {
        // The futures have begun their waits, or yielded, before the workers wait.
        while driver.in_flight() > 0 && then {
            thread::yield_now();
        }
    }
    let (far, front, counted) = (abroad.clone(), Arc::clone(&driver), Counter::new());
    let ended = counted.clone();
    // Queued behind the busy ones, one for each worker.
    let gate = Gate::new();
    let tasks: Vec<_> = (0..workers)
        .map(|_| {
            let (far, driver, ended, gate) = (far.clone(), Arc::clone(&front), ended.clone(), gate.clone());
            let task = move || {
                gate.pass();
                let spawn = move || driver.spawn(async { 2 }).unwrap().join().unwrap();
                assert_eq!(far.spawn(spawn).unwrap().join().unwrap(), 2);
                ended.add();
            };
            home.execute(task)
        })
        .collect();
    assert!(tasks.into_iter().all(|task| task.is_ok()));
    gate.open();
    busy.open();
    waiting.into_iter().for_each(|task| task.join().unwrap());
    home.wait_idle();
    assert_eq!(counted.get(), workers);
    assert!(filling.into_iter().all(|handle| handle.join().unwrap() == 1));
    assert_counts_add_up(&home);
}

/// Fault 280.
#[test]
fn an_output_that_becomes_ready_while_a_task_waits_for_its_turn_is_run_by_the_worker_that_waits_for_that() {
    for workers in SIZES {
        with_watchdog(|| {
            let (home, abroad) = (pool(workers, 64), pool(workers, 64));
            let driver = Arc::new(Driver::new(&home, 1).unwrap());
            let (ready, awaited) = tokio::sync::oneshot::channel::<()>();
            let first = driver.spawn_then(async move { awaited.await.unwrap() }, |()| 1).unwrap();
            let (far, turn) = (abroad.clone(), Arc::clone(&driver));
            let ended = thread::spawn({
                let home = home.clone();
                move || {
                    on_each_worker(&home, move || {
                        let driver = Arc::clone(&turn);
                        let spawn = move || driver.spawn(async { 2 }).unwrap().join().unwrap();
                        assert_eq!(far.spawn(spawn).unwrap().join().unwrap(), 2);
                    });
                }
            });
            while abroad.metrics().tasks_running < workers as u64 {
                thread::yield_now();
            }
            ready.send(()).unwrap();
            ended.join().unwrap();
            assert_eq!(first.join().unwrap(), 1);
        });
    }
}

/// Fault 280.
#[test]
fn a_wait_for_a_turn_ends_when_the_pool_is_closed() {
    for workers in SIZES {
        with_watchdog(|| {
            let (home, abroad) = (pool(workers, 64), pool(1, 64));
            let driver = Arc::new(Driver::new(&home, 1).unwrap());
            let stays = driver.spawn(std::future::pending::<()>()).unwrap();
            let [turn, other] = [(); 2].map(|()| Arc::clone(&driver));
            let waits = spawn_parked(move || turn.spawn(async { 2 }).is_err());
            let begun = Gate::new();
            let inside = begun.clone();
            begun.open();
            let refused = abroad.spawn(move || {
                inside.pass();
                other.spawn(async { 2 }).is_err()
            });
            begun.wait_started(1);
            home.close(); // what holds the turn goes on
            assert!(waits.join().unwrap() && refused.unwrap().join().unwrap(), "the pool is closed");
            assert!(!stays.is_finished());
            let _ = home.shutdown_now();
            assert!(stays.join().is_err());
        });
    }
}

/// Fault 281.
#[test]
fn spawning_inside_a_future_of_another_pool_blocks_no_other_future_of_that() {
    for workers in SIZES {
        with_watchdog(|| {
            let (home, abroad) = (pool(workers, 64), pool(workers, 64));
            let (here, there) = (Arc::new(Driver::new(&home, 1).unwrap()), Driver::new(&abroad, 8).unwrap());
            // What holds the turn needs another future of the other driver.
            let (ready, awaited) = tokio::sync::oneshot::channel::<()>();
            let first = here.spawn(async move { awaited.await.unwrap() }).unwrap();
            let turn = Arc::clone(&here);
            let spawns = there.spawn(async move { turn.spawn(async { 2 }).unwrap().await.unwrap() }).unwrap();
            let frees = there.spawn(async move { ready.send(()).unwrap() }).unwrap();
            frees.join().unwrap();
            first.join().unwrap();
            assert_eq!(spawns.join().unwrap(), 2);
            let refused = there.spawn(async move {
                let _fills = here.spawn(std::future::pending::<()>()).unwrap();
                here.try_spawn_for(Duration::MAX, async {}).is_err()
            });
            assert!(refused.unwrap().join().unwrap());
            let _ = home.shutdown_now();
        });
    }
}

/// Fault 282.
#[test]
fn a_future_that_blocks_on_a_task_is_helped_by_a_worker_that_joins_another_future() {
    // Drivers of one pool share their thread.
    for (workers, drivers) in SIZES.into_iter().flat_map(|workers| [(workers, 1), (workers, 2)]) {
        with_watchdog(|| {
            let pool = pool(workers, 64);
            let drivers: Vec<_> = (0..drivers).map(|_| Arc::new(Driver::new(&pool, 64).unwrap())).collect();
            let driver = &drivers[0];
            let (home, gate) = (pool.downgrade(), Gate::new());
            let inside = gate.clone();
            let busy: Vec<_> = (0..workers)
                .map(|_| {
                    let (inside, driver) = (inside.clone(), Arc::clone(driver));
                    pool.spawn(move || {
                        inside.pass();
                        driver.spawn(async { 2 }).unwrap().join().unwrap()
                    })
                    .unwrap()
                })
                .collect();
            gate.wait_started(workers);
            let blocks = async move { home.upgrade().unwrap().spawn(|| 1).unwrap().join().unwrap() };
            let first = drivers[drivers.len() - 1].spawn(blocks).unwrap();
            let first = spawn_parked(move || first.join().unwrap());
            gate.open();
            assert!(busy.into_iter().all(|task| task.join().unwrap() == 2));
            assert_eq!(first.join().unwrap(), 1);
        });
    }
}
