//! Full executors and full keys.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use workcrew::{KeyedExecutor, SubmitError, SubmitTimeoutError};

use crate::common::{BlockedWorkers, Counter, Gate, Mutex, in_threads, on_grid, pool, spawn_parked, with_watchdog};

/// Fault 406.
#[test]
fn a_full_executor_and_a_full_key_refuse_and_return_the_closure() {
    on_grid(|pool| {
        let executor = KeyedExecutor::builder(&pool).capacity(3).capacity_per_key(2).build();
        let (wedge, ran) = (BlockedWorkers::new(&pool), Counter::new());
        let task = || {
            let ran = ran.clone();
            move || ran.add()
        };
        executor.try_execute('a', task()).unwrap();
        executor.execute('a', task()).unwrap();
        let full = executor.try_execute('a', task()).unwrap_err();
        assert_eq!((full.is_full(), full.to_string()), (true, "the executor or the key is full".into()));
        full.into_inner()(); // runs here
        let late = executor.try_execute_for('a', Duration::from_millis(1), task()).unwrap_err();
        assert_eq!(late.to_string(), "the executor or the key was full until the timeout");
        assert!(executor.try_spawn('a', task()).unwrap_err().is_full());
        assert!(executor.try_spawn_for('a', Duration::ZERO, task()).unwrap_err().is_timeout());
        executor.try_spawn('b', task()).unwrap().cancel();
        assert!(executor.try_execute('c', task()).unwrap_err().is_full(), "a cancelled task keeps its place");
        wedge.open();
        executor.wait_idle();
        pool.wait_idle();
        assert_eq!((ran.get(), pool.metrics().tasks_refused), (3, 5));
        assert_eq!(executor.len(), 0);
    });
}

/// Fault 406.
#[test]
fn zero_counts_as_one() {
    on_grid(|pool| {
        let executor = KeyedExecutor::builder(&pool).capacity(0).capacity_per_key(0).build();
        let wedge = BlockedWorkers::new(&pool);
        executor.try_execute(1, || ()).unwrap();
        assert!(executor.try_execute(2, || ()).unwrap_err().is_full());
        wedge.open();
        (0..10).for_each(|key| executor.execute(key % 2, || ()).unwrap());
        executor.wait_idle();
    });
}

/// Fault 407.
#[test]
fn submitters_that_wait_for_room_get_it_and_the_bounds_hold() {
    with_watchdog(|| {
        for (capacity, per_key) in [(1, 1), (8, 2), (64, 64)] {
            let pool = pool(2, 4);
            let executor = KeyedExecutor::builder(&pool).capacity(capacity).capacity_per_key(per_key).build();
            let (ran, most) = (Counter::new(), AtomicUsize::new(0));
            in_threads(|threads| {
                for submitter in 0..4 {
                    let (executor, ran, most) = (executor.clone(), ran.clone(), &most);
                    threads.spawn(move || {
                        for number in 0..500 {
                            let ran = ran.clone();
                            executor.execute((submitter + number) % 3, move || ran.add()).unwrap();
                            most.fetch_max(executor.len(), Ordering::SeqCst);
                        }
                    });
                }
            });
            executor.wait_idle();
            assert_eq!(ran.get(), 2_000);
            assert!(most.into_inner() <= capacity);
        }
    });
}

/// Fault 408.
#[test]
fn a_task_submits_to_its_own_full_key_and_to_others() {
    on_grid(|pool| {
        let executor = KeyedExecutor::builder(&pool).capacity(4).capacity_per_key(2).build();
        let (own, order) = (executor.clone(), Arc::new(Mutex::new(Vec::new())));
        let noted = Arc::clone(&order);
        let first = executor.spawn('a', move || {
            for number in 0..20 {
                for key in ['a', 'b', 'c'] {
                    let noted = Arc::clone(&noted);
                    own.execute(key, move || noted.lock().unwrap().push((key, number))).unwrap();
                }
            }
            assert!(own.try_execute('a', || ()).unwrap_err().is_full());
            assert!(own.try_execute_for('a', Duration::MAX, || ()).unwrap_err().is_timeout(), "it never blocks");
        });
        first.unwrap().join().unwrap();
        executor.wait_idle();
        for key in ['a', 'b', 'c'] {
            let order = order.lock().unwrap();
            let numbers = order.iter().filter(|(other, _)| *other == key).map(|(_, number)| *number);
            assert!(numbers.eq(0..20), "key {key}");
        }
    });
}

/// Fault 408.
#[test]
fn a_worker_that_submits_to_a_full_key_runs_its_oldest_task() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let executor = KeyedExecutor::builder(&pool).capacity_per_key(2).build();
        let (own, most) = (executor.clone(), Arc::new(AtomicUsize::new(0)));
        let noted = Arc::clone(&most);
        let task = executor.spawn('a', move || {
            for _ in 0..1_000 {
                own.execute('b', || ()).unwrap();
                noted.fetch_max(own.len(), Ordering::SeqCst);
            }
        });
        task.unwrap().join().unwrap();
        assert_eq!(most.load(Ordering::SeqCst), 2, "the bound holds for other keys");
    });
}

/// Fault 408.
#[test]
fn tasks_of_full_keys_submit_to_each_other() {
    with_watchdog(|| {
        for workers in [1, 2, 8] {
            let pool = pool(workers, 4);
            let executor = KeyedExecutor::builder(&pool).capacity(2).capacity_per_key(1).build();
            let ran = Counter::new();
            for key in 0..4 {
                let (own, ran) = (executor.clone(), ran.clone());
                executor
                    .execute(key, move || {
                        for number in 0..100 {
                            let ran = ran.clone();
                            own.execute((key + number) % 4, move || ran.add()).unwrap();
                        }
                    })
                    .unwrap();
            }
            executor.wait_idle();
            assert_eq!(ran.get(), 400);
        }
    });
}

/// Fault 408.
#[test]
fn a_task_of_another_pool_waits_for_room_that_needs_its_waiter() {
    with_watchdog(|| {
        let (home, abroad) = (pool(1, 4), pool(1, 4));
        let executor = KeyedExecutor::builder(&home).capacity_per_key(1).build();
        let (far, own) = (abroad.clone(), executor.clone());
        // The only worker of the pool waits for a task that waits for room behind this very task.
        let first = executor.spawn('a', move || {
            own.execute('a', || ()).unwrap(); // the key is full
            own.execute('b', || ()).unwrap();
            let full = own.clone();
            let submits = far.spawn(move || {
                full.execute('b', || ()).unwrap(); // the waiter runs the task of this key
                full.execute('a', || ()).unwrap(); // no worker can make room, so it is beyond the bound
            });
            submits.unwrap().join().unwrap();
        });
        first.unwrap().join().unwrap();
        executor.wait_idle();
        assert_eq!(home.metrics().tasks_succeeded, 5);
    });
}

/// Fault 490.
#[test]
fn a_task_waits_for_room_that_needs_one_of_two_running_keys_and_both_wait_for_it() {
    with_watchdog(|| {
        let (home, abroad) = (pool(1, 4), pool(1, 4));
        let executor = KeyedExecutor::builder(&home).capacity(1).build();
        let far = KeyedExecutor::builder(&abroad).capacity(1).build();
        let (own, other) = (executor.clone(), far.clone());
        let first = executor.spawn('a', move || {
            let (nested, far) = (own.clone(), other.clone());
            let second = move || {
                nested.execute('b', || ()).unwrap(); // behind this task: the executor is full
                let (gate, home) = (Gate::new(), nested.clone());
                let inside = gate.clone();
                let waits = move || {
                    inside.pass();
                    home.execute('c', || ()).unwrap(); // room needs the end of 'a' or of 'b'
                };
                far.execute('a', waits).unwrap();
                gate.wait_started(1);
                far.execute('a', || ()).unwrap(); // behind that task: this executor is full, too
                gate.open();
                far.execute('b', || ()).unwrap(); // room needs the end of 'a' there
            };
            own.execute('b', second).unwrap();
            own.execute('c', || ()).unwrap(); // runs the task before on this stack to make room
        });
        first.unwrap().join().unwrap();
        executor.wait_idle();
        far.wait_idle();
        assert_eq!((home.metrics().tasks_succeeded, abroad.metrics().tasks_succeeded), (5, 3));
    });
}

/// Fault 409.
#[test]
fn the_end_of_the_pool_returns_the_closure_to_a_submitter_that_waits() {
    with_watchdog(|| {
        for is_timed in [false, true] {
            let pool = pool(1, 4);
            let executor = KeyedExecutor::builder(&pool).capacity(1).build();
            let gate = Gate::new();
            let inside = gate.clone();
            executor.execute('a', move || inside.pass()).unwrap();
            gate.wait_started(1);
            executor.execute('a', || ()).unwrap();
            let (waits, (send, receive)) = (executor.clone(), mpsc::channel());
            let submitter = spawn_parked(move || {
                let task = move || send.send(()).unwrap();
                if is_timed {
                    waits.try_execute_for('b', Duration::MAX, task).map_err(SubmitTimeoutError::into_inner)
                } else {
                    waits.execute('b', task).map_err(SubmitError::into_inner)
                }
            });
            // Beyond the wait for the low-water mark. On a slow machine the test sees less.
            thread::sleep(Duration::from_millis(5));
            pool.close();
            submitter.join().unwrap().unwrap_err()();
            receive.recv().unwrap();
            gate.open();
            pool.shutdown();
            assert_eq!((executor.len(), pool.metrics().tasks_succeeded), (0, 2));
        }
    });
}
