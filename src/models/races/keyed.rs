//! Keyed executors: the order of a key under concurrent submitters, a key that empties while a task
//! is added, and keys on two workers.

use super::{counter, one_worker, workers};
use crate::keyed::KeyedExecutor;
use crate::models::explore::{explore, race};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, Time};

#[test]
fn submitters_of_one_key() {
    explore("submitters_of_one_key", Time::Frozen, || {
        let pool = one_worker(4);
        let executor = pool.keyed::<u8>();
        let order = Arc::new(Mutex::new(Vec::new()));
        let submit = |tasks: [u8; 2]| {
            let (executor, order) = (executor.clone(), Arc::clone(&order));
            move || {
                for task in tasks {
                    let order = Arc::clone(&order);
                    assert!(executor.execute(7, move || order.lock().push(task)).is_ok(), "there is room");
                }
            }
        };
        race(submit([1, 2]), submit([11, 12]));
        drop(pool);
        let order = order.lock().clone();
        assert_eq!(order.len(), 4, "no task is lost");
        let of_one: Vec<u8> = order.iter().copied().filter(|task| *task < 10).collect();
        let of_other: Vec<u8> = order.iter().copied().filter(|task| *task > 10).collect();
        assert_eq!((of_one, of_other), (vec![1, 2], vec![11, 12]), "each submitter's tasks keep their order");
        assert_eq!(executor.keys_active(), 0);
    });
}

#[test]
fn key_that_empties_and_add() {
    explore("key_that_empties_and_add", Time::Frozen, || {
        let pool = one_worker(4);
        let executor = pool.keyed::<u8>();
        let runs = counter();
        for _ in 0..2 {
            let runs = Arc::clone(&runs);
            let task = move || {
                runs.fetch_add(1, Ordering::Relaxed);
            };
            // The second finds the key ready, running, or absent again.
            assert!(executor.execute(7, task).is_ok(), "there is room");
        }
        drop(pool);
        let counts = (runs.load(Ordering::Relaxed), executor.keys_active());
        assert_eq!(counts, (2, 0), "no task is lost, and no key is left");
    });
}

#[test]
fn key_on_two_workers() {
    explore("key_on_two_workers", Time::Frozen, || {
        let pool = workers(2, 4);
        let executor = pool.keyed::<u8>();
        let (is_running, runs) = (Arc::new(AtomicBool::new(false)), counter());
        for _ in 0..3 {
            let (is_running, runs) = (Arc::clone(&is_running), Arc::clone(&runs));
            let task = move || {
                assert!(!is_running.swap(true, Ordering::Relaxed), "one task of a key at a time");
                runs.fetch_add(1, Ordering::Relaxed);
                // Relaxed: the next task of the key sees it only if the executor makes it visible.
                is_running.store(false, Ordering::Relaxed);
            };
            assert!(executor.execute(7, task).is_ok(), "there is room");
        }
        drop(pool);
        assert_eq!((runs.load(Ordering::Relaxed), executor.keys_active()), (3, 0), "no task is lost");
    });
}

#[test]
fn blocked_submitter_of_a_key_and_room() {
    for time in [Time::Frozen, Time::Skips] {
        explore("blocked_submitter_of_a_key_and_room", time, || {
            let pool = one_worker(4);
            let executor = KeyedExecutor::builder(&pool).capacity(1).build();
            let runs = counter();
            for key in 0..3_u8 {
                let runs = Arc::clone(&runs);
                let task = move || {
                    runs.fetch_add(1, Ordering::Relaxed);
                };
                assert!(executor.execute(key, task).is_ok(), "a submitter that waits for room is notified of it");
            }
            drop(pool);
            assert_eq!(runs.load(Ordering::Relaxed), 3);
        });
    }
}

#[test]
fn blocked_submitter_of_a_key_and_close() {
    explore("blocked_submitter_of_a_key_and_close", Time::Frozen, || {
        let pool = Arc::new(one_worker(4));
        let executor = KeyedExecutor::builder(&pool).capacity(1).build();
        let (runs, closing) = (counter(), Arc::clone(&pool));
        let counted = Arc::clone(&runs);
        let submit = move || {
            let accepted = (0..3_u8).filter(|key| {
                let runs = Arc::clone(&counted);
                let task = move || {
                    runs.fetch_add(1, Ordering::Relaxed);
                };
                executor.execute(*key, task).is_ok()
            });
            accepted.count()
        };
        let (accepted, ()) = race(submit, move || closing.shutdown());
        assert_eq!(runs.load(Ordering::Relaxed), accepted, "a task is run, or returned to its submitter");
    });
}
